"""StyleGAN2 and its ADA variant (Karras et al. 2020), skip architecture, in plain PyTorch operations.

Module names are those of NVIDIA's PyTorch release. The other well-known layout, that of the port with `convs` and
`to_rgbs`, is renamed on loading; its weights carry their equalised-learning-rate factor outside, which is multiplied
in where the release has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from . import genforce
from .architecture import filled, shape
from .style_based import StyleBased, drawn_noise, fixed_noise, probes

MAPPING_RATE = 0.01  # learning-rate factor of the mapping network; both layouts keep their weights divided by it
GAIN = math.sqrt(2)  # of the leaky ReLU
EPSILON = 1e-8
FEWEST_TAPS = 2  # of the resampling filter
MOST_PIXELS = 1 << 13  # a side
COLOURS = 3
CLAMP = 256.0  # of NVIDIA's later code for this network, where a file does not say another
Size = tuple[int, int]  # height, width
LATER = ("channel_base", "channel_max", "fused_modconv_default", "num_fp16_res")  # its options, at the top level


class Linear(nn.Module):
    """Fully connected, with weights scaled by `rate` / sqrt(inputs) and biases by `rate`."""

    def __init__(self, fan_in: int, fan_out: int, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) / rate)
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (self.rate / math.sqrt(x.shape[1])), self.bias * self.rate)


class MappingNetwork(nn.Module):
    """(N, latent + classes) -> (N, W)."""

    w_avg: Tensor

    def __init__(self, latent: int, classes: int, widths: tuple[int, ...], embedded: int, averaged: bool) -> None:
        super().__init__()
        self.latent, self.depth = latent, len(widths)
        if classes:
            self.embed = Linear(classes, embedded)
        before = latent + (embedded if classes else 0)
        for number, width in enumerate(widths):
            self.add_module(f"fc{number}", Linear(before, width, MAPPING_RATE))
            before = width
        # a mean taken here differs from machine to machine in its last bits, so that it is no part of the state
        self.register_buffer("w_avg", torch.zeros(before), persistent=averaged)

    def forward(self, latents: Tensor) -> Tensor:
        x = normal(latents[:, : self.latent])
        if latents.shape[1] > self.latent:
            x = torch.cat([x, normal(self.embed(latents[:, self.latent :]))], 1)
        for number in range(self.depth):
            x = F.leaky_relu(self.get_submodule(f"fc{number}")(x), 0.2) * GAIN
        return x


def normal(x: Tensor) -> Tensor:
    """Rows divided by their root mean square."""
    return x * (x.square().mean(1, keepdim=True) + EPSILON).rsqrt()


class Modulated(nn.Module):
    """A convolution whose inputs are scaled by styles, of which there is one for each input channel.

    `styled` outputs the scaled inputs: its units are the style channels (Wu et al. 2021), each with the map on which
    it acts. A unit set to zero there is a style of zero, except that the weights stay demodulated by the style it had.
    """

    def __init__(self, fan_in: int, fan_out: int, width: int, kernel: int) -> None:
        super().__init__()
        self.affine = Linear(width, fan_in)
        self.styled = nn.Identity()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(fan_out))


class Layer(Modulated):
    """Modulated 3×3 convolution, demodulated, noise, bias and leaky ReLU; with `up`, twice as fine."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(self, fan_in: int, fan_out: int, width: int, size: Size, taps: int, *, up: bool) -> None:
        super().__init__(fan_in, fan_out, width, 3)
        self.up = up
        self.register_buffer("resample_filter", binomial(taps))
        self.register_buffer("noise_const", torch.randn(*size))
        self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, limit: Tensor | None) -> Tensor:
        styles = self.affine(w)  # (N, fan_in)
        norms = (styles.square() @ self.weight.square().sum((2, 3)).T + EPSILON).rsqrt()  # (N, fan_out)
        x = self.styled(x * styles[:, :, None, None])
        if self.up:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)  # (N, fan_out, 2 h + 1, 2 w + 1)
            taps = len(self.resample_filter)
            x = smooth(x, self.resample_filter, ((taps - 1) // 2, (taps - 2) // 2))
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = x * norms[:, :, None, None]
        x = x + self.noise_strength * (self.noise_const if noise is None else noise)
        return clamped(F.leaky_relu(x + self.bias[:, None, None], 0.2) * GAIN, limit)


class ToRGB(Modulated):
    """Modulated 1×1 convolution to colours, not demodulated."""

    def __init__(self, fan_in: int, channels: int, width: int) -> None:
        super().__init__(fan_in, channels, width, 1)

    def forward(self, x: Tensor, w: Tensor, limit: Tensor | None) -> Tensor:
        styles = self.affine(w) / math.sqrt(x.shape[1])
        return clamped(F.conv2d(self.styled(x * styles[:, :, None, None]), self.weight, self.bias), limit)


class Block(nn.Module):
    """One resolution: one layer at 4×4, two at finer ones, and what it adds to the image."""

    resample_filter: Tensor

    def __init__(self, before: int, units: int, width: int, size: Size, channels: int, taps: int) -> None:
        super().__init__()
        self.register_buffer("resample_filter", binomial(taps))
        if before:
            self.conv0 = Layer(before, units, width, size, taps, up=True)
        else:
            self.const = nn.Parameter(torch.randn(units, *size))
        self.conv1 = Layer(units, units, width, size, taps, up=False)
        self.torgb = ToRGB(units, channels, width)

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        w: Iterator[Tensor],
        last: Tensor,
        noises: Iterator[Tensor | None],
        limit: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        x = self.const.expand(len(last), -1, -1, -1) if x is None else self.conv0(x, next(w), next(noises), limit)
        x = self.conv1(x, next(w), next(noises), limit)
        added = self.torgb(x, last, limit)
        return x, added if image is None else finer(image, self.resample_filter) + added


class StyleGAN2(StyleBased):
    """latents (N, latent) or (N, latent + classes) float32 -> images (N, channels, H, W), nominally in [-1, 1].

    Args:
        latent: length of the latent.
        mapping: widths of the mapping network's layers; the last is W, the length of a style.
        widths: number of units of each resolution from that of the constant up, each twice as fine as the one before.
        start: height and width of the constant, 4×4 but where images are not square.
        taps: of the resampling filter, along each axis.
        channels: of the image; of four the last is how opaque the colours are, and they are drawn over white.
        classes: how many there are, as one-hot behind the latent; 0 without.
        embedded: length of the class's embedding.
        averaged: whether the state holds the mean style.
        clamped: whether it holds a limit, `synthesis.conv_clamp`, to which ± what every layer outputs is clamped, as
            networks trained in half precision are; NVIDIA's files tell it among their options, infinite where there is
            none, and weights alone do not.
    """

    family: str = "stylegan2"
    citation: str = (
        "Karras, Laine, Aittala, Hellsten, Lehtinen and Aila 2020, Analyzing and Improving the Image Quality of "
        "StyleGAN, CVPR"
    )

    def __init__(
        self,
        latent: int,
        mapping: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        start: Size = (4, 4),
        taps: int = 4,
        channels: int = 3,
        classes: int = 0,
        embedded: int = 0,
        averaged: bool = True,
        clamped: bool = False,
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.sides = [4 << level for level in range(len(widths))]  # by which blocks are called
        self.sizes = sizes_of(start, len(widths))
        self.style_count = 2 * len(widths)
        self.mapping = MappingNetwork(latent, classes, mapping, embedded, averaged)
        self.synthesis = nn.Module()
        self.synthesis.register_buffer("conv_clamp", torch.zeros(()) if clamped else None)
        for side, size, before, units in zip(self.sides, self.sizes, (0, *widths), widths, strict=False):
            self.synthesis.add_module(f"b{side}", Block(before, units, mapping[-1], size, channels, taps))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers worth dissecting: what each leaky ReLU outputs."""
        return tuple(name for name, part in self.named_modules() if isinstance(part, Layer))

    @property
    def style_layers(self) -> tuple[str, ...]:
        return tuple(f"{name}.styled" for name, part in self.named_modules() if isinstance(part, Modulated))

    def mapped(self, latents: Tensor) -> Tensor:
        styles: Tensor = self.mapping(latents)
        return styles

    def mean_style(self) -> Tensor:
        return self.mapping.w_avg

    @torch.no_grad()
    def renew_mean(self) -> None:
        self.mapping.w_avg.copy_(self.mapped(probes(self.latent, self.classes).to(self.mapping.w_avg)).mean(0))

    def draw(self, styles: Tensor, latents: Tensor | None = None) -> Tensor:
        x = image = None
        noises = self._noises(latents if self.noise == "drawn" else None)
        w = iter(styles.unbind(1))
        for level, side in enumerate(self.sides):  # the colours of a level take the style that comes next
            block = self.synthesis.get_submodule(f"b{side}")
            x, image = block(x, image, w, styles[:, 2 * level + 1], noises, self.synthesis.conv_clamp)
        assert image is not None
        return over_white(image) if image.shape[1] == COLOURS + 1 else image

    def _noises(self, latents: Tensor | None) -> Iterator[Tensor | None]:
        for number in range(2 * len(self.sizes) - 1):
            yield None if latents is None else drawn_noise(latents, number, self.sizes[(number + 1) // 2])


def over_white(images: Tensor) -> Tensor:
    """Colours and how opaque they are, (N, 4, H, W) in [-1, 1] -> what is seen before white, (N, 3, H, W)."""
    opaque = ((images[:, COLOURS:] + 1) / 2).clamp(0, 1)
    return images[:, :COLOURS] * opaque + (1 - opaque)


def clamped(x: Tensor, limit: Tensor | None) -> Tensor:
    """x within ± limit, where there is one."""
    return x if limit is None else x.clamp(-limit, limit)


def sizes_of(start: Size, levels: int) -> list[Size]:
    """Height and width at each level."""
    return [(start[0] << level, start[1] << level) for level in range(levels)]


def binomial(number: int = 4) -> Tensor:
    """(number, number): a low-pass filter, of four taps 1, 3, 3, 1, in both directions."""
    taps = torch.tensor([float(math.comb(number - 1, k)) for k in range(number)]) / 2 ** (number - 1)
    return taps[:, None] * taps


def smooth(x: Tensor, taps: Tensor, margin: tuple[int, int]) -> Tensor:
    """x (N, U, h, w) with a margin of zeros before and after, filtered; taps count fourfold after zeros went in."""
    x = F.pad(x, margin * 2)
    return F.conv2d(x, (taps.flip(0, 1) * 4).expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def finer(images: Tensor, taps: Tensor) -> Tensor:
    """images (N, C, h, w) -> (N, C, 2 h, 2 w): zeros between the pixels, then the filter."""
    apart = images.new_zeros(*images.shape[:2], 2 * images.shape[2], 2 * images.shape[3])
    apart[:, :, ::2, ::2] = images
    return smooth(apart, taps, ((len(taps) + 1) // 2, (len(taps) - 2) // 2))


def infer(state: Mapping[str, Tensor]) -> StyleGAN2:
    """The StyleGAN2 generator these weights belong to, in eval mode, with its own float32 copy of them.

    Keys are those of NVIDIA's release (`mapping.fc0.weight`, `synthesis.b4.const`, …), of the port
    (`style.1.weight`, `input.input`, `conv1.conv.weight`, …) or of GenForce. A file of the port without `latent_avg`
    gets the mean style over 4,096 latents.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no StyleGAN2.
    """
    ported = "input.input" in state and any(key.startswith("to_rgb1.") for key in state)
    if ported:
        state = renamed(state)
    layers = sum(bool(re.fullmatch(r"synthesis\.layer\d{1,2}\.bias", key)) for key in state)
    theirs = genforce.stylegan2(state, {number: _layer_of(number) for number in range(layers)})
    state = theirs or state
    if "synthesis.b4.const" not in state:
        raise DissectError("no key is like synthesis.b4.const (or, in the port's files, input.input).")
    if any(".skip.weight" in key for key in state) or "synthesis.b4.torgb.weight" not in state:
        raise DissectError("its architecture is orig or resnet; only skip, the default of the release, can be read.")
    sides = sorted(
        int(found[1]) for key in state if (found := re.fullmatch(r"synthesis\.b(\d{1,5})\.conv1\.bias", key))
    )
    if sides != [4 << level for level in range(len(sides))] or not sides:
        raise DissectError(f"its resolutions are {', '.join(map(str, sides))}; expected 4, 8, 16, ….")
    constant = _wanted(state, "synthesis.b4.const", 3)
    start = (constant.shape[1], constant.shape[2])
    sizes = sizes_of(start, len(sides))
    if max(sizes[-1]) > MOST_PIXELS:
        raise DissectError(f"its images would have {sizes[-1][0]}×{sizes[-1][1]} pixels; at most {MOST_PIXELS} a side.")
    state = with_noise(state, sizes)
    resampling = state.get("synthesis.b4.resample_filter", binomial())
    if resampling.ndim != 2 or len(resampling) < FEWEST_TAPS:
        raise DissectError(
            f"its resampling filter has shape {shape(resampling)}; expected two axes of at least 2 taps."
        )
    depth = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in state)
    fully = [_wanted(state, f"mapping.fc{number}.weight", 2) for number in range(max(1, depth))]
    embedded, classes = 0, 0
    if "mapping.embed.weight" in state:
        embedded, classes = _wanted(state, "mapping.embed.weight", 2).shape
    channels = _wanted(state, f"synthesis.b{sides[-1]}.torgb.weight", 4).shape[0]
    if channels not in (1, COLOURS, COLOURS + 1):
        raise DissectError(f"it draws {channels} channels; expected 3, 4 with opacity, or 1 for grey images.")
    averaged = "mapping.w_avg" in state
    with torch.device("meta"):
        module = StyleGAN2(
            fully[0].shape[1] - embedded,
            tuple(weight.shape[0] for weight in fully),
            tuple(_wanted(state, f"synthesis.b{side}.conv1.weight", 4).shape[0] for side in sides),
            start=start,
            taps=len(resampling),
            channels=channels,
            classes=classes,
            embedded=embedded,
            averaged=averaged,
            clamped="synthesis.conv_clamp" in state,
        )
    filled(module, state)
    module.layout = genforce.LAYOUT if theirs is not None else ""
    if not averaged:
        module.renew_mean()
    return module


def completed(state: dict[str, Tensor], options: Mapping[str, object]) -> dict[str, Tensor]:
    """A release file's weights, changed and added to such that they say what its options say.

    The code of 2021 and later has the synthesis network's options at the top level, and clamps to ±256 unless told.

    Raises:
        DissectError: an option that would need another architecture.
    """
    if "synthesis_kwargs" not in options and any(name in options for name in (*LATER, "conv_clamp")):
        options = {**options, "synthesis_kwargs": {"conv_clamp": CLAMP, **options}}
    parts = {name: options.get(f"{name}_kwargs") for name in ("mapping", "synthesis")}
    mapping, synthesis = (dict(part) if isinstance(part, Mapping) else {} for part in parts.values())
    for given, known in (
        (mapping, {"activation": "lrelu"}),
        (synthesis, {"activation": "lrelu", "architecture": "skip"}),
    ):
        for name, value in known.items():
            if given.get(name, value) != value:
                raise DissectError(f"its option {name} is {given[name]!r}; only {value} is known.")
    rate = mapping.get("lr_multiplier", MAPPING_RATE)
    if isinstance(rate, (int, float)) and rate != MAPPING_RATE:
        for key in [key for key in state if re.fullmatch(r"mapping\.fc\d{1,2}\.(weight|bias)", key)]:
            state[key] = state[key].float() * (rate / MAPPING_RATE)
    limit = synthesis.get("conv_clamp")
    clamp = float(limit) if isinstance(limit, (int, float)) else math.inf
    return state | {"synthesis.conv_clamp": torch.tensor(clamp)}


def with_noise(state: Mapping[str, Tensor], sizes: Sequence[Size]) -> Mapping[str, Tensor]:
    """The weights with fixed noise in all layers, where the file has it in none; without strengths, they are zero."""
    if any(key.endswith(".noise_const") for key in state):
        return state
    found = dict(state)
    for number in range(2 * len(sizes) - 1):
        found[f"{_layer_of(number)}.noise_const"] = fixed_noise(number, sizes[(number + 1) // 2])[0, 0]
        found.setdefault(f"{_layer_of(number)}.noise_strength", torch.zeros(()))
    return found


def _wanted(state: Mapping[str, Tensor], key: str, axes: int) -> Tensor:
    found = state.get(key)
    if found is None:
        raise DissectError(f"key {key} is missing.")
    if found.ndim != axes or not found.numel():
        raise DissectError(f"key {key} has shape {shape(found)}; expected {axes} axes, none of them empty.")
    return found


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The port's weights under the release's names."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "latent_avg":
            found["mapping.w_avg"] = value.flatten()
        elif key == "input.input" and value.ndim == 4 and len(value):
            found["synthesis.b4.const"] = value[0]
        elif match := re.fullmatch(r"style\.(\d{1,2})\.(weight|bias)", key):
            found[f"mapping.fc{int(match[1]) - 1}.{match[2]}"] = value
        elif match := re.fullmatch(r"noises\.noise_(\d{1,2})", key):
            found[f"{_layer_of(int(match[1]))}.noise_const"] = value.flatten(0, 2) if value.ndim == 4 else value
        elif match := re.fullmatch(r"(conv1|convs\.\d{1,2}|to_rgb1|to_rgbs\.\d{1,2})\.(.+)", key):
            _rename_layer(found, match[1], match[2], key, value)
        else:
            found[key] = value  # named as not of this architecture later on
    filters = (value for key, value in found.items() if key.endswith(".resample_filter"))
    usual = next(filters, binomial())
    for name in [key.removesuffix("conv1.weight") for key in found if key.endswith(".conv1.weight")]:
        for part in ("", "conv0.", "conv1."):  # the port keeps filters only where they are used
            if part != "conv0." or f"{name}conv0.weight" in found:
                found.setdefault(f"{name}{part}resample_filter", usual)
    return found


def _layer_of(number: int) -> str:
    return f"synthesis.b{4 << ((number + 1) // 2)}.conv{int(number == 0 or number % 2 == 0)}"


def _rename_layer(found: dict[str, Tensor], place: str, rest: str, key: str, value: Tensor) -> None:
    kind, _, number = place.partition(".")
    if kind.startswith("conv"):
        name = _layer_of(int(number) + 1 if number else 0)
        block = name.rpartition(".")[0]
    else:
        block = f"synthesis.b{8 << int(number) if number else 4}"
        name = f"{block}.torgb"
    if rest == "conv.weight" and value.ndim == 5 and value.numel():
        scale = 1 / math.sqrt(value[0, 0].numel()) if kind.startswith("conv") else 1.0
        found[f"{name}.weight"] = value[0].float() * scale
    elif rest in ("conv.modulation.weight", "conv.modulation.bias"):
        found[f"{name}.affine.{rest.rpartition('.')[2]}"] = value
    elif rest == "noise.weight" and value.numel() == 1:
        found[f"{name}.noise_strength"] = value.reshape(())
    elif rest in ("activate.bias", "bias"):
        found[f"{name}.bias"] = value.flatten()
    elif rest == "conv.blur.kernel":
        found[f"{name}.resample_filter"] = value / 4
    elif rest == "upsample.kernel":
        found[f"{block}.resample_filter"] = value / 4
    else:
        found[key] = value
