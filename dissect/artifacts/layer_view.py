"""What a detector works on: a layer's activations on samples, and the features of their images, at a reduced size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...hooks.errors import DissectError, UsageError
from ..fidelity.features import Features
from ..fidelity.reference import Reference
from ..images import resize as gr
from ..runtime import distributed
from ..subjects.subject import Subject
from .flags import Flags

SIDE = 16  # cells: finer maps are averaged down to it
DIRECTIONS = 32  # principal directions of the reference in which sets of images are compared


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """A layer's activations on samples, and their images' features.

    maps (N, U, h, w) float16, h and w at most 16: 64 KiB a sample for 512 units at 8×8. features (N, D) float64,
    standardised by the reference; None without one.
    """

    subject: Subject
    samples: range
    maps: Tensor
    features: Tensor | None
    extract: Features | None
    reference: Reference | None
    flags: Flags | None
    realism: Callable[[Tensor], Tensor] | None  # images (N, 3, H, W) in [0, 1] -> (N,), more is more real
    advance: Callable[[int], None]  # called with the number of images drawn beyond those of the samples

    @cached_property
    def peaks(self) -> Tensor:
        """(N, U) the greatest activation of each unit in each sample."""
        return self.maps.amax((2, 3)).float()

    @cached_property
    def directions(self) -> tuple[Tensor, Tensor]:
        """(D,) the reference's mean and (D, d) its first principal directions, d at most 32.

        Raises:
            UsageError: there is no reference.
        """
        if self.reference is None:
            raise UsageError("This detector needs images to compare with: --reference FOLDER.")
        features = self.reference.features
        return features.mean(0), torch.linalg.eigh(torch.cov(features.T)).eigenvectors[:, -DIRECTIONS:]

    @cached_property
    def strength(self) -> Tensor:
        """(U,) root mean square activation."""
        total = torch.zeros(self.maps.shape[1], dtype=torch.float64)
        for maps in self.maps.split(128):
            total += maps.double().square().mean((2, 3)).sum(0)
        return (total / len(self.maps)).sqrt().float().clamp(min=1e-6)


def reduced(maps: Tensor) -> Tensor:
    """(N, U, H, W) -> (N, U, h, w) float16 on the CPU, at most 16×16 cells."""
    return gr.at_most(maps.float(), SIDE).half().cpu()


@torch.inference_mode()
def look(
    subject: Subject,
    samples: range,
    extract: Features | None,
    reference: Reference | None,
    advance: Callable[[int], None],
) -> tuple[Tensor, Tensor | None]:
    """`LayerView.maps` and `LayerView.features` of these samples; each passes the generator once.

    Raises:
        DissectError: a network failed, or activations or features are not finite.
    """
    maps, features = [], []
    for _, batch in subject.batches(samples):
        x = subject.featuremaps(batch)
        small = reduced(x)
        if not bool(small.isfinite().all()):
            raise DissectError(
                f"Activations of {subject.layer} are not finite, or beyond float16, in samples {batch[0]} to "
                f"{batch[-1]}; dissect run names the units."
            )
        maps.append(small)
        if extract is not None and reference is not None:
            images = subject.draw(x, subject.generator.latents(batch))
            features.append(reference.standard.apply(extract(images)))
        advance(len(batch))
    features = distributed.in_order(features)
    all_features = torch.cat(features) if features else None
    if all_features is not None and not bool(all_features.isfinite().all()):
        raise DissectError(f"Features of images of {subject.generator.name} are not finite; look at its images.")
    return torch.cat(distributed.in_order(maps)), all_features
