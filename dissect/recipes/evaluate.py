"""The figures of the model cards of the embedded generators, measured.

    python -m ganatomy.dissect.scenes.evaluate --model progan_scenes

Prints Markdown: the segmenter on held-out renders, class shares of generated images beside those of renders, labelled
units by layer, and what ablating the best tree units of each layer does. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...segmenters.scenes import CLASSES, ScenesSegmenter
from .. import ablate, run
from ..controls import CONTROLS
from ..effects import UNLABELLED
from ..generators.base import Generator
from ..generators.zoo import load_generator
from ..store import Dissection
from .render import render
from .train_segmenter import HELD_OUT, accuracy

NAMES = [name for name, _, _ in CLASSES]
UNSEEN = range(100_000, 100_512)  # samples that no run has used


def shares(labels: Tensor) -> pd.Series:
    """Share of pixels of each class, of labels of any shape, and of unlabelled ones."""
    counts = torch.bincount(labels.flatten() + 1, minlength=len(CLASSES) + 1).double()
    return pd.Series((counts / counts.sum()).tolist(), index=["unlabelled", *NAMES])


@torch.inference_mode()
def segmented(generator: Generator, segmenter: ScenesSegmenter, indices: range) -> Tensor:
    """labels (N, 1, 64, 64) of generated images."""
    batches = (range(start, min(start + 32, indices.stop)) for start in range(indices.start, indices.stop, 32))
    return torch.cat([segmenter(generator(generator.latents(batch))) for batch in batches])


def class_shares(generator: Generator, segmenter: ScenesSegmenter) -> pd.DataFrame:
    """Generated beside rendered, and segmented renders as the yardstick of the segmenter's own bias."""
    images, labels = render(range(len(UNSEEN)), seed=HELD_OUT)
    return pd.DataFrame(
        {
            "renders, exact": shares(torch.from_numpy(labels).long()),
            "renders, segmented": shares(segmenter(torch.from_numpy(images))),
            "generated, segmented": shares(segmented(generator, segmenter, UNSEEN)),
        }
    )


def labelled(found: Dissection) -> pd.DataFrame:
    """Units of each layer that reach the rule's limits, that pass the test, and the same of the layer's controls."""
    table = found.summary().set_index("layer")
    for name, control in found.controls.items():
        other = control.summary().set_index("layer")
        table[name] = [f"{row.labelled} of {row.reach_limits}" for row in other.itertuples()]
    return table


def interventions(generator: Generator, segmenter: ScenesSegmenter, found: Dissection) -> pd.DataFrame:
    """What ablating the 20 units of each layer that a scan finds best for trees does, on unseen samples."""
    rows = {}
    for layer in found.layers:
        effects = ablate(found, label="tree", layer=layer, by="scan", generator=generator, segmenter=segmenter)
        tree, sets = effects["tree"], effects.sets
        others = effects.table[~effects.table["class"].isin(["tree", UNLABELLED])]
        worst = others.loc[others.relative.idxmin()]
        random = [tree[f"{kind}_relative_{end}"] for kind in ("random", "matched") for end in ("min", "max")]
        baseline = sets[sets.set != "chosen"].on_target
        rows[layer] = {
            "tree": f"{tree.relative:+.0%} [{tree.relative_low:+.0%}, {tree.relative_high:+.0%}]",
            "random sets": f"{min(random):+.0%} to {max(random):+.0%}",
            "on target": f"{sets.on_target[0]:.0%}; {baseline.min():.0%} to {baseline.max():.0%}",
            "most lost else": f"{worst['class']} {worst.relative:+.0%}",
            "unlabelled": f"{effects[UNLABELLED].before:.1%} to {effects[UNLABELLED].after:.1%}",
        }
    return pd.DataFrame(rows).T


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
def main(model: str, samples: int) -> None:
    """Measure and print."""
    generator = load_generator(model)
    segmenter = ScenesSegmenter()
    for spoilt in (False, True):
        scores = accuracy(segmenter.network, spoilt=spoilt)
        print("spoilt renders:" if spoilt else "clean renders:", {k: round(v, 4) for k, v in scores.items()})
    print("\n" + table(class_shares(generator, segmenter), "{:.2%}"))
    with tempfile.TemporaryDirectory() as folder:
        found = run(
            generator,
            layers=generator.layers,
            segmenter=segmenter,
            samples=samples,
            controls=CONTROLS,
            out=Path(folder) / "run",
        )
        print("\n" + table(labelled(found), "{:.4g}"))
        print("\n" + table(interventions(generator, segmenter, found), "{}"))


if __name__ == "__main__":
    main()
