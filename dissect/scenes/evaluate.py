"""The figures of the model card of `progan_scenes`, measured.

    python -m ganatomy.dissect.scenes.evaluate --sheet sheet.png

Prints Markdown: the segmenter on held-out renders, class shares of generated images beside those of renders, labelled
units by layer, and what ablating the best tree units of each layer does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ...hooks.edit import Edit, edited
from ...segmenters.scenes import CLASSES, ScenesSegmenter
from .. import run
from ..generators.base import Generator
from ..generators.zoo import load_generator
from ..scores import iqr
from ..store import Dissection
from .render import render
from .train_segmenter import HELD_OUT, accuracy

NAMES = [name for name, _, _ in CLASSES]
TOP = 20
PICTURED = "layer6"
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


def best_units(found: Dissection, layer: str, name: str) -> tuple[int, ...]:
    """The 20 units that tell most of a class: highest IQR over the levels, on the half that chooses.

    Not by IoU, which is partial to large masks: 20 units by IoU removed less than half of what these remove.
    """
    ratio = iqr(found.counts(layer, "choose"))[:, NAMES.index(name)].max(1)
    return tuple(map(int, np.argsort(-ratio, kind="stable")[:TOP]))


def ablate_trees(generator: Generator, segmenter: ScenesSegmenter, found: Dissection) -> pd.DataFrame:
    """Change of each class's area, relative to before, when a layer's best tree units are ablated."""
    before = shares(segmented(generator, segmenter, UNSEEN))
    columns = {}
    for layer in found.layers:
        with edited(generator.module, Edit(layer=layer, units=best_units(found, layer, "tree"))):
            columns[layer] = shares(segmented(generator, segmenter, UNSEEN)) / before - 1
    return pd.DataFrame(columns)


def sheet(generator: Generator, found: Dissection, layer: str, path: Path) -> None:
    """16 unseen samples, each above itself with the layer's tree units ablated."""
    latents = generator.latents(UNSEEN[:16])
    with torch.inference_mode():
        plain = generator(latents)
        with edited(generator.module, Edit(layer=layer, units=best_units(found, layer, "tree"))):
            changed = generator(latents)
    rows = [torch.cat(list(half), 2) for pair in zip(plain.split(8), changed.split(8), strict=True) for half in pair]
    Image.fromarray((torch.cat(rows, 1).permute(1, 2, 0) * 255).round().byte().numpy()).save(path)


def table(frame: pd.DataFrame, form: str) -> str:
    """A Markdown table."""
    head = ["", *map(str, frame.columns)]
    lines = [head, ["---", *["---:"] * len(frame.columns)]]
    lines += [[str(name), *(form.format(v) if np.isfinite(v) else "–" for v in row)] for name, row in frame.iterrows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@click.command()
@click.option("--samples", default=1000, show_default=True)
@click.option("--sheet", "picture", type=click.Path(path_type=Path), help="File for ablated samples.")
def main(samples: int, picture: Path | None) -> None:
    """Measure and print."""
    generator = load_generator("progan_scenes")
    segmenter = ScenesSegmenter()
    for spoilt in (False, True):
        scores = accuracy(segmenter.network, spoilt=spoilt)
        print("spoilt renders:" if spoilt else "clean renders:", {k: round(v, 4) for k, v in scores.items()})
    print("\n" + table(class_shares(generator, segmenter), "{:.2%}"))
    with tempfile.TemporaryDirectory() as folder:
        found = run(generator, layers=generator.layers, segmenter=segmenter, samples=samples, out=Path(folder) / "run")
        print("\n" + table(found.summary().set_index("layer"), "{:.4g}"))
        effects = ablate_trees(generator, segmenter, found)
        print("\n" + table(effects, "{:+.0%}"))
        if picture:
            sheet(generator, found, PICTURED, picture)


if __name__ == "__main__":
    main()
