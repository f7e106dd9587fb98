"""A check of tile seams as a page. Only its folder is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..dissect.seams.result import SeamCheck
from . import figures
from .page import render, write_result_page
from .rows import rows_with_blanks
from .shelf import Shelf

FILES = ("seams.csv", "profile.csv", "seams.json")
TITLES = {"tiled": "tile by tile", "whole": "the whole image at once", "map": "where neighbouring pixels differ"}
BRIGHTEST = 0.995  # quantile of the map that gets its brightest colour


def write_seams(check: SeamCheck) -> Path:
    """Write FOLDER/report/ and return its index.html.

    Raises:
        DissectError: a file of the check is missing or damaged, or the page cannot be written.
    """
    return write_result_page(check.folder, check.info["command"], lambda shelf: _page(check, shelf))


def _page(check: SeamCheck, shelf: Shelf) -> bytes:
    pictures = []
    for name, title in TITLES.items():
        if name in check.pictures:
            values = check.pictures[name]
            top = float(np.quantile(values, BRIGHTEST)) if name == "map" else 0.0
            data = figures.heat(values, 0, top) if name == "map" else figures.exact(values)
            pictures.append({"title": title, "picture": shelf.put(f"pictures/{name}.webp", data)})
    context: dict[str, Any] = {
        "info": check.info,
        "rows": rows_with_blanks(check.table[check.table.lines == "all"]),
        "pictures": pictures,
        "profile": shelf.put("pictures/profile.svg", figures.seam_profile(check.profile)),
        "files": {file: shelf.put(file, (check.folder / file).read_bytes()) for file in FILES},
    }
    return render("seams.html", ("tables.js",), {}, context)
