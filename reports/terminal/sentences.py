"""The verdict of a command in one plain sentence, where its result does not hold one already."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ...dissect.artifacts.result import Suspects
    from ...dissect.runs.compare import Comparison
    from ...dissect.runs.dissection import Dissection

FEW = 100  # samples; with fewer, hardly a unit can be labelled


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "unit"), count(1200, "unit")
    ('1 unit', '1,200 units')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def of_run(run: Dissection) -> str:
    """How many units are labelled, and the clearest one."""
    summary, noun = run.summary().to_dict("records"), run.noun
    tested = run.info["config"]["significance"] != "off"
    best = run.highlights(1).to_dict("records")
    if not best:
        layers, samples = listed([row["layer"] for row in summary]), run.info["config"]["samples"]
        limit = "better than position explains" if tested else "well enough for the rule"
        few = f" {samples} samples are too few to label anything; try --samples 1000." if samples < FEW else ""
        return f"No {noun} of {layers} matches a class {limit}.{few}"
    counts = listed([f"{row['labelled']} of {count(row['units'], noun)} of {row['layer']}" for row in summary])
    match = "match a class better than position explains" if tested else "reach the rule's limits (not tested)"
    strong = int((run.units.tier == "strong").sum())
    strongly = f", {strong} of them strongly" if tested else ""
    row = best[0]
    beside = f"position {row['position_iou']:.2f}" if tested else f"chance {row['chance_iou']:.2f}"
    where = f" of {row['layer']}" if len(summary) > 1 else ""
    clearest = f"{noun} {row['unit']}{where} = {row['label']} (IoU {row['iou']:.2f}, {beside})"
    return f"{counts} {match}{strongly}; clearest: {clearest}."


def of_scan(units: pd.DataFrame, info: dict[str, Any]) -> str:
    """How many units matter for a class, and which one matters most."""
    first = units.iloc[0]
    noun = info.get("noun", "unit")
    ablated = count(len(units), noun) if info["exact"] else count(info["verified"], f"ablated {noun}")
    return (
        f"{info['changed']} of {ablated} of {info['layer']} change {info['class']} if ablated alone; "
        f"strongest: {noun} {first['unit']} ({first['change_pp']:+.2f} of {info['before_pp']:.2f} % of the image)."
    )


def of_suspects(suspects: Suspects) -> str:
    """The most suspect unit of each layer."""
    info, first = suspects.info, suspects.units.groupby("layer", sort=False).head(1)
    units = listed([f"unit {row.unit} of {row.layer}" for row in first.itertuples()])
    return f"Most suspect by {info['detector']}: {units}. That says where to look; it is no proof of artifacts."


def of_comparison(comparison: Comparison) -> str:
    """How much each side shares with the first one."""
    rows = comparison.summary().to_dict("records")
    return " ".join(
        f"{row['side']} gains {count(row['gained'], 'class').replace('classs', 'classes')} and loses {row['lost']} "
        f"compared with {rows[0]['side']}; "
        + (
            f"{row['corresponding']} of {row['pairs']} pairs of units correspond."
            if row["pairs"]
            else "their units cannot be compared one by one."
        )
        for row in rows[1:]
    )


def of_power(power: pd.DataFrame) -> str:
    """The IoU above position that can be detected, and the samples for the wanted intervals."""
    if not len(power):
        return "No unit reaches the rule's limits, so that nothing can be said of larger numbers of samples."
    samples, width = power.attrs["samples"], power.attrs["width"]
    return (
        f"{samples:,} samples detect an IoU of {power.detectable_iou.median():.2f} (median of "
        f"{power['class'].nunique()} classes); intervals {width:g} wide need {int(power.samples_needed.median()):,}."
    )


def of_age(info: dict[str, Any], began: datetime) -> str:
    """That a result was loaded instead of computed; empty if it was computed since the command began."""
    finished = datetime.fromisoformat(info.get("finished") or info["created"])
    if finished >= began.replace(microsecond=0):
        return ""
    when = f"{finished.astimezone():%d %B %Y, %H:%M}".lstrip("0")
    return f"This result is from {when}: it was computed with the same options, and was only loaded now."
