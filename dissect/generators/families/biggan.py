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
from itertools import pairwise
from statistics import mode

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from . import studiogan
from .activations import ACTIVATIONS, SAMPLES, USUAL, Run, settle_activation, trial_latents
from .architecture import ITERATIONS, Architecture, BatchStatistics, filled

BN_EPS, CONVERTED_EPS = 1e-5, 1e-4
SIDE = 4  # of the map that the linear layer makes


class Spectral(nn.Module):
    """A weight that is used divided by its largest singular value, of which `u0` is nearly the left vector.

    The value is what one power iteration from `u0` finds, which stays as it is but in train mode (Miyato et al. 2018,
    algorithm 1). `sv0` is a record of training that is not used.
    """

    u0: Tensor | None

    def __init__(self, shape: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape))
        self.bias = nn.Parameter(torch.empty(shape[0])) if bias else None
        self.register_buffer("u0", torch.empty(1, shape[0]))
        self.register_buffer("sv0", torch.empty(1))

    def normalised(self) -> Tensor:
        if self.u0 is None:  # not normalised
            return self.weight
        flat = self.weight.flatten(1)
        with torch.no_grad():
            for _ in range(ITERATIONS if self.training else 0):
                self.u0.copy_(F.normalize(F.normalize(self.u0 @ flat, eps=1e-12) @ flat.T, eps=1e-12))
            v = F.normalize(self.u0 @ flat, eps=1e-12)
            u = F.normalize(v @ flat.T, eps=1e-12)
        return self.weight / (v @ flat.T @ u.T)[0, 0]


class Linear(Spectral):
    """x (N, fan_in) -> (N, fan_out)."""

    def __init__(self, fan_in: int, fan_out: int, *, bias: bool = True) -> None:
        super().__init__((fan_out, fan_in), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class Conv(Spectral):
    """x (N, fan_in, h, w) -> (N, fan_out, h, w)."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int = 3, *, bias: bool = True) -> None:
        super().__init__((fan_out, fan_in, kernel, kernel), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalised(), self.bias, padding=self.weight.shape[2] // 2)


class Embedding(nn.Module):
    """classes (N, classes), one-hot or mixed, -> (N, size)."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, size))

    def forward(self, classes: Tensor) -> Tensor:
        return classes @ self.weight


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
        keeper = self.bn if counted else self
        keeper.register_buffer("stored_mean", torch.empty(channels))
        keeper.register_buffer("stored_var", torch.empty(channels))

    def normalised(self, x: Tensor, gain: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        keeper = self.bn if self.counted else self
        if self.training:
            if self.counted and not self.seen:
                keeper.get_buffer("accumulation_counter").zero_()
            now = self.take(x, keeper.get_buffer("stored_mean"), keeper.get_buffer("stored_var"))
            return F.batch_norm(x, *now, gain, bias, eps=self.epsilon)
        return F.batch_norm(x, *self.remembered(), gain, bias, eps=self.epsilon)

    def remembered(self) -> tuple[Tensor, Tensor]:
        keeper = self.bn if self.counted else self
        batches = keeper.get_buffer("accumulation_counter").clamp(min=1) if self.counted else 1
        return keeper.get_buffer("stored_mean") / batches, keeper.get_buffer("stored_var") / batches


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
        for part in self.modules():
            if isinstance(part, Norm):
                part.epsilon = epsilon
            elif isinstance(part, Spectral) and not spectral:
                part.register_buffer("u0", None)
                part.register_buffer("sv0", None)

    def settings(self) -> dict[str, object]:
        used = self.output_layer.get_submodule("1").activation
        return {"activation": used} if used != USUAL else {}

    @property
    def layers(self) -> tuple[str, ...]:
        """What each stage outputs, 8×8 first."""
        return tuple(f"blocks.{number}" for number in range(len(self.blocks)))

    def forward(self, latents: Tensor) -> Tensor:
        z, classes = latents.split([self.latent, self.classes], 1)
        first, *parts = z.split(self.chunk, 1)
        y = self.shared(classes)
        x = self.linear(first).unflatten(1, (-1, SIDE, SIDE))  # (N, U, 4, 4)
        for number, stage in enumerate(self.blocks):
            x = stage(x, torch.cat([y, parts[number]], 1) if parts else y)
        return torch.tanh(self.output_layer(x))


def doubled(x: Tensor) -> Tensor:
    """(N, U, h, w) -> (N, U, 2h, 2w), each position four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """For each position the mean of the values, weighted by how well keys fit its query.

    queries (N, d, h, w), keys (N, d, h, w), values (N, v, h, w) -> (N, v, h, w). Keys and values are pooled 2×2, by
    maximum; weights are the softmax of inner products.
    """
    keys, values = (F.max_pool2d(x, 2).flatten(2) for x in (keys, values))  # (N, d or v, hw/4)
    weights = torch.softmax(queries.flatten(2).mT @ keys, -1)  # (N, hw, hw/4)
    return (values @ weights.mT).unflatten(2, queries.shape[2:])


def agreed(state: Mapping[str, Tensor], *places: tuple[str, int]) -> int:
    """The size that most of these axes (key, axis) have, so that a single misshapen tensor is found out.

    Raises:
        DissectError: there is no such axis at all, or nothing along it.
    """
    sizes = [state[key].shape[axis] for key, axis in places if key in state and state[key].ndim > axis]
    if not sizes or mode(sizes) < 1:
        raise DissectError(f"key {places[0][0]} is missing or misshapen.")
    return mode(sizes)


def never_recorded(state: Mapping[str, Tensor]) -> bool:
    """Whether all singular values are as they begin, 1: a training records them."""
    recorded = [value for key, value in state.items() if key.endswith(".sv0")]
    return bool(recorded) and all(bool((value == 1).all()) for value in recorded)


def infer(state: Mapping[str, Tensor]) -> BigGAN:
    """The generator these weights belong to, in eval mode, with its own float32 copy of them.

    Widths are the sizes of the blocks' convolutions, whose number gives the resolution. Attention is where
    `blocks.N.1.theta.weight` is. The norms' gains take as many numbers as `shared.weight` has columns, and, in a
    hierarchical generator, a part of the latent more; without `shared.weight` they are embeddings of the classes.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no such BigGAN.
    """
    studio = studiogan.biggan(state)
    if studio is not None:
        state = studio
    if not any(key.endswith(".sv0") for key in state):  # converted ones may lack them
        state = {**state, **{f"{key.removesuffix('u0')}sv0": torch.ones(1) for key in state if key.endswith(".u0")}}
    spelt = re.compile(r"blocks\.(\d)\.0\.(?:bn[12]\.gain|conv[12])\.weight")
    numbers = [int(found[1]) for key in state if (found := spelt.fullmatch(key))]
    if not numbers:
        raise DissectError("no key is like blocks.0.0.bn1.gain.weight.")
    if "blocks.0.0.conv4.weight" in state:
        raise DissectError("key blocks.0.0.conv4.weight is of BigGANdeep.py; only generators of BigGAN.py are known.")
    blocks = [f"blocks.{number}.0" for number in range(max(numbers) + 1)]
    gains = [f"{block}.{norm}.gain.weight" for block in blocks for norm in ("bn1", "bn2")]
    stored = (f"{blocks[0]}.bn1.{keeper}stored_mean" for keeper in ("", "bn."))
    inputs = (f"{blocks[0]}.{conv}.weight" for conv in ("conv1", "conv_sc"))
    widths = [agreed(state, *((key, 1) for key in inputs), *((key, 0) for key in stored))]
    widths += [
        agreed(state, *((f"{block}.{conv}.weight", 0) for conv in ("conv1", "conv2", "conv_sc"))) for block in blocks
    ]
    if "shared.weight" in state or f"{blocks[0]}.bn1.gain.u0" in state:
        classes, embedding = (agreed(state, ("shared.weight", axis)) for axis in (0, 1))
        part = agreed(state, *((key, 1) for key in gains)) - embedding
        if part < 0:
            raise DissectError(
                f"key {gains[0]} takes {part + embedding} numbers; expected at least the {embedding} that "
                "shared.weight makes of a class."
            )
    elif studio is not None:
        classes, embedding, part = 0, 0, agreed(state, *((key, 1) for key in gains))
    else:
        classes, embedding, part = agreed(state, *((key, 0) for key in gains)), 0, 0
    epsilon = CONVERTED_EPS if never_recorded(state) else studiogan.EPS if studio is not None else BN_EPS
    with torch.device("meta"):
        module = BigGAN(
            part * len(widths) or agreed(state, ("linear.weight", 1)),
            classes,
            widths,
            embedding=embedding,
            hierarchical=part > 0,
            attention=[number for number in range(len(blocks)) if f"blocks.{number}.1.theta.weight" in state],
            counted=any(key.endswith(".accumulation_counter") for key in state),
            spectral="linear.u0" in state,
            epsilon=epsilon,
        )
    filled(module, state)
    module.layout = studiogan.LAYOUT if studio is not None else ""
    if not settle_activation(module, _halfway(module), trial_latents(module.latent, module.classes, SAMPLES)):
        module.assumed = (f"its activation ({USUAL} is taken)",)
    if studio is not None and not classes:
        taken = f"whether its norms take {part} classes (parts of the latent are taken)"
        module.assumed = (*module.assumed, taken)
    module.assumed = (*module.assumed, f"what its batch norms add to variances ({epsilon:g} is taken)")
    return module


def _halfway(module: BigGAN) -> Run:
    """What runs the network up to its second batch norm."""
    block = module.get_submodule("blocks.0.0")
    assert isinstance(block, Block)

    def run(latents: Tensor) -> Tensor:
        z, classes = latents.split([module.latent, module.classes], 1)
        first, *parts = z.split(module.chunk, 1)
        condition = torch.cat([module.shared(classes), *parts[:1]], 1)
        return block.halfway(module.linear(first).unflatten(1, (-1, SIDE, SIDE)), condition)

    return run
