"""The tables of an intervention against cases worked by hand.

Of two images, a bootstrap draws the one alone in a quarter of its samples, and the other alone in a quarter: the 95 %
interval goes from the one's value to the other's, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from ganatomy.dissect.interventions.layout import Outcome
from ganatomy.dissect.interventions.tables import context_table, curve_table, sets_table
from ganatomy.dissect.stats.class_changes import Floats, effects_table

NAN = math.nan
NAMES = ("sky", "tree")  # there is no tree
BEFORE = np.array([[0.5, 0, 0.5], [0.25, 0, 0.75]])  # sky, tree, unlabelled of two images
CHOSEN = [[-0.25, 0, 0.25], [-0.0625, 0, 0.0625]]


def outcome(
    kind: str,
    change: object,
    number: int = 0,
    units: Sequence[int] = (3, 1),
    changed: Sequence[float] = (0.5, 0.25),
    on_target: Sequence[float] = (0.25, 0.25),
    before: Floats = BEFORE,
) -> Outcome:
    return Outcome(
        kind=kind,
        number=number,
        units=tuple(units),
        after=before + np.array(change, float),
        changed=np.array(changed),
        on_target=np.array(on_target),
    )


def test_effects_of_two_images() -> None:
    table = effects_table(BEFORE, [outcome("chosen", CHOSEN)], NAMES)
    truth = {
        "before": [0.375, 0, 0.625],
        "after": [0.21875, 0, 0.78125],
        "change_pp": [-15.625, 0, 15.625],
        "change_pp_low": [-25, 0, 6.25],
        "change_pp_high": [-6.25, 0, 25],
        "relative": [-0.3125 / 0.75, NAN, 0.3125 / 1.25],
        "relative_low": [-0.5, NAN, 0.0625 / 0.75],
        "relative_high": [-0.25, NAN, 0.5],
    }
    assert table["class"].tolist() == ["sky", "tree", "unlabelled"]
    for column, values in truth.items():
        np.testing.assert_allclose(table[column], values, err_msg=column)
    assert table.p_value.tolist() == pytest.approx([0.5, 1, 0.5], abs=0.02)  # 2 of 4 sign patterns
    assert table.q_value.tolist() == pytest.approx([0.75, 1, 0.75], abs=0.03)
    assert not table.changed.any()
    assert not [column for column in table.columns if "random" in column or "matched" in column]


def test_a_class_that_changes_in_every_image_is_called_changed() -> None:
    before = np.tile([0.5, 0.25, 0.25], (12, 1))
    change = np.zeros((12, 3))
    change[:, 0] = -np.arange(1, 13) / 64
    change[::2, 2], change[1::2, 2] = 0.125, -0.125
    table = effects_table(before, [outcome("chosen", change, before=before)], NAMES)
    assert table.changed.tolist() == [True, False, False]
    assert table.p_value[0] == pytest.approx(2 / 2**12, abs=6e-4)
    assert table.q_value[0] == pytest.approx(3 * table.p_value[0])  # the least of three
    assert table.p_value[1:].tolist() == table.q_value[1:].tolist() == [1, 1]
    change[:, :] = 0
    change[:6, 0] = 0.125
    table = effects_table(before, [outcome("chosen", change, before=before)], NAMES)
    assert table.p_value[0] == pytest.approx(2 / 2**6, abs=8e-3)  # would do alone, but is the best of three
    assert table.changed.tolist() == [False] * 3


def test_baselines_have_mean_least_and_greatest() -> None:
    sets = [
        outcome("chosen", CHOSEN),
        outcome("random", [[-0.125, 0, 0.125], [0, 0, 0]]),
        outcome("random", [[-0.25, 0.25, 0], [0.375, 0, -0.375]], number=1),
        outcome("matched", [[-0.25, 0, 0.25], [-0.25, 0, 0.25]]),
        outcome("by_iou", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]),  # no baseline
    ]
    table = effects_table(BEFORE, sets, NAMES)
    truth = {
        "random_pp": [0, 6.25, -6.25],
        "random_pp_min": [-6.25, 0, -18.75],
        "random_pp_max": [6.25, 12.5, 6.25],
        "random_relative": [0, NAN, -0.1],
        "random_relative_min": [-0.125 / 0.75, NAN, -0.3],
        "random_relative_max": [0.125 / 0.75, NAN, 0.1],
        "matched_pp": [-25, 0, 25],
        "matched_pp_min": [-25, 0, 25],
        "matched_pp_max": [-25, 0, 25],
        "matched_relative": [-0.5 / 0.75, NAN, 0.4],
    }
    for column, values in truth.items():
        np.testing.assert_allclose(table[column], values, atol=1e-15, err_msg=column)
    assert not [column for column in table.columns if "iou" in column]


@pytest.mark.parametrize(
    ("chosen", "random", "matched", "beyond"),
    [
        ((-0.5, -0.25), (0.0, -0.125), (), True),
        ((0.25, 0.5), (0.0, 0.125), (-0.5,), True),
        ((-0.5, -0.25), (0.0, -0.375), (), False),  # one lies inside
        ((-0.5, -0.25), (0.0,), (-0.375,), False),
        ((-0.5, -0.25), (0.0, -0.75), (), False),  # none lies inside, but between them
        ((-0.5, -0.25), (0.0,), (-0.75,), False),
        ((-0.5, -0.25), (-0.25,), (), False),  # just at its end
        ((-0.5, -0.25), (-0.5,), (), False),
        ((0.0, 0.0), (0.0,), (), False),
    ],
)
def test_beyond_random_is_where_the_interval_is_clear_of_all_baselines(
    chosen: tuple[float, float], random: Sequence[float], matched: Sequence[float], beyond: bool
) -> None:
    before = np.array([[0.75, 0.25], [0.75, 0.25]])

    def by(kind: str, first: float, second: float) -> Outcome:
        return outcome(kind, [[first, 0], [second, 0]], before=before)

    # baselines vary over images; what counts is their mean
    baselines = [by("random", c - 1, c + 1) for c in random] + [by("matched", c + 1, c - 1) for c in matched]
    table = effects_table(before, [by("chosen", *chosen), *baselines], ["sky"])
    assert table.beyond_random.tolist() == [beyond, False]


def test_images_in_which_a_baseline_was_not_tried_are_left_out() -> None:
    sets = [outcome("chosen", CHOSEN), outcome("random", [[-0.125, 0.25, -0.125], [NAN] * 3])]
    table = effects_table(BEFORE, sets, NAMES)
    assert table.random_pp.tolist() == [-12.5, 25, -12.5]
    np.testing.assert_allclose(table.random_relative, [-0.25, NAN, -0.25])  # of the first image's area alone
    assert table.change_pp.tolist() == [-15.625, 0, 15.625]


def test_sets_of_units_side_by_side() -> None:
    third = np.array([[0.25, 0.5, 0.25]])
    before = np.concatenate([BEFORE, third])
    nothing = [0.0, 0.0, 0.0]
    sets = [
        outcome("chosen", [*CHOSEN, nothing], before=before, changed=(0.5, 0.25, 0.25), on_target=(0.25, 0.25, 0)),
        outcome(
            "random",
            [[-0.125, 0, 0.125], [0.25, 0, -0.25], [NAN] * 3],
            number=1,
            units=(7,),
            changed=(0.125, 0.25, NAN),
            on_target=(0.125, 0.125, NAN),
            before=before,
        ),
        outcome("matched", [nothing] * 3, changed=nothing, on_target=nothing, before=before),
        outcome(
            "matched",
            [[-0.125, 0, 0.125], [NAN] * 3, [NAN] * 3],
            number=1,
            changed=(0.25, NAN, NAN),
            on_target=(0.125, NAN, NAN),
            before=before,
        ),
    ]
    table = sets_table(before, sets, target=0)
    assert table["set"].tolist() == ["chosen", "random", "matched", "matched"]
    assert table["number"].tolist() == [0, 1, 0, 1]
    assert table["size"].tolist() == [2, 1, 2, 2]
    assert table["members"].tolist() == ["3 1", "7", "3 1", "3 1"]
    assert (table.dtypes.drop(["set", "number", "size", "members"]) == np.float64).all()
    truth = {
        "change_pp": [-31.25 / 3, 6.25, 0, -12.5],
        "change_pp_low": [
            None,
            -12.5,
            0,
            -12.5,
        ],  # with one of three images unknown, either other one is drawn alone often
        "change_pp_high": [None, 25, 0, -12.5],
        "relative": [-0.3125, 0.125 / 0.75, 0, -0.25],
        "relative_low": [None, -0.25, 0, -0.25],
        "relative_high": [None, 1, 0, -0.25],
        "changed_pixels": [1 / 3, 0.1875, 0, 0.25],
        "on_target": [0.5, 0.25 / 0.375, NAN, 0.5],
        "on_target_low": [None, 0.5, NAN, 0.5],
        "on_target_high": [None, 1, NAN, 0.5],
    }
    for column, values in truth.items():
        for found, value in zip(table[column], values, strict=True):
            if value is not None:
                assert found == pytest.approx(value, nan_ok=True), column


def test_on_target_goes_from_the_one_image_to_the_other() -> None:
    (row,) = sets_table(BEFORE, [outcome("chosen", CHOSEN)], target=0).to_dict("records")
    assert row["on_target"] == pytest.approx(0.5 / 0.75)  # not the mean of the images' shares, 0.75
    assert (row["on_target_low"], row["on_target_high"]) == (0.5, 1)
    assert (row["change_pp"], row["change_pp_low"], row["change_pp_high"]) == (-15.625, -25, -6.25)
    assert (row["relative_low"], row["relative_high"]) == (-0.5, -0.25)


def test_without_a_target_a_set_has_its_changed_pixels() -> None:
    table = sets_table(BEFORE, [outcome("chosen", CHOSEN)], target=None)
    assert list(table.columns) == ["set", "number", "size", "changed_pixels", "members"]
    assert table.changed_pixels[0] == 0.375


def test_a_curve_of_what_remains() -> None:
    steps = [
        outcome("chosen", [[-0.5, 0, 0.5], [-0.1875, 0, 0.1875]], units=range(40)),
        outcome("random", [[-0.25, 0, 0.25], [0, 0, 0]], units=range(40)),
        outcome("random", [[0.25, 0, 0], [0.25, 0, 0]], number=1, units=range(40)),
        outcome("random", [[0, 0, 0], [-0.25, 0, 0]], units=(3,)),
        outcome("chosen", CHOSEN, units=(1,)),
        outcome("chosen", [[0, 0, 0], [0, 0, 0]], units=range(9)),
    ]
    table = curve_table(BEFORE, steps, target=0)
    truth = {
        "units": [1, 9, 40],
        "remaining": [0.4375 / 0.75, 1, 0.0625 / 0.75],
        "low": [0.5, 1, 0],
        "high": [0.75, 1, 0.25],
        "random": [0.5 / 0.75, NAN, (0.5 / 0.75 + 1.25 / 0.75) / 2],
        "random_min": [0.5 / 0.75, NAN, 0.5 / 0.75],
        "random_max": [0.5 / 0.75, NAN, 1.25 / 0.75],
    }
    assert list(table.columns) == list(truth)
    assert (table.dtypes.drop("units") == np.float64).all()
    for column, values in truth.items():
        np.testing.assert_allclose(table[column], values, atol=1e-15, err_msg=column)
    alone = curve_table(BEFORE, [outcome("chosen", CHOSEN, units=(1,))], target=1)  # no tree to remain
    assert list(alone.columns) == ["units", "remaining", "low", "high"]
    assert alone.loc[0, ["remaining", "low", "high"]].isna().all()


def test_effects_by_what_was_there_before() -> None:
    cells = np.array(
        [
            [[[0, -1]], [[1, 1]], [[-1, -1]]],  # sky over tree, nothing over tree
            [[[-1, 0]], [[-1, 0]], [[-1, -1]]],  # nothing, sky in both planes
        ],
        np.int16,
    )
    change = np.array([[0.5, 0.125], [-0.25, 0.25]])  # (cells, images)
    random = np.array([[0.25, 0], [0, -0.125]])
    table = context_table(change, random, cells, ["sky", "tree", "car"])
    truth = {
        "places": [2, 2, 2],
        "images": [2, 1, 2],
        "change_pp": [37.5, 12.5, -6.25],
        "low": [25, 12.5, -25],
        "high": [50, 12.5, 12.5],
        "cells": [0.75, 0.25, -0.125],  # a cell is half of the image
        "random_pp": [6.25, 12.5, 0],
    }
    assert table["class"].tolist() == ["sky", "tree", "unlabelled"]
    for column, values in truth.items():
        assert table[column].tolist() == values, column
    assert table.p_value.tolist() == pytest.approx([0.5, 1, 1], abs=0.02)
    assert (table.q_value == 1).all()
    assert list(table.columns).index("q_value") == list(table.columns).index("p_value") + 1
    assert "random_pp" not in context_table(change, None, cells, ["sky", "tree", "car"])


def test_more_places_of_the_same_images_make_nothing_surer() -> None:
    change = np.random.default_rng(0).normal(0.05, 0.2, (1, 30))
    once = context_table(change, None, np.zeros((30, 1, 1, 1), np.int16), ["sky"])
    often = context_table(change.repeat(16, 0), None, np.zeros((30, 1, 4, 4), np.int16), ["sky"])
    assert once.places[0] * 16 == often.places[0] == 480
    assert often.images[0] == 30
    columns = ["change_pp", "low", "high", "p_value", "q_value"]
    assert (often.dtypes[columns] == np.float64).all()
    np.testing.assert_allclose(often[columns], once[columns], rtol=1e-9)
    assert once.high[0] - once.low[0] == pytest.approx(2 * 1.96 * change.std() * 100 / math.sqrt(30), rel=0.1)


def test_context_intervals_draw_whole_images() -> None:
    """Against a bootstrap written out, in which images have more or fewer places of a class."""
    dice = np.random.default_rng(1)
    cells = dice.integers(-1, 3, (40, 1, 3, 3)).astype(np.int16)
    cells[:10] = 1
    change = dice.normal(size=(9, 40)) * 0.1 + dice.normal(size=40) * 0.2
    table = context_table(change, None, cells, ["a", "b", "c"]).set_index("class")
    for number, name in ((0, "a"), (1, "b"), (-1, "unlabelled")):
        drawn = []
        for _ in range(2000):
            images = dice.integers(0, 40, 40)
            here = cells[images].reshape(40, 9) == number
            drawn.append(change.T[images][here].mean() * 100)
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert table.low[name] == pytest.approx(low, abs=0.12 * (high - low))
        assert table.high[name] == pytest.approx(high, abs=0.12 * (high - low))
        assert table.change_pp[name] == pytest.approx(change.T[cells.reshape(40, 9) == number].mean() * 100)
