"""Procedural church scenes with exact masks: the data that the embedded models are trained on.

A scene is a stack of shapes painted back to front: sky, clouds, mountains, grass, back trees, church, path,
bushes, front trees. Every shape is a signed inside-distance over the pixel grid (positive inside, in units of
the image side), so edges are antialiased and the mask is the same shape at coverage one half. The layout is
aligned as faces are in a portrait data set: one church near the centre, slots for everything else.

All scenes of a batch are drawn at once. Scene i depends on (seed, i) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...segmenters.scenes import CLASSES

Array = NDArray[np.floating[Any]]

LABEL = {name: number for number, (name, _, _) in enumerate(CLASSES)}

DRAWS = 112  # uniform numbers per scene; render() checks that it uses no more

SKIES = (  # top, horizon, light: clear day, hazy morning, dusk
    ((0.27, 0.53, 0.86), (0.72, 0.86, 0.97), (1.00, 1.00, 1.00)),
    ((0.56, 0.70, 0.82), (0.95, 0.90, 0.80), (1.00, 0.97, 0.90)),
    ((0.27, 0.25, 0.48), (0.93, 0.58, 0.44), (0.78, 0.68, 0.72)),
)
WALLS = ((0.93, 0.90, 0.84), (0.85, 0.72, 0.52), (0.72, 0.46, 0.36), (0.64, 0.64, 0.68))
ROOFS = ((0.62, 0.24, 0.18), (0.30, 0.33, 0.42))
DOMES = ((0.30, 0.62, 0.56), (0.86, 0.70, 0.28))
DOORS = ((0.36, 0.19, 0.09), (0.16, 0.30, 0.22))
GRASSES = ((0.36, 0.62, 0.22), (0.50, 0.64, 0.28), (0.28, 0.52, 0.24))
PATHS = ((0.82, 0.72, 0.54), (0.70, 0.68, 0.66))
LEAVES = ((0.10, 0.36, 0.16), (0.20, 0.46, 0.16), (0.42, 0.50, 0.14))
MOUNTAINS = ((0.45, 0.50, 0.62), (0.54, 0.50, 0.52))


class Draws:
    """A table of uniform numbers, one row a scene, read column by column."""

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        table = np.empty((len(indices), DRAWS), np.float32)
        for row, index in zip(table, indices, strict=True):
            row[:] = np.random.Generator(np.random.Philox(key=[seed, index])).random(DRAWS, np.float32)
        self._columns = iter(table.T)

    def uniform(self, low: float, high: float) -> Array:
        """(N, 1, 1) numbers in [low, high)."""
        return (low + (high - low) * next(self._columns))[:, None, None]

    def chance(self, probability: float) -> Array:
        """(N, 1, 1) ones with the given probability, else zeros."""
        return (next(self._columns) < probability).astype(np.float32)[:, None, None]

    def pick(self, count: int) -> NDArray[np.int64]:
        """(N,) whole numbers below count, equally likely."""
        return np.minimum((next(self._columns) * count).astype(np.int64), count - 1)

    def colour(self, palette: Sequence[tuple[float, float, float]], spread: float = 0.04) -> Array:
        """(N, 3, 1, 1) colours of the palette, their brightness varied by ±spread."""
        chosen = np.asarray(palette, np.float32)[self.pick(len(palette))]
        return (chosen * (1 + self.uniform(-spread, spread)[:, 0]))[:, :, None, None]


class Canvas:
    """Images (N, 3, S, S) in [0, 1] and labels (N, S, S), painted shape by shape."""

    def __init__(self, count: int, side: int) -> None:
        centres = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.side = side
        self.x = centres[None, None, :]
        self.y = centres[None, :, None]
        self.images = np.zeros((count, 3, side, side), np.float32)
        self.labels = np.zeros((count, side, side), np.uint8)

    def paint(self, name: str, inside: Array, colour: Array, present: Array | float = 1.0) -> None:
        """Paint `colour` (N, 3, S, S) where `inside` (N, S, S) is positive, in scenes with `present`; all broadcast."""
        coverage = np.clip(inside * self.side + 0.5, 0, 1) * present
        self.images += coverage[:, None] * (colour - self.images)
        self.labels = np.where(coverage > 0.5, np.uint8(LABEL[name]), self.labels)

    def ellipse(self, x: Array, y: Array, across: Array | float, up: Array | float) -> Array:
        """Half axes `across` and `up` around (x, y)."""
        radius = np.sqrt(((self.x - x) / across) ** 2 + ((self.y - y) / up) ** 2)
        return (1 - radius) * np.minimum(across, up)

    def box(self, x: Array, half: Array | float, top: Array, bottom: Array) -> Array:
        return np.minimum(half - np.abs(self.x - x), np.minimum(self.y - top, bottom - self.y))

    def gable(self, x: Array, half: Array, top: Array, bottom: Array, blunt: Array | float = 0.0) -> Array:
        """A triangle with its apex up; `blunt` is the half width left at the top."""
        rise = np.clip((self.y - top) / (bottom - top), 0, 1)
        side = blunt + (half - blunt) * rise - np.abs(self.x - x)
        return np.minimum(side, np.minimum(self.y - top, bottom - self.y))

    def arch(self, x: Array, half: Array | float, top: Array, bottom: Array) -> Array:
        """A box under a half circle."""
        above = np.minimum(self.y - (top + half), 0)
        return np.minimum(half - np.hypot(self.x - x, above), bottom - self.y)

    def conifer(self, x: Array, half: Array, top: Array, bottom: Array) -> Array:
        """Three tiers of branches."""
        rise = np.clip((self.y - top) / (bottom - top), 0, 1)
        tier = rise * 3 - np.floor(rise * 3)
        side = half * (0.55 * rise + 0.45 * tier * (0.4 + 0.6 * rise)) - np.abs(self.x - x)
        return np.minimum(side, np.minimum(self.y - top, bottom - self.y))


def _tree(canvas: Canvas, draw: Draws, x: Array, base: Array, height: Array, light: Array, chance: float) -> None:
    present, pointed = draw.chance(chance), draw.chance(0.5)
    leaves = draw.colour(LEAVES, 0.15) * light
    top = base - height
    shade = 1.25 - 0.5 * np.clip((canvas.y - top) / height, 0, 1)[:, None]  # lit from above
    trunk = np.array([0.32, 0.21, 0.13], np.float32)[None, :, None, None] * light
    canvas.paint("tree", canvas.box(x, 0.1 * height, base - 0.3 * height, base), trunk, present * 1.0)
    half = height * draw.uniform(0.30, 0.40)
    needles = canvas.conifer(x, half, top, base - 0.12 * height)
    crown = np.maximum(
        canvas.ellipse(x, top + 0.42 * height, half, 0.42 * height),
        canvas.ellipse(x, top + 0.55 * height, 1.15 * half, 0.27 * height),
    )
    canvas.paint("tree", np.where(pointed > 0, needles, crown), leaves * shade, present)


def _church(canvas: Canvas, draw: Draws, base: Array, light: Array) -> Array:
    """Paint the church and return the x of its door."""
    x = draw.uniform(0.47, 0.53)
    half = draw.uniform(0.19, 0.245)
    wall_top = base - draw.uniform(0.17, 0.22)
    ridge = wall_top - draw.uniform(0.10, 0.14)
    wall, roof = draw.colour(WALLS) * light, draw.colour(ROOFS) * light
    courses = 1 + 0.05 * np.sign(np.sin(canvas.y * (2 * np.pi * 16)))[:, None]  # rows of stones
    shaded = 1 - 0.16 * (np.abs(canvas.x - x) / half)[:, None]

    canvas.paint("building", canvas.box(x, half, wall_top, base), wall * courses * shaded)
    canvas.paint("roof", canvas.gable(x, half + 0.025, ridge, wall_top, half * 0.62), roof * courses)

    kind = draw.pick(10)[:, None, None]  # 0-5 spire, 6-8 dome, 9 a wide gable without a tower
    towered = (kind < 9).astype(np.float32)
    tower_half = np.where(towered > 0, draw.uniform(0.072, 0.092), draw.uniform(0.10, 0.12))
    tower_top = np.where(towered > 0, draw.uniform(0.30, 0.37), wall_top - 0.04)
    front = canvas.box(x, tower_half, tower_top, base)
    canvas.paint("tower", front, wall * courses * 1.06, towered)
    canvas.paint("building", front, wall * courses * 1.06, 1 - towered)
    spire_top = np.where(towered > 0, tower_top - draw.uniform(0.17, 0.23), tower_top - 0.14)
    spire = canvas.gable(x, tower_half + 0.016, spire_top, tower_top)
    canvas.paint("roof", spire, roof * 1.1, ((kind < 6) | (kind == 9)).astype(np.float32))
    bulb = np.minimum(canvas.ellipse(x, tower_top, tower_half + 0.012, tower_half * 1.35), tower_top - canvas.y)
    canvas.paint("dome", bulb, draw.colour(DOMES) * light, ((kind >= 6) & (kind < 9)).astype(np.float32))

    lit = draw.chance(0.35)[:, None]
    glass = lit * np.array([0.98, 0.84, 0.42], np.float32)[None, :, None, None] + (1 - lit) * (
        np.array([0.16, 0.22, 0.36], np.float32)[None, :, None, None] * light
    )
    sill = wall_top + 0.055
    for offset in (-0.72, 0.72):
        canvas.paint("window", canvas.arch(x + offset * half, 0.028, sill, sill + 0.095), glass)
    high = np.maximum(tower_top + 0.045, ridge)
    canvas.paint("window", canvas.arch(x, 0.027, high, high + 0.095), glass)
    door_half = draw.uniform(0.038, 0.05)
    canvas.paint("door", canvas.arch(x, door_half, base - draw.uniform(0.13, 0.155), base), draw.colour(DOORS) * light)
    return x


def render(indices: Sequence[int], *, side: int = 64, seed: int = 0) -> tuple[Array, NDArray[np.uint8]]:
    """Draw scenes and their masks.

    Args:
        indices: which scenes; scene i is the same in every batch.
        side: image side in pixels.
        seed: another seed is another endless set of scenes.

    Returns:
        images (N, 3, side, side) float32 in [0, 1], and labels (N, side, side) uint8, indices into CLASSES.
    """
    draw = Draws(seed, indices)
    canvas = Canvas(len(indices), side)
    hour = draw.pick(len(SKIES))
    top, low, light = (np.array([sky[k] for sky in SKIES], np.float32)[hour][:, :, None, None] for k in range(3))
    horizon = draw.uniform(0.605, 0.635)

    descent = np.clip(canvas.y / horizon, 0, 1)[:, None]
    canvas.paint("sky", np.ones((1, 1, 1), np.float32), top + (low - top) * descent)
    for slot in (0.2, 0.8):
        x, y = draw.uniform(slot - 0.07, slot + 0.07), draw.uniform(0.1, 0.2)
        wide, present = draw.uniform(0.10, 0.15), draw.chance(0.6)
        puffs = np.maximum(
            canvas.ellipse(x, y, wide, wide * 0.38),
            canvas.ellipse(x + draw.uniform(-0.05, 0.05), y - 0.03, wide * 0.55, wide * 0.5),
        )
        canvas.paint("cloud", puffs, 0.55 + 0.45 * light * (1 - 0.1 * descent), present)
    for slot in (0.17, 0.83):
        x, half = draw.uniform(slot - 0.05, slot + 0.05), draw.uniform(0.22, 0.32)
        peak, present = horizon - draw.uniform(0.16, 0.28), draw.chance(0.55)
        canvas.paint("mountain", canvas.gable(x, half, peak, horizon + 0.02), draw.colour(MOUNTAINS) * light, present)

    depth = np.clip((canvas.y - horizon) / (1 - horizon), 0, 1)[:, None]
    canvas.paint("grass", canvas.y - horizon, draw.colour(GRASSES) * light * (1.1 - 0.25 * depth))
    for slot in (0.14, 0.86):
        x, height = draw.uniform(slot - 0.05, slot + 0.05), draw.uniform(0.22, 0.30)
        _tree(canvas, draw, x, horizon + 0.04, height, light, 0.55)

    base = draw.uniform(0.75, 0.78)
    x = _church(canvas, draw, base, light)
    for slot in (-0.2, 0.2):
        wide, present = draw.uniform(0.05, 0.075), draw.chance(0.45)
        bush = np.minimum(canvas.ellipse(x + slot, base + 0.005, wide, wide * 0.75), base + 0.02 - canvas.y)
        canvas.paint("bush", bush, draw.colour(LEAVES, 0.1) * light * 1.25, present)

    end, narrow, wide = draw.uniform(-0.06, 0.06), draw.uniform(0.04, 0.05), draw.uniform(0.11, 0.17)
    walk = np.clip((canvas.y - base) / (1 - base), 0, 1)
    road = np.minimum(narrow + (wide - narrow) * walk - np.abs(canvas.x - x - end * walk), canvas.y - base)
    canvas.paint("path", road, draw.colour(PATHS) * light)
    for slot in (0.12, 0.88):
        x, foot = draw.uniform(slot - 0.04, slot + 0.04), draw.uniform(0.84, 0.90)
        _tree(canvas, draw, x, foot, draw.uniform(0.38, 0.50), light, 0.6)
    return np.clip(canvas.images, 0, 1), canvas.labels
