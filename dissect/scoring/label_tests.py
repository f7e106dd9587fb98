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

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..capture.maps import Maps, pieces, whole
from ..capture.spool import SHARD
from ..images import resize as gr
from ..runtime.resources import TOGETHER
from ..stats.significance import ROUNDS, interval, permutation_p, permutation_spread, poisson_bootstrap
from .candidate_classes import Candidates, occupied
from .counting import Tally
from .scores import Floats, Labels, iou_of
from .unit_blocks import Steps, in_blocks

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
    maps: Maps, tally: Tally, labels: Labels, rule: str, how: Thoroughness, seed: int, advance: Callable[[int], None]
) -> Evidence:
    """Test the labels of a layer. `advance` is called with the number of units done.

    - position_iou: E / (|M| + |C| − E) with E = n Σ_p m(p) c(p), n images, m and c their mean region and class map at
      grid pixel p. E is exactly the mean of |M ∩ C| over all pairings of regions with class maps.
    - p_value: see `significance.permutation_p`; blocks are of 32 scored images.
    - low, high: 2.5 % and 97.5 % of the IoU over 2,000 Poisson bootstraps of the scored images; class and level fixed.
    - votes: over as many bootstraps of the choosing images, among the unit's eight best classes, each at its level.
    - rival_…: the same interval and position IoU for its five best classes, from every `stride`-th row and column.
    """
    parts = in_blocks(
        lambda block: _examine_block(maps, block, tally, labels, rule, how, seed), maps, UNITS_AT_ONCE, advance
    )
    return Evidence(
        **{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Evidence)}
    )


@torch.inference_mode()
def _examine_block(
    maps: Maps, block: slice, tally: Tally, labels: Labels, rule: str, how: Thoroughness, seed: int
) -> Steps[Evidence]:
    grid, device = maps.plan.grid, maps.device
    scale, codes = tally.scale.of(block, device), tally.codes[block].to(device)
    label, level = labels.label[block], labels.level[block]
    classes, own = np.unique(label, return_inverse=True)  # only classes that label a unit here are looked at
    least = codes[torch.arange(len(label)), torch.from_numpy(level)] + 1.0  # step of the region
    spool = maps.spool
    scored_of = (len(spool.indices(shard)[1::2]) for shard in (0, spool.shards[-1]))
    sizes = sorted({some.stop - some.start for size in scored_of for some in pieces(size, PAIRED)})
    pairs = {size: torch.zeros(len(label), size, size, dtype=torch.float64, device=device) for size in sizes}
    # |M ∩ C|, |M|, |C|: plain, then bootstrapped
    sums = torch.zeros(3, 1 + ROUNDS, len(label), dtype=torch.float64, device=device)
    regions = torch.zeros(len(label), grid**2, device=device)
    places = torch.zeros(len(classes), grid**2, device=device)
    ballot = Candidates(codes, labels, block, grid, how.stride, CANDIDATES)
    rivals = Candidates(codes, labels, block, grid, how.stride, RIVALS)

    at_once = max(1, TOGETHER[device.type] // (SHARD // 2 * grid**2))
    # reused: touching fresh memory costs more than the work
    buffer = torch.empty(at_once * SHARD // 2 * grid**2, device=device)
    members = [torch.from_numpy(np.flatnonzero(own == number)) for number in range(len(classes))]
    alike = [some for units in members for some in units.split(at_once)]  # of one class
    for shard in spool.here:
        steps, names = scale.measure(whole(maps.read(shard, block))), maps.labels(shard).transpose(2, 3).float()
        ballot.add(steps[::2], names[::2], _bootstrapped(len(names[::2]), seed, 2 * shard, device))

        scored = names[1::2]
        size = len(scored)
        if not size:
            continue
        weights = _bootstrapped(size, seed, 2 * shard + 1, device)
        rivals.add(steps[1::2], scored, weights, places=True)
        maps_of_classes = occupied(scored.flatten(2), torch.from_numpy(classes).to(device))  # (C', n, g²)
        area, inside = torch.zeros(2, len(label), size, device=device)
        for some in alike:
            near = steps[1::2, some].transpose(0, 1)
            near = gr.upsample_turned(near, grid, out=buffer[: len(some) * size * grid**2])  # (u, n, g, g)
            masks = near.ge_(least[some, None, None, None]).flatten(2)  # (u, n, g²), columns before rows
            regions[some] += masks.sum(1)
            area[some] = masks.sum(2)
            for images in pieces(size, PAIRED):
                overlap = masks[:, images] @ maps_of_classes[own[some[0]], images].T  # (u, n', n')
                inside[some, images] = overlap.diagonal(dim1=1, dim2=2)
                pairs[overlap.shape[1]][some] += overlap
        places += maps_of_classes.sum(1)
        of_class = maps_of_classes.sum(2)[own]  # (U, n)
        for row, image in enumerate((inside, area, of_class)):
            sums[row] += weights @ image.T
    yield *pairs.values(), sums, regions, places, *ballot.sums(), *rivals.sums()
    scored_images = spool.samples // 2
    pairs = {size: matrix.cpu() for size, matrix in pairs.items()}
    sums, regions, places = sums.cpu(), regions.cpu(), places.cpu()
    ballot.to_cpu()
    rivals.to_cpu()

    @torch.inference_mode()
    def evidence() -> Evidence:
        expected = (regions.double() * places[own].double()).sum(1).numpy() / scored_images  # |M ∩ C| by place
        inside, m, c = sums.numpy()
        low, high = interval(iou_of(inside[1:], m[1:], c[1:]))
        both = m[0] + c[0]
        position = iou_of(expected, m[0], c[0])
        best, rows = labels.ranking[block, :RIVALS], np.arange(len(label))[:, None]
        at = rows + block.start, best, labels.class_level[block][rows, best]
        counted = tally.score.intersection[at], tally.score.unit_area[at[0], at[2]], tally.score.class_area[best]
        others = rivals.overlaps(iou_of(*counted))
        for values, own_value in zip(others, (low, high, position), strict=True):
            values[:, 0] = own_value  # the label is its own first rival, and known from every pixel
        rival_low, rival_high, rival_position = others
        slope = np.divide(
            both, (both - expected) ** 2, out=np.zeros_like(both), where=both > expected
        )  # of a / (both − a)
        fires = regions.view(-1, grid, grid).transpose(1, 2)
        return Evidence(
            low=low,
            high=high,
            position_iou=position,
            null_sd=permutation_spread(pairs) * slope,
            p_value=permutation_p(pairs, how.permutations, seed),
            votes=ballot.votes(rule),
            fires=F.adaptive_avg_pool2d(fires, min(MAP, grid)).div(scored_images).half().numpy(),
            rival_low=rival_low,
            rival_high=rival_high,
            rival_position=rival_position,
        )

    return evidence


@lru_cache(maxsize=64)  # blocks of units take the same shards one after the other
def _bootstrapped(images: int, seed: int, block: int, device: torch.device) -> Tensor:
    """(1 + ROUNDS, images) float32, first ones: on grids up to 256, a shard's pixels add up exactly, below 2^24."""
    drawn = torch.from_numpy(poisson_bootstrap(images, seed, block)).float()
    return torch.cat([torch.ones(1, images), drawn]).to(device)
