"""What the command shows of a generator's diversity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from ..rows import told_by
from .screen import ROWS, screen, shown_number, table

if TYPE_CHECKING:
    from ...dissect.diversity import Diversity

COLOURS = {"varied": "green", "lacking": "yellow", "collapsed": "red"}


def show_diversity(found: Diversity) -> None:
    """Classes that differ, metrics beside real against real, layers, and the verdict."""
    info = found.info
    _show_classes(found)
    shown = table("Whole images", "metric*", "value", "95 % interval*", "real against real", "")
    for row in found.whole.to_dict("records"):
        shown.add_row(
            row["metric"],
            f"{row['value']:.3g}",
            f"{row['low']:.3g} to {row['high']:.3g}",
            f"{row['zero']:.3g}",
            "[red]worse[/]" if row["alarm"] else "",
        )
    screen.print(shown)
    distance, support = info["segmentation_distance"], info["support"]
    most = "no upper end" if support["high"] is None else f"{support['high']:.3g}"
    least = "none" if support["low"] is None else f"{support['low']:.3g}"
    screen.print(
        f"[dim]{info['images']} images, {info['real_images']} real ones: {escape(info['real'])}; "
        f"{escape(info['config']['features'])}, not comparable with published values. Intervals: random halves. "
        f"Segmentation distance {distance['value']:.3g} (real against real {distance['zero']:.3g}). "
        f"{support['pairs']} pairs of twins where chance gives 1: support from {least} to {most}."
    )
    _show_layers(found)
    screen.print(f"[{COLOURS[info['verdict']]}]{info['verdict']}[/]: {escape(info['sentence'])}")


def _show_classes(found: Diversity) -> None:
    called = found.classes[found.classes.verdict != ""]
    shown = table(
        "Classes that differ from the real images'", "class*", "present", "real", "q", "size ratio", "verdict*"
    )
    for row in called.head(ROWS).to_dict("records"):
        shown.add_row(
            escape(row["class"]),
            f"{row['presence']:.1%}",
            f"{row['real_presence']:.1%}",
            shown_number(told_by(row), ".2g"),
            shown_number(row["size_ratio"], ".2f"),
            row["verdict"],
        )
    if len(called):
        screen.print(shown)


def _show_layers(found: Diversity) -> None:
    shown = table("Layer by layer", "layer*", "dimensions", "effective rank", "kept", "of an untrained one", "alike")
    for row in found.layers.to_dict("records"):
        shown.add_row(
            escape(row["layer"]),
            str(row["dimensions"]),
            shown_number(row["rank"], ".1f"),
            shown_number(row["kept"], ".2f"),
            shown_number(row["untrained_kept"], ".2f"),
            shown_number(row["alike"], ".1%"),
        )
    screen.print(shown)
    screen.print(
        "[dim]Kept: effective rank over that of the row before, for the same latents. Alike: share of the second "
        "moment that does not differ between samples."
    )
