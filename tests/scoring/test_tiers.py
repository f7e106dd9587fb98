"""Tiers, the order in which units are shown, and highlights, on tables written by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ganatomy.dissect import Dissection
from ganatomy.dissect.scoring.unit_table import highlights, ranked, tiers

from ..conftest import Go

COLUMNS = ("unit", "label", "reaches_limits", "labelled", "iou", "content_iou")
TABLE = pd.DataFrame(
    [
        (0, "sky", True, True, 0.66, 0.012),
        (1, "tree", True, True, 0.27, 0.130),
        (2, "tree", True, True, 0.30, 0.050),
        (3, "tree", True, True, 0.20, 0.045),
        (4, "sky", True, False, 0.50, 0.200),
        (5, "door", False, False, 0.02, 0.020),
        (6, "door", True, True, 0.12, 0.070),
    ],
    columns=COLUMNS,
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("iqr", ["weak", "strong", "strong", "weak", "position only", "", "strong"]),
        ("quantile", ["weak", "strong", "strong", "strong", "position only", "", "strong"]),
    ],
)
def test_the_limit_of_the_rule_decides_on_the_tier(rule: str, expected: list[str]) -> None:
    assert tiers(TABLE, tested=True, rule=rule) == expected


def test_without_a_test_nothing_is_strong() -> None:
    assert tiers(TABLE, tested=False, rule="iqr") == ["untested"] * 5 + ["", "untested"]


def test_strong_units_come_first_and_then_by_what_lies_above_position() -> None:
    table = TABLE.assign(tier=tiers(TABLE, tested=True, rule="iqr"))
    assert list(ranked(table).unit) == [1, 6, 2, 3, 0, 4, 5]
    untested = TABLE.assign(tier=tiers(TABLE, tested=False, rule="iqr"), content_iou=float("nan"))
    assert list(ranked(untested).unit) == [0, 4, 2, 1, 3, 6, 5]


def test_highlights_take_the_classes_in_turn() -> None:
    table = TABLE.assign(tier=tiers(TABLE, tested=True, rule="iqr"))
    assert list(highlights(table, 9).unit) == [1, 6, 2, 3, 0]  # strong: tree, door, tree again; weak: tree, sky
    assert list(highlights(table, 2).unit) == [1, 6]
    assert highlights(table.assign(labelled=False), 5).empty


def test_a_run_keeps_its_tiers_and_a_run_without_them_gets_the_same(go: Go) -> None:
    run = go(samples=60)
    assert set(run.units.tier) - {"position only", ""}, "the planted units are labelled"
    assert list(run.units.tier) == tiers(run.units, tested=True, rule="iqr")
    file = Path(run.folder) / "units.csv"
    pd.read_csv(file, keep_default_na=False).drop(columns="tier").to_csv(file, index=False)
    again = Dissection.load(run.folder)
    assert list(again.units.columns) == list(run.units.columns)
    assert list(again.units.tier) == list(run.units.tier)
