"""Samples to look at: the most changed, the typical and the failing ones, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..images import resize as gr
from ..images.resize import SIDE
from ..subjects.subject import Subject
from .areas import Areas, Variants

EACH = 4  # pictures of each role
ROLES = ("most changed", "typical", "failing")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def choose(success: Floats, possible: NDArray[np.bool_]) -> list[tuple[str, int, int]]:
    """Which of (V, N) pairs of variant and image to show: (role, v, i), each image once.

    Args:
        success: how far the edit did what it was meant to; the most changed have most of it, the failing least, and
            the typical are nearest to the median.
        possible: where it could succeed at all; no others are shown.
    """
    width = success.shape[1]
    middle = np.median(success[possible]) if possible.any() else 0.0
    shuffled = np.random.default_rng(0).permutation(success.size)  # ties are not always the first

    def ascending(key: Floats) -> Integers:
        return shuffled[np.argsort(key.ravel()[shuffled], kind="stable")]

    orders = {
        "most changed": ascending(-success),
        "failing": ascending(success),
        "typical": ascending(np.abs(np.where(possible, success, np.inf) - middle)),
    }
    taken: set[int] = set()
    found = []
    for role, order in orders.items():
        left = EACH
        for place in order:
            v, i = divmod(int(place), width)
            if left and i not in taken and possible[v, i]:
                found.append((role, v, i))
                taken.add(i)
                left -= 1
            if not left:
                break
    return sorted(found, key=lambda pick: ROLES.index(pick[0]))


def successes(areas: Areas, variants: int, target: int | None, kind: str) -> tuple[Floats, NDArray[np.bool_]]:
    """How far the first `variants` variants succeeded, and where they could: (V, N) each.

    Ablation: the area of the class that left, as a share of what was there, where the class covers at least as much as
    in half of the images that have it. Insertion: the area gained, anywhere. Without a class: the pixels changed.
    """
    if target is None:
        return areas.changed[:variants], np.ones_like(areas.changed[:variants], bool)
    gained = areas.difference[:variants, :, target]
    if kind == "insert":
        return gained, np.ones_like(gained, bool)
    before = areas.before[:, target]
    large = (before >= np.median(before[before > 0])) if before.any() else before > 0
    left = np.divide(-gained, before, out=np.full_like(gained, -np.inf), where=large)
    return left, np.broadcast_to(large, left.shape)


def draw(
    subject: Subject,
    samples: Sequence[int],
    variants: Variants,
    picks: Sequence[tuple[str, int, int]],
    target: int | None,
) -> dict[str, NDArray[Any]]:
    """The picked pairs before and after; see result.py for the arrays.

    `place` is where the edit was made; for an edit made everywhere, where the class was before.
    """
    rows: dict[str, list[NDArray[Any]]] = {}

    def keep(name: str, value: Any) -> None:
        rows.setdefault(name, []).append(np.asarray(value))

    for role, v, i in picks:
        x, latents = subject.featuremaps([samples[i]]), subject.generator.latents([samples[i]])
        donated = subject.featuremaps([variants.donors[i]]) if variants.value is None else None
        with torch.inference_mode():
            changed = variants.apply(x, donated, slice(v, v + 1), slice(i, i + 1))
        (before, was), (after, now) = subject.see(x, latents), subject.see(changed, latents)
        keep("sample", samples[i])
        keep("role", role)
        for name, images in (("before", before), ("after", after)):
            keep(name, gr.thumbnails(images, SIDE)[0].cpu())
        size = rows["before"][0].shape[:2]
        plane = 0 if target is None else int((was == target).any(2).any(2)[0].int().argmax())
        for name, labels in (("labels_before", was), ("labels_after", now)):
            small = F.interpolate(labels[:, plane].float()[:, None], size, mode="nearest-exact")
            keep(name, small[0, 0].to(torch.int16).cpu())
        if variants.place is not None:
            at = variants.place[v % len(variants.place)][None]
            at = at if at.shape[1] == 1 else at[:, i : i + 1]
            keep("place", F.interpolate(at.float(), size, mode="nearest-exact")[0, 0] >= 0.5)
        elif target is not None:
            keep("place", rows["labels_before"][-1] == target)
        else:
            keep("place", np.zeros(size, bool))
    return {name: np.stack(values) for name, values in rows.items()}
