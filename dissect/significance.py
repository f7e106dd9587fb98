"""How sure we are: bootstrap over images, sign-flip tests, false-discovery control. Pixels are never resampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS = 2000  # bootstrap samples
BLOCK = 1000
FLIPS = 9999  # random sign patterns: the least p-value is 1e-4
LEVEL = 0.95
FALSE_DISCOVERIES = 0.05  # expected share of false ones among those called changed


def bootstrap(count: int, seed: int = 0) -> Floats:
    """(2000, count) weights: how often each image is drawn when `count` are drawn with replacement (Efron 1979)."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), ROUNDS).astype(np.float64)


def interval(values: Floats) -> tuple[Floats, Floats]:
    """Bootstrap values (2000, …) -> the ends (…) of the 95 % percentile interval; NaN where no value is a number."""
    numbers = ~np.isnan(values).all(0)
    filled = np.where(numbers, values, 0)
    low, high = np.nanquantile(filled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.where(numbers, low, np.nan)[()], np.where(numbers, high, np.nan)[()]


def ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where the bottom is 0."""
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def sign_flip_p(differences: Floats, seed: int = 0) -> Floats:
    """Paired differences (N, C) -> two-sided p-values (C,) of a mean of zero, p = (1 + #) / 10,000.

    Under the hypothesis that before and after could be swapped in any image, each image's difference is as likely to
    have either sign (Fisher's randomisation test for pairs). Images with no difference at all tell nothing: p is 1.
    """
    dice = np.random.default_rng(seed)
    found = np.abs(differences.sum(0)) * (1 - 1e-12)
    as_large = np.zeros(differences.shape[1])
    for start in range(0, FLIPS, BLOCK):  # in blocks, for the sake of memory
        signs = dice.integers(0, 2, (min(BLOCK, FLIPS - start), len(differences)), np.int8) * 2.0 - 1
        as_large += (np.abs(signs @ differences) >= found).sum(0)
    return (1 + as_large) / (FLIPS + 1)


def benjamini_hochberg(p: Floats) -> Floats:
    """p-values (C,) -> q-values (C,): calling all with q ≤ 0.05 changed makes at most 5 % false calls on average.

    Source: Benjamini and Hochberg 1995.
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(scaled)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return q
