"""What an intervention did: tables with intervals beside random sets, pictures, and their folder.

RUN/interventions/NAME/effect.json    what was done to which units, on which samples; the share of change on target
                       effects.csv    one row a class
                       sets.csv       one row a set of units: chosen, random, matched, by_iou
                       chosen.csv     the chosen units, in order, with the values they were given
                       curve.csv, context.csv    where asked for
                       pictures.npz   sample (K,), role (K,), before, after (K, h, w, 3) uint8, place (K, h, w) bool,
                                      labels_before, labels_after (K, h, w) int16
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ..storage.contract import COLUMNS
from ..storage.files import read_arrays, read_json, read_table, write_arrays, write_csv, write_json
from ..storage.result_folder import written

TABLES = {
    "table": "effects.csv",
    "sets": "sets.csv",
    "units": "chosen.csv",
    "curve": "curve.csv",
    "context": "context.csv",
}
OPTIONAL = ("curve", "context")
PICTURES: dict[str, tuple[int | None, ...]] = {
    "sample": (None,),
    "role": (None,),
    "before": (None, None, None, 3),
    "after": (None, None, None, 3),
    "place": (None, None, None),
}


@dataclass(frozen=True, kw_only=True)
class Effects:
    """What changing units of a layer did to every class, on samples that did not serve to choose them.

    info: what was done (units, value, samples, …) and `on_target`, the share of all change that concerns the class.
    table: one row a class: shares before and after, change in percentage points (`change_pp`) and relative to before,
        each with its 95 % bootstrap interval over images; p- and q-value; `changed`; the same of random sets.
    sets, units: one row a set; one a chosen unit. curve, context: tables where they were asked for, else None.
    pictures: arrays of some samples before and after.
    """

    info: dict[str, Any]
    table: pd.DataFrame
    sets: pd.DataFrame
    units: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]
    curve: pd.DataFrame | None = None
    context: pd.DataFrame | None = None

    def __getitem__(self, name: str) -> pd.Series:
        """The row of a class."""
        return self.table.set_index("class").loc[name]

    @property
    def ordered(self) -> pd.DataFrame:
        """The table, the class that was meant first, then by the size of the change."""
        meant = self.table["class"] != self.info["label"]
        size = -self.table.change_pp.abs()
        return self.table.loc[self.table.assign(meant=meant, size=size).sort_values(["meant", "size"]).index]

    def _repr_html_(self) -> str:
        columns = ["class", "before", "after", "change_pp", "relative", "relative_low", "relative_high", "changed"]
        order = self.table.change_pp.abs().sort_values(ascending=False, kind="stable").index
        return self.table.loc[order, columns].head(12).to_html(index=False)

    def save(self, folder: str | Path) -> None:
        """Write the folder of an intervention, whole or not at all.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """
        with written(Path(folder)) as part:
            for name, file in TABLES.items():
                table = getattr(self, name)
                if table is not None:
                    write_csv(part / file, table)
            write_arrays(part / "pictures.npz", self.pictures)
            write_json(part / "effect.json", self.info)

    @classmethod
    def load(cls, folder: str | Path) -> Effects:
        """Open the folder of an intervention.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        info = read_json(folder / "effect.json")
        tables = {
            name: read_table(folder / file, COLUMNS["effect: curve.csv"] if name == "curve" else None)
            for name, file in TABLES.items()
            if name not in OPTIONAL or (folder / file).exists()
        }
        return cls(info=info, pictures=read_arrays(folder / "pictures.npz", PICTURES, or_none=True), **tables)
