"""How near `dissect run` comes to the fastest plain pass: the generator and segmenter forward passes alone.

    python tests/bench.py                      # all cases
    python tests/bench.py --samples 1000 --case scenes --rounds 3
    python tests/bench.py --device cuda --case scenes --case large --case scan --case ablate --samples 10000

Prints one JSON line a case. Plain passes and runs alternate within one process and with the same number of threads, the
plain passes in the batch size in which they are fastest: `floor` with memory kept as a run keeps it, `plain` as torch
comes, but for what glibc has learnt; `fastest_plain` is the shorter of the two in each round, over which ratios are
taken. Figures are medians over the rounds. `dissect run` is timed from the call to
the finished tables, probe, hashing of the weights and label choice included, once without a test of the labels, once
with each kind of test, and once with the fast test and the causal table (`causes`); `report` is the fast test and the
HTML report. Peak memory is measured in a process of its own.

Cases: `scenes` is the embedded generator, layer4 (256 units at 8×8); `wide` is a progressive GAN of 64 pixels
with random weights and 256 units at 16×16; `large` is one of 256 pixels with 512 units at 8×8 in layer4 and a segmenter
of the size of those for ADE20K (SegFormer-B1, 150 classes), both with random weights, on 96 samples. `scan` ablates
each of the 256 units of `wide` alone on 64 samples, and compares that with 256 plain passes over them, forward and
segmentation, timed before, between and after; and it verifies by need for five classes of `scenes`, layer5, 32
samples, and compares time and the 20 strongest units with the exact scan's. `report` writes the report of 512 units
on images of 256 pixels with the spectrum of photographs: seconds and megabytes. `watch` looks at `progan_scenes` as a
training's callback does, page included, and compares that with drawing and segmenting the same 64 latents. `ablate`
measures 20 units of `wide` off, with ten random sets, on 256 samples. On a GPU all samples of `large` are taken,
lines hold the peak of its memory, and the run is timed once more in bfloat16.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect import Dissection, Generator, NormalLatents, Scan, Watch, ablate, load_generator, run
from ganatomy.dissect import scan as dissect_scan
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.interventions.areas import Variants, measure
from ganatomy.dissect.runtime.resources import BATCH, Threads, at_work
from ganatomy.dissect.subjects.subject import Subject
from ganatomy.hooks.errors import UsageError
from ganatomy.reports.pages import write_report
from ganatomy.reports.watch import write_watch
from ganatomy.segmenters import Segmenter, Vocabulary, load_segmenter

CASES = {"scenes": "layer4", "wide": "layer6", "large": "layer4"}
EVERY = [*CASES, "scan", "ablate", "report", "watch", "memory"]
LARGE = 96  # samples, at most, of the case `large` on a CPU
BATCHES = {"cpu": (2, 4, 8, 16, 32), "cuda": (32, 64, 128, 256, 512)}  # tried for the floor
MODES = ("off", "fast", "full")  # tests of labels
SCANNED = 64  # samples


def generator(case: str, device: str = "cpu") -> Generator:
    """The generator of a case."""
    if case == "scenes":
        return load_generator("progan_scenes", device=device)
    torch.manual_seed(0)
    latent, widths = (64, (256, 256, 256, 128, 64)) if case == "wide" else (512, (512, 512, 512, 256, 128, 64, 32))
    module = ProGAN(latent, widths).to(device).to(memory_format=torch.channels_last).requires_grad_(False)
    layers = tuple(f"layer{i}" for i in range(1, 2 * len(widths) + 1))
    return Generator(module=module, name=case, source=NormalLatents((latent,)), layers=layers)


def namer(case: str, device: str = "cpu") -> Segmenter:
    """The segmenter of a case; for `large` one of the size of those trained on ADE20K, which knows nothing."""
    if case != "large":
        return load_segmenter("scenes", device)
    from segmentation_models_pytorch import Segformer

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        Segformer("mit_b1", encoder_weights=None, classes=150).save_pretrained(folder)
        return load_segmenter(f"hub:{folder}", device)


@torch.inference_mode()
def floor(model: Generator, segmenter: Segmenter, samples: int, batch: int = BATCH["cpu"], kept: bool = True) -> float:
    """Seconds for the two forward passes and nothing else."""
    threads = Threads()
    started = time.perf_counter()
    with at_work() if kept else nullcontext():
        for start in range(0, samples, batch):
            with threads:
                segmenter(model(model.latents(range(start, min(start + batch, samples)))))
        if model.device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - started


def dissected(
    model: Generator,
    segmenter: Segmenter,
    case: str,
    samples: int,
    folder: Path,
    significance: str = "fast",
    precision: str = "float32",
    causes: str = "off",
) -> tuple[float, Dissection]:
    """Seconds to finished tables."""
    started = time.perf_counter()
    found = run(
        model,
        layers=[CASES[case]],
        segmenter=segmenter,
        samples=samples,
        significance=significance,
        precision=precision,
        causes=causes,
        device=model.device.type,
        out=folder,
        quiet=True,
    )
    return time.perf_counter() - started, found


def once(
    model: Generator, segmenter: Segmenter, case: str, samples: int, folder: Path, mode: str
) -> tuple[float, Dissection]:
    """A run in one of `MODES`; with the fast test and `causes`; or in bfloat16 without a test."""
    if mode == "bfloat16":
        return dissected(model, segmenter, case, samples, folder, "off", mode)
    if mode == "causes":
        return dissected(model, segmenter, case, samples, folder, causes="fast")
    return dissected(model, segmenter, case, samples, folder, mode)


def best_batch(model: Generator, segmenter: Segmenter, samples: int) -> int:
    """The batch size in which so many samples pass both networks fastest, after a warm-up."""
    floor(model, segmenter, samples)
    sizes = [size for size in BATCHES[model.device.type] if size <= max(samples, BATCHES[model.device.type][0])]
    return min(sizes, key=lambda size: min(floor(model, segmenter, samples, size) for _ in range(2)))


def compare(case: str, samples: int, rounds: int, device: str) -> dict[str, object]:
    """One line of results."""
    model, segmenter = generator(case, device), namer(case, device)
    threads = torch.get_num_threads()
    samples = min(samples, LARGE) if case == "large" and device == "cpu" else samples
    some = min(samples // 4, 128 if device == "cpu" else 512)
    batch = best_batch(model, segmenter, some)
    modes = (*MODES, "causes") if device == "cpu" else (*MODES[:2], "causes", "bfloat16")
    with suppress(UsageError), tempfile.TemporaryDirectory() as folder:  # a GPU loads what it needs at its first use
        for mode in modes:
            once(model, segmenter, case, min(some, 256), Path(folder) / mode, mode)
    refused: dict[str, str] = {}
    taken: dict[str, list[float]] = {name: [] for name in ("plain", "floor", *modes, "report")}
    for _ in range(rounds):
        torch.set_num_threads(threads)
        taken["plain"].append(floor(model, segmenter, samples, batch, kept=False))
        torch.set_num_threads(threads)
        taken["floor"].append(floor(model, segmenter, samples, batch))
        for mode in modes:
            torch.set_num_threads(threads)
            with tempfile.TemporaryDirectory() as folder:
                try:
                    seconds, found = once(model, segmenter, case, samples, Path(folder) / "run", mode)
                except UsageError as error:
                    refused[mode] = str(error)
                    continue
                taken[mode].append(seconds)
                stages = found.info["seconds"]
                if mode == "fast":
                    started = time.perf_counter()
                    write_report(found)
                    taken["report"].append(seconds + time.perf_counter() - started)
    taken = {name: seconds for name, seconds in taken.items() if seconds}
    fastest = [min(both) for both in zip(taken["plain"], taken["floor"], strict=True)]
    taken = {"fastest_plain": fastest, **taken}

    def ratio(above: str, below: str) -> float | None:
        if above not in taken:
            return None
        return round(statistics.median(a / b for a, b in zip(taken[above], taken[below], strict=True)), 3)

    return {
        "case": case,
        "layer": CASES[case],
        "samples": samples,
        "rounds": rounds,
        "floor_batch": batch,
        **{f"{name}_s": round(statistics.median(seconds), 2) for name, seconds in taken.items()},
        "stages_s": stages,
        **({"refused": refused} if refused else {}),
        "tables_over_plain": ratio("off", "fastest_plain"),
        "fast_over_plain": ratio("fast", "fastest_plain"),
        "fast_over_off": ratio("fast", "off"),
        "report_over_plain": ratio("report", "fastest_plain"),
        "causes_over_fast": ratio("causes", "fast"),
        **(
            {"full_over_off": ratio("full", "off")}
            if device == "cpu"
            else {"bf16_over_plain": ratio("bfloat16", "fastest_plain")}
        ),
        **machine(device),
    }


def machine(device: str) -> dict[str, object]:
    """The card and the most memory that it gave, in GiB."""
    if device == "cpu":
        return {}
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return {"device": torch.cuda.get_device_name(), "peak_gib": round(peak, 2)}


def scan(device: str, case: str = "wide", parts: int = 4) -> dict[str, object]:
    """A scan of all 256 units in `parts`, between plain passes over the same samples."""
    model, segmenter = generator(case, device), load_segmenter("scenes", device)
    subject = Subject.open(model, segmenter, CASES[case])
    units = subject.shape[0]
    batch = best_batch(model, segmenter, SCANNED)
    plain, seconds = [floor(model, segmenter, SCANNED, batch)], 0.0
    for some in torch.eye(units).chunk(parts):
        started = time.perf_counter()
        measure(subject, range(SCANNED), Variants(weight=some[:, None], value=torch.zeros(units)))
        seconds += time.perf_counter() - started
        plain += [floor(model, segmenter, SCANNED, batch) for _ in range(2)]
    middle = statistics.median(plain)
    return {
        "case": f"scan {case}",
        "layer": subject.layer,
        "units": units,
        "samples": SCANNED,
        "plain_s": round(middle, 3),
        "scan_s": round(seconds, 1),
        "scan_over_plain": round(seconds / units / middle, 3),
        **machine(device),
    }


def by_need(device: str, layer: str = "layer5", samples: int = 32, top: int = 20) -> list[dict[str, object]]:
    """Scans that verify by need, each in a folder of its own, beside the scan that ablates each unit."""
    model, segmenter = generator("scenes", device), load_segmenter("scenes", device)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        layer_run = run(
            model, layers=[layer], segmenter=segmenter, samples=200, significance="off", out=out / "run", quiet=True
        )

        def timed(label: str, exact: bool) -> tuple[float, Scan]:
            started = time.perf_counter()
            ranking = dissect_scan(
                layer_run,
                label=label,
                samples=samples,
                top=top,
                exact=exact,
                generator=model,
                segmenter=segmenter,
                quiet=True,
            )
            return time.perf_counter() - started, ranking

        rankings = {}
        for label in ("tree", "sky", "door", "cloud", "dome"):
            shutil.rmtree(layer_run.folder / "interventions", ignore_errors=True)
            rankings[label] = timed(label, exact=False)
        shutil.rmtree(layer_run.folder / "interventions")
        exact_s = timed("tree", exact=True)[0]
        for label, (seconds, ranking) in rankings.items():
            strongest = timed(label, exact=True)[1].table.unit[:top]
            lines.append(
                {
                    "case": "scan by need",
                    "layer": layer,
                    "class": label,
                    "samples": samples,
                    "exact_s": round(exact_s, 1),
                    "seconds": round(seconds, 1),
                    "share_of_exact": round(seconds / exact_s, 3),
                    "ablated": ranking.info["verified"],
                    "recall": float(strongest.isin(ranking.table.unit[:top]).mean()),
                    "agreement": ranking.info["agreement"],
                    "caution": bool(ranking.caution),
                }
            )
    return lines


def ablated(device: str, case: str = "wide", samples: int = 256) -> dict[str, object]:
    """An ablation of 20 units with its ten random sets, over as many plain passes over its samples."""
    model, segmenter = generator(case, device), load_segmenter("scenes", device)
    with tempfile.TemporaryDirectory() as folder:
        _, found = dissected(model, segmenter, case, samples, Path(folder) / "run", "off")
        batch = best_batch(model, segmenter, samples)
        plain = min(floor(model, segmenter, samples, batch) for _ in range(3))
        started = time.perf_counter()
        effects = ablate(
            found,
            units=range(20),
            label="tree",
            samples=samples,
            generator=model,
            segmenter=segmenter,
            device=device,
            quiet=True,
        )
        seconds = time.perf_counter() - started
    passes = 1 + len(effects.sets)
    return {
        "case": f"ablate {case}",
        "samples": samples,
        "passes": passes,
        "plain_s": round(plain, 3),
        "ablate_s": round(seconds, 2),
        "ablate_over_plain": round(seconds / passes / plain, 3),
        **machine(device),
    }


class Clouds(nn.Module):
    """512 units at 8×8; images (N, 3, 256, 256) whose spectrum falls as that of photographs does, with 1 / f."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ConvTranspose2d(16, 512, 8)
        self.shown = nn.Conv2d(512, 3, 1)

    def forward(self, latents: Tensor) -> Tensor:
        coarse = self.shown(self.maps(latents[:, :, None, None]))
        dice = torch.Generator().manual_seed(0)
        octaves = [
            coarse,
            *(torch.randn(len(latents), 3, 8 * 2**k, 8 * 2**k, generator=dice) / 2**k for k in range(1, 6)),
        ]
        return torch.stack([F.interpolate(one, size=256, mode="bilinear") for one in octaves]).sum(0).mul(0.5).tanh()


class Brightest:
    """Names a pixel by its brightest channel."""

    name = "brightest"
    vocabulary = Vocabulary(
        names=("red", "green", "blue"), categories=("object",) * 3, colours=("#ff0000", "#00ff00", "#0000ff")
    )

    def __call__(self, images: Tensor) -> Tensor:
        return images.argmax(1, keepdim=True)


def report(samples: int) -> dict[str, object]:
    """Seconds and size of a report, as a folder and as a single file."""
    torch.manual_seed(0)
    module = Clouds().requires_grad_(False)
    model = Generator(module=module, name="clouds", source=NormalLatents((16,)), layers=("maps",))
    with tempfile.TemporaryDirectory() as folder:
        found = run(
            model, layers=["maps"], segmenter=Brightest(), samples=samples, out=Path(folder) / "run", quiet=True
        )
        started = time.perf_counter()
        page = write_report(found)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
        single = write_report(found, single_file=True).stat().st_size
        images = len(list((page.parent / "images").iterdir()))
    return {
        "case": "report",
        "units": 512,
        "samples": samples,
        "images": images,
        "report_s": round(seconds, 1),
        "folder_mb": round(size / 1e6, 1),
        "single_file_mb": round(single / 1e6, 1),
    }


def watched(rounds: int) -> dict[str, object]:
    """Seconds of a call of `Watch`, after the first, over the two forward passes."""
    model, segmenter = load_generator("progan_scenes"), load_segmenter("scenes")
    floors, calls = [], []
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(folder, segmenter=segmenter, page=lambda found: write_watch(found, live=True))
        for number in range(rounds + 1):
            floors.append(floor(model, segmenter, watch.samples))
            started = time.perf_counter()
            watch(model, number)
            calls.append(time.perf_counter() - started)
    seconds, least = statistics.median(calls[1:]), statistics.median(floors[1:])
    return {
        "case": "watch",
        "samples": watch.samples,
        "first": round(calls[0], 2),
        "seconds": round(seconds, 3),
        "floor": round(least, 3),
        "ratio": round(seconds / least, 2),
    }


def peak_memory(samples: int) -> dict[str, object]:
    """Peak resident memory of a run in a fresh process."""
    code = (
        "import pathlib, resource, sys; sys.path.insert(0, sys.argv[2]); import bench\n"
        "model, names = bench.generator('scenes'), bench.load_segmenter('scenes')\n"
        "import tempfile\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    bench.dissected(model, names, 'scenes', int(sys.argv[1]), pathlib.Path(folder) / 'run')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", code, str(samples), str(Path(__file__).parent)]
    kilobytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    return {"case": "memory", "samples": samples, "peak_mib": round(kilobytes / 1024)}


@click.command()
@click.option("--samples", default=1000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--case", "cases", multiple=True, type=click.Choice(EVERY), help="[default: all]")
@click.option("--device", type=click.Choice(list(BATCHES)), default="cpu", show_default=True)
def main(samples: int, rounds: int, cases: tuple[str, ...], device: str) -> None:
    """Measure."""
    for case in cases or EVERY:
        if case == "memory":
            lines = [peak_memory(n) for n in (500, 5000)]
        elif case == "scan":
            lines = [scan(device), *by_need(device)]
        elif case == "ablate":
            lines = [ablated(device)]
        elif case == "watch":
            lines = [watched(rounds)]
        elif case == "report":
            lines = [report(samples)]
        else:
            lines = [compare(case, samples, rounds, device)]
        for line in lines:
            click.echo(json.dumps(line))


if __name__ == "__main__":
    main()
