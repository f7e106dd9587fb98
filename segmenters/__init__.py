"""Segmenters, which give pixels a class: opened by their spec, and the check of the labels that they return."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..hooks.errors import DissectError, UsageError, running
from ..hooks.user_code import call_factory, is_factory
from .base import UNLABELLED, Segmenter, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "UNLABELLED",
    "Row",
    "Segmenter",
    "Vocabulary",
    "check_labels",
    "check_range",
    "check_shape",
    "load_segmenter",
    "segment",
    "table",
]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One known segmenter, for the list of them."""

    spec: str
    title: str
    classes: int
    origin: str
    licence: str
    here: bool  # whether its weights are on this machine


def load_segmenter(spec: str, device: str = "cpu") -> Segmenter:
    """The segmenter of a spec: `scenes`, `faces`, `hub:ID`, `hub:FOLDER`, `torchvision:NAME`, or code of your own.

    That is `package.module:Name` or `file.py:Name`, a function or class that is called without arguments and chooses
    its device itself. Raises UsageError for what does not exist, DissectError for what cannot be fetched or loaded.
    """
    kind, _, rest = spec.partition(":")
    if spec == "scenes":
        from .scenes import ScenesSegmenter

        return ScenesSegmenter(device)
    if spec == "faces":
        from .faces import FacesSegmenter

        return FacesSegmenter(device)
    if kind == "hub" and rest:
        from .hub import HubSegmenter

        return HubSegmenter(rest, device)
    if kind == "torchvision" and rest:
        from .torchvision import TorchvisionSegmenter

        return TorchvisionSegmenter(rest, device)
    if kind not in ("hub", "torchvision") and is_factory(spec):
        return _from_factory(spec)
    specs = {
        row.spec.partition(":")[2] or row.spec: row.spec for row in table()
    }  # a forgotten prefix is a near miss too
    near = difflib.get_close_matches(rest or spec, specs, n=1)
    raise UsageError(
        f"There is no segmenter {spec!r}."
        + (f" Did you mean {specs[near[0]]!r}?" if near else "")
        + " Allowed: scenes, faces, hub:ID, hub:FOLDER, torchvision:NAME, package.module:Name, file.py:Name. "
        "`dissect segmenters` lists those known by name."
    )


def _from_factory(spec: str) -> Segmenter:
    try:
        segmenter = call_factory(spec)
    except UsageError as error:
        kind, _, rest = spec.partition(":")
        if near := difflib.get_close_matches(kind, ("hub", "torchvision"), n=1):
            raise UsageError(f"{error} Did you mean {near[0]}:{rest}?") from error
        raise
    if not (isinstance(segmenter, Segmenter) and isinstance(segmenter.vocabulary, Vocabulary) and callable(segmenter)):
        raise DissectError(
            f"Segmenter {spec!r}: the function returned a {type(segmenter).__name__}; it must return a callable "
            "object with a `name` and a `vocabulary` (ganatomy.segmenters.Vocabulary)."
        )
    return segmenter


def segment(
    segmenter: Segmenter, images: Tensor, check: Callable[[Tensor, Tensor, Segmenter], None] | None = None
) -> Tensor:
    """images (N, 3, H, W) -> their labels (N, P, H, W), on the images' device, that pass `check`: `check_labels`.

    Raises:
        DissectError: the segmenter failed, or returned something else.
    """
    with running(f"Segmenter {segmenter.name} failed on a batch of {len(images)} images"):
        labels = segmenter(images)
    (check or check_labels)(labels, images, segmenter)
    return labels.to(images.device)  # a segmenter chooses its device itself


def check_labels(labels: Tensor, images: Tensor, segmenter: Segmenter) -> None:
    """Raise DissectError unless labels are (N, P, H, W) int64, classes or -1, for these images (N, 3, H, W)."""
    check_shape(labels, images, segmenter)
    if len(labels):
        low, high = labels.aminmax()
        check_range(int(low), int(high), segmenter)


def check_shape(labels: Tensor, images: Tensor, segmenter: Segmenter) -> None:
    """Raise DissectError unless labels are (N, P, H, W) int64 for these images (N, 3, H, W); waits for no GPU."""
    import torch

    n, _, height, width = images.shape
    if not isinstance(labels, torch.Tensor):
        raise DissectError(
            f"Segmenter {segmenter.name} returned a {type(labels).__name__}; it must return a tensor of labels."
        )
    shape = tuple(labels.shape)
    if labels.dtype != torch.int64 or len(shape) != 4 or shape[1] < 1 or (shape[0], *shape[2:]) != (n, height, width):
        raise DissectError(
            f"Segmenter {segmenter.name} returned labels of shape {shape} and type {labels.dtype}; "
            f"they must be ({n}, planes, {height}, {width}) and torch.int64."
        )


def check_range(low: int, high: int, segmenter: Segmenter) -> None:
    """Raise DissectError unless labels from `low` to `high` are classes of the segmenter, or -1."""
    classes = len(segmenter.vocabulary)
    if low < UNLABELLED or high >= classes:
        hint = " 255 usually marks pixels without a label: return -1 there." if high == 255 else ""
        hint += " They may count from 1: subtract 1, so that what was 0 is -1." if low >= 0 and high == classes else ""
        raise DissectError(
            f"Segmenter {segmenter.name} returned labels from {low} to {high}; its vocabulary has {classes} classes, "
            f"so -1 to {classes - 1} are allowed.{hint}"
        )


def table() -> list[Row]:
    """All segmenters known by name, for `dissect segmenters`."""
    from torchvision.models import get_model_weights

    from . import hub, torchvision
    from .faces import FacesSegmenter
    from .scenes import ScenesSegmenter

    rows = [
        Row(
            spec=embedded.name,
            title=title,
            classes=len(embedded.vocabulary),
            origin="in the package",
            licence="MIT",
            here=embedded.weights.is_file(),
        )
        for embedded, title in (
            (ScenesSegmenter, "U-Net for the embedded church scenes, 128x128"),
            (FacesSegmenter, "U-Net for one face that fills the image, 128x128"),
        )
    ]
    for repository, title in hub.KNOWN:
        rows.append(
            Row(
                spec=f"hub:{repository}",
                title=title,
                classes=hub.ADE20K_CLASSES,
                origin=f"https://huggingface.co/{repository}",
                licence="NVIDIA SegFormer licence, non-commercial",
                here=hub.is_cached(repository),
            )
        )
    for name in torchvision.names():
        weights = get_model_weights(name).DEFAULT
        rows.append(
            Row(
                spec=f"torchvision:{name}",
                title=f"{name.replace('_', ' ')}, {weights.name.replace('_', ' ').lower()}",
                classes=len(
                    [category for category in weights.meta["categories"] if category != torchvision.BACKGROUND]
                ),
                origin=weights.url,
                licence="BSD-3-Clause code; none stated for weights",
                here=torchvision.cache_file(weights.url).is_file(),
            )
        )
    return rows
