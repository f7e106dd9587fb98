"""A comparison of candidates by fitness as a page. Only its folder is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..dissect.candidates import Fitness
from ..dissect.watching.result import METRICS
from . import figures
from .page import render, write_result_page
from .rows import rows_with_blanks
from .run_data import plain
from .shelf import Shelf

FILES = ("fitness.csv", "fitness.json")
OTHERS = tuple(name for name in METRICS if name not in ("precision", "coverage"))  # these two are quality and diversity
ENDS = {"values": "", "low": "_low", "high": "_high"}


def write_fitness(fitness: Fitness) -> Path:
    """Write FITNESS/report/ and return its index.html.

    Raises:
        DissectError: a file of the folder is missing or damaged, or the page cannot be written.
    """
    return write_result_page(fitness.folder, fitness.info["command"], lambda shelf: _page(fitness, shelf))


def _page(fitness: Fitness, shelf: Shelf) -> bytes:
    table = fitness.table
    rows = rows_with_blanks(table)
    critic = "critic_quality" in table
    for rank, row in enumerate(rows):  # the fittest comes first
        row["state"] = "fittest" if rank == 0 else "equal" if row["equal"] else ""
        row["pictures"] = [
            shelf.put(f"pictures/{rank}-{sample}.webp", figures.photo(image))
            for sample, image in enumerate(fitness.pictures[str(rank)])
        ]
    charts = [_chart(table, "diversity", "quality", fitness.info["zero"])]
    if critic:
        charts.append(_chart(table, "critic_diversity", "critic_quality", None))
    data = {
        "names": list(table.candidate),
        "states": [row["state"] for row in rows],
        "descriptions": [_tooltip(row, critic) for row in rows],
        "charts": charts,
    }
    context: dict[str, Any] = {
        "info": fitness.info,
        "rows": rows,
        "real": fitness.info["zero"],
        "others": OTHERS,
        "steps": bool(table.step.notna().any()),
        "critic": critic,
        "alone": all(row["state"] != "equal" for row in rows),
        "sharp": all(max(images.shape[1:3]) <= figures.SMALL for images in fitness.pictures.values()),
        "files": {file: shelf.put(file, (fitness.folder / file).read_bytes()) for file in FILES},
    }
    return render("fitness.html", ("charts.js", "tables.js"), data, context)


def _chart(table: pd.DataFrame, across: str, up: str, zero: dict[str, Any] | None) -> dict[str, Any]:
    """The data of a chart for charts.js. `zero` holds the real images' values; only with them is the front drawn."""

    def side(name: str) -> dict[str, Any]:
        label = name.replace("critic_", "critic's ")
        return {"label": label} | {key: plain(table[name + end]) for key, end in ENDS.items()}

    def real(interval: dict[str, float]) -> dict[str, Any]:
        return {key: [interval[end]] for key, end in zip(ENDS, ("value", "low", "high"), strict=True)}

    front = table.reset_index(drop=True).query("front and quality == quality").sort_values("diversity")
    return {
        "x": side(across),
        "y": side(up),
        "real": None if zero is None else {"x": real(zero[across]), "y": real(zero[up])},
        "front": [] if zero is None else front.index.tolist(),
    }


def _tooltip(row: dict[str, Any], critic: bool) -> str:
    """What the page shows of a candidate when it is marked."""
    names = ["fitness", "quality", "diversity", *(["critic_quality", "critic_diversity"] if critic else [])]
    return f"{row['candidate']}\n" + ", ".join(
        f"{name.replace('critic_', 'critic’s ')} {row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"
        for name in names
        if row[name] != ""
    )
