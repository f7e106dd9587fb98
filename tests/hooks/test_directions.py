"""Directions made to read other values, against numpy's least squares, position by position."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganatomy.dissect.interventions.areas import Variants
from ganatomy.hooks.directions import readings, set_readings

N, U, K, H, W = 4, 9, 5, 2, 3
PLAIN, NON_NEGATIVE, NEARLY_PARALLEL = "plain", "non-negative", "nearly parallel"


def unit_rows(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def some_directions(kind: str = PLAIN) -> Tensor:
    rows = torch.randn(K, U, generator=torch.Generator().manual_seed(1))
    if kind == NON_NEGATIVE:
        rows = rows.abs() + 0.5  # cosines of about 0.9
    if kind == NEARLY_PARALLEL:
        rows[1] = rows[0] + 0.02 * rows[1]
    return unit_rows(rows)


def some_maps(samples: int = N) -> Tensor:
    return torch.randn(samples, U, H, W, generator=torch.Generator().manual_seed(samples))


def least_change(directions: Tensor, members: list[int], a: Tensor, wanted: Tensor) -> NDArray[np.float64]:
    """(U,) the featuremaps at a position after the least change that solves D a' = wanted, by numpy."""
    rows = directions[members].double().numpy()
    missing = wanted.double().numpy() - rows @ a.double().numpy()
    return a.double().numpy() + np.linalg.lstsq(rows, missing, rcond=1e-3)[0]


@pytest.mark.parametrize("kind", [PLAIN, NON_NEGATIVE, NEARLY_PARALLEL])
@pytest.mark.parametrize("members", [[0], [0, 1], [4, 1, 0, 3, 2]], ids=len)
def test_the_change_is_the_least_one_that_gives_the_readings(kind: str, members: list[int]) -> None:
    directions, x, value = some_directions(kind), some_maps(), torch.arange(K) - 1.5
    weight = torch.zeros(1, 1, K)
    weight[0, 0, members] = 1
    after = set_readings(x, value[:, None, None], weight, None, directions)[0]
    read = readings(after, directions)[:, members]
    scale = 1e-2 if kind == NEARLY_PARALLEL and len(members) > 1 else 1e-5  # float32 maps of a hundred times the size
    torch.testing.assert_close(read, value[members][:, None, None].expand_as(read), atol=scale, rtol=0)
    for n in range(N):
        for i in range(H):
            for j in range(W):
                truth = least_change(directions, members, x[n, :, i, j], value[members])
                np.testing.assert_allclose(after[n, :, i, j], truth, rtol=1e-3, atol=1e-4)


def test_ablating_orthonormal_directions_removes_the_projection() -> None:
    basis = torch.linalg.qr(torch.randn(U, U, generator=torch.Generator().manual_seed(3))).Q[:K]
    x, weight = some_maps(), torch.ones(1, 1, K)
    after = set_readings(x, torch.zeros(K, 1, 1), weight, None, basis)[0]
    torch.testing.assert_close(after, x - torch.einsum("ku,kv,nvhw->nuhw", basis, basis, x))
    torch.testing.assert_close(readings(after, basis), torch.zeros(N, K, H, W), atol=1e-6, rtol=0)


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_directions_that_depend_on_each_other_come_as_near_as_they_can(noise: float) -> None:
    directions = some_directions()
    directions[1] = directions[0] + noise * directions[1]
    value = torch.tensor([1.0, 3.0, 0, 0, 0])
    weight = torch.tensor([1.0, 1, 0, 0, 0])[None, None]
    after = set_readings(some_maps(), value[:, None, None], weight, None, directions)[0]
    torch.testing.assert_close(readings(after, directions)[:, :2], torch.full((N, 2, H, W), 2.0))
    assert after.abs().max() < 10


def test_soft_weights_and_positions_pull_a_part_of_the_way() -> None:
    directions, x, value = some_directions(NON_NEGATIVE), some_maps(), torch.arange(K)[:, None, None] + 1.0
    dice = torch.Generator().manual_seed(5)
    weight, place = torch.rand(3, 1, K, generator=dice), torch.rand(3, N, 1, H, W, generator=dice)
    weight[1], place[2, :, :, 0] = 0, 0
    after = set_readings(x, value, weight, place, directions)
    pull, before = weight[..., None, None] * place, readings(x, directions)
    for way in (0, 2):
        wanted = (1 - pull[way]) * before + pull[way] * value
        torch.testing.assert_close(readings(after[way], directions), wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(after[1], x)
    assert torch.equal(after[2, :, :, 0], x[:, :, 0])


def test_what_is_not_finite_counts_as_zero_where_it_is_changed_and_stays_elsewhere() -> None:
    directions, x = some_directions(), some_maps()
    x[0, 2, 0, 0], x[1, 3, 1, 2], x[1, 3, 0, 2] = math.nan, math.inf, -math.inf
    clean, place = x.nan_to_num(0, 0, 0), torch.ones(1, 1, 1, H, W)
    place[..., 1, :] = 0
    changed = set_readings(x, torch.ones(K, 1, 1), torch.ones(1, 1, K), place, directions)[0]
    torch.testing.assert_close(readings(changed, directions)[:, :, 0], torch.ones(N, K, W), atol=1e-5, rtol=0)
    assert torch.equal(changed[:, :, 1], x[:, :, 1])
    for n, i, j in ((0, 0, 0), (1, 0, 2)):
        truth = least_change(directions, list(range(K)), clean[n, :, i, j], torch.ones(K))
        np.testing.assert_allclose(changed[n, :, i, j], truth, atol=1e-5)
    nothing = set_readings(x, torch.ones(K, 1, 1), torch.zeros(1, 1, K), None, directions)[0]
    assert torch.equal(nothing.nan_to_num(7), x.nan_to_num(7))


@pytest.mark.parametrize("weighted", [1, N], ids=["one weight", "weight a sample"])
@pytest.mark.parametrize("placed", [None, (1, 1), (3, N), (6, 1)], ids=str)
@pytest.mark.parametrize("donated", [False, True], ids=["value", "donors"])
def test_variants_of_directions_change_what_least_squares_do(
    weighted: int, placed: tuple[int, int] | None, donated: bool
) -> None:
    variants_count = 6
    dice = torch.Generator().manual_seed(0)
    directions, x, others = some_directions(), some_maps(), torch.randn(N, U, H, W, generator=dice)
    value = torch.randn(K, generator=dice)
    weight = torch.rand(variants_count, weighted, K, generator=dice).round()
    place = None if placed is None else torch.rand(*placed, H, W, generator=dice).round()
    variants = Variants(
        weight=weight, value=None if donated else value, place=place, donors=range(N), directions=directions
    )
    for some, rows in ((slice(0, 6), slice(0, N)), (slice(2, 5), slice(1, 3)), (slice(5, 6), slice(3, 4))):
        layout = torch.channels_last if rows.start else torch.contiguous_format
        given = x[rows].contiguous(memory_format=layout)
        changed = variants.apply(given, others[rows] if donated else None, some, rows)
        assert changed.is_contiguous(memory_format=layout)
        truth = torch.stack([x[n] for _ in range(6)[some] for n in range(N)[rows]])
        samples = len(range(N)[rows])
        for row in range(len(truth)):
            v, n = some.start + row // samples, rows.start + row % samples
            members = weight[v, n % weighted].nonzero()[:, 0].tolist()
            for i in range(H):
                for j in range(W):
                    if members and (place is None or place[v % len(place), n % place.shape[1], i, j]):
                        wanted = (directions @ others[n, :, i, j] if donated else value)[members]
                        after = least_change(directions, members, x[n, :, i, j], wanted)
                        truth[row, :, i, j] = torch.from_numpy(after)
        torch.testing.assert_close(changed, truth, atol=2e-5, rtol=1e-4)


def test_the_units_themselves_as_directions_are_the_units() -> None:
    x, value = some_maps(), torch.randn(U, generator=torch.Generator().manual_seed(2))
    weight = torch.rand(4, 1, U, generator=torch.Generator().manual_seed(3))
    weight[:2] = weight[:2].round()
    units = Variants(weight=weight, value=value)
    same = Variants(weight=weight, value=value, directions=torch.eye(U))
    every = slice(0, 4), slice(0, N)
    torch.testing.assert_close(same.apply(x, None, *every), units.apply(x, None, *every))
    ablated = Variants(weight=weight[:2], value=torch.zeros(U), directions=torch.eye(U))
    hard = Variants(weight=weight[:2], value=torch.zeros(U)).apply(x, None, slice(0, 2), every[1])
    assert torch.equal(ablated.apply(x, None, slice(0, 2), every[1]), hard)
