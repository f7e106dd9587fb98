"""From a full spool to a finished run: scores, tests, tables. No network is needed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...segmenters.base import Vocabulary
from ..capture.maps import Maps, signature
from ..capture.plan import Plan
from ..capture.spool import Spool
from ..causes.table import with_effects
from ..images import resize as gr
from ..runtime import distributed
from ..runtime.progress import Progress
from ..scoring.counting import Tally, images_with_class, top_masks
from ..scoring.label_tests import RIVALS
from ..scoring.layer_basis import Basis
from ..scoring.layer_scores import LayerScores, Scoring
from ..scoring.unit_table import class_table
from ..storage.files import COMPLETE, write_arrays, write_csv, write_json
from ..storage.result_folder import now
from ..subjects.first_look import label_trouble
from .dissection import Dissection
from .kept_maps import FILE, kept_maps

ALREADY: dict[str, Any] = {"seconds": {"capture": 0.0}, "captured_now": 0}  # in run.json where nothing was captured


def finish(
    folder: Path,
    info: dict[str, Any],
    spool: Spool,
    basis: Basis,
    progress: Progress,
    device: torch.device = gr.CPU,
) -> Dissection:
    """Score the units of a full spool, test their labels, write the tables, and mark the run as complete.

    Several processes each read their own shards; the first one writes.

    Args:
        info: what run.json says so far.
        device: where pixels are counted.

    Raises:
        DissectError: the spool is damaged.
        OSError: a file could not be written; the same call may succeed once there is room.
    """
    config, plan = info["config"], Plan.of(info)
    names = Vocabulary(**{name: tuple(values) for name, values in info["vocabulary"].items()})
    scoring = Scoring.of(config, names)
    total = sum(basis.width(layer, shape[0]) for layer, shape in plan.shapes.items())
    control = f"{config['control']}: " if config["control"] else ""
    started = time.perf_counter()
    layers = []
    with progress.task(f"{control}score {basis.noun}s", total, noun=f"{basis.noun}s") as advance:
        for layer in plan.shapes:
            maps = Maps(spool=spool, plan=plan, layer=layer)
            maps = replace(maps, directions=basis.directions(maps, scoring.seed), device=device)
            layers.append(scoring.label(maps, advance))
    labelled = time.perf_counter()
    if scoring.thoroughness:
        with progress.task(f"{control}test labels", total, noun=f"{basis.noun}s") as advance:
            layers = [scoring.test(layer, advance) for layer in layers]
    tested = time.perf_counter()

    scores: dict[str, NDArray[Any]] = {"shares": np.array(scoring.shares)}
    tops: dict[str, NDArray[Any]] = {}
    for scored in layers:
        scores |= _score_arrays(scored)
        tops |= _top_arrays(scored)
    shown = None if config["control"] else kept_maps(layers)
    units = with_effects(scoring.table(layers), names.names, {})
    classes = class_table(names, *_class_shares(spool, layers[0].tally, len(names)), units)
    trouble = distributed.on_first(lambda: label_trouble(config["segmenter"], names.names, classes.share.tolist()))
    seconds = {"score": round(labelled - started, 3), "test": round(tested - labelled, 3)}
    complete = info | {
        "status": COMPLETE,
        "finished": now(),
        "seconds": info.get("seconds", {}) | seconds,
        "notes": [*info.get("notes", []), *([trouble] if trouble else [])],
    }

    def write() -> None:
        write_arrays(folder / "scores.npz", scores)
        write_arrays(folder / "tops.npz", tops)
        if shown:
            write_arrays(folder / FILE, shown)
        write_csv(folder / "units.csv", units)
        write_csv(folder / "classes.csv", classes)
        write_json(folder / "run.json", complete)  # last: from then on the run counts as complete

    distributed.on_first(write)
    return Dissection.load(folder)


def _score_arrays(scored: LayerScores) -> dict[str, NDArray[Any]]:
    """What scores.npz keeps of a layer."""
    layer, tally, labels = scored.maps.layer, scored.tally, scored.labels
    best = labels.ranking[:, :RIVALS]
    arrays: dict[str, NDArray[Any]] = {
        f"{layer}/level": tally.level,
        f"{layer}/histogram": tally.histogram,
        f"{layer}/span": tally.span,
        f"{layer}/rival": best,
        f"{layer}/rival_level": np.take_along_axis(labels.class_level, best, axis=1),
        f"{layer}/signature": signature(scored.maps),
    }
    for half, counts in (("choose", tally.choose), ("score", tally.score)):
        arrays[f"{layer}/{half}/intersection"] = counts.intersection
        arrays[f"{layer}/{half}/unit_area"] = counts.unit_area
        arrays[f"{half}/class_area"] = counts.class_area
        arrays[f"{half}/pixels"] = np.array(counts.pixels)
    if scored.evidence:
        for name in ("null_sd", "fires", "rival_low", "rival_high", "rival_position"):
            arrays[f"{layer}/{name}"] = getattr(scored.evidence, name)
    if scored.maps.directions is not None:
        arrays[f"{layer}/directions"] = scored.maps.directions.numpy()
    return arrays


def _top_arrays(scored: LayerScores) -> dict[str, NDArray[Any]]:
    """What tops.npz keeps of a layer."""
    layer, tally, level = scored.maps.layer, scored.tally, scored.labels.level
    return {
        f"{layer}/sample": tally.top,
        f"{layer}/peak": tally.peak,
        f"{layer}/mask": top_masks(scored.maps, tally.top, tally.level[np.arange(len(level)), level]),
    }


def _class_shares(spool: Spool, tally: Tally, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) each class's share of the pixels, and (C,) the share of samples that have it."""
    pixels = tally.choose.pixels + tally.score.pixels
    share = (tally.choose.class_area + tally.score.class_area) / pixels
    return share, images_with_class(spool, classes) / spool.samples
