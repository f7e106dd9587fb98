"""Switch units off and measure what leaves, or switch them on and measure what appears, with intervals.

Units are chosen on the samples of a run. What changing them does is measured on samples that the run has not seen, each
beside itself unchanged, and beside random sets of units on the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.reopen import reopen
from ..runtime import distributed
from ..runtime.progress import Progress, say
from ..runtime.requests import check_choice
from ..runtime.resources import at_work
from ..storage.result_folder import check_writable, header
from ..subjects.opening import Given, open_models, usable_device
from ..subjects.subject import Subject
from . import gradient_choice
from .experiment import Experiment
from .gradient_search import differentiable
from .places import Where
from .result import Effects
from .scan import is_scanned, scan_samples
from .task import (
    GRADIENT,
    IOU,
    SCAN,
    VALUES,
    Task,
    What,
    check_task,
    check_with_run,
    file_name,
    finite_number,
    finite_numbers,
    layer_and_units,
    opened_run,
    own_name,
    task_name,
    unit_order,
)


def ablate(
    what: What,
    *,
    label: str | None = None,
    top: int = 20,
    units: str | Sequence[int] | None = None,
    layer: str | int | None = None,
    by: str | None = None,
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

    In a run of directions (`basis`), directions take the place of units: ablation removes the projection on them, see
    `hooks.directions`.

    Args:
        what: a finished run or its folder; its `interventions/NAME/` keeps the result. Or a Generator of your own,
            with a `segmenter` and `units`; nothing is kept then.
        label: the class that should leave.
        top: how many of the class's best units.
        units: these units instead: numbers, or `layer4:12,57`.
        layer: which layer; needed where the run has several.
        by: what makes a unit good for the class: `gradient`, the first-order effect of changing it alone (see
            `causes.first_order`), `scan`, the measured effect of ablating it alone (see `scan`), or `iou`. None takes
            the gradient where the segmenter has probabilities, else a scan that the run has, else IoU.
        value: what the units output instead: `zero`, their `mean` over samples and positions, or `resample`, what
            they output in another sample.
        samples: on how many unseen samples effects are measured; None is 256.
        random_sets: how many random sets of as many units, and how many of units as active, are measured beside.
        curve: also for 1, 2, 4, … units.
        optimize: choose the units by gradient (see `gradient_search.optimise`), and compare them with as many of the
            best by IoU.
        name: of the folder.
        generator, segmenter: for a run of objects made in Python.
        seed: of the random sets.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist, or the model has changed since the run. Nothing is written.
        DissectError: something failed. Nothing is written.
    """
    check_choice("--value", value, VALUES)
    layer, units = layer_and_units(what, layer, units)
    task = Task(
        kind="ablate",
        layer=layer,
        label=label,
        units=units,
        top=top,
        by=by,
        value=value,
        samples=samples,
        random_sets=random_sets,
        curve=curve,
        optimize=optimize,
        seed=seed,
    )
    return _intervene(what, task, generator, segmenter, batch_size, device, name, quiet)


def insert(
    what: What,
    *,
    label: str | None = None,
    top: int = 20,
    units: str | Sequence[int] | None = None,
    layer: str | int | None = None,
    by: str | None = None,
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
        value: what the units output: a number, or one a unit of `units`; None measures it in the run: the mean of a
            unit where it draws the class (see `unit_choice.typical_high`).
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
    layer, units = layer_and_units(what, layer, units)
    output: str | float | tuple[float, ...] = "typical" if value is None else finite_numbers("value", value)
    if isinstance(output, tuple) and (units is None or len(output) != len(units)):
        raise UsageError(f"value: {len(output)} numbers were given; give one number, or one for each of `units`.")
    if isinstance(what, Generator) and output == "typical":
        raise UsageError("Without a run, say what the units output: value=5.0, or one number for each unit.")
    task = Task(
        kind="insert",
        layer=layer,
        label=label,
        units=units,
        top=top,
        by=by,
        value=output,
        level=None if level is None else finite_number("level", level),
        where=where,
        samples=samples,
        random_sets=random_sets,
        optimize=optimize,
        seed=seed,
    )
    return _intervene(what, task, generator, segmenter, batch_size, device, name, quiet)


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
    """Check what needs no network; load the result if its folder holds it, else measure and keep it."""
    run = None if isinstance(what, Generator) else opened_run(what)
    where = None if task.where is None else Where.parse(task.where)
    noun = "unit" if run is None else run.noun
    check_task(task, batch_size, noun)
    if name is not None:
        file_name(name)
    if run is not None:
        check_with_run(task, run, where)
        if task.by == IOU:
            unit_order(task, run)  # raises before any network is opened
    device = usable_device(device)
    if isinstance(what, Generator):
        generator, segmenter = open_models(what, segmenter, device=device)
    else:
        generator, segmenter = reopen(opened_run(what), generator, segmenter, device, quiet)
    directions = None if run is None else lookup.directions_of(run, task.layer)
    subject = Subject.open(generator, segmenter, task.layer, batch_size, directions)
    usual_name = task_name(task, noun)  # before it is known which criterion is taken where none is named
    task, reason = _with_criterion(task, subject, run)
    order = None if run is None else unit_order(task, run)
    config = asdict(task) | ({"mask_sha256": where.digest()} if where and where.kind == "mask" else {})
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
    if run is not None and task.by_scan:
        config["scan_samples"] = scan_samples(run, task.layer)
    if name is None:
        name = usual_name if run is None else own_name(usual_name, run.folder / "interventions", config)
    name = file_name(name)
    folder = None if run is None else run.folder / "interventions" / name
    if folder is not None and (kept := Effects.kept(folder, config)) is not None:
        return kept
    say(reason, quiet or not reason)
    if run is None:  # else it was checked with the run's tables
        lookup.check_units(task.units or (), task.layer, subject.shape[0])
    if task.optimize:
        differentiable(segmenter)
    if where is not None:
        where.check(subject.shape[1:])
    names = segmenter.vocabulary.names
    target = None if task.label is None else lookup.class_number(task.label, names, names)
    experiment = Experiment(task=task, subject=subject, run=run, where=where, target=target, order=order)
    if folder is not None:
        distributed.on_first(lambda: check_writable(folder.parent))
    with Progress(quiet) as progress, at_work():
        effects = experiment.perform(progress)
    described = header() | {"name": name, "config": config} | ({"chosen_because": reason} if reason else {})
    effects = replace(effects, folder=folder, info=described | effects.info)
    if folder is not None:
        distributed.on_first(lambda: effects.save(folder))
    return effects


def _with_criterion(task: Task, subject: Subject, run: Dissection | None) -> tuple[Task, str]:
    """The task with the criterion that chooses its units, and, where it was left open, why that one.

    Raises:
        UsageError: the gradient is asked for, and there is none.
    """
    if run is None or task.units is not None or task.optimize:
        return replace(task, by=IOU), ""
    if task.by not in (None, GRADIENT):
        return task, ""
    obstacle = gradient_choice.obstacle(subject)
    if not obstacle:
        return replace(task, by=GRADIENT), ""
    if task.by == GRADIENT:
        raise UsageError(f"--by gradient: {obstacle}; take --by scan or --by iou.")
    by = SCAN if is_scanned(run, task.layer) else IOU
    means = f"the scan of {task.layer}" if by == SCAN else "IoU"
    return replace(
        task, by=by
    ), f"{subject.noun.capitalize()}s are chosen by {means} (--by {by}), not by gradient: {obstacle}."
