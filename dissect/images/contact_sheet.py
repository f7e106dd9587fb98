"""Contact sheets with labelled rows and columns, and short films."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE = 128  # pixels of a side that small images are enlarged to, by whole factors
SIDE = 256  # pixels of a side at most
GAP = 4
TEXT = 13
FONT = "DejaVu Sans"  # comes with matplotlib, and knows Greek
PAPER, INK = "#ffffff", "#444444"
QUALITY = 85  # of webp; GIF has none
FRAME = 60  # milliseconds

Pixels = NDArray[np.uint8]


def sheet(images: Pixels, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """images (rows · columns, h, w, 3), row by row, with a label at each row's left and above each column."""
    font = ImageFont.truetype(findfont(FONT), TEXT)
    tiles = [_tile(image) for image in images]
    width, height = tiles[0].size
    left = max((round(font.getlength(row)) for row in rows), default=0) + 2 * GAP
    heads = [_wrapped(column, width, font) for column in columns]
    most = max((head.count("\n") + 1 for head in heads if head), default=0)
    top = most * (TEXT + GAP) + 2 * GAP if most else GAP
    size = (left + len(columns) * (width + GAP), top + len(rows) * (height + GAP))
    page = Image.new("RGB", size, PAPER)
    ink = ImageDraw.Draw(page)
    for index, tile in enumerate(tiles):
        down, across = divmod(index, len(columns))
        page.paste(tile, (left + across * (width + GAP), top + down * (height + GAP)))
    for down, row in enumerate(rows):
        position = (left - GAP, top + down * (height + GAP) + height // 2)
        ink.text(position, row, INK, font, anchor="rm")
    for across, head in enumerate(heads):
        position = (left + across * (width + GAP) + width // 2, top - GAP)
        ink.multiline_text(position, head, INK, font, anchor="md", align="center")
    return page


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text in lines of at most so many pixels, broken behind spaces and commas; longer words stay whole."""
    lines = [""]
    for word in re.findall(r"[^ ,]*[ ,]*", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)


def film(frames: Pixels, path: Path) -> None:
    """frames (T, h, w, 3) as an animation that loops, .webp or .gif."""
    first, *others = (_tile(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=FRAME, loop=0, quality=QUALITY)


def _tile(image: Pixels) -> Image.Image:
    tile = Image.fromarray(image)
    times = max(1, TILE // max(tile.height, 1))
    return tile.resize((tile.width * times, tile.height * times), Image.Resampling.NEAREST) if times > 1 else tile
