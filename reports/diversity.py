"""What a generator draws too rarely, too alike or never, as a page. Only the audit's folder is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..dissect.diversity import Diversity
from . import figures
from .page import render, write_result_page
from .rows import rows_with_blanks
from .shelf import Shelf

FILES = ("by_class.csv", "pairs.csv", "whole.csv", "layers.csv", "diversity.json")
STYLES = {"varied": "clean", "lacking": "mild", "collapsed": "visible"}  # of a verdict on a page
PAIRS = 12  # of classes that are shown


def write_diversity(diversity: Diversity) -> Path:
    """Write FOLDER/report/ and return its index.html.

    Raises:
        DissectError: a file of the audit is missing or damaged, or the page cannot be written.
    """
    return write_result_page(diversity.folder, diversity.info["command"], lambda shelf: _page(diversity, shelf))


def _page(diversity: Diversity, shelf: Shelf) -> bytes:
    context: dict[str, Any] = {
        "info": diversity.info,
        "verdict": STYLES[diversity.info["verdict"]],
        "classes": rows_with_blanks(diversity.classes),
        "pairs": rows_with_blanks(diversity.pairs.head(PAIRS)),
        "whole": rows_with_blanks(diversity.whole),
        "layers": rows_with_blanks(diversity.layers),
        "twins": [
            [shelf.put(f"pictures/twin-{index}-{side}.webp", figures.photo(image)) for side, image in enumerate(pair)]
            for index, pair in enumerate(diversity.pictures["twins"])
        ],
        "prototype": shelf.put("pictures/prototype.webp", figures.photo(diversity.pictures["prototype"])),
        "missing": _missing(diversity, shelf),
        "files": {file: shelf.put(file, (diversity.folder / file).read_bytes()) for file in FILES},
    }
    return render("diversity.html", ("tables.js",), {}, context)


def _missing(diversity: Diversity, shelf: Shelf) -> list[dict[str, Any]]:
    """Real images of each class that is never drawn."""
    return [
        {
            "name": name,
            "pictures": [
                shelf.put(f"pictures/missing-{index}-{example}.webp", figures.photo(image))
                for example, image in enumerate(diversity.pictures[f"missing_{index}"])
            ],
        }
        for index, name in enumerate(diversity.info["names"])
        if f"missing_{index}" in diversity.pictures
    ]
