"""Units chosen by the first-order effect of changing each of them alone; see `causes.first_order`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...hooks.errors import DissectError
from ..causes.first_order import Change, Estimator, Pairs
from ..causes.table import Draw, draw_by_area, mean_and_interval
from ..images.class_areas import at_centres
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.lookup import Floats
from ..subjects.subject import Subject
from .places import Where

DRAWS = 128  # samples of the run, at most


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """(U,) percentage points of the image that changing each unit alone adds to a class, and its 95 % interval."""

    effect: Floats
    low: Floats
    high: Floats


def obstacle(subject: Subject) -> str:
    """Why no effect can be estimated, in a few words; empty where it can."""
    return _estimator(subject, Change()).obstacle()


def ablation_effects(
    subject: Subject, run: Dissection, target: int, value: Tensor, advance: Callable[[int], None]
) -> FirstOrder:
    """What setting each unit to its value everywhere adds to a class, in samples drawn in proportion to its area.

    Args:
        subject: the networks and the layer.
        run: the run, from whose samples are drawn.
        target: the number of the class, which occurs in the run.
        value: (U,)
        advance: `advance(n)` is called after every n samples.
    """
    area = run.class_areas()[:, target]
    draw = draw_by_area(area, min(DRAWS, int((area > 0).sum())))
    return _estimate(subject, target, Change(value=value, directions=subject.directions), draw, advance)


def insertion_effects(
    subject: Subject,
    run: Dissection,
    target: int,
    value: Tensor,
    where: Where,
    place: Tensor | None,
    advance: Callable[[int], None],
) -> FirstOrder:
    """What setting each unit to its value in a place adds to a class, in samples at equal distances in the run.

    Args:
        subject, run, target, value, advance: see `ablation_effects`.
        where: the place. On a grid of cells, all cells together: to first order, effects add up.
        place: (1, 1, h, w), for a box or a mask.

    Raises:
        DissectError: the class of the place occurs in none of the run's samples.
    """
    candidates, number = np.arange(run.info["config"]["samples"]), None
    if where.kind == "class":
        number = lookup.run_class(run, where.name)
        candidates = np.flatnonzero(run.class_areas()[:, number])
        if not len(candidates):
            raise DissectError(f"--where {where.text}: none of the run's samples has it.")
    samples = candidates[np.linspace(0, len(candidates) - 1, min(DRAWS, len(candidates))).round().astype(int)]
    cells = place[0, 0] if place is not None and where.kind in ("box", "mask") else None
    if number is not None:
        labels = torch.from_numpy(np.array(run.spool.gather("labels", samples)))
        cells = (at_centres(labels, subject.shape[1:]) == number).any(1).float()  # (n, h, w)
    draw = Draw(samples=samples, weight=np.ones(len(samples)))
    change = Change(value=value, directions=subject.directions, place=cells)
    return _estimate(subject, target, change, draw, advance)


def _estimator(subject: Subject, change: Change) -> Estimator:
    batch = max(1, subject.batch // 2)  # gradients need memory
    return Estimator(
        generator=subject.generator, segmenter=subject.segmenter, layers={subject.layer: change}, batch=batch
    )


def _estimate(subject: Subject, target: int, change: Change, draw: Draw, advance: Callable[[int], None]) -> FirstOrder:
    pairs = Pairs(samples=draw.samples.tolist(), classes=[target] * len(draw.samples))
    effects = _estimator(subject, change)(pairs, advance)[subject.layer].double().numpy()
    effect, low, high = mean_and_interval(100 * draw.weight[:, None] * effects)
    return FirstOrder(effect=effect, low=low, high=high)
