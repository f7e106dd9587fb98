"""BigGAN-deep (Brock et al. 2019, appendix B and figure 16) as pytorch-pretrained-BigGAN lays it out, inferred.

`gen_z` makes 4×4 of the latent and the class's embedding, which condition every batch norm too; blocks with a
bottleneck follow, with self-attention among them. Everything but the embedding and the last batch norm is spectrally
normalised. Batch norms hold statistics for a row of truncations between 0 and 1.

Weights do not tell which blocks upsample. In the published generators of 128, 256 and 512 pixels it is every second
block, from the second on, and only these ever halve the units; that is the rule here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from .architecture import Architecture, BatchStatistics, filled
from .biggan_layers import PyTorchConv as Conv
from .biggan_layers import PyTorchLinear as Linear
from .biggan_layers import attended, common_size, doubled

EPS = 1e-4  # of the batch norms
SIDE = 4  # of the map that `gen_z` makes
BOTTLENECK = 4  # how many times fewer units there are inside a block


class Norm(BatchStatistics):
    """Statistics of the map for `stats` truncations 0, …, 1 in equal steps; taken anew, the same for all."""

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, stats: int) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.empty(stats, channels))
        self.register_buffer("running_vars", torch.empty(stats, channels))

    def remembered(self) -> tuple[Tensor, Tensor]:
        return self.running_means[-1], self.running_vars[-1]  # of latents as they are drawn

    def statistics(self, x: Tensor, truncation: float) -> tuple[Tensor, Tensor]:
        """(U,) means and variances."""
        if self.training:
            return self.take(x, self.running_means, self.running_vars)
        return at(self.running_means, truncation), at(self.running_vars, truncation)


class ConditionalNorm(Norm):
    """Batch norm whose gain and bias are linear functions of the condition."""

    def __init__(self, channels: int, condition: int, stats: int) -> None:
        super().__init__(channels, stats)
        self.scale = Linear(condition, channels, bias=False)
        self.offset = Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor, truncation: float) -> Tensor:
        mean, variance = (values[:, None, None] for values in self.statistics(x, truncation))
        gain, bias = (part(condition)[:, :, None, None] for part in (self.scale, self.offset))  # (N, U, 1, 1)
        return (x - mean) / torch.sqrt(variance + EPS) * (1 + gain) + bias


class OutputNorm(Norm):
    """Batch norm with a gain and a bias of its own."""

    def __init__(self, channels: int, stats: int) -> None:
        super().__init__(channels, stats)
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor, truncation: float) -> Tensor:
        return F.batch_norm(x, *self.statistics(x, truncation), self.weight, self.bias, eps=EPS)


class Block(nn.Module):
    """Four times batch norm, ReLU and convolution: into a bottleneck, twice 3×3 in it, and out; added to the input.

    Where units are fewer after it, the input loses its last ones.
    """

    def __init__(self, fan_in: int, fan_out: int, condition: int, stats: int, *, upsample: bool) -> None:
        super().__init__()
        self.upsample, self.fan_out = upsample, fan_out
        inside = fan_in // BOTTLENECK
        self.bn_0 = ConditionalNorm(fan_in, condition, stats)
        self.conv_0 = Conv(fan_in, inside, 1)
        self.bn_1 = ConditionalNorm(inside, condition, stats)
        self.conv_1 = Conv(inside, inside, 3)
        self.bn_2 = ConditionalNorm(inside, condition, stats)
        self.conv_2 = Conv(inside, inside, 3)
        self.bn_3 = ConditionalNorm(inside, condition, stats)
        self.conv_3 = Conv(inside, fan_out, 1)

    def forward(self, x: Tensor, condition: Tensor, truncation: float) -> Tensor:
        h = self.conv_0(F.relu(self.bn_0(x, condition, truncation)))
        h = F.relu(self.bn_1(h, condition, truncation))
        h = self.conv_1(doubled(h) if self.upsample else h)
        h = self.conv_2(F.relu(self.bn_2(h, condition, truncation)))
        h = self.conv_3(F.relu(self.bn_3(h, condition, truncation)))
        x = x[:, : self.fan_out]
        return h + (doubled(x) if self.upsample else x)


class Attention(nn.Module):
    """Self-attention (Zhang et al. 2019) whose keys and values are pooled 2×2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snconv1x1_theta = Conv(channels, channels // 8, 1, bias=False)
        self.snconv1x1_phi = Conv(channels, channels // 8, 1, bias=False)
        self.snconv1x1_g = Conv(channels, channels // 2, 1, bias=False)
        self.snconv1x1_o_conv = Conv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = attended(self.snconv1x1_theta(x), self.snconv1x1_phi(x), self.snconv1x1_g(x))
        return x + self.gamma * self.snconv1x1_o_conv(mixed)


class Generator(nn.Module):
    """condition (N, condition) -> images (N, 3, R, R) in [-1, 1]; for the arguments see `BigGANDeep`."""

    def __init__(self, condition: int, widths: Sequence[int], attention: Collection[int], stats: int) -> None:
        super().__init__()
        self.gen_z = Linear(condition, SIDE**2 * widths[0])
        self.layers = nn.ModuleList()
        for number, (fan_in, fan_out) in enumerate(pairwise(widths)):
            if len(self.layers) in attention:
                self.layers.append(Attention(fan_in))
            self.layers.append(Block(fan_in, fan_out, condition, stats, upsample=number % 2 == 1))
        self.bn = OutputNorm(widths[-1], stats)
        self.conv_to_rgb = Conv(widths[-1], widths[-1], 3)

    def forward(self, condition: Tensor, truncation: float) -> Tensor:
        x = self.gen_z(condition).unflatten(1, (SIDE, SIDE, -1)).permute(0, 3, 1, 2)  # (N, U, 4, 4)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, Attention) else layer(x, condition, truncation)
        x = self.conv_to_rgb(F.relu(self.bn(x, truncation)))
        return torch.tanh(x[:, :3])  # as many filters as units come out, of which three are the image


class BigGANDeep(Architecture):
    """latents (N, latent + classes), a latent and a class as one-hot, -> images (N, 3, R, R) in [-1, 1].

    Args:
        latent: length of the latent, and of the class's embedding.
        classes: how many classes there are.
        widths: units that go into each block, and those that leave the last; R = 4 · 2^(blocks / 2).
        attention: indices in `generator.layers` of self-attention instead of a block.
        stats: for how many truncations the batch norms hold statistics.

    Attributes:
        truncation: in (0, 1], that of the latents; it chooses the statistics. The latents are taken as they come.
    """

    family = "biggan_deep"
    citation = (
        "Brock, Donahue and Simonyan 2019, Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR"
    )
    truncation: float = 1.0

    def settings(self) -> dict[str, object]:
        return {"truncation": self.truncation}

    def __init__(
        self, latent: int, classes: int, widths: Sequence[int], *, attention: Collection[int], stats: int
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.embeddings = nn.Linear(classes, latent, bias=False)
        self.generator = Generator(2 * latent, widths, attention, stats)

    @property
    def layers(self) -> tuple[str, ...]:
        """What each block and each self-attention outputs, two blocks of each size, 4×4 and 8×8 first."""
        return tuple(f"generator.layers.{index}" for index in range(len(self.generator.layers)))

    def forward(self, latents: Tensor) -> Tensor:
        z, classes = latents.split([self.latent, self.classes], 1)
        return self.generator(torch.cat([z, self.embeddings(classes)], 1), self.truncation)


def at(table: Tensor, truncation: float) -> Tensor:
    """The row of statistics (stats, U) -> (U,) for a truncation in (0, 1].

    Between two rows they are mixed as the original mixes them, which is the other way round than one would expect: the
    further on towards the second, the more of the first.
    """
    last = len(table) - 1
    share, row = math.modf(truncation / (1 / last))
    first = int(row)
    return table[first] if share == 0 else table[first] * share + table[min(first + 1, last)] * (1 - share)


def infer(state: Mapping[str, Tensor]) -> BigGANDeep:
    """The generator these weights belong to, in eval mode, with its own float32 copy of them.

    Widths are the sizes of the blocks' first convolutions and of `generator.bn`; attention is where
    `generator.layers.N.snconv1x1_theta.weight_orig` is; see the module for which blocks upsample. The epsilon is the
    published generators' 1e-4.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no such BigGAN-deep.
    """
    pattern = re.compile(r"generator\.layers\.(\d{1,2})\.(snconv1x1_theta|conv_[03])\.weight_orig")
    first_layers = {int(match[1]): match[2] for key in state if (match := pattern.fullmatch(key))}
    if not first_layers:
        raise DissectError("no key is like generator.layers.0.conv_0.weight_orig.")
    attention = [index for index, part in first_layers.items() if part == "snconv1x1_theta"]
    blocks = [index for index in range(max(first_layers) + 1) if index not in attention]
    widths = []
    for index in blocks:
        block = f"generator.layers.{index}."
        sizes = [(f"{block}conv_0.weight_orig", 1), (f"{block}bn_0.running_means", 1), (f"{block}bn_0.running_vars", 1)]
        widths.append(common_size(state, *sizes))
    ends = ("generator.bn.weight", "generator.bn.bias", "generator.conv_to_rgb.weight_orig")
    widths.append(common_size(state, *((key, 0) for key in ends)))
    check_widths(widths, blocks)
    stats = common_size(state, *((f"generator.layers.{index}.bn_0.running_means", 0) for index in blocks))
    if stats < 2:
        raise DissectError(
            f"key generator.layers.{blocks[0]}.bn_0.running_means has statistics for {stats} truncation; expected at "
            "least those for 0 and 1."
        )
    with torch.device("meta"):
        module = BigGANDeep(
            common_size(state, ("embeddings.weight", 0)),
            common_size(state, ("embeddings.weight", 1)),
            widths,
            attention=attention,
            stats=stats,
        )
    filled(module, state)
    return module


def check_widths(widths: Sequence[int], indices: Sequence[int]) -> None:
    """Whether blocks at these indices in `generator.layers` can upsample by the rule.

    Raises:
        DissectError: they are an odd number, one that does not upsample changes the units, one that does neither
            keeps nor halves them, or too few are left for an image.
    """
    if len(indices) % 2:
        raise DissectError(f"generator.layers has {len(indices)} blocks; expected an even number, two of each size.")
    for number, index in enumerate(indices):
        before, after = widths[number], widths[number + 1]
        if after != before and (number % 2 == 0 or after != before // 2):
            allowed = f"{before} or {before // 2}" if number % 2 else f"{before}"
            raise DissectError(
                f"key generator.layers.{index}.conv_3.weight_orig must output {after} units to fit what follows; "
                f"expected {allowed}, since every second block upsamples, and only these may halve the units."
            )
    if widths[-1] < 3:
        raise DissectError(f"key generator.conv_to_rgb.weight_orig makes {widths[-1]} channels; expected at least 3.")
