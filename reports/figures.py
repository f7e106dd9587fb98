"""Pictures of pages: images and label maps as WebP, regions as vector outlines, charts as SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from contourpy import LineType, contour_generator
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

DIFFERENCE = 3  # how many times brighter pages show the difference of two pictures
SMALL = 128  # pixels: smaller images are stored at a higher quality, since the page enlarges them


def safe_colour(text: str) -> str:
    """A #rrggbb colour, or grey for anything else that a file may hold."""
    return text if re.fullmatch(r"#[0-9a-fA-F]{6}", text) else "#999999"


def photo(image: Pixels) -> bytes:
    """(h, w, 3) as WebP."""
    return _webp(image, quality=92 if max(image.shape[:2]) <= SMALL else 80)


def exact(image: Pixels) -> bytes:
    """(h, w, 3) as WebP without loss."""
    return _webp(image, lossless=True)


def heat(values: NDArray[np.floating[Any]], low: float, high: float) -> bytes:
    """(h, w) numbers as WebP without loss, in the colours of matplotlib's magma from low to high."""
    import matplotlib  # takes long to import, and few pages need it

    share = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return _webp((matplotlib.colormaps["magma"](share)[..., :3] * 255).round().astype(np.uint8), lossless=True)


def label_map(labels: NDArray[np.integer], colours: list[str]) -> bytes:
    """(h, w) class numbers in the classes' colours, black where -1, as lossless WebP."""
    return _webp(paint_labels(labels, colours), method=0, lossless=True)  # method 0: 4 times as fast, a fifth larger


def _webp(image: Pixels, method: int = 2, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", method=method, **options)
    return file.getvalue()


def paint_labels(labels: NDArray[np.integer], colours: list[str]) -> Pixels:
    """labels (…), -1 for unlabelled -> (…, 3) in the classes' colours, black where unlabelled."""
    table = np.array([[int(safe_colour(c)[k : k + 2], 16) for k in (1, 3, 5)] for c in colours] + [[0, 0, 0]], np.uint8)
    return table[labels]


def difference(before: Pixels, after: Pixels) -> Pixels:
    """|after − before|, `DIFFERENCE` times brighter."""
    return np.minimum(np.abs(after.astype(np.int16) - before) * DIFFERENCE, 255).astype(np.uint8)


def outline(mask: NDArray[np.bool_]) -> str:
    """A region (h, w) as the path of its border, in an SVG of width 2 w and height 2 h; holes by the even-odd rule.

    Corners are cut: the border runs through the middles of the edges between pixels inside and outside.
    """
    return outlines(mask[None])[0]


def outlines(masks: NDArray[np.bool_]) -> list[str]:
    """The `outline` of each of several regions (N, h, w).

    A report outlines thousands of small masks, for which the calls take longer than the tracing. So the masks are
    stacked into one tall picture and traced in one call, which takes less than half the time. Each has a margin of
    one pixel, so that no line runs from one mask into the next: the vertical position of a line tells its mask.
    """
    paths = [""] * len(masks)
    if not masks.any():  # the tracer refuses an empty picture
        return paths
    height, width = masks.shape[1:]
    tall = np.zeros((len(masks), height + 2, width + 2), np.float32)
    tall[:, 1:-1, 1:-1] = masks
    tracer = contour_generator(z=tall.reshape(-1, width + 2), line_type=LineType.ChunkCombinedOffset)
    lines: Any = tracer.lines(0.5)
    (points,), (bounds,) = lines  # all are in one chunk
    vertices = np.rint(points * 2 - 1).astype(int)
    first, last = bounds[:-1].astype(int), bounds[1:].astype(int) - 1  # of each line, which ends at its first point
    steps = np.diff(vertices, axis=0, append=0)
    before = np.roll(steps, 1, axis=0)
    before[first] = steps[last - 1]
    turns = (steps != before).any(1)  # between turns a line runs straight, and needs no points
    turns[last] = False
    corners, ends = vertices[turns], np.cumsum(np.add.reduceat(turns, first, dtype=int))
    moves = np.diff(corners, axis=0).tolist()
    start = 0
    for end in ends.tolist():
        x, y = corners[start].tolist()
        region, y = divmod(y + 1, 2 * (height + 2))
        path = "".join([f"{_separated(dx)}{_separated(dy)}" for dx, dy in moves[start : end - 1]])
        paths[region] += f"M{x} {y - 1}l{path.removeprefix(' ')}z"
        start = end
    return paths


@lru_cache(maxsize=4096)
def _separated(number: int) -> str:
    """A number that follows another one in a path. A minus sign separates them, so no space is needed.

    >>> _separated(3), _separated(-3)
    (' 3', '-3')
    """
    return f"{number}" if number < 0 else f" {number}"


@contextmanager
def _svg(size: tuple[float, float], file: IO[bytes]) -> Iterator[Figure]:
    """A figure to draw into, which is then written as SVG: the same bytes for the same data, with text as text."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.hashsalt": "ganatomy",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # whether the viewer has the font is unknown
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def _in_percent(axis: Axis) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1))


def trade_off(curve: pd.DataFrame) -> bytes:
    """What each method of repair leaves of a grid, against how much it changes the images, as SVG."""
    file = io.BytesIO()
    colours = ("#0b6b5d", "#b86e00", "#3b6fb6", "#b0475e")
    with _svg((8.4, 3.6), file) as figure:
        sides = figure.subplots(1, 2)
        titles = ("ripple left of a flat input", "z of the strongest peak")
        for axes, column, title in zip(sides, ("left", "own_z"), titles, strict=True):
            for colour, (method, rows) in zip(colours, curve.groupby("method", sort=False), strict=False):
                axes.plot(rows.levels, rows[column], color=colour, marker="o", markersize=4, label=method)
            axes.axhline(0, color="#00000033", linewidth=0.8)
            axes.set_xlabel("change of a pixel, levels of 255")
            axes.set_ylabel(title)
            axes.spines[["top", "right"]].set_visible(False)
        _in_percent(sides[0].yaxis)
        sides[1].legend(frameon=False)
    return file.getvalue()


def seam_profile(profile: pd.DataFrame) -> bytes:
    """Ratio of each measure by distance from a border of tiles, one line for each image, as SVG."""
    file = io.BytesIO()
    kinds = {"tiled": "#b0475e", "whole": "#0b6b5d", "input": "#999999"}
    with _svg((8.4, 2.8), file) as figure:
        measures = list(profile.measure.unique())
        for axes, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
            for kind, colour in kinds.items():
                rows = profile[(profile["what"] == kind) & (profile.lines == "all") & (profile.measure == measure)]
                axes.plot(rows.distance, rows.ratio, color=colour, marker="o", markersize=3, label=kind)
            axes.axhline(1, color="#00000033", linewidth=0.8)
            axes.set_title(measure)
            axes.set_xlabel("pixels from the border")
            axes.spines[["top", "right"]].set_visible(False)
        figure.axes[0].set_ylabel("ratio to elsewhere")
        figure.axes[-1].legend(frameon=False)
    return file.getvalue()


def remaining_area(curve: pd.DataFrame, label: str, colour: str, noun: str) -> bytes:
    """The class's remaining area by number of ablated units, with its interval and the random sets' band, as SVG.

    The form of figure 4 of Bau et al. 2019. noun: what was ablated, unit or direction.
    """
    file = io.BytesIO()
    with _svg((6.4, 3.6), file) as figure:
        axes = figure.subplots()
        if "random" in curve:
            axes.fill_between(curve.units, curve.random_min, curve.random_max, color="#bbbbbb", alpha=0.6, linewidth=0)
            axes.plot(
                curve.units, curve.random, color="#777777", linestyle="--", label="random sets, smallest to largest"
            )
        axes.fill_between(curve.units, curve.low, curve.high, color=colour, alpha=0.3, linewidth=0)
        axes.plot(curve.units, curve.remaining, color=colour, marker="o", label=f"chosen {noun}s, 95 % interval")
        axes.axhline(1, color="#00000033", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(curve.units), list(map(str, curve.units)))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        _in_percent(axes.yaxis)
        axes.set_xlabel(f"ablated {noun}s")
        axes.set_ylabel(f"area of {label} that remains")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return file.getvalue()
