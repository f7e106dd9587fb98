"""Several processes under torchrun are one run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ganatomy.cli import main
from ganatomy.dissect.runtime import distributed
from ganatomy.hooks.errors import UsageError

from ..support.killed import TABLES

pytestmark = pytest.mark.slow

NAMER = """
import os, signal
from ganatomy.tests.conftest import ColourSegmenter

class Mortal(ColourSegmenter):
    calls = 0
    def __call__(self, images):
        Mortal.calls += 1
        if Mortal.calls == 12 and os.environ.get("RANK") == "1" and "FATE" in os.environ:
            if os.environ["FATE"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("the third rail")
        return super().__call__(images)

def names():
    return Mortal()
"""
MODEL = (
    "--model",
    "ganatomy.tests.support.killed:painter",
    "--segmenter",
    "namer:names",
    "--layer",
    "paint",
    "--no-report",
)


def launch(processes: int, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`torchrun … -m ganatomy.cli` in the current folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "ganatomy.cli", *map(str, arguments)]
    there = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ".", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=there, timeout=300)


@pytest.fixture
def namer(on_path: Path) -> Path:
    (on_path / "namer.py").write_text(NAMER)
    return on_path


def alone(*arguments: object) -> None:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def same(one: str, other: str) -> bool:
    return all((Path(one) / name).read_bytes() == (Path(other) / name).read_bytes() for name in TABLES)


SOFT = (
    *("--model", "ganatomy.tests.support.killed:painter", "--segmenter", "ganatomy.tests.conftest:Soft"),
    *("--layer", "paint", "--no-report"),
)


def test_two_processes_estimate_the_same_effects(namer: Path) -> None:
    command = ("run", *SOFT, "--samples", 300, "--causes", "full")
    done = launch(2, *command, "--out", "two")
    assert done.returncode == 0, done.stderr
    alone(*command, "--out", "one", "--quiet")
    ours, theirs = (np.load(Path(folder) / "causes.npz") for folder in ("one", "two"))
    assert ours["paint/effect"].any()
    for name in ours.files:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    done = launch(2, "ablate", "two", "--class", "red", "--top", 1, "--samples", 20, "--random-sets", 1)
    assert done.returncode == 0, done.stderr
    alone("ablate", "one", "--class", "red", "--top", 1, "--samples", 20, "--random-sets", 1, "--quiet")
    chosen = [pd.read_csv(Path(folder) / "interventions/ablate-red-paint-top1/chosen.csv") for folder in ("one", "two")]
    pd.testing.assert_frame_equal(*chosen, rtol=1e-5)
    assert chosen[0].estimate[0] < -1


def test_two_processes_are_one(namer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    asked = ("run", *MODEL, "--samples", 500, "--control", "rotation", "--control", "untrained")
    done = launch(2, *asked, "--out", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "two/units.csv\n"  # one of them talks
    assert done.stderr.count("generate and segment: 500 in") >= 1
    alone(*asked, "--out", "one", "--quiet")
    for place in ("", "/controls/rotation", "/controls/untrained"):
        assert same("one" + place, "two" + place)


def test_a_process_may_have_nothing_to_do(namer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    asked = ("run", *MODEL, "--samples", 200, "--basis", "pca", "--directions", 3, "--quiet")  # two parts
    assert launch(3, *asked, "--out", "three").returncode == 0
    alone(*asked, "--out", "one")
    assert same("one", "three")


@pytest.mark.parametrize("fate", ["killed", "failed"])
def test_a_process_that_dies_fails_the_run_which_then_goes_on(
    namer: Path, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(".")
    asked = ("run", *MODEL, "--samples", 500, "--quiet")
    done = launch(2, *asked, "--out", "two", FATE=fate)
    assert done.returncode == 1
    if fate == "failed":
        assert done.stderr.count("dissect: rank 1: Segmenter colours failed") == 1
        assert "(ValueError: the third rail)" in done.stderr
        assert "Another process has ended" not in done.stderr.split("ChildFailedError")[0]
    else:
        assert "Signal 9 (SIGKILL)" in done.stderr
    there = {path.name for path in Path("two/spool").glob("shard-?????")}
    assert 0 < len(there) < 4
    made = {name: (Path("two/spool") / name / "labels.npy").stat().st_mtime_ns for name in there}
    alone(*asked, "--out", "two")
    assert {name: (Path("two/spool") / name / "labels.npy").stat().st_mtime_ns for name in there} == made
    alone(*asked, "--out", "one")
    assert same("one", "two")


def test_what_is_wrong_is_said_once(namer: Path) -> None:
    done = launch(2, "run", *MODEL, "--samples", 1)
    assert done.returncode == 1
    assert done.stderr.count("dissect: --samples 1: must be an integer of at least 2") == 1
    assert "dissect: rank" not in done.stderr


def test_commands_of_one_process_refuse_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr(distributed, "record", lambda error: None)
    done = CliRunner().invoke(main, ["models"])
    assert done.exit_code == 2
    assert "dissect models does not support torchrun" in done.stderr


def test_alone_all_is_as_it_is() -> None:
    assert (distributed.rank(), distributed.size()) == (0, 1)
    assert distributed.mine([1, 2, 3]) == [1, 2, 3]
    assert distributed.in_order([1, 2, 3]) == [1, 2, 3]
    assert distributed.all_gather("a") == ["a"]
    assert distributed.on_first(lambda: 4) == 4
    assert distributed.broadcast(4) == 4
    with pytest.raises(UsageError, match="no"):
        distributed.on_first(lambda: (_ for _ in ()).throw(UsageError("no")))
