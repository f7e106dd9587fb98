"""The data of a run for the page's script, as plain JSON: columns over units, their top samples, curves and maps."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..dissect.runs.dissection import Dissection
from . import figures
from .sample_data import layer_maps, similar_units

if TYPE_CHECKING:
    from .interventions import Scans

EXAMPLES = 8  # images that are shown of a class
TRACED = 2**21  # pixels that are outlined together
NUMBERS = [
    *("iou", "iou_low", "iou_high", "chance_iou", "position_iou", "content_iou", "attainable_iou", "iqr"),
    *("average_precision", "excess_iou", "p_value", "q_value", "runner_up_iou", "split_half_iou"),
    *("threshold", "quantile", "peak"),
]


def units_data(run: Dissection, scans: Scans, advance: Callable[[int], None]) -> dict[str, Any]:
    """Columns with one entry for each unit, in the order of the table. `advance(n)` is called after every n units.

    - layer, label: indices; -1 is no label
    - top: [sample, outline] pairs
    - curve: IoU and chance IoU at every level, in 1/10,000; -1 is none
    - histogram, span: counts of the activations, and the ends of their range
    - fires, fires_max: (s, s) bytes in base64, and the share of samples that 255 stands for
    - rivals: the best classes with IoU, its interval, chance and position IoU
    - similar: [row, correlation] of the most similar units
    - step, map: see `sample_data.layer_maps`
    """
    units = run.units
    columns: dict[str, list[Any]] = {
        "layer": units.layer.map({name: index for index, name in enumerate(run.layers)}).tolist(),
        "unit": units.unit.tolist(),
        "label": units.label.map(_class_indices(run)).fillna(-1).astype(int).tolist(),
        "labelled": units.labelled.astype(int).tolist(),
        "tier": units.tier.fillna("").tolist(),
        "reaches": units.reaches_limits.astype(int).tolist(),
        "state": units.state.tolist(),
        "runner_up": units.runner_up.map(_class_indices(run)).fillna(-1).astype(int).tolist(),
        "label_set": units.label_set.tolist(),
        **{name: plain(units[name]) for name in NUMBERS},
        "effect": plain(_own_effects(run, scans)),
        "similar": similar_units(run),
    }
    by_layer = [_layer_data(run, layer, advance) for layer in run.layers]
    return columns | {name: [entry for data in by_layer for entry in data[name]] for name in by_layer[0]}


def _layer_data(run: Dissection, layer: str, advance: Callable[[int], None]) -> dict[str, list[Any]]:
    samples, masks = run.tops(layer)
    top: list[list[list[Any]]] = []
    at_once = max(1, TRACED // masks[0].size)
    for start in range(0, len(samples), at_once):
        chosen = samples[start : start + at_once].tolist()
        paths = iter(figures.outlines(masks[start : start + at_once].reshape(-1, *masks.shape[2:])))
        top += [[[sample, next(paths)] for sample in of_unit] for of_unit in chosen]
        advance(len(chosen))
    curves = np.stack(run.curves(layer), 1)  # (U, 2, K)
    histogram, span = run.histogram(layer)
    fires = run.fires(layer)
    rivals = run.rivals(layer)
    indices = _class_indices(run)
    best: list[list[list[Any]]] = [[] for _ in top]
    scores = [plain(rivals[name]) for name in ("iou", "iou_low", "iou_high", "chance_iou", "position_iou")]
    for unit, name, *values in zip(rivals.unit, rivals["class"], *scores, strict=True):
        best[unit].append([indices[name], *values])
    peaks = np.ones(len(top)) if fires is None else fires.max((1, 2))
    scaled = None if fires is None else fires / np.maximum(peaks, 1e-9)[:, None, None] * 255
    return {
        "top": top,
        "curve": np.nan_to_num(np.rint(curves * 1e4), nan=-1).astype(int).tolist(),
        "histogram": histogram.tolist(),
        "span": [plain(ends) for ends in span],
        "fires": [] if scaled is None else [_base64(shares) for shares in np.rint(scaled)],
        "fires_max": plain(peaks),
        "rivals": best,
        **layer_maps(run, layer),
    }


def classes_data(
    run: Dissection, scans: Scans, shares: NDArray[np.float64], show: Callable[[NDArray[np.int64]], None]
) -> list[dict[str, Any]]:
    """One entry for each class, `examples` as [sample, outline] pairs. `show` is called with the samples to show.

    `shares` are the `class_areas` of the run.
    """
    examples = [_examples(share) for share in shares.T]
    wanted = np.unique(np.concatenate(examples)).astype(np.int64)
    show(wanted)
    paths: Iterator[str] = iter(())
    if len(wanted):
        labels = run.spool.gather("labels", wanted)
        places = [np.searchsorted(wanted, chosen) for chosen in examples]
        regions = [(labels[rows] == index).any(1) for index, rows in enumerate(places)]
        paths = (path for masks in regions for path in figures.outlines(masks))
    effects = _scanned(run, scans)
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


def _examples(share: NDArray[np.float64]) -> NDArray[np.int64]:
    """Samples that contain a class, from the one with the largest share of it to one with a medium share."""
    order = np.argsort(-share, kind="stable")[: int((share > 0).sum())]
    if not len(order):
        return np.zeros(0, np.int64)
    return order[np.unique(np.linspace(0, (len(order) - 1) / 2, EXAMPLES).astype(int))]


def _scanned(run: Dissection, scans: Scans) -> dict[str, dict[str, list[float | None]]]:
    """For each scanned class: `value`, `low` and `high` of its change in percentage points when a unit is ablated by
    itself; None where a unit was not measured."""
    changes: dict[str, NDArray[np.float64]] = {}
    for info, table in scans:
        rows = (run.units.layer == info["layer"]).to_numpy()
        values = changes.setdefault(info["class"], np.full((3, len(run.units)), np.nan))
        columns = table.set_index("unit")[["change_pp", "low", "high"]]
        values[:, rows] = columns.reindex(run.units.unit[rows]).to_numpy().T
    return {
        name: dict(zip(("value", "low", "high"), map(plain, values), strict=True)) for name, values in changes.items()
    }


def _own_effects(run: Dissection, scans: Scans) -> NDArray[np.float64]:
    """(all units,) change of a unit's own class when it is ablated by itself; NaN where it was not measured."""
    changes = np.full(len(run.units), np.nan)
    for info, table in scans:
        rows = np.flatnonzero((run.units.layer == info["layer"]) & (run.units.label != ""))
        by_unit = table.set_index("unit")
        for row in rows:
            change = by_unit.at[run.units.unit[row], f"pp:{run.units.label[row]}"]
            changes[row] = changes[row] if np.isnan(change) else change
    return changes


def _class_indices(run: Dissection) -> dict[str, int]:
    return {name: index for index, name in enumerate(run.classes["class"])}


def plain(values: Any) -> list[float | None]:
    """Numbers with four significant digits for JSON; None for those that are not finite.

    >>> plain([0.123456, float("nan"), 12345])
    [0.1235, None, 12340.0]
    """
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64).tolist()]


def _base64(values: NDArray[np.floating]) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode()
