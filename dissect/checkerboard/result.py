"""The result of a checkup of a generator's upsampling, in its folder.

CHECKUP/checkup.json    the request; verdict, which layer is to blame, broadband excess
        layers.csv      one row an upsampling layer
        peaks.csv       one row a frequency of their grids and set: images, untrained
        gradient.csv    one row a strided layer of the critic, where there was one
        arrays.npz      spectra (H, W) in dB by set; samples_K (n, 2, side, side, 3), those that the K-th layer's ripple
                        changes most, with it and without
        repairs/NAME/   see repairs/result.py
        diversity/      where there were real images and a segmenter: see diversity/result.py
        report/         pages
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ..diversity.result import Diversity
from ..storage.files import finished
from ..storage.result import FolderResult, Shapes, TableFile, Tables

DIVERSITY = "diversity"  # folder


@dataclass(frozen=True, kw_only=True)
class Checkup(FolderResult):
    """Where a generator's upsampling draws a grid.

    layers: one row a layer that makes maps finer, see `check_layers`. peaks: see `spectrum.peaks`, with a column `set`.
    gradient: see `critic_gradient.gradient_side`; empty without a critic. arrays: see above.
    """

    DESCRIPTION: ClassVar = "checkup.json"
    TABLES: ClassVar = {
        "layers": TableFile("layers.csv", columns="checkup: layers.csv"),
        "peaks": TableFile("peaks.csv"),
        "gradient": TableFile("gradient.csv", optional=True),
    }
    ARRAYS: ClassVar = "arrays"

    layers: pd.DataFrame
    peaks: pd.DataFrame
    gradient: pd.DataFrame = field(default_factory=pd.DataFrame)
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
        """How varied the images are beside real ones; None if that was not measured."""
        folder = self.folder / DIVERSITY
        return Diversity.load(folder) if (folder / "diversity.json").is_file() else None

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.layers.to_html(index=False)

    @classmethod
    def _shapes(cls, tables: Tables) -> Shapes:
        samples = {f"samples_{index}": (None, 2, None, None, 3) for index in range(len(tables["layers"]))}
        return {"images": (None, None), **samples}
