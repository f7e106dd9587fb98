"""One intervention from its task to its effects: choose units, give them values, measure, tabulate, draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import DissectError, UsageError
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.lookup import Integers
from ..runtime import distributed
from ..runtime.progress import Progress
from ..stats.class_changes import Outcome, effects_table
from ..stats.significance import ratio
from ..subjects.subject import Subject
from . import pictures
from .areas import Areas, Variants, measure
from .gradient_search import IMAGES, STEPS, optimise
from .places import Where, box_place, class_places, grid_places, mask_place
from .result import Effects
from .scan import scan_layer, scan_samples
from .tables import context_table, curve_table, sets_table
from .task import Task
from .unit_choice import MEASURED, level_value, matched_sets, random_orders, typical_high, unit_statistics

SAMPLES = 256
GRID_IMAGES, GRID_SAMPLES = 4096, 16  # on a grid of places: images drawn for the chosen set, about; samples at least

Floats = NDArray[np.float64]
Set = tuple[str, int, Integers]  # kind, number, units


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A task on a subject. `order`: units, best first; None where a scan or a gradient is to find them."""

    task: Task
    subject: Subject
    run: Dissection | None
    where: Where | None
    target: int | None
    order: Integers | None

    def perform(self, progress: Progress) -> Effects:
        """Do it; see `interventions.ablate`."""
        task, subject = self.task, self.subject
        mean, strength = self._statistics(progress)
        value = self._value(mean, progress)
        order, size, alpha = self._choose(value, progress)
        sets = distributed.first(lambda: self._sets(order, size, strength))
        samples, place = self._samples_and_place()
        steps = self._curve_steps(order, size) if task.curve else []

        weights = self._on_grid(sets, len(samples)) if self._grid else [_weight(s[2], subject.shape[0]) for s in sets]
        weights += [_weight(members, subject.shape[0]) for _, _, _, members in steps]
        donors = range(samples[-1] + 1, samples[-1] + 1 + len(samples)) if value is None else ()
        variants = Variants(weight=_stack(weights, len(samples)), value=value, place=place, donors=donors)
        with progress.task("draw and segment", len(variants) * len(samples), spread=True) as advance:
            areas = measure(subject, samples, variants, target=self.target, advance=advance)

        outcomes = self._grid_outcomes(areas, sets) if self._grid else _outcomes(areas, sets)
        names = subject.segmenter.vocabulary.names
        curve = context = None
        if steps and self.target is not None:
            last = _outcomes(areas, [step[1:] for step in steps], len(variants) - len(steps))
            curve = curve_table(areas.before, list(zip((step[0] for step in steps), last, strict=True)), self.target)
        if self._grid and self.target is not None:
            change = areas.difference[:, :, self.target]
            random = change[self._cells : 2 * self._cells] if task.random_sets else None
            context = context_table(change[: self._cells], random, areas.cells, names)
        shown = self._cells if self._grid else 1
        picks = pictures.choose(*pictures.successes(areas, shown, self.target, task.kind))
        table = sets_table(areas.before, outcomes, self.target)
        return Effects(
            info=self._info(samples, table),
            table=effects_table(areas.before, outcomes, names),
            sets=table,
            units=self._units_table(order[:size], value, alpha),
            pictures=pictures.draw(subject, samples, variants, picks, self.target),
            curve=curve,
            context=context,
        )

    @property
    def _grid(self) -> bool:
        return self.task.where == "grid"

    @property
    def _cells(self) -> int:
        return self.subject.shape[1] * self.subject.shape[2]

    @property
    def _seen(self) -> int:
        """How many samples the run has used; those from here on are unseen."""
        return 0 if self.run is None else int(self.run.info["config"]["samples"])

    @property
    def _count(self) -> int:
        if self.task.samples is not None:
            return self.task.samples
        if self.task.where != "grid":
            return SAMPLES
        return min(max(GRID_IMAGES // self._cells, GRID_SAMPLES), SAMPLES)

    @property
    def _measured_on(self) -> range:
        """The samples on which activations are measured: the run's, or those after the ones that are changed."""
        return range(min(self._seen, MEASURED)) if self.run else range(self._count, 2 * self._count)

    def _statistics(self, progress: Progress) -> tuple[Tensor, Floats]:
        """(U,) the mean activation of each unit and (U,) its root mean square, where they are needed."""
        if not self.task.random_sets and self.task.value != "mean":
            return torch.zeros(self.subject.shape[0]), np.ones(self.subject.shape[0])
        with progress.task("measure activations", len(self._measured_on), spread=True) as advance:
            mean, rms = unit_statistics(self.subject, self._measured_on, advance)
        return mean, rms.double().numpy()

    def _value(self, mean: Tensor, progress: Progress) -> Tensor | None:
        """(U,) what units are set to; None for what they output in another sample."""
        task, width = self.task, self.subject.shape[0]
        if task.value == "resample":
            return None
        if task.value in ("zero", "mean"):
            return mean if task.value == "mean" else torch.zeros(width)
        if task.value != "typical":
            given = torch.as_tensor(task.value, dtype=torch.float32)
            if given.ndim == 0:
                return given.expand(width).clone()
            spread = torch.full((width,), float(given.mean()))  # what random sets get
            spread[list(task.units or ())] = given
            return spread
        assert self.run is not None
        if task.level is not None:
            return level_value(self.run, task.layer, task.level)[0]
        return self._typical(progress)

    def _typical(self, progress: Progress) -> Tensor:
        """(U,) what each unit outputs where it draws the class."""
        assert self.run is not None
        assert self.target is not None
        with progress.task("measure values", len(self._measured_on), spread=True) as advance:
            return typical_high(self.subject, self.run, self.target, self._measured_on, advance)

    def _choose(self, value: Tensor | None, progress: Progress) -> tuple[Integers, int, Floats | None]:
        """Units, best first; how many of them are meant; α of each unit of the layer where a gradient found them.

        Raises:
            DissectError: the gradient found none.
        """
        task = self.task
        if task.units is not None or self.run is None:
            return np.array(task.units), len(task.units or ()), None
        assert self.target is not None
        if task.optimize:
            constant = self._typical(progress) if task.kind == "ablate" or value is None else value
            with progress.task("optimise units", STEPS * IMAGES) as advance:
                alpha = distributed.first(
                    partial(optimise, self.subject, self.target, constant, self._seen, seed=task.seed, advance=advance)
                )
            found = np.argsort(-alpha, kind="stable")[: int((alpha > 0).sum())]
            if not len(found):
                raise DissectError(f"The gradient found no unit of {task.layer} for {task.label}; try --by scan.")
            return found, min(task.top, len(found)), alpha
        if task.by_scan:
            _, change = scan_layer(self.subject, self.run, progress=progress)
            return np.argsort(change[:, :, self.target].mean(1), kind="stable"), task.top, None
        assert self.order is not None
        return self.order, task.top, None

    def _sets(self, order: Integers, size: int, strength: Floats) -> list[Set]:
        """(kind, number, units) of every set that is measured; the chosen one first."""
        task, width = self.task, self.subject.shape[0]
        chosen = order[:size]
        sets = [("chosen", 0, chosen)]
        for number, drawn in enumerate(random_orders(width, chosen, task.random_sets, task.seed)):
            sets.append(("random", number, drawn[:size]))
        for number, drawn in enumerate(matched_sets(strength, chosen, task.random_sets, task.seed)):
            sets.append(("matched", number, drawn))
        if task.optimize and self.order is not None:
            sets.append(("by_iou", 0, self.order[:size]))
        return sets

    def _curve_steps(self, order: Integers, size: int) -> list[tuple[int, str, int, Integers]]:
        """(number of units, kind, set, units) for 1, 2, 4, … units, the number asked for among them.

        The random sets grow out of those of the table; beyond the other units, they draw the chosen ones too.
        """
        width = self.subject.shape[0]
        numbers = {2**k for k in range(width.bit_length()) if 2**k <= len(order)} | {size}
        drawn = random_orders(width, order[:size], self.task.random_sets, self.task.seed)
        steps = []
        for number in sorted(numbers):
            steps.append((number, "chosen", 0, order[:number]))
            steps += [(number, "random", b, units[:number]) for b, units in enumerate(drawn)]
        return steps

    def _samples_and_place(self) -> tuple[Sequence[int], Tensor | None]:
        """The samples to change, and where: (W, 1 or N, h, w), None for everywhere."""
        samples = range(self._seen, self._seen + self._count)
        height, width = self.subject.shape[1:]
        if self.where is None:
            return samples, None
        if self.where.kind == "class":
            return self._in_class(samples)
        if self.where.kind == "grid":
            return samples, grid_places(height, width)
        if self.where.kind == "box":
            return samples, box_place(self.where.box, height, width)
        return samples, mask_place(self.where.text, height, width, self.where.level)

    def _in_class(self, samples: Sequence[int]) -> tuple[Sequence[int], Tensor]:
        """The samples in which the class of `where` lies at the centre of a cell, and these cells."""
        assert self.where is not None
        names = self.subject.segmenter.vocabulary.names
        number = lookup.class_number(self.where.name, names, names)
        width = self.subject.shape[0]
        nothing = Variants(weight=torch.zeros(0, 1, width), value=torch.zeros(width))
        places = class_places(measure(self.subject, samples, nothing).cells, number)  # (1, N, h, w)
        here = places[0].flatten(1).any(1)
        if not here.any():
            raise UsageError(f"--where {self.where.text}: none of {len(samples)} samples has it at a cell's centre.")
        return [index for index, found in zip(samples, here.tolist(), strict=True) if found], places[:, here]

    def _turn(self, samples: int) -> NDArray[np.int64]:
        """(h·w, N) whose turn it is on a grid, modulo the number of sets of a kind."""
        return np.add.outer(np.arange(self._cells), np.arange(samples))

    def _on_grid(self, sets: Sequence[Set], samples: int) -> list[Tensor]:
        """Weights of every cell for each kind of set; several sets of a kind take turns over cells and samples."""
        turn = torch.from_numpy(self._turn(samples))
        weights = []
        for kind in dict.fromkeys(kind for kind, _, _ in sets):
            several = torch.cat([_weight(members, self.subject.shape[0])[0] for k, _, members in sets if k == kind])
            weights.append(several[turn % len(several)] if len(several) > 1 else several.expand(self._cells, 1, -1))
        return weights

    def _grid_outcomes(self, areas: Areas, sets: Sequence[Set]) -> list[Outcome]:
        """Each set's mean over the cells where it was tried; NaN in images where it was tried in none."""
        kinds = [kind for kind, _, _ in sets]
        blocks = {kind: number * self._cells for number, kind in enumerate(dict.fromkeys(kinds))}
        turn = self._turn(len(areas.before))
        outcomes = []
        for kind, number, members in sets:
            mine = turn % kinds.count(kind) == number  # (h·w, N)
            some = slice(blocks[kind], blocks[kind] + self._cells)
            after, changed, on_target = (
                _mean(values[some], mine) for values in (areas.after, areas.changed, areas.on_target)
            )
            units = tuple(map(int, members))
            outcomes.append(
                Outcome(kind=kind, number=number, units=units, after=after, changed=changed, on_target=on_target)
            )
        return outcomes

    def _units_table(self, chosen: Integers, value: Tensor | None, alpha: Floats | None) -> pd.DataFrame:
        """The chosen units, in order."""
        table = pd.DataFrame({"unit": chosen})
        if self.run is not None:
            units = self.run.units[self.run.units.layer == self.task.layer].set_index("unit")
            table["label"] = units.label.reindex(chosen).to_numpy()
            if self.target is not None:
                table["iou"] = lookup.class_iou(self.run, self.task.layer, self.target)[chosen]
        table["value"] = np.nan if value is None else value.numpy()[chosen]
        if alpha is not None:
            table["alpha"] = alpha[chosen]
        return table

    def _info(self, samples: Sequence[int], sets: pd.DataFrame) -> dict[str, Any]:
        task, chosen = self.task, sets.iloc[0]
        value = task.value
        if task.level is not None and self.run is not None:
            value = f"exceeded by {level_value(self.run, task.layer, task.level)[1]:.3g} of the pixels"
        used = None if self.run is None or task.units is not None else self._seen
        if self.run is not None and task.by_scan:
            used = scan_samples(self.run, task.layer)
        info: dict[str, Any] = {
            "kind": task.kind,
            "generator": self.subject.generator.name,
            "segmenter": self.subject.segmenter.name,
            "layer": self.subject.layer,
            "label": task.label,
            "units": [int(unit) for unit in chosen.members.split()],
            "value": list(value) if isinstance(value, tuple) else value,
            "where": task.where or "everywhere",
            "samples": {
                "first": int(samples[0]),
                "last": int(samples[-1]),
                "number": len(samples),
                "skipped": self._count - len(samples),
            },
            "chosen_on": None if used is None else {"first": 0, "last": used - 1},
        }
        if self.target is not None:
            info["on_target"] = {
                name: None if pd.isna(chosen[name]) else float(chosen[name])
                for name in ("on_target", "on_target_low", "on_target_high")
            }
        return info


def _weight(members: Integers, width: int) -> Tensor:
    """(1, 1, U): 1 for the members."""
    weight = torch.zeros(1, 1, width)
    weight[..., torch.as_tensor(np.asarray(members), dtype=torch.int64)] = 1
    return weight


def _stack(weights: Sequence[Tensor], samples: int) -> Tensor:
    """Weights (v, 1 or N, U) as one tensor."""
    if any(weight.shape[1] > 1 for weight in weights):
        weights = [weight.expand(-1, samples, -1) for weight in weights]
    return torch.cat(list(weights))


def _mean(values: Floats, mine: NDArray[np.bool_]) -> Floats:
    """The mean over cells of values (h·w, N, …) where mine (h·w, N) holds; NaN where it holds nowhere."""
    mine = mine.reshape(*mine.shape, *[1] * (values.ndim - 2))
    return ratio((values * mine).sum(0), mine.sum(0).astype(float))


def _outcomes(areas: Areas, sets: Sequence[Set], first: int = 0) -> list[Outcome]:
    """The outcome of each set, whose variants lie one after another from `first` on."""
    return [
        Outcome(
            kind=kind,
            number=number,
            units=tuple(map(int, members)),
            after=areas.after[first + index],
            changed=areas.changed[first + index],
            on_target=areas.on_target[first + index],
        )
        for index, (kind, number, members) in enumerate(sets)
    ]
