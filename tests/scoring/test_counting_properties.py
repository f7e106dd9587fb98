"""Levels and packed counts of any small input against loops and torch.quantile."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ganatomy.dissect.scoring.candidate_classes import joint_counts, occupied
from ganatomy.dissect.scoring.levels import (
    STEPS,
    Scale,
    broken_as_zero,
    counts_above,
    float16_codes,
    float16_histogram,
    level_shares,
    quantile_codes,
    step_range,
    widened,
)

untimed = settings(deadline=None, max_examples=50)  # a first call loads and compiles

CODES = arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(2, 40)), elements=st.integers(0, STEPS - 1))
FLOAT16 = st.floats(width=16, allow_nan=False, allow_infinity=False)


def histogram_of(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.bincount(unit, minlength=STEPS) for unit in codes]))


@untimed
@given(st.floats(0.0005, 0.6))
def test_the_quantile_is_among_the_shares_of_the_levels(quantile: float) -> None:
    shares = level_shares(quantile)
    assert len(shares) == 64
    assert quantile in shares
    assert shares == sorted(shares, reverse=True)


@untimed
@given(CODES, st.lists(st.sampled_from([0.5, 0.3, 0.1, 0.01]), min_size=1, max_size=4, unique=True))
def test_level_codes_are_lower_quantiles(codes: np.ndarray, shares: list[float]) -> None:
    levels = quantile_codes(histogram_of(codes), shares)
    probabilities = [1 - share + 1e-12 for share in shares]  # a rank that is whole must not be rounded down
    truth = np.quantile(codes, probabilities, axis=1, method="lower").T
    assert levels.tolist() == truth.tolist()


@untimed
@given(CODES, st.data())
def test_counts_above_a_code_are_counted_one_by_one(codes: np.ndarray, data: st.DataObject) -> None:
    levels = data.draw(arrays(np.int64, (len(codes), 3), elements=st.integers(0, STEPS - 1)))
    above = counts_above(histogram_of(codes)[:, None], torch.from_numpy(levels))[:, 0]
    for unit, level in itertools.product(range(len(codes)), range(3)):
        assert above[unit, level] == sum(code > levels[unit, level] for code in codes[unit])


@untimed
@given(arrays(np.float16, st.tuples(st.integers(1, 5), st.integers(1, 3), st.just(2), st.just(2)), elements=FLOAT16))
def test_the_range_of_steps_is_that_of_the_sorted_values(features: np.ndarray) -> None:
    units = features.shape[1]
    histogram = float16_histogram([float16_codes(torch.from_numpy(features.copy()))], units)
    histogram, finite = broken_as_zero(histogram)
    assert finite.all()
    assert (histogram.sum(1) == features[:, 0].size).all()
    scale, full = step_range(histogram)
    for unit in range(units):
        ordered = np.sort(features[:, unit].astype(np.float64).ravel())
        last = len(ordered) - 1
        low, high = ordered[int(0.1 * last)], ordered[int(np.ceil(0.9995 * last))]
        assert (float(full.low[unit]), float(full.high[unit])) == (ordered[0], ordered[-1])
        expected = (low, high) if high > low else (ordered[0], ordered[-1])
        assert (float(scale.low[unit]), float(scale.high[unit])) == expected


def test_only_units_whose_levels_touch_an_end_are_widened() -> None:
    scale = Scale(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0, 2.0, 5.0]))
    full = Scale(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([5.0, 5.0, 5.0]))
    wider = widened(scale, full, torch.tensor([[0, 9], [1, 9], [0, STEPS - 1]]))
    assert wider is not None
    assert wider.low.tolist() == [0, 1, 0]
    assert wider.high.tolist() == [5, 2, 5]
    assert widened(wider, full, torch.tensor([[0, 9], [1, 9], [0, STEPS - 1]])) is None


@untimed
@given(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)), st.integers(1, 30), st.data())
def test_joint_counts_count_every_combination(shape: tuple[int, int, int], pixels: int, data: st.DataObject) -> None:
    a, b, c = (
        torch.from_numpy(data.draw(arrays(np.int32, pixels, elements=st.integers(0, size - 1)))) for size in shape
    )
    buffer = torch.empty(pixels, dtype=torch.int32)
    counts = joint_counts(c.float(), a * shape[1] * shape[2], b * shape[2], shape=shape, buffer=buffer)
    for combination in itertools.product(*map(range, shape)):
        matches = sum(tuple(map(int, pixel)) == combination for pixel in zip(a, b, c, strict=True))
        assert counts[combination] == matches


@untimed
@given(arrays(np.int64, (2, 2, 5), elements=st.integers(0, 4)))
def test_a_class_occupies_a_pixel_in_any_plane(names: np.ndarray) -> None:
    maps = occupied(torch.from_numpy(names).float(), torch.arange(4))
    for number in range(4):
        assert maps[number].tolist() == (names == number).any(1).tolist()
