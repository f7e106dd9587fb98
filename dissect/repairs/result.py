"""What a repair did, kept in its folder: figures beside random sets, effects on classes, pictures, the generator.

…/repairs/NAME/repair.json     what was changed, on which samples; verdict
               fidelity.csv    one row a set and metric, with intervals
               effects.csv     one row a class, as of an ablation, where there was a segmenter
               chosen.csv      units taken out, with layer, value and score
               grid.csv        of a checkerboard: one row a set, its ripple and its peaks
               curve.csv       of a checkerboard: one row a method and strength
               pictures.npz    as of an intervention, see interventions/result.py; roles: worst, most changed
               MODEL-repaired.pth, MODEL-repaired.md    the generator and its card
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import DissectError, one_line
from ..interventions.result import PICTURES
from ..runtime import distributed
from ..storage.contract import COLUMNS
from ..storage.files import read_arrays, read_json, read_table, write_arrays, write_csv, write_json
from ..storage.result_folder import written

TABLES = {
    "fidelity": "fidelity.csv",
    "effects": "effects.csv",
    "units": "chosen.csv",
    "grid": "grid.csv",
    "curve": "curve.csv",
}


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A generator repaired, and whether that made the images better, on samples that did not serve to choose how.

    info: what was changed and how; `verdict` (improved, not improved, made worse) and `sentence`, with the figures.
    fidelity: one row a set (before, repaired, others, random 1 …) and metric, see `fidelity.distances.compare`.
    effects: one row a class, see `effect_tables.effects_table`. units: one row a unit taken out. grid, curve: of a
    checkerboard, see `checkerboard.repairing`. Tables that do not belong to a repair are empty. checkpoint: the
    generator's file.
    """

    info: dict[str, Any]
    fidelity: pd.DataFrame
    effects: pd.DataFrame
    units: pd.DataFrame
    grid: pd.DataFrame
    curve: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]
    checkpoint: Path

    @property
    def verdict(self) -> str:
        return str(self.info["verdict"])

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.fidelity.to_html(index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Repair:
        """Open the folder of a repair.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        info = read_json(folder / "repair.json")
        kept = info.get("tables", ["fidelity", "effects", "units"])
        curve = {"curve": COLUMNS["repair: curve.csv"]}
        tables = {
            name: read_table(folder / file, curve.get(name)) if name in kept else pd.DataFrame()
            for name, file in TABLES.items()
        }
        checkpoint = Path(info.get("checkpoint", ""))
        return cls(
            info=info,
            pictures=read_arrays(folder / "pictures.npz", PICTURES, or_none=True),
            checkpoint=checkpoint if checkpoint.is_absolute() else folder / checkpoint,
            **tables,
        )


def save(
    folder: Path,
    info: dict[str, Any],
    tables: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, NDArray[Any]],
    write_generator: Callable[[Path], None],
) -> Repair:
    """Write the folder, whole or not at all; `write_generator` adds its files to it.

    Raises:
        DissectError: it cannot be written; nothing of it is left.
    """

    def write() -> Repair:
        with written(folder) as part:
            for name, table in tables.items():
                write_csv(part / TABLES[name], table)
            write_arrays(part / "pictures.npz", pictures)
            write_json(part / "repair.json", info | {"tables": list(tables)})
            try:
                write_generator(part)
            except RuntimeError as error:  # torch.save and safetensors raise their own
                said = f"The repaired generator cannot be saved ({one_line(error)}); try another --out."
                raise DissectError(said) from error
        return Repair.load(folder)

    return distributed.first(write)
