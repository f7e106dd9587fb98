"""Images in files, read in one way wherever a user gives some: as inputs, as a reference, as masks.

An image is upright (EXIF's orientation), on white where it is transparent, in RGB or grey, eight bits a channel. Of an
animated file it is the first frame. Images of 16 bits are scaled by 1/257, floats in [0, 1] by 255; other ranges are
refused, since the file does not say what is white.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ...hooks.errors import DissectError, UsageError, one_line

Pixels = NDArray[np.uint8]

NO_PICTURES = ("BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PCD", "WMF")  # though Pillow knows them
PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".avif": "pillow-avif-plugin"}
RESULTS = ("run.json", "checkup.json", "seams.json", "latents.json", "diversity.json", "fitness.json", "watch.json")
NAMED = 3  # files of a list that a message names
WHITE = 65535  # of 16 bits
FALLEN = 1 / 10  # share of the pixels that may be cut off without --crop


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images in a folder.

    files: those that can be read, by name. left_out: the others, and why. copies: how many of the files have the bytes
    of another one.
    """

    folder: Path
    files: tuple[Path, ...]
    left_out: dict[Path, str]
    copies: int

    @property
    def said(self) -> str:
        """Files left out and duplicates, in words; empty if there are none."""
        parts = []
        if self.left_out:
            listed = len(self.files) + len(self.left_out)
            parts.append(f"{len(self.files)} of {listed} files are read; left out: {self._reasons()}")
        if self.copies:
            parts.append(f"{self.copies} of {len(self.files)} images are copies of others")
        return f"{self.folder}: {'; '.join(parts)}" if parts else ""

    def _reasons(self) -> str:
        parts = []
        for why, count in Counter(self.left_out.values()).most_common():
            names = [path.name for path, reason in self.left_out.items() if reason == why]
            more = ", …" if count > NAMED else ""
            parts.append(f"{', '.join(names[:NAMED])}{more} ({why}{f'; {count} files' if count > 1 else ''})")
        return "; ".join(parts)


def list_images(folder: Path, option: str) -> Listing:
    """The images in a folder and in those inside it.

    Links are followed. Hidden files and folders (macOS writes some beside each file) and results of ganatomy are passed
    over. Files that are damaged, cut short, or of a kind that Pillow cannot open here are left out.

    Args:
        option: of the command line, for messages.

    Raises:
        UsageError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise UsageError(f"{option} {folder} {what}; give a folder with images ({', '.join(_usual())}).")
    paths = sorted(
        path for path in _walk(folder) if path.suffix.lower() in _endings() or path.suffix.lower() in PLUGINS
    )
    left_out = {path: why for path in paths if (why := _trouble(path))}
    fine = [path for path in paths if path not in left_out]
    listing = Listing(folder=folder, files=tuple(fine), left_out=left_out, copies=_copies(fine))
    if not listing.files:
        left = f" Left out: {listing._reasons()}." if left_out else ""
        raise UsageError(f"{option} {folder} holds no images ({', '.join(_usual())}).{left}")
    return listing


def read_image(path: Path, mode: str = "RGB") -> Pixels:
    """An image as (H, W, 3) uint8, or with the mode `L` as (H, W).

    Raises:
        DissectError: it is damaged, or its range of values is not known.
    """
    with _opened(path) as image:
        return np.array(_upright(image, path).convert(mode), np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as it will be read; only its header is, but of a TIFF.

    Raises:
        DissectError: it cannot be opened.
    """
    with _opened(path) as image:
        if image.format == "TIFF":  # Pillow turns it while loading, and its size before that depends on the version
            height, width = _upright(image, path).size[::-1]
            return height, width
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF's orientation: on its side
        return (image.width, image.height) if turned else (image.height, image.width)


def read_paint(path: Path, level: int = 1) -> tuple[NDArray[np.bool_], int]:
    """A mask: where it is painted (H, W), and how many different values it has.

    Painted is what is opaque and has a channel of at least `level` of 255; with 1, anything that is not black.

    Raises:
        DissectError: it is damaged.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode[0] in "IF":
            values = np.asarray(upright, np.float64)
            bright = values * (255 / WHITE if upright.mode.startswith("I;16") else 1)
            return bright >= level if level > 1 else values != 0, len(np.unique(values))
        pixels = np.asarray(upright.convert("RGBA"))
    bright, opaque = pixels[..., :3].max(2), pixels[..., 3] > 0
    return (bright >= level) & opaque, len(np.unique(bright))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file; whatever reading it raises becomes one line."""
    _endings()  # registers plugins
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large; twice as large is an error
            with Image.open(path) as image:
                yield image
    except DissectError:
        raise
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}; give the path of an image.") from error
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:  # as formats have it
        raise DissectError(f"{path} cannot be read as an image ({_reason(error)}); repair or remove it.") from error


def _upright(image: Image.Image, path: Path) -> Image.Image:
    """Eight bits a channel, turned as EXIF says, on white where transparent."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":
        return _eight_bits(upright, path)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image, np.float64)
    low, high = (float(values.min()), float(values.max())) if np.isfinite(values).all() else (np.nan, np.nan)
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and (image.format or "PNG") in ("PNG", "PPM"))
    if image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif sixteen and low >= 0 and high <= WHITE:
        values = values * (255 / WHITE)
    else:
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise DissectError(
            f"{path} holds {kind} from {low:g} to {high:g}, and does not say what is white; save it with eight or "
            "sixteen bits a channel, or as floats from 0 to 1."
        )
    return Image.fromarray(values.round().astype(np.uint8))


def _walk(folder: Path) -> Iterator[Path]:
    """Files, links followed, each folder once; without what is hidden and without our own results."""
    visited = set[str]()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in visited or (Path(current) != folder and any(name in files for name in RESULTS)):
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(current) / name for name in files if not name.startswith("."))


@cache
def _endings() -> frozenset[str]:
    """Of all files that Pillow opens as pictures, with its plugins that are installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    known = Image.registered_extensions()  # loads Pillow's own plugins
    return frozenset(end for end, kind in known.items() if kind in Image.OPEN and kind not in NO_PICTURES)


def _usual() -> list[str]:
    """The commonest endings, for messages."""
    return [
        *(end for end in (".png", ".jpg", ".webp", ".tif", ".bmp", ".gif", ".avif", ".heic") if end in _endings()),
        "…",
    ]


def _trouble(path: Path) -> str:
    """Why a file cannot be read, in words; empty if it seems that it can.

    A whole file is only decoded where its end is not what its format asks for: then it may be cut short.
    """
    if path.suffix.lower() not in _endings():
        return f"needs the package {PLUGINS[path.suffix.lower()]}"
    try:
        with _opened(path) as image:
            if image.mode[0] in "IF":  # its values say whether it can be used
                _upright(image, path)
            elif not _ends_well(path, image.format or ""):
                image.load()
    except DissectError as error:
        return _reason(error.__cause__ or error)
    return ""


def _ends_well(path: Path, kind: str) -> bool:
    """Whether a file ends as files of its format do; of a format without such an end, False."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 12))
        end = file.read()
        if kind == "PNG":
            return end[4:8] == b"IEND"
        if kind in ("JPEG", "MPO"):
            return end.rstrip(b"\0").endswith(b"\xff\xd9")
        if kind == "WEBP":
            file.seek(4)
            return int.from_bytes(file.read(4), "little") + 8 <= size
    return False


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image, whatever its name says"
    if "truncated" in str(error) or isinstance(error, (EOFError, SyntaxError)):
        return "cut short or damaged"
    return getattr(error, "strerror", None) or one_line(error)


def _copies(files: Sequence[Path]) -> int:
    """How many files hold the bytes of one before."""
    by_size: dict[int, list[Path]] = {}
    for path in files:
        by_size.setdefault(path.stat().st_size, []).append(path)
    copies = 0
    for group in by_size.values():
        if len(group) > 1:
            copies += len(group) - len({hashlib.blake2b(path.read_bytes()).digest() for path in group})
    return copies
