"""Files of results: safe names, and tables, arrays and JSON that are written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import one_line
from .contract import COLUMNS, KEYS, TEXTS, array_trouble, table_trouble, unreadable

SCHEMA = 3
INCOMPLETE, COMPLETE = "incomplete", "complete"
TABLES = ("units.csv", "classes.csv")
PART = ".part"  # ends the name of a file or folder that is being written


def safe_name(text: str, limit: int = 100) -> str:
    """A name for files from any text: letters, digits, and _ . + - in at most `limit` bytes."""
    name = re.sub(r"[^\w.+-]+", "_", text).strip(".")
    return name.encode()[:limit].decode(errors="ignore")


def finished(folder: Path, file: str) -> list[Path]:
    """The folders in a folder that hold a file, by name; not those that are being written, or never were to the end."""
    return sorted(path.parent for path in folder.glob(f"*/{file}") if path.parent.suffix != PART)


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")  # another process may be at the same file
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(encoded(text)))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomic(path, lambda file: file.write(encoded(text)))


def encoded(text: str) -> bytes:
    """UTF-8. Bytes of a file name that are no UTF-8, which Python keeps as surrogates, become \\udcNN."""
    return text.encode(errors="backslashreplace")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz file, lightly compressed, the same bytes for the same arrays."""

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                part = io.BytesIO()
                np.lib.format.write_array(part, _compact(np.asanyarray(array)), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{name}.npy")  # of no date
                archive.writestr(entry, part.getbuffer(), zipfile.ZIP_DEFLATED, compresslevel=1)

    write_atomic(path, write)


def _compact(array: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest type that holds them; others as they are."""
    if array.dtype.kind != "i" or not array.size:
        return array
    return array.astype(np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max())))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table whose names stay text, whatever they look like: a class may be called NA or 1.

    Args:
        columns: which it must have; None is what `contract` says of a file of that name.

    Raises:
        DissectError: it is missing or damaged.
    """
    try:
        header = pd.read_csv(path, nrows=0).columns
        numbers = {name: [""] for name in header if name not in TEXTS}
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=numbers)
        trouble = table_trouble(table, COLUMNS.get(path.name, ()) if columns is None else columns)
    except (OSError, ValueError) as error:
        raise unreadable(path, one_line(error)) from error
    if trouble:
        raise unreadable(path, trouble)
    return table


def read_json(path: Path, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """The object in a file.

    Args:
        keys: which it must have; None is what `contract` says of a file of that name.

    Raises:
        DissectError: it is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, one_line(error)) from error
    if not isinstance(found, dict):
        raise unreadable(path, "it holds no object")
    wanted = KEYS.get(path.name, ()) if keys is None else keys
    if missing := [key for key in wanted if key not in found]:
        raise unreadable(path, f"it lacks {', '.join(missing)}")
    return found


def read_arrays(
    path: Path, shapes: Mapping[str, tuple[int | None, ...]] | None = None, *, or_none: bool = False
) -> dict[str, NDArray[np.generic]]:
    """All arrays of an .npz file, those of `shapes` among them; with `or_none` it may hold no array at all.

    Raises:
        DissectError: it is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            found = dict(stored)
    except Exception as error:  # a damaged archive fails in many ways: BadZipFile, zlib.error, ValueError, OSError
        raise unreadable(path, one_line(error)) from error
    if trouble := "" if or_none and not found else array_trouble(found, shapes or {}):
        raise unreadable(path, trouble)
    return found


def digest(path: str | Path | None) -> str | None:
    """sha256 of a file, or of the names and files in a folder; None for what is not there."""
    if path is None or not Path(path).exists():
        return None
    found = hashlib.sha256()
    for file in [Path(path)] if Path(path).is_file() else sorted(Path(path).rglob("*")):
        if file.is_file():
            found.update(os.fsencode(file.name) + b"\0" + file.read_bytes())
    return found.hexdigest()
