"""A comparison as a page, with its tables beside it. Only run folders are read."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ..dissect.runs.compare import Comparison, Side, same_latents
from ..dissect.runtime.progress import Progress
from ..dissect.storage.files import safe_name, write_csv, write_json
from ..hooks.errors import UsageError
from . import figures
from .page import page_errors, put_samples, render, replaced_folder
from .shelf import Shelf

SAMPLES = 24  # that are shown side by side
PAIRS = 60  # of units that are shown with pictures
TOPS = 4  # images of each unit
MARK = "comparison.json"  # only a folder that holds this file is ever replaced


def write_comparison(comparison: Comparison, out: str | Path | None = None, *, quiet: bool = True) -> Path:
    """Write a folder with index.html, classes.csv, units.csv and comparison.json; returns the page.

    Args:
        out: the folder; None is comparisons/A-B-…, by the names of the runs. An older comparison there is replaced.

    Raises:
        UsageError: the folder holds something else.
        DissectError: a file of a run is missing or damaged, or the page cannot be written.
    """
    names = "-".join(f"{side.run.folder.name}+{'+'.join(side.layers)}" for side in comparison.sides)
    folder = Path(out) if out else Path("comparisons") / safe_name(names)
    check_target(folder)
    again = shlex.join(["dissect", "compare", *(str(side.run.folder) for side in comparison.sides)])
    with page_errors(None, folder, again), replaced_folder(folder) as part, Progress(quiet) as progress:
        sides = {side.letter: {"run": str(side.run.folder), "layers": side.layers} for side in comparison.sides}
        write_json(part / MARK, {"sides": sides, "differences": comparison.differences})
        write_csv(part / "classes.csv", comparison.classes)
        write_csv(part / "units.csv", comparison.units)
        (part / "index.html").write_bytes(_page(comparison, Shelf(part), progress))
    return folder / "index.html"


def check_target(folder: Path) -> None:
    """Raise UsageError if a folder holds something other than a comparison: that is never replaced."""
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not a comparison; give another --out.")


def _page(comparison: Comparison, shelf: Shelf, progress: Progress) -> bytes:
    sides = comparison.sides
    same = [side.letter for side in sides[1:] if comparison.is_same_network(side.letter)]
    pairs = comparison.units[comparison.units.corresponds]
    relabelled = pairs.other.isin(same) & ~pairs.same_label  # first: a unit always correlates with itself
    pairs = pairs.loc[(~relabelled).sort_values(kind="stable").index].groupby("other").head(PAIRS)
    together = _together(sides)
    count = min(SAMPLES, *(side.run.info["config"]["samples"] for side in sides))
    wanted: dict[str, set[int]] = {side.letter: set(range(count)) if side in together else set() for side in sides}
    shown_pairs = [_pair(row, sides, wanted) for row in pairs.to_dict("records")]
    with progress.task("write pictures", sum(map(len, wanted.values()))) as advance:
        pictures = {
            side.letter: put_samples(side.run, np.array(sorted(wanted[side.letter])), shelf, advance, f"{side.letter}/")
            for side in sides
            if wanted[side.letter]
        }
    first = sides[0].run
    context: dict[str, Any] = {
        "sides": [
            {"letter": side.letter, "title": side.title, "folder": side.run.folder.name, "info": side.run.info}
            for side in sides
        ],
        "summary": comparison.summary().to_dict("records"),
        "unlike": comparison.unlike,
        "differences": comparison.differences,
        "classes": comparison.classes.to_dict("records"),
        "colours": dict(zip(first.classes["class"], map(figures.safe_colour, first.classes.colour), strict=True)),
        "pairs": shown_pairs,
        "pictures": pictures,
        "same_network": same,
        "together": [side.letter for side in together],
        "samples": list(range(count)),
        "tested": all(side.run.info["config"]["significance"] != "off" for side in sides),
        "grid": {side.letter: 2 * side.run.info["grid"] for side in sides},
    }
    return render("compare.html", ("tables.js", "pictures.js"), {}, context)


def _together(sides: tuple[Side, ...]) -> list[Side]:
    """Sides whose samples can be shown side by side: different generators, on the latents of the first side."""
    chosen: dict[str, Side] = {}
    for side in sides:
        if same_latents(sides[0], side):
            chosen.setdefault(side.run.info["config"]["weights_sha256"], side)
    return list(chosen.values())


def _pair(row: dict[str, Any], sides: tuple[Side, ...], wanted: dict[str, set[int]]) -> dict[str, Any]:
    """A pair of units with their top samples, whose numbers are added to `wanted`."""
    tops = {}
    for letter, unit in ((sides[0].letter, row["unit_A"]), (row["other"], row["unit_B"])):
        run = next(side.run for side in sides if side.letter == letter)
        samples, masks = run.tops(row["layer"])
        chosen = samples[unit, :TOPS].tolist()
        wanted[letter].update(chosen)
        outlines = map(figures.outline, masks[unit, :TOPS])
        tops[letter] = list(zip(chosen, outlines, strict=True))
    return row | {"tops": tops}
