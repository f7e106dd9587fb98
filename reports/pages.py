"""A run folder as a page that opens from the file system: no server, no network. Only the run folder is read."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..dissect.runs.dissection import Dissection
from ..dissect.runtime.progress import Progress
from ..dissect.storage.files import encoded, write_atomic
from ..hooks.errors import DissectError, explained
from . import figures
from .data import classes_data, plain, units_data
from .interventions import effect_pages, scan_pages, scan_results
from .repairs import repair_pages, suspect_pages
from .shelf import Shelf

HERE = Path(__file__).parent
SAMPLES_SHOWN = 32
FILES = ("units.csv", "classes.csv", "run.json")  # to download
POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"
SCRIPTS = ("common.js", "browse.js", "unit.js", "pictures.js")
IOU_BINS = 25
CATEGORIES = ("#3b6fb6", "#c8762b", "#4f8f4a", "#8a5fb0", "#b0475e", "#6d6d6d")  # colours of categories, in turn


def write_report(run: Dissection, *, single_file: bool = False, quiet: bool = True) -> Path:
    """Write RUN/report/ and return its index.html, or with `single_file` RUN/report.html, which holds everything.

    Raises:
        DissectError: a file of the run is missing or damaged, or the report cannot be written.
    """
    final = run.folder / ("report.html" if single_file else "report")
    with telling(run.folder, final, f"dissect report {run.folder}"), Progress(quiet) as progress:
        if single_file:
            page = _page(run, Shelf(None), progress)
            write_atomic(final, lambda file: file.write(page))
            return final
        with replaced(final) as part:
            (part / "index.html").write_bytes(_page(run, Shelf(part), progress))
    return final / "index.html"


class NoPage(DissectError):
    """A page could not be written. The result that it would have shown is complete."""


@contextmanager
def replaced(final: Path) -> Iterator[Path]:
    """A new folder that takes the place of `final` if nothing fails."""
    part = final.with_name(f"{final.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def telling(folder: Path | None, final: Path, again: str) -> Iterator[None]:
    """Around the writing of a page: what goes wrong becomes a `NoPage`, in one line.

    A file that is damaged is told of by what reads it. Anything else than that and a full disk is a fault of ganatomy.

    Args:
        folder: of the result, whose tables are complete; None where they are written with the page.
        final: the page's place.
        again: the command that writes it.
    """
    complete = f"The tables are complete in {folder}; there is no page." if folder else "Nothing was written."
    try:
        yield
    except DissectError as error:
        raise NoPage(str(error)) from error
    except OSError as error:
        raise NoPage(
            f"The page cannot be written to {final} ({error.strerror or error}). {complete} Make room and run: {again}"
        ) from error
    except Exception as error:
        raise NoPage(str(explained(error, complete))) from error


def _page(run: Dissection, shelf: Shelf, progress: Progress) -> bytes:
    config = run.info["config"]
    first = np.arange(min(SAMPLES_SHOWN, config["samples"]))
    shown = [first, *(run.tops(layer)[0].ravel() for layer in run.layers)]
    scans = scan_results(run)
    classes = classes_data(run, scans, shown.append)
    effects = effect_pages(run, shelf)
    searches, repairs = suspect_pages(run, shown.append, shelf), repair_pages(run, shelf)
    samples = np.unique(np.concatenate(shown))
    with (
        progress.task("outline regions", len(run.units)) as traced,
        progress.task("write pictures", len(samples)) as written,
        ThreadPoolExecutor(max_workers=1) as beside,
    ):
        painted = beside.submit(put_samples, run, samples, shelf, written)
        units, scanned, overview = units_data(run, scans, traced), scan_pages(scans), _overview(run)
        _template("report.html")  # compiled while others encode
        pictures = painted.result()
    data = {
        "noun": run.noun,
        "tested": config["significance"] != "off",
        "rule": config["threshold"],
        "grid": run.info["grid"],
        "image": run.info["image"],
        "layers": run.layers,
        "shares": run.shares.tolist(),
        "classes": classes,
        "units": units,
        "samples": pictures,
        "interventions": [
            {
                "name": one["name"],
                "title": one["title"],
                "class": one["info"]["label"],
                "layer": one["info"]["layer"],
                "units": one["info"]["units"],
                "relative": one["target"] and plain([one["target"][f"relative{end}"] for end in ("", "_low", "_high")]),
            }
            for one in effects
        ],
        "scans": [{"name": one["name"], "title": one["title"], "class": one["info"]["class"]} for one in scanned],
    }
    files = {name: shelf.put(name, (run.folder / name).read_bytes()) for name in FILES}
    context = overview | {"effects": effects, "scans": scanned, "files": files, "first": first.tolist()}
    context |= {"searches": searches, "repairs": repairs}
    return render("report.html", SCRIPTS, data, context)


def render(template: str, scripts: tuple[str, ...], data: dict[str, Any], context: dict[str, Any]) -> bytes:
    """A page (UTF-8) with style, data and scripts inside; its policy allows no other script and no request."""
    script = "\n".join((HERE / "assets" / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = context | {
        "style": (HERE / "assets" / "report.css").read_text(encoding="utf-8"),
        "script": script,
        "policy": POLICY.format(digest),
        "data": data,
    }
    return encoded(_template(template).render(page))


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FORMATS
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(name)


def put_samples(
    run: Dissection, samples: NDArray[np.int64], shelf: Shelf, advance: Callable[[int], None], where: str = ""
) -> dict[str, list[str]]:
    """Addresses of image and segmentation of each sample, by its number. Several processors encode side by side."""
    colours = list(run.classes.colour)
    images, labels = run.spool.gather("images", samples), run.spool.gather("labels", samples)

    def put(place: int) -> list[str]:
        number = int(samples[place])
        image = shelf.put(f"{where}images/{number}.webp", figures.photo(np.asarray(images[place], np.uint8)))
        painted = shelf.put(f"{where}labels/{number}.webp", figures.label_map(labels[place, 0], colours))
        advance(1)
        return [image, painted]

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(map(str, samples.tolist()), pool.map(put, range(len(samples))), strict=True))


def _category_colours(run: Dissection) -> dict[str, str]:
    """A colour for each category of classes, in turn."""
    return {name: CATEGORIES[k % len(CATEGORIES)] for k, name in enumerate(dict.fromkeys(run.classes.category))}


def _overview(run: Dissection) -> dict[str, object]:
    """What the page tells of the run as a whole."""
    config, units = run.info["config"], run.units
    counts = units[units.labelled].groupby(["layer", "label"]).size()
    by_category = units[units.labelled].groupby(["layer", "category"]).size()
    categories = _category_colours(run)
    return {
        "info": run.info,
        "config": config,
        "layers": run.summary().to_dict("records"),
        "noun": run.noun,
        "tested": config["significance"] != "off",
        "controls": {name: control.summary().to_dict("records") for name, control in run.controls.items()},
        "classes": run.classes.to_dict("records"),
        "colours": dict(zip(run.classes["class"], map(figures.safe_colour, run.classes.colour), strict=True)),
        "categories": categories,
        "covered": int((run.classes.units > 0).sum()),
        "most": max(1, int(run.classes.units.max())),
        "by_layer": [
            {
                "layer": layer,
                "classes": {name: int(counts.get((layer, name), 0)) for name in run.classes["class"]},
                "categories": {name: int(by_category.get((layer, name), 0)) for name in categories},
            }
            for layer in run.layers
        ],
        "distribution": _iou_distribution(units),
        "odd": [
            {"layer": layer, "state": state, "units": list(group)}
            for (layer, state), group in units[units.state != "ok"].groupby(["layer", "state"]).unit
        ],
        "provenance": {key: value for key, value in run.info["provenance"].items() if value},
        "versions": ", ".join(f"{name} {number}" for name, number in run.info["versions"].items()),
    }


def _iou_distribution(units: pd.DataFrame) -> dict[str, Any]:
    """Units by IoU in bins of equal width: labelled, and others."""
    top = float(np.ceil(max(0.1, units.iou.max() if units.iou.notna().any() else 0) * 10) / 10)
    edges = np.linspace(0, top, IOU_BINS + 1)
    labelled, others = (np.histogram(units.iou[some].dropna(), edges)[0] for some in (units.labelled, ~units.labelled))
    bins = [
        {"low": low, "high": high, "labelled": int(inside), "others": int(outside)}
        for low, high, inside, outside in zip(edges[:-1], edges[1:], labelled, others, strict=True)
    ]
    fit = units.iou[units.labelled]
    return {
        "bins": bins,
        "top": top,
        "most": max(1, int((labelled + others).max())),
        "quartiles": fit.quantile([0.25, 0.5, 0.75]).tolist(),
        "mean": float(fit.mean()),
    }


def _signed(form: str) -> Callable[[float | None], str]:
    """Numbers with their sign, but none before zeros."""

    def write(value: float | None) -> str:
        if value is None or pd.isna(value):
            return "–"
        text = format(value, form)
        return text if re.search("[1-9]", text) else text[1:]

    return write


FORMATS: dict[str, Callable[..., str]] = {
    "address": lambda text: quote(str(text), safe="", errors="surrogateescape"),
    "percent": lambda share: f"{share:.1%}",
    "percent0": lambda share: "–" if share is None or pd.isna(share) else f"{share:.0%}",
    "percent2": lambda share: f"{share:.2%}",
    "signed_percent": _signed("+.0%"),
    "points": _signed("+.2f"),
    "points4": _signed("+.4f"),
    "digits": _signed("+.2g"),
    "score": lambda value: "" if value is None or pd.isna(value) else f"{value:.3f}",
    "shade": lambda value, scale: f"{100 * min(1.0, abs(value) / scale) ** 0.5:.0f}",
}
