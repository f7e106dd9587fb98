"""Layers of a generator put in the place of others: resizing ones, boxed kernels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .families.dcgan import ResizeConv


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
    """The transposed convolution with a kernel larger by stride − 1 that outputs maps of the same size."""
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
