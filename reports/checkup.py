"""A checkup of a generator's upsampling as a page. Only its folder is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dissect.checkerboard.result import DIVERSITY, Checkup
from ..dissect.repairs.result import Repair
from . import figures
from .diversity import STYLES
from .interventions import class_rows, pairs
from .page import render, replaced, telling
from .repairs import metrics
from .rows import blanks, told_by
from .shelf import Shelf

PEAKS = 12  # shown
SPECTRA = {"images": "generated", "untrained": "untrained control", "reference": "reference"}


def write_checkup(found: Checkup) -> Path:
    """Write CHECKUP/report/ and return its index.html.

    Raises:
        DissectError: a file of the checkup is missing or damaged, or the page cannot be written.
    """
    final = found.folder / "report"
    with telling(found.folder, final, found.info["command"]), replaced(final) as part:
        (part / "index.html").write_bytes(_page(found, Shelf(part)))
    return final / "index.html"


def _page(found: Checkup, shelf: Shelf) -> bytes:
    info = found.info
    shown = found.peaks[found.peaks.set == "images"]
    files = Checkup.files(found.folder)
    context: dict[str, Any] = {
        "info": info,
        "layers": [_layer(row, number, found, shelf) for number, row in enumerate(blanks(found.layers))],
        "peaks": shown.head(PEAKS).to_dict("records"),
        "spectra": _spectra(found, shelf),
        "gradient": blanks(found.gradient),
        "diversity": _diversity(found),
        "repairs": (repairs := [_repair(place, shelf) for place in found.repairs]),
        "colours": {
            name: figures.safe_colour(colour) for one in repairs for name, colour in one["info"]["colours"].items()
        },
        "files": {file: shelf.put(file, (found.folder / file).read_bytes()) for file in files},
    }
    return render("checkup.html", ("pictures.js",), {}, context)


def _layer(row: dict[str, Any], number: int, found: Checkup, shelf: Shelf) -> dict[str, Any]:
    """One layer: its row, its overlap, the colours and samples in which its ripple shows most."""
    name = row["layer"]
    overlap = found.info["overlap"].get(name)
    pictures: NDArray[Any] = found.arrays[f"samples_{number}"]
    shots = {
        "role": np.array(["strongest"] * len(pictures)),
        "sample": np.array([one["sample"] for one in found.info["strongest"][name]]),
        "before": pictures[:, 0],
        "after": pictures[:, 1],
        "place": np.zeros(pictures.shape[:1] + pictures.shape[2:4], bool),
    }
    return row | {
        "overlap": overlap,
        "most": overlap and max(max(overlap["line"]), 1),
        "full": overlap and max(map(max, overlap["pattern"])),
        "colours": [one | {"colour": figures.safe_colour(one["colour"])} for one in found.info["colours"][name]],
        "pictures": pairs([], shots, f"layers/{number}", shelf, exact=True),
    }


def _spectra(found: Checkup, shelf: Shelf) -> list[dict[str, Any]]:
    """The mean spectra side by side on one scale, and where the peaks of the generated images are, in per cent."""
    kept = {name: found.arrays[name] for name in SPECTRA if name in found.arrays}
    low, high = (float(np.quantile(np.stack(list(kept.values())), share)) for share in (0.01, 0.995))
    spectra = []
    for name, values in kept.items():
        height, width = values.shape
        table = found.peaks[(found.peaks.set == name) & found.peaks.peak]
        rings = []
        for row in table.itertuples():
            for sign in (1, -1):
                y, x = (sign * float(value) + 0.5 for value in (row.vertical, row.horizontal))
                rings.append([round(100 * (x % 1 + 0.5 / width), 2), round(100 * (y % 1 + 0.5 / height), 2)])
        picture = shelf.put(f"spectra/{name}.webp", figures.heat(values, low, high))
        spectra.append({"name": SPECTRA[name], "picture": picture, "rings": rings, "peaks": len(table)})
    return spectra


def _diversity(found: Checkup) -> dict[str, Any] | None:
    """What the page tells of the comparison with real images; its own page tells the rest."""
    varied = found.diversity
    if varied is None:
        return None
    return {
        "info": varied.info,
        "style": STYLES[varied.info["verdict"]],
        "classes": [row | {"q": told_by(row)} for row in blanks(varied.classes[varied.classes.verdict != ""])],
        "whole": blanks(varied.whole),
        "page": f"../{DIVERSITY}/report/index.html",
    }


def _repair(place: Path, shelf: Shelf) -> dict[str, Any]:
    """What the page tells of one repair."""
    found = Repair.load(place)
    rows: list[dict[str, Any]] = []
    scale = 1.0
    if len(found.effects):
        order = found.effects.change_pp.abs().sort_values(ascending=False, kind="stable").index
        rows, scale = class_rows(found.effects.loc[order])
    card = found.checkpoint.with_suffix(".md").name
    kept = [*Repair.files(place), *([card] if (place / card).is_file() else [])]
    where = f"repairs/{place.name}"
    return {
        "name": place.name,
        "info": found.info,
        "grid": found.grid.to_dict("records"),
        "metrics": metrics(found.fidelity),
        "rows": rows,
        "scale": scale,
        "baselines": "random_pp" in found.effects,
        "curve": shelf.put(f"{where}/curve.svg", figures.trade_off(found.curve)),
        "pictures": pairs(list(found.info["colours"].values()), found.pictures, where, shelf, exact=True),
        "checkpoint": str(found.checkpoint),
        "files": {file: shelf.put(f"{where}/{file}", (place / file).read_bytes()) for file in kept},
    }
