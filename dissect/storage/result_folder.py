"""Folders of results: whether one already holds the requested result, and how one is written."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...hooks.errors import DissectError, UsageError
from ..runtime import distributed
from ..runtime.calls import command
from .files import PART, SCHEMA, read_json, safe_name


@contextmanager
def writing(folder: Path, advice: str) -> Iterator[None]:
    """Turn an OSError of the block into a DissectError of one line, which ends with `advice`: how to go on."""
    try:
        yield
    except OSError as error:
        raise DissectError(f"Writing to {folder} failed ({error.strerror or error}); {advice}.") from error


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which gets its name when the block ends; nothing of it is left if the block fails.

    Raises:
        DissectError: it cannot be written, or another process was faster.
    """
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{PART}")
    try:
        with writing(folder, "make room, or give another --name or --out"):
            unfinished.mkdir(parents=True)
            yield unfinished
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Give a folder the name of another, which is deleted; the other is whole until the new one is in its place."""
    aside = old.with_name(f"{old.name}.{uuid.uuid4().hex}{PART}")
    old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Make the folder if it does not exist, and raise DissectError unless files can be written into it.

    It is called before long work begins, which would be lost otherwise.
    """
    with writing(folder, "make it writable"):
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def result_name(text: str) -> str:
    """The folder name of a result that the user calls `text`, see `safe_name`.

    Raises:
        UsageError: the text has no letter or digit.

    >>> result_name("no windows")
    'no_windows'
    """
    name = safe_name(text)
    if not name:
        raise UsageError(f"--name {text!r}: must have letters or digits.")
    return name


def holds(folder: Path, file: str, config: dict[str, Any], advice: str) -> bool:
    """Whether a folder already holds the result of this very config; `file` is its description.

    Raises:
        UsageError: it holds something else, which is never replaced; `advice` says what to do.
        DissectError: the description is damaged.
    """
    kept = distributed.on_first(lambda: _config_in(folder, file, advice))
    if kept is not None and (differences := difference(kept, config)):
        raise UsageError(f"{folder} holds another result ({differences[:300]}); {advice}.")
    return kept is not None


def _config_in(folder: Path, file: str, advice: str) -> dict[str, Any] | None:
    """The config in a folder's description; None where there is nothing yet."""
    if in_the_way := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise UsageError(f"{in_the_way} is a file, where a folder is needed; move it, or {advice}.")
    if not folder.exists():
        return None
    if not (folder / file).exists():
        if any(folder.iterdir()):
            raise UsageError(f"{folder} exists and holds no {file}; {advice}.")
        return None
    config: dict[str, Any] = read_json(folder / file).get("config", {})
    return config


def difference(kept: dict[str, Any], requested: dict[str, Any]) -> str:
    """What two configs differ in, in words; empty if they are equal.

    >>> difference({"top": 5, "seed": 0}, {"top": 9, "seed": 0})
    'top: there 5, requested 9'
    """
    keys = [key for key in {**kept, **requested} if kept.get(key) != requested.get(key)]
    return "; ".join(f"{key}: there {_short(kept.get(key))}, requested {_short(requested.get(key))}" for key in keys)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"


def header() -> dict[str, Any]:
    """What every description begins with: schema, time and command."""
    return {"schema": SCHEMA, "created": now(), "command": command()}


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
