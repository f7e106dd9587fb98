"""What images are compared by: vectors of features, and the images that a generator should be like.

Two sources of features: the encoder of the embedded segmenter, small and always here, whose distances are not
comparable with published ones; and the Inception network of torch-fidelity, whose distances are.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..hooks.errors import DissectError, DissectWarning, UsageError, one_line
from ..segmenters.scenes import ScenesSegmenter
from ..segmenters.unet import SIDE, normalise
from .generators.checkpoints import load_state_dict, sha256
from .images.reader import list_images, read_image
from .runtime import distributed
from .runtime.random_streams import PICTURES, dice
from .scenes.render import render

INCEPTION_HASH = "6726825d"  # of torch-fidelity's file, as its name says
DOWNLOAD = "download"
SCENES = "scenes"
REFERENCE = 2000  # scenes drawn, where they are the reference
RENDERED = 1_000_003  # their seed: none that the embedded models were trained on
FEWEST, MOST = 100, 5000  # images of a reference; of more, so many are drawn
BATCH = 64
FLOOR = 0.1  # of the median: a feature that hardly varies in the reference must not outweigh all others


class Features(Protocol):
    """images (N, 3, H, W) float32 in [0, 1] -> (N, D) float32."""

    name: str
    note: str  # printed beside every number that comes from them
    differentiable: bool

    def __call__(self, images: Tensor) -> Tensor: ...


class SceneFeatures:
    """Channel means of the four stages of the embedded segmenter's encoder: D = 104."""

    name = "scene features"
    note = "scene features: not comparable with published FID, KID, precision or recall"
    differentiable = True

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._encoder: Any = ScenesSegmenter(str(device)).network.encoder

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape[2:] != (SIDE, SIDE):
            images = torch.nn.functional.interpolate(
                images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
            )
        stages = self._encoder(normalise(images).contiguous(memory_format=torch.channels_last))
        return torch.cat([stage.mean((2, 3)) for stage in stages[1:]], 1)


class InceptionFeatures:
    """The 2,048 pooled features of the FID's Inception network, by torch-fidelity; images are rounded to 8 bits.

    Args:
        weights: its file `weights-inception-2015-12-05-6726825d.pth`, or `download`.

    Raises:
        UsageError: there is no such file.
        DissectError: it cannot be fetched, or is no such network.
    """

    name = "inception features"
    note = "inception features, 2048 dimensions, torch-fidelity; Fréchet distances shrink with the number of samples"
    differentiable = False

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

        path = _fetched(URL_INCEPTION_V3) if str(weights) == DOWNLOAD else Path(weights)
        state = load_state_dict(path)
        with tempfile.TemporaryDirectory() as folder:
            # torch-fidelity would unpickle whatever the file holds; it is given one that was just written from tensors
            safe = Path(folder) / "inception.pth"
            torch.save(state, safe)
            try:
                network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(safe))
            except (RuntimeError, AttributeError, KeyError) as error:
                raise DissectError(
                    f"{path} does not hold the Inception network of torch-fidelity ({one_line(error)}); fetch "
                    f"{URL_INCEPTION_V3}."
                ) from error
        self._network = network.to(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        found: Tensor = self._network((images * 255).round().to(torch.uint8))[0]
        return found


def _fetched(url: str) -> Path:
    """torch-fidelity's Inception file in torch.hub's cache, downloaded on first use and checked by its hash."""
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    try:
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(place), hash_prefix=INCEPTION_HASH, progress=False)
    except Exception as error:  # urllib's, the file system's, or a wrong hash
        raise DissectError(
            f"The Inception network cannot be downloaded from {url} ({one_line(error)}). Put the file at {place}, name "
            "another by --inception FILE, or leave --inception out and compare by scene features."
        ) from error
    if not sha256(place).startswith(INCEPTION_HASH):
        raise DissectError(f"The cached file {place} is not the one of {url} (its SHA-256 differs); delete it.")
    return place


def open_features(inception: str | Path | None, device: str | torch.device) -> Features:
    """Inception's where its file is named, else the embedded segmenter's."""
    return SceneFeatures(device) if inception is None else InceptionFeatures(inception, device)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The images that a generator should be like. `mean`, `scale` (D,) standardise every feature by them."""

    name: str
    features: Tensor  # (M, D) float64, standardised
    mean: Tensor
    scale: Tensor

    def halves(self) -> tuple[Reference, Reference]:
        """Every other image, and the rest: to choose by, and to judge by."""
        first, second = (replace(self, features=self.features[start::2]) for start in (0, 1))
        return first, second

    def standard(self, features: Tensor) -> Tensor:
        """(N, D) features -> the same in units of the reference's standard deviations. Float64, on the CPU."""
        return (features.cpu().double() - self.mean) / self.scale


def open_reference(
    given: str | Path | None,
    features: Features,
    size: tuple[int, int],
    *,
    drawn: bool,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> Reference:
    """The features of the images of a folder, or of 2,000 scenes that no model was trained on.

    Args:
        given: a folder of images; each is cut to the shape of `size` around its middle and resized to it.
        size: height and width of the generated images.
        drawn: whether scenes may stand in where no folder is given.

    Scene features are standardised, since they differ in scale by orders of magnitude; Inception's are left as they
    are, for the sake of comparison.

    Raises:
        UsageError: no folder, no images in it, or too few of them.
        DissectError: an image that cannot be read; features that are not finite.
    """
    if given is None and not drawn:
        raise UsageError("Say what the images should be like: --reference FOLDER, with images of the kind it was made.")
    batches, name = reference_images(SCENES if given is None else given, size)
    found = []
    with torch.inference_mode():
        for images in batches:
            found.append(features(images.to(device)).cpu().double())
            advance(len(images))
    every = torch.cat(distributed.in_order(found))
    if not bool(every.isfinite().all()):
        raise DissectError(f"Features of the reference {name} are not finite; look at its images.")
    mean, scale = standardisation(features, every)
    return Reference(name=name, features=(every - mean) / scale, mean=mean, scale=scale)


def standardisation(features: Features, reference: Tensor) -> tuple[Tensor, Tensor]:
    """reference (M, D) float64 -> what to subtract and to divide by, (D,) each.

    Scene features are standardised, since they differ in scale by orders of magnitude; others are left as they are.
    """
    if not isinstance(features, SceneFeatures):
        return torch.zeros(reference.shape[1]).double(), torch.ones(reference.shape[1]).double()
    scale = reference.std(0)
    return reference.mean(0), scale.clamp(min=max(1e-6, FLOOR * float(scale.median())))


def reference_images(given: str | Path, size: tuple[int, int]) -> tuple[Iterator[Tensor], str]:
    """Batches of images (n, 3, H, W) in [0, 1], and what they are: of a folder, at `size`, or `scenes`, as squares of
    that size, of 128 pixels at most.

    Of several processes each gets some of the batches.

    Raises:
        UsageError: no folder, or too few images in it.
        DissectError: on the way, an image that cannot be read.
    """
    if is_scenes(given):
        return _scenes(size), f"{REFERENCE} drawn scenes"
    files, name = _files(Path(given))
    return _read(files, size), name


def is_scenes(given: str | Path) -> bool:
    """Whether drawn scenes are meant, and no folder of that name."""
    return str(given) == SCENES and not Path(given).is_dir()


def count_reference(given: str | Path | None) -> int:
    """How many images a reference holds."""
    if given is None or is_scenes(given):
        return REFERENCE
    return len(_files(Path(given))[0])


def _scenes(size: tuple[int, int]) -> Iterator[Tensor]:
    """Drawn as small as the generated images: made smaller afterwards, they would lack their finest details."""
    side = min(size[0], SIDE) if size[0] == size[1] else SIDE
    for start in distributed.mine(range(0, REFERENCE, 200)):
        images, _ = render(range(start, start + 200), side=side, seed=RENDERED)
        yield torch.from_numpy(np.asarray(images, np.float32))


def _files(folder: Path) -> tuple[list[Path], str]:
    """The images that are read, in random order, and what they are, in words."""
    listing = list_images(folder, "--reference")
    whole = len(listing.files)
    if whole < FEWEST:
        raise UsageError(
            f"--reference {folder} holds {whole} images; at least {FEWEST} are needed, better as many as "
            f"--samples.{' ' + listing.said + '.' if listing.said else ''}"
        )
    if listing.said:
        warnings.warn(f"--reference {listing.said}.", DissectWarning, stacklevel=2)
    drawn = dice(0, PICTURES).permutation(whole)[:MOST]
    copies = f", copies among them: {listing.copies}" if listing.copies else ""
    return [listing.files[place] for place in drawn], f"{folder} ({len(drawn)} of {whole} images{copies})"


def _read(files: Sequence[Path], size: tuple[int, int]) -> Iterator[Tensor]:
    for start in distributed.mine(range(0, len(files), BATCH)):
        images = []
        for path in files[start : start + BATCH]:
            whole = Image.fromarray(read_image(path))
            fitted = ImageOps.fit(whole, (size[1], size[0]), Image.Resampling.LANCZOS)
            images.append(np.asarray(fitted, np.float32) / 255)
        yield torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
