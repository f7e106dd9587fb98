"""Whether generated images are as varied as real ones, over whole images: collapse, twins, missing variety.

Every figure depends on the features and on the number of images, so none means much alone. Beside each stands its zero:
the same figure of real images that take the place of the generated ones. One half of the real images is the reference;
of the other half as many images as generated ones are compared with it, on the same random halves (see `fidelity`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import DissectError
from ..fidelity import distances
from ..fidelity.distances import COVERING
from ..runtime import distributed
from ..stats.intervals import LEVEL, around, halves, rounds
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage", "vendi", "spread", "twins")
LOWER_IS_BETTER = (*distances.LOWER_IS_BETTER, "twins")
SHARES = ("precision", "recall", "coverage", "twins")  # of images, in [0, 1]
TWINS = 1  # pairs of real images that are expected to count as twins by coincidence
SHOWN = 12  # nearest pairs
BLOCK = 1024  # images whose distances to all others are in memory at once
FEWEST = 20  # images in each set: a random half of them has more than the five neighbours that some metrics need

_CHECKS = "the sanity checks of Räisä et al. 2025"
CAVEAT = {
    "frechet": "Compares means and covariances only, of the extractor's features; it shrinks with the number of images "
    "and cannot be compared with published Inception values.",
    "kernel": "Depends on the features and their scale; it cannot be compared with published values.",
    "precision": f"Fails some of {_CHECKS}; one real outlier has a large ball that vouches for much. Rises when images "
    "crowd in the middle.",
    "recall": f"Fails some of {_CHECKS}; its balls are around the generated images, so generated outliers raise it.",
    "density": f"Fails some of {_CHECKS}; it has no upper bound, and rises when images crowd where real ones are "
    "dense.",
    "coverage": f"Fails some of {_CHECKS}; one image within a ball counts as much as many, so uneven frequencies "
    "and images squeezed towards the middle may escape it. Even real images stay below 1.",
    "vendi": "Ignores quality: noise is diverse. By cosine it does not see images squeezed towards the middle, nor "
    "more kinds than the features have dimensions.",
    "spread": "Total variance only: outliers raise it, and a few modes far apart are as varied as many.",
    "twins": "What counts as twins depends on the features, which may not see what tells two images apart. The "
    "threshold rests on the nearest real pairs: only plain repetition stands out, and one duplicate among the real "
    "images hides all but exact repetition.",
}  # by metric, what it cannot tell


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Pairs of images at most a threshold apart.

    Attributes:
        count: number of images.
        pairs: number of twins, that is of pairs.
        share: of the images, those that have a twin.
        nearest: (n, 2) int64, the 12 nearest pairs, or all if there are fewer, nearest first; the first `pairs` of them
            are twins.
        prototype: the image with the most twins, the middle of the mode; it means nothing without twins.
    """

    count: int
    pairs: int
    share: float
    nearest: NDArray[np.int64]
    prototype: int


def compare(
    generated: Tensor,
    real: Tensor,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Compare generated images with real ones, and real ones with each other, by every metric of `METRICS`.

    Args:
        generated: features (N, D) of generated images.
        real: (M, D). Its even rows are the reference, its odd rows give the zero. Of the generated images and the odd
            rows, the longer set is cut to the length of the shorter.
        seed: of the halves from which the intervals come.
        advance: `advance(n)` is called after every n comparisons, of which there are `2 · (rounds(D) + 1)`.

    Columns: metric; value, low, high of the generated images; zero, zero_low, zero_high of real ones; difference_low,
    difference_high of value - zero on the same halves; p_value, that the difference is so bad by chance, from the same
    t distribution; q_value by Benjamini and Hochberg over the nine rows; alarm, q ≤ 0.05. At most about one healthy
    generator in 20 raises an alarm.

    Raises:
        DissectError: features that are not finite, or too few images.
    """
    even, odd = real[::2].double(), real[1::2].double()
    check(generated, real)
    count = min(len(generated), len(odd))
    sides = (generated[:count].double(), odd[:count])
    return table_of(*figures(sides, even, seed=seed, number=rounds(generated.shape[1]), advance=advance))


def check(generated: Tensor, real: Tensor) -> None:
    """Raise DissectError where `compare` cannot compare (N, D) with (M, D)."""
    if len(generated) < FEWEST or len(real) // 2 < FEWEST:
        raise DissectError(
            f"{len(generated)} generated and {len(real)} real images: diversity needs at least {FEWEST} generated and "
            f"{2 * FEWEST} real ones."
        )
    for name, features in (("generated", generated), ("real", real)):
        if not bool(features.isfinite().all()):
            raise DissectError(f"Features of the {name} images are not finite; look at the images.")


def figures(
    sides: Sequence[Tensor],
    reference: Tensor,
    *,
    seed: int,
    number: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """The metrics of several sets of images against one reference, on all images and on random halves.

    Args:
        sides: S sets of features (N, D), float64.
        reference: (M, D) float64, M at least N.
        seed: of the halves, which are the same for every set.
        number: of halves.
        advance: `advance(n)` is called after every n comparisons, of which there are S · (1 + number).

    Returns:
        (S, 1 + number, 9): the metrics in the order of `METRICS`, on all images first.
    """
    count = len(sides[0])
    subsets = [(torch.arange(count), torch.arange(len(reference))), *halves(count, len(reference), number, seed)]
    rows = []
    for rows_of_sides, rows_of_reference in distributed.mine(subsets):
        rows.append(_figures([side[rows_of_sides] for side in sides], reference[rows_of_reference]))
        advance(len(sides))
    return np.array(distributed.in_order(rows)).reshape(len(subsets), len(sides), len(METRICS)).swapaxes(0, 1)


def table_of(generated: NDArray[np.float64], zero: NDArray[np.float64]) -> pd.DataFrame:
    """Figures (1 + rounds, 9) of generated and of real images -> the table of `compare`.

    Raises:
        DissectError: a figure is not finite.
    """
    check_figures(generated, "the generated images")
    check_figures(zero, "real images")
    table = pd.DataFrame([_row(metric, generated[:, k], zero[:, k]) for k, metric in enumerate(METRICS)])
    table["q_value"] = benjamini_hochberg(table.p_value.to_numpy())
    return table.assign(alarm=table.q_value <= FALSE_DISCOVERIES)


def check_figures(figures: NDArray[np.float64], whose: str) -> None:
    """Raise DissectError where figures (1 + rounds, 9) are not all finite, since a verdict would ignore those."""
    for metric, values in zip(METRICS, figures.T, strict=True):
        if not np.isfinite(values).all():
            raise DissectError(
                f"The metric {metric} of {whose} is not a number in {int((~np.isfinite(values)).sum())} of "
                f"{len(values)} sets of images, so that there is no verdict; look whether many images are the same."
            )


def _figures(sides: Sequence[Tensor], reference: Tensor) -> list[list[float]]:
    """S sets of features (N, D), reference (M, D), M at least N -> the figures of each in the order of `METRICS`."""
    count = len(sides[0])
    varied, near = vendi(reference[:count]), twin_distance(reference, count)
    table = []
    for features in sides:
        by_metric = distances.distances(features, reference) | {
            "density": density(features, reference),
            "vendi": vendi(features) / varied,
            "spread": spread(features, reference),
            "twins": twins(features, near).share,
        }
        table.append([by_metric[metric] for metric in METRICS])
    return table


def _row(metric: str, generated: NDArray[np.float64], zero: NDArray[np.float64]) -> dict[str, str | float | bool]:
    """generated, zero (1 + rounds,), of all images first -> the row of the metric."""
    low, high = interval(metric, generated)
    zero_low, zero_high = interval(metric, zero)
    difference = generated - zero
    below, above = around(difference)
    worse, sd = difference[0] * (1 if metric in LOWER_IS_BETTER else -1), difference[1:].std(ddof=1)
    p = stats.t.sf(worse / sd, len(difference) - 2) if sd else 1.0 - (worse > 0)
    return {
        "metric": metric,
        "value": generated[0],
        "low": low,
        "high": high,
        "zero": zero[0],
        "zero_low": zero_low,
        "zero_high": zero_high,
        "difference_low": below,
        "difference_high": above,
        "p_value": float(p),
    }


def interval(metric: str, values: NDArray[np.float64]) -> tuple[float, float]:
    """values (1 + rounds,) of a metric, of all images first -> its 95 % interval, for shares within [0, 1]."""
    low, high = around(values)
    return (max(low, 0.0), min(high, 1.0)) if metric in SHARES else (low, high)


def vendi(features: Tensor) -> float:
    """The Vendi score of features (N, D): the effective number of different images, from 1 (all the same) to N.

    The exponential of the entropy of the eigenvalues of K / N, K being the cosine similarities; never above D. It grows
    with N and depends on the features, so only values of the same N and the same features can be compared.

    Source: Friedman and Dieng 2023.

    >>> round(vendi(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])), 6)
    2.0
    """
    rows = F.normalize(features, eps=1e-12)
    count, width = rows.shape
    square = rows.T @ rows if width < count else rows @ rows.T  # the same eigenvalues but for zeros
    values = torch.linalg.eigvalsh(square / count).clamp(min=0)
    return float(torch.special.entr(values).sum().exp())


def density(features: Tensor, reference: Tensor) -> float:
    """features (N, D), reference (M, D), M above 5 -> density: about 1 where both have the same distribution.

    For each image, the number of reference images whose ball contains it, divided by five, and the mean of that over
    the images; a ball reaches to the fifth neighbour of a reference image. It is above 1 where images gather in dense
    regions of the reference.

    Source: Naeem et al. 2020, equation 8. Copies in the reference count once, see `fidelity.distances.distinct`.
    """
    reference = distances.distinct(reference)
    radius = distances.fifth_neighbour(reference)
    within = torch.cdist(reference, features) < radius[:, None]  # (M, N)
    return float(within.sum(0).double().mean() / COVERING)


def spread(features: Tensor, reference: Tensor) -> float:
    """features (N, D), reference (M, D) -> total variance divided by that of the reference; 1 means as varied."""
    return float(features.var(0).sum() / reference.var(0).sum())


def twin_distance(real: Tensor, count: int) -> float:
    """The largest distance of twins: one pair among `count` real images is expected to be as near.

    The quantile of the distances between real pairs at level 1 / (count · (count - 1) / 2), linear between the order
    statistics, of which the k-th of P is at level k / (P + 1): a new pair is below it with just that probability on
    average. With count above M such a quantile does not exist, and the result is the smallest distance.

    Args:
        real: features (M, D).
        count: number of images among which twins are counted.
    """
    real = distances.distinct(real)  # copies among the real images would make the distance 0, so that only copies count
    pairs = math.comb(len(real), 2)
    rank = TWINS / math.comb(count, 2) * (pairs + 1) - 1  # from 0, among the sorted distances
    rank = min(max(rank, 0.0), pairs - 1)
    needed = min(int(rank) + 2, pairs)
    smallest = real.new_empty(0)
    for start in range(0, len(real), BLOCK):
        smallest = torch.cat([smallest, _to_later(real, start).flatten()])
        smallest = smallest.topk(min(needed, len(smallest)), largest=False).values
    return float(np.interp(rank, np.arange(needed), smallest.numpy()))


def twins(generated: Tensor, threshold: float) -> Twins:
    """Features (N, D) -> the pairs of images that are at most `threshold` apart; ties in the order of the images."""
    counts = np.zeros(len(generated), np.int64)
    nearest, apart = np.empty((0, 2), np.int64), np.empty(0)
    for start in range(0, len(generated), BLOCK):
        block = _to_later(generated, start).numpy()  # (b, N - start)
        are_twins = block <= threshold
        counts[start : start + BLOCK] += are_twins.sum(1)
        counts[start:] += are_twins.sum(0)
        last = min(SHOWN, block.size) - 1
        candidates = np.isfinite(block) & (block <= np.partition(block, last, axis=None)[last])
        nearest = np.concatenate([nearest, np.argwhere(candidates) + start])
        apart = np.concatenate([apart, block[candidates]])
        first = apart.argsort(kind="stable")[:SHOWN]
        nearest, apart = nearest[first], apart[first]
    return Twins(
        count=len(generated),
        pairs=int(counts.sum()) // 2,
        share=float((counts > 0).mean()),
        nearest=nearest,
        prototype=int(counts.argmax()),
    )


def _to_later(features: Tensor, start: int) -> Tensor:
    """features (N, D) -> (b, N - start): distances of a block of rows to the rows after each; infinite elsewhere.

    Computed from differences, since by scalar products the distance of duplicates would not be exactly 0.
    """
    block = torch.cdist(features[start : start + BLOCK], features[start:], compute_mode="donot_use_mm_for_euclid_dist")
    return block.masked_fill(torch.ones_like(block, dtype=torch.bool).tril(), math.inf)


def support(pairs: int, coincidental: float, count: int) -> tuple[float, float, float]:
    """How many different images the generator seems to have, by the birthday paradox, and the ends of the interval.

    If S images are equally likely, count · (count - 1) / 2 / S pairs coincide on average. With uneven probabilities the
    estimate is a lower bound: rare images hardly add to it. The ends are those of the exact 95 % interval of a Poisson
    count (Garwood 1936). Pairs of one group of similar images are not independent, so that after a strong collapse the
    interval is too narrow.

    Args:
        pairs: twins among `count` images.
        coincidental: pairs that are expected to count as twins by coincidence, `TWINS` at `twin_distance`.
        count: number of images.

    Returns:
        Estimate, low and high; infinite where there are no more pairs than by coincidence.

    Source: Arora and Zhang 2017.

    >>> support(pairs=1, coincidental=1, count=100)[0]
    inf
    >>> support(pairs=100, coincidental=1, count=100)[0]
    50.0
    """
    fewest = stats.chi2.ppf((1 - LEVEL) / 2, 2 * pairs) / 2 if pairs else 0.0
    most = stats.chi2.ppf((1 + LEVEL) / 2, 2 * pairs + 2) / 2
    estimate, low, high = (
        math.comb(count, 2) / (twin_pairs - coincidental) if twin_pairs > coincidental else math.inf
        for twin_pairs in (pairs, most, fewest)
    )
    return float(estimate), float(low), float(high)
