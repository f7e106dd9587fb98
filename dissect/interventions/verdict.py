"""What an intervention did, in one plain sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .result import Effects

LIMIT = 0.05  # of q-values


def verdict(effects: Effects) -> str:
    """What the units did to the class that was meant, with its interval, beside the random sets of units."""
    info, table = effects.info, effects.table
    units = _units(effects)
    doing = "Ablating" if info["kind"] == "ablate" else "Inserting"
    target = table[table["class"] == info["label"]]
    if not len(target):
        changed = table[table.changed]
        if not len(changed):
            return f"{doing} {units} changes no class measurably."
        most = changed.loc[changed.change_pp.abs().idxmax()]
        return (
            f"{doing} {units} changes {len(changed)} of {len(table)} classes, most of all {most['class']}: "
            f"{signed(most.change_pp, 2)} percentage points of the image."
        )
    if effects.context is not None and len(effects.context):
        return f"{doing} {units} in a single cell {_by_class(effects.context, info['label'], effects.noun)}."
    return f"{doing} {units} {_on_class(target.iloc[0], info['label'], table, effects.noun)}."


def _by_class(context: pd.DataFrame, label: str, noun: str) -> str:
    """Where editing one cell adds most of a class, by the class that was there before."""
    gains = context[(context.q_value <= LIMIT) & (context.change_pp > 0)]
    best = (gains if len(gains) else context).iloc[0]
    random = f"; random sets of {noun}s there: {signed(best.random_pp, 3)}" if "random_pp" in best else ""
    effect = (
        f"where {best['class']} was: {signed(best.change_pp, 3)} percentage points of the image "
        f"[{signed(best.low, 3)}, {signed(best.high, 3)}]{random}"
    )
    return f"adds most {label} {effect}" if len(gains) else f"adds no {label} measurably; it adds most {effect}"


def _on_class(row: pd.Series, label: str, table: pd.DataFrame, noun: str) -> str:
    """What was done to the area of a class, beside random sets of units."""
    known = bool(np.isfinite(row.relative))  # unless the class was nowhere before
    measure, text = ("relative", _percent) if known else ("pp", _points)
    name = measure if known else "change_pp"
    change, low, high = (text(row[name + end]) for end in ("", "_low", "_high"))
    if not known:
        effect = f"changes the area of {label} by {change} percentage points of the image [{low}, {high}]"
    elif row.relative < 0:
        effect = f"takes away {change.lstrip('−')} of the area of {label} [{low}, {high}]"
    else:
        effect = f"adds {change.lstrip('+')} to the area of {label} [{low}, {high}]"
    if not row.changed:
        effect = f"does not change the area of {label} measurably: {change} [{low}, {high}]"
    kinds = [kind for kind in ("random", "matched") if f"{kind}_pp" in table]
    if not kinds:
        return effect
    least = text(min(row[f"{kind}_{measure}_min"] for kind in kinds))
    most = text(max(row[f"{kind}_{measure}_max"] for kind in kinds))
    beyond = "" if row.beyond_random or not row.changed else f", so these {noun}s do no more than other {noun}s do"
    return f"{effect}; random sets of {noun}s: {least} to {most}{beyond}"


def _units(effects: Effects) -> str:
    """`20 tree units` where they were chosen for a class, else `3 units of layer4`."""
    info, count = effects.info, len(effects.info["units"])
    noun = effects.noun if count == 1 else f"{effects.noun}s"
    chosen = info["label"] and info["chosen_on"]
    return f"{count} {info['label']} {noun}" if chosen else f"{count} {noun} of {info['layer']}"


def _percent(share: float) -> str:
    return f"{signed(100 * share, 0)}\N{NARROW NO-BREAK SPACE}%"


def _points(change: float) -> str:
    return signed(change, 2)


def signed(value: float, digits: int) -> str:
    """A number with its sign; none before a zero.

    >>> signed(-0.4649, 2), signed(12.2, 0), signed(-0.001, 1)
    ('−0.46', '+12', '0.0')
    """
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]
