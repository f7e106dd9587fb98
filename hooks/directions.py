"""Changing directions of a layer: the smallest change of the featuremaps after which directions read what they should.

The reading of a direction d at a position is its product with the featuremaps there, d · a(p), as in the maps of a run
(see `capture.maps`): no mean is subtracted, and activations that are not finite count as zeros. To make directions D,
the rows of a matrix, read v, the featuremaps become

    a' = a + D⁺ (v − D a),

where D⁺ is the pseudo-inverse (Penrose 1956). Where v is zero, this removes the projection of a on the span of D.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARALLEL = 1e-3  # singular values below this share of the greatest count as zero


def readings(x: Tensor, directions: Tensor) -> Tensor:
    """x (n, U, h, w), directions (K, U) -> (n, K, h, w).

    >>> readings(torch.tensor([[[[3.0]], [[4.0]]]]), torch.tensor([[0.6, 0.8]])).item()
    5.0
    """
    return torch.einsum("ku,nuhw->nkhw", directions.to(x), x.nan_to_num(0, 0, 0))


def steps(x: Tensor, value: Tensor | float, pull: Tensor, directions: Tensor) -> Tensor:
    """The smallest change (n, U, h, w) of x after which each direction reads (1 − pull) · reading + pull · value.

    Directions that depend on each other cannot read any values; they come as near as they can, by least squares.

    Args:
        x: (n, U, h, w).
        value, pull: of each direction, (K, 1, 1) or (n, K, h, w); pull is in [0, 1].
        directions: (K, U).
    """
    missing = (value - readings(x, directions)) * pull
    back = torch.linalg.pinv(directions.double(), rtol=PARALLEL)
    return torch.einsum("uk,nkhw->nuhw", back.to(x), missing)


def set_readings(x: Tensor, value: Tensor, weight: Tensor, place: Tensor | None, directions: Tensor) -> Tensor:
    """Change featuremaps in k ways; the directions of a way, those of positive weight, are changed together.

    Args:
        x: (n, U, h, w).
        value: (K, 1, 1) or (n, K, h, w), what the directions should read.
        weight: (k, 1 or n, K) in [0, 1], how far each is pulled to its value.
        place: (k, 1 or n, 1, h, w) in [0, 1], where on the map; None is everywhere.
        directions: (K, U).

    Returns:
        (k, n, U, h, w), exactly x where nothing pulls, even for NaN.
    """
    weight = weight.expand(-1, len(x), -1)
    change = x.new_zeros(len(weight), *x.shape)
    distinct, which = weight.flatten(0, 1).unique(dim=0, return_inverse=True)
    for number, row in enumerate(distinct):  # once for all ways and samples that change the same directions
        members = row.nonzero()[:, 0]
        pull = row[members, None, None].to(x)
        own = steps(x, value[..., members.to(x.device), :, :], pull, directions[members])
        way, sample = (which == number).view(weight.shape[:2]).nonzero().to(x.device).unbind(1)
        change[way, sample] = own[sample]
    pulled = (weight > 0).any(-1)[..., None, None, None].to(x.device)
    if place is not None:
        change, pulled = change * place, pulled & (place > 0)
    return torch.where(pulled, x.nan_to_num(0, 0, 0) + change, x)
