"""Several processes that work as one, by PyTorch's own launcher and collectives; a process alone is all of them.

    torchrun --nproc-per-node=8 -m ganatomy.cli run …

Every process runs the same program. Each draws its own share of the samples; integer counts are summed over all of
them, rows are put together in the order of the samples, and the first process alone writes files and talks. All that
is exchanged lies on the CPU, hence gloo.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ...hooks.errors import DissectError, one_line

if TYPE_CHECKING:  # the command imports this before it needs torch
    import torch.distributed as dist
    from torch import Tensor

PATIENCE = timedelta(days=2)  # a process may be slow; one that dies is noticed at once
POLL = 0.1  # seconds
REASON = 3.0  # seconds in which a process that ends may say why

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Party:
    rank: int
    size: int
    store: dist.Store


_party: _Party | None = None  # the processes that this one works with, as in torch.distributed a global


class Deserted(DissectError):
    """Another process has ended early; its own error says why."""


@contextmanager
def launched() -> Iterator[None]:
    """Join the processes that torchrun started; inside, `dissect.run` and the interventions work as one.

    Every one of them must run the same calls in the same order. Without torchrun, nothing happens.

    Raises:
        DissectError: they cannot find each other.
    """
    global _party
    if not by_torchrun() or _party is not None:
        yield
        return
    import torch.distributed as dist

    try:
        store, rank, size = next(iter(dist.rendezvous("env://")))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DissectError(f"The processes of torchrun cannot find each other ({error}).") from error
    _party = _Party(rank=rank, size=size, store=store)
    try:
        yield
    finally:
        _party = None
        dist.destroy_process_group()


def by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def size() -> int:
    """How many processes there are."""
    return _party.size if _party else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return _party.rank if _party else 0


def local_rank() -> int:
    """Which of the processes on its machine this is, from 0; each takes a GPU of its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _party else 0


def processors() -> int:
    """How many processors this process may use, so that those on one machine share them evenly."""
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _party else 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, max(1, (os.cpu_count() or 1) // local_size))


def mine(items: Sequence[T]) -> Sequence[T]:
    """Of some items of work, those of this process: with n processes every n-th."""
    return items[rank() :: size()]


def in_order(results: Sequence[T]) -> list[T]:
    """The results of all processes, each of its `mine(items)`, in the order of the items."""
    shares = all_gather(list(results))
    return [shares[k % len(shares)][k // len(shares)] for k in range(sum(map(len, shares)))]


def all_sum(*tensors: Tensor) -> None:
    """Replace each tensor, in place, by its sum over all processes; shapes must be the same everywhere.

    Integers, and floats that hold integers below their precision, sum exactly in any order. So results do not depend on
    how many processes there are.
    """
    if size() > 1:
        import torch.distributed as dist

        for tensor in tensors:
            shared = tensor.cpu()  # the tensor itself unless it is on a GPU: gloo exchanges what is on the CPU
            _collective(partial(dist.all_reduce, shared))
            if shared is not tensor:
                tensor.copy_(shared)


def apart(tensor: Tensor) -> Tensor:
    """(…) -> (size, …): this process's tensor in its row, zeros in the others; after `all_sum`, all tensors."""
    rows = tensor.new_zeros(size(), *tensor.shape)
    rows[rank()] = tensor
    return rows


def all_gather(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * size()
    _collective(lambda: dist.all_gather_object(values, value))
    return values


def broadcast(value: T) -> T:
    """The value of the first process, in all of them."""
    return on_first(lambda: value)


def on_first(work: Callable[[], T]) -> T:
    """Call `work` in the first process only; every process returns its result, or raises its DissectError."""
    if size() == 1:
        return work()
    import torch.distributed as dist

    outcome: list[Any] = [None]
    if rank() == 0:
        with _alone():
            try:
                outcome = [(True, work())]
            except DissectError as error:
                outcome = [(False, error)]
    _collective(lambda: dist.broadcast_object_list(outcome, src=0))
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return value  # type: ignore[no-any-return]


@contextmanager
def _alone() -> Iterator[None]:
    """Inside, this process is the only one: the work of `on_first` must not wait for processes that wait for it."""
    global _party
    party, _party = _party, None
    try:
        yield
    finally:
        _party = party


def _collective(call: Callable[[], object]) -> None:
    """Call what needs all processes; raises Deserted if one of them has ended."""
    try:
        call()
    except RuntimeError as error:
        raise Deserted(f"Another process has ended before the work was done ({one_line(error)}).") from error


def is_reported(error: DissectError) -> bool:
    """Whether another process has reported this error, or the one that this process was deserted for."""
    if _party is None:
        return by_torchrun() and os.environ.get("RANK", "0") != "0"  # what fails before they join fails in all
    try:
        if not isinstance(error, Deserted):
            _party.store.add("said", 1)
            return bool(_party.store.add(f"said/{error}", 1) > 1)
        until = time.monotonic() + REASON
        while not _party.store.add("said", 0) and time.monotonic() < until:
            time.sleep(POLL)
        return bool(_party.store.add("said", 0) or _party.store.add("deserted", 1) > 1)
    except RuntimeError:  # the launcher itself has ended
        return False


def record(error: DissectError) -> None:
    """Give the error to torchrun for its own summary, if it has started this process."""
    if by_torchrun():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


class Counter:
    """How much of a task all processes have done together."""

    _instances = 0

    def __init__(self) -> None:
        Counter._instances += 1  # the same in every process, since they run the same program
        self._key = f"done/{Counter._instances}"

    def add(self, count: int) -> int:
        """Add to the count, and return it."""
        assert _party is not None
        return int(_party.store.add(self._key, count))

    def wait(self, show: Callable[[int], None]) -> None:
        """Wait until every process has called this; meanwhile the first one calls `show` with the count."""
        import torch.distributed as dist

        everyone = dist.barrier(async_op=True)
        while rank() == 0 and not everyone.is_completed():
            time.sleep(POLL)
            show(self.add(0))
        _collective(everyone.wait)
        show(self.add(0))
