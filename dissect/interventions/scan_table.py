"""The table and the figures of a scan for one class, from what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..causes.table import mean_and_interval
from ..images.class_areas import UNLABELLED
from ..runs import lookup
from ..runs.dissection import Dissection
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg, bootstrap, interval, sign_flip_p
from .by_need import Members, bound_of_rest

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TOP = 20  # units that are to be known exactly, if nothing else is requested
ESTIMATE = ("estimate", "estimate_low", "estimate_high")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of the U units of a layer, on N samples, as shares of an image's pixels.

    Attributes:
        before: (N, C + 1) areas of the classes in the unchanged images; "unlabelled" last.
        units: (V,) those that are verified: ablated alone. change: (V, N, C + 1) what that adds to the areas.
        estimate: (N, U) what ablating each unit adds to the area of the class, to first order; None without a gradient.
        groups: (G, U) groups of the other units. together: (G, N) what ablating each group adds to the area.
    """

    before: Floats
    units: Integers
    change: Floats
    estimate: Floats | None
    groups: Members
    together: Floats


def tabulate(
    run: Dissection, layer: str, target: int, measured: Measured, top: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and the figures of a scan for one class; see `scan.Scan`.

    Args:
        target: the number of the class.
        top: how many of the strongest units are added up.
    """
    names, units = list(run.classes["class"]), run.units[run.units.layer == layer]
    samples, width = len(measured.before), len(units)
    verified = np.isin(np.arange(width), measured.units)
    change = np.full((width, *measured.change.shape[1:]), np.nan)
    change[measured.units] = measured.change
    change_pp = change[:, :, target].T * 100  # (N, U)
    estimate_pp = np.full((samples, width), np.nan) if measured.estimate is None else measured.estimate * 100
    weights = bootstrap(samples)
    changes, estimates = (  # (1 + 2000, U): the mean over images, and those of each bootstrap round
        np.vstack([values.mean(0), weights @ values / samples]) for values in (change_pp, estimate_pp)
    )
    low, high = interval(changes[1:])
    # units that are not verified take part with their estimates, so that q is about that of an exact scan
    q = benjamini_hochberg(sign_flip_p(np.where(verified, change_pp, estimate_pp)))
    iou = lookup.class_iou(run, layer, target)
    causal_rank = pd.Series(changes[0]).rank(method="min")
    table = pd.DataFrame(
        {
            "unit": units.unit.to_numpy(),
            "label": units.label.to_numpy(),
            "labelled": units.labelled.to_numpy(),
            "iou": iou,
            "iou_rank": pd.Series(-iou).rank(method="min").astype(int),
            "change_pp": changes[0],
            "low": low,
            "high": high,
            "q_value": np.where(verified, q, np.nan),
            "changed": verified & (q <= FALSE_DISCOVERIES),
            "causal_rank": causal_rank.astype(int) if verified.all() else causal_rank,
            **dict(zip(ESTIMATE, mean_and_interval(estimate_pp), strict=True)),
            "verified": verified,
            **{f"pp:{name}": change[:, :, k].mean(1) * 100 for k, name in enumerate([*names, UNLABELLED])},
        }
    )
    then = table.estimate.where(~verified)  # orders those that are not verified
    table = table.loc[table.assign(then=then).sort_values(["change_pp", "then", "unit"]).index].reset_index(drop=True)
    info = {
        "class": names[target],
        "samples": samples,
        "before_pp": float(measured.before[:, target].mean() * 100),
        **_with_interval("rank_correlation", rank_correlation(iou, -np.where(verified, changes, estimates))),
        "strongest": float(table.change_pp.head(top).sum()),
        "changed": int(table.changed.sum()),
        **_checks(measured, verified, changes, estimates, target, top),
    }
    return table, info


def _checks(
    measured: Measured, verified: Members, changes: Floats, estimates: Floats, target: int, top: int
) -> dict[str, Any]:
    """How far the ranking can be trusted; see `scan.Scan`.

    Args:
        verified: (U,). changes, estimates: (1 + 2000, U) in percentage points.
    """
    agreement = np.full(len(changes), np.nan)
    checks: dict[str, Any] = {"exact": bool(verified.all()), "verified": int(verified.sum()), "top": top}
    if measured.estimate is not None:
        agreement = rank_correlation(estimates[:, verified], changes[:, verified])
    checks |= _with_interval("agreement", agreement)
    if measured.estimate is None or not len(measured.groups):
        return checks
    bound = bound_of_rest(measured.groups, measured.together, measured.estimate)
    removed = np.sort(-changes[0, verified])[::-1][:top]  # by the first units of the ranking
    return checks | {
        "groups": len(measured.groups),
        "group_units": int(measured.groups.sum(1).max()),
        "group_removed": bound.removed * 100,
        "bound": bound.bound * 100,
        "bound_high": bound.high * 100,
        "certain": int((removed > bound.bound * 100).sum()),
    }


def rank_correlation(one: Floats, other: Floats) -> Floats:
    """Spearman's correlation of two series of values, round by round.

    Args:
        one: (U,), or (R, U) for each round.
        other: (R, U).

    Returns:
        (R,), NaN where all values of a series are equal.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([[5.0, 6.0, 9.0], [3.0, 2.0, 1.0], [4.0, 4.0, 4.0]]))
    array([ 1., -1., nan])
    """
    one, other = np.atleast_2d(one), np.atleast_2d(other)
    one, other = (pd.DataFrame(values).rank(axis=1).to_numpy() for values in (one, other))
    one, other = (ranks - ranks.mean(1, keepdims=True) for ranks in (one, other))
    norm = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.divide((one * other).sum(1), norm, out=np.full(norm.shape, np.nan), where=norm > 0)


def _with_interval(name: str, values: Floats) -> dict[str, float | None]:
    """A figure and its 95 % interval under three keys; None if it is undefined.

    Args:
        values: (1 + 2000,) the figure, and that of each bootstrap round.
    """
    if np.isnan(values[0]):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = interval(values[1:])
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def with_estimates(table: pd.DataFrame) -> pd.DataFrame:
    """The table of a kept scan, with the columns that earlier versions, which verified every unit, did not write."""
    missing = dict.fromkeys(ESTIMATE, np.nan) | {"verified": True}
    return table.assign(**{name: value for name, value in missing.items() if name not in table})


def exact_figures(width: int) -> dict[str, Any]:
    """What `Scan.info` says beside the figures of earlier versions, for a scan that verified each of so many units."""
    return {"exact": True, "why_exact": None, "verified": width, "top": TOP} | _with_interval(
        "agreement", np.array([np.nan])
    )
