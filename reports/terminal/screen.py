"""Tables on a terminal, and how many of their rows are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..rows import format_number

screen = Console(stderr=True)

ROWS = 14  # of a table that are shown at most; the files hold all


def new_table(title: str, *columns: str) -> Table:
    """An empty table.

    Columns marked * or ~ are aligned left; those marked ~ hold names, which fold where there is little room.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in columns:
        table.add_column(
            name.rstrip("*~"),
            justify="left" if name.endswith(("*", "~")) else "right",
            no_wrap=not name.endswith("~"),
            overflow="fold",
        )
    return table


def interval_text(low: float | None, high: float | None, form: str) -> str:
    """An interval.

    >>> interval_text(None, 0.25, ".0%")
    '[–, 25%]'
    """
    return f"[{format_number(low, form)}, {format_number(high, form)}]"


def format_interval(low: float | None, high: float | None, form: str) -> str:
    r"""An interval as rich prints it, with the opening bracket escaped.

    >>> print(format_interval(0.125, 0.25, ".2f"))
    \[0.12, 0.25]
    """
    return f"\\{interval_text(low, high, form)}"


def area_cells(row: Mapping[str, Any]) -> list[str]:
    """A class's area before and after in % of the pixels, and the relative change with its interval."""
    return [
        f"{row['before'] * 100:.2f}",
        f"{row['after'] * 100:.2f}",
        format_number(row["relative"] * 100, "+.0f"),
        format_interval(row["relative_low"] * 100, row["relative_high"] * 100, "+.0f"),
    ]


def changed_cell(row: Mapping[str, Any]) -> str:
    return "[green]yes[/]" if row["changed"] else "no"
