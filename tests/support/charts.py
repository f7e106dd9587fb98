"""What charts of a page show, read back from the pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .browser import until


def show(page: Any, path: Path) -> None:
    page.goto(path.resolve().as_uri())
    until(page, "[...document.images].every((one) => one.loading === 'lazy' || one.naturalWidth > 0)")


def chart(page: Any, title: str) -> Any:
    return page.locator(".plot").filter(has=page.get_by_text(title, exact=True))


def places(path: str) -> NDArray[np.float64]:
    """The points of a path of M, L and Z."""
    return np.array([[float(one) for one in point.split(",")] for point in re.findall(r"[-\d.]+,[-\d.]+", path)])


def path_of(plot: Any, kind: str) -> str:
    return str(plot.locator(f"path.{kind}").get_attribute("d"))


def axis(plot: Any, anchor: str) -> np.poly1d:
    """From pixels to values, by the ticks: `end` for those of the y axis, `middle` for those of the x axis."""
    ticks = plot.locator(f"text.tick[text-anchor={anchor}]").evaluate_all(
        "(all) => all.map((one) => [one.textContent, one.getAttribute('x'), one.getAttribute('y')])"
    )
    values = [float(text.replace("−", "-").replace(" %", "e-2").replace("k", "e3")) for text, _, _ in ticks]
    pixels = [float(x) if anchor == "middle" else float(y) - 4 for _, x, y in ticks]
    start, end = map(float, re.findall(r"[\d.]+", path_of(plot, "axis-line"))[::2])
    inner = [k for k, place in enumerate(pixels) if anchor == "end" or start + 7 < place < end - 7]
    assert len(inner) >= 2
    return np.poly1d(np.polyfit(np.array(pixels)[inner], np.array(values)[inner], 1))
