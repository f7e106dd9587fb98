"""All results below a folder on one page: each with a picture, its verdict, its date, and the way to its own page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from ..dissect.candidates import Fitness
from ..dissect.checkerboard.result import Checkup
from ..dissect.diversity import Diversity
from ..dissect.latents.result import Explored
from ..dissect.runs.dissection import Dissection
from ..dissect.seams.result import SeamCheck
from ..dissect.storage.files import PART, read_json, write_atomic
from ..dissect.watching.result import Watched
from ..hooks.errors import DissectError, UsageError, one_line
from . import figures, latents
from .comparison import MARK
from .figures import Pixels
from .page import page_errors, render
from .shelf import Shelf

PAGE = "index.html"
SIGN = b"ganatomy <span>results</span>"  # in every index
SIDE = 128  # pixels of a picture, at most
COMPARISONS = "comparisons"  # the folder that `dissect compare` makes by default, beside or in the folder of runs


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One result. pages: where its page may be, in its folder. again: the command that writes it."""

    kind: str
    title: str
    verdict: str
    created: str
    pages: tuple[str, ...]
    again: str
    picture: Pixels | None = None
    extra: str = ""


def write_index(folder: str | Path) -> Path:
    """Write FOLDER/index.html, whole or not at all, and return its path. It lists the results one level below.

    Folders of something else are passed over; results that cannot be read are named on the page.

    Raises:
        UsageError: there is no such folder, or its index.html is not ours.
        DissectError: the page cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder in which runs and other results lie, such as runs.")
    target = folder / PAGE
    if any((folder / mark).is_file() for mark, _ in KINDS):
        raise UsageError(f"{folder} is itself a result; give the folder above it.")
    if target.exists() and SIGN not in target.read_bytes():
        raise UsageError(f"{target} was not written by ganatomy, and is not replaced; move it, or give another folder.")
    with page_errors(None, target, f"dissect report {shlex.quote(str(folder))}"):
        page = _page(folder)
        write_atomic(target, lambda file: file.write(page))
    return target


def _page(folder: Path) -> bytes:
    shelf = Shelf(None)
    rows: list[dict[str, Any]] = []
    unreadable: list[dict[str, str]] = []
    for path, mark, describe in _results(folder):
        try:
            entry = describe(path)
        except Exception as error:  # whatever is wrong with one result, the page lists the others
            why = str(error) if isinstance(error, DissectError) else f"{mark}: {one_line(error)}"
            unreadable.append({"folder": str(path), "why": why})
            continue
        there = next((page for page in entry.pages if (path / page).is_file()), None)
        link = None if there is None else quote(os.path.relpath(path / there, folder), errors="surrogateescape")
        rows.append(
            {
                "entry": entry,
                "folder": str(path),
                "link": link,
                "quoted": shlex.quote(str(path)),
                "picture": None if entry.picture is None else shelf.put("picture.webp", figures.photo(entry.picture)),
                "day": entry.created[:10],
                "time": entry.created[11:16],
            }
        )
    rows.sort(key=lambda row: row["entry"].created, reverse=True)
    kinds = {kind: sum(row["entry"].kind == kind for row in rows) for kind in _NAMES}
    context = {
        "folder": str(folder),
        "rows": rows,
        "kinds": {kind: (_NAMES[kind], count) for kind, count in kinds.items() if count},
        "unreadable": unreadable,
    }
    return render("index.html", ("pictures.js", "index.js"), {}, context)


def _results(folder: Path) -> Iterator[tuple[Path, str, Callable[[Path], Entry]]]:
    """The folders that hold a result, each with its description's file and what reads it."""
    around = {parent.resolve(): parent for parent in (folder, folder / COMPARISONS, folder.parent / COMPARISONS)}
    for parent in around.values():
        if not parent.is_dir():
            continue
        for path in sorted(parent.iterdir()):
            for mark, describe in KINDS:
                if not path.name.endswith(PART) and (path / mark).is_file():
                    yield path, mark, describe


def _run(folder: Path) -> Entry:
    run = Dissection.load(folder)
    labelled_units = run.units[run.units.labelled]
    best = labelled_units.sort_values(["tier", "content_iou", "iou"], ascending=[True, False, False]).head(1)
    labelled, count = len(labelled_units), len(run.units)
    verdict, picture = f"{labelled} of {count} {run.noun}s are labelled", None
    for row in best.itertuples():
        verdict += (
            f"; clearest: {run.noun} {row.unit} = {row.label}, IoU {row.iou:.2f} (position {row.position_iou:.2f})"
        )
        samples, _ = run.tops(row.layer)
        picture = np.asarray(run.spool.gather("images", samples[row.unit, :2])).astype(np.uint8)
        picture = _beside(picture)
    counts = {
        "intervention": run.interventions,
        "scan": run.scans,
        "search for artifacts": run.suspects,
        "repair": run.repairs,
    }
    config = run.info["config"]
    return Entry(
        kind="run",
        title=f"{config['model']} · {', '.join(config['layers'])}",
        verdict=f"{verdict}.",
        created=run.info["finished"],
        pages=("report/index.html", "report.html"),
        again=shlex.join(["dissect", "report", str(folder)]),
        picture=picture,
        extra=", ".join(f"{len(all_)} {noun}{'s' * (len(all_) > 1)}" for noun, all_ in counts.items() if all_),
    )


def _checkup(folder: Path) -> Entry:
    checkup = Checkup.load(folder)
    layers = list(checkup.layers.layer)
    blamed = layers.index(checkup.info["blame"]) if checkup.info["blame"] in layers else 0
    shots = checkup.arrays.get(f"samples_{blamed}")
    picture = None if shots is None or not len(shots) else _beside(shots[:2, 0])
    return _audit("checkup", checkup.info, picture)


def _diversity(folder: Path) -> Entry:
    diversity = Diversity.load(folder)
    twins = diversity.pictures["twins"]
    return _audit("diversity", diversity.info, _beside(twins[0]) if len(twins) else None)


def _seams(folder: Path) -> Entry:
    check = SeamCheck.load(folder)
    return _audit("seams", check.info, _beside(check.pictures["tiled"][None]))


def _audit(kind: str, info: dict[str, object], picture: Pixels | None) -> Entry:
    return Entry(
        kind=kind,
        title=str(info["generator"]),
        verdict=str(info["sentence"]),
        created=str(info["created"]),
        pages=("report/index.html",),
        again=str(info["command"]),
        picture=picture,
    )


def _fitness(folder: Path) -> Entry:
    fitness = Fitness.load(folder)
    count = len(fitness.table)
    info = fitness.info | {"generator": f"{count} candidate{'' if count == 1 else 's'}"}
    return _audit("fitness", info, _beside(fitness.pictures["0"][:2]))


def _watch(folder: Path) -> Entry:
    watched = Watched.load(folder)
    newest = watched.lines.iloc[-1]
    alarms = newest.alarms if isinstance(newest.alarms, str) and newest.alarms else "no alarm"
    with Image.open(folder / watched.picture(len(watched.lines) - 1)) as strip:
        height = strip.height
        picture = np.asarray(strip.convert("RGB").crop((0, 0, min(strip.width, 2 * height), height)))
    count = len(watched.lines)
    return Entry(
        kind="watch",
        title=str(watched.info.get("generator") or folder.name),
        verdict=f"Step {newest.step:g} of a training: {alarms}.",
        created=str(newest.created),
        pages=(PAGE,),
        again=watched.info["command"],
        picture=_beside(picture[None]),
        extra=f"{count} checkpoint{'' if count == 1 else 's'}",
    )


def _latents(folder: Path) -> Entry:
    explored = Explored.load(folder)
    names = explored.info["pictures"]
    picture = None
    if names:
        with Image.open(folder / names[-1]) as film:  # films come last; only their first picture is shown
            picture = _beside(np.asarray(film.convert("RGB"))[None])
    config = explored.info["config"]
    return Entry(
        kind="latents",
        title=f"{config['model']} · {latents.TITLES[config['kind']].lower()}",
        verdict=latents.sentence(explored),
        created=explored.info["created"],
        pages=("report/index.html",),
        again=explored.info["command"],
        picture=picture,
    )


def _comparison(folder: Path) -> Entry:
    info = read_json(folder / MARK)
    sides = [side["run"] for side in info["sides"].values()]
    changed = datetime.fromtimestamp((folder / MARK).stat().st_mtime, UTC)
    differences = ", ".join(info["differences"]) or "nothing but their results"
    return Entry(
        kind="comparison",
        title=" · ".join(Path(side).name for side in sides),
        verdict=f"{len(sides)} runs side by side; they differ in {differences}.",
        created=changed.isoformat(timespec="seconds"),
        pages=(PAGE,),
        again=shlex.join(["dissect", "compare", *sides]),
    )


def _beside(images: Pixels) -> Pixels:
    """(n, h, w, 3) -> the images beside each other, each at most `SIDE` pixels large."""
    small = []
    for image in images:
        picture = Image.fromarray(image)
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.append(np.asarray(picture))
    return np.concatenate(small, 1)


KINDS: tuple[tuple[str, Callable[[Path], Entry]], ...] = (
    ("run.json", _run),
    ("checkup.json", _checkup),
    ("diversity.json", _diversity),
    ("seams.json", _seams),
    ("fitness.json", _fitness),
    ("watch.json", _watch),
    ("latents.json", _latents),
    (MARK, _comparison),
)
_NAMES = {
    "run": "runs",
    "checkup": "checkups",
    "diversity": "diversity",
    "seams": "seams",
    "fitness": "fitness",
    "watch": "watches",
    "latents": "latents",
    "comparison": "comparisons",
}
