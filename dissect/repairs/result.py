"""The result of a repair, in its folder: figures beside random sets, effects on classes, pictures, the generator.

…/repairs/NAME/repair.json     what was changed, on which samples; verdict
               fidelity.csv    one row a set and metric, with intervals
               effects.csv     one row a class, as of an ablation, where there was a segmenter
               chosen.csv      units taken out, with layer, value and score
               grid.csv        of a checkerboard: one row a set, its ripple and its peaks
               curve.csv       of a checkerboard: one row a method and strength
               pictures.npz    as of an intervention, see interventions/result.py; roles: worst, most changed
               MODEL-repaired.pth, MODEL-repaired.md    the generator and its card
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import DissectError, one_line
from ..interventions.result import PICTURES
from ..runtime import distributed, late
from ..storage.result import FolderResult, TableFile
from ..storage.result_folder import written
from ..storage.shown import interval, listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a repair did to unseen samples; tables and pictures as of `Repair`.

    reference, features: what the images were compared with, and by which features.
    """

    samples: range
    fidelity: pd.DataFrame
    effects: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]
    reference: str
    features: str
    verdict: str
    sentence: str

    def record(self) -> dict[str, Any]:
        """The same, without tables and pictures, for the description."""
        return {
            "samples": {"first": self.samples[0], "last": self.samples[-1], "number": len(self.samples)},
            "reference": self.reference,
            "features": self.features,
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Repair(FolderResult):
    """A generator repaired, and whether that made the images better, on samples that did not serve to choose how.

    info: what was changed and how; `verdict` (improved, not improved, made worse) and `sentence`, with the figures.
    fidelity: one row a set (before, repaired, others, random 1 …) and metric, see `fidelity.distances.compare`.
    effects: one row a class, see `class_changes.effects_table`. units: one row a unit taken out. grid, curve: of a
    checkerboard, see `checkerboard.trade_off`. Tables that do not belong to a repair are empty;
    `info["tables"]` names those that do.
    """

    DESCRIPTION: ClassVar = "repair.json"
    TABLES: ClassVar = {
        "fidelity": TableFile("fidelity.csv"),
        "effects": TableFile("effects.csv"),
        "units": TableFile("chosen.csv"),
        "grid": TableFile("grid.csv"),
        "curve": TableFile("curve.csv", columns="repair: curve.csv"),
    }
    ARRAYS: ClassVar = "pictures"
    SHAPES: ClassVar = PICTURES
    MAY_LACK_ARRAYS: ClassVar = True

    fidelity: pd.DataFrame
    effects: pd.DataFrame = field(default_factory=pd.DataFrame)
    units: pd.DataFrame = field(default_factory=pd.DataFrame)
    grid: pd.DataFrame = field(default_factory=pd.DataFrame)
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    pictures: Mapping[str, NDArray[Any]]

    @property
    def verdict(self) -> str:
        return str(self.info["verdict"])

    @property
    def checkpoint(self) -> Path:
        """The file of the repaired generator."""
        return self.folder / str(self.info["checkpoint"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """The change of each fidelity metric in units of its interval, repaired and random sets.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
        """
        axes: Axes = late.plots().repair(self, ax)
        return axes

    def _title(self) -> str:
        info = self.info
        grid = "method" in info
        what = f"{info['method']} of {listing(info['layers'])}" if grid else f"{len(self.units)} units"
        return f"{info.get('generator', info['name'])}, {what}, on {info['samples']['number']} samples"

    def _headline(self) -> str:
        rows = self.fidelity[(self.fidelity.set == "repaired") & (self.fidelity.metric == "frechet")]
        changes = (interval(row.change, row.change_low, row.change_high, "+.1f", "") for row in rows.itertuples())
        return "; ".join([self.verdict, *(f"Fréchet distance {change}" for change in changes)])

    @classmethod
    def _has(cls, attribute: str, info: dict[str, Any]) -> bool:
        return attribute in info.get("tables", ("fidelity", "effects", "units"))

    def save_with(self, write_generator: Callable[[Path], None]) -> Repair:
        """Write the folder, whole or not at all; `write_generator` adds the files of the generator to it.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """

        def write() -> Repair:
            with written(self.folder) as unfinished:
                self.write(unfinished)
                try:
                    write_generator(unfinished)
                except RuntimeError as error:  # torch.save and safetensors raise their own
                    message = f"The repaired generator cannot be saved ({one_line(error)}); try another --out."
                    raise DissectError(message) from error
            return Repair.load(self.folder)

        return distributed.on_first(write)
