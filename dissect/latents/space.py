"""The space in which latents are moved: z, the inputs of a generator, or w, the styles of a StyleGAN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...hooks.errors import DissectError, UsageError
from ..generators.base import Generator
from ..generators.families.style_based import StyleBased
from ..generators.sources import ClassLatents, FolderImages

SPACES = ("z", "w")
SPREAD_OF = 1000  # samples from which the spread along a direction is computed


@dataclass(frozen=True, kw_only=True)
class Space:
    """Points, one for each sample, and the images that the generator draws from them.

    Points are (N, D). In z they are flattened latents, of which the last `fixed` entries, a one-hot class, are never
    moved; in w they are styles (N, W), the same for all layers, or (N, L, W).

    Attributes:
        name: z or w.
        generator: draws the images.
        shape: of one latent.
        fixed: how many entries of a point are never moved.
        batch: images that are drawn at once.
    """

    name: str
    generator: Generator
    shape: tuple[int, ...]
    fixed: int
    batch: int

    @property
    def width(self) -> int:
        """How many entries of a point can be moved."""
        return math.prod(self.shape) - self.fixed if self.name == "z" else self.style_based.mean_style().numel()

    def points(self, samples: Sequence[int]) -> Tensor:
        """The points (N, D) of samples."""
        latents = self.generator.latents(samples)
        if self.name == "z":
            return latents.flatten(1)
        return self.style_based.truncated(self.style_based.mapped(latents))

    def images(self, points: Tensor) -> Tensor:
        """points (N, D), or (N, L, W) of w -> images (N, 3, H, W) in [0, 1], on the CPU.

        Raises:
            DissectError: pixels that are not finite.
        """
        images = torch.cat([self._draw(batch).cpu() for batch in points.split(self.batch)])
        if not bool(images.isfinite().all()):
            raise DissectError(f"{self.generator.name} drew pixels that are not finite; move its latents less far.")
        return images

    def moved(self, points: Tensor, direction: Tensor, step: float) -> Tensor:
        """points (N, D) and a direction (D − fixed,) -> the points (N, D), moved by `step` times the direction."""
        moved = points.clone()
        moved[:, : points.shape[1] - self.fixed] += step * direction.to(points)
        return moved

    def _draw(self, points: Tensor) -> Tensor:
        if self.name == "z":
            return self.generator(points.view(len(points), *self.shape))
        count = self.style_based.style_count
        styles = points if points.ndim == 3 else points[:, None].expand(-1, count, -1)
        return self.generator.to_images(self.style_based.draw(styles))

    @property
    def style_based(self) -> StyleBased:
        assert isinstance(self.generator.module, StyleBased)
        return self.generator.module


def open_space(generator: Generator, name: str | None, batch: int) -> Space:
    """The space of that name; without a name, w for a StyleGAN and z for any other generator.

    Raises:
        UsageError: the generator has no such space, or takes images instead of latents.
    """
    styled = isinstance(generator.module, StyleBased)
    if isinstance(generator.module, StyleBased) and generator.module.noise != "fixed":
        raise UsageError(
            "--noise: latents are moved under fixed noise, so that nothing else changes; leave --noise out."
        )
    name = name or ("w" if styled else "z")
    if name not in SPACES or (name == "w" and not styled):
        raise UsageError(f"--space {name!r}: must be {'z or w' if styled else 'z'} for {generator.name}.")
    if isinstance(generator.source, FolderImages):
        raise UsageError(f"{generator.name} takes images; only latents can be moved.")
    classes = generator.source.classes if isinstance(generator.source, ClassLatents) else 0
    fixed = classes if name == "z" else 0
    return Space(
        name=name, generator=generator, shape=tuple(generator.latents([0]).shape[1:]), fixed=fixed, batch=batch
    )


def spread(space: Space, directions: Tensor) -> Tensor:
    """directions (K, D) of unit length -> (K,): the standard deviation of 1,000 samples' points along each."""
    coordinates = []
    for start in range(0, SPREAD_OF, 100):
        points = space.points(range(start, start + 100))
        coordinates.append(points[:, : points.shape[1] - space.fixed].cpu() @ directions.T)
    return torch.cat(coordinates).std(0)
