"""Draw samples with several versions of a generator: features of the images, class areas, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...hooks.edit import Edit, edited
from ...segmenters import segment
from ...segmenters.base import Segmenter
from ..fidelity.distances import BEFORE, RANDOM, REPAIRED, compare
from ..fidelity.features import Features
from ..fidelity.reference import Reference
from ..generators.base import Generator
from ..images import resize as gr
from ..images.class_areas import shares
from ..images.resize import SIDE
from ..runtime import distributed
from ..runtime.progress import Fewer, Progress
from ..stats.class_changes import AreaChange, effects_table
from ..stats.intervals import rounds
from ..subjects.subject import failing

SHOWN = 12  # pictures of each role
LEAST = 64  # samples: halves of fewer say nothing
ROLES = ("worst before", "most changed")

Edits = Sequence[Edit]
Draw = Callable[[Sequence[int]], Tensor]  # samples -> their images (n, 3, H, W)
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What was drawn, by the name of the set.

    features: (N, D), standardised. areas: (N, C + 1), as of `class_areas.shares`; empty without a segmenter.
    """

    features: dict[str, Tensor]
    areas: dict[str, Floats]

    def effects(self, names: Sequence[str]) -> pd.DataFrame:
        """What the repair did to every class, beside the random sets, see `class_changes.effects_table`."""
        changes = [AreaChange(kind="chosen", number=0, after=self.areas[REPAIRED])]
        random = [name for name in self.areas if name.startswith(RANDOM)]
        changes += [AreaChange(kind=RANDOM, number=k, after=self.areas[name]) for k, name in enumerate(random)]
        return effects_table(self.areas[BEFORE], changes, names)


@torch.inference_mode()
def draw_sets(
    segmenter: Segmenter | None,
    extract: Features,
    reference: Reference,
    samples: Sequence[int],
    sets: Mapping[str, Draw],
    batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Drawn:
    """Draw every sample in every set; `advance` is called with the number of images drawn.

    Raises:
        DissectError: a network failed, or drew pixels that are not finite.
    """
    features: dict[str, list[Tensor]] = {name: [] for name in sets}
    areas: dict[str, list[Floats]] = {name: [] for name in sets}
    for start in distributed.mine(range(0, len(samples), batch)):
        batch_samples = samples[start : start + batch]
        for name, draw in sets.items():
            images = draw(batch_samples)
            features[name].append(reference.standard.apply(extract(images)))
            if segmenter is not None:
                areas[name].append(shares(segment(segmenter, images), len(segmenter.vocabulary)).cpu().numpy())
            advance(len(batch_samples))
    return Drawn(
        features={name: torch.cat(distributed.in_order(batches)) for name, batches in features.items()},
        areas={
            name: np.concatenate(distributed.in_order(batches))
            for name, batches in areas.items()
            if segmenter is not None
        },
    )


def compare_sets(
    segmenter: Segmenter | None,
    extract: Features,
    reference: Reference,
    samples: Sequence[int],
    sets: Mapping[str, Draw],
    *,
    batch: int,
    seed: int,
    progress: Progress,
) -> tuple[Drawn, pd.DataFrame]:
    """What `draw_sets` draws, and the sets' distances to the reference, see `distances.compare`."""
    fewer = Fewer("samples", len(samples), LEAST)
    with progress.task("draw and compare", len(sets) * len(samples), spread=True, fewer=fewer) as advance:
        drawn = draw_sets(segmenter, extract, reference, samples, sets, batch, advance)
    pairs = len(sets) * (rounds(drawn.features[BEFORE].shape[1]) + 1)
    with progress.task("distances", pairs, spread=True, noun="comparisons") as advance:
        fidelity = compare(drawn.features, reference.features, seed=seed, advance=advance)
    return drawn, fidelity


@torch.inference_mode()
def draw_edited(generator: Generator, edits: Edits, samples: Sequence[int]) -> Tensor:
    """images (N, 3, H, W) with the edits; raises DissectError if the network fails or pixels are not finite."""
    task = f"samples {samples[0]} … with units {', '.join(edit.layer for edit in edits) or 'as they are'}"
    with failing(task), edited(generator.module, *edits):
        images = generator(generator.latents(samples))
    generator.check_finite(images, samples, "take other units or values" if edits else "")
    return images


@torch.inference_mode()
def gallery(
    segmenter: Segmenter | None,
    samples: Sequence[int],
    drawn: Drawn,
    sets: Mapping[str, Draw],
    after: str,
) -> dict[str, NDArray[Any]]:
    """Arrays as of `interventions.result.Effects.pictures`: the worst samples before, worst first, then those that
    changed most.

    Worst: greatest mean squared distance of the features from the reference's mean. Most changed: greatest squared
    distance between features before and after. `place` marks pixels that changed by more than a tenth. Without a
    segmenter, no labels.
    """
    before = drawn.features[BEFORE]
    worst = before.square().mean(1).argsort(dim=0, descending=True, stable=True)[:SHOWN].tolist()
    moved = (drawn.features[after] - before).square().mean(1).argsort(dim=0, descending=True, stable=True).tolist()
    picks = [(ROLES[0], row) for row in worst]
    picks += [(ROLES[1], row) for row in [row for row in moved if row not in worst][:SHOWN]]
    pictures: dict[str, list[Any]] = {}
    for role, row in picks:
        pair = [sets[name]([samples[row]]) for name in (BEFORE, after)]
        entry: dict[str, Any] = {"sample": samples[row], "role": role}
        for name, images in zip(("before", "after"), pair, strict=True):
            entry[name] = gr.thumbnails(images, SIDE)[0].cpu().numpy()
            size = entry[name].shape[:2]
            if segmenter is None:
                continue
            labels = segment(segmenter, images)[:, :1].float()
            entry[f"labels_{name}"] = F.interpolate(labels, size, mode="nearest-exact")[0, 0].to(torch.int16).cpu()
        entry["place"] = np.abs(entry["after"].astype(int) - entry["before"].astype(int)).max(2) > 25
        for name, value in entry.items():
            pictures.setdefault(name, []).append(np.asarray(value))
    return {name: np.stack(values) for name, values in pictures.items()}
