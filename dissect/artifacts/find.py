"""Rank a layer's units, and a run's samples, by how suspect they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError
from ...hooks.user_code import made_by
from ...segmenters.base import Segmenter
from ..fidelity.features import Features, open_features
from ..fidelity.reference import Reference, count_reference, open_reference
from ..generators.base import Generator
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.reopen import reopen
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.requests import check_choice, check_integers
from ..runtime.resources import at_work
from ..storage.files import digest
from ..storage.result_folder import header, result_name
from ..subjects.opening import Given, usable_device
from ..subjects.subject import Subject
from .detectors import DETECTORS, NEED_REFERENCE, Scores, images_drawn
from .flags import Flags, read_flags
from .layer_view import LayerView, look
from .result import Suspects

Realism = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class DetectorInputs:
    """What a user gives to a detector beside the run; see `find` for each."""

    reference: str | Path | None = None
    inception: str | Path | None = None
    flags: str | Path | None = None
    realism: str | Realism | None = None

    def record(self) -> dict[str, str | None]:
        """The same as text that can be kept in a description and compared."""
        realism = self.realism
        if not isinstance(realism, (str, type(None))):
            realism = f"{getattr(realism, '__module__', '')}:{getattr(realism, '__qualname__', type(realism).__name__)}"
        return {
            "reference": None if self.reference is None else str(Path(self.reference).resolve()),
            "inception": None if self.inception is None else str(self.inception),
            "flags_sha256": digest(self.flags),
            "realism": realism,
        }


@dataclass(frozen=True, kw_only=True)
class Search:
    """A detector and what it compares with, ready to look at any layer."""

    detector: str
    extract: Features | None
    reference: Reference | None
    flags: Flags | None
    realism: Realism | None

    @classmethod
    def open(
        cls,
        run: Dissection,
        generator: Generator,
        segmenter: Segmenter,
        detector: str,
        inputs: DetectorInputs,
        *,
        needs_reference: bool,
        progress: Progress,
    ) -> Search:
        """Check a detector's inputs, and compute the features of the reference where they are needed.

        Raises:
            UsageError: an input does not exist, does not fit, or is missing.
            DissectError: an input cannot be read.
        """
        height, width = run.info["image"]
        samples = int(run.info["config"]["samples"])
        flags = None if inputs.flags is None else read_flags(inputs.flags, samples, (height, width))
        realism = _realism(inputs.realism, generator.device)
        needs_reference = needs_reference or (detector in NEED_REFERENCE and not (detector == "realism" and realism))
        extract = reference = None
        if needs_reference:
            extract = open_features(inputs.inception, generator.device)
            with progress.task("reference", count_reference(inputs.reference), spread=True) as advance:
                reference = open_reference(
                    inputs.reference,
                    extract,
                    (height, width),
                    drawn=segmenter.name == "scenes",
                    device=generator.device,
                    advance=advance,
                )
        return cls(detector=detector, extract=extract, reference=reference, flags=flags, realism=realism)

    def scores(self, subject: Subject, samples: range, progress: Progress) -> Scores:
        """Look at a layer as it is now, with whatever hooks are on the generator."""
        with progress.task(f"look at {subject.layer}", len(samples), spread=True) as advance:
            compares = self.detector in NEED_REFERENCE and self.reference is not None
            maps, features = look(
                subject, samples, self.extract if compares else None, self.reference if compares else None, advance
            )
        view = LayerView(
            subject=subject,
            samples=samples,
            maps=maps,
            features=features,
            extract=self.extract,
            reference=self.reference,
            flags=self.flags,
            realism=self.realism,
            advance=lambda _: None,
        )
        if more := images_drawn(self.detector, len(samples)):
            with progress.task(f"detect: {self.detector}", more, spread=True) as advance:
                scores = DETECTORS[self.detector](replace(view, advance=advance))
        else:
            scores = DETECTORS[self.detector](view)
        # every process takes the first one's scores: rounding may differ, and all must choose the same units
        return distributed.broadcast(scores)


def find(
    run: Dissection | str | Path,
    *,
    detector: str = "rare",
    layer: str | int | None = None,
    reference: str | Path | None = None,
    inception: str | Path | None = None,
    flags: str | Path | None = None,
    realism: str | Realism | None = None,
    name: str | None = None,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Suspects:
    """Rank the units of a run's layers, and its samples, by a detector.

    The result is kept in RUN/artifacts/NAME/; the same call again loads it instead of computing it anew.

    Args:
        run: a finished run, or its folder.
        detector: one of `DETECTORS`.
        layer: one of the run's; None is all, each by itself.
        reference: a folder of images that the generator should draw, for `metric`, `greedy`, `realism` and `frechet`;
            None is the embedded scenes, for a run with their segmenter.
        inception: torch-fidelity's Inception file, or `download`; None compares by scene features.
        flags: for `flagged`, a text file of bad samples' numbers, or a folder of masks.
        realism: for `realism`, a differentiable score of images (N, 3, H, W) in [0, 1] -> (N,), or the
            `package.module:name` that makes it.
        name: of the folder.
        generator, segmenter: for a run of objects made in Python.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist, or the model has changed since the run. Nothing is written.
        DissectError: something failed. Nothing is written.
    """
    opened = run if isinstance(run, Dissection) else Dissection.load(run)
    # it refuses a run of directions and a control, which have no units to suspect
    first = lookup.pick_layer_of_units(opened, opened.layers[0] if layer is None else layer)
    layers = opened.layers if layer is None else [first]
    check_integers({"--batch-size": (batch_size, 1)})
    check_detector(detector, flags)
    name = result_name(name or "-".join([detector, *(layers if len(layers) < len(opened.layers) else [])]))
    inputs = DetectorInputs(reference=reference, inception=inception, flags=flags, realism=realism)
    folder = opened.folder / "artifacts" / name
    config = {"detector": detector, "layers": layers} | inputs.record()
    if (kept := Suspects.kept(folder, config)) is not None:
        return kept
    device = usable_device(device)
    generator, segmenter = reopen(opened, generator, segmenter, device, quiet)
    samples = range(int(opened.info["config"]["samples"]))
    unit_tables, sample_tables = [], []
    stages = (detector in NEED_REFERENCE) + len(layers) * (2 if images_drawn(detector, 1) else 1)
    with Progress(quiet, stages) as progress, at_work():
        search = Search.open(opened, generator, segmenter, detector, inputs, needs_reference=False, progress=progress)
        for of_layer in layers:
            scores = search.scores(Subject.open(generator, segmenter, of_layer, batch_size), samples, progress)
            unit_tables.append(_ranked({"layer": of_layer, "unit": range(len(scores.units)), "score": scores.units}))
            sample_tables.append(_ranked({"layer": of_layer, "sample": samples, "score": scores.samples}))
    labels = opened.units[["layer", "unit", "label", "iou"]]
    info = header() | {
        "name": name,
        "detector": detector,
        "layers": layers,
        "samples": len(samples),
        "reference": search.reference and search.reference.name,
        "features": search.extract.note if search.extract and search.reference else None,
        "flags": None if search.flags is None else int(search.flags.marked.sum()),
        "config": config,
    }
    suspects = Suspects(
        folder=folder,
        info=info,
        units=pd.concat(unit_tables, ignore_index=True).merge(labels, how="left", on=["layer", "unit"]),
        samples=pd.concat(sample_tables, ignore_index=True),
    )
    distributed.on_first(lambda: suspects.save(folder))
    return suspects


def check_detector(detector: str, flags: str | Path | None) -> None:
    """Raise UsageError for a detector that does not exist, or that lacks the flags it needs."""
    check_choice("--detector", detector, DETECTORS)
    if detector == "flagged" and flags is None:
        raise UsageError("The detector flagged needs --flags: a file of sample numbers, or a folder of masks.")


def _realism(realism: str | Realism | None, device: torch.device) -> Realism | None:
    """The realism score itself, made by its factory where it is named; a module in eval mode, on the device."""
    if isinstance(realism, str):
        score = made_by("--realism", realism)
        if not callable(score):
            raise DissectError(f"--realism {realism}: the factory made a {type(score).__name__}, which is no function.")
        realism = score
    if isinstance(realism, nn.Module):
        return copy.deepcopy(realism).to(device).eval().requires_grad_(False)
    return realism


def _ranked(columns: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame(columns).sort_values("score", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "rank", range(1, len(table) + 1))
    return table
