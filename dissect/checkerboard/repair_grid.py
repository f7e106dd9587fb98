"""Take a checkerboard out of a generator, and say whether that made its images better."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ...hooks.errors import UsageError
from ...segmenters import load_segmenter
from ...segmenters.base import Segmenter
from ..fidelity.distances import BEFORE, RANDOM, REPAIRED, compare
from ..fidelity.features import open_features
from ..fidelity.reference import count_reference, is_scenes, open_reference
from ..generators.base import Generator
from ..generators.spec import ModelSpec
from ..generators.zoo import MODELS
from ..repairs.checkpoint import check_target, write_generator
from ..repairs.draw_sets import draw_sets, gallery
from ..repairs.result import Repair, save
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.resources import at_work, usual_batch
from ..stats.class_changes import effects_table
from ..stats.intervals import rounds
from ..storage.files import SCHEMA, safe_name
from ..storage.result_folder import command, holds, now
from ..subjects.identity import check_same
from ..subjects.opening import Model, open_generator, usable_device
from .check_layers import checkup, reference_spectrum
from .closed_form import METHODS
from .finetune import finetune
from .result import Checkup
from .ripple import Look
from .trade_off import Bench
from .upsampling import upsamplings
from .verdict import card, changes, verdict

CURVE = 128  # samples of the checkup, at most, on which the trade-off is drawn
LEAST = 64
CHECKED = ("method", "strength", "finetune_minutes", "samples", "random_sets", "seed", "batch_size")


def repair(
    found: Checkup | str | Path,
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
    """Mend upsampling layers, measure what that does, and write the repaired generator.

    Layers are chosen, and what their weights are fitted to is seen, on the samples of the checkup; everything reported
    is measured on later ones, on the same latents before and after, beside the other methods at full strength and
    beside random changes of the same layers' weights of the same size.

    Args:
        found: a checkup, or its folder; its `repairs/NAME/` keeps the result; the same call again returns it.
        method: `equalise`, `resize`, `box` or `notch`, see `mend.mended`.
        layers: which to mend; none is the layer to blame, and for the notch those whose grid the spectrum shows.
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
        UsageError: something asked for does not exist or does not fit. Nothing is written.
        DissectError: something failed. Nothing is written.
    """
    found = found if isinstance(found, Checkup) else Checkup.load(found)
    _check(method, strength, finetune_minutes, samples, random_sets, seed, batch_size)
    chosen = tuple(layers) or _chosen(found, method)
    default = f"{method}-{'+'.join(chosen)}" + (f"-{strength:g}" if strength < 1 else "")
    called = safe_name(name or default + (f"-tuned-{finetune_minutes:g}min" if finetune_minutes else ""))
    if not called:
        raise UsageError(f"--name {name!r}: letters or digits are needed.")
    compared = reference or found.info["config"]["reference"]
    if compared is None:
        raise UsageError("Say what the images should be like: --reference FOLDER, with images of the kind it was made.")
    folder = found.folder / "repairs" / called
    config = {
        "method": method,
        "layers": list(chosen),
        "strength": float(strength),
        "finetune_minutes": float(finetune_minutes),
        "samples": samples,
        "random_sets": random_sets,
        "reference": str(compared),
        "inception": None if inception is None else str(inception),
        "segmenter": segmenter if isinstance(segmenter, str | None) else segmenter.name,
        "seed": seed,
        "out": None if out is None else str(Path(out).resolve()),
    }
    if holds(folder, "repair.json", config):
        return Repair.load(folder)
    device = usable_device(device)
    original = _reopened(found, generator, device, quiet)
    target = distributed.first(lambda: check_target(folder, out, original.name))
    named = MODELS[original.name].segmenter if original.name in MODELS else None
    if segmenter is None and named is not None:
        segmenter = named
    judge = load_segmenter(segmenter, device) if isinstance(segmenter, str) else segmenter
    batch = batch_size or usual_batch(original.device)
    seen = range(found.info["samples"])
    image = (int(found.info["image"][0]), int(found.info["image"][1]))
    with Progress(quiet) as progress, at_work():
        work = Bench.open(original, chosen, seen, batch, image)
        repaired = work.mended(method, strength)
        curve = work.curve(seen[:CURVE], progress)
        steps = 0
        if finetune_minutes:
            with progress.task("fine-tune, seconds", round(60 * finetune_minutes)) as advance:
                tune = partial(
                    finetune,
                    repaired,
                    original,
                    work.sites,
                    method=method,
                    period=work.period,
                    minutes=finetune_minutes,
                    batch=batch,
                    advance=advance,
                )
                steps = distributed.first(tune)  # by the clock: no two processes would come to the same
                repaired.module.load_state_dict(distributed.first(repaired.module.state_dict))
        versions = {BEFORE: original, REPAIRED: repaired}
        for other in METHODS:
            if work.able(other) and (other, 1.0, 0.0) != (method, float(strength), float(finetune_minutes)):
                versions[f"{other} alone" if other == method else other] = work.mended(other, 1.0)
        if method != "notch":
            versions |= {f"{RANDOM} {k + 1}": work.random(seed, k, method, strength) for k in range(random_sets)}
        unseen = range(seen.stop, seen.stop + samples)
        looks = {key: Look(version, upsamplings(version), unseen, seed) for key, version in versions.items()}
        extract = open_features(inception, original.device)
        with progress.task("reference", count_reference(compared), spread=True) as advance:
            features = open_reference(
                None if is_scenes(compared) else compared,
                extract,
                image,
                drawn=True,
                device=device,
                advance=advance,
            )
        with progress.task("draw and compare", len(versions) * samples, spread=True) as advance:
            drawn = draw_sets(judge, extract, features, unseen, looks, batch, advance)
            for look in looks.values():
                look.together()
        pairs = len(versions) * (rounds(drawn.features[BEFORE].shape[1]) + 1)
        with progress.task("distances", pairs, spread=True) as advance:
            fidelity = compare(drawn.features, features.features, seed=seed, advance=advance)
        real, _ = reference_spectrum(compared, image, progress)
        grid = pd.DataFrame([{"set": key} | work.grid(look, real) for key, look in looks.items()])
        word, sentence = verdict(fidelity, grid, extract.note)
        pictures = gallery(judge, unseen, drawn, {key: Look(v, (), unseen) for key, v in versions.items()}, REPAIRED)
        tables = {"fidelity": fidelity, "grid": grid, "curve": curve}
        if judge is not None:
            outcomes = [drawn.outcome(REPAIRED, "chosen", 0)]
            outcomes += [drawn.outcome(key, RANDOM, k) for k, key in enumerate(versions) if key.startswith(RANDOM)]
            tables["effects"] = effects_table(drawn.areas[BEFORE], outcomes, judge.vocabulary.names)
    info = {
        "schema": SCHEMA,
        "kind": "checkerboard",
        "name": called,
        "created": now(),
        "command": command(),
        "generator": original.name,
        "segmenter": None if judge is None else judge.name,
        "colours": {} if judge is None else dict(zip(judge.vocabulary.names, judge.vocabulary.colours, strict=True)),
        "weights_sha256": found.info["weights_sha256"],
        "method": method,
        "layers": list(chosen),
        "strength": float(strength),
        "finetune": {"minutes": float(finetune_minutes), "steps": steps},
        "chosen_on": {"first": 0, "last": seen[-1]},
        "samples": {"first": unseen[0], "last": unseen[-1], "number": samples},
        "random_sets": random_sets,
        "reference": features.name,
        "features": extract.note,
        "verdict": word,
        "sentence": sentence,
        "how": changes(work, repaired, method),
        "checkpoint": target.name if out is None else str(target.resolve()),
        "config": config,
    }
    return save(
        folder,
        info,
        tables,
        pictures,
        lambda part: write_generator(
            repaired, part / target.name if out is None else target, original.name, card(info, tables, target)
        ),
    )


def repair_model(
    folder: Path | None,
    *,
    model: Model | None = None,
    device: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> tuple[Checkup, Repair]:
    """A checkup, in its folder or made of a model, and its repair; options as of `repair`.

    Raises:
        UsageError: both were given, or neither; or as of `checkup` and `repair`.
        DissectError: as of these.
    """
    if (folder is None) == (model is None):
        raise UsageError("Give the folder of a checkup, or --model.")
    asked = (repair.__kwdefaults__ or {}) | options
    _check(**{name: asked[name] for name in CHECKED})  # before the checkup's work
    if model is None:
        found = Checkup.load(str(folder))
    else:
        compared = options.get("reference")
        found = checkup(
            model,
            reference=compared,
            batch_size=options.get("batch_size"),
            device=device,
            quiet=quiet,
        )
    given = model if isinstance(model, Generator) else None
    return found, repair(found, generator=given, device=device, quiet=quiet, **options)


def _chosen(found: Checkup, method: str) -> tuple[str, ...]:
    """The layers to mend where none are named."""
    if method == "notch":
        names = tuple(str(name) for name in found.layers.layer[found.layers.own.notna()])
    else:
        names = (found.info["blame"],) if found.info["blame"] else ()
    if not names:
        raise UsageError(
            f"The checkup blames no layer ({found.info['sentence']}) Name the ones to mend all the same by --layer."
        )
    return names


def _reopened(found: Checkup, generator: Generator | None, device: str, quiet: bool) -> Generator:
    """The generator of the checkup, loaded as then, or given; raises UsageError if it has changed."""
    model = generator or ModelSpec.recorded(found.info["source"])
    if model is None:
        raise UsageError(
            f"The checkup in {found.folder} was given its generator as an object; give the same one again."
        )
    seed = found.info["config"]["seed"]
    opened = open_generator(model, seed, device, quiet)
    check_same(opened, found.info["config"], f"the checkup in {found.folder}")
    return opened


def _check(
    method: str,
    strength: float,
    finetune_minutes: float,
    samples: int,
    random_sets: int,
    seed: int,
    batch_size: int | None,
) -> None:
    if method not in METHODS:
        raise UsageError(f"--method {method!r} is not known; there are {', '.join(METHODS)}.")
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength}: a number above 0 and up to 1 is needed.")
    minutes = finetune_minutes
    if not 0 <= minutes <= 24 * 60:
        raise UsageError(f"--finetune-minutes {minutes}: a number from 0 up to 1440 is needed.")
    if minutes and method == "notch":
        raise UsageError("--finetune-minutes goes with equalise, resize and box; a notch changes no weights.")
    if minutes and strength < 1:
        raise UsageError("--finetune-minutes goes with --strength 1, since a fine-tuned repair is kept exact.")
    for option, number, least in (
        ("--samples", samples, LEAST),
        ("--random-sets", random_sets, 0),
        ("--seed", seed, 0),
        ("--batch-size", 1 if batch_size is None else batch_size, 1),
    ):
        if operator.index(number) < least:
            raise UsageError(f"{option} {number}: a whole number from {least} up is needed.")
