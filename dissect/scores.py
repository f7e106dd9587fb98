"""Mergeable integer counts at many levels, and the scores read off them: IoU, IQR, chance, labels.

Notation, for one unit, class and level, over n pixels: M the pixels where the unit lies above the level, C those of
the class; a = |M ∩ C|, q = |M| / n, p = |C| / n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..hooks.errors import DissectError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_IQR, MIN_IOU = 0.01, 0.05  # rule "iqr": what a labelled unit reaches
MIN_IOU_QUANTILE = 0.04  # rule "quantile" (Bau et al. 2020)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pixels counted on one half of the samples.

    intersection (U, C, K), unit_area (U, K), class_area (C,): int64 numbers of grid pixels. pixels: n.
    """

    intersection: Integers
    unit_area: Integers
    class_area: Integers
    pixels: int

    def only(self, number: int) -> Counts:
        """The counts of one class alone."""
        return Counts(
            intersection=self.intersection[:, [number]],
            unit_area=self.unit_area,
            class_area=self.class_area[[number]],
            pixels=self.pixels,
        )

    def merge(self, other: Counts) -> Counts:
        """The counts of both sets of samples together; they must have been taken at the same levels."""
        if self.intersection.shape != other.intersection.shape:
            raise DissectError(
                f"Counts of different shape cannot be merged: {self.intersection.shape} and {other.intersection.shape} "
                "(units, classes, levels)."
            )
        return Counts(
            intersection=self.intersection + other.intersection,
            unit_area=self.unit_area + other.unit_area,
            class_area=self.class_area + other.class_area,
            pixels=self.pixels + other.pixels,
        )


def iou(counts: Counts) -> Floats:
    """a / |M ∪ C| as (U, C, K); NaN where the union is empty."""
    return _iou(counts.intersection, counts.unit_area[:, None, :], counts.class_area[None, :, None])


def _iou(a: Integers, m: Integers, c: Integers) -> Floats:
    """The same from |M ∩ C|, |M| and |C|, of any shapes that broadcast."""
    union = m + c - a
    return np.divide(a, union, out=np.full(union.shape, np.nan), where=union > 0)


def chance_iou(p: Floats, q: Floats) -> Floats:
    """The IoU expected of a mask of share q that is independent of a class of share p: pq / (p + q − pq)."""
    union = p + q - p * q
    return np.divide(p * q, union, out=np.full(np.shape(union), np.nan), where=union > 0)


def iqr(counts: Counts) -> Floats:
    """The information quality ratio I(M; C) / H(M, C) as (U, C, K), in [0, 1]; 0 under independence.

    Source: Bau et al. 2019, section 3.1. Where M and C avoid each other (a < npq) it counts as 0, since what a unit
    shuns is not what it draws.
    """
    return _iqr(counts.intersection, counts.unit_area[:, None, :], counts.class_area[None, :, None], counts.pixels)


def _iqr(a: Integers, m: Integers, c: Integers, n: int) -> Floats:
    """The same from |M ∩ C|, |M| and |C|, of any shapes that broadcast, and the number of pixels."""
    joint = _entropy(a, n) + _entropy(m - a, n) + _entropy(c - a, n) + _entropy(n - m - c + a, n)
    apart = _entropy(m, n) + _entropy(n - m, n) + _entropy(c, n) + _entropy(n - c, n)
    ratio = np.divide(apart - joint, joint, out=np.zeros(joint.shape), where=joint > 0)
    attracted = a / n > (m / n) * (c / n)
    return np.where(attracted, np.maximum(ratio, 0), 0.0)


def _entropy(count: Integers, n: int) -> Floats:
    """−x log x at x = count / n."""
    x = count / n
    return -x * np.log(np.where(count > 0, x, 1.0))


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the rule says of each unit; arrays (U,). Scores come from the score half, choices from the other."""

    label: Integers  # class index
    level: Integers  # level index
    iou: Floats
    iqr: Floats
    chance_iou: Floats
    share: Floats  # of pixels above the level
    attracted: NDArray[np.bool_]  # overlaps its class where chosen: under `iqr` more than by chance, else at all
    labelled: NDArray[np.bool_]


def label_units(choose: Counts, score: Counts, rule: str, quantile_level: int) -> Labels:
    """Choose a level and a class for every unit on one half of the samples and score the choice on the other.

    Rule `iqr` (Bau et al. 2019): per unit and class the level of highest IQR, then the class of highest IQR;
    labelled where IQR ≥ 0.01 and IoU ≥ 0.05. Rule `quantile` (Bau et al. 2020): the level with index
    `quantile_level` for all, the class of highest IoU; labelled where IoU ≥ 0.04.
    """
    units = np.arange(len(choose.unit_area))
    if rule == "iqr":
        ratio = iqr(choose)  # (U, C, K)
        label = ratio.max(2).argmax(1)
        level = ratio[units, label].argmax(1)
        attracted = ratio[units, label, level] > 0
    else:
        label = np.nan_to_num(iou(choose)[:, :, quantile_level], nan=-1.0).argmax(1)
        level = np.full(len(units), quantile_level)
        attracted = choose.intersection[units, label, level] > 0
    a, m, c = score.intersection[units, label, level], score.unit_area[units, level], score.class_area[label]
    scored_iou, scored_iqr = _iou(a, m, c), _iqr(a, m, c, score.pixels)
    share = m / score.pixels
    limits = (scored_iqr >= MIN_IQR) & (scored_iou >= MIN_IOU) if rule == "iqr" else scored_iou >= MIN_IOU_QUANTILE
    return Labels(
        label=label,
        level=level,
        iou=scored_iou,
        iqr=scored_iqr,
        chance_iou=chance_iou(c / score.pixels, share),
        share=share,
        attracted=attracted,
        labelled=limits,
    )
