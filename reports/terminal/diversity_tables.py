"""What the command shows of a generator's diversity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from ..rows import verdict_q
from .screen import ROWS, format_number, new_table, screen

if TYPE_CHECKING:
    from ...dissect.diversity import Diversity

COLOURS = {"varied": "green", "lacking": "yellow", "collapsed": "red"}


def show_diversity(diversity: Diversity) -> None:
    """Classes that differ, metrics beside real against real, layers, and the verdict."""
    info = diversity.info
    _show_classes(diversity)
    table = new_table("Whole images", "metric~", "value", "95 % interval*", "real against real", "worse*")
    for row in diversity.whole.to_dict("records"):
        table.add_row(
            row["metric"],
            f"{row['value']:.3g}",
            f"{row['low']:.3g} to {row['high']:.3g}",
            f"{row['zero']:.3g}",
            "[red]yes[/]" if row["alarm"] else "",
        )
    screen.print(table)
    distance, support = info["segmentation_distance"], info["support"]
    support_high = "no upper end" if support["high"] is None else f"{support['high']:.3g}"
    support_low = "none" if support["low"] is None else f"{support['low']:.3g}"
    screen.print(
        f"[dim]{info['images']} generated and {info['real_images']} real images: {escape(info['real'])}. Features: "
        f"{escape(info['config']['features'])}; values are not comparable with published ones. Intervals are over "
        f"random halves. Segmentation distance {distance['value']:.3g} (real against real {distance['zero']:.3g}). "
        f"{support['pairs']} pairs of twins, where chance gives 1: support from {support_low} to {support_high}."
    )
    _show_layers(diversity)


def _show_classes(diversity: Diversity) -> None:
    differing = diversity.classes[diversity.classes.verdict != ""]
    table = new_table(
        "Classes that differ from the real images", "class~", "present", "real", "q", "size ratio", "verdict*"
    )
    for row in differing.head(ROWS).to_dict("records"):
        table.add_row(
            escape(row["class"]),
            f"{row['presence']:.1%}",
            f"{row['real_presence']:.1%}",
            format_number(verdict_q(row), ".2g"),
            format_number(row["size_ratio"], ".2f"),
            row["verdict"],
        )
    if len(differing):
        screen.print(table)


def _show_layers(diversity: Diversity) -> None:
    table = new_table("Layer by layer", "layer~", "dimensions", "effective rank", "kept", "untrained", "alike")
    for row in diversity.layers.to_dict("records"):
        table.add_row(
            escape(row["layer"]),
            str(row["dimensions"]),
            format_number(row["rank"], ".1f"),
            format_number(row["kept"], ".2f"),
            format_number(row["untrained_kept"], ".2f"),
            format_number(row["alike"], ".1%"),
        )
    screen.print(table)
    screen.print(
        "[dim]kept: effective rank divided by that of the row above, for the same latents; untrained: the same of an "
        "untrained network. alike: share of the second "
        "moment that is the same in all samples."
    )
