"""Scenes as files: a labelled data set for tests and teaching."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ...hooks.errors import DissectError, UsageError
from ...segmenters.scenes import CLASSES
from ..runtime.progress import Fewer, Progress
from .render import render

CHUNK = 2**19  # pixels drawn at once


def export(count: int, out: Path, *, side: int = 128, seed: int = 0, quiet: bool = False) -> None:
    """Write images/000000.png … (RGB), masks/000000.png … (palette; pixel = class index) and classes.csv.

    Raises:
        UsageError: a number out of range, or a folder that is not empty.
        DissectError: the folder cannot be written.
    """
    if count < 1 or not 16 <= side <= 1024 or not 0 <= seed < 2**63:
        raise UsageError(
            f"--n {count} --side {side} --seed {seed}: needed are n ≥ 1, 16 ≤ side ≤ 1024 and seed from 0 to 2^63 - 1."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; give another --out.")
    palette = [int(colour[k : k + 2], 16) for _, _, colour in CLASSES for k in (1, 3, 5)]
    final, out = out, out.with_name(out.name + ".part")
    at_once = max(1, CHUNK // side**2)
    try:
        for folder in ("images", "masks"):
            (out / folder).mkdir(parents=True)
        rows = [f"{index},{name},{category},{colour}\n" for index, (name, category, colour) in enumerate(CLASSES)]
        (out / "classes.csv").write_text("index,class,category,colour\n" + "".join(rows), encoding="utf-8")
        fewer = Fewer("n", count, 1)
        with Progress(quiet) as progress, progress.task("draw scenes", count, noun="scenes", fewer=fewer) as advance:
            for start in range(0, count, at_once):
                indices = range(start, min(start + at_once, count))
                images, labels = render(indices, side=side, seed=seed)
                pixels = (images.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
                for index, image, mask in zip(indices, pixels, labels, strict=True):
                    Image.fromarray(image).save(out / "images" / f"{index:06d}.png")
                    painted = Image.frombytes("P", (side, side), mask.tobytes())
                    painted.putpalette(palette)
                    painted.save(out / "masks" / f"{index:06d}.png")
                advance(len(indices))
        if final.exists():
            final.rmdir()  # it is empty
        out.rename(final)
    except OSError as error:
        raise DissectError(f"Writing to {final} failed ({error.strerror or error}); give another --out.") from error
    finally:
        shutil.rmtree(out, ignore_errors=True)
