"""Area of each class in images."""

from __future__ import annotations

import torch
from torch import Tensor

UNLABELLED = "unlabelled"


def shares(labels: Tensor, classes: int) -> Tensor:
    """labels (N, P, H, W) -> (N, C + 1) float64, there: shares of pixels; last, of those unlabelled in plane 0.

    Labels that are no classes count nowhere.
    """
    number, _, height, width = labels.shape
    unlabelled = torch.full_like(labels, classes + 1)  # of other planes: they count nowhere, either
    unlabelled[:, 0] = classes
    codes = torch.where(labels < 0, unlabelled, labels.clamp(max=classes + 1)).flatten(1).long()
    counts = torch.zeros(number, classes + 2, dtype=torch.float64, device=labels.device)
    counts.scatter_add_(1, codes, torch.ones((), dtype=torch.float64, device=labels.device).expand_as(codes))
    return counts[:, : classes + 1] / (height * width)


def at_centres(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """labels (N, P, H, W) -> (N, P, h, w) int16: the label at the centre of each cell of an h×w map."""
    rows, columns = (
        ((torch.arange(cells, dtype=torch.float64) + 0.5) * side / cells).long().to(labels.device)
        for cells, side in zip(size, labels.shape[2:], strict=True)
    )
    return labels[:, :, rows[:, None], columns].to(torch.int16)
