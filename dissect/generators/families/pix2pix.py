"""The image-to-image generators of CycleGAN and pix2pix, their architecture inferred from a state dict.

Two networks in the layout of the authors' PyTorch code: a ResNet, which halves the size twice, transforms it in
residual blocks and doubles it twice, and a U-Net, which halves the size down to a bottleneck and joins what it
upsamples with what it saw on the way down.

With instance norm, convolutions have biases and norms have no keys; with batch norm it is the other way round.
pix2pix is often run in train mode even for testing, with dropout as its noise and batch norm with the statistics of
the batch. Here networks run in eval mode: no dropout, and batch norm with the statistics of the training. An image
then depends on its input alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ....hooks.errors import DissectError
from .architecture import Architecture, filled, shape

SLOPE = 0.2  # of the leaky ReLU
BLOCKS_FROM = 10  # place of the ResNet's first residual block
MOST_DOWNS = 12  # a U-Net for 4096×4096; more is a mistake
OF_A_BLOCK = re.compile(r"^model\.(\d{1,4})\.[a-z_]{1,32}\.(\d{1,2}\.\w+)$")  # keys of a residual block's layers
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def norm(width: int, *, batch: bool, affine: bool = False) -> nn.Module:
    return nn.BatchNorm2d(width) if batch else nn.InstanceNorm2d(width, affine=affine)


class ResnetBlock(nn.Module):
    """x + two 3×3 convolutions of it, each with reflected borders and a norm, the first with a ReLU."""

    def __init__(self, width: int, *, batch: bool, dropout: bool, affine: bool) -> None:
        super().__init__()
        kind = {"batch": batch, "affine": affine}
        parts: list[nn.Module] = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=not batch)]
        parts += [norm(width, **kind), nn.ReLU()]
        if dropout:
            parts.append(nn.Dropout(0.5))
        parts += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=not batch), norm(width, **kind)]
        self.conv_block = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResnetGenerator(Architecture):
    """images (N, inputs, H, W) in [-1, 1] -> images (N, outputs, H, W) in [-1, 1]; H and W are multiples of 4.

    Source: Johnson et al. 2016, as Zhu et al. 2017 use it, section 4 (network architecture).

    Args:
        inputs: channels of the images that go in.
        outputs: 3, or 1 for grey images.
        width: units at full resolution; each halving doubles them.
        blocks: how many residual blocks there are.
        batch: batch norm instead of instance norm.
        dropout: whether the residual blocks have one; it shifts their keys.
        affine: whether instance norms have weights.
    """

    family = "CycleGAN/pix2pix ResNet"
    least = 8  # with less, instance norm has one position to work on
    citation = (
        "Zhu et al. 2017, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV; "
        "Johnson et al. 2016, Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV"
    )
    multiple = 4

    def __init__(
        self, inputs: int, outputs: int, width: int, blocks: int, *, batch: bool, dropout: bool, affine: bool = False
    ) -> None:
        super().__init__()
        self.inputs = inputs
        kind = {"batch": batch, "affine": affine}
        parts: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, width, 7, bias=not batch)]
        parts += [norm(width, **kind), nn.ReLU()]
        for wide in (width, 2 * width):
            parts += [nn.Conv2d(wide, 2 * wide, 3, 2, 1, bias=not batch), norm(2 * wide, **kind), nn.ReLU()]
        parts += [ResnetBlock(4 * width, dropout=dropout, **kind) for _ in range(blocks)]
        for wide in (2 * width, width):
            parts.append(nn.ConvTranspose2d(2 * wide, wide, 3, 2, 1, output_padding=1, bias=not batch))
            parts += [norm(wide, **kind), nn.ReLU()]
        self.model = nn.Sequential(*parts, nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh())

    @property
    def layers(self) -> tuple[str, ...]:
        """The ReLU after each change of size, and each residual block."""
        worth = (nn.ReLU, ResnetBlock)
        names = [f"model.{place}" for place, part in enumerate(self.model) if isinstance(part, worth)]
        return tuple(names[1:])  # without the ReLU at full resolution, which has seen 7×7 pixels

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.model(images)
        return out


class UnetBlock(nn.Module):
    """Halve the size, go through the block inside, double the size, and join the outcome to what came in.

    x (N, width, h, w) -> (N, 2 · width, h, w); the outermost block joins nothing. The original's ReLUs work in place,
    so that it joins leaky_relu(x) and not x; as what is joined goes through a ReLU next, images are the same.

    Args:
        width: units that come in and, but for the outermost block, that go out of the upsampling.
        inner: units at half the size.
        inside: the next block; None for the innermost.
        batch: batch norm instead of instance norm.
        outputs: channels of the images, for the outermost block; None for the others.
    """

    def __init__(
        self, width: int, inner: int, inside: nn.Module | None, *, batch: bool, outputs: int | None = None
    ) -> None:
        super().__init__()
        self.outermost = outputs is not None
        parts: list[nn.Module] = [] if self.outermost else [nn.LeakyReLU(SLOPE)]
        parts.append(nn.Conv2d(width, inner, 4, 2, 1, bias=not batch))
        if inside is not None:
            parts += [inside] if self.outermost else [norm(inner, batch=batch), inside]
        joined = inner if inside is None else 2 * inner
        parts.append(nn.ReLU())
        if outputs is not None:
            parts += [nn.ConvTranspose2d(joined, outputs, 4, 2, 1), nn.Tanh()]
        else:
            parts += [nn.ConvTranspose2d(joined, width, 4, 2, 1, bias=not batch), norm(width, batch=batch)]
        self.model = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out if self.outermost else torch.cat((x, out), 1)


class UnetGenerator(Architecture):
    """images (N, inputs, H, W) in [-1, 1] -> images (N, outputs, H, W) in [-1, 1]; sides are multiples of 2^downs.

    Dropout, which the original may have after the norms of the widest blocks, has no weights to be known by and does
    nothing in eval mode; it is left out. Source: Isola et al. 2017, section 6.1.1.

    Args:
        inputs: channels of the images that go in.
        outputs: 3, or 1 for grey images.
        width: units after the first halving; each further one doubles them, up to 8 · width.
        downs: how often the size is halved.
        batch: batch norm instead of instance norm.
    """

    family = "pix2pix U-Net"
    citation = "Isola et al. 2017, Image-to-Image Translation with Conditional Adversarial Networks, CVPR"

    def __init__(self, inputs: int, outputs: int, width: int, downs: int, *, batch: bool) -> None:
        super().__init__()
        self.inputs, self.downs, self.multiple = inputs, downs, 2**downs
        widths = [width * min(2**level, 8) for level in range(downs)]
        inside: UnetBlock | None = None
        for level in range(downs - 1, 0, -1):
            inside = UnetBlock(widths[level - 1], widths[level], inside, batch=batch)
        self.model = UnetBlock(inputs, width, inside, batch=batch, outputs=outputs)

    @property
    def layers(self) -> tuple[str, ...]:
        """The norm after each upsampling, from the bottleneck out: new units alone, before they are joined."""
        deepest = "model.model.1" + ".model.3" * (self.downs - 2)
        ups = [deepest.removesuffix(".model.3" * out) for out in range(self.downs - 1)]
        return (f"{ups[0]}.model.4", *(f"{up}.model.6" for up in ups[1:]))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.model(images)
        return out


def infer(state: Mapping[str, Tensor]) -> ResnetGenerator | UnetGenerator:
    """The CycleGAN or pix2pix generator these weights belong to, in eval mode, with its own float32 copy of them.

    `model.1.weight` is a ResNet's first convolution, `model.model.0.weight` a U-Net's. Whether that one has a bias
    tells instance norm from batch norm; instance norms may have weights. What a residual block calls its layers does
    not matter (`model.10.block.1.weight`). Old files (PyTorch before 0.4) hold statistics of instance norms, which
    nothing uses; they are dropped, as the original does.

    Raises:
        DissectError: a key is missing, extra or misshapen, the network has anti-aliasing filters, or it is none of
            these.
    """
    for key in state:
        if key.rpartition(".")[2] == "filt":
            raise DissectError(
                f"key {key} is an anti-aliasing filter; only generators without (no_antialias, no_antialias_up) "
                "are known."
            )
    state = {OF_A_BLOCK.sub(r"model.\1.conv_block.\2", key): tensor for key, tensor in state.items()}
    first = "model.model.0" if "model.model.0.weight" in state else "model.1"
    if f"{first}.weight" not in state:
        raise DissectError("no key is like model.1.weight (ResNet) or model.model.0.weight (U-Net).")
    batch = f"{first}.bias" not in state
    if not batch:
        state = {key: tensor for key, tensor in state.items() if key.rpartition(".")[2] not in STATISTICS}
    width, inputs = axes(state, f"{first}.weight")[:2]
    make = resnet if first == "model.1" else unet
    with torch.device("meta"):  # no memory for weights that are replaced at once
        module = make(state, inputs, width, batch)
    filled(module, state)
    return module


def resnet(state: Mapping[str, Tensor], inputs: int, width: int, batch: bool) -> ResnetGenerator:
    """A ResNet with as many blocks as the keys speak of, its weights yet to be filled in."""
    numbered = re.compile(r"model\.(\d{1,4})\.conv_block\..+")
    blocks = len({found[1] for key in state if (found := numbered.fullmatch(key))})
    second = f"model.{BLOCKS_FROM}.conv_block.{{}}.weight"  # key of a block's second convolution
    dropout = second.format(5) not in state and second.format(6) in state
    outputs = axes(state, f"model.{BLOCKS_FROM + blocks + 7}.weight")[0]
    affine = not batch and "model.2.weight" in state
    return ResnetGenerator(inputs, channels(outputs), width, blocks, batch=batch, dropout=dropout, affine=affine)


def unet(state: Mapping[str, Tensor], inputs: int, width: int, batch: bool) -> UnetGenerator:
    """A U-Net with as many levels as the keys speak of, its weights yet to be filled in."""
    nested = re.compile(r"model\.model\.1(\.model\.3)*\.model\.1\.weight")
    downs = 1 + sum(nested.fullmatch(key) is not None for key in state)
    if not 2 <= downs <= MOST_DOWNS:
        raise DissectError(f"the U-Net halves the size {downs} times; expected 2 to {MOST_DOWNS}.")
    outputs = axes(state, "model.model.3.weight")[1]
    return UnetGenerator(inputs, channels(outputs), width, downs, batch=batch)


def axes(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """The shape of a convolution's weight.

    Raises:
        DissectError: there is no such key, or it is no such weight.
    """
    if key not in state:
        raise DissectError(f"key {key} is missing.")
    if state[key].ndim != 4 or not state[key].numel():
        raise DissectError(f"key {key} has shape {shape(state[key])}; expected the 4 axes of a convolution.")
    return tuple(state[key].shape)


def channels(outputs: int) -> int:
    """The number itself.

    Raises:
        DissectError: no image has that many channels.
    """
    if outputs not in (1, 3):
        raise DissectError(f"the last convolution outputs {outputs} channels; expected 3, or 1 for grey images.")
    return outputs
