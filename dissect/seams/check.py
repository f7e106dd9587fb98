"""check_seams(): do tiles that went through a generator one by one show at their borders?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import UsageError
from ..generators.latents import DrawnLatents
from ..generators.sources import Encoded, FolderImages
from ..runtime.progress import Fewer, Progress
from ..runtime.requests import check_integers
from ..runtime.resources import at_work, usual_batch
from ..storage.files import safe_name
from ..storage.result_folder import header
from ..subjects.identity import identity, source_record
from ..subjects.opening import Model, open_generator, usable_device
from .measures import EXCESS, MEASURES, TILED, Seams, measure_seams
from .result import SeamCheck

SAMPLES = 16
SHOWN = 1024  # pixels of a picture's side, at most
FAINT = 0.5  # levels of 255: what is less is rounding
LEVEL = 0.05
NAMES = {"step": "a step", "jump": "a jump of colour", "stripe": "a stripe"}
FACTS = ("tiles", "given", "used", "tile", "band", "units", "no_whole", "worst")


def check_seams(
    model: Model,
    tiles: int,
    *,
    samples: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> SeamCheck:
    """Run a generator of images on an S×S grid of tiles and compare their borders with the lines beside; see `seams`.

    Args:
        model: as of `dissect.run`; its inputs are images.
        tiles: S.
        samples: how many images; None is 16, or as many as there are.
        seed: of the order in which the images of a folder are taken.
        out: folder; None is runs/MODEL-seams. If it already holds this check, that is loaded instead of
            recomputed.
        batch_size, device: None chooses; the batch is of tiles.
        quiet: no progress bar.

    Raises:
        UsageError: the generator takes no images, or they cannot be cut into such tiles.
        DissectError: something failed. Nothing is written.
    """
    check_integers({"--tiles": (tiles, 2), "--samples": (samples, 1), "--batch-size": (batch_size, 1)})
    device = usable_device(device)
    generator = open_generator(model, seed, device, quiet)
    if isinstance(generator.source, DrawnLatents):
        raise UsageError(f"--tiles {tiles} needs images as inputs; {generator.name} has none, so give --inputs FOLDER.")
    source = generator.source.images if isinstance(generator.source, Encoded) else generator.source
    if samples is None:
        samples = min(SAMPLES, len(source.files)) if isinstance(source, FolderImages) else SAMPLES
    config = {**identity(generator), "tiles": tiles, "samples": samples, "seed": seed}
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-seams")
    if (kept := SeamCheck.kept(folder, config, "give another --out")) is not None:
        return kept
    batch = batch_size or usual_batch(generator.device)
    fewer = Fewer("samples", samples, 1)
    with Progress(quiet) as progress, at_work(), progress.task("run tiles", samples, fewer=fewer) as advance:
        seams = measure_seams(generator, range(samples), tiles, batch=batch, advance=advance)
    verdict, sentence = judged(seams)
    info = {
        **header(),
        "generator": generator.name,
        "source": source_record(generator),
        "verdict": verdict,
        "sentence": sentence,
        **{name: getattr(seams, name) for name in FACTS},
        "samples": len(seams.samples),
        "config": config,
    }
    pictures: dict[str, NDArray[Any]] = {"tiled": _middle(seams.tiled), "map": _middle(seams.map)}
    if seams.whole is not None:
        pictures["whole"] = _middle(seams.whole)
    SeamCheck(folder=folder, info=info, table=seams.table, profile=seams.profile, pictures=pictures).save(folder)
    return SeamCheck.load(folder)


def judged(seams: Seams) -> tuple[str, str]:
    """`seams` or `clean`, and why.

    Seams: one of the three measures, over all borders, is greater there than on lines elsewhere (interval above 1) and
    than chance (p ≤ 0.05), and by half a level of 255 at least. What is judged is the excess over the network run on
    the whole image; where that could not be had, the tiled image alone, whose content may add to it.
    """
    table = seams.table[seams.table.lines == "all"].set_index(["what", "measure"])
    judge = TILED if seams.no_whole is not None else EXCESS
    judged_rows = {measure: table.loc[(judge, measure)] for measure in MEASURES}
    known = {measure: row for measure, row in judged_rows.items() if not np.isnan(row.ratio)}
    tiled = {measure: table.loc[(TILED, measure)] for measure in known}
    significant = {
        measure: row
        for measure, row in known.items()
        if row.low > 1 and row.p_value <= LEVEL and tiled[measure].border - tiled[measure].rest >= FAINT
    }
    control = "" if judge == EXCESS else f" There is no control on whole images ({seams.no_whole})"
    compared = " as those of the image drawn at once do" if judge == EXCESS else " as lines elsewhere"
    if not known:
        return "clean", f"No seams can be measured: the images do not change away from the borders.{control}"
    candidates = significant or known
    strongest = max(candidates, key=lambda measure: float(candidates[measure].ratio))
    row = candidates[strongest]
    figures = f"{NAMES[strongest]} {row.ratio:.2f} times (95 % {row.low:.2f} to {row.high:.2f}; p {row.p_value:.2g})"
    if significant:
        return "seams", f"Tiles show: their borders stand out by {figures} as much{compared}.{control}"
    return "clean", (
        f"No significant seams. The borders of tiles stand out most by {figures} as much{compared}; a seam needs an "
        f"interval above 1, p up to {LEVEL}, and half a level of 255.{control}"
    )


def _middle(image: NDArray[Any]) -> NDArray[Any]:
    """The middle of the image, `SHOWN` pixels a side at most, at its own scale, so that borders stay sharp."""
    height, width = image.shape[:2]
    top, left = max(0, (height - SHOWN) // 2), max(0, (width - SHOWN) // 2)
    return image[top : top + SHOWN, left : left + SHOWN]
