"""The model card of a repaired generator, in Markdown: what was changed, and what was measured then."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined, Template

from ..fidelity.distances import BEFORE


@cache
def _template() -> Template:
    """The card's template; what it makes is Markdown, so that nothing is escaped for HTML."""
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False
    )
    return environment.from_string(files(__package__).joinpath("templates/card.md").read_text(encoding="utf-8"))


def card(
    title: str,
    info: dict[str, Any],
    *,
    changes: Sequence[str],
    origin: str,
    random: str,
    fidelity: pd.DataFrame,
    effects: pd.DataFrame | None,
    grid: pd.DataFrame | None = None,
) -> str:
    """The card.

    Args:
        info: see `result.Repair`.
        changes: what was changed, a line of Markdown each.
        origin: on which samples the change was chosen, as a sentence.
        random: what the random sets are.
        fidelity, effects, grid: see `result.Repair`; None leaves a section out.
    """
    changed = None
    if effects is not None:
        by_size = effects[effects.changed].sort_values("change_pp", key=abs, ascending=False)
        changed = by_size.to_dict("records")
    sets = [(name, list(rows.itertuples())) for name, rows in fidelity.groupby("set", sort=False)]
    return _template().render(
        title=title,
        info=info,
        changes=changes,
        origin=origin,
        random=random,
        metrics=list(fidelity[fidelity.set == BEFORE].metric),
        sets=sets,
        changed=changed,
        grid=grid,
    )
