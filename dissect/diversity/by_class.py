"""Does a generator draw each class as often, as large and beside the same others as real images do?

A class that it never draws is a dropped mode (Bau et al. 2019, "Seeing What a GAN Cannot Generate"), which distances of
features hardly show. Every test counts images, not pixels: images are drawn independently, the pixels of one are not.

Throughout, `generated` (N, C) and `real` (M, C) are float64 shares of an image's pixels by class, in [0, 1].
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

PRESENT = 0.002  # share of an image's pixels from which a class counts as present; less is noise of the segmenter
FEWEST = 2  # images on each side
FEWEST_SIZES = 3  # images with the class on each side, for a test of its sizes
FEWEST_EXPECTED = 5  # images on each side in every cell of the table of two classes, if they were independent

MISSING, RARER, SMALLER = "missing", "rarer", "smaller"  # verdicts on what the generator lacks
MORE_FREQUENT, LARGER = "more frequent", "larger"

Z = float(stats.norm.ppf((1 + LEVEL) / 2))


def compare_classes(generated: Floats, real: Floats, names: Sequence[str]) -> pd.DataFrame:
    """Compare each class's presence and size in generated images with real ones.

    Args:
        generated: (N, C) shares of pixels, float64 in [0, 1].
        real: (M, C) likewise.
        names: of the C classes.

    Returns:
        One row a class. Missing classes come first, by real presence; then rarer and smaller ones, those that keep the
        least of their real share first; then all others by q-value, larger differences first. A class that is missing
        leaves its pixels to others, which are then more frequent: they are listed after it.

    Columns:
        class: its name.
        presence, presence_low, presence_high: share of generated images where the class has at least `PRESENT` of the
            pixels, and its 95 % interval (Wilson 1927); real_presence, real_low, real_high of the real ones.
        difference, difference_low, difference_high: presence - real_presence, and its 95 % interval, from those of both
            (Newcombe 1998, method 10).
        share, real_share: mean share of the pixels, over all images.
        p_presence: two-sided, Fisher's exact test of the counts.
        size, real_size, size_ratio: median share among images that have the class, and generated over real; NaN if no
            image has it.
        p_size: two-sided, Mann-Whitney U test of these shares; NaN with fewer than three images on a side.
        q_presence, q_size: of all p-values of the table together (Benjamini and Hochberg 1995).
        verdict: `missing` if no generated image has it and q_presence ≤ 0.05; else `rarer` or `more frequent` if
            q_presence ≤ 0.05; else `smaller` or `larger` if q_size ≤ 0.05, as the generated image has the smaller or
            larger share in most pairs of a generated and a real image; else empty.

    Raises:
        DissectError: fewer than two images on a side, shares of another number of classes, or not finite.
    """
    _check(generated, real, len(names))
    has, real_has = generated >= PRESENT, real >= PRESENT
    presence, low, high = _wilson(has)
    real_presence, real_low, real_high = _wilson(real_has)
    difference = presence - real_presence
    counts = np.stack([has.sum(0), (~has).sum(0), real_has.sum(0), (~real_has).sum(0)], axis=1).reshape(-1, 2, 2)
    p_presence = np.array([stats.fisher_exact(table).pvalue for table in counts])
    sizes = [_size_test(generated[has[:, k], k], real[real_has[:, k], k]) for k in range(len(names))]
    p_size, lean = np.array(sizes).T
    q_presence, q_size = benjamini_hochberg(np.stack([p_presence, p_size]))
    size, real_size = (
        pd.DataFrame(shares).where(shares >= PRESENT).median().to_numpy() for shares in (generated, real)
    )
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
            "share": generated.mean(0),
            "real_share": real.mean(0),
            "p_presence": p_presence,
            "size": size,
            "real_size": real_size,
            "size_ratio": ratio(size, real_size),
            "p_size": p_size,
            "q_presence": q_presence,
            "q_size": q_size,
            "verdict": _verdicts(presence, difference, lean, q_presence, q_size),
        }
    )
    return table.iloc[_what_is_lacking_first(table)].reset_index(drop=True)


def _verdicts(
    presence: Floats, difference: Floats, lean: Floats, q_presence: Floats, q_size: Floats
) -> NDArray[np.str_]:
    """(C,) verdicts, see `compare_classes`; `lean` is the second result of `_size_test`."""
    presence_differs, size_differs = q_presence <= FALSE_DISCOVERIES, q_size <= FALSE_DISCOVERIES
    cases = {  # the first that holds
        MISSING: presence_differs & (presence == 0),
        RARER: presence_differs & (difference < 0),
        MORE_FREQUENT: presence_differs,
        SMALLER: size_differs & (lean < 0),
        LARGER: size_differs,
    }
    return np.select(list(cases.values()), list(cases), "")


def _what_is_lacking_first(table: pd.DataFrame) -> NDArray[np.int64]:
    """The order of the rows of `compare_classes`."""
    missing, lacking = table.verdict == MISSING, table.verdict.isin((RARER, SMALLER))
    kept_share = ratio(table.share.to_numpy(), table.real_share.to_numpy())
    within_group = np.where(missing, -table.real_presence, np.where(lacking, kept_share, 0))
    group = np.select([missing, lacking], [0, 1], 2)
    return np.lexsort((-np.abs(table.difference), table.q_presence, within_group, group))  # by the last key first


def compare_pairs(generated: Floats, real: Floats, names: Sequence[str]) -> pd.DataFrame:
    """Compare how often two classes occur in the same image with how often they do so in real images.

    The log odds ratio of the two presences across images is compared, which does not depend on how frequent either
    class is: a generator may draw both as often as it should, and never in the same image. Estimates have half an image
    added to every cell (Haldane 1956; Anscombe 1956), standard errors are from all eight cells (Woolf 1955).

    The table has the pairs for which at least five images are expected in every cell on either side if the classes were
    independent (Cochran 1954); so each class is in at least five images. With fewer, the added half images decide: of
    independent classes, each in 1 % of 2,000 generated images and in 20 % of as many real ones, p would be ≤ 0.05 in
    15 % of cases.

    Args:
        generated: (N, C) shares of pixels, float64 in [0, 1].
        real: (M, C) likewise.
        names: of the C classes.

    Returns:
        One row a pair, least q-value first, then largest change.

    Columns:
        one, other: names of the two classes.
        together, real_together: share of images with both.
        expected: product of the generator's own two presences.
        log_odds, real_log_odds: log odds ratios.
        difference, difference_low, difference_high: log_odds - real_log_odds, and its 95 % interval.
        p_value: two-sided, of no difference; q_value: of all pairs (Benjamini and Hochberg 1995).

    Raises:
        DissectError: as `compare_classes`.
    """
    _check(generated, real, len(names))
    has, real_has = generated >= PRESENT, real >= PRESENT
    first, second = np.nonzero(np.triu(_enough_expected(has) & _enough_expected(real_has), 1))
    cells, real_cells = (_cells(presences)[:, first, second] for presences in (has, real_has))  # (4, pairs)
    log_odds, variance = _log_odds(cells)
    real_log_odds, real_variance = _log_odds(real_cells)
    difference, error = log_odds - real_log_odds, np.sqrt(variance + real_variance)
    p_value = 2 * stats.norm.sf(np.abs(difference) / error)
    presence = has.mean(0)
    table = pd.DataFrame(
        {
            "one": [names[k] for k in first.tolist()],
            "other": [names[k] for k in second.tolist()],
            "together": cells[0] / len(generated),
            "real_together": real_cells[0] / len(real),
            "expected": presence[first] * presence[second],
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


def segmentation_distance(generated: Floats, real: Floats) -> float:
    """Fréchet distance of normal distributions fitted to the shares (N, C) and (M, C), in squared shares.

    This is the Fréchet Segmentation Distance (Bau et al. 2019, section 3), by torch-fidelity's numerics. The paper
    counts pixels, of another segmenter, so that its values are not comparable. Round-off is of the order of 1e-9.

    Raises:
        DissectError: fewer than two images on a side, shares of different numbers of classes, or not finite.
    """
    _check(generated, real, generated.shape[1])
    occurs = generated.any(0) | real.any(0)  # a class that occurs nowhere adds nothing
    # two columns of zeros add nothing either: torch-fidelity needs a matrix, even if fewer than two classes occur
    padded = (np.pad(shares[:, occurs], ((0, 0), (0, 2))) for shares in (generated, real))
    return distances.frechet(*map(torch.from_numpy, padded))


def contributions(generated: Floats, real: Floats) -> Floats:
    """(C,) for each class: `segmentation_distance` of all classes minus that of all others, in squared shares.

    It is at least the class's own distance, (difference of means)² + (difference of standard deviations)², up to
    round-off; what it has beyond that comes from how the class varies with the others. Therefore the values do not add
    up to the distance of all classes.

    Raises:
        DissectError: as `segmentation_distance`.
    """
    total = segmentation_distance(generated, real)
    masks = 1 - np.eye(generated.shape[1])  # each sets one class to zero, which leaves it out
    return np.array([total - segmentation_distance(generated * mask, real * mask) for mask in masks])


def mean_parts(generated: Floats, real: Floats) -> Floats:
    """(C,) squared differences of the mean shares: what each class adds to the distance's first term, exactly.

    Raises:
        DissectError: as `segmentation_distance`.
    """
    _check(generated, real, generated.shape[1])
    return np.square(generated.mean(0) - real.mean(0))


def _check(generated: Floats, real: Floats, classes: int) -> None:
    if min(len(generated), len(real)) < FEWEST:
        raise DissectError(
            f"Classes of {len(generated)} generated and {len(real)} real images cannot be compared; give at least "
            f"{FEWEST} of each."
        )
    if not generated.shape[1] == real.shape[1] == classes:
        raise DissectError(
            f"Shares must be of {classes} classes; those of the generated images have {generated.shape[1]} and those "
            f"of the real images {real.shape[1]}: segment both with the same segmenter."
        )
    if not (np.isfinite(generated).all() and np.isfinite(real).all()):
        raise DissectError("Shares of classes are not finite; they must be shares of pixels, between 0 and 1.")


def _wilson(has: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Presences (N, C) -> their shares (C,), and both ends (C,) of the 95 % score interval (Wilson 1927)."""
    ends = [stats.binomtest(int(count), len(has)).proportion_ci(method="wilson") for count in has.sum(0)]
    low, high = np.array(ends).reshape(-1, 2).T
    return has.mean(0), low, high


def _size_test(sizes: Floats, real_sizes: Floats) -> tuple[float, float]:
    """Test whether a class's shares (n,) in generated images differ from those (m,) in real ones.

    Returns:
        The p-value, and the lean: the share of pairs in which the generated share is the larger one, ties counting
        half, minus a half. Both are NaN with too few images.
    """
    if min(len(sizes), len(real_sizes)) < FEWEST_SIZES:
        return np.nan, np.nan
    test = stats.mannwhitneyu(sizes, real_sizes, alternative="two-sided")
    return test.pvalue, test.statistic / (len(sizes) * len(real_sizes)) - 0.5


def _cells(has: NDArray[np.bool_]) -> Floats:
    """Presences (N, C) -> (4, C, C) counts of images with both classes, only the first, only the second, neither."""
    both = has.T.astype(np.float64) @ has
    count = both.diagonal()  # (C,) of images with the class
    first, second = count[:, None] - both, count - both
    return np.stack([both, first, second, len(has) - both - first - second])


def _enough_expected(has: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Presences (N, C) -> (C, C): whether every cell of two independent classes would have enough expected images."""
    least = np.minimum(has.sum(0), (~has).sum(0))
    return np.outer(least, least) >= FEWEST_EXPECTED * len(has)


def _log_odds(cells: Floats) -> tuple[Floats, Floats]:
    """Cells (4, pairs) -> log odds ratios (pairs,) and their variances (pairs,)."""
    both, first, second, neither = cells + 0.5
    return np.log(both * neither / (first * second)), (1 / (cells + 0.5)).sum(0)
