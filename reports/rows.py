"""Rows of tables as templates and terminals show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def records(shown: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table for JSON: what is no number is null."""
    rows: list[dict[str, object]] = shown.astype(object).where(shown.notna(), None).to_dict("records")
    return rows


def blanks(shown: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, with empty text for what is missing."""
    return [dict(row) for row in shown.astype(object).where(shown.notna(), "").to_dict("records")]


def told_by(row: Mapping[str, Any]) -> Any:
    """The q-value that a class's verdict rests on."""
    return row["q_size"] if row["verdict"] in ("smaller", "larger") else row["q_presence"]
