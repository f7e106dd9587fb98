"""The progressive-GAN generator (Karras et al. 2018), its architecture inferred from a state dict.

Featuremap sizes double from 4×4; `layer1` … `layer{2k}` come in pairs of one resolution, then a 1×1 convolution
to RGB. Weights use the equalised learning rate: stored as drawn from N(0, 1) and scaled in the forward pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from statistics import mode

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from . import genforce
from .architecture import Architecture, check_keys, draw_weight, shape

SLOPE = 0.2  # of the leaky ReLU
MOST_RGB_SIZE = 1 << 14  # pixels; a larger size in a key is a mistake


def pixel_norm(x: Tensor) -> Tensor:
    """Divide each pixel's feature vector by its root mean square over channels (Karras et al. 2018, section 4.2)."""
    return x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-8).to(x.dtype)  # autocast would go on in float32


class WScale(nn.Module):
    """Equalised learning rate: scale, then add the bias `b`."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.b[:, None, None].to(x.dtype)


class Block(nn.Module):
    """Pixel norm, optional ×2 nearest upsampling, convolution, scale and bias, leaky ReLU (slope 0.2)."""

    def __init__(self, fan_in: int, fan_out: int, *, kernel: int = 3, padding: int = 1, upsample: bool = False) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv = nn.Conv2d(fan_in, fan_out, kernel, padding=padding, bias=False)
        self.wscale = WScale(fan_out, math.sqrt(2) / (kernel * math.sqrt(fan_in)))
        draw_weight(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(x)
        if self.upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.leaky_relu(self.wscale(self.conv(x)), SLOPE)


class ToRGB(nn.Module):
    """Pixel norm, 1×1 convolution, scale and bias; no activation."""

    def __init__(self, fan_in: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(fan_in, 3, 1, bias=False)
        self.wscale = WScale(3, 1 / math.sqrt(fan_in))
        draw_weight(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.wscale(self.conv(pixel_norm(x)))


class ProGAN(Architecture):
    """latents (N, latent) float32 -> images (N, 3, R, R), nominally in [-1, 1] but unclamped.

    `widths` holds the number of units of each resolution from 4×4 up; R = 4 · 2^(len(widths) - 1).
    """

    family: str = "progan"
    citation: str = (
        "Karras, Aila, Laine and Lehtinen 2018, Progressive Growing of GANs for Improved Quality, Stability, and "
        "Variation, ICLR"
    )

    def __init__(self, latent: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.latent, self.widths = latent, widths
        self.resolution = 4 * 2 ** (len(widths) - 1)
        before = latent
        for level, width in enumerate(widths):
            # at first, the 1×1 latent grows to 4×4
            first = Block(before, width, upsample=True) if level else Block(before, width, kernel=4, padding=3)
            self.add_module(f"layer{2 * level + 1}", first)
            self.add_module(f"layer{2 * level + 2}", Block(width, width))
            before = width
        self.add_module(f"output_{self.resolution}x{self.resolution}", ToRGB(before))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers worth dissecting."""
        return tuple(name for name, _ in self.named_children() if name.startswith("layer"))

    def forward(self, latents: Tensor) -> Tensor:
        x = latents.reshape(len(latents), self.latent, 1, 1)
        for block in self.children():
            x = block(x)
        return x


def infer(state: Mapping[str, Tensor]) -> ProGAN:
    """The progressive-GAN generator these weights belong to, in eval mode, with its own float32 copy of them.

    Keys are `layer{i}.conv.weight`, `layer{i}.wscale.b` (i from 1) and `output_{R}x{R}.…`; in older files
    `features.{i}.…` (i from 0) and `output.…`; or those of GenForce. Older files may also store each layer's scale, as
    measured from its first weights; it is folded into the weights, since the module's own is computed.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no progressive GAN.
    """
    theirs = genforce.progan(state)
    state = theirs or state
    older = not any(re.match(r"layer\d{1,4}\.", key) for key in state)
    numbered = re.compile(r"features\.(\d{1,4})\..+" if older else r"layer(\d{1,4})\..+")
    numbers = {int(found[1]) for key in state if (found := numbered.fullmatch(key))}
    if not numbers:
        raise DissectError("no key is like layer1.conv.weight (or, in older files, features.0.conv.weight).")
    levels = _levels_of_output(state) or max(1, len(numbers) // 2)
    first = state.get(_spelt("layer1.conv.weight", older))
    if first is None:
        raise DissectError(f"key {_spelt('layer1.conv.weight', older)} is missing.")
    if first.ndim != 4:
        raise DissectError(
            f"key {_spelt('layer1.conv.weight', older)} has shape {shape(first)}; "
            "expected 4 axes (units, latent, 4, 4)."
        )
    widths = tuple(_width(state, level, older) for level in range(levels))
    latent = first.shape[1]
    if not latent or not all(widths):
        raise DissectError("some tensors are empty: every layer needs at least one unit.")

    with torch.device("meta"):  # no memory, and no random numbers drawn, for weights that are replaced at once
        module = ProGAN(latent, widths)
    expected = {key: _spelt(key, older) for key in module.state_dict()}
    parts = {name: part for name, part in module.named_modules() if isinstance(part, WScale)}
    scales = {_spelt(f"{name}.scale", older): name for name in parts}
    check_keys(
        {expected[key]: shape(tensor) for key, tensor in module.state_dict().items()},
        {key: shape(tensor) for key, tensor in state.items() if key not in scales or tensor.numel() != 1},
    )
    weights = {key: state[spelt] for key, spelt in expected.items()}
    for spelt, name in scales.items():
        if spelt in state:
            weight = f"{name.removesuffix('wscale')}conv.weight"
            weights[weight] = weights[weight] * (state[spelt].item() / parts[name].scale)
    module.to_empty(device="cpu").load_state_dict(weights)
    if theirs is not None:
        module.layout = genforce.LAYOUT
        if len(set(widths)) == 1:
            module.assumed = ("whether it resizes by transposed convolutions (that it does not is taken)",)
    return module.eval()


def _spelt(key: str, older: bool) -> str:
    """A key of `ProGAN` as the file spells it: layer3.x is features.2.x in older files, output_8x8.x is output.x."""
    if not older:
        return key
    block, _, rest = key.partition(".")
    return f"features.{int(block.removeprefix('layer')) - 1}.{rest}" if block.startswith("layer") else f"output.{rest}"


def _levels_of_output(state: Mapping[str, Tensor]) -> int | None:
    """How many resolutions 4, 8, 16, … there are up to that in the output layer's name; None if it has none."""
    for key in state:
        if found := re.fullmatch(r"output_(\d{1,6})x\1\..+", key):
            size = int(found[1])
            if size < 4 or size & (size - 1) or size > MOST_RGB_SIZE:
                raise DissectError(f"key {key} speaks of {size} pixels; expected 4, 8, 16, ….")
            return size.bit_length() - 2
    return None


def _width(state: Mapping[str, Tensor], level: int, older: bool) -> int:
    """Units of the two layers of one resolution, by majority, so that a single misshapen tensor is found out."""
    names = (f"layer{2 * level + i}.{part}" for i in (1, 2) for part in ("conv.weight", "wscale.b"))
    keys = [_spelt(name, older) for name in names]
    sizes = [state[key].shape[0] for key in keys if key in state and state[key].ndim]
    if not sizes:
        raise DissectError(f"key {keys[0]} is missing.")
    return mode(sizes)
