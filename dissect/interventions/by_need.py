"""Which units of a layer remove most of a class, without ablating each; and a bound on what that may have missed.

A first-order estimate ranks all units. The exact effect is measured of those that could be among the first k: of the
first ones by estimate, and of further ones, block by block, until a block has none that is among the first k. Two
checks, after the diagnostics of AtP* (Kramár et al. 2024), say whether to trust that:

- how well estimates and exact effects agree in rank, over those units and over some that are drawn at random;
- all other units are ablated in random groups, and what each group removes is compared with its units' estimates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..stats.significance import LEVEL, bootstrap

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Members = NDArray[np.bool_]

DRAWN = 10  # units that are drawn at random, from those that are not the first ones by estimate
GROUPS = 8  # into which the units that are not verified are divided


def verify(estimate: Floats, effects: Callable[[Integers], Floats], top: int) -> Integers:
    """The units whose exact effects tell which ones remove most.

    They are the first `top` by estimate, ten of the others that are drawn at random, and then, by estimate, blocks of
    half as many as `top`, until a block has none that is among the `top` that remove most.

    Args:
        estimate: (U,) what ablating each unit adds to the area of a class, to first order.
        effects: units (V,) -> (V,) what ablating each adds, exactly.
        top: how many of the units that remove most are to be known.

    Returns:
        (V,) units, in the order in which they were measured.

    >>> exact = np.zeros(40)
    >>> exact[[7, 8, 9, 10, 30]] = -1
    >>> units = verify(exact.cumsum(), lambda units: exact[units], 2)
    """
    order = np.argsort(estimate, kind="stable")
    drawn = np.random.default_rng(5).permutation(order[top:])[:DRAWN]
    units = np.concatenate([order[:top], drawn])
    rest = order[~np.isin(order, units)]
    changes, block = effects(units), max(1, top // 2)
    while len(rest):
        added, rest = rest[:block], rest[block:]
        units, changes = np.concatenate([units, added]), np.concatenate([changes, effects(added)])
        if not np.isin(added, strongest(units, changes, top)).any():
            break
    return units


def strongest(units: Integers, changes: Floats, top: int) -> Integers:
    """Of some units, the `top` that remove most, as far as they remove anything.

    >>> strongest(np.array([4, 5, 6]), np.array([-1.0, 0.5, -2.0]), 3)
    array([6, 4])
    """
    order = np.lexsort([units, changes])[:top]
    return units[order[changes[order] < 0]]


def random_groups(units: Integers, width: int) -> Members:
    """(G, U): some units, divided at random into groups of almost equal size."""
    count = min(GROUPS, len(units))
    members = np.zeros((count, width), bool)
    shuffled = np.random.default_rng(6).permutation(units)
    for row in range(count):
        members[row, shuffled[row::count]] = True
    return members


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How much, at most, a unit that is not verified removes, as shares of an image's pixels.

    Attributes:
        groups: G. units: how many units the largest group has.
        removed: by the group that removes most.
        bound: the most that a unit can remove. high: the end of its one-sided 95 % interval over images.
    """

    groups: int
    units: int
    removed: float
    bound: float
    high: float


def bound_of_rest(members: Members, change: Floats, estimate: Floats) -> Bound:
    """How much a unit of the groups removes at most, as far as effects add up.

    A group removes as much as the estimates of its units add up to, and an excess. If all of the excess is due to one
    unit, then this unit removes its own estimate and the excess. The bound is the largest sum of these over the groups.
    It holds if the effects in a group add up, and the errors of the other units' estimates do not cancel the unit's.

    Args:
        members: (G, U) the groups.
        change: (G, N) what ablating each group adds to the area.
        estimate: (N, U) what ablating each unit adds, to first order.

    >>> members, estimate = np.array([[True, True, False]]), np.array([[-1.0, -2.0, -9.0]])
    >>> bound_of_rest(members, np.array([[-7.0]]), estimate).bound  # 2 and 4 more than estimated
    6.0
    """
    count = change.shape[1]
    weights = np.vstack([np.full(count, 1.0), bootstrap(count)]) / count  # (1 + 2000, N)
    excess = weights @ (estimate @ members.T - change.T)  # (1 + 2000, G)
    removal = -(weights @ estimate)  # (1 + 2000, U)
    largest = np.stack([removal[:, group].max(1) for group in members], 1)  # (1 + 2000, G)
    bounds = (largest + excess.clip(min=0)).max(1)
    return Bound(
        groups=len(members),
        units=int(members.sum(1).max()),
        removed=float(-change.mean(1).min()),
        bound=float(bounds[0]),
        high=float(np.quantile(bounds[1:], LEVEL)),
    )
