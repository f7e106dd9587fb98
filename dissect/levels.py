"""Per-unit quantile levels from a histogram of 65,536 steps between a unit's lowest and highest activation.

One step is finer than float16, in which the activations are spooled, for all but the smallest of them. Bilinear
weights sum to one, so a featuremap may be measured in steps before it is enlarged: on the grid, the whole part of a
number is then its code already, but for float32's rounding of a tenth of a step. Codes of unit u start at
u · 65,536, ready for one `bincount` over many units, and memory does not depend on the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 65536
HIGHEST, LOWEST, COUNT = 0.001, 0.5, 64  # shares of pixels above the highest and the lowest level


def level_shares(quantile: float) -> list[float]:
    """The shares of pixels that lie above each level, descending: 64 from 50 % to 0.1 %, and `quantile` among them."""
    ratio = HIGHEST / LOWEST
    shares = [LOWEST * ratio ** (k / (COUNT - 1)) for k in range(COUNT)]
    shares[min(range(COUNT), key=lambda k: abs(math.log(shares[k] / quantile)))] = quantile
    return sorted(shares, reverse=True)


@dataclass(frozen=True)
class Scale:
    """How activations of some units become codes: low and high are the least and greatest of each unit, (U,)."""

    low: Tensor
    high: Tensor

    @property
    def _steps(self) -> Tensor:
        spread = self.high - self.low
        return torch.where(spread > 0, (STEPS - 1) / spread, 0.0)

    def measure(self, featuremaps: Tensor) -> Tensor:
        """featuremaps (N, U, h, w) -> float32 in steps, unit u's between 65,536 u + 0.5 and 65,536 (u + 1) − 0.5."""
        start = torch.arange(len(self.low)) * STEPS + 0.5
        return ((featuremaps - self.low[:, None, None]) * self._steps[:, None, None]).add_(start[:, None, None])

    def activation(self, codes: Tensor) -> Tensor:
        """codes (U, K), from 0 for every unit -> (U, K) float32: the activation where the next code begins.

        That is what lies strictly above the code lies at or above this activation. A constant unit has its constant.
        """
        steps = self._steps[:, None]
        return self.low[:, None] + torch.where(steps > 0, (codes + 0.5) / steps, 0.0)


def histogram(codes: Tensor, units: int) -> Tensor:
    """int32 codes of any shape -> (U, 65536) int64: how often each unit takes each code."""
    return torch.bincount(codes.flatten(), minlength=units * STEPS).reshape(units, STEPS)


def quantile_codes(histogram: Tensor, shares: Sequence[float]) -> Tensor:
    """histogram (U, 65536) -> (U, K) codes, ascending for descending shares.

    The code of share q is the (1 − q) quantile in the sense of `torch.quantile(…, interpolation="lower")`: the order
    statistic of rank ⌊(1 − q)(n − 1)⌋, hence one that occurred. At most about q of the pixels lie above it.
    """
    total = int(histogram[0].sum())
    ranks = torch.tensor([math.floor((1 - q) * (total - 1) + 1e-9) for q in shares])
    return torch.searchsorted(histogram.cumsum(1), ranks.expand(len(histogram), -1).contiguous(), right=True)


def level_table(codes: Tensor) -> Tensor:
    """codes (U, K) -> (U, 65536) uint8: for every code, how many of the levels lie strictly below it."""
    # one lookup a pixel afterwards, instead of one search a pixel
    steps = torch.zeros(len(codes), STEPS + 1, dtype=torch.uint8)
    steps.scatter_add_(1, codes + 1, torch.ones_like(codes, dtype=torch.uint8))
    return steps.cumsum(1, dtype=torch.uint8)[:, :STEPS]
