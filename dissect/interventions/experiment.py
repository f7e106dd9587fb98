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
from ..runtime.progress import Fewer, Progress
from ..stats.class_changes import effects_table
from ..subjects.subject import Subject
from . import gradient_choice, pictures
from .areas import Areas, Variants, measure
from .gradient_choice import FirstOrder
from .gradient_search import IMAGES, STEPS, optimise
from .layout import CellByCell, Outcome, SetBySet, UnitSet
from .places import Where, box_place, class_places, grid_places, mask_place
from .result import Effects
from .scan import is_scanned, scan_class, scan_samples
from .tables import context_table, curve_table, sets_table
from .task import GRADIENT, IOU, SCAN, Task
from .unit_choice import MEASURED, level_value, matched_sets, random_orders, typical_high, unit_statistics

SAMPLES = 256
GRID_IMAGES, GRID_SAMPLES = 4096, 16  # on a grid of places: images drawn for the chosen set, about; samples at least

CRITERIA = {
    GRADIENT: "first-order effect, by gradient",
    SCAN: "effect when ablated alone, by scan",
    IOU: "IoU",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """The units that a task changes.

    order: units, best first. size: how many of them are changed. alpha: (U,) weight of each unit of the layer, where an
    optimisation chose them. estimate: where their first-order effects chose them.
    """

    order: Integers
    size: int
    alpha: Floats | None = None
    estimate: FirstOrder | None = None

    @property
    def units(self) -> Integers:
        return self.order[: self.size]


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
        progress.stages = self._stages()
        mean, strength = self._statistics(progress)
        value = self._value(mean, progress)
        samples, place = self._samples_and_place()
        choice = self._choose(value, mean, place, progress)
        sets = distributed.on_first(lambda: self._sets(choice, strength))
        width = subject.width
        layout = CellByCell(sets, width, self._cells, len(samples)) if self._grid else SetBySet(sets, width)
        steps = SetBySet(self._curve_steps(choice) if task.curve else [], width)
        weight = torch.cat([layout.weights(), steps.weights()]) if steps.sets else layout.weights()
        donors = range(samples[-1] + 1, samples[-1] + 1 + len(samples)) if value is None else ()
        variants = Variants(weight=weight, value=value, place=place, donors=donors, directions=subject.directions)
        fewer = Fewer("samples", len(samples), 16)
        with progress.task("draw and segment", len(variants) * len(samples), spread=True, fewer=fewer) as advance:
            areas = measure(subject, samples, variants, target=self.target, advance=advance)

        outcomes = layout.outcomes(areas)
        remaining = steps.outcomes(areas, len(variants) - len(steps.sets))
        strengths = {
            len(unit_set.units): row
            for row, unit_set in enumerate(steps.sets, len(variants) - len(steps.sets))
            if unit_set.kind == "chosen"
        }
        picks = pictures.choose(*pictures.successes(areas, layout.shown, self.target, task.kind))
        table = sets_table(areas.before, outcomes, self.target)
        return Effects(
            info=self._info(samples, outcomes[0], table),
            table=effects_table(areas.before, outcomes, subject.segmenter.vocabulary.names),
            sets=table,
            units=self._units_table(choice, value),
            pictures=pictures.draw(subject, samples, variants, picks, self.target, strengths)
            | self._gains(areas, layout, picks),
            curve=curve_table(areas.before, remaining, self.target) if remaining and self.target is not None else None,
            context=self._context(areas, layout) if isinstance(layout, CellByCell) else None,
        )

    def _context(self, areas: Areas, layout: CellByCell) -> pd.DataFrame | None:
        """The effect by the class at the edited cell; None where no class is meant."""
        if self.target is None:
            return None
        change = areas.difference[:, :, self.target]
        random = layout.of_kind("random")
        names = self.subject.segmenter.vocabulary.names
        return context_table(change[: layout.shown], None if random is None else change[random], areas.cells, names)

    def _gains(
        self, areas: Areas, layout: CellByCell | SetBySet, picks: Sequence[tuple[str, int, int]]
    ) -> dict[str, NDArray[Any]]:
        """The pictures' map of effects by cell, on a grid of cells; empty where no class is meant."""
        if self.target is None or not isinstance(layout, CellByCell) or not picks:
            return {}
        height, width = self.subject.shape[1:]
        change = areas.difference[: layout.shown, :, self.target]
        return {"gain": pictures.gains(change, picks, (height, width))}

    @property
    def _grid(self) -> bool:
        return self.task.where == "grid"

    @property
    def _cells(self) -> int:
        return self.subject.shape[1] * self.subject.shape[2]

    @property
    def _run_samples(self) -> int:
        """How many samples the run has used; those after them are unseen."""
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
        return range(min(self._run_samples, MEASURED)) if self.run else range(self._count, 2 * self._count)

    def _stages(self) -> int:
        """How many tasks `perform` has."""
        task = self.task
        typical = task.value == "typical" and task.level is None
        optimised = task.optimize * (2 if task.kind == "ablate" or task.value == "resample" else 1)
        by_scan = task.by_scan and self.run is not None and not is_scanned(self.run, self.subject.layer)
        return self._needs_statistics + typical + optimised + by_scan + task.by_gradient + 1

    @property
    def _needs_statistics(self) -> bool:
        task = self.task
        return task.random_sets > 0 or task.value == "mean" or (task.value == "resample" and task.by_gradient)

    def _statistics(self, progress: Progress) -> tuple[Tensor, Floats]:
        """(U,) the mean activation of each unit and (U,) its root mean square, where they are needed."""
        if not self._needs_statistics:
            return torch.zeros(self.subject.width), np.ones(self.subject.width)
        with progress.task("measure activations", len(self._measured_on), spread=True) as advance:
            mean, rms = unit_statistics(self.subject, self._measured_on, advance)
        return mean, rms.double().numpy()

    def _value(self, mean: Tensor, progress: Progress) -> Tensor | None:
        """(U,) what units are set to; None for what they output in another sample."""
        task, width = self.task, self.subject.width
        if task.value == "resample":
            return None
        if task.value in ("zero", "mean"):
            return mean if task.value == "mean" else torch.zeros(width)
        if task.value != "typical":
            values = torch.as_tensor(task.value, dtype=torch.float32)
            if values.ndim == 0:
                return values.expand(width).clone()
            by_unit = torch.full((width,), float(values.mean()))  # the units of random sets get the mean
            by_unit[list(task.units or ())] = values
            return by_unit
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

    def _choose(self, value: Tensor | None, mean: Tensor, place: Tensor | None, progress: Progress) -> Choice:
        """The units to change.

        Raises:
            DissectError: the optimisation chose no unit, or the class occurs nowhere.
        """
        task = self.task
        if task.units is not None or self.run is None:
            units = np.array(task.units)
            return Choice(units, len(units))
        assert self.target is not None
        if task.optimize:
            return self._optimised(value, progress)
        if task.by_gradient:
            return self._by_effect(mean if value is None else value, place, progress)
        if task.by_scan:
            ranking = scan_class(self.subject, self.run, self.target, top=task.top, progress=progress)
            return Choice(ranking.table.unit.to_numpy(copy=True), task.top)
        assert self.order is not None
        return Choice(self.order, task.top)

    def _by_effect(self, value: Tensor, place: Tensor | None, progress: Progress) -> Choice:
        """By what setting each unit alone to its value does, to first order. What is resampled has its mean."""
        assert self.run is not None
        assert self.target is not None
        if self.where is None:
            trial = gradient_choice.ablation(self.subject, self.run, self.target, value)
        else:
            trial = gradient_choice.insertion(self.subject, self.run, self.target, value, self.where, place)
        with progress.task("estimate effects", len(trial.draw.samples), spread=True) as advance:
            estimate = trial.choose(self.task.top, advance)
        return Choice(estimate.order, self.task.top, estimate=estimate)

    def _optimised(self, value: Tensor | None, progress: Progress) -> Choice:
        assert self.target is not None
        task = self.task
        constant = self._typical(progress) if task.kind == "ablate" or value is None else value
        with progress.task(f"optimise {self.subject.noun}s", STEPS * IMAGES) as advance:
            alpha = distributed.on_first(
                partial(
                    optimise, self.subject, self.target, constant, self._run_samples, seed=task.seed, advance=advance
                )
            )
        order = np.argsort(-alpha, kind="stable")[: int((alpha > 0).sum())]
        if not len(order):
            raise DissectError(
                f"The gradient found no {self.subject.noun} of {task.layer} for {task.label}; try --by scan."
            )
        return Choice(order, min(task.top, len(order)), alpha)

    def _sets(self, choice: Choice, strength: Floats) -> list[UnitSet]:
        """Every set that is measured; the chosen one first, then all of a kind together."""
        task, width = self.task, self.subject.width
        random = random_orders(width, choice.units, task.random_sets, task.seed)
        matched = matched_sets(strength, choice.units, task.random_sets, task.seed)
        sets = [UnitSet("chosen", 0, choice.units)]
        sets += [UnitSet("random", index, order[: choice.size]) for index, order in enumerate(random)]
        sets += [UnitSet("matched", index, units) for index, units in enumerate(matched)]
        if task.optimize and self.order is not None:
            sets.append(UnitSet("by_iou", 0, self.order[: choice.size]))
        return sets

    def _curve_steps(self, choice: Choice) -> list[UnitSet]:
        """Sets of 1, 2, 4, … units, and of the requested number.

        The random sets grow out of those of the table; beyond the other units, they draw the chosen ones too.
        """
        width = self.subject.width
        sizes = {2**k for k in range(width.bit_length()) if 2**k <= len(choice.order)} | {choice.size}
        random = random_orders(width, choice.units, self.task.random_sets, self.task.seed)
        steps = []
        for size in sorted(sizes):
            steps.append(UnitSet("chosen", 0, choice.order[:size]))
            steps += [UnitSet("random", index, order[:size]) for index, order in enumerate(random)]
        return steps

    def _samples_and_place(self) -> tuple[Sequence[int], Tensor | None]:
        """The samples to change, and where: (W, 1 or N, h, w), None for everywhere."""
        samples = range(self._run_samples, self._run_samples + self._count)
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
        label = lookup.class_number(self.where.name, names, names)
        width = self.subject.width
        nothing = Variants(weight=torch.zeros(0, 1, width), value=torch.zeros(width))
        cells = class_places(measure(self.subject, samples, nothing).cells, label)  # (1, N, h, w)
        has_class = cells[0].flatten(1).any(1)
        if not has_class.any():
            raise UsageError(f"--where {self.where.text}: none of {len(samples)} samples has it at a cell's centre.")
        return [sample for sample, has in zip(samples, has_class.tolist(), strict=True) if has], cells[:, has_class]

    def _units_table(self, choice: Choice, value: Tensor | None) -> pd.DataFrame:
        """The chosen units, in order."""
        units = choice.units
        table = pd.DataFrame({"unit": units})
        if self.run is not None:
            of_layer = self.run.units[self.run.units.layer == self.task.layer].set_index("unit")
            table["label"] = of_layer.label.reindex(units).to_numpy()
            if self.target is not None:
                table["iou"] = lookup.class_iou(self.run, self.task.layer, self.target)[units]
        table["value"] = np.nan if value is None else value.numpy()[units]
        if choice.alpha is not None:
            table["alpha"] = choice.alpha[units]
        if choice.estimate is not None:
            estimate = choice.estimate
            columns = {"estimate": estimate.effect, "estimate_low": estimate.low, "estimate_high": estimate.high}
            table = table.assign(**{name: values[units] for name, values in columns.items()})
        return table

    def _info(self, samples: Sequence[int], chosen: Outcome, sets: pd.DataFrame) -> dict[str, Any]:
        task = self.task
        value = task.value
        if task.level is not None and self.run is not None:
            value = f"exceeded by {level_value(self.run, task.layer, task.level)[1]:.3g} of the pixels"
        chosen_on = None if self.run is None or task.units is not None else self._run_samples
        if self.run is not None and task.by_scan:
            chosen_on = scan_samples(self.run, task.layer)
        info: dict[str, Any] = {
            "kind": task.kind,
            "generator": self.subject.generator.name,
            "segmenter": self.subject.segmenter.name,
            "layer": self.subject.layer,
            "label": task.label,
            "noun": self.subject.noun,
            "units": list(chosen.units),
            "value": list(value) if isinstance(value, tuple) else value,
            "where": task.where or "everywhere",
            "samples": {
                "first": int(samples[0]),
                "last": int(samples[-1]),
                "number": len(samples),
                "skipped": self._count - len(samples),
            },
            "chosen_on": None if chosen_on is None else {"first": 0, "last": chosen_on - 1},
            "criterion": None if chosen_on is None else "ACE" if task.optimize else CRITERIA[str(task.by)],
        }
        if self.target is not None:
            row = sets.iloc[0]
            info["on_target"] = {
                name: None if pd.isna(row[name]) else float(row[name])
                for name in ("on_target", "on_target_low", "on_target_high")
            }
        return info
