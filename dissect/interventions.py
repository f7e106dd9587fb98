"""Switch units off and see what leaves; switch them on and see what appears; say how sure we are.

Units are chosen on the samples of a run. What changing them does is measured on samples that the run has not seen, each
beside itself unchanged, and beside random sets of units on the same samples.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..hooks.errors import DissectError, UsageError
from ..segmenters.base import Segmenter
from . import selection
from .effects import Effects
from .experiment import Experiment, Task
from .generators.base import Generator
from .optimise import differentiable
from .places import Where
from .runs.dissection import Dissection
from .runs.reopen import reopen
from .runtime import distributed
from .runtime.progress import Progress
from .runtime.resources import at_work
from .selection import Integers
from .storage.files import SCHEMA, safe_name
from .storage.result_folder import command, difference, now
from .subjects.opening import Given, layer_name, open_models, usable_device
from .subjects.subject import Subject
from .unit_scan import scan_samples

VALUES = ("zero", "mean", "resample")
BY = ("iou", "scan")

What = Dissection | Generator | str | Path


def ablate(
    what: What,
    *,
    label: str | None = None,
    top: int = 20,
    units: str | Sequence[int] | None = None,
    layer: str | int | None = None,
    by: str = "iou",
    value: str = "zero",
    samples: int | None = None,
    random_sets: int = 5,
    curve: bool = False,
    optimize: bool = False,
    name: str | None = None,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Effects:
    """Switch units off and measure what leaves.

    Args:
        what: a finished run or its folder; its `interventions/NAME/` keeps the result. Or a Generator of your own,
            with a `segmenter` and `units`; nothing is kept then.
        label: the class that should leave.
        top: how many of the class's best units.
        units: these units instead: numbers, or `layer4:12,57`.
        layer: which layer; needed where the run has several.
        by: what makes a unit good for the class: `iou`, or `scan`, the effect of ablating it alone (see `scan`).
        value: what the units put out instead: `zero`, their `mean` over samples and positions, or `resample`, what
            they put out in another sample.
        samples: on how many unseen samples effects are measured; None is 256.
        random_sets: how many random sets of as many units, and how many of units as active, are measured beside.
        curve: also for 1, 2, 4, … units.
        optimize: choose the units by gradient (see `optimise`), and compare them with as many of the best by IoU.
        name: of the folder.
        generator, segmenter: for a run of objects made in Python.
        seed: of the random sets.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist, or the model has changed since the run. Nothing is written.
        DissectError: something failed. Nothing is written.
    """
    if value not in VALUES:
        raise UsageError(f"--value {value!r} is not known; there are {', '.join(VALUES)}.")
    layer, units = _layer_and_units(what, layer, units)
    task = Task(
        kind="ablate",
        layer=layer,
        label=label,
        units=units,
        top=operator.index(top),
        by=by,
        value=value,
        level=None,
        where=None,
        samples=None if samples is None else operator.index(samples),
        random_sets=operator.index(random_sets),
        curve=curve,
        optimize=optimize,
        seed=operator.index(seed),
    )
    return _intervene(what, task, generator, segmenter, batch_size, device, name, quiet)


def insert(
    what: What,
    *,
    label: str | None = None,
    top: int = 20,
    units: str | Sequence[int] | None = None,
    layer: str | int | None = None,
    by: str = "iou",
    value: float | Sequence[float] | None = None,
    level: float | None = None,
    where: str = "grid",
    samples: int | None = None,
    random_sets: int = 5,
    optimize: bool = False,
    name: str | None = None,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Effects:
    """Switch units on and measure what appears.

    Args are those of `ablate`, and:
        value: what the units put out: a number, or one a unit of `units`; None measures it in the run: the mean of a
            unit where it draws the class (see `selection.typical_high`).
        level: or else the activation that this share of the pixels exceeds, e.g. 0.005.
        where: `grid`, each cell of the layer in turn, one at a time; `x,y` or `x,y,w,h` in fractions of the image;
            `class:NAME`, the cells whose centre is labelled so; or the file of a mask.
        samples: None is 256; on the grid, so many that the chosen set draws about 4,096 images, at least 16.

    Raises:
        UsageError: something asked for does not exist, or the model has changed since the run. Nothing is written.
        DissectError: something failed. Nothing is written.
    """
    if value is not None and level is not None:
        raise UsageError("Give a value or a --level, not both.")
    layer, units = _layer_and_units(what, layer, units)
    given: str | float | tuple[float, ...] = "typical" if value is None else _numbers("value", value)
    if isinstance(given, tuple) and (units is None or len(given) != len(units)):
        raise UsageError(f"value: {len(given)} numbers are given; needed is one, or one for each of `units`.")
    if isinstance(what, Generator) and given == "typical":
        raise UsageError("Without a run, say what the units put out: value=5.0, or one number for each unit.")
    task = Task(
        kind="insert",
        layer=layer,
        label=label,
        units=units,
        top=operator.index(top),
        by=by,
        value=given,
        level=None if level is None else _number("level", level),
        where=where,
        samples=None if samples is None else operator.index(samples),
        random_sets=operator.index(random_sets),
        curve=False,
        optimize=optimize,
        seed=operator.index(seed),
    )
    return _intervene(what, task, generator, segmenter, batch_size, device, name, quiet)


def _layer_and_units(
    what: What, layer: str | int | None, units: str | Sequence[int] | None
) -> tuple[str, tuple[int, ...] | None]:
    """The layer's name and the units that were asked for, each once."""
    if isinstance(units, str):
        named, units = selection.parse_units(units)
        if layer is not None and named is not None and str(layer) != named:
            raise UsageError(f"--units names layer {named!r} and --layer {layer!r}; name one of them.")
        layer = layer if named is None else named
    if not isinstance(what, Generator):
        layer = selection.pick_layer(_run(what), layer)
    elif layer is None or units is None:
        raise UsageError("Without a run, name the layer and its units, e.g. units='layer4:12,57'.")
    else:
        layer = layer_name(what, layer)
    try:
        return layer, None if units is None else tuple(dict.fromkeys(operator.index(unit) for unit in units))
    except TypeError:
        raise UsageError(f"units={units!r}: whole numbers are needed, e.g. [12, 57].") from None


def _numbers(name: str, value: object) -> float | tuple[float, ...]:
    """A finite number, or several; raises UsageError for anything else."""
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if numbers.ndim > 1 or not np.isfinite(numbers).all():
        raise UsageError(f"{name}={value!r}: a finite number is needed.")
    return tuple(numbers.tolist()) if numbers.ndim else float(numbers)


def _number(name: str, value: object) -> float:
    """The same for one number."""
    number = _numbers(name, value)
    if isinstance(number, tuple):
        raise UsageError(f"{name}={value!r}: a finite number is needed.")
    return number


def _run(what: Dissection | str | Path) -> Dissection:
    return what if isinstance(what, Dissection) else Dissection.load(what)


def _intervene(
    what: What,
    task: Task,
    generator: Given,
    segmenter: str | Segmenter | None,
    batch_size: int | None,
    device: str | None,
    name: str | None,
    quiet: bool,
) -> Effects:
    """Check what can be checked without a network, return what is there already, else do it and keep it."""
    run = None if isinstance(what, Generator) else _run(what)
    where = None if task.where is None else Where.parse(task.where)
    _check(task, batch_size)
    order = None if run is None else _order(task, run, where)
    config = asdict(task) | ({"mask_sha256": where.digest()} if where and where.kind == "mask" else {})
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
    if run is not None and task.by_scan:
        config["scan_samples"] = scan_samples(run, task.layer)
    name = _file_name(name or _name(task))
    device = usable_device(device)
    if isinstance(what, Generator):
        generator, segmenter = open_models(what, segmenter, device=device)
    else:
        generator, segmenter = reopen(_run(what), generator, segmenter, device, quiet)
    folder = None if run is None else run.folder / "interventions" / name
    if folder is not None and (kept := distributed.first(lambda: _kept(folder, config))) is not None:
        return kept
    subject = Subject.open(generator, segmenter, task.layer, batch_size)
    if run is None:  # else it was checked with the run's tables
        selection.check_units(task.units or (), task.layer, subject.shape[0])
    if task.optimize:
        differentiable(segmenter)
    if where is not None:
        where.check(subject.shape[1:])
    names = segmenter.vocabulary.names
    target = None if task.label is None else selection.class_number(task.label, names, names)
    experiment = Experiment(task=task, subject=subject, run=run, where=where, target=target, order=order)
    if folder is not None:
        distributed.first(lambda: _writable(folder.parent))
    with Progress(quiet) as progress, at_work():
        effects = experiment.perform(progress)
    noted = {"schema": SCHEMA, "name": name, "created": now(), "command": command(), "config": config}
    effects = replace(effects, info=noted | effects.info)
    if folder is not None:
        distributed.first(lambda: effects.save(folder))
    return effects


def _writable(folder: Path) -> None:
    """Raise DissectError unless the folder can be written, before long work is done in vain."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DissectError(f"Writing to {folder} failed ({error.strerror or error}); make it writable.") from error


def _check(task: Task, batch_size: int | None) -> None:
    if task.by not in BY:
        raise UsageError(f"--by {task.by!r} is not known; there are {', '.join(BY)}.")
    for option, number, least in (
        ("--top", task.top, 1),
        ("--samples", 2 if task.samples is None else task.samples, 2),
        ("--random-sets", task.random_sets, 0),
        ("--batch-size", 1 if batch_size is None else batch_size, 1),
        ("--seed", task.seed, 0),
    ):
        if number < least:
            raise UsageError(f"{option} {number}: a whole number from {least} up is needed.")
    if task.units is not None and task.optimize:
        raise UsageError("--optimize finds the units itself; leave --units out.")
    if task.label is None:
        if task.units is None:
            raise UsageError("Say which units: the best for a --class, or --units LAYER:UNIT,UNIT,….")
        if task.curve:
            raise UsageError("--curve shows how much of a class remains; name it by --class.")
        if task.value == "typical" and task.level is None:
            raise UsageError("What units should put out is measured where a class is: name a --class, or give --level.")


def _order(task: Task, run: Dissection, where: Where | None) -> Integers | None:
    """The units of the run, best first, as far as its tables tell; None where a scan is asked for.

    Raises:
        UsageError: a class, a unit or a number of units that the run does not have.
    """
    width = int(run.info["layers"][task.layer]["units"])
    for name in (task.label, where.name if where else None):
        if name:
            selection.run_class(run, name)
    if task.units is not None:
        selection.check_units(task.units, task.layer, width)
        return np.array(task.units)
    if task.top > width:
        raise UsageError(f"--top {task.top}: {task.layer} has {width} units.")
    if task.level is not None:
        selection.level_value(run, task.layer, task.level)
    if task.by_scan:
        return None
    return selection.rank_by_iou(run, task.layer, str(task.label), labelled_needed=not task.optimize)


def _name(task: Task) -> str:
    """How the folder of a task is called when no name is given."""
    parts = [task.kind, task.label or "units", task.layer]
    parts += [f"top{task.top}"] if task.units is None else ["+".join(map(str, task.units))]
    parts += ["optimized"] if task.optimize else [f"by-{task.by}"] if task.by != "iou" else []
    parts += [str(task.value)] if task.value not in ("zero", "typical") else []
    parts += [f"level{task.level:g}"] if task.level is not None else []
    parts += [task.where] if task.where not in (None, "grid") else []
    return "-".join(str(part) for part in parts)


def _file_name(text: str) -> str:
    name = safe_name(text)
    if not name or name.startswith("scan-"):
        raise UsageError(f"--name {text!r}: letters or digits are needed, and names with scan- are taken by scans.")
    return name


def _kept(folder: Path, config: dict[str, Any]) -> Effects | None:
    """The effects in the folder if they are of this very task; None if there is no folder.

    Raises:
        UsageError: it holds another task's.
    """
    if not folder.exists():
        return None
    try:
        effects = Effects.load(folder)
    except DissectError as error:
        raise DissectError(f"{error} Or give another --name.") from error
    if said := difference(effects.info.get("config", {}), config):
        raise UsageError(f"{folder} holds another intervention ({said}); give another --name.")
    return effects
