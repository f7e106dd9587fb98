"""Tables on a terminal: numbers, intervals, and how many rows are shown."""

from __future__ import annotations

import re

from rich import box
from rich.console import Console
from rich.table import Table

screen = Console(stderr=True)


ROWS = 14  # of a table, at most; the files hold all


def table(title: str, *columns: str) -> Table:
    """A table whose columns marked * are text, the others numbers."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in columns:
        made.add_column(name.rstrip("*"), justify="left" if name.endswith("*") else "right", no_wrap=True)
    return made


def shown_number(value: float | None, form: str) -> str:
    text = "–" if value is None or value != value else format(value, form)
    return text.lstrip("+-") if not re.search("[1-9]", text) else text


def shown_interval(low: float | None, high: float | None, form: str) -> str:
    return f"\\[{shown_number(low, form)}, {shown_number(high, form)}]"
