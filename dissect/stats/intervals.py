"""Intervals of distances between sets of images, by subsampling."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from ..runtime.random_streams import HALVES, bits

ROUNDS, FEW_ROUNDS = 50, 10  # halves; of features wider than WIDE, whose matrix roots take long
WIDE = 512
LEVEL = 0.95


def rounds(width: int) -> int:
    """How many halves are drawn for features of D = width."""
    return ROUNDS if width <= WIDE else FEW_ROUNDS


def halves(count: int, others: int, number: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """`number` random halves of `count` images, each beside one of `others` reference images: their rows.

    A pure function of its arguments, so that all sets of images are compared on the same halves.

    >>> [(len(images), len(reference)) for images, reference in halves(10, 7, 2, seed=0)]
    [(5, 3), (5, 3)]
    """
    orders = [
        bits((number, size), seed, HALVES, column).argsort(1, kind="stable")
        for column, size in enumerate((count, others))
    ]
    of_images, of_reference = (torch.from_numpy(order[:, : order.shape[1] // 2]) for order in orders)
    return list(zip(of_images, of_reference, strict=True))


def t_factor(freedom: int, level: float = LEVEL) -> float:
    """How many standard errors the two-sided interval of `level` reaches, by Student's t.

    >>> round(t_factor(49), 3)
    2.01
    """
    return float(stats.t.ppf((1 + level) / 2, freedom))


def around(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """values (1 + rounds,), of all images and then of their halves -> the ends of the interval around the first.

    >>> low, high = around(np.array([1.0, 0.9, 1.1, 1.0]))
    >>> round(low, 3), round(high, 3)
    (0.57, 1.43)
    """
    reach = t_factor(len(values) - 2, level) * values[1:].std(ddof=1)
    return float(values[0] - reach), float(values[0] + reach)
