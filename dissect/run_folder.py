"""How a run begins in a folder: what is there, one process at a time, and its run.json."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..hooks.errors import DissectError, UsageError
from .folders import difference
from .runtime import distributed
from .store import INCOMPLETE, SCHEMA, read_info, write_json

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
    distributed.first(lambda: _take(lock, folder))
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


def kept_run(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The run.json of a folder that holds this very run, complete or not; None where nothing is yet.

    Raises:
        UsageError: the folder holds another run, or something else than a run.
        DissectError: it cannot be read.
    """
    try:
        if not (folder / "run.json").exists():
            if not _is_empty(folder):
                raise UsageError(f"{folder} exists and is not a run; give another --out.")
            return None
        info = read_info(folder)
    except OSError as error:
        raise DissectError(_unusable(folder, error)) from error
    if said := difference(info["config"], config):
        raise UsageError(f"{folder} holds another run ({said}); give another --out.")
    return info


def new_run(folder: Path, config: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """Begin a run in a folder: write its run.json, and return it; raises DissectError where it cannot be written."""
    info = {"schema": SCHEMA, "status": INCOMPLETE, "config": config, **described}
    try:
        folder.mkdir(parents=True, exist_ok=True)  # of a control, in a run's
        write_json(folder / "run.json", info)
    except OSError as error:
        raise DissectError(_unusable(folder, error)) from error
    return info


def _is_empty(folder: Path) -> bool:
    """Whether there is nothing, or no more than an interrupted start leaves."""
    return not folder.exists() or (
        folder.is_dir() and all(path.name == LOCK or HALF_WRITTEN.fullmatch(path.name) for path in folder.iterdir())
    )


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


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """The command line of this process."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
