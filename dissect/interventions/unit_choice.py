"""Which units to change, and to what: random and matched sets, typical high values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...hooks.errors import DissectError, UsageError
from ..images import resize as gr
from ..runs.dissection import Dissection
from ..runs.lookup import Floats, Integers, class_level
from ..runtime import distributed
from ..subjects.subject import Subject

NEAREST = 5  # units of the most similar strength, from which a matched one is drawn
MEASURED = 1000  # samples of the run, at most, on which activations are measured


def random_orders(width: int, chosen: Integers, sets: int, seed: int) -> Integers:
    """(B, U) random orders of all units; the chosen ones come last if the others suffice for a set as large."""
    dice = np.random.default_rng([seed, 1])
    orders = np.stack([dice.permutation(width) for _ in range(sets)]) if sets else np.zeros((0, width), np.int64)
    if 2 * len(chosen) > width:
        return orders
    late = np.isin(orders, chosen)
    return np.take_along_axis(orders, late.argsort(axis=1, kind="stable"), 1)


def matched_sets(strength: Floats, chosen: Integers, sets: int, seed: int) -> Integers:
    """Draw sets of units that are about as active as the chosen ones.

    For each chosen unit, one of the five units of the most similar strength that are not drawn yet. If the other units
    do not suffice for a set, chosen ones are drawn too.

    Args:
        strength: (U,), root mean square activation.
        chosen: (n,) units.
        sets: B, how many sets.
        seed: of the draws.

    Returns:
        (B, n) units.
    """
    dice = np.random.default_rng([seed, 2])
    distance = np.abs(np.log(strength[:, None] + 1e-12) - np.log(strength[None, chosen] + 1e-12))  # (U, n)
    if 2 * len(chosen) <= len(strength):
        distance[chosen] = np.inf
    drawn = np.zeros((sets, len(chosen)), np.int64)
    for row in drawn:
        available = distance.copy()  # infinite for units that are drawn already
        for index in dice.permutation(len(chosen)):
            nearest = np.argsort(available[:, index], kind="stable")[:NEAREST]
            row[index] = dice.choice(nearest[np.isfinite(available[nearest, index])])
            available[row[index]] = np.inf
    return drawn


def unit_statistics(
    subject: Subject, samples: Sequence[int], advance: Callable[[int], None] = lambda _: None
) -> tuple[Tensor, Tensor]:
    """(U,) mean activation of each unit over samples and positions, and (U,) its root mean square.

    Of directions, (K,) mean and root mean square of the readings.
    """
    total, square = (torch.zeros(subject.width, dtype=torch.float64) for _ in range(2))
    for _, batch in subject.batches(samples):
        x = subject.readings(subject.featuremaps(batch).float().nan_to_num(0, 0, 0))
        total += x.mean((2, 3)).cpu().double().sum(0)
        square += x.square().mean((2, 3)).cpu().double().sum(0)
        advance(len(batch))
    distributed.all_sum(total, square)
    return (total / len(samples)).float(), (square / len(samples)).sqrt().float()


def typical_high(
    subject: Subject,
    run: Dissection,
    number: int,
    samples: Sequence[int],
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """(U,) float32: the typical high activation of each unit where it draws a class, to which insertion sets it.

    Of directions (K,): the typical high reading of each.

    It is the mean of the unit's activation over the pixels of the class, on the grid and in these samples of the run,
    where the activation is above the threshold for that class. A unit that is nowhere above it gets the threshold.

    Raises:
        DissectError: the class occurs in none of these samples.
    """
    level = class_level(run, subject.layer, number)
    threshold = torch.from_numpy(run.levels(subject.layer)[np.arange(len(level)), level]).double()
    total, count = (torch.zeros(subject.width, dtype=torch.float64) for _ in range(2))
    class_pixels = 0
    for _, batch in subject.batches(samples):
        labels = torch.from_numpy(np.array(run.spool.gather("labels", np.array(batch))))
        of_class = (labels == number).any(1, keepdim=True)  # (n, 1, g, g)
        class_pixels += int(of_class.sum())
        x = gr.at_most(subject.readings(subject.featuremaps(batch).float()), run.info["grid"])
        x = gr.upsample(x, run.info["grid"]).cpu().nan_to_num(0, 0, 0)
        high = of_class & (x > threshold[:, None, None].float())
        total += torch.where(high, x, 0.0).double().sum((0, 2, 3))
        count += high.sum((0, 2, 3))
        advance(len(batch))
    distributed.all_sum(total, count)
    if not any(distributed.all_gather(class_pixels)):
        name = run.classes["class"][number]
        raise DissectError(
            f"The class {name!r} occurs in none of the run's samples, so there is no typical value to insert; give "
            "--level, or dissect more samples."
        )
    return torch.where(count > 0, total / count.clamp(min=1), threshold).float()


def level_value(run: Dissection, layer: str, share: float) -> tuple[Tensor, float]:
    """(U,) the activation that a share of the pixels exceeds, at the nearest of the run's levels; and its share.

    Raises:
        UsageError: the share is outside the run's levels.
    """
    lowest, highest = float(run.shares.min()), float(run.shares.max())
    if not lowest <= share <= highest:
        raise UsageError(f"--level {share}: must be a share of pixels between {lowest:g} and {highest:g}.")
    nearest = int(np.abs(np.log(run.shares / share)).argmin())
    return torch.from_numpy(run.levels(layer)[:, nearest]).float(), float(run.shares[nearest])
