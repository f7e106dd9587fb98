"""What the command shows of suspects, repairs and checkups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ..rows import blanks, records
from .screen import ROWS, screen, shown_interval, shown_number, table

if TYPE_CHECKING:
    from ...dissect.artifacts.result import Suspects
    from ...dissect.checkerboard.result import Checkup
    from ...dissect.repairs.result import Repair
    from ...dissect.seams.result import SeamCheck


def show_suspects(found: Suspects) -> None:
    """The most suspect units and samples of each layer."""
    info = found.info
    beside = f"; reference: {info['reference']}, {info['features']}" if info["reference"] else ""
    for layer in info["layers"]:
        shown = table(f"Suspects of {escape(layer)}, by {info['detector']}", "rank", "unit", "score", "label*", "IoU")
        for row in found.units[found.units.layer == layer].head(ROWS).to_dict("records"):
            label = escape(row["label"]) if isinstance(row["label"], str) else ""
            numbers = f"{row['score']:.4g}", label, shown_number(row["iou"], ".3f")
            shown.add_row(str(row["rank"]), str(row["unit"]), *numbers)
        screen.print(shown)
        worst = found.samples[found.samples.layer == layer]["sample"].head(ROWS)
        screen.print(f"[dim]Worst samples: {', '.join(map(str, worst))}, …")
    screen.print(
        f"[dim]{info['samples']} samples{escape(beside)}. Scores order units; they do not say that there is an "
        "artifact: look at the page, then try dissect repair."
    )


def show_repair(found: Repair) -> None:
    """Figures of every set beside those before, classes that changed most, and the verdict."""
    info = found.info
    shown = table(
        f"Fidelity to {escape(info['reference'])}", "set*", "frechet", "kernel", "precision", "recall", "coverage"
    )
    for name, part in found.fidelity.groupby("set", sort=False):
        cells = [f"{row.value:.3g} ±{row.high - row.value:.1g}" for row in part.itertuples()]
        shown.add_row(f"[bold]{name}[/]" if name in ("before", "repaired") else name, *cells)
    screen.print(shown)
    screen.print(
        f"[dim]{info['samples']['number']} samples that did not serve to choose the units; ±: 95 % over random halves; "
        f"random: as many units at random; {escape(info['features'])}."
    )
    _show_classes(found)
    _show_sentence(info)


def show_mended(found: Repair) -> None:
    """Grid and fidelity of every set, classes that changed most, and the verdict."""
    info = found.info
    shown = table(
        f"Grid of {escape(', '.join(info['layers']))}", "set*", "ripple", "flat input", "peaks", "z", "Fréchet"
    )
    distance = found.fidelity[found.fidelity.metric == "frechet"].set_index("set")
    for row in found.grid.itertuples():
        far = distance.loc[row.set]
        name = f"[bold]{row.set}[/]" if row.set in ("before", "repaired") else row.set
        cells = (f"{row.ripple:.3f}", f"{row.flat:.2g}", str(row.peaks), f"{row.own_z:.1f}")
        shown.add_row(name, *cells, f"{far.value:.3g} ±{far.high - far.value:.1g}")
    screen.print(shown)
    screen.print(
        f"[dim]{info['samples']['number']} samples that served nothing else; ripple: of the mended layer's output, as "
        "a share of its standard deviation; z: of the strongest peak of its grid in the spectrum; random: changes "
        f"of the same size; {escape(info['features'])}."
    )
    if len(found.effects):
        _show_classes(found)
    _show_sentence(info)


def _show_classes(found: Repair) -> None:
    shown = table(
        "Classes that changed most, % of the pixels", "class*", "before", "after", "rel.", "95 %*", "changed*"
    )
    changes = found.effects.loc[found.effects.change_pp.abs().sort_values(ascending=False, kind="stable").index]
    for row in changes.head(6).to_dict("records"):
        shown.add_row(
            escape(row["class"]),
            f"{row['before'] * 100:.2f}",
            f"{row['after'] * 100:.2f}",
            shown_number(row["relative"] * 100, "+.0f"),
            shown_interval(row["relative_low"] * 100, row["relative_high"] * 100, "+.0f"),
            "[green]yes[/]" if row["changed"] else "no",
        )
    screen.print(shown)


def _show_sentence(info: dict[str, Any]) -> None:
    colour = {"improved": "green", "clean": "green", "made worse": "red", "visible": "red"}
    screen.print(f"[{colour.get(info['verdict'], 'yellow')}]{escape(info['sentence'])}")


def repair_records(found: Repair, page: str | None) -> dict[str, object]:
    """A repair for --json."""
    kept = ("verdict", "sentence", "values", "method", "layers")
    told = {name: found.info[name] for name in kept if name in found.info}
    tables = {name: records(table) for name in found.info["tables"] if len(table := getattr(found, name))}
    return {**told, **tables, "units": found.info.get("units"), "checkpoint": found.checkpoint, "report": page}


def show_checkup(found: Checkup) -> None:
    """One row a layer, and the verdict."""
    names = ("layer*", "kernel*", "taps*", "grid, px", "foretold", "measured", "r", "in image", "verdict*")
    shown = table(f"Upsampling of {escape(found.info['generator'])}", *names)
    for row, text in zip(found.layers.to_dict("records"), blanks(found.layers), strict=True):
        colour = {"clean": "green", "visible": "red"}.get(row["verdict"], "yellow")
        shown.add_row(
            escape(row["layer"]),
            text["kernel"],
            text["taps"] + (" uneven" if row["uneven"] else ""),
            text["period"],
            shown_number(row["foretold"], ".3f"),
            f"{row['measured']:.3f}",
            shown_number(row["correlation"], ".3f"),
            f"{row['levels']:.2f}",
            f"[{colour}]{row['verdict']}[/]",
        )
    screen.print(shown)
    screen.print(
        "[dim]Ripple as a share of the standard deviation of a layer's output: foretold by the weights for a flat "
        "input, and measured; r: their correlation over units; in image: levels of 255 by which images change without "
        "it."
    )
    _show_sentence(found.info)


def show_seams(found: SeamCheck) -> None:
    """The verdict on tiles, and their ratios, on stderr."""
    shown = table("Borders of tiles over lines elsewhere", "what*", "measure*", "ratio", "95 % interval*", "p")
    for row in blanks(found.table[found.table.lines == "all"]):
        missing = row["ratio"] == ""
        between = "" if missing else shown_interval(row["low"], row["high"], ".2f")
        p = "" if row["p_value"] == "" else f"{row['p_value']:.2g}"
        shown.add_row(row["what"], row["measure"], "–" if missing else f"{row['ratio']:.2f}", between, p)
    screen.print(shown)
    screen.print(escape(found.info["sentence"]))
