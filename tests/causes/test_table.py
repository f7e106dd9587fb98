"""The causal table: samples drawn by area, means and intervals, the columns of units.csv."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator
from ganatomy.dissect.causes.table import (
    FAST,
    FEWEST,
    FULL,
    SAMPLES,
    Causes,
    chosen_draws,
    draw_by_area,
    mean_and_interval,
    with_effects,
)

from ..conftest import GREEN, RED, UNITS, ColourSegmenter, Soft


@pytest.mark.parametrize("count", [1, 3, 50])
def test_samples_are_drawn_in_proportion_to_their_area(count: int) -> None:
    area = np.random.default_rng(0).random(40) ** 4
    area[[0, 7, 39]] = 0
    draw = draw_by_area(area, count)
    often = np.bincount(draw.samples, minlength=40)
    assert (np.abs(often - count * area / area.sum()) < 1).all()  # systematic: never off by a whole draw
    assert not often[area == 0].any()
    effect = 3 * area  # what is proportional to the area is estimated without error
    assert (draw.weight * effect[draw.samples]).mean() == pytest.approx(effect.mean())


def test_the_weighted_mean_is_unbiased() -> None:
    dice = np.random.default_rng(1)
    area = 0.2 + dice.random(30)
    effect = area**2 + 0.1 * dice.random(30)
    estimates = []
    for order in (dice.permutation(30) for _ in range(2000)):  # in a random order, a systematic draw is a random one
        draw = draw_by_area(area[order], 10)
        estimates.append((draw.weight * effect[order][draw.samples]).mean())
    assert np.mean(estimates) == pytest.approx(effect.mean(), rel=0.02)


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(2).normal(size=(6, 3))
    mean, low, high = mean_and_interval(values)
    expected = stats.t.interval(0.95, 5, loc=values.mean(0), scale=stats.sem(values))
    np.testing.assert_allclose((mean, low, high), (values.mean(0), *expected))
    assert np.isnan(mean_and_interval(values[:1])[1]).all()


def test_fast_leaves_rare_classes_out_and_full_takes_all() -> None:
    area = np.zeros((1000, 4))
    area[:, 0], area[::2, 1], area[5, 2] = 0.5, 0.4, 0.9  # the third: 0.09 % of the pixels
    fast, full = chosen_draws(area, FAST), chosen_draws(area, FULL)
    assert list(fast) == [0, 1]
    assert {len(draw.samples) for draw in fast.values()} == {60}
    assert list(full) == [0, 1, 2]
    assert {len(draw.samples) for draw in full.values()} == {SAMPLES}
    assert set(full[2].samples) == {5}
    assert {len(draw.samples) for draw in chosen_draws(area[:20], FAST).values()} == {FEWEST}
    assert chosen_draws(np.zeros((8, 2)), FULL) == {}


def test_columns_of_units() -> None:
    units = pd.DataFrame({"layer": ["b", "b", "a", "b"], "unit": [0, 2, 0, 1], "label": ["tree", "sky", "tree", ""]})
    effect = np.array([[-1.0, 2.0, -3.0], [0.5, -4.0, -2.5]])  # of sky and tree, by unit
    causes = {"b": Causes(classes=np.array([2, 0]), effect=effect, low=effect - 1, high=effect + 1)}
    table = with_effects(units, ["tree", "lamp", "sky"], causes)
    np.testing.assert_array_equal(table.effect, [0.5, -3.0, np.nan, np.nan])
    np.testing.assert_array_equal(table.effect_low, [-0.5, -4.0, np.nan, np.nan])
    assert table.strongest_class.tolist() == ["sky", "sky", "", "tree"]
    np.testing.assert_array_equal(table.strongest_effect, [-1.0, -3.0, np.nan, -4.0])


Run = Callable[..., Dissection]


@pytest.fixture
def dissected(planted: Generator, tmp_path: Path) -> Run:
    def call(**options: Any) -> Dissection:
        usual: dict[str, Any] = {"segmenter": Soft(), "samples": 60, "out": tmp_path / "run", "quiet": True}
        return dissect.run(planted, layers=[1], **(usual | options))

    return call


def test_a_run_says_which_unit_draws_a_class(dissected: Run) -> None:
    run = dissected()
    assert run.info["causes"] == {"effort": "fast", "draws": 4, "classes": 2}
    assert run.causes is not None
    known = run.causes["paint"]
    assert known.classes.tolist() == [0, 1]
    assert known.effect.shape == (2, UNITS)
    assert known.effect.argmin(1).tolist() == [RED, GREEN]
    assert known.effect[0, RED] == pytest.approx(-100 * 4 / 64, rel=1e-3)  # all red, and it is linear
    red = run.units.set_index("unit").loc[RED]
    assert (red.effect, red.strongest_class) == (pytest.approx(known.effect[0, RED]), "red")
    assert red.effect_low <= red.effect <= red.effect_high


def test_a_finished_run_gets_it_and_a_longer_one_anew(dissected: Run) -> None:
    without = dissected(causes="off")
    assert without.causes is None
    assert without.units.effect.isna().all()
    finished = without.info["finished"]
    table = dissected()
    assert table.causes is not None
    assert table.info["finished"] == finished
    pd.testing.assert_frame_equal(table.units.iloc[:, :-5], without.units.iloc[:, :-5])
    assert dissected(causes="off").causes is not None  # nothing that is there is taken away
    full = dissected(causes="full")
    assert full.info["causes"]["draws"] == SAMPLES
    assert dissected().info["causes"]["effort"] == "full"
    longer, fresh = dissected(samples=80), dissected(samples=80, out=table.folder.with_name("fresh"))
    for name in ("units.csv", "causes.npz"):
        assert (longer.folder / name).read_bytes() == (fresh.folder / name).read_bytes()


def test_a_merged_run_gets_it_by_the_command_of_the_whole_run(dissected: Run, tmp_path: Path) -> None:
    parts = [dissected(shard=f"{k}/2", out=tmp_path / f"part{k}", samples=300).folder for k in (1, 2)]
    merged = dissect.merge(parts, out=tmp_path / "merged", quiet=True)
    assert merged.causes is None
    assert dissected(samples=300, out=merged.folder).causes is not None
    whole = dissected(samples=300)
    for name in ("units.csv", "causes.npz"):
        assert (merged.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_where_there_is_no_gradient_the_run_says_why(dissected: Run) -> None:
    run = dissected(segmenter=ColourSegmenter())
    assert run.causes is None
    assert "colours" in run.info["causes"]["obstacle"]
    assert dissected(segmenter=ColourSegmenter()).info == run.info


def test_a_failing_network_costs_the_table_alone(dissected: Run) -> None:
    class Fails(Soft):
        calls = 0

        def probabilities(self, images: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("out of luck")
            return super().probabilities(images)

    run = dissected(segmenter=Fails())
    assert run.info["status"] == "complete"
    assert "out of luck" in run.info["causes"]["obstacle"]


def test_directions_have_effects_too(dissected: Run) -> None:
    run = dissected(basis="pca", directions=3)
    assert run.causes is not None
    assert run.causes["paint"].effect.shape == (2, 3)
    assert torch.from_numpy(run.causes["paint"].effect).isfinite().all()
