"""Intervals of distances between sets of images, by subsampling."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from ..runtime.random_streams import HALVES, bits

ROUNDS, FEW_ROUNDS, WIDE = 50, 10, 512  # halves; of features wider than WIDE, whose roots take long
LEVEL = 0.95


def rounds(width: int) -> int:
    """How many halves are drawn for features of D = width."""
    return ROUNDS if width <= WIDE else FEW_ROUNDS


def halves(count: int, others: int, number: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Rows of a random half of the images, and of the reference; the same for every set."""
    orders = [
        bits((number, size), seed, HALVES, place).argsort(1, kind="stable")
        for place, size in enumerate((count, others))
    ]
    mine, theirs = (torch.from_numpy(order[:, : order.shape[1] // 2]) for order in orders)
    return list(zip(mine, theirs, strict=True))


def around(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """values (1 + rounds,), the whole first -> the ends of the interval around it."""
    reach = stats.t.ppf((1 + level) / 2, len(values) - 2) * values[1:].std(ddof=1)
    return float(values[0] - reach), float(values[0] + reach)
