"""Latents that are not plain normal numbers: with a class, or images of a folder, or what an encoder makes of them."""

from __future__ import annotations

import hashlib
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

from ...hooks.errors import DissectError, UsageError, one_line
from ..folders import IMAGES, images_in

RESULTS = ("run.json", "checkup.json", "seams.json", "latents.json")  # what our own folders hold
ORIENTATION = 0x0112  # tag of EXIF
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
    is resized. Transparent pixels are white. Folders inside are searched too, but hidden ones and results of ganatomy.

    Args:
        folder: where the images are.
        channels: 3, or 1 for grey.
        value_range: what black and white become.
        multiple: of this H and W are made.
        least: H and W must be so large.
        seed: of the order. It is a function of seed and name alone: other images coming or going leave it as it is.

    Raises:
        UsageError: on use: no folder, no image, one too small, or a sample beyond the last image.
        DissectError: on use: an image that cannot be read, or has more than eight bits.
    """

    folder: str
    channels: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    multiple: int = 1
    least: int = 1
    seed: int = 0

    @cached_property
    def files(self) -> list[Path]:
        """In the order of the samples."""
        root = Path(self.folder)
        found = [path for path in images_in(root, "--inputs") if not _result(path, root)]
        if not found:
            raise UsageError(f"--inputs {self.folder} holds no images ({', '.join(IMAGES)}).")

        def order(path: Path) -> bytes:
            name = path.relative_to(root).as_posix()
            return hashlib.blake2b(f"{self.seed} {name}".encode(errors="surrogateescape")).digest()

        return sorted(found, key=order)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        sizes = []
        for file in self.files:
            with _opened(file) as image:
                turned = image.getexif().get(ORIENTATION, 1) >= 5  # on its side
                sizes.append((image.width, image.height) if turned else (image.height, image.width))
        height, width = (side // self.multiple * self.multiple for side in np.min(sizes, axis=0).tolist())
        if min(height, width) < max(self.least, self.multiple):
            raise UsageError(
                f"--inputs {self.folder}: an image is smaller than {max(self.least, self.multiple)} pixels a side, "
                "which the network needs; take it out."
            )
        return height, width

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
            if image.mode[0] in "IF":
                raise DissectError(f"{file} has more than eight bits a pixel ({image.mode}); convert it to eight.")
            try:
                upright = ImageOps.exif_transpose(image)
                if upright.has_transparency_data:
                    upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
                upright = upright.convert("L" if self.channels == 1 else "RGB")
            except (OSError, ValueError) as error:
                raise DissectError(f"{file} cannot be read ({one_line(error)}); mend or remove it.") from error
        top, left = (upright.height - height) // 2, (upright.width - width) // 2
        pixels = np.array(upright.crop((left, top, left + width, top + height)), np.float32)
        return torch.from_numpy(pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1).copy())

    def seeded(self, seed: int) -> FolderImages:
        return replace(self, seed=seed)

    def __str__(self) -> str:
        return f"{len(self.files)} images, {self.size[0]}×{self.size[1]}, sha256 {self.sha256[:16]}"


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


def _result(path: Path, root: Path) -> bool:
    """Whether an image lies in a hidden folder or in a result of ours, below the root."""
    above = path.relative_to(root).parents
    return any(part.name.startswith(".") or any((root / part / name).is_file() for name in RESULTS) for part in above)


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises any of them
        raise DissectError(f"{file} cannot be read ({one_line(error)}); mend or remove it.") from error
