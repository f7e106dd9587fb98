"""The one loop: indices -> latents -> images, featuremaps, labels. Each sample passes each network once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import DissectError, UsageError, out_of_memory
from ...hooks.tap import Tap
from ...segmenters import check_labels, check_range, check_shape, segment
from ...segmenters.base import Segmenter
from ..generators.base import Generator, finite
from ..images import resize as gr
from ..runtime.resources import at_work, usual_batch
from .plan import BFLOAT16, FLOAT32, THUMBNAIL, Plan
from .replicas import pairs, side_by_side
from .spool import Spool

EXTREMES = "extremes"  # least and greatest label of a batch (1, 2): checked, not kept
FINITE = "finite"  # whether all pixels of a sample are (n,): likewise

COMPARED = 16  # samples on which a lower precision is compared with float32
MOST = {"images": 0.01, "labels": 0.02}  # it may be off by: mean difference of values in [0, 1], share of pixels


def probe(
    generator: Generator, segmenter: Segmenter, layers: Sequence[str], grid: int, precision: str = FLOAT32
) -> Plan:
    """Run sample 0 and see what comes out.

    Raises:
        UsageError: a layer whose output has no units on a map.
        DissectError: a network failed or returned something else than images or labels.
    """
    images, features, labels = forward(generator, segmenter, layers, [0], precision)
    generator.check_finite(images, [0])
    shapes, scales = {}, {}
    grid = min(grid, *images.shape[2:])
    for layer, x in features.items():
        if x.ndim != 4:
            raise UsageError(
                f"Layer {layer!r} outputs {tuple(x.shape)}; a layer to dissect outputs (N, units, height, width)."
            )
        shapes[layer] = (x.shape[1], min(x.shape[2], grid), min(x.shape[3], grid))
        peak = float(x.float().abs().nan_to_num(0, 0, 0).max())
        scales[layer] = 2.0 ** round(math.log2(peak)) if peak > 0 else 1.0
    size = (images.shape[2], images.shape[3])
    return Plan(grid=grid, image=size, planes=labels.shape[1], shapes=shapes, scales=scales, precision=precision)


def deviation(generator: Generator, segmenter: Segmenter, precision: str, samples: int) -> dict[str, float]:
    """How far a lower precision is off float32 on the first 16 of the samples.

    `images`: mean absolute difference of their values in [0, 1]; `labels`: share of pixels that get another one.

    Raises:
        UsageError: by more than 0.01, or 2 %.
    """
    indices = range(min(COMPARED, samples))
    (exact, _, names), (images, _, labels) = (
        forward(generator, segmenter, (), indices, one) for one in (FLOAT32, precision)
    )
    off = {
        "images": float((images - exact).abs().mean()),
        "labels": float((labels != names).any(1).float().mean()),
    }
    if not all(off[name] <= most for name, most in MOST.items()):  # nor if it is not finite
        raise UsageError(
            f"--precision {precision} changes images by {off['images']:.2g} of 1 on average (at most {MOST['images']}) "
            f"and labels in {100 * off['labels']:.2g} % of pixels (at most {100 * MOST['labels']:.0f} %); take float32."
        )
    return off


def capture(
    generator: Generator,
    segmenter: Segmenter,
    plan: Plan,
    spool: Spool,
    batch: int | None,
    advance: Callable[[int], None],
) -> None:
    """Fill the shards of this process that the spool lacks.

    `batch` None chooses by device; when memory runs out it is halved. Several batches may be under way side by side.

    Raises:
        DissectError: memory does not suffice for one sample, or a network failed.
        OSError: a shard could not be written; those before it stay.
    """
    networks = pairs(generator, segmenter, math.prod(plan.image))
    batch = batch or usual_batch(generator.device, plan.image)
    with at_work(), ThreadPoolExecutor(max_workers=1) as writer:  # the disk works while the networks do
        waiting: list[_Shard] = []  # one at most, drawn but not read yet: a GPU works on the next one meanwhile
        written: Future[None] | None = None

        def finish(shard: _Shard) -> None:
            nonlocal written
            arrays = shard.arrays(generator, segmenter)
            if written:
                written.result()
            written = writer.submit(spool.write, shard.number, arrays)

        def finish_waiting() -> None:
            while waiting:
                finish(waiting[0])
                waiting.pop(0)  # not before: what memory did not suffice for is tried again

        left = [shard for shard in spool.missing() if shard in spool.here]
        while left:
            todo = [part for shard in left for part in _batches(spool.indices(shard), batch)]
            parts: list[dict[str, Tensor]] = []
            try:
                for part, arrays in side_by_side(partial(_sample, plan), networks, todo):
                    parts.append(arrays)
                    advance(len(part))
                    if part.stop < spool.indices(left[0]).stop:
                        continue
                    shard = _Shard.of(left[0], spool.indices(left[0]), parts, generator.device)
                    finish_waiting()
                    if shard.copied:
                        waiting.append(shard)
                    else:
                        finish(shard)
                    left.pop(0)
                    parts = []
            except BaseException as error:
                short = out_of_memory(error)
                if not short or len(networks) == batch == 1:
                    with suppress(Exception):
                        finish_waiting()  # what was captured stays
                    if short:
                        raise DissectError("Memory does not suffice for one sample; try another --device.") from error
                    raise
                advance(-sum(len(one["labels"]) for one in parts))  # they are drawn again
                batch, networks = max(1, batch // 2), networks[: max(1, len(networks) // 2)]
        finish_waiting()
        if written:
            written.result()


@dataclass(frozen=True)
class _Shard:
    """The batches of a shard, on their way from a GPU until `copied` has come to pass; on a CPU they are there."""

    number: int
    samples: range
    parts: list[dict[str, Tensor]]
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, number: int, samples: range, parts: list[dict[str, Tensor]], device: torch.device) -> _Shard:
        """A shard all of whose batches have been asked for."""
        copied = torch.cuda.Event() if device.type == "cuda" else None
        if copied:
            copied.record(torch.cuda.current_stream(device))
        return cls(number, samples, parts, copied)

    def arrays(self, generator: Generator, segmenter: Segmenter) -> dict[str, NDArray[Any]]:
        """What the spool keeps, once it is there.

        Raises:
            DissectError: pixels that are not finite, or labels that are no classes.
        """
        if self.copied:
            self.copied.synchronize()
        whole = {name: torch.cat([part[name] for part in self.parts]) for name in self.parts[0]}
        extremes = whole.pop(EXTREMES)
        generator.raise_unless_finite(whole.pop(FINITE), self.samples)
        check_range(int(extremes[:, 0].min()), int(extremes[:, 1].max()), segmenter)
        return {name: array.numpy() for name, array in whole.items()}


def _batches(indices: range, size: int) -> list[range]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


@torch.inference_mode()
def _sample(plan: Plan, generator: Generator, segmenter: Segmenter, indices: Sequence[int]) -> dict[str, Tensor]:
    found = forward(generator, segmenter, tuple(plan.shapes), indices, plan.precision, check_shape)
    # read with the rest, so that a GPU need not wait
    checked = {EXTREMES: torch.stack(found[2].aminmax())[None], FINITE: finite(found[0])}
    return to_spool(plan, *found) | {name: _to_host(values) for name, values in checked.items()}


def to_spool(plan: Plan, images: Tensor, features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """What `forward` found of some samples -> the arrays of a shard, on the CPU."""
    arrays = {
        "labels": _to_host(gr.labels_to_grid(labels, plan.grid)),
        "images": _to_host(gr.thumbnails(images, THUMBNAIL)),
    }
    for layer, x in features.items():
        small = gr.at_most(x.float(), plan.grid) / plan.scales[layer]
        arrays[plan.array(layer)] = _to_host(small.half())
    return arrays


def _to_host(x: Tensor) -> Tensor:
    """On the CPU. From a GPU the copy goes on beside the next batch: to be read once the device is synchronised."""
    if x.device.type != "cuda":
        return x.cpu()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


@torch.no_grad()  # inference mode would leave tensors behind that a network in training cannot use
def forward(
    generator: Generator,
    segmenter: Segmenter,
    layers: Sequence[str],
    indices: Sequence[int],
    precision: str,
    check: Callable[[Tensor, Tensor, Segmenter], None] = check_labels,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """images (n, 3, H, W), featuremaps by layer, labels (n, P, H, W) that pass `check`.

    Raises:
        DissectError: a network failed or returned something else than images or labels.
    """
    lower = torch.autocast(generator.device.type, torch.bfloat16, enabled=precision == BFLOAT16)
    with lower, Tap(generator.module, layers) as tap:
        images = generator(generator.latents(indices))
        labels = segment(segmenter, images, check)
    return images, {layer: tap[layer] for layer in layers}, labels
