"""Take suspect units out of a generator, and say whether that made its images better."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...hooks.edit import Edit, edited
from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..artifacts.detectors import images_drawn
from ..artifacts.find import DetectorInputs, Realism, Search, check_detector
from ..fidelity.distances import BEFORE, RANDOM, REPAIRED, frechet
from ..fidelity.features import Features
from ..fidelity.reference import Reference
from ..generators.base import Generator
from ..interventions.unit_choice import MEASURED, random_orders, unit_statistics
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.reopen import reopen
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.requests import check_choice, check_integers, check_strength
from ..runtime.resources import at_work, usual_batch
from ..storage.result_folder import header, result_name
from ..subjects.opening import Given, usable_device
from ..subjects.subject import Subject
from .checkpoint import check_target, write_repaired
from .draw_sets import LEAST, Draw, compare_sets, draw_edited, draw_sets, gallery
from .named_units import UnitsByLayer, check_units, named_units
from .result import Measured, Repair
from .verdict import verdict

VALUES = ("best", "zero", "mean")
TRIED = 512  # samples of the run, at most, on which the value is chosen


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
    """Ablate units that a detector suspects, or named ones, measure what that does, and write the repaired generator.

    Units and values are chosen on the samples of the run and every other image of the reference; everything reported is
    measured on later samples and the reference's other images, on the same latents before and after, beside random
    sets of as many units of the same layers.

    Args:
        run: a finished run, or its folder; its `repairs/NAME/` keeps the result, which the same call loads again.
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
        UsageError: an argument does not exist or does not fit, or every unit of a layer was chosen. Nothing is written.
        DissectError: something failed. Nothing is written.
    """
    run = run if isinstance(run, Dissection) else Dissection.load(run)
    check_integers({"--top": (top, 1), "--batch-size": (batch_size, 1)})
    if (units is None) == (detector is None):
        raise UsageError("Name the units by --units FILE, or the detector that chooses them by --detector NAME.")
    if units is not None and layer is not None:
        raise UsageError(f"--layer {layer} goes with --detector; --units name their layers themselves.")
    request = RepairRequest(
        units=None if units is None else named_units(units, run),
        detector=detector,
        top=top,
        layer=layer,
        layers=run.layers if layer is None else [lookup.pick_layer_of_units(run, layer)],
        value=value,
        strength=float(strength),
        one_by_one=one_by_one,
        samples=samples,
        random_sets=random_sets,
        seed=seed,
        out=out,
        inputs=DetectorInputs(reference=reference, inception=inception, flags=flags, realism=realism),
    )
    request.check(run)
    name = result_name(name or request.name)
    folder = run.folder / "repairs" / name
    if (kept := Repair.kept(folder, request.config)) is not None:
        return kept
    device = usable_device(device)
    generator, segmenter = reopen(run, generator, segmenter, device, quiet)
    target = distributed.on_first(lambda: check_target(folder, out, generator.name))
    with Progress(quiet, request.stages) as progress, at_work():
        workshop = Workshop.open(run, generator, segmenter, request, batch_size, progress)
        choice = workshop.choose()
        measured = workshop.measure(choice)
    info = header() | {
        "name": name,
        "generator": generator.name,
        "segmenter": segmenter.name,
        "weights_sha256": run.info["config"]["weights_sha256"],
        "detector": detector,
        "units": {edit.layer: list(edit.units) for edit in choice.edits},
        "values": choice.values,
        "strength": request.strength,
        "one_by_one": one_by_one,
        "chosen_on": {"first": 0, "last": workshop.run_samples[-1]},
        "random_sets": random_sets,
        **measured.record(),
        "checkpoint": target.name if out is None else str(target.resolve()),
        "tables": ["fidelity", "effects", "units"],
        "config": request.config,
    }
    result = Repair(
        folder=folder,
        info=info,
        fidelity=measured.fidelity,
        effects=measured.effects,
        units=choice.table,
        pictures=measured.pictures,
    )
    copied = replace(generator, module=copy.deepcopy(generator.module))
    return result.save_with(
        lambda files: write_repaired(
            copied, choice.edits, result, files, files / target.name if out is None else target
        )
    )


@dataclass(frozen=True, kw_only=True)
class RepairRequest:
    """Which units are taken out, and how that is measured; see `repair`.

    units: by layer; None where the detector chooses. layer: as the user named it; layers: where a detector looks.
    """

    units: UnitsByLayer | None
    detector: str | None
    top: int
    layer: str | int | None
    layers: Sequence[str]
    value: str
    strength: float
    one_by_one: bool
    samples: int
    random_sets: int
    seed: int
    out: str | Path | None
    inputs: DetectorInputs

    def check(self, run: Dissection) -> None:
        """Raise UsageError for what lies outside its limits, or does not fit the run."""
        check_choice("--value", self.value, VALUES)
        check_strength(self.strength)
        limits = {"--samples": (self.samples, LEAST), "--random-sets": (self.random_sets, 0)}
        check_integers({**limits, "--seed": (self.seed, 0)})
        if self.detector is not None:
            check_detector(self.detector, self.inputs.flags)
            lookup.pick_layer_of_units(run, self.layers[0])  # refuses a control, and a run of directions
            check_units({layer: tuple(range(self.top)) for layer in self.layers}, run)

    @property
    def name(self) -> str:
        """What the repair is called where no name is given."""
        if self.units is None:
            words = [f"{self.detector}-top{self.top}"]
            words += [str(self.layer)] if self.layer is not None else []
        else:
            words = ["units", *(f"{layer}-{len(units)}" for layer, units in self.units.items())]
        words += [self.value] if self.value != "best" else []
        words += [f"strength{self.strength:g}"] if self.strength != 1 else []
        words += ["one-by-one"] if self.one_by_one else []
        return "-".join(words)

    @property
    def stages(self) -> int:
        """How many tasks the repair has: the reference, those of each layer, drawing, and distances."""
        if self.units is None:
            assert self.detector is not None
            layers, choosing = len(self.layers), 2 if images_drawn(self.detector, 1) else 1
        else:
            layers, choosing = len(self.units), 0
        return 1 + layers * (choosing + 1 + (self.value == "best")) + 2

    @property
    def config(self) -> dict[str, Any]:
        """What is kept and compared: the same config gives the same numbers."""
        return {
            "units": None if self.units is None else {layer: list(units) for layer, units in self.units.items()},
            "detector": self.detector,
            "top": None if self.detector is None else self.top,
            "layers": list(self.layers),
            "value": self.value,
            "strength": self.strength,
            "one_by_one": self.one_by_one,
            "samples": self.samples,
            "random_sets": self.random_sets,
            "seed": self.seed,
            "out": None if self.out is None else str(Path(self.out).resolve()),
        } | self.inputs.record()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The units of a repair.

    edits: one a layer. table: one row a unit. values: by layer, `zero` or `mean`. means: by layer, (U,) of all units.
    """

    edits: list[Edit]
    table: pd.DataFrame
    values: dict[str, str]
    means: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What a repair works on. `search` compares with one half of the reference; `judges` is the other."""

    run: Dissection
    generator: Generator
    segmenter: Segmenter
    request: RepairRequest
    search: Search
    chooses: Reference
    judges: Reference
    extract: Features
    batch: int
    progress: Progress

    @classmethod
    def open(
        cls,
        run: Dissection,
        generator: Generator,
        segmenter: Segmenter,
        request: RepairRequest,
        batch_size: int | None,
        progress: Progress,
    ) -> Workshop:
        """Open the detector, and halve the reference: one half chooses units, the other judges the repair."""
        detector = request.detector or "rare"  # none looks where the units are named
        search = Search.open(
            run, generator, segmenter, detector, request.inputs, needs_reference=True, progress=progress
        )
        assert search.reference is not None
        assert search.extract is not None
        chooses, judges = search.reference.halves()
        return cls(
            run=run,
            generator=generator,
            segmenter=segmenter,
            request=request,
            search=replace(search, reference=chooses),
            chooses=chooses,
            judges=judges,
            extract=search.extract,
            batch=batch_size or usual_batch(generator.device),
            progress=progress,
        )

    @property
    def run_samples(self) -> range:
        """The samples of the run, on which units and values are chosen."""
        return range(int(self.run.info["config"]["samples"]))

    @property
    def unseen(self) -> range:
        """The samples on which the repair is measured."""
        first = self.run_samples.stop
        return range(first, first + self.request.samples)

    def choose(self) -> Choice:
        """Choose the units of every layer and their values, in the order of the layers."""
        request = self.request
        edits: list[Edit] = []
        values: dict[str, str] = {}
        means: dict[str, Tensor] = {}
        tables = []
        for layer in request.layers if request.units is None else request.units:
            with ExitStack() as stack:
                if request.one_by_one:  # the layer is looked at as it is after the repairs of the layers below
                    stack.enter_context(edited(self.generator.module, *edits))
                subject = Subject.open(self.generator, self.segmenter, layer, self.batch)
                scores = None
                if request.units is None:
                    scores = self.search.scores(subject, self.run_samples, self.progress).units
                    units = tuple(int(unit) for unit in (-scores).argsort(kind="stable")[: request.top])
                else:
                    units = request.units[layer]
                samples = self.run_samples[:MEASURED]
                with self.progress.task(f"means of {layer}", len(samples), spread=True) as advance:
                    means[layer] = unit_statistics(subject, samples, advance)[0]
                edit = Edit(layer=layer, units=units, strength=request.strength)
                values[layer] = self._better(edit, means[layer]) if request.value == "best" else request.value
            edits.append(_with_value(edit, values[layer], means))
            rows = {"layer": layer, "unit": units, "value": torch.as_tensor(edits[-1].value).numpy()}
            tables.append(pd.DataFrame(rows | ({} if scores is None else {"score": scores[list(units)]})))
        labels = self.run.units[["layer", "unit", "label", "iou"]]
        table = pd.concat(tables, ignore_index=True).merge(labels, how="left", on=["layer", "unit"])
        return Choice(edits=edits, table=table, values=values, means=means)

    def measure(self, choice: Choice) -> Measured:
        """Draw the unseen samples as they were, repaired, and with the other sets, and compare."""
        draws = _draws(self.generator, self._sets(choice))
        drawn, fidelity = compare_sets(
            self.segmenter,
            self.extract,
            self.judges,
            self.unseen,
            draws,
            batch=self.batch,
            seed=self.request.seed,
            progress=self.progress,
        )
        word, sentence = verdict(fidelity, self.extract.note)
        return Measured(
            samples=self.unseen,
            fidelity=fidelity,
            effects=drawn.effects(self.segmenter.vocabulary.names),
            pictures=gallery(self.segmenter, self.unseen, drawn, draws, REPAIRED),
            reference=f"{self.judges.name}, the half that chose nothing",
            features=self.extract.note,
            verdict=word,
            sentence=sentence,
        )

    def _sets(self, choice: Choice) -> dict[str, Sequence[Edit]]:
        """The edits of every set: none, the repair, the same units with the other value, and random units."""
        sets: dict[str, Sequence[Edit]] = {BEFORE: (), REPAIRED: choice.edits}
        for value in ("zero", "mean"):
            if set(choice.values.values()) != {value}:
                sets[value] = [_with_value(edit, value, choice.means) for edit in choice.edits]
        for index in range(self.request.random_sets):
            sets[f"{RANDOM} {index + 1}"] = self._random(choice, index)
        return sets

    def _random(self, choice: Choice, index: int) -> list[Edit]:
        """As many random units of the same layers, the chosen ones last, with the same kind of value."""
        edits = []
        for edit in choice.edits:
            width = len(choice.means[edit.layer])
            order = random_orders(width, np.array(edit.units), index + 1, self.request.seed)[index]
            units = tuple(int(unit) for unit in order[: len(edit.units)])
            edits.append(_with_value(replace(edit, units=units), choice.values[edit.layer], choice.means))
        return edits

    def _better(self, edit: Edit, means: Tensor) -> str:
        """Which of zero and mean leaves the smaller Fréchet distance on samples of the run."""
        samples = self.run_samples[:TRIED]
        sets = {name: (_with_value(edit, name, {edit.layer: means}),) for name in ("zero", "mean")}
        with self.progress.task("zero or mean", 2 * len(samples), spread=True) as advance:
            draws = _draws(self.generator, sets)
            drawn = draw_sets(None, self.extract, self.chooses, samples, draws, self.batch, advance)
        real = self.chooses.features
        distances = distributed.on_first(
            lambda: {name: frechet(features, real) for name, features in drawn.features.items()}
        )
        return min(distances, key=lambda name: distances[name])


def _draws(generator: Generator, sets: Mapping[str, Sequence[Edit]]) -> dict[str, Draw]:
    return {name: partial(draw_edited, generator, edits) for name, edits in sets.items()}


def _with_value(edit: Edit, value: str, means: Mapping[str, Tensor]) -> Edit:
    """The edit with zeros, or with the means of its units."""
    units = list(edit.units)
    return replace(edit, value=means[edit.layer][units] if value == "mean" else torch.zeros(len(units)))
