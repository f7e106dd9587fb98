"""Which variant of an intervention changes which units, and what each set of units did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runs.lookup import Integers
from ..stats.class_changes import AreaChange
from ..stats.significance import ratio
from .areas import Areas

Floats = NDArray[np.float64]


class UnitSet(NamedTuple):
    """Units that are changed together. kind: chosen, random, matched or by_iou; number: counts the sets of a kind."""

    kind: str
    number: int
    units: Integers


@dataclass(frozen=True, kw_only=True)
class Outcome(AreaChange):
    """What changing one set of units did: changed, on_target (N,) shares of pixels, see `areas.Areas`."""

    units: tuple[int, ...]
    changed: Floats
    on_target: Floats


@dataclass(frozen=True)
class SetBySet:
    """Each set is one variant, in their order. width: units of the layer, or directions."""

    sets: Sequence[UnitSet]
    width: int

    @property
    def shown(self) -> int:
        """How many variants change the chosen units; they come first."""
        return 1

    def weights(self) -> Tensor:
        """(sets, 1, U) as `areas.Variants` takes them."""
        weight = torch.zeros(len(self.sets), 1, self.width)
        for row, unit_set in enumerate(self.sets):
            weight[row, 0, torch.as_tensor(unit_set.units)] = 1
        return weight

    def outcomes(self, areas: Areas, first: int = 0) -> list[Outcome]:
        """The outcome of each set, whose variants begin at `first`."""
        return [
            _outcome(unit_set, areas.after[row], areas.changed[row], areas.on_target[row])
            for row, unit_set in enumerate(self.sets, first)
        ]


@dataclass(frozen=True)
class CellByCell:
    """Each kind of set has one variant for each of the layer's h·w cells, which changes that cell alone.

    Sets of one kind take turns over cells and samples, so that several cost no more than one: of B sets, cell c of
    sample n is changed by set (c + n) mod B.
    """

    sets: Sequence[UnitSet]
    width: int
    cells: int
    samples: int

    @property
    def shown(self) -> int:
        """How many variants change the chosen units; they come first."""
        return self.cells

    def of_kind(self, kind: str) -> slice | None:
        """The variants of a kind of set; None where there is none."""
        kinds = self._kinds
        return slice(kinds.index(kind) * self.cells, (kinds.index(kind) + 1) * self.cells) if kind in kinds else None

    def weights(self) -> Tensor:
        """(kinds · h·w, 1 or N, U) as `areas.Variants` takes them."""
        turn = torch.from_numpy(self._turn)
        weights = []
        for kind in self._kinds:
            alike = SetBySet([unit_set for unit_set in self.sets if unit_set.kind == kind], self.width).weights()[:, 0]
            weights.append(alike[turn % len(alike)] if len(alike) > 1 else alike.expand(self.cells, 1, -1))
        if any(weight.shape[1] > 1 for weight in weights):
            weights = [weight.expand(-1, self.samples, -1) for weight in weights]
        return torch.cat(weights)

    def outcomes(self, areas: Areas) -> list[Outcome]:
        """The mean of each set over the cells that it changed; NaN in samples where it changed none."""
        kinds = [unit_set.kind for unit_set in self.sets]
        outcomes = []
        for unit_set in self.sets:
            variants = self.of_kind(unit_set.kind)
            has_turn = self._turn % kinds.count(unit_set.kind) == unit_set.number  # (h·w, N)
            means = (_mean(values[variants], has_turn) for values in (areas.after, areas.changed, areas.on_target))
            outcomes.append(_outcome(unit_set, *means))
        return outcomes

    @property
    def _kinds(self) -> list[str]:
        return list(dict.fromkeys(unit_set.kind for unit_set in self.sets))

    @property
    def _turn(self) -> NDArray[np.int64]:
        """(h·w, N): which set changes a cell of a sample, modulo the number of sets of a kind."""
        return np.add.outer(np.arange(self.cells), np.arange(self.samples))


def _outcome(unit_set: UnitSet, after: Floats, changed: Floats, on_target: Floats) -> Outcome:
    units = tuple(int(unit) for unit in unit_set.units)
    return Outcome(
        kind=unit_set.kind, number=unit_set.number, units=units, after=after, changed=changed, on_target=on_target
    )


def _mean(values: Floats, mask: NDArray[np.bool_]) -> Floats:
    """The mean over cells of values (h·w, N, …) where the mask (h·w, N) is set; NaN for samples where it is nowhere."""
    mask = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
    return ratio((values * mask).sum(0), mask.sum(0).astype(float))
