"""What a checkup of a generator's upsampling found, kept in its folder.

CHECKUP/checkup.json    what was looked at; verdict, which layer is to blame, broadband excess
        layers.csv      one row an upsampling layer
        peaks.csv       one row a frequency of their grids and set: images, untrained
        gradient.csv    one row a strided layer of the critic, where there was one
        arrays.npz      spectra (H, W) in dB by set; samples_K (n, 2, side, side, 3), those that the K-th layer's ripple
                        changes most, with it and without
        repairs/NAME/   see repairs.py
        diversity/      where there were real images and a segmenter: see diversity/findings.py
        report/         pages
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ..diversity.result import Diversity
from ..storage.contract import COLUMNS
from ..storage.files import finished, read_arrays, read_json, read_table, write_arrays, write_csv, write_json
from ..storage.result_folder import written

DIVERSITY = "diversity"  # folder
TABLES = {"layers": "layers.csv", "peaks": "peaks.csv", "gradient": "gradient.csv"}


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """Where a generator's upsampling draws a grid.

    layers: one row a layer that makes maps finer, see `checkerboard.audit`. peaks: see `spectrum.peaks`, with a column
    `set`. gradient: see `gradient.gradient_side`; empty without a critic. arrays: see above.
    """

    folder: Path
    info: dict[str, Any]
    layers: pd.DataFrame
    peaks: pd.DataFrame
    gradient: pd.DataFrame
    arrays: Mapping[str, NDArray[Any]]

    @property
    def verdict(self) -> str:
        """The worst of the layers': clean, mild or visible."""
        return str(self.info["verdict"])

    @property
    def repairs(self) -> list[Path]:
        """Folders of finished repairs, by name."""
        return finished(self.folder / "repairs", "repair.json")

    @property
    def diversity(self) -> Diversity | None:
        """How varied the images are beside real ones, if that was looked at."""
        folder = self.folder / DIVERSITY
        return Diversity.load(folder) if (folder / "diversity.json").is_file() else None

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.layers.to_html(index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Checkup:
        """Open what was kept.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        info = read_json(folder / "checkup.json")
        tables = {
            name: read_table(folder / file, COLUMNS.get(f"checkup: {file}"))
            if (folder / file).exists() or name != "gradient"
            else pd.DataFrame()
            for name, file in TABLES.items()
        }
        shapes: dict[str, tuple[int | None, ...]] = {"images": (None, None)}
        shapes |= {f"samples_{number}": (None, 2, None, None, 3) for number in range(len(tables["layers"]))}
        return cls(folder=folder, info=info, arrays=read_arrays(folder / "arrays.npz", shapes), **tables)

    def save(self) -> None:
        """Write the folder, whole or not at all.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """
        with written(self.folder) as part:
            for name, file in TABLES.items():
                if len((table := getattr(self, name)).columns):
                    write_csv(part / file, table)
            write_arrays(part / "arrays.npz", self.arrays)
            write_json(part / "checkup.json", self.info)
