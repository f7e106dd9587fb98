"""Rank a layer's units, and a run's samples, by how suspect they are."""

from __future__ import annotations

import copy
import operator
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
from ..runtime.resources import at_work
from ..storage.files import SCHEMA, digest, safe_name
from ..storage.result_folder import command, holds, now
from ..subjects.opening import Given, usable_device
from ..subjects.subject import Subject
from .detectors import DETECTORS, NEED_REFERENCE, Scores, images_drawn
from .flags import Flags, read_flags
from .layer_view import Seen, look
from .result import Suspects

Realism = Callable[[Tensor], Tensor]


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
        *,
        reference: str | Path | None,
        inception: str | Path | None,
        flags: str | Path | None,
        realism: str | Realism | None,
        needs_reference: bool,
        progress: Progress,
    ) -> Search:
        """Check what was asked, and take the features of the reference where they are needed.

        Raises:
            UsageError: something asked for does not exist, does not fit, or is missing.
            DissectError: it cannot be read.
        """
        height, width = run.info["image"]
        marks = None if flags is None else read_flags(flags, int(run.info["config"]["samples"]), (height, width))
        score = _scorer(realism, generator.device)
        needs_reference = needs_reference or (detector in NEED_REFERENCE and not (detector == "realism" and score))
        extract = compared = None
        if needs_reference:
            extract = open_features(inception, generator.device)
            with progress.task("reference", count_reference(reference), spread=True) as advance:
                compared = open_reference(
                    reference,
                    extract,
                    (height, width),
                    drawn=segmenter.name == "scenes",
                    device=generator.device,
                    advance=advance,
                )
        return cls(detector=detector, extract=extract, reference=compared, flags=marks, realism=score)

    def scores(self, subject: Subject, samples: range, progress: Progress) -> Scores:
        """Look at a layer as it is now, with whatever hooks are on the generator."""
        with progress.task(f"look at {subject.layer}", len(samples), spread=True) as advance:
            wanted = self.detector in NEED_REFERENCE and self.reference is not None
            maps, features = look(
                subject, samples, self.extract if wanted else None, self.reference if wanted else None, advance
            )
        seen = Seen(
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
                found = DETECTORS[self.detector](replace(seen, advance=advance))
        else:
            found = DETECTORS[self.detector](seen)
        return distributed.first(lambda: found)  # what is chosen by them must be the same in every process


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
    """Rank the units of a run's layers, and its samples, by a detector; kept in RUN/artifacts/NAME/.

    The same call again returns what is kept.

    Args:
        run: a finished run, or its folder.
        detector: one of `DETECTORS`.
        layer: one of the run's; None is all, each by itself.
        reference: a folder of images that the generator should draw, for `metric`, `greedy` and `realism`; None is the
            embedded scenes, for a run with their segmenter.
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
    # a run of directions, or a control, has no units to suspect
    first = lookup.pick_layer(opened, opened.layers[0] if layer is None else layer)
    layers = opened.layers if layer is None else [first]
    if batch_size is not None and operator.index(batch_size) < 1:
        raise UsageError(f"--batch-size {batch_size}: a whole number from 1 up is needed.")
    check_detector(detector, flags)
    called = safe_name(name or "-".join([detector, *(layers if len(layers) < len(opened.layers) else [])]))
    if not called:
        raise UsageError(f"--name {name!r}: letters or digits are needed.")
    folder = opened.folder / "artifacts" / called
    config = {"detector": detector, "layers": layers} | asked(reference, inception, flags, realism)
    if holds(folder, "artifacts.json", config):
        return Suspects.load(folder)
    device = usable_device(device)
    generator, segmenter = reopen(opened, generator, segmenter, device, quiet)
    samples = range(int(opened.info["config"]["samples"]))
    units, bad = [], []
    with Progress(quiet) as progress, at_work():
        search = Search.open(
            opened,
            generator,
            segmenter,
            detector,
            reference=reference,
            inception=inception,
            flags=flags,
            realism=realism,
            needs_reference=False,
            progress=progress,
        )
        for one in layers:
            scores = search.scores(Subject.open(generator, segmenter, one, batch_size), samples, progress)
            units.append(_ranked({"layer": one, "unit": range(len(scores.units)), "score": scores.units}))
            bad.append(_ranked({"layer": one, "sample": samples, "score": scores.samples}))
    known = opened.units[["layer", "unit", "label", "iou"]]
    info = {
        "schema": SCHEMA,
        "name": called,
        "created": now(),
        "command": command(),
        "detector": detector,
        "layers": layers,
        "samples": len(samples),
        "reference": search.reference and search.reference.name,
        "features": search.extract.note if search.extract and search.reference else None,
        "flags": None if search.flags is None else int(search.flags.marked.sum()),
        "config": config,
    }
    found = Suspects(
        info=info,
        units=pd.concat(units, ignore_index=True).merge(known, how="left", on=["layer", "unit"]),
        samples=pd.concat(bad, ignore_index=True),
    )
    distributed.first(lambda: found.save(folder))
    return found


def check_detector(detector: str, flags: str | Path | None) -> None:
    """Raise UsageError for a detector that does not exist, or lacks the flags that it needs."""
    if detector not in DETECTORS:
        raise UsageError(f"--detector {detector!r} is not known; there are {', '.join(DETECTORS)}.")
    if detector == "flagged" and flags is None:
        raise UsageError("The detector flagged needs --flags: a file of sample numbers, or a folder of masks.")


def asked(
    reference: str | Path | None,
    inception: str | Path | None,
    flags: str | Path | None,
    realism: str | Realism | None,
) -> dict[str, str | None]:
    """What was asked for in a form that can be kept and compared."""
    if not isinstance(realism, (str, type(None))):
        realism = f"{getattr(realism, '__module__', '')}:{getattr(realism, '__qualname__', type(realism).__name__)}"
    return {
        "reference": None if reference is None else str(Path(reference).resolve()),
        "inception": None if inception is None else str(inception),
        "flags_sha256": digest(flags),
        "realism": realism,
    }


def _scorer(realism: str | Realism | None, device: torch.device) -> Realism | None:
    """The realism score itself, made by its factory where it is named; a module in eval mode, on the device."""
    if isinstance(realism, str):
        made = made_by("--realism", realism)
        if not callable(made):
            raise DissectError(f"--realism {realism}: the factory made a {type(made).__name__}, which is no function.")
        realism = made
    if isinstance(realism, nn.Module):
        return copy.deepcopy(realism).to(device).eval().requires_grad_(False)
    return realism


def _ranked(columns: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame(columns).sort_values("score", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "rank", range(1, len(table) + 1))
    return table
