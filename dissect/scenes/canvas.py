"""What scenes are painted on, and the shapes that they are painted with.

A shape is a function from places to its signed inside-distance: positive inside, in units of the image side. So edges
are antialiased, and the mask is the same shape at coverage one half. Each is evaluated inside its bounding box only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...segmenters.scenes import CLASSES

Array = NDArray[np.floating[Any]]  # float32 wherever pixels are
Inside = Callable[[Array, Array], Array]  # x (w,), y (h, 1) in [0, 1] -> signed distance (h, w)
Box = tuple[float, float, float, float]  # left, top, right, bottom

LABEL = {name: number for number, (name, _, _) in enumerate(CLASSES)}


class Canvas:
    """An image (3, S, S) float32 in [0, 1] and its labels (S, S) uint8, painted shape by shape."""

    def __init__(self, image: Array, labels: NDArray[np.uint8]) -> None:
        self.side = image.shape[-1]
        self.image, self.labels = image, labels
        self.centres = (np.arange(self.side, dtype=np.float32) + 0.5) / self.side

    def pixels(self, low: float, high: float) -> slice:
        """The pixels between two coordinates, with one more on either side."""
        return slice(max(0, int(low * self.side) - 1), min(self.side, int(high * self.side) + 2))

    def paint(
        self,
        name: str | None,
        box: Box,
        inside: Inside | None,
        colour: Array,
        shade: Inside | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Paint a shape.

        Args:
            name: its class; None leaves the labels alone, as a shadow does.
            box: left, top, right, bottom, outside of which there is nothing of the shape.
            inside: its signed distance; None for the whole box.
            colour: (3,), or (3, h, w) of the box's pixels.
            shade: what the colour is multiplied by, place by place.
            opacity: of the whole.
        """
        left, top, right, bottom = box
        rows, columns = self.pixels(top, bottom), self.pixels(left, right)
        x, y = self.centres[columns], self.centres[rows, None]
        if not x.size or not y.size:
            return
        if inside is None:
            inside = rectangle(*box)
        coverage = inside(x, y)
        coverage *= self.side
        coverage += 0.5
        np.clip(coverage, 0, 1, out=coverage)
        if name is not None:
            self.labels[rows, columns][coverage > 0.5] = LABEL[name]
        paint = colour if colour.ndim == 3 else colour[:, None, None]
        if shade is not None:
            paint = paint * shade(x, y)
        patch = self.image[:, rows, columns]
        patch += (coverage * np.float32(opacity)) * (paint - patch)


def rectangle(left: float, top: float, right: float, bottom: float) -> Inside:
    def inside(x: Array, y: Array) -> Array:
        return np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, bottom - y))

    return inside


def ellipse(x0: float, y0: float, across: float, up: float) -> Inside:
    """Half axes `across` and `up`; the distance is exact at the ends of the shorter one."""

    def inside(x: Array, y: Array) -> Array:
        radius: Array = np.sqrt(((x - x0) / across) ** 2 + ((y - y0) / up) ** 2)
        return (1 - radius) * min(across, up)

    return inside


def gable(x0: float, half: float, top: float, bottom: float, blunt: float = 0.0) -> Inside:
    """A triangle with its apex up, half as wide as `half` at the foot; `blunt` is the half width left at the top."""

    def inside(x: Array, y: Array) -> Array:
        rise = np.clip((y - top) / (bottom - top), 0, 1)
        side = blunt + (half - blunt) * rise - np.abs(x - x0)
        return np.minimum(side, np.minimum(y - top, bottom - y))

    return inside


def arch(x0: float, half: float, top: float, bottom: float) -> Inside:
    """A box under a half circle."""

    def inside(x: Array, y: Array) -> Array:
        above = np.minimum(y - (top + half), 0)
        return np.minimum(half - np.hypot(x - x0, above), bottom - y)

    return inside


def conifer(x0: float, half: float, top: float, bottom: float) -> Inside:
    """Three tiers of branches."""

    def inside(x: Array, y: Array) -> Array:
        rise = np.clip((y - top) / (bottom - top), 0, 1)
        tier = rise * 3 - np.floor(rise * 3)
        side = half * (0.50 * rise + 0.50 * tier * (0.4 + 0.6 * rise)) - np.abs(x - x0)
        return np.minimum(side, np.minimum(y - top, bottom - y))

    return inside


def union(*shapes: Inside) -> Inside:
    def inside(x: Array, y: Array) -> Array:
        whole = shapes[0](x, y)
        for shape in shapes[1:]:
            whole = np.maximum(whole, shape(x, y))
        return whole

    return inside


def above(level: float, shape: Inside) -> Inside:
    """What of a shape lies above a level."""

    def inside(x: Array, y: Array) -> Array:
        return np.minimum(shape(x, y), level - y)

    return inside


def around(x0: float, half: float, top: float, bottom: float) -> Box:
    return x0 - half, top, x0 + half, bottom
