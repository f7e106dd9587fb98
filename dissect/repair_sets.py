"""The one loop of a repair: samples × sets of edits -> features of the images, class areas, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..hooks.edit import Edit, edited
from ..hooks.errors import DissectError
from ..segmenters import check_labels
from ..segmenters.base import Segmenter
from . import grid as gr
from .effect_tables import Outcome
from .features import Features, Reference
from .fidelity import BEFORE
from .generators.base import Generator
from .measure import shares
from .pictures import SIDE
from .subject import failing

SHOWN = 12  # pictures of each role
ROLES = ("worst before", "most changed")

Edits = Sequence[Edit]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """features: (N, D) of each set, standardised. areas: (N, C + 1) of each set, as `measure.shares`."""

    features: dict[str, Tensor]
    areas: dict[str, Floats]

    def outcome(self, name: str, kind: str, number: int) -> Outcome:
        """A set as `effect_tables` takes it; which pixels changed is not asked for there."""
        nothing = np.zeros(len(self.areas[name]))
        return Outcome(kind=kind, number=number, units=(), after=self.areas[name], changed=nothing, on_target=nothing)


@torch.inference_mode()
def draw_sets(
    generator: Generator,
    segmenter: Segmenter | None,
    extract: Features,
    reference: Reference,
    samples: Sequence[int],
    sets: Mapping[str, Edits],
    batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Drawn:
    """Draw every sample with every set of edits. Without a segmenter, no class areas.

    Raises:
        DissectError: a network failed, or drew pixels that are not finite.
    """
    features: dict[str, list[Tensor]] = {name: [] for name in sets}
    areas: dict[str, list[Floats]] = {name: [] for name in sets}
    for start in range(0, len(samples), batch):
        numbers = samples[start : start + batch]
        latents = generator.latents(numbers)
        for name, edits in sets.items():
            images = draw(generator, latents, edits, f"samples {numbers[0]} … with the set {name}")
            features[name].append(reference.standard(extract(images)))
            if segmenter is not None:
                areas[name].append(shares(_labels(segmenter, images), len(segmenter.vocabulary)).numpy())
            advance(len(numbers))
    return Drawn(
        features={name: torch.cat(parts) for name, parts in features.items()},
        areas={name: np.concatenate(parts) for name, parts in areas.items() if parts},
    )


def draw(generator: Generator, latents: Tensor, edits: Edits, what: str) -> Tensor:
    """images (N, 3, H, W) with the edits; raises DissectError if the network fails or pixels are not finite."""
    with failing(what), edited(generator.module, *edits):
        images = generator(latents)
    if not bool(images.isfinite().all()):
        raise DissectError(f"{generator.name} drew pixels that are not finite in {what}; take other units or values.")
    return images


def _labels(segmenter: Segmenter, images: Tensor) -> Tensor:
    with failing("these samples"):
        labels = segmenter(images)
        check_labels(labels, images, segmenter)
    return labels


@torch.inference_mode()
def gallery(
    generator: Generator,
    segmenter: Segmenter,
    samples: Sequence[int],
    drawn: Drawn,
    after: str,
    edits: Edits,
) -> dict[str, NDArray[Any]]:
    """Arrays as of `effects.Effects.pictures`: the worst samples before, worst first; then those most changed.

    Worst: greatest mean squared distance of the features from the reference's mean. Most changed: greatest squared
    distance between features before and after. `place` marks pixels that changed by more than a tenth.
    """
    before = drawn.features[BEFORE]
    worst = before.square().mean(1).argsort(dim=0, descending=True, stable=True)[:SHOWN].tolist()
    moved = (drawn.features[after] - before).square().mean(1).argsort(dim=0, descending=True, stable=True).tolist()
    picks = [(ROLES[0], row) for row in worst]
    picks += [(ROLES[1], row) for row in [row for row in moved if row not in worst][:SHOWN]]
    kept: dict[str, list[Any]] = {}
    for role, row in picks:
        latents = generator.latents([samples[row]])
        pair = [draw(generator, latents, chosen, f"sample {samples[row]}") for chosen in ((), edits)]
        entry: dict[str, Any] = {"sample": samples[row], "role": role}
        for name, images in zip(("before", "after"), pair, strict=True):
            entry[name] = gr.thumbnails(images, SIDE)[0].cpu().numpy()
            size = entry[name].shape[:2]
            labels = _labels(segmenter, images)[:, :1].float()
            entry[f"labels_{name}"] = F.interpolate(labels, size, mode="nearest-exact")[0, 0].to(torch.int16).cpu()
        entry["place"] = np.abs(entry["after"].astype(int) - entry["before"].astype(int)).max(2) > 25
        for name, value in entry.items():
            kept.setdefault(name, []).append(np.asarray(value))
    return {name: np.stack(values) for name, values in kept.items()}
