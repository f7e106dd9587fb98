"""What the command shows of candidates: a line a checkpoint as it is watched, and which is fittest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from .diversity_tables import COLOURS
from .screen import ROWS, screen, shown_interval, table

if TYPE_CHECKING:
    from ...dissect.candidates import Fitness

NAME = 30  # letters of a candidate's name, its last ones
LARGEST = 4  # classes of a line
SHARE = "share:"  # before a class's name
FIGURES = {  # of a line, and their forms
    "deviation": ".3f",
    "spread": ".2f",
    "vendi": ".2f",
    "twins": ".0%",
    "precision": ".2f",
    "coverage": ".2f",
    "ripple": "+.1f",
    "labelled": ".0f",
}


def show_heading() -> None:
    """What the columns of `show_line` are."""
    names = "".join(f"{name:>11}" for name in FIGURES)
    screen.print(f"[bold]{'step':>9}  {'verdict':<10}{names}  largest classes[/]", soft_wrap=True, highlight=False)


def show_line(row: Mapping[str, Any]) -> None:
    """One checkpoint, and its alarms."""
    cells = "".join(f"{_cell(row.get(name), form):>11}" for name, form in FIGURES.items())
    shares = {name.removeprefix(SHARE): share for name, share in row.items() if name.startswith(SHARE)}
    most = sorted(shares, key=lambda name: -shares[name])[:LARGEST]
    said = ", ".join(f"{escape(name)} {shares[name]:.0%}" for name in most)
    verdict = f"[{COLOURS.get(row['verdict'], 'none')}]{row['verdict'] or '–':<10}[/]"
    screen.print(f"{row['step']:>9g}  {verdict}{cells}  {said}", soft_wrap=True, highlight=False)
    if row["alarms"]:
        screen.print(f"{'':>9}  [bold red]alarm: {escape(row['alarms'])}[/]", soft_wrap=True, highlight=False)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def show_fitness(found: Fitness) -> None:
    """Candidates beside real images, fittest first, and which to take."""
    info = found.info
    shown = table("Fitness", "candidate*", "quality", "diversity", "fitness", "behind by*", "")
    for row in found.table.head(ROWS).to_dict("records"):
        behind = "" if math.isnan(row["behind_low"]) else shown_interval(row["behind_low"], row["behind_high"], ".3f")
        shown.add_row(
            escape(row["candidate"][-NAME:]),
            f"{row['quality']:.3f}",
            f"{row['diversity']:.3f}",
            f"{row['fitness']:.3f}",
            behind,
            "[green]as fit[/]" if row["equal"] else "",
        )
    zero = [f"{info['zero'][name]['value']:.3f}" for name in ("quality", "diversity", "fitness")]
    shown.add_row("real images", *zero, "", "", style="dim")
    screen.print(shown)
    if "critic_quality" in found.table:
        _show_critic(found)
    screen.print(
        f"[dim]{info['compared']} of {info['images']} images each beside {escape(info['reference'])}; "
        f"{escape(info['features'])}. Quality: precision; diversity: coverage; fitness: their harmonic mean; behind "
        "by: 95 % interval of the fittest's fitness less this one's, widened for the number of candidates."
    )
    screen.print(escape(info["sentence"]))


def _show_critic(found: Fitness) -> None:
    shown = table("By the critic", "candidate*", "quality", "95 % interval*", "diversity", "95 % interval*")
    for row in found.table.head(ROWS).to_dict("records"):
        cells = []
        for name in ("critic_quality", "critic_diversity"):
            cells += [f"{row[name]:.3g}", shown_interval(row[f"{name}_low"], row[f"{name}_high"], ".3g")]
        shown.add_row(escape(row["candidate"]), *cells)
    screen.print(shown)
    screen.print(
        f"[dim]{escape(str(found.info['critic']))}: mean score; minus the logarithm of the norm of its loss's gradient "
        "(Wang et al. 2018). A critic favours the candidate that it was trained against."
    )
