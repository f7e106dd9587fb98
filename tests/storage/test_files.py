"""Files of results: which columns are text, safe names, atomic writing, digests."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganatomy.dissect.storage.contract import COLUMNS, TEXTS
from ganatomy.dissect.storage.files import (
    digest,
    finished,
    read_arrays,
    read_json,
    read_table,
    safe_name,
    write_arrays,
    write_atomic,
    write_csv,
    write_json,
)
from ganatomy.hooks.errors import DissectError

AWKWARD = ["NA", "1", "nan", "True", "007", ""]  # texts that pandas would turn into something else


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_texts_stay_texts_and_numbers_numbers_in_every_table(tmp_path: Path, name: str) -> None:
    columns = COLUMNS[name]
    table = pd.DataFrame({column: AWKWARD if column in TEXTS else np.arange(6) / 4 for column in columns})
    path = tmp_path / "table.csv"
    write_csv(path, table)
    read = read_table(path, columns)
    assert list(read.columns) == list(columns)
    for column in columns:
        assert list(read[column]) == list(table[column])


@pytest.mark.parametrize("column", TEXTS)
def test_a_further_column_that_is_text_stays_text(tmp_path: Path, column: str) -> None:
    write_csv(tmp_path / "chosen.csv", pd.DataFrame({"unit": 1, "value": 0.5, column: AWKWARD}).assign(label="tree"))
    assert list(read_table(tmp_path / "chosen.csv")[column]) == (["tree"] * 6 if column == "label" else AWKWARD)


def test_numbers_and_truth_values_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "chosen.csv").write_text("unit,label,value,changed\n1,NA,,True\n2,,0.5,\n")
    table = read_table(tmp_path / "chosen.csv", ("unit", "label", "value", "changed"))
    assert list(table.label) == ["NA", ""]
    assert np.isnan(table.value[0])
    assert pd.isna(table.changed[1])


@settings(deadline=None)
@given(st.text(), st.integers(1, 100))
def test_a_safe_name_is_a_file_name(text: str, limit: int) -> None:
    name = safe_name(text, limit)
    assert re.fullmatch(r"[\w.+-]*", name)
    assert len(name.encode()) <= limit
    assert not name.startswith(".")
    assert os.sep not in name
    assert name == safe_name(text, limit)


@settings(deadline=None)
@given(st.text(st.characters(categories=["Lu", "Ll", "Nd"], max_codepoint=0x24F), max_size=20))
def test_letters_and_digits_of_a_name_stay(text: str) -> None:
    assert safe_name(text) == text


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_come_back_and_their_bytes_depend_on_nothing_else(tmp_path: Path) -> None:
    arrays = {"counts": np.array([[0, 255], [3, 4]]), "names": np.array(["a", "bc"]), "shares": np.eye(3) / 7}
    for name in ("a", "b"):
        write_arrays(tmp_path / f"{name}.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = read_arrays(tmp_path / "a.npz", {"counts": (2, None)})
    assert read["counts"].dtype == np.uint8  # the smallest integer that holds them
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    with pytest.raises(DissectError, match=r"a\.npz .*others"):
        read_arrays(tmp_path / "a.npz", {"others": ()})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04."])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    for name, read in (("a.npz", read_arrays), ("a.json", read_json)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DissectError, match=re.escape(name)):
            read(tmp_path / name)  # type: ignore[operator]


def test_unfinished_folders_are_skipped(tmp_path: Path) -> None:
    for name in ("b", "a", "c.123.part", "empty"):
        (tmp_path / name).mkdir()
        if name != "empty":
            write_json(tmp_path / name / "effect.json", {})
    assert finished(tmp_path, "effect.json") == [tmp_path / "a", tmp_path / "b"]


def test_a_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    assert digest(None) is None
    assert digest(tmp_path / "absent") is None
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    first = digest(folder)
    assert first == digest(folder)
    (folder / "a").write_bytes(b"2")
    second = digest(folder)
    (folder / "a").rename(folder / "b")
    assert len({first, second, digest(folder)}) == 3
