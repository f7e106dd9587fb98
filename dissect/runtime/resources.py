"""What networks get of the machine: how many samples at once, threads, memory."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import threadpool_limits

BATCH = {"cuda": 64, "cpu": 16}  # samples, where nothing is known of their images
GPU_PIXELS, GPU_MOST = 2**21, 512  # pixels that keep a GPU busy (an H100 is fastest so); samples at once, at most

TOGETHER = {"cpu": 2**19, "cuda": 2**25}  # numbers that fit a processor's cache, or keep a GPU busy
ROOM = 4 * 2**30  # bytes of a GPU's memory that scoring may take

# Parameters of glibc's mallopt, from its malloc.h; USUAL is what holds otherwise once large blocks have come and gone
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEEP = {TRIM_THRESHOLD: -1, MMAP_MAX: 0}
USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}


def usual_batch(device: torch.device, image: Sequence[int] | None = None) -> int:
    """How many samples at once, for images of so many pixels (height, width), where the user names no number.

    On a GPU as many as keep it busy: a batch of small images is over before the next one has been asked for.
    """
    if device.type != "cuda" or image is None:
        return BATCH.get(device.type, BATCH["cpu"])
    return max(BATCH["cuda"], min(GPU_MOST, GPU_PIXELS // math.prod(image)))


def scoring_device(device: torch.device) -> torch.device:
    """Where units are scored: on the GPU that drew the images, where it has memory for that; else on the CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        if free >= ROOM:
            return device
    return torch.device("cpu")


@contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products of float32 in full, whatever the user has set: sums of whole numbers are exact then."""
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(usual)


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
        self._trials = [1, many, 1] if many > 1 else []  # the first batch is a warm-up
        self._seconds: dict[int, float] = {}

    @property
    def undecided(self) -> bool:
        """Whether more batches are needed to tell; with one thread there is nothing to try."""
        return bool(self._trials)

    def __enter__(self) -> None:
        if self._trials:
            torch.set_num_threads(self._trials[0])
            self._started = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        if self._trials:
            self._seconds[self._trials.pop(0)] = time.perf_counter() - self._started
            if not self._trials:
                torch.set_num_threads(min(self._seconds, key=lambda threads: self._seconds[threads]))


@contextmanager
def faster_threads(work: Callable[[], object]) -> Iterator[None]:
    """Inside, torch and numpy have as many threads as `work` is faster with, all or one; see `Threads`."""
    usual, threads = torch.get_num_threads(), Threads()
    try:
        while threads.undecided:
            with threads:
                work()
        with threadpool_limits(torch.get_num_threads(), "blas"):
            yield
    finally:
        torch.set_num_threads(usual)
