"""The content of the pages about interventions and scans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..dissect.interventions.result import Effects
from ..dissect.interventions.scan import SCAN, read_scan
from ..dissect.interventions.scan_table import ESTIMATE
from ..dissect.interventions.scan_verdict import caution, verification
from ..dissect.interventions.verdict import verdict
from ..dissect.runs.dissection import Dissection
from . import figures
from .run_data import plain
from .shelf import Shelf

Scans = list[tuple[dict[str, Any], pd.DataFrame]]  # the description and the table of each

MEANINGS = {  # of the groups of pictures
    "most changed": "in which the edit did most",
    "typical": "nearest to the median effect",
    "failing": "in which the edit did least",
}
SHOWN = 0.005  # percentage points: the scan's table leaves out classes that no unit changes by so much


def scan_results(run: Dissection) -> Scans:
    """The run's scans: one for each layer and class that were scanned.

    Raises:
        DissectError: a file of one is missing or damaged.
    """
    return [
        read_scan(path, list(run.classes["class"]))
        for folder in run.scans
        for path in sorted(folder.glob("*.json"))
        if path.name != SCAN
    ]


def effect_pages(run: Dissection, shelf: Shelf) -> list[dict[str, Any]]:
    """The content of a page for each intervention of the run.

    Raises:
        DissectError: a file of one is missing or damaged.
    """
    return [_effect(run, folder, shelf) for folder in run.interventions]


def _effect(run: Dissection, folder: Path, shelf: Shelf) -> dict[str, Any]:
    effects, name = Effects.load(folder), folder.name  # not the name in effect.json, which might be any path
    info = effects.info
    rows, scale = class_rows(effects.ordered)
    colours = dict(zip(run.classes["class"], run.classes.colour, strict=True))
    curve = None
    if effects.curve is not None:
        colour = figures.safe_colour(colours.get(info["label"], ""))
        curve = shelf.put(
            f"interventions/{name}/curve.svg",
            figures.remaining_area(effects.curve, info["label"], colour, effects.noun),
        )
    count = len(info["units"])
    title = f"{count} {effects.noun}{'' if count == 1 else 's'} of {info['layer']} {_DONE[info['kind']]}"
    target = next((row for row in rows if row["class"] == info["label"]), None)
    sets = effects.sets
    return {
        "name": name,
        "title": f"{title}, {info['label']}" if target else title,
        "verdict": verdict(effects),
        "style": "clean" if target and target["changed"] and target.get("beyond_random", True) else "mild",
        "info": info,
        "noun": effects.noun,
        "rows": rows,
        "scale": scale,
        "target": target,
        "baselines": "random_pp" in effects.table,
        "sets": sets.to_dict("records"),
        "others": sets[sets.set.isin(("random", "matched"))],
        "units": effects.units.to_dict("records"),
        "curve": curve,
        "context": None if effects.context is None else effects.context.to_dict("records"),
        "pictures": pairs(list(run.classes.colour), effects.pictures, f"interventions/{name}", shelf),
        "steps": _dial(effects),
        "cells": _cells(effects, f"interventions/{name}", shelf),
        "files": {
            file: shelf.put(f"interventions/{name}/{file}", (folder / file).read_bytes())
            for file in Effects.files(folder)
        },
    }


def _dial(effects: Effects) -> dict[str, Any] | None:
    """The dial over the numbers of units at which pictures were made; None where there is only the one number."""
    if "steps" not in effects.pictures or effects.curve is None:
        return None
    label, counts = effects.info["label"], effects.pictures["step_units"].tolist()
    rows = effects.curve.set_index("units")
    noun = effects.noun
    texts = [f"0 {noun}s: all of {label} remains"]
    for count in counts:
        row = rows.loc[count]
        texts.append(
            f"{count} {noun}{'' if count == 1 else 's'}: {row.remaining:.0%} of {label} remains "
            f"[{row.low:.0%}, {row.high:.0%}]"
            + (f"; random {noun}s: {row.random_min:.0%} to {row.random_max:.0%}" if "random_min" in rows else "")
        )
    return {"name": f"Ablated {noun}s", "texts": texts, "chosen": 1 + counts.index(len(effects.info["units"]))}


def _cells(effects: Effects, where: str, shelf: Shelf) -> dict[str, Any] | None:
    """The maps of what editing each cell alone does, for the page's script; None where no grid of cells was edited.

    `values` are rows of cells, in percentage points of the image.
    """
    if "gain" not in effects.pictures:
        return None
    gain = effects.pictures["gain"]
    largest = float(np.abs(gain).max(initial=0)) or 1.0
    return {
        "label": effects.info["label"],
        "largest": plain([largest])[0],
        "maps": [
            {
                "sample": int(effects.pictures["sample"][index]),
                "picture": shelf.put(f"{where}/{index}-before.webp", figures.photo(effects.pictures["before"][index])),
                "values": [plain(row) for row in gain[index]],
            }
            for index in range(len(gain))
        ],
    }


_DONE = {"ablate": "ablated", "insert": "inserted"}


def class_rows(table: pd.DataFrame) -> tuple[list[dict[str, Any]], float]:
    """The rows of an effects table with small charts, and the percentage points at the charts' ends.

    If the table holds random sets, each row's `random` is their smallest and largest mean relative change.
    """
    rows = table.to_dict("records")
    scale = max((abs(row[end]) for row in rows for end in ("change_pp_low", "change_pp_high")), default=0) or 1.0
    kinds = [kind for kind in ("random", "matched") if f"{kind}_pp" in table]
    for row in rows:
        row["bars"] = _bars(row, scale, kinds)
        if kinds:
            smallest = min(row[f"{kind}_relative_min"] for kind in kinds)
            largest = max(row[f"{kind}_relative_max"] for kind in kinds)
            row["random"] = [smallest, largest]
    return rows, scale


def _bars(row: dict[str, Any], scale: float, kinds: list[str]) -> dict[str, float]:
    """Positions of change, interval and random sets in a small chart, in percent of its width; zero is at 50."""

    def at(value: float) -> float:
        return round(50 + 50 * max(-1.0, min(1.0, value / scale)), 2)

    low, high, change = at(row["change_pp_low"]), at(row["change_pp_high"]), at(row["change_pp"])
    bars = {"left": min(50, change), "width": abs(change - 50), "low": low, "span": round(high - low, 2)}
    if kinds:
        low = at(min(row[f"{kind}_pp_min"] for kind in kinds))
        high = at(max(row[f"{kind}_pp_max"] for kind in kinds))
        bars |= {"random": low, "random_span": round(high - low, 2)}
    return bars


def pairs(
    colours: list[str], shots: Mapping[str, NDArray[Any]], where: str, shelf: Shelf, *, exact: bool = False
) -> list[dict[str, Any]]:
    """Samples before and after an edit, by role: image, segmentation if there is one, difference, and edited place.

    Where there are pictures at several strengths, `steps` has the addresses of each kind from no edit to the strongest.

    Args:
        colours: of the classes.
        shots: arrays by name, one entry a sample.
        where: the folder of the pictures on the shelf.
        exact: store pictures without loss, for changes so small that a lossy format could hide or make them.
    """
    photo = figures.exact if exact else figures.photo

    def put(index: int, name: str, content: bytes) -> str:
        return shelf.put(f"{where}/{index}-{name}.webp", content)

    roles: dict[str, list[dict[str, Any]]] = {}
    for index, role in enumerate(shots.get("role", ())):
        before, after, place = (shots[key][index] for key in ("before", "after", "place"))
        sample = {
            "sample": int(shots["sample"][index]),
            "size": (2 * place.shape[1], 2 * place.shape[0]),
            "place": figures.outline(place.astype(bool)),
            "before": put(index, "before", photo(before)),
            "after": put(index, "after", photo(after)),
            "difference": put(index, "difference", photo(figures.difference(before, after))),
            **{
                key: put(index, key, figures.label_map(shots[key][index], colours))
                for key in ("labels_before", "labels_after")
                if key in shots
            },
        }
        if "steps" in shots:
            labels = [sample["labels_before"]]
            labels += [
                put(index, f"labels-{k}", figures.label_map(one, colours))
                for k, one in enumerate(shots["labels_steps"][index])
            ]
            steps = [before, *shots["steps"][index]]
            sample["steps"] = {
                "images": [put(index, f"step-{k}", photo(step)) for k, step in enumerate(steps)],
                "labels": labels,
                "difference": [
                    put(index, f"difference-{k}", photo(figures.difference(before, step)))
                    for k, step in enumerate(steps)
                ],
            }
        roles.setdefault(str(role), []).append(sample)
    return [{"role": role, "meaning": MEANINGS.get(role, ""), "samples": samples} for role, samples in roles.items()]


def scan_pages(scans: Scans) -> list[dict[str, Any]]:
    """The content of a page for each scan. `data` is what its script draws: columns over units.

    Units whose IoU is equal have no IoU rank, and those whose effect is equal have no causal rank. Units that were not
    ablated have neither an effect nor a causal rank.
    """
    pages = []
    for info, table in scans:
        own = f"pp:{info['class']}"  # has a column of its own
        pp = table[[column for column in table if column.startswith("pp:") and column != own]]
        pp = pp.loc[:, pp.abs().max() >= SHOWN]  # the others hardly change
        pp = pp[pp.abs().max().sort_values(ascending=False, kind="stable").index]
        ranks = {
            "iou_rank": table.iou_rank.where(~table.iou.duplicated(keep=False)),
            "causal_rank": table.causal_rank.where(~table.change_pp.duplicated(keep=False)),
        }
        pages.append(
            {
                "name": str(info["name"]),
                "title": f"Each unit of {info['layer']} ablated by itself: its effect on {info['class']}",
                "info": info,
                "count": len(table),
                "verification": verification(info, len(table)),
                "caution": caution(info),
                "estimated": bool(table.estimate.notna().any()),
                "data": {
                    "layer": info["layer"],
                    "class": info["class"],
                    "label": table.label.tolist(),
                    "labelled": table.labelled.astype(bool).tolist(),
                    "changed": table.changed.astype(bool).tolist(),
                    "verified": table.verified.astype(bool).tolist(),
                    **{name: plain(table[name]) for name in ("unit", "iou", "change_pp", "low", "high", *ESTIMATE)},
                    **{name: plain(rank) for name, rank in ranks.items()},
                    "classes": [name.removeprefix("pp:") for name in pp],
                    "effects": [plain(pp[name]) for name in pp],
                    "largest": plain([float(pp.abs().to_numpy().max(initial=0)) or 1.0])[0],
                },
            }
        )
    return pages
