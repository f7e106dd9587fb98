"""The causal effect of each unit alone: every unit of a layer is ablated by itself, on samples of the run.

RUN/interventions/scan-LAYER/scan.json   layer, samples
                             areas.npz   before (N, C + 1), change (U, N, C + 1) shares of pixels; "unlabelled" last
                             CLASS.csv, CLASS.json   one row a unit, and `Scan.info`, for each requested class
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ...hooks.errors import DissectError, UsageError
from ...segmenters.base import Segmenter
from ..images.class_areas import UNLABELLED
from ..runs import lookup
from ..runs.dissection import Dissection
from ..runs.reopen import reopen
from ..runtime import distributed, late
from ..runtime.progress import Fewer, Progress
from ..runtime.resources import at_work
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg, bootstrap, interval, sign_flip_p
from ..storage.contract import COLUMNS, KEYS
from ..storage.files import read_arrays, read_json, read_table, safe_name, write_arrays, write_csv, write_json
from ..storage.result_folder import writing
from ..storage.shown import Shown
from ..storage.shown import interval as with_interval
from ..subjects.opening import Given, usable_device
from ..subjects.subject import Subject
from .areas import Areas, Variants, measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

SCAN = "scan.json"
SAMPLES = 64
STRONGEST = 20  # units whose effects are added up
TRY_AGAIN = "make room and try again"


@dataclass(frozen=True, kw_only=True, repr=False)
class Scan(Shown):
    """What ablating each unit of a layer alone does.

    table: one row a unit, strongest on the class first: `iou` with the class and `iou_rank`; `change_pp`, what ablating
        it does to the class's area in percentage points, with its 95 % bootstrap interval over images, q-value and
        `causal_rank` (1 removes most); then the change of every class, in columns `pp:CLASS`.
    info: layer, class, samples; `rank_correlation` (Spearman's, of IoU and area removed) with its 95 % interval over
        images; `strongest`, the 20 strongest units' changes added up, each measured alone.
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
        file = Path(file)
        info = read_json(file, KEYS["scan"])
        return cls(folder=file.parent, info=info, table=read_table(file.with_suffix(".csv"), COLUMNS["scan"]))

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
        return f"each unit of {info['layer']} ablated alone, for {info['class']}, on {info['samples']} samples"

    def _headline(self) -> str:
        info, top = self.info, self.table.iloc[0]
        effect = with_interval(top.change_pp, top.low, top.high, "+.2f", " points")
        value, low, high = (info[f"rank_correlation{end}"] for end in ("", "_low", "_high"))
        rho = with_interval(value, low, high, "+.2f", "")
        return (
            f"strongest: unit {top.unit}, {effect} of {info['class']}; {info['changed']} of {len(self.table)} units "
            f"change it; rank correlation of IoU and effect {rho}"
        )


def scan(
    run: Dissection | str | Path,
    *,
    label: str,
    layer: str | int | None = None,
    samples: int = SAMPLES,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Scan:
    """Ablate each unit of a run's layer alone, and measure how the area of every class changes.

    The samples are the run's first ones. A scan serves to choose units, so that the effect of the chosen units must be
    measured on other samples, as `ablate` does.

    Args:
        run: a finished run, or its folder.
        label: the class by which the table is ordered.
        layer: one of the run's, by name or number; needed where it has several.
        samples: how many of the run's samples.
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
    if not 1 <= samples <= run.info["config"]["samples"]:
        most = run.info["config"]["samples"]
        raise UsageError(f"--samples {samples}: must be between 1 and {most}, the number of the run's samples.")
    generator, segmenter = reopen(run, generator, segmenter, usable_device(device), quiet)
    subject = Subject.open(generator, segmenter, name, batch_size, lookup.directions_of(run, name))
    with Progress(quiet) as progress, at_work():
        before, change = scan_layer(subject, run, samples, progress=progress)
    result = tabulate(run, name, target, before, change)
    distributed.on_first(lambda: _save_table(result, folder(run, name), _file_name(label, target)))
    return result


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


def scan_layer(
    subject: Subject, run: Dissection, samples: int | None = None, *, progress: Progress
) -> tuple[Floats, Floats]:
    """Ablate each unit of the layer alone, or load what the run's folder holds of the same number of samples.

    Args:
        subject: the layer and the networks.
        run: the run, whose folder keeps the scan.
        samples: how many; None takes as many as the last scan had, or else 64.

    Returns:
        before (N, C + 1) and change (U, N, C + 1), float64 shares of pixels.

    Raises:
        DissectError: a network failed, or the scan cannot be written.
    """
    path, units = folder(run, subject.layer), subject.width
    count = samples or scan_samples(run, subject.layer)
    if count != _samples_on_disk(run, subject.layer):
        alone = Variants(weight=torch.eye(units)[:, None], value=torch.zeros(units), directions=subject.directions)
        fewer = Fewer("samples", count, 16)
        with progress.task(f"scan {subject.layer}", units * count, spread=True, fewer=fewer) as advance:
            areas = measure(subject, range(count), alone, advance=advance)
        distributed.on_first(lambda: _save_areas(areas, path, subject.layer))
    arrays: dict[str, Any] = read_arrays(path / "areas.npz")
    if len(arrays["before"]) != count:
        raise DissectError(f"Another scan of {subject.layer} wrote to {path} meanwhile; run this one again.")
    return arrays["before"].astype(np.float64), arrays["change"].astype(np.float64)


def _save_areas(areas: Areas, path: Path, layer: str) -> None:
    shares = {"before": areas.before.astype(np.float32), "change": areas.difference.astype(np.float32)}
    with writing(path, TRY_AGAIN):
        path.mkdir(parents=True, exist_ok=True)
        # the description goes first and comes back last: it never describes other arrays than those beside it
        (path / "scan.json").unlink(missing_ok=True)
        write_arrays(path / "areas.npz", shares)
        write_json(path / "scan.json", {"layer": layer, "samples": len(areas.before), "value": "zero"})


def _save_table(result: Scan, path: Path, name: str) -> None:
    with writing(path, TRY_AGAIN):
        path.mkdir(parents=True, exist_ok=True)
        write_csv(path / f"{name}.csv", result.table)
        write_json(path / f"{name}.json", result.info)


def is_scanned(run: Dissection, layer: str) -> bool:
    """Whether the run's folder has a scan of the layer."""
    return _samples_on_disk(run, layer) > 0


def scan_samples(run: Dissection, layer: str) -> int:
    """How many samples the last scan of a layer had, or, if there is none, how many a scan has by default."""
    return _samples_on_disk(run, layer) or min(SAMPLES, int(run.info["config"]["samples"]))


def _samples_on_disk(run: Dissection, layer: str) -> int:
    """How many samples the scan in the run's folder has; 0 if there is none."""
    file = folder(run, layer) / "scan.json"
    return distributed.on_first(lambda: int(read_json(file).get("samples", 0)) if file.exists() else 0)


def tabulate(run: Dissection, layer: str, target: int, before: Floats, change: Floats) -> Scan:
    """The table and the figures of a scan for one class; see `Scan`.

    Args:
        target: the number of the class.
        before: (N, C + 1) shares of pixels of the unchanged images; "unlabelled" last.
        change: (U, N, C + 1) what ablating each unit alone adds to them.
    """
    names = list(run.classes["class"])
    samples = len(before)
    weights = bootstrap(samples)
    change_pp = change[:, :, target].T * 100  # (N, U)
    bootstrapped = weights @ change_pp / samples  # (2000, U): the mean change of each bootstrap round
    low, high = interval(bootstrapped)
    q = benjamini_hochberg(sign_flip_p(change_pp))
    iou = lookup.class_iou(run, layer, target)
    units = run.units[run.units.layer == layer]
    table = pd.DataFrame(
        {
            "unit": units.unit.to_numpy(),
            "label": units.label.to_numpy(),
            "labelled": units.labelled.to_numpy(),
            "iou": iou,
            "iou_rank": pd.Series(-iou).rank(method="min").astype(int),
            "change_pp": change_pp.mean(0),
            "low": low,
            "high": high,
            "q_value": q,
            "changed": q <= FALSE_DISCOVERIES,
            "causal_rank": pd.Series(change_pp.mean(0)).rank(method="min").astype(int),
            **{f"pp:{name}": change[:, :, k].mean(1) * 100 for k, name in enumerate([*names, UNLABELLED])},
        }
    )
    table = table.sort_values(["change_pp", "unit"], kind="stable", ignore_index=True)
    rho, rho_low, rho_high = _rank_correlation(iou, change_pp.mean(0), bootstrapped)
    return Scan(
        folder=folder(run, layer),
        table=table,
        info={
            "name": f"{folder(run, layer).name}-{_file_name(names[target], target)}",
            "layer": layer,
            "class": names[target],
            "samples": samples,
            "before_pp": float(before[:, target].mean() * 100),
            "rank_correlation": rho,
            "rank_correlation_low": rho_low,
            "rank_correlation_high": rho_high,
            "strongest": float(table.change_pp.head(STRONGEST).sum()),
            "changed": int(table.changed.sum()),
        },
    )


def _rank_correlation(
    iou: Floats, change: Floats, bootstrapped: Floats
) -> tuple[float | None, float | None, float | None]:
    """Spearman's correlation of IoU and removed area, and its interval over bootstrapped images; None if undefined.

    Args:
        iou, change: (U,).
        bootstrapped: (2000, U) the changes of each bootstrap round.
    """
    removed = pd.DataFrame(np.vstack([-change, -bootstrapped]).T).rank().to_numpy()  # (U, 1 + 2000)
    by_iou = pd.Series(iou).rank().to_numpy()
    removed, by_iou = removed - removed.mean(0), by_iou - by_iou.mean()
    norm = np.sqrt((removed**2).sum(0) * (by_iou**2).sum())
    correlations = np.divide(by_iou @ removed, norm, out=np.full(norm.shape, np.nan), where=norm > 0)
    if np.isnan(correlations[0]):
        return None, None, None
    low, high = interval(correlations[1:])
    return float(correlations[0]), float(low), float(high)
