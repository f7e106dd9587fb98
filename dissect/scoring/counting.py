"""From the spool to integers: levels, counts and most-activating samples of a layer, unit block by unit block."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..capture.maps import Maps, pieces, whole
from ..capture.spool import SHARD, Spool
from ..images import resize as gr
from ..runtime import distributed
from ..runtime.resources import TOGETHER
from . import levels as lv
from .scores import Counts
from .unit_blocks import Steps, in_blocks

UNITS_AT_ONCE = 32  # read together; fewer where there are many classes
BLOCK_CELLS = {"cpu": 2**22, "cuda": 2**24}  # counters of a block of units
MOST_SHARDS = 4  # counted together, where classes are many
SURVEY_VALUES = 2**22  # float16 values counted together
TOP = 12  # most-activating samples kept a unit
OK, CONSTANT, NOT_FINITE = "ok", "constant", "not finite"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All that is kept of one layer; arrays are over its units first."""

    level: NDArray[np.float32]  # (U, K) ascending
    scale: lv.Scale  # in which the pixels were measured
    codes: Tensor  # (U, K) the levels in its steps
    choose: Counts  # even samples
    score: Counts  # odd samples
    state: NDArray[np.str_]  # (U,) ok, constant or not finite
    histogram: NDArray[np.int64]  # (U, 64) of the featuremaps' activations, over `span`
    span: NDArray[np.float32]  # (U, 2) least and greatest activation
    top: NDArray[np.int64]  # (U, T) samples by descending peak
    peak: NDArray[np.float32]  # (U, T)


def tally_layer(maps: Maps, classes: int, shares: Sequence[float], advance: Callable[[int], None]) -> Tally:
    """Tally a layer, several unit blocks at a time, one processor each; `advance(n)` after every n units."""
    cells = BLOCK_CELLS[maps.device.type]
    at_once = max(1, min(UNITS_AT_ONCE, cells // (2 * (classes + 1) * lv.STEPS)))
    parts = in_blocks(lambda block: _tally_block(maps, block, classes, shares), maps, at_once, advance)
    _starts.cache_clear()
    return Tally(
        level=np.concatenate([part.level for part in parts]),
        scale=lv.Scale(torch.cat([part.scale.low for part in parts]), torch.cat([part.scale.high for part in parts])),
        codes=torch.cat([part.codes for part in parts]),
        choose=_stack([part.choose for part in parts]),
        score=_stack([part.score for part in parts]),
        state=np.concatenate([part.state for part in parts]),
        histogram=np.concatenate([part.histogram for part in parts]),
        span=np.concatenate([part.span for part in parts]),
        top=np.concatenate([part.top for part in parts]),
        peak=np.concatenate([part.peak for part in parts]),
    )


def _stack(counts: Sequence[Counts]) -> Counts:
    """The counts of several blocks of units on the same samples as one."""
    return Counts(
        intersection=np.concatenate([block.intersection for block in counts]),
        unit_area=np.concatenate([block.unit_area for block in counts]),
        class_area=counts[0].class_area,
        pixels=counts[0].pixels,
    )


@torch.inference_mode()
def _tally_block(maps: Maps, block: slice, classes: int, shares: Sequence[float]) -> Steps[Tally]:
    survey = yield from _survey(maps, block)
    scale, full = lv.step_range(survey.histogram)
    while True:
        joint = _count(maps, block, scale, classes)
        every = joint.sum(2) // maps.plan.planes  # each pixel once, whatever its classes
        yield (every,)
        codes = lv.quantile_codes(every.sum(1), shares)
        outside = (codes.amin(1) == 0) & (scale.low > full.low)
        outside |= (codes.amax(1) == lv.STEPS - 1) & (scale.high < full.high)
        if not outside.any():
            break
        scale = lv.Scale(torch.where(outside, full.low, scale.low), torch.where(outside, full.high, scale.high))
    inside = lv.counts_above(joint.flatten(1, 2), codes).view(len(codes), 2, classes + 1, -1)
    class_area = joint[0].sum(-1)  # (2, C + 1)
    yield inside, class_area  # far less than `joint` itself
    area = lv.counts_above(every, codes).cpu().numpy()
    inside, class_area = inside.cpu(), class_area.cpu()
    choose, score = (
        Counts(
            intersection=inside[:, half, :classes].numpy(),
            unit_area=area[:, half],
            class_area=class_area[half, :classes].numpy(),
            pixels=int(every[0, half].sum()),
        )
        for half in (0, 1)
    )
    constant = (full.low == full.high).cpu().numpy()
    return lambda: Tally(
        level=(scale.activation(codes) * maps.scale).cpu().numpy(),
        scale=scale.of(slice(None), gr.CPU),
        codes=codes.cpu(),
        choose=choose,
        score=score,
        state=np.where(~survey.finite.cpu().numpy(), NOT_FINITE, np.where(constant, CONSTANT, OK)),
        histogram=lv.binned(survey.histogram, full).cpu().numpy(),
        span=(torch.stack([full.low, full.high], 1) * maps.scale).cpu().numpy(),
        top=survey.top.cpu().numpy(),
        peak=(survey.peak * maps.scale).cpu().numpy(),
    )


@dataclass(frozen=True, kw_only=True)
class _Survey:
    histogram: Tensor  # (U, 65536) of the featuremaps' float16 values
    finite: Tensor  # (U,) bool
    top: Tensor  # (U, T)
    peak: Tensor


def _survey(maps: Maps, block: slice) -> Generator[Sequence[Tensor], None, _Survey]:
    """Which values the featuremaps take, and the most-activating samples."""
    units, device = block.stop - block.start, maps.device
    histogram = torch.zeros(units, 2**16, dtype=torch.int64, device=device)
    number = min(TOP, maps.spool.samples)
    top = torch.zeros(units, number, dtype=torch.int64, device=device)
    peak = torch.full((units, number), -torch.inf, device=device)
    waiting: list[Tensor] = []
    for shard in maps.spool.here:
        raw = maps.read(shard, block)
        waiting.append(lv.float16_codes(raw))
        if shard == maps.spool.here[-1] or sum(map(len, waiting)) > SURVEY_VALUES:
            histogram += lv.float16_histogram(waiting, units)
            waiting.clear()
        indices = torch.tensor(maps.spool.indices(shard), device=device).expand(units, -1)
        top, peak = _highest(torch.cat([top, indices], 1), torch.cat([peak, whole(raw).amax((2, 3)).T], 1), number)
    tops, peaks = distributed.apart(top), distributed.apart(peak)
    yield histogram, tops, peaks
    if distributed.size() > 1:
        top, peak = _highest(tops.transpose(0, 1).flatten(1), peaks.transpose(0, 1).flatten(1), number)
    histogram, finite = lv.broken_as_zero(histogram)
    return _Survey(histogram=histogram, finite=finite, top=top, peak=peak)


def _highest(samples: Tensor, peaks: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Those of the highest peaks (U, n), earlier samples first where peaks are equal."""
    samples, order = samples.sort(dim=1)
    peaks, ranking = peaks.gather(1, order).sort(dim=1, descending=True, stable=True)
    return samples.gather(1, ranking[:, :number]), peaks[:, :number]


def _count(maps: Maps, block: slice, scale: lv.Scale, classes: int) -> Tensor:
    """Pixels by code, (U, 2, C + 1, 4096), by half and class, the last "unlabelled"; once for each label plane."""
    units, grid, device = block.stop - block.start, maps.plan.grid, maps.device
    joint = torch.zeros(units, 2, classes + 1, lv.STEPS, dtype=torch.int64, device=device)

    # buffers that fit the processor's cache, and are reused: touching fresh memory costs more than the arithmetic
    pixels = SHARD * grid**2
    at_once = max(1, TOGETHER[device.type] // pixels)
    several = min(MOST_SHARDS, -(-joint[0].numel() // (at_once * pixels)))  # or adding up would outweigh counting
    real = torch.empty(at_once * pixels, device=device)
    truncated = torch.empty(several * at_once * pixels, dtype=torch.int32, device=device)
    for some in pieces(len(maps.spool.here), several):
        shards = tuple(maps.spool.here[some])
        steps = [scale.measure(whole(maps.read(shard, block))) for shard in shards]
        here, planes = _starts(maps.spool, shards, classes, device)
        samples, stride = sum(map(len, steps)), 2 * len(here) * lv.STEPS
        for piece in pieces(units, at_once):
            width = piece.stop - piece.start
            codes = truncated[: samples * width * grid**2].view(samples, width, grid, grid)
            for one, part in zip(steps, codes.split([len(one) for one in steps]), strict=True):
                near = gr.upsample_turned(one[:, piece], grid, out=real[: part.numel()]).clamp_(0, lv.STEPS - 1)
                part.copy_(near)
            if width > 1:
                codes += torch.arange(width, dtype=torch.int32, device=device)[:, None, None] * stride
            for plane, starts in enumerate(planes):
                codes += starts if plane == 0 else starts - planes[plane - 1]
                counted = torch.bincount(codes.flatten(), minlength=width * stride)
                joint[piece].index_add_(2, here, counted.view(width, 2, len(here), lv.STEPS))
    return joint


@lru_cache(maxsize=16)  # blocks of units take the same shards one after the other
def _starts(spool: Spool, shards: tuple[int, ...], classes: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """The classes that some shards have, of many often few, and per label plane (n, 1, g, g) int32, columns before
    rows: where the codes of the pixel's half and class begin, if only these are counted.
    """
    stored = [torch.from_numpy(np.array(spool.read(shard, "labels"))) for shard in shards]
    labels = torch.cat(stored).to(device).transpose(2, 3).long()  # (n, P, g, g)
    labels = torch.where(labels < 0, classes, labels)
    here = torch.bincount(labels.flatten(), minlength=classes + 1).nonzero()[:, 0]
    place = torch.zeros(classes + 1, dtype=torch.int32, device=device)
    place[here] = torch.arange(len(here), dtype=torch.int32, device=device) * lv.STEPS
    starts = place[labels.transpose(0, 1)].contiguous()  # the index is not, and hands that on
    starts[:, 1::2] += len(here) * lv.STEPS  # every shard but the last has an even number of samples
    return here, list(starts[:, :, None])


def images_with_class(spool: Spool, classes: int) -> NDArray[np.int64]:
    """(C,) in how many samples each class occurs."""
    found = torch.zeros(classes + 1, dtype=torch.int64)
    for shard in spool.here:
        labels = torch.from_numpy(np.array(spool.read(shard, "labels"), dtype=np.int64)).flatten(1)
        present = torch.zeros(len(labels), classes + 1, dtype=torch.int64)
        found += present.scatter_(1, labels.remainder(classes + 1), 1).sum(0)
    distributed.total(found)
    return found[:classes].numpy()


def top_masks(maps: Maps, top: NDArray[np.int64], threshold: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Where each unit exceeds its threshold in its top samples: (U, T, g, ⌈g / 8⌉) bits, packed along x."""
    grid = maps.plan.grid
    masks = np.zeros((*top.shape, grid, -(-grid // 8)), np.uint8)
    scaled = torch.from_numpy(threshold / maps.scale).to(maps.device)[:, None, None]
    for shard in maps.spool.here:
        unit, place = np.nonzero(top // SHARD == shard)
        if len(unit):
            chosen = maps.pick(shard, top[unit, place] - maps.spool.indices(shard).start, unit)
            above = gr.upsample(chosen, grid) > scaled[unit]
            masks[unit, place] = np.packbits(above.cpu().numpy(), axis=-1)
    distributed.total(torch.from_numpy(masks))
    return masks
