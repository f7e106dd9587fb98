"""What was seen of a training's checkpoints, kept in a folder that grows by a line for each.

WATCH/watch.json      what is looked at, and what real images give
      watch.csv       one row a checkpoint, in the order in which they were looked at, see `COLUMNS`
      pictures/K.webp the same first samples of the K-th row, in a row
      tensorboard/    the same numbers as scalars, where tensorboard is installed
      index.html      made by the package reports
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from ..runtime import late
from ..storage.files import write_csv, write_json
from ..storage.result import FolderResult, TableFile
from ..storage.shown import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


@dataclass(frozen=True, kw_only=True, repr=False)
class Watched(FolderResult):
    """A folder of `Watch`.

    info: generator, samples, seed, layer, units, segmenter, names and colours (C,) of classes; reference (its name, or
    None), and with one real_images, features (a note), zero (by metric value, low, high), real_deviation, real_share
    and real_presence (C,); skipped (checkpoint and why); created, command, config.
    """

    DESCRIPTION: ClassVar = "watch.json"
    TABLES: ClassVar = {"lines": TableFile("watch.csv")}

    lines: pd.DataFrame

    @classmethod
    def _columns(cls, attribute: str, info: dict[str, Any]) -> Sequence[str]:
        return [*COLUMNS, *(kind + name for kind in (SHARE, PRESENCE) for name in info["names"])]

    def update(self) -> None:
        """Write both files of the folder, which exists, each whole or not at all.

        Raises:
            OSError: one cannot be written.
        """
        write_json(self.folder / "watch.json", self.info)
        write_csv(self.folder / "watch.csv", self.lines)

    def picture(self, number: int) -> str:
        """Where the pictures of a row are, from the folder."""
        return f"pictures/{number}.webp"

    def plot(self, ax: Axes | None = None, *, metric: str = "coverage") -> Axes:
        """A metric over the training with its intervals, and what real images give.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            metric: one of `METRICS`, or deviation, ripple, labelled, covered.

        Raises:
            UnknownName: there is no such metric.
        """
        axes: Axes = late.plots().watched(self, ax, metric)
        return axes

    def _title(self) -> str:
        generator = self.info.get("generator", "a generator")
        return f"training of {generator}, {len(self.lines)} checkpoints, {self.info['samples']} samples each"

    def _headline(self) -> str:
        if not len(self.lines):
            return "no checkpoint yet"
        last = self.lines.iloc[-1]
        text = f"last: {last.checkpoint}, {last.verdict}" if last.verdict else f"last: {last.checkpoint}"
        if last.coverage == last.coverage:
            text += f", coverage {interval(last.coverage, last.coverage_low, last.coverage_high, '.2f', '')}"
        alarms = int((self.lines.alarms.fillna("") != "").sum())
        return f"{text}; alarms at {alarms} checkpoints"
