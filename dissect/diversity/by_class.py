"""Does a generator draw each class as often, as large and beside the same others as real images do?

A class that it never draws is a dropped mode (Bau et al. 2019, "Seeing What a GAN Cannot Generate"), which distances of
features hardly show. Images are what is drawn at random, so images are what is counted: pixels are not independent.

Throughout, `made` (N, C) and `real` (M, C) are float64 shares of an image's pixels by class, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from ...hooks.errors import DissectError
from ..fidelity import distances
from ..stats.significance import FALSE_DISCOVERIES, LEVEL, Floats, benjamini_hochberg, ratio

PRESENT = 0.002  # of an image's pixels; a class with less of them is noise of the segmenter
FEWEST = 2  # images a side
FEWEST_SIZES = 3  # images a side that have the class, for its sizes to be tested
FEWEST_EXPECTED = 5  # images a side with each of both, the one, the other and neither, were the classes independent

MISSING = "missing"  # a verdict

Z = float(stats.norm.ppf((1 + LEVEL) / 2))


def compare_classes(made: Floats, real: Floats, names: Sequence[str]) -> pd.DataFrame:
    """One row a class: missing ones first, by real presence; then rarer and smaller ones, those that keep least of
    their real share first; then the rest by q-value, larger differences first. What is not drawn leaves its place to
    others, which are then more frequent: they come after it.

    Columns:
        class: of `names`, (C,).
        presence, presence_low, presence_high: share of made images where the class has at least `PRESENT` of the
            pixels, and its 95 % interval (Wilson 1927); real_presence, real_low, real_high of the real ones.
        difference, difference_low, difference_high: presence - real_presence, and the 95 % interval made of the two
            (Newcombe 1998, method 10).
        share, real_share: mean share of the pixels, over all images.
        p_presence: two-sided, Fisher's exact test of the counts.
        size, real_size, size_ratio: median share among images that have the class, and made over real; NaN without any.
        p_size: two-sided, Mann-Whitney U test of these shares; NaN with fewer than three images on a side.
        q_presence, q_size: of all p-values of the table together (Benjamini and Hochberg 1995).
        verdict: `missing` if no made image has it and q_presence ≤ 0.05; else `rarer` or `more frequent` if
            q_presence ≤ 0.05; else `smaller` or `larger`, as the made image is in most pairs of a made and a real one,
            if q_size ≤ 0.05; else empty.

    Raises:
        DissectError: fewer than two images on a side, shares of another number of classes, or not finite.
    """
    _check(made, real, len(names))
    has, real_has = made >= PRESENT, real >= PRESENT
    presence, low, high = _wilson(has)
    real_presence, real_low, real_high = _wilson(real_has)
    difference = presence - real_presence
    counts = np.stack([has.sum(0), (~has).sum(0), real_has.sum(0), (~real_has).sum(0)], axis=1).reshape(-1, 2, 2)
    p_presence = np.array([stats.fisher_exact(table).pvalue for table in counts])
    p_size, lean = np.array([_size_test(made[has[:, k], k], real[real_has[:, k], k]) for k in range(len(names))]).T
    q_presence, q_size = benjamini_hochberg(np.stack([p_presence, p_size]))
    share, real_share = made.mean(0), real.mean(0)
    size, real_size = (pd.DataFrame(side).where(side >= PRESENT).median().to_numpy() for side in (made, real))

    apart, resized = q_presence <= FALSE_DISCOVERIES, q_size <= FALSE_DISCOVERIES
    missing = apart & (presence == 0)
    cases = [missing, apart & (difference < 0), apart, resized & (lean < 0), resized]
    verdict = np.select(cases, [MISSING, "rarer", "more frequent", "smaller", "larger"], "")
    table = pd.DataFrame(
        {
            "class": list(names),
            "presence": presence,
            "presence_low": low,
            "presence_high": high,
            "real_presence": real_presence,
            "real_low": real_low,
            "real_high": real_high,
            "difference": difference,
            "difference_low": difference - np.hypot(presence - low, real_high - real_presence),
            "difference_high": difference + np.hypot(high - presence, real_presence - real_low),
            "share": share,
            "real_share": real_share,
            "p_presence": p_presence,
            "size": size,
            "real_size": real_size,
            "size_ratio": ratio(size, real_size),
            "p_size": p_size,
            "q_presence": q_presence,
            "q_size": q_size,
            "verdict": verdict,
        }
    )
    lacking = np.isin(verdict, ("rarer", "smaller"))
    within = np.where(missing, -real_presence, np.where(lacking, ratio(share, real_share), 0))
    group = np.select([missing, lacking], [0, 1], 2)
    order = np.lexsort((-np.abs(difference), q_presence, within, group))  # the last key leads
    return table.iloc[order].reset_index(drop=True)


def compare_pairs(made: Floats, real: Floats, names: Sequence[str]) -> pd.DataFrame:
    """One row a pair of classes: do they go together as they do in real images? Least q-value, largest change first.

    What is compared is the log odds ratio of the two presences across images, which does not depend on how frequent
    either class is: a generator may draw both as often as it should, and never in the same image. Estimates with half
    an image added to every cell (Haldane 1956; Anscombe 1956), standard errors from all eight cells (Woolf 1955).

    Pairs are those where on either side at least five images are expected in every cell, were the classes independent
    (Cochran 1954); so both are in at least five. With fewer the half images decide: of independent classes, each in 1 %
    of 2,000 made images and in 20 % of as many real ones, p would be ≤ 0.05 in 15 % of cases.

    Columns:
        one, other: of `names`.
        together, real_together: share of images with both.
        expected: product of the generator's own two presences.
        log_odds, real_log_odds: log odds ratios.
        difference, difference_low, difference_high: log_odds - real_log_odds, and its 95 % interval.
        p_value: two-sided, of no difference; q_value: of all pairs (Benjamini and Hochberg 1995).

    Raises:
        DissectError: as `compare_classes`.
    """
    _check(made, real, len(names))
    has, real_has = made >= PRESENT, real >= PRESENT
    one, other = np.nonzero(np.triu(_expected(has) & _expected(real_has), 1))
    cells, real_cells = (_cells(side)[:, one, other] for side in (has, real_has))  # (4, pairs)
    log_odds, variance = _log_odds(cells)
    real_log_odds, real_variance = _log_odds(real_cells)
    difference, error = log_odds - real_log_odds, np.sqrt(variance + real_variance)
    p_value = 2 * stats.norm.sf(np.abs(difference) / error)
    presence = has.mean(0)
    table = pd.DataFrame(
        {
            "one": [names[k] for k in one.tolist()],
            "other": [names[k] for k in other.tolist()],
            "together": cells[0] / len(made),
            "real_together": real_cells[0] / len(real),
            "expected": presence[one] * presence[other],
            "log_odds": log_odds,
            "real_log_odds": real_log_odds,
            "difference": difference,
            "difference_low": difference - Z * error,
            "difference_high": difference + Z * error,
            "p_value": p_value,
            "q_value": benjamini_hochberg(p_value),
        }
    )
    order = np.lexsort((-np.abs(difference), table.q_value))
    return table.iloc[order].reset_index(drop=True)


def segmentation_distance(made: Floats, real: Floats) -> float:
    """Fréchet distance of normal distributions fitted to the shares of each side, in squared shares.

    The Fréchet Segmentation Distance (Bau et al. 2019, section 3), by torch-fidelity's numerics. There, pixels are
    counted, by another segmenter, so that published values are not comparable. Round-off is of the order of 1e-9.

    Raises:
        DissectError: fewer than two images on a side, shares of different numbers of classes, or not finite.
    """
    _check(made, real, made.shape[1])
    seen = made.any(0) | real.any(0)  # what occurs nowhere adds nothing
    # two columns of zeros add nothing either: torch-fidelity needs a matrix, however few classes are seen
    return distances.frechet(*(torch.from_numpy(np.pad(side[:, seen], ((0, 0), (0, 2)))) for side in (made, real)))


def contributions(made: Floats, real: Floats) -> Floats:
    """(C,) of each class: `segmentation_distance` with all classes less that without it, in squared shares.

    At least the class's own distance, (difference of means)² + (difference of standard deviations)², up to round-off:
    the rest is how it varies with the others. For that reason the values do not add up to the distance of all.

    Raises:
        DissectError: as `segmentation_distance`.
    """
    whole = segmentation_distance(made, real)
    others = 1 - np.eye(made.shape[1])  # a class of zeros is none
    return np.array([whole - segmentation_distance(made * kept, real * kept) for kept in others])


def mean_parts(made: Floats, real: Floats) -> Floats:
    """(C,) squared differences of the mean shares: each class's part of the distance's first term, exactly.

    Raises:
        DissectError: as `segmentation_distance`.
    """
    _check(made, real, made.shape[1])
    return np.square(made.mean(0) - real.mean(0))


def _check(made: Floats, real: Floats, classes: int) -> None:
    if min(len(made), len(real)) < FEWEST:
        raise DissectError(
            f"Classes of {len(made)} made and {len(real)} real images cannot be compared; take {FEWEST} or more each."
        )
    if not made.shape[1] == real.shape[1] == classes:
        raise DissectError(
            f"Shares are of {made.shape[1]} classes in made and {real.shape[1]} in real images, where {classes} are "
            "asked for; segment both with one vocabulary."
        )
    if not (np.isfinite(made).all() and np.isfinite(real).all()):
        raise DissectError("Shares of classes are not finite; give shares of pixels, 0 to 1, from the segmenter.")


def _wilson(has: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Presences (N, C) -> their shares (C,), and both ends (C,) of the 95 % score interval (Wilson 1927)."""
    ends = [stats.binomtest(int(count), len(has)).proportion_ci(method="wilson") for count in has.sum(0)]
    low, high = np.array(ends).reshape(-1, 2).T
    return has.mean(0), low, high


def _size_test(mine: Floats, theirs: Floats) -> tuple[float, float]:
    """Shares (n,), (m,) -> p-value; share of pairs where mine is larger, ties half, less a half. NaN of too few."""
    if min(len(mine), len(theirs)) < FEWEST_SIZES:
        return np.nan, np.nan
    found = stats.mannwhitneyu(mine, theirs, alternative="two-sided")
    return found.pvalue, found.statistic / (len(mine) * len(theirs)) - 0.5


def _cells(has: NDArray[np.bool_]) -> Floats:
    """Presences (N, C) -> (4, C, C) numbers of images with both classes, only the first, only the second, neither."""
    both = has.T.astype(np.float64) @ has
    alone = both.diagonal()
    first, second = alone[:, None] - both, alone - both
    return np.stack([both, first, second, len(has) - both - first - second])


def _expected(has: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Presences (N, C) -> (C, C): are enough images expected in every cell, were the classes independent?"""
    least = np.minimum(has.sum(0), (~has).sum(0))
    return np.outer(least, least) >= FEWEST_EXPECTED * len(has)


def _log_odds(cells: Floats) -> tuple[Floats, Floats]:
    """Cells (4, pairs) -> log odds ratios (pairs,) and their variances (pairs,)."""
    both, first, second, neither = cells + 0.5
    return np.log(both * neither / (first * second)), (1 / (cells + 0.5)).sum(0)
