"""What the pages tell of suspects and of repairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..dissect.artifacts.result import Suspects
from ..dissect.repairs.result import Repair
from ..dissect.runs.dissection import Dissection
from .interventions import class_rows, pairs
from .shelf import Shelf

UNITS, SAMPLES = 24, 32  # shown of each layer
METRICS = {  # name on the page, whether less is better
    "frechet": ("Fréchet distance", True),
    "kernel": ("kernel distance", True),
    "precision": ("precision", False),
    "recall": ("recall", False),
    "coverage": ("coverage", False),
}


def suspect_pages(run: Dissection, samples: Callable[[NDArray[np.int64]], None], shelf: Shelf) -> list[dict[str, Any]]:
    """A page's content for each search of suspects; `samples` is told which samples are shown.

    Raises:
        DissectError: a file of one is missing or damaged.
    """
    pages = []
    for place in run.suspects:
        found = Suspects.load(place)
        info, units, bad = found.info, found.units, found.samples
        layers = []
        for layer in info["layers"]:
            worst = bad[bad.layer == layer].head(SAMPLES)
            samples(worst["sample"].to_numpy(np.int64))
            shown = units[units.layer == layer].head(UNITS)
            layers.append(
                {
                    "layer": layer,
                    "number": run.layers.index(layer),
                    "units": [[row.unit, f"{row.score:.4g}"] for row in shown.itertuples()],
                    "samples": worst.to_dict("records"),
                }
            )
        files = {
            file: shelf.put(f"artifacts/{place.name}/{file}", (place / file).read_bytes())
            for file in ("suspects.csv", "samples.csv")
        }
        pages.append({"name": place.name, "info": info, "layers": layers, "files": files})
    return pages


def repair_pages(run: Dissection, shelf: Shelf) -> list[dict[str, Any]]:
    """A page's content for each repair.

    Raises:
        DissectError: a file of one is missing or damaged.
    """
    pages = []
    for place in run.repairs:
        found = Repair.load(place)
        order = found.effects.change_pp.abs().sort_values(ascending=False, kind="stable").index
        rows, scale = class_rows(found.effects.loc[order])
        card = found.checkpoint.with_suffix(".md").name
        kept = [*Repair.files(place), *([card] if (place / card).is_file() else [])]
        pages.append(
            {
                "name": place.name,
                "info": found.info,
                "count": sum(map(len, found.info["units"].values())),
                "metrics": metrics(found.fidelity),
                "rows": rows,
                "scale": scale,
                "baselines": "random_pp" in found.effects,
                "units": found.units.to_dict("records"),
                "pictures": pairs(list(run.classes.colour), found.pictures, f"repairs/{place.name}", shelf),
                "checkpoint": str(found.checkpoint),
                "files": {
                    file: shelf.put(f"repairs/{place.name}/{file}", (place / file).read_bytes()) for file in kept
                },
            }
        )
    return pages


def metrics(fidelity: pd.DataFrame) -> list[dict[str, Any]]:
    """All metrics, see `_metric`."""
    return [_metric(fidelity, metric) for metric in METRICS]


def _metric(fidelity: pd.DataFrame, metric: str) -> dict[str, Any]:
    """One metric: its sets as rows, with a small chart of value and interval, in percent of its width."""
    mine = fidelity[fidelity.metric == metric]
    low, high = float(mine.low.min()), float(mine.high.max())
    width = (high - low) or 1.0
    name, less = METRICS[metric]
    rows = []
    for row in mine.to_dict("records"):
        at = {end: round(100 * (row[end] - low) / width, 2) for end in ("value", "low", "high")}
        rows.append(row | {"at": at["value"], "from": at["low"], "span": round(at["high"] - at["low"], 2)})
    return {"name": name, "better": "less is better" if less else "more is better", "rows": rows}
