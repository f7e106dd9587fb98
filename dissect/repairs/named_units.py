"""The units that a user names for a repair: in a line, in a file of lines, in a table, or as a dictionary."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...hooks.errors import DissectError, UsageError
from ..runs import lookup
from ..runs.dissection import Dissection

UnitsByLayer = dict[str, tuple[int, ...]]

LONGEST = 1024  # characters of a path


def named_units(units: str | Path | Mapping[str, Sequence[int]], run: Dissection) -> UnitsByLayer:
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
    of_layer: dict[str, list[int]] = {}
    for layer, unit in pairs:
        of_layer.setdefault(lookup.pick_layer_of_units(run, layer), []).append(int(unit))
    if not of_layer:
        raise UsageError(f"--units {units} names no unit; write lines such as layer4:12,57.")
    by_layer = {layer: tuple(dict.fromkeys(of_layer[layer])) for layer in run.layers if layer in of_layer}
    check_units(by_layer, run)
    return by_layer


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
            raise UsageError(f"--units {path}: the column unit must hold integers.") from None
    pairs: list[tuple[str | None, int]] = []
    for line in lines:
        text = line.partition("#")[0].strip()
        if text:
            layer, members = lookup.parse_units(text)
            pairs += [(layer, unit) for unit in members]
    return pairs


def check_units(units: UnitsByLayer, run: Dissection) -> None:
    """Raise UsageError for a unit that a layer lacks, or where all units of a layer are named."""
    for layer, members in units.items():
        width = int(run.info["layers"][layer]["units"])
        if len(members) >= width:
            raise UsageError(
                f"{len(members)} units of {layer} would be taken out, and it has {width}: without any unit, it draws "
                "the same image from every latent. Take fewer."
            )
        lookup.check_units(members, layer, width)
