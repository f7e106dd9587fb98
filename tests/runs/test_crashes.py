"""Runs that are killed, run into a full disk, or are interrupted, and then run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ganatomy.dissect import run
from ganatomy.dissect.generators.base import Generator
from ganatomy.dissect.scoring.layer_basis import Basis
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import ColourSegmenter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `killed.py` found."""
    place = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "ganatomy.tests.support.killed", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found = {"said": done.stderr}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def test_a_run_killed_at_twenty_moments_goes_on_to_the_same_bytes(told: dict[str, Any]) -> None:
    moments = told["moments"]
    assert len(moments) == 20
    assert {"incomplete"} <= {state for state, *_ in moments}
    assert [rest for _, *rest in moments] == [[0, True, 0]] * 20  # well, the same tables, nothing half-written left


def test_a_full_disk_is_one_line_and_loses_nothing(told: dict[str, Any]) -> None:
    assert told["full"] == [[1, [], 0, True]] * 2
    assert told["said"].count("what was captured stays: make room and run the same command again") == 2
    assert "Traceback" not in told["said"]


def test_ctrl_c_goes_on(told: dict[str, Any]) -> None:
    assert told["interrupted"] == [130, 0, True]
    assert "dissect: Interrupted. To continue a dissection, run the same command again" in told["said"]


def test_two_at_once_in_a_folder_are_refused_and_the_lock_dies_with_its_process(told: dict[str, Any]) -> None:
    said, again, same = told["together"]
    assert said.startswith("Another dissect is at work in ")
    assert (again, same) == (0, True)


def test_a_folder_that_cannot_be_made_is_one_line(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DissectError, match=r"file/run cannot be used \(Not a directory\); give another `out`"):
        run(painter, layers=["paint"], segmenter=colours, samples=20, out=tmp_path / "file" / "run", quiet=True)


def test_a_finished_run_opens_where_nothing_can_be_written(
    painter: Generator, colours: ColourSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"layers": ["paint"], "segmenter": colours, "out": tmp_path / "run", "quiet": True}
    first = run(painter, samples=20, **options)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert run(painter, samples=20, **options).units.equals(first.units)
    with pytest.raises(DissectError, match=r"new cannot be used \(Read-only file system\); give another `out`"):
        run(painter, samples=20, **options | {"out": tmp_path / "new"})


def test_what_an_interrupted_start_leaves_is_no_obstacle(
    painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / ".lock").touch()
    (place / "run.json.123.part").write_text("{")
    run(painter, layers=["paint"], segmenter=colours, samples=20, out=place, quiet=True)
    assert not list(place.glob("*.part"))
    for number, name in enumerate(("thesis.txt", "film.mp4.part", "film.12.part")):
        other = tmp_path / f"other{number}"
        other.mkdir()
        (other / name).write_text("mine")
        with pytest.raises(UsageError, match="exists and is not a run"):
            run(painter, layers=["paint"], segmenter=colours, samples=20, out=other, quiet=True)
        assert [path.name for path in other.iterdir()] == [name]


def test_featuremaps_that_a_killed_control_left_are_dropped(
    painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"layers": ["paint"], "segmenter": colours, "samples": 20, "controls": ["untrained"]}
    run(painter, out=tmp_path / "run", quiet=True, **options)
    left = tmp_path / "run" / "controls" / "untrained" / "spool" / "shard-00000" / "features-0.npy"
    left.write_text("killed before it was deleted")
    run(painter, out=tmp_path / "run", quiet=True, **options)
    assert not left.exists()


def test_nobody_drops_what_a_control_still_needs(
    painter: Generator, colours: ColourSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"layers": ["paint"], "segmenter": colours, "samples": 20, "out": tmp_path / "run"}
    rotated, said = Basis.rotation, []

    def meanwhile(widths: Any) -> Basis:  # the run is complete, its control is not: now a second one starts
        with pytest.raises(DissectError, match="Another dissect is at work") as error:
            run(painter, quiet=True, **options)
        said.append(str(error.value))
        return rotated(widths)

    monkeypatch.setattr(Basis, "rotation", meanwhile)
    found = run(painter, controls=["rotation"], quiet=True, **options)
    assert len(said) == 1
    assert found.controls["rotation"].info["captured_now"] == 0
