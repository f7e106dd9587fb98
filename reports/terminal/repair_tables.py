"""What the command shows of suspects, repairs and checkups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from ..rows import by_change, format_number, records, rows_with_blanks
from .screen import ROWS, area_cells, changed_cell, format_interval, new_table, screen

if TYPE_CHECKING:
    from ...dissect.artifacts.result import Suspects
    from ...dissect.checkerboard.result import Checkup
    from ...dissect.repairs.result import Repair
    from ...dissect.seams.result import SeamCheck


def show_suspects(suspects: Suspects) -> None:
    """The most suspect units and samples of each layer."""
    info = suspects.info
    reference = f"; reference: {info['reference']}, {info['features']}" if info["reference"] else ""
    for layer in info["layers"]:
        table = new_table(
            f"Suspects of {escape(layer)}, by {info['detector']}", "rank", "unit", "score", "label~", "IoU"
        )
        for row in suspects.units[suspects.units.layer == layer].head(ROWS).to_dict("records"):
            label = escape(row["label"]) if isinstance(row["label"], str) else ""
            numbers = f"{row['score']:.4g}", label, format_number(row["iou"], ".3f")
            table.add_row(str(row["rank"]), str(row["unit"]), *numbers)
        screen.print(table)
        worst = suspects.samples[suspects.samples.layer == layer]["sample"].head(ROWS)
        screen.print(f"[dim]Worst samples: {', '.join(map(str, worst))}, …")
    screen.print(
        f"[dim]{info['samples']} samples{escape(reference)}. score: the higher, the more suspect; it can be compared "
        "within this table only, and proves nothing: look at the page."
    )


def show_repair(repair: Repair) -> None:
    """The metrics of every set of images, the classes that changed most, and the verdict."""
    info = repair.info
    table = new_table(
        f"Fidelity to {escape(info['reference'])}", "set~", "frechet", "kernel", "precision", "recall", "coverage"
    )
    for name, rows in repair.fidelity.groupby("set", sort=False):
        table.add_row(_set_name(name), *(f"{row.value:.3g} ±{row.high - row.value:.1g}" for row in rows.itertuples()))
    screen.print(table)
    screen.print(
        f"[dim]{info['samples']['number']} samples that were not used to choose the units. ±: 95 % interval over "
        f"random halves. random: as many random units. Features: {escape(info['features'])}."
    )
    _show_classes(repair)


def show_grid_repair(repair: Repair) -> None:
    """Grid and fidelity of every set of images, the classes that changed most, and the verdict."""
    info = repair.info
    table = new_table(
        f"Grid of {escape(', '.join(info['layers']))}", "set~", "ripple", "flat input", "peaks", "z", "Fréchet"
    )
    distance = repair.fidelity[repair.fidelity.metric == "frechet"].set_index("set")
    for row in repair.grid.itertuples():
        frechet = distance.loc[row.set]
        cells = (f"{row.ripple:.3f}", f"{row.flat:.2g}", str(row.peaks), f"{row.own_z:.1f}")
        table.add_row(_set_name(row.set), *cells, f"{frechet.value:.3g} ±{frechet.high - frechet.value:.1g}")
    screen.print(table)
    screen.print(
        f"[dim]{info['samples']['number']} samples that were used for nothing else. ripple: of the repaired layer's "
        "output, as a share of its standard deviation. z: of the strongest peak of its grid in the spectrum. random: "
        f"changes of the same size. Features: {escape(info['features'])}."
    )
    if len(repair.effects):
        _show_classes(repair)


def _set_name(name: str) -> str:
    """The name of a set of images; the two sets to compare are bold."""
    return f"[bold]{name}[/]" if name in ("before", "repaired") else name


def _show_classes(repair: Repair) -> None:
    table = new_table(
        "Classes that changed most, % of the pixels", "class~", "before", "after", "change %", "95 %*", "changed*"
    )
    for row in by_change(repair.effects).head(6).to_dict("records"):
        table.add_row(
            escape(row["class"]),
            *area_cells(row),
            changed_cell(row),
        )
    screen.print(table)


def colour_of(verdict: str) -> str:
    """The colour of a verdict."""
    return {"improved": "green", "clean": "green", "made worse": "red", "visible": "red"}.get(verdict, "yellow")


def repair_records(repair: Repair, page: str | None) -> dict[str, object]:
    """A repair for --json."""
    names = ("verdict", "sentence", "values", "method", "layers")
    facts = {name: repair.info[name] for name in names if name in repair.info}
    tables = {name: records(table) for name in repair.info["tables"] if len(table := getattr(repair, name))}
    return {**facts, **tables, "units": repair.info.get("units"), "checkpoint": repair.checkpoint, "report": page}


def show_checkup(checkup: Checkup) -> None:
    """One row a layer, and the verdict."""
    names = ("layer~", "kernel~", "grid, px", "predicted", "measured", "in image", "verdict*")
    table = new_table(f"Upsampling layers of {escape(checkup.info['generator'])}", *names)
    for row, text in zip(checkup.layers.to_dict("records"), rows_with_blanks(checkup.layers), strict=True):
        colour = {"clean": "green", "visible": "red"}.get(row["verdict"], "yellow")
        table.add_row(
            escape(row["layer"]),
            text["kernel"] + (", uneven" if row["uneven"] else ""),
            text["period"],
            format_number(row["foretold"], ".3f"),
            f"{row['measured']:.3f}",
            f"{row['levels']:.2f}",
            f"[{colour}]{row['verdict']}[/]",
        )
    screen.print(table)
    screen.print(
        "[dim]predicted, measured: ripple as a share of the standard deviation of the layer's output, computed from "
        "the weights for a flat input, and measured in images. in image: levels of 255 by which images change when the "
        "ripple is removed. uneven: output pixels get different numbers of kernel taps."
    )


def show_seams(check: SeamCheck) -> None:
    """The ratios at the borders of tiles, and the verdict."""
    table = new_table("Borders of tiles over lines elsewhere", "what~", "measure~", "ratio", "95 % interval*", "p")
    for row in rows_with_blanks(check.table[check.table.lines == "all"]):
        missing = row["ratio"] == ""
        between = "" if missing else format_interval(row["low"], row["high"], ".2f")
        p = "" if row["p_value"] == "" else f"{row['p_value']:.2g}"
        table.add_row(row["what"], row["measure"], "–" if missing else f"{row['ratio']:.2f}", between, p)
    screen.print(table)
