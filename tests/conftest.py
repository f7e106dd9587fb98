"""Tiny generators and segmenters with planted truth."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Dissection, Effects, Generator, NormalLatents, run
from ganatomy.segmenters import Vocabulary

from .support.browser import page as page
from .support.releases import writer

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores share them
    torch.set_num_threads(1)

COLOURS = ("#ff0000", "#00ff00", "#0000ff", "#ffff00")
NAMES = ("red", "green", "blue", "yellow")
SIDE = 32

Go = Callable[..., Dissection]
Do = Callable[..., Effects]

RED, GREEN, CONSTANT, UNITS = 3, 7, 5, 40  # of the planted generator


class Painter(nn.Module):
    """Unit k of `paint` is 1 on a square whose place depends on the latent, and the image shows it in colour k.

    Units 4 and up paint nothing: 4 is constantly zero and 5 is noise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.Identity()
        self.colour = nn.Conv2d(6, 3, 1, bias=False)
        shown = [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]
        self.colour.weight.data = torch.tensor(shown)[:, :, None, None]

    def forward(self, latents: Tensor) -> Tensor:
        axis = torch.arange(8)
        corner = (latents[:, :2].sigmoid() * 3).floor()  # (N, 2), 0 to 2
        units = []
        for k in range(4):
            left, top = corner[:, 0] + 3 * (k % 2), corner[:, 1] + 3 * (k // 2)
            across = (axis >= left[:, None]) & (axis < left[:, None] + 2)
            down = (axis >= top[:, None]) & (axis < top[:, None] + 2)
            square = down[:, :, None] & across[:, None, :]
            here = latents[:, 2 + k, None, None] > 0  # half of the images have it
            units.append((square & here).float())
        noise = torch.sin(1000 * (latents[:, :1, None] + axis[:, None] * 3.7 + axis * 1.3))
        maps = self.paint(torch.stack([*units, torch.zeros_like(units[0]), noise], 1))  # (N, 6, 8, 8)
        return nn.functional.interpolate(self.colour(maps.nan_to_num()), scale_factor=SIDE // 8) * 2 - 1


class ColourSegmenter:
    """Names a pixel by its colour; black is unlabelled."""

    name = "colours"
    vocabulary = Vocabulary(names=NAMES, categories=("object",) * 4, colours=COLOURS)

    def __call__(self, images: Tensor) -> Tensor:
        red, green, blue = (images > 0.5).unbind(1)
        labels = torch.full_like(red, -1, dtype=torch.int64)
        for index, where in enumerate((red & ~green, green & ~red, blue, red & green)):
            labels[where] = index
        return labels[:, None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that open a page are marked as such."""
    for item in items:
        if "page" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def painter() -> Generator:
    return Generator(module=Painter(), name="painter", source=NormalLatents((6,)), layers=("paint",))


@pytest.fixture
def colours() -> ColourSegmenter:
    return ColourSegmenter()


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder for factories of the user's own; their modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def go(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> Go:
    """Dissect the painter; any option can be changed."""

    def call(**options: Any) -> Dissection:
        usual: dict[str, Any] = {
            "model": painter,
            "layers": [1],
            "segmenter": colours,
            "samples": 200,
            "out": tmp_path / "run",
            "quiet": True,
        }
        return run(**(usual | options))

    return call


class Squares(nn.Module):
    """latents (N, 6) -> maps (N, 40, 8, 8): unit 3 a square of 2×2 cells, unit 7 another, 5 constant, others noise."""

    def forward(self, latents: Tensor) -> Tensor:
        axis = torch.arange(8)
        maps = torch.sin(1000 * (latents[:, :1, None, None] + torch.arange(UNITS)[:, None, None] * 3.7 + axis * 1.3))
        maps = maps.repeat(1, 1, 8, 1)
        for unit, left in ((RED, 0), (GREEN, 4)):
            start = (latents[:, unit % 6, None].sigmoid() * 3).floor() + left
            across = (axis >= start) & (axis < start + 2)
            down = (axis >= start - left) & (axis < start - left + 2)
            maps[:, unit] = (down[:, :, None] & across[:, None]).float()
        maps[:, CONSTANT] = 0.25
        return maps


class Planted(nn.Module):
    """A chain from `paint` on; only units 3 and 7 are seen by the colours, and 5 as a little blue."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = Squares()
        self.colour = nn.Conv2d(UNITS, 3, 1, bias=False)
        self.grow = nn.Upsample(scale_factor=4)
        nn.init.zeros_(self.colour.weight)
        with torch.no_grad():
            for channel, unit in enumerate((RED, GREEN, CONSTANT)):
                self.colour.weight[channel, unit] = 1.0

    def forward(self, latents: Tensor) -> Tensor:
        return self.grow(self.colour(self.paint(latents)))


class Soft(ColourSegmenter):
    """With probabilities: a pixel is red as far as its red exceeds its green, and green likewise."""

    name = "soft"

    def probabilities(self, images: Tensor) -> Tensor:
        red, green, blue = images.unbind(1)
        return torch.stack([red * (1 - green), green * (1 - red), blue, red * green], 1)


@pytest.fixture
def planted() -> Generator:
    module = Planted().requires_grad_(False)
    return Generator(
        module=module, name="planted", source=NormalLatents((6,)), layers=("paint", "colour"), output_range=(0, 1)
    )


@pytest.fixture
def found(planted: Generator, tmp_path: Path) -> Dissection:
    out = tmp_path / "run"
    return run(planted, layers=[1], segmenter=Soft(), samples=120, out=out, quiet=True)


@pytest.fixture
def do(planted: Generator, found: Dissection) -> Callable[[str], Do]:
    """`do("ablate")(…)` with the planted generator on a small number of samples."""

    def named(kind: str) -> Do:
        def call(**options: Any) -> Effects:
            usual = {"generator": planted, "segmenter": Soft(), "samples": 24, "quiet": True}
            return getattr(dissect, kind)(found, **(usual | options))

        return call

    return named


def make_varied(network: nn.Module, last: str, scores: Callable[[Any], Tensor]) -> None:
    """Calibrate a random segmentation network, in place, so that its labels vary from pixel to pixel.

    `last` names its last convolution, `scores` finds the class scores in its output.
    """
    sample = torch.rand(2, 3, 64, 64)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of the sample: features of unit variance
    with torch.no_grad():
        network(sample)
        average = scores(network.eval()(sample)).mean((0, 2, 3))
        network.get_submodule(last).bias -= average  # no class wins everywhere


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a release file in NVIDIA's format."""
    return writer(tmp_path)
