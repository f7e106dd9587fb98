"""Latents: paths between them, sums of them, directions in their space, and how much images change along them.

from ganatomy.dissect import latents

latents.walk(generator.latents(range(4)), 30, closed=True, how="spherical")  # (120, …), a film that loops
latents.arithmetic(latents.parse_arithmetic("3,4,5 - 7,8 + 9"), generator.latents)
latents.principal(w, 20).vectors  # GANSpace, (20, D)
latents.closed_form([affine.weight], 20).vectors  # SeFa, (20, D)
latents.path_length(generator, starts, ends, similarity=latents.open_lpips())
"""

from __future__ import annotations

from .directions import Directions, Moments, Regression, closed_form, principal, regressed
from .path_length import PathLength, Similarity, open_lpips, path_length, trimmed
from .paths import arithmetic, lerp, mixing_table, parse_arithmetic, slerp, sweep, walk

__all__ = [
    "Directions",
    "Moments",
    "PathLength",
    "Regression",
    "Similarity",
    "arithmetic",
    "closed_form",
    "lerp",
    "mixing_table",
    "open_lpips",
    "parse_arithmetic",
    "path_length",
    "principal",
    "regressed",
    "slerp",
    "sweep",
    "trimmed",
    "walk",
]
