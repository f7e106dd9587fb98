"""How fit candidates are, as a page. Only the folder of the fitness is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..dissect.candidates import Fitness
from ..dissect.watching.result import METRICS
from . import figures
from .page import render, replaced, telling
from .rows import blanks
from .run_data import plain
from .shelf import Shelf

FILES = ("fitness.csv", "fitness.json")
OTHERS = tuple(name for name in METRICS if name not in ("precision", "coverage"))  # which are quality and diversity
ENDS = {"values": "", "low": "_low", "high": "_high"}


def write_fitness(found: Fitness) -> Path:
    """Write FITNESS/report/ and return its index.html.

    Raises:
        DissectError: a file of the folder is missing or damaged, or the page cannot be written.
    """
    final = found.folder / "report"
    with telling(found.folder, final, found.info["command"]), replaced(final) as part:
        shelf = Shelf(part)
        table = found.table
        rows = blanks(table)
        critic = "critic_quality" in table
        for number, row in enumerate(rows):
            row["state"] = "" if number and not row["equal"] else "equal" if number else "fittest"
            row["pictures"] = [
                shelf.put(f"pictures/{number}-{place}.webp", figures.photo(one))
                for place, one in enumerate(found.pictures[str(number)])
            ]
        charts = [_chart(table, "diversity", "quality", found.info["zero"])]
        if critic:
            charts.append(_chart(table, "critic_diversity", "critic_quality", None))
        data = {
            "names": list(table.candidate),
            "states": [row["state"] for row in rows],
            "told": [_told(row, critic) for row in rows],
            "charts": charts,
        }
        context: dict[str, Any] = {
            "info": found.info,
            "rows": rows,
            "real": found.info["zero"],
            "others": OTHERS,
            "steps": bool(table.step.notna().any()),
            "critic": critic,
            "alone": all(row["state"] != "equal" for row in rows),
            "sharp": all(max(some.shape[1:3]) <= figures.SMALL for some in found.pictures.values()),
            "files": {file: shelf.put(file, (found.folder / file).read_bytes()) for file in FILES},
        }
        (part / "index.html").write_bytes(render("fitness.html", ("charts.js",), data, context))
    return final / "index.html"


def _chart(table: pd.DataFrame, across: str, up: str, zero: dict[str, Any] | None) -> dict[str, Any]:
    """What charts.js draws; with the real images' values, the candidates of the front are joined."""

    def side(name: str) -> dict[str, Any]:
        label = name.replace("critic_", "critic's ")
        return {"label": label} | {key: plain(table[name + end]) for key, end in ENDS.items()}

    def real(found: dict[str, float]) -> dict[str, Any]:
        return {key: [found[end]] for key, end in zip(ENDS, ("value", "low", "high"), strict=True)}

    front = table.reset_index(drop=True).query("front and quality == quality").sort_values("diversity")
    return {
        "x": side(across),
        "y": side(up),
        "real": None if zero is None else {"x": real(zero[across]), "y": real(zero[up])},
        "front": [] if zero is None else front.index.tolist(),
    }


def _told(row: dict[str, Any], critic: bool) -> str:
    """A candidate in one line."""
    names = ["fitness", "quality", "diversity", *(["critic_quality", "critic_diversity"] if critic else [])]
    return f"{row['candidate']}\n" + ", ".join(
        f"{name.replace('critic_', 'critic’s ')} {row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"
        for name in names
        if row[name] != ""
    )
