"""Featuremaps that stay when the spool's are deleted: small ones, so that a page can show where units are active.

    RUN/shown.npz   LAYER/first (n, U, h, w) uint8, of the run's first n samples
                    LAYER/top (U, t, h, w) uint8, of each unit's t most-activating samples

A value is a step from 0 to 255 between the unit's least and greatest activation, `LAYER/span` of scores.npz. Runs made
by earlier versions have no such file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..capture.maps import UNITS_AT_ONCE, pieces, whole
from ..capture.spool import SHARD
from ..images import resize as gr
from ..runtime import distributed
from ..scoring.layer_scores import LayerScores
from ..storage.files import read_arrays

FILE = "shown.npz"
FIRST = 32  # samples of which the maps of all units are kept, at most
FINEST = {"first": 32, "top": 16}  # cells along a side of a kept map, at most
BYTES = {"first": 4_000_000, "top": 2_000_000}  # for all layers together, at most
ENOUGH = 8  # samples; maps become coarser before fewer are kept
STEPS = 255


@dataclass(frozen=True, kw_only=True)
class KeptMaps:
    """The kept maps of a layer, as steps between the ends of each unit's `span` (U, 2)."""

    first: NDArray[np.uint8]  # (n, U, h, w)
    top: NDArray[np.uint8]  # (U, t, h, w)
    span: NDArray[np.float32]

    def steps(self, activations: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Activations (U,), one of each unit, as steps: 0 to 255, with fractions."""
        low, high = self.span.astype(np.float64).T
        return (activations - low) / np.maximum(high - low, 1e-30) * STEPS


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is kept of every layer of a run."""

    side: int  # cells along a side of a map, at most
    samples: int

    @classmethod
    def of(cls, kind: str, shapes: Sequence[tuple[int, int, int]], most: int) -> Extent:
        """As much as `BYTES` allow. Maps become coarser before fewer samples than `ENOUGH` are kept.

        Args:
            kind: `first` or `top`.
            shapes: units, height and width of each layer.
            most: samples, at most.

        >>> Extent.of("first", [(256, 16, 16)], 32)
        Extent(side=32, samples=32)
        >>> Extent.of("first", [(4096, 64, 64)], 32)
        Extent(side=8, samples=15)
        """
        side = FINEST[kind]
        while (fit := BYTES[kind] // sum(u * min(h, side) * min(w, side) for u, h, w in shapes)) < ENOUGH and side > 1:
            side //= 2
        return cls(side=side, samples=min(most, fit))


def kept_maps(layers: Sequence[LayerScores]) -> dict[str, NDArray[np.uint8]]:
    """The arrays of shown.npz, while the featuremaps are still in the spool."""
    shapes = [(len(scored.maps), *scored.maps.plan.shapes[scored.maps.layer][1:]) for scored in layers]
    samples, tops = layers[0].maps.spool.samples, layers[0].tally.top.shape[1]
    first, top = Extent.of("first", shapes, min(FIRST, samples)), Extent.of("top", shapes, tops)
    arrays = {}
    for scored in layers:
        arrays[f"{scored.maps.layer}/first"] = distributed.on_first(partial(_first, scored, first))
        arrays[f"{scored.maps.layer}/top"] = _top(scored, top)
    return arrays


def _first(scored: LayerScores, extent: Extent) -> NDArray[np.uint8]:
    maps, span = scored.maps, scored.tally.span
    blocks = []
    for block in pieces(len(maps), UNITS_AT_ONCE):
        features = whole(maps.read(0, block)[: extent.samples])
        blocks.append(_as_steps(gr.at_most(features, extent.side) * maps.scale, span[None, block]))
    return np.concatenate(blocks, axis=1)


def _top(scored: LayerScores, extent: Extent) -> NDArray[np.uint8]:
    maps, span, top = scored.maps, scored.tally.span, scored.tally.top[:, : extent.samples]
    height, width = (min(size, extent.side) for size in maps.plan.shapes[maps.layer][1:])
    steps = np.zeros((*top.shape, height, width), np.uint8)
    for shard in maps.spool.own:
        unit, rank = np.nonzero(top // SHARD == shard)
        if len(unit):
            rows = top[unit, rank] - maps.spool.indices(shard).start
            features = gr.at_most(whole(maps.pick(shard, rows, unit))[:, None], extent.side)[:, 0]
            steps[unit, rank] = _as_steps(features * maps.scale, span[unit])
    distributed.all_sum(torch.from_numpy(steps))
    return steps


def _as_steps(activations: Tensor, span: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(…, h, w) activations and the ends of their ranges (…, 2) -> steps."""
    low, high = torch.from_numpy(span).to(activations.device)[..., None, None].unbind(-3)
    steps = (activations - low) / (high - low).clamp(min=1e-30) * STEPS
    return steps.clamp(0, STEPS).round().byte().cpu().numpy()


def read_kept(folder: Path, spans: Mapping[str, NDArray[np.float32]]) -> dict[str, KeptMaps] | None:
    """The kept maps of a run's layers; None where the run was made before they were kept.

    Args:
        folder: of the run.
        spans: least and greatest activation of each unit (U, 2), by layer.

    Raises:
        DissectError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    shapes: dict[str, tuple[int | None, ...]] = {}
    for layer, span in spans.items():
        shapes |= {f"{layer}/first": (None, len(span), None, None), f"{layer}/top": (len(span), None, None, None)}
    arrays: Any = read_arrays(path, shapes)
    return {
        layer: KeptMaps(first=arrays[f"{layer}/first"], top=arrays[f"{layer}/top"], span=span)
        for layer, span in spans.items()
    }
