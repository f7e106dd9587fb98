"""What the command shows on the screen: tables on stderr, so that stdout holds results alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from .screen import ROWS, screen, shown_interval, shown_number, table

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
    shown = table(escape(title), *columns)
    controls = {name: control.summary() for name, control in run.controls.items()}
    for place, row in enumerate(summary.to_dict("records")):
        shown.add_row(*_layer_cells(row, row["layer"], tested))
        for name, found in controls.items():
            shown.add_row(*_layer_cells(found.iloc[place].to_dict(), f"  {name}", tested), style="dim")
    screen.print(shown)
    if tested:
        screen.print(
            "[dim]in limits: the scores reach the rule's limits; labelled: and place or chance would not do, "
            "at a false discovery rate of 5 %."
        )
    best = run.units[run.units.labelled].nlargest(8, "content_iou" if tested else "iou")
    if len(best):
        known = ["95 % interval*", "place", "IQR", "q"] if tested else ["chance", "IQR"]
        ranked = f"Best {plural}" + (", by IoU above place" if tested else "")
        shown = table(ranked, "layer*", run.noun, "label*", "IoU", *known)
        for row in best.to_dict("records"):
            cells = [f"{row['chance_iou']:.3f}", f"{row['iqr']:.3f}"]
            if tested:
                between = shown_interval(row["iou_low"], row["iou_high"], ".3f")
                cells = [between, f"{row['position_iou']:.3f}", f"{row['iqr']:.3f}", f"{row['q_value']:.2g}"]
            shown.add_row(escape(row["layer"]), str(row["unit"]), escape(row["label"]), f"{row['iou']:.3f}", *cells)
        screen.print(shown)
        meant = (
            "place: the IoU expected with label maps dealt out among the images at random"
            if tested
            else "chance: IoU of an unrelated mask of the same size"
        )
        screen.print(f"[dim]IoU: overlap with the label's class; {meant}.")
    if off := run.info.get("deviation"):
        screen.print(
            f"[dim]{config['precision']}: off float32 by {off['images']:.2g} of 1 in images, on average, and in the "
            f"labels of {100 * off['labels']:.2g} % of pixels, on the first samples."
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
    mean = shown_number(row["mean_iou"], ".3f")
    limits = [str(row["reach_limits"])] if tested else []
    return [escape(name), str(row["units"]), *limits, share, str(row["classes"]), mean]


def show_comparison(found: Comparison) -> None:
    """What each side labels, and what it gained and lost beside the first."""
    shown = table("Comparison", "side*", "units", "labelled", "classes", "mean IoU", "correspond")
    summary = found.summary().to_dict("records")
    for row in summary:
        pairs = f"{row['corresponding']} of {row['pairs']}" if row["pairs"] else ""
        cells = [row["units"], row["labelled"], row["classes"], shown_number(row["mean_iou"], ".3f"), pairs]
        shown.add_row(escape(f"{row['side']} {row['run']}"), *map(str, cells))
    screen.print(shown)
    for row in summary[1:]:
        changes = found.classes[f"change_{row['side']}"]
        names = {kind: ", ".join(found.classes["class"][changes == kind]) or "none" for kind in ("gained", "lost")}
        screen.print(escape(f"{row['side']} beside A: gained {names['gained']}; lost {names['lost']}"))
    screen.print(
        "[dim]gained, lost: classes that label a unit; correspond: units whose activations on the same latents "
        "correlate more than place and chance give."
    )
    if found.unlike:
        screen.print(f"[yellow]not made alike, numbers of labels depend on it: {escape(', '.join(found.unlike))}")


def show_power(found: pd.DataFrame) -> None:
    """What could be detected, class by class."""
    known = found.attrs
    title = f"{known['samples']} samples: what could be found, class by class"
    shown = table(title, "layer*", "class*", "units", "IoU", "place", "detectable", "interval ±", "samples")
    for row in found.to_dict("records"):
        numbers = (f"{row[name]:.3f}" for name in ("iou", "position_iou", "detectable_iou"))
        width = f"{row['interval_width'] / 2:.4f}"
        shown.add_row(
            escape(row["layer"]), escape(row["class"]), str(row["units"]), *numbers, width, str(row["samples_needed"])
        )
    screen.print(shown)
    screen.print(
        "[dim]Medians over the units whose scores reach the rule's limits. place: the IoU expected with label "
        f"maps dealt out at random; detectable: the least IoU that is labelled with probability {known['power']:g}, at "
        f"p ≤ {known['alpha']:.2g}, which is enough in this run; samples: for intervals {known['width']:g} wide "
        f"(± {known['width'] / 2:g})."
    )


def show_effects(effects: Effects) -> None:
    """The classes that changed most, what random sets do, the share on target, and what else was asked for."""
    info, samples = effects.info, effects.info["samples"]
    unseen = "" if info["chosen_on"] is None else ", which did not serve to choose the units"
    done = "ablated" if info["kind"] == "ablate" else f"inserted ({info['where']})"
    value, units = escape(str(info["value"])), _list(info["units"])
    screen.print(f"[bold]{_units(info['units'])} of {escape(info['layer'])} {escape(done)}[/], value {value}: {units}")
    screen.print(
        f"[dim]{samples['number']} samples from {samples['first']} to {samples['last']}{unseen}; each beside itself "
        "unchanged" + (f"; {samples['skipped']} more had no such place" if samples["skipped"] else "") + "."
    )
    random = "random_relative" in effects.table
    columns = ["class*", "before", "after", "points", "rel.", "95 %*"]
    shown = table("Area of the classes, %", *columns, *(["random*"] if random else []), "changed*")
    for row in effects.ordered.head(ROWS).to_dict("records"):
        baseline = []
        if random:
            low = min(row["random_relative_min"], row["matched_relative_min"]) * 100
            baseline = [shown_interval(low, max(row["random_relative_max"], row["matched_relative_max"]) * 100, "+.0f")]
        name = escape(row["class"])
        shown.add_row(
            f"[bold]{name}[/]" if row["class"] == info["label"] else name,
            f"{row['before'] * 100:.2f}",
            f"{row['after'] * 100:.2f}",
            f"{row['change_pp']:+.2f}",
            shown_number(row["relative"] * 100, "+.0f"),
            shown_interval(row["relative_low"] * 100, row["relative_high"] * 100, "+.0f"),
            *baseline,
            "[green]yes[/]" if row["changed"] else "no",
        )
    screen.print(shown)
    notes = "points: percentage points of the image; rel.: relative to before, with its bootstrap interval over images"
    notes += "; changed: at a false discovery rate of 5 %"
    if random:
        number = int((effects.sets.set == "random").sum())
        notes += f"; random: least to greatest of {number} random sets of as many units and {number} of units as active"
    screen.print(f"[dim]{notes}.")
    if info.get("on_target", {}).get("on_target") is not None:
        _show_on_target(effects)
    if effects.curve is not None:
        _show_curve(effects.curve, info["label"])
    if effects.context is not None:
        _show_context(effects.context, info["label"])


def _show_on_target(effects: Effects) -> None:
    found, sets = effects.info["on_target"], effects.sets
    others = sets[sets.set.isin(("random", "matched"))].on_target
    between = shown_interval(found["on_target_low"], found["on_target_high"], ".0%")
    screen.print(
        f"On target: {found['on_target']:.0%} {between} of the pixels whose label changed were or became "
        f"{escape(effects.info['label'])}"
        + (f"; random sets {shown_interval(others.min(), others.max(), '.0%')}" if len(others) else "")
    )
    for row in sets[sets.set == "by_iou"].to_dict("records"):
        between = shown_interval(row["change_pp_low"], row["change_pp_high"], "+.2f")
        screen.print(
            f"As many of the best by IoU: change {row['change_pp']:+.2f} {between}, "
            f"{shown_number(row['on_target'], '.0%')} on target"
        )


def _show_curve(curve: pd.DataFrame, label: str) -> None:
    shown = table(f"Area of {escape(label)} that remains", "units", "remaining", "95 % interval*", "random sets*")
    for row in curve.to_dict("records"):
        random = shown_interval(row["random_min"], row["random_max"], ".0%") if "random" in row else "–"
        shown.add_row(
            str(row["units"]),
            shown_number(row["remaining"], ".0%"),
            shown_interval(row["low"], row["high"], ".0%"),
            random,
        )
    screen.print(shown)


def _show_context(context: pd.DataFrame, label: str) -> None:
    title = f"{escape(label)} gained by what was at the place before"
    shown = table(title, "place*", "places", "images", "change", "95 % interval*", "random sets", "q")
    for row in context.head(ROWS).to_dict("records"):
        shown.add_row(
            escape(row["class"]),
            str(row["places"]),
            str(row["images"]),
            f"{row['change_pp']:+.4f}",
            shown_interval(row["low"], row["high"], "+.4f"),
            shown_number(row.get("random_pp", float("nan")), "+.4f"),
            f"{row['q_value']:.3f}",
        )
    screen.print(shown)
    screen.print("[dim]change: percentage points of the image for one edited cell, mean over the places.")


def show_scan(found: pd.DataFrame, info: dict[str, Any]) -> None:
    """The strongest units of a layer, and how well IoU foretells them."""
    title = f"{info['layer']}: each unit ablated alone, {info['samples']} samples"
    shown = table(escape(title), "unit", "label*", "IoU", "rank", "change", "95 % interval*", "rank", "also*")
    others = [name for name in found if name.startswith("pp:") and name != f"pp:{info['class']}"]
    for row in found.head(10).to_dict("records"):
        side = max(others, key=lambda name: abs(row[name]))
        shown.add_row(
            str(row["unit"]),
            escape(row["label"]) if row["labelled"] else "–",
            f"{row['iou']:.3f}",
            str(row["iou_rank"]),
            f"{row['change_pp']:+.3f}",
            shown_interval(row["low"], row["high"], "+.3f"),
            str(row["causal_rank"]),
            f"{escape(side.removeprefix('pp:'))} {row[side]:+.2f}",
        )
    screen.print(shown)
    label = escape(info["class"])
    between = shown_interval(info["rank_correlation_low"], info["rank_correlation_high"], ".2f")
    screen.print(
        f"[dim]IoU and change with {label}, in percentage points of the image ({info['before_pp']:.2f} before); ranks "
        f"among {len(found)} units. {info['changed']} units change it at a false discovery rate of 5 %; the 20 "
        f"strongest add up to {info['strongest']:+.2f}. Rank correlation of IoU and effect: "
        f"{shown_number(info['rank_correlation'], '.2f')} {between}."
    )


def _units(units: Sequence[int]) -> str:
    return "1 unit" if len(units) == 1 else f"{len(units)} units"


def _list(units: Sequence[int]) -> str:
    return ", ".join(map(str, units[:24])) + (", …" if len(units) > 24 else "")
