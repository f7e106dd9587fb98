"""Sets of images, generated or real, reduced to the features, class shares and thumbnails that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import DissectError
from ...segmenters import segment
from ...segmenters.base import Segmenter
from ..capture.replicas import namers, side_by_side
from ..fidelity.features import Features, Standard, standardisation
from ..generators.base import Generator
from ..images.class_areas import shares
from ..images.resize import thumbnails
from ..runtime import distributed
from ..runtime.resources import usual_batch

SHOWN = 128  # pixels of a picture, at most


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The features, class shares and thumbnails of N images."""

    features: Tensor  # (N, D) float64
    shares: NDArray[np.float64]  # (N, C) of each image's pixels, by class
    pictures: NDArray[np.uint8]  # (N, h, w, 3), at most 128 pixels a side

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def at(cls, images: Tensor, labels: Tensor | None, extract: Features, classes: int) -> ImageSet:
        """Reduce images (n, 3, H, W) in [0, 1] with labels (n, P, H, W); without labels there are no class shares."""
        return cls(
            features=extract(images).cpu().double(),
            shares=np.empty((len(images), 0)) if labels is None else shares(labels, classes)[:, :-1].cpu().numpy(),
            pictures=thumbnails(images, SHOWN).cpu().numpy(),
        )

    @classmethod
    def joined(cls, batches: Sequence[ImageSet]) -> ImageSet:
        """Concatenate sets, in order.

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
        """The same set with standardised features."""
        return replace(self, features=standard.apply(self.features))


def drawn(generator: Generator, samples: int, batch: int) -> Iterator[Tensor]:
    """Batches of images (n, 3, H, W) of the first samples; several processes share the batches.

    Raises:
        DissectError: the network failed, or drew pixels that are not finite.
    """
    for start in distributed.mine(range(0, samples, batch)):
        indices = range(start, min(start + batch, samples))
        images = generator(generator.latents(indices))
        generator.check_finite(images, indices)
        yield images


def look(
    batches: Iterable[Tensor],
    extract: Features,
    namer: Segmenter | None,
    device: str | torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> ImageSet:
    """Reduce all images to an `ImageSet`; several processes each reduce their own batches, and all get the whole set.

    Args:
        batches: images (n, 3, H, W) in [0, 1].
        extract: the feature extractor.
        namer: the segmenter that names the classes; without one there are no class shares.
        device: where the images are moved.
        advance: `advance(n)` is called after every n finished images.

    Raises:
        DissectError: features that are not finite.
    """
    network_device = torch.device(device)

    @torch.no_grad()
    def reduced(namer: Segmenter | None, images: Tensor) -> ImageSet:
        images = images.to(network_device)
        if namer is None:
            return ImageSet.at(images, None, extract, 0)
        # labelling many images at once takes much memory
        parts = images.split(usual_batch(network_device, images.shape[2:]))
        labels = torch.cat([segment(namer, part) for part in parts])
        return ImageSet.at(images, labels, extract, len(namer.vocabulary))

    batches = iter(batches)
    first = list(islice(batches, 1))
    pixels = first[0][0, 0].numel() if first else 0
    networks: list[tuple[Segmenter | None]] = [*namers(namer, network_device, pixels)] if namer else [(None,)]
    sets = []
    for images, image_set in side_by_side(reduced, networks, chain(first, batches)):
        sets.append(image_set)
        advance(len(images))
    return ImageSet.joined(distributed.in_order(sets))


def standard_of(extract: Features, real: ImageSet) -> Standard:
    """The standardisation of features that is fitted to these real images and applied to all sets beside them."""
    return standardisation(extract, real.features)
