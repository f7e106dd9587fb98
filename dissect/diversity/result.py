"""What an audit of a generator's diversity found, kept in its folder.

FOLDER/diversity.json    what was compared; verdict
       by_class.csv      one row a class, see `classes.compare_classes`; with its part of the segmentation distance
       pairs.csv         one row a pair of classes, see `classes.compare_pairs`
       whole.csv         one row a metric of whole images, see `whole.compare`
       layers.csv        one row a layer, see `depth.depth_table`
       pictures.npz      twins (n, 2, h, w, 3), prototype (h, w, 3), missing_K (n, h, w, 3): real ones of the K-th class
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

TABLES = {"classes": "by_class.csv", "pairs": "pairs.csv", "whole": "whole.csv", "layers": "layers.csv"}


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """What a generator draws too rarely, too alike, or never; tables and pictures: see above."""

    folder: Path
    info: dict[str, Any]
    classes: pd.DataFrame
    pairs: pd.DataFrame
    whole: pd.DataFrame
    layers: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.classes.to_html(index=False) + self.whole.to_html(index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Diversity:
        """Open what was kept.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        return cls(
            folder=folder,
            info=read_json(folder / "diversity.json"),
            pictures=read_arrays(
                folder / "pictures.npz", {"twins": (None, 2, None, None, 3), "prototype": (None, None, 3)}
            ),
            **{name: read_table(folder / file, COLUMNS.get(f"diversity: {file}")) for name, file in TABLES.items()},
        )

    def save(self) -> None:
        """Write the folder, whole or not at all.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """
        with written(self.folder) as part:
            for name, file in TABLES.items():
                write_csv(part / file, getattr(self, name))
            write_arrays(part / "pictures.npz", self.pictures)
            write_json(part / "diversity.json", self.info)
