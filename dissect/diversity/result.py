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
from typing import Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ..storage.result import FolderResult, TableFile


@dataclass(frozen=True, kw_only=True)
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

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.classes.to_html(index=False) + self.whole.to_html(index=False)
