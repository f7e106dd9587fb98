"""Residual generators of SNGAN's kind (Miyato et al. 2018, table 3) as the library mimicry lays them out.

A linear layer `l1` makes a small map; blocks `block2`, `block3`, … double it, each with two batch norms, of which
those of conditional networks take gain and bias from the class; a last norm, ReLU, a convolution and tanh. SNGAN,
SSGAN, InfoMax-GAN, WGAN-GP, cGAN with projection and, with spectral norm and attention, SAGAN share this. StudioGAN's
`resnet` has the same parts under other names (see `studiogan`).

The file does not say how blocks resize (mimicry bilinearly, SNGAN's own code and StudioGAN by repeating pixels), nor,
where widths are equal, behind which of them attention comes, nor the activation: the way is taken that best reproduces
what the batch norms remember.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from math import isqrt

import torch
from torch import Tensor, nn

from ....hooks.errors import DissectError
from ..batch_statistics import measure, norms_of, remembered, taken
from ..entries import folded
from . import studiogan
from .activations import ACTIVATIONS, BATCH, SAMPLES, USUAL, settle_activation, trial_latents
from .architecture import Architecture, filled
from .biggan import Attention
from .biggan_layers import Conv, Embedding, Linear, common_size, doubled, drop_spectral_norm

RESIZES = ("bilinear", "nearest")  # mimicry's own first
TRIED = 256  # samples on which ways are compared


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias come from the class, in this order."""

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(units, affine=False)
        self.embed = Embedding(classes, 2 * units)

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        gain, bias = self.embed(classes)[:, :, None, None].chunk(2, 1)
        return gain * self.bn(x) + bias


class Block(nn.Module):
    """Twice norm, activation and convolution, the first resized; beside them a resized 1×1 convolution.

    Attributes:
        activation: its name, one of `ACTIVATIONS`.
    """

    activation: str = USUAL

    def __init__(self, fan_in: int, fan_out: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.c1, self.c2, self.c_sc = Conv(fan_in, hidden), Conv(hidden, fan_out), Conv(fan_in, fan_out, 1)
        self.b1, self.b2 = (
            ConditionalNorm(units, classes) if classes else nn.BatchNorm2d(units) for units in (fan_in, hidden)
        )

    def forward(self, x: Tensor, classes: tuple[Tensor, ...], resize: str) -> Tensor:
        act = ACTIVATIONS[self.activation]
        h = self.c1(doubled(act(self.b1(x, *classes)), resize))
        h = self.c2(act(self.b2(h, *classes)))
        return h + self.c_sc(doubled(x, resize))


class Residual(Architecture):
    """latents (N, latent) or (N, latent + classes) float32 -> images (N, 3, R, R) in [-1, 1].

    Args:
        latent: length of the latent.
        widths: units of the map that `l1` makes and of each block; R = bottom · 2^(len(widths) − 1).
        hidden: units between the convolutions of each block.
        bottom: side of the map that `l1` makes.
        classes: how many there are; 0 without.
        spectral: whether weights are spectrally normalised.
        attention: units that self-attention looks at, see `attends`; 0 without.

    Attributes:
        resize: how blocks double their maps, `bilinear` or `nearest`.
        attends: the number of the block behind which attention comes, from 0.
        activation: its name, one of `ACTIVATIONS`; the last one, blocks have theirs.
    """

    activation: str = USUAL

    family = "residual"
    citation = (
        "Miyato, Kataoka, Koyama and Yoshida 2018, Spectral Normalization for Generative Adversarial Networks, ICLR; "
        "layout of mimicry (Lee and Town 2020)"
    )

    def __init__(
        self,
        latent: int,
        widths: Sequence[int],
        hidden: Sequence[int],
        *,
        bottom: int,
        classes: int = 0,
        spectral: bool = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        self.latent, self.classes, self.bottom = latent, classes, bottom
        self.resize, self.attends = RESIZES[0], -1
        last = len(widths) + 1
        self.l1 = Linear(latent, widths[0] * bottom**2)
        for number, ((fan_in, fan_out), between) in enumerate(zip(pairwise(widths), hidden, strict=True), 2):
            self.add_module(f"block{number}", Block(fan_in, fan_out, between, classes))
        self.add_module(f"b{last}", nn.BatchNorm2d(widths[-1]))
        self.add_module(f"c{last}", Conv(widths[-1], 3))
        if attention:
            self.attn_block = Attention(attention)
        if not spectral:
            drop_spectral_norm(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """Outputs of the blocks, and of attention where there is some."""
        names = [name for name, _ in self.named_children() if name.startswith("block")]
        if self.attends >= 0:
            names.insert(self.attends + 1, "attn_block")
        return tuple(names)

    def settings(self) -> dict[str, object]:
        used = {"activation": self.activation} if self.activation != USUAL else {}
        return {"resize": self.resize, "attends": self.attends, **used}

    def forward(self, latents: Tensor) -> Tensor:
        x = self.through(latents, len(self.layers))
        *_, norm, conv = (layer for name, layer in self.named_children() if name != "attn_block")
        return torch.tanh(conv(ACTIVATIONS[self.activation](norm(x))))

    def through(self, latents: Tensor, layers: int) -> Tensor:
        """latents -> the map that this many of the first layers make, (N, U, h, w)."""
        z, one_hot = latents.split([self.latent, self.classes], 1)
        classes = (one_hot,) if self.classes else ()
        x: Tensor = self.l1(z).unflatten(1, (-1, self.bottom, self.bottom))
        for name in self.layers[:layers]:
            layer = self.get_submodule(name)
            x = layer(x, one_hot) if name == "attn_block" else layer(x, classes, self.resize)
        return x


def infer(state: Mapping[str, Tensor]) -> Residual:
    """The generator these weights belong to, in eval mode, with its own float32 copy of them.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no such generator.
    """
    studio = studiogan.residual(state)
    if studio is not None:
        state = studio.state
    numbers = sorted(int(match[1]) for key in state if (match := re.fullmatch(r"block(\d{1,2})\.c_sc\.weight", key)))
    if not numbers or "l1.weight" not in state:
        raise DissectError("no key is like block2.c_sc.weight.")
    if numbers != list(range(2, len(numbers) + 2)):
        raise DissectError(f"its blocks that double are numbered {', '.join(map(str, numbers))}; expected 2, 3, 4, ….")
    state = folded(state)  # attention comes with PyTorch's own spectral norm
    state = {re.sub(r"\.sn_u$", ".u0", re.sub(r"\.sn_sigma$", ".sv0", key)): value for key, value in state.items()}
    blocks = [f"block{number}" for number in numbers]
    widths = [common_size(state, ("block2.c1.weight", 1), ("block2.c_sc.weight", 1))]
    widths += [common_size(state, (f"{block}.c2.weight", 0), (f"{block}.c_sc.weight", 0)) for block in blocks]
    hidden = [common_size(state, (f"{block}.c1.weight", 0), (f"{block}.c2.weight", 1)) for block in blocks]
    numbers_of_map = common_size(state, ("l1.weight", 0), ("l1.bias", 0))
    bottom = isqrt(numbers_of_map // widths[0])
    if bottom**2 * widths[0] != numbers_of_map:
        raise DissectError(f"its l1 makes {numbers_of_map} numbers, no square map of {widths[0]} units.")
    attended = common_size(state, ("attn_block.theta.weight", 1)) if "attn_block.theta.weight" in state else 0
    attending_blocks = [number for number, width in enumerate(widths[1:]) if width == attended]
    if attended and not attending_blocks:
        raise DissectError(f"its attention takes {attended} units, and no block has as many.")
    with torch.device("meta"):
        module = Residual(
            common_size(state, ("l1.weight", 1)),
            widths,
            hidden,
            bottom=bottom,
            classes=common_size(state, ("block2.b1.embed.weight", 0)) if "block2.b1.embed.weight" in state else 0,
            spectral="l1.u0" in state or "block2.c1.u0" in state,
            attention=attended,
        )
    filled(module, state)
    if studio is None:
        settle(module, RESIZES, attending_blocks or [-1])
    else:
        module.layout = studiogan.LAYOUT
        for norm in norms_of(module).values():
            norm.eps = studiogan.EPS  # type: ignore[assignment]
        settle(module, ["nearest"], [studio.attends])
        if module.classes == module.latent:
            module.assumed += (f"whether its norms take {module.classes} classes (they are taken)",)
    return module


@torch.no_grad()
def settle(module: Residual, resizes: Sequence[str], attending_blocks: Sequence[int]) -> None:
    """Set how the network resizes, attends and activates, by what its batch norms remember.

    Where they do not tell, it does as mimicry does, and `assumed` says so.
    """
    module.resize, module.attends = resizes[0], attending_blocks[min(1, len(attending_blocks) - 1)]
    latents = trial_latents(module.latent, module.classes, TRIED)
    ways = list(product(resizes, attending_blocks))
    if not taken(map(remembered, norms_of(module).values())):
        module.assumed = (f"its activation ({USUAL} is taken)",)
        if len(resizes) > 1:
            module.assumed += (f"how its blocks resize ({module.resize} is taken)",)
        if len(attending_blocks) > 1:
            module.assumed += (f"behind which block it attends ({module.layers[module.attends]} is taken)",)
        return
    off: dict[tuple[str, int], float] = {}
    usual = (module.resize, module.attends)
    for way in sorted(ways, key=lambda way: (way[0] != usual[0], way[1] != usual[1])) if len(ways) > 1 else ():
        module.resize, module.attends = way
        off[way] = sum(agreement.off for agreement in measure(module, module, latents))
    module.resize, module.attends = min(off, key=lambda way: off[way], default=usual)
    if not settle_activation(module, lambda some: module.through(some, 1), latents[: SAMPLES // BATCH]):
        module.assumed = (f"its activation ({USUAL} is taken)",)
