"""A check of tile seams as a page. Only its folder is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..dissect.seams.result import SeamCheck
from . import figures
from .page import render, replaced, telling
from .rows import blanks
from .shelf import Shelf

FILES = ("seams.csv", "profile.csv", "seams.json")
TITLES = {"tiled": "tile by tile", "whole": "the whole image at once", "map": "where neighbouring pixels differ"}
BRIGHTEST = 0.995  # quantile of the map that gets its brightest colour


def write_seams(found: SeamCheck) -> Path:
    """Write FOLDER/report/ and return its index.html.

    Raises:
        DissectError: a file of the check is missing or damaged, or the page cannot be written.
    """
    final = found.folder / "report"
    with telling(found.folder, final, found.info["command"]), replaced(final) as part:
        shelf = Shelf(part)
        pictures = []
        for name, title in TITLES.items():
            if name in found.pictures:
                values = found.pictures[name]
                top = float(np.quantile(values, BRIGHTEST)) if name == "map" else 0.0
                data = figures.heat(values, 0, top) if name == "map" else figures.exact(values)
                pictures.append({"title": title, "picture": shelf.put(f"pictures/{name}.webp", data)})
        context: dict[str, Any] = {
            "info": found.info,
            "rows": blanks(found.table[found.table.lines == "all"]),
            "pictures": pictures,
            "profile": shelf.put("pictures/profile.svg", figures.seam_profile(found.profile)),
            "files": {file: shelf.put(file, (found.folder / file).read_bytes()) for file in FILES},
        }
        (part / "index.html").write_bytes(render("seams.html", (), {}, context))
    return final / "index.html"
