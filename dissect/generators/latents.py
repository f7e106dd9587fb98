"""Latents that are numbers drawn from one distribution: normal, uniform, on a sphere, or 0 and 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import UsageError

KINDS = "normal:512, uniform:100 (in [-1, 1]), uniform:100,0,1, sphere:512 or bernoulli:100"


@dataclass(frozen=True)
class DrawnLatents:
    """(N, *shape) float32; sample i is a pure function of (seed, i), from a counter-based generator (Philox).

    Args:
        shape: of one sample's latent.
        seed: of all samples.
    """

    shape: tuple[int, ...]
    seed: int = 0
    kind: ClassVar[str]

    def __call__(self, indices: Sequence[int]) -> Tensor:
        rows = [self.row(np.random.Generator(np.random.Philox(key=[self.seed, index]))) for index in indices]
        return torch.from_numpy(np.stack(rows))

    def row(self, random: np.random.Generator) -> NDArray[np.float32]:
        """One sample's latent."""
        raise NotImplementedError

    def numbers(self) -> tuple[float, ...]:
        """What decides the distribution beside its kind, where it is not the usual; as it is written behind a comma."""
        return ()

    def seeded(self, seed: int) -> Self:
        return replace(self, seed=seed)

    def shaped(self, shape: tuple[int, ...]) -> Self:
        """The same distribution for a latent of another shape."""
        return replace(self, shape=shape)

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}" + "".join(
            f",{number!r}".removesuffix(".0") for number in self.numbers()
        )


class NormalLatents(DrawnLatents):
    """Independent N(0, 1) numbers."""

    kind = "normal"

    def row(self, random: np.random.Generator) -> NDArray[np.float32]:
        return random.standard_normal(self.shape, np.float32)


@dataclass(frozen=True)
class UniformLatents(DrawnLatents):
    """Independent numbers, all in [low, high) equally likely."""

    low: float = field(default=-1.0, kw_only=True)
    high: float = field(default=1.0, kw_only=True)
    kind = "uniform"

    def row(self, random: np.random.Generator) -> NDArray[np.float32]:
        return random.uniform(self.low, self.high, self.shape).astype(np.float32)

    def numbers(self) -> tuple[float, ...]:
        return () if (self.low, self.high) == (-1, 1) else (self.low, self.high)


@dataclass(frozen=True)
class SphereLatents(DrawnLatents):
    """All directions equally likely, at one distance from 0: N(0, 1) numbers divided by their norm, times radius."""

    radius: float = field(default=1.0, kw_only=True)
    kind = "sphere"

    def row(self, random: np.random.Generator) -> NDArray[np.float32]:
        drawn = random.standard_normal(self.shape, np.float32)
        return np.asarray(drawn * np.float32(self.radius / np.linalg.norm(drawn)), np.float32)

    def numbers(self) -> tuple[float, ...]:
        return () if self.radius == 1 else (self.radius,)


@dataclass(frozen=True)
class BernoulliLatents(DrawnLatents):
    """Independent numbers, 1 with the probability `share`, else 0."""

    share: float = field(default=0.5, kw_only=True)
    kind = "bernoulli"

    def row(self, random: np.random.Generator) -> NDArray[np.float32]:
        return (random.random(self.shape) < self.share).astype(np.float32)

    def numbers(self) -> tuple[float, ...]:
        return () if self.share == 0.5 else (self.share,)


def parse_latents(text: str) -> DrawnLatents:
    """`normal:512`, `normal:512x1x1`, `uniform:100` or `uniform:100,0,1`, `sphere:512` or `sphere:512,22.6`,
    `bernoulli:100` or `bernoulli:100,0.3`.

    >>> parse_latents("normal:512x1x1")
    NormalLatents(shape=(512, 1, 1), seed=0)
    >>> str(parse_latents("uniform:100, 0, 1"))
    'uniform:100,0,1'

    Raises:
        UsageError: anything else.
    """
    decimal = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
    parsed = re.fullmatch(rf"(\w+):([1-9]\d*(?:x[1-9]\d*)*)((?:,{decimal})*)", text.replace(" ", ""))
    if parsed:
        shape = tuple(int(size) for size in parsed[2].split("x"))
        match parsed[1], [float(text) for text in parsed[3].split(",")[1:]]:
            case "normal", []:
                return NormalLatents(shape)
            case "uniform", []:
                return UniformLatents(shape)
            case "uniform", [low, high] if low < high:
                return UniformLatents(shape, low=low, high=high)
            case "sphere", []:
                return SphereLatents(shape)
            case "sphere", [radius] if radius > 0:
                return SphereLatents(shape, radius=radius)
            case "bernoulli", []:
                return BernoulliLatents(shape)
            case "bernoulli", [share] if 0 < share < 1:
                return BernoulliLatents(shape, share=share)
    raise UsageError(
        f"--latent {text!r} is not understood; write {KINDS}, or a shape such as normal:512x1x1 for a map."
    )
