"""One page: its template, style and scripts in one file, written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..dissect.runs.dissection import Dissection
from ..dissect.storage.files import encoded
from ..hooks.errors import DissectError, explained
from . import figures
from .rows import format_number
from .shelf import Shelf

HERE = Path(__file__).parent


STYLES = ("report.css", "results.css")
POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"


class NoPage(DissectError):
    """A page could not be written. The result that it would have shown is complete."""


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which replaces `folder` if nothing fails."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def page_errors(result: Path | None, target: Path, again: str) -> Iterator[None]:
    """Around the writing of a page: whatever is raised becomes a `NoPage` with a message of one line.

    The reader of a damaged file names it in a DissectError, whose message is kept. An OSError is a full disk or a
    folder that cannot be written. Everything else is a fault of ganatomy, and is reported as one.

    Args:
        result: the folder of the result, whose tables are complete; None if they are written together with the page.
        target: where the page is written.
        again: the command that writes it again.
    """
    complete = f"The tables are complete in {result}; there is no page." if result else "Nothing was written."
    try:
        yield
    except DissectError as error:
        raise NoPage(str(error)) from error
    except OSError as error:
        raise NoPage(
            f"The page cannot be written to {target} ({error.strerror or error}). {complete} "
            f"Make room on the disk and run: {again}"
        ) from error
    except Exception as error:
        raise NoPage(str(explained(error, complete))) from error


def write_result_page(folder: Path, command: str, page: Callable[[Shelf], bytes]) -> Path:
    """Write FOLDER/report/ of a result and return its index.html.

    Args:
        folder: of the result.
        command: that made the result, and writes the page again.
        page: puts pictures and tables on the shelf, and returns the page that refers to them.

    Raises:
        NoPage: a file of the result is missing or damaged, or the page cannot be written.
    """
    report = folder / "report"
    with page_errors(folder, report, command), replaced_folder(report) as part:
        (part / "index.html").write_bytes(page(Shelf(part)))
    return report / "index.html"


def render(template: str, scripts: tuple[str, ...], data: dict[str, Any], context: dict[str, Any]) -> bytes:
    """A page (UTF-8) that contains its style, data and scripts. Its policy allows no other script and no request."""
    script = "\n".join((HERE / "assets" / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = context | {
        "style": "\n".join((HERE / "assets" / name).read_text(encoding="utf-8") for name in STYLES),
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
    environment.globals["factor"] = figures.DIFFERENCE
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(name)


def put_samples(
    run: Dissection, samples: NDArray[np.int64], shelf: Shelf, advance: Callable[[int], None], where: str = ""
) -> dict[str, list[str]]:
    """Put image and segmentation of each sample on the shelf, on all processors; returns both addresses by sample."""
    colours = list(run.classes.colour)
    images, labels = run.spool.gather("images", samples), run.spool.gather("labels", samples)

    def put(index: int) -> list[str]:
        name = f"{samples[index]}.webp"
        image = shelf.put(f"{where}images/{name}", figures.photo(np.asarray(images[index], np.uint8)))
        segmentation = shelf.put(f"{where}labels/{name}", figures.label_map(labels[index, 0], colours))
        advance(1)
        return [image, segmentation]

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(map(str, samples.tolist()), pool.map(put, range(len(samples))), strict=True))


def _typographic(text: str) -> str:
    """A number as it is printed: with a minus sign, and a narrow space before a percent sign.

    >>> _typographic("-55%")
    '−55\u202f%'
    """
    return text.replace("-", "−").replace("%", "\u202f%")


def _date(text: str) -> str:
    """A time of an ISO timestamp as a date, or the text itself.

    >>> _date("2026-11-27T10:15:32+00:00")
    '27 November 2026'
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.day} {moment:%B %Y}"


FORMATS: dict[str, Callable[..., str]] = {
    "address": lambda text: quote(str(text), safe="", errors="surrogateescape"),
    "percent": lambda share: _typographic(f"{share:.1%}"),
    "percent0": lambda share: _typographic(format_number(share, ".0%")),
    "percent2": lambda share: _typographic(f"{share:.2%}"),
    "signed_percent": lambda share: _typographic(format_number(share, "+.0%")),
    "points": lambda value: _typographic(format_number(value, "+.2f")),
    "points4": lambda value: _typographic(format_number(value, "+.4f")),
    "tenths": lambda value: _typographic(format_number(value, ".1f")),
    "tenths_signed": lambda value: _typographic(format_number(value, "+.1f")),
    "digits": lambda value: _typographic(format_number(value, "+.2g")),
    "score": lambda value: "" if value is None or pd.isna(value) else f"{value:.3f}",
    "signed_score": lambda value: _typographic(format_number(value, "+.3f")),
    "date": _date,
    "block_width": lambda units: round(8 * np.log2(max(2, units))),
    "block_height": lambda side: round(8 * np.log2(max(2, side or 1))) + 12,
    "shade": lambda value, scale: f"{100 * min(1.0, abs(value) / scale) ** 0.5:.0f}",
}
