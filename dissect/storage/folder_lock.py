"""A folder that one process at a time writes into; what a killed one left half-written is swept away."""

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
FILES = ("run.json", "units.csv", "classes.csv", "scores.npz", "tops.npz")
HALF_WRITTEN = re.compile(rf"({'|'.join(map(re.escape, FILES))}|shard-\d{{5}})\.\d+\.part")  # by a process


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep others out of it; what a killed process left half-written there is swept away.

    The system itself lets go of the lock when the process ends, however it ends.

    Raises:
        DissectError: another process is at work there, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    distributed.on_first(lambda: _take(lock, folder))
    try:
        yield
    finally:
        lock.release()  # does nothing where it is not held


def _take(lock: FileLock, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        for place in (folder, *folder.glob("controls/*")):
            for part in [*place.glob("*.part"), *place.glob("spool/*.part")]:
                if HALF_WRITTEN.fullmatch(part.name):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
    except Timeout:
        raise DissectError(
            f"Another dissect is at work in {folder}; wait until it has ended, or give another --out."
        ) from None
    except (OSError, NotImplementedError) as error:  # the latter: a filesystem without locks
        raise DissectError(_unusable(folder, error)) from error


def _unusable(folder: Path, error: Exception) -> str:
    return f"{folder} cannot be used ({getattr(error, 'strerror', None) or error}); give another --out."


@contextmanager
def writing(folder: Path, stays: str = "what was captured stays") -> Iterator[None]:
    """An OSError inside becomes one line that says how to go on, and what is not lost."""
    try:
        yield
    except OSError as error:
        raise DissectError(
            f"Writing to {folder} failed ({error.strerror or error}); {stays}: make room and run the same "
            "command again."
        ) from error
