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
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ..diversity.result import Diversity
from ..runtime import late
from ..storage.files import finished
from ..storage.result import FolderResult, Shapes, TableFile, Tables
from ..storage.shown import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVERSITY = "diversity"  # folder


@dataclass(frozen=True, kw_only=True, repr=False)
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

    def plot_spectrum(self, ax: Axes | None = None) -> Axes:
        """The spectrum of the generated images in dB above that of real ones where there were any, its peaks marked.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
        """
        axes: Axes = late.plots().spectrum(self, ax)
        return axes

    def _title(self) -> str:
        return f"checkerboards of {self.info['generator']}, on {self.info['samples']} samples"

    def _headline(self) -> str:
        peaks = self.peaks[(self.peaks.set == "images") & self.peaks.peak]
        text = f"{self.verdict}: {len(peaks)} peaks of grids in the spectrum"
        if len(peaks):
            top = peaks.loc[peaks.excess.idxmax()]
            text += f", the highest {interval(top.excess, top.low, top.high, '.1f', ' dB')} (grid {top.period})"
        return text

    @classmethod
    def _shapes(cls, tables: Tables) -> Shapes:
        samples = {f"samples_{index}": (None, 2, None, None, 3) for index in range(len(tables["layers"]))}
        return {"images": (None, None), **samples}
