"""The causal effect of each unit alone: exact for those that matter most for a class, to first order for the others.

RUN/interventions/scan-LAYER/scan.json, areas.npz    see ablated_sets.py
                             CLASS.csv, CLASS.json   one row a unit, and `Scan.info`, for each requested class
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.reopen import reopen
from ..runtime import distributed, late
from ..runtime.progress import Progress
from ..runtime.requests import check_integers
from ..runtime.resources import at_work
from ..storage.contract import COLUMNS, KEYS
from ..storage.files import read_json, read_table, safe_name, write_csv, write_json
from ..storage.result_folder import writing
from ..storage.shown import Shown
from ..storage.shown import interval as with_interval
from ..subjects.opening import Given, usable_device
from ..subjects.subject import Subject
from .ablated_sets import SCAN, TRY_AGAIN, AblatedSets, alone, samples_on_disk
from .by_need import random_groups, verify
from .scan_table import TOP, Measured, exact_figures, tabulate, with_estimates
from .scan_verdict import caution, noun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SCAN", "Scan", "scan"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SAMPLES = 64


@dataclass(frozen=True, kw_only=True, repr=False)
class Scan(Shown):
    """What ablating each unit of a layer alone does to a class: exact for the units that are verified.

    table: one row a unit, verified units first, strongest on the class first, then the others by their estimate: `iou`
        with the class and `iou_rank`; `estimate`, what ablating it does to the class's area to first order, in
        percentage points, with the 95 % interval of Student over images; `verified`, whether it was ablated; and if so
        `change_pp`, what that did, with its 95 % bootstrap interval over images, q-value and `causal_rank` (1 removes
        most), and the change of every class, in columns `pp:CLASS`. These are NaN for a unit that is not verified.
    info: layer, class, samples; `exact`, whether every unit is verified; `rank_correlation` (Spearman's, of IoU and
        area removed) with its 95 % interval over images; `strongest`, the changes of the `top` strongest units added
        up, each measured alone; `agreement` (Spearman's, of estimate and exact effect, over verified units), with its
        interval; and what the groups of the other units say, see `by_need.Bound`.
    folder: where the scan of the layer is kept.
    """

    folder: Path
    table: pd.DataFrame
    info: dict[str, Any]

    @classmethod
    def load(cls, file: str | Path) -> Scan:
        """Open the kept scan for one class, from its description CLASS.json.

        Raises:
            DissectError: it or its table is missing or damaged.
        """
        info, table = read_scan(Path(file))
        return cls(folder=Path(file).parent, table=table, info=info)

    def plot(self, ax: Axes | None = None, *, named: int = 8) -> Axes:
        """What ablating each unit does to the class, against its IoU with it.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            named: how many of the strongest units get their number and interval.
        """
        axes: Axes = late.plots().scan(self, ax, named)
        return axes

    def _title(self) -> str:
        info = self.info
        return f"each {noun(info)} of {info['layer']} ablated alone, for {info['class']}, on {info['samples']} samples"

    def _headline(self) -> str:
        info, top = self.info, self.table.iloc[0]
        effect = with_interval(top.change_pp, top.low, top.high, "+.2f", " points")
        value, low, high = (info[f"rank_correlation{end}"] for end in ("", "_low", "_high"))
        rho = with_interval(value, low, high, "+.2f", "")
        return (
            f"strongest: {noun(info)} {top.unit}, {effect} of {info['class']}; {info['changed']} of {len(self.table)} "
            f"{noun(info)}s change it; rank correlation of IoU and effect {rho}"
        )

    @property
    def caution(self) -> str:
        """Why the ranking should not be trusted; empty where nothing speaks against it."""
        return caution(self.info)


def scan(
    run: Dissection | str | Path,
    *,
    label: str,
    layer: str | int | None = None,
    samples: int = SAMPLES,
    top: int = TOP,
    exact: bool = False,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Scan:
    """Rank the units of a run's layer by what ablating each alone does to a class, and verify the strongest.

    A first-order estimate ranks all units (see `causes.first_order`). Those that could be among the `top` that remove
    most are ablated, each by itself (see `by_need.verify`), and the area of every class is measured. Where no gradient
    passes through the networks, every unit is ablated.

    The samples are the run's first ones. A scan serves to choose units, so that the effect of the chosen units must be
    measured on other samples, as `ablate` does.

    Args:
        run: a finished run, or its folder.
        label: the class by which the table is ordered.
        layer: one of the run's, by name or number; needed where it has several.
        samples: how many of the run's samples.
        top: how many of the units that remove most are to be known exactly.
        exact: ablate every unit.
        generator, segmenter: the run's, if they were given as Python objects; otherwise they are opened again by name.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: an argument is unknown or outside its limits, or the model has changed since the run.
        DissectError: something failed.
    """
    run = run if isinstance(run, Dissection) else Dissection.load(run)
    name = lookup.pick_layer(run, layer)
    target = lookup.run_class(run, label)
    check_integers({"--top": (top, 1)})
    if not 1 <= samples <= run.info["config"]["samples"]:
        most = run.info["config"]["samples"]
        raise UsageError(f"--samples {samples}: must be between 1 and {most}, the number of the run's samples.")
    generator, segmenter = reopen(run, generator, segmenter, usable_device(device), quiet)
    subject = Subject.open(generator, segmenter, name, batch_size, lookup.directions_of(run, name))
    with Progress(quiet) as progress, at_work():
        result = scan_class(subject, run, target, samples, top=top, exact=exact, progress=progress)
    distributed.on_first(lambda: _save_table(result, _file_name(label, target)))
    return result


def scan_class(
    subject: Subject,
    run: Dissection,
    target: int,
    samples: int | None = None,
    *,
    top: int = TOP,
    exact: bool = False,
    progress: Progress,
) -> Scan:
    """Scan a layer for a class; what the run's folder holds of the same number of samples is not measured again.

    Args:
        subject: the layer and the networks.
        run: the run, whose folder keeps the ablated units.
        target: the number of the class.
        samples: how many; None takes as many as the last scan had, or else 64.
        top: how many of the units that remove most are to be known exactly.
        exact: ablate every unit.
        progress: shows what is measured.

    Raises:
        DissectError: a network failed, or the scan cannot be written.
    """
    layer, width = subject.layer, subject.width
    sets = AblatedSets(subject, folder(run, layer), samples or scan_samples(run, layer), progress)
    obstacle = sets.obstacle()
    estimate = None if obstacle else sets.estimate(target)

    def effects(units: Integers) -> Floats:
        return sets.change(alone(units, width), f"scan {layer}")[:, :, target].mean(1)

    if exact or estimate is None:
        effects(np.arange(width))
    else:
        verify(estimate.mean(0), effects, top)
    units = sets.measured_units()  # those that were verified for other classes, too
    others = np.setdiff1d(np.arange(width), units)
    groups = random_groups(others, width)
    measured = Measured(
        before=sets.before,
        units=units,
        change=sets.change(alone(units, width), f"scan {layer}"),
        estimate=estimate,
        groups=groups,
        together=sets.change(groups, f"check {layer}")[:, :, target],
    )
    table, info = tabulate(run, layer, target, measured, top)
    name = f"{sets.path.name}-{_file_name(info['class'], target)}"
    why = None if not info["exact"] else _why_exact(exact, obstacle)
    return Scan(
        folder=sets.path, table=table, info={"name": name, "layer": layer, "noun": run.noun, "why_exact": why} | info
    )


def _why_exact(requested: bool, obstacle: str) -> str:
    """Why every unit was ablated."""
    if requested:
        return "--exact"
    return obstacle or "each of them could be among the first, or was ablated earlier"


def read_scan(file: Path, classes: Sequence[str] = ()) -> tuple[dict[str, Any], pd.DataFrame]:
    """The description CLASS.json of a kept scan, and its table, which must have a column for each of the classes.

    Raises:
        DissectError: one is missing or damaged.
    """
    columns = [*COLUMNS["scan"], *(f"pp:{name}" for name in classes)]
    info, table = read_json(file, KEYS["scan"]), read_table(file.with_suffix(".csv"), columns)
    return {**exact_figures(len(table)), **info}, with_estimates(table)


def folder(run: Dissection, layer: str) -> Path:
    """The folder of a layer's scan."""
    return run.folder / "interventions" / safe_name(f"scan-{layer}")


def _file_name(label: str, number: int) -> str:
    """The file name of a class, without suffix.

    The number of the class is added where the safe name differs from the label, since two labels may have the same safe
    name, and to a class called scan, since scan.json describes the scan itself.
    """
    name = safe_name(label)
    return f"{name}-{number}" if name != label or name == "scan" else name


def _save_table(result: Scan, name: str) -> None:
    with writing(result.folder, TRY_AGAIN):
        result.folder.mkdir(parents=True, exist_ok=True)
        write_csv(result.folder / f"{name}.csv", result.table)
        write_json(result.folder / f"{name}.json", result.info)


def is_scanned(run: Dissection, layer: str) -> bool:
    """Whether the run's folder has a scan of the layer, of all units or of some."""
    return samples_on_disk(folder(run, layer)) > 0


def scan_samples(run: Dissection, layer: str) -> int:
    """How many samples the last scan of a layer had, or, if there is none, how many a scan has by default."""
    return samples_on_disk(folder(run, layer)) or min(SAMPLES, int(run.info["config"]["samples"]))
