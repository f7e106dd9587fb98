"""torchvision's semantic segmentation models, with their default weights.

Their class 0, `__background__`, means "none of the other classes", not a thing: its pixels are unlabelled (-1). It
keeps its place in the vocabulary, so that the other classes keep their numbers.
"""

from __future__ import annotations

import contextlib
import difflib
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hooks.errors import DissectError, UsageError
from .base import UNLABELLED, Vocabulary
from .colours import palette
from .hub import Preprocessing, class_probabilities, label_pixels

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "__background__"


def names() -> tuple[str, ...]:
    """The names of torchvision's segmentation models."""
    from torchvision.models import list_models, segmentation

    return tuple(sorted(list_models(segmentation)))


def cache_file(url: str) -> Path:
    """Where torch.hub keeps the weights from a URL."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def resized(height: int, width: int, side: int) -> tuple[int, int]:
    """The size of an image whose shorter side becomes `side`, as torchvision rounds it."""
    if height <= width:
        return side, side * width // height
    return side * height // width, side


def _state(weights: Any) -> dict[str, Tensor]:
    """The tensors of default weights, downloaded on first use and checked by the hash in the file's name."""
    try:
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # torch.hub announces downloads on stdout, which belongs to results
            state: dict[str, Tensor] = weights.get_state_dict(
                progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
            )
    except OSError as error:
        raise DissectError(
            f"{weights.url} could not be downloaded ({error}). Put the file at {cache_file(weights.url)} and try "
            "again, or use another segmenter."
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DissectError(
            f"The weights from {weights.url} are damaged: delete {cache_file(weights.url)} if it is there, and try "
            "again."
        ) from error
    # The auxiliary head helps training; it is neither built nor run here.
    return {key: value for key, value in state.items() if not key.startswith("aux_classifier.")}


class TorchvisionSegmenter:
    """A segmentation model of torchvision, by name. Raises UsageError for a name that torchvision does not have."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        from torchvision.models import get_model, get_model_weights

        if name not in names():
            near = difflib.get_close_matches(name, names(), n=1)
            raise UsageError(
                f"torchvision has no segmentation model {name!r}."
                + (f" Did you mean {near[0]!r}?" if near else "")
                + f" There are: {', '.join(names())}."
            )
        weights = get_model_weights(name).DEFAULT
        categories = tuple(weights.meta["categories"])
        preset = weights.transforms()
        self.name = f"torchvision:{name}"
        self.vocabulary = Vocabulary(
            names=categories, categories=("object",) * len(categories), colours=palette(len(categories))
        )
        self.preprocessing = Preprocessing(mean=tuple(preset.mean), std=tuple(preset.std))
        self.side: int = preset.resize_size[0]
        network = get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
        network.load_state_dict(_state(weights))
        self.network = network.eval().requires_grad_(False).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> labels (N, 1, H, W) int64, -1 for background; see `label_pixels`."""
        labels = label_pixels(self._scores, images, self._preprocessing(images), len(self.vocabulary))
        if BACKGROUND not in self.vocabulary.names:
            return labels
        return labels.masked_fill(labels == self.vocabulary.names.index(BACKGROUND), UNLABELLED)

    def probabilities(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> (N, C, H, W) in [0, 1], background among them, differentiable."""
        return class_probabilities(self._scores, images, self._preprocessing(images))

    def _preprocessing(self, images: Tensor) -> Preprocessing:
        return replace(self.preprocessing, size=resized(images.shape[2], images.shape[3], self.side))

    def _scores(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images)["out"]
        return scores
