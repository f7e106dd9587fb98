"""Permutation, Poisson bootstrap and scores against enumeration, brute force and scikit-learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, entropy, poisson
from sklearn.metrics import average_precision_score, mutual_info_score
from torch import Tensor

from ganatomy.dissect.scoring import scores as sc
from ganatomy.dissect.stats.significance import ROUNDS, interval, permutation_p, permutation_spread, poisson_bootstrap

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]

B = 9999


def overlaps(seed: int, units: int, *sizes: int) -> dict[int, Tensor]:
    """Small whole numbers, so that many pairings tie; later units have more on the diagonal."""
    dice = np.random.default_rng(seed)
    found = {}
    for size in sizes:
        more = np.linspace(0, 3, units)[:, None, None] * np.eye(size)
        found[size] = torch.from_numpy(dice.integers(0, 6, (units, size, size)) + np.rint(more))
    return found


def enumerated(pairs: Mapping[int, Tensor]) -> Floats:
    """(pairings, U) the overlap under every pairing; blocks of one size are paired alike, sizes apart."""
    each = []
    for size, matrix in pairs.items():
        orders = itertools.permutations(range(size))
        each.append([sum(matrix[:, i, j].numpy() for i, j in enumerate(order)) for order in orders])
    return np.array([sum(parts) for parts in itertools.product(*each)])


SIZES = pytest.mark.parametrize("sizes", [(5,), (4, 3), (2, 1), (5, 1)])


@SIZES
def test_p_values_agree_with_all_pairings(sizes: tuple[int, ...]) -> None:
    pairs = overlaps(1, 40, *sizes)
    every = enumerated(pairs)
    assert len(every) == math.prod(map(math.factorial, sizes))
    truth = (every >= every[0]).mean(0)  # the first pairing is the one observed
    found = permutation_p(pairs, B, seed=0)
    assert (np.abs(found - truth) <= 4 * np.sqrt(truth * (1 - truth) / B) + 1 / B).all()
    hits = found * (B + 1) - 1
    np.testing.assert_allclose(hits, hits.round(), atol=1e-6)
    if sizes == (5,):
        assert ((every == every[0]).mean(0) > 0.1).any()  # ties count as at least as large
        assert (truth < 0.05).any()
        assert (truth > 0.5).any()


def test_blocks_of_different_size_are_paired_apart() -> None:
    three = torch.eye(3, dtype=torch.float64)[None]
    p = permutation_p({3: three, 2: torch.eye(2, dtype=torch.float64)[None]}, B, seed=0)
    assert p[0] == pytest.approx(1 / 12, abs=4 * math.sqrt(11) / 12 / math.sqrt(B) + 1 / B)
    assert permutation_p({3: three}, B, seed=0)[0] == pytest.approx(1 / 6, abs=4 * math.sqrt(5) / 6 / math.sqrt(B))


@SIZES
def test_the_spread_is_that_of_all_pairings(sizes: tuple[int, ...]) -> None:
    pairs = overlaps(2, 40, *sizes)
    np.testing.assert_allclose(permutation_spread(pairs), enumerated(pairs).std(0), rtol=1e-9, atol=1e-12)


def test_one_image_says_nothing() -> None:
    pairs = {1: torch.tensor([[[7.0]], [[0.0]]])}
    assert permutation_p(pairs, 99, seed=0).tolist() == [1, 1]
    assert permutation_spread(pairs).tolist() == [0, 0]


def test_the_least_p_value_is_one_in_rounds_plus_one() -> None:
    perfect = {12: torch.eye(12)[None].expand(2, 12, 12)}
    for rounds in (1, 99, 1001, 2500):  # whole blocks and rests
        assert permutation_p(perfect, rounds, seed=0).tolist() == [1 / (rounds + 1)] * 2


def test_p_values_are_uniform_where_images_are_exchangeable() -> None:
    matrix = torch.from_numpy(np.random.default_rng(4).normal(size=(600, 20, 20)))
    p = np.sort(permutation_p({20: matrix}, 1999, seed=0))
    assert np.abs(p - (np.arange(600) + 0.5) / 600).max() < 1.63 / math.sqrt(600)  # Kolmogorov's 1 % point


def test_frozen_p_values() -> None:
    """Whoever changes the random numbers changes results that people have published."""
    unit, row, column = np.ogrid[:6, :7, :7]
    matrix = torch.from_numpy((3 * row + 5 * column + 11 * unit * row * column) % 7 + (unit + 1) // 3 * (row == column))
    pairs = {7: matrix, 4: matrix[:, :4, :4]}
    for seed, hits in ((0, [9011, 6222, 1583, 919, 7483, 987]), (2**40, [9006, 6171, 1659, 905, 7557, 959])):
        assert np.rint(permutation_p(pairs, B, seed) * (B + 1)).tolist() == hits


def test_frozen_bootstrap_weights() -> None:
    assert poisson_bootstrap(8, 0, 0)[[0, 1, -1]].tolist() == [
        [0, 2, 0, 0, 0, 1, 0, 3],
        [0, 0, 0, 0, 1, 3, 1, 2],
        [1, 3, 0, 0, 1, 1, 0, 2],
    ]
    assert poisson_bootstrap(8, 7, 3)[[0, 1, -1]].tolist() == [
        [1, 1, 0, 1, 1, 1, 0, 0],
        [0, 0, 2, 1, 0, 0, 0, 3],
        [1, 2, 1, 0, 3, 1, 1, 2],
    ]


def test_bootstrap_weights_are_poisson_numbers_of_mean_1() -> None:
    weights = np.concatenate([poisson_bootstrap(64, 3, block) for block in range(10)], 1)
    assert weights.shape == (ROUNDS, 640)
    assert weights.mean() == pytest.approx(1, abs=4 / math.sqrt(weights.size))
    assert weights.var() == pytest.approx(1, abs=4 * math.sqrt(3 / weights.size))  # E (X − 1)⁴ = 4
    numbers = np.bincount(weights.astype(int).ravel(), minlength=7)
    numbers = np.append(numbers[:6], numbers[6:].sum())
    expected = np.append(poisson.pmf(range(6), 1), poisson.sf(5, 1)) * weights.size
    assert chisquare(numbers, expected).pvalue > 0.001
    for axis in (0, 1):  # no replicate and no image is favoured
        means = weights.mean(axis)
        assert means.std() == pytest.approx(1 / math.sqrt(weights.shape[axis]), rel=0.15)


def test_bootstrap_weights_are_a_function_of_seed_and_block() -> None:
    one = poisson_bootstrap(64, 5, 2)
    assert np.array_equal(one, poisson_bootstrap(64, 5, 2))
    for seed, block in ((5, 3), (6, 2), (2, 5)):
        other = poisson_bootstrap(64, seed, block)
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(one.size)


def test_95_of_100_intervals_of_an_iou_hold_the_truth() -> None:
    """A region and a class each take part of an image of 400 pixels, more together in some images than in others."""
    dice, held = np.random.default_rng(6), []
    for repetition in range(200):
        size = int(dice.integers(100, 151))
        here = dice.random(size) < 0.7
        c = np.where(here, dice.gamma(4, 20, size), 0)  # E = 0.7 · 80 = 56
        a = c * dice.beta(2, 2, size)  # E = 28
        m = a + dice.gamma(2, 10, size)  # E = 28 + 20 = 48
        truth = 28 / (48 + 56 - 28)
        sizes = [min(64, size - start) for start in range(0, size, 64)]
        weights = np.concatenate([poisson_bootstrap(n, repetition, 2 * k + 1) for k, n in enumerate(sizes)], 1)
        low, high = interval(sc.iou_of(weights @ a, weights @ m, weights @ c))
        held.append(low <= truth <= high)
    assert 0.90 <= np.mean(held) <= 0.98


def count(regions: Masks, places: Masks) -> sc.Counts:
    """regions (U, K, n), places (C, n) -> counts, written out."""
    return sc.Counts(
        intersection=np.array([[[(m & c).sum() for m in unit] for c in places] for unit in regions]),
        unit_area=regions.sum(2),
        class_area=places.sum(1),
        pixels=places.shape[1],
    )


def overlap(m: Masks, c: Masks) -> float:
    """IoU of two masks."""
    return (m & c).sum() / (m | c).sum() if (m | c).any() else math.nan


@dataclass(frozen=True, kw_only=True)
class Half:
    """Half of a made-up world: 14 units cut at 9 levels, 5 classes, 300 pixels."""

    regions: Masks  # (U, K, n), the levels ascending
    places: Masks  # (C, n)

    @property
    def counts(self) -> sc.Counts:
        """Counted one by one."""
        return sc.Counts(
            intersection=np.array([[[(m & c).sum() for m in unit] for c in self.places] for unit in self.regions]),
            unit_area=self.regions.sum(2),
            class_area=self.places.sum(1),
            pixels=self.places.shape[1],
        )

    def iou(self, unit: int, c: int, k: int) -> float:
        return overlap(self.regions[unit, k], self.places[c])

    def iqr(self, unit: int, c: int, k: int) -> float:
        """I(M; C) / H(M, C), nothing where they avoid each other."""
        m, c_ = self.regions[unit, k], self.places[c]
        if (m & c_).mean() <= m.mean() * c_.mean() + 1e-12:
            return 0.0
        return mutual_info_score(m, c_) / entropy(np.bincount(2 * m + c_))

    def chance(self, unit: int, c: int, k: int) -> float:
        p, q = self.places[c].mean(), self.regions[unit, k].mean()
        return p * q / (p + q - p * q) if p + q else math.nan


def make(seed: int) -> tuple[Half, Half]:
    """Two halves of a world: units follow classes 0 to 2 more or less, the last unit never fires, class 4 is absent."""
    dice = np.random.default_rng(seed)
    strength = dice.uniform(0, 2, (14, 1))
    halves = []
    for _ in range(2):
        places = dice.random((5, 300)) < [[0.5], [0.3], [0.2], [0.05], [0]]
        activation = np.round(4 * (dice.normal(size=(14, 300)) + strength * places[np.arange(14) % 3])) / 4  # with ties
        activation[13] = -9
        levels = [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4.5]
        halves.append(Half(regions=np.stack([activation > level for level in levels], 1), places=places))
    return halves[0], halves[1]


SEEDS = pytest.mark.parametrize("seed", range(3))


@SEEDS
def test_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    half = make(seed)[0]
    steps = half.regions.sum(1)  # how many levels a pixel exceeds
    for c in range(4):
        found = sc.average_precision(half.counts, np.full(14, c))
        truth = [average_precision_score(half.places[c], steps[unit]) for unit in range(14)]
        np.testing.assert_allclose(found, truth, rtol=1e-12)
        assert found[13] == pytest.approx(half.places[c].mean())  # it tells nothing
    assert np.isnan(sc.average_precision(half.counts, np.full(14, 4))).all()


@SEEDS
def test_curves_are_iou_and_chance_at_every_level(seed: int) -> None:
    half = make(seed)[0]
    label = np.arange(14) % 5
    iou, chance = sc.curve(half.counts, label)
    truth = [[(half.iou(u, c, k), half.chance(u, c, k)) for k in range(9)] for u, c in enumerate(label)]
    np.testing.assert_allclose(np.stack([iou, chance], -1), truth, rtol=1e-12)


@SEEDS
def test_excess_iou_is_chosen_on_one_half_and_measured_on_the_other(seed: int) -> None:
    choose, score = make(seed)
    label = np.arange(14) % 4
    truth = []
    for unit, c in enumerate(label):
        excess = [choose.iou(unit, c, k) - choose.chance(unit, c, k) for k in range(9)]
        best = max(range(9), key=lambda k: excess[k])  # the first of equals
        truth.append(score.iou(unit, c, best) - score.chance(unit, c, best))
    found = sc.excess_iou(choose.counts, score.counts, label)
    np.testing.assert_allclose(found, truth, atol=1e-12)
    assert not np.allclose(found, sc.excess_iou(score.counts, choose.counts, label))


def test_attainable_iou_is_reached_by_nested_masks_and_never_exceeded() -> None:
    dice = np.random.default_rng(0)
    n, pixels = 100, np.arange(100)
    for _ in range(300):
        c, m = (int(size) for size in dice.integers(1, n + 1, 2))
        bound = sc.attainable_iou(np.array(c / n), np.array(m / n))
        assert overlap(pixels < c, pixels < m) == pytest.approx(float(bound))
        assert overlap(dice.permutation(n) < c, pixels < m) <= bound + 1e-12
    assert sc.attainable_iou(np.array(0.0), np.array(0.3)) == 0
    assert np.isnan(sc.attainable_iou(np.array(0.0), np.array(0.0)))


@SEEDS
@pytest.mark.parametrize("rule", ["iqr", "quantile"])
def test_labels_and_runners_up_are_those_of_a_search(seed: int, rule: str) -> None:
    choose, score = make(seed)
    found = sc.label_units(choose.counts, score.counts, rule, 5)
    for unit in range(13):
        if rule == "iqr":
            level = [max(range(9), key=lambda k: choose.iqr(unit, c, k)) for c in range(5)]
            merit = [choose.iqr(unit, c, level[c]) for c in range(5)]
        else:
            level = [5] * 5
            merit = [choose.iou(unit, c, 5) for c in range(5)]
        order = sorted(range(5), key=lambda c: -merit[c])
        assert found.class_level[unit].tolist() == level
        assert found.ranking[unit].tolist() == order
        assert (found.label[unit], found.level[unit]) == (order[0], level[order[0]])
        assert found.attracted[unit] == (merit[order[0]] > 0)
        second = order[1]
        if merit[second] > 0:
            assert found.runner_up[unit] == second
            assert found.runner_up_iou[unit] == pytest.approx(score.iou(unit, second, level[second]))
        else:
            assert found.runner_up[unit] == -1
            assert np.isnan(found.runner_up_iou[unit])
        assert found.iou[unit] == pytest.approx(score.iou(unit, order[0], level[order[0]]))
    assert not found.attracted[13]
    assert found.runner_up[13] == -1
    assert np.isnan(found.runner_up_iou[13])


def test_where_there_is_one_class_none_comes_second() -> None:
    choose, score = (half.counts.only(0) for half in make(0))
    found = sc.label_units(choose, score, "iqr", 0)
    assert found.attracted[:13].sum() > 6
    assert (found.runner_up == -1).all()
    assert np.isnan(found.runner_up_iou).all()
