"""What dissections have in common: labels class by class, units that correspond, images of the same latents."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ...hooks.errors import UsageError
from ..runtime.random_streams import MATCHING, dice
from ..storage.shown import Shown, listing
from .dissection import Dissection
from .lookup import find_layer

Floats = NDArray[np.float64]
Features = NDArray[np.float32]

LETTERS = string.ascii_uppercase  # of the sides
SHUFFLES = 9  # of the samples, for the correlations that place and chance give
RULES = ("segmenter_sha256", "samples", "threshold", "quantile", "significance", "grid")
OTHERS = ("model", "weights_sha256", "latent", "output_range", "layers", "control", "basis", "directions", "seed")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: layers of a run."""

    letter: str
    run: Dissection
    layers: tuple[str, ...]

    @property
    def title(self) -> str:
        """Model and layers."""
        config = self.run.info["config"]
        title = f"{config['model']} {', '.join(self.layers)}"
        if config["control"]:
            return f"{title} {config['control']}"
        return title if self.run.noun == "unit" else f"{title} {config['basis']}"

    @property
    def units(self) -> pd.DataFrame:
        """The rows of the side's layers."""
        return self.run.units[self.run.units.layer.isin(self.layers)]


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Shown):
    """The result of a comparison; all other sides are compared with the first, A.

    classes: one row a class that labels a unit somewhere. For each side S: `units_S`, how many units it labels;
        `best_S`, the highest IoU of those, with its interval `best_low_S`, `best_high_S`; `reach_S`, how many reach the
        rule's limits, tested or not; `share_S` of the pixels; and for all but A, `change_S`: kept, gained or lost, by
        whether it labels a unit.
    units: one row a pair of corresponding units of A and a later side `other`, see `match`: layer, unit_A, unit_B,
        label_A, label_B (empty if not labelled), iou_A, iou_B, correlation, `corresponds`, `same_label`.
    differences: config that differs, by name; `unlike` names those that decide on labels.
    """

    sides: tuple[Side, ...]
    classes: pd.DataFrame
    units: pd.DataFrame
    differences: dict[str, list[object]]

    @property
    def unlike(self) -> list[str]:
        """The settings that decide on labels and differ; if there are any, counts of labels are not comparable."""
        return [key for key in self.differences if key in RULES]

    def is_same_network(self, letter: str) -> bool:
        """Whether a side has A's layers of A's network, on the same latents: then its units are those of A."""
        first, side = self.sides[0], self.sides[LETTERS.index(letter)]
        if first.layers != side.layers or not same_latents(first, side):
            return False
        first_config, config = first.run.info["config"], side.run.info["config"]
        keys = ("weights_sha256", "control", "basis", "directions")
        return all(first_config[key] == config[key] for key in keys)

    def summary(self) -> pd.DataFrame:
        """One row a side: units, labelled units, classes, mean IoU; gained, lost and corresponding beside A."""
        rows = []
        for side in self.sides:
            labelled = side.units[side.units.labelled]
            changes = self.classes.get(f"change_{side.letter}", pd.Series(dtype=str))
            pairs = self.units[self.units.other == side.letter]
            rows.append(
                {
                    "side": side.letter,
                    "run": side.title,
                    "units": len(side.units),
                    "labelled": len(labelled),
                    "classes": labelled.label.nunique(),
                    "mean_iou": labelled.iou.mean(),
                    "gained": int((changes == "gained").sum()),
                    "lost": int((changes == "lost").sum()),
                    "pairs": len(pairs),
                    "corresponding": int(pairs.corresponds.sum()),
                    "same_label": int((pairs.corresponds & pairs.same_label).sum()),
                }
            )
        return pd.DataFrame(rows)

    def _title(self) -> str:
        return "; ".join(f"{side.letter} {side.title}" for side in self.sides)

    def _where(self) -> str:
        return f"of {listing(side.run.folder for side in self.sides)}"

    def _headline(self) -> str:
        rows = self.summary().to_dict("records")
        labelled = (f"{row['side']} {row['labelled']} of {row['units']}" for row in rows)
        changes = (f"{row['side']} gained {row['gained']} classes and lost {row['lost']}" for row in rows[1:])
        return f"labelled units: {', '.join(labelled)}; {', '.join(changes)}"


def compare(*runs: Dissection | str | Path) -> Comparison:
    """Compare two or more finished runs, or layers of them: the first with all others.

    Args:
        runs: Dissections, run folders, or `FOLDER:LAYER` for one layer of a run. Several layers count together.

    Raises:
        UsageError: fewer than two are given, one twice, a layer does not exist, or they name different classes.
        DissectError: a run is missing or damaged.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise UsageError(f"{len(runs)} runs: must be 2 to 26; to compare layers of one run, write RUN:LAYER RUN:LAYER.")
    sides = tuple(_side(letter, run) for letter, run in zip(LETTERS, runs, strict=False))
    first = sides[0]
    for side in sides[1:]:
        if (side.run.folder.resolve(), side.layers) == (first.run.folder.resolve(), first.layers):
            raise UsageError(f"{side.run.folder} is given twice; for layers of one run write RUN:LAYER RUN:LAYER.")
        if list(side.run.classes["class"]) != list(first.run.classes["class"]):
            raise UsageError(
                f"{first.run.folder} and {side.run.folder} name different classes (segmenters "
                f"{first.run.info['config']['segmenter']!r} and {side.run.info['config']['segmenter']!r}); compare "
                "runs of one segmenter."
            )
    pairs = [table for side in sides[1:] for table in _pairs(first, side)]
    return Comparison(
        sides=sides,
        classes=_classes(sides),
        units=pd.concat(pairs, ignore_index=True) if pairs else _no_pairs(),
        differences=_differences(sides),
    )


def same_latents(first: Side, second: Side) -> bool:
    """Whether sample i of both sides comes from the same latent."""
    return all(first.run.info["config"][key] == second.run.info["config"][key] for key in ("latent", "seed"))


def match(first: Features, second: Features) -> tuple[NDArray[np.int64], Floats, float]:
    """Pair units of two layers one to one so that the sum of their activations' correlations is greatest.

    Takes their signatures on the same latents, (U, n, cells) and (V, n, cells), see `maps.signature`. Returns, for
    min(U, V) pairs, the units (P, 2), their correlation (P,), and the correlation that place and chance give: the 95 %
    quantile of pairs that are matched after the samples of one side were shuffled, 9 times.

    Sources: Li et al. 2016, Convergent Learning, for the one-to-one matching; the assignment is SciPy's.
    """
    pairs, correlation = _assign(first, second)
    orders = (dice(0, MATCHING, shuffle).permutation(second.shape[1]) for shuffle in range(SHUFFLES))
    by_chance = [_assign(first, second[:, order])[1] for order in orders]
    return pairs, correlation, float(np.quantile(np.concatenate(by_chance), 0.95))


def _assign(first: Features, second: Features) -> tuple[NDArray[np.int64], Floats]:
    """The pairs of units (P, 2) with the greatest sum of correlations, and their correlations (P,)."""
    correlation = _unit_length(first) @ _unit_length(second).T
    rows, columns = linear_sum_assignment(correlation, maximize=True)
    return np.stack([rows, columns], 1), correlation[rows, columns]


def _unit_length(signatures: Features) -> Floats:
    """(U, n, cells) -> (U, n · cells) of mean 0 and length 1; zeros for a constant one."""
    flat = signatures.reshape(len(signatures), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-6)


def _side(letter: str, run: Dissection | str | Path) -> Side:
    """A Dissection, a folder, or FOLDER:LAYER."""
    if not isinstance(run, Dissection):
        folder, colon, layer = str(run).rpartition(":")
        if colon and not Path(run).exists() and Path(folder).is_dir():
            loaded = Dissection.load(folder)
            return Side(letter=letter, run=loaded, layers=(find_layer(loaded, layer),))
        run = Dissection.load(run)
    return Side(letter=letter, run=run, layers=tuple(run.layers))


def _classes(sides: Sequence[Side]) -> pd.DataFrame:
    first = sides[0]
    table = first.run.classes[["class", "category"]].copy()
    for side in sides:
        reach = side.units[side.units.reaches_limits]
        labelled = side.units[side.units.labelled]
        best = labelled.sort_values("iou", ascending=False, kind="stable").drop_duplicates("label").set_index("label")
        name = table["class"]
        table[f"share_{side.letter}"] = side.run.classes["share"].to_numpy()
        table[f"reach_{side.letter}"] = name.map(reach.label.value_counts()).fillna(0).astype(int)
        table[f"units_{side.letter}"] = name.map(labelled.label.value_counts()).fillna(0).astype(int)
        for column, source in (("best", "iou"), ("best_low", "iou_low"), ("best_high", "iou_high")):
            table[f"{column}_{side.letter}"] = name.map(best[source])
    before = table[f"units_{first.letter}"] > 0
    for side in sides[1:]:
        after = table[f"units_{side.letter}"] > 0
        change = np.select([before & after, before, after], ["kept", "lost", "gained"], "")
        table[f"change_{side.letter}"] = change
    total = table[[f"units_{side.letter}" for side in sides]].sum(axis=1).to_numpy()
    order = np.argsort(-total, kind="stable")
    return table.iloc[order[total[order] > 0]].reset_index(drop=True)


def _pairs(first: Side, side: Side) -> list[pd.DataFrame]:
    """The rows of `Comparison.units` for one side: a table for each layer of one name and size in different runs."""
    if not same_latents(first, side) or first.run.folder.resolve() == side.run.folder.resolve():
        return []
    shared = [layer for layer in first.layers if layer in side.layers and _size(first, layer) == _size(side, layer)]
    return [_layer_pairs(first, side, layer) for layer in shared]


def _size(side: Side, layer: str) -> tuple[int, ...]:
    known = side.run.info["layers"][layer]
    return len(side.units[side.units.layer == layer]), known["height"], known["width"]


def _layer_pairs(first: Side, side: Side, layer: str) -> pd.DataFrame:
    pairs, correlation, by_chance = match(first.run.signature(layer), side.run.signature(layer))
    rows = [pair.units[pair.units.layer == layer].set_index("unit") for pair in (first, side)]
    table = pd.DataFrame({"other": side.letter, "layer": layer, "unit_A": pairs[:, 0], "unit_B": pairs[:, 1]})
    for letter, units, column in zip("AB", rows, ("unit_A", "unit_B"), strict=True):
        paired = units.loc[table[column]]
        table[f"label_{letter}"] = paired.label.where(paired.labelled, "").to_numpy()
        table[f"iou_{letter}"] = paired.iou.to_numpy()
    table["correlation"], table["chance_correlation"] = correlation, by_chance
    table["corresponds"] = correlation > by_chance
    table["same_label"] = (table.label_A == table.label_B) & (table.label_A != "")
    return table.sort_values("correlation", ascending=False, kind="stable")


def _no_pairs() -> pd.DataFrame:
    texts = dict.fromkeys(("other", "layer", "label_A", "label_B"), "str")
    numbers = dict.fromkeys(("iou_A", "iou_B", "correlation", "chance_correlation"), "float64")
    types = texts | dict.fromkeys(("unit_A", "unit_B"), "int64") | numbers
    types |= dict.fromkeys(("corresponds", "same_label"), "bool")
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})


def _differences(sides: Sequence[Side]) -> dict[str, list[object]]:
    differences = {}
    for key in (*RULES, *OTHERS):
        values = [side.layers if key == "layers" else side.run.info["config"].get(key) for side in sides]
        if any(value != values[0] for value in values):
            differences[key] = values
    return differences
