"""Alarms of a watched training, on histories made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ganatomy.dissect.watching import alarms

SAMPLES = 64
CLASSES = ("tree", "door", "sky")


def row(**changed: Any) -> dict[str, Any]:
    """A line in which all is well: half of the samples have trees, 5 in 64 a door, all the sky."""
    usual = {"verdict": "", "deviation": 0.2, "ripple": 1.0, "peaks": 0, "tree": 0.5, "door": 5 / 64, "sky": 1.0}
    found = usual | changed
    for name, reach in (("deviation", 0.02), ("ripple", 0.5)):
        found |= {f"{name}_low": found[name] - reach, f"{name}_high": found[name] + reach}
    return {name if name not in CLASSES else f"presence:{name}": value for name, value in found.items()}


def found(*rows: dict[str, Any]) -> list[str]:
    return alarms(pd.DataFrame(list(rows)), SAMPLES)


def test_nothing_is_worse_than_nothing() -> None:
    assert found(row(verdict="collapsed", deviation=0.0, tree=0.0, peaks=3, ripple=30.0)) == []
    assert found(row(), row()) == []


def test_a_collapse_is_one_that_was_not_there_before() -> None:
    assert found(row(verdict="lacking"), row(verdict="collapsed")) == ["collapse"]
    assert found(row(verdict="collapsed"), row(verdict="collapsed")) == []
    assert found(row(verdict="collapsed"), row(verdict="varied"), row(verdict="collapsed")) == ["collapse"]


@pytest.mark.parametrize(
    ("deviation", "said"),
    [(0.15, []), (0.101, []), (0.099, ["collapse"]), (0.0, ["collapse"]), (float("nan"), [])],
)
def test_half_of_the_deviation_gone_is_a_collapse_without_real_images(deviation: float, said: list[str]) -> None:
    assert found(row(deviation=0.1), row(deviation=0.2), row(deviation=deviation)) == said


def test_half_gone_is_none_where_the_intervals_meet() -> None:
    unsure = row(deviation=0.09) | {"deviation_high": 0.185}
    assert found(row(deviation=0.2), unsure) == []  # 0.2 - 0.02 is below it
    assert found(row(deviation=0.2), unsure | {"deviation_high": 0.175}) == ["collapse"]


def test_lost_classes_are_named_the_once_most_frequent_first() -> None:
    assert found(row(), row(tree=0.0, sky=0.0)) == ["lost: sky, tree"]
    assert found(row(), row(tree=0.0), row(tree=0.0)) == ["lost: tree"]  # as long as it lasts


def test_what_was_rare_is_not_lost_by_chance() -> None:
    # 0 instead of 5 of 64: p = 0.029 of one class; of three classes q = 0.087
    p = stats.fisher_exact([[0, 64], [5, 59]], alternative="less").pvalue
    assert p == pytest.approx(0.029, abs=0.001)
    assert found(row(), row(door=0.0)) == []
    # 0 instead of 10: p = 0.0006, and less than 0.05 after ten checkpoints and three classes, but not after a hundred
    p = stats.fisher_exact([[0, 64], [10, 54]], alternative="less").pvalue
    assert p * 10 * 3 < 0.05 < p * 100 * 3
    assert found(*[row(door=10 / 64)] * 10, row(door=0.0)) == ["lost: door"]
    assert found(*[row(door=10 / 64)] * 100, row(door=0.0)) == []


def test_a_tenth_that_is_left_is_lost_and_more_is_not() -> None:
    assert found(row(sky=60 / 64), row(sky=6 / 64)) == ["lost: sky"]
    assert found(row(sky=60 / 64), row(sky=7 / 64)) == []


def test_a_checkerboard_rises_above_the_lowest_before() -> None:
    assert found(row(ripple=8.0, peaks=1), row(ripple=1.0), row(ripple=4.0, peaks=1)) == ["checkerboard rising"]
    assert found(row(ripple=1.0), row(ripple=4.0)) == []  # no peak
    assert found(row(ripple=8.0, peaks=1), row(ripple=4.0, peaks=1)) == []  # falling
    assert found(row(ripple=3.5), row(ripple=4.0, peaks=1)) == []  # intervals meet
    assert found(row(ripple=float("nan")), row(ripple=4.0, peaks=1)) == []  # nothing to compare with


def test_several_alarms_come_together() -> None:
    worse = row(verdict="collapsed", tree=0.0, ripple=9.0, peaks=2)
    assert found(row(), worse) == ["collapse", "lost: tree", "checkerboard rising"]


def test_healthy_trainings_lose_no_class() -> None:
    """Of 200 histories of 20 checkpoints whose classes come and go by chance, at most 5 % of the last lines alarm."""
    dice = np.random.default_rng(0)
    called = 0
    for _ in range(200):
        chances = dice.uniform(0.02, 0.6, 12)
        drawn = dice.binomial(SAMPLES, chances, (20, 12)) / SAMPLES
        lines = pd.DataFrame(drawn, columns=[f"presence:{k}" for k in range(12)])
        called += bool(alarms(lines.assign(**row()), SAMPLES))
    assert called <= 10
