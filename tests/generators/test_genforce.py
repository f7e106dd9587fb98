"""Generators in GenForce's layout draw what the papers define of the numbers that their files hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganatomy.dissect import load_generator
from ganatomy.dissect.generators.families import progan, stylegan, stylegan2
from ganatomy.hooks.errors import DissectError

State = dict[str, Tensor]
LATENT, WIDTHS = 6, (7, 7, 5, 4)
FILTER = torch.tensor([1.0, 3, 3, 1])[:, None] * torch.tensor([1.0, 3, 3, 1]) / 16  # its gain of 4 included


@pytest.fixture
def dice() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(3)
    return lambda *shape: torch.randn(*shape, generator=generator)


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def conv(x: Tensor, weight: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    return F.conv2d(x, weight * gain / math.sqrt(weight[0].numel()), padding=weight.shape[-1] // 2)


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def growing(dice: Callable[..., Tensor], fused: bool) -> State:
    state = {"lod": torch.zeros(())}
    for level, (before, now) in enumerate(zip((LATENT, *WIDTHS), WIDTHS, strict=False)):
        first = (now, before, 4, 4) if not level else (before, now, 3, 3) if fused else (now, before, 3, 3)
        state |= {f"layer{2 * level}.weight": dice(*first), f"layer{2 * level}.bias": dice(now)}
        state |= {f"layer{2 * level + 1}.weight": dice(now, now, 3, 3), f"layer{2 * level + 1}.bias": dice(now)}
        state |= {f"output{level}.weight": dice(3, now, 1, 1), f"output{level}.bias": dice(3)}
    return state


def grown(state: State, latents: Tensor, fused: bool) -> Tensor:
    x = rms(latents)[:, :, None, None]
    for number in range(2 * len(WIDTHS)):
        weight, x = state[f"layer{number}.weight"], rms(x)
        if number == 0:
            x = F.conv2d(F.pad(x, (3, 3, 3, 3)), weight * math.sqrt(2 / weight[0].numel()))
        elif number % 2 == 0 and fused:  # a transposed convolution: each input lays down its kernel, spread over 2×2
            wide = sum(F.pad(weight, (a, 1 - a, b, 1 - b)) for a in (0, 1) for b in (0, 1))
            x = F.conv_transpose2d(x, wide * math.sqrt(2 / (9 * len(weight))), stride=2, padding=1)
        else:
            x = conv(doubled(x) if number % 2 == 0 else x, weight)
        x = leaky(x + state[f"layer{number}.bias"][:, None, None])
    last = len(WIDTHS) - 1
    return conv(rms(x), state[f"output{last}.weight"], 1) + state[f"output{last}.bias"][:, None, None]


@pytest.mark.parametrize("fused", [False, True])
def test_progan(dice: Callable[..., Tensor], fused: bool, tmp_path: Path) -> None:
    state, latents = growing(dice, fused), dice(3, LATENT)
    torch.save({"generator_smooth": state, "generator": growing(dice, fused)}, tmp_path / "pggan.pth")
    found = load_generator(str(tmp_path / "pggan.pth"))
    assert isinstance(found.module, progan.ProGAN)
    assert found.recognised is not None
    assert "generator_smooth" in found.recognised
    assert "progan in GenForce's layout" in found.recognised
    with torch.no_grad():
        assert torch.allclose(found.module(latents), grown(state, latents, fused), atol=1e-4)
    with pytest.raises(DissectError, match=r"still growing \(1\.5 doublings"):
        progan.infer(state | {"lod": torch.tensor(1.5)})


def mapped(state: State, latents: Tensor, gain: float, after: float) -> Tensor:
    x = rms(latents)
    for number in (0, 1):
        weight, bias = state[f"mapping.dense{number}.weight"], state[f"mapping.dense{number}.bias"]
        x = leaky(x @ weight.T * (gain * 0.01 / math.sqrt(weight.shape[1])) + bias * 0.01) * after
    return x


def styled(dice: Callable[..., Tensor], units: int) -> tuple[State, Callable[[str, int], State]]:
    state = {"truncation.w_avg": dice(LATENT)}
    for number in (0, 1):
        state |= {f"mapping.dense{number}.weight": dice(LATENT, LATENT) * 100}
        state |= {f"mapping.dense{number}.bias": dice(LATENT) * 100}
    return state, lambda name, count: {
        f"{name}.style.weight": dice(count * units, LATENT),
        f"{name}.style.bias": dice(count * units),
    }


def second(dice: Callable[..., Tensor]) -> State:
    state, style = styled(dice, 1)
    state |= {"synthesis.early_layer.const": dice(1, WIDTHS[0], 4, 4), "synthesis.upsample.kernel": FILTER[None, None]}
    for level, now in enumerate(WIDTHS):
        for number in (2 * level - 1, 2 * level) if level else (0,):
            before = WIDTHS[level - 1] if number % 2 else now
            name, side = f"synthesis.layer{number}", 4 << level
            state |= {f"{name}.weight": dice(now, before, 3, 3), f"{name}.bias": dice(now), **style(name, before)}
            state |= {f"{name}.noise": dice(1, 1, side, side), f"{name}.noise_strength": dice(1)[0]}
            if number % 2:
                state[f"{name}.filter.kernel"] = FILTER[None, None]
        name = f"synthesis.output{level}"
        state |= {f"{name}.weight": dice(3, now, 1, 1), f"{name}.bias": dice(3), **style(name, now)}
    return state


def second_draws(state: State, latents: Tensor) -> Tensor:
    w = mapped(state, latents, 1, math.sqrt(2))

    def modulated(name: str, x: Tensor, demodulated: bool) -> Tensor:
        weight = state[f"{name}.weight"]
        weight = weight / math.sqrt(weight[0].numel())
        style = w @ state[f"{name}.style.weight"].T / math.sqrt(LATENT) + state[f"{name}.style.bias"] + 1
        rows = []
        for row, s in zip(x, style, strict=True):
            own = weight * s[:, None, None]
            if demodulated:
                own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            if f"{name}.filter.kernel" in state:  # zeros between the pixels, then the kernel as the file has it
                apart = row.new_zeros(len(row), 2 * row.shape[1] - 1, 2 * row.shape[2] - 1)
                apart[:, ::2, ::2] = row
                full = F.conv2d(F.pad(apart, (2, 2, 2, 2))[None], own)
                rows.append(F.conv2d(F.pad(full, (1, 1, 1, 1)).transpose(0, 1), FILTER[None, None])[:, 0])
            else:
                rows.append(F.conv2d(row[None], own, padding=own.shape[-1] // 2)[0])
        return torch.stack(rows)

    x, image = state["synthesis.early_layer.const"].expand(len(latents), -1, -1, -1), None
    for number in range(2 * len(WIDTHS) - 1):
        name = f"synthesis.layer{number}"
        x = modulated(name, x, True) + state[f"{name}.noise"] * state[f"{name}.noise_strength"]
        x = leaky(x + state[f"{name}.bias"][:, None, None]) * math.sqrt(2)
        if number % 2 == 0:
            name = f"synthesis.output{number // 2}"
            added = modulated(name, x, False) + state[f"{name}.bias"][:, None, None]
            if image is not None:
                apart = image.new_zeros(*image.shape[:2], 2 * image.shape[2], 2 * image.shape[3])
                apart[:, :, ::2, ::2] = image
                wide = F.pad(apart, (2, 1, 2, 1))
                added = added + F.conv2d(wide, FILTER.expand(3, 1, 4, 4), groups=3)
            image = added
    assert image is not None
    return image


def test_stylegan2(dice: Callable[..., Tensor]) -> None:
    state, latents = second(dice), dice(3, LATENT)
    module = stylegan2.infer(state)
    with torch.no_grad():
        assert torch.allclose(module(latents), second_draws(state, latents), atol=1e-4)
    assert torch.equal(module.mean_style(), state["truncation.w_avg"])
    with pytest.raises(DissectError, match=r"key synthesis\.b4\.resample_filter is missing"):
        stylegan2.infer({key: value for key, value in state.items() if key != "synthesis.upsample.kernel"})
    with pytest.raises(DissectError, match="classes are normed together"):
        stylegan2.infer(state | {"mapping.label_weight": dice(3, LATENT)})


def first(dice: Callable[..., Tensor], widths: tuple[int, ...]) -> State:
    state, style = styled(dice, 2)
    state["synthesis.lod"] = torch.zeros(())
    taps = torch.tensor([1.0, 2, 1])[:, None] * torch.tensor([1.0, 2, 1]) / 16
    for number in range(2 * len(widths)):
        level, name = number // 2, f"synthesis.layer{number}"
        now, side = widths[level], 4 << level
        if number == 0:
            state[f"{name}.const"] = dice(1, now, 4, 4)
        else:
            state[f"{name}.weight"] = dice(now, now if number % 2 else widths[level - 1], 3, 3)
        if number and number % 2 == 0:
            state[f"{name}.blur.kernel"] = taps.expand(now, 1, 3, 3).clone()
        state |= {f"{name}.bias": dice(now), **style(name, now)}
        state |= {f"{name}.apply_noise.weight": dice(now), f"{name}.apply_noise.noise": dice(1, 1, side, side)}
        if number % 2:
            state |= {f"synthesis.output{level}.weight": dice(3, now, 1, 1), f"synthesis.output{level}.bias": dice(3)}
    return state


def first_draws(state: State, latents: Tensor, levels: int) -> Tensor:
    w = mapped(state, latents, math.sqrt(2), 1)
    x = state["synthesis.layer0.const"].expand(len(latents), -1, -1, -1)
    for number in range(2 * levels):
        name = f"synthesis.layer{number}"
        if number:
            weight = state[f"{name}.weight"]
            if number % 2 == 0 and 4 << number // 2 >= 128:  # a transposed convolution, spread over 2×2
                wide = sum(F.pad(weight, (a, 1 - a, b, 1 - b)) for a in (0, 1) for b in (0, 1))
                wide = wide.transpose(0, 1) * math.sqrt(2 / weight[0].numel())
                x = F.conv_transpose2d(x, wide, stride=2, padding=1)
            else:
                x = conv(doubled(x) if number % 2 == 0 else x, weight)
            if number % 2 == 0:
                x = F.conv2d(x, state[f"{name}.blur.kernel"], padding=1, groups=x.shape[1])
        x = x + state[f"{name}.apply_noise.noise"] * state[f"{name}.apply_noise.weight"][:, None, None]
        x = leaky(x + state[f"{name}.bias"][:, None, None])
        x = x - x.mean((2, 3), keepdim=True)
        x = x / (x.square().mean((2, 3), keepdim=True) + 1e-8).sqrt()
        style = w @ state[f"{name}.style.weight"].T / math.sqrt(LATENT) + state[f"{name}.style.bias"]
        gain, shift = style[:, :, None, None].chunk(2, 1)
        x = x * (gain + 1) + shift
    last = f"synthesis.output{levels - 1}"
    return conv(x, state[f"{last}.weight"], 1) + state[f"{last}.bias"][:, None, None]


@pytest.mark.parametrize("widths", [WIDTHS, (4, 4, 4, 3, 3, 2)])
def test_stylegan(dice: Callable[..., Tensor], widths: tuple[int, ...], tmp_path: Path) -> None:
    state, latents = first(dice, widths), dice(3, LATENT)
    torch.save({"generator_smooth": state}, tmp_path / "stylegan.pth")
    found = load_generator(str(tmp_path / "stylegan.pth"))
    module = found.module
    assert isinstance(module, stylegan.StyleGAN)
    with torch.no_grad():
        assert torch.allclose(module(latents), first_draws(state, latents, len(widths)), atol=1e-4)
    assert torch.equal(module.mean_style(), state["truncation.w_avg"])
    with pytest.raises(DissectError, match="still growing"):
        stylegan.infer(state | {"synthesis.lod": torch.ones(())})
