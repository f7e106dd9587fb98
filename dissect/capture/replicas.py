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
from typing import TypeVar

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
Part = TypeVar("Part")
Thing = TypeVar("Thing")
Result = TypeVar("Result")


def pairs(generator: Generator, segmenter: Segmenter, pixels: int) -> list[Pair]:
    """The networks as often as they are to run side by side for images of so many pixels: once on a GPU, for large
    images, and where others than we wrote them.
    """
    able = generator.device.type == "cpu" and pixels <= SMALL and _ours(generator, segmenter)
    many = min(MOST, torch.get_num_threads()) if able else 1
    more = [(replace(generator, module=twin(generator.module)), twin(segmenter)) for _ in range(1, many)]
    return [(generator, segmenter), *more]


def _ours(generator: Generator, segmenter: Segmenter) -> bool:
    """Whether nothing runs but our own code, which keeps no state in common: what others write may, in closures, in
    hooks, or in torch's global random numbers, and would silently draw something else.
    """
    return (
        isinstance(generator.module, Architecture)
        and isinstance(generator.source, (DrawnLatents, ClassLatents))
        and type(segmenter).__module__.startswith(segmenters.__name__)
        and not any(one._forward_hooks or one._forward_pre_hooks for one in generator.module.modules())
    )


def twin(thing: Thing) -> Thing:
    """A copy that shares the parameters of the network that it is, or of those that it holds."""
    held = [thing, *getattr(thing, "__dict__", {}).values()]
    networks = [one for one in held if isinstance(one, nn.Module)]
    return copy.deepcopy(thing, {id(weight): weight for one in networks for weight in one.parameters()})


def side_by_side(
    work: Callable[[Generator, Segmenter, Part], Result], networks: list[Pair], parts: Iterable[Part]
) -> Iterator[tuple[Part, Result]]:
    """Each part and what `work` makes of it, in order, as many at once as there are pairs of networks."""
    if len(networks) == 1:
        for part in parts:
            yield part, work(*networks[0], part)
        return
    threads = max(1, torch.get_num_threads() // len(networks))
    free: SimpleQueue[Pair] = SimpleQueue()
    for pair in networks:
        free.put(pair)

    def one(part: Part) -> Result:
        torch.set_num_threads(threads)
        pair = free.get()
        try:
            return work(*pair, part)
        finally:
            free.put(pair)

    pool = ThreadPoolExecutor(max_workers=len(networks))
    waiting: deque[tuple[Part, Future[Result]]] = deque()
    try:
        for part in parts:
            waiting.append((part, pool.submit(one, part)))
            if len(waiting) > 2 * len(networks):
                first, done = waiting.popleft()
                yield first, done.result()
        for first, done in waiting:
            yield first, done.result()
    finally:
        pool.shutdown(cancel_futures=True)  # and wait for those that run: their hooks are to be gone
