"""What networks get of the machine is given back, and memory is kept while they work."""

from __future__ import annotations

import resource

import pytest
import torch

from ganatomy.dissect import resources
from ganatomy.dissect.resources import at_work

LARGE = 2**24  # float32 values: 64 MiB, which no allocator keeps by itself
PAGES = LARGE * 4 // resource.getpagesize()


def first_touches() -> int:
    """How many pages the kernel hands out for a second large result, the first being freed."""
    torch.ones(LARGE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(LARGE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(resources._glibc() is None, reason="only glibc is told to keep memory")
def test_memory_is_kept_at_work_and_given_back_afterwards() -> None:
    with at_work():
        with at_work():
            assert first_touches() < 100
        assert first_touches() < 100  # the inner one has not given it back
    held = resident()
    with at_work():
        torch.ones(LARGE)
        assert resident() > held + 0.9 * PAGES
    assert resident() < held + 0.1 * PAGES


def resident() -> int:
    """Pages in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_threads_are_as_before_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="broken"), at_work():
        torch.set_num_threads(before + 1)
        raise ValueError("broken")
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
