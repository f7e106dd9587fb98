"""What the StyleGANs share: latents become styles, one for each layer, and layers add noise."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from .architecture import Architecture

MEAN_OF = 4096  # latents over which the mean style is taken where the file does not have it
NOISES = ("fixed", "drawn")


class StyleBased(Architecture):
    """latents -> styles (N, levels, W) -> images.

    Attributes:
        truncation: ψ; styles are mean + ψ (style − mean) (Karras et al. 2019, appendix B). 1 leaves them as they are.
        noise: `fixed`: every sample gets the same noise; `drawn`: each its own, a function of its latent, so that
            equal latents have equal noise.
        style_count: how many styles there are, L.
    """

    truncation: float = 1.0
    noise: str = "fixed"
    style_count: int

    def settings(self) -> dict[str, object]:
        return {"truncation": self.truncation, "noise": self.noise}

    def mapped(self, latents: Tensor) -> Tensor:
        """latents (N, …) -> (N, W): the mapping network's output, one for all layers, not truncated."""
        raise NotImplementedError

    def mean_style(self) -> Tensor:
        """(W,): the mean of the mapping network's output."""
        raise NotImplementedError

    def renew_mean(self) -> None:
        """Take the mean style anew, over 4,096 latents, of all classes alike."""
        raise NotImplementedError

    def draw(self, styles: Tensor, latents: Tensor | None = None) -> Tensor:
        """styles (N, L, W) -> images; drawn noise is that of the latents, without which noise is fixed."""
        raise NotImplementedError

    def styles(self, latents: Tensor) -> Tensor:
        """latents (N, …) -> (N, L, W), truncated."""
        return self.truncated(self.mapped(latents))[:, None].expand(-1, self.style_count, -1)

    def truncated(self, styles: Tensor) -> Tensor:
        """styles (…, W) pulled to their mean."""
        return styles if self.truncation == 1 else torch.lerp(self.mean_style(), styles, self.truncation)

    def forward(self, latents: Tensor) -> Tensor:
        return self.draw(self.styles(latents), latents)


def drawn_noise(latents: Tensor, layer: int, size: tuple[int, int]) -> Tensor:
    """(N, 1, height, width) N(0, 1): a pure function of each sample's latent, whatever its batch.

    Styles would not do as keys: their last bits depend on the size of the batch.
    """
    rows = latents.detach().flatten(1).float().cpu().contiguous().numpy()
    keys = [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows]
    return _noise(keys, layer, size).to(latents)


def fixed_noise(layer: int, size: tuple[int, int]) -> Tensor:
    """(1, 1, height, width) N(0, 1): the noise of a layer whose file has none."""
    return _noise([0], layer, size)


def _noise(keys: list[int], layer: int, size: tuple[int, int]) -> Tensor:
    maps = [
        np.random.Generator(np.random.Philox(key=[key, layer])).standard_normal((1, *size), np.float32) for key in keys
    ]
    return torch.from_numpy(np.stack(maps))


def probes(size: int, classes: int = 0) -> Tensor:
    """(MEAN_OF, size + classes) N(0, 1) and then classes in turn, always the same: over these the mean is taken."""
    latents = torch.randn(MEAN_OF, size, generator=torch.Generator().manual_seed(0))
    return torch.cat([latents, torch.eye(classes)[torch.arange(MEAN_OF) % classes]], 1) if classes else latents
