"""StyleGAN (Karras et al. 2019) with the module names of its well-known PyTorch port.

A mapping network, a constant input, and at each resolution two times: convolution, noise, leaky ReLU, adaptive
instance norm. The port grows its image as a progressive GAN does, so a file holds levels that were never trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from . import genforce
from .architecture import filled, shape
from .progan import pixel_norm
from .style_based import StyleBased, drawn_noise, fixed_noise, probes

ORIGINAL_EPSILON, PORT_EPSILON = 1e-8, 1e-5  # of instance norms


def scaled(weight: Tensor) -> Tensor:
    """Weights times sqrt(2 / fan-in), the equalised learning rate as the port computes it."""
    return weight * math.sqrt(2 / weight[0].numel())


class Weights(nn.Module):
    """`weight_orig` and `bias`."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.randn(*sizes))
        self.bias = nn.Parameter(torch.zeros(sizes[0]))


class Linear(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.linear = Weights(fan_out, fan_in)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, scaled(self.linear.weight_orig), self.linear.bias)


class Conv(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = Weights(fan_out, fan_in, kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        weight = scaled(self.conv.weight_orig)
        return F.conv2d(x, weight, self.conv.bias, padding=weight.shape[-1] // 2)


class FusedUpsample(nn.Module):
    """×2 by a transposed convolution whose kernel is spread over each four neighbouring taps."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_in, fan_out, 3, 3))
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        wide = F.pad(self.weight * math.sqrt(2 / (9 * self.weight.shape[0])), (1, 1, 1, 1))
        taps = F.avg_pool2d(wide, 2, stride=1)  # (fan_in, fan_out, 4, 4)
        return F.conv_transpose2d(x, taps, self.bias, stride=2, padding=1)


class Blur(nn.Module):
    """Binomial 3×3 filter. The port keeps it twice, once for its gradient."""

    weight: Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        for name in ("weight", "weight_flip"):
            self.register_buffer(name, (taps[:, None] * taps).expand(units, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1, groups=x.shape[1])


class Constant(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, units, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.input.expand(len(x), -1, -1, -1)


class Noise(nn.Module):
    """Adds noise. As the original has it, `side`, with fixed noise of its own and the layer's bias behind it."""

    noise: Tensor

    def __init__(self, units: int, side: int | None) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.zeros(1, units, 1, 1))
        self.bias = nn.Parameter(torch.zeros(units)) if side else None
        self.register_buffer("noise", torch.randn(1, 1, side, side) if side else None)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        x = x + scaled(self.weight_orig) * noise
        return x if self.bias is None else x + self.bias[:, None, None]


class AdaIN(nn.Module):
    """Adaptive instance norm. `styled` outputs the normed maps times their styles: its units are style channels."""

    def __init__(self, units: int, width: int, epsilon: float) -> None:
        super().__init__()
        self.style = Linear(width, 2 * units)
        self.styled = nn.Identity()
        self.epsilon = epsilon

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        gain, shift = self.style(w)[:, :, None, None].chunk(2, 1)  # (N, units, 1, 1) each
        x = self.styled(F.instance_norm(x, eps=self.epsilon) * gain)
        return x + shift


class Block(nn.Module):
    """One resolution; with its `side`, as the original has it."""

    def __init__(self, before: int, units: int, width: int, *, fused: bool, side: int | None) -> None:
        super().__init__()
        epsilon = ORIGINAL_EPSILON if side else PORT_EPSILON
        if not before:
            self.conv1: nn.Module = Constant(units)
        elif fused:
            self.conv1 = nn.Sequential(FusedUpsample(before, units), Blur(units))
        else:
            self.conv1 = nn.Sequential(nn.Upsample(scale_factor=2), Conv(before, units, 3), Blur(units))
        self.noise1, self.adain1, self.lrelu1 = Noise(units, side), AdaIN(units, width, epsilon), nn.LeakyReLU(0.2)
        self.conv2 = Conv(units, units, 3)
        self.noise2, self.adain2, self.lrelu2 = Noise(units, side), AdaIN(units, width, epsilon), nn.LeakyReLU(0.2)

    def forward(self, x: Tensor, w: tuple[Tensor, Tensor], noises: tuple[Tensor, Tensor]) -> Tensor:
        x = self.adain1(self.lrelu1(self.noise1(self.conv1(x), noises[0])), w[0])
        return self.adain2(self.lrelu2(self.noise2(self.conv2(x), noises[1])), w[1])


class Synthesis(nn.Module):
    """The levels and their colours."""

    def __init__(self, widths: tuple[int, ...], width: int, fused: tuple[bool, ...], original: bool) -> None:
        super().__init__()
        steps = zip((0, *widths), widths, fused, strict=False)
        self.progression = nn.ModuleList(
            Block(was, now, width, fused=once, side=4 << level if original else None)
            for level, (was, now, once) in enumerate(steps)
        )
        self.to_rgb = nn.ModuleList(Conv(units, 3, 1) for units in widths)


class StyleGAN(StyleBased):
    """latents (N, latent) float32 -> images (N, 3, R, R), nominally in [-1, 1] but unclamped.

    Args:
        latent: length of the latent and of the styles.
        depth: layers of the mapping network.
        widths: number of units of each resolution from 4×4 up.
        fused: of each resolution, whether a transposed convolution doubles it.
        levels: how many resolutions are used; the image is finished at the last, R = 4 · 2^(levels - 1).
        original: whether every layer has fixed noise of its own and its bias behind it, and the file the mean style, as
            with the authors; else one noise map serves both layers of a resolution, as in the port.
    """

    family: str = "stylegan"
    citation: str = (
        "Karras, Laine and Aila 2019, A Style-Based Generator Architecture for Generative Adversarial Networks, CVPR"
    )

    mean: Tensor

    def __init__(
        self,
        latent: int,
        depth: int,
        widths: tuple[int, ...],
        fused: tuple[bool, ...],
        levels: int | None = None,
        *,
        original: bool = False,
    ) -> None:
        super().__init__()
        self.latent, self.levels, self.original = latent, levels or len(widths), original
        self.style_count = 2 * self.levels
        self.register_buffer("mean", torch.zeros(latent), persistent=original)
        parts: list[nn.Module] = [nn.Identity()]
        for _ in range(depth):
            parts += [Linear(latent, latent), nn.LeakyReLU(0.2)]
        self.style = nn.Sequential(*parts)
        self.generator = Synthesis(widths, latent, fused, original)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers worth dissecting: what each adaptive instance norm outputs."""
        return tuple(f"generator.progression.{level}.adain{n}" for level in range(self.levels) for n in (1, 2))

    @property
    def style_layers(self) -> tuple[str, ...]:
        return tuple(f"{name}.styled" for name in self.layers)

    def mapped(self, latents: Tensor) -> Tensor:
        styles: Tensor = self.style(pixel_norm(latents))
        return styles

    def mean_style(self) -> Tensor:
        return self.mean

    @torch.no_grad()
    def renew_mean(self) -> None:
        self.mean.copy_(self.mapped(probes(self.latent).to(self.mean)).mean(0))

    def draw(self, styles: Tensor, latents: Tensor | None = None) -> Tensor:
        x = styles
        for level in range(self.levels):
            pair = (styles[:, 2 * level], styles[:, 2 * level + 1])
            x = self.generator.progression[level](x, pair, self._noises(latents, level))
        images: Tensor = self.generator.to_rgb[self.levels - 1](x)
        return images

    def _noises(self, latents: Tensor | None, level: int) -> tuple[Tensor, Tensor]:
        """Of both layers of a level; the port draws one for both."""
        size, block = (4 << level, 4 << level), self.generator.progression[level]
        drawn = latents if self.noise == "drawn" else None
        if self.original:
            if drawn is None:
                return block.get_buffer("noise1.noise"), block.get_buffer("noise2.noise")
            return drawn_noise(drawn, 2 * level, size), drawn_noise(drawn, 2 * level + 1, size)
        one = (fixed_noise(level, size) if drawn is None else drawn_noise(drawn, level, size)).to(self.mean)
        return one, one


def infer(state: Mapping[str, Tensor]) -> StyleGAN:
    """The StyleGAN generator these weights belong to, in eval mode, with its own float32 copy of them.

    Keys are those of the port: `style.1.linear.weight_orig`, `generator.progression.0.conv1.input`, …, of which levels
    above the last whose `to_rgb` has a bias other than zero were never trained and are not used; or those of GenForce.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no StyleGAN.
    """
    original = genforce.stylegan(state)
    state = original or state
    start = state.get("generator.progression.0.conv1.input")
    if start is None:
        raise DissectError("no key is like generator.progression.0.conv1.input.")
    to_rgb = re.compile(r"generator\.to_rgb\.(\d{1,2})\.conv\.weight_orig")
    colours = {int(match[1]): tensor for key, tensor in state.items() if (match := to_rgb.fullmatch(key))}
    if sorted(colours) != list(range(len(colours))) or not colours or any(t.ndim != 4 for t in colours.values()):
        raise DissectError("its generator.to_rgb are not numbered from 0 on with 4 axes each.")
    depth = sum(bool(re.fullmatch(r"style\.\d+\.linear\.bias", key)) for key in state)
    first = state.get("style.1.linear.weight_orig")
    if first is None or first.ndim != 2:
        raise DissectError("key style.1.linear.weight_orig is missing or has not 2 axes.")
    biases = [state.get(f"generator.to_rgb.{level}.conv.bias") for level in range(len(colours))]
    trained = [level for level, bias in enumerate(biases) if original or (bias is not None and bool(bias.any()))]
    fused = tuple(f"generator.progression.{level}.conv1.0.weight" in state for level in range(len(colours)))
    with torch.device("meta"):
        module = StyleGAN(
            first.shape[1],
            depth,
            tuple(colours[level].shape[1] for level in range(len(colours))),
            fused,
            trained[-1] + 1 if trained else None,
            original=original is not None,
        )
    if start.shape[1:] != (colours[0].shape[1], 4, 4):
        raise DissectError(f"key generator.progression.0.conv1.input has shape {shape(start)}; expected 4×4 maps.")
    filled(module, state)
    module.layout = genforce.LAYOUT if original is not None else ""
    if original is None:
        module.renew_mean()
    return module
