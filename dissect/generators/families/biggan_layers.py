"""Layers that the BigGAN family and its relatives share (Brock et al. 2019): spectral norm, embeddings, attention.

BigGAN-PyTorch and PyTorch itself keep what the spectral norm needs under different names, and compute it in a different
order. Both are kept as they are, so that images are the same bit for bit: `Spectral` and `PyTorchSpectral`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mode
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....hooks.errors import DissectError
from .architecture import ITERATIONS


class SpectralWeight(nn.Module):
    """A weight that is used divided by its largest singular value (Miyato et al. 2018, section 2.2).

    Args:
        shape: of the weight, outputs first.
        bias: whether there is a bias.
    """

    weight_name: ClassVar[str]  # in the state dict

    def __init__(self, shape: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.register_parameter(self.weight_name, nn.Parameter(torch.empty(*shape)))
        self.bias = nn.Parameter(torch.empty(shape[0])) if bias else None

    def normalised(self) -> Tensor:
        """The weight divided by its largest singular value."""
        raise NotImplementedError


class Spectral(SpectralWeight):
    """As BigGAN-PyTorch has it: `u0` is nearly the left singular vector.

    The singular value is what one power iteration from `u0` finds. `u0` changes only in train mode (algorithm 1).
    `sv0` is a record of the training that is not used.
    """

    weight_name = "weight"
    weight: Tensor
    u0: Tensor | None

    def __init__(self, shape: Sequence[int], *, bias: bool) -> None:
        super().__init__(shape, bias=bias)
        self.register_buffer("u0", torch.empty(1, shape[0]))
        self.register_buffer("sv0", torch.empty(1))

    def normalised(self) -> Tensor:
        if self.u0 is None:  # see `drop_spectral_norm`
            return self.weight
        flat = self.weight.flatten(1)
        with torch.no_grad():
            for _ in range(ITERATIONS if self.training else 0):
                self.u0.copy_(F.normalize(F.normalize(self.u0 @ flat, eps=1e-12) @ flat.T, eps=1e-12))
            v = F.normalize(self.u0 @ flat, eps=1e-12)
            u = F.normalize(v @ flat.T, eps=1e-12)
        return self.weight / (v @ flat.T @ u.T)[0, 0]


class PyTorchSpectral(SpectralWeight):
    """As PyTorch has it: the singular value of the weight W is u·Wv.

    `weight_u` and `weight_v` are nearly the singular vectors, and change only in train mode.
    """

    weight_name = "weight_orig"
    weight_orig: Tensor
    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, shape: Sequence[int], *, bias: bool) -> None:
        super().__init__(shape, bias=bias)
        self.register_buffer("weight_u", torch.empty(shape[0]))
        self.register_buffer("weight_v", torch.empty(math.prod(shape[1:])))

    def normalised(self) -> Tensor:
        with torch.no_grad():
            for _ in range(ITERATIONS if self.training else 0):
                flat = self.weight_orig.flatten(1)
                self.weight_v.copy_(F.normalize(self.weight_u @ flat, dim=0))
                self.weight_u.copy_(F.normalize(flat @ self.weight_v, dim=0))
        return self.weight_orig / torch.dot(self.weight_u, self.weight_orig.flatten(1) @ self.weight_v)


class _LinearForward(SpectralWeight):
    """x (N, fan_in) -> (N, fan_out)."""

    def __init__(self, fan_in: int, fan_out: int, *, bias: bool = True) -> None:
        super().__init__((fan_out, fan_in), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class _ConvForward(SpectralWeight):
    """x (N, fan_in, h, w) -> (N, fan_out, h, w)."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int = 3, *, bias: bool = True) -> None:
        super().__init__((fan_out, fan_in, kernel, kernel), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.normalised()
        return F.conv2d(x, weight, self.bias, padding=weight.shape[2] // 2)


class Linear(_LinearForward, Spectral):
    """x (N, fan_in) -> (N, fan_out), with BigGAN-PyTorch's spectral norm."""


class Conv(_ConvForward, Spectral):
    """x (N, fan_in, h, w) -> (N, fan_out, h, w), with BigGAN-PyTorch's spectral norm."""


class PyTorchLinear(_LinearForward, PyTorchSpectral):
    """x (N, fan_in) -> (N, fan_out), with PyTorch's spectral norm."""


class PyTorchConv(_ConvForward, PyTorchSpectral):
    """x (N, fan_in, h, w) -> (N, fan_out, h, w), with PyTorch's spectral norm."""


def drop_spectral_norm(module: nn.Module) -> None:
    """Let all `Spectral` weights inside be used as they are; their buffers are removed."""
    for layer in module.modules():
        if isinstance(layer, Spectral):
            layer.register_buffer("u0", None)
            layer.register_buffer("sv0", None)


class Embedding(nn.Module):
    """classes (N, classes), one-hot or mixed, -> (N, size)."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, size))

    def forward(self, classes: Tensor) -> Tensor:
        return classes @ self.weight


def doubled(x: Tensor, resize: str = "nearest") -> Tensor:
    """(N, U, h, w) -> (N, U, 2h, 2w), by repeating positions (`nearest`) or `bilinear`."""
    return F.interpolate(x, scale_factor=2.0, mode=resize, **({"align_corners": False} if resize == "bilinear" else {}))


def attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """For each position the mean of the values, weighted by how well keys match its query (Zhang et al. 2019).

    queries (N, d, h, w), keys (N, d, h, w), values (N, v, h, w) -> (N, v, h, w). Keys and values are pooled 2×2, by
    maximum; weights are the softmax of inner products.
    """
    keys, values = (F.max_pool2d(x, 2).flatten(2) for x in (keys, values))  # (N, d or v, hw/4)
    weights = torch.softmax(queries.flatten(2).mT @ keys, -1)  # (N, hw, hw/4)
    return (values @ weights.mT).unflatten(2, queries.shape[2:])


def common_size(state: Mapping[str, Tensor], *axes: tuple[str, int]) -> int:
    """The size that most of these axes, each (key, axis), have, so that a single misshapen tensor is found out.

    >>> tensors = {"a": torch.zeros(4, 3), "b": torch.zeros(4), "c": torch.zeros(5)}
    >>> common_size(tensors, ("a", 0), ("b", 0), ("c", 0), ("d", 0))
    4

    Raises:
        DissectError: there is no such axis at all, or its size is 0.
    """
    sizes = [state[key].shape[axis] for key, axis in axes if key in state and state[key].ndim > axis]
    if not sizes or mode(sizes) < 1:
        raise DissectError(f"key {axes[0][0]} is missing or misshapen.")
    return mode(sizes)
