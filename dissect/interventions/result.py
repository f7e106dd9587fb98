"""What an intervention did: tables with intervals beside random sets, pictures, and their folder.

RUN/interventions/NAME/effect.json    what was done to which units, on which samples; the share of change on target
                       effects.csv    one row a class
                       sets.csv       one row a set of units: chosen, random, matched, by_iou
                       chosen.csv     the chosen units, in order, with the values they were given
                       curve.csv, context.csv    where asked for
                       pictures.npz   sample (K,), role (K,), before, after (K, h, w, 3) uint8, place (K, h, w) bool,
                                      labels_before, labels_after (K, h, w) int16; with a curve also step_units (L,),
                                      steps (K, L, h, w, 3), labels_steps (K, L, h, w); on a grid of cells also gain
                                      (K, cells down, cells across): change of the class if that cell alone is edited,
                                      in percentage points
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import unknown_name
from ..runtime import late
from ..storage.result import Result, Shapes, TableFile
from ..storage.shown import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES: Shapes = {
    "sample": (None,),
    "role": (None,),
    "before": (None, None, None, 3),
    "after": (None, None, None, 3),
    "place": (None, None, None),
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Effects(Result):
    """What changing units, or directions, of a layer did to every class, on samples that did not serve to choose them.

    info: what was done (units, value, samples, …) and `on_target`, the share of all change that concerns the class.
    table: one row a class: shares before and after, change in percentage points (`change_pp`) and relative to before,
        each with its 95 % bootstrap interval over images; p- and q-value; `changed`; the same of random sets.
    sets, units: one row a set; one a chosen unit. curve, context: tables where they were asked for, else None.
    pictures: arrays of some samples before and after.
    """

    DESCRIPTION: ClassVar = "effect.json"
    TABLES: ClassVar = {
        "table": TableFile("effects.csv"),
        "sets": TableFile("sets.csv"),
        "units": TableFile("chosen.csv"),
        "curve": TableFile("curve.csv", columns="effect: curve.csv", optional=True),
        "context": TableFile("context.csv", optional=True),
    }
    ARRAYS: ClassVar = "pictures"
    SHAPES: ClassVar = PICTURES
    MAY_LACK_ARRAYS: ClassVar = True

    table: pd.DataFrame
    sets: pd.DataFrame
    units: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]
    curve: pd.DataFrame | None = None
    context: pd.DataFrame | None = None

    def __getitem__(self, name: str) -> pd.Series:
        """The row of a class.

        Raises:
            UnknownName: there is no such class.
        """
        if name not in self.table["class"].array:
            raise unknown_name("class", name, self.table["class"])
        return self.table.set_index("class").loc[name]

    @property
    def noun(self) -> str:
        """The word for what was changed: unit, or direction, a linear combination of units."""
        return str(self.info.get("noun", "unit"))

    @property
    def ordered(self) -> pd.DataFrame:
        """The table, the class that was meant first, then by the size of the change."""
        meant = self.table["class"] != self.info["label"]
        size = -self.table.change_pp.abs()
        return self.table.loc[self.table.assign(meant=meant, size=size).sort_values(["meant", "size"]).index]

    def plot(self, ax: Axes | None = None, *, classes: int = 10) -> Axes:
        """The classes that changed most, in percentage points, with intervals and the range of random sets.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            classes: how many.
        """
        axes: Axes = late.plots().effects(self, ax, classes)
        return axes

    def _title(self) -> str:
        info = self.info
        done = "ablated" if info["kind"] == "ablate" else f"inserted at {info['where']}"
        aim = f" for {info['label']}" if info["label"] else ""
        count = len(info["units"])
        return (
            f"{count} {self.noun}{'' if count == 1 else 's'} of {info['layer']} {done}{aim}, "
            f"on {info['samples']['number']} samples"
        )

    def _headline(self) -> str:
        row = self.ordered.iloc[0]
        ends = (row[name] * 100 for name in ("relative", "relative_low", "relative_high"))
        text = f"{row['class']} {interval(*ends)}"
        if "random_relative_min" in row:
            low, high = (100 * row[f"random_relative_{end}"] for end in ("min", "max"))
            text += f", random sets {low:+.0f} to {high:+.0f} %".replace("-", "−")
        others = int(self.table.changed.sum() - bool(row.changed))
        return f"{text}; {others} other classes changed"
