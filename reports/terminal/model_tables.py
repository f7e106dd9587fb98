"""What the command shows of models and segmenters."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ..rows import rows_with_blanks
from .screen import format_interval, new_table, screen

if TYPE_CHECKING:
    import pandas as pd

    from ...dissect.generators.spec import ModelSpec
    from ...dissect.latents.result import Explored
    from ...dissect.subjects.inspection import Inspection


def show_rows(
    entries: Sequence[Any], size: str, quiet: bool, next_command: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Print models or segmenters on stdout, each with its size and state, and below what it is and its licence.

    Names are never cut short, so that a script can read them. Returns the rows.
    """
    console = Console(highlight=False, quiet=quiet)
    rows = [asdict(entry) for entry in entries]
    width = max(len(str(next(iter(row.values())))) for row in rows)
    for row in rows:
        name, title, count, _origin, licence, here = row.values()
        state = "[green]installed[/]" if here else "[yellow]not downloaded[/]"
        line = f"[bold]{escape(str(name)):<{width}}[/]  {f'{count} {size}':>11}  {state}"
        console.print(line, soft_wrap=True)
        console.print(Padding(f"[dim]{escape(f'{title}. Licence: {licence}')}[/]", (0, 0, 0, 4)))
    if next_command:
        console.print(f"Next: {shlex.join(next_command)}", soft_wrap=True)
    return rows


def show_layers(layers: dict[str, tuple[int, ...] | None]) -> None:
    """Print the layers of a model that is on this machine, on stdout."""
    table = new_table("Layers", "layer~", "number", "units", "height", "width")
    for number, (name, shape) in enumerate(layers.items(), 1):
        table.add_row(name, str(number), *map(str, shape or ()))
    if layers:
        Console().print(table)


def network_strip(layers: pd.DataFrame) -> str:
    """The layers with featuremaps in a line: neighbours that output the same shape stand together.

    >>> import pandas as pd
    >>> names, units, side = ["a", "b", "c"], [64, 64, 32], [4, 4, 8]
    >>> table = {"layer": names, "units": units, "height": side, "width": side, "kind": "featuremap"}
    >>> network_strip(pd.DataFrame(table))
    'a to b 4×4, 64 units → c 8×8, 32 units'
    """
    maps = layers[(layers.kind == "featuremap") & layers.units.notna()]
    stages = []
    for (units, height, width), rows in groupby(maps.itertuples(), lambda row: (row.units, row.height, row.width)):
        names = [row.layer for row in rows]
        name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        stages.append(f"{name} {width:g}×{height:g}, {units:g} units")
    return " → ".join(stages)


def show_inspection(inspection: Inspection, spec: ModelSpec) -> None:
    """Print what a model is, its layers, and a command to continue with, on stdout."""
    console = Console(highlight=False)
    facts = Table.grid(padding=(0, 2))
    for fact, value in (
        ("Recognised", inspection.recognised),
        ("Assumed", "; ".join(inspection.assumed)),
        ("Latents", inspection.latents),
        ("Images", f"{inspection.image[1]}×{inspection.image[0]} pixels"),
        (
            "Output",
            "{:g} to {:g}; {:.3g} to {:.3g} here".format(*inspection.output, *inspection.values),
        ),
        ("Parameters", f"{inspection.parameters:,}"),
        ("Network", network_strip(inspection.layers)),
        ("Batch norms", inspection.fingerprint),
        ("Better", f"with --latent {inspection.better}, which reproduces them" if inspection.better else ""),
        ("Cite", inspection.citation or "–"),
    ):
        if not value:
            continue
        facts.add_row(f"[dim]{fact}[/]", escape(value))
    console.print(f"[bold]{escape(inspection.name)}[/]")
    console.print(facts)
    table = new_table("Layers", "layer~", "kind*", "number", "units", "height", "width", "try*")
    for row in rows_with_blanks(inspection.layers):
        cells = [row[name] for name in ("number", "units", "height", "width")]
        numbers = ["–" if cell == "" else f"{int(cell)}" for cell in cells]
        table.add_row(escape(row["layer"]), row["kind"], *numbers, "yes" if row["suggested"] else "")
    console.print(table)
    if inspection.repeated:
        repeated = ", ".join(f"{name} ({calls} times)" for name, calls in inspection.repeated.items())
        console.print(
            f"[yellow]Cannot be dissected, since they run several times in one pass: {escape(repeated)}[/]",
            soft_wrap=True,
        )
    if inspection.candidates:
        _show_candidates(inspection)
    if inspection.first_choice:
        options = "".join(f" {shlex.quote(word)}" for word in spec.options())
        options += " --inputs …" if inspection.takes_images else ""
        options += f" --layer {shlex.quote(inspection.first_choice)}" + (
            "" if inspection.segmenter else " --segmenter …  (see dissect segmenters)"
        )
        console.print(f"Next: dissect run {escape(shlex.quote(spec.model) + options)}", soft_wrap=True)


def _show_candidates(inspection: Inspection) -> None:
    """Print the other readings of a plain chain, and where the pictures of each are."""
    console = Console(highlight=False)
    table = new_table("Candidates: the file does not tell which of these it is", "--as~", "latents~")
    for choice, latents in inspection.candidates.items():
        table.add_row(escape(choice), escape(latents))
    console.print(table)
    console.print(
        f"Images of each candidate: {escape(str(inspection.sheet))}. The first is shown above.", soft_wrap=True
    )


def show_explored(result: Explored) -> None:
    """Print the tables of a move through latents, and where its pictures are."""
    info = result.info
    if result.tables:
        steps = f"{info['strength']:g} σ, {info['measured']} samples"
        table = new_table(
            f"Directions by {info['method']} in {info['found_in']}; effects of {steps}",
            *("direction", "share", "p", "stands out in~", "side*", "points", "95 % interval*"),
        )
        for row in rows_with_blanks(result.tables["directions"]):
            none = row["class"] == ""
            change = "" if none else f"{row['change_pp']:+.2f}"
            between = "" if none else format_interval(row["change_pp_low"], row["change_pp_high"], "+.2f")
            name = "no class beyond chance" if none else escape(row["class"])
            numbers = str(row["direction"]), f"{row['share']:.1%}", f"{row['p_value']:.2g}"
            table.add_row(*numbers, name, row["sign"], change, between)
        screen.print(table)
        screen.print(
            "[dim]p: share of this and 20 random directions that change some class at least as much, relative to the "
            "class's usual change. stands out in: that class. points: its change in percentage points of the image; "
            "effects.csv has all classes.[/]"
        )
    if "mean" in info:
        between = format_interval(info["low"], info["high"], ".4g")
        screen.print(f"Perceptual path length [bold]{info['mean']:.4g}[/], 95 % {between}, {info['pairs']} pairs,")
        screen.print(f"{info['similarity']}, {info['path']} in {info['space']}, ε = {info['epsilon']:g}.")
        screen.print(f"[dim]Comparable {escape(info['comparable'])}.[/]")
    paths = [result.folder / name for name in info["pictures"]] or [result.folder / "latents.json"]
    screen.print(escape("\n".join(map(str, paths))), soft_wrap=True, highlight=False, style="dim")
