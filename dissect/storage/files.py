"""Files of results: safe file names; tables, arrays and JSON, each written completely or not at all."""

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
PART = ".part"  # suffix of a file or folder that is still being written


def safe_name(text: str, limit: int = 100) -> str:
    """A file name from any text: letters, digits and _ . + - only, in at most `limit` bytes of UTF-8; may be empty.

    >>> safe_name("layer4: trees/sky")
    'layer4_trees_sky'
    >>> safe_name("../secret")
    '_secret'
    """
    name = re.sub(r"[^\w.+-]+", "_", text).strip(".")
    return name.encode()[:limit].decode(errors="ignore")


def finished(folder: Path, file: str) -> list[Path]:
    """Subfolders that contain `file`, sorted by name. Unfinished (`.part`) ones are skipped."""
    return sorted(path.parent for path in folder.glob(f"*/{file}") if path.parent.suffix != PART)


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file completely or not at all: `write` fills an unfinished file, which then replaces the old one."""
    # the process id keeps two processes that write the same file apart
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with unfinished.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(encoded(text)))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomic(path, lambda file: file.write(encoded(text)))


def encoded(text: str) -> bytes:
    """Text as UTF-8. Bytes of a file name that are not UTF-8, which Python keeps as surrogates, become \\udcNN."""
    return text.encode(errors="backslashreplace")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file, lightly compressed. The same arrays give the same bytes."""

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, _compact(np.asanyarray(array)), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{name}.npy")  # has a constant date, so that the bytes do not change
                archive.writestr(entry, content.getbuffer(), zipfile.ZIP_DEFLATED, compresslevel=1)

    write_atomic(path, write)


def _compact(array: NDArray[Any]) -> NDArray[Any]:
    """Integers in the smallest dtype that holds them; other arrays as they are."""
    if array.dtype.kind != "i" or not array.size:
        return array
    return array.astype(np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max())))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table. The columns in `contract.TEXTS` stay text even where their values look like numbers.

    Args:
        path: the CSV file.
        columns: names of columns that the table must have; None takes those that `contract` has for the file's name.

    Raises:
        DissectError: the file is missing or damaged.
    """
    try:
        header = pd.read_csv(path, nrows=0).columns
        missing = {name: [""] for name in header if name not in TEXTS}  # what means "no value", by column
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=missing)
        trouble = table_trouble(table, COLUMNS.get(path.name, ()) if columns is None else columns)
    except (OSError, ValueError) as error:
        raise unreadable(path, one_line(error)) from error
    if trouble:
        raise unreadable(path, trouble)
    return table


def read_json(path: Path, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """Read the object in a JSON file.

    Args:
        path: the file.
        keys: keys that the object must have; None takes those that `contract` has for the file's name.

    Raises:
        DissectError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, one_line(error)) from error
    if not isinstance(content, dict):
        raise unreadable(path, "it holds no object")
    required = KEYS.get(path.name, ()) if keys is None else keys
    if missing := [key for key in required if key not in content]:
        raise unreadable(path, f"it lacks {', '.join(missing)}")
    return content


def read_arrays(
    path: Path, shapes: Mapping[str, tuple[int | None, ...]] | None = None, *, or_none: bool = False
) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of an .npz file.

    Args:
        path: the file.
        shapes: the shapes of arrays that it must hold, by name; None stands for any length.
        or_none: whether it may also hold no array at all.

    Raises:
        DissectError: the file is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = dict(stored)
    except Exception as error:  # a damaged archive fails in many ways: BadZipFile, zlib.error, ValueError, OSError
        raise unreadable(path, one_line(error)) from error
    if trouble := "" if or_none and not arrays else array_trouble(arrays, shapes or {}):
        raise unreadable(path, trouble)
    return arrays


def digest(path: str | Path | None) -> str | None:
    """sha256 of a file, or of the names and contents of all files in a folder; None if the path does not exist."""
    if path is None or not Path(path).exists():
        return None
    sha256 = hashlib.sha256()
    for file in [Path(path)] if Path(path).is_file() else sorted(Path(path).rglob("*")):
        if file.is_file():
            sha256.update(os.fsencode(file.name) + b"\0" + file.read_bytes())
    return sha256.hexdigest()
