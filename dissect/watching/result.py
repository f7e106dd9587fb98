"""What was seen of a training's checkpoints, kept in a folder that grows by a line for each.

WATCH/watch.json      what is looked at, and what real images give
      watch.csv       one row a checkpoint, in the order in which they were looked at, see `COLUMNS`
      pictures/K.webp the same first samples of the K-th row, in a row
      tensorboard/    the same numbers as scalars, where tensorboard is installed
      index.html      made by the package reports
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..storage.files import read_json, read_table, write_csv, write_json

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage", "vendi", "spread", "twins")
MEASURED = ("deviation", *METRICS, "ripple")  # each with _low and _high
SHARE, PRESENCE = "share:", "presence:"  # before the name of a class
COLUMNS = (
    "checkpoint",  # path, or what the caller said
    "step",
    "created",  # when looking began
    "seconds",  # that looking took
    "sha256",  # of the weights
    "verdict",  # varied, lacking, collapsed; empty without real images
    "alarms",  # "; " between
    *(f"{name}{end}" for name in MEASURED for end in ("", "_low", "_high")),
    "grid",  # height×width of the grid whose peak stands out most, "" if none was looked for
    "peaks",  # of grids
    "labelled",  # units of the layer
    "covered",  # classes that they name
)  # then SHARE and PRESENCE of every class


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A folder of `Watch`.

    info: generator, samples, seed, layer, units, segmenter, names and colours (C,) of classes; reference (its name, or
    None), and with one real_images, features (a note), zero (by metric value, low, high), real_deviation, real_share
    and real_presence (C,); skipped (checkpoint and why); created, command, config.
    """

    folder: Path
    info: dict[str, Any]
    lines: pd.DataFrame

    @classmethod
    def load(cls, folder: str | Path) -> Watched:
        """Open what was kept.

        Raises:
            DissectError: a file of it is missing or damaged.
        """
        folder = Path(folder)
        info = read_json(folder / "watch.json")
        shares = (kind + name for kind in (SHARE, PRESENCE) for name in info["names"])
        lines = read_table(folder / "watch.csv", [*COLUMNS, *shares])
        return cls(folder=folder, info=info, lines=lines)

    def save(self) -> None:
        """Write both files, each whole or not at all.

        Raises:
            OSError: one cannot be written.
        """
        write_json(self.folder / "watch.json", self.info)
        write_csv(self.folder / "watch.csv", self.lines)

    def picture(self, number: int) -> str:
        """Where the pictures of a row are, from the folder."""
        return f"pictures/{number}.webp"

    def _repr_html_(self) -> str:
        return self.lines.to_html(index=False)
