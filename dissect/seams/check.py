"""check_seams(): do tiles that went through a generator one by one show at their borders?"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...hooks.errors import UsageError
from ..generators.latents import DrawnLatents
from ..generators.sources import Encoded, FolderImages
from ..runtime.progress import Progress
from ..runtime.resources import at_work, usual_batch
from ..storage.files import SCHEMA, safe_name
from ..storage.result_folder import command, holds, now
from ..subjects.identity import identity
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
        out: folder; None is runs/MODEL-seams. One that holds this check already is loaded instead of recomputed.
        batch_size, device: None chooses; the batch is of tiles.
        quiet: no progress bar.

    Raises:
        UsageError: the generator takes no images, or they cannot be cut into such tiles.
        DissectError: something failed. Nothing is written.
    """
    for option, number, least in (("--tiles", tiles, 2), ("--samples", samples, 1), ("--batch-size", batch_size, 1)):
        if number is not None and operator.index(number) < least:
            raise UsageError(f"{option} {number}: a whole number from {least} up is needed.")
    device = usable_device(device)
    generator = open_generator(model, seed, device, quiet)
    if isinstance(generator.source, DrawnLatents):
        raise UsageError(
            f"--tiles {tiles} needs images that go in, and {generator.name} has none; give them by --inputs."
        )
    folder_of = generator.source.images if isinstance(generator.source, Encoded) else generator.source
    if samples is None:
        samples = min(SAMPLES, len(folder_of.files)) if isinstance(folder_of, FolderImages) else SAMPLES
    config = {
        **identity(generator),
        "tiles": tiles,
        "samples": samples,
        "seed": seed,
    }
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-seams")
    if holds(folder, "seams.json", config, "give another --out"):
        return SeamCheck.load(folder)
    batch = batch_size or usual_batch(generator.device)
    with Progress(quiet) as progress, at_work(), progress.task("run tiles", samples) as advance:
        found = measure_seams(generator, range(samples), tiles, batch=batch, advance=advance)
    verdict, sentence = judged(found)
    info = {
        "schema": SCHEMA,
        "created": now(),
        "command": command(),
        "generator": generator.name,
        "source": {"model": None} if generator.spec is None else generator.spec.record(),
        "verdict": verdict,
        "sentence": sentence,
        **{name: getattr(found, name) for name in FACTS},
        "samples": len(found.samples),
        "config": config,
    }
    pictures: dict[str, NDArray[Any]] = {"tiled": _smaller(found.tiled), "map": _smaller(found.map)}
    if found.whole is not None:
        pictures["whole"] = _smaller(found.whole)
    SeamCheck(folder=folder, info=info, table=found.table, profile=found.profile, pictures=pictures).save()
    return SeamCheck.load(folder)


def judged(found: Seams) -> tuple[str, str]:
    """`seams` or `clean`, and why.

    Seams: one of the three measures, over all borders, is greater there than on lines elsewhere (interval above 1) and
    than chance (p ≤ 0.05), and by half a level of 255 at least. What is judged is the excess over the network run on
    the whole image; where that could not be had, the tiled image alone, whose content may add to it.
    """
    table = found.table[found.table.lines == "all"].set_index(["what", "measure"])
    judge = TILED if found.no_whole is not None else EXCESS
    rows = [(measure, table.loc[(judge, measure)], table.loc[(TILED, measure)]) for measure in MEASURES]
    telling = [
        (float(row.ratio), measure, row)
        for measure, row, tiled in rows
        if row.low > 1 and row.p_value <= LEVEL and tiled.border - tiled.rest >= FAINT
    ]
    beside = "" if judge == EXCESS else f" There is no control on whole images ({found.no_whole})"
    than = " as those of the image drawn at once do" if judge == EXCESS else " as lines elsewhere"
    known = [(float(row.ratio), measure, row) for measure, row, _ in rows if row.ratio == row.ratio]
    if not known:
        return "clean", f"No seams can be told: the images do not change away from the borders.{beside}"
    most, measure, row = max(telling or known, key=lambda one: one[0])
    what = f"{NAMES[measure]} {most:.2f} times (95 % {row.low:.2f} to {row.high:.2f}; p {row.p_value:.2g})"
    if telling:
        return "seams", f"Tiles show: their borders stand out by {what} as much{than}.{beside}"
    return "clean", (
        f"No seams beyond doubt. The borders of tiles stand out most by {what} as much{than}; a seam needs an interval "
        f"above 1, p up to {LEVEL}, and half a level of 255.{beside}"
    )


def _smaller(image: NDArray[Any]) -> NDArray[Any]:
    """The middle of the image, `SHOWN` pixels a side at most, at its own scale, so that borders stay sharp."""
    height, width = image.shape[:2]
    top, left = max(0, (height - SHOWN) // 2), max(0, (width - SHOWN) // 2)
    return image[top : top + SHOWN, left : left + SHOWN]
