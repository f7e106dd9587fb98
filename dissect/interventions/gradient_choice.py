"""Units chosen by the first-order effect of changing each of them alone; see `causes.first_order`.

The gradient is taken twice. The first half of the units are those of the strongest effect on the unchanged samples. The
others are those of the strongest effect on samples in which the first half is changed already. So units that stand in
for each other show, and a large step is made as two: twenty units of layer5 of `progan_scenes` chosen so inserted 3.6
instead of 3.0 percentage points of clouds (averages over four points of the way: 3.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...hooks.errors import DissectError
from ..causes.first_order import Change, Estimator, Pairs
from ..causes.table import Draw, draw_by_area, mean_and_interval
from ..images.class_areas import at_centres
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.lookup import Floats, Integers
from ..subjects.subject import Subject
from .areas import Variants
from .places import Where

DRAWS = 128  # samples of the run, at most, for both halves together


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """Units in the order in which they are chosen, and the effect of changing each alone, in percentage points.

    order: (U,) units, best first. effect, low, high: (U,) by unit, with a 95 % interval; for all but the first half of
    the chosen units on samples in which that half is changed already.
    """

    order: Integers
    effect: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is done to units, on which class it should act, and in which samples that is estimated.

    target: the number of the class. sign: 1 to take it away, −1 to add it. stepwise: whether the gradient is taken
    anew when half of the units are changed.
    """

    subject: Subject
    target: int
    change: Change
    draw: Draw
    sign: int
    stepwise: bool

    def choose(self, top: int, advance: Callable[[int], None]) -> FirstOrder:
        """The units, best first, so that the first `top` are changed together.

        Args:
            top: how many units are going to be changed.
            advance: `advance(n)` is called after every n samples.
        """
        if top < 2 or not self.stepwise or len(self.draw.samples) < 2:
            return self._estimate(slice(None), self.change, advance)
        first = self._estimate(slice(0, None, 2), self.change, advance)
        half = first.order[: top // 2]
        second = self._estimate(slice(1, None, 2), replace(self.change, start=self._with(half)), advance)
        is_first = np.isin(np.arange(len(first.order)), half)
        order = np.concatenate([half, second.order[~is_first[second.order]]])
        effect, low, high = (
            np.where(is_first, getattr(first, name), getattr(second, name)) for name in ("effect", "low", "high")
        )
        return FirstOrder(order=order, effect=effect, low=low, high=high)

    def _with(self, units: Integers) -> Callable[[Tensor, slice], Tensor]:
        """Featuremaps of the second half of the draws -> the same with these units changed."""
        assert self.change.value is not None
        weight = torch.zeros(1, 1, self.subject.width)
        weight[..., torch.from_numpy(units)] = 1
        place = self.change.place
        if place is not None:
            place = place[None, None] if place.ndim == 2 else place[None, 1::2]  # (1, 1 or n, h, w)
        changed = Variants(weight=weight, value=self.change.value, place=place, directions=self.subject.directions)
        return lambda x, rows: changed.apply(x, None, slice(0, 1), rows)

    def _estimate(self, which: slice, change: Change, advance: Callable[[int], None]) -> FirstOrder:
        """By the draws `which`."""
        samples, weight = self.draw.samples[which], self.draw.weight[which]
        if change.place is not None and change.place.ndim == 3:
            change = replace(change, place=change.place[which])
        pairs = Pairs(samples=samples.tolist(), classes=[self.target] * len(samples))
        effects = Estimator.of(self.subject, change)(pairs, advance)[self.subject.layer].double().numpy()
        effect, low, high = mean_and_interval(100 * weight[:, None] * effects)
        order = np.argsort(self.sign * effect, kind="stable")
        return FirstOrder(order=order, effect=effect, low=low, high=high)


def obstacle(subject: Subject) -> str:
    """Why no effect can be estimated, in a few words; empty where it can."""
    return Estimator.of(subject, Change()).obstacle()


def ablation(subject: Subject, run: Dissection, target: int, value: Tensor) -> Trial:
    """Setting units to their value everywhere, in samples of the run drawn in proportion to the area of the class.

    Args:
        subject: the networks and the layer.
        run: the run, from whose samples are drawn.
        target: the number of the class, which occurs in the run.
        value: (U,)
    """
    area = run.class_areas()[:, target]
    draw = draw_by_area(area, min(DRAWS, int((area > 0).sum())))
    change = Change(value=value, directions=subject.directions)
    return Trial(subject=subject, target=target, change=change, draw=draw, sign=1, stepwise=True)


def insertion(
    subject: Subject, run: Dissection, target: int, value: Tensor, where: Where, place: Tensor | None
) -> Trial:
    """Setting units to their value in a place, in samples at equal distances in the run.

    Args:
        subject, run, target, value: see `ablation`.
        where: the place. On a grid, where each cell is changed by itself, all cells are taken together: to first order
            effects add up.
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
    stepwise = where.kind != "grid"  # half of the units in all cells at once would be another picture
    return Trial(subject=subject, target=target, change=change, draw=draw, sign=-1, stepwise=stepwise)
