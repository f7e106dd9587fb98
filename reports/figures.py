"""Pictures of a report: the bar chart, outlined top images, samples beside their segmentation."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

LINE = np.array([255, 225, 0], np.uint8)
GAP = 4  # pixels between the images of a strip


def safe_colour(text: str) -> str:
    """A #rrggbb colour, or grey for anything else that a file may hold."""
    return text if re.fullmatch(r"#[0-9a-fA-F]{6}", text) else "#999999"


@contextmanager
def _svg() -> Iterator[None]:
    """Figures drawn inside are the same bytes for the same data, and any text in them stays text."""
    style: dict[Any, Any] = {
        "svg.hashsalt": "ganatomy",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the viewer has the font or not
        yield


def units_per_class(classes: pd.DataFrame, what: str, path: Path) -> None:
    """Horizontal bars: how many units draw each class, most first, as SVG. `what` they are called."""
    shown = classes[classes.units > 0].sort_values("units", ascending=False, kind="stable")
    with _svg():
        figure = Figure(figsize=(6.4, 0.6 + 0.32 * max(1, len(shown))), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh(
            shown["class"],
            shown.units,
            color=[safe_colour(c) for c in shown.colour],
            edgecolor="#00000055",
            linewidth=0.6,
        )
        axes.bar_label(bars, padding=3, color="#333333")
        axes.invert_yaxis()
        axes.set_xlabel(what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.08)
        if not len(shown):
            axes.set_yticks([])
            axes.text(0.5, 0.5, f"no {what}", transform=axes.transAxes, ha="center", color="#666666")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def remaining_area(curve: pd.DataFrame, label: str, colour: str, path: Path) -> None:
    """The class's remaining area by number of ablated units, with its interval and the random sets' band, as SVG.

    The form of figure 4 of Bau et al. 2019.
    """
    with _svg():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        if "random" in curve:
            axes.fill_between(curve.units, curve.random_min, curve.random_max, color="#bbbbbb", alpha=0.6, linewidth=0)
            axes.plot(
                curve.units, curve.random, color="#777777", linestyle="--", label="random sets, least to greatest"
            )
        axes.fill_between(curve.units, curve.low, curve.high, color=colour, alpha=0.3, linewidth=0)
        axes.plot(curve.units, curve.remaining, color=colour, marker="o", label="chosen units, 95 % interval")
        axes.axhline(1, color="#00000033", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(curve.units), list(map(str, curve.units)))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("ablated units")
        axes.set_ylabel(f"area of {label} that remains")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def enlarge(images: Pixels, side: int) -> Pixels:
    """images (N, h, w, 3) -> (N, H, W, 3), the longer side `side` pixels."""
    height, width = images.shape[1:3]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in images])


def outline(images: Pixels, masks: NDArray[np.bool_], *, dim: bool = True) -> Pixels:
    """Outline each mask (N, g, g) in its image (N, H, W, 3) in yellow and, with `dim`, darken the rest a little."""
    height, width = images.shape[1:3]
    size = (width, height)
    grown = np.stack(
        [np.asarray(Image.fromarray(m.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) for m in masks]
    )
    inside = grown > 127
    out = np.where(inside[..., None], images, images // 5 * 4) if dim else images.copy()
    out[inside & ~_shrink(_shrink(inside))] = LINE
    return out


def difference(before: Pixels, after: Pixels) -> Pixels:
    """|after − before| of (N, H, W, 3), three times brighter."""
    return np.minimum(np.abs(after.astype(np.int16) - before) * 3, 255).astype(np.uint8)


def _shrink(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop the pixels (N, H, W) that touch a pixel outside; the image's edge counts as inside."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    return mask & padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]


def strip(images: Pixels) -> Image.Image:
    """(N, H, W, 3) side by side."""
    count, height, width = images.shape[:3]
    sheet = Image.new("RGB", (count * (width + GAP) - GAP, height), "white")
    for index, image in enumerate(images):
        sheet.paste(Image.fromarray(image), (index * (width + GAP), 0))
    return sheet


def paint_labels(labels: NDArray[np.integer], colours: list[str], size: tuple[int, int]) -> Pixels:
    """labels (N, g, g), -1 for unlabelled -> (N, H, W, 3) in the classes' colours, black where unlabelled."""
    table = np.array([[int(safe_colour(c)[k : k + 2], 16) for k in (1, 3, 5)] for c in colours] + [[0, 0, 0]], np.uint8)
    height, width = size
    rows = (np.arange(height) * labels.shape[1] // height)[:, None]
    columns = np.arange(width) * labels.shape[2] // width
    return table[labels][:, rows, columns]
