"""The result of a check of tile seams, in its folder.

FOLDER/seams.json     the request, verdict
       seams.csv      ratios at the borders of tiles, see `measures.Seams.table`
       profile.csv    ratios by distance from the border, see `measures.Seams.profile`
       pictures.npz   tiled, whole (H, W, 3) and map (H, W), `measures.seam_map`, of the sample with the plainest seams
       report/        page
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ..storage.result import FolderResult, TableFile


@dataclass(frozen=True, kw_only=True)
class SeamCheck(FolderResult):
    """Whether tiles show at their borders. table and profile: see `measures.Seams`; pictures: see above."""

    DESCRIPTION: ClassVar = "seams.json"
    TABLES: ClassVar = {"table": TableFile("seams.csv"), "profile": TableFile("profile.csv")}
    ARRAYS: ClassVar = "pictures"
    SHAPES: ClassVar = {"tiled": (None, None, 3), "map": (None, None)}

    table: pd.DataFrame
    profile: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.table.to_html(index=False)
