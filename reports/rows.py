"""Rows of tables, and numbers in them, as templates and terminals show them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def format_number(value: float | None, form: str) -> str:
    """A number, a dash where there is none, and no sign before a zero.

    >>> format_number(0.2345, "+.1%"), format_number(-0.0001, "+.2f"), format_number(float("nan"), ".3f")
    ('+23.4%', '0.00', '–')
    """
    text = "–" if value is None or value != value else format(value, form)  # only NaN differs from itself
    return text if re.search("[1-9]", text) else text.lstrip("+-")


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table for JSON: missing numbers are null."""
    rows: list[dict[str, object]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return rows


def rows_with_blanks(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, with empty text for what is missing."""
    return [dict(row) for row in table.astype(object).where(table.notna(), "").to_dict("records")]


def by_change(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows of an effects table, which may have none, from the largest change to the smallest."""
    return effects.sort_values("change_pp", key=abs, ascending=False, kind="stable") if len(effects) else effects


def verdict_q(row: Mapping[str, Any]) -> Any:
    """The q-value that a class's verdict rests on.

    >>> verdict_q({"verdict": "smaller", "q_size": 0.01, "q_presence": 0.5})
    0.01
    """
    return row["q_size"] if row["verdict"] in ("smaller", "larger") else row["q_presence"]
