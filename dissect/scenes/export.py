"""Scenes as files: a labelled data set for tests and teaching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ...hooks.errors import DissectError, UsageError
from ...segmenters.scenes import CLASSES
from ..progress import Progress
from .render import render

CHUNK = 100


def export(count: int, out: Path, *, side: int = 64, seed: int = 0, quiet: bool = False) -> None:
    """Write images/000000.png … (RGB), masks/000000.png … (palette; pixel = class index) and classes.csv.

    Raises:
        UsageError: a number out of range, or a folder that is not empty.
        DissectError: the folder cannot be written.
    """
    if count < 1 or not 16 <= side <= 1024 or seed < 0:
        raise UsageError(f"--n {count} --side {side} --seed {seed}: needed are n ≥ 1, 16 ≤ side ≤ 1024 and seed ≥ 0.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; give another --out.")
    palette = [int(colour[k : k + 2], 16) for _, _, colour in CLASSES for k in (1, 3, 5)]
    try:
        for folder in ("images", "masks"):
            (out / folder).mkdir(parents=True)
        rows = [f"{index},{name},{category},{colour}\n" for index, (name, category, colour) in enumerate(CLASSES)]
        (out / "classes.csv").write_text("index,class,category,colour\n" + "".join(rows), encoding="utf-8")
        with Progress(quiet) as progress, progress.task("draw scenes", count) as advance:
            for start in range(0, count, CHUNK):
                indices = range(start, min(start + CHUNK, count))
                images, labels = render(indices, side=side, seed=seed)
                pixels = (images.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
                for index, image, mask in zip(indices, pixels, labels, strict=True):
                    Image.fromarray(image).save(out / "images" / f"{index:06d}.png")
                    painted = Image.frombytes("P", (side, side), mask.tobytes())
                    painted.putpalette(palette)
                    painted.save(out / "masks" / f"{index:06d}.png")
                advance(len(indices))
    except OSError as error:
        raise DissectError(f"Writing to {out} failed ({error.strerror or error}); give another --out.") from error
