"""The DCGAN generator (Radford et al. 2015) as the well-known PyTorch example lays it out.

`main` holds transposed convolution, batch norm and ReLU, three modules a level, and ends in a transposed convolution
and tanh: `main.0` makes 4×4 of the latent, `main.3`, `main.6`, … double the size. The example has kernels of 4, which
their stride divides. Here every level has a kernel of its own, and may resize by nearest neighbours and convolve
instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 2


class ResizeConv(nn.Module):
    """Nearest ×`stride`, then a convolution: a transposed convolution whose phases all share their taps.

    It is the transposed convolution of kernel `kernel + stride - 1` with this `padding` and `output_padding`, so
    both crop and fill the border alike (Odena et al. 2016 recommend it in that one's place).

    Args:
        fan_in, fan_out: channels.
        kernel: side of the convolution's kernel.
        stride: how many times finer the output is.
        padding, output_padding: as of the transposed convolution that it stands for.
        bias: whether the convolution has one.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        kernel: int,
        *,
        stride: int = STRIDE,
        padding: int = 1,
        output_padding: int = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.margin = stride, (kernel - 1 - padding, kernel - 1 - padding + output_padding)
        self.conv = nn.Conv2d(fan_in, fan_out, kernel, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=float(self.stride), mode="nearest")
        return self.conv(F.pad(x, self.margin * 2))


def transposed(fan_in: int, fan_out: int, kernel: int, *, bias: bool = False) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles the size; odd kernels lean to one side, as they must."""
    return nn.ConvTranspose2d(fan_in, fan_out, kernel, STRIDE, (kernel - 1) // 2, kernel % 2, bias=bias)


def resized(fan_in: int, fan_out: int, kernel: int, *, bias: bool = False) -> ResizeConv:
    """A resize-convolution that stands for the transposed convolution with a kernel larger by one."""
    return ResizeConv(fan_in, fan_out, kernel, padding=kernel // 2, output_padding=(kernel + 1) % 2, bias=bias)


class DCGAN(nn.Module):
    """latents (N, latent) or (N, latent, 1, 1) float32 -> images (N, channels, R, R) in [-1, 1].

    Args:
        latent: length of the latent.
        widths: number of units of each resolution from 4×4 up; R = 4 · 2^len(widths).
        kernels: side of the kernel of each doubling, one a width.
        resize: of each doubling, whether it resizes and convolves instead of convolving transposed.
        biases: of the first convolution and of each doubling, whether it has a bias; batch norm makes it needless.
        channels: 3, or 1 for grey images.
    """

    def __init__(
        self,
        latent: int,
        widths: tuple[int, ...],
        kernels: tuple[int, ...],
        *,
        resize: tuple[bool, ...] = (),
        biases: tuple[bool, ...] = (),
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.resolution = 4 * STRIDE ** len(widths)
        first, *rest = biases or (False,) * (len(widths) + 1)
        parts: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=first)]
        steps = zip(widths, (*widths[1:], channels), kernels, resize or (False,) * len(widths), rest, strict=True)
        for fan_in, fan_out, kernel, flat, bias in steps:
            parts += [nn.BatchNorm2d(fan_in), nn.ReLU()]
            parts.append((resized if flat else transposed)(fan_in, fan_out, kernel, bias=bias))
        self.main = nn.Sequential(*parts, nn.Tanh())
        for part in self.main.modules():
            if isinstance(part, (nn.ConvTranspose2d, nn.Conv2d)):
                nn.init.normal_(part.weight, 0, 0.02)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1, 0.02)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers worth dissecting: what each ReLU puts out."""
        return tuple(f"main.{place}" for place, part in enumerate(self.main) if isinstance(part, nn.ReLU))

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.main(latents.reshape(len(latents), self.latent, 1, 1))
        return images


def can_resize(part: nn.ConvTranspose2d) -> bool:
    """Whether a resize-convolution can stand in its place."""
    try:
        resize_like(part)
    except ValueError:
        return False
    return True


def resize_like(part: nn.ConvTranspose2d) -> ResizeConv:
    """The resize-convolution that can stand in a transposed convolution's place; its weights are yet to be filled in.

    Raises:
        ValueError: there is none: the kernel is smaller than the stride, or anything but the size differs by axis.
    """
    pairs = (part.kernel_size, part.stride, part.padding, part.output_padding, part.dilation)
    if any(len(set(pair)) > 1 for pair in pairs) or part.groups > 1 or part.dilation[0] > 1:
        raise ValueError("a square kernel and stride without groups and dilation are needed")
    if part.kernel_size[0] < part.stride[0]:
        raise ValueError("the kernel is smaller than the stride")
    return ResizeConv(
        part.in_channels,
        part.out_channels,
        part.kernel_size[0] - part.stride[0] + 1,
        stride=part.stride[0],
        padding=int(part.padding[0]),
        output_padding=part.output_padding[0],
        bias=part.bias is not None,
    )


def boxed_like(part: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """The transposed convolution with a kernel larger by stride − 1 that puts out maps of the same size."""
    early = [max(0, -(-(step - 1 - rest) // 2)) for step, rest in zip(part.stride, part.output_padding, strict=True)]
    rest = [
        was - (step - 1) + 2 * shift for was, step, shift in zip(part.output_padding, part.stride, early, strict=True)
    ]
    sides = [taps + step - 1 for taps, step in zip(part.kernel_size, part.stride, strict=True)]
    return nn.ConvTranspose2d(
        part.in_channels,
        part.out_channels,
        (sides[0], sides[1]),
        (part.stride[0], part.stride[1]),
        (int(part.padding[0]) + early[0], int(part.padding[1]) + early[1]),
        (rest[0], rest[1]),
        groups=part.groups,
        bias=part.bias is not None,
    )


def put(module: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in the place of the one of that name: on its device, in its mode, and frozen if that was."""
    old = module.get_submodule(name)
    like = next(old.parameters())
    new.to(like).train(old.training).requires_grad_(like.requires_grad)
    above, _, last = name.rpartition(".")
    setattr(module.get_submodule(above), last, new)


def refit(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Replace the transposed convolutions that these weights know as repaired: resized, or with a box in the kernel."""
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.ConvTranspose2d):
            weight = state.get(f"{name}.weight")
            if f"{name}.conv.weight" in state and weight is None:
                put(module, name, resize_like(part))
            elif weight is not None and weight.shape == boxed_like(part).weight.shape != part.weight.shape:
                put(module, name, boxed_like(part))
