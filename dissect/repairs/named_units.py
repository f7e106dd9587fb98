"""The units that a user names for a repair: in a line, in a file of lines, in a table, or as a dictionary."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...hooks.errors import DissectError, UsageError
from ..runs import lookup
from ..runs.dissection import Dissection

Chosen = dict[str, tuple[int, ...]]  # units of each layer

LONGEST = 1024  # characters of a path


def given_units(units: str | Path | Mapping[str, Sequence[int]], run: Dissection) -> Chosen:
    """Units by layer, in the run's order of layers."""
    pairs: list[tuple[str | None, int]]
    if isinstance(units, Mapping):
        pairs = [(layer, unit) for layer, members in units.items() for unit in members]
    elif re.fullmatch(r"(.+:)?[\d\s,]+", str(units)):
        layer, members = lookup.parse_units(str(units))
        pairs = [(layer, unit) for unit in members]
    elif len(str(units)) < LONGEST and Path(units).is_file():
        pairs = _from_file(Path(units))
    else:
        raise UsageError(f"--units {str(units)[:80]} is neither a file nor LAYER:UNIT,UNIT,…, e.g. layer4:12,57,300.")
    found: dict[str, list[int]] = {}
    for layer, unit in pairs:
        found.setdefault(lookup.pick_layer(run, layer), []).append(int(unit))
    chosen = {layer: tuple(dict.fromkeys(found[layer])) for layer in run.layers if layer in found}
    if not chosen:
        raise UsageError(f"--units {units} names no unit; write lines such as layer4:12,57.")
    check_chosen(chosen, run)
    return chosen


def _from_file(path: Path) -> list[tuple[str | None, int]]:
    """(layer, unit) of a table with these columns, or of lines LAYER:UNIT,UNIT,…; # begins a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DissectError(f"--units {path} cannot be read ({error}); give a text file.") from error
    heads = next(csv.reader(lines[:1]), [])
    if {"layer", "unit"} <= set(heads):
        try:
            return [(str(row["layer"]), int(row["unit"])) for row in csv.DictReader(lines)]
        except (TypeError, ValueError):
            raise UsageError(f"--units {path}: the column unit must hold whole numbers.") from None
    pairs: list[tuple[str | None, int]] = []
    for line in lines:
        text = line.partition("#")[0].strip()
        if text:
            layer, members = lookup.parse_units(text)
            pairs += [(layer, unit) for unit in members]
    return pairs


def check_chosen(chosen: Chosen, run: Dissection) -> None:
    for layer, units in chosen.items():
        width = int(run.info["layers"][layer]["units"])
        if len(units) >= width:
            raise UsageError(
                f"{len(units)} units of {layer} are to be ablated, and it has {width}: without any unit it draws one "
                "image. Choose fewer."
            )
        lookup.check_units(units, layer, width)


def repair_name(
    detector: str | None,
    top: int,
    chosen: Chosen | None,
    layer: str | int | None,
    value: str,
    strength: float,
    one_by_one: bool,
) -> str:
    parts = [f"{detector}-top{top}"] if chosen is None else ["units", *(f"{at}-{len(u)}" for at, u in chosen.items())]
    parts += [str(layer)] if layer is not None and chosen is None else []
    parts += [value] if value != "best" else []
    parts += [f"strength{strength:g}"] if strength != 1 else []
    return "-".join(parts + (["one-by-one"] if one_by_one else []))
