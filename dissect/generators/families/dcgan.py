"""The DCGAN generator (Radford et al. 2015) as the well-known PyTorch example lays it out.

`main` holds transposed convolution, batch norm and ReLU, three modules a level, and ends in a transposed convolution
and tanh: `main.0` makes 4×4 of the latent, `main.3`, `main.6`, … double the size. The example has kernels of 4, which
their stride divides. Here every level has a kernel of its own, and may resize by nearest neighbours and convolve
instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from .architecture import Architecture, draw_weight, filled, shape

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


class DCGAN(Architecture):
    """latents (N, latent) or (N, latent, 1, 1) float32 -> images (N, channels, R, R) in [-1, 1].

    Args:
        latent: length of the latent.
        widths: number of units of each resolution from 4×4 up; R = 4 · 2^len(widths).
        kernels: side of the kernel of each doubling, one a width.
        resize: of each doubling, whether it resizes and convolves instead of convolving transposed.
        biases: of the first convolution and of each doubling, whether it has a bias; batch norm makes it needless.
        channels: 3, or 1 for grey images.
    """

    family: str = "dcgan"
    citation: str = (
        "Radford, Metz and Chintala 2016, Unsupervised Representation Learning with Deep Convolutional Generative "
        "Adversarial Networks, ICLR"
    )

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
                draw_weight(part.weight, 0, 0.02)
            elif isinstance(part, nn.BatchNorm2d):
                draw_weight(part.weight, 1, 0.02)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers worth dissecting: what each ReLU outputs."""
        return tuple(f"main.{place}" for place, part in enumerate(self.main) if isinstance(part, nn.ReLU))

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.main(latents.reshape(len(latents), self.latent, 1, 1))
        return images


def infer(state: Mapping[str, Tensor]) -> DCGAN:
    """The DCGAN generator these weights belong to, in eval mode, with its own float32 copy of them.

    Keys are those of the PyTorch example: `main.0.weight` makes 4×4 of a latent as long as its first axis, `main.3`,
    `main.6`, … double the size, and `main.1`, `main.4`, … are batch norms. `main.3.conv.weight` instead of
    `main.3.weight` says that the level resizes and convolves. Kernels of 4 are padded by 1, others so as to double the
    size.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no such DCGAN.
    """
    spelt = re.compile(r"main\.(\d{1,4})\.(conv\.)?weight")
    shapes = {
        int(found[1]): (tensor, bool(found[2]))
        for key, tensor in state.items()
        if (found := spelt.fullmatch(key)) and tensor.ndim == 4
    }
    if 0 not in shapes:
        raise DissectError("no key is like main.0.weight with 4 axes (latent, units, 4, 4).")
    places = sorted(shapes)
    if places != list(range(0, 3 * len(places), 3)) or len(places) < 2:
        raise DissectError(
            f"convolutions are main.{', main.'.join(map(str, places))}; expected main.0, main.3, main.6, …."
        )
    for place, (tensor, resize) in shapes.items():
        if (
            tensor.shape[2] != tensor.shape[3]
            or not tensor.numel()
            or (place == 0 and (resize or tensor.shape[2] != 4))
            or (place > 0 and not resize and tensor.shape[2] < STRIDE)
        ):
            raise DissectError(
                f"key main.{place}.weight has shape {shape(tensor)}; expected {'4×4' if place == 0 else 'square'} "
                "kernels."
            )
    steps = [shapes[place] for place in places[1:]]
    last, flat = steps[-1]
    channels = last.shape[0 if flat else 1]
    if channels not in (1, 3):
        raise DissectError(f"the last convolution outputs {channels} channels; expected 3, or 1 for grey images.")
    with torch.device("meta"):
        module = DCGAN(
            shapes[0][0].shape[0],
            tuple(tensor.shape[1 if resize else 0] for tensor, resize in steps),
            tuple(tensor.shape[2] for tensor, _ in steps),
            resize=tuple(resize for _, resize in steps),
            biases=tuple(f"main.{place}.{'conv.' if shapes[place][1] else ''}bias" in state for place in places),
            channels=channels,
        )
    filled(module, state)
    return module
