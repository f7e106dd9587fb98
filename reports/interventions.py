"""The pages of interventions and scans: a part of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from ..dissect.effects import Effects
from ..dissect.store import Dissection, read_json, read_table, write_atomic
from . import figures

SIDE = 144  # pixels of a picture
SHOWN = 0.005  # percentage points: a class that no unit changes as much is left out of the scan's page


def write_pages(run: Dissection, folder: Path, environment: jinja2.Environment) -> list[dict[str, Any]]:
    """Write a page for each intervention and scan of the run into `folder`; returns what the index says of each.

    Raises:
        DissectError: a file of one is missing or damaged.
    """
    effects = [Effects.load(place) for place in run.interventions]
    scans = [
        (read_json(place), read_table(place.with_suffix(".csv")))
        for scan in run.scans
        for place in sorted(scan.glob("*.json"))
        if place.name != "scan.json"
    ]
    if effects or scans:
        folder.mkdir()
    colours = dict(zip(run.classes["class"], map(figures.safe_colour, run.classes.colour), strict=True))
    return [_effect_page(run, one, folder, environment, colours) for one in effects] + [
        _scan_page(run, info, table, folder, environment, colours) for info, table in scans
    ]


def _effect_page(
    run: Dissection, effects: Effects, folder: Path, environment: jinja2.Environment, colours: dict[str, str]
) -> dict[str, Any]:
    info, name = effects.info, str(effects.info["name"])
    colour = colours.get(info["label"] or "", "#0b6b5d")
    roles = _sheets(effects, folder, name, list(run.classes.colour))
    if effects.curve is not None:
        figures.remaining_area(effects.curve, info["label"], colour, folder / f"{name}-curve.svg")
    rows = effects.ordered.to_dict("records")
    scale = max((abs(row[end]) for row in rows for end in ("change_pp_low", "change_pp_high")), default=0) or 1
    baselines = "random_pp" in effects.table
    target = next((row for row in rows if row["class"] == info["label"]), None)
    sets = effects.sets
    text = environment.get_template("effect.html").render(
        run=run.info,
        info=info,
        rows=[row | {"bars": _bars(row, scale, baselines)} for row in rows],
        target=target,
        baselines=baselines,
        sets=sets.to_dict("records"),
        others=sets[sets.set.isin(("random", "matched"))],
        units=effects.units.to_dict("records"),
        curve=None if effects.curve is None else effects.curve.to_dict("records"),
        context=None if effects.context is None else effects.context.to_dict("records"),
        colours=colours,
        roles=roles,
    )
    write_atomic(folder / f"{name}.html", lambda file: file.write(text.encode()))
    count = len(info["units"])
    done = "ablated" if info["kind"] == "ablate" else "inserted"
    title = f"{count} unit{'' if count == 1 else 's'} of {info['layer']} {done}"
    return {
        "page": f"interventions/{name}.html",
        "title": f"{title}, {info['label']}" if target else title,
        "name": name,
        "where": info["where"],
        "target": target,
        "on_target": info.get("on_target"),
    }


def _bars(row: dict[str, Any], scale: float, baselines: bool) -> dict[str, float]:
    """Where change, interval and random sets lie in a small chart, in percent of its width; zero is at 50."""

    def at(value: float) -> float:
        return round(50 + 50 * max(-1.0, min(1.0, value / scale)), 2)

    low, high, change = at(row["change_pp_low"]), at(row["change_pp_high"]), at(row["change_pp"])
    bars = {"left": min(50, change), "width": abs(change - 50), "low": low, "span": round(high - low, 2)}
    if baselines:
        low = at(min(row["random_pp_min"], row["matched_pp_min"]))
        bars |= {"random": low, "random_span": round(at(max(row["random_pp_max"], row["matched_pp_max"])) - low, 2)}
    return bars


def _sheets(effects: Effects, folder: Path, name: str, colours: list[str]) -> list[dict[str, Any]]:
    """A contact sheet for each role: before, after, difference, labels before and after, a row each sample."""
    shots = effects.pictures
    sheets = []
    for number, role in enumerate(dict.fromkeys(map(str, shots.get("role", ())))):
        some = np.asarray(shots["role"]) == role
        before, after = (figures.enlarge(shots[key][some], SIDE) for key in ("before", "after"))
        place = shots["place"][some].astype(bool)
        size = before.shape[1:3]
        columns = [
            figures.outline(before, place, dim=False),
            figures.outline(after, place, dim=False),
            figures.difference(before, after),
            *(figures.paint_labels(shots[key][some], colours, size) for key in ("labels_before", "labels_after")),
        ]
        rows = [figures.strip(np.stack(row)) for row in zip(*columns, strict=True)]
        sheet = np.concatenate(
            [np.pad(np.asarray(row), ((0, figures.GAP), (0, 0), (0, 0)), constant_values=255) for row in rows]
        )
        Image.fromarray(sheet[: -figures.GAP]).save(folder / f"{name}-{number}.webp", quality=88)
        samples = [int(sample) for sample in shots["sample"][some]]
        sheets.append({"role": role, "picture": f"{name}-{number}.webp", "samples": samples})
    return sheets


def _scan_page(
    run: Dissection,
    info: dict[str, Any],
    table: pd.DataFrame,
    folder: Path,
    environment: jinja2.Environment,
    colours: dict[str, str],
) -> dict[str, Any]:
    name = str(info["name"])
    classes = [
        column.removeprefix("pp:")
        for column in table
        if column.startswith("pp:") and table[column].abs().max() >= SHOWN  # of many, those that change
    ]
    values = table[[f"pp:{one}" for one in classes]].to_numpy()
    scale = float(np.abs(values).max(initial=0)) or 1.0
    text = environment.get_template("scan.html").render(
        run=run.info,
        info=info,
        rows=table.to_dict("records"),
        classes=classes,
        shade=lambda value: round(100 * min(1.0, abs(value) / scale) ** 0.5),
        colours=colours,
    )
    write_atomic(folder / f"{name}.html", lambda file: file.write(text.encode()))
    return {
        "page": f"interventions/{name}.html",
        "title": f"Each unit of {info['layer']} alone, by its effect on {info['class']}",
        "scan": info,
    }
