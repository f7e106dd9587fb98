"""Sets of images, generated or real, reduced to what they are compared by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import DissectError
from ...segmenters import segment
from ...segmenters.base import Segmenter
from ..fidelity.features import Features, Standard, standardisation
from ..generators.base import Generator
from ..images.class_areas import shares
from ..images.resize import thumbnails
from ..runtime import distributed

SHOWN = 128  # pixels of a picture, at most


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """What is kept of N images."""

    features: Tensor  # (N, D) float64
    shares: NDArray[np.float64]  # (N, C) of each image's pixels, by class
    pictures: NDArray[np.uint8]  # (N, h, w, 3), at most 128 pixels a side

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def at(cls, images: Tensor, labels: Tensor | None, extract: Features, classes: int) -> ImageSet:
        """images (n, 3, H, W) in [0, 1] and their labels (n, P, H, W), or none, where no class is asked for."""
        return cls(
            features=extract(images).cpu().double(),
            shares=np.empty((len(images), 0)) if labels is None else shares(labels, classes)[:, :-1].cpu().numpy(),
            pictures=thumbnails(images, SHOWN).cpu().numpy(),
        )

    @classmethod
    def joined(cls, batches: Sequence[ImageSet]) -> ImageSet:
        """Several as one, in order.

        Raises:
            DissectError: features that are not finite.
        """
        joined = cls(
            features=torch.cat([batch.features for batch in batches]),
            shares=np.concatenate([batch.shares for batch in batches]),
            pictures=np.concatenate([batch.pictures for batch in batches]),
        )
        if not bool(joined.features.isfinite().all()):
            raise DissectError("Features of some images are not finite; look at the images with dissect run.")
        return joined

    def standard(self, standard: Standard) -> ImageSet:
        """The same with its features standardised."""
        return replace(self, features=standard.apply(self.features))


def drawn(generator: Generator, samples: int, batch: int) -> Iterator[Tensor]:
    """Batches of images (n, 3, H, W) of the first samples; of several processes each gets some.

    Raises:
        DissectError: the network failed, or drew pixels that are not finite.
    """
    for start in distributed.mine(range(0, samples, batch)):
        some = range(start, min(start + batch, samples))
        images = generator(generator.latents(some))
        generator.check_finite(images, some)
        yield images


def look(
    batches: Iterable[Tensor],
    extract: Features,
    namer: Segmenter | None,
    device: str | torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> ImageSet:
    """Reduce all images to what they are compared by; each of several processes does its own batches.

    Without a segmenter there are no classes.

    Raises:
        DissectError: features that are not finite.
    """
    sets = []
    classes = len(namer.vocabulary.names) if namer else 0
    with torch.no_grad():
        for images in batches:
            images = images.to(device)
            sets.append(ImageSet.at(images, segment(namer, images) if namer else None, extract, classes))
            advance(len(images))
    return ImageSet.joined(distributed.in_order(sets))


def standard_of(extract: Features, real: ImageSet) -> Standard:
    """How the features of these real images, and of all that are compared with them, are standardised."""
    return standardisation(extract, real.features)
