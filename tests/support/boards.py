"""A generator whose checkerboard is planted: smooth maps, doubled by a transposed convolution, a little noise."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ganatomy.dissect import Generator, NormalLatents

SIZE = (32, 48)  # of the images
LATENT = 7


class Board(nn.Module):
    """Four units of smooth waves at half the size, the mean of each well above zero; `up` mixes them into colours.

    ripple: what one phase of `up` weighs more, as a share of the whole; 0 is the bilinear kernel, which has none.
    """

    def __init__(self, ripple: float = 0.2, size: tuple[int, int] = SIZE) -> None:
        super().__init__()
        self.size = size
        self.units = nn.Identity()
        self.up = nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False)
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        colours = torch.tensor([[0.4, 0.2, 0.1], [0.1, 0.3, 0.2], [0.1, 0.1, 0.4], [0.2, 0.2, 0.1]])
        kernel = line[:, None] * line
        kernel[1::2, 1::2] += ripple / 4  # the four taps of phase (0, 0)
        self.up.weight.data = colours[:, :, None, None] * kernel

    def forward(self, latents: Tensor) -> Tensor:
        height, width = (side // 2 for side in self.size)
        y, x = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 4, width)
        waves = [torch.sin(a * y + b * x + latents[:, k, None, None]) for k, (a, b) in enumerate(WAVES)]
        maps = self.units(0.6 + 0.25 * torch.stack(waves, 1))
        drawn = self.up(maps)
        place = torch.arange(self.size[0])[:, None] * 7.31 + torch.arange(self.size[1]) * 3.77
        grain = torch.sin(1e4 * torch.sin(place + 100 * latents[:, 4:, None, None]))  # (N, 3, H, W)
        mixed: Tensor = drawn + 0.02 * grain
        return mixed


class Repeated(nn.Module):
    """Makes maps finer by a view, without any function that tells, and every fourth pixel brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1, bias=False)
        self.mix = nn.Conv2d(4, 3, 1, bias=False)
        nn.init.dirac_(self.first.weight)
        nn.init.constant_(self.mix.weight, 0.15)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.stack([torch.stack([1.3 * x, x], -1), torch.stack([x, x], -1)], -3)  # (N, C, h, 2, w, 2)
        seen: Tensor = self.mix(x.flatten(4, 5).flatten(2, 3))
        return seen


WAVES = ((1.0, 0.3), (0.4, 1.1), (0.9, -0.8), (-0.5, 0.7))


def board(ripple: float = 0.2, size: tuple[int, int] = SIZE) -> Generator:
    module = Board(ripple, size).requires_grad_(False)
    return Generator(module=module, name="board", source=NormalLatents((LATENT,)), output_range=(0, 1))


def photographs(folder: Path, count: int = 120) -> Path:
    """Images of the generator without its checkerboard, of other latents."""
    folder.mkdir()
    clean = board(0.0)
    for number, image in enumerate(clean(clean.latents(range(5000, 5000 + count)))):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def make() -> Generator:
    """For the command line: tests.support.boards:make."""
    return board()


def bare() -> nn.Module:
    return Board()


def strided() -> nn.Module:
    """A critic whose gradient is known: the sum of 3×3 windows at every second pixel."""
    conv = nn.Conv2d(3, 1, 3, 2, 1, bias=False)
    nn.init.ones_(conv.weight)
    return conv


def unstrided() -> nn.Module:
    return nn.Conv2d(3, 1, 3)


def of_another_size() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 1, 4, 4), nn.Flatten(), nn.Linear(16, 1))


def flat() -> Generator:
    module = nn.Sequential(nn.Linear(LATENT, 3 * 64), nn.Unflatten(1, (3, 8, 8)))
    return Generator(module=module.requires_grad_(False), name="flat", source=NormalLatents((LATENT,)))
