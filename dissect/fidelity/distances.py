"""Distances of sets of images from a reference, with intervals, by torch-fidelity's definitions.

Distances and their parts come from torch-fidelity: Fréchet distance (Heusel et al. 2017), kernel distance with its
cubic polynomial kernel (Bińkowski et al. 2018), precision and recall by three nearest neighbours (Kynkäänniemi et al.
2019). Coverage (Naeem et al. 2020), which it lacks, is ours. Diversity is judged by coverage: recall rises with every
outlier, since its balls are around the generated images, so that taking artifacts out lowers it.

Intervals: 95 %, over random halves of the images and of the reference, drawn without replacement (the delete-half
jackknife, Shao and Wu 1989): value ± t · s, s the standard deviation over the halves. A bootstrap draws images twice,
which by itself makes Fréchet distances larger and nearest neighbours nearer. Sets are compared on the same latents and
the same halves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import DissectError
from ..runtime import distributed
from ..stats.intervals import around, halves, rounds

METRICS = ("frechet", "kernel", "precision", "recall", "coverage")
LOWER_IS_BETTER = ("frechet", "kernel")
NEIGHBOURS, COVERING = 3, 5  # nearest neighbours, as their papers choose
COPY = 1e-5  # relative distance of features up to which two images are the same
TOLERATED = 0.1  # relative loss of coverage; a larger one is lost diversity

BEFORE, REPAIRED, RANDOM = "before", "repaired", "random"


def distances(features: Tensor, reference: Tensor) -> dict[str, float]:
    """features (N, D), reference (M, D) -> the figures of `METRICS`. N above 3, M above 5."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    features, reference = features.double(), reference.double()
    statistics = [fid_features_to_statistics(side) for side in (features, reference)]
    frechet = fid_statistics_to_metric(*statistics, False)
    size = min(len(features), len(reference))
    kernel = kid_features_to_metric(features, reference, kid_subsets=1, kid_subset_size=size, verbose=False)
    manifold_reference = distinct(reference)
    manifold = prc_features_to_metric(
        features,
        manifold_reference,
        prc_neighborhood=min(NEIGHBOURS, len(manifold_reference) - 1),
        prc_batch_size=10_000,
        save_cpu_ram=False,
        verbose=False,
    )
    return {
        "frechet": frechet["frechet_inception_distance"],
        "kernel": kernel["kernel_inception_distance_mean"],
        "precision": manifold["precision"],
        "recall": manifold["recall"],
        "coverage": coverage(features, reference),
    }


def coverage(features: Tensor, reference: Tensor) -> float:
    """features (N, D), reference (M, D) -> the share of the reference with an image nearer than its fifth neighbour.

    Source: Naeem et al. 2020, equation 9. Copies in the reference count once, since a copy at distance 0 is no
    neighbour.

    >>> reference = torch.arange(12.0)[:, None]
    >>> coverage(torch.tensor([[0.0], [100.0]]), reference)  # 0, 1 and 2 have 0 nearer than their fifth neighbour
    0.25
    """
    reference = distinct(reference)
    return float((torch.cdist(reference, features).amin(1) < fifth_neighbour(reference)).double().mean())


def fifth_neighbour(reference: Tensor) -> Tensor:
    """reference (M, D), distinct rows -> (M,) the distance of each to its fifth neighbour; of fewer, to the last.

    >>> fifth_neighbour(torch.arange(7.0)[:, None])
    tensor([5., 4., 3., 3., 3., 4., 5.])
    """
    return torch.cdist(reference, reference).kthvalue(min(COVERING, len(reference) - 1) + 1).values


def distinct(features: Tensor) -> Tensor:
    """features (N, D) float64 -> (n, D): without the rows that are copies of earlier ones.

    A copy has a neighbour at distance 0, so that its ball has no inside and nothing can lie in it. Copies are rows
    whose distance is explained by rounding in float32: at most 1e-5 of the rows' root mean square length.

    >>> distinct(torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    tensor([[1., 2.],
            [3., 4.]])

    Raises:
        DissectError: all rows are copies of one.
    """
    near = COPY * float(features.square().sum(1).mean().sqrt())
    line = F.normalize(torch.linspace(-1, 1, features.shape[1], dtype=features.dtype), dim=0)
    key, order = (features @ line).sort()  # rows that are near in space are near on any line
    copies = torch.zeros(len(features), dtype=torch.bool)
    for step in range(1, len(features)):
        close = (key[step:] - key[:-step] <= near).nonzero().flatten()
        if not len(close):
            break
        left, right = order[close], order[close + step]
        same = (features[left] - features[right]).norm(dim=1) <= near
        copies[torch.maximum(left, right)[same]] = True
    features = features[~copies]
    if len(features) < 2:
        raise DissectError("The images to compare with are all the same; give different ones, hundreds if there are.")
    return features


def frechet(features: Tensor, reference: Tensor) -> float:
    """features (N, D), reference (M, D) -> the Fréchet distance alone.

    >>> features = torch.randn(100, 2).double()
    >>> round(frechet(features, features + torch.tensor([3.0, 4.0])), 3)  # the squared distance of the means
    25.0
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    sides = (fid_features_to_statistics(side.double()) for side in (features, reference))
    return float(fid_statistics_to_metric(*sides, False)["frechet_inception_distance"])


def frechet_gradient(features: Tensor, reference: Tensor) -> Tensor:
    """features (N, D), reference (M, D) -> (N, D) float64: the derivative of `frechet` by each feature vector.

    With means μ and μ_r, covariances Σ and Σ_r, and R = Σ_r^½, the distance is |μ − μ_r|² + tr(Σ + Σ_r − 2 (R Σ R)^½)
    (Dowson and Landau 1982). Its derivatives are 2 (μ − μ_r) by μ, and I − T by Σ, where T = R (R Σ R)^−½ R; hence, for
    the vector x_i, 2 (μ − μ_r) / N + 2 (I − T) (x_i − μ) / (N − 1). Since x ↦ μ_r + T (x − μ) is the optimal map from
    the one normal distribution to the other (Olkin and Pukelsheim 1982), this is the way that the map would take the
    vector, backwards, times 2 / N.

    Directions in which features or reference do not vary are left out of the inverse: x_i − μ has no component there.

    >>> features = torch.randn(50, 2).double()
    >>> gradient = frechet_gradient(features, features + torch.tensor([3.0, 4.0]))
    >>> (gradient[0] * 50).round(decimals=6).tolist()  # twice the way back
    [-6.0, -8.0]
    """
    features, reference = features.double(), reference.double()
    mean, mean_of_reference = features.mean(0), reference.mean(0)
    root = _symmetric_power(torch.cov(reference.T), 0.5)
    transport = root @ _symmetric_power(root @ torch.cov(features.T) @ root, -0.5) @ root
    centred = features - mean
    by_covariance = 2 * (centred - centred @ transport) / (len(features) - 1)
    return 2 * (mean - mean_of_reference) / len(features) + by_covariance


def _symmetric_power(matrix: Tensor, power: float) -> Tensor:
    """matrix (D, D), positive semidefinite, to a power, on the directions in which it is not zero."""
    values, vectors = torch.linalg.eigh(matrix)
    positive = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    powers = torch.where(positive, values.clamp(min=torch.finfo(values.dtype).tiny) ** power, 0)
    return vectors * powers @ vectors.T


def compare(
    sets: Mapping[str, Tensor],
    reference: Tensor,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """One row a set and metric, beside the set called `before`.

    Args:
        sets: features (N, D) of the same latents; `before` among them.
        reference: (M, D).
        advance: is called with the number of comparisons done, `rounds(D) + 1` a set.

    Columns: set, metric, value, low, high; change from `before` with change_low, change_high, NaN in its own rows.

    Raises:
        DissectError: features that are not finite.
    """
    for name, features in sets.items():
        if not bool(features.isfinite().all()):
            raise DissectError(
                f"Features of the images {name} are not finite; look at the images, or edit other units."
            )
    count, width = sets[BEFORE].shape
    everything = (torch.arange(count), torch.arange(len(reference)))
    selections = [everything, *halves(count, len(reference), rounds(width), seed)]
    rows = []
    for name, (chosen, chosen_reference) in distributed.mine(list(product(sets, selections))):
        values = distances(sets[name][chosen], reference[chosen_reference])
        rows.append([values[metric] for metric in METRICS])
        advance(1)
    figures = np.array(distributed.in_order(rows)).reshape(len(sets), len(selections), len(METRICS))
    if not np.isfinite(figures).all():
        bad = METRICS[int((~np.isfinite(figures)).any((0, 1)).argmax())]
        raise DissectError(
            f"The {bad} of some images is not a number, so that there is no verdict; look at the images."
        )
    of_sets: dict[str, NDArray[np.float64]] = dict(zip(sets, figures, strict=True))  # (1 + rounds, 5) each
    table = []
    for name, of_set in of_sets.items():
        for k, metric in enumerate(METRICS):
            low, high = around(of_set[:, k])
            row = {"set": name, "metric": metric, "value": of_set[0, k], "low": low, "high": high}
            change = of_set[:, k] - of_sets[BEFORE][:, k]
            low, high = around(change)
            if name != BEFORE:
                row |= {"change": change[0], "change_low": low, "change_high": high}
            table.append(row)
    return pd.DataFrame(table)
