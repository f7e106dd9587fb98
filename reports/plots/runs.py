"""Figures of a dissection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import figures
from .axes import BLUE, GREY, ORANGE, axes_of, errors, name_rows, rows_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...dissect.runs.dissection import Dissection
    from ...dissect.runs.views import ClassUnits, Unit


def classes(run: Dissection, ax: Axes | None) -> Axes:
    """Labelled units of each class as bars in the classes' colours; see `Dissection.plot_classes`."""
    rows = run.classes[run.classes.units > 0].sort_values("units", ascending=False, kind="stable")
    ax = axes_of(ax, height=rows_height(len(rows)))
    colours = [figures.safe_colour(colour) for colour in rows.colour]
    ax.barh(range(len(rows)), rows.units, color=colours, edgecolor="#00000066", linewidth=0.5, height=0.72)
    name_rows(ax, list(rows["class"]))
    ax.set_xlabel(f"labelled {run.noun}s, of {len(run.units)}")
    ax.locator_params(axis="x", integer=True)
    return ax


def units(run: Dissection, ax: Axes | None, count: int) -> Axes:
    """IoU of the best units with interval, and the IoU of position alone; see `Dissection.plot_units`."""
    rows = run.ordered[run.ordered.labelled].head(count)
    ax = axes_of(ax, height=rows_height(len(rows)))
    position = np.arange(len(rows))
    ax.barh(position, rows.iou, color=BLUE, height=0.66, label="beyond position")
    ax.barh(
        position, np.minimum(rows.position_iou, rows.iou).fillna(0), color=GREY, height=0.66, label="position alone"
    )
    ax.errorbar(
        rows.iou,
        position,
        xerr=errors(rows.iou, rows.iou_low, rows.iou_high),
        fmt="none",
        color="black",
        linewidth=1,
        capsize=2,
    )
    several = len(run.layers) > 1
    name_rows(ax, [f"{f'{row.layer} ' if several else ''}{row.unit} {row.label}" for row in rows.itertuples()])
    ax.set_xlabel("IoU with the label's class, 95 % interval")
    ax.set_xlim(left=0)
    if len(rows):
        ax.legend(frameon=False, loc="lower right")
    return ax


def unit_effects(unit: Unit, ax: Axes | None, count: int) -> Axes:
    """First-order effects of ablating a unit, class by class; see `Unit.plot_effects`."""
    rows = unit.effects.head(count)
    return _effects(rows, list(rows["class"]), f"change when {unit.run.noun} {unit.unit} is ablated", ax)


def class_effects(shown: ClassUnits, ax: Axes | None, count: int) -> Axes:
    """The units that remove most of a class, to first order; see `ClassUnits.plot_effects`."""
    rows = shown.drawn_by.head(count)
    several = len(shown.run.layers) > 1
    names = [f"{f'{row.layer} ' if several else ''}{row.unit} {row.label}" for row in rows.itertuples()]
    return _effects(rows, names, f"change of {shown.name} when the {shown.run.noun} is ablated", ax)


def _effects(rows: pd.DataFrame, names: list[str], what: str, ax: Axes | None) -> Axes:
    """Bars to both sides of zero with intervals, one a row."""
    ax = axes_of(ax, height=rows_height(len(rows)))
    position = np.arange(len(rows))
    effect = rows.effect.to_numpy(np.float64)
    ax.barh(position, effect, color=np.where(effect < 0, BLUE, ORANGE), height=0.66)
    ends = errors(effect, rows.low, rows.high)
    ax.errorbar(effect, position, xerr=ends, fmt="none", color="black", linewidth=1, capsize=2)
    ax.axvline(0, color="black", linewidth=0.8)
    name_rows(ax, names)
    ax.set_xlabel(f"{what},\npercentage points (first-order), 95 % interval")
    return ax
