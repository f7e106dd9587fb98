"""What the command shows of checkpoints: a line for each one while watching, and which one is fittest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from .diversity_tables import COLOURS
from .screen import ROWS, format_interval, new_table, screen

if TYPE_CHECKING:
    from ...dissect.candidates import Fitness

NAME = 26  # last letters of a candidate's name that are shown
LARGEST = 4  # classes that a line shows
SHARE = "share:"  # prefix of a class's column
FIGURES = {  # columns of a line, which fit 80 characters, and the forms of their numbers; the page has them all
    "deviation": ".3f",
    "vendi": ".2f",
    "twins": ".0%",
    "precision": ".2f",
    "coverage": ".2f",
    "ripple": "+.1f",
}


def show_heading() -> None:
    """Print the headings of the columns of `show_line`."""
    names = "".join(f"{name:>10}" for name in FIGURES)
    screen.print(f"[bold]{'step':>8}  {'verdict':<9}{names}[/]", soft_wrap=True, highlight=False)


def show_line(row: Mapping[str, Any]) -> None:
    """Print one checkpoint, the largest classes below it, and its alarms."""
    cells = "".join(f"{_cell(row.get(name), form):>10}" for name, form in FIGURES.items())
    shares = {name.removeprefix(SHARE): share for name, share in row.items() if name.startswith(SHARE)}
    largest = sorted(shares, key=lambda name: -shares[name])[:LARGEST]
    classes = ", ".join(f"{escape(name)} {shares[name]:.0%}" for name in largest)
    verdict = f"[{COLOURS.get(row['verdict'], 'none')}]{row['verdict'] or '–':<9}[/]"
    screen.print(f"{row['step']:>8g}  {verdict}{cells}", soft_wrap=True, highlight=False)
    if classes:
        screen.print(f"{'':>8}  [dim]{classes}[/]", soft_wrap=True, highlight=False)
    if row["alarms"]:
        screen.print(f"{'':>8}  [bold red]alarm: {escape(row['alarms'])}[/]", soft_wrap=True, highlight=False)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def show_fitness(fitness: Fitness) -> None:
    """Candidates beside real images, fittest first, and which to take."""
    info = fitness.info
    table = new_table("Fitness", "candidate~", "quality", "diversity", "fitness", "behind by*", "tied*")
    for row in fitness.table.head(ROWS).to_dict("records"):
        behind = "" if math.isnan(row["behind_low"]) else format_interval(row["behind_low"], row["behind_high"], ".3f")
        table.add_row(
            escape(row["candidate"][-NAME:]),
            f"{row['quality']:.3f}",
            f"{row['diversity']:.3f}",
            f"{row['fitness']:.3f}",
            behind,
            "[green]yes[/]" if row["equal"] else "",
        )
    zero = [f"{info['zero'][name]['value']:.3f}" for name in ("quality", "diversity", "fitness")]
    table.add_row("real images", *zero, "", "", style="dim")
    screen.print(table)
    if "critic_quality" in fitness.table:
        _show_critic(fitness)
    screen.print(
        f"[dim]{info['compared']} of {info['images']} images of each candidate beside {escape(info['reference'])}. "
        f"Features: {escape(info['features'])}. quality: precision. diversity: coverage. fitness: their harmonic mean. "
        "behind by: 95 % interval of the fittest candidate's fitness minus this one's, widened for the number of "
        "candidates. tied: no significant difference from the fittest."
    )
    screen.print(escape(info["sentence"]))


def _show_critic(fitness: Fitness) -> None:
    table = new_table("By the critic", "candidate~", "quality", "95 % interval*", "diversity", "95 % interval*")
    for row in fitness.table.head(ROWS).to_dict("records"):
        cells = []
        for name in ("critic_quality", "critic_diversity"):
            cells += [f"{row[name]:.3g}", format_interval(row[f"{name}_low"], row[f"{name}_high"], ".3g")]
        table.add_row(escape(row["candidate"][-NAME:]), *cells)
    screen.print(table)
    screen.print(
        f"[dim]{escape(str(fitness.info['critic']))}. quality: mean score. diversity: minus the logarithm of the norm "
        "of its loss's gradient (Wang et al. 2018). A critic favours the candidate that it was trained against."
    )
