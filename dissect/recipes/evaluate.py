"""The figures of the model cards of the embedded generators, measured.

    python -m ganatomy.dissect.recipes.evaluate --model progan_scenes --layer layer5

Prints Markdown: the segmenter on held-out renders, class shares of generated images beside those of renders, the audit
of diversity, labelled units by layer, and, in one layer, what ablating the best tree units and inserting the best door
units does. Takes half an hour on two cores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...segmenters.scenes import CLASSES, ScenesSegmenter
from .. import ablate, insert, run, scan
from ..diversity import audit
from ..generators.base import Generator
from ..generators.loading import load_generator
from ..images.class_areas import UNLABELLED, pixel_counts
from ..interventions.result import Effects
from ..runs.controls import CONTROLS
from ..runs.dissection import Dissection
from ..scenes.render import render
from ..subjects.opening import usable_device
from .train_segmenter import HELD_OUT, accuracy

NAMES = [name for name, _, _ in CLASSES]
UNSEEN = range(100_000, 100_512)  # samples that no run has used
DOORS = 4  # units: more do more beside doors
LARGE = 0.02  # of the image: what a class covers on average to count as large


def shares(labels: Tensor) -> pd.Series:
    """Share of pixels of each class, of labels of any shape, and of unlabelled ones."""
    counts = pixel_counts(labels.reshape(1, 1, 1, -1), len(CLASSES))[0].roll(1).double()
    return pd.Series((counts / counts.sum()).tolist(), index=[UNLABELLED, *NAMES])


@torch.inference_mode()
def segmented(generator: Generator, segmenter: ScenesSegmenter, indices: range) -> Tensor:
    """labels (N, 1, H, W) of generated images."""
    batches = (range(start, min(start + 32, indices.stop)) for start in range(indices.start, indices.stop, 32))
    return torch.cat([segmenter(generator(generator.latents(batch))) for batch in batches])


def class_shares(generator: Generator, segmenter: ScenesSegmenter) -> pd.DataFrame:
    """Generated beside rendered, and segmented renders as the yardstick of the segmenter's own bias."""
    images, labels = render(range(len(UNSEEN)), seed=HELD_OUT)
    return pd.DataFrame(
        {
            "renders, exact": shares(torch.from_numpy(labels).long()),
            "renders, segmented": shares(segmenter(torch.from_numpy(images).to(generator.device))),
            "generated, segmented": shares(segmented(generator, segmenter, UNSEEN)),
        }
    )


def labelled(dissection: Dissection) -> pd.DataFrame:
    """Units of each layer that reach the rule's limits, that pass the test, and the same of the layer's controls."""
    table = dissection.summary().set_index("layer")
    for name, control in dissection.controls.items():
        other = control.summary().set_index("layer")
        table[name] = [f"{row.labelled} of {row.reach_limits}" for row in other.itertuples()]
    return table


def ablated(effects: Effects) -> pd.DataFrame:
    """What an ablation of tree units did."""
    tree, sets = effects["tree"], effects.sets
    others = effects.table[~effects.table["class"].isin(["tree", UNLABELLED])]
    large = others[others.before > LARGE]
    worst = large.loc[large.relative.abs().idxmax()]
    random = [tree[f"{kind}_relative_{end}"] for kind in ("random", "matched") for end in ("min", "max")]
    baseline = sets[sets.set != "chosen"].on_target
    row = {
        "tree": f"{tree.relative:+.0%} [{tree.relative_low:+.0%}, {tree.relative_high:+.0%}]",
        "random sets": f"{min(random):+.0%} to {max(random):+.0%}",
        "on target": f"{sets.on_target[0]:.0%}; {baseline.min():.0%} to {baseline.max():.0%}",
        "most changed of the large classes": f"{worst['class']} {worst.relative:+.0%}",
        "unlabelled": f"{effects[UNLABELLED].before:.1%} to {effects[UNLABELLED].after:.1%}",
    }
    return pd.DataFrame({effects.info["name"]: row}).T


def inserted(effects: Effects) -> pd.DataFrame:
    """What an insertion of door units did."""
    door = effects["door"]
    row = {
        "door, points of the image": f"{door.change_pp:+.3f} [{door.change_pp_low:+.3f}, {door.change_pp_high:+.3f}]",
        "relative": f"{door.relative:+.0%} [{door.relative_low:+.0%}, {door.relative_high:+.0%}]",
        "random sets, points": f"{door.random_pp_min:+.3f} to {door.random_pp_max:+.3f}",
    }
    return pd.DataFrame({effects.info["name"]: row}).T


def table(frame: pd.DataFrame, form: str) -> str:
    """A Markdown table."""
    head = ["", *map(str, frame.columns)]
    lines = [head, ["---", *["---:"] * len(frame.columns)]]
    for name, row in frame.iterrows():
        lines.append(
            [str(name), *(v if isinstance(v, str) else form.format(v) if np.isfinite(v) else "–" for v in row)]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@click.command()
@click.option("--model", default="progan_scenes", show_default=True)
@click.option("--samples", default=1000, show_default=True)
@click.option("--layer", help="In which tree units are ablated; the others are only dissected.")
@click.option("--doors", default="layer7", show_default=True, help="In which door units are switched on.")
@click.option("--scanned", default=16, show_default=True, help="Samples on which each unit is ablated alone.")
@click.option("--device", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/card"), show_default=True)
def main(model: str, samples: int, layer: str | None, doors: str, scanned: int, device: str, out: Path) -> None:
    """Measure and print."""
    device = usable_device(device)
    generator = load_generator(model, device=device)
    segmenter = ScenesSegmenter(device)
    models: dict[str, Any] = {"generator": generator, "segmenter": segmenter, "device": device}
    for spoilt in (False, True):
        scores = accuracy(segmenter.network, spoilt=spoilt, device=device)
        print(
            "spoilt renders:" if spoilt else "clean renders:", {k: round(v, 4) for k, v in scores.items()}, flush=True
        )
    print("\n" + table(class_shares(generator, segmenter), "{:.2%}"), flush=True)
    diversity = audit(model, samples=samples, device=device, out=out / "diversity")
    metrics = diversity.whole.set_index("metric")[["value", "low", "high", "zero", "alarm"]]
    print(f"\n{diversity.info['sentence']}\n\n" + table(metrics.astype({"alarm": str}), "{:.3g}"), flush=True)
    classes = diversity.classes.set_index("class")[["presence", "real_presence", "share", "real_share", "verdict"]]
    print("\n" + table(classes.fillna({"verdict": ""}), "{:.3%}"), flush=True)
    dissection = run(
        generator,
        layers=generator.layers,
        segmenter=segmenter,
        samples=samples,
        controls=CONTROLS,
        device=device,
        out=out / "run",
    )
    print("\n" + table(labelled(dissection), "{:.4g}"), flush=True)
    if layer is None:
        return
    scan(dissection, label="tree", layer=layer, samples=scanned, **models)
    for by in ("scan", "iou"):
        effects = ablate(dissection, label="tree", layer=layer, by=by, name=f"trees-{by}", **models)
        print("\n" + table(ablated(effects), "{}"), flush=True)
    for surface in ("building", "sky"):
        effects = insert(
            dissection,
            label="door",
            layer=doors,
            top=DOORS,
            where=f"class:{surface}",
            name=f"doors-{surface}",
            **models,
        )
        print("\n" + table(inserted(effects), "{}"), flush=True)


if __name__ == "__main__":
    main()
