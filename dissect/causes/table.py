"""The causal table of a run: what ablating each unit does to each class, to first order, with intervals.

RUN/causes.npz   classes (C',) numbers of the classes that were estimated; samples (C', K) in which each was
                 LAYER/effect, LAYER/low, LAYER/high (C', U) in percentage points of the image
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ..stats.significance import LEVEL
from ..storage.files import read_arrays
from .first_order import Estimator, Pairs

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FILE = "causes.npz"
FAST, FULL, OFF = "fast", "full", "off"
EFFORTS = (OFF, FAST, FULL)
SAMPLES = 64  # for each class, at most
FEWEST = 4  # for each class under `fast`
PAIRS = 0.12  # under `fast`: pairs of a sample and a class for each sample of the run
LEAST_SHARE = 0.001  # under `fast`: of the run's pixels, for a class to be estimated


@dataclass(frozen=True, kw_only=True)
class Draw:
    """K samples drawn for one class, in proportion to their area of it; `weight` (K,) makes their mean unbiased."""

    samples: Integers
    weight: Floats


def draw_by_area(area: Floats, count: int) -> Draw:
    """Draw samples in proportion to the area that a class has in them.

    Systematic: the areas of all samples are laid end to end, and `count` points at equal distances fall into them. A
    sample of large area may be drawn more than once, and one without the class never is. The mean over the draws of
    weight · effect estimates the mean effect over all samples, where an effect is zero without the class (Hansen and
    Hurwitz 1943).

    Args:
        area: (N,) of the class in each sample, not all zero.
        count: K, how many draws.

    >>> draw = draw_by_area(np.array([0.0, 2.0, 6.0, 0.0]), 4)
    >>> draw.samples.tolist(), draw.weight.round(2).tolist()
    ([1, 2, 2, 2], [1.0, 0.33, 0.33, 0.33])
    """
    points = (np.arange(count) + 0.5) / count * area.sum()
    drawn = np.searchsorted(area.cumsum(), points, side="right").clip(max=np.flatnonzero(area)[-1])
    return Draw(samples=drawn, weight=area.mean() / area[drawn])


def mean_and_interval(values: Floats) -> tuple[Floats, Floats, Floats]:
    """(K, …) independent values -> their mean (…) and the ends of its 95 % interval (Student 1908).

    Student's t and not the bootstrap, whose intervals are too narrow for a handful of values. NaN for one value.

    >>> [round(float(x), 3) for x in mean_and_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.484, 4.484]
    """
    count, mean = len(values), values.mean(0)
    if count < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * values.std(0, ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half


def chosen_draws(area: Floats, effort: str) -> dict[int, Draw]:
    """For each class that is estimated, the samples in which it is.

    Args:
        area: (N, C) share of each sample's pixels that each class has.
        effort: `full` estimates every class that occurs, in 64 draws; `fast` those of at least 0.1 % of the pixels, in
            so many draws that there are 0.12 for each sample of the run, at least 4 and at most 64 for each class.
    """
    share = area.mean(0)
    classes = np.flatnonzero(share > 0 if effort == FULL else share >= LEAST_SHARE)
    if not len(classes):
        return {}
    count = SAMPLES if effort == FULL else int(np.clip(PAIRS * len(area) // len(classes), FEWEST, SAMPLES))
    return {int(number): draw_by_area(area[:, number], count) for number in classes}


@dataclass(frozen=True, kw_only=True)
class Causes:
    """First-order effects of a layer's units: percentage points of the image that ablating a unit adds to a class."""

    classes: Integers  # (C',) numbers of the estimated classes
    effect: Floats  # (C', U)
    low: Floats
    high: Floats


def estimate(
    estimator: Estimator, draws: Mapping[int, Draw], advance: Callable[[int], None] = lambda _: None
) -> dict[str, NDArray[Any]]:
    """The arrays of causes.npz, for the classes of `draws`, at least one, all in equally many draws.

    Raises:
        DissectError: a network failed.
    """
    classes, count = np.array(list(draws)), len(next(iter(draws.values())).samples)
    samples = np.stack([draw.samples for draw in draws.values()])
    pairs = Pairs(samples=samples.ravel().tolist(), classes=np.repeat(classes, count).tolist())
    weight = np.stack([draw.weight for draw in draws.values()])  # (C', K)
    arrays: dict[str, NDArray[Any]] = {"classes": classes, "samples": samples}
    for layer, effects in estimator(pairs, advance).items():
        values = effects.double().numpy().reshape(*weight.shape, -1) * weight[..., None] * 100
        effect, low, high = mean_and_interval(values.swapaxes(0, 1))
        for name, array in (("effect", effect), ("low", low), ("high", high)):
            arrays[f"{layer}/{name}"] = array.astype(np.float32)
    return arrays


def with_effects(units: pd.DataFrame, names: Sequence[str], causes: Mapping[str, Causes]) -> pd.DataFrame:
    """units.csv with what ablating each unit does, in percentage points of the image.

    Args:
        units: a row for each unit.
        names: of the classes.
        causes: of the layers; where one is missing, the columns stay empty.

    Returns:
        The rows with `effect`, `effect_low`, `effect_high` on the unit's own class, NaN where it has none or that was
        not estimated; `strongest_class` and `strongest_effect`, of the class that changes most.
    """
    own = np.full((3, len(units)), np.nan)
    strongest_class, strongest_effect = np.full(len(units), "", object), np.full(len(units), np.nan)
    for layer, known in causes.items():
        rows = np.flatnonzero(units.layer == layer)
        unit = units.unit.to_numpy()[rows]
        rank = {names[number]: row for row, number in enumerate(known.classes)}
        of_label = units.label.iloc[rows].map(rank)
        has = of_label.notna().to_numpy()
        for column, values in zip(own, (known.effect, known.low, known.high), strict=True):
            column[rows[has]] = values[of_label[has].astype(int), unit[has]]
        most = np.abs(known.effect).argmax(0)[unit]
        strongest_class[rows] = np.array(names, object)[known.classes[most]]
        strongest_effect[rows] = known.effect[most, unit]
    return units.assign(
        effect=own[0],
        effect_low=own[1],
        effect_high=own[2],
        strongest_class=strongest_class,
        strongest_effect=strongest_effect,
    )


def read_causes(folder: Path, widths: Mapping[str, int]) -> dict[str, Causes] | None:
    """The causal table of a run by layer; None where it has none.

    Args:
        folder: of the run.
        widths: how many units, or directions, each layer has.

    Raises:
        DissectError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    shapes: dict[str, tuple[int | None, ...]] = {"classes": (None,), "samples": (None, None)}
    for layer, width in widths.items():
        shapes |= {f"{layer}/{name}": (None, width) for name in ("effect", "low", "high")}
    arrays: Any = read_arrays(path, shapes)
    return {
        layer: Causes(
            classes=arrays["classes"].astype(np.int64),
            **{name: arrays[f"{layer}/{name}"].astype(np.float64) for name in ("effect", "low", "high")},
        )
        for layer in widths
    }
