"""Spools made by hand: a large world whose units have a planted truth, and small ones to count out in full."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ganatomy.dissect.capture.maps import Maps
from ganatomy.dissect.capture.plan import Plan
from ganatomy.dissect.capture.spool import Spool
from ganatomy.segmenters import Vocabulary

Floats = NDArray[np.float64]

SCALE = 2.0  # what is spooled times this is the activation
N, G, SIDE = 700, 16, 8  # five shards and a rest: blocks of 32 and of 30 odd images
NAMES = ("sky", "ground", "box", "tree", "window")
SKY, GROUND, BOX, TREE, WINDOW = range(5)
SMALL = (BOX, TREE, WINDOW)
CLEAR, NOISY, POSITION, NOISE, BOTH, ELSEWHERE = "clear", "noisy", "position", "noise", "both", "elsewhere"
HOW_MANY = {CLEAR: 50, NOISY: 35, POSITION: 140, NOISE: 120, BOTH: 24, ELSEWHERE: 12}


def vocabulary(names: tuple[str, ...]) -> Vocabulary:
    return Vocabulary(names=names, categories=("thing",) * len(names), colours=("#000000",) * len(names))


def lay_out(folder: Path, labels: Tensor, features: Tensor) -> Maps:
    """A spool of labels (N, P, g, g) and featuremaps (N, U, h, w)."""
    spool = Spool(folder, len(labels))
    for shard in range(len(spool)):
        rows = list(spool.indices(shard))
        spool.write(shard, {"labels": labels[rows].short().numpy(), "features-0": features[rows].half().numpy()})
    shape = (features.shape[1], features.shape[2], features.shape[3])
    grid = labels.shape[-1]
    plan = Plan(grid=grid, image=(grid, grid), planes=labels.shape[1], shapes={"layer": shape}, scales={"layer": SCALE})
    return Maps(spool=spool, plan=plan, layer="layer")


@dataclass(frozen=True, kw_only=True)
class World:
    """Samples and what is true of the units."""

    maps: Maps
    labels: Tensor  # (N, P, g, g)
    features: Tensor  # (N, U, h, w) float16
    kind: NDArray[np.str_]  # (U,)
    truth: list[set[int]]  # of each unit, the classes it follows

    def masks(self, unit: int, threshold: float) -> NDArray[np.bool_]:
        """(N, g, g) where a unit exceeds a threshold, by the library's interpolation."""
        values = self.features[:, [unit]].double() * SCALE
        grid = self.labels.shape[-1]
        return (F.interpolate(values, (grid, grid), mode="bilinear", align_corners=False) > threshold)[:, 0].numpy()

    def places(self, number: int) -> NDArray[np.bool_]:
        """(N, g, g) where a class is, in any plane."""
        return (self.labels == number).any(1).numpy()


def large(folder: Path, seed: int) -> World:
    """Scenes, and units of all kinds."""
    dice = np.random.default_rng(seed)
    labels = scenes(dice)
    features, kind, truth = planted(dice, labels)
    maps = lay_out(folder, labels[:, None], features)
    return World(maps=maps, labels=labels[:, None], features=features, kind=np.array(kind), truth=truth)


def scenes(dice: np.random.Generator) -> Tensor:
    """(N, G, G) labels of things that move about, each around a place of its own."""
    y, x = np.mgrid[:G, :G] + 0.5

    def draw(low: float, high: float) -> Floats:
        return dice.uniform(low, high, (N, 1, 1))

    labels = np.full((N, G, G), -1)
    labels[y < draw(2, 8) + draw(-4, 4) * (x / G - 0.5)] = SKY
    labels[y > draw(11, 15) + 0 * x] = GROUND
    for c, (across, down, wide, high, share) in {
        BOX: (4, 9.5, 2.2, 2.0, 0.8),
        TREE: (12, 9, 1.4, 3.5, 0.8),
        WINDOW: (8, 8, 1.4, 1.6, 0.7),
    }.items():
        left, top = across + 1.8 * dice.standard_normal((N, 1, 1)), down + 1.2 * dice.standard_normal((N, 1, 1))
        labels[(draw(0, 1) < share) & (abs(x - left) < wide) & (abs(y - top) < high)] = c
    return torch.from_numpy(labels)


def planted(dice: np.random.Generator, labels: Tensor) -> tuple[Tensor, list[str], list[set[int]]]:
    """featuremaps (N, U, SIDE, SIDE), and of each unit its kind and the classes it follows."""
    seen = F.adaptive_avg_pool2d(F.one_hot(labels + 1, 6)[..., 1:].movedim(-1, 1).double(), SIDE).numpy()  # (N, C, …)
    mean = seen.mean(0)
    present = (seen.sum((2, 3)) > 0)[:, :, None, None]

    def noise(spread: float) -> Floats:
        side = int(dice.choice([3, SIDE]))  # smooth or not
        field = torch.from_numpy(dice.standard_normal((N, 1, side, side)))
        return spread * F.interpolate(field, (SIDE, SIDE), mode="bicubic", align_corners=True)[:, 0].numpy()

    units: list[Floats] = []
    kinds: list[str] = []
    truth: list[set[int]] = []
    for kind, number in HOW_MANY.items():
        for k in range(number):
            c, follows = k % len(NAMES), set[int]()
            if kind in (CLEAR, NOISY):
                unit, follows = (3.0 if kind == CLEAR else 0.9) * seen[:, c] + noise(0.5 if kind == CLEAR else 1.0), {c}
            elif kind == POSITION:
                unit = dice.uniform(1, 4) * pattern(dice, mean[c]) + noise(0.7)
            elif kind == NOISE:
                unit = noise(1.0)
            elif kind == BOTH:
                follows = {SMALL[k % 3], SMALL[(k + 1) % 3]}
                unit = 3 * seen[:, sorted(follows)].sum(1) + noise(0.4)
            else:  # the place of one class, stronger where another is in the image, and that one's content
                place, other = (SKY, GROUND)[k // 6], SMALL[k % 3]
                unit = 2.5 * mean[place] / mean[place].max() * (1 + 0.4 * present[:, other]) + 1.5 * seen[:, other]
                unit, follows = unit + noise(0.3), {other}
            units.append(unit)
            kinds.append(kind)
            truth.append(follows)
    return torch.from_numpy(np.stack(units, 1)).half(), kinds, truth


def pattern(dice: np.random.Generator, mean: Floats) -> Floats:
    """A fixed map: a class's mean map, a blob where the class often is, a band there, or a gradient."""
    y, x = np.mgrid[:SIDE, :SIDE]
    down, across = np.unravel_index(dice.choice(SIDE**2, p=mean.ravel() / mean.sum()), mean.shape)
    size, angle = dice.uniform(1, 2.5), dice.uniform(0, 2 * np.pi)
    fixed = [
        mean / mean.max(),
        np.exp(-((y - down) ** 2 + (x - across) ** 2) / (2 * size**2)),
        np.exp(-((y - down) ** 2) / (2 * size**2)) + 0 * x,
        (np.cos(angle) * x + np.sin(angle) * y) / SIDE,
    ]
    return fixed[dice.integers(4)]


def small(folder: Path, samples: int, side: int = 4) -> World:
    """Ten classes in two planes on a grid of 8, nine units that follow classes more or less, and a constant one."""
    random = torch.Generator().manual_seed(5)
    first = torch.randint(-1, 6, (samples, 1, 4, 4), generator=random)
    second = torch.randint(-4, 4, (samples, 1, 4, 4), generator=random)
    labels = torch.cat([first, torch.where(second >= 0, second + 6, -1)], 1).repeat_interleave(2, 2)
    labels = labels.repeat_interleave(2, 3)
    features = torch.randn(samples, 10, side, side, generator=random)
    truth: list[set[int]] = []
    for unit, (follows, strength) in enumerate([((0,), 3), ((6,), 3), ((7, 9), 2), ((1, 2), 1), ((1, 2, 3, 4), 0.5)]):
        truth.append(set(follows))
        for number in follows:
            here = (labels == number).any(1, keepdim=True).float()
            features[:, unit] += strength * F.adaptive_avg_pool2d(here, side)[:, 0]
    features[:, 9] = 0.5
    truth += [set()] * 5
    maps, features = lay_out(folder, labels, features), features.half()
    return World(maps=maps, labels=labels, features=features, kind=np.array(["small"] * 10), truth=truth)
