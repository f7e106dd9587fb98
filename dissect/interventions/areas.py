"""The one loop of every intervention: samples × variants -> how much of each image each class covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.directions import readings, set_readings
from ...hooks.edit import replace_softly
from ...segmenters import check_range, check_shape
from ..generators.base import finite
from ..images.class_areas import at_centres, shares
from ..runtime import distributed
from ..runtime.resources import at_work
from ..subjects.subject import Subject

Floats = NDArray[np.float64]

AFTER = "after the change; take other units or another value"  # how a message about pixels that are not finite ends


@dataclass(frozen=True, kw_only=True)
class Variants:
    """V ways to change a layer of U units on a map of h×w, for N samples.

    An axis of N samples may have size 1 instead, where all samples are the same.

    Args:
        weight: (V, 1 or N, U) in [0, 1], how far each unit is pulled to its value: 1 replaces it, 0 does not change it.
        value: (U,), or None for the units' featuremaps in other samples, see `donors`.
        place: (W, 1 or N, h, w) in [0, 1], where on the map; variant v has place v modulo W. None is everywhere.
        donors: N samples, whose featuremaps are the values where `value` is None.
        directions: (K, U) changed in the place of the units; `weight` and `value` are of them then, K for U. The
            directions of a variant are changed together, see `hooks.directions`.
    """

    weight: Tensor
    value: Tensor | None
    place: Tensor | None = None
    donors: Sequence[int] = ()
    directions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def apply(self, x: Tensor, donated: Tensor | None, variants: slice, rows: slice) -> Tensor:
        """Change featuremaps in some of the ways.

        Args:
            x: (n, U, h, w) of the samples `rows`.
            donated: (n, U, h, w) of their donors, where `value` is None.
            variants: k of the V ways.
            rows: n of the N samples.

        Returns:
            (k·n, U, h, w), all samples of a variant together, in the memory format of x.
        """
        weight = _select(self.weight, variants, rows)  # (k, n or 1, U)
        place = None if self.place is None else _select(self.place, variants, rows)[:, :, None].to(x)
        value = donated if self.value is None else self.value.to(x)[:, None, None]
        assert value is not None
        if self.directions is None:
            pull = weight[..., None, None].to(x)
            changed = replace_softly(x, value, pull if place is None else pull * place)
        else:
            value = readings(value, self.directions) if self.value is None else value
            changed = set_readings(x, value, weight, place, self.directions)
        changed = changed.expand(len(weight), *x.shape).flatten(0, 1)
        if x.is_contiguous(memory_format=torch.channels_last):
            return changed.contiguous(memory_format=torch.channels_last)
        return changed


def _select(values: Tensor, variants: slice, rows: slice) -> Tensor:
    """Values (W, 1 or N, …) -> (k, 1 or n, …) of the k variants, variant v having row v modulo W, and n samples."""
    values = values[torch.arange(variants.start, variants.stop) % len(values)]
    return values if values.shape[1] == 1 else values[:, rows]


@dataclass(frozen=True, kw_only=True)
class Areas:
    """The areas of the classes before and after each variant, float64 shares of an image's pixels.

    Attributes:
        before: (N, C + 1); class C is "unlabelled", in the first plane of labels.
        after: (V, N, C + 1).
        changed: (V, N), pixels whose label differs.
        on_target: (V, N), those of them that were or became the target class.
        cells: (N, P, h, w) int16, the labels at the centres of the layer's cells, before.
    """

    before: Floats
    after: Floats
    changed: Floats
    on_target: Floats
    cells: NDArray[np.int16]

    @property
    def difference(self) -> Floats:
        """(V, N, C + 1): after − before."""
        return self.after - self.before


def measure(
    subject: Subject,
    samples: Sequence[int],
    variants: Variants,
    *,
    target: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Areas:
    """Measure every variant on every sample. All variants of a sample start from the same featuremaps.

    The layers below run once for each sample; the layers above run once for each sample and variant, on many rows at a
    time.

    Args:
        subject: the networks and the layer.
        samples: N indices.
        variants: the changes.
        target: the class of `Areas.on_target`; without one, that is 0.
        advance: `advance(n)` is called after every n images.

    Raises:
        DissectError: a network failed, or drew pixels that are not finite.
    """
    count, classes = len(samples), len(subject.segmenter.vocabulary)
    # sums are on the networks' device, so that the CPU waits for a GPU once for each batch of samples, not of images
    before = torch.zeros(count, classes + 1, dtype=torch.float64, device=subject.generator.device)
    after = before.new_zeros(len(variants), *before.shape)
    changed, on_target = before.new_zeros(2, len(variants), count)
    cells = []
    with at_work(), torch.inference_mode():
        for rows, batch in subject.batches(samples):
            x = subject.featuremaps(batch)
            latents = subject.generator.latents(batch)
            donated = subject.featuremaps(variants.donors[rows]) if variants.value is None else None
            images, labels = subject.see(x, latents)
            subject.generator.check_finite(images, batch, "before any change")
            before[rows] = shares(labels, classes)
            cells.append(at_centres(labels, subject.shape[1:]).cpu().numpy())
            finite_images, label_ranges = [], []  # checked after the loop, since a check waits for the GPU
            at_once = max(1, subject.batch // len(batch))
            for start in range(0, len(variants), at_once):
                block = slice(start, min(start + at_once, len(variants)))
                with subject.pace():
                    edited = variants.apply(x, donated, block, rows)
                    repeats = len(edited) // len(batch)
                    images, new = subject.see(edited, _repeated(latents, repeats), check_shape)
                    finite_images.append(finite(images))
                    label_ranges.append(torch.stack(new.aminmax()))
                    after[block, rows] = shares(new, classes).view(repeats, len(batch), -1)
                    old = _repeated(labels, repeats)
                    differs = old != new
                    changed[block, rows] = _area(differs).view(repeats, -1)
                    if target is not None:
                        on_target[block, rows] = _area(differs & ((old == target) | (new == target))).view(repeats, -1)
                advance(len(edited))
            if finite_images:
                subject.generator.raise_unless_finite(torch.cat(finite_images), batch, AFTER)
                low, high = torch.stack(label_ranges).unbind(1)
                check_range(int(low.min()), int(high.max()), subject.segmenter)
    distributed.all_sum(before, after, changed, on_target)  # each row is zero in all but one process
    return Areas(
        before=before.cpu().numpy(),
        after=after.cpu().numpy(),
        changed=changed.cpu().numpy(),
        on_target=on_target.cpu().numpy(),
        cells=np.concatenate(distributed.in_order(cells)),
    )


def _repeated(x: Tensor, repeats: int) -> Tensor:
    """x (n, …) -> (repeats · n, …), all rows before the first again."""
    return x.repeat(repeats, *[1] * (x.ndim - 1))


def _area(differs: Tensor) -> Tensor:
    """differs (n, P, H, W) -> (n,) float64 shares of pixels that differ in any plane."""
    return differs.any(1).float().mean((1, 2)).double()
