"""A move through a generator's latents as a page: films, contact sheets, tables. Only its folder is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageSequence

from ..dissect.latents.result import Explored
from ..dissect.storage.contract import unreadable
from ..hooks.errors import one_line
from . import figures
from .page import render, write_result_page
from .rows import rows_with_blanks
from .shelf import Shelf

FRAMES, SIDE = 32, 192  # of a film on the page, at most; pixels of a frame, at most
ACROSS = 8  # frames in a row of the picture that holds them all
CLASSES = 5  # whose change by a direction is shown
TITLES = {
    "interpolate": "Interpolation",
    "arithmetic": "Arithmetic",
    "mix": "Mixed styles",
    "truncation": "Truncation",
    "directions": "Directions",
    "path-length": "Path length",
}


def write_latents(explored: Explored) -> Path:
    """Write FOLDER/report/ and return its index.html.

    Raises:
        DissectError: a file of the result is missing or damaged, or the page cannot be written.
    """
    return write_result_page(explored.folder, explored.info["command"], lambda shelf: _page(explored, shelf))


def sentence(explored: Explored) -> str:
    """What was done, and what came out, in one plain sentence."""
    info, kind = explored.info, explored.info["config"]["kind"]
    if kind == "interpolate":
        first, *others = map(str, info["samples"])
        return f"From sample {first} to {', '.join(others)} and back, on a {info['path']} path in {info['space']}."
    if kind == "arithmetic":
        signs = [("minus " if sign < 0 else "plus ") + _mean(samples) for sign, samples in info["formula"]]
        text = " ".join(signs).removeprefix("plus ")
        return f"{text[:1].upper()}{text[1:]}."
    if kind == "mix":
        rows, columns = (", ".join(map(str, info[name])) for name in ("rows", "columns"))
        later = f"from layer {info['crossover']} of {info['layers']} on"
        return f"Samples {rows} with the styles of samples {columns} {later}."
    if kind == "truncation":
        samples = ", ".join(map(str, info["samples"]))
        return f"Samples {samples} with a truncation of {min(info['psi']):g} to {max(info['psi']):g}."
    if kind == "path-length":
        return (
            f"The mean path length of {info['pairs']:,} pairs in {info['space']} is {info['mean']:.4g} "
            f"[{info['low']:.4g}, {info['high']:.4g}]."
        )
    first = explored.tables["directions"].iloc[0]
    effect = "" if pd.isna(first["class"]) else f" and changes {first['class']} most"
    return (
        f"{info['directions']} directions by {info['method']}; the first one holds {first.share:.0%} of the variance"
        f"{effect}."
    )


def _mean(samples: list[int]) -> str:
    text = ", ".join(map(str, samples))
    return f"sample {text}" if len(samples) == 1 else f"the mean of samples {text}"


def _page(explored: Explored, shelf: Shelf) -> bytes:
    info = explored.info
    kind = info["config"]["kind"]
    names = info["pictures"]
    sheets = [name for name in names if Path(name).suffix == ".png"]
    films = {_ending(name): name for name in names if Path(name).suffix != ".png"}
    table = explored.tables.get("directions")
    directions = [] if table is None else rows_with_blanks(table)
    moves = []
    for sheet in sheets or films.values():
        number = _ending(sheet)
        row = directions[int(number) - 1] if number and directions else None
        moves.append(
            {
                "title": f"Direction {number}" if number else "",
                "row": row,
                "effects": _effects(explored, int(number)) if row else [],
                "sheet": _copied(explored, sheet, shelf) if sheet in sheets else None,
                "film": _film(explored, films[number], shelf) if number in films else None,
            }
        )
    files = {
        name: _copied(explored, name, shelf)
        for name in ("latents.json", *(f"{table}.csv" for table in info["tables"]), *films.values())
    }
    context: dict[str, Any] = {
        "info": info,
        "title": TITLES[kind],
        "kind": kind,
        "sentence": sentence(explored),
        "facts": {key: info[key] for key in ("space", "method", "found_in", "comparable", "similarity") if key in info},
        "moves": moves,
        "directions": directions,
        "files": files,
    }
    return render("latents.html", ("tables.js", "pictures.js", "film.js"), {}, context)


def _ending(name: str) -> str:
    """The number of the direction in the name of a file, such as 3 in sheet-3.png; empty if it has none."""
    return Path(name).stem.partition("-")[2]


def _copied(explored: Explored, name: str, shelf: Shelf) -> str:
    try:
        return shelf.put(name, (explored.folder / name).read_bytes())
    except FileNotFoundError as error:
        raise unreadable(explored.folder / name, "it is missing") from error


def _effects(explored: Explored, number: int) -> list[dict[str, Any]]:
    """The classes that one direction changes most, in either sense."""
    table = explored.tables["effects"]
    rows = table[(table.direction == number) & table.changed.astype(bool)]
    rows = rows.loc[rows.change_pp.abs().sort_values(ascending=False, kind="stable").index]
    return rows_with_blanks(rows.head(CLASSES))


def _film(explored: Explored, name: str, shelf: Shelf) -> dict[str, Any]:
    """The frames of a film in one picture, row by row: an animated picture can be neither stopped nor wound."""
    path = explored.folder / name
    try:
        with Image.open(path) as film:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    except (OSError, ValueError) as error:
        raise unreadable(path, one_line(error)) from error
    chosen = [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, FRAMES).astype(int))]
    width, height = chosen[0].size
    shrink = min(1.0, SIDE / max(width, height))
    width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
    rows = -(-len(chosen) // ACROSS)
    strip = Image.new("RGB", (ACROSS * width, rows * height))
    for k, frame in enumerate(chosen):
        strip.paste(frame.resize((width, height), Image.Resampling.LANCZOS), (k % ACROSS * width, k // ACROSS * height))
    picture = shelf.put(f"films/{Path(name).stem}.webp", figures.photo(np.asarray(strip)))
    return {"picture": picture, "frames": len(chosen), "across": ACROSS, "rows": rows, "size": (width, height)}
