"""What an intervention does to which units, checked before any image is drawn."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...hooks.errors import UsageError
from ..generators.base import Generator
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.lookup import Integers
from ..runtime.requests import check_choice, check_integers
from ..storage.files import read_json, safe_name
from ..subjects.opening import layer_name
from .places import Where
from .unit_choice import level_value

VALUES = ("zero", "mean", "resample")
BY = (GRADIENT, SCAN, IOU) = ("gradient", "scan", "iou")
What = Dissection | Generator | str | Path


@dataclass(frozen=True, kw_only=True)
class Task:
    """One intervention, kept as `config` in effect.json. The same task gives the same numbers."""

    kind: str  # ablate or insert
    layer: str
    label: str | None
    units: tuple[int, ...] | None  # None: the best for the class
    top: int
    by: str | None  # None: by gradient where one passes
    value: str | float | tuple[float, ...]  # zero, mean, resample; typical; or numbers
    level: float | None = None
    where: str | None = None
    samples: int | None
    random_sets: int
    curve: bool = False
    optimize: bool
    seed: int

    def __post_init__(self) -> None:
        """Check the integers; those of numpy become Python's, which JSON can hold."""
        limits = {"--top": (self.top, 1), "--samples": (self.samples, 2), "--random-sets": (self.random_sets, 0)}
        check_integers({**limits, "--seed": (self.seed, 0)})
        for name in ("top", "samples", "random_sets", "seed"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else operator.index(value))

    @property
    def by_scan(self) -> bool:
        """Whether a scan chooses the units."""
        return self.by == SCAN and self.units is None and not self.optimize

    @property
    def by_gradient(self) -> bool:
        """Whether first-order effects choose the units."""
        return self.by == GRADIENT and self.units is None and not self.optimize


def layer_and_units(
    what: What, layer: str | int | None, units: str | Sequence[int] | None
) -> tuple[str, tuple[int, ...] | None]:
    """The layer's name and the requested units, each once."""
    if isinstance(units, str):
        layer_of_units, units = lookup.parse_units(units)
        if layer is not None and layer_of_units is not None and str(layer) != layer_of_units:
            raise UsageError(f"--units names layer {layer_of_units!r} and --layer {layer!r}; name one of them.")
        layer = layer if layer_of_units is None else layer_of_units
    if not isinstance(what, Generator):
        layer = lookup.pick_layer(opened_run(what), layer)
    elif layer is None or units is None:
        raise UsageError("Without a run, name the layer and its units, e.g. units='layer4:12,57'.")
    else:
        layer = layer_name(what, layer)
    try:
        return layer, None if units is None else tuple(dict.fromkeys(operator.index(unit) for unit in units))
    except TypeError:
        raise UsageError(f"units={units!r}: must be integers, e.g. [12, 57].") from None


def finite_numbers(name: str, value: object) -> float | tuple[float, ...]:
    """A finite number, or several; raises UsageError for anything else."""
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if numbers.ndim > 1 or not np.isfinite(numbers).all():
        raise UsageError(f"{name}={value!r}: must be a finite number.")
    return tuple(numbers.tolist()) if numbers.ndim else float(numbers)


def finite_number(name: str, value: object) -> float:
    """The same for one number."""
    number = finite_numbers(name, value)
    if isinstance(number, tuple):
        raise UsageError(f"{name}={value!r}: must be one finite number.")
    return number


def opened_run(what: Dissection | str | Path) -> Dissection:
    return what if isinstance(what, Dissection) else Dissection.load(what)


def check_task(task: Task, batch_size: int | None, noun: str) -> None:
    """Raise UsageError where the parts of a task do not go together, or lie outside their limits.

    Args:
        noun: what is changed, unit or direction.
    """
    if task.by is not None:
        check_choice("--by", task.by, BY)
    check_integers({"--batch-size": (batch_size, 1)})
    if task.units is not None and task.optimize:
        raise UsageError(f"--optimize chooses the {noun}s itself; leave --units out.")
    if task.label is None:
        if task.units is None:
            raise UsageError(
                f"Name a class by --class, to take its best {noun}s, or the {noun}s by --units "
                f"LAYER:{noun.upper()},{noun.upper()},…."
            )
        if task.curve:
            raise UsageError("--curve shows how much of a class remains; name the class by --class.")
        if task.value == "typical" and task.level is None:
            raise UsageError(
                f"The value of the {noun}s is measured where a class is: name the class by --class, or give --level."
            )


def check_with_run(task: Task, run: Dissection, where: Where | None) -> None:
    """Raise UsageError for a class, a unit or a number of units that the run does not have."""
    width = lookup.width_of(run, task.layer)
    if where and where.name:
        lookup.run_class(run, where.name)
    if task.label:
        occurs = run.classes.share[lookup.run_class(run, task.label)] > 0
        if task.kind == "ablate" and task.units is None and not occurs:
            present = run.classes["class"][run.classes.share > 0]
            raise UsageError(
                f"The class {task.label!r} occurs in none of the run's samples, so that nothing can leave; there are "
                f"{', '.join(present)}."
            )
    if task.units is not None:
        lookup.check_units(task.units, task.layer, width, run.noun)
    elif task.top > width:
        raise UsageError(f"--top {task.top}: {task.layer} has {width} {run.noun}s.")
    elif task.level is not None:
        level_value(run, task.layer, task.level)


def unit_order(task: Task, run: Dissection) -> Integers | None:
    """The units of the run, best first, as far as its tables tell; None where effects choose them.

    Raises:
        UsageError: no unit is labelled with the class.
    """
    if task.units is not None:
        return np.array(task.units)
    if task.by_scan or task.by_gradient:
        return None
    return lookup.rank_by_iou(run, task.layer, str(task.label), labelled_needed=not task.optimize)


def task_name(task: Task, noun: str) -> str:
    """How the folder of a task is called when no name is given. noun: what is changed, unit or direction."""
    parts = [task.kind, task.label or f"{noun}s", task.layer]
    parts += [f"top{task.top}"] if task.units is None else ["+".join(map(str, task.units))]
    criterion = [] if task.units is not None or task.by in (None, GRADIENT) else [f"by-{task.by}"]
    parts += ["optimized"] if task.optimize else criterion
    parts += [str(task.value)] if task.value not in ("zero", "typical") else []
    parts += [f"level{task.level:g}"] if task.level is not None else []
    parts += [task.where] if task.where not in (None, "grid") else []
    return "-".join(str(part) for part in parts)


def own_name(name: str, results: Path, config: Mapping[str, object]) -> str:
    """The default name of a task, with what it differs in from the result that already has the name, if one has it.

    So that the same request on more samples, say, lies beside the first one: `…-top20-samples1000`.
    """
    description = results / file_name(name) / "effect.json"
    if not description.is_file():
        return name
    kept = read_json(description)["config"]
    return "-".join([name, *(f"{key}{value}" for key, value in config.items() if kept.get(key) != value)])


def file_name(text: str) -> str:
    name = safe_name(text)
    if not name or name.startswith("scan-"):
        raise UsageError(f"--name {text!r}: must have letters or digits, and must not begin with scan-, as scans do.")
    return name
