"""From a full spool to a finished run: levels -> counts -> labels -> evidence -> tables. No network is needed."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ...segmenters.base import Vocabulary
from ..capture.maps import Maps, signature
from ..capture.plan import Plan
from ..capture.spool import Spool
from ..images import resize as gr
from ..runtime import distributed
from ..runtime.progress import Progress
from ..scoring.counting import Tally, images_with_class, tally_layer, top_masks
from ..scoring.label_tests import RIVALS, THOROUGHNESS, Evidence, examine_layer
from ..scoring.layer_basis import Basis
from ..scoring.levels import level_shares
from ..scoring.scores import Labels, label_units
from ..scoring.unit_table import class_table, judge, unit_table
from ..storage.files import COMPLETE, write_arrays, write_csv, write_json
from ..storage.result_folder import now
from ..subjects.first_look import label_trouble
from .dissection import Dissection

ALREADY: dict[str, Any] = {"seconds": {"capture": 0.0}, "captured_now": 0}  # in run.json where nothing was captured


def finish(
    folder: Path,
    info: dict[str, Any],
    spool: Spool,
    basis: Basis,
    progress: Progress,
    device: torch.device = gr.CPU,
) -> Dissection:
    """Score and test what is in the spool, write the tables, and say in run.json that the run is complete.

    `info` is run.json so far; several processes each look at their own shards, and the first one writes.
    `device` is where pixels are counted.

    Raises:
        DissectError: the spool is damaged.
        OSError: something could not be written; the same again may succeed.
    """
    settings, plan = info["config"], Plan.of(info)
    names = Vocabulary(**{name: tuple(values) for name, values in info["vocabulary"].items()})
    shares = level_shares(settings["quantile"])
    rule, fixed, seed = settings["threshold"], shares.index(settings["quantile"]), settings["seed"] or 0
    how = THOROUGHNESS.get(settings["significance"])
    total = sum(basis.width(layer, shape[0]) for layer, shape in plan.shapes.items())
    control = f"{settings['control']}: " if settings["control"] else ""
    clock = [time.perf_counter()]
    found: dict[str, tuple[Maps, Tally, Labels]] = {}
    with progress.task(f"{control}score {basis.noun}s", total) as advance:
        for layer in plan.shapes:
            maps = Maps(spool=spool, plan=plan, layer=layer)
            maps = replace(maps, directions=basis.directions(maps, seed), device=device)
            tally = tally_layer(maps, len(names), shares, advance)
            found[layer] = maps, tally, distributed.first(partial(label_units, tally.choose, tally.score, rule, fixed))
    clock.append(time.perf_counter())
    evidence: dict[str, Evidence] = {}
    if how:
        with progress.task(f"{control}test labels", total) as advance:
            for layer, (maps, tally, labels) in found.items():
                evidence[layer] = examine_layer(maps, tally, labels, rule, how, seed, advance)
    clock.append(time.perf_counter())

    tables: list[pd.DataFrame] = []
    scores: dict[str, NDArray[Any]] = {"shares": np.array(shares)}
    tops: dict[str, NDArray[Any]] = {}
    for layer, (maps, tally, labels) in found.items():
        seen = evidence.get(layer)
        tables.append(unit_table(layer, tally, labels, seen, names, rule, fixed))
        scores |= _layer_scores(layer, maps, tally, labels, seen)
        tops |= _layer_tops(layer, maps, tally, labels)
        if maps.directions is not None:
            scores[f"{layer}/directions"] = maps.directions.numpy()
    units = judge(pd.concat(tables, ignore_index=True), tested=how is not None)
    _, first, _ = next(iter(found.values()))
    classes = class_table(names, *_class_shares(spool, first, len(names)), units)
    score, test = np.diff(clock).round(3).tolist()
    seconds = info.get("seconds", {}) | {"score": score, "test": test}
    shifted = distributed.first(lambda: label_trouble(settings["segmenter"], names.names, classes.share.tolist()))
    notes = [*info.get("notes", []), *([shifted] if shifted else [])]
    done = info | {"status": COMPLETE, "finished": now(), "seconds": seconds, "notes": notes}

    def write() -> None:
        write_arrays(folder / "scores.npz", scores)
        write_arrays(folder / "tops.npz", tops)
        write_csv(folder / "units.csv", units)
        write_csv(folder / "classes.csv", classes)
        write_json(folder / "run.json", done)  # last: it says that all the rest is there

    distributed.first(write)
    return Dissection.load(folder)


def _layer_scores(
    layer: str, maps: Maps, tally: Tally, labels: Labels, evidence: Evidence | None
) -> dict[str, NDArray[Any]]:
    """What scores.npz keeps of a layer."""
    best = labels.ranking[:, :RIVALS]
    arrays: dict[str, NDArray[Any]] = {
        f"{layer}/level": tally.level,
        f"{layer}/histogram": tally.histogram,
        f"{layer}/span": tally.span,
        f"{layer}/rival": best,
        f"{layer}/rival_level": np.take_along_axis(labels.class_level, best, axis=1),
        f"{layer}/signature": signature(maps),
    }
    for half in ("choose", "score"):
        counts = getattr(tally, half)
        arrays[f"{layer}/{half}/intersection"] = counts.intersection
        arrays[f"{layer}/{half}/unit_area"] = counts.unit_area
        arrays[f"{half}/class_area"] = counts.class_area
        arrays[f"{half}/pixels"] = np.array(counts.pixels)
    if evidence:
        for name in ("null_sd", "fires", "rival_low", "rival_high", "rival_position"):
            arrays[f"{layer}/{name}"] = getattr(evidence, name)
    return arrays


def _layer_tops(layer: str, maps: Maps, tally: Tally, labels: Labels) -> dict[str, NDArray[Any]]:
    """What tops.npz keeps of a layer."""
    threshold = tally.level[np.arange(len(labels.level)), labels.level]
    return {
        f"{layer}/sample": tally.top,
        f"{layer}/peak": tally.peak,
        f"{layer}/mask": top_masks(maps, tally.top, threshold),
    }


def _class_shares(spool: Spool, tally: Tally, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) each class's share of the pixels, and (C,) the share of samples that have it."""
    pixels = tally.choose.pixels + tally.score.pixels
    share = (tally.choose.class_area + tally.score.class_area) / pixels
    return share, images_with_class(spool, classes) / spool.samples
