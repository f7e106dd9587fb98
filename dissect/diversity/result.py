"""The result of an audit of a generator's diversity, in its folder.

FOLDER/diversity.json    what was compared; verdict
       by_class.csv      one row a class, see `by_class.compare_classes`; and its contribution to the segmentation
                         distance
       pairs.csv         one row a pair of classes, see `by_class.compare_pairs`
       whole.csv         one row a metric of whole images, see `whole_images.compare`
       layers.csv        one row a layer, see `by_layer.depth_table`
       pictures.npz      twins (n, 2, h, w, 3), prototype (h, w, 3), missing_K (n, h, w, 3): real ones of the K-th class
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
class Diversity(FolderResult):
    """What a generator draws too rarely, too similarly, or never; tables and pictures as listed above."""

    DESCRIPTION: ClassVar = "diversity.json"
    TABLES: ClassVar = {
        "classes": TableFile("by_class.csv"),
        "pairs": TableFile("pairs.csv"),
        "whole": TableFile("whole.csv"),
        "layers": TableFile("layers.csv", columns="diversity: layers.csv"),
    }
    ARRAYS: ClassVar = "pictures"
    SHAPES: ClassVar = {"twins": (None, 2, None, None, 3), "prototype": (None, None, 3)}

    classes: pd.DataFrame
    pairs: pd.DataFrame
    whole: pd.DataFrame
    layers: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]

    def plot(self, ax: Axes | None = None, *, classes: int = 14) -> Axes:
        """How many images hold each class, generated and real, with intervals; the classes that differ most first.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            classes: how many.
        """
        axes: Axes = late.plots().diversity(self, ax, classes)
        return axes

    def _title(self) -> str:
        info = self.info
        return f"{info['generator']}, {info['images']} images beside {info['real_images']} real ones"

    def _headline(self) -> str:
        whole = self.whole.set_index("metric")
        text = self.info["verdict"]
        if "coverage" in whole.index:
            row = whole.loc["coverage"]
            text += f": coverage {interval(row.value, row.low, row.high, '.2f', '')}, real images {row.zero:.2f}"
        differ = self.classes["class"][self.classes.verdict.fillna("") != ""]
        return text + (f"; classes that differ: {listing(differ)}" if len(differ) else "")
