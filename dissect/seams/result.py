"""What a check of tile seams found, kept in its folder.

FOLDER/seams.json     what was run, verdict
       seams.csv      ratios at the borders of tiles, see `seams.Seams.table`
       profile.csv    the same by distance from the border
       pictures.npz   tiled, whole (H, W, 3) and map (H, W), `seams.seam_map`, of the sample with the plainest seams
       report/        page
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ..storage.files import read_arrays, read_json, read_table, write_arrays, write_csv, write_json
from ..storage.result_folder import written


@dataclass(frozen=True, kw_only=True)
class SeamCheck:
    """Whether tiles show at their borders. table and profile: see `seams.Seams`; pictures: see above."""

    folder: Path
    info: dict[str, Any]
    table: pd.DataFrame
    profile: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.table.to_html(index=False)

    @classmethod
    def load(cls, folder: str | Path) -> SeamCheck:
        """Open what was kept.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        return cls(
            folder=folder,
            info=read_json(folder / "seams.json"),
            table=read_table(folder / "seams.csv"),
            profile=read_table(folder / "profile.csv"),
            pictures=read_arrays(folder / "pictures.npz", {"tiled": (None, None, 3), "map": (None, None)}),
        )

    def save(self) -> None:
        """Write the folder, whole or not at all.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """
        with written(self.folder) as part:
            write_csv(part / "seams.csv", self.table)
            write_csv(part / "profile.csv", self.profile)
            write_arrays(part / "pictures.npz", self.pictures)
            write_json(part / "seams.json", self.info)
