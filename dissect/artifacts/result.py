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
from ..storage.shown import listing


@dataclass(frozen=True, kw_only=True, repr=False)
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

    def _title(self) -> str:
        info = self.info
        return f"units of {listing(info['layers'])} by the detector {info['detector']}, on {info['samples']} samples"

    def _headline(self) -> str:
        first = self.units[self.units["rank"] == 1]
        worst = (f"{row.layer} unit {row.unit} (score {row.score:.3g})" for row in first.itertuples())
        return f"most suspect: {listing(worst)}"
