"""From the spool to integers: levels, counts and most-activating samples of a layer, unit block by unit block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import grid as gr
from . import levels as lv
from .capture import Plan
from .scores import Counts, counts_above, joint_histogram, place_dtype
from .spool import SHARD, Spool, feature_name

UNITS_AT_ONCE = 8  # the tables of so many units, and the pixels of one shard, fit the processor's caches
TOP = 12  # most-activating samples kept a unit

OK, CONSTANT, NOT_FINITE = "ok", "constant", "not finite"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All that is kept of one layer; arrays are over its units first."""

    level: NDArray[np.float32]  # (U, K) ascending
    choose: Counts  # even samples
    score: Counts  # odd samples
    state: NDArray[np.str_]  # (U,) ok, constant or not finite
    top: NDArray[np.int64]  # (U, T) samples by descending peak
    peak: NDArray[np.float32]  # (U, T)


def tally_layer(
    spool: Spool, plan: Plan, layer: str, classes: int, shares: Sequence[float], advance: Callable[[int], None]
) -> Tally:
    """Tally a layer, several unit blocks at a time, one processor each. `advance` is told of units done."""
    units = plan.shapes[layer][0]
    blocks = [slice(start, min(start + UNITS_AT_ONCE, units)) for start in range(0, units, UNITS_AT_ONCE)]

    def work(block: slice) -> Tally:
        torch.set_num_threads(1)
        return _tally_block(spool, plan, layer, block, classes, shares)

    parts: list[Tally] = []
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for part in pool.map(work, blocks):
            parts.append(part)
            advance(len(part.state))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)

    def stack(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part in parts])

    def counts(half: str) -> Counts:
        halves: list[Counts] = [getattr(part, half) for part in parts]
        return Counts(
            intersection=np.concatenate([h.intersection for h in halves]),
            unit_area=np.concatenate([h.unit_area for h in halves]),
            class_area=halves[0].class_area,
            pixels=halves[0].pixels,
        )

    fields = {name: stack(name) for name in ("level", "state", "top", "peak")}
    return Tally(choose=counts("choose"), score=counts("score"), **fields)  # type: ignore[arg-type]


@torch.inference_mode()
def _tally_block(spool: Spool, plan: Plan, layer: str, block: slice, classes: int, shares: Sequence[float]) -> Tally:
    units = block.stop - block.start
    low, high = torch.full((units,), torch.inf), torch.full((units,), -torch.inf)
    finite = torch.ones(units, dtype=torch.bool)
    top, peak = torch.zeros(units, 0, dtype=torch.int64), torch.zeros(units, 0)
    for shard in range(len(spool)):
        features = _features(spool, shard, layer, block)
        finite &= features.isfinite().all(0).all(-1).all(-1)
        features = features.nan_to_num(0, 0, 0)
        low = torch.minimum(low, features.amin((0, 2, 3)))
        high = torch.maximum(high, features.amax((0, 2, 3)))
        indices = torch.tensor(spool.indices(shard)).expand(units, -1)
        peak = torch.cat([peak, features.amax((2, 3)).T], 1)
        peak, order = (t[:, :TOP] for t in peak.sort(dim=1, descending=True, stable=True))
        top = torch.cat([top, indices], 1).gather(1, order)
    scale = lv.Scale(low, high)

    # buffers are reused, since touching fresh memory costs more than the arithmetic
    pixels = spool.largest * units * plan.grid**2
    real, whole = torch.empty(pixels), torch.empty(pixels, dtype=torch.int32)
    groups_count = 2 * (classes + 1)
    place = torch.empty(pixels, dtype=place_dtype(units, groups_count, len(shares)))

    def codes(shard: int) -> Tensor:
        steps = scale.measure(_features(spool, shard, layer, block).nan_to_num(0, 0, 0))
        count = len(steps) * units * plan.grid**2
        gr.upsample_rows_first(steps, plan.grid, out=real[:count])
        return whole[:count].copy_(real[:count]).view(plan.grid, -1, units, plan.grid)  # (g, n, units, g), truncated

    histogram = torch.zeros(units, lv.STEPS, dtype=torch.int64)
    for shard in range(len(spool)):
        histogram += lv.histogram(codes(shard), units)
    level = lv.quantile_codes(histogram, shares)
    table = lv.level_table(level)

    joint = torch.zeros(units, groups_count, len(shares) + 1, dtype=torch.int64)
    every = torch.zeros(units, 2, len(shares) + 1, dtype=torch.int64)  # each pixel once, whatever its classes
    for shard in range(len(spool)):
        coded = codes(shard)
        for plane, groups in enumerate(_groups(spool, shard, classes)):
            counted = joint_histogram(
                coded, groups, table, count=groups_count, levels=len(shares), scratch=place[: coded.numel()]
            )
            joint += counted
            if plane == 0:
                every += counted.unflatten(1, (2, classes + 1)).sum(2)

    joint = joint.unflatten(1, (2, classes + 1))[:, :, :classes]
    inside, area = counts_above(joint).numpy(), counts_above(every).numpy()
    choose, score = (
        Counts(
            intersection=inside[:, half],
            unit_area=area[:, half],
            class_area=joint[0, half].sum(-1).numpy(),
            pixels=int(every[0, half].sum()),
        )
        for half in (0, 1)
    )
    return Tally(
        level=(scale.activation(level) * plan.scales[layer]).numpy(),
        choose=choose,
        score=score,
        state=np.where(~finite.numpy(), NOT_FINITE, np.where((low == high).numpy(), CONSTANT, OK)),
        top=top.numpy(),
        peak=(peak * plan.scales[layer]).numpy(),
    )


def _features(spool: Spool, shard: int, layer: str, block: slice) -> Tensor:
    """(n, units of the block, h, w) float32, as spooled."""
    return torch.from_numpy(np.ascontiguousarray(spool.read(shard, feature_name(layer))[:, block])).float()


def _groups(spool: Spool, shard: int, classes: int) -> Iterator[Tensor]:
    """Per label plane (g, n, 1, g) int32: class (the last is "unlabelled"), plus classes + 1 for odd samples."""
    labels = torch.from_numpy(np.array(spool.read(shard, "labels"), dtype=np.int32))  # (n, P, g, g)
    labels[labels < 0] = classes
    labels[1::2] += classes + 1
    for plane in labels.unbind(1):
        yield plane.transpose(0, 1)[:, :, None].contiguous()


def images_with_class(spool: Spool, classes: int) -> NDArray[np.int64]:
    """(C,) in how many samples each class occurs."""
    found = torch.zeros(classes + 1, dtype=torch.int64)
    for shard in range(len(spool)):
        labels = torch.from_numpy(np.array(spool.read(shard, "labels"), dtype=np.int64)).flatten(1)
        present = torch.zeros(len(labels), classes + 1, dtype=torch.int64)
        found += present.scatter_(1, labels.remainder(classes + 1), 1).sum(0)
    return found[:classes].numpy()


def top_masks(
    spool: Spool, plan: Plan, layer: str, top: NDArray[np.int64], threshold: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Where each unit exceeds its threshold in its top samples: (U, T, g, ⌈g / 8⌉) bits, packed along x."""
    units, tops = top.shape
    masks = np.zeros((units, tops, plan.grid, -(-plan.grid // 8)), np.uint8)
    scaled = torch.from_numpy(threshold / plan.scales[layer])[:, None, None]
    for shard in range(len(spool)):
        unit, place = np.nonzero(top // SHARD == shard)
        if len(unit):
            rows = top[unit, place] - spool.indices(shard).start
            chosen = np.array(spool.read(shard, feature_name(layer))[rows, unit])  # (found, h, w)
            above = gr.upsample(torch.from_numpy(chosen).float(), plan.grid) > scaled[unit]
            masks[unit, place] = np.packbits(above.numpy(), axis=-1)
    return masks
