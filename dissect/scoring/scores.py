"""Mergeable integer counts at many levels, and the scores read off them: IoU, IQR, chance, curves, labels.

Notation, for one unit, class and level, over n pixels: M the pixels where the unit lies above the level, C those of
the class; a = |M ∩ C|, q = |M| / n, p = |C| / n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Numbers = Integers | Floats

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

    def only(self, label: int) -> Counts:
        """The counts of a single class."""
        return Counts(
            intersection=self.intersection[:, [label]],
            unit_area=self.unit_area,
            class_area=self.class_area[[label]],
            pixels=self.pixels,
        )


def iou(counts: Counts) -> Floats:
    """a / |M ∪ C| as (U, C, K); NaN where the union is empty.

    >>> counts = Counts(
    ...     intersection=np.array([[[3]]]), unit_area=np.array([[4]]), class_area=np.array([5]), pixels=10
    ... )
    >>> iou(counts).tolist()
    [[[0.5]]]
    """
    return iou_of(counts.intersection, counts.unit_area[:, None, :], counts.class_area[None, :, None])


def iou_of(a: Numbers, m: Numbers, c: Numbers) -> Floats:
    """The IoU from |M ∩ C|, |M| and |C|, of any shapes that broadcast."""
    union = m + c - a
    return np.divide(a, union, out=np.full(union.shape, np.nan), where=union > 0)


def chance_iou(p: Floats, q: Floats) -> Floats:
    """The IoU expected of a mask of share q that is independent of a class of share p: pq / (p + q − pq).

    >>> float(chance_iou(np.array(0.5), np.array(0.5)))
    0.3333333333333333
    """
    union = p + q - p * q
    return np.divide(p * q, union, out=np.full(np.shape(union), np.nan), where=union > 0)


def iqr(counts: Counts) -> Floats:
    """The information quality ratio I(M; C) / H(M, C) as (U, C, K), in [0, 1]; 0 under independence.

    Source: Bau et al. 2019, section 3.1. Where M and C avoid each other (a < npq) it counts as 0: a unit
    does not draw the class that it avoids.
    """
    return iqr_of(counts.intersection, counts.unit_area[:, None, :], counts.class_area[None, :, None], counts.pixels)


def iqr_of(a: Numbers, m: Numbers, c: Numbers, n: Numbers | int) -> Floats:
    """The IQR from |M ∩ C|, |M| and |C|, of any shapes that broadcast, and the number of pixels."""
    joint = _entropy(a, n) + _entropy(m - a, n) + _entropy(c - a, n) + _entropy(n - m - c + a, n)
    marginal = _entropy(m, n) + _entropy(n - m, n) + _entropy(c, n) + _entropy(n - c, n)
    ratio = np.divide(marginal - joint, joint, out=np.zeros(joint.shape), where=joint > 0)
    attracted = a / n > (m / n) * (c / n)
    return np.where(attracted, np.maximum(ratio, 0), 0.0)


def _entropy(count: Numbers, n: Numbers | int) -> Floats:
    """−x log x at x = count / n."""
    x = count / n
    return -x * np.log(np.where(count > 0, x, 1.0))


def curve(counts: Counts, label: Integers) -> tuple[Floats, Floats]:
    """label (U,), each unit's class -> its IoU and the chance IoU at every level, (U, K) each."""
    a, c = counts.intersection[np.arange(len(label)), label], counts.class_area[label][:, None]
    return iou_of(a, counts.unit_area, c), chance_iou(c / counts.pixels, counts.unit_area / counts.pixels)


def average_precision(counts: Counts, label: Integers) -> Floats:
    """(U,) how well the activation ranks the pixels of the class `label` (U,) above others, in steps of the levels.

    AP = Σ (R_k − R_k+1) P_k over the levels from the highest down, and a last one below all pixels, with precision
    P = |M ∩ C| / |M| and recall R = |M ∩ C| / |C|: no interpolation, as in scikit-learn. For a unit that is independent
    of the class it is the class's share of the pixels; it is NaN where the class does not occur.
    """
    c = counts.class_area[label][:, None]
    a = np.concatenate([c, counts.intersection[np.arange(len(label)), label]], 1)  # from the lowest level up
    m = np.concatenate([np.full_like(c, counts.pixels), counts.unit_area], 1)
    steps = -np.diff(a, axis=1, append=0)
    precision = np.divide(a, m, out=np.zeros(a.shape), where=m > 0)
    return np.divide((steps * precision).sum(1), c[:, 0], out=np.full(len(label), np.nan), where=c[:, 0] > 0)


def excess_iou(choose: Counts, score: Counts, label: Integers) -> Floats:
    """(U,) IoU minus chance IoU at the level where that is largest on the half `choose`, measured on the other."""
    chosen_iou, chosen_chance = curve(choose, label)
    scored_iou, scored_chance = curve(score, label)
    best = np.nan_to_num(chosen_iou - chosen_chance, nan=-1.0).argmax(1)
    return (scored_iou - scored_chance)[np.arange(len(label)), best]


def attainable_iou(p: Floats, q: Floats) -> Floats:
    """The greatest IoU that a mask of share q can have with a class of share p: min(p, q) / max(p, q).

    >>> float(attainable_iou(np.array(0.01), np.array(0.25)))
    0.04
    """
    large = np.maximum(p, q)
    return np.divide(np.minimum(p, q), large, out=np.full(np.shape(large), np.nan), where=large > 0)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a rule says of each unit, (U,) unless stated. Choices come from one half, scores from the other."""

    label: Integers  # class index
    level: Integers  # level index
    class_level: Integers  # (U, C) at which each class is compared
    ranking: Integers  # (U, C) classes, best first
    iou: Floats
    iqr: Floats
    share: Floats  # of pixels above the level
    class_share: Floats  # of pixels of the label's class
    attracted: NDArray[np.bool_]  # overlaps its class where chosen: under `iqr` more than by chance, else at all
    reaches_limits: NDArray[np.bool_]
    runner_up: Integers  # the class that came second, -1 where none did
    runner_up_iou: Floats  # NaN where none did


def label_units(choose: Counts, score: Counts, rule: str, quantile_level: int) -> Labels:
    """Choose a level and a class for every unit on one half of the samples and score the choice on the other.

    Rule `iqr` (Bau et al. 2019): per unit and class the level of highest IQR, then the class of highest IQR;
    its limits are IQR ≥ 0.01 and IoU ≥ 0.05. Rule `quantile` (Bau et al. 2020): the level with index `quantile_level`
    for all, the class of highest IoU; its limit is IoU ≥ 0.04.
    """
    units = np.arange(len(choose.unit_area))
    if rule == "iqr":
        ratio = iqr(choose)  # (U, C, K)
        class_level, merit = ratio.argmax(2), ratio.max(2)
    else:
        merit = np.nan_to_num(iou(choose)[:, :, quantile_level])
        class_level = np.full(merit.shape, quantile_level)
    ranking = np.argsort(-merit, axis=1, kind="stable")
    label, second = ranking[:, 0], ranking[:, min(1, ranking.shape[1] - 1)]
    level = class_level[units, label]
    a, m, c = score.intersection[units, label, level], score.unit_area[units, level], score.class_area[label]
    scored_iou, scored_iqr = iou_of(a, m, c), iqr_of(a, m, c, score.pixels)
    limits = (scored_iqr >= MIN_IQR) & (scored_iou >= MIN_IOU) if rule == "iqr" else scored_iou >= MIN_IOU_QUANTILE
    came_second = (second != label) & (merit[units, second] > 0)
    second_iou = iou(score)[units, second, class_level[units, second]]
    return Labels(
        label=label,
        level=level,
        class_level=class_level,
        ranking=ranking,
        iou=scored_iou,
        iqr=scored_iqr,
        share=m / score.pixels,
        class_share=c / score.pixels,
        attracted=merit[units, label] > 0,
        reaches_limits=limits,
        runner_up=np.where(came_second, second, -1),
        runner_up_iou=np.where(came_second, second_iou, np.nan),
    )
