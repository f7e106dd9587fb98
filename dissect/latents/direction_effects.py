"""Directions of a generator's latents, and how each changes the areas of classes in the images."""

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
WIDEST = 4096  # entries up to which principal components are taken of whole featuremaps, not of their averages
LEVEL = 0.05
SHOWN = ("class", "sign", "change_pp", "change_pp_low", "change_pp_high")
RANDOM = 20  # random directions to compare with, so that p is at least 1/21
SIGNS = {"+": 1, "-": -1}  # both ways along a direction

Advance = Callable[[int], None]
Floats = NDArray[np.float64]


def fit(space: Space, method: str, count: int, advance: Advance) -> tuple[Directions, str]:
    """Compute the `count` strongest directions in a space.

    GANSpace in w takes principal components of 2,000 samples' w. In z it takes principal components of the first
    layer's featuremaps, or of their averages over the map if they have more than 4,096 entries, and regresses them to
    the latents. SeFa takes the weights of all layers that take a style, or of the first layer that takes the latent.

    Returns:
        The directions, and a phrase that says from what they were computed.

    Raises:
        UsageError: the method does not go with this generator.
    """
    if method == SEFA:
        weights = meeting(space)
        advance(FITTED_ON)
        matrices = "the weight matrix" if len(weights) == 1 else f"{len(weights)} weight matrices"
        return closed_form(weights, count), f"{matrices} that {space.name} meets"
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
    """GANSpace in z, see `fit`."""
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
    components = moments.solve(count)
    assert components.mean is not None
    regression = Regression(space.width, count)
    for samples in _batches():
        points, x = maps(samples)
        regression.add(points, (x - components.mean) @ components.vectors.T)
        advance(len(samples) // 2)
    vectors = signed(torch.nn.functional.normalize(regression.solve(), dim=1))
    directions = Directions(vectors=vectors, scales=components.scales, shares=components.shares, mean=None)
    return directions, f"featuremaps of {layer}, {FITTED_ON:,} samples, regressed to z"


def meeting(space: Space) -> list[Tensor]:
    """The matrices (out, D) that a point is multiplied with first, as they are in use.

    Raises:
        UsageError: they are not known for this generator.
    """
    module = space.generator.module
    if space.name == "w":
        return [
            layer.affine.weight if isinstance(layer, Modulated) else layer.style.linear.weight_orig
            for layer in module.modules()
            if isinstance(layer, (Modulated, AdaIN))
        ]
    if isinstance(module, ProGAN):
        return [module.get_parameter("layer1.conv.weight").movedim(1, 3).flatten(0, 2)]
    if isinstance(module, DCGAN):
        return [module.get_parameter("main.0.weight").flatten(1).T]
    raise UsageError(
        "--method sefa: known are the weights of StyleGANs in w, progressive GANs and DCGANs, "
        f"not those of {space.generator.name} in {space.name}; take --method ganspace."
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
    """Measure how a step along each direction changes the areas of the classes, beside steps along random directions.

    A step has `strength` standard deviations of the samples along its direction, and is made both ways. Twenty random
    directions are moved along in the same way; each is the difference of two samples, so that in w it has the
    distribution of w itself.

    Args:
        space: where the steps are made.
        vectors: (K, D) of unit length.
        segmenter: names the classes.
        samples: from which the steps start.
        strength: in standard deviations.
        seed: of the random directions and the intervals.
        advance: `advance(n)` is called after every n images, of which a sample has 1 + 2 · (K + 20).

    Returns:
        A table with one row for each direction, sign and class, with the columns of `effects_table`: the change in
        percentage points with its interval over samples, the test with false-discovery control over all rows, and the
        changes by the random directions.
        (K,) float64, the p-value of each direction: among it and the random directions, the share of those with as
        large a largest change, of any class and sign; the changes of a class are divided by their root mean square over
        the random directions. It is at least 1/21, and it is valid whatever class is looked at afterwards.
    """
    directions = torch.cat([vectors, _random(space, seed)])
    before, after = _moved_areas(space, directions, segmenter, samples, strength, advance)
    changes = [
        AreaChange(kind="chosen" if row < 2 * len(vectors) else "random", number=row, after=areas)
        for row, areas in enumerate(after)
    ]
    chosen, random = changes[: 2 * len(vectors)], changes[2 * len(vectors) :]
    tables = []
    for row, change in enumerate(chosen):
        table = effects_table(before, [change, *random], segmenter.vocabulary.names, seed)
        table.insert(0, "direction", row // 2 + 1)
        table.insert(1, "sign", list(SIGNS)[row % 2])
        tables.append(table)
    all_rows = pd.concat(tables, ignore_index=True)
    q = benjamini_hochberg(all_rows.p_value.to_numpy())
    means = np.stack([(change.after - before).mean(0) for change in changes]).reshape(len(directions), 2, -1)
    return all_rows.assign(q_value=q, changed=q <= FALSE_DISCOVERIES), _p_values(means, len(vectors))


def _moved_areas(
    space: Space, directions: Tensor, segmenter: Segmenter, samples: Sequence[int], strength: float, advance: Advance
) -> tuple[Floats, list[Floats]]:
    """Areas (N, C + 1) of the classes before, and after a step along each direction, forward and then backward."""
    steps = (strength * spread(space, directions)).tolist()
    classes = len(segmenter.vocabulary)
    before: list[Floats] = []
    after: list[list[Floats]] = [[] for _ in range(2 * len(directions))]
    for start in range(0, len(samples), space.batch):
        points = space.points(samples[start : start + space.batch])
        before.append(_areas(space, points, segmenter, classes))
        for index, (direction, step) in enumerate(zip(directions, steps, strict=True)):
            for side, sign in enumerate(SIGNS.values()):
                moved = space.moved(points, direction, sign * step)
                after[2 * index + side].append(_areas(space, moved, segmenter, classes))
            advance(2 * len(points))
        advance(len(points))
    return np.concatenate(before), [np.concatenate(batches) for batches in after]


def _random(space: Space, seed: int) -> Tensor:
    """(RANDOM, D) of unit length: differences of samples that are used nowhere else."""
    first = int(dice(seed, DIRECTIONS).integers(10 * FITTED_ON, 2**31))
    points = space.points(range(first, first + 2 * RANDOM))[:, : space.width].cpu()
    return torch.nn.functional.normalize(points[::2] - points[1::2], dim=1)


def _p_values(changes: Floats, count: int) -> Floats:
    """Mean changes (K + R, 2, C) -> (K,) p-values of the first K directions among the R random ones, see `effects`."""
    scale = np.sqrt(np.square(changes[count:]).mean((0, 1)))  # (C,)
    with np.errstate(divide="ignore", invalid="ignore"):
        greatest = np.nan_to_num(np.abs(changes) / scale, nan=0.0).max(
            (1, 2)
        )  # infinite if no random one changes a class
    return (1 + (greatest[count:] >= greatest[:count, None]).sum(1)) / (1 + len(changes) - count)


def summary(shares: Sequence[float], scales: Sequence[float], p: Floats, table: pd.DataFrame) -> pd.DataFrame:
    """Summarise the directions.

    Args:
        shares, scales: (K,) of `Directions`.
        p, table: of `effects`.

    Returns:
        One row a direction: share, standard deviation along it, p-value, and, for a direction with p ≤ 0.05, the class
        that it changes most relative to the random directions.
    """
    rows = []
    for direction, (share, scale, value) in enumerate(zip(shares, scales, p.tolist(), strict=True), 1):
        row: dict[str, Any] = {"direction": direction, "share": share, "sigma": scale, "p_value": value, "class": None}
        changed = table[(table.direction == direction) & table.changed]
        if value <= LEVEL and len(changed):
            by_random = changed[["random_pp_min", "random_pp_max"]].abs().max(axis=1)
            most = changed.loc[(changed.change_pp.abs() / by_random.clip(lower=1e-9)).idxmax()]
            row |= {name: most[name] for name in SHOWN}
        rows.append(row)
    return pd.DataFrame(rows, columns=("direction", "share", "sigma", "p_value", *SHOWN))


def _areas(space: Space, points: Tensor, segmenter: Segmenter, classes: int) -> Floats:
    """Points (n, D) -> shares (n, C + 1) of the classes in their images; "unlabelled" last."""
    images = space.images(points).to(space.generator.device)
    return shares(segment(segmenter, images), classes).cpu().numpy()
