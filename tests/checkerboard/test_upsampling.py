"""What a network does to the size of its maps, found by running it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.checkerboard.closed_form import notch
from ganatomy.dissect.checkerboard.upsampling import INTERPOLATION, SHUFFLE, TRANSPOSED, UNKNOWN, upsamplings
from ganatomy.dissect.generators.kept_edits import attach_notch
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.hooks.functional_calls import Call, watched


class Functional(nn.Module):
    """Upsampling in the forward pass itself, with weights that are no module's."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 6, 3, 3))
        self.conv = nn.Conv2d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv_transpose2d(x, self.kernel, stride=(2, 1), padding=1, output_padding=(1, 0))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Unflatten(1, (8, 1, 1)), nn.ConvTranspose2d(8, 4, 4))
        self.inner = Functional()
        self.shuffled = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.PixelShuffle(2))
        self.repeated = nn.Conv2d(2, 3, 3, padding=1)
        self.last = nn.Upsample(scale_factor=2)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.shuffled(self.inner(self.start(latents)))
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # no function that is known
        return self.last(self.repeated(x))


def generator(module: nn.Module) -> Generator:
    return Generator(module=module.requires_grad_(False), name="it", source=NormalLatents((8,)))


def test_every_kind_is_found_in_order() -> None:
    sites = upsamplings(generator(Whole()))
    assert [(site.name, site.kind, site.factor) for site in sites] == [
        ("inner", TRANSPOSED, (2, 1)),
        ("inner.conv", INTERPOLATION, (2, 2)),
        ("shuffled.1", SHUFFLE, (2, 2)),
        ("repeated", UNKNOWN, (2, 2)),
        ("last", INTERPOLATION, (2, 2)),
    ]
    assert sites[0].uneven
    assert sites[0].pattern is not None
    assert sites[0].pattern.tolist() == [[3], [6]]
    assert [site.how for site in sites] == [
        "",
        "bilinear, then convolution",
        "",
        "unknown means, then convolution",
        "nearest",
    ]
    assert sites[2].source == ("shuffled.0", "conv2d", 0)
    assert [site.maps for site in sites] == [(6, 8, 4), (6, 16, 8), (2, 32, 16), (3, 64, 32), (3, 128, 64)]
    assert [site.period((128, 64)) for site in sites] == [(32, 16), (16, 16), (8, 8), (4, 4), (2, 2)]
    assert sites[0].period((100, 50)) is None


def test_the_predicted_tile_is_what_comes_out_of_a_flat_input() -> None:
    module = Whole()
    level, answers = torch.randn(4), {}

    def see(call: Call, output: Tensor) -> Tensor | None:
        if call.place == ("start.1", "conv_transpose2d", 0):
            return level.view(1, 4, 1, 1).expand(output.shape[0], 4, 24, 24)
        answers[call.place] = output
        return None

    first, _, shuffle, *_ = upsamplings(generator(module))
    with torch.no_grad(), watched(module, see):
        module(torch.randn(1, 8))
    tile = first.predicted_tile(level)
    assert tile is not None
    assert torch.allclose(tile, answers[first.place][0, :, 20:22, 12:13], atol=1e-5)
    flat = torch.randn(6)
    with torch.no_grad():
        out = module.shuffled(flat.view(1, 6, 1, 1).expand(1, 6, 12, 12))
    tile = shuffle.predicted_tile(flat)
    assert tile is not None
    assert torch.allclose(tile, out[0, :, 10:12, 10:12], atol=1e-5)


def test_replacing_what_a_call_returns_changes_what_follows_and_leaves_no_hook() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    x = torch.randn(2, 1, 3, 3)
    with watched(module, lambda call, out: torch.zeros_like(out) if call.owner == "0" else None):
        assert torch.equal(module(x), module[1](torch.zeros(2, 1, 3, 3)))
    places: list[tuple[str, str, int]] = []
    with watched(module, lambda call, _: places.append(call.place)):
        module(x)
        with pytest.raises(RuntimeError):
            module(torch.randn(2, 5, 3, 3))
    assert places == [("0", "conv2d", 0), ("1", "conv2d", 0)]
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    module(x)
    assert len(places) == 2


def test_a_call_is_counted_within_its_pass() -> None:
    shared = nn.Conv2d(2, 2, 1)
    module = nn.Sequential(shared, shared)
    places: list[tuple[str, str, int]] = []
    with watched(module, lambda call, _: places.append(call.place)):
        module(torch.randn(1, 2, 3, 3))
        module(torch.randn(1, 2, 3, 3))
    assert places == [("0", "conv2d", 0), ("0", "conv2d", 1)] * 2


def test_what_only_looks_finer_is_no_upsampling() -> None:
    """A gate of one pixel, a margin as large as a map, a branch that was made coarser."""

    class Sidelong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = nn.ConvTranspose2d(8, 4, 4)
            self.gate, self.coarse = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 2, 1)
            self.wide, self.up = nn.Conv2d(4, 4, 5), nn.ConvTranspose2d(4, 3, 4, 2, 1)

        def forward(self, latents: Tensor) -> Tensor:
            x = self.start(latents.view(-1, 8, 1, 1))
            x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid() + self.coarse(x).mean()
            return self.up(self.wide(F.pad(x, (2, 2, 2, 2), mode="reflect")))

    whole = generator(Sidelong())
    assert [site.name for site in upsamplings(whole)] == ["up"]
    attach_notch(whole.module, notch((8, 8)))  # a filter of the finished image pads by several times its size
    assert [site.name for site in upsamplings(whole)] == ["up"]


def test_an_activation_in_place_before_a_pixel_shuffle_hides_its_weights() -> None:
    parts = (nn.Unflatten(1, (8, 1, 1)), nn.Upsample(scale_factor=8), nn.Conv2d(8, 12, 3), nn.PixelShuffle(2))
    assert upsamplings(generator(nn.Sequential(*parts)))[-1].source == ("2", "conv2d", 0)
    hidden = nn.Sequential(*parts[:3], nn.LeakyReLU(0.1, inplace=True), parts[3])
    assert upsamplings(generator(hidden))[-1].source is None


def test_a_network_that_makes_nothing_finer_is_refused() -> None:
    flat = nn.Sequential(nn.Linear(8, 3 * 64), nn.Unflatten(1, (3, 8, 8)), nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(UsageError, match="makes no map finer"):
        upsamplings(generator(flat))
    broken = nn.Sequential(nn.Unflatten(1, (8, 1, 1)), nn.ConvTranspose2d(5, 3, 4))
    with pytest.raises(DissectError, match="two probe samples"):
        upsamplings(generator(broken))
