"""What the command shows on the screen: tables on stderr, so that stdout holds results alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ...dissect.interventions.scan_verdict import caution, verification
from ..rows import format_number
from .screen import ROWS, area_cells, changed_cell, format_interval, new_table, screen
from .sentences import count

if TYPE_CHECKING:  # pandas and numpy are imported when a command has something to show
    import pandas as pd

    from ...dissect.interventions.result import Effects
    from ...dissect.runs.compare import Comparison
    from ...dissect.runs.dissection import Dissection


BEST = 8  # units that are shown


def show_run(run: Dissection, summary: pd.DataFrame) -> None:
    """Layers beside their controls, best units, and units that are constant or not finite."""
    config, plural = run.info["config"], f"{run.noun}s"
    tested = config["significance"] != "off"
    title = f"{config['model']}: {config['samples']} samples" + ("" if run.noun == "unit" else f", {config['basis']}")
    columns = ["layer~", plural, *(["pass rule"] if tested else []), "labelled", "classes", "mean IoU"]
    table = new_table(escape(title), *columns)
    controls = {name: control.summary() for name, control in run.controls.items()}
    for index, row in enumerate(summary.to_dict("records")):
        table.add_row(*_layer_cells(row, row["layer"], tested))
        for name, control in controls.items():
            table.add_row(*_layer_cells(control.iloc[index].to_dict(), f"  {name}", tested), style="dim")
    screen.print(table)
    if tested:
        screen.print(
            "[dim]pass rule: the unit's scores reach the rule's limits. labelled: and neither position nor chance "
            "explains them, at a false discovery rate of 5 %."
        )
    _show_best(run, tested)
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


def _show_best(run: Dissection, tested: bool) -> None:
    """The best units, balanced over classes."""
    best, several = run.highlights(BEST), len(run.layers) > 1
    if not len(best):
        return
    columns = ["tier*", "IoU", "95 % interval*", "position", "q"] if tested else ["IoU", "chance"]
    estimated = bool(run.units.effect.notna().any())
    columns += ["effect"] if estimated else []
    title = f"Best {run.noun}s, each class in turn" + (", by IoU above position" if tested else "")
    table = new_table(title, *(["layer~"] if several else []), run.noun, "label~", *columns)
    for row in best.to_dict("records"):
        cells = [f"{row['iou']:.3f}", f"{row['chance_iou']:.3f}"]
        if tested:
            between = format_interval(row["iou_low"], row["iou_high"], ".3f")
            cells = [row["tier"], f"{row['iou']:.3f}", between, f"{row['position_iou']:.3f}", f"{row['q_value']:.2g}"]
        if estimated:
            effect = format_number(row["effect"], "+.2g")
            cells.append(f"({effect})" if row["effect_low"] <= 0 <= row["effect_high"] else effect)
        name = [escape(row["layer"])] if several else []
        table.add_row(*name, str(row["unit"]), escape(row["label"]), *cells)
    screen.print(table)
    meaning = (
        "position: the IoU that remains when label maps are shuffled among the images. strong: the IoU above position "
        "alone passes the rule"
        if tested
        else "chance: the IoU of an unrelated mask of the same size"
    )
    screen.print(f"[dim]IoU: overlap with the label's class. {meaning}.")
    if estimated:
        screen.print(
            f"[dim]effect: percentage points of the image that ablating the {run.noun} adds to the label's class, "
            "a first-order estimate, in brackets where its interval includes 0; dissect ablate and dissect scan "
            "measure it."
        )
    elif obstacle := run.info.get("causes", {}).get("obstacle"):
        screen.print(f"[dim]What ablating the {run.noun}s does was not estimated: {escape(obstacle)}.")


def _layer_cells(row: dict[str, Any], name: str, tested: bool) -> list[str]:
    """The cells of one layer, or of its control."""
    share = f"{row['labelled']} ({row['labelled'] / row['units']:.0%})"
    mean = format_number(row["mean_iou"], ".3f")
    limits = [str(row["reach_limits"])] if tested else []
    return [escape(name), str(row["units"]), *limits, share, str(row["classes"]), mean]


def show_comparison(comparison: Comparison) -> None:
    """What each side labels, and what it gained and lost compared with the first."""
    table = new_table("Comparison", "side~", "units", "labelled", "classes", "mean IoU", "correspond")
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
        "the same latents correlate more than position and chance explain."
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
    several = power["layer"].nunique() > 1
    columns = ("class~", "units", "IoU", "position", "detectable", "interval ±", "samples")
    table = new_table(title, *(["layer~"] if several else []), *columns)
    for row in power.to_dict("records"):
        numbers = (f"{row[name]:.3f}" for name in ("iou", "position_iou", "detectable_iou"))
        width = f"{row['interval_width'] / 2:.4f}"
        name = [escape(row["layer"])] if several else []
        table.add_row(*name, escape(row["class"]), str(row["units"]), *numbers, width, f"{row['samples_needed']:,}")
    screen.print(table)
    screen.print(
        "[dim]Medians over the units whose scores reach the rule's limits. position: the IoU that remains when label "
        "maps are shuffled. detectable: the smallest IoU that is labelled with probability "
        f"{settings['power']:g}, at p ≤ {settings['alpha']:.2g}, the limit in this run. samples: needed for intervals "
        f"{settings['width']:g} wide (± {settings['width'] / 2:g})."
    )


def show_effects(effects: Effects) -> None:
    """The classes that changed most, beside random sets of units, and whatever else was measured."""
    info, samples = effects.info, effects.info["samples"]
    unseen = "" if info["chosen_on"] is None else f", which were not used to choose the {effects.noun}s"
    chosen = f", chosen by {info['criterion']}" if info.get("criterion") else ""
    done = "ablated" if info["kind"] == "ablate" else f"inserted ({info['where']})"
    value, units = escape(str(info["value"])), count(len(info["units"]), effects.noun)
    members = _list(info["units"])
    screen.print(f"[bold]{units} of {escape(info['layer'])} {escape(done)}[/]{chosen}; value {value}: {members}")
    screen.print(
        f"[dim]{samples['number']} samples from {samples['first']} to {samples['last']}{unseen}; each is compared with "
        "itself unchanged" + (f"; {samples['skipped']} more had no such position" if samples["skipped"] else "") + "."
    )
    random = "random_relative" in effects.table
    columns = [
        "class~",
        "before",
        "after",
        "change %",
        "95 %*",
        *(["random*", "beyond*"] if random else []),
        "changed*",
    ]
    table = new_table("Area of the classes, % of the pixels", *columns)
    for row in effects.ordered.head(ROWS).to_dict("records"):
        baseline = []
        if random:
            low = min(row["random_relative_min"], row["matched_relative_min"]) * 100
            baseline = [
                format_interval(low, max(row["random_relative_max"], row["matched_relative_max"]) * 100, "+.0f"),
                "[green]yes[/]" if row["beyond_random"] else "no",
            ]
        name = escape(row["class"])
        table.add_row(
            f"[bold]{name}[/]" if row["class"] == info["label"] else name,
            *area_cells(row),
            *baseline,
            changed_cell(row),
        )
    screen.print(table)
    notes = "change: in % of the area before, with its bootstrap interval over images. "
    notes += "changed: at a false discovery rate of 5 %"
    if random:
        sets = int((effects.sets.set == "random").sum())
        alike = f"{effects.noun}s"
        notes += (
            f". random: smallest to largest change by {sets} random sets of as many {alike}, and {sets} of {alike} "
        )
        notes += "as active. beyond: the change is outside all of these"
    screen.print(f"[dim]{notes}.")
    if info.get("on_target", {}).get("on_target") is not None:
        _show_on_target(effects)
    if effects.curve is not None:
        _show_curve(effects.curve, info["label"], effects.noun)
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
            f"As many {effects.noun}s, the best by IoU: change {row['change_pp']:+.2f} {between}, "
            f"{format_number(row['on_target'], '.0%')} on target"
        )


def _show_curve(curve: pd.DataFrame, label: str, noun: str) -> None:
    table = new_table(
        f"Area of {escape(label)} that remains", f"{noun}s", "remaining", "95 % interval*", "random sets*"
    )
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
    title = f"{escape(label)} gained, by the class that was there before"
    table = new_table(title, "class~", "cells", "images", "points", "95 % interval*", "random sets", "q")
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
    screen.print("[dim]points: percentage points of the image when one cell is edited, mean over the cells.")


def show_scan(units: pd.DataFrame, info: dict[str, Any]) -> None:
    """The units of a layer with the strongest effects, and how well IoU predicts the effects."""
    noun = info.get("noun", "unit")
    title = f"{info['layer']}: {noun}s ablated by themselves, {info['samples']} samples"
    columns = (noun, "label~", "IoU", "IoU rank", "points", "95 % interval*", "estimate*", "also~")
    table = new_table(escape(title), *columns)
    others = [name for name in units if name.startswith("pp:") and name != f"pp:{info['class']}"]
    for row in units[units.verified].head(10).to_dict("records"):
        side = max(others, key=lambda name: abs(row[name]))
        table.add_row(
            str(row["unit"]),
            escape(row["label"]) if row["labelled"] else "–",
            f"{row['iou']:.3f}",
            str(row["iou_rank"]),
            f"{row['change_pp']:+.3f}",
            format_interval(row["low"], row["high"], "+.3f"),
            format_number(row["estimate"], "+.3f"),
            f"{escape(side.removeprefix('pp:'))} {row[side]:+.2f}",
        )
    screen.print(table)
    label = escape(info["class"])
    between = format_interval(info["rank_correlation_low"], info["rank_correlation_high"], ".2f")
    screen.print(
        f"[dim]IoU with {label}. points: change of {label} in percentage points of the image "
        f"({info['before_pp']:.2f} before). estimate: the same to first order. also: the other class that changes "
        f"most. {info['changed']} {noun}s change {label} at a false discovery rate of 5 %; the {info['top']} strongest "
        f"add up to {info['strongest']:+.2f}. Rank correlation of IoU and effect: "
        f"{format_number(info['rank_correlation'], '.2f')} {between}."
    )
    screen.print(f"[dim]{escape(verification(info, len(units)))}")
    if warning := caution(info):
        screen.print(f"[yellow]{escape(warning)}")


def _list(units: Sequence[int]) -> str:
    return ", ".join(map(str, units[:24])) + (", …" if len(units) > 24 else "")
