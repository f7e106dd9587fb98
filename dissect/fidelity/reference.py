"""Real images that generated ones are compared with: a folder of files, or drawn scenes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...hooks.errors import DissectError, DissectWarning, UsageError
from ...segmenters.unet import SIDE
from ..generators.base import Generator
from ..generators.zoo import MODELS
from ..images.reader import list_images, read_image
from ..runtime import distributed
from ..runtime.random_streams import PICTURES, dice
from ..scenes.render import render
from .features import Features, Standard, standardisation

SCENES = "scenes"
REFERENCE = 2000  # scenes drawn, where they are the reference
RENDERED = 1_000_003  # their seed: none that the embedded models were trained on
FEWEST, MOST = 100, 5000  # images of a reference; from a larger folder, MOST of them are drawn
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The images that a generator should be like. features: (M, D) float64, standardised by `standard`."""

    name: str
    features: Tensor
    standard: Standard

    def halves(self) -> tuple[Reference, Reference]:
        """The images of even and of odd index: one half to choose by, the other to judge by."""
        first, second = (replace(self, features=self.features[start::2]) for start in (0, 1))
        return first, second


def reference_of(generator: Generator, reference: str | Path | None) -> str | Path | None:
    """The user's reference; where there is none, the drawn scenes for a generator of scenes, and None for others."""
    draws_scenes = generator.name in MODELS and MODELS[generator.name].segmenter == SCENES
    return SCENES if reference is None and draws_scenes else reference


def open_reference(
    reference: str | Path | None,
    features: Features,
    size: tuple[int, int],
    *,
    drawn: bool,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> Reference:
    """The features of the images of a folder, or of 2,000 scenes that no model was trained on.

    Args:
        reference: a folder of images; each is cut to the shape of `size` around its middle and resized to it.
        size: height and width of the generated images.
        drawn: whether scenes may stand in where no folder is given.

    Scene features are standardised, since they differ in scale by orders of magnitude; Inception's are left as they
    are, for the sake of comparison.

    Raises:
        UsageError: no folder, no images in it, or too few of them.
        DissectError: an image that cannot be read; features that are not finite.
    """
    if reference is None and not drawn:
        raise UsageError("Name images of the kind that the generator was made for: --reference FOLDER.")
    batches, name = reference_images(SCENES if reference is None else reference, size)
    batch_features = []
    with torch.inference_mode():
        for images in batches:
            batch_features.append(features(images.to(device)).cpu().double())
            advance(len(images))
    all_features = torch.cat(distributed.in_order(batch_features))
    if not bool(all_features.isfinite().all()):
        raise DissectError(f"Features of the reference {name} are not finite; look at its images.")
    standard = standardisation(features, all_features)
    return Reference(name=name, features=standard.apply(all_features), standard=standard)


def reference_images(reference: str | Path, size: tuple[int, int]) -> tuple[Iterator[Tensor], str]:
    """Batches of images (n, 3, H, W) in [0, 1], and what they are, in words.

    Images of a folder have the size (height, width); `scenes` are squares of that size, of 128 pixels at most. With
    several processes, each gets its share of the batches.

    Raises:
        UsageError: no folder, or too few images in it.
        DissectError: on the way, an image that cannot be read.
    """
    if is_scenes(reference):
        return _scenes(size), f"{REFERENCE} drawn scenes"
    files, name = _files(Path(reference))
    return _read(files, size), name


def is_scenes(reference: str | Path) -> bool:
    """Whether drawn scenes are meant, and no folder of that name."""
    return str(reference) == SCENES and not Path(reference).is_dir()


def count_reference(reference: str | Path | None) -> int:
    """How many images a reference holds."""
    if reference is None or is_scenes(reference):
        return REFERENCE
    return len(_files(Path(reference))[0])


def _scenes(size: tuple[int, int]) -> Iterator[Tensor]:
    """Drawn as small as the generated images: made smaller afterwards, they would lack their finest details."""
    side = min(size[0], SIDE) if size[0] == size[1] else SIDE
    for start in distributed.mine(range(0, REFERENCE, 200)):
        images, _ = render(range(start, start + 200), side=side, seed=RENDERED)
        yield torch.from_numpy(np.asarray(images, np.float32))


def _files(folder: Path) -> tuple[list[Path], str]:
    """The images that are read, in random order, and what they are, in words."""
    listing = list_images(folder, "--reference")
    count = len(listing.files)
    if count < FEWEST:
        raise UsageError(
            f"--reference {folder} holds {count} images; it must hold at least {FEWEST}, better as many as "
            f"--samples.{' ' + listing.said + '.' if listing.said else ''}"
        )
    if listing.said:
        warnings.warn(f"--reference {listing.said}.", DissectWarning, stacklevel=2)
    drawn = dice(0, PICTURES).permutation(count)[:MOST]
    copies = f", copies among them: {listing.copies}" if listing.copies else ""
    return [listing.files[index] for index in drawn], f"{folder} ({len(drawn)} of {count} images{copies})"


def _read(files: Sequence[Path], size: tuple[int, int]) -> Iterator[Tensor]:
    for start in distributed.mine(range(0, len(files), BATCH)):
        images = []
        for path in files[start : start + BATCH]:
            image = Image.fromarray(read_image(path))
            fitted = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
            images.append(np.asarray(fitted, np.float32) / 255)
        yield torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
