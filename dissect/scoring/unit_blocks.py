"""The units of a layer scored in blocks, several at once, by all processes together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from ..capture.maps import Maps, pieces
from ..runtime import distributed
from ..runtime.resources import at_work, exact_products

ON_GPU = 2  # blocks side by side: while a GPU counts one, another is being read or finished
Result = TypeVar("Result")
Steps = Generator[Sequence[Tensor], None, Callable[[], Result]]  # see `in_blocks`


def in_blocks(
    work: Callable[[slice], Steps[Result]], maps: Maps, at_once: int, advance: Callable[[int], None]
) -> list[Result]:
    """What is made of each block of units, in order; blocks run side by side, one processor each, or two on a GPU.

    `work` looks at the shards of this process, yields what is to be summed over all processes, and goes on with the
    sums. What it returns is called in one of the processes, which tells the others.
    """
    blocks = list(pieces(len(maps), at_once))
    done: list[Result] = []
    workers = distributed.processors() if maps.device.type == "cpu" else ON_GPU
    pool = ThreadPoolExecutor(max_workers=workers)
    with at_work(), exact_products():
        try:
            steps = map(work, blocks)
            results = pool.map(_at_once, steps) if distributed.size() == 1 else _together(list(steps), workers, pool)
            for block, result in zip(blocks, results, strict=True):
                done.append(result)
                advance(block.stop - block.start)
        finally:
            pool.shutdown(cancel_futures=True)
    return done


def _at_once(steps: Steps[Result]) -> Result:
    """All steps of a block, with nothing to be added to its sums."""
    torch.set_num_threads(1)
    while True:
        _, end = _step(steps)
        if end:
            return end()


def _together(blocks: Sequence[Steps[Result]], workers: int, pool: ThreadPoolExecutor) -> Iterator[Result]:
    """The results of the blocks, some at a time; sums are taken in the same order in every process."""
    for some in pieces(len(blocks), min(distributed.joined(workers))):
        group = blocks[some]
        ends: list[Callable[[], Result] | None] = [None] * len(group)
        while waiting := [number for number, end in enumerate(ends) if end is None]:
            for number, (sums, end) in zip(waiting, pool.map(_step, [group[k] for k in waiting]), strict=True):
                with torch.inference_mode():
                    distributed.total(*sums)
                ends[number] = end
        yield from distributed.in_order(list(pool.map(_call, distributed.mine(ends))))


def _step(steps: Steps[Result]) -> tuple[Sequence[Tensor], Callable[[], Result] | None]:
    """What a block wants summed next, or what is left to be called when it has all."""
    torch.set_num_threads(1)
    try:
        return next(steps), None
    except StopIteration as end:
        return (), end.value


def _call(end: Callable[[], Result] | None) -> Result:
    assert end is not None
    return end()
