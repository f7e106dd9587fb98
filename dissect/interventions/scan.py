"""The causal effect of each unit alone: every unit of a layer is ablated by itself, on samples of the run.

RUN/interventions/scan-LAYER/scan.json   layer, samples
                             areas.npz   before (N, C + 1), change (U, N, C + 1) shares of pixels; "unlabelled" last
                             CLASS.csv, CLASS.json   one row a unit, and `Scan.info`, for each class asked for
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.resources import at_work
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg, bootstrap, interval, sign_flip_p
from ..storage.files import read_arrays, read_json, safe_name, write_arrays, write_csv, write_json
from ..subjects.opening import Given, usable_device
from ..subjects.subject import Subject
from .areas import Areas, Variants, measure

Floats = NDArray[np.float64]

SAMPLES = 64
STRONGEST = 20  # units whose effects are summed up


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What ablating each unit of a layer alone does.

    table: one row a unit, strongest on the class first: `iou` with the class and `iou_rank`; `change_pp`, what ablating
        it does to the class's area in percentage points, with its 95 % bootstrap interval over images, q-value and
        `causal_rank` (1 removes most); then the change of every class, in columns `pp:CLASS`.
    info: layer, class, samples; `rank_correlation` (Spearman's, of IoU and area removed) with its 95 % interval over
        images; `strongest`, the 20 strongest units' changes added up, each measured alone.
    """

    table: pd.DataFrame
    info: dict[str, Any]

    def _repr_html_(self) -> str:
        return self.table.head(12).to_html(index=False)


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
    """Ablate each unit of a run's layer alone and tell what it does to every class.

    Samples are the run's first ones: a scan serves to choose units, so that what is chosen by it must be measured on
    others, as `ablate` does.

    Args:
        run: a finished run, or its folder.
        label: the class by which the table is ordered.
        layer: one of the run's, by name or number; needed where it has several.
        samples: how many.
        generator, segmenter: for a run of objects made in Python.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist, or the model has changed since the run.
        DissectError: something failed.
    """
    run = run if isinstance(run, Dissection) else Dissection.load(run)
    name = lookup.pick_layer(run, layer)
    target = lookup.run_class(run, label)
    if not 1 <= samples <= run.info["config"]["samples"]:
        raise UsageError(f"--samples {samples}: from 1 to the run's {run.info['config']['samples']} can be scanned.")
    generator, segmenter = reopen(run, generator, segmenter, usable_device(device), quiet)
    subject = Subject.open(generator, segmenter, name, batch_size)
    with Progress(quiet) as progress, at_work():
        before, change = scan_layer(subject, run, samples, progress=progress)
    found = tabulate(run, name, target, before, change)
    distributed.on_first(lambda: _keep_table(found, folder(run, name), _file(label, target)))
    return found


def folder(run: Dissection, layer: str) -> Path:
    """Where the scan of a layer is kept."""
    return run.folder / "interventions" / safe_name(f"scan-{layer}")


def _file(label: str, number: int) -> str:
    """The name of a class's files; its number tells classes apart whose names make the same one."""
    name = safe_name(label)
    return name if name == label != "scan" else f"{name}-{number}"


def scan_layer(
    subject: Subject, run: Dissection, samples: int | None = None, *, progress: Progress
) -> tuple[Floats, Floats]:
    """before (N, C + 1) and change (U, N, C + 1) as shares of pixels; as kept, where it was scanned before.

    `samples` None takes whatever was scanned, or else 64.

    Raises:
        DissectError: a network failed, or the scan cannot be kept.
    """
    place, units = folder(run, subject.layer), subject.shape[0]
    count = samples or scan_samples(run, subject.layer)
    if count != _kept_samples(run, subject.layer):
        alone = Variants(weight=torch.eye(units)[:, None], value=torch.zeros(units))
        with progress.task(f"scan {subject.layer}", units * count, spread=True) as advance:
            areas = measure(subject, range(count), alone, advance=advance)
        distributed.on_first(lambda: _keep_areas(areas, place, subject.layer))
    arrays: dict[str, Any] = read_arrays(place / "areas.npz")
    if len(arrays["before"]) != count:
        raise DissectError(f"Another scan of {subject.layer} wrote to {place} meanwhile; run this one again.")
    return arrays["before"].astype(np.float64), arrays["change"].astype(np.float64)


def _keep_areas(areas: Areas, place: Path, layer: str) -> None:
    measured = {"before": areas.before.astype(np.float32), "change": areas.difference.astype(np.float32)}
    with _writing(place):
        (place / "scan.json").unlink(missing_ok=True)
        write_arrays(place / "areas.npz", measured)
        write_json(place / "scan.json", {"layer": layer, "samples": len(areas.before), "value": "zero"})


def _keep_table(found: Scan, place: Path, file: str) -> None:
    with _writing(place):
        write_csv(place / f"{file}.csv", found.table)
        write_json(place / f"{file}.json", found.info)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Makes the folder where it is not there; raises DissectError for what cannot be written."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DissectError(
            f"Writing to {place} failed ({error.strerror or error}); make room and try again."
        ) from error


def scan_samples(run: Dissection, layer: str) -> int:
    """On how many samples a layer was scanned, or would be if nothing is said."""
    return _kept_samples(run, layer) or min(SAMPLES, int(run.info["config"]["samples"]))


def _kept_samples(run: Dissection, layer: str) -> int:
    file = folder(run, layer) / "scan.json"
    return distributed.on_first(lambda: int(read_json(file).get("samples", 0)) if file.exists() else 0)


def tabulate(run: Dissection, layer: str, target: int, before: Floats, change: Floats) -> Scan:
    """The table and the figures of a scan for one class; see `Scan`."""
    names = list(run.classes["class"])
    samples = len(before)
    weights = bootstrap(samples)
    alone = change[:, :, target].T * 100  # (N, U)
    spread = weights @ alone / samples  # (2000, U)
    low, high = interval(spread)
    q = benjamini_hochberg(sign_flip_p(alone))
    iou = lookup.class_iou(run, layer, target)
    units = run.units[run.units.layer == layer]
    table = pd.DataFrame(
        {
            "unit": units.unit.to_numpy(),
            "label": units.label.to_numpy(),
            "labelled": units.labelled.to_numpy(),
            "iou": iou,
            "iou_rank": pd.Series(-iou).rank(method="min").astype(int),
            "change_pp": alone.mean(0),
            "low": low,
            "high": high,
            "q_value": q,
            "changed": q <= FALSE_DISCOVERIES,
            "causal_rank": pd.Series(alone.mean(0)).rank(method="min").astype(int),
            **{f"pp:{name}": change[:, :, k].mean(1) * 100 for k, name in enumerate([*names, UNLABELLED])},
        }
    )
    table = table.sort_values(["change_pp", "unit"], kind="stable", ignore_index=True)
    rho, rho_low, rho_high = _rank_correlation(iou, alone.mean(0), spread)
    return Scan(
        table=table,
        info={
            "name": f"{folder(run, layer).name}-{_file(names[target], target)}",
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


def _rank_correlation(iou: Floats, change: Floats, spread: Floats) -> tuple[float | None, float | None, float | None]:
    """Spearman's correlation of IoU and area removed, and its interval over bootstrapped images; None if undefined."""
    removed = pd.DataFrame(np.vstack([-change, -spread]).T).rank().to_numpy()  # (U, 1 + 2000)
    mine = pd.Series(iou).rank().to_numpy()
    removed, mine = removed - removed.mean(0), mine - mine.mean()
    norm = np.sqrt((removed**2).sum(0) * (mine**2).sum())
    found = np.divide(mine @ removed, norm, out=np.full(norm.shape, np.nan), where=norm > 0)
    if np.isnan(found[0]):
        return None, None, None
    low, high = interval(found[1:])
    return float(found[0]), float(low), float(high)
