"""The fitness of several generators, in a folder.

FITNESS/fitness.json    what was compared; which generator to choose
        fitness.csv     one row a candidate, fittest first, see `Fitness`
        pictures.npz    K (8, h, w, 3): the first samples of the K-th row
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from numpy.typing import NDArray

from ..runtime import late
from ..storage.result import FolderResult, Shapes, TableFile, Tables
from ..storage.shown import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, repr=False)
class Fitness(FolderResult):
    """Quality and diversity of each candidate.

    table: one row a candidate, fittest first. Columns:
        candidate; step, the last number in its name, missing without one.
        quality, diversity, fitness, each with _low and _high: precision, coverage and their harmonic mean.
        behind, behind_low, behind_high: the fittest's fitness minus this one's; 0 and NaN for the fittest itself.
        equal: whether it has no significant difference from the fittest.
        front: whether no other candidate is better in both quality and diversity.
        the metrics of `diversity.whole_images`, each with _low and _high, precision and coverage among them.
        critic_quality, critic_diversity, each with _low and _high, where a critic was given.
    info: reference, real_images, images, compared (how many of them), features (a note), zero (of
        real images: by metric and of quality, diversity and fitness: value, low, high), critic, sentence, caveats (by
        metric), created, command, config.
    """

    DESCRIPTION: ClassVar = "fitness.json"
    TABLES: ClassVar = {"table": TableFile("fitness.csv")}
    ARRAYS: ClassVar = "pictures"

    table: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Quality against diversity of every candidate with both intervals, and of real images.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
        """
        axes: Axes = late.plots().fitness(self, ax)
        return axes

    def _title(self) -> str:
        return f"{len(self.table)} generators, {self.info['images']} images each beside {self.info['real_images']} real"

    def _headline(self) -> str:
        first = self.table.iloc[0]
        tied = int(self.table.equal.sum()) - 1
        text = interval(first.fitness, first.fitness_low, first.fitness_high, ".2f", "")
        return f"fittest: {first.candidate}, fitness {text}" + (f", statistically tied with {tied}" if tied > 0 else "")

    @classmethod
    def _shapes(cls, tables: Tables) -> Shapes:
        return {str(row): (None, None, None, 3) for row in range(len(tables["table"]))}
