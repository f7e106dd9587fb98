"""What a run's page tells of single samples: the classes in them, and the featuremaps that the run kept."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dissect.runs.dissection import Dissection
from . import figures
from .shelf import Shelf

MERGED = {"first": 4, "top": 8}  # neighbouring steps of a kept map that the page takes as one, to halve its size
AVERAGED = 128  # samples of the mean image


def sample_areas(shares: NDArray[np.float64], samples: NDArray[np.int64]) -> dict[str, list[list[float]]]:
    """The classes of each sample as [class, share of the pixels], the largest first.

    >>> sample_areas(np.array([[0.25, 0.0, 0.75]]), np.array([0]))
    {'0': [[2, 0.75], [0, 0.25]]}
    """
    areas = {}
    for sample in samples.tolist():
        order = np.argsort(-shares[sample], kind="stable")
        areas[str(sample)] = [[int(k), round(float(shares[sample, k]), 4)] for k in order if shares[sample, k] > 0]
    return areas


def maps_data(run: Dissection) -> dict[str, Any] | None:
    """The kept maps of the first samples; None where the run has none.

    - shapes, top_shapes: units, height and width by layer, of these maps and of those of the most-activating samples
    - exact: by layer, whether its maps are as fine as the layer itself
    - first: for each sample its labels (g, g) as int16 and the maps of all layers as bytes, compressed, in base64
    """
    if not run.shown:
        return None
    kept = list(run.shown.values())
    count = len(kept[0].first)
    first = [_merged(maps.first, MERGED["first"], _threshold_steps(run, layer)) for layer, maps in run.shown.items()]
    labels = run.spool.read(0, "labels")[:count, 0]
    return {
        "shapes": [list(maps.first.shape[1:]) for maps in kept],
        "top_shapes": [[len(maps.top), *maps.top.shape[2:]] for maps in kept],
        "exact": [
            maps.first.shape[2:] == (layer["height"], layer["width"])
            for maps, layer in zip(kept, run.info["layers"].values(), strict=True)
        ],
        "first": [
            packed(labels[sample].astype("<i2").tobytes() + b"".join(maps[sample].tobytes() for maps in first))
            for sample in range(count)
        ],
    }


def layer_maps(run: Dissection, layer: str) -> dict[str, list[Any]]:
    """Of each unit of a layer its threshold as a step, and the maps of its most-activating samples, packed."""
    if not run.shown:
        return {"step": [], "map": []}
    steps = _threshold_steps(run, layer)
    top = np.moveaxis(_merged(np.moveaxis(run.shown[layer].top, 1, 0), MERGED["top"], steps), 0, 1)
    return {
        "step": [round(step, 2) if np.isfinite(step) else None for step in steps.tolist()],
        "map": [packed(maps.tobytes()) for maps in top],
    }


def _threshold_steps(run: Dissection, layer: str) -> NDArray[np.float64]:
    """(U,) the thresholds of a layer's units as steps of their kept maps."""
    assert run.shown is not None
    return run.shown[layer].steps(run.units.threshold[run.units.layer == layer].to_numpy())


def similar_units(run: Dissection, count: int = 6) -> list[list[list[float]]]:
    """For each unit those of the run whose activations correlate most with its own, as [row, r].

    Activations are those of the signatures: averages of 4×4 cells of the map on the first 64 samples. Layers of
    smaller maps than 4×4 are compared only among themselves.
    """
    signatures = [run.signature(layer) for layer in run.layers]
    starts = np.cumsum([0, *map(len, signatures)])
    similar: list[list[list[float]]] = []
    for own in signatures:
        alike = [k for k, other in enumerate(signatures) if other.shape[1:] == own.shape[1:]]
        rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in alike])
        others = _unit_length(np.concatenate([signatures[k] for k in alike]))
        mine = _unit_length(own)
        for start in range(0, len(mine), 512):
            block = mine[start : start + 512] @ others.T
            block[rows == np.arange(len(similar), len(similar) + len(block))[:, None]] = -np.inf  # a unit and itself
            nearest = np.argpartition(-block, min(count, block.shape[1] - 1), axis=1)[:, :count]
            for values, columns in zip(block, nearest, strict=True):
                best = columns[np.argsort(-values[columns], kind="stable")]
                similar.append([[int(rows[k]), round(float(values[k]), 2)] for k in best if values[k] > 0])
    return similar


def _unit_length(signatures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(U, n, cells) -> (U, n · cells) of mean 0 and length 1; zeros for a constant one."""
    flat = signatures.reshape(len(signatures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-6)


def mean_image(run: Dissection, shelf: Shelf) -> str:
    """The address of the mean of the first samples: what stands where in the images."""
    images = run.spool.read(0, "images")[:AVERAGED]
    return shelf.put("images/mean.webp", figures.photo(images.mean(0, dtype=np.float64).round().astype(np.uint8)))


def _merged(steps: NDArray[np.uint8], width: int, thresholds: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Steps (…, U, h, w) in groups of `width`, each as its middle. A step stays what it is where its group's middle
    lies on the other side of the unit's threshold, in steps (U,): else the zeros of a ReLU would exceed one of 0.

    >>> _merged(np.array([[[0, 9]]], np.uint8), 4, np.array([0.0])).tolist()
    [[[0, 10]]]
    """
    middle = steps // width * width + width // 2
    limit = thresholds[:, None, None]
    return np.where((steps > limit) == (middle > limit), middle, steps).astype(np.uint8)


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode()
