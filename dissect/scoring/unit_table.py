"""The rows of units.csv and classes.csv, and the verdict over all units of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...segmenters.base import Vocabulary
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg
from .counting import OK, Tally
from .label_tests import Evidence
from .scores import (
    MIN_IOU,
    MIN_IOU_QUANTILE,
    Floats,
    Labels,
    attainable_iou,
    average_precision,
    chance_iou,
    excess_iou,
    label_units,
)

TIERS = STRONG, WEAK, POSITION_ONLY, UNTESTED, NONE = "strong", "weak", "position only", "untested", ""
VOTES = 0.05  # a class that comes first in at least this share of the bootstrap replicates is in the label set


def unit_table(
    layer: str,
    tally: Tally,
    labels: Labels,
    evidence: Evidence | None,
    vocabulary: Vocabulary,
    rule: str,
    quantile_level: int,
) -> pd.DataFrame:
    """The rows of one layer; without evidence the columns that need it are empty. `judge` adds the last columns."""
    fine = (tally.state == OK) & labels.attracted
    names, categories = np.array(vocabulary.names), np.array(vocabulary.categories)
    swapped = label_units(tally.score, tally.choose, rule, quantile_level)
    units = np.arange(len(fine))
    nothing = np.full(len(fine), np.nan)

    def where_fine(values: Floats) -> Floats:
        return np.where(fine, values, np.nan)

    position = evidence.position_iou if evidence else nothing
    return pd.DataFrame(
        {
            "layer": layer,
            "unit": units,
            "label": np.where(fine, names[labels.label], ""),
            "category": np.where(fine, categories[labels.label], ""),
            "labelled": False,
            "tier": NONE,
            "iou": where_fine(labels.iou),
            "iou_low": where_fine(evidence.low if evidence else nothing),
            "iou_high": where_fine(evidence.high if evidence else nothing),
            "chance_iou": where_fine(chance_iou(labels.class_share, labels.share)),
            "position_iou": where_fine(position),
            "content_iou": where_fine(labels.iou - position),
            "attainable_iou": where_fine(attainable_iou(labels.class_share, labels.share)),
            "iqr": where_fine(labels.iqr),
            "average_precision": where_fine(average_precision(tally.score, labels.label)),
            "excess_iou": where_fine(excess_iou(tally.choose, tally.score, labels.label)),
            "reaches_limits": labels.reaches_limits & fine,
            "p_value": where_fine(evidence.p_value if evidence else nothing),
            "q_value": np.nan,
            "runner_up": np.where(fine & (labels.runner_up >= 0), names[labels.runner_up], ""),
            "runner_up_iou": where_fine(labels.runner_up_iou),
            "label_set": _label_sets(evidence.votes, names, fine) if evidence else "",
            "split_half_iou": np.where(fine & swapped.attracted, swapped.iou, np.nan),
            "threshold": tally.level[units, labels.level],
            "quantile": labels.share,
            "peak": tally.peak[:, 0],
            "state": tally.state,
        }
    )


def _label_sets(votes: Floats, names: NDArray[np.str_], fine: NDArray[np.bool_]) -> list[str]:
    """(U,) the names of the classes that often come first, by descending share of the votes."""
    order = np.argsort(-votes, axis=1, kind="stable")
    return [
        " | ".join(names[c] for c in classes if unit_votes[c] >= VOTES) if is_fine else ""
        for unit_votes, classes, is_fine in zip(votes, order, fine, strict=True)
    ]


def judge(units: pd.DataFrame, tested: bool, rule: str) -> pd.DataFrame:
    """The table of all units of a run with `q_value`, `labelled` and `tier` filled in.

    A unit is labelled where its scores reach the rule's limits and, if labels were tested, q ≤ 0.05. q is
    Benjamini–Hochberg over all units of the run, where a unit below the limits counts as p = 1: it cannot be labelled,
    so a small p of it must not lower the q of others. So at most 5 % of the labelled units are expected to owe their
    label to place and chance.
    """
    if tested:
        claimed = np.where(units.reaches_limits, units.p_value.fillna(1), 1.0)
        q = benjamini_hochberg(claimed)
        units = units.assign(q_value=q, labelled=units.reaches_limits & (q <= FALSE_DISCOVERIES))
    else:
        units = units.assign(labelled=units.reaches_limits)
    return units.assign(tier=tiers(units, tested, rule))


def tiers(units: pd.DataFrame, tested: bool, rule: str) -> list[str]:
    """How much each unit knows of its class beyond position: an effect size beside the test of its label.

    The IoU above position (`content_iou`) is held against the limit that the rule's authors set for a whole IoU: 0.05
    (Bau et al. 2019, rule `iqr`) or 0.04 (Bau et al. 2020, rule `quantile`).

        strong         labelled, and the IoU above position alone reaches the limit.
        weak           labelled, with less than that above position: significant, but small.
        position only  the scores reach the rule's limits, but position explains them (q > 0.05).
        untested       the scores reach the limits, and labels were not tested.
        (empty)        the scores do not reach the limits.

    Returns:
        A tier for each row of `units`, which needs the columns `labelled`, `reaches_limits` and `content_iou`.

    >>> rows = {"labelled": [True, True, False, False], "reaches_limits": [True, True, True, False]}
    >>> tiers(pd.DataFrame({**rows, "content_iou": [0.2, 0.01, 0.2, 0.2]}), tested=True, rule="iqr")
    ['strong', 'weak', 'position only', '']
    """
    limit = MIN_IOU if rule == "iqr" else MIN_IOU_QUANTILE
    if not tested:
        return [str(tier) for tier in np.where(units.reaches_limits, UNTESTED, NONE)]
    labelled = np.where(units.content_iou >= limit, STRONG, WEAK)
    others = np.where(units.reaches_limits, POSITION_ONLY, NONE)
    return [str(tier) for tier in np.where(units.labelled, labelled, others)]


def ranked(units: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order in which units are shown: by tier, then by IoU above position (by IoU if untested)."""
    merit = units.content_iou.fillna(units.iou)
    keys = pd.DataFrame({"tier": units.tier.map(TIERS.index), "merit": -merit})
    return units.loc[keys.sort_values(["tier", "merit"], kind="stable").index]


def highlights(units: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` labelled units that show what a run found: the best unit of each class, then the second best, ….

    Balanced over classes, since the best units alone may all draw the same. Weak units follow all strong ones.

    >>> rows = {"label": ["sky", "sky", "tree"], "labelled": True, "tier": "strong", "iou": 0.5}
    >>> table = pd.DataFrame({"unit": [4, 7, 9], **rows, "content_iou": [0.3, 0.2, 0.1]})
    >>> list(highlights(table, 2).unit)
    [4, 9]
    """
    labelled = ranked(units[units.labelled])
    turn = labelled.groupby(["tier", "label"], sort=False).cumcount()
    keys = pd.DataFrame({"tier": labelled.tier.map(TIERS.index), "turn": turn})
    return labelled.loc[keys.sort_values(["tier", "turn"], kind="stable").index].head(count)


def class_table(
    vocabulary: Vocabulary, share: Floats, images: NDArray[np.float64], units: pd.DataFrame
) -> pd.DataFrame:
    """A row for each class: its share of the pixels, the share of images that have it, its number of labelled units."""
    labelled = units[units.labelled].label.value_counts()
    return pd.DataFrame(
        {
            "class": vocabulary.names,
            "category": vocabulary.categories,
            "colour": vocabulary.colours,
            "share": share,
            "images": images,
            "units": [int(labelled.get(name, 0)) for name in vocabulary.names],
        }
    )
