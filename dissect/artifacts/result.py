"""Units and samples by how suspect they are, kept in their folder.

RUN/artifacts/NAME/artifacts.json   the request; detector, layers, reference
                   suspects.csv     one row a unit, most suspect of its layer first
                   samples.csv      one row a sample and layer, most suspect first
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from ..storage.result import Result, TableFile


@dataclass(frozen=True, kw_only=True)
class Suspects(Result):
    """Units and samples by how suspect they are, each layer by itself.

    units: rank, layer, unit, score, and the unit's label and IoU in the run. samples: rank, layer, sample, score.
    Scores are the detector's, see `artifacts.detectors`; those of different detectors or layers are not comparable.
    """

    DESCRIPTION: ClassVar = "artifacts.json"
    TABLES: ClassVar = {"units": TableFile("suspects.csv"), "samples": TableFile("samples.csv")}

    units: pd.DataFrame
    samples: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {"units": self.units, "samples": self.samples}

    def _repr_html_(self) -> str:
        return self.units[self.units["rank"] <= 12].to_html(index=False)
