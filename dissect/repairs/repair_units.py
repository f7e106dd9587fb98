"""Take suspect units out of a generator, and say whether that made its images better."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...hooks.edit import Edit, edited
from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..artifacts.find import Realism, Search, asked, check_detector
from ..fidelity.distances import BEFORE, RANDOM, REPAIRED, compare, frechet
from ..generators.base import Generator
from ..interventions.unit_choice import MEASURED, random_orders, unit_statistics
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.reopen import reopen
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.resources import at_work, usual_batch
from ..stats.class_changes import effects_table
from ..stats.intervals import rounds
from ..storage.files import SCHEMA, safe_name
from ..storage.result_folder import command, holds, now
from ..subjects.opening import Given, usable_device
from ..subjects.subject import Subject
from .checkpoint import check_target, write_repaired
from .draw_sets import Draw, draw_edited, draw_sets, gallery
from .named_units import Chosen, check_chosen, given_units, repair_name
from .result import Repair, save
from .verdict import verdict

VALUES = ("best", "zero", "mean")
TRIED = 512  # samples of the run, at most, on which the value is chosen
LEAST = 64  # samples: halves of fewer say nothing


def repair(
    run: Dissection | str | Path,
    *,
    units: str | Path | Mapping[str, Sequence[int]] | None = None,
    detector: str | None = None,
    top: int = 20,
    layer: str | int | None = None,
    value: str = "best",
    strength: float = 1.0,
    one_by_one: bool = False,
    samples: int = 1000,
    random_sets: int = 5,
    reference: str | Path | None = None,
    inception: str | Path | None = None,
    flags: str | Path | None = None,
    realism: str | Realism | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Repair:
    """Ablate units that a detector suspects, or given ones, measure what that does, and write the repaired generator.

    Units and values are chosen on the samples of the run and every other image of the reference; everything reported is
    measured on later samples and the reference's other images, on the same latents before and after, beside random
    sets of as many units of the same layers.

    Args:
        run: a finished run, or its folder; its `repairs/NAME/` keeps the result; the same call again returns it.
        units: units by layer; or `layer4:12,57`; or a file of such lines, or a table with columns layer and unit, such
            as the `suspects.csv` of `artifacts.find` with the innocent ones taken out.
        detector, top: instead, the most suspect units of each layer, see `artifacts.find`.
        layer: for a detector, one of the run's layers; None is all.
        value: what the units output instead: `zero`, their `mean` on the run's samples, or the `best` of the two, by
            the Fréchet distance on at most 512 of the run's samples.
        strength: how far they are pulled there, above 0 and up to 1.
        one_by_one: with several layers, look for suspects in each layer as it is after those below were repaired;
            otherwise all are chosen in the generator as it was.
        samples: how many unseen ones everything is measured on.
        random_sets: how many random sets of units are measured beside.
        reference, inception, flags, realism: see `artifacts.find`.
        name: of the folder.
        out: the repaired generator's file (.pth, .pt or .safetensors); None puts it into the folder.
        generator, segmenter: for a run of objects made in Python.
        seed: of the random sets and of the halves behind the intervals.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist or does not fit, or every unit of a layer was chosen. Nothing is
            written.
        DissectError: something failed. Nothing is written.
    """
    run = run if isinstance(run, Dissection) else Dissection.load(run)
    _check(value, strength, samples, random_sets, top, seed, batch_size)
    if (units is None) == (detector is None):
        raise UsageError("Say which units: --units FILE, or --detector NAME with --top N.")
    if detector is not None:
        check_detector(detector, flags)
    if units is not None and layer is not None:
        raise UsageError(f"--layer {layer} goes with --detector; --units name their layers themselves.")
    picked = lookup.pick_layer(run, run.layers[0] if layer is None else layer)
    chosen = None if units is None else given_units(units, run)
    layers = run.layers if layer is None else [picked]
    if chosen is None:
        check_chosen({one: tuple(range(top)) for one in layers}, run)
    called = safe_name(name or repair_name(detector, top, chosen, layer, value, strength, one_by_one))
    if not called:
        raise UsageError(f"--name {name!r}: letters or digits are needed.")
    folder = run.folder / "repairs" / called
    config = {
        "units": None if chosen is None else {at: list(members) for at, members in chosen.items()},
        "detector": detector,
        "top": None if detector is None else top,
        "layers": layers,
        "value": value,
        "strength": float(strength),
        "one_by_one": one_by_one,
        "samples": samples,
        "random_sets": random_sets,
        "seed": seed,
        "out": None if out is None else str(Path(out).resolve()),
    } | asked(reference, inception, flags, realism)
    if holds(folder, "repair.json", config):
        return Repair.load(folder)
    device = usable_device(device)
    generator, segmenter = reopen(run, generator, segmenter, device, quiet)
    target = distributed.first(lambda: check_target(folder, out, generator.name))
    with Progress(quiet) as progress, at_work():
        search = Search.open(
            run,
            generator,
            segmenter,
            detector or "rare",
            reference=reference,
            inception=inception,
            flags=flags,
            realism=realism,
            needs_reference=True,
            progress=progress,
        )
        assert search.reference is not None
        chooses, judges = search.reference.halves()
        search = replace(search, reference=chooses)
        work = Workshop(
            run=run,
            generator=generator,
            segmenter=segmenter,
            search=search,
            strength=float(strength),
            batch=batch_size or usual_batch(generator.device),
            progress=progress,
        )
        edits, table, values, means = work.choose(chosen, layers, top, value, one_by_one)
        random = [work.random(edits, values, means, seed, number) for number in range(random_sets)]
        first = int(run.info["config"]["samples"])
        unseen = range(first, first + samples)
        sets = {BEFORE: (), REPAIRED: edits}
        for other in ("zero", "mean"):
            if set(values.values()) != {other}:
                sets[other] = [_valued(edit, other, means) for edit in edits]
        sets |= {f"{RANDOM} {number + 1}": drawn for number, drawn in enumerate(random)}
        draws = _draws(generator, sets)
        with progress.task("draw and compare", len(sets) * samples, spread=True) as advance:
            assert search.extract is not None
            drawn = draw_sets(segmenter, search.extract, judges, unseen, draws, work.batch, advance)
        pairs = len(sets) * (rounds(drawn.features[BEFORE].shape[1]) + 1)
        with progress.task("distances", pairs, spread=True) as advance:
            fidelity = compare(drawn.features, judges.features, seed=seed, advance=advance)
        word, sentence = verdict(fidelity, search.extract.note)
        outcomes = [drawn.outcome(REPAIRED, "chosen", 0)]
        outcomes += [drawn.outcome(f"{RANDOM} {k + 1}", RANDOM, k) for k in range(random_sets)]
        effects = effects_table(drawn.areas[BEFORE], outcomes, segmenter.vocabulary.names)
        pictures = gallery(segmenter, unseen, drawn, draws, REPAIRED)
    info = {
        "schema": SCHEMA,
        "name": called,
        "created": now(),
        "command": command(),
        "generator": generator.name,
        "segmenter": segmenter.name,
        "weights_sha256": run.info["config"]["weights_sha256"],
        "detector": detector,
        "units": {edit.layer: list(edit.units) for edit in edits},
        "values": values,
        "strength": float(strength),
        "one_by_one": one_by_one,
        "chosen_on": {"first": 0, "last": first - 1},
        "samples": {"first": unseen[0], "last": unseen[-1], "number": samples},
        "random_sets": random_sets,
        "reference": f"{judges.name}, the half that chose nothing",
        "features": search.extract.note,
        "verdict": word,
        "sentence": sentence,
        "checkpoint": target.name if out is None else str(target.resolve()),
        "config": config,
    }
    mended = replace(generator, module=copy.deepcopy(generator.module))
    tables = {"fidelity": fidelity, "effects": effects, "units": table}
    return save(
        folder,
        info,
        tables,
        pictures,
        lambda part: write_repaired(
            mended, edits, info, fidelity, effects, part, part / target.name if out is None else target
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What a repair works on."""

    run: Dissection
    generator: Generator
    segmenter: Segmenter
    search: Search
    strength: float
    batch: int
    progress: Progress

    @property
    def seen(self) -> range:
        return range(int(self.run.info["config"]["samples"]))

    def choose(
        self, chosen: Chosen | None, layers: Sequence[str], top: int, value: str, one_by_one: bool
    ) -> tuple[list[Edit], pd.DataFrame, dict[str, str], dict[str, Tensor]]:
        """An edit a layer; the table of the units; by layer, which value was taken, and all means (U,)."""
        edits: list[Edit] = []
        values: dict[str, str] = {}
        means: dict[str, Tensor] = {}
        tables = []
        for layer in layers if chosen is None else chosen:
            with ExitStack() as stack:
                if one_by_one:  # see the layer as it is after the repairs below
                    stack.enter_context(edited(self.generator.module, *edits))
                subject = Subject.open(self.generator, self.segmenter, layer, self.batch)
                scores = None
                if chosen is None:
                    scores = self.search.scores(subject, self.seen, self.progress).units
                    units = tuple(int(unit) for unit in (-scores).argsort(kind="stable")[:top])
                else:
                    units = chosen[layer]
                samples = self.seen[:MEASURED]
                with self.progress.task(f"means of {layer}", len(samples), spread=True) as advance:
                    means[layer] = unit_statistics(subject, samples, advance)[0]
                edit = Edit(layer=layer, units=units, strength=self.strength)
                values[layer] = self._better(edit, means[layer]) if value == "best" else value
            edits.append(_valued(edit, values[layer], means))
            rows = {"layer": layer, "unit": units, "value": torch.as_tensor(edits[-1].value).numpy()}
            tables.append(pd.DataFrame(rows | ({} if scores is None else {"score": scores[list(units)]})))
        known = self.run.units[["layer", "unit", "label", "iou"]]
        return edits, pd.concat(tables, ignore_index=True).merge(known, how="left", on=["layer", "unit"]), values, means

    def _better(self, edit: Edit, means: Tensor) -> str:
        """Which of zero and mean leaves the smaller Fréchet distance on samples of the run."""
        assert self.search.extract is not None
        assert self.search.reference is not None
        samples = self.seen[:TRIED]
        sets = {name: (_valued(edit, name, {edit.layer: means}),) for name in ("zero", "mean")}
        with self.progress.task("zero or mean", 2 * len(samples), spread=True) as advance:
            draws = _draws(self.generator, sets)
            drawn = draw_sets(None, self.search.extract, self.search.reference, samples, draws, self.batch, advance)
        real = self.search.reference.features
        found = distributed.first(lambda: {name: frechet(features, real) for name, features in drawn.features.items()})
        return min(found, key=lambda name: found[name])

    def random(
        self, edits: Sequence[Edit], values: dict[str, str], means: dict[str, Tensor], seed: int, number: int
    ) -> list[Edit]:
        """As many random units of the same layers, the chosen ones last, with the same kind of value."""
        drawn = []
        for edit in edits:
            width = len(means[edit.layer])
            order = random_orders(width, np.array(edit.units), number + 1, seed)[number]
            units = tuple(int(unit) for unit in order[: len(edit.units)])
            drawn.append(_valued(replace(edit, units=units), values[edit.layer], means))
        return drawn


def _draws(generator: Generator, sets: Mapping[str, Sequence[Edit]]) -> dict[str, Draw]:
    return {name: partial(draw_edited, generator, edits) for name, edits in sets.items()}


def _valued(edit: Edit, value: str, means: Mapping[str, Tensor]) -> Edit:
    """The edit with zeros, or with the means of its units."""
    units = list(edit.units)
    return replace(edit, value=means[edit.layer][units] if value == "mean" else torch.zeros(len(units)))


def _check(
    value: str, strength: float, samples: int, random_sets: int, top: int, seed: int, batch_size: int | None
) -> None:
    if value not in VALUES:
        raise UsageError(f"--value {value!r} is not known; there are {', '.join(VALUES)}.")
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength}: a number above 0 and up to 1 is needed.")
    for option, number, least in (
        ("--samples", samples, LEAST),
        ("--random-sets", random_sets, 0),
        ("--top", top, 1),
        ("--seed", seed, 0),
        ("--batch-size", 1 if batch_size is None else batch_size, 1),
    ):
        if operator.index(number) < least:
            raise UsageError(f"{option} {number}: a whole number from {least} up is needed.")
