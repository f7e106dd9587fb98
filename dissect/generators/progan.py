"""The progressive-GAN generator (Karras et al. 2018), its architecture inferred from a state dict.

Featuremap sizes double from 4×4; `layer1` … `layer{2k}` come in pairs of one resolution, then a 1×1 convolution
to RGB. Weights use the equalised learning rate: stored as drawn from N(0, 1) and scaled in the forward pass.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLU


def pixel_norm(x: Tensor) -> Tensor:
    """Divide each pixel's feature vector by its root mean square over channels (Karras et al. 2018, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class WScale(nn.Module):
    """Equalised learning rate: scale, then add the bias `b`."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.b[:, None, None]


class Block(nn.Module):
    """Pixel norm, optional ×2 nearest upsampling, convolution, scale and bias, leaky ReLU (slope 0.2)."""

    def __init__(self, fan_in: int, fan_out: int, *, kernel: int = 3, padding: int = 1, upsample: bool = False) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv = nn.Conv2d(fan_in, fan_out, kernel, padding=padding, bias=False)
        self.wscale = WScale(fan_out, math.sqrt(2) / (kernel * math.sqrt(fan_in)))
        nn.init.normal_(self.conv.weight)

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
        nn.init.normal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.wscale(self.conv(pixel_norm(x)))


class ProGAN(nn.Module):
    """latents (N, latent) float32 -> images (N, 3, R, R), nominally in [-1, 1] but unclamped.

    `widths` holds the number of units of each resolution from 4×4 up; R = 4 · 2^(len(widths) - 1).
    """

    def __init__(self, latent: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.latent = latent
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
