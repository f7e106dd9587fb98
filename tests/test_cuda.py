"""On a GPU all is as on the CPU, within what its arithmetic allows; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ganatomy import dissect

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

MODEL = "progan_scenes"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dissect.Dissection]:
    place = tmp_path_factory.mktemp("devices")
    return {
        device: dissect.run(MODEL, layers=4, samples=300, device=device, out=place / device, quiet=True)
        for device in ("cpu", "cuda")
    }


def test_tables_agree(runs: dict[str, dissect.Dissection]) -> None:
    here, there = runs["cpu"].units, runs["cuda"].units
    assert runs["cuda"].info["device"].startswith("cuda")
    assert (here.label == there.label).mean() > 0.95  # ties of classes may fall either way
    same = here.label == there.label
    assert np.allclose(here.iou[same], there.iou[same], atol=0.01, equal_nan=True)
    assert np.allclose(runs["cpu"].classes.share, runs["cuda"].classes.share, atol=0.002)


def test_interventions_agree(runs: dict[str, dissect.Dissection]) -> None:
    found = {
        device: dissect.ablate(run, units=[1, 2, 3], label="tree", samples=64, device=device, quiet=True).table
        for device, run in runs.items()
    }
    assert np.allclose(found["cpu"].change_pp, found["cuda"].change_pp, atol=0.2)


def test_lower_precision_stays_within_its_limits(tmp_path: Path) -> None:
    run = dissect.run(
        MODEL, layers=4, samples=64, device="cuda", precision="bfloat16", out=tmp_path / "run", quiet=True
    )
    assert run.info["deviation"]["images"] < 0.01


def test_checkups_agree(tmp_path: Path) -> None:
    found = [
        dissect.checkerboard.checkup("dcgan_scenes", samples=64, device=device, out=tmp_path / device, quiet=True)
        for device in ("cpu", "cuda")
    ]
    assert found[0].layers.verdict.tolist() == found[1].layers.verdict.tolist()
    assert np.allclose(found[0].layers.measured, found[1].layers.measured, rtol=0.02)
