"""A run that is extended by more samples, and one that is replaced, beside runs made at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ganatomy.dissect import Dissection
from ganatomy.dissect.runs import job as job_module
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import Go


def same_results(one: Path, other: Path) -> None:
    assert sorted(path.name for path in one.glob("*.*")) == sorted(path.name for path in other.glob("*.*"))
    for name in ("units.csv", "classes.csv", "scores.npz", "tops.npz", "shown.npz"):
        if name == "shown.npz" and not (one / name).exists():  # controls have none
            continue
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    spools = [Dissection.load(folder).spool for folder in (one, other)]
    for shard in spools[0].shards:
        for name in ("labels", "images"):
            assert np.array_equal(spools[0].read(shard, name), spools[1].read(shard, name))


@pytest.mark.parametrize("keep_spool", [False, True])
@pytest.mark.parametrize(("few", "many"), [(40, 60), (128, 200), (150, 300)])
def test_an_extended_run_is_the_run_of_all_samples(
    go: Go, tmp_path: Path, few: int, many: int, keep_spool: bool
) -> None:
    go(samples=few, keep_spool=keep_spool)
    run = go(samples=many, keep_spool=keep_spool)
    go(samples=many, out=tmp_path / "at_once", keep_spool=keep_spool)
    same_results(run.folder, tmp_path / "at_once")
    assert run.info["config"]["samples"] == many
    assert [entry["samples"] for entry in run.info["extended"]] == [few]
    computed = many - (few // 128 * 128 if keep_spool else 0)  # whole shards whose featuremaps were kept
    assert run.info["captured_now"] == computed
    assert sorted(path.name for path in run.folder.glob("spool*")) == ["spool"]


def test_controls_grow_with_the_run_and_what_was_made_of_it_stays(go: Go, tmp_path: Path) -> None:
    go(samples=40, controls=["rotation", "untrained"])
    run = go(samples=40)
    (run.folder / "interventions" / "own").mkdir(parents=True)
    (run.folder / "interventions" / "own" / "notes.txt").write_text("mine")
    longer = go(samples=60)
    at_once = go(samples=60, controls=["rotation", "untrained"], out=tmp_path / "at_once")
    assert (run.folder / "interventions" / "own" / "notes.txt").read_text() == "mine"
    for name, control in longer.controls.items():
        same_results(control.folder, at_once.controls[name].folder)
    assert set(longer.controls) == {"rotation", "untrained"}


def test_an_interrupted_extension_leaves_the_run_and_goes_on(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = go(samples=40)
    table = before.units

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for where in ("capture", "finish"):  # before the spool is exchanged, and after
        with monkeypatch.context() as patch:
            patch.setattr(job_module, where, fail)
            with pytest.raises(DissectError, match="No space left"):
                go(samples=60)
        still = Dissection.load(before.folder)
        assert still.units.equals(table)
        assert len(still.spool.gather("images", np.arange(40))) == 40
    same_results(go(samples=60).folder, go(samples=60, out=tmp_path / "at_once").folder)


def test_overwrite_replaces_a_run_when_the_new_one_is_finished(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = go(samples=60)
    (before.folder / "interventions").mkdir()
    mine = go(samples=20, out=tmp_path / "run.new")  # a run of the user's, beside it

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "finish", fail)
        with pytest.raises(DissectError, match="No space left"):
            go(samples=40, overwrite=True)
    assert Dissection.load(before.folder).units.equals(before.units)
    captured = json.loads((tmp_path / "run.new.part" / "run.json").read_text())["created"]
    after = go(samples=40, overwrite=True)
    assert after.info["created"] == captured, "it went on from what was captured"
    same_results(after.folder, go(samples=40, out=tmp_path / "at_once").folder)
    assert after.folder == before.folder
    assert not (after.folder / "interventions").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at_once", "run", "run.new"]
    assert Dissection.load(mine.folder).units.equals(mine.units)


def test_only_a_run_is_overwritten(go: Go, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="is not a run"):
        go(overwrite=True)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "mine"
    with pytest.raises(UsageError, match=r"overwrite.*shard"):
        go(overwrite=True, shard="1/2", out=tmp_path / "shard")
