"""Axes to draw on, and what all figures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...hooks.errors import DissectError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

# Okabe and Ito's colours, which remain distinct under all common forms of colour blindness
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8C8C8C"


def axes_of(ax: Axes | None, width: float = 5.2, height: float = 3.4) -> Axes:
    """The given axes, or those of a new figure of this size in inches.

    Raises:
        DissectError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib import pyplot
    except ImportError as error:
        raise DissectError("Figures need matplotlib, which is not installed: pip install matplotlib") from error
    # Both act when the caller saves the figure, so they cannot be set for the drawing alone; a choice of theirs stays.
    settings, usual = matplotlib.rcParams, matplotlib.rcParamsDefault
    if settings["pdf.fonttype"] == usual["pdf.fonttype"]:
        settings["pdf.fonttype"] = 42
    if settings["svg.fonttype"] == usual["svg.fonttype"]:
        settings["svg.fonttype"] = "none"
    if ax is None:
        _, ax = pyplot.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def rows_height(rows: int) -> float:
    """Inches of a figure with so many rows of bars."""
    return 0.9 + 0.24 * max(rows, 2)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names along the vertical axis, the first on top; none of them is read as a formula."""
    ax.set_yticks(range(len(names)), list(names))
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def legend_above(ax: Axes, title: str | None = None) -> None:
    """A legend above the axes, where it hides no row."""
    ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2, title=title)


def errors(values: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """(2, n) distances to the ends of intervals, as matplotlib takes them; 0 where there is no interval."""
    values, low, high = (np.asarray(numbers, np.float64) for numbers in (values, low, high))
    return np.nan_to_num(np.clip(np.stack([values - low, high - values]), 0, None))
