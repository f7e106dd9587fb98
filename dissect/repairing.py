"""Take suspect units out of a generator, and say whether that made its images better."""

from __future__ import annotations

import copy
import csv
import operator
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ..hooks.edit import Edit, edited
from ..hooks.errors import DissectError, UsageError
from ..segmenters.base import Segmenter
from . import selection
from .artifacts.find import Realism, Search
from .capture import BATCH
from .effect_tables import effects_table
from .fidelity import BEFORE, RANDOM, REPAIRED, compare, frechet, rounds, verdict
from .generators.base import Generator
from .job import command, now
from .models import reopen, usable_device
from .progress import Progress
from .repair_sets import draw_sets, gallery
from .repaired import check_target, write_repaired
from .repairs import Repair, save
from .store import SCHEMA, Dissection, safe_name
from .subject import Subject

VALUES = ("best", "zero", "mean")
TRIED = 512  # samples of the run, at most, on which the value is chosen
LEAST = 64  # samples: halves of fewer say nothing

Chosen = dict[str, tuple[int, ...]]  # units of each layer


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
    generator: Generator | None = None,
    segmenter: str | Segmenter | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Repair:
    """Ablate units that a detector suspects, or given ones, measure what that does, and write the repaired generator.

    Units and values are chosen on the samples of the run; everything reported is measured on later ones, on the same
    latents before and after, beside random sets of as many units of the same layers.

    Args:
        run: a finished run, or its folder; its `repairs/NAME/` keeps the result, in the place of an older one.
        units: units by layer; or `layer4:12,57`; or a file of such lines, or a table with columns layer and unit, such
            as the `suspects.csv` of `artifacts.find` with the innocent ones taken out.
        detector, top: instead, the most suspect units of each layer, see `artifacts.find`.
        layer: for a detector, one of the run's layers; None is all.
        value: what the units put out instead: `zero`, their `mean` on the run's samples, or the `best` of the two, by
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
    picked = selection.pick_layer(run, run.layers[0] if layer is None else layer)
    chosen = None if units is None else _given(units, run)
    layers = run.layers if layer is None else [picked]
    if chosen is None:
        _check_chosen({one: tuple(range(top)) for one in layers}, run)
    called = safe_name(name or _name(detector, top, chosen, layer, value, strength, one_by_one))
    if not called:
        raise UsageError(f"--name {name!r}: letters or digits are needed.")
    device = usable_device(device)
    generator, segmenter = reopen(run, generator, segmenter, device, quiet)
    folder = run.folder / "repairs" / called
    target = check_target(folder, out, generator.name)
    with Progress(quiet) as progress:
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
        work = Workshop(
            run=run,
            generator=generator,
            segmenter=segmenter,
            search=search,
            strength=float(strength),
            batch=batch_size or BATCH.get(generator.device.type, 16),
            progress=progress,
        )
        edits, table, values = work.choose(chosen, layers, top, value, one_by_one)
        others = work.others(edits, values)
        random = [work.random(edits, seed, number) for number in range(random_sets)]
        first = int(run.info["config"]["samples"])
        unseen = range(first, first + samples)
        sets = {BEFORE: (), REPAIRED: edits, **others}
        sets |= {f"{RANDOM} {number + 1}": drawn for number, drawn in enumerate(random)}
        with progress.task("draw and compare", len(sets) * samples) as advance:
            assert search.extract is not None
            assert search.reference is not None
            drawn = draw_sets(generator, segmenter, search.extract, search.reference, unseen, sets, work.batch, advance)
        with progress.task("distances", len(sets) * (rounds(drawn.features[BEFORE].shape[1]) + 1)) as advance:
            fidelity = compare(drawn.features, search.reference.features, seed=seed, advance=advance)
        word, sentence = verdict(fidelity, search.extract.note)
        outcomes = [drawn.outcome(REPAIRED, "chosen", 0)]
        outcomes += [drawn.outcome(f"{RANDOM} {k + 1}", RANDOM, k) for k in range(random_sets)]
        effects = effects_table(drawn.areas[BEFORE], outcomes, segmenter.vocabulary.names)
        pictures = gallery(generator, segmenter, unseen, drawn, REPAIRED, edits)
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
        "reference": search.reference.name,
        "features": search.extract.note,
        "verdict": word,
        "sentence": sentence,
        "checkpoint": target.name if out is None else str(target.resolve()),
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
    ) -> tuple[list[Edit], pd.DataFrame, dict[str, str]]:
        """An edit a layer; the table of the units; by layer which value was taken: zero or mean."""
        edits: list[Edit] = []
        values: dict[str, str] = {}
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
                means = self._means(subject, units) if value != "zero" else torch.zeros(len(units))
                found = value if value != "best" else self._better(layer, units, means)
            values[layer] = found
            what = means if found == "mean" else torch.zeros(len(units))
            edits.append(Edit(layer=layer, units=units, value=what, strength=self.strength))
            rows = {"layer": layer, "unit": units, "value": what.numpy()}
            tables.append(pd.DataFrame(rows | ({} if scores is None else {"score": scores[list(units)]})))
        known = self.run.units[["layer", "unit", "label", "iou"]]
        return edits, pd.concat(tables, ignore_index=True).merge(known, how="left", on=["layer", "unit"]), values

    def _means(self, subject: Subject, units: Sequence[int]) -> Tensor:
        samples = self.seen[: selection.MEASURED]
        with self.progress.task(f"means of {subject.layer}", len(samples)) as advance:
            return selection.unit_statistics(subject, samples, advance)[0][list(units)]

    def _better(self, layer: str, units: tuple[int, ...], means: Tensor) -> str:
        """Which of zero and mean leaves the smaller Fréchet distance on samples of the run."""
        assert self.search.extract is not None
        assert self.search.reference is not None
        samples = self.seen[:TRIED]
        sets = {
            name: (Edit(layer=layer, units=units, value=what, strength=self.strength),)
            for name, what in (("zero", torch.zeros(len(units))), ("mean", means))
        }
        with self.progress.task("zero or mean", 2 * len(samples)) as advance:
            drawn = draw_sets(
                self.generator, None, self.search.extract, self.search.reference, samples, sets, self.batch, advance
            )
        found = {name: frechet(features, self.search.reference.features) for name, features in drawn.features.items()}
        return min(found, key=lambda name: found[name])

    def others(self, edits: Sequence[Edit], values: Mapping[str, str]) -> dict[str, list[Edit]]:
        """The same units with the value that was not taken, where it is the same for all layers."""
        taken = set(values.values())
        if len(taken) > 1:
            return {}
        if taken == {"mean"}:
            return {"zero": [replace(edit, value=0.0) for edit in edits]}
        means = []
        for edit in edits:
            subject = Subject.open(self.generator, self.segmenter, edit.layer, self.batch)
            means.append(replace(edit, value=self._means(subject, edit.units)))
        return {"mean": means}

    def random(self, edits: Sequence[Edit], seed: int, number: int) -> list[Edit]:
        """As many random units of the same layers, the chosen ones last; with zeros, or with their means."""
        drawn = []
        for edit in edits:
            width = int(self.run.info["layers"][edit.layer]["units"])
            order = selection.random_orders(width, torch.tensor(edit.units).numpy(), number + 1, seed)[number]
            units = tuple(int(unit) for unit in order[: len(edit.units)])
            value: float | Tensor = 0.0
            if bool(torch.as_tensor(edit.value).any()):
                value = self._means(Subject.open(self.generator, self.segmenter, edit.layer, self.batch), units)
            drawn.append(replace(edit, units=units, value=value))
        return drawn


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


def _given(units: str | Path | Mapping[str, Sequence[int]], run: Dissection) -> Chosen:
    """Units by layer, in the run's order of layers."""
    if isinstance(units, Mapping):
        pairs = [(layer, unit) for layer, members in units.items() for unit in members]
    elif Path(units).is_file():
        pairs = _from_file(Path(units))
    elif ":" in str(units):
        layer, members = selection.parse_units(str(units))
        pairs = [(layer, unit) for unit in members]
    else:
        raise UsageError(f"--units {units} is neither a file nor LAYER:UNIT,UNIT,…, e.g. layer4:12,57,300.")
    found: dict[str, list[int]] = {}
    for layer, unit in pairs:
        found.setdefault(selection.find_layer(run, layer), []).append(int(unit))
    chosen = {layer: tuple(dict.fromkeys(found[layer])) for layer in run.layers if layer in found}
    if not chosen:
        raise UsageError(f"--units {units} names no unit; write lines such as layer4:12,57.")
    _check_chosen(chosen, run)
    return chosen


def _from_file(path: Path) -> list[tuple[str, int]]:
    """(layer, unit) of a table with these columns, or of lines LAYER:UNIT,UNIT,…; # begins a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DissectError(f"--units {path} cannot be read ({error}); give a text file.") from error
    heads = next(csv.reader(lines[:1]), [])
    if {"layer", "unit"} <= set(heads):
        try:
            return [(str(row["layer"]), int(row["unit"])) for row in csv.DictReader(lines)]
        except (TypeError, ValueError):
            raise UsageError(f"--units {path}: the column unit must hold whole numbers.") from None
    pairs = []
    for line in lines:
        text = line.partition("#")[0].strip()
        if text:
            layer, members = selection.parse_units(text)
            pairs += [(layer, unit) for unit in members]
    return pairs


def _check_chosen(chosen: Chosen, run: Dissection) -> None:
    for layer, units in chosen.items():
        width = int(run.info["layers"][layer]["units"])
        if len(units) >= width:
            raise UsageError(
                f"{len(units)} units of {layer} are to be ablated, and it has {width}: without any unit it draws one "
                "image. Choose fewer."
            )
        selection.check_units(units, layer, width)


def _name(
    detector: str | None,
    top: int,
    chosen: Chosen | None,
    layer: str | int | None,
    value: str,
    strength: float,
    one_by_one: bool,
) -> str:
    parts = [f"{detector}-top{top}"] if chosen is None else ["units", *(f"{at}-{len(u)}" for at, u in chosen.items())]
    parts += [str(layer)] if layer is not None and chosen is None else []
    parts += [value] if value != "best" else []
    parts += [f"strength{strength:g}"] if strength != 1 else []
    return "-".join(parts + (["one-by-one"] if one_by_one else []))
