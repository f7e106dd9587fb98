"""Figures of checkups, audits, repairs, candidates and trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...hooks.errors import unknown_name
from .axes import BLUE, GREEN, GREY, ORANGE, RED, axes_of, errors, legend_above, name_rows, rows_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...dissect.candidates.result import Fitness
    from ...dissect.checkerboard.result import Checkup
    from ...dissect.diversity.result import Diversity
    from ...dissect.repairs.result import Repair
    from ...dissect.seams.result import SeamCheck
    from ...dissect.watching.result import Watched

METRICS = {"frechet": "Fréchet distance", "kernel": "kernel distance"}  # others are called by their name


def spectrum(checkup: Checkup, ax: Axes | None) -> Axes:
    """The spectrum over both frequencies, peaks of grids circled; see `Checkup.plot_spectrum`."""
    ax = axes_of(ax, 4.4, 3.8)
    reference = checkup.arrays.get("reference")
    shown = np.asarray(checkup.arrays["images"], np.float64) - (0 if reference is None else np.asarray(reference))
    height, width = shown.shape
    if reference is None:
        colours, low, high = "magma", None, None
    else:
        most = float(np.nanquantile(np.abs(shown), 0.995))
        colours, low, high = "RdBu_r", -most, most
    half = (0.5 / width, 0.5 / height)  # of a frequency's cell; zero lies in the middle of one
    extent = (-0.5 - half[0], 0.5 - half[0], 0.5 - half[1], -0.5 - half[1])
    image = ax.imshow(shown, extent=extent, interpolation="nearest", cmap=colours, vmin=low, vmax=high)
    ax.figure.colorbar(image, ax=ax, label="dB" if reference is None else "dB above real images", shrink=0.85)
    peaks = checkup.peaks[(checkup.peaks.set == "images") & checkup.peaks.peak]
    for sign in (1, -1):  # the spectrum is symmetric, and its highest frequency lies at −0.5
        x, y = ((sign * peaks[side]).replace(0.5, -0.5) for side in ("horizontal", "vertical"))
        ax.scatter(x, y, s=60, facecolors="none", edgecolors="black", linewidths=1, clip_on=False)
    ax.set_xlabel("horizontal frequency, cycles per pixel")
    ax.set_ylabel("vertical frequency, cycles per pixel")
    ax.set_title(f"{checkup.verdict}: {len(peaks)} peaks of grids (circles)", fontsize="medium")
    return ax


def diversity(diversity: Diversity, ax: Axes | None, count: int) -> Axes:
    """How many images hold each class, generated and real; see `Diversity.plot`."""
    table = diversity.classes.assign(
        differs=diversity.classes.verdict.fillna("") != "", gap=diversity.classes.difference.abs()
    )
    rows = table.sort_values(["differs", "gap"], ascending=False, kind="stable").head(count)
    ax = axes_of(ax, height=rows_height(len(rows)))
    position = np.arange(len(rows))
    sides = (
        ("presence", "presence_low", "presence_high", BLUE, "generated", -0.16),
        ("real_presence", "real_low", "real_high", ORANGE, "real", 0.16),
    )
    for value, low, high, colour, label, offset in sides:
        ax.errorbar(
            100 * rows[value],
            position + offset,
            xerr=100 * errors(rows[value], rows[low], rows[high]),
            fmt="o",
            markersize=4,
            color=colour,
            capsize=2,
            linewidth=1.2,
            label=label,
        )
    names = [f"{row['class']}, {row['verdict']}" if row["differs"] else row["class"] for row in rows.to_dict("records")]
    name_rows(ax, names)
    ax.set_xlabel("images that hold the class, %")
    ax.set_xlim(-2, 102)
    legend_above(ax, "95 % intervals")
    return ax


def fitness(fitness: Fitness, ax: Axes | None) -> Axes:
    """Quality against diversity of every candidate; see `Fitness.plot`."""
    ax = axes_of(ax, 4.4, 4.0)
    rows = fitness.table
    for is_tied, colour, label in ((True, GREEN, "fittest, or tied with it"), (False, GREY, "less fit")):
        group = rows[rows.equal.astype(bool) == is_tied]
        if len(group):
            ax.errorbar(
                group.diversity,
                group.quality,
                xerr=errors(group.diversity, group.diversity_low, group.diversity_high),
                yerr=errors(group.quality, group.quality_low, group.quality_high),
                fmt="o",
                markersize=5,
                linewidth=1,
                color=colour,
                label=label,
            )
    for row in rows.itertuples():
        point = (row.diversity, row.quality)
        ax.annotate(
            str(row.candidate), point, xytext=(5, 4), textcoords="offset points", fontsize="small", parse_math=False
        )
    zero = fitness.info["zero"]
    if {"quality", "diversity"} <= set(zero):
        ax.scatter(
            zero["diversity"]["value"], zero["quality"]["value"], marker="*", s=90, color=ORANGE, label="real images"
        )
    ax.set(xlim=(-0.02, 1.05), ylim=(-0.02, 1.05), aspect="equal")
    ax.set_xlabel("diversity: coverage of real images")
    ax.set_ylabel("quality: precision")
    ax.legend(frameon=False, fontsize="small")
    return ax


def repair(repair: Repair, ax: Axes | None) -> Axes:
    """The change of each metric, of the repair and of random sets, relative to before; see `Repair.plot`."""
    table = repair.fidelity
    before = table[table.set == "before"].set_index("metric").value
    metrics = list(before.index)
    ax = axes_of(ax, height=rows_height(len(metrics)))
    is_random = table.set.str.startswith("random")
    for rows, colour, label in (
        (table[is_random], GREY, "random sets"),
        (table[table.set == "repaired"], BLUE, "repaired"),
    ):
        scale = before.reindex(rows.metric).abs().to_numpy() / 100
        positions = rows.metric.map(metrics.index) + (0.18 if colour == GREY else 0)
        ax.errorbar(
            rows.change / scale,
            positions,
            xerr=errors(rows.change, rows.change_low, rows.change_high) / scale,
            fmt="o",
            markersize=4,
            color=colour,
            linewidth=1.2,
            capsize=2,
            label=label,
            alpha=0.6 if colour == GREY else 1,
        )
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_xscale("symlog", linthresh=10)
    name_rows(ax, [METRICS.get(metric, metric) for metric in metrics])
    ax.set_xlabel("change, % of the value before")
    legend_above(ax, f"{repair.verdict}; 95 % intervals")
    return ax


def seams(check: SeamCheck, ax: Axes | None, measure: str) -> Axes:
    """The ratio of a measure by distance from a border; see `SeamCheck.plot`."""
    profile = check.profile
    if measure not in set(profile.measure):
        raise unknown_name("measure", measure, profile.measure)
    ax = axes_of(ax)
    for kind, colour in {"tiled": RED, "whole": BLUE, "input": GREY}.items():
        rows = profile[(profile["what"] == kind) & (profile.lines == "all") & (profile.measure == measure)]
        if len(rows):
            ax.plot(rows.distance, rows.ratio, color=colour, marker="o", markersize=3, label=kind)
    ax.axhline(1, color="black", linewidth=0.6)
    ax.set_xlabel("distance from the border, pixels")
    ax.set_ylabel(f"{measure}, ratio to elsewhere")
    ax.legend(frameon=False, fontsize="small")
    return ax


def watched(watched: Watched, ax: Axes | None, metric: str) -> Axes:
    """A metric over the training; see `Watched.plot`."""
    lines = watched.lines
    known = [name for name in lines if f"{name}_low" in lines] + ["labelled", "covered", "peaks"]
    if metric not in known or metric not in lines:
        raise unknown_name("metric", metric, known)
    ax = axes_of(ax)
    has_steps = bool(lines.step.notna().all()) and len(lines) > 0
    x = lines.step if has_steps else np.arange(len(lines))
    values = lines[metric].astype(float)
    spread = errors(values, lines[f"{metric}_low"], lines[f"{metric}_high"]) if f"{metric}_low" in lines else None
    ax.errorbar(x, values, yerr=spread, color=BLUE, fmt="o-", markersize=4, linewidth=1.2, capsize=2, label="generator")
    zero = (watched.info.get("zero") or {}).get(metric)
    if zero:
        ax.axhspan(zero["low"], zero["high"], color=ORANGE, alpha=0.25, linewidth=0)
        ax.axhline(zero["value"], color=ORANGE, label="real images")
    ax.set_xlabel("step" if has_steps else "checkpoint")
    ax.set_ylabel(METRICS.get(metric, metric))
    ax.legend(frameon=False, fontsize="small")
    return ax
