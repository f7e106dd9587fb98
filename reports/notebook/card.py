"""What a card of a notebook consists of. Everything is text or numbers; the template escapes and draws them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ..figures import Pixels
from ..rows import format_number

SIDE = 160  # pixels of a picture at most: twice as many as it is shown with, for dense screens


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture, with a caption, and the outline of a region in it."""

    source: str  # data: address
    caption: str = ""
    outline: str = ""  # path of an SVG that is `box` wide and high
    box: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Pictures in a row, `width` pixels wide each."""

    title: str
    pictures: Sequence[Picture]
    width: int = 96


@dataclass(frozen=True, kw_only=True)
class UnitCard:
    """A unit: its label, its IoU in two parts, position and beyond, and its top samples."""

    title: str
    text: str
    position: float  # percent of the bar
    beyond: float
    pictures: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a bar chart, in percent of its width; `band` is what random sets do."""

    label: str
    text: str
    start: float
    width: float
    low: float | None = None
    high: float | None = None
    band: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A bar chart; `zero` is where bars begin, in percent."""

    title: str
    bars: Sequence[Bar]
    zero: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a scatter chart, in percent of both sides, from the lower left."""

    x: float
    y: float
    text: str
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """A scatter chart; ends are the texts at the ends of each axis, and `zero` is where the line of y = 0 lies."""

    title: str
    points: Sequence[Point]
    x_label: str
    y_label: str
    x_ends: tuple[str, str]
    y_ends: tuple[str, str]
    zero: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A result. `where` names its folder, and `link` the page in it, if that was written."""

    title: str
    headline: str
    notes: Sequence[str] = ()
    units: Sequence[UnitCard] = ()
    charts: Sequence[Bars | Scatter] = ()
    strips: Sequence[Strip] = ()
    tables: Sequence[Table] = field(default_factory=list)
    where: str = ""
    link: str = ""


def picture(image: Pixels, caption: str = "", outline: str = "", box: tuple[int, int] = (0, 0)) -> Picture:
    """(h, w, 3) uint8 as a WebP picture of at most 160 pixels a side."""
    side = max(image.shape[:2])
    photo = Image.fromarray(np.ascontiguousarray(image))
    if side > SIDE:
        photo = photo.resize((round(image.shape[1] * SIDE / side), round(image.shape[0] * SIDE / side)))
    file = io.BytesIO()
    photo.save(file, "WEBP", quality=88, method=1)
    return Picture(source=address(file.getvalue(), "webp"), caption=caption, outline=outline, box=box)


def exact(image: Pixels, caption: str = "", scale: int = 1) -> Picture:
    """(h, w, 3) uint8 as a PNG without loss, every pixel `scale` pixels wide."""
    file = io.BytesIO()
    Image.fromarray(np.kron(image, np.ones((scale, scale, 1), np.uint8))).save(file, "PNG")
    return Picture(source=address(file.getvalue(), "png"), caption=caption)


def address(content: bytes, kind: str) -> str:
    """A data: address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def heat(values: NDArray[np.float32]) -> Pixels:
    """(h, w) numbers, from 0 or the least to the greatest, in the colours of magma (h, w, 3)."""
    import matplotlib

    low, high = min(0.0, float(values.min())), float(values.max())
    share = (values - low) / (high - low or 1.0)
    return (matplotlib.colormaps["magma"](share)[..., :3] * 255).round().astype(np.uint8)


def table(frame: pd.DataFrame, formats: dict[str, str]) -> Table:
    """The columns of a table that `formats` names, each number in its format; text stays as it is."""
    columns = [name for name in formats if name in frame]
    rows = [[_cell(row[name], formats[name]) for name in columns] for row in frame[columns].to_dict("records")]
    return Table(columns=[name.replace("_", " ") for name in columns], rows=rows)


def _cell(value: object, form: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else ""
    return format_number(value, form).replace("-", "−")  # type: ignore[arg-type]


def page_address(page: Path) -> str:
    """How a notebook beside the working folder refers to a page; empty if it was not written."""
    if not page.is_file():
        return ""
    try:
        relative = page.resolve().relative_to(Path.cwd().resolve())
    except ValueError:
        return page.resolve().as_uri()
    return "/".join(relative.parts) if os.sep != "/" else str(relative)
