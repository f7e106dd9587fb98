"""Kernels that upsample, split into the phases of their stride: what causes checkerboards, and what takes them out.

A transposed convolution of stride s puts tap t of input i at output o = s·i + d·t − p (dilation d, padding p). Output
positions that are equal modulo s are a phase, and every phase sees taps of its own. Where their counts differ, the
overlap is uneven (Odena, Dumoulin and Olah 2016, Deconvolution and Checkerboard Artifacts). A flat input comes out flat
if and only if the taps of every phase have the same sum (Sugawara, Shiota and Kiya 2018, Super-Resolution Using
Convolutional Neural Networks Without Any Checkerboard Artifacts): even counts do not make even sums.

Weights are as torch.nn.ConvTranspose2d keeps them: (in, out / groups, kh, kw). A tile (…, sh, sw) holds one number a
phase; [a, b] is of the outputs in rows ≡ a and columns ≡ b modulo the stride.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import UsageError
from ..runtime import distributed

RIDGE = 1e-3


class Geometry(NamedTuple):
    """Where a transposed convolution puts its taps. Pairs are (vertical, horizontal)."""

    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def split(self, axis: int, taps: int) -> Tensor:
        """(taps, s) of ones and zeros: which tap goes to which phase."""
        phases = (self.dilation[axis] * torch.arange(taps) - self.padding[axis]) % self.stride[axis]
        return F.one_hot(phases, self.stride[axis])

    def splits(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(kh, sh) and (kw, sw), like the weight in type and place."""
        down, across = (self.split(axis, weight.shape[2 + axis]).to(weight) for axis in (0, 1))
        return down, across


def overlap(kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """(sh, sw) int64: how many taps reach each phase away from the border (the article's figure in two dimensions)."""
    down, across = (geometry.split(axis, kernel[axis]).sum(0) for axis in (0, 1))
    return down[:, None] * across


def overlap_line(kernel: int, geometry: Geometry, inputs: int, axis: int = 1) -> Tensor:
    """(outputs,) int64: how many taps reach each output of a row of so many inputs, borders included."""
    stride, dilation, padding = geometry.stride[axis], geometry.dilation[axis], geometry.padding[axis]
    size = stride * (inputs - 1) - 2 * padding + dilation * (kernel - 1) + 1 + geometry.output_padding[axis]
    places = (stride * torch.arange(inputs)[:, None] + dilation * torch.arange(kernel) - padding).flatten()
    return torch.bincount(places[(places >= 0) & (places < size)], minlength=size)


def phase_sums(weight: Tensor, geometry: Geometry) -> Tensor:
    """(in, out, kh, kw) -> (in, out, sh, sw): g_φ, the sum of the taps of each phase."""
    down, across = geometry.splits(weight)
    return torch.einsum("iokl,ka,lb->ioab", weight, down, across)


def flat_response(weight: Tensor, geometry: Geometry, level: Tensor, groups: int = 1) -> Tensor:
    """What comes out of a flat input: weight (in, out / groups, kh, kw), level (in,) -> tile (out, sh, sw)."""
    sums = phase_sums(weight, geometry)
    weighted = sums.reshape(groups, -1, *sums.shape[1:]) * level.reshape(groups, -1, 1, 1, 1)
    return weighted.sum(1).flatten(0, 1)


def ripple(tile: Tensor) -> Tensor:
    """(…, sh, sw) -> the same, less its mean over the phases."""
    return tile - tile.mean((-2, -1), keepdim=True)


def amplitude(tile: Tensor) -> Tensor:
    """(…, sh, sw) -> (…): the root mean square of the ripple over the phases."""
    return ripple(tile).square().mean((-2, -1)).sqrt()


Moments = Mapping[tuple[int, int], Tensor]  # by phase: (in · taps, in · taps), see `InputMoments`


def equalise(weight: Tensor, geometry: Geometry, strength: float = 1.0, moments: Moments | None = None) -> Tensor:
    """The least change that gives all phases of every kernel the same sum: (in, out, kh, kw) -> the same shape.

    With C_φ the second moments of the inputs that meet the taps of phase φ, S the sum over taps, and w_φ the taps:
    M_φ = (S C_φ⁻¹ Sᵀ)⁻¹, the common sum is g = (Σ M_φ)⁻¹ Σ M_φ S w_φ, and w_φ changes by C_φ⁻¹ Sᵀ M_φ (g − S w_φ).
    This is the least mean square change of what the layer outputs. Without moments C is the identity: the least change
    of the taps themselves, g = Σ (g_φ / n_φ) / Σ (1 / n_φ) with n_φ taps.

    Args:
        weight: of the layer, without groups if moments are given.
        geometry: of the layer.
        strength: 0 leaves the weight, 1 equalises it, linear between.
        moments: of the layer's input.

    Raises:
        UsageError: a phase has no tap.
    """
    counts = overlap((weight.shape[2], weight.shape[3]), geometry)
    if not bool(counts.all()):
        raise UsageError(
            f"Kernel {weight.shape[2]}×{weight.shape[3]} at stride {geometry.stride[0]}×{geometry.stride[1]} and "
            f"dilation {geometry.dilation[0]}×{geometry.dilation[1]} leaves outputs that no tap reaches; its phases "
            "cannot be equalised. Take notch."
        )
    if moments is None:
        sums = phase_sums(weight, geometry)
        goal = (sums / counts.to(weight)).sum((2, 3), keepdim=True) / (1 / counts.to(weight)).sum()
        down, across = geometry.splits(weight)
        return weight + strength * torch.einsum("ioab,ka,lb->iokl", (goal - sums) / counts.to(weight), down, across)
    fan_in = weight.shape[0]
    equal = weight.double().cpu().clone()
    parts = []
    for phase, moment in moments.items():
        rows, columns = _taps(phase, (weight.shape[2], weight.shape[3]), geometry)
        taps = equal[:, :, rows, columns].movedim(1, 2).flatten(0, 1)  # (in · n, out)
        summing = torch.eye(fan_in).double().repeat_interleave(len(rows), 1)  # (in, in · n)
        spreading = torch.linalg.solve(_ridged(moment), summing.T)  # C⁻¹ Sᵀ
        stiffness = torch.linalg.inv(summing @ spreading)
        parts.append((rows, columns, taps, spreading @ stiffness, stiffness, summing @ taps))
    goal = torch.linalg.solve(sum(part[4] for part in parts), sum(part[4] @ part[5] for part in parts))
    for rows, columns, taps, back, _, sums in parts:
        moved = taps + back @ (goal - sums)
        equal[:, :, rows, columns] = moved.unflatten(0, (fan_in, len(rows))).movedim(2, 1)
    return torch.lerp(weight, equal.to(weight), strength)


def _taps(phase: tuple[int, int], kernel: tuple[int, int], geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,) of the taps of a phase."""
    down, across = (geometry.split(axis, kernel[axis])[:, phase[axis]].nonzero().flatten() for axis in (0, 1))
    return down.repeat_interleave(len(across)), across.repeat(len(down))


def _ridged(moment: Tensor) -> Tensor:
    """With a thousandth of the mean variance on the diagonal, for directions that inputs never take."""
    return moment + RIDGE * moment.diagonal().mean().clamp(min=1e-12) * torch.eye(len(moment), dtype=moment.dtype)


class InputMoments:
    """Second moments of the inputs that meet the taps of each phase, summed over samples and positions.

    `sums[a, b]` (in · n, in · n) float64, inputs slowest, taps in reading order.
    """

    def __init__(self, kernel: tuple[int, int], geometry: Geometry) -> None:
        self.kernel, self.geometry = kernel, geometry
        self.sums: dict[tuple[int, int], Tensor] = {}
        self.positions = 0

    def add(self, inputs: Tensor) -> None:
        """inputs (N, in, h, w); beyond the border they are zero."""
        height, width = inputs.shape[2:]
        geometry = self.geometry
        extents = zip(geometry.dilation, self.kernel, geometry.padding, strict=True)
        reach = max(dilation * taps + abs(edge) for dilation, taps, edge in extents)
        padded = F.pad(inputs.double().cpu(), (reach,) * 4)
        for phase in product(range(geometry.stride[0]), range(geometry.stride[1])):
            places = [  # o = s·i + d·t − p: the input that a tap brings to an output lies so far before it
                (geometry.dilation[axis] * taps - geometry.padding[axis] - phase[axis]) // geometry.stride[axis]
                for axis, taps in enumerate(_taps(phase, self.kernel, geometry))
            ]
            seen = [
                padded[:, :, reach - int(y) : reach - int(y) + height, reach - int(x) : reach - int(x) + width]
                for y, x in zip(*places, strict=True)
            ]
            if seen:
                values = torch.stack(seen, 2).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)  # (in · n, positions)
                self.sums[phase] = self.sums.get(phase, 0) + values @ values.T
        self.positions += inputs.shape[0] * height * width

    def together(self) -> None:
        """Add up what all processes have seen; once, when each has seen its part."""
        sizes = ChainMap(*distributed.all_gather({phase: len(moments) for phase, moments in self.sums.items()}))
        for phase, size in sizes.items():
            if phase not in self.sums:
                self.sums[phase] = torch.zeros(size, size, dtype=torch.float64)
            distributed.all_sum(self.sums[phase])
        self.positions = sum(distributed.all_gather(self.positions))

    @property
    def means(self) -> Moments:
        """The moments themselves."""
        return {phase: total / self.positions for phase, total in self.sums.items()}


def box(weight: Tensor, geometry: Geometry, strength: float = 1.0) -> tuple[Tensor, Geometry]:
    """A box of the stride's size after the layer, folded into its kernel, which grows by stride − 1.

    This is the zero-order hold that Sugawara et al. 2018 put behind an upsampling layer. It takes out every frequency
    of the layer's grid, for any input. At strengths below 1, so much of the box and the rest of the layer as it was.

    Raises:
        UsageError: a dilated kernel, which cannot hold it.
    """
    _plain(geometry, "box")
    early = [
        max(0, math.ceil((s - 1 - out) / 2)) for s, out in zip(geometry.stride, geometry.output_padding, strict=True)
    ]
    sides = []
    for axis, stride in enumerate(geometry.stride):
        taps = weight.shape[2 + axis]
        same = F.pad(torch.eye(taps), (early[axis], stride - 1 - early[axis]))  # (taps, taps + stride - 1)
        held = sum(F.pad(torch.eye(taps), (shift, stride - 1 - shift)) for shift in range(stride)) / stride
        sides.append((same.to(weight), torch.as_tensor(held).to(weight)))
    same, held = (torch.einsum("iokl,km,ln->iomn", weight, down, across) for down, across in zip(*sides, strict=True))
    padding = [was + shift for was, shift in zip(geometry.padding, early, strict=True)]
    rest = [
        was - (stride - 1) + 2 * shift
        for was, stride, shift in zip(geometry.output_padding, geometry.stride, early, strict=True)
    ]
    wider = geometry._replace(padding=(padding[0], padding[1]), output_padding=(rest[0], rest[1]))
    return torch.lerp(same, held, strength), wider


def project(weight: Tensor, geometry: Geometry, groups: int = 1, moments: Moments | None = None) -> Tensor:
    """The nearest resize-convolution: that of nearest ×s, then this kernel.

    weight (in, out / groups, kh, kw) -> (out, in / groups, kh − sh + 1, kw − sw + 1), as torch.nn.Conv2d keeps it; see
    `spread` for the way back. Nearest by the mean square of what the layer outputs, where `moments` of its input are
    given (without groups), else by that of the taps. A kernel that is a resize-convolution comes back exactly.

    Raises:
        UsageError: a dilated kernel, or one smaller than its stride.
    """
    _plain(geometry, "resize")
    kernel, stride = (weight.shape[2], weight.shape[3]), geometry.stride
    if any(taps < step for taps, step in zip(kernel, stride, strict=True)):
        raise UsageError(
            f"Kernel {kernel[0]}×{kernel[1]} is smaller than its stride {stride[0]}×{stride[1]}; there is no "
            "resize-convolution of that size. Take box or notch."
        )
    held = [_hold(taps, step) for taps, step in zip(kernel, stride, strict=True)]
    if moments is None:
        down, across = (torch.linalg.pinv(one).to(weight) for one in held)
        small = torch.einsum("iokl,mk,nl->iomn", weight, down, across)
        return _turned(small.flip(2, 3), groups)
    fan_in = weight.shape[0]
    spreading = torch.kron(*held)  # (kh · kw, mh · mw)
    normal = right = torch.zeros(())
    for phase, moment in moments.items():
        rows, columns = _taps(phase, kernel, geometry)
        taps = weight.double().cpu()[:, :, rows, columns].movedim(1, 2).flatten(0, 1)  # (in · n, out)
        mine = torch.kron(torch.eye(fan_in).double(), spreading[rows * kernel[1] + columns])  # (in · n, in · mh · mw)
        weighed = mine.T @ _ridged(moment)
        normal, right = normal + weighed @ mine, right + weighed @ taps
    small = torch.linalg.solve(normal, right)  # (in · mh · mw, out)
    sides = (held[0].shape[1], held[1].shape[1])
    small = small.unflatten(0, (fan_in, *sides)).movedim(-1, 1).to(weight)
    return _turned(small.flip(2, 3), groups)


def spread(weight: Tensor, geometry: Geometry, groups: int = 1) -> Tensor:
    """The transposed convolution that a resize-convolution is: (out, in / groups, mh, mw) -> (in, out / groups, …)."""
    down, across = (
        _hold(taps + stride - 1, stride).to(weight)
        for taps, stride in zip(weight.shape[2:], geometry.stride, strict=True)
    )
    return torch.einsum("iomn,km,ln->iokl", _turned(weight, groups).flip(2, 3), down, across)


def _plain(geometry: Geometry, what: str) -> None:
    if geometry.dilation != (1, 1):
        raise UsageError(f"The repair {what} is for kernels without dilation; take equalise or notch.")


def _hold(taps: int, stride: int) -> Tensor:
    """(taps, taps - stride + 1) float64 of ones and zeros: how a small kernel spreads when every input is held."""
    behind = torch.arange(taps)[:, None] - torch.arange(taps - stride + 1)
    return ((behind >= 0) & (behind < stride)).double()


def _turned(weight: Tensor, groups: int) -> Tensor:
    """(in, out / groups, …) <-> (out, in / groups, …)."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def shuffle_kernel(weight: Tensor, factor: int) -> Tensor:
    """The transposed convolution that a convolution and a pixel shuffle are.

    (out · s², in, k, l) -> (in, out, s · k, s · l). Its stride is s, its padding s · (k − 1 − padding). Filter
    c · s² + s · a + b gives phase (a, b) of unit c.
    """
    split = weight.unflatten(0, (-1, factor, factor)).flip(-2, -1)  # (out, s, s, in, k, l)
    return split.permute(3, 0, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


def shuffle_filters(kernel: Tensor, factor: int) -> Tensor:
    """The way back from `shuffle_kernel`."""
    split = kernel.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))  # (in, out, k, s, l, s)
    return split.permute(1, 3, 5, 0, 2, 4).flip(-2, -1).flatten(0, 2)
