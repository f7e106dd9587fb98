"""What the command shows on the screen: tables on stderr, so that stdout holds results alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ..rows import format_number
from .screen import ROWS, area_cells, changed_cell, format_interval, new_table, screen

if TYPE_CHECKING:  # pandas and numpy are imported when a command has something to show
    import pandas as pd

    from ...dissect.interventions.result import Effects
    from ...dissect.runs.compare import Comparison
    from ...dissect.runs.dissection import Dissection


def show_run(run: Dissection, summary: pd.DataFrame) -> None:
    """Layers beside their controls, best units, and units that are constant or not finite."""
    config, plural = run.info["config"], f"{run.noun}s"
    tested = config["significance"] != "off"
    title = f"{config['model']}: {config['samples']} samples" + ("" if run.noun == "unit" else f", {config['basis']}")
    columns = ["layer*", plural, *(["in limits"] if tested else []), "labelled", "classes", "mean IoU"]
    table = new_table(escape(title), *columns)
    controls = {name: control.summary() for name, control in run.controls.items()}
    for index, row in enumerate(summary.to_dict("records")):
        table.add_row(*_layer_cells(row, row["layer"], tested))
        for name, control in controls.items():
            table.add_row(*_layer_cells(control.iloc[index].to_dict(), f"  {name}", tested), style="dim")
    screen.print(table)
    if tested:
        screen.print(
            "[dim]in limits: the unit's scores reach the rule's limits. labelled: and place or chance do not explain "
            "them, at a false discovery rate of 5 %."
        )
    best = run.units[run.units.labelled].nlargest(8, "content_iou" if tested else "iou")
    if len(best):
        more_columns = ["95 % interval*", "place", "IQR", "q"] if tested else ["chance", "IQR"]
        ranked = f"Best {plural}" + (", by IoU above place" if tested else "")
        table = new_table(ranked, "layer*", run.noun, "label*", "IoU", *more_columns)
        for row in best.to_dict("records"):
            cells = [f"{row['chance_iou']:.3f}", f"{row['iqr']:.3f}"]
            if tested:
                between = format_interval(row["iou_low"], row["iou_high"], ".3f")
                cells = [between, f"{row['position_iou']:.3f}", f"{row['iqr']:.3f}", f"{row['q_value']:.2g}"]
            table.add_row(escape(row["layer"]), str(row["unit"]), escape(row["label"]), f"{row['iou']:.3f}", *cells)
        screen.print(table)
        meaning = (
            "place: the IoU expected when the label maps are shuffled among the images"
            if tested
            else "chance: the IoU of an unrelated mask of the same size"
        )
        screen.print(f"[dim]IoU: overlap with the label's class. {meaning}.")
    if deviation := run.info.get("deviation"):
        screen.print(
            f"[dim]{config['precision']} against float32, on the first samples: images differ by "
            f"{deviation['images']:.2g} of 1 on average, and labels in {100 * deviation['labels']:.2g} % of the pixels."
        )
    odd = run.units[run.units.state != "ok"]
    for (layer, state), units in odd.groupby(["layer", "state"]).unit:
        more = ", …" if len(units) > 12 else ""
        screen.print(
            f"[yellow]{escape(layer)}: {len(units)} {plural} {state}: {', '.join(map(str, units.head(12)))}{more}"
        )


def _layer_cells(row: dict[str, Any], name: str, tested: bool) -> list[str]:
    """The cells of one layer, or of its control."""
    share = f"{row['labelled']} ({row['labelled'] / row['units']:.0%})"
    mean = format_number(row["mean_iou"], ".3f")
    limits = [str(row["reach_limits"])] if tested else []
    return [escape(name), str(row["units"]), *limits, share, str(row["classes"]), mean]


def show_comparison(comparison: Comparison) -> None:
    """What each side labels, and what it gained and lost compared with the first."""
    table = new_table("Comparison", "side*", "units", "labelled", "classes", "mean IoU", "correspond")
    summary = comparison.summary().to_dict("records")
    for row in summary:
        pairs = f"{row['corresponding']} of {row['pairs']}" if row["pairs"] else ""
        cells = [row["units"], row["labelled"], row["classes"], format_number(row["mean_iou"], ".3f"), pairs]
        table.add_row(escape(f"{row['side']} {row['run']}"), *map(str, cells))
    screen.print(table)
    for row in summary[1:]:
        changes = comparison.classes[f"change_{row['side']}"]
        names = {kind: ", ".join(comparison.classes["class"][changes == kind]) or "none" for kind in ("gained", "lost")}
        screen.print(escape(f"{row['side']} beside A: gained {names['gained']}; lost {names['lost']}"))
    screen.print(
        "[dim]gained, lost: classes that label a unit in only one of the two. correspond: units whose activations on "
        "the same latents correlate more than place and chance explain."
    )
    if comparison.unlike:
        screen.print(
            "[yellow]The runs differ in settings on which the number of labels depends: "
            f"{escape(', '.join(comparison.unlike))}"
        )


def show_power(power: pd.DataFrame) -> None:
    """The IoU that could be detected, class by class."""
    settings = power.attrs
    title = f"{settings['samples']} samples: the IoU that could be detected, class by class"
    table = new_table(title, "layer*", "class*", "units", "IoU", "place", "detectable", "interval ±", "samples")
    for row in power.to_dict("records"):
        numbers = (f"{row[name]:.3f}" for name in ("iou", "position_iou", "detectable_iou"))
        width = f"{row['interval_width'] / 2:.4f}"
        table.add_row(
            escape(row["layer"]), escape(row["class"]), str(row["units"]), *numbers, width, str(row["samples_needed"])
        )
    screen.print(table)
    screen.print(
        "[dim]Medians over the power whose scores reach the rule's limits. place: the IoU expected when the label maps "
        f"are shuffled. detectable: the smallest IoU that is labelled with probability {settings['power']:g}, at "
        f"p ≤ {settings['alpha']:.2g}, the limit in this run. samples: needed for intervals {settings['width']:g} wide "
        f"(± {settings['width'] / 2:g})."
    )


def show_effects(effects: Effects) -> None:
    """The classes that changed most, beside random sets of units, and whatever else was measured."""
    info, samples = effects.info, effects.info["samples"]
    unseen = "" if info["chosen_on"] is None else ", which were not used to choose the units"
    done = "ablated" if info["kind"] == "ablate" else f"inserted ({info['where']})"
    value, units = escape(str(info["value"])), _list(info["units"])
    screen.print(f"[bold]{_units(info['units'])} of {escape(info['layer'])} {escape(done)}[/], value {value}: {units}")
    screen.print(
        f"[dim]{samples['number']} samples from {samples['first']} to {samples['last']}{unseen}; each is compared with "
        "itself unchanged" + (f"; {samples['skipped']} more had no such place" if samples["skipped"] else "") + "."
    )
    random = "random_relative" in effects.table
    columns = ["class*", "before", "after", "rel.", "95 %*", "points"]
    table = new_table("Area of the classes, %", *columns, *(["random*"] if random else []), "changed*")
    for row in effects.ordered.head(ROWS).to_dict("records"):
        baseline = []
        if random:
            low = min(row["random_relative_min"], row["matched_relative_min"]) * 100
            baseline = [
                format_interval(low, max(row["random_relative_max"], row["matched_relative_max"]) * 100, "+.0f")
            ]
        name = escape(row["class"])
        table.add_row(
            f"[bold]{name}[/]" if row["class"] == info["label"] else name,
            *area_cells(row),
            f"{row['change_pp']:+.2f}",
            *baseline,
            changed_cell(row),
        )
    screen.print(table)
    notes = "rel.: change in % of the area before, with its bootstrap interval over images. "
    notes += "points: percentage points of the image. changed: at a false discovery rate of 5 %"
    if random:
        sets = int((effects.sets.set == "random").sum())
        notes += f". random: smallest to largest of {sets} random sets of as many units, and {sets} of units as active"
    screen.print(f"[dim]{notes}.")
    if info.get("on_target", {}).get("on_target") is not None:
        _show_on_target(effects)
    if effects.curve is not None:
        _show_curve(effects.curve, info["label"])
    if effects.context is not None:
        _show_context(effects.context, info["label"])


def _show_on_target(effects: Effects) -> None:
    target, sets = effects.info["on_target"], effects.sets
    others = sets[sets.set.isin(("random", "matched"))].on_target
    between = format_interval(target["on_target_low"], target["on_target_high"], ".0%")
    screen.print(
        f"On target: {target['on_target']:.0%} {between} of the pixels whose label changed were or became "
        f"{escape(effects.info['label'])}"
        + (f"; random sets {format_interval(others.min(), others.max(), '.0%')}" if len(others) else "")
    )
    for row in sets[sets.set == "by_iou"].to_dict("records"):
        between = format_interval(row["change_pp_low"], row["change_pp_high"], "+.2f")
        screen.print(
            f"As many units, the best by IoU: change {row['change_pp']:+.2f} {between}, "
            f"{format_number(row['on_target'], '.0%')} on target"
        )


def _show_curve(curve: pd.DataFrame, label: str) -> None:
    table = new_table(f"Area of {escape(label)} that remains", "units", "remaining", "95 % interval*", "random sets*")
    for row in curve.to_dict("records"):
        random = format_interval(row["random_min"], row["random_max"], ".0%") if "random" in row else "–"
        table.add_row(
            str(row["units"]),
            format_number(row["remaining"], ".0%"),
            format_interval(row["low"], row["high"], ".0%"),
            random,
        )
    screen.print(table)


def _show_context(context: pd.DataFrame, label: str) -> None:
    title = f"{escape(label)} gained, by the class that was at the place before"
    table = new_table(title, "place*", "places", "images", "change", "95 % interval*", "random sets", "q")
    for row in context.head(ROWS).to_dict("records"):
        table.add_row(
            escape(row["class"]),
            str(row["places"]),
            str(row["images"]),
            f"{row['change_pp']:+.4f}",
            format_interval(row["low"], row["high"], "+.4f"),
            format_number(row.get("random_pp", float("nan")), "+.4f"),
            f"{row['q_value']:.3f}",
        )
    screen.print(table)
    screen.print("[dim]change: percentage points of the image when one cell is edited, mean over the places.")


def show_scan(units: pd.DataFrame, info: dict[str, Any]) -> None:
    """The units of a layer with the strongest effects, and how well IoU predicts the effects."""
    title = f"{info['layer']}: each unit ablated by itself, {info['samples']} samples"
    table = new_table(escape(title), "unit", "label*", "IoU", "rank", "change", "95 % interval*", "rank", "also*")
    others = [name for name in units if name.startswith("pp:") and name != f"pp:{info['class']}"]
    for row in units.head(10).to_dict("records"):
        side = max(others, key=lambda name: abs(row[name]))
        table.add_row(
            str(row["unit"]),
            escape(row["label"]) if row["labelled"] else "–",
            f"{row['iou']:.3f}",
            str(row["iou_rank"]),
            f"{row['change_pp']:+.3f}",
            format_interval(row["low"], row["high"], "+.3f"),
            str(row["causal_rank"]),
            f"{escape(side.removeprefix('pp:'))} {row[side]:+.2f}",
        )
    screen.print(table)
    label = escape(info["class"])
    between = format_interval(info["rank_correlation_low"], info["rank_correlation_high"], ".2f")
    screen.print(
        f"[dim]IoU and change with {label}, in percentage points of the image ({info['before_pp']:.2f} before); ranks "
        f"among {len(units)} units. {info['changed']} units change it at a false discovery rate of 5 %; the 20 "
        f"strongest add up to {info['strongest']:+.2f}. Rank correlation of IoU and effect: "
        f"{format_number(info['rank_correlation'], '.2f')} {between}."
    )


def _units(units: Sequence[int]) -> str:
    """The number of units in words.

    >>> _units([7]), _units([1, 2])
    ('1 unit', '2 units')
    """
    return "1 unit" if len(units) == 1 else f"{len(units)} units"


def _list(units: Sequence[int]) -> str:
    return ", ".join(map(str, units[:24])) + (", …" if len(units) > 24 else "")
