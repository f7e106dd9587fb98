"""Directions of a generator's latents, and what each does to what is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import UsageError
from ...hooks.tap import Tap
from ...segmenters import segment
from ...segmenters.base import Segmenter
from ..generators.families.dcgan import DCGAN
from ..generators.families.progan import ProGAN
from ..generators.families.stylegan import AdaIN
from ..generators.families.stylegan2 import Modulated
from ..images.class_areas import shares
from ..runtime.random_streams import DIRECTIONS, dice
from ..stats.class_changes import AreaChange, effects_table
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg
from ..subjects.opening import dissectable
from .directions import Directions, Moments, Regression, closed_form, signed
from .space import Space, spread

GANSPACE, SEFA = "ganspace", "sefa"
METHODS = (GANSPACE, SEFA)
FITTED_ON = 2000  # samples
BATCH = 50
WIDEST = 4096  # entries of a featuremap that principal components are taken of
LEVEL = 0.05
SHOWN = ("class", "sign", "change_pp", "change_pp_low", "change_pp_high")
RANDOM = 20  # random directions beside: p is 1/21 at least

Advance = Callable[[int], None]
Floats = NDArray[np.float64]


def fit(space: Space, method: str, count: int, advance: Advance) -> tuple[Directions, str]:
    """The `count` strongest directions in a space, and what they were found in.

    GANSpace in w: principal components of 2,000 samples' w. In z: principal components of the first layer's
    featuremaps, of their averages over the map where these have more than 4,096 entries, regressed to the latents.
    SeFa: of all layers that take a style, or of the first layer that the latent meets.

    Raises:
        UsageError: no such method, or it does not go with this generator.
    """
    if method == SEFA:
        weights = meeting(space)
        advance(FITTED_ON)
        number = "the weight matrix" if len(weights) == 1 else f"{len(weights)} weight matrices"
        return closed_form(weights, count), f"{number} that {space.name} meets"
    if space.name == "w":
        moments = Moments(space.width)
        for samples in _batches():
            moments.add(space.points(samples).cpu())
            advance(len(samples))
        return moments.solve(count), f"w of {FITTED_ON:,} samples"
    return _regressed(space, count, advance)


def _batches() -> list[range]:
    return [range(start, start + BATCH) for start in range(0, FITTED_ON, BATCH)]


def _regressed(space: Space, count: int, advance: Advance) -> tuple[Directions, str]:
    layer = dissectable(space.generator)[0]

    def maps(samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        points = space.points(samples)
        with Tap(space.generator.module, [layer], stop=True) as tap:
            space.generator.module(points.view(len(points), *space.shape))
        x = tap[layer].float().flatten(2)  # (n, U, positions)
        x = x.flatten(1) if x.shape[1] * x.shape[2] <= WIDEST else x.mean(2)
        return points[:, : points.shape[1] - space.fixed].cpu(), x.cpu()

    moments = Moments(maps([0])[1].shape[1])
    for samples in _batches():
        moments.add(maps(samples)[1])
        advance(len(samples) // 2)
    found = moments.solve(count)
    assert found.mean is not None
    regression = Regression(space.width, count)
    for samples in _batches():
        points, x = maps(samples)
        regression.add(points, (x - found.mean) @ found.vectors.T)
        advance(len(samples) // 2)
    vectors = signed(torch.nn.functional.normalize(regression.solve(), dim=1))
    directions = Directions(vectors=vectors, scales=found.scales, shares=found.shares, mean=None)
    return directions, f"featuremaps of {layer}, {FITTED_ON:,} samples, regressed to z"


def meeting(space: Space) -> list[Tensor]:
    """The matrices (out, D) that meet a point first, as they are in use.

    Raises:
        UsageError: they cannot be told for this generator.
    """
    module = space.generator.module
    if space.name == "w":
        parts = [part for part in module.modules() if isinstance(part, (Modulated, AdaIN))]
        return [
            (part.affine.weight if isinstance(part, Modulated) else part.style.linear.weight_orig) for part in parts
        ]
    if isinstance(module, ProGAN):
        return [module.get_parameter("layer1.conv.weight").movedim(1, 3).flatten(0, 2)]
    if isinstance(module, DCGAN):
        return [module.get_parameter("main.0.weight").flatten(1).T]
    raise UsageError(
        "SeFa needs the weights that the latent meets, which are known of StyleGANs in w, progressive GANs and DCGANs, "
        f"and not of {space.generator.name} in {space.name}; take --method ganspace."
    )


def effects(
    space: Space,
    vectors: Tensor,
    segmenter: Segmenter,
    samples: Sequence[int],
    strength: float,
    seed: int,
    advance: Advance,
) -> tuple[pd.DataFrame, Floats]:
    """What a step of `strength` standard deviations along each direction, both ways, does to the classes' areas.

    A table with one row a direction, sign and class, with the columns of `effects_table`: change in percentage points
    with interval over samples, test with false-discovery control over all rows, and beside it what steps along twenty
    random directions do, each also of `strength` standard deviations along itself, both ways. A random direction is the
    difference of two samples, so that in w it is as w itself varies.

    And (K,) the p-value of each direction: the share of it and the random ones that have as great a largest change, of
    any class and sign, each class's changes being divided by their root mean square over the random ones. It is 1/21 at
    least, and it is valid whatever class is looked at afterwards.
    """
    every = torch.cat([vectors, _random(space, seed)])
    steps = strength * spread(space, every)
    classes = len(segmenter.vocabulary)
    after: list[list[Floats]] = [[] for _ in range(2 * len(every))]
    before = []
    for start in range(0, len(samples), space.batch):
        points = space.points(samples[start : start + space.batch])
        before.append(_areas(space, points, segmenter, classes))
        for number, (direction, step) in enumerate(zip(every, steps.tolist(), strict=True)):
            for side, sign in enumerate((1, -1)):
                moved = space.moved(points, direction, sign * step)
                after[2 * number + side].append(_areas(space, moved, segmenter, classes))
            advance(2 * len(points))
        advance(len(points))
    was = np.concatenate(before)
    changes = [
        AreaChange(
            kind="chosen" if number < 2 * len(vectors) else "random",
            number=number,
            after=np.concatenate(batches),
        )
        for number, batches in enumerate(after)
    ]
    chosen, others = changes[: 2 * len(vectors)], changes[2 * len(vectors) :]
    tables = []
    for number, change in enumerate(chosen):
        table = effects_table(was, [change, *others], segmenter.vocabulary.names, seed)
        table.insert(0, "direction", number // 2 + 1)
        table.insert(1, "sign", "+" if number % 2 == 0 else "-")
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    q = benjamini_hochberg(whole.p_value.to_numpy())
    shifts = np.stack([(change.after - was).mean(0) for change in changes]).reshape(len(every), 2, classes + 1)
    return whole.assign(q_value=q, changed=q <= FALSE_DISCOVERIES), _beyond(shifts, len(vectors))


def _random(space: Space, seed: int) -> Tensor:
    """(RANDOM, D) of unit length: differences of samples beyond those that serve elsewhere."""
    first = int(dice(seed, DIRECTIONS).integers(10 * FITTED_ON, 2**31))
    points = space.points(range(first, first + 2 * RANDOM))[:, : space.width].cpu()
    return torch.nn.functional.normalize(points[::2] - points[1::2], dim=1)


def _beyond(changes: Floats, count: int) -> Floats:
    """changes (K + R, 2, C) -> (K,) p-values of the first K among the others, see `effects`."""
    scale = np.sqrt(np.square(changes[count:]).mean((0, 1)))  # (C,)
    with np.errstate(divide="ignore", invalid="ignore"):
        greatest = np.nan_to_num(np.abs(changes) / scale, nan=0.0).max((1, 2))  # infinite where random ones do nothing
    return (1 + (greatest[count:] >= greatest[:count, None]).sum(1)) / (1 + len(changes) - count)


def summary(shares: Sequence[float], scales: Sequence[float], p: Floats, table: pd.DataFrame) -> pd.DataFrame:
    """One row a direction: strength, p-value, and the class that it changes most beside random directions, if any."""
    rows = []
    for number, (share, scale, value) in enumerate(zip(shares, scales, p.tolist(), strict=True), 1):
        row: dict[str, Any] = {"direction": number, "share": share, "sigma": scale, "p_value": value, "class": None}
        here = table[(table.direction == number) & table.changed]
        if value <= LEVEL and len(here):
            usual = here[["random_pp_min", "random_pp_max"]].abs().max(axis=1)
            most = here.loc[(here.change_pp.abs() / usual.clip(lower=1e-9)).idxmax()]
            row |= {name: most[name] for name in ("class", "sign", "change_pp", "change_pp_low", "change_pp_high")}
        rows.append(row)
    columns = (
        "direction",
        "share",
        "sigma",
        "p_value",
        "class",
        "sign",
        "change_pp",
        "change_pp_low",
        "change_pp_high",
    )
    return pd.DataFrame(rows, columns=columns)


def _areas(space: Space, points: Tensor, segmenter: Segmenter, classes: int) -> Floats:
    images = space.images(points).to(space.generator.device)
    return shares(segment(segmenter, images), classes).cpu().numpy()
