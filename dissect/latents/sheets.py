"""Contact sheets with labelled rows and columns, and short films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TILE = 128  # pixels of a side that small images are enlarged to, by whole factors; larger ones are shrunk to twice that
GAP = 4
TEXT = 13
FONT = "DejaVu Sans"  # comes with matplotlib, and knows Greek
PAPER, INK = "#ffffff", "#444444"
QUALITY = 85  # of webp; GIF has none
FRAME = 60  # milliseconds

Pixels = NDArray[np.uint8]


def pixels(images: Tensor) -> Pixels:
    """images (N, 3, H, W) in [0, 1] -> (N, H, W, 3)."""
    rounded: Pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return rounded


def sheet(images: Tensor, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """images (rows · columns, 3, H, W), row by row, with a label at each row's left and above each column."""
    font = ImageFont.truetype(findfont(FONT), TEXT)
    tiles = [_tile(one) for one in pixels(images)]
    width, height = tiles[0].size
    left = max((round(font.getlength(row)) for row in rows), default=0) + 2 * GAP
    top = TEXT + 3 * GAP if any(columns) else GAP
    size = (left + len(columns) * (width + GAP), top + len(rows) * (height + GAP))
    page = Image.new("RGB", size, PAPER)
    ink = ImageDraw.Draw(page)
    for number, tile in enumerate(tiles):
        down, across = divmod(number, len(columns))
        page.paste(tile, (left + across * (width + GAP), top + down * (height + GAP)))
    for down, row in enumerate(rows):
        place = (left - GAP, top + down * (height + GAP) + height // 2)
        ink.text(place, row, INK, font, anchor="rm")
    for across, column in enumerate(columns):
        place = (left + across * (width + GAP) + width // 2, top - GAP)
        ink.text(place, column, INK, font, anchor="mb")
    return page


def film(frames: Tensor, path: Path) -> None:
    """frames (T, 3, H, W) as an animation that loops, .webp or .gif."""
    first, *rest = (_tile(one) for one in pixels(frames))
    first.save(path, save_all=True, append_images=rest, duration=FRAME, loop=0, quality=QUALITY)


def _tile(image: Pixels) -> Image.Image:
    made = Image.fromarray(image)
    side = max(made.size)
    if side < TILE:
        return made.resize((made.width * (TILE // side), made.height * (TILE // side)), Image.Resampling.NEAREST)
    made.thumbnail((2 * TILE, 2 * TILE), Image.Resampling.LANCZOS)
    return made
