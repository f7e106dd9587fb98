"""What networks get of the machine: how many samples at once, threads, memory."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

BATCH = {"cuda": 64, "cpu": 16}

# Parameters of glibc's mallopt, from its malloc.h; USUAL is what holds otherwise once large blocks have come and gone
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEEP = {TRIM_THRESHOLD: -1, MMAP_MAX: 0}
USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}

_within = 0  # how many `at_work` deep


@contextmanager
def at_work() -> Iterator[None]:
    """While networks run: freed memory stays with the process. Afterwards it goes back, and torch uses as many threads
    as before.

    glibc hands every large block back to the kernel as soon as it is free, and gets it anew, page by page and zeroed,
    for the next operation's result: on images of 256 pixels that took a third of the time of a generator and a
    segmenter on a CPU. Elsewhere than on glibc, or where the user has told it what to do, memory is left alone.
    """
    global _within
    threads = torch.get_num_threads()
    if not _within:
        _tell_malloc(KEEP)
    _within += 1
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _within -= 1
        if not _within:
            _tell_malloc(USUAL)
            if libc := _glibc():
                libc.malloc_trim(0)


def _tell_malloc(parameters: dict[int, int]) -> None:
    if libc := _glibc():
        for name, value in parameters.items():
            libc.mallopt(name, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # as on Windows
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None  # another's mallopt may mean something else


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
