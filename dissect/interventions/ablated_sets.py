"""What ablating each of some sets of a layer's units does, measured once and kept in the run's folder.

RUN/interventions/scan-LAYER/scan.json   layer, samples
                             areas.npz   before (N, C + 1) shares of pixels, "unlabelled" last; for each of V sets of
                                         units that are ablated together, members (V, U) bool and change (V, N, C + 1);
                                         estimate-CLASS (N, U), for each class that was estimated, by its number

Scans of earlier versions have no `members`: they hold each unit alone, in order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..causes.first_order import Change, Estimator, Pairs
from ..runtime import distributed
from ..runtime.progress import Fewer, Progress
from ..storage.files import read_arrays, read_json, write_arrays, write_json
from ..storage.result_folder import writing
from ..subjects.subject import Subject
from .areas import Variants, measure

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Members = NDArray[np.bool_]

SCAN = "scan.json"
TRY_AGAIN = "make room and try again"


def samples_on_disk(path: Path) -> int:
    """How many samples the scan in a folder has; 0 if there is none."""
    file = path / SCAN
    return distributed.on_first(lambda: int(read_json(file).get("samples", 0)) if file.exists() else 0)


def alone(units: Integers, width: int) -> Members:
    """(V, U): each of V units by itself.

    >>> alone(np.array([2, 0]), 3).astype(int).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    return np.eye(width, dtype=bool)[units]


class AblatedSets:
    """Effects of ablating sets of units of one layer on the first samples of a run; opens what the folder has of them.

    All processes hold the same. Numbers are rounded to float32, so that those measured now are those read again.

    Args:
        subject: the networks and the layer.
        path: the folder of the layer's scan.
        samples: N, how many; what the folder holds of another number of samples is replaced.
        progress: shows what is measured.
    """

    def __init__(self, subject: Subject, path: Path, samples: int, progress: Progress) -> None:
        self.subject, self.path, self.samples, self.progress = subject, path, samples, progress
        self._arrays: dict[str, Any] = {}
        if samples == samples_on_disk(path):
            self._arrays = read_arrays(path / "areas.npz")
            self._arrays.setdefault("members", np.eye(self.width, dtype=bool))

    @property
    def width(self) -> int:
        """How many units, or directions, there are."""
        return self.subject.width

    @property
    def before(self) -> Floats:
        """(N, C + 1) shares of pixels of the unchanged images; "unlabelled" last."""
        before: Floats = self._arrays["before"].astype(np.float64)
        return before

    def measured_units(self) -> Integers:
        """The units whose own effect is known."""
        members = self._arrays.get("members", np.zeros((0, self.width), bool))
        return np.flatnonzero(members[members.sum(1) == 1].any(0))

    def change(self, members: Members, doing: str) -> Floats:
        """(V, N, C + 1), what ablating the units of each set together adds to the areas; measures what is missing.

        Args:
            members: (V, U).
            doing: what the progress bar says.

        Raises:
            DissectError: a network failed, or the folder cannot be written.
        """
        missing = np.array([key not in self._rows() for key in map(_key, members)], bool)
        if missing.any() or "before" not in self._arrays:
            self._measure(members[missing], doing)
        rows = self._rows()
        change: Floats = self._arrays["change"][[rows[key] for key in map(_key, members)]].astype(np.float64)
        return change

    def obstacle(self) -> str:
        """Why effects cannot be estimated, in a few words; empty where they can."""
        return self._estimator.obstacle()

    def estimate(self, target: int) -> Floats:
        """(N, U), to first order, what ablating each unit adds to the area of a class.

        Args:
            target: the number of the class.

        Raises:
            UsageError: no gradient passes through the networks.
            DissectError: a network failed, or the folder cannot be written.
        """
        name = f"estimate-{target}"
        if name not in self._arrays:
            pairs = Pairs(samples=range(self.samples), classes=[target] * self.samples)
            with self.progress.task(f"estimate {self.subject.layer}", self.samples, spread=True) as advance:
                self._arrays[name] = self._estimator(pairs, advance)[self.subject.layer].numpy()
            if "before" in self._arrays:
                self._save()
        values: Floats = self._arrays[name].astype(np.float64)
        return values

    @property
    def _estimator(self) -> Estimator:
        return Estimator.of(self.subject, Change(directions=self.subject.directions))

    def _rows(self) -> dict[bytes, int]:
        """Which row of the arrays a set has."""
        members = self._arrays.get("members", ())
        return {_key(row): index for index, row in enumerate(members)}

    def _measure(self, members: Members, doing: str) -> None:
        weight = torch.from_numpy(members).float()[:, None]
        fewer = Fewer("samples", self.samples, 16)
        with self.progress.task(doing, len(members) * self.samples, spread=True, fewer=fewer) as advance:
            variants = Variants(weight=weight, value=torch.zeros(self.width), directions=self.subject.directions)
            areas = measure(self.subject, range(self.samples), variants, advance=advance)
        arrays, change = self._arrays, areas.difference.astype(np.float32)
        if "change" in arrays:
            arrays["members"] = np.concatenate([arrays["members"], members])
            arrays["change"] = np.concatenate([arrays["change"], change])
        else:
            arrays |= {"before": areas.before.astype(np.float32), "members": members, "change": change}
        self._save()

    def _save(self) -> None:
        distributed.on_first(self._write)

    def _write(self) -> None:
        with writing(self.path, TRY_AGAIN):
            self.path.mkdir(parents=True, exist_ok=True)
            # the description goes first and comes back last: it never describes other arrays than those beside it
            (self.path / SCAN).unlink(missing_ok=True)
            write_arrays(self.path / "areas.npz", self._arrays)
            write_json(self.path / SCAN, {"layer": self.subject.layer, "samples": self.samples, "value": "zero"})


def _key(members: Members) -> bytes:
    """What tells one set of units from another."""
    return np.packbits(members).tobytes()
