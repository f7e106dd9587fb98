"""The mean log power spectrum of images, and the peaks in it that the grid of an upsampling layer makes.

A grid of P pixels has its power at the frequencies (j/P, k/P). How far such a bin stands out is measured against its
neighbours: with S the log power and two bins' distance,

    excess = S(u, v) − max(mean of S(u ± 2, v), mean of S(u, v ± 2)),

so that a peak must rise above its row and above its column. Ridges along the axes, which horizons and walls make, do
not; nor does the bottom of a valley, which nearest-neighbour upsampling makes at the very frequencies in question.
Images are weighted by a Hann window, so that their borders leak no power, and the power of rounding to 8 bits is added,
since nothing below it can be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from ..runtime import distributed
from ..stats.intervals import t_factor

REACH = 2  # bins from a peak to the neighbours it is measured against: the window spreads it by one
RING = 8  # bins on either side of a peak: the excesses in this ring say what is usual
SPACING = (
    8  # bins, at least, between the frequencies of a grid, for its peaks to be distinguished from their neighbours
)
ROUNDING = 1 / 12 / 255**2  # mean square of rounding to 8 bits
SCALE = 1.4826  # from a median absolute deviation to a standard deviation
LEAST_Z = 4.0  # of a peak
MOST = 4096  # bins without a grid that peaks are compared with
LEAST_SPREAD = 0.05  # dB: smaller ones count as this, so that nothing stands out of a spectrum that is flat by rounding
DECIBEL = 10 / math.log(10)
HIGH = 0.25  # cycles a pixel: where the upper octave begins
LEVEL = 0.95


def log_power(images: Tensor) -> Tensor:
    """images (N, C, H, W) in [0, 1] -> log power (N, H, W) in dB, channels summed, bins as of `torch.fft.fft2`."""
    height, width = images.shape[2:]
    window = torch.hann_window(height).to(images)[:, None] * torch.hann_window(width).to(images)
    centred = images - images.mean((2, 3), keepdim=True)
    power = torch.fft.fft2(centred * window).abs().square().sum(1)
    return DECIBEL * torch.log(power + ROUNDING * images.shape[1] * window.square().sum())


def contrasts(log: Tensor) -> Tensor:
    """log power (…, H, W) -> (2, …, H, W): each bin less the mean of its neighbours in its column, and in its row.

    >>> log = torch.zeros(8, 8)
    >>> log[4, 4] = 6
    >>> contrasts(log)[:, 4, 4]
    tensor([6., 6.])
    """
    return torch.stack([log - (log.roll(REACH, axis) + log.roll(-REACH, axis)) / 2 for axis in (-2, -1)])


@dataclass
class Spectrum:
    """Sums over images, in dB; memory does not grow with their number."""

    count: int = 0
    log: Tensor = field(default_factory=lambda: torch.zeros(()))  # (H, W)
    sides: Tensor = field(default_factory=lambda: torch.zeros(()))  # (2, H, W), see `contrasts`
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))  # of these
    high: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))  # upper octave: sum, squares

    def add(self, images: Tensor) -> None:
        """images (N, C, H, W) in [0, 1]; all calls must give the same H and W."""
        log = log_power(images.float()).double().cpu()
        sides = contrasts(log)
        octave = log[:, _octave(log.shape[-2:])].mean(1)
        self.count += len(images)
        self.log = self.log + log.sum(0)
        self.sides = self.sides + sides.sum(1)
        self.squares = self.squares + sides.square().sum(1)
        self.high = self.high + torch.stack([octave.sum(), octave.square().sum()])

    def together(self) -> None:
        """Sum over all processes, in their order; call it once, when each has added its share of the images."""
        of_first, *others = distributed.all_gather(vars(self))
        for name, value in of_first.items():
            setattr(self, name, sum((other[name] for other in others), value))

    @property
    def mean(self) -> Tensor:
        """(H, W) in dB."""
        return self.log / self.count

    @property
    def excess(self) -> Tensor:
        """(H, W) in dB, by the formula in the module's docstring."""
        return (self.sides / self.count).amin(0)

    @property
    def spread(self) -> Tensor:
        """(H, W): the standard error of the excess over images."""
        mean = self.sides / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        chosen = torch.where(mean[0] <= mean[1], variance[0], variance[1])
        return (chosen / max(1, self.count - 1)).sqrt()


def _octave(size: torch.Size) -> Tensor:
    """(H, W) bool: the upper octave of frequencies, up to half a cycle a pixel along the axes."""
    down, across = (torch.fft.fftfreq(side) for side in size)
    return (down[:, None].square() + across.square()).sqrt() >= HIGH


def grids(size: tuple[int, int], periods: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """The periods whose frequencies fall on bins, and far enough apart to be distinguished from their neighbours.

    >>> grids((64, 64), {(2, 2), (8, 8), (16, 16), (3, 3)})
    [(2, 2), (8, 8)]
    """
    fit = [
        period
        for period in periods
        if all(side % p == 0 and side // p >= SPACING for side, p in zip(size, period, strict=True))
    ]
    return sorted(fit)


def harmonics(size: tuple[int, int], period: tuple[int, int]) -> Tensor:
    """(H, W) bool: the bins of a grid's frequencies, zero excepted.

    >>> harmonics((4, 4), (2, 2)).int()
    tensor([[0, 0, 1, 0],
            [0, 0, 0, 0],
            [1, 0, 1, 0],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    down, across = (torch.arange(side) % (side // p) == 0 for side, p in zip(size, period, strict=True))
    bins = down[:, None] & across
    bins[0, 0] = False
    return bins


def standing(excess: Tensor, peaks: Tensor) -> tuple[Tensor, float]:
    """How unusual excesses are among those of their neighbours.

    Args:
        excess: (H, W) in dB.
        peaks: (H, W) bool, the bins of grids.

    Returns:
        z (H, W) of the peaks, NaN elsewhere: (excess − median) / spread, over the bins at most eight away that no peak
        touches; the spread is 1.4826 times their median absolute deviation. And the greatest z of the bins that no peak
        touches, each in its own ring, of at most 4,096 of them.
    """
    near = peaks.clone()
    near[0, 0] = True
    near = torch.stack([near.roll((a, b), (0, 1)) for a in (-1, 0, 1) for b in (-1, 0, 1)]).any(0)
    steps = ((0, 0), (REACH, 0), (-REACH, 0), (0, REACH), (0, -REACH))
    free = ~torch.stack([near.roll(step, (0, 1)) for step in steps]).any(0)
    values = torch.where(free, excess, torch.nan)
    others = free.nonzero()
    others = others[:: -(-len(others) // MOST)] if len(others) else others
    bins = torch.cat([peaks.nonzero(), others])  # (m, 2)
    side = torch.arange(-RING, RING + 1)
    rows = (bins[:, :1] + side) % excess.shape[0]
    columns = (bins[:, 1:] + side) % excess.shape[1]
    ring = values[rows[:, :, None], columns[:, None, :]].flatten(1)  # (m, 289)
    median = ring.nanmedian(1).values
    deviation = (ring - median[:, None]).abs().nanmedian(1).values * SCALE
    scores = (excess[bins[:, 0], bins[:, 1]] - median) / deviation.clamp(min=LEAST_SPREAD)
    z = torch.full_like(excess, torch.nan)
    count = int(peaks.sum())
    z[peaks] = scores[:count]
    return z, float(scores[count:].max()) if len(others) else 0.0


def peaks(spectrum: Spectrum, periods: set[tuple[int, int]], reference: Spectrum | None = None) -> pd.DataFrame:
    """The peaks of grids: one row a frequency of these periods, strongest first.

    Of each pair of opposite frequencies, which have the same power, only the positive one has a row.

    Columns: period (height and width of the smallest grid that has the frequency), vertical, horizontal (cycles a
    pixel), excess with low and high (dB, 95 % interval over images), reference (its excess), z, peak.

    z is of the excess, less the reference's where there is one, since real images may have the frequency by nature.
    The frequency is a peak if z is at least 4 and greater than that of every bin that belongs to no grid, and if the
    excess is above zero, and above the reference's, beyond its interval.
    """
    size = (spectrum.mean.shape[0], spectrum.mean.shape[1])
    distinct = grids(size, periods)
    if not distinct:
        return pd.DataFrame(columns=COLUMNS)
    bins = torch.stack([harmonics(size, period) for period in distinct]).any(0)
    excess, spread = spectrum.excess, spectrum.spread
    compared = excess if reference is None else excess - reference.excess
    z, usual = standing(compared, bins)
    reach = t_factor(max(1, spectrum.count - 1))
    rows = []
    for j, k in bins.nonzero().tolist():
        vertical, horizontal = _frequency(j, size[0]), _frequency(k, size[1])
        if (vertical, horizontal) < (0, 0) or (horizontal < 0 and vertical == 0.5):
            continue  # the negative one of a pair
        value, margin = float(excess[j, k]), reach * float(spread[j, k])
        rows.append(
            {
                "period": next("×".join(map(str, p)) for p in distinct if bool(harmonics(size, p)[j, k])),
                "vertical": vertical,
                "horizontal": horizontal,
                "excess": value,
                "low": value - margin,
                "high": value + margin,
                "reference": torch.nan if reference is None else float(reference.excess[j, k]),
                "z": float(z[j, k]),
                "peak": bool(z[j, k] >= LEAST_Z and z[j, k] > usual and min(value, float(compared[j, k])) > margin),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("z", ascending=False, ignore_index=True)


COLUMNS = ["period", "vertical", "horizontal", "excess", "low", "high", "reference", "z", "peak"]


def _frequency(index: int, side: int) -> float:
    """The frequency of a bin in cycles a pixel, above −1/2 and up to 1/2.

    >>> [_frequency(index, 4) for index in range(4)]
    [0.0, 0.25, 0.5, -0.25]
    """
    return (index if index <= side // 2 else index - side) / side


def broadband(spectrum: Spectrum, reference: Spectrum) -> dict[str, float]:
    """How much more power the images have in the upper octave than the reference, in dB, with a 95 % interval.

    Generators miss the true spectrum there with and without a grid (Schwarz, Liao and Geiger 2021, On the Frequency
    Bias of Generative Models); peaks are a few bins among thousands and hardly count.
    """
    means, errors = [], 0.0
    for sums in (spectrum, reference):
        mean = float(sums.high[0]) / sums.count
        means.append(mean)
        errors += max(0.0, float(sums.high[1]) / sums.count - mean**2) / max(1, sums.count - 1)
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt(errors)
    gap = means[0] - means[1]
    return {"excess": gap, "low": gap - reach, "high": gap + reach}
