"""StyleGAN2 and its ADA variant (Karras et al. 2020), skip architecture, in plain PyTorch operations.

Module names are those of NVIDIA's PyTorch release. The other well-known layout, that of the port with `convs` and
`to_rgbs`, is renamed on loading; its weights carry their equalised-learning-rate factor outside, which is multiplied
in where the release has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

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
    if "input.input" in state and any(key.startswith("to_rgb1.") for key in state):
        state = renamed(state)
    layers = sum(bool(re.fullmatch(r"synthesis\.layer\d{1,2}\.bias", key)) for key in state)
    from_genforce = genforce.stylegan2(state, {number: layer_name(number) for number in range(layers)})
    state = from_genforce or state
    sides = _block_sides(state)
    constant = _tensor(state, "synthesis.b4.const", 3)
    start = (constant.shape[1], constant.shape[2])
    sizes = sizes_of(start, len(sides))
    if max(sizes[-1]) > MOST_PIXELS:
        raise DissectError(f"its images would have {sizes[-1][0]}×{sizes[-1][1]} pixels; at most {MOST_PIXELS} a side.")
    state = with_noise(state, sizes)
    depth = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in state)
    mapping = [_tensor(state, f"mapping.fc{number}.weight", 2) for number in range(max(1, depth))]
    embedded, classes = 0, 0
    if "mapping.embed.weight" in state:
        embedded, classes = _tensor(state, "mapping.embed.weight", 2).shape
    averaged = "mapping.w_avg" in state
    with torch.device("meta"):
        module = StyleGAN2(
            mapping[0].shape[1] - embedded,
            tuple(weight.shape[0] for weight in mapping),
            tuple(_tensor(state, f"synthesis.b{side}.conv1.weight", 4).shape[0] for side in sides),
            start=start,
            taps=_taps(state),
            channels=_channels(state, sides[-1]),
            classes=classes,
            embedded=embedded,
            averaged=averaged,
            clamped="synthesis.conv_clamp" in state,
        )
    filled(module, state)
    module.layout = genforce.LAYOUT if from_genforce is not None else ""
    if not averaged:
        module.renew_mean()
    return module


def _block_sides(state: Mapping[str, Tensor]) -> list[int]:
    """The sides by which the blocks are called: 4, 8, 16, …

    Raises:
        DissectError: this is no StyleGAN2 of the skip architecture, or a block is missing.
    """
    if "synthesis.b4.const" not in state:
        raise DissectError("no key is like synthesis.b4.const (or, in the port's files, input.input).")
    if any(".skip.weight" in key for key in state) or "synthesis.b4.torgb.weight" not in state:
        raise DissectError("its architecture is orig or resnet; only skip, the default of the release, can be read.")
    pattern = re.compile(r"synthesis\.b(\d{1,5})\.conv1\.bias")
    sides = sorted(int(match[1]) for key in state if (match := pattern.fullmatch(key)))
    if sides != [4 << level for level in range(len(sides))] or not sides:
        raise DissectError(f"its resolutions are {', '.join(map(str, sides))}; expected 4, 8, 16, ….")
    return sides


def _taps(state: Mapping[str, Tensor]) -> int:
    """The number of taps of the resampling filter along each axis."""
    resampling = state.get("synthesis.b4.resample_filter", binomial())
    if resampling.ndim != 2 or len(resampling) < FEWEST_TAPS:
        raise DissectError(
            f"its resampling filter has shape {shape(resampling)}; expected two axes of at least {FEWEST_TAPS} taps."
        )
    return len(resampling)


def _channels(state: Mapping[str, Tensor], side: int) -> int:
    """The number of channels that the last block, of this side, outputs as an image."""
    channels = _tensor(state, f"synthesis.b{side}.torgb.weight", 4).shape[0]
    if channels not in (1, COLOURS, COLOURS + 1):
        raise DissectError(f"it draws {channels} channels; expected 3, 4 with opacity, or 1 for grey images.")
    return channels


def _tensor(state: Mapping[str, Tensor], key: str, axes: int) -> Tensor:
    """The tensor of that name.

    Raises:
        DissectError: it is missing, empty, or does not have as many axes.
    """
    tensor = state.get(key)
    if tensor is None:
        raise DissectError(f"key {key} is missing.")
    if tensor.ndim != axes or not tensor.numel():
        raise DissectError(f"key {key} has shape {shape(tensor)}; expected {axes} axes, none of them empty.")
    return tensor


def completed(state: dict[str, Tensor], options: Mapping[str, object]) -> dict[str, Tensor]:
    """A release file's weights, changed and added to such that they say what its options say.

    The code of 2021 and later has the synthesis network's options at the top level, and clamps to ±256 unless
    they say otherwise.

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
    """The weights with fixed noise in all layers if the file has it in none; strengths that are missing are zero."""
    if any(key.endswith(".noise_const") for key in state):
        return state
    with_buffers = dict(state)
    for number in range(2 * len(sizes) - 1):
        name = layer_name(number)
        with_buffers[f"{name}.noise_const"] = fixed_noise(number, sizes[(number + 1) // 2])[0, 0]
        with_buffers.setdefault(f"{name}.noise_strength", torch.zeros(()))
    return with_buffers


def layer_name(number: int) -> str:
    """The name of the n-th layer, from 0. Each block has two, conv0 and conv1; only that of 4×4 has no conv0.

    >>> [layer_name(number) for number in range(4)]
    ['synthesis.b4.conv1', 'synthesis.b8.conv0', 'synthesis.b8.conv1', 'synthesis.b16.conv0']
    """
    level = (number + 1) // 2
    return f"synthesis.b{4 << level}.conv{1 - number % 2}"


def _named_by_port(prefix: str) -> str:
    """The name of a layer that the port calls `conv1`, `convs.N`, `to_rgb1` or `to_rgbs.N`.

    >>> [_named_by_port(prefix) for prefix in ("conv1", "convs.0", "convs.1", "convs.2")]
    ['synthesis.b4.conv1', 'synthesis.b8.conv0', 'synthesis.b8.conv1', 'synthesis.b16.conv0']
    >>> [_named_by_port(prefix) for prefix in ("to_rgb1", "to_rgbs.0", "to_rgbs.1")]
    ['synthesis.b4.torgb', 'synthesis.b8.torgb', 'synthesis.b16.torgb']
    """
    kind, _, number = prefix.partition(".")
    if kind.startswith("conv"):
        return layer_name(int(number) + 1 if number else 0)
    return f"synthesis.b{8 << int(number) if number else 4}.torgb"


def _first(x: Tensor, axes: int) -> Tensor | None:
    """x[0] without the batch axis of the port; None if x has other than so many axes, or is empty."""
    return x[0] if x.ndim == axes and x.numel() else None


def _equalised(x: Tensor) -> Tensor | None:
    """A convolution's weight (1, out, in, k, k) of the port with the factor that the release keeps in it."""
    weight = _first(x, 5)
    return None if weight is None else weight.float() * (1 / math.sqrt(weight[0].numel()))


class _Rule(NamedTuple):
    """How a tensor is called in the release whose key in the port matches `pattern`.

    `change` makes the release's values of the port's; None if their shape is not what it should be.
    """

    pattern: str
    name: Callable[[re.Match[str]], str]
    change: Callable[[Tensor], Tensor | None]


CONV = r"(conv1|convs\.\d{1,2})"
RGB = r"(to_rgb1|to_rgbs\.\d{1,2})"
EITHER = rf"({CONV[1:-1]}|{RGB[1:-1]})"
PORT_RULES = (
    # latent_avg (W,) -> mapping.w_avg (W,)
    _Rule(r"latent_avg", lambda _: "mapping.w_avg", Tensor.flatten),
    # input.input (1, U, 4, 4) -> synthesis.b4.const (U, 4, 4)
    _Rule(r"input\.input", lambda _: "synthesis.b4.const", lambda x: _first(x, 4)),
    # style.1.weight -> mapping.fc0.weight: the port counts the normalisation of latents as style.0
    _Rule(r"style\.(\d{1,2})\.(weight|bias)", lambda key: f"mapping.fc{int(key[1]) - 1}.{key[2]}", lambda x: x),
    # noises.noise_3 (1, 1, 16, 16) -> synthesis.b16.conv0.noise_const (16, 16)
    _Rule(
        r"noises\.noise_(\d{1,2})",
        lambda key: f"{layer_name(int(key[1]))}.noise_const",
        lambda x: x.flatten(0, 2) if x.ndim == 4 else x,
    ),
    # convs.0.conv.weight (1, U, V, 3, 3) -> synthesis.b8.conv0.weight (U, V, 3, 3) / sqrt(V · 3 · 3)
    _Rule(rf"{CONV}\.conv\.weight", lambda key: f"{_named_by_port(key[1])}.weight", _equalised),
    # to_rgbs.0.conv.weight (1, 3, V, 1, 1) -> synthesis.b8.torgb.weight (3, V, 1, 1), where the release scales too
    _Rule(
        rf"{RGB}\.conv\.weight",
        lambda key: f"{_named_by_port(key[1])}.weight",
        lambda x: None if (weight := _first(x, 5)) is None else weight.float(),
    ),
    # convs.0.conv.modulation.bias -> synthesis.b8.conv0.affine.bias
    _Rule(
        rf"{EITHER}\.conv\.modulation\.(weight|bias)",
        lambda key: f"{_named_by_port(key[1])}.affine.{key[2]}",
        lambda x: x,
    ),
    # convs.0.noise.weight (1,) -> synthesis.b8.conv0.noise_strength ()
    _Rule(
        rf"{EITHER}\.noise\.weight",
        lambda key: f"{_named_by_port(key[1])}.noise_strength",
        lambda x: x.reshape(()) if x.numel() == 1 else None,
    ),
    # convs.0.activate.bias (U,) -> synthesis.b8.conv0.bias; to_rgbs.0.bias (1, 3, 1, 1) -> synthesis.b8.torgb.bias (3,)
    _Rule(rf"{EITHER}\.(?:activate\.)?bias", lambda key: f"{_named_by_port(key[1])}.bias", Tensor.flatten),
    # convs.0.conv.blur.kernel (4, 4) -> synthesis.b8.conv0.resample_filter / 4: the port's sums to 4, not to 1
    _Rule(rf"{EITHER}\.conv\.blur\.kernel", lambda key: f"{_named_by_port(key[1])}.resample_filter", lambda x: x / 4),
    # to_rgbs.0.upsample.kernel (4, 4) -> synthesis.b8.resample_filter / 4
    _Rule(
        rf"{EITHER}\.upsample\.kernel",
        lambda key: f"{_named_by_port(key[1]).rpartition('.')[0]}.resample_filter",
        lambda x: x / 4,
    ),
)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The port's weights under the release's names, by `PORT_RULES`.

    A key that no rule matches, or whose tensor has another shape, keeps its name, and is refused later by that name.
    """
    released: dict[str, Tensor] = {}
    for key, value in state.items():
        name, tensor = key, value
        for rule in PORT_RULES:
            if (match := re.fullmatch(rule.pattern, key)) and (changed := rule.change(value)) is not None:
                name, tensor = rule.name(match), changed
        released[name] = tensor
    filters = (value for key, value in released.items() if key.endswith(".resample_filter"))
    usual = next(filters, binomial())
    for block in [key.removesuffix("conv1.weight") for key in released if key.endswith(".conv1.weight")]:
        for layer in ("", "conv0.", "conv1."):  # the port keeps filters only where they are used
            if layer != "conv0." or f"{block}conv0.weight" in released:
                released.setdefault(f"{block}{layer}resample_filter", usual)
    return released
