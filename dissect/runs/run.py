"""run(): what was asked, checked and turned into one run and its controls."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ...hooks.errors import UsageError
from ...hooks.user_code import from_anywhere
from ...segmenters.base import Segmenter
from ..capture.capture import deviation, probe
from ..capture.plan import FLOAT32, PRECISIONS, Plan
from ..causes.table import EFFORTS, FAST
from ..generators.base import Generator
from ..generators.factory import as_generator
from ..runtime import distributed
from ..runtime.progress import say
from ..runtime.requests import check_choice, check_integers
from ..scoring.label_tests import THOROUGHNESS
from ..scoring.layer_basis import FITTED, ROTATION, UNITS, Basis
from ..storage.files import COMPLETE, PART
from ..storage.folder_lock import locked
from ..storage.result_folder import replace_folder, writing
from ..subjects.first_look import first_look, noting
from ..subjects.network import AUTO, requested_layers
from ..subjects.opening import Model, dissectable, open_models, usable_device
from ..subjects.untrained import untrained
from .add_causes import lacks_causes
from .controls import CONTROLS, UNTRAINED
from .dissection import Dissection, run_name
from .job import Job
from .run_folder import begun_run

RULES = ("iqr", "quantile")
MODES = ("off", *THOROUGHNESS)


def run(
    model: Model,
    layers: Sequence[str | int] | str | int = AUTO,
    *,
    segmenter: str | Segmenter | None = None,
    latent: str | None = None,
    output_range: tuple[float, float] | None = None,
    name: str | None = None,
    samples: int = 1000,
    threshold: str = "iqr",
    quantile: float = 0.01,
    significance: str = "fast",
    causes: str = FAST,
    controls: Sequence[str] | str = (),
    basis: str = UNITS,
    directions: int | None = None,
    grid: int = 64,
    seed: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    precision: str = FLOAT32,
    out: str | Path | None = None,
    overwrite: bool = False,
    keep_spool: bool = False,
    spool_limit: float = 20e9,
    shard: str | None = None,
    quiet: bool = False,
) -> Dissection:
    """Dissect layers of a generator: which units draw which classes, and how sure that is.

    Args:
        model: a zoo name, a checkpoint file, `diffusers:ID`, `package.module:name`, a `ModelSpec` with options
            beside it, an `nn.Module`, or a Generator.
        layers: names, or numbers counted from 1 among the generator's layers; a text that is a name is that name.
            `auto` is the layer that `inspect` suggests first; `all` are all featuremaps of more than three units.
        segmenter: a spec (`scenes`, `hub:…`, `torchvision:…`, `package.module:name`) or a Segmenter; None takes
            the one that belongs to the model.
        latent, output_range, name: of an `nn.Module`, see `as_generator`: `normal:128`, what is black and white in its
            output, and how tables and folders call it. What is left out is found by trying, measured, and its class.
        samples: how many images; even ones choose labels, odd ones score and test them.
        threshold: `iqr` (Bau et al. 2019) or `quantile` (Bau et al. 2020).
        quantile: the share of pixels above the threshold under the rule `quantile`.
        significance: `fast` (9,999 permutations), `full` (99,999, and every pixel for the label sets), or `off`: labels
            are then given by the rule's limits alone.
        causes: what ablating each unit does to each class is estimated by gradient (see `causes.first_order`): `fast`
            for classes of at least 0.1 % of the pixels, in so many samples that it takes a quarter of the run's time at
            most; `full` for every class, in 64 samples; or `off`. A finished run without it gets it.
        controls: any of `rotation` and `untrained`, each a run of its own in the folder `controls`.
        basis: `units`, or directions in each layer: `pca`, `nmf`, or a safetensors file (see `scoring.layer_basis`).
        directions: how many, for `pca` and `nmf`; None is 32, or as many as there are units.
        grid: side of the grid on which featuremaps and labels meet, at most the image side.
        seed: of the latents and of all else that is drawn; None is 0, or a Generator's own.
        batch_size, device: None chooses.
        precision: `float32`, or `bfloat16` where the networks can: faster on many processors. Refused where it changes
            what the first 16 samples show; by how much it does is kept in run.json.
        out: the run folder; None is `runs/MODEL-LAYERS`, with `-BASIS` for directions. The same run there is resumed,
            or returned if finished; one that differs only in that it has fewer samples is extended, and what was made
            of it (interventions, repairs, controls) stays.
        overwrite: make the run anew, and replace the run in `out` by it, with everything that was made of that, when
            it is finished.
        keep_spool: keep the featuremaps when done.
        spool_limit: refuse beforehand to fill more bytes of disk than this.
        shard: `3/16` captures the third of sixteen parts of the samples into a folder of its own (`-shard-3-of-16`),
            whose tables stay empty; `merge` makes a run of all sixteen.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist or cannot be.
        DissectError: something failed; what was captured stays and the same call resumes.
    """
    controls = tuple(dict.fromkeys([controls] if isinstance(controls, str) else controls))
    _check(samples, threshold, quantile, grid, seed, batch_size)
    _check_statistics(significance, controls, basis, directions)
    check_choice("--precision", precision, PRECISIONS)
    check_choice("--causes", causes, EFFORTS)
    part = None if shard is None else _part(shard, basis)
    device = usable_device(device)
    with noting() as notes:
        model = _as_generator(model, device, latent=latent, output_range=output_range, name=name)
        generator, namer = open_models(model, segmenter, seed=seed, device=device, quiet=quiet)
        plan = _plan(generator, namer, layers, samples=samples, grid=grid, precision=precision)
        opened_basis = Basis.open(basis, directions, _widths(plan))
        opened_basis.check(plan.shapes, samples)
        first_look(generator, namer, list(plan.shapes), samples)
    job = Job(
        generator=generator,
        segmenter=namer,
        plan=plan,
        basis=opened_basis,
        control=None,
        settings={
            "samples": samples,
            "threshold": threshold,
            "quantile": quantile,
            "significance": significance,
            "grid": plan.grid,
            "precision": precision,
            "seed": getattr(generator.source, "seed", seed),
        },
        part={"shard": shard, "controls": list(controls)} if part else {},
        source=_source(generator, segmenter, namer),
        deviation=None if precision == FLOAT32 else deviation(generator, namer, precision, samples),
        causes=causes,
        notes=notes,
        batch_size=batch_size,
        device=device,
        spool_limit=spool_limit,
        quiet=quiet,
    )
    suffix = f"-shard-{part[0]}-of-{part[1]}" if part else ""
    folder = Path(out) if out else Path("runs") / f"{run_name(job.config)}{suffix}"
    if overwrite:
        if part:
            raise UsageError("--overwrite does not go with --shard; give another --out.")
        return _replace(job, folder, controls, keep_spool=keep_spool)
    return _make(job, folder, controls, part, keep_spool=keep_spool)


def _make(
    job: Job, folder: Path, controls: Sequence[str], part: tuple[int, int] | None = None, *, keep_spool: bool
) -> Dissection:
    """The run in a folder, and its controls: made, resumed, extended, or loaded."""
    info = job.check(folder, part)
    if info and not keep_spool and distributed.on_first(lambda: _is_settled(folder, info, controls, job.causes)):
        return Dissection.load(folder)
    shorter = distributed.on_first(lambda: job.extends(folder))
    if shorter:  # its controls must not stay behind it
        present = [path.parent.name for path in sorted(folder.glob("controls/*/run.json"))]
        controls = tuple(dict.fromkeys([*controls, *present]))
    _announce(job, shorter)
    blank = _untrained_job(job) if UNTRAINED in controls else None
    with locked(folder):
        if part:
            return _perform_shard(job, blank, folder, part)
        return _perform(job, blank, folder, rotated=ROTATION in controls, keep_spool=keep_spool)


def _replace(job: Job, folder: Path, controls: Sequence[str], *, keep_spool: bool) -> Dissection:
    """The run, made beside the run in a folder, which it replaces when it is finished. Interrupted, it is resumed.

    Raises:
        UsageError: the folder holds something else than a run.
    """
    if folder.exists() and not (folder / "run.json").is_file() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} exists and is not a run, so that --overwrite does not replace it; give another --out."
        )
    new = folder.with_name(f"{folder.name}.new{PART}")  # a name that no result of a user has
    distributed.on_first(lambda: None if begun_run(new, job.config) else shutil.rmtree(new, ignore_errors=True))
    _make(job, new, controls, keep_spool=keep_spool)
    with locked(folder), writing(folder, f"the new run is complete in {new}"):  # nobody else is at work there
        distributed.on_first(lambda: replace_folder(new, folder))
    return Dissection.load(folder)


def _as_generator(
    model: Model,
    device: str,
    *,
    latent: str | None,
    output_range: tuple[float, float] | None,
    name: str | None,
) -> Model:
    """An `nn.Module` becomes a Generator; other models stay as they are.

    Raises:
        UsageError: an option of an `nn.Module` is given for another model.
    """
    if isinstance(model, nn.Module):
        return as_generator(model.to(device), latent=latent, output_range=output_range, name=name)
    if not (latent is output_range is name is None):
        raise UsageError("latent, output_range and name go with an nn.Module; a ModelSpec has them for other models.")
    return model


def _plan(
    generator: Generator,
    segmenter: Segmenter,
    layers: Sequence[str | int] | str | int,
    *,
    samples: int,
    grid: int,
    precision: str,
) -> Plan:
    """What is going to be captured of the layers.

    Raises:
        UsageError: no layer is named, one does not exist or has no units, or there are fewer inputs than samples.
    """
    names = requested_layers(generator, layers)
    generator.latents([samples - 1])  # raises if the source has fewer than `samples` inputs
    return probe(generator, segmenter, names, grid, precision)


def _widths(plan: Plan) -> dict[str, int]:
    """How many units each layer has."""
    return {layer: units for layer, (units, _, _) in plan.shapes.items()}


def _source(generator: Generator, spec: str | Segmenter | None, segmenter: Segmenter) -> dict[str, Any]:
    """How to load both networks again; `spec` is the segmenter as the user gave it. None for an object."""
    model = {"model": None} if generator.spec is None else generator.spec.record()
    if spec is None:
        return {**model, "segmenter": segmenter.name}
    return {**model, "segmenter": from_anywhere(spec) if isinstance(spec, str) else None}


def _is_settled(folder: Path, info: dict[str, Any], controls: Sequence[str], causes: str) -> bool:
    """Whether nothing is left to be done in a folder; then it need not even be writable."""
    if (
        info["status"] != COMPLETE
        or lacks_causes(info, causes)
        or not set(controls) <= set(Dissection.load(folder).controls)
    ):
        return False
    return bool(info["keep_spool"]) or not any(folder.rglob("features-*.npy"))


def _announce(job: Job, shorter: dict[str, Any] | None = None) -> None:
    """Say on stderr what is dissected, how the request was understood, and which run becomes longer by it."""
    generator, plan = job.generator, job.plan
    numbers = {name: number for number, name in enumerate(dissectable(generator), 1)}
    layers = ", ".join(
        f"{layer} ({f'layer {numbers[layer]} of {len(numbers)}: ' if layer in numbers else ''}{units} units, {h}×{w})"
        for layer, (units, h, w) in plan.shapes.items()
    )
    black, white = generator.output_range
    say(
        f"{generator.name}: {layers}; {job.settings['samples']} samples of {plan.image[0]}×{plan.image[1]} pixels; "
        f"latents {generator.source}; output {black:g} to {white:g}; segmenter {job.segmenter.name}",
        job.quiet,
    )
    if shorter:
        say(f"The run of {shorter['config']['samples']} samples is extended to {job.settings['samples']}.", job.quiet)


def _untrained_job(job: Job) -> Job:
    """The control `untrained` of a run: the same job, with weights drawn anew."""
    settings = job.settings
    generator = untrained(job.generator, settings["seed"] or 0, settings["samples"])
    plan = probe(generator, job.segmenter, list(job.plan.shapes), job.plan.grid, settings["precision"])
    return replace(job, control=UNTRAINED, generator=generator, plan=plan, source={})


def _perform_shard(job: Job, blank: Job | None, folder: Path, shard: tuple[int, int]) -> Dissection:
    """A shard of the run in a locked folder, and of its control `untrained` if there is one."""
    part = job.perform_shard(folder, shard)
    if blank:
        blank.perform_shard(folder / "controls" / UNTRAINED, shard)
    return part


def _perform(job: Job, blank: Job | None, folder: Path, *, rotated: bool, keep_spool: bool) -> Dissection:
    """The run in a locked folder, and its controls."""
    run = job.perform(folder, keep_spool=keep_spool)
    if rotated:  # before the featuremaps of the run are deleted: the control mixes them
        mixed = replace(job, control=ROTATION, basis=Basis.rotation(_widths(job.plan)))
        mixed.perform(folder / "controls" / ROTATION, keep_spool=keep_spool, shared=run.spool)
    if not (keep_spool or run.info["keep_spool"]):
        with writing(folder, "the run is complete: make room and run the same command again"):
            distributed.on_first(run.spool.drop_features)
    if blank:
        blank.perform(folder / "controls" / UNTRAINED, keep_spool=keep_spool)
    return run


def run_or_open(folder: Path | None, *, model: Model | None, layers: Sequence[str | int], **options: Any) -> Dissection:
    """The run in a folder, or, where a model is given instead, the run that `run(model, layers=…)` makes or finds.

    Raises:
        UsageError: both were given, or neither; or options that do not go with a folder.
        DissectError: see `run`.
    """
    if (folder is None) == (model is None):
        raise UsageError("Give the folder of a run, or --model.")
    if folder is None:
        assert model is not None
        return run(model, layers=layers or AUTO, **options)
    if options.get("segmenter") is not None:
        raise UsageError("--segmenter goes with --model; a run knows its own.")
    if len(layers) > 1:
        raise UsageError("With a run, name one --layer, or none for all of its layers.")
    return Dissection.load(folder)


def _part(shard: str, basis: str) -> tuple[int, int]:
    """`3/16` as numbers."""
    number, slash, of = shard.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"--shard {shard!r}: give which one of how many, counted from 1, e.g. 3/16.")
    if basis not in (UNITS, *FITTED):
        raise UsageError("--shard does not go with a --basis from a file; take units, pca or nmf.")
    return int(number), int(of)


def _check(samples: int, threshold: str, quantile: float, grid: int, seed: int | None, batch_size: int | None) -> None:
    # one sample to choose labels, and one to score them
    check_integers(
        {"--samples": (samples, 2), "--grid": (grid, 2), "--batch-size": (batch_size, 1), "--seed": (seed, 0)}
    )
    check_choice("--threshold", threshold, RULES)
    if not 0 < quantile < 1:
        raise UsageError(f"--quantile {quantile}: must be a share of the pixels, above 0 and below 1, e.g. 0.01.")
    if grid > 1024:
        raise UsageError(f"--grid {grid}: must be at most 1024.")
    if seed is not None and seed >= 2**63:
        raise UsageError(f"--seed {seed}: must be below 2^63.")


def _check_statistics(significance: str, controls: Sequence[str], basis: str, directions: int | None) -> None:
    check_choice("--significance", significance, MODES)
    for control in controls:
        check_choice("--control", control, CONTROLS)
    if directions is not None and basis not in FITTED:
        raise UsageError(f"--directions {directions} goes with --basis {' or '.join(FITTED)}.")
    if ROTATION in controls and basis != UNITS:
        raise UsageError("--control rotation mixes units, so it does not go with --basis; leave one of them out.")
