"""The one loop of every intervention: samples × variants -> how much of each image each class covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.edit import replace_softly
from ...segmenters import check_range, check_shape
from ..generators.base import finite
from ..images.class_areas import at_centres, shares
from ..runtime import distributed
from ..runtime.resources import at_work
from ..subjects.subject import Subject

Floats = NDArray[np.float64]

AFTER = "after the change; take other units or another value"


@dataclass(frozen=True, kw_only=True)
class Variants:
    """V ways to change a layer of U units on a map of h×w; N samples, where a size of 1 stands for "the same for all".

    Args:
        weight: (V, 1 or N, U) in [0, 1], how far each unit is pulled to its value: 1 replaces, 0 leaves it alone.
        value: (U,), or None: the units' featuremaps in another sample, see `donors`.
        place: (W, 1 or N, h, w) in [0, 1], where; variant v has place v modulo W. None is everywhere.
        donors: N samples, the other ones.
    """

    weight: Tensor
    value: Tensor | None
    place: Tensor | None = None
    donors: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.weight)

    def apply(self, x: Tensor, donated: Tensor | None, some: slice, rows: slice) -> Tensor:
        """x (n, U, h, w) of the samples `rows` -> (k·n, U, h, w), changed in the k ways `some`."""
        pull = _part(self.weight, some, rows)[..., None, None].to(x)  # (k, n or 1, U, 1, 1)
        if self.place is not None:
            pull = pull * _part(self.place, some, rows)[:, :, None].to(x)  # (k, n or 1, U, h, w)
        value = donated if self.value is None else self.value.to(x)[:, None, None]
        assert value is not None
        changed = replace_softly(x, value, pull).expand(len(pull), *x.shape).flatten(0, 1)
        if x.is_contiguous(memory_format=torch.channels_last):
            return changed.contiguous(memory_format=torch.channels_last)
        return changed


def _part(values: Tensor, some: slice, rows: slice) -> Tensor:
    values = values[torch.arange(some.start, some.stop) % len(values)]
    return values if values.shape[1] == 1 else values[:, rows]


@dataclass(frozen=True, kw_only=True)
class Areas:
    """What was measured, as shares of an image's pixels. The class number C is "unlabelled", in the first plane.

    before (N, C + 1); after (V, N, C + 1); changed (V, N): pixels whose label differs; on_target (V, N): those of them
    that were or became the target class; cells (N, P, h, w) int16: the label at the centre of each of the layer's
    cells, before.
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
    """Every variant on every sample, paired: all start from the same featuremaps. `advance(n)` after every n images.

    What lies below the layer runs once a sample; what lies above it once a sample and variant, many rows at a time.

    Raises:
        DissectError: a network failed, or output numbers that are not finite.
    """
    count, classes = len(samples), len(subject.segmenter.vocabulary)
    # on the networks' device: a GPU is waited for once a batch of samples, not once a batch of images
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
            fine, extremes = [], []
            at_once = max(1, subject.batch // len(batch))
            for start in range(0, len(variants), at_once):
                some = slice(start, min(start + at_once, len(variants)))
                with subject.pace():
                    edited = variants.apply(x, donated, some, rows)
                    repeats = len(edited) // len(batch)
                    many = latents.repeat(repeats, *[1] * (latents.ndim - 1))
                    images, new = subject.see(edited, many, check_shape)
                    fine.append(finite(images))
                    extremes.append(torch.stack(new.aminmax()))
                    size = (repeats, len(batch))
                    after[some, rows] = shares(new, classes).view(*size, -1)
                    old = labels.repeat(repeats, 1, 1, 1)
                    differs = old != new
                    changed[some, rows] = differs.any(1).float().mean((1, 2)).view(size).double()
                    if target is not None:
                        differs &= (old == target) | (new == target)
                        on_target[some, rows] = differs.any(1).float().mean((1, 2)).view(size).double()
                advance(len(edited))
            if fine:
                subject.generator.raise_unless_finite(torch.cat(fine), batch, AFTER)
                low, high = torch.stack(extremes).unbind(1)
                check_range(int(low.min()), int(high.max()), subject.segmenter)
    distributed.all_sum(before, after, changed, on_target)  # each row is zero in all but one process
    return Areas(
        before=before.cpu().numpy(),
        after=after.cpu().numpy(),
        changed=changed.cpu().numpy(),
        on_target=on_target.cpu().numpy(),
        cells=np.concatenate(distributed.in_order(cells)),
    )
