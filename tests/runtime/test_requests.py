"""Checks of what a call requests: the option, the value and what is allowed stand in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganatomy.dissect.runtime.requests import check_choice, check_integers, check_strength
from ganatomy.hooks.errors import UsageError


@settings(deadline=None)
@given(st.integers(), st.integers(-5, 5))
def test_integers_pass_from_their_limit_on(value: int, least: int) -> None:
    if value >= least:
        check_integers({"--samples": (value, least)})
        return
    with pytest.raises(UsageError, match=rf"samples={value}: .*{least}"):
        check_integers({"--samples": (value, least)})


def test_integers_of_numpy_and_options_left_out_pass() -> None:
    check_integers({"--seed": (np.int64(3), 0), "--batch-size": (None, 1)})


@pytest.mark.parametrize("value", [1.5, 64.0, "64", [64], float("nan"), np.float32(64)])
def test_what_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"samples=.*2"):
        check_integers({"--samples": (value, 2)})


def test_the_first_wrong_option_is_named() -> None:
    with pytest.raises(UsageError, match=r"top=0: .*1") as error:
        check_integers({"--seed": (0, 0), "--top": (0, 1), "--samples": (0, 2)})
    assert "\n" not in str(error.value)
    assert "--samples" not in str(error.value)


def test_a_choice_is_one_of_its_choices() -> None:
    check_choice("--by", "iou", ("iou", "scan"))
    check_choice("--by", "scan", iter(("iou", "scan")))  # an iterator is read once only
    for value in ("IOU", "", None, 3):
        with pytest.raises(UsageError, match=rf"by={value!r}: .*iou, scan"):
            check_choice("--by", value, iter(("iou", "scan")))


@pytest.mark.parametrize("strength", [1e-9, 0.5, 1])
def test_strengths_in_range_pass(strength: float) -> None:
    check_strength(strength)


@pytest.mark.parametrize("strength", [0, -0.5, 1.0001, float("nan"), float("inf")])
def test_strengths_out_of_range_are_refused(strength: float) -> None:
    with pytest.raises(UsageError, match=rf"strength={strength}: .*0 .*1"):
        check_strength(strength)
