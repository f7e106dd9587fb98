"""Networks that run side by side on a CPU give what one of them gives alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganatomy.dissect import Generator, NormalLatents, load_generator, run
from ganatomy.dissect.capture.replicas import MOST, SMALL, namers, pairs, side_by_side, twin
from ganatomy.hooks.errors import DissectError
from ganatomy.segmenters import load_segmenter

from ..conftest import ColourSegmenter, Painter
from ..support.killed import TABLES


@pytest.fixture
def threads() -> Iterator[None]:
    """Three threads for torch, for as many pairs."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Remembering(Painter):
    """Keeps in itself what it is at, as a network of the user's may."""

    def forward(self, latents: Tensor) -> Tensor:
        self.at = latents
        for _ in range(20):  # time for others to come between
            torch.randn(64, 64) @ torch.randn(64, 64)
        return super().forward(self.at)


def dissected(module: nn.Module, segmenter: Any, folder: Path, source: Any = None) -> list[bytes]:
    model = Generator(module=module, name="painter", source=source or NormalLatents((6,)), layers=("paint",))
    run(model, layers=["paint"], segmenter=segmenter, samples=300, out=folder, quiet=True)
    return [(folder / name).read_bytes() for name in TABLES]


@pytest.fixture
def anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of others, too, run side by side."""
    monkeypatch.setattr("ganatomy.dissect.capture.replicas._is_ours", lambda *_: True)


@pytest.mark.usefixtures("threads", "anyone")
def test_side_by_side_is_one_after_the_other(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    alone = dissected(Remembering(), ColourSegmenter(), tmp_path / "alone")
    torch.set_num_threads(3)
    several = dissected(Remembering(), ColourSegmenter(), tmp_path / "several")
    assert several == alone
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
def test_networks_of_others_run_alone(tmp_path: Path) -> None:
    class Seeded:
        """Latents from torch's global random numbers: a function of the index, but of one thread at a time."""

        seed = 0

        def __call__(self, indices: Any) -> Tensor:
            found = []
            for index in indices:
                torch.manual_seed(index)
                found.append(torch.randn(6))
            return torch.stack(found)

        def seeded(self, seed: int) -> Seeded:
            return self

    several = dissected(Painter(), ColourSegmenter(), tmp_path / "several", Seeded())
    torch.set_num_threads(1)
    assert several == dissected(Painter(), ColourSegmenter(), tmp_path / "alone", Seeded())


@pytest.mark.usefixtures("threads")
@pytest.mark.slow
def test_ours_run_side_by_side_if_nobody_listens(colours: ColourSegmenter) -> None:
    model, namer = load_generator("progan_scenes"), load_segmenter("scenes")
    assert len(pairs(model, namer, SMALL)) == min(3, MOST)
    assert len(pairs(model, namer, SMALL + 1)) == 1  # large images keep all threads busy
    assert len(pairs(model, colours, SMALL)) == 1
    assert len(pairs(Generator(module=Painter(), name="p", source=NormalLatents((6,))), namer, SMALL)) == 1
    handle = model.module.layer4.register_forward_hook(lambda *_: None)
    assert len(pairs(model, namer, SMALL)) == 1
    handle.remove()
    cpu = torch.device("cpu")
    assert len(namers(namer, cpu, SMALL)) == min(3, MOST)
    assert len(namers(namer, cpu, SMALL + 1)) == len(namers(colours, cpu, SMALL)) == 1
    networks = pairs(model, namer, SMALL)
    torch.set_num_threads(1)
    with torch.inference_mode():
        expected = [namer(model(model.latents(range(k, k + 4)))) for k in range(0, 32, 4)]
        found = side_by_side(
            lambda g, s, part: s(g(g.latents(part))), networks, [range(k, k + 4) for k in range(0, 32, 4)]
        )
        assert all(torch.equal(one, other) for one, (_, other) in zip(expected, found, strict=True))


@pytest.mark.usefixtures("threads")
def test_twins_share_weights_and_nothing_else() -> None:
    class Holder:
        def __init__(self) -> None:
            self.network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.seen: list[int] = []

    one = Holder()
    other = twin(one)
    assert other.network[0].weight is one.network[0].weight
    assert other.network[1].running_mean is not one.network[1].running_mean
    assert other.network is not one.network
    assert other.seen is not one.seen


@pytest.mark.usefixtures("threads", "anyone")
def test_results_come_in_order_and_errors_come_out(painter: Generator, colours: ColourSegmenter) -> None:
    seen = []

    def work(_generator: Generator, _segmenter: Any, part: int) -> int:
        seen.append(threading.get_ident())
        if part == 20:
            raise DissectError("twenty")
        return part * part

    found: list[tuple[int, int]] = []
    with pytest.raises(DissectError, match="twenty"):
        found.extend(side_by_side(work, pairs(painter, colours, SMALL), range(100)))
    assert found == [(k, k * k) for k in range(20)]
    assert len(seen) < 40  # the rest was not begun
    assert threading.get_ident() not in seen


@pytest.mark.usefixtures("threads", "anyone")
def test_hooks_are_gone_after_a_failure(colours: ColourSegmenter, tmp_path: Path) -> None:
    class Failing(ColourSegmenter):
        calls = 0

        def __call__(self, images: Tensor) -> Tensor:
            Failing.calls += 1
            if Failing.calls > 4:
                raise ValueError("no more")
            return super().__call__(images)

    module = Painter()
    with pytest.raises(DissectError, match="no more"):
        dissected(module, Failing(), tmp_path / "run")
    assert not any(one._forward_hooks for one in module.modules())


@pytest.mark.usefixtures("threads", "anyone")
def test_memory_that_runs_out_makes_smaller_batches_and_fewer_at_once(tmp_path: Path) -> None:
    class Greedy(ColourSegmenter):
        sizes: list[int] = []  # noqa: RUF012

        def __call__(self, images: Tensor) -> Tensor:
            Greedy.sizes.append(len(images))
            if len(images) > 3:
                raise MemoryError
            return super().__call__(images)

    assert dissected(Painter(), Greedy(), tmp_path / "a") == dissected(Painter(), ColourSegmenter(), tmp_path / "b")
    assert max(Greedy.sizes) == 16
    assert Greedy.sizes.count(2) >= 140
