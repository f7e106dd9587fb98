"""All that changes or checks a generator, done by two processes of torchrun: the same as by one."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Generator, NormalLatents, checkerboard
from ganatomy.dissect.artifacts import detectors
from ganatomy.dissect.checkerboard import Geometry, InputMoments, Spectrum
from ganatomy.dissect.diversity import audit
from ganatomy.dissect.interventions import gradient_search
from ganatomy.dissect.runtime import distributed
from ganatomy.dissect.runtime.resources import at_work
from ganatomy.hooks.errors import UsageError

from ..conftest import Planted, Soft
from ..support.boards import board, photographs, strided

pytestmark = pytest.mark.slow

Found = dict[str, Any]
SAMPLES, BATCH = 37, 9  # five batches, the last of one sample: three for one process and two for the other
WRITING = os.O_WRONLY | os.O_RDWR
RESULTS = ("run/interventions", "run/artifacts", "run/repairs", "checkup", "diversity")


def less_green(drawn: Tensor) -> Tensor:
    return -drawn[:, 1].mean((1, 2))


def work(folder: Path) -> Found:
    """Everything once, into a folder that holds photographs of two kinds; what was found, by name."""
    module = Planted().requires_grad_(False)
    source = NormalLatents((6,))
    planted = Generator(module=module, name="planted", source=source, layers=("paint",), output_range=(0, 1))
    opened: dict[str, Any] = {"generator": planted, "segmenter": Soft(), "batch_size": BATCH, "quiet": True}
    usual = opened | {"samples": SAMPLES, "random_sets": 2}
    basic: dict[str, Any] = {"segmenter": Soft(), "samples": SAMPLES, "batch_size": BATCH, "quiet": True}
    run = dissect.run(planted, layers=[1], significance="off", out=folder / "run", **basic)
    found: Found = {"run": run.units}
    asked: dict[str, dict[str, Any]] = {
        "curve": {"label": "red", "top": 3, "curve": True, "value": "mean"},
        "resample": {"label": "green", "top": 2, "value": "resample"},
        "optimize": {"label": "green", "top": 2, "optimize": True},
        "by-scan": {"label": "red", "top": 2, "by": "scan"},
    }
    with mock.patch.object(gradient_search, "STEPS", 5):
        for name, options in asked.items():
            done = dissect.ablate(run, name=name, **(usual | options))
            found |= {f"{name} {key}": value for key, value in vars(done).items() if key != "info"}
    places: dict[str, dict[str, Any]] = {
        "grid": {"where": "grid", "samples": 8, "random_sets": 1},  # one batch: nothing for the second process
        "in-class": {"where": "class:red", "level": 0.01},
    }
    for name, options in places.items():
        done = dissect.insert(run, label="red", top=2, name=name, **(usual | options))
        found |= {f"{name} {key}": value for key, value in vars(done).items() if key != "info"}
    found["scan"] = dissect.scan(run, label="green", samples=20, **opened).table
    with_photographs = opened | {"reference": folder.parent / "squares", "realism": less_green}
    with mock.patch.object(detectors, "CANDIDATES", 3):
        for detector in ("local", "greedy", "realism", "frechet"):
            suspects = dissect.artifacts.find(run, detector=detector, **with_photographs)
            found |= {f"{detector} {key}": table for key, table in suspects.tables.items()}
    mended = dissect.repair(run, detector="realism", top=1, random_sets=1, samples=70, **with_photographs)
    found |= {f"repair {key}": getattr(mended, key) for key in ("fidelity", "effects", "units", "pictures")}
    with pytest.raises(UsageError, match="curve: there True") as refused:
        dissect.ablate(run, name="curve", label="red", top=1, **usual)
    return found | _checked(folder) | {"refused": str(refused.value).partition("(")[2]}


def _checked(folder: Path) -> Found:
    """A checkup and its repair, and an audit of diversity."""
    usual: dict[str, Any] = {"reference": folder.parent / "boards", "batch_size": BATCH, "quiet": True}
    checked = dissect.checkup(board(), samples=SAMPLES, critic=strided(), out=folder / "checkup", **usual)
    found = {f"checkup {key}": getattr(checked, key) for key in ("layers", "peaks", "gradient", "arrays")}
    mended = checkerboard.repair(
        checked, method="box", samples=70, random_sets=0, segmenter=Soft(), generator=board(), **usual
    )
    tables = ("fidelity", "effects", "grid", "curve", "pictures")
    found |= {f"board {key}": getattr(mended, key) for key in tables}
    varied = audit(board(), samples=101, segmenter=Soft(), out=folder / "diversity", **usual)
    tables = ("classes", "pairs", "whole", "layers", "pictures")
    return found | {f"diversity {key}": getattr(varied, key) for key in tables}


def _note(event: str, about: tuple[Any, ...], written: list[str]) -> None:
    """Keep the path of each file of a result that is opened for writing."""
    if event == "open" and isinstance(about[0], str) and about[2] & WRITING and _is_result(about[0]):
        written.append(about[0])


def _is_result(path: str) -> bool:
    return any(f"/two/{part}" in path for part in RESULTS)


def check_same(one: object, other: object, name: str) -> None:
    """Whole numbers, text and what is kept by sample alike; sums over samples to nine digits."""
    if isinstance(one, Mapping):
        assert isinstance(other, Mapping), name
        assert list(one) == list(other), name
        for key, value in one.items():
            check_same(value, other[key], f"{name}: {key}")
    elif isinstance(one, pd.DataFrame):
        assert isinstance(other, pd.DataFrame), name
        pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-12, obj=name)
    elif isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray), name
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=name)
        else:
            assert (one == other).all(), name
    elif isinstance(one, Path):  # each count of processes has a folder of its own
        assert isinstance(other, Path), name
        assert one.name == other.name, name
    else:
        assert one == other, name


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    photographs(tmp_path / "boards")
    (tmp_path / "squares").mkdir()
    with torch.inference_mode():
        drawn = Planted()(NormalLatents((6,))(range(9000, 9100)))
    for number, image in enumerate(drawn):
        pixels = (image.clamp(0, 1) * 255).round().byte()
        pixels[1] = 0
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "squares" / f"{number}.png")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    started = subprocess.Popen(
        [*launcher, "-m", f"ganatomy.tests.runtime.{Path(__file__).stem}", str(tmp_path / "two")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        with at_work():
            torch.set_num_threads(1)
            one = work(tmp_path / "one")
        said, complained = started.communicate(timeout=300)
    finally:
        started.kill()
    assert started.returncode == 0, complained
    noted = [pickle.loads((tmp_path / f"two-{k}").read_bytes()) for k in range(2)]
    for number, (found, _) in enumerate(noted):
        assert list(found) == list(one)
        for name, value in one.items():
            check_same(value, found[name], f"{name} of process {number}")
    # one process wrote, and it wrote all
    assert noted[1][1] == []
    wrote = {Path(path).name.split(".")[0] for path in noted[0][1]}
    for place in RESULTS:
        kept = _files(tmp_path / "two" / place)
        assert kept == _files(tmp_path / "one" / place)
        assert {path.name.split(".")[0] for path in kept} <= wrote
    # one process spoke, and each learnt why it cannot go on
    assert json.loads(said)["blame"] == "up"
    assert complained.count("dissect checkup --tiles does not support torchrun") == 1


def test_a_process_that_saw_nothing_takes_over_the_sums_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    seen, nothing = Spectrum(), Spectrum()
    seen.add(drawn)
    monkeypatch.setattr(distributed, "all_gather", lambda mine: [mine, vars(seen)])
    nothing.together()
    assert nothing.count == 3
    for name in ("log", "sides", "squares", "high"):
        assert torch.equal(getattr(nothing, name), getattr(seen, name))

    geometry = Geometry(stride=(2, 2), padding=(1, 1))
    moments, none = (InputMoments((4, 4), geometry) for _ in range(2))
    moments.add(drawn)
    theirs = iter([{phase: len(total) for phase, total in moments.sums.items()}, moments.positions])
    sums = iter(moments.sums.values())
    monkeypatch.setattr(distributed, "all_gather", lambda mine: [mine, next(theirs)])
    monkeypatch.setattr(distributed, "all_sum", lambda total: total.add_(next(sums)))
    none.together()
    assert none.means.keys() == moments.means.keys()
    assert all(torch.equal(none.means[phase], moments.means[phase]) for phase in moments.means)


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    place = Path(sys.argv[1])
    wrote: list[str] = []
    sys.addaudithook(lambda event, about: _note(event, about, wrote))
    with dissect.launched():
        result = work(place)
        place.with_name(f"two-{distributed.rank()}").write_bytes(pickle.dumps((result, wrote)))
        asked = ["checkup", "--model", "ganatomy.tests.support.boards:make", "--device", "cpu", "--json"]
        main([*asked, "--samples", str(SAMPLES), "--out", str(place / "spoken")], standalone_mode=False)
        with contextlib.suppress(SystemExit):
            main([*asked, "--tiles", "2"])
