"""Units and samples by how suspect they are, kept in their folder.

RUN/artifacts/NAME/artifacts.json   what was asked; detector, layers, reference
                   suspects.csv     one row a unit, most suspect of its layer first
                   samples.csv      one row a sample and layer, most suspect first
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..storage.files import read_json, read_table, write_csv, write_json
from ..storage.result_folder import written


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """Units and samples by how suspect they are, each layer by itself.

    units: rank, layer, unit, score, and the unit's label and IoU in the run. samples: rank, layer, sample, score.
    Scores are the detector's, see `artifacts.detectors`; those of different detectors or layers are not comparable.
    """

    info: dict[str, Any]
    units: pd.DataFrame
    samples: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {"units": self.units, "samples": self.samples}

    def _repr_html_(self) -> str:
        return self.units[self.units["rank"] <= 12].to_html(index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Suspects:
        """Open what was kept.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        info = read_json(folder / "artifacts.json")
        return cls(info=info, units=read_table(folder / "suspects.csv"), samples=read_table(folder / "samples.csv"))

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """
        with written(folder) as part:
            write_csv(part / "suspects.csv", self.units)
            write_csv(part / "samples.csv", self.samples)
            write_json(part / "artifacts.json", self.info)
