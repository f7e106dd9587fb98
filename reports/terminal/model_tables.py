"""What the command shows of models and segmenters."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..rows import blanks
from .screen import screen, shown_interval, table

if TYPE_CHECKING:
    from ...dissect.generators.spec import ModelSpec
    from ...dissect.latents.result import Explored
    from ...dissect.subjects.inspection import Inspection


def show_rows(listed: Sequence[Any], size: str, quiet: bool) -> list[dict[str, object]]:
    """A line for each row on stdout and, dimmed, where it comes from; names are never cut short. Returns the rows."""
    console = Console(soft_wrap=True, highlight=False, quiet=quiet)
    rows = [asdict(one) for one in listed]
    for row in rows:
        name, title, number, origin, licence, here = row.values()
        where = "[green]here[/]" if here else "[yellow]to fetch[/]"
        console.print(f"[bold]{escape(str(name))}[/]  {where}  {escape(str(title))}, {size.format(number)}")
        console.print(f"    [dim]{escape(str(origin))}; {escape(str(licence))}")
    return rows


def show_layers(layers: dict[str, tuple[int, ...] | None]) -> None:
    """The layers of a model that is here, on stdout."""
    shown = table("Layers", "layer*", "number", "units", "height", "width")
    for number, (name, shape) in enumerate(layers.items(), 1):
        shown.add_row(name, str(number), *map(str, shape or ()))
    if layers:
        Console().print(shown)


def show_inspection(found: Inspection, spec: ModelSpec) -> None:
    """What a model is, its layers, and a command to go on with, on stdout."""
    console = Console(highlight=False)
    facts = Table.grid(padding=(0, 2))
    for fact, value in (
        ("Recognised", found.recognised),
        ("Assumed", "; ".join(found.assumed)),
        ("Latents", found.latents),
        ("Images", f"{found.image[1]}×{found.image[0]} pixels"),
        ("Output", f"{found.output[0]:g} to {found.output[1]:g}; {found.values[0]:.3g} to {found.values[1]:.3g} here"),
        ("Parameters", f"{found.parameters:,}"),
        ("Batch norms", found.fingerprint),
        ("Better", f"with --latent {found.better} it would reproduce them" if found.better else ""),
        ("Cite", found.citation or "–"),
    ):
        if not value:
            continue
        facts.add_row(f"[dim]{fact}[/]", escape(value))
    console.print(f"[bold]{escape(found.name)}[/]")
    console.print(facts)
    shown = table("Layers", "layer*", "kind*", "number", "units", "height", "width", "try*")
    for row in blanks(found.layers):
        cells = [row[name] for name in ("number", "units", "height", "width")]
        numbers = ["–" if cell == "" else f"{int(cell)}" for cell in cells]
        shown.add_row(escape(row["layer"]), row["kind"], *numbers, "yes" if row["suggested"] else "")
    console.print(shown)
    if found.repeated:
        named = ", ".join(f"{name} ({calls} times)" for name, calls in found.repeated.items())
        console.print(
            f"[yellow]Run several times in a pass, so not to be dissected: {escape(named)}[/]", soft_wrap=True
        )
    if found.candidates:
        _show_candidates(found)
    wanted = found.layers[found.layers.suggested]
    if len(wanted):
        middle = wanted.iloc[len(wanted) // 2].layer
        given = "".join(f" {shlex.quote(word)}" for word in spec.options())
        given += " --inputs …" if found.takes_images else ""
        given += f" --layer {shlex.quote(middle)}" + (
            "" if found.segmenter else " --segmenter …  (see dissect segmenters)"
        )
        console.print(f"Go on: dissect run --model {escape(shlex.quote(spec.model) + given)}", soft_wrap=True)


def _show_candidates(found: Inspection) -> None:
    """What may be meant as well, and where to look."""
    console = Console(highlight=False)
    shown = table("Candidates: nothing in the file tells these apart", "--as*", "latents*")
    for choice, latents in found.candidates.items():
        shown.add_row(escape(choice), escape(latents))
    console.print(shown)
    console.print(f"What each draws: {escape(str(found.sheet))}. The first is shown above.", soft_wrap=True)


def show_explored(found: Explored) -> None:
    """What moving through latents gave: tables on stderr, files on stdout."""
    info = found.info
    if found.tables:
        steps = f"{info['strength']:g} σ, {info['measured']} samples"
        shown = table(
            f"Directions by {info['method']} in {info['found_in']}; effects of {steps}",
            *("direction", "share", "p", "stands out in*", "side*", "points", "95 % interval*"),
        )
        for row in blanks(found.tables["directions"]):
            none = row["class"] == ""
            change = "" if none else f"{row['change_pp']:+.2f}"
            between = "" if none else shown_interval(row["change_pp_low"], row["change_pp_high"], "+.2f")
            name = "nothing beyond chance" if none else escape(row["class"])
            start = str(row["direction"]), f"{row['share']:.1%}", f"{row['p_value']:.2g}"
            shown.add_row(*start, name, row["sign"], change, between)
        screen.print(shown)
        screen.print(
            "[dim]p: the share of it and 20 random directions that change some class as much, in units of what is usual"
            " for the class. That class, and by how many points of the image; effects.csv has all.[/]"
        )
    if "mean" in info:
        between = shown_interval(info["low"], info["high"], ".4g")
        screen.print(f"Perceptual path length [bold]{info['mean']:.4g}[/], 95 % {between}, {info['pairs']} pairs,")
        screen.print(f"{info['similarity']}, {info['path']} in {info['space']}, ε = {info['epsilon']:g}.")
        screen.print(f"[dim]Comparable {escape(info['comparable'])}.[/]")
    paths = [found.folder / name for name in info["pictures"]] or [found.folder / "latents.json"]
    Console(soft_wrap=True, highlight=False).print("\n".join(map(str, paths)))
