"""The base of all results, by a small one of its own: save, load, and what a folder with something else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from ganatomy.dissect.storage.result import FolderResult, Result, TableFile
from ganatomy.hooks.errors import DissectError, UsageError

CONFIG = {"layer": "layer4", "samples": 8}


@dataclass(frozen=True, kw_only=True)
class Ranking(Result):
    """Units in order: one table that must be there, one that may be absent, and arrays."""

    DESCRIPTION: ClassVar = "artifacts.json"
    TABLES: ClassVar = {
        "units": TableFile("ranking.csv", columns="suspects.csv"),
        "samples": TableFile("samples.csv", optional=True),
    }
    ARRAYS: ClassVar = "maps"
    SHAPES: ClassVar = {"mean": (None, 4, 4)}

    units: pd.DataFrame
    maps: Mapping[str, Any]
    samples: pd.DataFrame | None = None


def ranking(**changes: Any) -> Ranking:
    units = pd.DataFrame(
        {"rank": [1, 2], "layer": ["1", "NA"], "unit": [7, 3], "score": [0.5, 0.25], "label": ["NA", "2"], "iou": 0.1}
    )
    info = {"name": "first", "detector": "flags", "layers": ["1", "NA"], "samples": 8, "config": CONFIG}
    return Ranking(**{"info": info, "units": units, "maps": {"mean": np.arange(32.0).reshape(2, 4, 4)}} | changes)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = ranking()
    saved.save(tmp_path / "result")
    loaded = Ranking.load(tmp_path / "result")
    assert loaded.info == saved.info
    pd.testing.assert_frame_equal(loaded.units, saved.units)  # NA and 1 are names here, and stay text
    np.testing.assert_array_equal(loaded.maps["mean"], saved.maps["mean"])
    assert loaded.samples is None
    assert sorted(Ranking.files(tmp_path / "result")) == ["artifacts.json", "ranking.csv"]


def test_an_optional_table_is_saved_and_loaded(tmp_path: Path) -> None:
    samples = pd.DataFrame({"rank": [1], "layer": ["layer4"], "sample": [5], "score": [2.5]})
    ranking(samples=samples).save(tmp_path / "result")
    loaded = Ranking.load(tmp_path / "result")
    assert loaded.samples is not None
    pd.testing.assert_frame_equal(loaded.samples, samples)
    assert "samples.csv" in Ranking.files(tmp_path / "result")


def test_a_folder_result_knows_its_folder(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Note(FolderResult):
        DESCRIPTION: ClassVar = "note.json"

    Note(folder=tmp_path / "note", info={"text": "a"}).save(tmp_path / "note")
    assert Note.load(str(tmp_path / "note")) == Note(folder=tmp_path / "note", info={"text": "a"})


@pytest.mark.parametrize("file", ["artifacts.json", "ranking.csv", "maps.npz"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    ranking().save(tmp_path / "result")
    (tmp_path / "result" / file).unlink()
    with pytest.raises(DissectError, match=file):
        Ranking.load(tmp_path / "result")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (ranking().units.drop(columns="score"), "score"),
        (ranking().units.astype({"score": object}).assign(score=["0.5", "high"]), "score"),
    ],
    ids=["missing", "text"],
)
def test_a_damaged_column_is_named(tmp_path: Path, table: pd.DataFrame, reason: str) -> None:
    ranking(units=table).save(tmp_path / "result")
    with pytest.raises(DissectError, match=rf"ranking\.csv .*{reason}"):
        Ranking.load(tmp_path / "result")


def test_damaged_arrays_and_descriptions_are_named(tmp_path: Path) -> None:
    ranking(maps={"mean": np.zeros((2, 4))}).save(tmp_path / "arrays")
    with pytest.raises(DissectError, match=r"maps\.npz .*mean .*\(2, 4\).*\(any, 4, 4\)"):
        Ranking.load(tmp_path / "arrays")
    ranking(info={"name": "first"}).save(tmp_path / "description")
    with pytest.raises(DissectError, match=r"artifacts\.json .*detector"):
        Ranking.load(tmp_path / "description")
    (tmp_path / "description" / "artifacts.json").write_text("[]")
    with pytest.raises(DissectError, match=r"artifacts\.json"):
        Ranking.load(tmp_path / "description")


def test_a_folder_may_lack_arrays_where_the_class_says_so(tmp_path: Path) -> None:
    class Bare(Ranking):
        MAY_LACK_ARRAYS: ClassVar = True

    ranking(maps={}).save(tmp_path / "result")
    assert Bare.load(tmp_path / "result").maps == {}
    with pytest.raises(DissectError, match="mean"):
        Ranking.load(tmp_path / "result")


def test_kept_loads_the_result_of_the_same_config_only(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    assert Ranking.kept(folder, CONFIG) is None
    folder.mkdir()
    assert Ranking.kept(folder, CONFIG) is None  # an empty folder holds nothing
    folder.rmdir()
    ranking().save(folder)
    result = Ranking.kept(folder, CONFIG)
    assert result is not None
    assert result.info["name"] == "first"
    with pytest.raises(UsageError, match=r"samples: .*8.* 16.*; use `other`"):
        Ranking.kept(folder, CONFIG | {"samples": 16}, "use --other")
    assert Ranking.load(folder).info == result.info  # nothing was replaced


def test_kept_refuses_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"artifacts\.json; give another `name`"):
        Ranking.kept(tmp_path, CONFIG)
    with pytest.raises(UsageError, match=r"notes\.txt is a file"):
        Ranking.kept(tmp_path / "notes.txt" / "result", CONFIG)


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ranking(info={"value": float("nan")}).save(tmp_path / "result")
    assert list(tmp_path.iterdir()) == []
    ranking().save(tmp_path / "result")
    before = {path.name: path.read_bytes() for path in (tmp_path / "result").iterdir()}
    with pytest.raises(DissectError, match=r"result failed .*`name` or `out`"):
        ranking(info={}).save(tmp_path / "result")
    assert {path.name: path.read_bytes() for path in (tmp_path / "result").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
