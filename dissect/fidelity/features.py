"""Features: the vectors by which images are compared.

They come from one of two networks: the encoder of the embedded segmenter, which is small and always there, but whose
distances are not comparable with published ones; or the Inception network of torch-fidelity, whose distances are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...hooks.errors import DissectError, one_line
from ...segmenters.scenes import ScenesSegmenter
from ...segmenters.unet import SIDE, normalise
from ..generators.checkpoints import load_state_dict, sha256
from ..generators.download import download_file

INCEPTION_HASH = "6726825d"  # of torch-fidelity's file, as its name says
DOWNLOAD = "download"
FLOOR = 0.1  # of the median scale: a feature that hardly varies in the reference must not outweigh all others


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
        features: Tensor = self._network((images * 255).round().to(torch.uint8))[0]
        return features


def _fetched(url: str) -> Path:
    """torch-fidelity's Inception file in torch.hub's cache, downloaded on first use and checked by its hash."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            download_file(url, path, INCEPTION_HASH, progress=False)
    except Exception as error:  # urllib's, the file system's, or a wrong hash
        raise DissectError(
            f"The Inception network cannot be downloaded from {url} ({one_line(error)}). Put the file at {path}, name "
            "another by --inception FILE, or leave --inception out and compare by scene features."
        ) from error
    if not sha256(path).startswith(INCEPTION_HASH):
        raise DissectError(f"The cached file {path} is not the one of {url} (its SHA-256 differs); delete it.")
    return path


def open_features(inception: str | Path | None, device: str | torch.device) -> Features:
    """Inception's where its file is named, else the embedded segmenter's."""
    return SceneFeatures(device) if inception is None else InceptionFeatures(inception, device)


class Standard(NamedTuple):
    """How features are standardised: mean and scale, (D,) float64 each."""

    mean: Tensor
    scale: Tensor

    def apply(self, features: Tensor) -> Tensor:
        """(N, D) features -> the same in units of `scale` from the mean. Float64, on the CPU."""
        return (features.cpu().double() - self.mean) / self.scale


def standardisation(features: Features, reference: Tensor) -> Standard:
    """How features are standardised by those of a reference (M, D) float64.

    Scene features are standardised, since they differ in scale by orders of magnitude; others are left as they are.
    """
    if not isinstance(features, SceneFeatures):
        return Standard(torch.zeros(reference.shape[1]).double(), torch.ones(reference.shape[1]).double())
    scale = reference.std(0)
    return Standard(reference.mean(0), scale.clamp(min=max(1e-6, FLOOR * float(scale.median()))))
