"""Intervals and tests against normal theory, enumeration and the procedures written out."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest

from ganatomy.dissect.stats.significance import (
    FLIPS,
    ROUNDS,
    Floats,
    benjamini_hochberg,
    bootstrap,
    interval,
    ratio,
    sign_flip_p,
)


def test_each_bootstrap_sample_draws_as_many_images_as_there_are() -> None:
    for count in (1, 2, 7, 64):
        weights = bootstrap(count)
        assert weights.shape == (ROUNDS, count)
        assert (weights.sum(1) == count).all()
        assert (weights >= 0).all()
        assert (weights == weights.round()).all()


def test_images_are_drawn_with_replacement_and_equally_often() -> None:
    weights = bootstrap(50, seed=3)
    error = math.sqrt((1 - 1 / 50) / ROUNDS)  # of a column's mean: each weight is Binomial(50, 1/50)
    assert np.abs(weights.mean(0) - 1).max() < 4.5 * error
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.03)
    never = (1 - 1 / 50) ** 50
    assert (weights == 0).mean() == pytest.approx(never, abs=0.01)


def test_the_seed_decides() -> None:
    assert np.array_equal(bootstrap(9, seed=1), bootstrap(9, seed=1))
    assert not np.array_equal(bootstrap(9, seed=1), bootstrap(9, seed=2))
    d = np.random.default_rng(0).normal(size=(12, 40)) + 0.3
    assert np.array_equal(sign_flip_p(d, seed=1), sign_flip_p(d, seed=1))
    assert not np.array_equal(sign_flip_p(d, seed=1), sign_flip_p(d, seed=2))


def test_an_interval_holds_the_middle_95_percent() -> None:
    values = np.random.default_rng(0).permuted(np.stack([np.arange(2001.0), -np.arange(2001.0)], 1), axis=0)
    low, high = interval(values)
    assert low == pytest.approx([50, -1950])
    assert high == pytest.approx([1950, -50])


def test_values_that_are_no_numbers_are_left_out_of_an_interval() -> None:
    values = np.full((2000, 3), np.nan)
    values[::2, 0] = np.arange(1000) / 999 * 40
    values[:, 1] = 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a class that is nowhere is no reason to warn the user
        low, high = interval(values)
    assert low[:2] == pytest.approx([1, 7])
    assert high[:2] == pytest.approx([39, 7])
    assert np.isnan([low[2], high[2]]).all()


def test_the_interval_of_a_mean_is_that_of_normal_theory_for_many_images() -> None:
    data = np.random.default_rng(5).gamma(2.0, size=(1500, 4))
    low, high = interval(bootstrap(1500) @ data / 1500)
    error = data.std(0, ddof=1) / math.sqrt(1500)
    assert np.abs(low - (data.mean(0) - 1.96 * error)).max() < 0.25 * error.min()
    assert np.abs(high - (data.mean(0) + 1.96 * error)).max() < 0.25 * error.min()


def test_95_of_100_intervals_of_a_mean_hold_the_truth() -> None:
    dice = np.random.default_rng(1)
    held = []
    for experiment in range(200):
        data = dice.exponential(size=60)  # as skewed as changes of area are; its mean is 1
        low, high = interval(bootstrap(60, experiment) @ data / 60)
        held.append(low <= 1 <= high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_95_of_100_intervals_of_a_ratio_hold_the_truth() -> None:
    dice = np.random.default_rng(2)
    area = dice.exponential(size=(80, 200))
    change = area * dice.uniform(-0.8, 0, (80, 200))  # on average 40 % goes, most in images that have most
    weights = bootstrap(80)
    low, high = interval(ratio(weights @ change, weights @ area))
    assert 0.88 <= ((low <= -0.4) & (high >= -0.4)).mean() <= 0.99


def test_a_ratio_to_nothing_is_no_number() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ratio(np.array([[3.0, 0.0, 5.0], [1.0, 2.0, -8.0]]), np.array([2.0, 0.0, -4.0]))
    np.testing.assert_array_equal(found, [[1.5, np.nan, -1.25], [0.5, np.nan, 2.0]])
    assert np.isnan(ratio(np.array(1.0), np.array(0.0)))


def enumerated_p(differences: Floats) -> Floats:
    """The share of all 2^n sign patterns whose sum is at least as far from zero as the one found."""
    found = np.abs(differences.sum(0))
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    hits = np.zeros(differences.shape[1])
    for signs in patterns:
        total = sum(sign * row for sign, row in zip(signs, differences, strict=True))
        hits += np.abs(total) >= found - 1e-9
    return hits / len(patterns)


def test_sign_flips_agree_with_all_patterns() -> None:
    dice = np.random.default_rng(0)
    columns = [dice.normal(size=8) + shift for shift in (0, 0.2, 0.5, 1, -1.5, 3)]
    columns += [dice.integers(-2, 4, 8) / 3.0, dice.integers(-1, 2, 8) * 0.1, np.full(8, -0.1)]  # many ties
    columns += [np.eye(8)[0], np.eye(8)[0] + np.eye(8)[1]]  # one or two images with a change
    differences = np.stack(columns, 1)
    truth = enumerated_p(differences)
    assert truth.min() == 2 / 256
    assert truth[-2:].tolist() == [1, 0.5]
    found = sign_flip_p(differences)
    error = np.sqrt(truth * (1 - truth) / FLIPS)
    assert (np.abs(found - truth) <= 4 * error + 1 / FLIPS).all()


def test_no_difference_at_all_says_nothing() -> None:
    differences = np.zeros((20, 3))
    differences[:, 1] = np.random.default_rng(0).normal(size=20) + 2
    differences[:2, 2] = 0.5, -0.5
    p = sign_flip_p(differences)
    assert p[0] == p[2] == 1
    assert p[1] == 1 / (FLIPS + 1)  # the least there is


def test_the_direction_of_a_change_makes_no_odds() -> None:
    differences = np.random.default_rng(3).normal(size=(15, 30)) + 0.3
    assert np.array_equal(sign_flip_p(differences), sign_flip_p(-differences))
    assert np.array_equal(sign_flip_p(differences), sign_flip_p(differences / 1024))


def test_p_values_are_uniform_where_nothing_changes() -> None:
    differences = np.random.default_rng(7).standard_t(3, size=(24, 600))
    p = np.sort(sign_flip_p(differences))
    assert np.abs(p - (np.arange(600) + 0.5) / 600).max() < 1.63 / math.sqrt(600)  # Kolmogorov's 1 % point
    assert 0.02 < (p <= 0.05).mean() < 0.08


def test_a_worked_false_discovery_example() -> None:
    # sorted: .005 .01 .03 .04 .9, times 5 / rank: .025 .025 .05 .05 .9
    np.testing.assert_allclose(
        benjamini_hochberg(np.array([0.01, 0.9, 0.04, 0.005, 0.03])), [0.025, 0.9, 0.05, 0.025, 0.05]
    )
    # .02 · 3 = .06, .021 · 3 / 2 = .0315: the smaller one may not have the greater q
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.9, 0.02, 0.021])), [0.9, 0.0315, 0.0315])
    assert benjamini_hochberg(np.array([0.3])).tolist() == [0.3]
    assert benjamini_hochberg(np.ones(4)).tolist() == [1, 1, 1, 1]


def called(p: Floats, rate: float) -> list[bool]:
    """Benjamini and Hochberg's step-up rule: with the greatest k such that p(k) ≤ k/m · rate, call the k least."""
    m, ordered = len(p), sorted(p.tolist())
    k = max((i for i in range(1, m + 1) if ordered[i - 1] <= i / m * rate), default=0)
    return [k > 0 and value <= ordered[k - 1] for value in p.tolist()]


@pytest.mark.parametrize("seed", range(6))
def test_q_values_call_what_the_step_up_rule_calls(seed: int) -> None:
    dice = np.random.default_rng(seed)
    p = np.concatenate([dice.uniform(size=20), dice.uniform(0, 0.02, 15), [1.0, 1.0, 1e-4, 1e-4, 1e-4]])
    p = dice.permutation(p)
    q = benjamini_hochberg(p)
    for rate in (0.0007, *dice.uniform(0, 1, 200), *dice.uniform(0, 0.1, 200)):
        assert (q <= rate).tolist() == called(p, rate)
    assert (np.diff(q[np.argsort(p)]) >= 0).all()
    assert (q >= p).all()
    assert q.max() <= 1
    assert all(len(set(q[p == value])) == 1 for value in p)


def test_few_false_calls_on_average() -> None:
    dice = np.random.default_rng(11)
    shares = []
    for _ in range(300):
        p = np.concatenate([dice.uniform(size=40), dice.uniform(0, 0.003, 10)])
        calls = benjamini_hochberg(p) <= 0.05
        shares.append(calls[:40].sum() / max(calls.sum(), 1))
    assert np.mean(shares) == pytest.approx(0.05 * 40 / 50, abs=0.012)  # as the theorem has it
