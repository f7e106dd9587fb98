"""The featuremaps of a layer as the spool holds them: of its units, or of directions, linear combinations of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..images import resize as gr
from ..runtime import distributed
from .plan import Plan
from .spool import Spool

SIGNED, CELLS = 64, 4  # samples of a signature, and its cells along a side, at most
UNITS_AT_ONCE = 256  # whose signatures are computed together
SAMPLES_AT_ONCE = 16  # whose units are in memory together, to be summed


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Featuremaps to score. With `directions` (K, U), K maps, each a weighted sum of the layer's U units.

    In a sum, activations that are not finite count as zeros. `device` is where they are read to.
    """

    spool: Spool
    plan: Plan
    layer: str
    directions: Tensor | None = None
    device: torch.device = gr.CPU

    def __len__(self) -> int:
        """How many maps a sample has."""
        return self.plan.shapes[self.layer][0] if self.directions is None else len(self.directions)

    @property
    def scale(self) -> float:
        """The factor from the values that `read` returns to activations."""
        return self.plan.scales[self.layer]

    def read(self, shard: int, block: slice) -> Tensor:
        """(n, units of the block, h, w) float16, as spooled; a copy."""
        stored = self._stored(shard)
        if self.directions is None:
            return self._copy(stored[:, block])
        weights = self.directions[block].to(self.device)
        parts = [
            torch.einsum("ku,nuhw->nkhw", weights, whole(self._copy(stored[samples]))).half()
            for samples in pieces(len(stored), SAMPLES_AT_ONCE)
        ]
        return torch.cat(parts)

    def pick(self, shard: int, rows: NDArray[np.int64], units: NDArray[np.int64]) -> Tensor:
        """(n, h, w) float32: of each row of a shard one unit."""
        stored = self._stored(shard)
        if self.directions is None:
            return self._copy(stored[rows, units]).float()
        parts = [
            torch.einsum(
                "nu,nuhw->nhw", self.directions[units[piece]].to(self.device), whole(self._copy(stored[rows[piece]]))
            ).half()
            for piece in pieces(len(rows), SAMPLES_AT_ONCE)
        ]
        return torch.cat(parts).float()

    def labels(self, shard: int) -> Tensor:
        """(n, P, g, g) int16, -1 for unlabelled; a copy."""
        return self._copy(self.spool.read(shard, "labels"))

    def _copy(self, stored: NDArray[Any]) -> Tensor:
        """An array of the spool as a tensor on the device."""
        return torch.from_numpy(np.array(stored)).to(self.device)

    def _stored(self, shard: int) -> NDArray[np.float16]:
        return self.spool.read(shard, self.plan.array(self.layer))


def signature(maps: Maps) -> NDArray[np.float16]:
    """(U, n, cells) by which a unit can be recognised in another run of the same latents: its activations on the first
    64 samples, averaged over 4×4 cells of the map, as a share of the greatest of them.
    """
    return np.concatenate(
        distributed.on_first(lambda: [_signature(maps, block) for block in pieces(len(maps), UNITS_AT_ONCE)])
    )


def _signature(maps: Maps, block: slice) -> NDArray[np.float16]:
    first = whole(maps.read(0, block)[:SIGNED])  # (n, u, h, w)
    cells = F.adaptive_avg_pool2d(first, (min(CELLS, first.shape[2]), min(CELLS, first.shape[3])))
    by_unit = cells.transpose(0, 1).flatten(2)  # (u, n, cells)
    return (by_unit / by_unit.abs().amax((1, 2), keepdim=True).clamp(min=1e-30)).half().cpu().numpy()


def whole(features: Tensor) -> Tensor:
    """float16 -> float32 with zeros for infinities and NaNs."""
    return features.float().nan_to_num_(0, 0, 0)


def pieces(length: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`.

    >>> list(pieces(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
