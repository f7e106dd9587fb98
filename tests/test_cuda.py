"""On a GPU all is as on the CPU, within what its arithmetic allows; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ganatomy import dissect
from ganatomy.dissect.capture.maps import Maps
from ganatomy.dissect.capture.plan import Plan
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.recipes.scene_pool import CHUNK, ScenePool, draw_pool
from ganatomy.dissect.recipes.train_generator import Recipe, Training
from ganatomy.dissect.scoring.counting import tally_layer
from ganatomy.dissect.scoring.label_tests import THOROUGHNESS, examine_layer
from ganatomy.dissect.scoring.levels import level_shares
from ganatomy.dissect.scoring.scores import label_units

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

MODEL = "progan_scenes"


@pytest.fixture(scope="module", autouse=True)
def _float32() -> Iterator[None]:
    """Convolutions in full float32: what TF32 changes is another question."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dissect.Dissection]:
    place = tmp_path_factory.mktemp("devices")
    return {
        device: dissect.run(
            MODEL, layers=4, samples=300, device=device, out=place / device, keep_spool=True, quiet=True
        )
        for device in ("cpu", "cuda")
    }


def test_tables_agree(runs: dict[str, dissect.Dissection]) -> None:
    here, there = runs["cpu"].units, runs["cuda"].units
    assert runs["cuda"].info["device"].startswith("cuda")
    assert (here.label == there.label).mean() > 0.95  # ties of classes may fall either way
    same = here.label == there.label
    assert np.allclose(here.iou[same], there.iou[same], atol=0.01, equal_nan=True)
    assert np.allclose(runs["cpu"].classes.share, runs["cuda"].classes.share, atol=0.002)


def test_a_gpu_counts_as_a_cpu_does(runs: dict[str, dissect.Dissection]) -> None:
    """The same spool, scored on both: pixels on the edge of a step may fall to either side."""
    run = runs["cpu"]
    plan = Plan.of(run.info)
    shares = level_shares(0.01)
    both = []
    for device in ("cpu", "cuda"):
        maps = Maps(spool=run.spool, plan=plan, layer=next(iter(plan.shapes)), device=torch.device(device))
        tally = tally_layer(maps, len(run.classes), shares, lambda _: None)
        labels = label_units(tally.choose, tally.score, "iqr", shares.index(0.01))
        both.append((tally, labels, examine_layer(maps, tally, labels, "iqr", THOROUGHNESS["fast"], 0, lambda _: None)))
    (tally, labels, seen), (tally_too, labels_too, seen_too) = both
    assert np.array_equal(tally.histogram, tally_too.histogram)
    assert np.array_equal(tally.top, tally_too.top)
    assert np.allclose(tally.level, tally_too.level, atol=1e-3 * np.ptp(tally.level))
    assert (labels.label == labels_too.label).mean() > 0.99
    same = labels.label == labels_too.label
    for name in ("low", "high", "position_iou", "rival_low", "rival_high"):
        one, other = getattr(seen, name)[same], getattr(seen_too, name)[same]
        assert np.allclose(one, other, atol=0.01, equal_nan=True), name
    assert np.allclose(seen.p_value[same], seen_too.p_value[same], atol=0.02)
    assert np.allclose(seen.votes[same], seen_too.votes[same], atol=0.1)


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


@pytest.mark.parametrize("evolving", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
def test_recipes_train(tmp_path: Path, graphs: bool, evolving: bool) -> None:
    """Steps before and after a doubling, with and without the penalty, move the weights and keep them finite."""
    draw_pool(tmp_path, CHUNK, side=32, seed=1, processes=1)
    pool = ScenePool(tmp_path, CHUNK, device="cuda")
    pool.grow()
    recipe = Recipe(
        images=10**6,
        minutes=None,
        batch=16,
        rate=2e-3,
        ratio=0.5,
        r1=1.0,
        half_life=100,
        evolve=evolving,
        graphs=graphs,
        seed=1,
    )
    training = Training(ProGAN(8, (16, 16, 16, 8)), (8, 16, 16, 16), recipe, pool)
    for done in (0.1, 0.6, 0.95):
        before = [parameter.detach().clone() for parameter in training.g.parameters()]
        for _ in range(18):
            training.step(done)
        moved = [not torch.equal(a, b) for a, b in zip(before, training.g.parameters(), strict=True)]
        assert sum(moved) > len(moved) / 2
        assert all(bool(parameter.isfinite().all()) for parameter in training.g.parameters())
    assert evolving == bool(training.won.sum())
