"""The benchmark's table against scores that are known: a perfect detector, its opposite, and one that is half right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.artifacts import benchmark
from ganatomy.dissect.artifacts.detectors import DETECTORS, Scores
from ganatomy.dissect.artifacts.layer_view import LayerView
from ganatomy.dissect.fidelity.distances import frechet
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.hooks import Edit, edited

pytestmark = pytest.mark.slow

WIDTH, PLANTED = 24, 2  # units; the pool that can be spared is an eighth of them: three


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Generator:
    """An untrained progressive GAN in the place of `progan_scenes`, and few samples."""
    torch.manual_seed(0)
    module = ProGAN(16, (WIDTH, WIDTH, 16)).requires_grad_(False)
    layers = tuple(f"layer{number}" for number in range(1, 7))
    generator = Generator(module=module, name="small", source=NormalLatents((16,)), layers=layers)
    monkeypatch.setattr(benchmark, "load_generator", lambda _: generator)
    for name, samples in (("SEEN", range(60)), ("HELD_OUT", range(60, 180)), ("CLEAN", range(200, 400))):
        monkeypatch.setattr(benchmark, name, samples)
    return generator


def planted_in(view: LayerView) -> np.ndarray:
    """Which units paint: the planted generator says so in a buffer."""
    return np.isin(np.arange(WIDTH), view.subject.generator.module.planted_units.numpy())


def perfect(view: LayerView) -> Scores:
    return Scores(units=planted_in(view) + 0.0, samples=np.zeros(60))


def opposite(view: LayerView) -> Scores:
    return Scores(units=np.arange(WIDTH) / 100 - planted_in(view), samples=np.zeros(60))


def half(view: LayerView) -> Scores:
    """One planted unit comes first, the other one last."""
    first, last = np.flatnonzero(planted_in(view))
    units = np.arange(WIDTH) / 100
    units[[first, last]] = 1, -1
    return Scores(units=units, samples=np.zeros(60))


def test_the_figures_of_detectors_of_known_scores(small: Generator) -> None:
    known = {"flagged": perfect, "perfect": perfect, "opposite": opposite, "half": half}
    ground = benchmark.Ground.open(small, "layer4")
    with mock.patch.dict(DETECTORS, known, clear=True):
        rows = pd.DataFrame(benchmark.measure_planting(ground, "blotches", PLANTED, 3, 2)).set_index("detector")
    named = [
        "flagged, samples",
        "flagged, masks",
        "perfect",
        "opposite",
        "half",
        "the planted units",
        "random",
        "random",
    ]
    assert rows.index.tolist() == named
    # average precision: mean over the planted units of the precision at their rank
    assert rows.ap["perfect"] == 1
    assert rows.ap["opposite"] == pytest.approx((1 / (WIDTH - 1) + 2 / WIDTH) / 2)
    assert rows.ap["half"] == pytest.approx((1 + 2 / WIDTH) / 2)
    assert rows.undone["perfect"] == rows.undone["the planted units"]
    assert (rows.damaged > rows.clean).all()

    # what is undone, from the images
    units = np.random.default_rng(3).choice(ground.pool, PLANTED, replace=False).tolist()
    sick = benchmark.plant(small, "layer4", units, "blotches", 3)

    def distance(generator: Generator, ablated: list[int]) -> float:
        with torch.inference_mode(), edited(generator.module, Edit(layer="layer4", units=tuple(ablated))):
            features = ground.extract(generator(generator.latents(range(60, 180)))).double()
        return frechet(ground.reference.standard.apply(features), ground.reference.features)

    clean, damaged = distance(small, []), distance(sick, [])
    undone = (damaged - distance(sick, units)) / (damaged - clean)
    assert rows.undone["the planted units"] == pytest.approx(undone, rel=1e-3)
    others = [unit for unit in range(WIDTH) if unit not in units][-1]
    undone = (damaged - distance(sick, [min(units), others])) / (damaged - clean)
    assert rows.undone["half"] == pytest.approx(undone, rel=1e-3)


def test_the_table_has_a_row_a_detector(small: Generator, tmp_path: Path) -> None:
    options: list[Any] = ["--out", tmp_path, "--planted", PLANTED, "--kind", "blotches", "--seeds", 1]
    done = CliRunner().invoke(benchmark.main, [*map(str, options), "--random-sets", "2"], catch_exceptions=False)
    lines = [line.split(" | ") for line in done.output.splitlines() if line.startswith("|")]
    assert f"blotches, {PLANTED} of {WIDTH} units of layer4" in lines[0][1]
    names = [line[0].removeprefix("| ") for line in lines[2:]]
    detectors = [name for name in DETECTORS if name != "flagged"]
    assert names == ["flagged, samples", "flagged, masks", *detectors, "the planted units", "random"]
    for line in lines[2:]:
        mean, low, high = map(float, re.findall(r"\d\.\d\d", line[1]))
        assert 0 <= low <= mean <= high <= 1
    kept = pd.read_csv(tmp_path / "benchmark.csv")
    assert len(kept) == len(names) + 1  # two random sets
    random = kept[kept.detector == "random"].undone
    assert lines[-1][2].startswith(f"{random.mean():.0%} ({random.min():.0%} to {random.max():.0%})")
