"""A generator as the rest of the program sees it: latents in, images in [0, 1] out, and where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError, running
from .spec import ModelSpec


class LatentSource(Protocol):
    """Latents as a pure function of the sample's index, so that sample i never depends on batch, shard or device."""

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """(N, …) float32 on the CPU."""
        ...

    def seeded(self, seed: int) -> LatentSource:
        """The same source under another seed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a generator's weights came from. What is not known is None."""

    file: str | None = None
    entry: str | None = None  # of the file, where it holds more than the network
    url: str | None = None
    sha256: str | None = None
    licence: str | None = None
    citation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator to dissect.

    Args:
        module: latents -> images (N, 3 or 1, H, W), values in `output_range`. It is put into eval mode.
        name: how the generator is called in tables and folders.
        source: the latents.
        layers: names of the layers worth dissecting, in order: `--layer 4` is the fourth. Empty: every innermost
            module whose output is a featuremap, found by running the module once.
        output_range: what is black and what is white in the module's output.
        provenance: where the weights came from.
        spec: how to open it again; None for one made in Python.
        recognised: the architecture that its weights were found to belong to, and why.

    Raises:
        UsageError: an output range that is none.
    """

    module: nn.Module
    name: str
    source: LatentSource
    layers: tuple[str, ...] = ()
    output_range: tuple[float, float] = (-1.0, 1.0)
    provenance: Provenance = field(default_factory=Provenance)
    spec: ModelSpec | None = None
    recognised: str | None = None

    def __post_init__(self) -> None:
        low, high = self.output_range
        if not low < high:
            raise UsageError(f"output_range {self.output_range}: black must be less than white, e.g. (-1, 1).")
        self.module.eval()

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def latents(self, indices: Sequence[int]) -> Tensor:
        """The latents of these samples, on the generator's device."""
        latents = self.source(indices)
        if self.device.type == "cuda":
            return latents.pin_memory().to(self.device, non_blocking=True)  # else each batch waits for the one before
        return latents.to(self.device)

    def __call__(self, latents: Tensor) -> Tensor:
        """latents -> images (N, 3, H, W) float32 in [0, 1]; a one-channel output is shown as grey.

        Raises:
            DissectError: the module failed, or returned something else than images.
        """
        return self.to_images(self.output(latents))

    def output(self, latents: Tensor) -> Tensor:
        """latents -> what the module returns, in `output_range`.

        Raises:
            DissectError: it failed.
        """
        with running(f"The generator {self.name} failed"):
            output: Tensor = self.module(latents)
        return output

    def to_images(self, out: object) -> Tensor:
        """What the module returned -> images (N, 3, H, W) float32 in [0, 1].

        Raises:
            DissectError: it is something else than images.
        """
        if not isinstance(out, Tensor) or out.ndim != 4 or out.shape[1] not in (1, 3):
            returned = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise DissectError(
                f"The generator {self.name} returned {returned}; it must return images (N, 3, H, W) or (N, 1, H, W). "
                "Wrap it in a module that does."
            )
        low, high = self.output_range
        scaled = (out.float() - low) / (high - low)
        images = scaled.clamp(0, 1) + 0 * scaled  # 0 · ∞ is NaN: what is infinite must not pass for white
        if images.requires_grad:  # clamp has no gradient at its bounds, yet what is just black or white can change
            images = torch.where((scaled >= 0) & (scaled <= 1), scaled, images)
        return images.expand(-1, 3, -1, -1)

    def check_finite(self, images: Tensor, samples: Sequence[int], when: str = "") -> None:
        """Raise DissectError where images (N, 3, H, W) of these samples have pixels that are not finite.

        Args:
            when: what the message says behind, such as "after the change; take other units".
        """
        self.raise_unless_finite(finite(images), samples, when)

    def raise_unless_finite(self, fine: Tensor, samples: Sequence[int], when: str = "") -> None:
        """The same for whether each sample is finite (N,), or (N · k,) where every sample was drawn k times."""
        if bool(fine.all()):
            return
        bad = sorted({samples[row % len(samples)] for row in (~fine).nonzero().flatten().tolist()})
        raise DissectError(
            f"The generator {self.name} drew pixels that are not finite (NaN) in {len(bad)} of the samples "
            f"{samples[0]} to {samples[-1]}, first {bad[0]}{', ' + when if when else '; check its weights'}."
        )


def finite(images: Tensor) -> Tensor:
    """images (N, …) -> (N,) bool, whether all values of each are finite."""
    return images.isfinite().flatten(1).all(1)
