"""From the spool to integers: levels, counts and most-activating samples of a layer, unit block by unit block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..capture.maps import Maps, pieces, whole
from ..capture.spool import SHARD, Spool
from ..images import resize as gr
from ..images.class_areas import pixel_counts
from ..runtime import distributed
from ..runtime.resources import TOGETHER
from . import levels as lv
from .scores import Counts
from .unit_blocks import UnitBlock, score_blocks

UNITS_AT_ONCE = 32  # of a block; fewer where there are many classes
BLOCK_CELLS = {"cpu": 2**22, "cuda": 2**24}  # counters of a block of units, at most
MOST_SHARDS = 4  # counted together where there are many classes
SURVEY_VALUES = 2**22  # float16 values counted together
TOP = 12  # most-activating samples of each unit
OK, CONSTANT, NOT_FINITE = "ok", "constant", "not finite"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The counts of one layer; the first axis of an array is that of the units."""

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
    parts = score_blocks(lambda block: _TallyBlock(maps, block, classes, shares), maps, at_once, advance)
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


class _TallyBlock(UnitBlock[Tally]):
    """A block of units counted in three rounds: which values occur, pixels by code, pixels above the levels.

    The second round is repeated with a wider scale for units whose levels lie outside the first one.
    """

    def __init__(self, maps: Maps, block: slice, classes: int, shares: Sequence[float]) -> None:
        self.maps, self.block, self.classes, self.shares = maps, block, classes, shares
        self.scale: lv.Scale | None = None
        self.inside: Tensor | None = None

    def local(self) -> Sequence[Tensor]:
        maps, units = self.maps, self.block.stop - self.block.start
        self.survey = _Survey(units, maps.spool.samples, maps.device)
        for shard in maps.spool.own:
            self.survey.add(maps.read(shard, self.block), maps.spool.indices(shard))
        return self.survey.tensors()

    def next_round(self) -> Sequence[Tensor]:
        if self.scale is None:
            self.survey.finish()
            self.scale, self.full = lv.step_range(self.survey.histogram)
            return self._count_pixels()
        if self.inside is None:
            self.codes = lv.quantile_codes(self.by_code.sum(1), self.shares)
            wider = lv.widened(self.scale, self.full, self.codes)
            if wider is not None:
                self.scale = wider
                return self._count_pixels()
            return self._overlaps()
        return ()

    def _count_pixels(self) -> Sequence[Tensor]:
        """Pixels by code, of which only those of all classes together are summed: the codes come from them."""
        assert self.scale is not None
        self.joint = _pixels_by_code(self.maps, self.block, self.scale, self.classes)
        self.by_code = self.joint.sum(2) // self.maps.plan.planes  # each pixel once, whatever its classes
        return (self.by_code,)

    def _overlaps(self) -> Sequence[Tensor]:
        """Pixels above each level, which are far fewer numbers to sum than pixels by code."""
        self.inside = lv.counts_above(self.joint.flatten(1, 2), self.codes)
        self.inside = self.inside.view(len(self.codes), 2, self.classes + 1, -1)
        self.class_area = self.joint[0].sum(-1)  # (2, C + 1)
        del self.joint
        return self.inside, self.class_area

    def finish(self) -> Tally:
        assert self.scale is not None
        assert self.inside is not None
        survey, full, classes, scale = self.survey, self.full, self.classes, self.maps.scale
        area = lv.counts_above(self.by_code, self.codes).cpu().numpy()
        inside, class_area = self.inside.cpu(), self.class_area.cpu()
        choose, score = (
            Counts(
                intersection=inside[:, half, :classes].numpy(),
                unit_area=area[:, half],
                class_area=class_area[half, :classes].numpy(),
                pixels=int(self.by_code[0, half].sum()),
            )
            for half in (0, 1)
        )
        constant = (full.low == full.high).cpu().numpy()
        return Tally(
            level=(self.scale.activation(self.codes) * scale).cpu().numpy(),
            scale=self.scale.of(slice(None), gr.CPU),
            codes=self.codes.cpu(),
            choose=choose,
            score=score,
            state=np.where(~survey.finite.cpu().numpy(), NOT_FINITE, np.where(constant, CONSTANT, OK)),
            histogram=lv.binned(survey.histogram, full).cpu().numpy(),
            span=(torch.stack([full.low, full.high], 1) * scale).cpu().numpy(),
            top=survey.top.cpu().numpy(),
            peak=(survey.peak * scale).cpu().numpy(),
        )


class _Survey:
    """Which values the featuremaps of a block take, and the most-activating samples."""

    def __init__(self, units: int, samples: int, device: torch.device) -> None:
        self.histogram = torch.zeros(units, 2**16, dtype=torch.int64, device=device)  # of float16 values
        self.top = torch.zeros(units, min(TOP, samples), dtype=torch.int64, device=device)
        self.peak = torch.full(self.top.shape, -torch.inf, device=device)
        self._codes: list[Tensor] = []  # waiting to be counted together

    def add(self, featuremaps: Tensor, indices: range) -> None:
        """featuremaps (n, U, h, w) float16 of the samples `indices`."""
        self._codes.append(lv.float16_codes(featuremaps))
        if sum(map(len, self._codes)) > SURVEY_VALUES:
            self._count()
        samples = torch.tensor(indices, device=self.top.device).expand(len(self.top), -1)
        peaks = whole(featuremaps).amax((2, 3)).T
        self.top, self.peak = _highest(
            torch.cat([self.top, samples], 1), torch.cat([self.peak, peaks], 1), self.top.shape[1]
        )

    def _count(self) -> None:
        if self._codes:
            self.histogram += lv.float16_histogram(self._codes, len(self.histogram))
            self._codes.clear()

    def tensors(self) -> Sequence[Tensor]:
        """What is summed over the processes; `tops` and `peaks` have a row for each."""
        self._count()
        self._tops, self._peaks = distributed.apart(self.top), distributed.apart(self.peak)
        return self.histogram, self._tops, self._peaks

    def finish(self) -> None:
        """Read the sums: the highest peaks of all processes, zeros for values that are not finite."""
        if distributed.size() > 1:
            tops, peaks = (rows.transpose(0, 1).flatten(1) for rows in (self._tops, self._peaks))
            self.top, self.peak = _highest(tops, peaks, self.top.shape[1])
        self.histogram, self.finite = lv.broken_as_zero(self.histogram)


def _highest(samples: Tensor, peaks: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """samples and peaks (U, n) -> both (U, number) of the highest peaks; of equal peaks, earlier samples first."""
    samples, order = samples.sort(dim=1)
    peaks, ranking = peaks.gather(1, order).sort(dim=1, descending=True, stable=True)
    return samples.gather(1, ranking[:, :number]), peaks[:, :number]


def _pixels_by_code(maps: Maps, block: slice, scale: lv.Scale, classes: int) -> Tensor:
    """Pixels by code, (U, 2, C + 1, 4096), by half and class, the last "unlabelled"; once for each label plane.

    One bincount counts some units on some shards at once. Unit, half, class and code of a pixel are packed into one
    number, ((unit · 2 + half) · C' + class) · 4096 + code, where C' counts the classes that these shards have at all:
    of many classes often few, and counters that stay zero would not fit the cache. `_starts` has the part of half and
    class, for all pixels of the shards; that of the unit is added for the first plane, and between planes only the
    difference of their starts. int32 suffices: `BLOCK_CELLS` bounds the block far below 2^31.
    """
    units, grid, device = block.stop - block.start, maps.plan.grid, maps.device
    joint = torch.zeros(units, 2, classes + 1, lv.STEPS, dtype=torch.int64, device=device)

    # buffers that fit the processor's cache, and are reused: touching fresh memory costs more than the arithmetic
    pixels = SHARD * grid**2
    units_at_once = max(1, TOGETHER[device.type] // pixels)
    # enough shards that counting outweighs the adding up of its result
    shards_at_once = min(MOST_SHARDS, -(-joint[0].numel() // (units_at_once * pixels)))
    real = torch.empty(units_at_once * pixels, device=device)
    truncated = torch.empty(shards_at_once * units_at_once * pixels, dtype=torch.int32, device=device)
    for group in pieces(len(maps.spool.own), shards_at_once):
        shards = tuple(maps.spool.own[group])
        steps = [scale.measure(whole(maps.read(shard, block))) for shard in shards]
        present, planes = _starts(maps.spool, shards, classes, device)
        samples, stride = sum(map(len, steps)), 2 * len(present) * lv.STEPS
        for piece in pieces(units, units_at_once):
            width = piece.stop - piece.start
            codes = truncated[: samples * width * grid**2].view(samples, width, grid, grid)
            for shard_steps, shard_codes in zip(steps, codes.split([len(shard) for shard in steps]), strict=True):
                near = gr.upsample_turned(shard_steps[:, piece], grid, out=real[: shard_codes.numel()])
                shard_codes.copy_(near.clamp_(0, lv.STEPS - 1))  # the whole part is the code
            if width > 1:
                codes += torch.arange(width, dtype=torch.int32, device=device)[:, None, None] * stride
            for plane, starts in enumerate(planes):
                codes += starts if plane == 0 else starts - planes[plane - 1]
                counted = torch.bincount(codes.flatten(), minlength=width * stride)
                joint[piece].index_add_(2, present, counted.view(width, 2, len(present), lv.STEPS))
    return joint


@lru_cache(maxsize=16)  # blocks of units take the same shards one after the other
def _starts(spool: Spool, shards: tuple[int, ...], classes: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """The classes that some shards have, (C',), and for each label plane (n, 1, g, g) int32, columns before rows:
    (half · C' + class) · 4096, where the codes of the pixel's half and class begin, the class counted among these C'.
    """
    stored = [torch.from_numpy(np.array(spool.read(shard, "labels"))) for shard in shards]
    labels = torch.cat(stored).to(device).transpose(2, 3).long()  # (n, P, g, g)
    labels = torch.where(labels < 0, classes, labels)
    present = torch.bincount(labels.flatten(), minlength=classes + 1).nonzero()[:, 0]
    start = torch.zeros(classes + 1, dtype=torch.int32, device=device)
    start[present] = torch.arange(len(present), dtype=torch.int32, device=device) * lv.STEPS
    starts = start[labels.transpose(0, 1)].contiguous()  # the index is not, and hands that on
    starts[:, 1::2] += len(present) * lv.STEPS  # every shard but the last has an even number of samples
    return present, list(starts[:, :, None])


def images_with_class(spool: Spool, classes: int) -> NDArray[np.int64]:
    """(C,) in how many samples each class occurs."""
    images = torch.zeros(classes, dtype=torch.int64)
    for shard in spool.own:
        labels = torch.from_numpy(np.array(spool.read(shard, "labels")))
        images += (pixel_counts(labels, classes)[:, :classes] > 0).sum(0)
    distributed.all_sum(images)
    return images.numpy()


def top_masks(maps: Maps, top: NDArray[np.int64], threshold: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Where each unit exceeds its threshold in its top samples: (U, T, g, ⌈g / 8⌉) bits, packed along x."""
    grid = maps.plan.grid
    masks = np.zeros((*top.shape, grid, -(-grid // 8)), np.uint8)
    scaled = torch.from_numpy(threshold / maps.scale).to(maps.device)[:, None, None]
    for shard in maps.spool.own:
        unit, rank = np.nonzero(top // SHARD == shard)
        if len(unit):
            featuremaps = maps.pick(shard, top[unit, rank] - maps.spool.indices(shard).start, unit)
            above = gr.upsample(featuremaps, grid) > scaled[unit]
            masks[unit, rank] = np.packbits(above.cpu().numpy(), axis=-1)
    distributed.all_sum(torch.from_numpy(masks))
    return masks
