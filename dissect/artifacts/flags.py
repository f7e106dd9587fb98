"""What a user marked as bad: numbers of samples in a text file, or painted masks in a folder."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import DissectError, DissectWarning, UsageError, one_line
from ..images.reader import list_images, read_paint

MANY = 8  # different values in a mask, at most; a JPEG of two colours has more


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What a user marked. marked (N,) bool; regions (N, H, W) bool where masks were painted, else None."""

    marked: NDArray[np.bool_]
    regions: NDArray[np.bool_] | None = None


def read_flags(path: str | Path, samples: int, size: tuple[int, int]) -> Flags:
    """The flags in a text file of sample numbers, or in a folder of masks called by them (12.png, sample-0012.png).

    Args:
        samples: how many there are; numbers run from 0.
        size: height and width of the images, and so of the masks. Any colour but black, if not transparent, is bad.

    Raises:
        UsageError: there is nothing there; a number out of range; a mask of another size; all samples marked, or none.
        DissectError: a file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _masks(path, samples, size)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"--flags {path} does not exist; give a text file of sample numbers, or a folder.") from None
    except (OSError, ValueError) as error:
        raise DissectError(f"--flags {path} cannot be read ({one_line(error)}); give a text file.") from error
    words = re.sub(r"#.*", "", text).replace(",", " ").split()
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise UsageError(f"--flags {path}: {wrong!r} is not a sample number; write integers, one a line.")
    marked = np.zeros(samples, bool)
    marked[[_in_range(int(word), samples, path) for word in words]] = True
    _check_some(marked, path)
    return Flags(marked=marked)


def _masks(folder: Path, samples: int, size: tuple[int, int]) -> Flags:
    regions = np.zeros((samples, *size), bool)
    listing = list_images(folder, "--flags")
    for file, why in listing.left_out.items():
        raise DissectError(f"The mask {file} cannot be read ({why}); paint it again.")
    for file in listing.files:
        digits = re.search(r"(\d+)\D*$", file.stem)
        if digits is None:
            raise UsageError(f"{file} has no sample number in its name; call it by its sample, e.g. 12.png.")
        sample = _in_range(int(digits[1]), samples, file)
        painted, values = read_paint(file)
        if values > MANY:
            warnings.warn(
                f"The mask {file} has {values} different values, and all but black count as painted "
                f"({painted.mean():.1%} of it); save it as a PNG of two colours if that is too much.",
                DissectWarning,
                stacklevel=2,
            )
        if painted.shape != size:
            raise UsageError(
                f"The mask {file} is {painted.shape[1]}×{painted.shape[0]}; the images are {size[1]}×{size[0]}, and "
                "masks must be as large."
            )
        regions[sample] |= painted
    marked = np.asarray(regions.any((1, 2)))
    _check_some(marked, folder)
    return Flags(marked=marked, regions=regions)


def _in_range(sample: int, samples: int, path: Path) -> int:
    if not 0 <= sample < samples:
        raise UsageError(f"{path} names sample {sample}; the run has samples 0 to {samples - 1}.")
    return sample


def _check_some(marked: NDArray[np.bool_], path: Path) -> None:
    if not marked.any() or marked.all():
        raise UsageError(
            f"--flags {path} marks {'all' if marked.any() else 'none'} of the {len(marked)} samples; mark some."
        )
