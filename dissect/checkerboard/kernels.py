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
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import UsageError
from ..runtime import distributed

RIDGE = 1e-3  # of the mean variance of the inputs: added to the diagonal of their moments


class Geometry(NamedTuple):
    """Where a transposed convolution puts its taps. Pairs are (vertical, horizontal)."""

    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def split(self, axis: int, taps: int) -> Tensor:
        """(taps, s) int64, ones and zeros: which tap goes to which phase.

        >>> Geometry(stride=(2, 2), padding=(1, 1)).split(axis=0, taps=3)
        tensor([[0, 1],
                [1, 0],
                [0, 1]])
        """
        phases = (self.dilation[axis] * torch.arange(taps) - self.padding[axis]) % self.stride[axis]
        return F.one_hot(phases, self.stride[axis])

    def splits(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(kh, sh) and (kw, sw), of the dtype and on the device of the weight."""
        down, across = (self.split(axis, weight.shape[2 + axis]).to(weight) for axis in (0, 1))
        return down, across


def overlap(kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """(sh, sw) int64: how many taps reach each phase away from the border (the article's figure in two dimensions).

    >>> overlap((3, 3), Geometry(stride=(2, 2), padding=(1, 1)))  # kernel 3 is no multiple of stride 2: uneven
    tensor([[1, 2],
            [2, 4]])
    """
    down, across = (geometry.split(axis, kernel[axis]).sum(0) for axis in (0, 1))
    return down[:, None] * across


def overlap_line(kernel: int, geometry: Geometry, inputs: int, axis: int = 1) -> Tensor:
    """(outputs,) int64: how many taps reach each output of a row of so many inputs, borders included.

    >>> overlap_line(3, Geometry(stride=(2, 2), padding=(1, 1)), inputs=4)
    tensor([1, 2, 1, 2, 1, 2, 1])
    """
    stride, dilation, padding = geometry.stride[axis], geometry.dilation[axis], geometry.padding[axis]
    size = stride * (inputs - 1) - 2 * padding + dilation * (kernel - 1) + 1 + geometry.output_padding[axis]
    outputs = (stride * torch.arange(inputs)[:, None] + dilation * torch.arange(kernel) - padding).flatten()
    return torch.bincount(outputs[(outputs >= 0) & (outputs < size)], minlength=size)


def phase_sums(weight: Tensor, geometry: Geometry) -> Tensor:
    """(in, out, kh, kw) -> (in, out, sh, sw): g_φ, the sum of the taps of each phase.

    >>> phase_sums(torch.arange(9.0).view(1, 1, 3, 3), Geometry(stride=(2, 2), padding=(1, 1)))
    tensor([[[[ 4.,  8.],
              [ 8., 16.]]]])
    """
    down, across = geometry.splits(weight)
    return torch.einsum("iokl,ka,lb->ioab", weight, down, across)


def flat_response(weight: Tensor, geometry: Geometry, level: Tensor, groups: int = 1) -> Tensor:
    """What comes out of a flat input: weight (in, out / groups, kh, kw), level (in,) -> tile (out, sh, sw)."""
    sums = phase_sums(weight, geometry)
    weighted = sums.reshape(groups, -1, *sums.shape[1:]) * level.reshape(groups, -1, 1, 1, 1)
    return weighted.sum(1).flatten(0, 1)


def ripple(tile: Tensor) -> Tensor:
    """(…, sh, sw) -> the same, less its mean over the phases.

    >>> ripple(torch.tensor([[1.0, 2.0], [2.0, 3.0]]))
    tensor([[-1.,  0.],
            [ 0.,  1.]])
    """
    return tile - tile.mean((-2, -1), keepdim=True)


def amplitude(tile: Tensor) -> Tensor:
    """(…, sh, sw) -> (…): the root mean square of the ripple over the phases.

    >>> amplitude(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    tensor(1.)
    """
    return ripple(tile).square().mean((-2, -1)).sqrt()


Moments = Mapping[tuple[int, int], Tensor]  # by phase: (in · taps, in · taps), see `InputMoments`


@dataclass(frozen=True, kw_only=True)
class PhaseSystem:
    """The taps of one phase and the least change that gives them a sum g, in the metric of the inputs that they meet.

    Let w be the taps, C the second moments of the inputs that meet them, and S the sum over taps, S w = their sum. Of
    all changes Δ with S (w + Δ) = g, the one that minimises Δᵀ C Δ, the mean square change of the output, is

        Δ = C⁻¹ Sᵀ M (g − S w),    M = (S C⁻¹ Sᵀ)⁻¹    (Lagrange multipliers),

    and its minimum is (g − S w)ᵀ M (g − S w). The sum over phases of that is least at g = (Σ M)⁻¹ Σ M S w.

    rows, columns: (n,) int64, where the taps lie in the kernel. taps: w, (in · n, out). sums: S w, (in, out).
    stiffness: M, (in, in). correction: C⁻¹ Sᵀ M, (in · n, in). All float64.
    """

    rows: Tensor
    columns: Tensor
    taps: Tensor
    sums: Tensor
    stiffness: Tensor
    correction: Tensor

    @classmethod
    def of(cls, weight: Tensor, geometry: Geometry, phase: tuple[int, int], moment: Tensor) -> PhaseSystem:
        """weight (in, out, kh, kw) float64, moment (in · n, in · n) float64: of one phase."""
        fan_in = weight.shape[0]
        rows, columns = _taps(phase, (weight.shape[2], weight.shape[3]), geometry)
        taps = weight[:, :, rows, columns].movedim(1, 2).flatten(0, 1)
        summing = torch.eye(fan_in).double().repeat_interleave(len(rows), 1)  # S, (in, in · n)
        spreading = torch.linalg.solve(_ridged(moment), summing.T)  # C⁻¹ Sᵀ
        stiffness = torch.linalg.inv(summing @ spreading)
        return cls(
            rows=rows,
            columns=columns,
            taps=taps,
            sums=summing @ taps,
            stiffness=stiffness,
            correction=spreading @ stiffness,
        )

    def with_sum(self, goal: Tensor) -> Tensor:
        """The changed taps (in, n, out), whose sum is the goal (in, out)."""
        changed = self.taps + self.correction @ (goal - self.sums)
        return changed.unflatten(0, (len(self.sums), len(self.rows)))


def equalise(weight: Tensor, geometry: Geometry, strength: float = 1.0, moments: Moments | None = None) -> Tensor:
    """The least change that gives all phases of every kernel the same sum: (in, out, kh, kw) -> the same shape.

    With moments of the layer's input it is the least mean square change of what the layer outputs, see `PhaseSystem`.
    Without them it is the least change of the taps themselves: C is the identity, and the common sum of phases with n_φ
    taps and sums g_φ is g = Σ (g_φ / n_φ) / Σ (1 / n_φ).

    >>> geometry = Geometry(stride=(2, 2), padding=(1, 1))
    >>> sums = phase_sums(equalise(torch.arange(9.0).view(1, 1, 3, 3), geometry), geometry)
    >>> bool(amplitude(sums).max() < 1e-5)
    True

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
    equal = weight.double().cpu().clone()
    systems = [PhaseSystem.of(equal, geometry, phase, moment) for phase, moment in moments.items()]
    zero = torch.zeros(())
    goal = torch.linalg.solve(
        sum((system.stiffness for system in systems), zero),
        sum((system.stiffness @ system.sums for system in systems), zero),
    )
    for system in systems:
        equal[:, :, system.rows, system.columns] = system.with_sum(goal).movedim(2, 1)
    return torch.lerp(weight, equal.to(weight), strength)


def _taps(phase: tuple[int, int], kernel: tuple[int, int], geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,) of the taps of a phase."""
    down, across = (geometry.split(axis, kernel[axis])[:, phase[axis]].nonzero().flatten() for axis in (0, 1))
    return down.repeat_interleave(len(across)), across.repeat(len(down))


def _ridged(moment: Tensor) -> Tensor:
    """(n, n) moments with a thousandth of their mean variance added to the diagonal.

    In directions that inputs never take, the moments are singular, and any change of the taps would cost nothing.
    """
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
        padded = F.pad(inputs.double().cpu().transpose(0, 1), (reach,) * 4)
        for phase in product(range(geometry.stride[0]), range(geometry.stride[1])):
            offsets = [  # o = s·i + d·t − p: how many inputs before the output's own lies the one that a tap meets
                (geometry.dilation[axis] * taps - geometry.padding[axis] - phase[axis]) // geometry.stride[axis]
                for axis, taps in enumerate(_taps(phase, self.kernel, geometry))
            ]
            shifted = [
                padded[:, :, reach - int(y) : reach - int(y) + height, reach - int(x) : reach - int(x) + width]
                for y, x in zip(*offsets, strict=True)
            ]
            if shifted:
                values = torch.stack(shifted, 1).flatten(2).flatten(0, 1).numpy()  # (in · n, positions)
                # numpy sees that the product is symmetric and computes half of it
                self.sums[phase] = self.sums.get(phase, 0) + torch.from_numpy(values @ values.T)
        self.positions += inputs.shape[0] * height * width

    def together(self) -> None:
        """Sum over all processes; call it once, when each has added its share of the inputs."""
        sizes = ChainMap(*distributed.all_gather({phase: len(moments) for phase, moments in self.sums.items()}))
        for phase, size in sizes.items():
            if phase not in self.sums:
                self.sums[phase] = torch.zeros(size, size, dtype=torch.float64)
            distributed.all_sum(self.sums[phase])
        self.positions = sum(distributed.all_gather(self.positions))

    @property
    def means(self) -> Moments:
        """The moments: the sums over the number of positions."""
        return {phase: total / self.positions for phase, total in self.sums.items()}


def box(weight: Tensor, geometry: Geometry, strength: float = 1.0) -> tuple[Tensor, Geometry]:
    """A box of the stride's size after the layer, folded into its kernel, which grows by stride − 1.

    This is the zero-order hold that Sugawara et al. 2018 put behind an upsampling layer. It takes out every frequency
    of the layer's grid, for any input. At a strength below 1, the kernel is `strength` times the boxed one plus
    1 − `strength` times the layer's own.

    Returns:
        The kernel (in, out / groups, kh + sh − 1, kw + sw − 1), and the geometry that keeps the size of the output.

    Raises:
        UsageError: a dilated kernel, which cannot hold it.
    """
    _check_undilated(geometry, "box")
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
    padding = [old + shift for old, shift in zip(geometry.padding, early, strict=True)]
    output_padding = [
        old - (stride - 1) + 2 * shift
        for old, stride, shift in zip(geometry.output_padding, geometry.stride, early, strict=True)
    ]
    wider = geometry._replace(padding=(padding[0], padding[1]), output_padding=(output_padding[0], output_padding[1]))
    return torch.lerp(same, held, strength), wider


def project(weight: Tensor, geometry: Geometry, groups: int = 1, moments: Moments | None = None) -> Tensor:
    """The nearest resize-convolution: that of nearest ×s, then this kernel.

    weight (in, out / groups, kh, kw) -> (out, in / groups, kh − sh + 1, kw − sw + 1), as torch.nn.Conv2d keeps it; see
    `spread` for the inverse. Nearest by the mean square of what the layer outputs, where `moments` of its input are
    given (without groups), else by that of the taps. A kernel that is a resize-convolution comes back exactly.

    Raises:
        UsageError: a dilated kernel, or one smaller than its stride.
    """
    _check_undilated(geometry, "resize")
    kernel, stride = (weight.shape[2], weight.shape[3]), geometry.stride
    if any(taps < step for taps, step in zip(kernel, stride, strict=True)):
        raise UsageError(
            f"Kernel {kernel[0]}×{kernel[1]} is smaller than its stride {stride[0]}×{stride[1]}; there is no "
            "resize-convolution of that size. Take box or notch."
        )
    holds = [_hold(taps, step) for taps, step in zip(kernel, stride, strict=True)]
    if moments is None:
        down, across = (torch.linalg.pinv(hold).to(weight) for hold in holds)
        small = torch.einsum("iokl,mk,nl->iomn", weight, down, across)
        return _transposed(small.flip(2, 3), groups)
    fan_in = weight.shape[0]
    spreading = torch.kron(*holds)  # (kh · kw, mh · mw)
    normal = right = torch.zeros(())  # the normal equations of least squares: normal @ small = right
    for phase, moment in moments.items():
        rows, columns = _taps(phase, kernel, geometry)
        taps = weight.double().cpu()[:, :, rows, columns].movedim(1, 2).flatten(0, 1)  # (in · n, out)
        to_taps = torch.kron(torch.eye(fan_in).double(), spreading[rows * kernel[1] + columns])  # (in · n, in·mh·mw)
        weighted = to_taps.T @ _ridged(moment)
        normal, right = normal + weighted @ to_taps, right + weighted @ taps
    small = torch.linalg.solve(normal, right)  # (in · mh · mw, out)
    sides = (holds[0].shape[1], holds[1].shape[1])
    small = small.unflatten(0, (fan_in, *sides)).movedim(-1, 1).to(weight)
    return _transposed(small.flip(2, 3), groups)


def spread(weight: Tensor, geometry: Geometry, groups: int = 1) -> Tensor:
    """The transposed convolution that a resize-convolution is, the inverse of `project`.

    (out, in / groups, mh, mw) -> (in, out / groups, mh + sh − 1, mw + sw − 1).

    >>> spread(torch.ones(1, 1, 1, 1), Geometry(stride=(2, 2)))  # nearest ×2 alone
    tensor([[[[1., 1.],
              [1., 1.]]]])
    """
    down, across = (
        _hold(taps + stride - 1, stride).to(weight)
        for taps, stride in zip(weight.shape[2:], geometry.stride, strict=True)
    )
    return torch.einsum("iomn,km,ln->iokl", _transposed(weight, groups).flip(2, 3), down, across)


def _check_undilated(geometry: Geometry, method: str) -> None:
    if geometry.dilation != (1, 1):
        raise UsageError(f"The repair {method} is for kernels without dilation; take equalise or notch.")


def _hold(taps: int, stride: int) -> Tensor:
    """(taps, taps − stride + 1) float64, ones and zeros: how a small kernel spreads when every input is held.

    >>> _hold(taps=3, stride=2)
    tensor([[1., 0.],
            [1., 1.],
            [0., 1.]], dtype=torch.float64)
    """
    behind = torch.arange(taps)[:, None] - torch.arange(taps - stride + 1)
    return ((behind >= 0) & (behind < stride)).double()


def _transposed(weight: Tensor, groups: int) -> Tensor:
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
    """The inverse of `shuffle_kernel`: (in, out, s · k, s · l) -> (out · s², in, k, l).

    >>> filters = torch.randn(8, 3, 5, 5)
    >>> torch.equal(shuffle_filters(shuffle_kernel(filters, 2), 2), filters)
    True
    """
    split = kernel.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))  # (in, out, k, s, l, s)
    return split.permute(1, 3, 5, 0, 2, 4).flip(-2, -1).flatten(0, 2)
