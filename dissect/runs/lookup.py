"""Classes, layers and units of a run by what a user writes, and units ranked for a class."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import UsageError
from ...hooks.names import near
from ..scoring.scores import iou, iqr
from .dissection import Dissection

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def class_number(name: str, names: Sequence[str], suggestions: Sequence[str]) -> int:
    """The number of a class among `names`.

    Raises:
        UsageError: there is no class of that name; the message lists similar names, and the suggestions.
    """
    if name in names:
        return list(names).index(name)
    raise UsageError(
        " ".join(filter(None, [f"There is no class {name!r}.", near(name, names)]))
        + f" There are {', '.join(suggestions[:24])}{', …' if len(suggestions) > 24 else ''}."
    )


def run_class(run: Dissection, name: str) -> int:
    """The number of a class in the run's vocabulary; if there is no such class, the error lists those in the images."""
    present = run.classes[run.classes["share"] > 0].sort_values("share", ascending=False, kind="stable")["class"]
    return class_number(name, list(run.classes["class"]), list(present))


def pick_layer(run: Dissection, layer: str | int | None) -> str:
    """The run's layer of that name, or of the number that `dissect run` knows it by, or its only one.

    Raises:
        UsageError: the run has no such layer, or several and none was named; or it is a control.
    """
    if run.info["config"]["control"]:
        raise UsageError(f"{run.folder} is a control; interventions work on the run that it belongs to.")
    if layer is None and len(run.layers) == 1:
        return run.layers[0]
    if layer is None:
        raise UsageError(f"The run in {run.folder} has several layers; name one by --layer: {', '.join(run.layers)}.")
    return find_layer(run, layer)


def pick_layer_of_units(run: Dissection, layer: str | int | None) -> str:
    """The same, for what works on units alone.

    Raises:
        UsageError: also if the run dissects directions.
    """
    if run.noun != "unit":
        raise UsageError(
            f"The run in {run.folder} dissects directions ({run.info['config']['basis']}), and suspects and repairs "
            "are units; make a run without --basis."
        )
    return pick_layer(run, layer)


def find_layer(run: Dissection, layer: str | int) -> str:
    """The run's layer of that name, or of the number that `dissect run` knows it by.

    Raises:
        UsageError: the run has no such layer.
    """
    wanted = str(layer)
    matches = [name for name in run.layers if name == wanted and not isinstance(layer, int)]
    matches += [name for name, known in run.info["layers"].items() if str(known.get("number")) == wanted]
    if not matches:
        raise UsageError(f"The run in {run.folder} has no layer {wanted!r}; it has {', '.join(run.layers)}.")
    return matches[0]


def directions_of(run: Dissection, layer: str) -> Tensor | None:
    """(K, U) float32, what each direction of a layer is made of; None if the run dissects units."""
    directions = run.directions(layer)
    return None if directions is None else torch.from_numpy(directions)


def width_of(run: Dissection, layer: str) -> int:
    """How many units, or directions, of a layer the run has dissected."""
    return int((run.units.layer == layer).sum())


def parse_units(text: str) -> tuple[str | None, tuple[int, ...]]:
    """`layer4:12,57,300` -> ("layer4", (12, 57, 300)); `12,57`, of a run with one layer, -> (None, (12, 57)).

    Raises:
        UsageError: it is written in another way.
    """
    layer, colon, numbers = text.rpartition(":")
    if bool(colon) != bool(layer) or re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", numbers) is None:
        raise UsageError(f"--units {text!r} is not understood; write LAYER:UNIT,UNIT,…, e.g. layer4:12,57,300.")
    return layer or None, tuple(dict.fromkeys(int(number) for number in numbers.split(",")))


def check_units(units: Sequence[int], layer: str, width: int, noun: str = "unit") -> None:
    """Raise UsageError for a unit, or direction, that the layer does not have, or for none at all."""
    wrong = [unit for unit in units if not 0 <= unit < width]
    if wrong or not units:
        given = ", ".join(map(str, wrong[:8])) + (", …" if len(wrong) > 8 else "") if wrong else "none"
        raise UsageError(f"Layer {layer!r} has {noun}s 0 to {width - 1}; asked for {given}.")


def class_level(run: Dissection, layer: str, number: int) -> Integers:
    """(U,) the level at which each unit is compared with a class: under the rule `iqr` that of highest IQR."""
    if run.info["config"]["threshold"] == "quantile":
        fixed = run.shares.tolist().index(run.info["config"]["quantile"])
        return np.full(len(run.levels(layer)), fixed)
    return iqr(run.counts(layer, "choose").only(number))[:, 0].argmax(1)


def class_iou(run: Dissection, layer: str, number: int) -> Floats:
    """(U,) IoU of each unit's region for this class with the class, on the score half; 0 where both avoid."""
    level = class_level(run, layer, number)
    units = np.arange(len(level))
    choose, score = (run.counts(layer, half).only(number) for half in ("choose", "score"))
    attracted = iqr(choose)[units, 0, level] > 0
    return np.where(attracted, np.nan_to_num(iou(score)[units, 0, level]), 0.0)


def rank_by_iou(run: Dissection, layer: str, name: str, *, labelled_needed: bool = True) -> Integers:
    """All units of a layer for a class, best first: those labelled so by their IoU, then the others by theirs with it.

    Raises:
        UsageError: no unit of the layer is labelled so, and one is needed.
    """
    units = run.units[run.units.layer == layer]
    labelled = ((units.label == name) & units.labelled).to_numpy()
    if labelled_needed and not labelled.any():
        known = units[units.labelled].label.value_counts().index
        raise UsageError(
            f"No {run.noun} of {layer} is labelled {name!r}; labelled there: {', '.join(known) or 'none'}. Choose one "
            f"of these, another run, {run.noun}s by --units, or choose the class's {run.noun}s by their effect: "
            "--by gradient or scan."
        )
    return np.lexsort((-class_iou(run, layer, run_class(run, name)), ~labelled))
