"""A line's numbers for TensorBoard, where it is installed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .result import MEASURED, SHARE

TAGS = {name: f"ganatomy/{name}" for name in (*MEASURED, "peaks", "labelled", "covered")}


class Scalars:
    """Writes into a folder; does nothing without tensorboard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def add(self, row: Mapping[str, Any]) -> None:
        """A row of `result.COLUMNS`; numbers that are missing are left out."""
        if self._writer is None:
            return
        shares = {name: f"ganatomy/share/{name.removeprefix(SHARE)}" for name in row if name.startswith(SHARE)}
        for name, tag in (TAGS | shares).items():
            if math.isfinite(row.get(name, math.nan)):
                self._writer.add_scalar(tag, row[name], round(row["step"]))  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]
