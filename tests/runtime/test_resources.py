"""What networks get of the machine is given back, and memory is kept while they work."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from ganatomy.dissect.runtime import resources
from ganatomy.dissect.runtime.resources import at_work, exact_products, faster_threads, usual_batch

MODERATE, LARGE = 2**21, 2**24  # float32 values: 8 MiB, which glibc keeps by itself, and 64 MiB, which it does not
PAGES = LARGE * 4 // resource.getpagesize()


@pytest.mark.parametrize(
    ("device", "image", "batch"),
    [
        ("cpu", (64, 64), 16),
        ("cpu", None, 16),
        ("cuda", None, 64),
        ("cuda", (64, 64), 512),
        ("cuda", (32, 32), 512),
        ("cuda", (128, 128), 128),
        ("cuda", (1024, 1024), 64),
    ],
)
def test_small_images_come_many_at_once_on_a_gpu(device: str, image: tuple[int, int] | None, batch: int) -> None:
    assert usual_batch(torch.device(device), image) == batch


def test_products_are_exact_for_a_while_only() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with exact_products():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def first_touches(size: int = LARGE) -> int:
    """How many pages the kernel hands out for one more large result, others being freed."""
    touched = []
    for _ in range(12):  # until malloc has found its places
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(size)
        touched.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(touched[3:])


@pytest.mark.skipif(resources._glibc() is None, reason="only glibc is told to keep memory")
@pytest.mark.slow
def test_memory_is_kept_at_work_and_given_back_afterwards() -> None:
    # in a process of its own, on its main thread: others' threads and what they hold change what malloc does
    command = [sys.executable, "-c", "from tests.runtime.test_resources import kept_and_given_back as check; check()"]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=120)


def kept_and_given_back() -> None:
    with at_work():
        with at_work():
            assert first_touches() < 100
        assert first_touches() < 100  # the inner one has not given it back
    held = resident()
    with at_work():
        torch.ones(LARGE)
        assert resident() > held + 0.9 * PAGES
    assert resident() < held + 0.1 * PAGES
    assert first_touches(MODERATE) < 500  # of 2,048: what glibc keeps by itself it still does


def resident() -> int:
    """Pages in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_threads_are_as_before_even_after_an_error() -> None:
    before = torch.get_num_threads()

    @at_work()
    def failing() -> None:
        torch.set_num_threads(before + 1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        failing()
    assert torch.get_num_threads() == before
    assert resources._within == 0


def test_where_there_is_no_glibc_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: None) -> None:
        raise TypeError("as on Windows")

    resources._glibc.cache_clear()
    monkeypatch.setattr(resources.ctypes, "CDLL", none)
    try:
        with at_work():
            assert resources._glibc() is None
    finally:
        resources._glibc.cache_clear()


def test_what_the_user_told_the_allocator_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    resources._glibc.cache_clear()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    try:
        assert resources._glibc() is None
    finally:
        resources._glibc.cache_clear()


@pytest.mark.parametrize("faster", [1, 2])
def test_work_gets_the_faster_number_of_threads(faster: int) -> None:
    def work() -> None:
        time.sleep(0.001 if torch.get_num_threads() == faster else 0.05)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with faster_threads(work):
            assert torch.get_num_threads() == faster
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} <= {faster}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_where_there_is_one_thread_nothing_is_tried() -> None:
    before, calls = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with faster_threads(lambda: calls.append(1)):
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert not calls
