"""Take a checkerboard out of a generator, and say whether that made its images better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ...hooks.errors import UsageError
from ...segmenters import load_segmenter
from ...segmenters.base import Segmenter
from ..fidelity.distances import BEFORE, RANDOM, REPAIRED
from ..fidelity.features import open_features
from ..fidelity.reference import count_reference, is_scenes, open_reference
from ..generators.base import Generator
from ..generators.spec import ModelSpec
from ..generators.zoo import MODELS
from ..repairs.checkpoint import check_target, write_generator
from ..repairs.draw_sets import compare_sets, gallery
from ..repairs.result import Measured, Repair
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.requests import check_choice, check_integers, check_strength
from ..runtime.resources import at_work, usual_batch
from ..storage.result_folder import header, result_name
from ..subjects.identity import check_same
from ..subjects.opening import Model, open_generator, usable_device
from .check_layers import checkup, reference_spectrum
from .closed_form import METHODS
from .finetune import finetune
from .result import Checkup
from .ripple import RippleMeter
from .trade_off import Bench
from .upsampling import upsamplings
from .verdict import changes, grid_card, verdict

CURVE = 128  # samples of the checkup, at most, on which the trade-off is drawn
LEAST = 64
CHECKED = ("method", "strength", "finetune_minutes", "samples", "random_sets", "seed", "batch_size")


def repair(
    checkup: Checkup | str | Path,
    *,
    method: str = "equalise",
    layers: Sequence[str] = (),
    strength: float = 1.0,
    finetune_minutes: float = 0.0,
    samples: int = 1000,
    random_sets: int = 5,
    reference: str | Path | None = None,
    inception: str | Path | None = None,
    segmenter: str | Segmenter | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    generator: Generator | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Repair:
    """Repair upsampling layers, measure what that does, and write the repaired generator.

    Layers are chosen, and their new weights fitted, on the samples of the checkup; everything reported is measured on
    later samples, on the same latents before and after, beside the other methods at full strength and
    beside random changes of the same layers' weights of the same size.

    Args:
        checkup: a checkup, or its folder; its `repairs/NAME/` keeps the result, which the same call loads again.
        method: `equalise`, `resize`, `box` or `notch`, see `closed_form.mended`.
        layers: which to repair; none is the layer to blame, and for the notch those whose grid the spectrum shows.
        strength: above 0 and up to 1.
        finetune_minutes: of training afterwards, see `finetune.finetune`; 0 is none.
        samples: how many unseen ones everything is measured on.
        random_sets: how many random changes are measured beside.
        reference: folder of real images, or `scenes`; None is that of the checkup.
        inception: see `dissect.repair`.
        segmenter: a spec or an object, for the classes; None is the model's own, if it has one.
        name: of the folder.
        out: the repaired generator's file (.pth, .pt or .safetensors); None puts it into the folder.
        generator: for a checkup of an object made in Python.
        seed: of the random changes and the halves behind the intervals.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: an argument does not exist or does not fit. Nothing is written.
        DissectError: something failed. Nothing is written.
    """
    checkup = checkup if isinstance(checkup, Checkup) else Checkup.load(checkup)
    check_request(method, strength, finetune_minutes, samples, random_sets, seed, batch_size)
    reference = reference or checkup.info["config"]["reference"]
    if reference is None:
        raise UsageError(
            "Name images of the kind that the generator was made for, to compare with: --reference FOLDER."
        )
    request = GridRepairRequest(
        method=method,
        layers=tuple(layers) or _layers_to_repair(checkup, method),
        strength=float(strength),
        finetune_minutes=float(finetune_minutes),
        samples=samples,
        random_sets=random_sets,
        reference=reference,
        inception=inception,
        segmenter=segmenter,
        seed=seed,
        out=out,
    )
    name = result_name(name or request.name)
    folder = checkup.folder / "repairs" / name
    if (kept := Repair.kept(folder, request.config)) is not None:
        return kept
    device = usable_device(device)
    original = _reopened(checkup, generator, device, quiet)
    target = distributed.on_first(lambda: check_target(folder, out, original.name))
    if segmenter is None and original.name in MODELS:
        segmenter = MODELS[original.name].segmenter
    namer = load_segmenter(segmenter, device) if isinstance(segmenter, str) else segmenter
    with Progress(quiet, stages=6 if finetune_minutes else 5) as progress, at_work():
        bench = Bench.open(
            original,
            request.layers,
            range(checkup.info["samples"]),
            batch_size or usual_batch(original.device),
            (int(checkup.info["image"][0]), int(checkup.info["image"][1])),
        )
        repaired = bench.mended(method, strength)
        curve = bench.curve(bench.samples[:CURVE], progress)
        steps = _finetune(bench, repaired, request, progress) if finetune_minutes else 0
        measured = _measure(bench, repaired, request, namer, progress)
    info = header() | {
        "kind": "checkerboard",
        "name": name,
        "generator": original.name,
        "segmenter": None if namer is None else namer.name,
        "colours": {} if namer is None else dict(zip(namer.vocabulary.names, namer.vocabulary.colours, strict=True)),
        "weights_sha256": checkup.info["weights_sha256"],
        "method": method,
        "layers": list(request.layers),
        "strength": request.strength,
        "finetune": {"minutes": request.finetune_minutes, "steps": steps},
        "chosen_on": {"first": 0, "last": bench.samples[-1]},
        "random_sets": random_sets,
        **measured.record(),
        "how": changes(bench, repaired, method),
        "checkpoint": target.name if out is None else str(target.resolve()),
        "tables": ["fidelity", "grid", "curve", *([] if namer is None else ["effects"])],
        "config": request.config,
    }
    result = Repair(
        folder=folder,
        info=info,
        fidelity=measured.fidelity,
        effects=measured.effects,
        grid=measured.grid,
        curve=curve,
        pictures=measured.pictures,
    )
    text = grid_card(result, target.stem)
    return result.save_with(
        lambda files: write_generator(repaired, files / target.name if out is None else target, original.name, text)
    )


@dataclass(frozen=True, kw_only=True)
class GridRepairRequest:
    """Which layers are repaired, and how that is measured; see `repair`."""

    method: str
    layers: tuple[str, ...]
    strength: float
    finetune_minutes: float
    samples: int
    random_sets: int
    reference: str | Path
    inception: str | Path | None
    segmenter: str | Segmenter | None
    seed: int
    out: str | Path | None

    @property
    def name(self) -> str:
        """What the repair is called where no name is given."""
        return "-".join(
            [
                f"{self.method}-{'+'.join(self.layers)}",
                *([f"{self.strength:g}"] if self.strength < 1 else []),
                *([f"tuned-{self.finetune_minutes:g}min"] if self.finetune_minutes else []),
            ]
        )

    @property
    def config(self) -> dict[str, Any]:
        """What is kept and compared: the same config gives the same numbers."""
        return {
            "method": self.method,
            "layers": list(self.layers),
            "strength": self.strength,
            "finetune_minutes": self.finetune_minutes,
            "samples": self.samples,
            "random_sets": self.random_sets,
            "reference": str(self.reference),
            "inception": None if self.inception is None else str(self.inception),
            "segmenter": self.segmenter if isinstance(self.segmenter, str | None) else self.segmenter.name,
            "seed": self.seed,
            "out": None if self.out is None else str(Path(self.out).resolve()),
        }


@dataclass(frozen=True, kw_only=True)
class MeasuredGrid(Measured):
    """What a repair did, to the grid as well."""

    grid: pd.DataFrame


def _finetune(bench: Bench, repaired: Generator, request: GridRepairRequest, progress: Progress) -> int:
    """Fine-tune the repaired generator in place; the number of steps."""
    minutes = request.finetune_minutes
    with progress.task("fine-tune, seconds", round(60 * minutes), noun="") as advance:
        tune = partial(
            finetune,
            repaired,
            bench.generator,
            bench.sites,
            method=request.method,
            period=bench.period,
            minutes=minutes,
            batch=bench.batch,
            advance=advance,
        )
        # one process alone: training ends by the clock, so that no two processes would reach the same weights
        steps = distributed.on_first(tune)
        repaired.module.load_state_dict(distributed.on_first(repaired.module.state_dict))
    return steps


def _measure(
    bench: Bench, repaired: Generator, request: GridRepairRequest, segmenter: Segmenter | None, progress: Progress
) -> MeasuredGrid:
    """Draw unseen samples with every version of the generator, and compare."""
    versions = _versions(bench, repaired, request)
    samples = range(bench.samples.stop, bench.samples.stop + request.samples)
    meters = {
        name: RippleMeter(version, upsamplings(version), samples, request.seed) for name, version in versions.items()
    }
    device = bench.generator.device
    extract = open_features(request.inception, device)
    with progress.task("reference", count_reference(request.reference), spread=True) as advance:
        reference = open_reference(
            None if is_scenes(request.reference) else request.reference,
            extract,
            bench.image,
            drawn=True,
            device=device,
            advance=advance,
        )
    drawn, fidelity = compare_sets(
        segmenter, extract, reference, samples, meters, batch=bench.batch, seed=request.seed, progress=progress
    )
    for meter in meters.values():
        meter.together()
    real, _ = reference_spectrum(request.reference, bench.image, progress)
    grid = pd.DataFrame([{"set": name} | bench.grid(meter, real) for name, meter in meters.items()])
    word, sentence = verdict(fidelity, grid, extract.note)
    draws = {name: RippleMeter(version, (), samples) for name, version in versions.items()}
    return MeasuredGrid(
        samples=samples,
        fidelity=fidelity,
        grid=grid,
        effects=pd.DataFrame() if segmenter is None else drawn.effects(segmenter.vocabulary.names),
        pictures=gallery(segmenter, samples, drawn, draws, REPAIRED),
        reference=reference.name,
        features=extract.note,
        verdict=word,
        sentence=sentence,
    )


def _versions(bench: Bench, repaired: Generator, request: GridRepairRequest) -> dict[str, Generator]:
    """The generator as it was, repaired, repaired by every other method at full strength, and changed at random."""
    versions = {BEFORE: bench.generator, REPAIRED: repaired}
    requested = (request.method, request.strength, request.finetune_minutes)
    for method in METHODS:
        if bench.able(method) and (method, 1.0, 0.0) != requested:
            versions[f"{method} alone" if method == request.method else method] = bench.mended(method, 1.0)
    if request.method != "notch":
        for index in range(request.random_sets):
            random = bench.random(request.seed, index, request.method, request.strength)
            versions[f"{RANDOM} {index + 1}"] = random
    return versions


def repair_model(
    folder: Path | None,
    *,
    model: Model | None = None,
    device: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> tuple[Checkup, Repair]:
    """A checkup, loaded from its folder or made of a model, and its repair; options as of `repair`.

    Raises:
        UsageError: both were given, or neither; or as of `checkup` and `repair`.
        DissectError: as of these.
    """
    if (folder is None) == (model is None):
        raise UsageError("Give the folder of a checkup, or --model.")
    values = (repair.__kwdefaults__ or {}) | options
    check_request(**{name: values[name] for name in CHECKED})  # before the work of the checkup
    if model is None:
        checked = Checkup.load(str(folder))
    else:
        checked = checkup(
            model,
            reference=options.get("reference"),
            batch_size=options.get("batch_size"),
            device=device,
            quiet=quiet,
        )
    generator = model if isinstance(model, Generator) else None
    return checked, repair(checked, generator=generator, device=device, quiet=quiet, **options)


def check_request(
    method: str,
    strength: float,
    finetune_minutes: float,
    samples: int,
    random_sets: int,
    seed: int,
    batch_size: int | None,
) -> None:
    """Raise UsageError for values that lie outside their limits, or do not go together."""
    check_choice("--method", method, METHODS)
    check_strength(strength)
    if not 0 <= finetune_minutes <= 24 * 60:
        raise UsageError(f"--finetune-minutes {finetune_minutes}: must be between 0 and 1440.")
    if finetune_minutes and method == "notch":
        raise UsageError("--finetune-minutes goes with equalise, resize and box; a notch changes no weights.")
    if finetune_minutes and strength < 1:
        raise UsageError("--finetune-minutes goes with --strength 1, since a fine-tuned repair is kept exact.")
    check_integers(
        {
            "--samples": (samples, LEAST),
            "--random-sets": (random_sets, 0),
            "--seed": (seed, 0),
            "--batch-size": (batch_size, 1),
        }
    )


def _layers_to_repair(checkup: Checkup, method: str) -> tuple[str, ...]:
    """The layers to repair where none are named."""
    if method == "notch":
        names = tuple(str(name) for name in checkup.layers.layer[checkup.layers.own.notna()])
    else:
        names = (checkup.info["blame"],) if checkup.info["blame"] else ()
    if not names:
        raise UsageError(
            f"The checkup found no layer to repair ({checkup.info['sentence']}) To repair layers anyway, name them by "
            "--layer."
        )
    return names


def _reopened(checkup: Checkup, generator: Generator | None, device: str, quiet: bool) -> Generator:
    """The generator of the checkup, loaded as then, or given; raises UsageError if it has changed."""
    model = generator or ModelSpec.recorded(checkup.info["source"])
    if model is None:
        raise UsageError(
            f"The checkup in {checkup.folder} was made of a generator in Python; give the same generator again."
        )
    opened = open_generator(model, checkup.info["config"]["seed"], device, quiet)
    check_same(opened, checkup.info["config"], f"the checkup in {checkup.folder}")
    return opened
