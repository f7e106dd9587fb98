"""The result of a move through a generator's latents, in its folder.

FOLDER/latents.json            what was requested, and what was measured
       sheet.png               contact sheet; one for each direction, sheet-1.png, …
       film.webp or film.gif   film, likewise
       directions.csv          of directions: strength, share; effects.csv: how each changes the areas of classes
       directions.safetensors  their vectors (K, D)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from ..storage.files import read_table, write_csv
from ..storage.result import FolderResult
from ..storage.shown import interval


@dataclass(frozen=True, kw_only=True, repr=False)
class Explored(FolderResult):
    """The result of `explore`. tables: `directions` and `effects` of the move directions; empty for other moves."""

    DESCRIPTION: ClassVar = "latents.json"

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        for name, table in self.tables.items():
            write_csv(folder / f"{name}.csv", table)
        super().write(folder)

    def _title(self) -> str:
        config = self.info["config"]
        return f"{config['kind']} of {config['model']}, in {self.info['space']}"

    def _headline(self) -> str:
        if "directions" in self.tables:
            rows = self.tables["directions"].head(3).to_dict("records")
            return "; ".join(f"direction {row['direction']}: {_moved(row)}" for row in rows)
        return f"{len(self.info['pictures'])} pictures"

    @classmethod
    def _more(cls, folder: Path, info: dict[str, Any]) -> dict[str, Any]:
        tables = {name: read_table(folder / f"{name}.csv") for name in info["tables"]}
        return {"tables": tables}


def _moved(row: Mapping[Any, Any]) -> str:
    """The class that a direction changes most."""
    if "class" not in row or row["change_pp"] != row["change_pp"]:
        return "not measured"
    value, low, high = (row[f"change_pp{end}"] for end in ("", "_low", "_high"))
    return f"{row['class']} {interval(value, low, high, '+.1f', ' points')}"
