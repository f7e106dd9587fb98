"""The units of a layer scored in blocks, several at once, by all processes together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..capture.maps import Maps, pieces
from ..runtime import distributed
from ..runtime.resources import at_work, exact_products

BLOCKS_ON_GPU = 2  # side by side: while a GPU counts one block, another is read or finished
Result = TypeVar("Result")


class UnitBlock(ABC, Generic[Result]):
    """One block of units on its way from the shards to a result.

    `score_blocks` calls `local`, adds up in place what all processes returned, calls `next_round`, adds up again, and
    so on until `next_round` returns nothing. Then all processes hold the same sums, and one of them calls `finish`. All
    methods run in inference mode. Large tensors are allocated in `local`: few blocks are in work at the same time.
    """

    @abstractmethod
    def local(self) -> Sequence[Tensor]:
        """What the shards of this process contribute: tensors of the same shapes in every process."""

    def next_round(self) -> Sequence[Tensor]:
        """After a sum: what has to be summed next, if anything. It must depend on the sums alone, so that all processes
        go through the same rounds."""
        return ()

    @abstractmethod
    def finish(self) -> Result:
        """The result, from the sums over all processes."""


def score_blocks(
    make: Callable[[slice], UnitBlock[Result]], maps: Maps, units_at_once: int, advance: Callable[[int], None]
) -> list[Result]:
    """The result of each block of units, in order. Blocks run side by side, one processor each, or two on a GPU.

    Args:
        make: the block of a slice of the units; cheap.
        units_at_once: size of a block.
        advance: `advance(n)` is called after every n finished units.
    """
    slices = list(pieces(len(maps), units_at_once))
    results: list[Result] = []
    workers = distributed.processors() if maps.device.type == "cpu" else BLOCKS_ON_GPU
    pool = ThreadPoolExecutor(max_workers=workers)
    with at_work(), exact_products():
        try:
            alone = distributed.size() == 1
            scored = pool.map(_score, map(make, slices)) if alone else _score_together(make, slices, workers, pool)
            for block, result in zip(slices, scored, strict=True):
                results.append(result)
                advance(block.stop - block.start)
        finally:
            pool.shutdown(cancel_futures=True)
    return results


@torch.inference_mode()
def _score(block: UnitBlock[Result]) -> Result:
    """A block from first to last where no other process has anything to add to its sums."""
    torch.set_num_threads(1)
    tensors = block.local()
    while tensors:
        tensors = block.next_round()
    return block.finish()


def _score_together(
    make: Callable[[slice], UnitBlock[Result]], slices: Sequence[slice], workers: int, pool: ThreadPoolExecutor
) -> Iterator[Result]:
    """The results of the blocks, a group at a time.

    Threads finish in any order, but a sum over processes must meet its counterpart in the others. So the threads only
    count; this thread alone takes the sums, block by block, in the same order in every process.
    """
    for group in pieces(len(slices), min(distributed.all_gather(workers))):
        blocks = [make(units) for units in slices[group]]
        unfinished, rounds = blocks, pool.map(_local, blocks)
        while unfinished:
            summed = []
            for block, tensors in zip(unfinished, rounds, strict=True):
                if tensors:
                    with torch.inference_mode():
                        distributed.all_sum(*tensors)
                    summed.append(block)
            unfinished, rounds = summed, pool.map(_next_round, summed)
        yield from distributed.in_order(list(pool.map(_finish, distributed.mine(blocks))))


@torch.inference_mode()
def _local(block: UnitBlock[Result]) -> Sequence[Tensor]:
    torch.set_num_threads(1)
    return block.local()


@torch.inference_mode()
def _next_round(block: UnitBlock[Result]) -> Sequence[Tensor]:
    return block.next_round()


@torch.inference_mode()
def _finish(block: UnitBlock[Result]) -> Result:
    return block.finish()
