"""Lower precision, where it is asked for and does no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ganatomy.dissect import Generator, NormalLatents, run
from ganatomy.dissect.capture.capture import deviation
from ganatomy.hooks.errors import UsageError

from ..conftest import ColourSegmenter


class Wobbly(torch.nn.Module):
    """Its image shows the third digit of a sum, which bfloat16 has not."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = torch.nn.Conv2d(6, 3, 1)
        self.maps.bias.data.fill_(100)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.sin(100 * self.maps(latents[:, :, None, None].expand(-1, -1, 8, 8)))


def test_bfloat16_is_told_by_how_much_it_is_off(go: Any, tmp_path: Path) -> None:
    exact, lower = go(out=tmp_path / "a"), go(precision="bfloat16", out=tmp_path / "b")
    assert exact.info["deviation"] is None
    assert 0 <= lower.info["deviation"]["images"] <= 0.01
    assert lower.info["config"]["precision"] == "bfloat16"
    with pytest.raises(UsageError, match="precision: there float32, requested bfloat16"):
        go(precision="bfloat16", out=tmp_path / "a")


def test_the_networks_do_compute_in_it(colours: ColourSegmenter, tmp_path: Path) -> None:
    seen = []

    class Watching(ColourSegmenter):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((images.dtype, torch.is_autocast_enabled("cpu")))
            return super().__call__(images)

    module = torch.nn.Sequential(torch.nn.Unflatten(1, (6, 1, 1)), torch.nn.ConvTranspose2d(6, 3, 8))
    module.register_forward_hook(lambda _module, _given, out: seen.append((out.dtype, True)))
    model = Generator(module=module, name="plain", source=NormalLatents((6,)), layers=("1",))
    run(model, layers=["1"], segmenter=Watching(), samples=4, precision="bfloat16", out=tmp_path / "run", quiet=True)
    assert (torch.bfloat16, True) in seen
    assert (torch.float32, True) in seen  # images are float32 always


def test_what_it_would_spoil_is_refused(colours: ColourSegmenter, tmp_path: Path) -> None:
    model = Generator(module=Wobbly(), name="wobbly", source=NormalLatents((6,)), layers=("maps",))
    with pytest.raises(UsageError, match=r"precision=.bfloat16.: .*`precision` float32"):
        run(model, layers=["maps"], segmenter=colours, samples=20, precision="bfloat16", out=tmp_path / "r", quiet=True)
    assert not (tmp_path / "r").exists()
    with pytest.raises(UsageError, match="precision='float8': must be one of float32, bfloat16"):
        run(model, layers=["maps"], segmenter=colours, precision="float8", out=tmp_path / "r", quiet=True)


def test_the_deviation_is_the_mean_difference(painter: Generator, colours: ColourSegmenter) -> None:
    images = painter(painter.latents(range(16))).detach()
    with torch.autocast("cpu", torch.bfloat16):
        lower = painter(painter.latents(range(16))).detach()
    found = deviation(painter, colours, "bfloat16", 500)
    assert found["images"] == pytest.approx(float((images - lower).abs().mean()))
    assert found["labels"] == pytest.approx(float((colours(images) != colours(lower)).float().mean()))
