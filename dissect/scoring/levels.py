"""Per-unit quantile levels from counts over 4,096 steps of a unit's activation.

The steps divide the range in which the levels lie, found beforehand from all float16 values of the unit's featuremaps:
a few outliers do not make them coarse, and what lies outside needs no exact value. Bilinear weights sum to one, so a
featuremap may be measured in steps before it is enlarged: on the grid, the whole part of a number is then its code
already, but for float32's rounding of a few thousandths of a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

STEPS = 4096
HIGHEST, LOWEST, COUNT = 0.001, 0.5, 64  # shares of pixels above the highest and the lowest level
BINS = 64  # of the histogram that is kept


def level_shares(quantile: float) -> list[float]:
    """The shares of pixels that lie above each level, descending: 64 from 50 % to 0.1 %, and `quantile` among them.

    >>> shares = level_shares(0.01)
    >>> len(shares), shares[0], round(shares[-1], 6), 0.01 in shares
    (64, 0.5, 0.001, True)
    """
    ratio = HIGHEST / LOWEST
    shares = [LOWEST * ratio ** (k / (COUNT - 1)) for k in range(COUNT)]
    shares[min(range(COUNT), key=lambda k: abs(math.log(shares[k] / quantile)))] = quantile
    return sorted(shares, reverse=True)


@dataclass(frozen=True)
class Scale:
    """How activations become codes: low and high bound the steps of each unit, (U,)."""

    low: Tensor
    high: Tensor

    def of(self, units: slice, device: torch.device) -> Scale:
        """The scale of a slice of the units, on a device."""
        return Scale(self.low[units].to(device), self.high[units].to(device))

    @property
    def _steps(self) -> Tensor:
        spread = self.high - self.low
        return torch.where(spread > 0, (STEPS - 1) / spread, 0.0)

    def measure(self, featuremaps: Tensor) -> Tensor:
        """featuremaps (N, U, h, w) -> float32 in steps, from 0.5 at low to 4,095.5 at high; others lie beyond."""
        return ((featuremaps - self.low[:, None, None]) * self._steps[:, None, None]).add_(0.5)

    def activation(self, codes: Tensor) -> Tensor:
        """codes (U, K), from 0 for every unit -> (U, K) float32: the activation where the next code begins.

        That is what lies strictly above the code lies at or above this activation. A constant unit has its constant.
        """
        steps = self._steps[:, None]
        return self.low[:, None] + torch.where(steps > 0, (codes + 0.5) / steps, 0.0)


@dataclass(frozen=True, kw_only=True)
class _Float16:
    """All 65,536 float16 in the order of their bits, from that of −32,768 as int16 on."""

    values: Tensor  # float32
    finite: Tensor  # bool
    ascending: Tensor  # positions of the values sorted by size

    ZERO = 2**15  # position of +0.0


@cache
def _float16(device: torch.device) -> _Float16:
    """The table, made at the first use on each device and kept."""
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16).float()
    ordered = values.nan_to_num(torch.inf, torch.inf, -torch.inf)  # NaN counts as the greatest
    ascending = ordered.argsort(stable=True)
    return _Float16(values=ordered.to(device), finite=values.isfinite().to(device), ascending=ascending.to(device))


def float16_codes(features: Tensor) -> Tensor:
    """featuremaps (N, U, h, w) float16 -> flat int32: which float16 it is, unit u's from u · 65,536 on."""
    start = torch.arange(features.shape[1], dtype=torch.int32, device=features.device) * 2**16 + 2**15
    return (features.view(torch.int16).int() + start[:, None, None]).flatten()


def float16_histogram(codes: Sequence[Tensor], units: int) -> Tensor:
    """flat codes -> (U, 65536) int64: how often each unit takes each float16."""
    return torch.bincount(torch.cat(list(codes)), minlength=units * 2**16).view(units, -1)


def broken_as_zero(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """histogram (U, 65536) -> the same with infinities and NaNs counted as zeros, and which units have none, (U,)."""
    finite = _float16(histogram.device).finite
    broken = histogram[:, ~finite].sum(1)
    histogram = histogram * finite
    histogram[:, _Float16.ZERO] += broken
    return histogram, broken == 0


def step_range(histogram: Tensor) -> tuple[Scale, Scale]:
    """histogram (U, 65536) -> the range in which the levels should lie, and the range of all values.

    The grid smooths: its levels lie within the featuremaps' 10 % and 99.95 % quantiles, almost always. Where these two
    are equal, the levels' range is that of all values.
    """
    table = _float16(histogram.device)
    below = _cumulative(histogram[:, table.ascending])
    total = int(below[0, -1])
    ranks = [0, int(0.1 * (total - 1)), math.ceil(0.9995 * (total - 1)), total - 1]
    least, low, high, greatest = table.values[table.ascending][_at_ranks(below, ranks)].unbind(1)
    is_wide = high > low
    return Scale(torch.where(is_wide, low, least), torch.where(is_wide, high, greatest)), Scale(least, greatest)


def widened(scale: Scale, full: Scale, codes: Tensor) -> Scale | None:
    """codes (U, K) of the levels in `scale` -> the scale with units widened to `full` whose levels touch its ends.

    A level in the first or last step may lie anywhere beyond it, unless nothing does. None: all levels lie inside.
    """
    outside = (codes.amin(1) == 0) & (scale.low > full.low)
    outside |= (codes.amax(1) == STEPS - 1) & (scale.high < full.high)
    if not outside.any():
        return None
    return Scale(torch.where(outside, full.low, scale.low), torch.where(outside, full.high, scale.high))


def binned(histogram: Tensor, full: Scale) -> Tensor:
    """histogram (U, 65536) -> (U, 64) int64 in bins of equal width over a unit's full range, its ends included."""
    spread, values = (full.high - full.low)[:, None], _float16(histogram.device).values
    bins = ((values - full.low[:, None]) / spread * BINS).nan_to_num(0).clamp(0, BINS - 1).long()
    return histogram.new_zeros(len(histogram), BINS).scatter_add_(1, bins, histogram)


def quantile_codes(histogram: Tensor, shares: Sequence[float]) -> Tensor:
    """histogram (U, 4096) of codes -> (U, K) codes, ascending for descending shares.

    The code of share q is the (1 − q) quantile in the sense of `torch.quantile(…, interpolation="lower")`: the order
    statistic of rank ⌊(1 − q)(n − 1)⌋, hence one that occurred. At most about q of the pixels lie above it.
    """
    total = int(histogram[0].sum())
    return _at_ranks(histogram.cumsum(1), [math.floor((1 - q) * (total - 1) + 1e-9) for q in shares])


def counts_above(counts: Tensor, codes: Tensor) -> Tensor:
    """counts (U, G, 4096) by code, codes (U, K) -> (U, G, K): how many lie strictly above each.

    >>> counts = torch.zeros(1, 1, 4096, dtype=torch.int64)
    >>> counts[0, 0, [3, 7]] = torch.tensor([10, 5])
    >>> counts_above(counts, torch.tensor([[2, 3, 7]])).tolist()
    [[[15, 5, 0]]]
    """
    above = counts.new_empty(*counts.shape[:2], codes.shape[1])
    for unit, unit_codes, unit_above in zip(counts, codes, above, strict=True):  # a unit's sums fit into a cache
        below = _cumulative(unit)
        torch.sub(below[:, -1:], below[:, unit_codes], out=unit_above)
    return above


def _cumulative(counts: Tensor) -> Tensor:
    """counts (…, n) -> their sums up to each."""
    return counts.cumsum(-1) if counts.is_cuda else torch.from_numpy(counts.numpy().cumsum(-1))  # faster on a CPU


def _at_ranks(below: Tensor, ranks: Sequence[int]) -> Tensor:
    """below (U, n), how many lie up to each step -> (U, R) the steps at which the ranks, from 0, are reached."""
    repeated = torch.tensor(ranks, device=below.device).expand(len(below), -1).contiguous()
    return torch.searchsorted(below, repeated, right=True)
