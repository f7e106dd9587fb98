"""Procedural church scenes with exact masks: the data that the embedded models are trained on.

A scene is painted back to front: sky, sun, clouds, a balloon, mountains, ground, far water with a boat, distant trees,
the church, bushes, its path, a fence, lamps, people, near trees, near water with its reflection. Time of day, weather,
season, and the place, size and parts of the church vary; a few classes are rare (`RARE`), so that tools that look for
missing classes have something to look for.

Scenes are drawn one by one, and each shape inside its bounding box only, which is fast. Scene i depends on (seed, i)
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .canvas import LABEL, Array, Canvas, Inside, above, arch, around, conifer, ellipse, gable, rectangle, union

Colour = tuple[float, float, float]

RARE = {"clock": 0.05, "boat": 0.04, "balloon": 0.04}  # the chance that a scene gets one


class Sky(NamedTuple):
    """A time of day: the sky's colours at the top and at the horizon, and the colour of the light."""

    top: Colour
    low: Colour
    light: Colour
    lamps: float  # the chance that windows are lit
    sun: float  # the chance that the sun is seen


SKIES = (
    Sky((0.20, 0.45, 0.86), (0.66, 0.84, 0.98), (1.00, 1.00, 0.98), 0.05, 0.35),  # a clear day
    Sky((0.36, 0.60, 0.88), (0.84, 0.90, 0.94), (1.00, 0.99, 0.94), 0.05, 0.30),
    Sky((0.60, 0.66, 0.72), (0.82, 0.84, 0.86), (0.82, 0.84, 0.86), 0.30, 0.00),  # overcast
    Sky((0.30, 0.28, 0.52), (0.96, 0.58, 0.40), (0.84, 0.70, 0.68), 0.60, 0.45),  # dusk
    Sky((0.95, 0.72, 0.56), (0.99, 0.90, 0.74), (1.00, 0.90, 0.80), 0.20, 0.40),  # dawn
    Sky((0.03, 0.05, 0.16), (0.14, 0.18, 0.36), (0.34, 0.38, 0.54), 0.90, 0.00),  # night
)
SKY_ODDS = (0.30, 0.20, 0.16, 0.14, 0.08, 0.12)

SUMMER, AUTUMN, WINTER = range(3)
SEASON_ODDS = (0.60, 0.22, 0.18)

PLASTER, STONE, BRICK, WOOD = range(4)
WALLS: tuple[tuple[Colour, ...], ...] = (
    ((0.94, 0.91, 0.84), (0.90, 0.78, 0.58), (0.86, 0.68, 0.60)),
    ((0.66, 0.66, 0.68), (0.74, 0.68, 0.58)),
    ((0.70, 0.38, 0.28), (0.62, 0.32, 0.26)),
    ((0.60, 0.40, 0.24), (0.82, 0.82, 0.80)),
)
ROOFS: tuple[Colour, ...] = ((0.64, 0.24, 0.16), (0.30, 0.33, 0.42), (0.44, 0.30, 0.22), (0.32, 0.44, 0.40))
DOMES: tuple[Colour, ...] = ((0.30, 0.64, 0.58), (0.90, 0.72, 0.26), (0.36, 0.44, 0.72))
DOORS: tuple[Colour, ...] = ((0.36, 0.19, 0.09), (0.14, 0.32, 0.24), (0.48, 0.12, 0.12))
GRASSES: tuple[tuple[Colour, ...], ...] = (
    ((0.34, 0.60, 0.20), (0.46, 0.64, 0.26), (0.26, 0.50, 0.22)),
    ((0.56, 0.58, 0.24), (0.46, 0.54, 0.24)),
    ((0.90, 0.93, 0.97), (0.86, 0.90, 0.96)),  # snow
)
LEAVES: tuple[tuple[Colour, ...], ...] = (
    ((0.12, 0.38, 0.16), (0.22, 0.48, 0.16), (0.16, 0.42, 0.26)),
    ((0.78, 0.40, 0.10), (0.70, 0.22, 0.10), (0.76, 0.60, 0.14), (0.20, 0.40, 0.16)),
    ((0.42, 0.34, 0.30), (0.50, 0.46, 0.46)),
)
NEEDLES: tuple[Colour, ...] = ((0.07, 0.27, 0.18), (0.11, 0.33, 0.22))
PATHS: tuple[Colour, ...] = ((0.82, 0.72, 0.54), (0.68, 0.66, 0.64), (0.70, 0.54, 0.40))
MOUNTAINS: tuple[Colour, ...] = ((0.42, 0.48, 0.62), (0.54, 0.50, 0.52), (0.34, 0.44, 0.44))
CLOTHES: tuple[Colour, ...] = ((0.80, 0.14, 0.14), (0.14, 0.24, 0.62), (0.92, 0.78, 0.16), (0.16, 0.16, 0.18))
SKINS: tuple[Colour, ...] = ((0.94, 0.78, 0.64), (0.62, 0.42, 0.30))
FENCES: tuple[Colour, ...] = ((0.95, 0.95, 0.93), (0.50, 0.34, 0.20))
BALLOONS: tuple[Colour, ...] = ((0.90, 0.20, 0.18), (0.96, 0.74, 0.12), (0.52, 0.18, 0.62))
GLASS: Colour = (0.15, 0.20, 0.34)
LAMPLIGHT: Colour = (1.00, 0.86, 0.44)
TRUNK: Colour = (0.32, 0.21, 0.13)
IRON: Colour = (0.13, 0.14, 0.16)
PLANKS = 2 * np.pi * 128 / 5  # radians an image side: planks and rows of tiles


class Draws:
    """Random numbers of one scene."""

    def __init__(self, seed: int, index: int) -> None:
        self._next = np.random.Generator(np.random.Philox(key=[seed, index])).random

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._next()

    def chance(self, probability: float) -> bool:
        return self._next() < probability

    def pick(self, odds: Sequence[float]) -> int:
        """A place in `odds`, as likely as they say."""
        left = self._next() * sum(odds)
        for place, share in enumerate(odds):
            left -= share
            if left < 0:
                return place
        return len(odds) - 1

    def colour(self, palette: Sequence[Colour], spread: float = 0.08) -> Array:
        """(3,) a colour of the palette, its brightness varied by ±spread."""
        chosen = palette[min(int(self._next() * len(palette)), len(palette) - 1)]
        return np.asarray(chosen, np.float32) * np.float32(1 + self.uniform(-spread, spread))


@dataclass
class Scene:
    """What all parts of a scene share: where they are painted, the light, the air, the season."""

    canvas: Canvas
    draw: Draws
    light: Array  # (3,)
    haze: Array  # (3,) the colour of the air at the horizon
    air: float  # how much of it lies over what stands at the horizon
    sun: float  # -1 from the left, 1 from the right
    season: int
    lit: bool  # windows and lamps
    horizon: float

    def colour(self, paint: Array, far: float = 0.0) -> Array:
        """A colour (3,) in this light, and in the haze of a distance from 0 to 1."""
        shown = paint * self.light
        hazy: Array = shown + (self.haze - shown) * np.float32(far * self.air)
        return hazy

    def shadow(self, x: float, y: float, half: float) -> None:
        """What something on the ground keeps from the light: to the side away from the sun."""
        middle = x - self.sun * 0.6 * half
        box = around(middle, 1.2 * half, y - 0.25 * half, y + 0.25 * half)
        self.canvas.paint(None, box, ellipse(middle, y, 1.2 * half, 0.22 * half), np.zeros(3, np.float32), None, 0.28)

    def round_shade(self, x0: float, half: float, depth: float = 0.30) -> Inside:
        """Brighter on the side of the sun, with blotches as of leaves."""
        slope, grain = self.sun * depth / half, 9.0 / half

        def shade(x: Array, y: Array) -> Array:
            return (1 + slope * (x - x0)) * (1 + 0.10 * np.sin(grain * x + 2 * np.sin(0.7 * grain * y)))

        return shade


def _masonry(material: int) -> Inside:
    """The texture of a wall: rows of stones or bricks, planks, or nothing."""
    if material == PLASTER:
        return lambda x, y: np.ones((1, 1), np.float32)
    if material == WOOD:
        return lambda x, y: 1 + 0.10 * np.sign(np.sin(PLANKS * x)) + 0 * y
    height = (6 if material == STONE else 4) / 128  # of a course
    depth = 0.10 if material == STONE else 0.14

    def courses(x: Array, y: Array) -> Array:
        row = np.floor(y / height)
        joint = (y / height - row < 0.3) | ((x / (2.2 * height) + 0.5 * (row % 2)) % 1 < 0.18)
        return 1 + 0.4 * depth - depth * joint

    return courses


def _tree(scene: Scene, x: float, foot: float, height: float, far: float = 0.0) -> None:
    canvas, draw = scene.canvas, scene.draw
    kind = draw.pick((0.45, 0.40, 0.15))  # round, conifer, poplar
    palette = NEEDLES if kind == 1 else LEAVES[scene.season]
    leaves = scene.colour(draw.colour(palette, 0.15), far)
    half = height * (draw.uniform(0.13, 0.17) if kind == 2 else draw.uniform(0.28, 0.40))
    top = foot - height
    scene.shadow(x, foot, half)
    trunk = scene.colour(np.asarray(TRUNK, np.float32), far)
    canvas.paint("tree", around(x, 0.05 * height, foot - 0.3 * height, foot), None, trunk)
    if kind == 1:
        shape = conifer(x, half, top, foot - 0.10 * height)
    elif kind == 2:
        shape = ellipse(x, foot - 0.54 * height, half, 0.46 * height)
    else:
        lean = draw.uniform(-0.3, 0.3) * half
        shape = union(
            ellipse(x + lean, top + 0.34 * height, 0.78 * half, 0.34 * height),
            ellipse(x - 0.25 * half, top + 0.52 * height, 0.80 * half, 0.28 * height),
            ellipse(x + 0.30 * half, top + 0.55 * height, 0.78 * half, 0.26 * height),
        )
    box = around(x, 1.15 * half, top, foot - 0.08 * height)
    canvas.paint("tree", box, shape, leaves, scene.round_shade(x, half))
    if scene.season == WINTER and draw.chance(0.7):  # snow lies on it
        dust = scene.colour(np.asarray(GRASSES[WINTER][0], np.float32), far)
        middle = x + scene.sun * 0.3 * half
        canvas.paint(
            None, box, lambda x, y: np.minimum(shape(x, y), 0.5 * (0.8 * half - np.abs(x - middle))), dust, None, 0.4
        )


def _opening(
    scene: Scene, name: str, kind: int, x: float, half: float, top: float, bottom: float, paint: Array
) -> None:
    """A door or a window with its frame: 0 arched, 1 square."""
    shape = arch if kind == 0 else lambda x0, half, top, bottom: rectangle(*around(x0, half, top, bottom))
    rim = 1.0 / 128
    frame = scene.colour(np.asarray((0.90, 0.88, 0.84), np.float32))
    scene.canvas.paint(
        None, around(x, half + rim, top - rim, bottom), shape(x, half + rim, top - rim, bottom), frame, None, 0.6
    )
    scene.canvas.paint(name, around(x, half, top, bottom), shape(x, half, top, bottom), paint)


@dataclass
class Church:
    """Where things may stand beside it."""

    x: float  # of the door
    base: float
    left: float
    right: float


def _tower(
    scene: Scene,
    x: float,
    half: float,
    base: float,
    top: float,
    wall: Array,
    roof: Array,
    texture: Inside,
    glass: Array,
    openings: int,
    clock: bool,
) -> None:
    """A tower with its spire, dome or battlements."""
    canvas, draw = scene.canvas, scene.draw

    def lit(x_: Array, y_: Array) -> Array:
        return texture(x_, y_) * (1.04 + scene.sun * 0.14 / half * (x_ - x))

    canvas.paint("tower", around(x, half, top, base), None, wall, lit)
    cap = draw.pick((0.56, 0.28, 0.16))
    if cap == 0:
        high = top - half * draw.uniform(2.0, 3.2)
        shape, box = gable(x, half * 1.16, high, top), around(x, half * 1.2, high, top)
        canvas.paint("spire", box, shape, roof * 1.06, scene.round_shade(x, half, 0.2))
    elif cap == 1:
        bulb = union(
            above(top, ellipse(x, top, half * 1.12, half * 1.25)),
            gable(x, half * 0.22, top - half * 2.0, top - half * 1.1),
        )
        paint = scene.colour(draw.colour(DOMES))
        canvas.paint(
            "dome", around(x, half * 1.2, top - half * 2.0, top), bulb, paint, scene.round_shade(x, half, 0.25)
        )
    else:
        tooth = half / 2.5
        for place in (-2, 0, 2):
            canvas.paint("tower", around(x + place * tooth, tooth / 2, top - tooth, top), None, wall, lit)
    room = base - top
    high = top + 0.10 * room
    if clock:
        face = scene.colour(np.asarray((0.97, 0.96, 0.90), np.float32))
        radius, y = 0.62 * half, high + 0.62 * half
        ring = around(x, radius + 0.01, y - radius - 0.01, y + radius + 0.01)
        canvas.paint(
            "clock", ring, ellipse(x, y, radius + 0.008, radius + 0.008), scene.colour(np.asarray(IRON, np.float32))
        )
        canvas.paint("clock", ring, ellipse(x, y, radius, radius), face)
        hand = np.asarray(IRON, np.float32)
        canvas.paint(None, around(x, 0.006, y - 0.8 * radius, y), None, hand)
        canvas.paint(None, (x, y - 0.006, x + 0.6 * radius, y + 0.006), None, hand)
        high = y + radius + 0.06 * room
    width = half * 0.40
    _opening(scene, "window", openings, x, width, high, high + 2.8 * width, glass)


def _church(scene: Scene) -> Church:
    canvas, draw = scene.canvas, scene.draw
    size = draw.uniform(0.78, 1.15)
    x = draw.uniform(0.36, 0.64)
    base = scene.horizon + draw.uniform(0.11, 0.17)
    half = size * draw.uniform(0.17, 0.23)
    wall_top = base - size * draw.uniform(0.17, 0.22)
    ridge = wall_top - size * draw.uniform(0.09, 0.14)
    material = draw.pick((0.4, 0.25, 0.2, 0.15))
    wall = scene.colour(draw.colour(WALLS[material]))
    roof = scene.colour(draw.colour(ROOFS))
    if scene.season == WINTER and draw.chance(0.6):
        roof = scene.colour(draw.colour(GRASSES[WINTER]) * np.float32(0.96))  # snow on the roof
    texture = _masonry(material)
    lamp = scene.lit or draw.chance(0.05)
    glass = np.asarray(LAMPLIGHT, np.float32) if lamp else scene.colour(np.asarray(GLASS, np.float32))
    openings = draw.pick((0.6, 0.4))

    scene.shadow(x, base, half * 1.1)
    canvas.paint("building", around(x, half, wall_top, base), None, wall, texture)
    canvas.paint(
        "roof",
        around(x, half + 0.025, ridge, wall_top),
        gable(x, half + 0.02, ridge, wall_top, half * 0.66),
        roof,
        lambda x, y: 1 + 0.06 * np.sin(PLANKS * y),
    )
    plan = draw.pick((0.42, 0.28, 0.12, 0.18))  # tower in the middle, at a side, two towers, none
    tower_half = size * draw.uniform(0.060, 0.082)
    tower_top = base - size * draw.uniform(0.36, 0.46)
    side = 1 if draw.chance(0.5) else -1
    if plan < 3:
        places = ((0.0,), (side * (half - 0.6 * tower_half),), (tower_half - half, half - tower_half))[plan]
        if plan == 2:
            tower_half *= 0.85
        clock = draw.chance(RARE["clock"] / 0.82)  # the share of churches with a tower
        for place in places:
            _tower(scene, x + place, tower_half, base, tower_top, wall, roof, texture, glass, openings, clock)
            clock = False
    if plan in (1, 3):  # a gable over the door
        front = size * 0.105
        canvas.paint("building", around(x, front, wall_top - 0.02, base), None, wall * np.float32(1.05), texture)
        top = wall_top - 0.02 - size * 0.11
        canvas.paint(
            "roof",
            around(x, front + 0.02, top, wall_top - 0.02),
            gable(x, front + 0.018, top, wall_top - 0.02),
            roof * np.float32(1.1),
        )
        if draw.chance(0.5):  # a rose window
            radius, y = size * 0.030, wall_top + 0.01
            canvas.paint("window", around(x, radius, y - radius, y + radius), ellipse(x, y, radius, radius), glass)

    width = size * draw.uniform(0.022, 0.030)
    sill, tall = wall_top + 0.25 * (base - wall_top), size * draw.uniform(0.075, 0.10)
    for offset in (-0.72, -0.46, 0.46, 0.72) if draw.chance(0.3) and plan != 1 else (-0.66, 0.66):
        beside = plan == 1 and offset * side > 0  # the tower stands there
        if not beside and not (plan == 2 and abs(offset) > 0.5):
            _opening(scene, "window", openings, x + offset * half, width, sill, sill + tall, glass)
    door_half, door_tall = size * draw.uniform(0.036, 0.050), size * draw.uniform(0.115, 0.145)
    door = scene.colour(draw.colour(DOORS))
    _opening(scene, "door", draw.pick((0.7, 0.3)), x, door_half, base - door_tall, base, door)
    return Church(x=x, base=base, left=x - half, right=x + half)


def _darker_below(y0: float, wide: float) -> Inside:
    """The shade of a cloud."""
    return lambda x, y: 0.975 - 0.125 * (y - y0) / wide


def _ridge(x0: float, sun: float) -> Inside:
    """The shade of a mountain: one side of its jagged ridge lies in the sun."""
    return lambda x, y: 1 + 0.09 * sun * np.sign(x - x0 - 0.1 * np.sin(30 * y))


def _sky(scene: Scene, sky: Sky) -> None:
    canvas, draw = scene.canvas, scene.draw
    top, low = np.asarray(sky.top, np.float32), scene.haze
    descent = np.clip(canvas.centres / np.float32(scene.horizon), 0, 1)
    canvas.image[:] = (top[:, None] + (low - top)[:, None] * descent)[:, :, None]
    canvas.labels[:] = LABEL["sky"]
    if draw.chance(sky.sun):
        x, y, radius = 0.5 + scene.sun * draw.uniform(0.18, 0.42), draw.uniform(0.08, 0.30), draw.uniform(0.035, 0.055)
        glow = np.asarray((1.0, 0.96, 0.80), np.float32)
        canvas.paint(
            None,
            around(x, 2.6 * radius, y - 2.6 * radius, y + 2.6 * radius),
            lambda x_, y_: np.minimum(
                (1 - np.sqrt((x_ - x) ** 2 + (y_ - y) ** 2) / (2.6 * radius)) / canvas.side - 0.5 / canvas.side, 1
            ),
            glow,
            None,
            0.6,
        )
        canvas.paint("sun", around(x, radius, y - radius, y + radius), ellipse(x, y, radius, radius), glow)
    cloud = 0.35 + 0.65 * scene.light
    for _ in range(draw.pick((0.25, 0.25, 0.25, 0.15, 0.10))):
        x, y, wide = draw.uniform(0, 1), draw.uniform(0.05, 0.28), draw.uniform(0.08, 0.16)
        puffs = union(
            ellipse(x, y, wide, wide * 0.36),
            ellipse(x + draw.uniform(-0.5, 0.1) * wide, y - 0.16 * wide, wide * 0.50, wide * 0.42),
            ellipse(x + draw.uniform(0.1, 0.6) * wide, y - 0.08 * wide, wide * 0.45, wide * 0.36),
        )
        tone = np.asarray(cloud, np.float32) * np.float32(draw.uniform(0.88, 1.0))
        canvas.paint(
            "cloud",
            around(x, 1.1 * wide, y - 0.6 * wide, y + 0.4 * wide),
            puffs,
            tone,
            _darker_below(y, wide),
        )
    if draw.chance(RARE["balloon"]):
        x, y, radius = draw.uniform(0.10, 0.90), draw.uniform(0.10, 0.24), draw.uniform(0.06, 0.085)
        paint = scene.colour(draw.colour(BALLOONS))
        stripes = 4.5 * np.pi / radius
        canvas.paint(
            "balloon",
            around(x, radius, y - radius, y + 1.3 * radius),
            union(ellipse(x, y, radius, radius * 1.05), ellipse(x, y + 0.45 * radius, 0.62 * radius, 0.8 * radius)),
            paint,
            lambda x_, y_: 0.9 + 0.22 * np.sign(np.sin(stripes * (x_ - x))) + 0 * y_,
        )
        basket = scene.colour(np.asarray(TRUNK, np.float32))
        canvas.paint("balloon", around(x, 0.24 * radius, y + 1.35 * radius, y + 1.7 * radius), None, basket)


def _mountains(scene: Scene) -> None:
    canvas, draw = scene.canvas, scene.draw
    for _ in range(draw.pick((0.40, 0.25, 0.20, 0.15))):
        x, half = draw.uniform(0.0, 1.0), draw.uniform(0.20, 0.36)
        peak = scene.horizon - draw.uniform(0.12, 0.28)
        paint = scene.colour(draw.colour(MOUNTAINS), 0.8)
        shape = gable(x, half, peak, scene.horizon + 0.02, 0.02)
        canvas.paint(
            "mountain",
            around(x, half, peak, scene.horizon + 0.02),
            shape,
            paint,
            _ridge(x, scene.sun),
        )
        if draw.chance(0.4):  # snow on the top
            cap = peak + 0.30 * (scene.horizon - peak)
            white = scene.colour(np.asarray((0.96, 0.97, 1.0), np.float32), 0.6)
            canvas.paint(None, around(x, half, peak, cap), above(cap, shape), white)


def _water(scene: Scene, top: float, bottom: float) -> None:
    """Water from `top` to `bottom` that mirrors what is above it."""
    canvas, draw = scene.canvas, scene.draw
    rows = canvas.pixels(top, bottom)
    first = min(round(top * canvas.side), canvas.side - 1)
    wanted = 2 * first - np.arange(rows.start, rows.stop) - 1  # mirrored at the shore
    mirror = canvas.image[:, np.clip(wanted, 0, first), :]
    blue = scene.colour(np.asarray((0.16, 0.34, 0.50), np.float32))
    ripples = draw.uniform(110, 160)
    canvas.paint(
        "water",
        (0, top, 1, bottom),
        rectangle(-1, top, 2, bottom),
        0.55 * mirror + 0.45 * blue[:, None, None],
        lambda x, y: 1 + 0.05 * np.sin(ripples * y + 3 * np.sin(9 * x)),
    )


def _boat(scene: Scene, y: float, size: float) -> None:
    canvas, draw = scene.canvas, scene.draw
    x = draw.uniform(0.15, 0.85)
    hull = scene.colour(draw.colour(CLOTHES))
    canvas.paint(
        "boat",
        around(x, size, y - 0.36 * size, y),
        lambda x_, y_: np.minimum(
            size * (1 - 0.4 * (y_ - y + 0.36 * size) / (0.36 * size)) - np.abs(x_ - x),
            np.minimum(y_ - y + 0.36 * size, y - y_),
        ),
        hull,
    )
    sail = scene.colour(np.asarray((0.97, 0.96, 0.92), np.float32))
    canvas.paint(
        "boat",
        around(x, 0.02, y - 1.7 * size, y - 0.3 * size),
        rectangle(x - 0.008, y - 1.7 * size, x + 0.008, y - 0.3 * size),
        scene.colour(np.asarray(TRUNK, np.float32)),
    )
    canvas.paint(
        "boat",
        (x, y - 1.65 * size, x + 0.9 * size, y - 0.42 * size),
        lambda x_, y_: np.minimum(
            np.minimum(x_ - x, 0.7 * (0.85 * size * (y_ - y + 1.65 * size) / (1.23 * size) - (x_ - x))),
            y - 0.42 * size - y_,
        ),
        sail,
    )


def _person(scene: Scene, x: float, foot: float, tall: float) -> None:
    canvas, draw = scene.canvas, scene.draw
    wide = 0.15 * tall
    scene.shadow(x, foot, 1.4 * wide)
    legs, coat, skin = (scene.colour(draw.colour(palette)) for palette in (CLOTHES, CLOTHES, SKINS))
    canvas.paint("person", around(x, 0.8 * wide, foot - 0.45 * tall, foot), None, legs * np.float32(0.6))
    canvas.paint(
        "person",
        around(x, wide, foot - 0.80 * tall, foot - 0.34 * tall),
        gable(x, 1.15 * wide, foot - 0.80 * tall, foot - 0.34 * tall, 0.75 * wide),
        coat,
    )
    radius = 0.115 * tall
    canvas.paint(
        "person",
        around(x, radius, foot - tall, foot - 0.76 * tall),
        ellipse(x, foot - tall + radius, radius, radius),
        skin,
    )


def _fence(scene: Scene, y: float, gap: tuple[float, float]) -> None:
    """Pickets and two rails across the picture, with a gap for the path."""
    canvas, draw = scene.canvas, scene.draw
    tall, period = draw.uniform(0.055, 0.075), 5 / 128
    paint = scene.colour(draw.colour(FENCES))

    def pickets(x: Array, y_: Array) -> Array:
        beside = np.abs((x / period) % 1 - 0.5) * period
        picket = np.minimum(0.30 * period - beside, np.minimum(y_ - (y - tall) - beside, y - y_))
        rails = np.maximum(0.009 - np.abs(y_ - y + 0.7 * tall), 0.009 - np.abs(y_ - y + 0.28 * tall))
        return np.minimum(np.maximum(picket, rails), np.maximum(gap[0] - x, x - gap[1]))

    canvas.paint("fence", (0, y - tall, 1, y), pickets, paint)


def _lamp(scene: Scene, x: float, foot: float, tall: float) -> None:
    canvas = scene.canvas
    iron = scene.colour(np.asarray(IRON, np.float32))
    scene.shadow(x, foot, 0.03)
    canvas.paint("lamp", around(x, 0.013, foot - 0.85 * tall, foot), None, iron)
    glow = np.asarray(LAMPLIGHT, np.float32) if scene.lit else scene.colour(np.asarray((0.92, 0.94, 0.90), np.float32))
    if scene.lit:
        y, reach = foot - 0.88 * tall, 0.10
        canvas.paint(
            None,
            around(x, reach, y - reach, y + reach),
            lambda x_, y_: np.minimum(
                (1 - np.sqrt((x_ - x) ** 2 + (y_ - y) ** 2) / reach) / canvas.side - 0.5 / canvas.side, 1
            ),
            glow,
            None,
            0.5,
        )
    canvas.paint(
        "lamp",
        around(x, 0.028, foot - tall, foot - 0.82 * tall),
        gable(x, 0.018, foot - tall, foot - 0.82 * tall, 0.030),
        glow,
    )
    canvas.paint(
        "lamp",
        around(x, 0.034, foot - tall - 0.022, foot - tall),
        gable(x, 0.034, foot - tall - 0.022, foot - tall, 0.006),
        iron,
    )


def _ground(scene: Scene) -> None:
    canvas, draw = scene.canvas, scene.draw
    name = "snow" if scene.season == WINTER else "grass"
    ground = scene.colour(draw.colour(GRASSES[scene.season]))
    slope, waves = draw.uniform(-0.03, 0.03), draw.uniform(0.0, 0.012)
    phase, stripes = draw.uniform(0, 6), draw.uniform(25, 50)

    def inside(x: Array, y: Array) -> Array:
        return y - scene.horizon - slope * (x - 0.5) - waves * np.sin(7 * x + phase)

    def shade(x: Array, y: Array) -> Array:
        return 1.10 - 0.5 * (y - scene.horizon) + 0.035 * np.sin(stripes * y + 2 * np.sin(6 * x + phase))

    canvas.paint(name, (0, scene.horizon - 0.05, 1, 1), inside, ground, shade)


def _path(scene: Scene, church: Church, end: float) -> None:
    draw = scene.draw
    narrow, wide = draw.uniform(0.035, 0.050), draw.uniform(0.10, 0.18)
    bend, base = draw.uniform(-0.10, 0.10), church.base
    paint = scene.colour(draw.colour(PATHS))

    def inside(x: Array, y: Array) -> Array:
        walk = np.clip((y - base) / (1 - base), 0, 1)
        middle = church.x + end * walk + bend * np.sin(np.pi * walk)
        return np.minimum(narrow + (wide - narrow) * walk - np.abs(x - middle), y - base)

    scene.canvas.paint("path", (0, base, 1, 1), inside, paint, lambda x, y: 1 + 0.04 * np.sin(90 * y + 40 * x))


def _scene(canvas: Canvas, draw: Draws) -> None:
    sky = SKIES[draw.pick(SKY_ODDS)]
    horizon = draw.uniform(0.50, 0.66)
    fog = draw.chance(0.15)
    scene = Scene(
        canvas=canvas,
        draw=draw,
        light=np.asarray(sky.light, np.float32),
        haze=np.asarray(sky.low, np.float32),
        air=draw.uniform(0.6, 0.9) if fog else draw.uniform(0.15, 0.4),
        sun=1.0 if draw.chance(0.5) else -1.0,
        season=draw.pick(SEASON_ODDS),
        lit=draw.chance(sky.lamps),
        horizon=horizon,
    )
    _sky(scene, sky)
    _mountains(scene)
    boat = draw.chance(RARE["boat"])
    lake = not boat and draw.chance(0.12)
    shore = draw.chance(0.20)
    _ground(scene)
    if lake or (boat and not shore):
        low = horizon + draw.uniform(0.055, 0.085)
        _water(scene, horizon, low)
        if boat:
            _boat(scene, low - 0.015, draw.uniform(0.055, 0.075))
    for slot in (0.08, 0.28, 0.72, 0.92):
        if draw.chance(0.45):
            foot = horizon + draw.uniform(0.02, 0.06) + (0.05 if lake or boat else 0.0)
            _tree(scene, slot + draw.uniform(-0.07, 0.07), foot, draw.uniform(0.12, 0.28), 0.45)
    church = _church(scene)
    for side in (church.left, church.right):
        if draw.chance(0.40):
            x, wide = side + draw.uniform(-0.05, 0.05), draw.uniform(0.045, 0.075)
            paint = scene.colour(draw.colour(LEAVES[scene.season], 0.1)) * np.float32(1.2)
            foot = church.base + 0.015
            box = around(x, wide, foot - 0.9 * wide, foot)
            canvas.paint(
                "bush",
                box,
                above(foot, ellipse(x, foot - 0.2 * wide, wide, 0.7 * wide)),
                paint,
                scene.round_shade(x, wide),
            )
    end = draw.uniform(-0.15, 0.15)
    if draw.chance(0.85):
        _path(scene, church, end)
    front = church.base + draw.uniform(0.035, 0.07)
    if draw.chance(0.28):
        _fence(scene, front + 0.03, (church.x - 0.075, church.x + 0.075))
    for side in (-1, 1):
        if draw.chance(0.13):
            _lamp(scene, church.x + side * draw.uniform(0.11, 0.17), front + 0.02, draw.uniform(0.17, 0.22))
    for _ in range(draw.pick((0.66, 0.20, 0.14))):
        foot = draw.uniform(front + 0.01, 0.94)
        _person(scene, draw.uniform(0.15, 0.85), foot, 0.085 + 0.16 * (foot - church.base))
    for slot in (0.06, 0.94):
        if draw.chance(0.42):
            _tree(scene, slot + draw.uniform(-0.06, 0.08), draw.uniform(0.82, 0.93), draw.uniform(0.34, 0.56))
    if shore:
        top = draw.uniform(0.86, 0.91)
        _water(scene, top, 1.0)
        if boat:
            _boat(scene, draw.uniform(top + 0.03, 0.98), draw.uniform(0.06, 0.08))
    if fog:
        veil = np.clip(1 - np.abs(canvas.centres - np.float32(horizon)) / 0.35, 0, 1)[:, None] * np.float32(0.30)
        canvas.image += veil * (scene.haze[:, None, None] - canvas.image)


def render(indices: Sequence[int], *, side: int = 128, seed: int = 0) -> tuple[Array, NDArray[np.uint8]]:
    """Draw scenes and their masks.

    Args:
        indices: which scenes; scene i is the same in every batch.
        side: image side in pixels.
        seed: another seed is another endless set of scenes.

    Returns:
        images (N, 3, side, side) float32 in [0, 1], and labels (N, side, side) uint8, indices into CLASSES.
    """
    images = np.empty((len(indices), 3, side, side), np.float32)
    labels = np.empty((len(indices), side, side), np.uint8)
    for image, mask, index in zip(images, labels, indices, strict=True):
        _scene(Canvas(image, mask), Draws(seed, index))
    return np.clip(images, 0, 1, out=images), labels
