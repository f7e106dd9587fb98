"""The spool: the outputs of the networks for each sample, on disk, so that no sample needs them twice.

    spool/shard-00003/labels.npy            (n, P, g, g) int16, -1 for unlabelled
                      images.npy            (n, h, w, 3) uint8 thumbnails
                      features-0.npy        (n, U, h, w) float16 of the run's first layer, divided by its scale; …

A shard appears whole or not at all: it is written under another name and then renamed.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import one_line
from ..runtime import distributed
from ..storage.contract import unreadable

HEADER = threading.Lock()  # CPython 3.11 now and then fails to parse literals in two threads at once (its issue 106905)
SHARD = 128  # samples; even, so that a sample's parity is that of its row


class Spool:
    """A folder of shards; shard k holds samples 128 k … 128 k + 127 of `samples`."""

    def __init__(self, folder: Path, samples: int, part: tuple[int, int] = (1, 1)) -> None:
        """With `part` (k, n), only the k-th of every n shards, counted from 1, belong to the spool."""
        self.folder = folder
        self.samples = samples
        self.shards = range(-(-samples // SHARD))[part[0] - 1 :: part[1]]
        self.own = list(self.shards)  # those that this process captures and reads

    def __len__(self) -> int:
        return len(self.shards)

    def divide(self) -> list[int]:
        """Distribute the shards among the processes; returns all missing shards, of whatever process."""
        missing = distributed.on_first(self.missing)
        present = [shard for shard in self.shards if shard not in missing]
        self.own = sorted([*distributed.mine(present), *distributed.mine(missing)])
        return missing

    def indices(self, shard: int) -> range:
        """The samples of a shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.samples))

    def missing(self) -> list[int]:
        """The shards that have not been captured yet."""
        return [shard for shard in self.shards if not self._path(shard).is_dir()]

    def write(self, shard: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Add one shard.

        Raises:
            OSError: it could not be written; nothing of it is left.
        """
        with self._adding(shard) as part:
            for name, array in arrays.items():
                np.save(part / f"{name}.npy", array, allow_pickle=False)

    @contextmanager
    def _adding(self, shard: int) -> Iterator[Path]:
        """A folder to write a shard into, which gets its final name when all files are written."""
        part = self.folder / f"shard-{shard:05d}.{os.getpid()}.part"  # another process may be at the same shard
        try:
            part.mkdir(parents=True)
            yield part
            if not self._path(shard).exists():
                part.rename(self._path(shard))
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def take(self, other: Spool, shard: int) -> None:
        """Add a shard of another spool: as links to its files, or copies where there can be none.

        Raises:
            OSError: it could not be written; nothing of it is left.
        """
        with self._adding(shard) as part:
            for path in sorted(other._path(shard).iterdir()):
                try:
                    os.link(path, part / path.name)
                except OSError:  # another filesystem, or one without links
                    shutil.copyfile(path, part / path.name)

    def read(self, shard: int, name: str) -> NDArray[Any]:
        """One array of a shard, memory-mapped, read-only.

        Raises:
            DissectError: it is missing or damaged.
        """
        path = self._path(shard) / f"{name}.npy"
        try:
            with HEADER:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise unreadable(path, one_line(error)) from error
        samples = len(array) if array.ndim else 0
        if samples < len(self.indices(shard)):
            raise unreadable(path, f"it holds {samples} samples instead of {len(self.indices(shard))}")
        return array[: len(self.indices(shard))]  # more where the run is about to be extended

    def gather(self, name: str, samples: NDArray[Any]) -> NDArray[Any]:
        """The rows of these samples (each at most once, ascending), from all shards."""
        parts = [
            self.read(int(shard), name)[samples[samples // SHARD == shard] % SHARD]
            for shard in np.unique(samples // SHARD)
        ]
        return np.concatenate(parts)

    def has_features(self, layers: int) -> bool:
        """Whether no shard is missing, and each has the featuremaps of so many layers."""
        counts = (len(list(self._path(shard).glob("features-*.npy"))) for shard in self.shards)
        return not self.missing() and all(count == layers for count in counts)

    def take_whole(self, other: Spool, layers: int) -> None:
        """Add every shard of another spool that has all samples of the shard here, and the featuremaps of its layers.

        Raises:
            OSError: one could not be written.
        """
        for shard in set(self.missing()) - set(other.missing()):
            features = len(list(other._path(shard).glob("features-*.npy")))
            if features == layers and len(np.load(other._path(shard) / "labels.npy", mmap_mode="r")) >= len(
                self.indices(shard)
            ):
                self.take(other, shard)

    def replace(self, other: Spool) -> None:
        """Take the place of another spool, which is deleted."""
        shutil.rmtree(other.folder, ignore_errors=True)
        self.folder.rename(other.folder)
        self.folder = other.folder

    def drop_features(self) -> None:
        """Delete the featuremaps; labels and thumbnails stay."""
        for path in self.folder.glob("shard-*/features-*.npy"):
            path.unlink()

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}"
