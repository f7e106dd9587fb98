"""What a segmenter is, and what its labels are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

UNLABELLED = -1


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The classes a segmenter knows: names, categories (object, part, …) and display colours.

    The index of a class in `names` is its number in the label planes.
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]
    colours: tuple[str, ...]  # "#rrggbb"

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or not all(self.names):
            raise ValueError(f"Class names must differ and not be empty, got {', '.join(map(repr, self.names[:12]))}.")
        sizes = {len(self.names), len(self.categories), len(self.colours)}
        if len(sizes) != 1 or not self.names:
            raise ValueError(
                f"A vocabulary needs as many categories and colours as names, got {len(self.names)} names, "
                f"{len(self.categories)} categories, {len(self.colours)} colours."
            )

    def __len__(self) -> int:
        return len(self.names)


@runtime_checkable
class Segmenter(Protocol):
    """Names the pixels of images.

    Called with images (N, 3, H, W) float32 in [0, 1]; returns labels (N, P, H, W) int64: P label planes
    (usually one), each pixel the index of its class in `vocabulary` or -1 where nothing is known. A class lives in
    one plane.
    Resizing and normalisation for the network inside are the segmenter's own business.
    """

    name: str
    vocabulary: Vocabulary

    def __call__(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class Differentiable(Segmenter, Protocol):
    """A segmenter that also says how probable each class is, so that a gradient can pass through it."""

    def probabilities(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) float32 in [0, 1] -> (N, C, H, W) in [0, 1], differentiable with respect to images."""
        ...
