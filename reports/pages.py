"""A run folder as a static page: opens from the file system, no server, no network."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from ..dissect.store import Dissection, write_atomic
from ..hooks.errors import DissectError, one_line
from . import figures
from .interventions import write_pages
from .units import write_units

HERE = Path(__file__).parent
TOP_SHOWN = 6  # images a unit
SIDE = 128  # pixels of an image
SAMPLES_SHOWN = 32


def write_report(run: Dissection) -> Path:
    """Write RUN/report/ and return its index.html. Only the run folder is read.

    Raises:
        DissectError: a file of the run is missing or damaged, or the report cannot be written.
    """
    final, part = run.folder / "report", run.folder / f"report.{os.getpid()}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        (part / "units").mkdir(parents=True)
        figures.units_per_class(run.classes, f"labelled {run.noun}s", part / "units-per-class.svg")
        _sample_sheets(run, part)
        for number, layer in enumerate(run.layers):
            _strips(run, layer, part / "units", number)
        environment = _environment()
        write_units(run, part / "units", environment)
        interventions = write_pages(run, part / "interventions", environment)
        page = environment.get_template("index.html").render(_context(run) | {"interventions": interventions})
        write_atomic(part / "index.html", lambda file: file.write(page.encode()))
        shutil.copy(HERE / "assets" / "report.css", part)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise DissectError(
            f"The run in {run.folder} is damaged ({one_line(error)}); delete the folder and run again."
        ) from error
    except OSError as error:
        raise DissectError(
            f"The report cannot be written to {final} ({error.strerror or error}); make room and run: "
            f"dissect report {run.folder}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final / "index.html"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["style"] = (HERE / "assets" / "report.css").read_text(encoding="utf-8")
    environment.globals["script"] = (HERE / "assets" / "report.js").read_text(encoding="utf-8")
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    environment.filters["percent0"] = lambda share: "–" if pd.isna(share) else f"{share:.0%}"
    environment.filters["percent2"] = lambda share: f"{share:.2%}"
    environment.filters["signed_percent"] = _signed("+.0%")
    environment.filters["points"] = _signed("+.2f")
    environment.filters["points3"] = _signed("+.3f")
    environment.filters["points4"] = _signed("+.4f")
    environment.filters["small"] = lambda value: "" if pd.isna(value) else f"{value:.2g}"
    environment.filters["score"] = lambda value: "" if pd.isna(value) else f"{value:.3f}"
    return environment


def _signed(form: str) -> Callable[[float | None], str]:
    """Numbers with their sign, but none before zeros."""

    def write(value: float | None) -> str:
        if value is None or pd.isna(value):
            return "–"
        text = format(value, form)
        return text if re.search("[1-9]", text) else text[1:]

    return write


def _context(run: Dissection) -> dict[str, object]:
    numbers = {layer: number for number, layer in enumerate(run.layers)}
    units = run.units.sort_values(["labelled", "iou"], ascending=False, kind="stable")
    colours = dict(zip(run.classes["class"], map(figures.safe_colour, run.classes.colour), strict=True))
    return {
        "info": run.info,
        "config": run.info["config"],
        "layers": run.summary().to_dict("records"),
        "noun": run.noun,
        "tested": run.info["config"]["significance"] != "off",
        "controls": {name: control.summary().to_dict("records") for name, control in run.controls.items()},
        "classes": run.classes.to_dict("records"),
        "colours": colours,
        "units": [row | {"page": f"units/{numbers[row['layer']]}-{row['unit']}"} for row in units.to_dict("records")],
        "odd": [
            {"layer": layer, "state": state, "units": list(group)}
            for (layer, state), group in run.units[run.units.state != "ok"].groupby(["layer", "state"]).unit
        ],
        "samples": min(SAMPLES_SHOWN, run.info["config"]["samples"]),
        "provenance": {key: value for key, value in run.info["provenance"].items() if value},
        "versions": json.dumps(run.info["versions"])[1:-1].replace('"', ""),
    }


def _sample_sheets(run: Dissection, folder: Path) -> None:
    """samples.webp: rows of images, each row with its segmentation beneath."""
    first = np.arange(min(SAMPLES_SHOWN, run.info["config"]["samples"]))
    images = figures.enlarge(np.asarray(run.spool.gather("images", first), np.uint8), SIDE)
    labels = np.asarray(run.spool.gather("labels", first))[:, 0]
    painted = figures.paint_labels(labels, list(run.classes.colour), images.shape[1:3])
    rows = [
        np.asarray(figures.strip(pixels[start : start + 8]))
        for start in range(0, len(first), 8)
        for pixels in (images, painted)
    ]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    Image.fromarray(np.concatenate(padded)).save(folder / "samples.webp", quality=88)


def _strips(run: Dissection, layer: str, folder: Path, number: int) -> None:
    """One picture a unit: its most-activating images with its region outlined."""
    samples, masks = (array[:, :TOP_SHOWN] for array in run.tops(layer))
    wanted = np.unique(samples)
    images = np.asarray(run.spool.gather("images", wanted), np.uint8)
    place = np.searchsorted(wanted, samples)

    def draw(unit: int) -> None:
        outlined = figures.outline(figures.enlarge(images[place[unit]], SIDE), masks[unit])
        figures.strip(outlined).save(folder / f"{number}-{unit}.webp", quality=85)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(draw, range(len(samples))))
