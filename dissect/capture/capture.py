"""The one loop: indices -> latents -> images, featuremaps, labels. Each sample passes each network once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
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
from .replicas import Pair, pairs, side_by_side
from .spool import Spool

EXTREMES = "extremes"  # (1, 2) least and greatest label of a batch: checked, not stored
FINITE = "finite"  # (n,) whether all pixels of a sample are finite: checked, not stored

COMPARED = 16  # samples on which a lower precision is compared with float32
MOST = {"images": 0.01, "labels": 0.02}  # allowed difference: mean of values in [0, 1], share of pixels


def probe(
    generator: Generator, segmenter: Segmenter, layers: Sequence[str], grid: int, precision: str = FLOAT32
) -> Plan:
    """Run sample 0, and plan the capture by the shapes and magnitudes of what the networks output.

    Raises:
        UsageError: the output of a layer is not (N, units, height, width).
        DissectError: a network failed, or returned something else than images or labels.
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
    """How much a lower precision differs from float32 on the first 16 of the samples.

    `images`: mean absolute difference of values in [0, 1]; `labels`: share of pixels whose labels differ.

    Raises:
        UsageError: the difference of images is more than 0.01, or that of labels more than 2 %.
    """
    indices = range(min(COMPARED, samples))
    exact_images, _, exact_labels = forward(generator, segmenter, (), indices, FLOAT32)
    images, _, labels = forward(generator, segmenter, (), indices, precision)
    difference = {
        "images": float((images - exact_images).abs().mean()),
        "labels": float((labels != exact_labels).any(1).float().mean()),
    }
    if not all(difference[name] <= most for name, most in MOST.items()):  # a NaN is refused, too
        raise UsageError(
            f"--precision {precision}: changes images by {difference['images']:.2g} of 1 on average (at most "
            f"{MOST['images']}) and labels in {100 * difference['labels']:.2g} % of pixels (at most "
            f"{100 * MOST['labels']:.0f} %); use --precision float32."
        )
    return difference


def capture(
    generator: Generator,
    segmenter: Segmenter,
    plan: Plan,
    spool: Spool,
    batch: int | None,
    advance: Callable[[int], None],
) -> None:
    """Capture the shards of this process that the spool lacks.

    Args:
        batch: samples at once; None chooses by device. When memory runs out it is halved, and so is the number of
            batches that run side by side on a CPU.
        advance: `advance(n)` is called after every n samples; n is negative where samples have to be repeated.

    Raises:
        DissectError: memory does not suffice for one sample, or a network failed.
        OSError: a shard could not be written; those before it stay.
    """
    networks = pairs(generator, segmenter, math.prod(plan.image))
    batch = batch or usual_batch(generator.device, plan.image)
    shards = [shard for shard in spool.missing() if shard in spool.own]
    unfinished = 0  # samples generated of the shard that is not full yet

    def count(samples: int) -> None:
        nonlocal unfinished
        unfinished += samples
        advance(samples)

    with at_work(), _Writer(generator, segmenter, spool) as writer:
        while shards:
            try:
                for shard in _full_shards(plan, spool, networks, batch, shards, count):
                    writer.add(shard)
                    shards.remove(shard.number)
                    unfinished = 0
            except BaseException as error:
                if not out_of_memory(error):
                    raise
                if len(networks) == batch == 1:
                    raise DissectError("Memory does not suffice for one sample; try another --device.") from error
                count(-unfinished)  # the next attempt generates them again
                batch, networks = _smaller(batch, networks)


def _full_shards(
    plan: Plan,
    spool: Spool,
    networks: list[Pair],
    batch: int,
    shards: Sequence[int],
    advance: Callable[[int], None],
) -> Iterator[_Shard]:
    """Generate and segment these shards, in order, and yield each when all of its batches have been started."""
    batches = [indices for shard in shards for indices in _batches(spool.indices(shard), batch)]
    expected = iter(list(shards))
    shard, parts = next(expected), list[dict[str, Tensor]]()
    for indices, arrays in side_by_side(partial(_sample, plan), networks, batches):
        parts.append(arrays)
        advance(len(indices))
        samples = spool.indices(shard)
        if indices.stop == samples.stop:
            yield _Shard.of(shard, samples, parts, networks[0][0].device)
            shard, parts = next(expected, -1), []


def _smaller(batch: int, networks: list[Pair]) -> tuple[int, list[Pair]]:
    """Half the samples at once, on half the pairs of networks; at least one of each."""
    return max(1, batch // 2), networks[: max(1, len(networks) // 2)]


class _Writer:
    """Reads full shards from the device and writes them into the spool, on a thread, while the networks go on.

    A shard on a GPU waits until the next one is full, so that the GPU need not stop while it is read; one waits at
    most. If memory does not suffice to read it, it goes on waiting and is tried again. At the end, even after an error,
    the waiting shard is written: nothing that was captured is lost.
    """

    def __init__(self, generator: Generator, segmenter: Segmenter, spool: Spool) -> None:
        self._generator, self._segmenter, self._spool = generator, segmenter, spool
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: _Shard | None = None
        self._written: Future[None] | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        with self._thread, suppress(Exception) if kind else nullcontext():
            self._write_waiting()
            if self._written:
                self._written.result()

    def add(self, shard: _Shard) -> None:
        """Take a full shard.

        Raises:
            DissectError: see `_Shard.arrays`.
            OSError: an earlier shard could not be written.
        """
        self._write_waiting()
        if shard.copied:
            self._waiting = shard
        else:
            self._write(shard)

    def _write_waiting(self) -> None:
        if self._waiting:
            self._write(self._waiting)
            self._waiting = None

    def _write(self, shard: _Shard) -> None:
        arrays = shard.arrays(self._generator, self._segmenter)
        if self._written:
            self._written.result()
        self._written = self._thread.submit(self._spool.write, shard.number, arrays)


@dataclass(frozen=True)
class _Shard:
    """The batches of a shard. On a GPU they are still being copied to the CPU until the event `copied`."""

    number: int
    samples: range
    parts: list[dict[str, Tensor]]
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, number: int, samples: range, parts: list[dict[str, Tensor]], device: torch.device) -> _Shard:
        """A shard of which all batches have been started."""
        copied = torch.cuda.Event() if device.type == "cuda" else None
        if copied:
            copied.record(torch.cuda.current_stream(device))
        return cls(number, samples, parts, copied)

    def arrays(self, generator: Generator, segmenter: Segmenter) -> dict[str, NDArray[Any]]:
        """The arrays for the spool; waits for the copies.

        Raises:
            DissectError: pixels are not finite, or labels are no classes of the segmenter.
        """
        if self.copied:
            self.copied.synchronize()
        tensors = {name: torch.cat([part[name] for part in self.parts]) for name in self.parts[0]}
        extremes = tensors.pop(EXTREMES)
        generator.raise_unless_finite(tensors.pop(FINITE), self.samples)
        check_range(int(extremes[:, 0].min()), int(extremes[:, 1].max()), segmenter)
        return {name: tensor.numpy() for name, tensor in tensors.items()}


def _batches(indices: range, size: int) -> list[range]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


@torch.inference_mode()
def _sample(plan: Plan, generator: Generator, segmenter: Segmenter, indices: Sequence[int]) -> dict[str, Tensor]:
    images, features, labels = forward(generator, segmenter, tuple(plan.shapes), indices, plan.precision, check_shape)
    # checked when the shard is read: looking at them now would make the CPU wait for the GPU
    checks = {EXTREMES: torch.stack(labels.aminmax())[None], FINITE: finite(images)}
    return to_spool(plan, images, features, labels) | {name: _to_host(values) for name, values in checks.items()}


def to_spool(plan: Plan, images: Tensor, features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """The outputs of `forward` -> the arrays of a shard, on the CPU."""
    arrays = {
        "labels": _to_host(gr.labels_to_grid(labels, plan.grid)),
        "images": _to_host(gr.thumbnails(images, THUMBNAIL)),
    }
    for layer, x in features.items():
        small = gr.at_most(x.float(), plan.grid) / plan.scales[layer]
        arrays[plan.array(layer)] = _to_host(small.half())
    return arrays


def _to_host(x: Tensor) -> Tensor:
    """A copy on the CPU. From a GPU it is made while the next batch runs: valid once the device is synchronised."""
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
