"""Presences, sizes, pairs and the segmentation distance against formulas by hand, enumeration and planted worlds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ganatomy.dissect.diversity.by_class import (
    PRESENT,
    compare_classes,
    compare_pairs,
    contributions,
    mean_parts,
    segmentation_distance,
)
from ganatomy.dissect.stats.significance import Floats
from ganatomy.hooks.errors import DissectError

NAMES = ("sky", "building", "tree", "road", "door", "car", "person", "fence", "dome", "fountain")
Z = 1.959963984540054


def one_class(present: int, number: int, size: float = 0.1) -> Floats:
    """(number, 1): the first `present` images have the class."""
    return np.where(np.arange(number) < present, size, 0.0)[:, None]


def world(seed: int, number: int) -> Floats:
    """(number, 10) shares of 64×64 pixels that sum to one: streets and parks, so that classes depend on each other."""
    dice = np.random.default_rng(seed)
    street = dice.random(number) < 0.6
    often = np.where(
        street[:, None],
        [0.95, 0.98, 0.4, 0.9, 0.7, 0.6, 0.3, 0.2, 0.02, 0.05],
        [0.98, 0.3, 0.95, 0.2, 0.1, 0.05, 0.4, 0.3, 0.08, 0.3],
    )
    sizes = dice.gamma(2, [4, 5, 3, 3, 0.5, 0.7, 0.3, 0.5, 0.6, 0.4], often.shape) * (dice.random(often.shape) < often)
    pixels = np.floor(4096 * sizes / np.maximum(sizes.sum(1, keepdims=True), 1e-9))
    return pixels / 4096


def fisher(a: int, n: int, b: int, m: int) -> float:
    """Two-sided: all tables of the same margins that are no likelier than the one found."""
    weights = {
        k: math.comb(n, k) * math.comb(m, a + b - k) for k in range(max(0, a + b - m), min(n, a + b) + 1)
    }  # whole numbers
    return sum(w for w in weights.values() if w <= weights[a]) / sum(weights.values())


def adjusted(p: list[float]) -> list[float]:
    """Benjamini and Hochberg's q-values: of each p the least n·p'/rank of any p' ≥ p."""
    return [min(1, *(len(p) * x / sum(y <= x for y in p) for x in p if x >= mine)) for mine in p]


def test_wilson_interval_by_hand() -> None:
    row = compare_classes(one_class(1, 10), one_class(0, 20), ["a"]).iloc[0]
    # (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n), worked out for 1 of 10 and 0 of 20
    middle, reach, scale = 0.1 + Z**2 / 20, Z * math.sqrt(0.1 * 0.9 / 10 + Z**2 / 400), 1 + Z**2 / 10
    assert (row.presence, row.real_presence) == (0.1, 0)
    assert [row.presence_low, row.presence_high] == pytest.approx([(middle - reach) / scale, (middle + reach) / scale])
    assert [row.presence_low, row.presence_high] == pytest.approx([0.01788, 0.40415], abs=1e-5)
    assert [row.real_low, row.real_high] == pytest.approx([0, Z**2 / (20 + Z**2)], abs=1e-12)
    assert row.real_low == 0


def test_wilson_interval_is_where_the_score_test_turns() -> None:
    row = compare_classes(one_class(37, 120), one_class(88, 90), ["a"]).iloc[0]
    ends = [(37 / 120, 120, row.presence_low, row.presence_high), (88 / 90, 90, row.real_low, row.real_high)]
    for share, number, *limits in ends:
        for limit in limits:
            assert abs(share - limit) / math.sqrt(limit * (1 - limit) / number) == pytest.approx(Z)


def test_intervals_stay_within_zero_and_one() -> None:
    for number in range(2, 60):
        row = compare_classes(one_class(0, number), one_class(number, number), ["a"]).iloc[0]
        assert 0 <= row.presence_low < 1e-15
        assert 1 - 1e-15 < row.real_high <= 1


def test_difference_as_in_newcombes_table() -> None:
    row = compare_classes(one_class(56, 70), one_class(48, 80), ["a"]).iloc[0]
    found = (row.difference, row.difference_low, row.difference_high)
    assert np.round(found, 4).tolist() == [0.2, 0.0524, 0.3339]  # Newcombe 1998, case (a), method 10
    row = compare_classes(one_class(0, 10), one_class(0, 20), ["a"]).iloc[0]
    assert np.round((row.difference_low, row.difference_high), 4).tolist() == [-0.1611, 0.2775]  # case (g)


def test_p_of_presence_by_enumeration() -> None:
    made = np.hstack([one_class(k, 17) for k in (0, 2, 9, 17, 0)])
    real = np.hstack([one_class(k, 23) for k in (8, 11, 10, 22, 0)])
    table = compare_classes(made, real, list("abcde")).set_index("class")
    for name, a, b in zip("abcde", (0, 2, 9, 17, 0), (8, 11, 10, 22, 0), strict=True):
        assert table.p_presence[name] == pytest.approx(fisher(a, 17, b, 23))
    assert table.p_presence["e"] == 1
    assert table.difference["a"] == pytest.approx(-8 / 23)


def test_a_class_is_present_from_two_thousandths_of_the_pixels() -> None:
    made = np.array([[0.002], [0.00199], [0.5], [0.0]])
    row = compare_classes(made, np.full((4, 1), 0.01), ["a"]).iloc[0]
    assert PRESENT == 0.002
    assert row.presence == 0.5
    assert row["size"] == pytest.approx(0.251)  # the median of 0.002 and 0.5
    assert row.real_size == 0.01
    assert row.size_ratio == pytest.approx(25.1)
    assert math.isnan(row.p_size)


def test_p_of_size_by_all_permutations() -> None:
    mine, theirs = [0.11, 0.35, 0.2, 0.41], [0.05, 0.3, 0.07, 0.02, 0.1]

    def lead(first: tuple[float, ...], second: tuple[float, ...]) -> float:
        return abs(sum(x > y for x in first for y in second) - len(first) * len(second) / 2)

    everything = tuple(mine + theirs)
    splits = [(c, tuple(x for x in everything if x not in c)) for c in itertools.combinations(everything, len(mine))]
    found = lead(tuple(mine), tuple(theirs))
    expected = np.mean([lead(*split) >= found for split in splits])
    made = np.array([*mine, 0, 0.001])[:, None]  # images without it do not count
    row = compare_classes(made, np.array(theirs)[:, None], ["a"]).iloc[0]
    assert row.p_size == pytest.approx(expected)
    assert row["size"] == pytest.approx(0.275)
    assert row.real_size == 0.07


def test_sizes_of_three_images_are_tested_and_of_two_are_not() -> None:
    made = np.array([[0.3, 0.3], [0.4, 0.4], [0.5, 0]])
    table = compare_classes(made, made / 10, ["three", "two"]).set_index("class")
    assert table.p_size["three"] == pytest.approx(2 / math.comb(6, 3))
    assert math.isnan(table.p_size["two"])


def test_p_of_size_with_ties_by_the_normal_formula() -> None:
    dice = np.random.default_rng(4)
    mine, theirs = dice.integers(1, 30, 40) / 100, dice.integers(12, 42, 50) / 100
    u = sum(float(x > y) + (x == y) / 2 for x in mine for y in theirs)
    n, m = 40, 50
    ties = sum(t**3 - t for t in np.unique([*mine, *theirs], return_counts=True)[1])
    variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
    z = (abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    row = compare_classes(mine[:, None], theirs[:, None], ["a"]).iloc[0]
    assert row.p_size == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert row.p_presence == 1
    assert row.q_size == pytest.approx(min(1, 2 * row.p_size))  # of two p-values
    assert u < n * m / 2
    assert row.verdict == "smaller"
    assert compare_classes(theirs[:, None], mine[:, None], ["a"]).verdict[0] == "larger"


def test_q_values_are_of_both_kinds_of_p_together() -> None:
    made, real = world(0, 150), world(1, 150)
    made[:, 4] *= 0.3
    made[2:, 8] = 0  # too few for a test of size
    table = compare_classes(made, real, NAMES)
    p = [*table.p_presence, *table.p_size]
    q = [*table.q_presence, *table.q_size]
    kept = [k for k, value in enumerate(p) if not math.isnan(value)]
    assert len(kept) == 19
    assert [q[k] for k in kept] == pytest.approx(adjusted([p[k] for k in kept]))
    assert math.isnan(table.set_index("class").q_size["dome"])


def test_a_suppressed_class_is_named_first() -> None:
    made, real = world(2, 600), world(3, 600)
    made[:, 9] = 0  # the missing one is rarer among real images than what else is wrong
    made[:, 5] *= np.arange(600) % 3 == 0
    made[:, 4] *= 0.5
    made[:, 6] = np.where(np.arange(600) % 2, np.maximum(made[:, 6], 0.02), made[:, 6])
    table = compare_classes(made, real, NAMES)
    assert table["class"][0] == "fountain"
    verdicts = dict(zip(table["class"], table.verdict, strict=True))
    assert verdicts["fountain"] == "missing"
    assert verdicts["car"] == "rarer"
    assert verdicts["door"] == "smaller"
    assert verdicts["person"] == "more frequent"
    first = table.iloc[0]
    assert first.difference_high < 0
    assert math.isnan(first["size"])
    assert math.isnan(first.size_ratio)
    assert math.isnan(first.p_size)


def test_missing_come_by_real_presence_then_the_rest_by_q_and_difference() -> None:
    made = np.hstack([one_class(k, 100) for k in (50, 0, 100, 0, 50, 52, 0)])
    real = np.hstack([one_class(k, 100) for k in (50, 30, 0, 60, 50, 50, 1)])
    table = compare_classes(made, real, list("abcdefg"))
    # c has the least q of all, but is not missing; g is not known to be; of q = 1, f differs most, then table order
    assert "".join(table["class"]) == "dbcfgae"
    assert table.verdict.tolist() == ["missing", "missing", "more frequent", "", "", "", ""]
    assert (np.diff(table.q_presence[2:]) >= 0).all()


def test_real_against_real_is_seldom_called_different() -> None:
    rounds, number = 60, 150
    alarms = pair_alarms = careless = 0
    for seed in range(rounds):
        both = world(100 + seed, 2 * number)
        made, real = both[:number], both[number:]
        table = compare_classes(made, real, NAMES)
        alarms += (table.verdict != "").any()
        careless += (table.p_presence <= 0.05).any() or (table.p_size <= 0.05).any()
        pair_alarms += (compare_pairs(made, real, NAMES).q_value <= 0.05).any()
    slack = 0.05 * rounds + 2.33 * math.sqrt(rounds * 0.05 * 0.95)  # 99 % of binomial counts are below
    assert alarms <= slack
    assert pair_alarms <= slack
    assert careless > rounds / 4  # without q-values they would be


def crossed(both: int, first: int, second: int, neither: int) -> Floats:
    """Shares (N, 2) of two classes, by the number of images in each cell."""
    return np.repeat([[0.1, 0.1], [0.1, 0], [0, 0.1], [0, 0]], [both, first, second, neither], axis=0)


def test_odds_ratios_by_hand() -> None:
    row = compare_pairs(crossed(30, 10, 20, 40), crossed(20, 30, 35, 0), ["a", "b"]).iloc[0]
    mine = math.log(30.5 * 40.5 / (10.5 * 20.5))
    theirs = math.log(20.5 * 0.5 / (30.5 * 35.5))  # a cell may be empty
    error = math.sqrt(sum(1 / x for x in (30.5, 10.5, 20.5, 40.5, 20.5, 30.5, 35.5, 0.5)))
    assert (row.one, row.other) == ("a", "b")
    assert [row.together, row.real_together, row.expected] == pytest.approx([0.3, 20 / 85, 0.4 * 0.5])
    assert [row.log_odds, row.real_log_odds, row.difference] == pytest.approx([mine, theirs, mine - theirs])
    ends = [mine - theirs - Z * error, mine - theirs + Z * error]
    assert [row.difference_low, row.difference_high] == pytest.approx(ends)
    assert row.p_value == row.q_value == pytest.approx(math.erfc(abs(mine - theirs) / error / math.sqrt(2)))


def test_trees_that_are_never_with_doors_are_the_first_pair() -> None:
    dice = np.random.default_rng(5)
    made, real = ((dice.random((400, 6)) < 0.4) * 0.1 for _ in range(2))
    for side in (made, real):  # trees and doors are in 40 % of the images of either side, exactly
        side[:, 2:4] = crossed(64, 96, 96, 144)
    made[:, 2:4] = crossed(0, 160, 160, 80)
    names = ("car", "person", "tree", "door", "road", "fence")
    alone = compare_classes(made, real, names).set_index("class")
    assert (alone.p_presence[["tree", "door"]] == 1).all()
    pairs = compare_pairs(made, real, names)
    first = pairs.iloc[0]
    assert (first.one, first.other) == ("tree", "door")
    assert first.together == 0
    assert first.expected == pytest.approx(0.16)
    assert first.difference_high < 0
    assert first.q_value < 0.001
    assert len(pairs) == 15
    assert pairs.q_value.tolist() == pytest.approx(adjusted(pairs.p_value.tolist()))
    assert (np.diff(pairs.q_value) >= 0).all()


def test_odds_ratios_do_not_see_that_both_classes_are_rarer() -> None:
    row = compare_pairs(crossed(100, 100, 100, 400), crossed(200, 100, 200, 400), ["a", "b"]).iloc[0]
    # marginals 200/700 and 200/700 against 300/900 and 400/900; 100·400/100² = 200·400/(100·200) = 4
    assert row.log_odds == pytest.approx(math.log(4), abs=0.02)
    assert row.difference == pytest.approx(0, abs=0.02)
    assert row.p_value > 0.9


def test_pairs_are_left_out_where_an_odds_ratio_cannot_be_known() -> None:
    plenty = crossed(20, 20, 20, 20)

    def tested(made: Floats, real: Floats) -> bool:
        return len(compare_pairs(made, real, ["a", "b"])) == 1

    assert tested(plenty, plenty)
    exact = crossed(0, 10, 40, 30)  # 10 · 40 / 80 = 5 expected with both
    assert tested(exact, plenty)
    assert tested(plenty, exact)
    short = crossed(0, 9, 40, 31)
    assert not tested(short, plenty)
    assert not tested(plenty, short)
    assert not tested(crossed(40, 0, 40, 0), plenty)  # in every image
    none, some = (compare_pairs(side, plenty, ["a", "b"]) for side in (short, plenty))
    assert none.columns.tolist() == some.columns.tolist()


def frechet(one: Floats, other: Floats) -> float:
    """|m − m'|² + tr(S + S' − 2 (S^½ S' S^½)^½), roots of symmetric matrices by their eigenvalues."""

    def moments(side: Floats) -> tuple[Floats, Floats]:
        apart = side - side.mean(0)
        return side.mean(0), apart.T @ apart / (len(side) - 1)

    def root(matrix: Floats) -> Floats:
        values, vectors = np.linalg.eigh(matrix)
        return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    (mean, spread), (its_mean, its_spread) = moments(one), moments(other)
    cross = root(root(spread) @ its_spread @ root(spread))
    return float(((mean - its_mean) ** 2).sum() + np.trace(spread + its_spread - 2 * cross))


def test_segmentation_distance_by_symmetric_roots() -> None:
    made, real = world(6, 300), world(7, 200)
    made[:, 2] *= 0.5
    assert segmentation_distance(made, real) == pytest.approx(frechet(made, real), abs=1e-7)
    assert segmentation_distance(made, real) > 1e-3
    assert segmentation_distance(made, made) == pytest.approx(0, abs=1e-7)
    assert segmentation_distance(np.zeros((3, 2)), np.zeros((3, 2))) == 0


def test_segmentation_distance_of_one_class_in_closed_form() -> None:
    made, real = world(8, 100)[:, :1], world(9, 90)[:, :1] * 0.5
    expected = (made.mean() - real.mean()) ** 2 + (made.std(ddof=1) - real.std(ddof=1)) ** 2
    assert segmentation_distance(made, real) == pytest.approx(expected)
    assert contributions(made, real) == pytest.approx([expected])


def test_contributions_are_what_is_lost_without_the_class() -> None:
    made, real = world(10, 300), world(11, 300)
    made[:, 2] *= 0.5
    made[:, 8] = real[:, 8] = 0
    found = contributions(made, real)
    expected = [
        frechet(made, real) - frechet(np.delete(made, k, axis=1), np.delete(real, k, axis=1)) for k in range(10)
    ]
    assert found.shape == (10,)
    assert found == pytest.approx(np.array(expected), abs=1e-7)
    assert found.argmax() == 2
    assert found[8] == 0
    own = (made.mean(0) - real.mean(0)) ** 2 + (made.std(0, ddof=1) - real.std(0, ddof=1)) ** 2
    assert (found >= own - 1e-7).all()


def test_mean_parts_sum_to_the_first_term() -> None:
    made, real = world(12, 300), world(13, 200)
    parts = mean_parts(made, real)
    assert parts.shape == (10,)
    assert parts[3] == pytest.approx((made[:, 3].mean() - real[:, 3].mean()) ** 2)
    shifted = made + (real.mean(0) - made.mean(0))  # of equal means: what is left is the other term
    assert parts.sum() == pytest.approx(frechet(made, real) - frechet(shifted, real), abs=1e-9)


@pytest.mark.parametrize(
    ("made", "real", "message"),
    [
        (world(0, 1), world(1, 9), "1 generated and 9 real"),
        (world(0, 9), world(1, 0), "9 generated and 0 real"),
        (world(0, 9)[:, 1:], world(1, 9), "10 classes.* 9 .*real images 10|9 classes"),
        (np.full((9, 10), np.nan), world(1, 9), "not finite"),
        (world(0, 9), np.full((9, 10), np.inf), "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(made: Floats, real: Floats, message: str) -> None:
    for compare in (compare_classes, compare_pairs):
        with pytest.raises(DissectError, match=message):
            compare(made, real, NAMES)
    for measure in (segmentation_distance, contributions, mean_parts):
        with pytest.raises(DissectError, match=message):
            measure(made, real)


def test_names_must_be_as_many_as_classes() -> None:
    for compare in (compare_classes, compare_pairs):
        with pytest.raises(DissectError, match="9 classes"):
            compare(world(0, 9), world(1, 9), NAMES[1:])


def test_what_is_given_stays_as_it_is() -> None:
    made, real = world(14, 50), world(15, 50)
    copies = made.copy(), real.copy()
    made.flags.writeable = real.flags.writeable = False
    tables = [compare_classes(made, real, NAMES) for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)
    contributions(made, real)
    assert (made == copies[0]).all()
    assert (real == copies[1]).all()


def test_what_has_lost_most_comes_before_what_has_lost_surely_and_before_what_took_its_place() -> None:
    made = np.hstack([one_class(k, 400) for k in (300, 360, 200, 200)])
    real = np.hstack([one_class(k, 400) for k in (200, 400, 280, 200)])
    made[:, 3] *= 0.3  # as frequent as it should be, and a third as large
    table = compare_classes(made, real, ["a", "b", "c", "d"])
    assert table["class"].tolist() == ["d", "c", "b", "a"]
    assert table.verdict.tolist() == ["smaller", "rarer", "rarer", "more frequent"]
    left = table.share / table.real_share
    assert left.tolist()[:3] == pytest.approx([0.3, 200 / 280, 0.9])
