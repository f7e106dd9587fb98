"""A watched training as a page, which may be open while it grows. Only the folder of the watch is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..dissect.storage.files import write_atomic
from ..dissect.watching import Watched
from ..dissect.watching.result import PRESENCE, SHARE
from .figures import safe_colour
from .page import page_errors, render
from .rows import rows_with_blanks
from .run_data import plain

PAGE = "index.html"
CLASSES = 24  # that have a chart
NEWEST = 12  # lines whose pictures are shown at once
TINY = 64  # pixels: smaller images are enlarged as they are
STATES = {"varied": "clean", "lacking": "mild", "collapsed": "visible"}
CHARTS = {
    "Diversity": {
        "deviation": "Deviation",
        "vendi": "Vendi score",
        "spread": "Spread",
        "twins": "Twins",
        "coverage": "Coverage",
        "recall": "Recall",
    },
    "Quality": {
        "precision": "Precision",
        "density": "Density",
        "frechet": "Fréchet distance",
        "kernel": "Kernel distance",
    },
    "Checkerboard": {"ripple": "Ripple, dB", "peaks": "Peaks of grids"},
    "Labelled units": {"labelled": "Labelled units", "covered": "Classes they name"},
}
COUNTS = ("peaks", "labelled", "covered")
SHOWN = {  # columns of the table: heading, form of the value, form of the ends of its interval
    "deviation": ("deviation", "%.3f", "%.2f"),
    "frechet": ("Fréchet", "%.3g", "%.3g"),
    "precision": ("precision", "%.3f", "%.2f"),
    "recall": ("recall", "%.3f", "%.2f"),
    "coverage": ("coverage", "%.3f", "%.2f"),
    "vendi": ("Vendi", "%.3f", "%.2f"),
    "twins": ("twins", "%.3f", "%.2f"),
    "ripple": ("ripple, dB", "%.1f", "%.1f"),
    "peaks": ("peaks", "%d", ""),
    "labelled": ("labelled", "%d", ""),
    "covered": ("classes", "%d", ""),
}


def write_watch(watched: Watched, *, live: bool = False) -> Path:
    """Write WATCH/index.html, whole or not at all, and return its path.

    Args:
        live: the training continues, and an open page reloads itself every ten seconds.

    Raises:
        DissectError: a file of the folder is missing or damaged, or the page cannot be written.
    """
    target = watched.folder / PAGE
    with page_errors(watched.folder, target, watched.info["command"]):
        page = _page(watched, live)
        write_atomic(target, lambda file: file.write(page))
    return target


def _page(watched: Watched, live: bool) -> bytes:
    info, lines = watched.info, watched.lines
    rows = _rows(watched)
    order = lines.step.argsort(kind="stable")
    groups = _groups(info, lines.iloc[order])
    drawn = [rows[index] for index in order]
    data = {
        "steps": [row["step"] for row in drawn],
        "alarms": [bool(row["alarms"]) for row in drawn],
        "descriptions": [
            f"Step {row['step']} · {row['checkpoint']}\n{'; '.join(row['alarms']) or 'No alarm.'}" for row in drawn
        ],
        "charts": [chart["data"] for group in groups for chart in group["charts"]],
    }
    newest = rows[-1]
    context = {
        "info": info,
        "live": live,
        "title": watched.folder.resolve().name,
        "newest": newest,
        "sentence": f"Step {newest['step']}: {'; '.join(newest['alarms']) or 'no alarm'}."
        + (f" Compared with real images: {newest['verdict']}." if newest["verdict"] else ""),
        "groups": groups,
        "classes": len(info["names"]),
        "rows": rows[::-1],
        "columns": [(name, *SHOWN[name]) for name in SHOWN if lines[name].notna().any()],
        "first": NEWEST,
        "size": _size(watched),
    }
    return render("watch.html", ("charts.js", "tables.js"), data, context)


def _rows(watched: Watched) -> list[dict[str, Any]]:
    """The lines for the page: a list of alarms, the style of the verdict, and the address of the picture."""
    columns = [name for name in watched.lines if not name.startswith((SHARE, PRESENCE))]
    rows = rows_with_blanks(watched.lines[columns])
    for index, row in enumerate(rows):
        row["step"] = int(row["step"]) if float(row["step"]).is_integer() else row["step"]
        row["alarms"] = row["alarms"].split("; ") if row["alarms"] else []
        state = STATES.get(row["verdict"], "clean")
        row["state"] = "mild" if state == "clean" and row["alarms"] else state
        row["verdict_text"] = row["verdict"] or ("alarm" if row["alarms"] else "no alarm")
        row["picture"] = watched.picture(index)
    return rows


def _groups(info: dict[str, Any], lines: pd.DataFrame) -> list[dict[str, Any]]:
    """The charts by heading, without those that have nothing to show."""
    real = {name: interval["value"] for name, interval in (info.get("zero") or {}).items()}
    real["deviation"] = info.get("real_deviation")
    groups = [
        {
            "title": title,
            "id": title.split()[0].lower(),
            "charts": [
                {"title": name, "colour": None, "data": _chart(lines, column, real.get(column))}
                for column, name in charts.items()
                if lines[column].notna().any()
            ],
        }
        for title, charts in CHARTS.items()
    ]
    names, colours, shares = info["names"], info["colours"], info.get("real_share")
    largest = lines[[SHARE + name for name in names]].max().fillna(0).to_numpy(float)
    if shares is not None:
        largest = np.fmax(largest, np.array(shares, float))
    classes = [
        {
            "title": names[k],
            "colour": safe_colour(colours[k]),
            "data": _chart(lines, SHARE + names[k], None if shares is None else shares[k], "percent"),
        }
        for k in (-largest).argsort(kind="stable")[:CLASSES]
    ]
    groups.append({"title": "Classes", "id": "classes", "charts": classes})
    return [group for group in groups if group["charts"]]


def _chart(lines: pd.DataFrame, column: str, real: float | None, form: str = "number") -> dict[str, Any]:
    """The data of a chart for charts.js."""
    low, high = (plain(lines[column + end]) if column + end in lines else [] for end in ("_low", "_high"))
    return {
        "values": plain(lines[column]),
        "low": low,
        "high": high,
        "real": None if real is None else plain([real])[0],
        "form": "count" if column in COUNTS else form,
    }


def _size(watched: Watched) -> tuple[int, int, bool] | None:
    """Width and height of the newest picture, and whether to enlarge it pixel by pixel; None if the picture is lost.

    With the size the page has its final length before its pictures are loaded.
    """
    try:
        with Image.open(watched.folder / watched.picture(len(watched.lines) - 1)) as picture:
            return picture.width, picture.height, picture.height <= TINY
    except OSError:
        return None
