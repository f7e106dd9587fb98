"""One page: its template, style and scripts in one file, written whole or not at all."""

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
from ..dissect.storage.files import encoded
from ..hooks.errors import DissectError, explained
from . import figures
from .shelf import Shelf

HERE = Path(__file__).parent


POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"


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
