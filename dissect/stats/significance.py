"""Bootstrap and permutation of images, sign flips, false-discovery rates. Pixels are never resampled."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from ..runtime.random_streams import BOOTSTRAP, PERMUTATION, bits

Floats = NDArray[np.float64]

ROUNDS = 2000  # bootstrap samples
BLOCK = 1000  # permutations or sign patterns at once, for the sake of memory
FLIPS = 9999  # random sign patterns: the least p-value is 1e-4
LEVEL = 0.95
FALSE_DISCOVERIES = 0.05  # expected share of false calls among all calls, at most


def bootstrap(count: int, seed: int = 0) -> Floats:
    """(2000, count) weights: how often each image is drawn when `count` are drawn with replacement (Efron 1979)."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), ROUNDS).astype(np.float64)


def poisson_bootstrap(count: int, seed: int, block: int) -> Floats:
    """(2000, count) weights of the images of one block: independent Poisson numbers of mean 1.

    The bootstrap for data that come in blocks: a block's weights do not depend on how many others there are (Hanley and
    MacGibbon 2006). A pure function of (seed, block), the same on every machine.
    """
    uniform = (bits((ROUNDS, count), seed, BOOTSTRAP, block) >> np.uint64(11)) * 2.0**-53
    cumulative = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(20)])
    return torch.bucketize(torch.from_numpy(uniform), torch.from_numpy(cumulative), right=True).double().numpy()


def interval(values: Floats) -> tuple[Floats, Floats]:
    """Bootstrap values (2000, …) -> the ends (…) of the 95 % percentile interval; NaN where no value is a number."""
    known = ~np.isnan(values).all(0)
    filled = np.where(known, values, 0)
    quantile = np.nanquantile if np.isnan(filled).any() else np.quantile  # the same values, but nanquantile is slow
    low, high = quantile(filled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.where(known, low, np.nan)[()], np.where(known, high, np.nan)[()]


def ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where the bottom is 0.

    >>> ratio(np.array([1.0, 1.0]), np.array([4.0, 0.0])).tolist()
    [0.25, nan]
    """
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def sign_flip_p(differences: Floats, seed: int = 0) -> Floats:
    """Paired differences (N, C) -> two-sided p-values (C,) of a mean of zero, p = (1 + #) / 10,000.

    Under the hypothesis that before and after could be swapped in any image, each image's difference is as likely to
    have either sign (Fisher's randomisation test for pairs). Without any difference p is 1.
    """
    dice = np.random.default_rng(seed)
    observed = np.abs(differences.sum(0)) * (1 - 1e-12)  # ties count, whatever the rounding
    as_large = np.zeros(differences.shape[1])
    for start in range(0, FLIPS, BLOCK):  # in blocks, for the sake of memory
        signs = dice.integers(0, 2, (min(BLOCK, FLIPS - start), len(differences)), np.int8) * 2.0 - 1
        as_large += (np.abs(signs @ differences) >= observed).sum(0)
    return (1 + as_large) / (FLIPS + 1)


def permutation_p(pairs: Mapping[int, Tensor], rounds: int, seed: int) -> Floats:
    """One-sided p-values (U,) of overlaps, p = (1 + #{permuted ≥ observed}) / (rounds + 1).

    `pairs` holds, by size n of a block of images, overlaps (U, n, n) summed over all blocks of that size: entry (i, j)
    is how many pixels a unit's region in the block's image i shares with the class in its image j. The observed
    overlap is the sum of the diagonals. Under the hypothesis that the unit depends on nothing in the image but the
    place, every pairing of a block's regions with its class maps is equally likely. So are the pairings that permute
    all blocks of a size alike, a subgroup of all permutations: p is exact (Fisher 1935; Phipson and Smyth 2010), and a
    sum of entries of `pairs` is the overlap of all blocks at once. The pairings are a pure function of the seed.
    """
    weights = {size: _exact(matrix.flatten(1).T, size).contiguous() for size, matrix in pairs.items()}  # (n², U)
    observed = torch.stack([matrix.double().diagonal(dim1=1, dim2=2).sum(1) for matrix in pairs.values()]).sum(0)
    as_large = torch.zeros_like(observed)
    for start in range(0, rounds, BLOCK):  # in blocks, for the sake of memory
        drawn = torch.zeros(min(BLOCK, rounds - start), len(observed), dtype=torch.float64)
        for size, weight in weights.items():
            order = np.argsort(bits((len(drawn), size), seed, PERMUTATION + size, start), axis=1, kind="stable")
            pairing = torch.from_numpy(order) + torch.arange(size) * size
            drawn += F.embedding_bag(pairing, weight, mode="sum")
        as_large += (drawn >= observed).sum(0)
    return ((1 + as_large) / (rounds + 1)).numpy()


def _exact(values: Tensor, number: int) -> Tensor:
    """float32 where sums of `number` values are exact in it, as they are for integers below 2^24; else float64."""
    is_exact = bool((values == values.round()).all()) and float(values.abs().max()) * number < 2**24
    return values.float() if is_exact else values.double()


def permutation_spread(pairs: Mapping[int, Tensor]) -> Floats:
    """(U,) standard deviation of the permuted overlap, in closed form (Hoeffding 1951, theorem 2)."""
    variance = torch.zeros(len(next(iter(pairs.values()))), dtype=torch.float64)
    for size, matrix in pairs.items():
        centred = matrix.double()
        for axis in (1, 2):
            centred = centred - centred.mean(axis, keepdim=True)
        variance += centred.square().sum((1, 2)) / max(1, size - 1)
    return variance.sqrt().numpy()


def benjamini_hochberg(p: Floats) -> Floats:
    """p-values of any shape -> q-values of all of them together.

    If all tests with q ≤ 0.05 are called significant, at most 5 % of the calls are false on average. A p-value of NaN
    stands for no test: its q-value is NaN, and it does not count among the tests.

    Source: Benjamini and Hochberg 1995.

    >>> benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03])).round(3).tolist()
    [0.03, nan, 0.04, 0.04]
    """
    tested = np.isfinite(p)
    q = np.full(p.shape, np.nan)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return q
