"""The content of the pages about suspects and repairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..dissect.artifacts.result import Suspects
from ..dissect.repairs.result import Repair
from ..dissect.runs.dissection import Dissection
from .interventions import class_rows, pairs
from .rows import by_change
from .shelf import Shelf

REPAIRED = "repaired"  # the name of the set in fidelity.csv
DECISIVE = ("frechet", "kernel", "coverage")  # metrics on which the verdict rests
MEANINGS = {  # of a detector's score of a sample
    "flagged": "the units that are active in your flagged samples are active in it too",
    "rare": "many units are active in it that rarely are",
    "local": "its units depend strongly on the exact latent",
    "metric": "its image is far from the reference",
    "greedy": "its image is far from the reference",
    "realism": "it is less realistic",
    "frechet": "its image would have to change more to fit the reference",
}
UNITS, SAMPLES = 24, 32  # that are shown of each layer
METRICS = {  # name on the page, and whether less is better
    "frechet": ("Fréchet distance", True),
    "kernel": ("kernel distance", True),
    "precision": ("precision", False),
    "recall": ("recall", False),
    "coverage": ("coverage", False),
}


def suspect_pages(run: Dissection, show: Callable[[NDArray[np.int64]], None], shelf: Shelf) -> list[dict[str, Any]]:
    """The content of a page for each search of suspects. `show` is called with the samples that the page shows.

    Raises:
        DissectError: a file of one is missing or damaged.
    """
    pages = []
    for folder in run.suspects:
        suspects = Suspects.load(folder)
        info, units = suspects.info, suspects.units
        layers = []
        for layer in info["layers"]:
            worst = suspects.samples[suspects.samples.layer == layer].head(SAMPLES)
            show(worst["sample"].to_numpy(np.int64))
            most_suspect = units[units.layer == layer].head(UNITS)
            layers.append(
                {
                    "layer": layer,
                    "number": run.layers.index(layer),
                    "units": [[row.unit, f"{row.score:.4g}"] for row in most_suspect.itertuples()],
                    "samples": worst.to_dict("records"),
                }
            )
        files = {
            file: shelf.put(f"artifacts/{folder.name}/{file}", (folder / file).read_bytes())
            for file in ("suspects.csv", "samples.csv")
        }
        meaning = MEANINGS.get(info["detector"], "it is more suspect")
        pages.append({"name": folder.name, "info": info, "layers": layers, "files": files, "meaning": meaning})
    return pages


def repair_pages(run: Dissection, shelf: Shelf) -> list[dict[str, Any]]:
    """The content of a page for each repair.

    Raises:
        DissectError: a file of one is missing or damaged.
    """
    colours = list(run.classes.colour)
    pages = []
    for folder in run.repairs:
        repair = Repair.load(folder)
        pages.append(
            repair_content(repair, folder, shelf)
            | {
                "count": sum(map(len, repair.info["units"].values())),
                "units": repair.units.to_dict("records"),
                "pictures": pairs(colours, repair.pictures, f"repairs/{folder.name}", shelf),
            }
        )
    return pages


def repair_content(repair: Repair, folder: Path, shelf: Shelf) -> dict[str, Any]:
    """What the pages about both kinds of repair share: classes by their change, metrics, checkpoint and files."""
    rows, scale = class_rows(by_change(repair.effects))
    card = repair.checkpoint.with_suffix(".md").name
    files = [*Repair.files(folder), *([card] if (folder / card).is_file() else [])]
    return {
        "name": folder.name,
        "info": repair.info,
        "metrics": [_metric(repair.fidelity, metric) for metric in METRICS],
        "rows": rows,
        "scale": scale,
        "baselines": "random_pp" in repair.effects,
        "headline": _headline(repair),
        "summary": _summary(repair.fidelity),
        "checkpoint": str(repair.checkpoint),
        "files": {file: shelf.put(f"repairs/{folder.name}/{file}", (folder / file).read_bytes()) for file in files},
    }


def _headline(repair: Repair) -> str:
    """Whether the repair was worth it, in one plain sentence."""
    verdict = repair.info["verdict"]
    distance = repair.fidelity[(repair.fidelity.set == REPAIRED) & (repair.fidelity.metric == "frechet")].iloc[0]
    share = distance.change / (distance.value - distance.change)
    if distance.change_high < 0:
        effect = f"are closer to the reference: the Fréchet distance falls by {abs(share):.0%}"
    elif distance.change_low > 0:
        effect = f"are farther from the reference: the Fréchet distance rises by {share:.0%}"
    else:
        effect = "are about as far from the reference as before"
    return f"{verdict.capitalize()}. The repaired images {effect}."


def _summary(fidelity: pd.DataFrame) -> list[dict[str, Any]]:
    """The few numbers that decide: each metric before and after, with its change."""
    rows = []
    for metric in DECISIVE:
        after = fidelity[(fidelity.set == REPAIRED) & (fidelity.metric == metric)].iloc[0]
        name, less = METRICS[metric]
        better = after.change_high < 0 if less else after.change_low > 0
        worse = after.change_low > 0 if less else after.change_high < 0
        rows.append(
            {
                "name": name,
                "before": after.value - after.change,
                "after": after.value,
                "change": [after.change, after.change_low, after.change_high],
                "effect": "better" if better else "worse" if worse else "no significant difference",
            }
        )
    return rows


def _metric(fidelity: pd.DataFrame, metric: str) -> dict[str, Any]:
    """One metric: a row for each set of images, with positions in a small chart, in percent of the chart's width."""
    rows_of_metric = fidelity[fidelity.metric == metric]
    low, high = float(rows_of_metric.low.min()), float(rows_of_metric.high.max())
    width = (high - low) or 1.0
    name, less = METRICS[metric]
    rows = []
    for row in rows_of_metric.to_dict("records"):
        at = {end: round(100 * (row[end] - low) / width, 2) for end in ("value", "low", "high")}
        rows.append(row | {"at": at["value"], "from": at["low"], "span": round(at["high"] - at["low"], 2)})
    return {"name": name, "better": "less is better" if less else "more is better", "rows": rows}
