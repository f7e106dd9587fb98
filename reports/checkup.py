"""A checkup of a generator's upsampling as a page. Only its folder is read."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dissect.checkerboard.result import DIVERSITY, Checkup
from ..dissect.repairs.result import Repair
from . import figures
from .diversity import STYLES
from .interventions import pairs
from .page import render, write_result_page
from .repairs import repair_content
from .rows import rows_with_blanks, verdict_q
from .shelf import Shelf

PEAKS = 12  # that are shown
CROP, ENLARGED = 32, 6  # pixels of the side of the crop that is shown first, and how many times it is enlarged
BRIGHT = 96  # levels of 255 to which the strongest ripple of the crop is amplified
HEADLINES = {
    "visible": "The images show a checkerboard",
    "mild": "The images show a faint checkerboard",
    "clean": "The images show no checkerboard",
}
SPECTRA = {"images": "generated", "untrained": "untrained control", "reference": "reference"}


def write_checkup(checkup: Checkup) -> Path:
    """Write CHECKUP/report/ and return its index.html.

    Raises:
        DissectError: a file of the checkup is missing or damaged, or the page cannot be written.
    """
    return write_result_page(checkup.folder, checkup.info["command"], lambda shelf: _page(checkup, shelf))


def _page(checkup: Checkup, shelf: Shelf) -> bytes:
    info = checkup.info
    peaks = checkup.peaks[checkup.peaks.set == "images"]
    repairs = [_repair(folder, shelf) for folder in checkup.repairs]
    files = Checkup.files(checkup.folder)
    context: dict[str, Any] = {
        "info": info,
        "headline": _headline(info),
        "closeup": _closeup(checkup, shelf),
        "repair": shlex.join(["dissect", "repair", str(checkup.folder), "--checkerboard"]),
        "layers": [_layer(row, index, checkup, shelf) for index, row in enumerate(rows_with_blanks(checkup.layers))],
        "peaks": peaks.head(PEAKS).to_dict("records"),
        "spectra": _spectra(checkup, shelf),
        "gradient": rows_with_blanks(checkup.gradient),
        "diversity": _diversity(checkup),
        "repairs": repairs,
        "colours": {
            name: figures.safe_colour(colour) for entry in repairs for name, colour in entry["info"]["colours"].items()
        },
        "files": {file: shelf.put(file, (checkup.folder / file).read_bytes()) for file in files},
    }
    return render("checkup.html", ("tables.js", "pictures.js"), {}, context)


def _headline(info: dict[str, Any]) -> str:
    """Whether there is a checkerboard, and which layer draws it, in one sentence."""
    cause = f"; the main cause is the layer {info['blame']}" if info["blame"] else ""
    return f"{HEADLINES[info['verdict']]}{cause}."


def _closeup(checkup: Checkup, shelf: Shelf) -> dict[str, Any] | None:
    """A crop where the ripple of the main cause is strongest: as generated, without the ripple, and the ripple alone.

    None where the checkup kept no samples.
    """
    names = list(checkup.layers.layer)
    blamed = checkup.info["blame"]
    if blamed not in names or not len(checkup.arrays[f"samples_{names.index(blamed)}"]):
        return None
    before, after = checkup.arrays[f"samples_{names.index(blamed)}"][0].astype(np.int16)
    change = before - after
    side = min(CROP, *change.shape[:2])
    energy = np.pad((change.astype(float) ** 2).sum(2).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = energy[side:, side:] - energy[:-side, side:] - energy[side:, :-side] + energy[:-side, :-side]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    crop = np.s_[top : top + side, left : left + side]
    times = max(1, round(BRIGHT / max(1, int(np.abs(change[crop]).max()))))
    ripple = np.clip(128 + change[crop] * times, 0, 255)
    pictures = {
        "as generated": before[crop],
        f"without the ripple of {blamed}": after[crop],
        "the ripple alone" + (f", {times} times stronger" if times > 1 else ""): ripple,
    }
    return {
        "sample": checkup.info["strongest"][blamed][0]["sample"],
        "times": ENLARGED,
        "size": ENLARGED * side,
        "pictures": [
            (title, shelf.put(f"closeup/{index}.webp", figures.exact(picture.astype(np.uint8))))
            for index, (title, picture) in enumerate(pictures.items())
        ],
    }


def _layer(row: dict[str, Any], index: int, checkup: Checkup, shelf: Shelf) -> dict[str, Any]:
    """One layer: its row, the overlap of its kernel, and the colours and samples in which its ripple shows most."""
    name = row["layer"]
    overlap = checkup.info["overlap"].get(name)
    pictures: NDArray[Any] = checkup.arrays[f"samples_{index}"]
    shots = {
        "role": np.array(["strongest"] * len(pictures)),
        "sample": np.array([entry["sample"] for entry in checkup.info["strongest"][name]]),
        "before": pictures[:, 0],
        "after": pictures[:, 1],
        "place": np.zeros(pictures.shape[:1] + pictures.shape[2:4], bool),
    }
    return row | {
        "overlap": overlap,
        "most": overlap and max(max(overlap["line"]), 1),
        "full": overlap and max(map(max, overlap["pattern"])),
        "colours": [
            entry | {"colour": figures.safe_colour(entry["colour"])} for entry in checkup.info["colours"][name]
        ],
        "pictures": pairs([], shots, f"layers/{index}", shelf, exact=True),
    }


def _spectra(checkup: Checkup, shelf: Shelf) -> list[dict[str, Any]]:
    """The mean spectra on one scale of colours, with the positions of their peaks in percent of width and height."""
    arrays = {name: checkup.arrays[name] for name in SPECTRA if name in checkup.arrays}
    low, high = (float(np.quantile(np.stack(list(arrays.values())), share)) for share in (0.01, 0.995))
    spectra = []
    for name, values in arrays.items():
        height, width = values.shape
        table = checkup.peaks[(checkup.peaks.set == name) & checkup.peaks.peak]
        rings = []
        for row in table.itertuples():
            for sign in (1, -1):
                y, x = (sign * float(value) + 0.5 for value in (row.vertical, row.horizontal))
                rings.append([round(100 * (x % 1 + 0.5 / width), 2), round(100 * (y % 1 + 0.5 / height), 2)])
        picture = shelf.put(f"spectra/{name}.webp", figures.heat(values, low, high))
        spectra.append({"name": SPECTRA[name], "picture": picture, "rings": rings, "peaks": len(table)})
    return spectra


def _diversity(checkup: Checkup) -> dict[str, Any] | None:
    """The summary of the comparison with real images, which has a page of its own."""
    diversity = checkup.diversity
    if diversity is None:
        return None
    return {
        "info": diversity.info,
        "style": STYLES[diversity.info["verdict"]],
        "classes": [
            row | {"q": verdict_q(row)} for row in rows_with_blanks(diversity.classes[diversity.classes.verdict != ""])
        ],
        "whole": rows_with_blanks(diversity.whole),
        "page": f"../{DIVERSITY}/report/index.html",
    }


def _repair(folder: Path, shelf: Shelf) -> dict[str, Any]:
    """The content of the section about one repair."""
    repair = Repair.load(folder)
    where = f"repairs/{folder.name}"
    return {
        **repair_content(repair, folder, shelf),
        "grid": repair.grid.to_dict("records"),
        "curve": shelf.put(f"{where}/curve.svg", figures.trade_off(repair.curve)),
        "pictures": pairs(list(repair.info["colours"].values()), repair.pictures, where, shelf, exact=True),
    }
