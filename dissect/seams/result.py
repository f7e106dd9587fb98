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
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ..runtime import late
from ..storage.result import FolderResult, TableFile
from ..storage.shown import interval, listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, repr=False)
class SeamCheck(FolderResult):
    """Whether tiles show at their borders. table and profile: see `measures.Seams`; pictures: see above."""

    DESCRIPTION: ClassVar = "seams.json"
    TABLES: ClassVar = {"table": TableFile("seams.csv"), "profile": TableFile("profile.csv")}
    ARRAYS: ClassVar = "pictures"
    SHAPES: ClassVar = {"tiled": (None, None, 3), "map": (None, None)}

    table: pd.DataFrame
    profile: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]

    def plot(self, ax: Axes | None = None, *, measure: str = "step") -> Axes:
        """The ratio of a measure by distance from the borders of tiles: tiled images, whole ones, and inputs.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            measure: one of the table's.
        """
        axes: Axes = late.plots().seams(self, ax, measure)
        return axes

    def _title(self) -> str:
        return f"borders of tiles of {self.info.get('generator', 'a generator')}"

    def _headline(self) -> str:
        rows = self.table[(self.table.what == "tiled") & (self.table.lines == "all")]
        ratios = (f"{row.measure} {interval(row.ratio, row.low, row.high, '.2f', '')}" for row in rows.itertuples())
        return f"{self.info['verdict']}: at borders over elsewhere, {listing(ratios)}"
