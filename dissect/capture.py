"""The one loop: indices -> latents -> images, featuremaps, labels. Each sample passes each network once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..hooks.errors import DissectError, UsageError, one_line
from ..hooks.tap import Tap
from ..segmenters import check_labels
from ..segmenters.base import Segmenter
from . import grid as gr
from .generators.base import Generator
from .spool import Spool

THUMBNAIL = 256  # pixels
BATCH = {"cuda": 64, "cpu": 16}

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a probe of one sample has shown."""

    grid: int
    image: tuple[int, int]  # height, width
    planes: int
    shapes: dict[str, tuple[int, int, int]]  # layer -> units, height, width as spooled
    scales: dict[str, float]  # layer -> power of two by which featuremaps are divided to suit float16

    def array(self, layer: str) -> str:
        """The name of a layer's array in the spool: by number, since a layer may be called anything."""
        return f"features-{list(self.shapes).index(layer)}"

    @property
    def sample_bytes(self) -> int:
        """What one sample takes on disk."""
        shrink = min(1.0, THUMBNAIL / max(self.image))
        features = sum(2 * units * height * width for units, height, width in self.shapes.values())
        return features + 2 * self.planes * self.grid**2 + round(3 * self.image[0] * self.image[1] * shrink**2)


def probe(generator: Generator, segmenter: Segmenter, layers: Sequence[str], grid: int) -> Plan:
    """Run sample 0 and see what comes out.

    Raises:
        UsageError: a layer whose output has no units on a map.
        DissectError: a network failed or returned something else than images or labels.
    """
    images, features, labels = _forward(generator, segmenter, layers, [0])
    shapes, scales = {}, {}
    grid = min(grid, *images.shape[2:])
    for layer, x in features.items():
        if x.ndim != 4:
            raise UsageError(
                f"Layer {layer!r} puts out {tuple(x.shape)}; a layer to dissect puts out (N, units, height, width)."
            )
        shapes[layer] = (x.shape[1], min(x.shape[2], grid), min(x.shape[3], grid))
        peak = float(x.float().abs().nan_to_num(0, 0, 0).max())
        scales[layer] = 2.0 ** round(math.log2(peak)) if peak > 0 else 1.0
    size = (images.shape[2], images.shape[3])
    return Plan(grid=grid, image=size, planes=labels.shape[1], shapes=shapes, scales=scales)


def capture(
    generator: Generator,
    segmenter: Segmenter,
    plan: Plan,
    spool: Spool,
    shards: Sequence[int],
    batch: int | None,
    advance: Callable[[int], None],
) -> None:
    """Fill these shards of the spool. `batch` None chooses by device; when memory runs out it is halved.

    Raises:
        DissectError: memory does not suffice for one sample, or a network failed.
        OSError: a shard could not be written; those before it stay.
    """
    batch = batch or BATCH.get(generator.device.type, 16)
    threads = Threads() if generator.device.type == "cpu" else nullcontext()
    with threads_kept(), ThreadPoolExecutor(max_workers=1) as writer:  # the disk works while the networks do
        written: Future[None] | None = None
        for shard in shards:
            indices = spool.indices(shard)
            parts: list[Arrays] = []
            start = 0
            while start < len(indices):
                try:
                    with threads:
                        parts.append(_sample(generator, segmenter, plan, indices[start : start + batch]))
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    if batch == 1:
                        raise DissectError("Memory does not suffice for one sample; try another --device.") from error
                    batch //= 2
                    continue
                advance(len(parts[-1]["labels"]))
                start += batch
            if written:
                written.result()
            written = writer.submit(
                spool.write, shard, {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
            )
        if written:
            written.result()


def _sample(generator: Generator, segmenter: Segmenter, plan: Plan, indices: Sequence[int]) -> Arrays:
    images, features, labels = _forward(generator, segmenter, tuple(plan.shapes), indices)
    arrays: Arrays = {
        "labels": gr.labels_to_grid(labels, plan.grid).cpu().numpy(),
        "images": gr.thumbnails(images, THUMBNAIL).cpu().numpy(),
    }
    for layer, x in features.items():
        small = gr.at_most(x.float(), plan.grid) / plan.scales[layer]
        arrays[plan.array(layer)] = small.half().cpu().numpy()
    return arrays


@torch.inference_mode()
def _forward(
    generator: Generator, segmenter: Segmenter, layers: Sequence[str], indices: Sequence[int]
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """images (n, 3, H, W), featuremaps by layer, labels (n, P, H, W)."""
    try:
        with Tap(generator.module, layers) as tap:
            images = generator(generator.latents(indices))
        labels = segmenter(images)
        check_labels(labels, images, segmenter)
    except DissectError:
        raise
    except Exception as error:  # whatever the user's networks raise
        if out_of_memory(error):
            raise
        raise DissectError(f"A network failed on samples {indices[0]} … ({one_line(error)}).") from error
    return images, {layer: tap[layer] for layer in layers}, labels


@contextmanager
def threads_kept() -> Iterator[None]:
    """Afterwards torch uses as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Threads:
    """Tries torch's usual number of threads and one thread on the first batches, then keeps to the faster.

    Beside other busy processes one thread can be several times faster than two; alone, slower.
    """

    def __init__(self) -> None:
        many = torch.get_num_threads()
        self._trials = [many, many, 1] if many > 1 else []  # the first batch is a warm-up
        self._seconds: dict[int, float] = {}

    def __enter__(self) -> None:
        if self._trials:
            torch.set_num_threads(self._trials[0])
            self._started = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        if self._trials:
            self._seconds[self._trials.pop(0)] = time.perf_counter() - self._started
            if not self._trials:
                torch.set_num_threads(min(self._seconds, key=lambda threads: self._seconds[threads]))


def out_of_memory(error: Exception) -> bool:
    """Whether it says that memory ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
