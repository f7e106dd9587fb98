"""How far each unit's label can be trusted: a second look at the spool, once levels and labels are chosen.

One pass over the shards, memory independent of their number. The odd images, on which labels are scored, give

- the IoU that place alone would give: label maps dealt out among the images at random, in closed form from mean maps;
- overlaps of every region with every class map among 32 images, from which any pairing of images can be summed: the
  permutation test. Class and level were chosen on the even images, which no pairing touches: a search repeated under
  the null would find the same again, so that the test holds for either rule, however many levels and classes it tried
  (the 64 levels themselves are quantiles over all images, but of activations alone);
- sums over bootstrapped images: the interval of the IoU.

The even images, on which labels are chosen, give the classes that would have come first in a bootstrap of them. For a
unit's best classes beside its label, the odd ones give interval and position IoU as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..capture.maps import Maps, pieces, whole
from ..capture.spool import SHARD, Spool
from ..images import resize as gr
from ..runtime.resources import TOGETHER
from ..stats.significance import ROUNDS, interval, permutation_p, permutation_spread, poisson_bootstrap
from .candidate_classes import Candidates, occupied
from .counting import Tally
from .scores import Floats, Labels, iou_of
from .unit_blocks import UnitBlock, score_blocks

UNITS_AT_ONCE = 32
PAIRED = 32  # images whose regions and class maps are paired with each other
CANDIDATES = 8  # best classes of a unit, any of which may come first
RIVALS = 5  # of them that are told of
MAP = 32  # side of the maps of where units fire, at most


@dataclass(frozen=True, kw_only=True)
class Thoroughness:
    """How much the second look spends."""

    permutations: int
    stride: int  # every stride-th row and column serves for the bootstraps of labels and of rivals


THOROUGHNESS = {
    "fast": Thoroughness(permutations=9_999, stride=2),
    "full": Thoroughness(permutations=99_999, stride=1),
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of each unit's label; arrays (U,) unless said."""

    low: Floats  # 95 % bootstrap interval of the IoU
    high: Floats
    position_iou: Floats  # at the overlap expected where class maps are dealt out among the images at random
    null_sd: Floats  # of the IoU under permutation
    p_value: Floats
    votes: Floats  # (U, C) share of the bootstrap replicates in which the class comes first
    fires: NDArray[np.float16]  # (U, s, s) share of the scored images in which the unit's region is there
    rival_low: Floats  # (U, R) of the IoU with each of the unit's best classes, at its own level
    rival_high: Floats
    rival_position: Floats


def examine_layer(
    maps: Maps,
    tally: Tally,
    labels: Labels,
    rule: str,
    thoroughness: Thoroughness,
    seed: int,
    advance: Callable[[int], None],
) -> Evidence:
    """Test the labels of a layer. `advance` is called with the number of units done.

    - position_iou: E / (|M| + |C| − E) with E = n Σ_p m(p) c(p), n images, m and c their mean region and class map at
      grid pixel p. E is exactly the mean of |M ∩ C| over all pairings of regions with class maps.
    - p_value: see `significance.permutation_p`; blocks are of 32 scored images.
    - low, high: 2.5 % and 97.5 % of the IoU over 2,000 Poisson bootstraps of the scored images; class and level fixed.
    - votes: over as many bootstraps of the choosing images, among the unit's eight best classes, each at its level.
    - rival_…: the same interval and position IoU for its five best classes, from every `stride`-th row and column.
    """
    parts = score_blocks(
        lambda block: _LabelBlock(maps, block, tally, labels, rule, thoroughness, seed), maps, UNITS_AT_ONCE, advance
    )
    return Evidence(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Evidence)}
    )


class _LabelBlock(UnitBlock[Evidence]):
    """The labels of a block of units, tested on the odd images; votes come from the even ones."""

    def __init__(
        self, maps: Maps, block: slice, tally: Tally, labels: Labels, rule: str, thoroughness: Thoroughness, seed: int
    ) -> None:
        self.maps, self.block, self.tally, self.labels = maps, block, tally, labels
        self.rule, self.thoroughness, self.seed = rule, thoroughness, seed
        # only classes that label a unit here are looked at: of each unit, which of them
        self.classes, self.own = np.unique(labels.label[block], return_inverse=True)

    def local(self) -> Sequence[Tensor]:
        maps, block, labels, stride = self.maps, self.block, self.labels, self.thoroughness.stride
        grid, device, units = maps.plan.grid, maps.device, len(self.own)
        scale, codes = self.tally.scale.of(block, device), self.tally.codes[block].to(device)
        threshold = codes[torch.arange(units), torch.from_numpy(labels.level[block])] + 1.0  # first step of the region
        regions = _Regions(threshold, self.own, grid)
        self.pairs = PairOverlaps(units, maps.spool, device)
        self.sums = BootstrapSums(units, device)
        self.places = PlaceSums(units, len(self.classes), grid, device)
        self.ballot = Candidates(codes, labels, block, grid, stride=stride, candidates=CANDIDATES)
        self.rivals = Candidates(codes, labels, block, grid, stride=stride, candidates=RIVALS, mean_maps=True)
        for shard in maps.spool.own:
            steps = scale.measure(whole(maps.read(shard, block)))
            names = maps.labels(shard).transpose(2, 3).float()  # columns before rows, as the regions are
            choosing, scored = names[::2], names[1::2]
            self.ballot.add(steps[::2], choosing, _bootstrapped(len(choosing), self.seed, 2 * shard, device))
            if len(scored):
                weights = _bootstrapped(len(scored), self.seed, 2 * shard + 1, device)
                self.rivals.add(steps[1::2], scored, weights)
                self._add_scored(regions, steps[1::2], scored, weights)
        return [
            *self.pairs.tensors(),
            *self.sums.tensors(),
            *self.places.tensors(),
            *self.ballot.tensors(),
            *self.rivals.tensors(),
        ]

    def _add_scored(self, regions: _Regions, steps: Tensor, names: Tensor, weights: Tensor) -> None:
        """The odd images of a shard: steps (n, U, h, w), names (n, P, g, g), weights (1 + ROUNDS, n)."""
        class_maps = occupied(names.flatten(2), torch.from_numpy(self.classes).to(names.device))  # (C', n, g²)
        area, inside = torch.zeros(2, len(self.own), len(steps), device=steps.device)
        for units, own, masks in regions.masks(steps):
            self.places.add_regions(units, masks)
            area[units] = masks.sum(2)
            for images in pieces(len(steps), PAIRED):
                overlap = masks[:, images] @ class_maps[own, images].T  # (u, n', n')
                inside[units, images] = overlap.diagonal(dim1=1, dim2=2)
                self.pairs.add(units, overlap)
        self.places.add_classes(class_maps)
        self.sums.add(weights, inside, area, class_maps.sum(2)[self.own])

    def finish(self) -> Evidence:
        labels, block, score = self.labels, self.block, self.tally.score
        inside, m, c = self.sums.finish()
        scored_images, both = self.maps.spool.samples // 2, m[0] + c[0]
        expected = self.places.shared_pixels(self.own) / scored_images  # |M ∩ C| by place alone
        low, high = interval(iou_of(inside[1:], m[1:], c[1:]))
        position = iou_of(expected, m[0], c[0])
        rows, best = np.arange(len(self.own))[:, None], labels.ranking[block, :RIVALS]
        units, level = rows + block.start, labels.class_level[block][rows, best]
        exact = iou_of(score.intersection[units, best, level], score.unit_area[units, level], score.class_area[best])
        rival_low, rival_high, rival_position = self.rivals.overlaps(exact)
        # the label is its own first rival, and known from every pixel
        rival_low[:, 0], rival_high[:, 0], rival_position[:, 0] = low, high, position
        # the IoU is a / (both − a); its derivative turns the spread of the overlap a into one of the IoU
        slope = np.divide(both, (both - expected) ** 2, out=np.zeros_like(both), where=both > expected)
        spread, p_value = self.pairs.finish(self.thoroughness.permutations, self.seed)
        return Evidence(
            low=low,
            high=high,
            position_iou=position,
            null_sd=spread * slope,
            p_value=p_value,
            votes=self.ballot.votes(self.rule),
            fires=self.places.region_shares(scored_images),
            rival_low=rival_low,
            rival_high=rival_high,
            rival_position=rival_position,
        )


class _Regions:
    """Where units lie above their levels, some units of one class at a time."""

    def __init__(self, threshold: Tensor, own: NDArray[np.int64], grid: int) -> None:
        """threshold (U,) in steps; own (U,) each unit's class, from 0 on."""
        self.threshold, self.grid = threshold, grid
        shard_pixels = SHARD // 2 * grid**2  # of one unit on the odd images
        at_once = max(1, TOGETHER[threshold.device.type] // shard_pixels)
        # reused: touching fresh memory costs more than the work
        self.buffer = torch.empty(at_once * shard_pixels, device=threshold.device)
        self.groups = [
            (units, number)
            for number in range(int(own.max()) + 1)
            for units in torch.from_numpy(np.flatnonzero(own == number)).split(at_once)
        ]

    def masks(self, steps: Tensor) -> Iterator[tuple[Tensor, int, Tensor]]:
        """steps (n, U, h, w) -> some units (u,), their class, their regions (u, n, g²) float 0 or 1, columns before
        rows; the regions are overwritten by the next ones.
        """
        for units, own in self.groups:
            near = steps[:, units].transpose(0, 1)
            near = gr.upsample_turned(near, self.grid, out=self.buffer[: len(units) * len(steps) * self.grid**2])
            yield units, own, near.ge_(self.threshold[units, None, None, None]).flatten(2)


class PairOverlaps:
    """Pixels that the regions and the class maps of a block of images share, for every pair of its images.

    From these (n, n) numbers the overlap under any pairing of the block's images can be summed, so that permutations
    need neither regions nor maps. Blocks have 32 scored images; the last of a shard has what is left. Overlaps of all
    blocks of one size are added up, since a permutation pairs them alike (see `significance.permutation_p`): the memory
    does not grow with the number of images. Sums of float64 counts are exact, in whatever order.
    """

    def __init__(self, units: int, spool: Spool, device: torch.device) -> None:
        odd_images = (len(spool.indices(shard)[1::2]) for shard in (0, spool.shards[-1]))
        sizes = sorted({block.stop - block.start for images in odd_images for block in pieces(images, PAIRED)})
        self.overlaps = {size: torch.zeros(units, size, size, dtype=torch.float64, device=device) for size in sizes}

    def add(self, units: Tensor, overlap: Tensor) -> None:
        """overlap (u, n, n) of some units (u,) in one block of n images."""
        self.overlaps[overlap.shape[1]][units] += overlap

    def tensors(self) -> Sequence[Tensor]:
        return list(self.overlaps.values())

    def finish(self, permutations: int, seed: int) -> tuple[Floats, Floats]:
        """(U,) standard deviation of the overlap under permutation, and p-values."""
        overlaps = {size: matrix.cpu() for size, matrix in self.overlaps.items()}
        return permutation_spread(overlaps), permutation_p(overlaps, permutations, seed)


class BootstrapSums:
    """|M ∩ C|, |M| and |C| over all scored images: as they are, then in each bootstrap replicate."""

    def __init__(self, units: int, device: torch.device) -> None:
        self.sums = torch.zeros(3, 1 + ROUNDS, units, dtype=torch.float64, device=device)

    def add(self, weights: Tensor, *pixels: Tensor) -> None:
        """weights (1 + ROUNDS, n) of some images; pixels (U, n) of each of the three in them."""
        for total, per_image in zip(self.sums, pixels, strict=True):
            total += weights @ per_image.T

    def tensors(self) -> Sequence[Tensor]:
        return (self.sums,)

    def finish(self) -> NDArray[np.float64]:
        """(3, 1 + ROUNDS, U)."""
        return self.sums.cpu().numpy()


class PlaceSums:
    """At each pixel of the grid, columns before rows, the number of scored images with a unit's region, or a class."""

    def __init__(self, units: int, classes: int, grid: int, device: torch.device) -> None:
        self.grid = grid
        self.regions = torch.zeros(units, grid**2, device=device)
        self.classes = torch.zeros(classes, grid**2, device=device)

    def add_regions(self, units: Tensor, masks: Tensor) -> None:
        """masks (u, n, g²) of some units (u,)."""
        self.regions[units] += masks.sum(1)

    def add_classes(self, class_maps: Tensor) -> None:
        """class_maps (C', n, g²)."""
        self.classes += class_maps.sum(1)

    def tensors(self) -> Sequence[Tensor]:
        return self.regions, self.classes

    def shared_pixels(self, own: NDArray[np.int64]) -> Floats:
        """(U,) pixels shared by region and class of `own` (U,), summed over all pairs of images."""
        return (self.regions.cpu().double() * self.classes.cpu()[own].double()).sum(1).numpy()

    def region_shares(self, images: int) -> NDArray[np.float16]:
        """(U, s, s) share of the images whose region covers a cell, rows before columns."""
        regions = self.regions.cpu().view(-1, self.grid, self.grid).transpose(1, 2)
        return F.adaptive_avg_pool2d(regions, min(MAP, self.grid)).div(images).half().numpy()


@lru_cache(maxsize=64)  # blocks of units take the same shards one after the other
def _bootstrapped(images: int, seed: int, block: int, device: torch.device) -> Tensor:
    """(1 + ROUNDS, images) float32, first ones: on grids up to 256, a shard's pixels add up exactly, below 2^24."""
    drawn = torch.from_numpy(poisson_bootstrap(images, seed, block)).float()
    return torch.cat([torch.ones(1, images), drawn]).to(device)
