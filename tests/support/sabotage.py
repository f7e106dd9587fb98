"""Embedded generators that are sabotaged on purpose, and the ones that are not: what an audit of diversity is tried on.

`Squeezed` and `Few` are latents, and so is what `dropping` makes: those whose images lack a class. `narrowed` puts a
bottleneck behind a layer; `units_against` are those whose ablation makes a class leave; `early` are checkpoints of a
training that has hardly begun.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganatomy.dissect import Dissection, Generator, NormalLatents, scan
from ganatomy.dissect.diversity.by_class import PRESENT
from ganatomy.dissect.images.class_areas import shares
from ganatomy.dissect.runs.lookup import rank_by_iou
from ganatomy.hooks import Edit, Tap, edited
from ganatomy.hooks.layers import find_layer
from ganatomy.segmenters import Segmenter

FITTED = 256  # samples from which the directions of a bottleneck are taken
TRIED = 128  # images on which the presence of a class is tried
SCANNED, SCANNED_LAYERS = 16, 2  # images on which units are ablated alone, and in how many layers
ENOUGH = 500  # latents that are chosen
GONE = 0.1  # of a class's presence: what may be left of one that is suppressed
SHRINK = 0.05  # of the deviation from the mean
RECIPE = (  # of dcgan_scenes
    *("--latent", "64", "--batch", "16", "--rate", "2e-3", "--ratio", "0.6"),
    *("--half-life", "5500", "--discriminator", "16,32,64,128,192"),
)
KINDS = ("rank 1", "rank 2", "rank 4", f"shrunk to {SHRINK}")  # of bottlenecks


@dataclass(frozen=True)
class Squeezed(NormalLatents):
    """Latents moved towards the first, z' = s z + √(1 − s²) z₀: all of them at s = 1, one image at s = 0."""

    strength: float = 1.0

    def __call__(self, indices: Sequence[int]) -> Tensor:
        drawn, middle = super().__call__(indices), super().__call__([0])
        return self.strength * drawn + (1 - self.strength**2) ** 0.5 * middle


@dataclass(frozen=True)
class Few(NormalLatents):
    """The first latents over and over."""

    number: int = 1

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return super().__call__([index % self.number for index in indices])


@dataclass(frozen=True)
class Chosen(NormalLatents):
    """Some latents, in that order."""

    order: tuple[int, ...] = ()

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return super().__call__([self.order[index] for index in indices])


@contextmanager
def narrowed(generator: Generator, layer: str, kind: str, samples: Sequence[int]) -> Iterator[None]:
    """While open, what a layer outputs is projected onto its first principal components, or drawn to its mean.

    Both are taken from these samples, which should not be those that are audited.
    """
    with torch.inference_mode(), Tap(generator.module, [layer]) as tap:
        generator(generator.latents(samples))
        x = tap[layer].flatten(1)
    mean = x.mean(0)
    if kind.startswith("rank"):
        rank = int(kind.removeprefix("rank "))
        apart = x - mean
        strongest = torch.linalg.eigh(apart @ apart.T)[1][:, -rank:]  # (N, rank)
        along = torch.linalg.qr(apart.T @ strongest)[0].T  # (rank, D)
    else:
        along = torch.empty(0)

    def narrow(_layer: nn.Module, _inputs: object, out: Tensor) -> Tensor:
        apart = out.flatten(1) - mean
        return (mean + (apart @ along.T @ along if len(along) else SHRINK * apart)).view_as(out)

    handle = find_layer(generator.module, layer).register_forward_hook(narrow)
    try:
        yield
    finally:
        handle.remove()


def presence(generator: Generator, namer: Segmenter, samples: Sequence[int]) -> NDArray[np.bool_]:
    """(N, C) which of these samples show which class."""
    with torch.inference_mode():
        images = generator(generator.latents(samples))
        found: NDArray[np.float64] = shares(namer(images), len(namer.vocabulary.names))[:, :-1].numpy()
    return found >= PRESENT


def presences(generator: Generator, namer: Segmenter, samples: Sequence[int]) -> NDArray[np.float64]:
    """(C,) share of these samples that show each class."""
    return presence(generator, namer, samples).mean(0)


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """Units whose ablation makes a class leave, as well as it can be done."""

    edit: Edit
    by: str  # what they were chosen by
    left: float  # of the class's presence
    harm: float  # the largest change of another class's presence

    def __str__(self) -> str:
        units = f"{len(self.edit.units)} units of {self.edit.layer} by {self.by}"
        return f"{units}: {self.left:.0%} of it left, others ±{self.harm:.0%}"


def units_against(generator: Generator, namer: Segmenter, run: Dissection, name: str) -> Suppression:
    """In every layer of the run the units labelled so, then ever more by IoU, until less than a tenth of it is left.

    Where no layer gets there, those with the least left are tried once more, with units by their effect alone. Of what
    gets there, that which changes other classes least; else that which leaves least.
    """
    number, samples = namer.vocabulary.names.index(name), range(TRIED)
    healthy = presences(generator, namer, samples)

    def tried(layer: str, by: str, order: Sequence[int], labelled: int = 0) -> Iterator[Suppression]:
        for top in sorted({labelled, *(2**k for k in range(1, 8))} - {0}):
            if top > len(order) // 2:
                return
            edit = Edit(layer=layer, units=tuple(order[:top]))
            with edited(generator.module, edit):
                now = presences(generator, namer, samples)
            left, harm = float(now[number] / healthy[number]), np.abs(np.delete(now - healthy, number)).max()
            yield Suppression(edit=edit, by=by, left=left, harm=float(harm))
            if left < GONE:
                return

    found: list[Suppression] = []
    for layer in run.layers:
        labelled = int((run.units.labelled & (run.units.layer == layer) & (run.units.label == name)).sum())
        found += tried(layer, "IoU", rank_by_iou(run, layer, name, labelled_needed=False).tolist(), labelled)
    best = list(dict.fromkeys(one.edit.layer for one in sorted(found, key=lambda one: one.left)))[:SCANNED_LAYERS]
    for layer in best if min(one.left for one in found) >= GONE else ():
        scanned = scan(run, label=name, layer=layer, samples=SCANNED, generator=generator, segmenter=namer, quiet=True)
        found += tried(layer, "effect", scanned.table.unit.tolist())
    gone = [one for one in found if one.left < GONE]
    return min(gone, key=lambda one: one.harm) if gone else min(found, key=lambda one: one.left)


def dropping(source: NormalLatents, generator: Generator, namer: Segmenter, name: str, share: float) -> Chosen:
    """Latents without that share of those whose images show a class: it becomes rarer, and nothing is drawn amiss."""
    number, batch, kept = namer.vocabulary.names.index(name), 50, list[int]()
    generator, start = replace(generator, source=source), 0
    while len(kept) < ENOUGH:
        has = presence(generator, namer, range(start, start + batch))[:, number]
        spared = np.random.default_rng([source.seed, start]).random(batch) >= share
        kept += (np.flatnonzero(~has | spared) + start).tolist()
        start += batch
    return Chosen(source.shape, source.seed, order=tuple(kept))


def early(folder: Path, ages: Sequence[int]) -> list[Path]:
    """Checkpoints of a DCGAN after so many images, trained in that folder; those that are there are taken."""
    found = [folder / f"{age:07d}.pt" for age in sorted(ages)]
    for age, file in zip(sorted(ages), found, strict=True):
        if not file.exists():
            module = "ganatomy.dissect.recipes.train_generator"
            options = ["--architecture", "dcgan", "--out", str(folder / "training"), "--images", str(age), *RECIPE]
            subprocess.run([sys.executable, "-m", module, *options], check=True, capture_output=True)
            shutil.copy(folder / "training" / "generator.pt", file)
    return found
