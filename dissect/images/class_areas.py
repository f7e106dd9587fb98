"""Area of each class in images."""

from __future__ import annotations

import torch
from torch import Tensor

UNLABELLED = "unlabelled"


def pixel_counts(labels: Tensor, classes: int) -> Tensor:
    """labels (N, P, H, W) -> (N, C + 1) int64, on the same device: pixels of each class; last, unlabelled in plane 0.

    -1 is unlabelled. Labels of C and more count nowhere.

    >>> labels = torch.tensor([[[[0, 0], [1, -1]]]])
    >>> pixel_counts(labels, 3).tolist()
    [[2, 1, 0, 1]]
    """
    uncounted = classes + 1
    unlabelled = torch.full_like(labels, uncounted)  # in planes after the first
    unlabelled[:, 0] = classes
    codes = torch.where(labels < 0, unlabelled, labels.masked_fill(labels >= classes, uncounted)).flatten(1).long()
    counts = torch.zeros(len(labels), classes + 2, dtype=torch.int64, device=labels.device)
    counts.scatter_add_(1, codes, torch.ones_like(codes[:, :1]).expand_as(codes))
    return counts[:, :uncounted]


def shares(labels: Tensor, classes: int) -> Tensor:
    """labels (N, P, H, W) -> (N, C + 1) float64, on the same device: `pixel_counts` as shares of the H · W pixels.

    >>> shares(torch.tensor([[[[0, 0], [1, -1]]]]), 2).tolist()
    [[0.5, 0.25, 0.25]]
    """
    height, width = labels.shape[2:]
    return pixel_counts(labels, classes).double() / (height * width)


def at_centres(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """labels (N, P, H, W) -> (N, P, h, w) int16: the label at the centre of each cell of an h×w map."""
    rows, columns = (
        ((torch.arange(cells, dtype=torch.float64) + 0.5) * side / cells).long().to(labels.device)
        for cells, side in zip(size, labels.shape[2:], strict=True)
    )
    return labels[:, :, rows[:, None], columns].to(torch.int16)
