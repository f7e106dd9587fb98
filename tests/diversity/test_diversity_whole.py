"""Diversity of whole images: figures against brute force, alarms against sets that are healthy, squeezed, collapsed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from ganatomy.dissect.diversity import whole_images
from ganatomy.dissect.fidelity import distances
from ganatomy.dissect.stats import intervals
from ganatomy.hooks.errors import DissectError

COLUMNS = ["value", "low", "high", "zero", "zero_low", "zero_high", "difference_low", "difference_high"]


def draw(seed: int, count: int = 100, width: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width)))


def few_modes(seed: int, modes: int = 3, count: int = 100) -> torch.Tensor:
    """Few distinct images, each many times with a little noise."""
    return draw(seed, modes)[torch.arange(count) % modes] + 0.01 * draw(seed + 1, count)


def pairs_by_loop(features: torch.Tensor) -> list[tuple[float, int, int]]:
    rows = features.numpy()
    pairs = itertools.combinations(range(len(rows)), 2)
    return sorted((math.sqrt(((rows[i] - rows[j]) ** 2).sum()), i, j) for i, j in pairs)


def alarms(table: pd.DataFrame) -> set[str]:
    return set(table.metric[table.alarm])


def test_alike_images_count_as_one_and_orthogonal_ones_as_many() -> None:
    assert whole_images.vendi(draw(0, 1).expand(30, 8)) == pytest.approx(1)
    assert whole_images.vendi(3 * torch.eye(7).double()) == pytest.approx(7)
    assert whole_images.vendi(torch.eye(4).double().repeat(10, 1)) == pytest.approx(4)
    assert whole_images.vendi(torch.zeros(5, 3).double()) == pytest.approx(1)  # finite without any direction


@pytest.mark.parametrize("shape", [(30, 5), (5, 30), (12, 12)])
def test_vendi_by_its_formula(shape: tuple[int, int]) -> None:
    features = draw(0, *shape)
    rows = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    kernel = np.array([[one @ other for other in rows] for one in rows]) / len(rows)
    values = np.linalg.svd(kernel, compute_uv=False)  # of a symmetric positive matrix, its eigenvalues
    values = values[values > 1e-12]
    assert whole_images.vendi(features) == pytest.approx(math.exp(-(values * np.log(values)).sum()))
    padded = torch.cat([features, torch.zeros(shape[0], 100).double()], 1)  # wider than high: the other matrix
    assert whole_images.vendi(padded) == pytest.approx(whole_images.vendi(features))


def test_density_by_loops() -> None:
    features, reference = draw(0, 25, 3), draw(1, 40, 3)
    hits = 0
    for i in range(40):
        others = sorted(float((reference[i] - reference[k]).norm()) for k in range(40) if k != i)
        hits += sum(float((feature - reference[i]).norm()) < others[4] for feature in features)
    assert whole_images.density(features, reference) == pytest.approx(hits / (5 * 25))
    assert whole_images.density(0.1 * features, reference) > 1  # a crowd in the middle


def test_spread_by_hand() -> None:
    features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]).double()  # variances 4 and 0
    reference = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]).double()  # 4 and 4
    assert whole_images.spread(features, reference) == pytest.approx(0.5)
    assert whole_images.spread(0.5 * draw(0), draw(0)) == pytest.approx(0.25)


@pytest.mark.parametrize("count", [12, 37, 40, 60])
def test_twins_begin_where_one_pair_is_expected(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = draw(0, 40, 3)
    every = np.array([apart for apart, _, _ in pairs_by_loop(real)])
    level = 1 / (count * (count - 1) / 2)
    expected = np.quantile(every, level, method="weibull")  # k-th of P at k / (P + 1)
    assert whole_images.twin_distance(real, count) == pytest.approx(expected)
    monkeypatch.setattr(whole_images, "BLOCK", 7)
    assert whole_images.twin_distance(real, count) == pytest.approx(expected)


def test_one_coincidental_pair_of_fresh_images_on_average() -> None:
    found = [
        whole_images.twins(draw(2 * seed, 60, 3), whole_images.twin_distance(draw(2 * seed + 1, 60, 3), 60)).pairs
        for seed in range(400)
    ]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / 20)
    assert np.mean(found) < 1.5


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_twins_by_brute_force_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = draw(0, 40, 3)
    made[[30, 35, 20, 11]] = made[3].clone()  # five of the same, whose distances are 0
    every = pairs_by_loop(made)
    near = [(i, j) for apart, i, j in every if apart <= 0.6]
    assert 12 < len(near) < 100
    monkeypatch.setattr(whole_images, "BLOCK", block)
    found = whole_images.twins(made, 0.6)
    assert found.pairs == len(near)
    assert found.share == len(set(sum(near, ()))) / 40
    assert found.nearest.tolist() == [[i, j] for _, i, j in every[:12]]
    degrees = [sum(k in pair for pair in near) for k in range(40)]
    assert found.prototype == degrees.index(max(degrees))


def test_duplicates_are_no_rounding_apart() -> None:
    made = draw(0, 60, 300) + 5
    made[30:] = made[:30].clone()
    assert whole_images.twins(made, 0.0).pairs == 30


def test_without_twins_the_nearest_pairs_are_shown_still() -> None:
    made = torch.tensor([[0.0], [10.0], [11.0]]).double()
    found = whole_images.twins(made, 0.5)
    assert (found.pairs, found.share) == (0, 0)
    assert found.nearest.tolist() == [[1, 2], [0, 1], [0, 2]]
    assert whole_images.twins(made, 1.0).pairs == 1  # at most that near


def test_support_by_hand() -> None:
    # Garwood's 95 % limits of a count of 10, as tables have them: 4.795 and 18.39; of 0: 0 and 3.689
    assert whole_images.support(10, 0, 100) == pytest.approx((495, 4950 / 18.39, 4950 / 4.795), rel=1e-3)
    assert whole_images.support(10, 1, 100) == pytest.approx((550, 4950 / 17.39, 4950 / 3.795), rel=1e-3)
    assert whole_images.support(0, 0, 100) == pytest.approx((math.inf, 4950 / 3.689, math.inf), rel=1e-3)
    assert whole_images.support(1, 1, 100)[0] == math.inf
    assert whole_images.support(0, 5, 100) == (math.inf, math.inf, math.inf)


def test_the_support_lies_in_its_interval_as_often_as_told() -> None:
    size, count, inside, estimates = 1000, 200, 0, []
    for seed in range(200):
        drawn = np.bincount(np.random.default_rng(seed).integers(0, size, count))
        estimate, low, high = whole_images.support(int((drawn * (drawn - 1) // 2).sum()), 0, count)
        inside += low <= size <= high
        estimates.append(estimate)
    assert 184 <= inside < 200  # 190 less two standard errors; an exact interval of a count covers a little more
    assert np.median(estimates) == pytest.approx(size, rel=0.1)


def test_figures_are_of_halves_of_equal_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "ROUNDS", 3)
    made, real = draw(0, 70), draw(1, 121)
    judge, odd = real[::2], real[1::2]
    table = whole_images.compare(made, real).set_index("metric")
    assert tuple(table.index) == whole_images.METRICS == tuple(whole_images.CAVEAT)
    for column, side in (("value", made[:60]), ("zero", odd)):
        expected = distances.distances(side, judge) | {
            "density": whole_images.density(side, judge),
            "vendi": whole_images.vendi(side) / whole_images.vendi(judge[:60]),
            "spread": whole_images.spread(side, judge),
            "twins": whole_images.twins(side, whole_images.twin_distance(judge, 60)).share,
        }
        assert dict(table[column]) == pytest.approx(expected)
    near = 0.5 * made[:30]
    short = whole_images.compare(near, real).set_index("metric")
    assert short.zero["spread"] == pytest.approx(whole_images.spread(odd[:30], judge))
    assert short.value["twins"] == whole_images.twins(near, whole_images.twin_distance(judge, 30)).share
    assert short.value["twins"] > whole_images.twins(near, whole_images.twin_distance(judge, 61)).share
    same = whole_images.compare(odd, real)
    assert not same.alarm.any()
    assert (same[["difference_low", "difference_high"]] == 0).to_numpy().all()  # on the same halves


def test_intervals_lie_around_their_values_and_alarms_follow_the_difference() -> None:
    table = whole_images.compare(0.5 * draw(0), draw(1, 200)).set_index("metric")
    difference = table.value - table.zero
    share = table.index.isin(["precision", "recall", "coverage", "twins"])
    low, high = 2 * table.value - table.high, 2 * table.value - table.low  # mirrored
    cut_low, cut_high = share & (table.low == 0), share & (table.high == 1)
    assert np.where(cut_high, table.low, low) == pytest.approx(np.where(cut_low, low, table.low))
    assert np.where(cut_low, table.high, high) == pytest.approx(np.where(cut_high, high, table.high))
    assert (table.low[share] >= 0).all()
    assert (table.high[share] <= 1).all()
    assert ((table.difference_low + table.difference_high) / 2).to_numpy() == pytest.approx(difference.to_numpy())
    worse_above = table.index.isin(["frechet", "kernel", "twins"])
    sure = np.where(worse_above, table.difference_low > 0, table.difference_high < 0)
    assert (sure == (table.p_value < 0.025)).all()
    ordered = table.sort_values("p_value")
    last = max((k + 1 for k, p in enumerate(ordered.p_value) if p <= 0.05 * (k + 1) / 9), default=0)
    assert list(ordered.alarm) == [True] * last + [False] * (9 - last)
    assert last >= 3
    assert not table.alarm["density"]  # a crowd in the middle raises it


@pytest.mark.slow
def test_healthy_images_raise_few_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "ROUNDS", 6)
    raised = np.array([whole_images.compare(draw(k), draw(1000 + k, 200), seed=k).alarm for k in range(40)])  # (40, 9)
    assert raised.any(1).sum() <= 5  # of 40 at 5 %: six or more are a chance of 1.4 %


@pytest.mark.parametrize("seed", range(3))
def test_squeezed_and_collapsed_images_raise_alarms(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "ROUNDS", 10)
    real = draw(100 + seed, 400)
    squeezed = alarms(whole_images.compare(0.5 * draw(seed, 200), real))
    assert {"frechet", "kernel", "recall", "spread"} <= squeezed
    assert "vendi" not in squeezed  # cosines do not see it, as its caveat says
    assert {"coverage", "spread", "twins"} <= alarms(whole_images.compare(0.3 * draw(seed, 200), real))
    collapsed = alarms(whole_images.compare(few_modes(seed), real))
    assert {"frechet", "kernel", "recall", "coverage", "vendi", "spread", "twins"} <= collapsed
    one = whole_images.compare(draw(seed, 1).repeat(100, 1), real).set_index("metric")
    assert {"coverage", "vendi", "spread", "twins"} <= set(one.index[one.alarm])
    assert one.value["twins"] == 1
    assert np.isfinite(one[COLUMNS].to_numpy()).all()


def test_seeds_repeat_and_choose_the_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "ROUNDS", 10)
    made, real, done = draw(0), draw(1, 200), []
    first = whole_images.compare(made, real, seed=3, advance=done.append)
    pd.testing.assert_frame_equal(first, whole_images.compare(made, real, seed=3), check_exact=True)
    assert sum(done) == 2 * (10 + 1)
    other = whole_images.compare(made, real, seed=4)
    assert (first[["value", "zero"]] == other[["value", "zero"]]).to_numpy().all()
    assert (first.difference_low != other.difference_low).all()


@pytest.mark.parametrize("side", ["generated", "real"])
def test_features_that_are_not_finite_are_refused(side: str) -> None:
    given = {"generated": draw(0), "real": draw(1, 200)}
    given[side][-1, 2] = float("inf")
    with pytest.raises(DissectError, match=f"{side} images .*finite"):
        whole_images.compare(given["generated"], given["real"])


@pytest.mark.parametrize(("made", "real"), [(19, 40), (20, 39)])
def test_too_few_images_are_refused(made: int, real: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "ROUNDS", 3)
    with pytest.raises(DissectError, match=rf"{made} generated and {real} real .*20 .*40"):
        whole_images.compare(draw(0, made), draw(1, real))
    assert np.isfinite(whole_images.compare(draw(0, 20), draw(1, 40))[COLUMNS].to_numpy()).all()
