"""What a run costs by the number of samples, units and layers, and by the grid: seconds of each stage, and memory.

    python tests/bench_growth.py
    python tests/bench_growth.py --plot growth.webp

Prints one JSON line a run; each is a process of its own, so that its peak memory is its own. The generator is the
embedded one (128 pixels), or for the number of units a single layer of so many random ones at 8×8; labels are tested
fast. `capture` are the passes through both networks, `score` and `test` what follows.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect import Generator, NormalLatents, load_generator, run
from ganatomy.reports.pages import write_report

USUAL = {"samples": 1000, "units": 128, "layers": 1, "grid": 64}
VARIED = {"samples": (250, 500, 1000, 2000, 4000, 8000), "units": (64, 128, 256, 512, 1024), "layers": (1, 2, 4, 8)}
VARIED["grid"] = (16, 32, 64)
STAGES = ("capture", "score", "test", "report")


class Random(nn.Module):
    """So many units at 8×8, of which an image of 64 pixels is mixed."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.maps = nn.ConvTranspose2d(16, units, 8)
        self.shown = nn.Conv2d(units, 3, 1)

    def forward(self, latents: Tensor) -> Tensor:
        return F.interpolate(self.shown(self.maps(latents[:, :, None, None])), size=64, mode="bilinear").tanh()


def once(varied: str, value: int) -> dict[str, Any]:
    """One run in this process."""
    asked = USUAL | {varied: value}
    torch.manual_seed(0)
    if varied == "units":
        module = Random(value).requires_grad_(False)
        model = Generator(module=module, name="random", source=NormalLatents((16,)), layers=("maps",))
    else:
        model = load_generator("progan_scenes")
    layers = ["maps"] if varied == "units" else [f"layer{number}" for number in range(3, 3 + asked["layers"])]
    with tempfile.TemporaryDirectory() as folder:
        found = run(
            model,
            layers=layers,
            segmenter="scenes",
            samples=asked["samples"],
            grid=asked["grid"],
            out=Path(folder) / "run",
            keep_spool=True,
            quiet=True,
        )
        disk = sum(path.stat().st_size for path in (Path(folder) / "run" / "spool").rglob("*.npy"))
        started = time.perf_counter()
        write_report(found)
        report = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = {name: round(value, 2) for name, value in {**found.info["seconds"], "report": report}.items()}
    return {"varied": varied, "value": value, **seconds, "peak_mib": round(memory), "spool_mb": round(disk / 1e6, 1)}


def draw(found: list[dict[str, Any]], file: Path) -> None:
    """Seconds of each stage, and memory, over what was varied."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(VARIED) + 1, figsize=(15, 3.2), constrained_layout=True)
    for axis, varied in zip(axes, VARIED, strict=False):
        rows = [row for row in found if row["varied"] == varied]
        values = [row["value"] for row in rows]
        axis.stackplot(values, *[[row[stage] for row in rows] for stage in STAGES], labels=STAGES, alpha=0.85)
        axis.set(xlabel=varied, xlim=(0, max(values)), ylim=(0, None))
    axes[0].set_ylabel("seconds")
    axes[0].legend(loc="upper left", frameon=False)
    rows = [row for row in found if row["varied"] == "samples"]
    axes[-1].plot([row["value"] for row in rows], [row["peak_mib"] for row in rows], marker="o", color="#444")
    axes[-1].set(xlabel="samples", ylabel="peak memory, MiB", xlim=(0, None), ylim=(0, None))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)


@click.command()
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the figures into this file.")
@click.option("--once", "one", nargs=2, type=(click.Choice(list(VARIED)), int), hidden=True)
def main(plot: Path | None, one: tuple[str, int] | None) -> None:
    """Measure."""
    if one:
        click.echo(json.dumps(once(*one)))
        return
    found = []
    for varied, values in VARIED.items():
        for value in values:
            command = [sys.executable, __file__, "--once", varied, str(value)]
            line = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
            click.echo(line)
            found.append(json.loads(line))
    if plot:
        draw(found, plot)


if __name__ == "__main__":
    main()
