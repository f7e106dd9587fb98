"""Samples to show: the most changed, the typical and the failing ones, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
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
    """Choose which pairs of variant and image to show; no image is shown twice.

    Args:
        success: (V, N), how far the edit had its effect: the pairs of the role "most changed" have the greatest values,
            those of "failing" the least, and those of "typical" are nearest to the median.
        possible: (V, N), where an effect is possible; no other pairs are shown.

    Returns:
        (role, v, i) for each pair, in the order of `ROLES`.
    """
    width = success.shape[1]
    middle = np.median(success[possible]) if possible.any() else 0.0
    shuffled = np.random.default_rng(0).permutation(success.size)  # so that ties are not always the first images

    def ascending(key: Floats) -> Integers:
        return shuffled[np.argsort(key.ravel()[shuffled], kind="stable")]

    orders = {
        "most changed": ascending(-success),
        "failing": ascending(success),
        "typical": ascending(np.abs(np.where(possible, success, np.inf) - middle)),
    }
    shown: set[int] = set()
    picks = []
    for role, order in orders.items():
        missing = EACH
        for pair in order:
            v, i = divmod(int(pair), width)
            if i not in shown and possible[v, i]:
                picks.append((role, v, i))
                shown.add(i)
                missing -= 1
            if not missing:
                break
    return sorted(picks, key=lambda pick: ROLES.index(pick[0]))


def successes(areas: Areas, variants: int, target: int | None, kind: str) -> tuple[Floats, NDArray[np.bool_]]:
    """How far the first `variants` variants had their effect, and where one is possible: (V, N) each.

    For ablation, the effect is the removed share of the class's area, possible where the class covers at least its
    median area among the images that have it. For insertion, it is the gained area, possible anywhere. Without a class,
    it is the share of changed pixels.
    """
    if target is None:
        return areas.changed[:variants], np.ones_like(areas.changed[:variants], bool)
    gained = areas.difference[:variants, :, target]
    if kind == "insert":
        return gained, np.ones_like(gained, bool)
    before = areas.before[:, target]
    large = (before >= np.median(before[before > 0])) if before.any() else before > 0
    removed = np.divide(-gained, before, out=np.full_like(gained, -np.inf), where=large)
    return removed, np.broadcast_to(large, removed.shape)


def draw(
    subject: Subject,
    samples: Sequence[int],
    variants: Variants,
    picks: Sequence[tuple[str, int, int]],
    target: int | None,
    strengths: Mapping[int, int] | None = None,
) -> dict[str, NDArray[Any]]:
    """Draw the picked pairs before and after the edit; for the arrays see `result`.

    `place` is where the edit was made; for an edit made everywhere, where the class was before.

    Args:
        strengths: by how many units are changed, the variant that changes so many; each is drawn too.
    """
    strengths = strengths or {}
    arrays: dict[str, list[NDArray[Any]]] = {}

    def add(name: str, value: Any) -> None:
        arrays.setdefault(name, []).append(np.asarray(value))

    for role, v, i in picks:
        x, latents = subject.featuremaps([samples[i]]), subject.generator.latents([samples[i]])
        donated = subject.featuremaps([variants.donors[i]]) if variants.value is None else None

        def edited(variant: int, i: int = i, x: Tensor = x, donated: Tensor | None = donated) -> Tensor:
            with torch.inference_mode():
                return variants.apply(x, donated, slice(variant, variant + 1), slice(i, i + 1))

        before, labels_before = subject.see(x, latents)
        after, labels_after = subject.see(edited(v), latents)
        add("sample", samples[i])
        add("role", role)
        for name, images in (("before", before), ("after", after)):
            add(name, gr.thumbnails(images, SIDE)[0].cpu())
        size = arrays["before"][0].shape[:2]
        plane = 0 if target is None else int((labels_before == target).any(2).any(2)[0].int().argmax())
        for name, labels in (("labels_before", labels_before), ("labels_after", labels_after)):
            add(name, _small_labels(labels[:, plane], size))
        if strengths:
            steps = [subject.see(edited(variant), latents) for variant in strengths.values()]
            add("steps", torch.cat([gr.thumbnails(images, SIDE) for images, _ in steps]).cpu())
            add("labels_steps", torch.stack([_small_labels(labels[:, plane], size) for _, labels in steps]))
        if variants.place is not None:
            place = variants.place[v % len(variants.place)][None]
            place = place if place.shape[1] == 1 else place[:, i : i + 1]
            add("place", F.interpolate(place.float(), size, mode="nearest-exact")[0, 0] >= 0.5)
        elif target is not None:
            add("place", arrays["labels_before"][-1] == target)
        else:
            add("place", np.zeros(size, bool))
    drawn = {name: np.stack(values) for name, values in arrays.items()}
    return drawn | {"step_units": np.array(list(strengths))} if strengths and drawn else drawn


def _small_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (1, H, W) of one image as (h, w) int16, as large as its thumbnail."""
    return F.interpolate(labels.float()[:, None], size, mode="nearest-exact")[0, 0].to(torch.int16).cpu()


def gains(change: Floats, picks: Sequence[tuple[str, int, int]], size: tuple[int, int]) -> NDArray[np.float32]:
    """(K, h, w): what changing each cell alone does to the class in each picked image, in percentage points.

    Args:
        change: (h·w, N) change of the class's share of the image's pixels, for each cell and image.
        size: h and w of the layer.
    """
    return (100 * change[:, [i for _, _, i in picks]].T).reshape(-1, *size).astype(np.float32)
