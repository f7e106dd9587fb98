"""Folders of results: whether they hold what is asked for already, and how they are written."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...hooks.errors import DissectError, UsageError
from ..runtime import distributed
from .files import PART, read_json


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which gets its name when all is there; nothing of it is left otherwise.

    Raises:
        DissectError: it cannot be written, or another process was faster.
    """
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{PART}")
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError as error:
        raise DissectError(
            f"Writing to {folder} failed ({error.strerror or error}); make room, or give another --name or --out."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def holds(folder: Path, file: str, config: dict[str, Any], do: str = "give another --name") -> bool:
    """Whether a folder holds the result of this very task already; `file` is its description, `do` what to do if not.

    Raises:
        UsageError: it holds another task's, which is never replaced.
        DissectError: its description is damaged.
    """
    there = distributed.first(lambda: _there(folder, file, do))
    if there is not None and (said := difference(there, config)):
        raise UsageError(f"{folder} holds another result ({said[:300]}); {do}.")
    return there is not None


def _there(folder: Path, file: str, do: str) -> dict[str, Any] | None:
    """The config in a folder's description; None where there is nothing yet."""
    if not folder.exists() and not any(parent.is_file() for parent in folder.parents):
        return None
    if folder.is_dir() and not (folder / file).exists():
        if any(folder.iterdir()):
            raise UsageError(f"{folder} exists and holds no {file}; {do}.")
        return None
    if not folder.is_dir():
        raise UsageError(f"{folder} cannot be a folder, since a file is in its way; {do}.")
    config: dict[str, Any] = read_json(folder / file).get("config", {})
    return config


def difference(there: dict[str, Any], asked: dict[str, Any]) -> str:
    """What two tasks differ in, in words; empty if in nothing."""
    keys = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
    return "; ".join(f"{key}: there {_short(there.get(key))}, asked {_short(asked.get(key))}" for key in keys)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """The command line of this process."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
