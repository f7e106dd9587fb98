"""Where a change is made: `grid`, `x,y[,w,h]`, `class:NAME` or a mask's file, on the map of a layer."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import DissectWarning, UsageError
from ..images.reader import read_paint

DISTORTED = 0.2  # relative difference of proportions above which a warning says that a mask is stretched
MOST_CELLS = 64 * 64  # of a layer whose cells are edited one at a time
KINDS = "grid, x,y or x,y,w,h in fractions of the image, class:NAME, or the file of a mask, as mask.png or mask.png@128"


@dataclass(frozen=True, kw_only=True)
class Where:
    """The option `--where`.

    Attributes:
        kind: grid, box, class or mask.
        text: the option itself; of a mask its file.
        box: left, top, width and height in fractions of the image; width and height are 0 for a point.
        name: of the class.
        level: the least brightness, of 255, from which a pixel of a mask counts as painted.
    """

    kind: str
    text: str
    box: tuple[float, float, float, float] = (0, 0, 0, 0)
    name: str = ""
    level: int = 1

    @classmethod
    def parse(cls, text: str) -> Where:
        """Read `--where`.

        Raises:
            UsageError: the text is none of the four kinds, or a box outside the image.

        >>> Where.parse("0.25,0.5").box
        (0.25, 0.5, 0, 0)
        >>> Where.parse("class:tree").name
        'tree'
        """
        if text == "grid":
            return cls(kind="grid", text=text)
        if text.startswith("class:") and len(text) > len("class:"):
            return cls(kind="class", text=text, name=text.removeprefix("class:"))
        try:
            coordinates = [float(coordinate) for coordinate in text.split(",")]
        except ValueError:
            if (mask := cls._mask(text)) is not None:
                return mask
            raise UsageError(f"--where {text!r}: there is no such file; allowed are {KINDS}.") from None
        x, y, w, h = (*coordinates, 0, 0)[:4] if len(coordinates) in (2, 4) else (np.nan,) * 4
        if not (0 <= x <= 1 and 0 <= y <= 1 and w >= 0 and h >= 0 and x + w <= 1 and y + h <= 1):
            raise UsageError(
                f"--where {text!r}: must be a point x,y or a box x,y,w,h inside the image, in fractions between 0 and "
                "1, such as 0.2,0.5."
            )
        return cls(kind="box", text=text, box=(x, y, w, h))

    @classmethod
    def _mask(cls, text: str) -> Where | None:
        """`mask.png` or `mask.png@128`, if there is such a file."""
        if Path(text).is_file():
            return cls(kind="mask", text=text)
        file, _, level = text.rpartition("@")
        if not Path(file).is_file():
            return None
        if not (level.isdecimal() and 1 <= int(level) <= 255):
            raise UsageError(
                f"--where {text!r}: must have a brightness between 1 and 255 after @, such as mask.png@128."
            )
        return cls(kind="mask", text=file, level=int(level))

    def check(self, size: tuple[int, ...]) -> None:
        """Raise the errors of a place on a map of this size (h, w), before any work is done."""
        height, width = size
        if self.kind == "grid" and height * width > MOST_CELLS:
            raise UsageError(
                f"--where grid: the layer has {height * width} cells, more than {MOST_CELLS}; name a place, or take a "
                "layer with fewer cells."
            )
        if self.kind == "mask":
            mask_place(self.text, height, width, self.level)

    def digest(self) -> str:
        """sha256 of the mask's file."""
        return hashlib.sha256(Path(self.text).read_bytes()).hexdigest()


def grid_places(height: int, width: int) -> Tensor:
    """(h·w, 1, h, w): each cell alone, row by row."""
    return torch.eye(height * width).view(-1, 1, height, width)


def box_place(box: tuple[float, float, float, float], height: int, width: int) -> Tensor:
    """(1, 1, h, w): the cells whose centre lies in the box; the cell at its centre at least."""
    x, y, w, h = box

    def along(start: float, length: float, cells: int) -> Tensor:
        centres = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        inside = (centres >= start) & (centres < start + length)
        inside[min(int((start + length / 2) * cells), cells - 1)] = True
        return inside

    return (along(y, h, height)[:, None] & along(x, w, width)).float()[None, None]


def class_places(cells: NDArray[np.int16], number: int) -> Tensor:
    """cells (N, P, h, w), the labels at the cells' centres -> (1, N, h, w): the cells of a class, by its number."""
    return torch.from_numpy((cells == number).any(1)).float()[None]


def mask_place(path: str, height: int, width: int, level: int = 1) -> Tensor:
    """(1, 1, h, w) in [0, 1]: the share of each cell that is painted, see `images.reader.read_paint`.

    Raises:
        DissectError: the file is no picture.
        UsageError: nothing is painted.
    """
    painted, values = read_paint(Path(path), level)
    if not painted.any():
        fault = "black everywhere; paint the place in any colour" if level == 1 else f"nowhere {level} or brighter"
        raise UsageError(f"--where {path}: the mask is {fault}.")
    shape = painted.shape[1] / painted.shape[0] / (width / height)
    if abs(shape - 1) > DISTORTED:
        warnings.warn(
            f"--where {path} has {painted.shape[1]}×{painted.shape[0]} pixels, other proportions than the layer's map "
            f"of {width}×{height}; it is stretched over the whole image.",
            DissectWarning,
            stacklevel=2,
        )
    if level == 1 and values > 2:
        warnings.warn(
            f"--where {path} has {values} different values, and all but black count as painted "
            f"({painted.mean():.1%} of it); {path}@128 takes what is at least 128 of 255.",
            DissectWarning,
            stacklevel=2,
        )
    return F.interpolate(torch.from_numpy(painted).float()[None, None], (height, width), mode="area")
