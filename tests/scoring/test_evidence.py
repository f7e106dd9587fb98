"""Evidence for labels on a world with planted truth, and against permutations and bootstraps written out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import entropy, kstest

from ganatomy.dissect.capture.spool import SHARD
from ganatomy.dissect.scoring import label_tests as ev
from ganatomy.dissect.scoring import scores as sc
from ganatomy.dissect.scoring.counting import Tally, tally_layer
from ganatomy.dissect.scoring.label_tests import THOROUGHNESS, Evidence, examine_layer
from ganatomy.dissect.scoring.levels import level_shares
from ganatomy.dissect.scoring.unit_table import judge, unit_table
from ganatomy.dissect.stats.significance import ROUNDS, poisson_bootstrap

from ..support import worlds
from ..support.worlds import BOTH, CLEAR, ELSEWHERE, NAMES, NOISE, NOISY, POSITION, Floats, World

pytestmark = pytest.mark.slow

QUANTILE = 0.1
SHARES = level_shares(QUANTILE)
FIXED = SHARES.index(QUANTILE)
DRAWS = 2000
SHUFFLES = 8
ASTRAY = 1e-4  # of an IoU: pixels so near their level that float32 and float64 differ

RULES = pytest.mark.parametrize("rule", ["iqr", "quantile"])


def ignore(_units: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A world and all that is said of its units."""

    world: World
    tally: Tally
    labels: sc.Labels
    evidence: Evidence
    table: pd.DataFrame
    rule: str


def examine(world: World, tally: Tally, rule: str, how: str = "fast", seed: int = 0) -> Found:
    labels = sc.label_units(tally.choose, tally.score, rule, FIXED)
    done: list[int] = []
    evidence = examine_layer(world.maps, tally, labels, rule, THOROUGHNESS[how], seed, done.append)
    assert sum(done) == len(world.maps)
    words = worlds.vocabulary(NAMES if len(tally.choose.class_area) == 5 else tuple("abcdefghij"))
    table = judge(unit_table("layer", tally, labels, evidence, words, rule, FIXED), tested=True, rule=rule)
    return Found(world=world, tally=tally, labels=labels, evidence=evidence, table=table, rule=rule)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Tally]:
    world = worlds.large(tmp_path_factory.mktemp("large"), seed=20)
    return world, tally_layer(world.maps, len(NAMES), SHARES, ignore)


@pytest.fixture(scope="module", params=["iqr", "quantile"])
def found(large: tuple[World, Tally], request: pytest.FixtureRequest) -> Found:
    return examine(*large, request.param)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Tally]:
    world = worlds.small(tmp_path_factory.mktemp("small"), 131)  # two shards, the second with a single odd image
    return world, tally_layer(world.maps, 10, SHARES, ignore)


def right(found: Found) -> NDArray[np.bool_]:
    """(U,) whether the label is of a class that the unit truly follows."""
    return np.array([c in follows for c, follows in zip(found.labels.label, found.world.truth, strict=True)])


def test_few_labels_are_owed_to_place_or_chance(found: Found) -> None:
    kind, labelled = found.world.kind, found.table.labelled.to_numpy()
    assert np.isin(kind, (POSITION, NOISE)).sum() >= 200
    assert labelled.sum() >= 60
    assert (labelled & ~right(found)).sum() <= 0.1 * labelled.sum()
    limits = found.table.reaches_limits.to_numpy()
    assert limits[kind == POSITION].mean() > 0.8  # which is why there is a test
    if found.rule == "quantile":
        assert limits[kind == NOISE].mean() > 0.8


def test_true_units_keep_their_label(found: Found) -> None:
    kind, labelled, table = found.world.kind, found.table.labelled.to_numpy(), found.table
    kept = labelled & right(found)
    assert kept[kind == CLEAR].mean() >= 0.95
    assert kept[(kind == NOISY) & table.reaches_limits & right(found)].mean() >= 0.95  # the rule may err
    assert not (labelled & ~right(found))[kind == NOISY].any()
    assert kept[kind == BOTH].mean() >= 0.95
    named = []
    for unit in np.flatnonzero(kind == BOTH):
        row = table.loc[unit]
        (other,) = (NAMES[c] for c in found.world.truth[unit] - {int(found.labels.label[unit])})
        named.append(other == row.runner_up or other in row.label_set.split(" | "))
    assert np.mean(named) >= 0.9
    alone = table[kind == CLEAR]
    assert (alone.label_set == alone.label).mean() >= 0.95


def test_the_place_of_one_class_is_no_evidence_though_the_unit_follows_another(found: Found) -> None:
    here = found.world.kind == ELSEWHERE
    assert found.table.reaches_limits[here].all()
    assert set(found.table.label[here]) == {"sky", "ground"}
    assert found.table.labelled[here].sum() <= 1
    other = np.array([max(follows, default=0) for follows in found.world.truth])
    swapped = replace(found.labels, label=np.where(here, other, found.labels.label))
    how = replace(THOROUGHNESS["fast"], permutations=999)
    evidence = examine_layer(found.world.maps, found.tally, swapped, found.rule, how, 0, ignore)
    assert (evidence.p_value[here] <= 0.001).sum() >= 8  # tied to the image all the same


@pytest.mark.parametrize("kind", [POSITION, NOISE])
def test_p_values_of_units_that_follow_nothing_are_uniform(found: Found, kind: str) -> None:
    p = found.evidence.p_value[found.world.kind == kind]
    assert len(p) >= 100
    assert kstest(p, "uniform").pvalue > 0.01
    assert (p <= 0.05).mean() < 0.1


@RULES
def test_the_whole_search_among_labels_of_other_images_finds_nothing(
    large: tuple[World, Tally], rule: str, tmp_path: Path
) -> None:
    """Label maps exchanged between images beforehand: classes and levels are searched, scored and tested under null."""
    world = large[0]
    dice = np.random.default_rng(3)
    some = np.concatenate([np.flatnonzero(world.kind == kind)[:10] for kind in worlds.HOW_MANY])
    features, p, limits, false = world.features[:, some], [], 0, 0
    for draw in range(SHUFFLES):
        labels = world.labels[dice.permutation(worlds.N)]
        maps = worlds.lay_out(tmp_path / f"{draw}", labels, features)
        exchanged = replace(world, maps=maps, labels=labels, features=features)
        table = examine(exchanged, tally_layer(maps, len(NAMES), SHARES, ignore), rule).table
        p.append(table.p_value.to_numpy())
        limits += table.reaches_limits.sum()
        false += table.labelled.any()
    assert limits > 0.5 * np.size(p)  # by place
    assert false <= 2  # shuffles in which any unit is labelled: one in twenty is expected at most
    assert abs(np.mean(p) - 0.5) < 0.1
    assert np.mean(np.array(p) <= 0.05) < 0.1


def some_units(found: Found) -> Iterator[tuple[int, NDArray[np.int64], int]]:
    """Two units of each kind: the unit, overlaps (n, n) of its regions and class maps in odd images, |M| + |C|."""
    for kind in worlds.HOW_MANY:
        for unit in np.flatnonzero(found.world.kind == kind)[[0, 7]]:
            level, label = found.labels.level[unit], int(found.labels.label[unit])
            masks = found.world.masks(unit, float(found.tally.level[unit, level]))[1::2].reshape(worlds.N // 2, -1)
            places = found.world.places(label)[1::2].reshape(worlds.N // 2, -1)
            yield unit, np.rint(masks.astype(float) @ places.T.astype(float)).astype(int), masks.sum() + places.sum()


def test_position_iou_is_the_mean_over_shuffled_images(found: Found) -> None:
    dice = np.random.default_rng(0)
    shuffled = np.argsort(dice.random((DRAWS, worlds.N // 2)), axis=1)
    for unit, overlaps, both in some_units(found):
        a = overlaps[np.arange(worlds.N // 2), shuffled].sum(1)
        iou = a / (both - a)
        slack = 4 * iou.std() / DRAWS**0.5 + ASTRAY
        assert found.evidence.position_iou[unit] == pytest.approx(iou.mean(), abs=slack)
        assert np.trace(overlaps) / (both - np.trace(overlaps)) == pytest.approx(found.labels.iou[unit], abs=ASTRAY)


def test_spread_and_p_value_are_those_of_shuffles_within_blocks(found: Found) -> None:
    dice = np.random.default_rng(1)
    alike = {size: np.argsort(dice.random((DRAWS, size)), axis=1) for size in (32, 30)}
    shuffled = np.concatenate([start + alike[min(32, 350 - start)] for start in range(0, 350, 32)], 1)
    moderate = 0
    for unit, overlaps, both in some_units(found):
        a = overlaps[np.arange(350), shuffled].sum(1)
        assert found.evidence.null_sd[unit] == pytest.approx((a / (both - a)).std(), rel=0.1)
        p, truth = found.evidence.p_value[unit], (a >= np.trace(overlaps)).mean()
        assert p == pytest.approx(truth, abs=4 * np.sqrt(p * (1 - p) * (1 / DRAWS + 1e-4)) + 2 / DRAWS)
        moderate += 0.05 < p < 0.95
    assert moderate >= 3


def test_intervals_bracket_the_iou(found: Found) -> None:
    low, high, iou = found.evidence.low, found.evidence.high, found.labels.iou
    assert ((low <= iou) & (iou <= high)).all()
    clear = found.world.kind == CLEAR
    assert (found.evidence.position_iou[clear] < low[clear]).all()
    assert (found.evidence.p_value[clear] == 1e-4).all()  # the least there is


@RULES
def test_without_resampling_the_second_look_finds_what_the_first_found(
    small: tuple[World, Tally], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ev, "poisson_bootstrap", lambda count, _seed, _block: np.ones((ROUNDS, count)))
    found = examine(*small, rule, "full", seed=99)  # a seed of its own, lest weights are remembered
    np.testing.assert_array_equal(found.evidence.low, found.labels.iou)
    np.testing.assert_array_equal(found.evidence.high, found.labels.iou)
    votes = np.eye(10)[found.labels.label] * found.labels.attracted[:, None]
    np.testing.assert_array_equal(found.evidence.votes, votes)
    assert votes[:9].sum() == 9


def resampled(found: Found, unit: int, number: int, half: int, stride: int = 1) -> tuple[Floats, ...]:
    """Pixels (2000,) of region and class, region, class and in all, over bootstrapped images of a half."""
    shards = range(0, len(found.world.labels), SHARD)
    sizes = [len(found.world.labels[start : start + SHARD][half::2]) for start in shards]
    weights = np.concatenate([poisson_bootstrap(n, 3, 2 * k + half) for k, n in enumerate(sizes)], 1)
    level = found.labels.class_level[unit, number]
    masks = found.world.masks(unit, float(found.tally.level[unit, level]))[half::2, ::stride, ::stride]
    places = found.world.places(number)[half::2, ::stride, ::stride]
    images = masks & places, masks, places, np.ones_like(masks)
    a, m, c, n = (weights @ image.sum((1, 2)) for image in images)
    return a, m, c, n


@RULES
@pytest.mark.parametrize(("how", "stride"), [("full", 1), ("fast", 2)])
def test_votes_and_intervals_are_those_of_a_bootstrap_written_out(
    small: tuple[World, Tally], rule: str, how: str, stride: int
) -> None:
    found = examine(*small, rule, how, seed=3)
    truth = np.zeros((10, 10))
    for unit in range(9):
        merits = []
        for number in (standing := found.labels.ranking[unit, :8]):
            a, m, c, n = resampled(found, unit, number, 0, stride)
            together = entropy([a, m - a, c - a, n - m - c + a])
            known = (entropy([m, n - m]) + entropy([c, n - c]) - together) / together * (a * n > m * c)
            merits.append(known if rule == "iqr" else a / (m + c - a))
        winner = standing[np.argmax(merits, 0)]
        np.add.at(truth[unit], winner[np.max(merits, 0) > 0], 1 / ROUNDS)
        a, m, c, _ = resampled(found, unit, int(found.labels.label[unit]), 1)
        ends = np.quantile(a / (m + c - a), [0.025, 0.975])
        np.testing.assert_allclose([found.evidence.low[unit], found.evidence.high[unit]], ends, rtol=1e-9)
    np.testing.assert_allclose(found.evidence.votes, truth, atol=1.5 / ROUNDS)
    assert (found.evidence.votes.sum(1) <= 1 + 1e-9).all()
    assert ((truth > 0.05) & (truth < 0.95)).sum() >= 8


@RULES
def test_classes_of_the_second_plane_count(small: tuple[World, Tally], rule: str) -> None:
    found = examine(*small, rule)
    assert found.table.label[:2].tolist() == ["a", "g"]
    assert found.table.labelled[:3].all()
    assert set(found.table.label_set[2].split(" | ")) <= {"h", "j"}
    for unit in range(9):
        level, label = found.labels.level[unit], int(found.labels.label[unit])
        regions = found.world.masks(unit, float(found.tally.level[unit, level]))[1::2]
        places = found.world.places(label)[1::2]
        expected = (regions.mean(0) * places.mean(0)).sum()
        union = (regions.sum() + places.sum()) / 65 - expected
        assert found.evidence.position_iou[unit] == pytest.approx(expected / union, rel=1e-6)


@RULES
def test_a_constant_unit_has_no_label(small: tuple[World, Tally], rule: str) -> None:
    found = examine(*small, rule)
    row = found.table.loc[9]
    assert (row.label, row.label_set, row.runner_up, row.labelled) == ("", "", "", False)
    assert row[["iou", "iou_low", "iou_high", "position_iou", "p_value"]].isna().all()
    assert found.evidence.p_value[9] == 1
    assert found.evidence.votes[9].sum() == 0


def same(a: Evidence, b: Evidence, name: str) -> bool:
    return np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)


@RULES
def test_how_units_are_taken_together_does_not_matter(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds.small(tmp_path, 131, side=8)  # as fine as the grid: nothing is rounded
    tally = tally_layer(world.maps, 10, SHARES, ignore)
    whole = examine(world, tally, rule).evidence
    for units, pixels in ((1, 2**19), (3, 1), (32, 1)):
        monkeypatch.setattr(ev, "UNITS_AT_ONCE", units)
        monkeypatch.setitem(ev.TOGETHER, "cpu", pixels)
        parts = examine(world, tally, rule).evidence
        assert all(same(whole, parts, field.name) for field in fields(Evidence))


def test_the_seed_decides(small: tuple[World, Tally]) -> None:
    one, again, other = (examine(*small, "iqr", seed=seed).evidence for seed in (1, 1, 2))
    for field in fields(Evidence):
        assert same(one, again, field.name)
        assert same(one, other, field.name) == (field.name in ("position_iou", "null_sd", "fires", "rival_position"))


@RULES
@pytest.mark.parametrize("samples", [2, 3, 5, 129, 131])
def test_few_samples_and_a_rest_are_no_trouble(tmp_path: Path, rule: str, samples: int) -> None:
    world = worlds.small(tmp_path, samples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = examine(world, tally_layer(world.maps, 10, SHARES, ignore), rule)
    p = found.evidence.p_value
    assert ((p > 0) & (p <= 1)).all()
    if samples < 4:  # one odd image has nothing to be exchanged with
        assert (p == 1).all()
        assert (found.evidence.null_sd == 0).all()
        np.testing.assert_allclose(found.evidence.position_iou, found.labels.iou)
        assert not found.table.labelled.any()
    elif samples == 5:  # two odd images, which lie as they were in one of two pairings
        assert p.min() > 0.45
    else:
        assert found.table.labelled[:2].all()


def judged(p: Floats, reaches: list[bool], tested: bool = True) -> pd.DataFrame:
    table = pd.DataFrame(
        {"reaches_limits": reaches, "p_value": p, "labelled": False, "q_value": np.nan, "content_iou": 0.1}
    )
    return judge(table, tested, "iqr")


def test_a_unit_below_the_limits_helps_no_other() -> None:
    p = np.array([1e-4] * 90 + [0.03] * 10)
    found = judged(p, [False] * 90 + [True] * 10)
    assert not found.labelled.any()
    assert found.q_value[90:].tolist() == pytest.approx([0.3] * 10)  # 0.03 · 100 / 10
    assert (found.q_value[:90] == 1).all()
    assert judged(p, [True] * 100).labelled.all()


def test_the_verdict_is_limits_and_q() -> None:
    p = np.array([0.001, 0.02, 0.004, np.nan, 0.5, 0.011])
    found = judged(p, [True, True, False, True, True, True])
    np.testing.assert_allclose(found.q_value, [0.006, 0.04, 1, 1, 0.75, 0.033])
    assert found.labelled.tolist() == [True, True, False, False, False, True]
    untested = judged(np.full(4, np.nan), [True, False, True, False], tested=False)
    assert untested.labelled.tolist() == [True, False, True, False]
    assert untested.q_value.isna().all()


def test_the_table_says_what_the_evidence_says(found: Found) -> None:
    table, fine = found.table, found.table.label != ""
    assert (table.labelled == (table.reaches_limits & (table.q_value <= 0.05))).all()
    for column, name in (("iou_low", "low"), ("iou_high", "high"), ("p_value", "p_value")):
        np.testing.assert_array_equal(table[column], np.where(fine, getattr(found.evidence, name), np.nan))
    np.testing.assert_allclose(table.content_iou[fine], (table.iou - table.position_iou)[fine])
    for votes, words in zip(found.evidence.votes[fine], table.label_set[fine], strict=True):
        often = sorted((c for c in range(5) if votes[c] >= 0.05), key=lambda c: -votes[c])
        assert words.split(" | ") == [NAMES[c] for c in often]
