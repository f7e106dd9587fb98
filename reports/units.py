"""A page for each unit: what it draws, how sure that is, and its overlap at every threshold."""

from __future__ import annotations

from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from ..dissect.store import Dissection

WIDTH, HEIGHT = 560, 220  # of the chart, in its own units
TICKS = (0.5, 0.1, 0.01, 0.001)  # shares of pixels above the threshold


def write_units(run: Dissection, folder: Path, environment: jinja2.Environment) -> None:
    """Write LAYER-UNIT.html for every unit, layers by number, beside its picture."""
    template = environment.get_template("unit.html")
    highest, lowest = float(run.shares.max()), float(run.shares.min())
    along = _across(run.shares, highest, lowest)
    for number, layer in enumerate(run.layers):
        found, chance = run.curves(layer)
        rows = run.units[run.units.layer == layer].to_dict("records")
        chosen = np.abs(run.levels(layer) - np.array([[row["threshold"]] for row in rows])).argmin(1)
        for row, iou, random, level in zip(rows, found, chance, chosen, strict=True):
            top = _round_up(float(np.nanmax(np.append(np.concatenate([iou, random]), row["iou_high"]), initial=0)))
            chart = {
                "iou": _points(along, iou, top),
                "chance": _points(along, random, top),
                "x": [(tick, float(_across(np.array(tick), highest, lowest))) for tick in TICKS],
                "y": [(top * part / 4, HEIGHT * (1 - part / 4)) for part in range(5)],
                "chosen": [along[level], *(HEIGHT * (1 - value / top) for value in (row["iou"], row["position_iou"]))],
            }
            page = template.render(
                run=run.info,
                noun=run.noun,
                unit=row,
                number=number,
                last=len(rows) - 1,
                chart=chart,
                size=(WIDTH, HEIGHT),
            )
            (folder / f"{number}-{row['unit']}.html").write_text(page, encoding="utf-8")


def _across(share: NDArray[np.float64], highest: float, lowest: float) -> NDArray[np.float64]:
    """Where a share of pixels stands on the chart's logarithmic axis, from many to few."""
    return np.log(highest / share) / np.log(highest / lowest) * WIDTH


def _points(along: NDArray[np.float64], values: NDArray[np.float64], top: float) -> str:
    """The points of a line in the chart; none for what is no number."""
    return " ".join(
        f"{x:.1f},{HEIGHT * (1 - y / top):.1f}" for x, y in zip(along, values, strict=True) if np.isfinite(y)
    )


def _round_up(value: float) -> float:
    """The least of 0.04, 0.1, 0.2, 0.4, … 1 that holds a value."""
    return next(top for top in (0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if value <= top or top == 1)
