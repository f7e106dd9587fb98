"""How a result looks where it is evaluated: three lines of text, or a card with pictures in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..runtime import late


class Shown:
    """A result with a text of three lines, and HTML for notebooks. A damaged result shows its kind and folder alone."""

    @property
    def _folder(self) -> Path | None:
        """Where the result is kept; None if it is not."""
        folder: Path | None = getattr(self, "folder", None)
        return folder

    def _title(self) -> str:
        """What it is, of what, on how many samples."""
        raise NotImplementedError

    def _headline(self) -> str:
        """Its main numbers with their intervals, or its verdict."""
        raise NotImplementedError

    def _where(self) -> str:
        """The last line."""
        return f"in {self._folder}" if self._folder else "not kept in a folder"

    def __repr__(self) -> str:
        kind = type(self).__name__
        try:
            lines = [f"{kind}: {self._title()}", self._headline()]
        except Exception as error:  # whatever a damaged file leads to; a debugger must be able to show the object
            lines = [f"{kind}: cannot be described ({type(error).__name__})"]
        return "\n  ".join([*lines, self._where()])

    def _repr_html_(self) -> str | None:
        """The card of a notebook; None, so that IPython takes the text, where a file is damaged."""
        try:
            html: str = late.notebook().html(self)
        except Exception:  # a notebook would show a traceback in place of the result
            return None
        return html


def interval(value: float | None, low: float | None, high: float | None, form: str = "+.0f", unit: str = " %") -> str:
    """A number with its 95 % interval; a dash where there is none.

    >>> interval(-55.2, -63.1, -47.4), interval(0.268, 0.25, 0.29, ".2f", "")
    ('−55 % [−63, −47]', '0.27 [0.25, 0.29]')
    >>> interval(None, None, None)
    '–'
    """
    if value is None or value != value:
        return "–"
    text = f"{value:{form}}{unit}"
    if low is not None and high is not None and low == low and high == high:
        text += f" [{low:{form}}, {high:{form}}]"
    return text.replace("-", "−")


def listing(names: Iterable[object], most: int = 4) -> str:
    """Some names, and how many more there are.

    >>> listing(["tree", "sky"]), listing("abcdef", 2)
    ('tree, sky', 'a, b and 4 more')
    """
    texts = [str(name) for name in names]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")
