"""Whether generated images are as varied as real ones, over whole images: collapse, twins, missing variety.

Every figure depends on the features and on how many images there are, so none means much alone. Beside each stands
its zero: the same figure of real images that are put in the place of the generated ones. Half of the real images
judge; of the other half as many as of the generated ones are judged, by the same halves (see `fidelity`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

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
TWINS = 1  # pairs of real images that are expected to pass for twins by coincidence
SHOWN = 12  # nearest pairs
BLOCK = 1024  # images whose distances to all others are held at once
FEWEST = 20  # images in each set that is compared: a half of them still has more than the fifth neighbour

_CHECKS = "the sanity checks of Räisä et al. 2025"
CAVEAT = {
    "frechet": "Compares means and covariances only, in features that the extractor chose; it shrinks with the number "
    "of images and cannot be set beside published Inception values.",
    "kernel": "Depends on the features and their scale; not to be set beside published values.",
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

    `nearest` (n, 2) int64 are the 12 nearest pairs, or all if there are fewer, nearest first; the first `pairs` of
    them are twins.
    """

    count: int  # of the images
    pairs: int
    share: float  # of the images that have a twin
    nearest: NDArray[np.int64]
    prototype: int  # the image with the most twins, the middle of the mode; says nothing without twins


def compare(
    made: Tensor,
    real: Tensor,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """One row a metric: how the generated images stand to real ones, and how real ones do.

    Args:
        made: features (N, D).
        real: (M, D). Its even rows judge, its odd rows are judged for the zero. Of the generated images and the odd
            rows, the longer is cut to the length of the shorter.
        seed: of the halves behind the intervals.
        advance: is called with the number of comparisons done, `2 · (rounds(D) + 1)` in all.

    Columns: metric; value, low, high of the generated images; zero, zero_low, zero_high of real ones; difference_low,
    difference_high around value - zero on the same halves; p_value that this lies on the bad side by chance, of the
    same t distribution; q_value by Benjamini and Hochberg over the nine rows; alarm, q ≤ 0.05. At most about one
    healthy generator in 20 raises any.

    Raises:
        DissectError: features that are not finite, or too few images.
    """
    judge, odd = real[::2].double(), real[1::2].double()
    check(made, real)
    count = min(len(made), len(odd))
    sides = (made[:count].double(), odd[:count])
    return table_of(*figures(sides, judge, seed=seed, number=rounds(made.shape[1]), advance=advance))


def check(made: Tensor, real: Tensor) -> None:
    """Raise DissectError where `compare` cannot compare (N, D) with (M, D)."""
    if len(made) < FEWEST or len(real) // 2 < FEWEST:
        raise DissectError(
            f"Diversity was asked of {len(made)} generated and {len(real)} real images; at least {FEWEST} generated "
            f"and {2 * FEWEST} real ones are needed."
        )
    for name, features in (("generated", made), ("real", real)):
        if not bool(features.isfinite().all()):
            raise DissectError(f"Features of the {name} images are not finite; look at the images.")


def figures(
    sides: Sequence[Tensor],
    judge: Tensor,
    *,
    seed: int,
    number: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """S sides (N, D), judge (M, D), M at least N, float64 -> (S, 1 + number, 9): what `METRICS` are of each side, whole
    and on random halves of it and of the judge. The halves are the same of every side.
    """
    count = len(sides[0])
    parts = [(torch.arange(count), torch.arange(len(judge))), *halves(count, len(judge), number, seed)]
    rows = []
    for side, (mine, theirs) in distributed.mine(list(product(sides, parts))):
        found = _figures(side[mine], judge[theirs])
        rows.append([found[metric] for metric in METRICS])
        advance(1)
    return np.array(distributed.in_order(rows)).reshape(len(sides), len(parts), len(METRICS))


def table_of(made: NDArray[np.float64], zero: NDArray[np.float64]) -> pd.DataFrame:
    """Figures (1 + rounds, 9) of generated and of real images -> the table of `compare`.

    Raises:
        DissectError: a figure is not finite, so that nothing can be said by it.
    """
    check_figures(made, "the generated images")
    check_figures(zero, "real images")
    table = pd.DataFrame([_row(metric, made[:, k], zero[:, k]) for k, metric in enumerate(METRICS)])
    table["q_value"] = benjamini_hochberg(table.p_value.to_numpy())
    return table.assign(alarm=table.q_value <= FALSE_DISCOVERIES)


def check_figures(figures: NDArray[np.float64], whose: str) -> None:
    """Raise DissectError where figures (1 + rounds, 9) are not all finite: a verdict would pass over them."""
    for metric, values in zip(METRICS, figures.T, strict=True):
        if not np.isfinite(values).all():
            raise DissectError(
                f"The {metric} of {whose} is not a number in {int((~np.isfinite(values)).sum())} of {len(values)} sets "
                "of images, so that there is no verdict; look at the images: are many of them alike?"
            )


def _figures(features: Tensor, judge: Tensor) -> dict[str, float]:
    """features (N, D), judge (M, D), M at least N -> the figures of `METRICS`."""
    return distances.distances(features, judge) | {
        "density": density(features, judge),
        "vendi": vendi(features) / vendi(judge[: len(features)]),
        "spread": spread(features, judge),
        "twins": twins(features, twin_distance(judge, len(features))).share,
    }


def _row(metric: str, made: NDArray[np.float64], zero: NDArray[np.float64]) -> dict[str, str | float | bool]:
    """made, zero (1 + rounds,), the whole first -> the row of the metric."""
    low, high = interval(metric, made)
    zero_low, zero_high = interval(metric, zero)
    difference = made - zero
    below, above = around(difference)
    worse, sd = difference[0] * (1 if metric in LOWER_IS_BETTER else -1), difference[1:].std(ddof=1)
    p = stats.t.sf(worse / sd, len(difference) - 2) if sd else 1.0 - (worse > 0)
    return {
        "metric": metric,
        "value": made[0],
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
    """values (1 + rounds,) of a metric, the whole first -> its 95 % interval, within what shares can be."""
    low, high = around(values)
    return (max(low, 0.0), min(high, 1.0)) if metric in SHARES else (low, high)


def vendi(features: Tensor) -> float:
    """features (N, D) -> how many unlike images they are worth, between 1 (all alike) and N; never above D.

    The exponential of the entropy of the eigenvalues of K / N, K the cosine similarities. It grows with N and depends
    on the features, so only values at the same N and of the same features compare.

    Source: Friedman and Dieng 2023.
    """
    rows = F.normalize(features, eps=1e-12)
    count, width = rows.shape
    square = rows.T @ rows if width < count else rows @ rows.T  # the same eigenvalues but for zeros
    values = torch.linalg.eigvalsh(square / count).clamp(min=0)
    return float(torch.special.entr(values).sum().exp())


def density(features: Tensor, reference: Tensor) -> float:
    """features (N, D), reference (M, D) -> how many reference images have an image among their five, over five.

    Around 1 where both are alike, above where the images crowd in dense places. M above 5.

    Source: Naeem et al. 2020, equation 8. Of copies in the reference one counts, see `fidelity.distances.distinct`.
    """
    reference = distances.distinct(reference)
    radius = distances.fifth_neighbour(reference)
    within = torch.cdist(reference, features) < radius[:, None]  # (M, N)
    return float(within.sum(0).double().mean() / COVERING)


def spread(features: Tensor, reference: Tensor) -> float:
    """features (N, D), reference (M, D) -> the total variance over that of the reference; 1 is as varied."""
    return float(features.var(0).sum() / reference.var(0).sum())


def twin_distance(real: Tensor, count: int) -> float:
    """real (M, D) -> how near two images are twins: as near as one pair among `count` real images is expected to be.

    The quantile of the distances of real pairs at level 1 / (count · (count - 1) / 2), linear between the order
    statistics, the k-th of P of them at level k / (P + 1): below it a new pair lies with just that probability on
    average. With count above M it cannot be that small, and is the smallest distance.
    """
    real = distances.distinct(real)  # else copies among the real images would call all but copies different
    pairs = math.comb(len(real), 2)
    place = TWINS / math.comb(count, 2) * (pairs + 1) - 1  # from 0, among the sorted distances
    place = min(max(place, 0.0), pairs - 1)
    kept = min(int(place) + 2, pairs)
    smallest = real.new_empty(0)
    for start in range(0, len(real), BLOCK):
        smallest = torch.cat([smallest, _to_later(real, start).flatten()])
        smallest = smallest.topk(min(kept, len(smallest)), largest=False).values
    return float(np.interp(place, np.arange(kept), smallest.numpy()))


def twins(made: Tensor, threshold: float) -> Twins:
    """made (N, D) -> the pairs of them that are at most `threshold` apart. Ties are in the order of the images."""
    counts = np.zeros(len(made), np.int64)
    nearest, apart = np.empty((0, 2), np.int64), np.empty(0)
    for start in range(0, len(made), BLOCK):
        block = _to_later(made, start).numpy()  # (b, N - start)
        near = block <= threshold
        counts[start : start + BLOCK] += near.sum(1)
        counts[start:] += near.sum(0)
        last = min(SHOWN, block.size) - 1
        close = np.isfinite(block) & (block <= np.partition(block, last, axis=None)[last])
        nearest, apart = np.concatenate([nearest, np.argwhere(close) + start]), np.concatenate([apart, block[close]])
        first = apart.argsort(kind="stable")[:SHOWN]
        nearest, apart = nearest[first], apart[first]
    return Twins(
        count=len(made),
        pairs=int(counts.sum()) // 2,
        share=float((counts > 0).mean()),
        nearest=nearest,
        prototype=int(counts.argmax()),
    )


def _to_later(features: Tensor, start: int) -> Tensor:
    """features (N, D) -> (b, N - start): distances of a block of rows to the rows after each; infinite elsewhere.

    By differences: by products, duplicates would come out some rounding apart.
    """
    block = torch.cdist(features[start : start + BLOCK], features[start:], compute_mode="donot_use_mm_for_euclid_dist")
    return block.masked_fill(torch.ones_like(block, dtype=torch.bool).tril(), math.inf)


def support(pairs: int, coincidental: float, count: int) -> tuple[float, float, float]:
    """How many different images the generator seems to have, by the birthday paradox, and the ends of the interval.

    Args:
        pairs: twins among `count` images.
        coincidental: how many were expected of different images, `TWINS` at the threshold of `twin_distance`.

    Of S images, all as likely, count · (count - 1) / 2 / S pairs coincide on average. With uneven probabilities the
    estimate is a lower bound: rare images hardly add to it. The ends are of the exact 95 % interval of a Poisson
    count (Garwood 1936). Pairs within a clump come together, so that after a strong collapse the interval is too
    narrow. Infinite where there are no more pairs than by coincidence.

    Source: Arora and Zhang 2017.
    """
    fewest = stats.chi2.ppf((1 - LEVEL) / 2, 2 * pairs) / 2 if pairs else 0.0
    most = stats.chi2.ppf((1 + LEVEL) / 2, 2 * pairs + 2) / 2
    estimate, low, high = (
        math.comb(count, 2) / (number - coincidental) if number > coincidental else math.inf
        for number in (pairs, most, fewest)
    )
    return float(estimate), float(low), float(high)
