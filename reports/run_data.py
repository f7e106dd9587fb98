"""What the page's script shows of a run, as plain JSON: columns over units, their top samples, curves and maps."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dissect.runs.dissection import Dissection
from . import figures
from .interventions import Scans

EXAMPLES = 8  # images of a class
TRACED = 2**21  # pixels outlined together
NUMBERS = [
    *("iou", "iou_low", "iou_high", "chance_iou", "position_iou", "content_iou", "attainable_iou", "iqr"),
    *("average_precision", "excess_iou", "p_value", "q_value", "runner_up_iou", "split_half_iou"),
    *("threshold", "quantile", "peak"),
]


def units_data(run: Dissection, scans: Scans, advance: Callable[[int], None]) -> dict[str, Any]:
    """Columns with one entry a unit, units in the order of the table. `advance(n)` comes after every n units.

    layer and label are indices (-1 for no label); top holds [sample, outline] pairs; curve the IoU and the chance IoU
    at every level, in 1/10,000, -1 where there is none; histogram its counts; span their ends; fires base64 bytes
    (s, s), and fires_max the share that 255 stands for; rivals the best classes with IoU, interval, chance and place.
    """
    units = run.units
    columns: dict[str, list[Any]] = {
        "layer": units.layer.map({name: number for number, name in enumerate(run.layers)}).tolist(),
        "unit": units.unit.tolist(),
        "label": units.label.map(_numbers(run)).fillna(-1).astype(int).tolist(),
        "labelled": units.labelled.astype(int).tolist(),
        "reaches": units.reaches_limits.astype(int).tolist(),
        "state": units.state.tolist(),
        "runner_up": units.runner_up.map(_numbers(run)).fillna(-1).astype(int).tolist(),
        "label_set": units.label_set.tolist(),
        **{name: plain(units[name]) for name in NUMBERS},
        "effect": plain(_own_effects(run, scans)),
    }
    parts = [_layer_data(run, layer, advance) for layer in run.layers]
    return columns | {name: [entry for part in parts for entry in part[name]] for name in parts[0]}


def _layer_data(run: Dissection, layer: str, advance: Callable[[int], None]) -> dict[str, list[Any]]:
    samples, masks = run.tops(layer)
    top: list[list[list[Any]]] = []
    at_once = max(1, TRACED // masks[0].size)
    for start in range(0, len(samples), at_once):
        some = samples[start : start + at_once].tolist()
        paths = iter(figures.outlines(masks[start : start + at_once].reshape(-1, *masks.shape[2:])))
        top += [[[sample, next(paths)] for sample in chosen] for chosen in some]
        advance(len(some))
    curves = np.stack(run.curves(layer), 1)  # (U, 2, K)
    histogram, span = run.histogram(layer)
    fires = run.fires(layer)
    rivals = run.rivals(layer)
    numbers = _numbers(run)
    best: list[list[list[Any]]] = [[] for _ in top]
    found = ("iou", "iou_low", "iou_high", "chance_iou", "position_iou")
    for unit, name, *values in zip(rivals.unit, rivals["class"], *(plain(rivals[one]) for one in found), strict=True):
        best[unit].append([numbers[name], *values])
    peaks = np.ones(len(top)) if fires is None else fires.max((1, 2))
    scaled = None if fires is None else fires / np.maximum(peaks, 1e-9)[:, None, None] * 255
    return {
        "top": top,
        "curve": np.nan_to_num(np.rint(curves * 1e4), nan=-1).astype(int).tolist(),
        "histogram": histogram.tolist(),
        "span": [plain(ends) for ends in span],
        "fires": [] if scaled is None else [_base64(one) for one in np.rint(scaled)],
        "fires_max": plain(peaks),
        "rivals": best,
    }


def classes_data(run: Dissection, scans: Scans, samples: Callable[[NDArray[np.int64]], None]) -> list[dict[str, Any]]:
    """One entry a class; `examples` are [sample, outline] pairs. `samples` is told which samples are shown."""
    shares = class_shares(run)
    examples = [_examples(share) for share in shares.T]
    wanted = np.unique(np.concatenate(examples)).astype(np.int64)
    samples(wanted)
    paths: Iterator[str] = iter(())
    if len(wanted):
        labels = run.spool.gather("labels", wanted)
        places = [np.searchsorted(wanted, chosen) for chosen in examples]
        regions = [(labels[chosen] == number).any(1) for number, chosen in enumerate(places)]
        paths = (path for some in regions for path in figures.outlines(some))
    effects = {name: plain(values) for name, values in _scanned(run, scans).items()}
    return [
        {
            "name": row["class"],
            "category": row["category"],
            "colour": figures.safe_colour(row["colour"]),
            "share": row["share"],
            "images": row["images"],
            "units": row["units"],
            "examples": [[int(sample), next(paths)] for sample in chosen],
            "effects": effects.get(row["class"]),
        }
        for row, chosen in zip(run.classes.to_dict("records"), examples, strict=True)
    ]


def class_shares(run: Dissection) -> NDArray[np.float64]:
    """(N, C) each class's share of the pixels of each sample."""
    spool, classes = run.spool, len(run.classes)
    found = []
    for shard in range(len(spool)):
        labels = np.asarray(spool.read(shard, "labels"))  # (n, P, g, g)
        apart = np.arange(len(labels))[:, None] * (classes + 1)
        codes = apart + np.where(labels < 0, classes, labels).reshape(len(labels), -1)
        counted = np.bincount(codes.ravel(), minlength=len(labels) * (classes + 1)).reshape(len(labels), -1)
        found.append(counted[:, :classes] / labels[0, 0].size)
    return np.concatenate(found)


def _examples(share: NDArray[np.float64]) -> NDArray[np.int64]:
    """Samples that have a class, from the one with most of it to one with a middling share."""
    order = np.argsort(-share, kind="stable")[: int((share > 0).sum())]
    if not len(order):
        return np.zeros(0, np.int64)
    return order[np.unique(np.linspace(0, (len(order) - 1) / 2, EXAMPLES).astype(int))]


def _scanned(run: Dissection, scans: Scans) -> dict[str, NDArray[np.float64]]:
    """By class that was scanned: what ablating each unit of the run alone does to it, in points; NaN where unknown."""
    found: dict[str, NDArray[np.float64]] = {}
    for info, table in scans:
        rows = (run.units.layer == info["layer"]).to_numpy()
        values = found.setdefault(info["class"], np.full(len(run.units), np.nan))
        values[rows] = table.set_index("unit").change_pp.reindex(run.units.unit[rows])
    return found


def _own_effects(run: Dissection, scans: Scans) -> NDArray[np.float64]:
    """(all units,) what ablating a unit alone does to the class that is its label, where its layer was scanned."""
    found = np.full(len(run.units), np.nan)
    for info, table in scans:
        rows = np.flatnonzero((run.units.layer == info["layer"]) & (run.units.label != ""))
        by_unit = table.set_index("unit")
        for row in rows:
            found[row] = by_unit.at[run.units.unit[row], f"pp:{run.units.label[row]}"]
    return found


def _numbers(run: Dissection) -> dict[str, int]:
    return {name: number for number, name in enumerate(run.classes["class"])}


def plain(values: Any) -> list[float | None]:
    """Four significant digits, and null for what is no number."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64).tolist()]


def _base64(values: NDArray[np.floating]) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode()
