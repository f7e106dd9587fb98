"""Directions of a layer: K linear combinations of its units, dissected as if they were units.

Each direction is a row of unit length; its featuremap is the weighted sum of the units' featuremaps.

    pca         principal components of the layer's pixels, by descending variance, the heavier tail positive
    nmf         components of a non-negative factorisation of the pixels' positive part (Lee and Seung 1999)
    rotation    a random orthogonal matrix: the control of Network Dissection (Bau et al. 2017, section 3.2)
    FILE        a safetensors file with a tensor (K, units) for each layer, under the layer's name
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...hooks.errors import DissectError, UsageError, one_line
from ..capture.maps import Maps
from ..capture.spool import SHARD
from ..runtime import distributed, random_streams

UNITS = "units"
FITTED = ("pca", "nmf")
ROTATION = "rotation"
PIXELS = 2**16  # on which a basis is fitted, at most
NMF_PIXELS = 2**14
NMF_ROUNDS = 400
DIRECTIONS = 32  # by default, or as many as there are units if these are fewer


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What is dissected of a layer: its units, or directions, linear combinations of them."""

    name: str = UNITS  # units, pca, nmf, rotation, or the name of a file
    count: dict[str, int] | None = None  # layer -> directions; None for units
    given: Mapping[str, Tensor] | None = None  # layer -> (K, U), from a file

    @classmethod
    def open(cls, spec: str, directions: int | None, widths: Mapping[str, int]) -> Basis:
        """The basis that `--basis` and `--directions` name, for layers with these numbers of units.

        Raises:
            UsageError: the basis is not known, or does not fit the layers.
            DissectError: the file cannot be read.
        """
        if spec == UNITS:
            return cls()
        if spec in FITTED:
            count = {
                layer: min(DIRECTIONS, width) if directions is None else directions for layer, width in widths.items()
            }
            for layer, width in widths.items():
                if count[layer] not in range(1, width + 1):
                    raise UsageError(f"--directions {directions}: layer {layer!r} has {width} units, so 1 to {width}.")
            return cls(name=spec, count=count)
        if not Path(spec).is_file():
            raise UsageError(f"--basis {spec!r}: must be units, pca, nmf, or a .safetensors file.")
        try:
            stored = load_file(spec)
        except (OSError, SafetensorError, ValueError) as error:
            raise DissectError(
                f"{spec} cannot be read as safetensors ({one_line(error)}); save a tensor (directions, units) for each "
                "layer under its name by safetensors.torch.save_file."
            ) from error
        given = {}
        for layer, width in widths.items():
            rows = stored.get(layer)
            if rows is None or rows.is_complex() or rows.ndim != 2 or rows.shape[1] != width or not len(rows):
                contents = f"only {', '.join(sorted(stored))}" if rows is None else f"{rows.dtype} {tuple(rows.shape)}"
                raise UsageError(
                    f"{spec} must hold a real tensor (directions, {width}) named {layer!r}; it has {contents}."
                )
            rows = rows.double()
            length = rows.norm(dim=1, keepdim=True)
            if not (rows.isfinite().all() and (length > 0).all()):
                raise UsageError(f"{spec}: a direction of {layer!r} is zero or not finite.")
            given[layer] = (rows / length).float()
        return cls(name=Path(spec).name, count={layer: len(rows) for layer, rows in given.items()}, given=given)

    @classmethod
    def recorded(cls, config: Mapping[str, Any]) -> Basis:
        """The basis that the config of a run records, if it was not read from a file."""
        return cls() if config["directions"] is None else cls(name=config["basis"], count=config["directions"])

    @classmethod
    def rotation(cls, widths: Mapping[str, int]) -> Basis:
        """A random orthogonal mix of each layer's units, as many as there are."""
        return cls(name=ROTATION, count=dict(widths))

    def check(self, shapes: Mapping[str, tuple[int, int, int]], samples: int) -> None:
        """Raise UsageError unless so many samples of layers of these shapes (units, h, w) suffice to fit it."""
        if self.name in FITTED and self.count is not None:
            for layer, (_, height, width) in shapes.items():
                if (pixels := -(-samples // 2) * height * width) < self.count[layer]:
                    raise UsageError(
                        f"--directions {self.count[layer]}: {pixels} pixels of {layer!r} do not suffice to fit "
                        f"{self.name}; take more --samples or fewer directions."
                    )

    @property
    def noun(self) -> str:
        """The word for what is dissected."""
        return "unit" if self.count is None else "direction"

    def width(self, layer: str, units: int) -> int:
        """How many units or directions are dissected of a layer with so many units."""
        return units if self.count is None else self.count[layer]

    @property
    def config(self) -> dict[str, object]:
        """The entries of the config in run.json."""
        if self.given is None:
            return {"basis": self.name, "directions": self.count}
        digest = hashlib.sha256(b"".join(rows.numpy().tobytes() for rows in self.given.values()))
        return {"basis": self.name, "directions": self.count, "basis_sha256": digest.hexdigest()}

    def directions(self, maps: Maps, seed: int) -> Tensor | None:
        """(K, U) float32 rows of unit length for a layer; None for units. Fitted on even samples, which choose labels.

        Raises:
            DissectError: the layer's activations are not finite.
        """
        if self.count is None:
            return None
        if self.given is not None:
            return self.given[maps.layer]
        count = self.count[maps.layer]
        if self.name == ROTATION:
            return distributed.on_first(lambda: random_rotation(count, seed))
        pixels = sample_pixels(maps, seed)
        if not np.isfinite(pixels).all():
            raise DissectError(f"Activations of layer {maps.layer!r} are not finite, so no {self.name} can be fitted.")
        fit = principal if self.name == "pca" else non_negative
        return distributed.on_first(lambda: fit(pixels, count))  # in the last digits, processors differ


def random_rotation(width: int, seed: int) -> Tensor:
    """A (width, width) orthogonal matrix, uniform among all (Mezzadri 2007): a pure function of the seed."""
    q, r = torch.linalg.qr(
        torch.from_numpy(random_streams.dice(seed, random_streams.ROTATION).standard_normal((width, width)))
    )
    return (q * r.diagonal().sign()).float()


def sample_pixels(maps: Maps, seed: int) -> NDArray[np.float32]:
    """(n, U) feature vectors at random places of the even samples, n at most 65,536 and the same places every time."""
    spool = maps.spool
    height, width = maps.plan.shapes[maps.layer][1:]
    each = min(height * width, max(1, PIXELS // -(-spool.samples // 2)))  # pixels of a sample
    own: dict[int, NDArray[np.float32]] = {}
    for shard in spool.own:
        if shard * SHARD // 2 * each >= PIXELS:  # those before it suffice
            break
        x = maps.read(shard, slice(None))[::2].float().flatten(2).transpose(1, 2)  # (n, h w, U)
        order = np.argsort(random_streams.dice(seed, random_streams.PIXELS, shard).random(x.shape[:2]), axis=1)
        own[shard] = np.take_along_axis(x.numpy(), order[:, :each, None], 1).reshape(-1, x.shape[2])
    shards = {shard: pixels for gathered in distributed.all_gather(own) for shard, pixels in gathered.items()}
    return np.concatenate([shards[shard] for shard in sorted(shards)])[:PIXELS]


def principal(pixels: NDArray[np.float32], count: int) -> Tensor:
    """pixels (n, U) -> the `count` eigenvectors of their covariance of largest variance; skewness is positive."""
    centred = torch.from_numpy(pixels).double()
    centred -= centred.mean(0)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :count]  # (U, K), largest first
    skewed = (centred @ vectors).pow(3).sum(0)
    return (vectors * torch.where(skewed < 0, -1.0, 1.0)).T.float().contiguous()


def non_negative(pixels: NDArray[np.float32], count: int) -> Tensor:
    """pixels (n, U) -> the `count` components of a non-negative factorisation of max(x, 0), scaled to unit length."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    positive = np.maximum(pixels[:: -(-len(pixels) // NMF_PIXELS)], 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a direction need not be found to the last digit
        fit = NMF(count, init="nndsvda", tol=1e-3, max_iter=NMF_ROUNDS, random_state=0).fit(positive)
    components = torch.from_numpy(fit.components_).float()
    length = components.norm(dim=1, keepdim=True)
    if not (length > 0).all():
        raise UsageError(f"--directions {count}: the layer has only {int((length > 0).sum())} non-negative components.")
    return components / length
