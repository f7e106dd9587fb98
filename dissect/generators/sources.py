"""Latents that are not plain normal numbers: with a class, or images of a folder, or what an encoder makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import ndtr, ndtri
from torch import Tensor

from ...hooks.errors import DissectError, UsageError, one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
CUT = 2.0  # standard deviations beyond which truncated latents do not go (Brock et al. 2019, section 3.1)


@dataclass(frozen=True)
class ClassLatents:
    """(N, size + classes): N(0, 1) numbers and, behind them, a class as one-hot.

    Args:
        size: of the latent.
        classes: how many there are.
        label: the class of every sample; None draws each class as often.
        truncation: ψ of the truncated normal (Brock et al. 2019): numbers within ±2, times ψ. None does not truncate.
        seed: of latents and classes.
    """

    size: int
    classes: int
    label: int | None = None
    truncation: float | None = None
    seed: int = 0

    def __call__(self, indices: Sequence[int]) -> Tensor:
        found = np.zeros((len(indices), self.size + self.classes), np.float32)
        for row, index in zip(found, indices, strict=True):
            random = np.random.Generator(np.random.Philox(key=[self.seed, index]))
            row[: self.size] = self._numbers(random)
            drawn = int(random.integers(self.classes)) if self.label is None else self.label
            row[self.size + drawn] = 1
        return torch.from_numpy(found)

    def _numbers(self, random: np.random.Generator) -> NDArray[np.floating]:
        if self.truncation is None:
            return random.standard_normal(self.size, np.float32)
        share = random.uniform(ndtr(-CUT), ndtr(CUT), self.size)
        return self.truncation * np.asarray(ndtri(share))

    def seeded(self, seed: int) -> ClassLatents:
        return replace(self, seed=seed)

    def __str__(self) -> str:
        label = "all" if self.label is None else self.label
        cut = "" if self.truncation is None else f" truncated at {self.truncation:g}"
        return f"normal:{self.size}{cut} and class {label} of {self.classes}"


@dataclass(frozen=True)
class FolderImages:
    """Images of a folder as latents: (N, channels, H, W) float32 in `value_range`, in an order drawn by the seed.

    H and W are the least height and width among the images, cut at the centre, and rounded down to a multiple; nothing
    is resized.

    Args:
        folder: searched with the folders inside it.
        channels: 3, or 1 for grey.
        value_range: what black and white become.
        multiple: of this H and W are made.
        seed: of the order.

    Raises:
        UsageError: on use: no folder, no image, or a sample beyond the last image.
        DissectError: on use: an image that cannot be read.
    """

    folder: str
    channels: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    multiple: int = 1
    seed: int = 0

    @cached_property
    def files(self) -> list[Path]:
        """In the order of the samples."""
        if not Path(self.folder).is_dir():
            raise UsageError(f"--inputs {self.folder} is no folder; give one with images ({', '.join(SUFFIXES)}).")
        found = sorted(path for path in Path(self.folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise UsageError(f"--inputs {self.folder} holds no images ({', '.join(SUFFIXES)}).")
        return [found[i] for i in np.random.Generator(np.random.Philox(key=[self.seed, 0])).permutation(len(found))]

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        sizes = []
        for file in self.files:
            with _opened(file) as image:
                sizes.append((image.height, image.width))
        height, width = (side // self.multiple * self.multiple for side in np.min(sizes, axis=0).tolist())
        if not height or not width:
            raise UsageError(f"--inputs {self.folder}: an image has less than {self.multiple} pixels a side.")
        return height, width

    def __call__(self, indices: Sequence[int]) -> Tensor:
        if max(indices) >= len(self.files):
            raise UsageError(
                f"--inputs {self.folder} holds {len(self.files)} images, and sample {max(indices)} was asked for "
                "(they count from 0); take fewer --samples, or more images. Interventions and repairs need images "
                "that the run has not seen."
            )
        low, high = self.value_range
        images = torch.stack([self._read(self.files[index]) for index in indices])
        return images * ((high - low) / 255) + low

    def _read(self, file: Path) -> Tensor:
        height, width = self.size
        with _opened(file) as image:
            top, left = (image.height - height) // 2, (image.width - width) // 2
            try:
                cut = image.convert("L" if self.channels == 1 else "RGB").crop((left, top, left + width, top + height))
            except (OSError, ValueError) as error:
                raise DissectError(f"{file} cannot be read ({one_line(error)}); mend or remove it.") from error
        pixels = np.array(cut, np.float32)
        return torch.from_numpy(pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1))

    def seeded(self, seed: int) -> FolderImages:
        return replace(self, seed=seed)

    def __str__(self) -> str:
        return f"{len(self.files)} images of {Path(self.folder).resolve()}, {self.size[0]}×{self.size[1]}"


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of images: latents (N, …) float32 on the CPU."""

    images: FolderImages
    encode: Callable[[Tensor], Tensor] = field(repr=False)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return self.encode(self.images(indices)).float().cpu()

    def seeded(self, seed: int) -> Encoded:
        return replace(self, images=self.images.seeded(seed))

    def __str__(self) -> str:
        return f"encoded: {self.images}"


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, ValueError) as error:  # Pillow raises either
        raise DissectError(f"{file} cannot be read ({one_line(error)}); mend or remove it.") from error
