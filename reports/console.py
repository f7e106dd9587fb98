"""What the command shows on the screen: tables on stderr, so that stdout holds results alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # pandas and numpy are imported when a command has something to show
    import pandas as pd

    from ..dissect.effects import Effects
    from ..dissect.store import Dissection

screen = Console(stderr=True)

ROWS = 14  # of a table, at most; the files hold all


def table(title: str, *columns: str) -> Table:
    """A table whose columns marked * are text, the others numbers."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in columns:
        made.add_column(name.rstrip("*"), justify="left" if name.endswith("*") else "right", no_wrap=True)
    return made


def show_rows(rows: Sequence[dict[str, object]], size: str) -> None:
    """A line for each row on stdout and, dimmed, where it comes from; names are never cut short."""
    console = Console(soft_wrap=True, highlight=False)
    for row in rows:
        name, title, number, origin, licence, here = row.values()
        where = "[green]here[/]" if here else "[yellow]to fetch[/]"
        console.print(f"[bold]{escape(str(name))}[/]  {where}  {escape(str(title))}, {size.format(number)}")
        console.print(f"    [dim]{escape(str(origin))}; {escape(str(licence))}")


def show_run(run: Dissection, summary: pd.DataFrame) -> None:
    """Layers, best units, and units that are constant or not finite."""
    config = run.info["config"]
    shown = table(
        f"{config['model']}: {config['samples']} samples", "layer*", "units", "labelled", "classes", "mean IoU"
    )
    for row in summary.to_dict("records"):
        share = f"{row['labelled']} ({row['labelled'] / row['units']:.0%})"
        mean = f"{row['mean_iou']:.3f}" if row["labelled"] else "–"
        shown.add_row(escape(row["layer"]), str(row["units"]), share, str(row["classes"]), mean)
    screen.print(shown)
    best = run.units[run.units.labelled].nlargest(8, "iou")
    if len(best):
        shown = table("Best units", "layer*", "unit", "label*", "IoU", "chance", "IQR")
        for row in best.to_dict("records"):
            numbers = (f"{row[name]:.3f}" for name in ("iou", "chance_iou", "iqr"))
            shown.add_row(escape(row["layer"]), str(row["unit"]), escape(row["label"]), *numbers)
        screen.print(shown)
        screen.print("[dim]IoU: overlap with the label's class; chance: IoU of an unrelated mask of the same size.")
    odd = run.units[run.units.state != "ok"]
    for (layer, state), units in odd.groupby(["layer", "state"]).unit:
        more = ", …" if len(units) > 12 else ""
        screen.print(
            f"[yellow]{escape(layer)}: {len(units)} units {state}: {', '.join(map(str, units.head(12)))}{more}"
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
            baseline = [_between(low, max(row["random_relative_max"], row["matched_relative_max"]) * 100, "+.0f")]
        name = escape(row["class"])
        shown.add_row(
            f"[bold]{name}[/]" if row["class"] == info["label"] else name,
            f"{row['before'] * 100:.2f}",
            f"{row['after'] * 100:.2f}",
            f"{row['change_pp']:+.2f}",
            _number(row["relative"] * 100, "+.0f"),
            _between(row["relative_low"] * 100, row["relative_high"] * 100, "+.0f"),
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
    between = _between(found["on_target_low"], found["on_target_high"], ".0%")
    screen.print(
        f"On target: {found['on_target']:.0%} {between} of the pixels whose label changed were or became "
        f"{escape(effects.info['label'])}"
        + (f"; random sets {_between(others.min(), others.max(), '.0%')}" if len(others) else "")
    )
    for row in sets[sets.set == "by_iou"].to_dict("records"):
        between = _between(row["change_pp_low"], row["change_pp_high"], "+.2f")
        screen.print(
            f"As many of the best by IoU: change {row['change_pp']:+.2f} {between}, "
            f"{_number(row['on_target'], '.0%')} on target"
        )


def _show_curve(curve: pd.DataFrame, label: str) -> None:
    shown = table(f"Area of {escape(label)} that remains", "units", "remaining", "95 % interval*", "random sets*")
    for row in curve.to_dict("records"):
        random = _between(row["random_min"], row["random_max"], ".0%") if "random" in row else "–"
        shown.add_row(
            str(row["units"]), _number(row["remaining"], ".0%"), _between(row["low"], row["high"], ".0%"), random
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
            _between(row["low"], row["high"], "+.4f"),
            _number(row.get("random_pp", float("nan")), "+.4f"),
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
            _between(row["low"], row["high"], "+.3f"),
            str(row["causal_rank"]),
            f"{escape(side.removeprefix('pp:'))} {row[side]:+.2f}",
        )
    screen.print(shown)
    label = escape(info["class"])
    between = _between(info["rank_correlation_low"], info["rank_correlation_high"], ".2f")
    screen.print(
        f"[dim]IoU and change with {label}, in percentage points of the image ({info['before_pp']:.2f} before); ranks "
        f"among {len(found)} units. {info['changed']} units change it at a false discovery rate of 5 %; the 20 "
        f"strongest add up to {info['strongest']:+.2f}. Rank correlation of IoU and effect: "
        f"{_number(info['rank_correlation'], '.2f')} {between}."
    )


def _number(value: float | None, form: str) -> str:
    text = "–" if value is None or value != value else format(value, form)
    return text.lstrip("+-") if not re.search("[1-9]", text) else text


def _between(low: float | None, high: float | None, form: str) -> str:
    return f"\\[{_number(low, form)}, {_number(high, form)}]"


def _units(units: Sequence[int]) -> str:
    return "1 unit" if len(units) == 1 else f"{len(units)} units"


def _list(units: Sequence[int]) -> str:
    return ", ".join(map(str, units[:24])) + (", …" if len(units) > 24 else "")
