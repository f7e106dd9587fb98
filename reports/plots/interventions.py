"""Figures of interventions and scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .axes import BLUE, GREY, ORANGE, axes_of, errors, legend_above, name_rows, rows_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...dissect.interventions.result import Effects
    from ...dissect.interventions.scan import Scan


def effects(effects: Effects, ax: Axes | None, count: int) -> Axes:
    """Change of each class in percentage points beside random sets; see `Effects.plot`."""
    rows = effects.ordered.head(count)
    ax = axes_of(ax, height=rows_height(len(rows)))
    position = np.arange(len(rows))
    for name, label in (("random", "random sets"), ("matched", "random sets, as active")):
        if f"{name}_pp_min" in rows:
            offset, colour = (0.2, GREY) if name == "random" else (-0.2, ORANGE)
            ax.hlines(
                position + offset,
                rows[f"{name}_pp_min"],
                rows[f"{name}_pp_max"],
                color=colour,
                linewidth=4,
                label=label,
            )
    ax.errorbar(
        rows.change_pp,
        position,
        xerr=errors(rows.change_pp, rows.change_pp_low, rows.change_pp_high),
        fmt="o",
        markersize=4,
        color=BLUE,
        linewidth=1.2,
        capsize=2,
        label=f"chosen {effects.noun}s, 95 % interval",
    )
    ax.axvline(0, color="black", linewidth=0.6)
    name_rows(ax, list(rows["class"]))
    ax.set_xlabel("change of area, percentage points of all pixels")
    legend_above(ax)
    return ax


def scan(scan: Scan, ax: Axes | None, named: int) -> Axes:
    """Effect of each unit alone against its IoU; see `Scan.plot`."""
    ax = axes_of(ax)
    rows, name = scan.table, scan.info["class"]
    changed, verified = rows.changed.astype(bool), rows.verified.astype(bool)
    if not verified.all():
        others = rows[~verified]
        ax.scatter(others.iou, others.estimate, s=8, facecolors="none", edgecolors=GREY, label="estimate, not ablated")
    groups = ((rows[verified & ~changed], GREY, "no significant change"), (rows[changed], BLUE, "q ≤ 0.05"))
    for group, colour, label in groups:
        ax.scatter(group.iou, group.change_pp, s=12, color=colour, linewidths=0, label=label)
    strongest = rows.head(named)
    ax.errorbar(
        strongest.iou,
        strongest.change_pp,
        yerr=errors(strongest.change_pp, strongest.low, strongest.high),
        fmt="none",
        color=BLUE,
        linewidth=0.8,
    )
    for row in strongest.itertuples():
        ax.annotate(
            str(row.unit), (row.iou, row.change_pp), xytext=(4, 2), textcoords="offset points", fontsize="small"
        )
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlabel(f"IoU with {name}", parse_math=False)
    ax.set_ylabel(f"change of {name}, percentage points", parse_math=False)
    rho = scan.info["rank_correlation"]
    if rho is not None:
        low, high = scan.info["rank_correlation_low"], scan.info["rank_correlation_high"]
        ax.set_title(f"rank correlation {rho:.2f} [{low:.2f}, {high:.2f}]", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    return ax
