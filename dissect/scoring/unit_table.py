"""The rows of units.csv and classes.csv, and the verdict over all units of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...segmenters.base import Vocabulary
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg
from .counting import OK, Tally
from .label_tests import Evidence
from .scores import Floats, Labels, attainable_iou, average_precision, chance_iou, excess_iou, label_units

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


def judge(units: pd.DataFrame, tested: bool) -> pd.DataFrame:
    """The table of all units of a run with `q_value` and `labelled` filled in.

    A unit is labelled where its scores reach the rule's limits and, if labels were tested, q ≤ 0.05. q is
    Benjamini–Hochberg over all units of the run, where a unit below the limits counts as p = 1: it cannot be labelled,
    so a small p of it must not lower the q of others. So at most 5 % of the labelled units are expected to owe their
    label to place and chance.
    """
    if not tested:
        return units.assign(labelled=units.reaches_limits)
    claimed = np.where(units.reaches_limits, units.p_value.fillna(1), 1.0)
    q = benjamini_hochberg(claimed)
    return units.assign(q_value=q, labelled=units.reaches_limits & (q <= FALSE_DISCOVERIES))


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
