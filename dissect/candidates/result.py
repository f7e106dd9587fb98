"""How fit generators are, kept in a folder.

FITNESS/fitness.json    what was compared; which to take
        fitness.csv     one row a candidate, fittest first, see `Fitness`
        pictures.npz    K (8, h, w, 3): the first samples of the K-th row
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
class Fitness:
    """Quality and diversity of each candidate.

    table: one row a candidate, fittest first. Columns:
        candidate; step, the last number in its name, missing without one.
        quality, diversity, fitness, each with _low and _high: precision, coverage and their harmonic mean.
        behind, behind_low, behind_high: the fittest's fitness less this one's; 0 and NaN of the fittest itself.
        equal: whether it cannot be told from the fittest.
        front: whether no other candidate is better in quality and in diversity.
        the metrics of `diversity.whole`, each with _low and _high, precision and coverage among them.
        critic_quality, critic_diversity, each with _low and _high, where a critic was given.
    info: reference, real_images, images, compared (how many of them), features (a note), zero (of
        real images: by metric and of quality, diversity and fitness: value, low, high), critic, sentence, caveats (by
        metric), created, command, config.
    """

    folder: Path
    info: dict[str, Any]
    table: pd.DataFrame
    pictures: Mapping[str, NDArray[Any]]

    def _repr_html_(self) -> str:
        return f"<p>{self.info['sentence']}</p>" + self.table.to_html(index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Fitness:
        """Open what was kept.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        table = read_table(folder / "fitness.csv")
        shapes = {str(number): (None, None, None, 3) for number in range(len(table))}
        return cls(
            folder=folder,
            info=read_json(folder / "fitness.json"),
            table=table,
            pictures=read_arrays(folder / "pictures.npz", shapes),
        )

    def save(self) -> None:
        """Write the folder, whole or not at all.

        Raises:
            DissectError: it cannot be written; nothing of it is left.
        """
        with written(self.folder) as part:
            write_csv(part / "fitness.csv", self.table)
            write_arrays(part / "pictures.npz", self.pictures)
            write_json(part / "fitness.json", self.info)
