"""What a generator draws too rarely, too alike or never, as a page. Only the audit's folder is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..dissect.diversity import Diversity
from . import figures
from .page import render, replaced, telling
from .rows import blanks
from .shelf import Shelf

FILES = ("by_class.csv", "pairs.csv", "whole.csv", "layers.csv", "diversity.json")
STYLES = {"varied": "clean", "lacking": "mild", "collapsed": "visible"}  # of a verdict on a page
PAIRS = 12  # of classes, that are shown


def write_diversity(found: Diversity) -> Path:
    """Write FOLDER/report/ and return its index.html.

    Raises:
        DissectError: a file of the audit is missing or damaged, or the page cannot be written.
    """
    final = found.folder / "report"
    with telling(found.folder, final, found.info["command"]), replaced(final) as part:
        shelf = Shelf(part)
        context: dict[str, Any] = {
            "info": found.info,
            "verdict": STYLES[found.info["verdict"]],
            "classes": blanks(found.classes),
            "pairs": blanks(found.pairs.head(PAIRS)),
            "whole": blanks(found.whole),
            "layers": blanks(found.layers),
            "twins": [
                [shelf.put(f"pictures/twin-{number}-{side}.webp", figures.photo(one)) for side, one in enumerate(pair)]
                for number, pair in enumerate(found.pictures["twins"])
            ],
            "prototype": shelf.put("pictures/prototype.webp", figures.photo(found.pictures["prototype"])),
            "missing": _missing(found, shelf),
            "files": {file: shelf.put(file, (found.folder / file).read_bytes()) for file in FILES},
        }
        (part / "index.html").write_bytes(render("diversity.html", (), {}, context))
    return final / "index.html"


def _missing(found: Diversity, shelf: Shelf) -> list[dict[str, Any]]:
    """Real images of each class that is never drawn."""
    return [
        {
            "name": name,
            "pictures": [
                shelf.put(f"pictures/missing-{number}-{place}.webp", figures.photo(one))
                for place, one in enumerate(found.pictures[f"missing_{number}"])
            ],
        }
        for number, name in enumerate(found.info["names"])
        if f"missing_{number}" in found.pictures
    ]
