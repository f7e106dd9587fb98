"""Layers of a generator that repairs replace: by resizing and convolving, or with a box in the kernel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .families.dcgan import ResizeConv


def can_resize(layer: nn.ConvTranspose2d) -> bool:
    """Whether a resize-convolution can replace it."""
    try:
        resize_like(layer)
    except ValueError:
        return False
    return True


def resize_like(layer: nn.ConvTranspose2d) -> ResizeConv:
    """The resize-convolution that can replace a transposed convolution; its weights are not filled in.

    Raises:
        ValueError: there is none: the kernel is smaller than the stride, or anything but the size differs by axis.
    """
    pairs = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation)
    if any(len(set(pair)) > 1 for pair in pairs) or layer.groups > 1 or layer.dilation[0] > 1:
        raise ValueError("it has groups, dilation, or a kernel or stride that is not square")
    if layer.kernel_size[0] < layer.stride[0]:
        raise ValueError("the kernel is smaller than the stride")
    return ResizeConv(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size[0] - layer.stride[0] + 1,
        stride=layer.stride[0],
        padding=int(layer.padding[0]),
        output_padding=layer.output_padding[0],
        bias=layer.bias is not None,
    )


def boxed_like(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """The transposed convolution with a kernel larger by stride − 1 that outputs maps of the same size."""
    strides, output_paddings = layer.stride, layer.output_padding
    shifts = [max(0, -(-(stride - 1 - end) // 2)) for stride, end in zip(strides, output_paddings, strict=True)]
    ends = [end - (stride - 1) + 2 * shift for end, stride, shift in zip(output_paddings, strides, shifts, strict=True)]
    sides = [taps + stride - 1 for taps, stride in zip(layer.kernel_size, strides, strict=True)]
    return nn.ConvTranspose2d(
        layer.in_channels,
        layer.out_channels,
        (sides[0], sides[1]),
        (layer.stride[0], layer.stride[1]),
        (int(layer.padding[0]) + shifts[0], int(layer.padding[1]) + shifts[1]),
        (ends[0], ends[1]),
        groups=layer.groups,
        bias=layer.bias is not None,
    )


def put(module: nn.Module, name: str, new: nn.Module) -> None:
    """Replace the module of that name: the new one gets its device and mode, and is frozen if that was."""
    old = module.get_submodule(name)
    like = next(old.parameters())
    new.to(like).train(old.training).requires_grad_(like.requires_grad)
    above, _, last = name.rpartition(".")
    setattr(module.get_submodule(above), last, new)


def refit(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Replace the transposed convolutions that these weights know as repaired: resized, or with a box in the kernel."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.ConvTranspose2d):
            weight = state.get(f"{name}.weight")
            if f"{name}.conv.weight" in state and weight is None:
                put(module, name, resize_like(layer))
            elif weight is not None and weight.shape == boxed_like(layer).weight.shape != layer.weight.shape:
                put(module, name, boxed_like(layer))
