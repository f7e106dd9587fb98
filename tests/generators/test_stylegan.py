"""StyleGAN and StyleGAN2 against second statements of their architectures, sample by sample, from keys alone."""

from __future__ import annotations

import math
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganatomy.dissect import ModelSpec, inspect, load_generator
from ganatomy.dissect.generators.families import stylegan, stylegan2
from ganatomy.dissect.generators.families.style_based import drawn_noise, fixed_noise
from ganatomy.hooks import Edit, Tap, edited
from ganatomy.hooks.errors import DissectError, DissectWarning, UsageError

State = dict[str, Tensor]
WIDTHS = (6, 5, 4)
LATENT, STYLE = 7, 8


def shaken(module: torch.nn.Module) -> State:
    """Every tensor drawn anew, so that none is at a value where its absence would not show; filters stay."""
    random = torch.Generator().manual_seed(3)
    return {
        key: tensor.clone()
        if "filter" in key or "flip" in key or key.endswith((".1.weight", ".2.weight"))
        else torch.randn(tensor.shape, generator=random) * (10 if "mapping.fc" in key else 1)
        for key, tensor in module.state_dict().items()
    }


@pytest.fixture
def released() -> State:
    """NVIDIA's layout: 16×16 pixels, two layers of mapping."""
    return shaken(stylegan2.StyleGAN2(LATENT, (9, STYLE), WIDTHS))


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(3, LATENT, generator=torch.Generator().manual_seed(1))


def rms(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-8)


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def between(x: Tensor, trailing: int) -> Tensor:
    """x (C, h, w) with zeros between its pixels."""
    out = torch.zeros(x.shape[0], 2 * x.shape[1] - 1 + trailing, 2 * x.shape[2] - 1 + trailing)
    out[:, ::2, ::2] = x
    return out


TAPS = {
    2: torch.tensor([1.0, 1.0]),
    4: torch.tensor([1.0, 3.0, 3.0, 1.0]),
    6: torch.tensor([1.0, 5.0, 10.0, 10.0, 5.0, 1.0]),
}


def filtered(x: Tensor, margin: tuple[int, int], number: int = 4) -> Tensor:
    taps = TAPS[number] / TAPS[number].sum() * 2
    taps = taps[:, None] * taps
    more = (number - 4) // 2  # the filter stays centred
    margin = (margin[0] + more, margin[1] + more)
    return torch.stack([F.conv2d(F.pad(one, margin * 2)[None, None], taps[None, None])[0, 0] for one in x])


def convolved(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool, up: bool = False, taps: int = 4
) -> Tensor:
    """x (C, h, w), weights modulated for one sample. A transposed convolution is one of spread-out pixels, flipped."""
    weight = weight * styles[None, :, None, None]
    if demodulate:
        weight = weight / torch.sqrt((weight * weight).sum((1, 2, 3), keepdim=True) + 1e-8)
    if up:
        return filtered(F.conv2d(between(x, 0)[None], weight.flip(2, 3), padding=2)[0], (1, 1), taps)
    return F.conv2d(x[None], weight, padding=weight.shape[-1] // 2)[0]


def release_draws(
    state: State, latents: Tensor, psi: float = 1.0, classes: int = 0, zeroed: int | None = None, taps: int = 4
) -> Tensor:
    def affine(name: str, w: Tensor) -> Tensor:
        return state[f"{name}.affine.weight"] @ w / math.sqrt(len(w)) + state[f"{name}.affine.bias"]

    def layer(name: str, x: Tensor, w: Tensor, up: bool) -> Tensor:
        styles = affine(name, w)
        weight = state[f"{name}.weight"]
        if zeroed is not None and name == "synthesis.b8.conv0":  # the weight's column goes, after demodulation
            norm = torch.sqrt(((weight * styles[None, :, None, None]) ** 2).sum((1, 2, 3), keepdim=True) + 1e-8)
            styles = styles.clone()
            styles[zeroed] = 0
            x = convolved(x, weight / norm, styles, demodulate=False, up=up, taps=taps)
        else:
            x = convolved(x, weight, styles, demodulate=True, up=up, taps=taps)
        x = x + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"]
        return lrelu(x + state[f"{name}.bias"][:, None, None])

    images = []
    for row in latents:
        w = rms(row[: len(row) - classes])
        if classes:
            embed = state["mapping.embed.weight"] @ row[-classes:] / math.sqrt(classes) + state["mapping.embed.bias"]
            w = torch.cat([w, rms(embed)])
        for number in (0, 1):
            weight, bias = state[f"mapping.fc{number}.weight"], state[f"mapping.fc{number}.bias"]
            w = lrelu(weight @ w * 0.01 / math.sqrt(len(w)) + bias * 0.01)
        w = state["mapping.w_avg"] + psi * (w - state["mapping.w_avg"])
        x = state["synthesis.b4.const"]
        image = torch.zeros(3, x.shape[1] // 2, x.shape[2] // 2)
        for side in (4, 8, 16):
            name = f"synthesis.b{side}"
            if side > 4:
                x = layer(f"{name}.conv0", x, w, True)
            x = layer(f"{name}.conv1", x, w, False)
            styles = affine(f"{name}.torgb", w) / math.sqrt(len(x))
            colours = convolved(x, state[f"{name}.torgb.weight"], styles, demodulate=False)
            image = filtered(between(image, 1), (2, 1), taps) + colours + state[f"{name}.torgb.bias"][:, None, None]
        images.append(image)
    return torch.stack(images)


def test_the_release_draws_as_defined(released: State, latents: Tensor) -> None:
    module = stylegan2.infer(released)
    assert torch.allclose(module(latents), release_draws(released, latents), atol=1e-4)
    assert module.layers == tuple(
        f"synthesis.{one}" for one in ("b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1")
    )
    module.truncation = 0.3
    assert torch.allclose(module(latents), release_draws(released, latents, 0.3), atol=1e-4)


def test_classes_are_embedded_and_mixed(latents: Tensor) -> None:
    state = shaken(stylegan2.StyleGAN2(LATENT, (9, STYLE), WIDTHS, classes=4, embedded=5))
    module = stylegan2.infer(state)
    assert (module.latent, module.classes) == (LATENT, 4)
    given = torch.cat([latents, torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1], [0.5, 0, 0.5, 0]])], 1)
    assert torch.allclose(module(given), release_draws(state, given, classes=4), atol=1e-4)


@pytest.mark.parametrize(("start", "taps"), [((4, 6), 4), ((4, 4), 2), ((4, 4), 6), ((6, 4), 6)])
def test_other_shapes_and_filters(latents: Tensor, start: tuple[int, int], taps: int) -> None:
    state = shaken(stylegan2.StyleGAN2(LATENT, (9, STYLE), WIDTHS, start=start, taps=taps))
    module = stylegan2.infer(state)
    images = module(latents)
    assert images.shape[2:] == (4 * start[0], 4 * start[1])
    assert torch.allclose(images, release_draws(state, latents, taps=taps), atol=1e-4)
    module.noise = "drawn"
    assert module(latents).shape == images.shape


def test_sizes_are_bounded(released: State) -> None:
    with pytest.raises(DissectError, match="would have 16×16384 pixels; at most 8192"):
        stylegan2.infer(released | {"synthesis.b4.const": torch.zeros(WIDTHS[0], 4, 4096)})


def test_a_style_channel_is_what_its_style_lets_in(released: State, latents: Tensor) -> None:
    module = stylegan2.infer(released)
    place = "synthesis.b8.conv0.styled"
    assert place in module.style_layers
    assert len(module.style_layers) == 8
    with Tap(module, ["synthesis.b4.conv1", place, "synthesis.b8.conv0.affine"]) as tap:
        module(latents)
    styles = tap["synthesis.b8.conv0.affine"][:, :, None, None]
    assert torch.allclose(tap[place], tap["synthesis.b4.conv1"] * styles)
    with edited(module, Edit(layer=place, units=(2,))):
        assert torch.allclose(module(latents), release_draws(released, latents, zeroed=2), atol=1e-4)


def ported(released: State) -> State:
    """The same generator in the port's layout, whose weights are larger by the square root of their fan-in."""
    names = {"b4.conv1": "conv1", "b4.torgb": "to_rgb1"}
    for level, side in enumerate((8, 16)):
        names |= {f"b{side}.conv{n}": f"convs.{2 * level + n}" for n in (0, 1)} | {f"b{side}.torgb": f"to_rgbs.{level}"}
    state = {"input.input": released["synthesis.b4.const"][None], "latent_avg": released["mapping.w_avg"]}
    for number in (0, 1):
        for part in ("weight", "bias"):
            state[f"style.{number + 1}.{part}"] = released[f"mapping.fc{number}.{part}"]
    for number, (old, new) in enumerate(names.items()):
        name = f"synthesis.{old}"
        weight = released[f"{name}.weight"]
        for part in ("weight", "bias"):
            state[f"{new}.conv.modulation.{part}"] = released[f"{name}.affine.{part}"]
        if "torgb" in old:
            state |= {f"{new}.conv.weight": weight[None], f"{new}.bias": released[f"{name}.bias"].view(1, 3, 1, 1)}
            if number > 1:
                state[f"{new}.upsample.kernel"] = stylegan2.binomial() * 4
            continue
        state[f"{new}.conv.weight"] = weight[None] * math.sqrt(weight[0].numel())
        state[f"{new}.activate.bias"] = released[f"{name}.bias"]
        state[f"{new}.noise.weight"] = released[f"{name}.noise_strength"].view(1)
        if "conv0" in old:
            state[f"{new}.conv.blur.kernel"] = stylegan2.binomial() * 4
    places = ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]
    for number, old in enumerate(places):
        state[f"noises.noise_{number}"] = released[f"synthesis.{old}.noise_const"][None, None]
    return state


def test_the_port_draws_the_same(released: State, latents: Tensor, tmp_path: Path) -> None:
    state = ported(released)
    averaged = state.pop("latent_avg")
    content = {"g": {}, "g_ema": state, "latent_avg": averaged, "args": Namespace(size=16)}
    torch.save(content, tmp_path / "port.pt")
    generator = load_generator(ModelSpec(str(tmp_path / "port.pt"), truncation=0.5))
    with torch.no_grad():
        assert torch.allclose(generator.module(latents), release_draws(released, latents, 0.5), atol=1e-4)
    assert generator.recognised is not None
    assert generator.recognised.startswith("stylegan2: all ")


def test_without_a_mean_style_one_is_taken(released: State, latents: Tensor) -> None:
    state = ported(released)
    del state["latent_avg"]
    module = stylegan2.infer(state)
    many = torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        mapped = module.mapped(many)
        error = mapped.std(0) * (1 / 4096 + 1 / 20_000) ** 0.5
        assert ((module.mapping.w_avg - mapped.mean(0)).abs() < 5 * error).all()


def test_drawn_noise_belongs_to_the_latent(released: State, latents: Tensor) -> None:
    module = stylegan2.infer(released)
    fixed = module(latents)
    module.noise = "drawn"
    drawn = module(latents)
    assert not torch.allclose(drawn, fixed, atol=1e-2)
    assert torch.allclose(module(latents[1:2]), drawn[1:2], atol=1e-4)
    twice = module(latents[[0, 0]])
    assert torch.allclose(twice[0], twice[1], atol=1e-4)
    noise = drawn_noise(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), 3, (16, 16))
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05
    assert abs(float((noise[0] * noise[1]).mean())) < 0.2


def test_outputs_are_clamped_where_the_file_says_so(released: State, latents: Tensor) -> None:
    module = stylegan2.infer(stylegan2.completed(dict(released), {"synthesis_kwargs": {"conv_clamp": 0.5}}))
    with Tap(module, module.layers) as tap:
        module(latents)
    assert all(tap[layer].abs().amax() == 0.5 for layer in module.layers)
    again = stylegan2.infer(module.state_dict())  # as a repair writes it
    assert torch.equal(again(latents), module(latents))


def test_another_rate_of_the_mapping_network_is_taken_into_its_weights(released: State, latents: Tensor) -> None:
    module = stylegan2.infer(stylegan2.completed(dict(released), {"mapping_kwargs": {"lr_multiplier": 0.02}}))
    doubled = {key: value * (2 if "mapping.fc" in key else 1) for key, value in released.items()}
    assert torch.allclose(module(latents), release_draws(doubled, latents), atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"mapping_kwargs": {"activation": "relu"}}, {"synthesis_kwargs": {"architecture": "resnet"}}]
)
def test_options_of_other_architectures_are_refused(released: State, options: dict[str, object]) -> None:
    with pytest.raises(DissectError, match=r"its option .*; only"):
        stylegan2.completed(dict(released), options)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"channel_base": 32768, "conv_clamp": 0.5}, 0.5),  # the code of 2021: at the top level
        ({"channel_base": 32768, "mapping_kwargs": {"num_layers": 2}}, 256),  # its default
        ({"channel_base": 32768, "conv_clamp": None}, math.inf),
        ({"synthesis_kwargs": {"channel_base": 32768}}, math.inf),  # the code of 2020
    ],
)
def test_a_limit_is_found_where_either_code_puts_it(options: dict[str, object], limit: float, released: State) -> None:
    assert float(stylegan2.completed(dict(released), options)["synthesis.conv_clamp"]) == limit


def test_four_channels_are_drawn_over_white(released: State, latents: Tensor) -> None:
    wide = {
        key: torch.cat([value, value[:1] * 3]) if ".torgb." in key and "affine" not in key else value
        for key, value in released.items()
    }
    plain, module = stylegan2.infer(released), stylegan2.infer(wide)
    with torch.no_grad():
        colours, found = plain(latents), module(latents)
    opaque = ((colours[:, :1] * 3 + 1) / 2).clamp(0, 1)
    assert found.shape == colours.shape
    torch.testing.assert_close(found, colours * opaque + (1 - opaque), atol=1e-5, rtol=1e-4)


def test_a_file_without_noise_gets_one_that_stays(released: State, latents: Tensor) -> None:
    bare = {key: value for key, value in ported(released).items() if not key.startswith("noises.")}
    first, again = stylegan2.infer(bare), stylegan2.infer(bare)
    assert torch.equal(first(latents), again(latents))
    noise = first.get_buffer("synthesis.b16.conv0.noise_const")
    assert torch.equal(noise, fixed_noise(3, (16, 16))[0, 0])
    silent = {key: value for key, value in released.items() if "noise_" not in key}
    zeros = {key: value * (0 if key.endswith("noise_strength") else 1) for key, value in released.items()}
    assert torch.allclose(stylegan2.infer(silent)(latents), release_draws(zeros, latents), atol=1e-4)


Change = Callable[[State], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("synthesis.b8.conv0.weight"), "synthesis.b8.conv0.weight is missing"),
        (lambda s: s.update({"synthesis.b16.skip.weight": torch.zeros(1)}), "orig or resnet"),
        (lambda s: s.update({"synthesis.b8.conv0.bias": torch.zeros(9)}), r"shape \(9\), expected \(5\)"),
        (lambda s: s.update({"extra": torch.zeros(9)}), "extra is not of this architecture"),
        (lambda s: s.pop("synthesis.b8.conv1.bias"), "resolutions are 4, 16; expected 4, 8, 16"),
        (lambda s: s.pop("synthesis.b4.const"), "no key is like synthesis.b4.const"),
        (lambda s: s.update({"synthesis.b16.torgb.weight": torch.zeros(5, 4, 1, 1)}), "it draws 5 channels"),
    ],
)
def test_what_is_wrong_is_named(released: State, change: Change, said: str) -> None:
    change(released)
    with pytest.raises(DissectError, match=said):
        stylegan2.infer(released)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"truncation": 3.0}, "truncation=3: .*-2 to 2"),
        ({"truncation": -2.1}, "truncation=-2.1: .*-2 to 2"),
        ({"noise": "loud"}, "must be one of fixed, drawn"),
        ({"label": 2}, "label.* goes with class-conditional generators"),
        ({"inputs": "photos"}, "inputs.* goes with generators that take images"),
        ({"latent": "normal:3"}, "latent.* goes with plain chains"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    released: State, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    torch.save(released, tmp_path / "g.pt")
    with pytest.raises(UsageError, match=said):
        load_generator(ModelSpec(str(tmp_path / "g.pt"), **options))  # type: ignore[arg-type]


@pytest.fixture
def first() -> State:
    """StyleGAN: four levels, of which the third is fused and the last untrained; one layer of mapping."""
    state = shaken(stylegan.StyleGAN(LATENT, 1, (6, 5, 4, 4), (False, False, True, False)))
    state["generator.to_rgb.3.conv.bias"].zero_()
    return state


def first_draws(state: State, latents: Tensor, noises: list[Tensor]) -> Tensor:
    def weight(name: str) -> Tensor:
        tensor = state[f"{name}.weight_orig"]
        return tensor * math.sqrt(2 / math.prod(tensor.shape[1:]))

    def adain(name: str, x: Tensor, w: Tensor) -> Tensor:
        style = weight(f"{name}.style.linear") @ w + state[f"{name}.style.linear.bias"]
        mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, unbiased=False)
        gain, shift = style[: len(x), None, None], style[len(x) :, None, None]
        return (x - mean) / torch.sqrt(var + 1e-5) * gain + shift

    images = []
    for row in latents:
        w = weight("style.1.linear") @ rms(row) + state["style.1.linear.bias"]
        w = torch.where(w > 0, w, 0.2 * w)
        x = state["generator.progression.0.conv1.input"][0]
        for level in range(3):
            name = f"generator.progression.{level}"
            if level == 1:
                x = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
                x = F.conv2d(x[None], weight(f"{name}.conv1.1.conv"), state[f"{name}.conv1.1.conv.bias"], padding=1)[0]
            if level == 2:  # resize, then convolve: what the fused kernel comes to but for its scale and flip
                taps = state[f"{name}.conv1.0.weight"] * math.sqrt(2 / (9 * 5))  # (5, 4, 3, 3)
                wide = torch.zeros(5, 4, 4, 4)
                for down in (0, 1):
                    for across in (0, 1):
                        wide[:, :, down : down + 3, across : across + 3] += taps / 4
                x = F.conv2d(between(x, 0)[None], wide.flip(2, 3).transpose(0, 1), padding=2)[0]
                x = x + state[f"{name}.conv1.0.bias"][:, None, None]
            if level:
                taps = torch.tensor([1.0, 2.0, 1.0]) / 4
                x = F.conv2d(x[:, None], (taps[:, None] * taps)[None, None], padding=1)[:, 0]
            for n in (1, 2):
                if n == 2:
                    x = F.conv2d(x[None], weight(f"{name}.conv2.conv"), state[f"{name}.conv2.conv.bias"], padding=1)[0]
                strength = state[f"{name}.noise{n}.weight_orig"] * math.sqrt(2 / len(x))
                x = x + strength[0] * noises[level][0]  # one map for both layers of a level
                x = adain(f"{name}.adain{n}", torch.where(x > 0, x, 0.2 * x), w)
        x = F.conv2d(x[None], weight("generator.to_rgb.2.conv"), state["generator.to_rgb.2.conv.bias"])[0]
        images.append(x)
    return torch.stack(images)


def test_the_first_stylegan_draws_as_defined(first: State, latents: Tensor, tmp_path: Path) -> None:
    torch.save({"g_running": first, "generator": {"x": torch.zeros(1)}}, tmp_path / "first.model")
    module = load_generator(str(tmp_path / "first.model")).module
    assert isinstance(module, stylegan.StyleGAN)
    noises = [stylegan.fixed_noise(level, (4 << level, 4 << level))[0] for level in range(3)]
    with torch.no_grad():
        images = module(latents)
    assert images.shape == (3, 3, 16, 16)  # not 32: the last level was never trained
    assert torch.allclose(images, first_draws(first, latents, noises), atol=1e-4)
    assert module.layers == tuple(f"generator.progression.{level}.adain{n}" for level in range(3) for n in (1, 2))
    with Tap(module, module.style_layers) as tap, torch.no_grad():
        module(latents)
    assert [tap[layer].shape[1] for layer in module.style_layers] == [6, 6, 5, 5, 4, 4]


def test_the_first_stylegans_mean_style(first: State, latents: Tensor) -> None:
    module = stylegan.infer(first)
    module.truncation = 0.0
    with torch.no_grad():
        images = module(latents)
        assert torch.allclose(images[0], images[1], atol=1e-5)
        module.truncation = 1.0
        many = torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(8))
        mapped = module.mapped(many)
        error = mapped.std(0) * (1 / 4096 + 1 / 20_000) ** 0.5
        assert ((module.mean_style() - mapped.mean(0)).abs() < 5 * error).all()


def test_weights_saved_again_open_again(released: State, first: State, latents: Tensor) -> None:
    for family, state in ((stylegan2, released), (stylegan, first)):
        once = family.infer(state)
        again = family.infer(once.state_dict())
        assert torch.equal(once(latents), again(latents))


def test_weights_alone_do_not_tell_a_clamp(released: State, tmp_path: Path) -> None:
    torch.save(released, tmp_path / "plain.pt")
    torch.save(released | {"synthesis.b16.conv1.bias": torch.full((WIDTHS[2],), 400.0)}, tmp_path / "large.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inspect(str(tmp_path / "plain.pt"))
    with pytest.warns(DissectWarning, match=r"has values up to \d+ in synthesis\.b16\.conv1\. NVIDIA's .* ±256"):
        inspect(str(tmp_path / "large.pt"))
