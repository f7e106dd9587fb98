"""BigGAN (Brock et al. 2019, section 3 and figure 15) as BigGAN-PyTorch lays it out, inferred from a state dict.

A linear layer makes 4×4 of the latent, or of its first part; residual blocks of `blocks.0` up double the size; batch
norms get their gain and bias from the class, beside which, in a hierarchical generator, each block gets a part of the
latent of its own. All but the class embedding is spectrally normalised, where the file has the vectors for it. What
weights do not tell is taken as in that code's scripts: nearest upsampling, batch norm with an epsilon of 1e-5, or of
1e-4 in the networks that its authors converted from TensorFlow Hub, whose singular values were never recorded. The
activation is the one with which the first block reproduces what its norms remember, else ReLU. StudioGAN's `big_resnet`
has the same parts under other names (see `studiogan`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from . import studiogan
from .activations import ACTIVATIONS, SAMPLES, USUAL, settle_activation, trial_latents
from .architecture import Architecture, BatchStatistics, filled
from .biggan_layers import Conv, Embedding, Linear, attended, common_size, doubled, drop_spectral_norm

BN_EPS, CONVERTED_EPS = 1e-5, 1e-4
SIDE = 4  # of the map that the linear layer makes


class Norm(BatchStatistics):
    """Subtract the stored mean and divide by the stored deviation; gain and bias are the subclasses'.

    Args:
        channels: units of the map.
        counted: the statistics are kept one module deeper, in `bn`, beside a counter. Where that is not zero they are
            sums over as many batches ("standing statistics").
    """

    def __init__(self, channels: int, counted: bool) -> None:
        super().__init__()
        self.counted, self.epsilon = counted, BN_EPS
        if counted:
            self.bn = nn.Module()
            self.bn.register_buffer("accumulation_counter", torch.empty(1))
        holder = self.bn if counted else self
        holder.register_buffer("stored_mean", torch.empty(channels))
        holder.register_buffer("stored_var", torch.empty(channels))

    def normalised(self, x: Tensor, gain: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        holder = self.bn if self.counted else self
        if self.training:
            if self.counted and not self.seen:
                holder.get_buffer("accumulation_counter").zero_()
            now = self.take(x, holder.get_buffer("stored_mean"), holder.get_buffer("stored_var"))
            return F.batch_norm(x, *now, gain, bias, eps=self.epsilon)
        return F.batch_norm(x, *self.remembered(), gain, bias, eps=self.epsilon)

    def remembered(self) -> tuple[Tensor, Tensor]:
        holder = self.bn if self.counted else self
        batches = holder.get_buffer("accumulation_counter").clamp(min=1) if self.counted else 1
        return holder.get_buffer("stored_mean") / batches, holder.get_buffer("stored_var") / batches


class ConditionalNorm(Norm):
    """Batch norm whose gain and bias are functions of the condition; `embedded`, of a class."""

    def __init__(self, channels: int, condition: int, *, embedded: bool, counted: bool) -> None:
        super().__init__(channels, counted)
        self.gain, self.bias = (
            Embedding(condition, channels) if embedded else Linear(condition, channels, bias=False) for _ in range(2)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = (part(condition)[:, :, None, None] for part in (self.gain, self.bias))
        return self.normalised(x) * (1 + gain) + bias


class OutputNorm(Norm):
    """Batch norm with a gain and a bias of its own."""

    def __init__(self, channels: int, *, counted: bool) -> None:
        super().__init__(channels, counted)
        self.gain, self.bias = (nn.Parameter(torch.empty(channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.normalised(x, self.gain, self.bias)


class Block(nn.Module):
    """Twice batch norm, activation and convolution, the first upsampled; beside them an upsampled 1×1 convolution.

    Attributes:
        activation: its name, one of `ACTIVATIONS`.
    """

    activation: str = USUAL

    def __init__(self, fan_in: int, fan_out: int, condition: int, *, embedded: bool, counted: bool) -> None:
        super().__init__()
        self.conv1 = Conv(fan_in, fan_out)
        self.conv2 = Conv(fan_out, fan_out)
        self.conv_sc = Conv(fan_in, fan_out, 1)
        self.bn1 = ConditionalNorm(fan_in, condition, embedded=embedded, counted=counted)
        self.bn2 = ConditionalNorm(fan_out, condition, embedded=embedded, counted=counted)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv2(ACTIVATIONS[self.activation](self.halfway(x, condition)))
        return h + self.conv_sc(doubled(x))

    def halfway(self, x: Tensor, condition: Tensor) -> Tensor:
        """What the second batch norm makes."""
        h = self.conv1(doubled(ACTIVATIONS[self.activation](self.bn1(x, condition))))
        return self.bn2(h, condition)


class Attention(nn.Module):
    """Self-attention (Zhang et al. 2019) whose keys and values are pooled 2×2; the condition is not looked at."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = Conv(channels, channels // 8, 1, bias=False)
        self.phi = Conv(channels, channels // 8, 1, bias=False)
        self.g = Conv(channels, channels // 2, 1, bias=False)
        self.o = Conv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.empty(()))

    def forward(self, x: Tensor, _condition: Tensor) -> Tensor:
        return self.gamma * self.o(attended(self.theta(x), self.phi(x), self.g(x))) + x


class Activation(nn.Module):
    """Of the output; `activation` as of a block."""

    activation: str = USUAL

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](x)


class Stage(nn.ModuleList):
    """What is done at one resolution: a block, and attention where there is one."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for part in self:
            x = part(x, condition)
        return x


class BigGAN(Architecture):
    """latents (N, latent + classes), a latent and a class as one-hot, -> images (N, 3, R, R) in [-1, 1].

    Args:
        latent: length of the latent.
        classes: how many classes there are; 0 without.
        widths: units of 4×4 and of each stage after it; R = 4 · 2^(len(widths) - 1).
        embedding: length of the class embedding that all norms share; 0 where each has its own.
        hierarchical: the latent is cut into equal parts, one for the linear layer and one for each stage.
        attention: numbers of the stages that end in self-attention.
        counted: see `Norm`.
        spectral: whether weights are spectrally normalised.
        epsilon: of the batch norms.
    """

    family = "biggan"
    citation = (
        "Brock, Donahue and Simonyan 2019, Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR"
    )

    def __init__(
        self,
        latent: int,
        classes: int,
        widths: Sequence[int],
        *,
        embedding: int,
        hierarchical: bool,
        attention: Collection[int] = (),
        counted: bool = False,
        spectral: bool = True,
        epsilon: float = BN_EPS,
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.chunk = latent // len(widths) if hierarchical else latent
        condition = (embedding or classes) + (self.chunk if hierarchical else 0)
        self.shared = Embedding(classes, embedding) if embedding else nn.Identity()
        self.linear = Linear(self.chunk, widths[0] * SIDE**2)
        self.blocks = nn.ModuleList()
        for number, (fan_in, fan_out) in enumerate(pairwise(widths)):
            stage = Stage([Block(fan_in, fan_out, condition, embedded=classes > 0 and not embedding, counted=counted)])
            if number in attention:
                stage.append(Attention(fan_out))
            self.blocks.append(stage)
        self.output_layer = nn.Sequential(OutputNorm(widths[-1], counted=counted), Activation(), Conv(widths[-1], 3))
        for module in self.modules():
            if isinstance(module, Norm):
                module.epsilon = epsilon
        if not spectral:
            drop_spectral_norm(self)

    def settings(self) -> dict[str, object]:
        used = self.output_layer.get_submodule("1").activation
        return {"activation": used} if used != USUAL else {}

    @property
    def layers(self) -> tuple[str, ...]:
        """What each stage outputs, 8×8 first."""
        return tuple(f"blocks.{number}" for number in range(len(self.blocks)))

    def forward(self, latents: Tensor) -> Tensor:
        x, conditions = self.inputs_of_stages(latents)
        for stage, condition in zip(self.blocks, conditions, strict=False):
            x = stage(x, condition)
        return torch.tanh(self.output_layer(x))

    def inputs_of_stages(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """latents (N, latent + classes) -> the map (N, U, 4, 4) of the linear layer, and each stage's condition."""
        z, classes = latents.split([self.latent, self.classes], 1)
        first, *chunks = z.split(self.chunk, 1)
        y = self.shared(classes)
        conditions = [torch.cat([y, chunk], 1) for chunk in chunks] or [y] * len(self.blocks)
        return self.linear(first).unflatten(1, (-1, SIDE, SIDE)), conditions


def never_recorded(state: Mapping[str, Tensor]) -> bool:
    """Whether all singular values are as they begin, 1: a training records them."""
    recorded = [value for key, value in state.items() if key.endswith(".sv0")]
    return bool(recorded) and all(bool((value == 1).all()) for value in recorded)


def infer(state: Mapping[str, Tensor]) -> BigGAN:
    """The generator these weights belong to, in eval mode, with its own float32 copy of them.

    For how the sizes follow from the weights see `_sizes`. Attention is where `blocks.N.1.theta.weight` is.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no such BigGAN.
    """
    studio = studiogan.biggan(state)
    if studio is not None:
        state = studio
    if not any(key.endswith(".sv0") for key in state):  # converted ones may lack them
        state = {**state, **{f"{key.removesuffix('u0')}sv0": torch.ones(1) for key in state if key.endswith(".u0")}}
    sizes = _sizes(state, studio is not None)
    epsilon = CONVERTED_EPS if never_recorded(state) else studiogan.EPS if studio is not None else BN_EPS
    with torch.device("meta"):
        module = BigGAN(
            sizes.chunk * len(sizes.widths) or common_size(state, ("linear.weight", 1)),
            sizes.classes,
            sizes.widths,
            embedding=sizes.embedding,
            hierarchical=sizes.chunk > 0,
            attention=[n for n in range(len(sizes.widths) - 1) if f"blocks.{n}.1.theta.weight" in state],
            counted=any(key.endswith(".accumulation_counter") for key in state),
            spectral="linear.u0" in state,
            epsilon=epsilon,
        )
    filled(module, state)
    module.layout = studiogan.LAYOUT if studio is not None else ""
    trials = trial_latents(module.latent, module.classes, SAMPLES)
    assumed = []
    if not settle_activation(module, partial(_run_to_second_norm, module), trials):
        assumed.append(f"its activation ({USUAL} is taken)")
    if studio is not None and not sizes.classes:
        assumed.append(f"whether its norms take {sizes.chunk} classes (parts of the latent are taken)")
    assumed.append(f"what its batch norms add to variances ({epsilon:g} is taken)")
    module.assumed = tuple(assumed)
    return module


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """What the shapes of weights tell of a BigGAN; `chunk` is the part of the latent for each stage, 0 without."""

    widths: list[int]
    classes: int
    embedding: int
    chunk: int


def _sizes(state: Mapping[str, Tensor], studio: bool) -> _Sizes:
    """Widths, classes and parts of the latent from the shapes of the weights; `studio`: they are StudioGAN's.

    Widths are the sizes of the blocks' convolutions; the number of blocks gives the resolution. The norms' gains take
    as many numbers as `shared.weight` has columns and, in a hierarchical generator, a part of the latent more. Without
    `shared.weight` the gains are embeddings of the classes, or, in StudioGAN's files, take a part of the latent alone.

    Raises:
        DissectError: a key is missing or misshapen, or this is no such BigGAN.
    """
    pattern = re.compile(r"blocks\.(\d)\.0\.(?:bn[12]\.gain|conv[12])\.weight")
    numbers = [int(match[1]) for key in state if (match := pattern.fullmatch(key))]
    if not numbers:
        raise DissectError("no key is like blocks.0.0.bn1.gain.weight.")
    if "blocks.0.0.conv4.weight" in state:
        raise DissectError("key blocks.0.0.conv4.weight is of BigGANdeep.py; only generators of BigGAN.py are known.")
    blocks = [f"blocks.{number}.0" for number in range(max(numbers) + 1)]
    gains = [f"{block}.{norm}.gain.weight" for block in blocks for norm in ("bn1", "bn2")]
    stored = [(f"{blocks[0]}.bn1.{keeper}stored_mean", 0) for keeper in ("", "bn.")]
    inputs = [(f"{blocks[0]}.{conv}.weight", 1) for conv in ("conv1", "conv_sc")]
    outputs = [[(f"{block}.{conv}.weight", 0) for conv in ("conv1", "conv2", "conv_sc")] for block in blocks]
    widths = [common_size(state, *axes) for axes in ([*inputs, *stored], *outputs)]
    if "shared.weight" in state or f"{blocks[0]}.bn1.gain.u0" in state:
        classes, embedding = (common_size(state, ("shared.weight", axis)) for axis in (0, 1))
        condition = common_size(state, *((key, 1) for key in gains))
        if condition < embedding:
            raise DissectError(
                f"key {gains[0]} takes {condition} numbers; expected at least the {embedding} that shared.weight makes "
                "of a class."
            )
        return _Sizes(widths=widths, classes=classes, embedding=embedding, chunk=condition - embedding)
    if studio:
        return _Sizes(widths=widths, classes=0, embedding=0, chunk=common_size(state, *((key, 1) for key in gains)))
    return _Sizes(widths=widths, classes=common_size(state, *((key, 0) for key in gains)), embedding=0, chunk=0)


def _run_to_second_norm(module: BigGAN, latents: Tensor) -> Tensor:
    """Run no more of the network than its first two batch norms need."""
    x, conditions = module.inputs_of_stages(latents)
    block = module.get_submodule("blocks.0.0")
    assert isinstance(block, Block)
    return block.halfway(x, conditions[0])
