"""Resizing: featuremaps and labels meet on a g×g grid."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

CPU = torch.device("cpu")


@cache
def bilinear_weights(size: int, grid: int, device: torch.device = CPU) -> Tensor:
    """(grid, size) float32: row i holds the weights of the source pixels under target pixel i.

    Bilinear with half-pixel centres, clamped at the border (`align_corners=False`), for grid ≥ size.

    >>> bilinear_weights(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    centre = ((torch.arange(grid, dtype=torch.float64) + 0.5) * size / grid - 0.5).clamp(0, size - 1)
    low = centre.floor().long()
    high = (low + 1).clamp(max=size - 1)
    weights = torch.zeros(grid, size, dtype=torch.float64)
    rows = torch.arange(grid)
    weights[rows, low] += 1 - (centre - low)
    weights[rows, high] += centre - low
    return weights.float().to(device)


def upsample(x: Tensor, grid: int) -> Tensor:
    """featuremaps (…, h, w), h and w ≤ grid -> (…, grid, grid): two small matrix products.

    >>> upsample(torch.tensor([[0.0, 4.0]]), 4)[0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    rows = bilinear_weights(x.shape[-2], grid, x.device).to(x)
    columns = bilinear_weights(x.shape[-1], grid, x.device).to(x)
    return rows @ (x @ columns.T)


def upsample_turned(x: Tensor, grid: int, stride: int = 1, out: Tensor | None = None) -> Tensor:
    """featuremaps (N, U, h, w) -> (N, U, grid, grid) as by `upsample`, but transposed: columns before rows.

    Each of the two products is a single large one whose result is contiguous, which is far faster; turning the result
    back would cost what this gains.

    Args:
        stride: only every stride-th row and column of the grid.
        out: flat, as large as the result: it is written there.
    """
    count, units, height, width = x.shape
    columns = x.reshape(-1, width) @ bilinear_weights(width, grid, x.device)[::stride].T
    side = columns.shape[1]
    columns = columns.view(-1, height, side).transpose(1, 2).reshape(-1, height)
    rows = bilinear_weights(height, grid, x.device)[::stride].T
    turned = torch.mm(columns, rows, out=None if out is None else out.view(-1, side))
    return turned.view(count, units, side, side)


def at_most(x: Tensor, grid: int) -> Tensor:
    """featuremaps (N, U, h, w) -> no finer than the grid: antialiased bilinear where a side is longer."""
    size = (min(x.shape[2], grid), min(x.shape[3], grid))
    if size == tuple(x.shape[2:]):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def labels_to_grid(labels: Tensor, grid: int) -> Tensor:
    """labels (N, P, H, W) int64 -> (N, P, grid, grid) int16: the label at the centre of each cell (nearest-exact).

    >>> labels_to_grid(torch.tensor([[[[0, 1, 2], [3, 4, 5], [6, 7, 8]]]]), 1).tolist()
    [[[[4]]]]
    """
    if labels.shape[2:] != (grid, grid):
        rows, columns = (
            ((torch.arange(grid, dtype=torch.float64, device=labels.device) + 0.5) * size / grid).long()
            for size in labels.shape[2:]
        )
        labels = labels[:, :, rows[:, None], columns]
    return labels.to(torch.int16)


def thumbnails(images: Tensor, side: int) -> Tensor:
    """images (N, 3, H, W) in [0, 1] -> (N, h, w, 3) uint8, the longer side at most `side` pixels."""
    height, width = images.shape[2:]
    shrink = min(1.0, side / max(height, width))
    if shrink < 1:
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


SIDE = 256  # pixels, at most
