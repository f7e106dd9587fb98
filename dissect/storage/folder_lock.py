"""A lock on a folder, into which one process at a time writes; half-written files of a killed process are removed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ...hooks.errors import DissectError
from ..runtime import distributed

LOCK = ".lock"
FILES = ("run.json", "units.csv", "classes.csv", "scores.npz", "tops.npz", "shown.npz")
HALF_WRITTEN = re.compile(rf"({'|'.join(map(re.escape, FILES))}|shard-\d{{5}})\.\d+\.part")  # by a process


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and lock it against other processes; half-written files of a killed process are removed.

    The system itself releases the lock when the process ends, however it ends.

    Raises:
        DissectError: another process holds the lock, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    distributed.on_first(lambda: _take(lock, folder))
    try:
        yield
    finally:
        lock.release()  # does nothing in a process that does not hold it


def _take(lock: FileLock, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        for run in (folder, *folder.glob("controls/*")):
            for path in [*run.glob("*.part"), *run.glob("spool*/*.part")]:
                if HALF_WRITTEN.fullmatch(path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    except Timeout:
        raise DissectError(
            f"Another dissect is at work in {folder}; wait until it ends, or give another --out."
        ) from None
    except (OSError, NotImplementedError) as error:  # NotImplementedError: the filesystem has no locks
        raise unusable(folder, error) from error


def unusable(folder: Path, error: Exception) -> DissectError:
    """The error to raise for a folder that cannot be made, locked or written."""
    return DissectError(f"{folder} cannot be used ({getattr(error, 'strerror', None) or error}); give another --out.")
