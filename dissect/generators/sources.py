"""Latents with a class, images of a folder as latents, and what an encoder makes of such images."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.special import ndtr, ndtri
from torch import Tensor

from ...hooks.errors import DissectWarning, UsageError
from ..images.reader import FALLEN, image_size, list_images, read_image
from .latents import DrawnLatents

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
        law: of the latents, if they are not normal.
    """

    size: int
    classes: int
    label: int | None = None
    truncation: float | None = None
    seed: int = 0
    law: DrawnLatents | None = None

    def __call__(self, indices: Sequence[int]) -> Tensor:
        latents = np.zeros((len(indices), self.size + self.classes), np.float32)
        for row, index in zip(latents, indices, strict=True):
            random = np.random.Generator(np.random.Philox(key=[self.seed, index]))
            row[: self.size] = self._numbers(random)
            label = int(random.integers(self.classes)) if self.label is None else self.label
            row[self.size + label] = 1
        return torch.from_numpy(latents)

    def _numbers(self, random: np.random.Generator) -> NDArray[np.floating]:
        if self.law is not None:
            return self.law.row(random)
        if self.truncation is None:
            return random.standard_normal(self.size, np.float32)
        share = random.uniform(ndtr(-CUT), ndtr(CUT), self.size)
        return self.truncation * np.asarray(ndtri(share))

    def seeded(self, seed: int) -> ClassLatents:
        return replace(self, seed=seed)

    def __str__(self) -> str:
        label = "all" if self.label is None else self.label
        cut = "" if self.truncation is None else f" truncated at {self.truncation:g}"
        return f"{self.law or f'normal:{self.size}'}{cut} and class {label} of {self.classes}"


@dataclass(frozen=True)
class FolderImages:
    """Images of a folder as latents: (N, channels, H, W) float32 in `value_range`, in an order drawn by the seed.

    H and W are the least height and width among the images, cut at the centre, and rounded down to a multiple; with
    `resize`, both are that. Files are listed and read as `images.reader` says.

    Args:
        folder: where the images are.
        channels: 3, or 1 for grey.
        value_range: what black and white become.
        multiple: H and W are multiples of it.
        least: H and W must be at least this.
        seed: of the order. It is a function of seed and name alone: other images coming or going leave it as it is.
        crop: cut off as much as is needed; otherwise at most a tenth of the pixels.
        resize: scale the shorter side to this length, and cut a square out of the middle.

    Raises:
        UsageError: on use: no folder, no image, one too small, too much to cut off, or a sample beyond the last image.
        DissectError: on use: an image that cannot be read.
    """

    folder: str
    channels: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    multiple: int = 1
    least: int = 1
    seed: int = 0
    crop: bool = False
    resize: int | None = None

    @cached_property
    def files(self) -> list[Path]:
        """In the order of the samples."""
        root = Path(self.folder)
        listing = list_images(root, "--inputs")
        if listing.said:
            warnings.warn(f"--inputs {listing.said}.", DissectWarning, stacklevel=2)

        def order(path: Path) -> bytes:
            name = path.relative_to(root).as_posix()
            return hashlib.blake2b(f"{self.seed} {name}".encode(errors="surrogateescape")).digest()

        return sorted(listing.files, key=order)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        if self.resize is not None:
            self._check_size(self.resize, self.resize, f"--resize {self.resize}")
            return self.resize, self.resize
        sizes = np.array([image_size(file) for file in self.files])
        height, width = (side // self.multiple * self.multiple for side in sizes.min(0).tolist())
        smallest = self.files[int(sizes.prod(1).argmin())]
        small = sizes[int(sizes.prod(1).argmin())]
        self._check_size(height, width, f"{smallest} has {small[0]}×{small[1]}; remove it, or give --resize SIDE")
        lost = 1 - height * width / float(sizes.prod(1).mean())
        cut = f"--inputs {self.folder}: images are cut to {height}×{width} pixels"
        why = f"because of {smallest}" if (sizes != sizes[0]).any() else f"since sides are multiples of {self.multiple}"
        if lost > FALLEN and not self.crop:
            raise UsageError(
                f"{cut} {why}, which removes {lost:.0%} of all pixels; give --crop to allow that, --resize SIDE for "
                "squares of another size, or remove that file."
            )
        if lost > 0:
            warnings.warn(f"{cut} {why} ({lost:.1%} of all pixels are lost).", DissectWarning, stacklevel=2)
        return height, width

    def _check_size(self, height: int, width: int, reason: str) -> None:
        least = max(self.least, self.multiple)
        if min(height, width) < least or height % self.multiple or width % self.multiple:
            raise UsageError(
                f"--inputs {self.folder}: the network needs at least {least} pixels a side"
                + (f", a multiple of {self.multiple}" if self.multiple > 1 else "")
                + f"; {reason}."
            )

    @cached_property
    def sha256(self) -> str:
        """Of all names and contents."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.relative_to(self.folder)}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def __call__(self, indices: Sequence[int]) -> Tensor:
        if max(indices) >= len(self.files):
            raise UsageError(
                f"--inputs {self.folder} holds {len(self.files)} images, and there is no sample {max(indices)} "
                "(they count from 0); take fewer --samples, or more images. Interventions and repairs need images "
                "that the run has not used."
            )
        low, high = self.value_range
        images = torch.stack([self._read(self.files[index]) for index in indices])
        return images * ((high - low) / 255) + low

    def _read(self, file: Path) -> Tensor:
        height, width = self.size
        pixels = read_image(file, "L" if self.channels == 1 else "RGB")
        if self.resize is not None:
            image = Image.fromarray(pixels)
            pixels = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        cut = pixels[top : top + height, left : left + width].astype(np.float32)
        return torch.from_numpy(cut[None] if self.channels == 1 else cut.transpose(2, 0, 1).copy())

    def seeded(self, seed: int) -> FolderImages:
        return replace(self, seed=seed)

    def __str__(self) -> str:
        resized = f" (resized to {self.resize})" if self.resize else ""
        return f"{len(self.files)} images, {self.size[0]}×{self.size[1]}{resized}, sha256 {self.sha256[:16]}"


@dataclass(frozen=True)
class Labelled:
    """Latents of a network that gets one class for all samples, so that another class is another source."""

    latents: DrawnLatents
    label: int

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return self.latents(indices)

    @property
    def seed(self) -> int:
        return self.latents.seed

    def seeded(self, seed: int) -> Labelled:
        return replace(self, latents=self.latents.seeded(seed))

    def __str__(self) -> str:
        return f"{self.latents} and class {self.label}"


@dataclass(frozen=True)
class NoiseImages:
    """Uniform noise in the place of images that are not given, (N, channels, side, side), to see a network's shapes."""

    channels: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    side: int = 256
    seed: int = 0

    def __call__(self, indices: Sequence[int]) -> Tensor:
        shape = (self.channels, self.side, self.side)
        drawn = [np.random.Generator(np.random.Philox(key=[self.seed, index])).random(shape) for index in indices]
        low, high = self.value_range
        return torch.from_numpy(np.stack(drawn)).float() * (high - low) + low

    def seeded(self, seed: int) -> NoiseImages:
        return replace(self, seed=seed)

    def __str__(self) -> str:
        kind = "grey images" if self.channels == 1 else "images"
        low, high = self.value_range
        return f"{kind} in [{low:g}, {high:g}], by --inputs FOLDER (shapes below: of {self.side}×{self.side})"


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of images: latents (N, …) float32 on the CPU."""

    images: FolderImages
    encode: Callable[[Tensor], Tensor] = field(repr=False)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return torch.cat([self.encode(self.images([index])).float().cpu() for index in indices])  # whatever the batch

    @property
    def seed(self) -> int:
        return self.images.seed

    def seeded(self, seed: int) -> Encoded:
        return replace(self, images=self.images.seeded(seed))

    def __str__(self) -> str:
        return f"encoded: {self.images}"
