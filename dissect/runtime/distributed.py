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
    number: int
    size: int
    store: dist.Store


_party: _Party | None = None  # one a process, as torch.distributed's own


class Deserted(DissectError):
    """Another process of the party has ended; that one knows why."""


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
        store, number, size = next(iter(dist.rendezvous("env://")))
        dist.init_process_group("gloo", store=store, rank=number, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DissectError(f"The processes of torchrun cannot find each other ({error}).") from error
    _party = _Party(number=number, size=size, store=store)
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


def number() -> int:
    """Which of them this is, from 0."""
    return _party.number if _party else 0


def local() -> int:
    """Which of the processes on its machine this is, from 0; each takes a GPU of its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _party else 0


def processors() -> int:
    """How many processors this process may use beside the others on its machine."""
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _party else 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, max(1, (os.cpu_count() or 1) // several))


def mine(parts: Sequence[T]) -> Sequence[T]:
    """Of the parts of some work, those of this process: every so-many-th."""
    return parts[number() :: size()]


def in_order(found: Sequence[T]) -> list[T]:
    """What all processes made of `mine(parts)`, in the order of the parts."""
    shares = joined(list(found))
    return [shares[k % len(shares)][k // len(shares)] for k in range(sum(map(len, shares)))]


def total(*tensors: Tensor) -> None:
    """Add up, in place, what every process has; tensors of the same shapes everywhere."""
    if size() > 1:
        import torch.distributed as dist

        for tensor in tensors:
            shared = tensor.cpu()  # itself, unless it lies on a GPU: what is exchanged lies on the CPU
            _together(partial(dist.all_reduce, shared))
            if shared is not tensor:
                tensor.copy_(shared)


def apart(tensor: Tensor) -> Tensor:
    """(…) -> (size, …): this process's, and zeros for the others'; their `total` holds what each has."""
    rows = tensor.new_zeros(size(), *tensor.shape)
    rows[number()] = tensor
    return rows


def joined(value: T) -> list[T]:
    """What every process has, in order."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    box: list[Any] = [None] * size()
    _together(lambda: dist.all_gather_object(box, value))
    return box


def first(work: Callable[[], T]) -> T:
    """Do it in the first process alone; the others wait, and get what it returned, or the error that it raised."""
    if size() == 1:
        return work()
    import torch.distributed as dist

    box: list[Any] = [None]
    if number() == 0:
        with _alone():
            try:
                box = [(True, work())]
            except DissectError as error:
                box = [(False, error)]
    _together(lambda: dist.broadcast_object_list(box, src=0))
    well, value = box[0]
    if not well:
        raise value
    return value  # type: ignore[no-any-return]


@contextmanager
def _alone() -> Iterator[None]:
    """Inside, this process does not wait for the others."""
    global _party
    kept, _party = _party, None
    try:
        yield
    finally:
        _party = kept


def _together(call: Callable[[], object]) -> None:
    try:
        call()
    except RuntimeError as error:
        raise Deserted(f"Another process has ended before the work was done ({one_line(error)}).") from error


def heard(error: DissectError) -> bool:
    """Whether another process has said the same, or why this one was deserted, so that it need not be said again."""
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
    """Let torchrun's own summary tell what was wrong, if it has started this process."""
    if by_torchrun():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


class Counter:
    """What all processes have done of a task together."""

    _made = 0

    def __init__(self) -> None:
        Counter._made += 1  # the same in every process, since they run the same program
        self._key = f"done/{Counter._made}"

    def add(self, count: int) -> int:
        """Add to it, and return it."""
        assert _party is not None
        return int(_party.store.add(self._key, count))

    def wait(self, show: Callable[[int], None]) -> None:
        """Until every process has come here; the first one shows meanwhile what was done."""
        import torch.distributed as dist

        everyone = dist.barrier(async_op=True)
        while number() == 0 and not everyone.is_completed():
            time.sleep(POLL)
            show(self.add(0))
        _together(everyone.wait)
        show(self.add(0))
