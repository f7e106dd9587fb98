"""What a change did to the area of each class, with intervals: the table of effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..images.class_areas import UNLABELLED
from .significance import FALSE_DISCOVERIES, benjamini_hochberg, bootstrap, interval, ratio, sign_flip_p

Floats = NDArray[np.float64]
BASELINES = ("random", "matched")  # of the same size; of about the same activation


@dataclass(frozen=True, kw_only=True)
class AreaChange:
    """What one change left of the classes: after (N, C + 1) shares of pixels. `number` counts changes of its kind."""

    kind: str  # chosen, random, matched, by_iou
    number: int
    after: Floats


def effects_table(before: Floats, outcomes: Sequence[AreaChange], names: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """One row a class, "unlabelled" last.

    Args:
        before: (N, C + 1) shares of pixels; the outcomes' `after` are paired with it, image by image.
        outcomes: the chosen change first.

    change_pp is 100 · mean(after − before); relative is Σ after / Σ before − 1, NaN for a class that is not there.
    Intervals: 95 % percentile bootstrap over images. p_value: sign-flip test; q_value: Benjamini–Hochberg over all
    rows; `changed` where q ≤ 0.05. For each baseline the mean over its sets, the least and the greatest.
    `beyond_random`: the interval of the change contains none of the baselines' changes and nothing between them.
    """
    chosen = outcomes[0]
    weights = bootstrap(len(before), seed)
    change = chosen.after - before
    p = sign_flip_p(change, seed)
    q = benjamini_hochberg(p)
    low, high = interval(weights @ change / len(before) * 100)
    relative_low, relative_high = interval(ratio(weights @ change, weights @ before))
    columns: dict[str, Any] = {
        "class": [*names, UNLABELLED],
        "before": before.mean(0),
        "after": chosen.after.mean(0),
        "change_pp": change.mean(0) * 100,
        "change_pp_low": low,
        "change_pp_high": high,
        "relative": ratio(change.sum(0), before.sum(0)),
        "relative_low": relative_low,
        "relative_high": relative_high,
        "p_value": p,
        "q_value": q,
        "changed": q <= FALSE_DISCOVERIES,
    }
    others = []
    for kind in BASELINES:
        changes = [outcome.after - before for outcome in outcomes if outcome.kind == kind]
        if not changes:
            continue
        means = np.stack([np.nanmean(c, 0) * 100 for c in changes])  # (B, C + 1)
        relatives = np.stack([ratio(np.nansum(c, 0), np.where(np.isnan(c), 0, before).sum(0)) for c in changes])
        others.append(means)
        for name, values in (("pp", means), ("relative", relatives)):
            columns[f"{kind}_{name}"] = values.mean(0)
            columns[f"{kind}_{name}_min"], columns[f"{kind}_{name}_max"] = values.min(0), values.max(0)
    if others:
        every = np.concatenate(others)
        columns["beyond_random"] = (low > every.max(0)) | (high < every.min(0))
    return pd.DataFrame(columns)
