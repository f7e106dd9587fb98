"""On a CPU, several batches at once, each on a thread of its own, beat one batch at a time on all threads.

On small images a network's operations are too small to keep many threads busy, and wait for the slowest of them every
time. So the networks are there several times over: with state and hooks of their own, and the weights in common. On
large images they keep all threads busy, and only the main thread can keep large blocks of memory (see `at_work`).
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import TypeVar, TypeVarTuple

import torch
from torch import nn

from ... import segmenters
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..generators.families.architecture import Architecture
from ..generators.latents import DrawnLatents
from ..generators.sources import ClassLatents

MOST = 8  # at once: each needs memory for a batch
SMALL = 128**2  # pixels, of images that are drawn so

Pair = tuple[Generator, Segmenter]
Networks = TypeVarTuple("Networks")
Batch = TypeVar("Batch")
Owner = TypeVar("Owner")
Result = TypeVar("Result")


def pairs(generator: Generator, segmenter: Segmenter, pixels: int) -> list[Pair]:
    """The networks, and copies of them to run side by side for images of so many pixels.

    There are no copies on a GPU, for large images, or of networks that ganatomy does not define.
    """
    count = _at_once(generator.device, pixels) if _is_ours(generator) and _is_ours(segmenter) else 1
    copies = [(replace(generator, module=twin(generator.module)), twin(segmenter)) for _ in range(1, count)]
    return [(generator, segmenter), *copies]


def namers(segmenter: Segmenter, device: torch.device, pixels: int) -> list[tuple[Segmenter]]:
    """The segmenter, and copies of it to run side by side; see `pairs`."""
    count = _at_once(device, pixels) if _is_ours(segmenter) else 1
    return [(segmenter,), *((twin(segmenter),) for _ in range(1, count))]


def _at_once(device: torch.device, pixels: int) -> int:
    """How many batches of images of so many pixels run side by side."""
    return min(MOST, torch.get_num_threads()) if device.type == "cpu" and pixels <= SMALL else 1


def _is_ours(network: Generator | Segmenter) -> bool:
    """Whether only code of ganatomy runs, whose copies share no state.

    Other code may share state, in closures, hooks, or torch's global random numbers: its copies could silently generate
    other images.
    """
    if not isinstance(network, Generator):
        return type(network).__module__.startswith(segmenters.__name__)
    return (
        isinstance(network.module, Architecture)
        and isinstance(network.source, (DrawnLatents, ClassLatents))
        and not any(module._forward_hooks or module._forward_pre_hooks for module in network.module.modules())
    )


def twin(owner: Owner) -> Owner:
    """A copy of a network, or of an object that holds networks, which shares their parameters with the original."""
    candidates = [owner, *getattr(owner, "__dict__", {}).values()]
    networks = [candidate for candidate in candidates if isinstance(candidate, nn.Module)]
    return copy.deepcopy(owner, {id(weight): weight for network in networks for weight in network.parameters()})


def side_by_side(
    work: Callable[[*Networks, Batch], Result], networks: list[tuple[*Networks]], batches: Iterable[Batch]
) -> Iterator[tuple[Batch, Result]]:
    """Each batch and the result of `work` on it, in order; as many run at once as there are tuples of networks.

    Meanwhile this thread has its share of torch's threads, since the next batches may take computing, too.
    """
    if len(networks) == 1:
        for batch in batches:
            yield batch, work(*networks[0], batch)
        return
    usual = torch.get_num_threads()
    threads = max(1, usual // len(networks))
    free: SimpleQueue[tuple[*Networks]] = SimpleQueue()
    for copies in networks:
        free.put(copies)

    def work_on(batch: Batch) -> Result:
        torch.set_num_threads(threads)
        copies = free.get()
        try:
            return work(*copies, batch)
        finally:
            free.put(copies)

    pool = ThreadPoolExecutor(max_workers=len(networks))
    waiting: deque[tuple[Batch, Future[Result]]] = deque()
    torch.set_num_threads(threads)
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(work_on, batch)))
            if len(waiting) > 2 * len(networks):  # so that results do not pile up in memory
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()
    finally:
        pool.shutdown(cancel_futures=True)  # waits for running batches, so that their hooks are removed
        torch.set_num_threads(usual)
