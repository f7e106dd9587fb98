"""Results as cards in a notebook: HTML without scripts, in the colours of its surroundings."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..page import _template
from .cards import card_of

if TYPE_CHECKING:
    from ...dissect.runs.dissection import Dissection
    from ...dissect.storage.shown import Shown

__all__ = ["html", "report", "show"]


def html(result: Shown, **options: Any) -> str:
    """The card of a result: what it is, its headline, pictures, and where it is kept.

    Args:
        result: any result of `ganatomy.dissect`.
        options: of its card; a `Unit` takes `count`, a `Sample` takes `heat`.
    """
    return _template("notebook.html").render(card=card_of(result, **options))


def show(result: Shown, **options: Any) -> None:
    """Display a result in a notebook; print its text where there is none."""
    try:
        from IPython import get_ipython
        from IPython.display import HTML, display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        print(result)
    else:
        display({"text/html": HTML(html(result, **options)).data, "text/plain": repr(result)}, raw=True)


def report(run: Dissection, *, open: bool, single_file: bool) -> Path:
    """Write the report of a run; see `Dissection.report`."""
    from ..pages import write_report

    page = write_report(run, single_file=single_file)
    if open:
        webbrowser.open(page.resolve().as_uri())
    return page
