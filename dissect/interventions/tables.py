"""The tables of an intervention, from what was measured: intervals over images, tests, baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..images.class_areas import UNLABELLED
from ..stats.significance import benjamini_hochberg, bootstrap, interval, ratio, sign_flip_p
from .layout import Floats, Outcome


def sets_table(before: Floats, outcomes: Sequence[Outcome], target: int | None, seed: int = 0) -> pd.DataFrame:
    """One row a set of units: what it did to the target class, how many pixels changed their label, how many on target.

    on_target is the share, among all pixels whose label changed, of those that were or became the target class.
    """
    weights = bootstrap(len(before), seed)
    rows = []
    for outcome in outcomes:
        row: dict[str, Any] = {"set": outcome.kind, "number": outcome.number, "size": len(outcome.units)}
        known = ~np.isnan(outcome.changed)
        w = weights * known
        if target is not None:
            was = np.where(known, before[:, target], 0)
            change = np.where(known, outcome.after[:, target] - before[:, target], 0)
            low, high = interval(ratio(w @ change, w.sum(1)) * 100)
            row |= {"change_pp": change.sum() / known.sum() * 100, "change_pp_low": low, "change_pp_high": high}
            low, high = interval(ratio(w @ change, w @ was))
            relative = ratio(change.sum(), was.sum())
            row |= {"relative": float(relative), "relative_low": low, "relative_high": high}
        changed, hit = np.where(known, outcome.changed, 0), np.where(known, outcome.on_target, 0)
        row["changed_pixels"] = changed.sum() / known.sum()
        if target is not None:
            low, high = interval(ratio(w @ hit, w @ changed))
            share = float(ratio(hit.sum(), changed.sum()))
            row |= {"on_target": share, "on_target_low": low, "on_target_high": high}
        rows.append(row | {"members": " ".join(map(str, outcome.units))})
    return pd.DataFrame(rows)


def curve_table(before: Floats, outcomes: Sequence[Outcome], target: int, seed: int = 0) -> pd.DataFrame:
    """The target class's remaining area, 1 = as before, for each size of the sets.

    One row a size: remaining with its 95 % interval over images, and the mean, least and greatest of the random sets.
    """
    weights = bootstrap(len(before), seed)
    was = before[:, target]
    rows = []
    for size in sorted({len(outcome.units) for outcome in outcomes}):
        alike = [outcome for outcome in outcomes if len(outcome.units) == size]
        chosen = next(outcome for outcome in alike if outcome.kind == "chosen").after[:, target]
        low, high = interval(ratio(weights @ chosen, weights @ was))
        row: dict[str, Any] = {"units": size, "remaining": float(ratio(chosen.sum(), was.sum()))}
        row |= {"low": low, "high": high}
        random = [float(ratio(o.after[:, target].sum(), was.sum())) for o in alike if o.kind == "random"]
        if random:
            row |= {"random": np.mean(random), "random_min": min(random), "random_max": max(random)}
        rows.append(row)
    return pd.DataFrame(rows)


def context_table(
    change: Floats,
    random: Floats | None,
    cells: NDArray[np.int16],
    names: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """The effect of an edit of one cell, by the class at the cell's centre before the edit.

    Args:
        change: (h·w, N) change of the target class's share of the image's pixels, for each cell and image.
        random: the same of random sets.
        cells: (N, P, h, w) classes at the centres, -1 for unlabelled.

    One row a class that lies at a centre: at how many places in how many images; change_pp, in percentage points of the
    image, with its 95 % interval over images (places of one image are not independent), p- and q-value over the rows;
    cells, the same change as a multiple of the edited cell's area; random_pp.
    """
    samples, planes = cells.shape[:2]
    weights = bootstrap(samples, seed)
    centres = cells.reshape(samples, planes, -1)  # (N, P, h·w)
    rows = []
    for k, name in [*enumerate(names), (-1, UNLABELLED)]:
        has_class = (centres == k).any(1) if k >= 0 else centres[:, 0] < 0  # (N, h·w)
        count = has_class.sum(1).astype(float)
        if not count.any():
            continue
        total = (change.T * has_class).sum(1) * 100  # (N,)
        low, high = interval(ratio(weights @ total, weights @ count))
        row = {
            "class": name,
            "places": int(count.sum()),
            "images": int((count > 0).sum()),
            "change_pp": total.sum() / count.sum(),
            "low": low,
            "high": high,
            "cells": total.sum() / count.sum() / 100 * centres.shape[2],
            "p_value": float(sign_flip_p(total[:, None], seed)[0]),
        }
        if random is not None:
            row["random_pp"] = (random.T * has_class).sum() * 100 / count.sum()
        rows.append(row)
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p_value") + 1, "q_value", benjamini_hochberg(table.p_value.to_numpy()))
    return table.sort_values("change_pp", ascending=False, kind="stable", ignore_index=True)
