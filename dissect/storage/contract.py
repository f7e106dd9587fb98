"""The contract of result files: the columns of each table and the keys of each description, checked when one is opened.

A file that lacks one of them is damaged. Further columns and keys are allowed, and some results have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import DissectError

_TABLES = {
    # a run
    "units.csv": "layer unit label category labelled iou iou_low iou_high chance_iou position_iou content_iou "
    "attainable_iou iqr average_precision excess_iou reaches_limits p_value q_value runner_up runner_up_iou label_set "
    "split_half_iou threshold quantile peak state",
    "classes.csv": "class category colour share images units",
    # interventions, scans, suspects and repairs
    "effects.csv": "class before after change_pp change_pp_low change_pp_high relative relative_low relative_high "
    "p_value q_value changed",
    "sets.csv": "set number size changed_pixels members",
    "chosen.csv": "unit label value",
    "effect: curve.csv": "units remaining low high",
    "repair: curve.csv": "method strength levels left own_z",
    "context.csv": "class places images change_pp low high cells p_value q_value",
    "scan": "unit label labelled iou iou_rank change_pp low high q_value changed causal_rank",
    "suspects.csv": "rank layer unit score label iou",
    "samples.csv": "rank layer sample score",
    "fidelity.csv": "set metric value low high change change_low change_high",
    "grid.csv": "set flat ripple ripple_low ripple_high peaks own_peaks z own_z own_excess",
    # audits
    "peaks.csv": "period vertical horizontal excess low high reference z peak set",
    "gradient.csv": "layer kind stride taps uneven period measured measured_low measured_high chance p_value image",
    "by_class.csv": "class presence presence_low presence_high real_presence real_low real_high difference "
    "difference_low difference_high share real_share p_presence size real_size size_ratio p_size q_presence q_size "
    "verdict distance_part zero_part",
    "pairs.csv": "one other together real_together expected log_odds real_log_odds difference difference_low "
    "difference_high p_value q_value",
    "whole.csv": "metric value low high zero zero_low zero_high difference_low difference_high p_value q_value alarm",
    "seams.csv": "what lines measure ratio low high p_value",
    "profile.csv": "what lines measure distance ratio",
    "checkup: layers.csv": "layer kind verdict reason foretold measured",
    "diversity: layers.csv": "layer rank kept untrained_layer",
    # training
    "fitness.csv": "candidate step equal front quality quality_low quality_high diversity diversity_low diversity_high "
    "fitness fitness_low fitness_high behind behind_low behind_high",
}

_DESCRIPTIONS = {
    "effect.json": "name kind layer label units value where samples chosen_on config created command",
    "scan.json": "layer samples",
    "scan": "name class layer samples before_pp rank_correlation strongest changed",
    "artifacts.json": "name detector layers samples config",
    "repair.json": "name command samples random_sets features verdict sentence checkpoint",
    "checkup.json": "command generator samples overlap strongest colours verdict blame broadband sentence config",
    "diversity.json": "command generator real real_images images names support verdict sentence caveats config",
    "seams.json": "command verdict sentence config",
    "fitness.json": "command zero features real_images images sentence caveats config",
    "watch.json": "command samples layer segmenter names colours skipped config",
    "latents.json": "config tables pictures",
}

COLUMNS: Mapping[str, tuple[str, ...]] = {name: tuple(text.split()) for name, text in _TABLES.items()}
KEYS: Mapping[str, tuple[str, ...]] = {name: tuple(text.split()) for name, text in _DESCRIPTIONS.items()}

# Columns that are read as text even where every value looks like a number: a class may be called NA or 1. A name means
# the same in every table, in those beyond this contract too, so that one list serves them all.
TEXTS = (
    *("layer", "label", "tier", "category", "runner_up", "label_set", "strongest_class", "state", "class", "colour"),
    *(
        "set",
        "members",
        "sign",
        "verdict",
        "one",
        "other",
        "metric",
        "untrained_layer",
        "reason",
        "method",
        "what",
        "lines",
        "measure",
    ),
    *("kind", "how", "maps", "stride", "padding", "output_padding", "dilation", "period", "taps"),
    *("checkpoint", "created", "sha256", "alarms", "grid", "candidate"),
)


def unreadable(path: Path, why: object) -> DissectError:
    """The error to raise for a result file that is missing or damaged."""
    return DissectError(f"{path} cannot be read ({why}); restore the file, or compute the result in another folder.")


def table_trouble(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """Why a table does not meet the contract: it lacks one of `columns`, or a column of numbers holds text.

    Returns:
        The second half of a sentence; empty if the table is sound. Columns of truth values may have missing entries.

    >>> table_trouble(pd.DataFrame({"unit": [0, 1], "iou": ["0.1", "high"]}), ["unit", "iou"])
    'its column iou holds text'
    """
    if missing := [name for name in columns if name not in table]:
        return f"it lacks the columns {', '.join(missing)}"
    for name in columns:
        numeric = pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(table[name])
        if name not in TEXTS and len(table) and not numeric and not table[name].isna().all():
            if set(table[name].dropna().astype(str)) <= {"True", "False"}:  # truth values, of which some are missing
                continue
            return f"its column {name} holds text"
    return ""


def array_trouble(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    """Why arrays do not meet the contract: one of `shapes` is missing or differs; None stands for any length.

    >>> import numpy as np
    >>> array_trouble({"before": np.zeros((2, 3))}, {"before": (None, 4)})
    'its array before has the shape (2, 3), not (any, 4)'
    """
    for name, shape in shapes.items():
        if name not in arrays:
            return f"it lacks the array {name}"
        actual = arrays[name].shape
        fits = len(actual) == len(shape) and all(
            length in (None, size) for length, size in zip(shape, actual, strict=True)
        )
        if not fits:
            allowed = ", ".join("any" if length is None else str(length) for length in shape)
            return f"its array {name} has the shape {actual}, not ({allowed})"
    return ""
