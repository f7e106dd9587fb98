"""The run folder: a versioned, atomic, resumable public contract.

RUN/run.json      config, versions, device, provenance and hashes, timings; schema version; status
RUN/units.csv     one row a unit
RUN/classes.csv   one row a class
RUN/scores.npz    LAYER/level (U, K); LAYER/HALF/intersection (U, C, K), LAYER/HALF/unit_area (U, K);
                  LAYER/histogram (U, 64) of the activations over LAYER/span (U, 2); LAYER/rival (U, R) best classes,
                  LAYER/rival_level (U, R); LAYER/signature (U, n, cells), see capture/maps.py;
                  if tested LAYER/null_sd (U,) of the IoU under permutation, LAYER/fires (U, s, s) share of the scored
                  images where the region is there, LAYER/rival_low, rival_high, rival_position (U, R);
                  LAYER/directions (K, U) if not units;
                  HALF/class_area (C,), HALF/pixels; shares (K,); HALF is choose or score
RUN/tops.npz      LAYER/sample, LAYER/peak (U, T), LAYER/mask (U, T, g, ⌈g / 8⌉) bits packed along x
RUN/shown.npz     featuremaps of a few samples, see runs/kept_maps.py; runs made by earlier versions have none
RUN/causes.npz    first-order effects of the units on the classes, see causes/table.py; not in every run
RUN/spool/        see capture/spool.py
RUN/controls/NAME/              a run of its own: rotation or untrained
RUN/interventions/NAME/         see interventions/result.py
RUN/interventions/scan-LAYER/   see interventions/scan.py
RUN/artifacts/NAME/             see artifacts/find.py
RUN/repairs/NAME/               see repairs/result.py
RUN/report/       made by the package reports
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ...hooks.errors import DissectError, UsageError, one_line
from ..capture.spool import Spool
from ..causes.table import Causes, read_causes, with_effects
from ..images.class_areas import shares
from ..runtime import late
from ..scoring.scores import Counts, chance_iou, curve, iou_of
from ..scoring.unit_table import highlights, ranked, tiers
from ..storage.contract import COLUMNS, unreadable
from ..storage.files import COMPLETE, SCHEMA, TABLES, finished, read_arrays, read_table, safe_name
from ..storage.shown import Shown
from .kept_maps import KeptMaps, read_kept
from .views import ClassUnits, Sample, Unit, class_of, sample_of, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .. import Comparison, Effects, Scan


def run_name(config: Mapping[str, Any]) -> str:
    """The default name of a run's folder: its model, its layers, and its basis if that is not the units."""
    basis = "" if config["directions"] is None else f"-{config['basis']}"
    return safe_name(f"{config['model']}-{'+'.join(config['layers'])}{basis}")


def read_info(folder: Path) -> dict[str, Any]:
    """The run.json of a folder.

    Raises:
        UsageError: the folder holds no run.
        DissectError: run.json is damaged, or of an unknown schema.
    """
    path = folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        schema, _ = info["schema"], info["status"]
        if not isinstance(info["config"], dict):
            raise ValueError("its config is no table")
    except FileNotFoundError:
        raise UsageError(
            f"{folder} is no run folder (it has no run.json); give the folder that dissect run made."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(path, one_line(error)) from error
    if schema != SCHEMA:
        raise DissectError(f"{path} has schema {schema!r}, this version reads {SCHEMA}; use the version that wrote it.")
    return info


@dataclass(frozen=True, kw_only=True, repr=False)
class Dissection(Shown):
    """The result of a run.

    `units` has a row for each unit and `classes` a row for each class (pandas); `info` is run.json.

        run.unit("layer7", 26)      # a unit with its top images; .show(), .images(), .heatmap(sample)
        run.sample(7)               # a sample with its segmentation; .show(units=[26, 4])
        run["tree"].units           # the units that are labelled tree
        run.ablate("tree")          # and insert, scan, power, compare: the functions of `ganatomy.dissect`
        run.report(open=True)       # the page with all of that
    """

    folder: Path
    info: dict[str, Any]
    units: pd.DataFrame
    classes: pd.DataFrame

    @classmethod
    def load(cls, folder: str | Path) -> Dissection:
        """Open a finished run.

        Raises:
            UsageError: the folder holds no run, or one that is not finished.
            DissectError: a file of the run is missing or damaged.
        """
        folder = Path(folder)
        info = read_info(folder)
        if shard := info["config"].get("shard"):
            raise UsageError(f"{folder} holds shard {shard} of a run; put all of them together with dissect merge.")
        if info["status"] != COMPLETE:
            raise UsageError(f"The run in {folder} is not finished; run the same command again to finish it.")
        units, classes = (read_table(folder / name) for name in TABLES)
        if "tier" not in units:  # a run of an earlier version: the tier follows from its other columns
            tested = info["config"]["significance"] != "off"
            tier = tiers(units, tested, info["config"]["threshold"])
            units.insert(units.columns.get_loc("labelled") + 1, "tier", tier)
        if "effect" not in units:
            units = with_effects(units, classes["class"], {})
        run = cls(folder=folder, info=info, units=units, classes=classes)
        run._check_tables()
        return run

    def _check_tables(self) -> None:
        """Raise DissectError where the tables do not belong to this run.json."""
        names = list(self.info["vocabulary"]["names"])
        if list(self.classes["class"]) != names:
            raise unreadable(self.folder / "classes.csv", f"its classes are not the {len(names)} of run.json")
        directions = self.info["config"].get("directions")
        for layer, known in self.info["layers"].items():
            rows = self.units.unit[self.units.layer == layer]
            count = known["units"] if directions is None else len(rows)
            if sorted(rows) != list(range(count)):
                reason = f"layer {layer} has {len(rows)} rows instead of one for each of {count} {self.noun}s"
                raise unreadable(self.folder / "units.csv", reason)

    @classmethod
    def unfinished(cls, folder: Path, info: dict[str, Any]) -> Dissection:
        """A run, or a shard of a run, without results yet: its tables are empty."""
        units, classes = (pd.DataFrame(columns=COLUMNS[name]) for name in TABLES)
        return cls(folder=folder, info=info, units=units, classes=classes)

    @property
    def layers(self) -> list[str]:
        return list(self.info["layers"])

    @property
    def noun(self) -> str:
        """The word for what was dissected: unit, or direction, a linear combination of units."""
        return "unit" if self.info["config"]["directions"] is None else "direction"

    @property
    def controls(self) -> dict[str, Dissection]:
        """The finished controls of this run, by name: rotation, untrained."""
        controls = {}
        for path in sorted(self.folder.glob("controls/*/run.json")):
            if read_info(path.parent)["status"] == COMPLETE:
                controls[path.parent.name] = Dissection.load(path.parent)
        return controls

    @property
    def interventions(self) -> list[Path]:
        """The folders of ablations and insertions, by name."""
        return finished(self.folder / "interventions", "effect.json")

    @property
    def scans(self) -> list[Path]:
        """The folders of scanned layers, by name."""
        return finished(self.folder / "interventions", "scan.json")

    @property
    def suspects(self) -> list[Path]:
        """The folders of searches for artifacts, by name."""
        return finished(self.folder / "artifacts", "artifacts.json")

    @property
    def repairs(self) -> list[Path]:
        """The folders of repairs, by name."""
        return finished(self.folder / "repairs", "repair.json")

    @property
    def spool(self) -> Spool:
        """The labels, thumbnails and, where they were kept, featuremaps. A control may use the spool of its run."""
        folder = self.folder.parents[1] if self.info.get("shared_spool") else self.folder
        return Spool(folder / "spool", self.info["config"]["samples"])

    @cached_property
    def _scores(self) -> dict[str, NDArray[np.generic]]:
        shapes: dict[str, tuple[int | None, ...]] = {"shares": (None,)}
        for half in ("choose", "score"):
            shapes |= {f"{half}/class_area": (len(self.classes),), f"{half}/pixels": ()}
        for layer in self.layers:
            units = int((self.units.layer == layer).sum())
            shapes |= {
                f"{layer}/level": (units, None),
                f"{layer}/histogram": (units, None),
                f"{layer}/span": (units, 2),
            }
            shapes |= {f"{layer}/{name}": (units, None) for name in ("rival", "rival_level")}
            for half in ("choose", "score"):
                shapes[f"{layer}/{half}/intersection"] = (units, len(self.classes), None)
                shapes[f"{layer}/{half}/unit_area"] = (units, None)
        return read_arrays(self.folder / "scores.npz", shapes)

    @cached_property
    def _tops(self) -> dict[str, NDArray[np.generic]]:
        shapes: dict[str, tuple[int | None, ...]] = {}
        for layer in self.layers:
            units = int((self.units.layer == layer).sum())
            shapes |= {f"{layer}/sample": (units, None), f"{layer}/mask": (units, None, self.info["grid"], None)}
        return read_arrays(self.folder / "tops.npz", shapes)

    def counts(self, layer: str, half: str) -> Counts:
        """The integer counts of one layer on the half `choose` (even samples) or `score` (odd)."""
        stored: dict[str, Any] = self._scores
        return Counts(
            intersection=stored[f"{layer}/{half}/intersection"].astype(np.int64),
            unit_area=stored[f"{layer}/{half}/unit_area"].astype(np.int64),
            class_area=stored[f"{half}/class_area"].astype(np.int64),
            pixels=int(stored[f"{half}/pixels"]),
        )

    def levels(self, layer: str) -> NDArray[np.float32]:
        """The activations (U, K) that define the levels; above level k lie at most `shares[k]` of the grid's pixels."""
        return np.asarray(self._scores[f"{layer}/level"], np.float32)

    def null_sd(self, layer: str) -> NDArray[np.float64]:
        """(U,) standard deviation of each unit's IoU when labels are permuted between images."""
        return np.asarray(self._scores[f"{layer}/null_sd"], np.float64)

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K,), descending."""
        return np.asarray(self._scores["shares"], np.float64)

    def curves(self, layer: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """IoU of each unit with its label's class at every level, on the score half, and the chance IoU there.

        Both (U, K); NaN for units without a label.
        """
        numbers = {name: number for number, name in enumerate(self.classes["class"])}
        label = self.units[self.units.layer == layer].label.map(numbers)
        iou, chance = curve(self.counts(layer, "score"), label.fillna(0).astype(np.int64).to_numpy())
        is_labelled = label.notna().to_numpy()[:, None]
        return np.where(is_labelled, iou, np.nan), np.where(is_labelled, chance, np.nan)

    def histogram(self, layer: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """How often each unit's activation fell into each of 64 bins of equal width, (U, 64); their ends, (U, 2)."""
        return np.asarray(self._scores[f"{layer}/histogram"], np.int64), np.asarray(self._scores[f"{layer}/span"])

    def fires(self, layer: str) -> NDArray[np.float32] | None:
        """(U, s, s) share of the scored images in which a unit's region covers a cell; None if labels are untested."""
        shares = self._scores.get(f"{layer}/fires")
        return None if shares is None else np.asarray(shares, np.float32)

    @cached_property
    def shown(self) -> dict[str, KeptMaps] | None:
        """The featuremaps that stay when the spool's are deleted, by layer; None in a run of an earlier version."""
        return read_kept(self.folder, {layer: self.histogram(layer)[1] for layer in self.layers})

    def class_areas(self) -> NDArray[np.float64]:
        """(N, C) the share of each sample's pixels that each class has, on the grid."""
        spool, classes = self.spool, len(self.classes)
        areas = [shares(torch.from_numpy(np.array(spool.read(k, "labels"))), classes) for k in range(len(spool))]
        return torch.cat(areas)[:, :classes].numpy()

    @cached_property
    def causes(self) -> dict[str, Causes] | None:
        """What ablating each unit does to each class, to first order, by layer; None where it was not estimated."""
        if not self.info.get("causes", {}).get("draws"):  # a file may stay behind from a shorter run
            return None
        return read_causes(self.folder, {layer: int((self.units.layer == layer).sum()) for layer in self.layers})

    def signature(self, layer: str) -> NDArray[np.float32]:
        """(U, n, cells): see `maps.signature`."""
        return np.asarray(self._scores[f"{layer}/signature"], np.float32)

    def rivals(self, layer: str) -> pd.DataFrame:
        """Each unit's five best classes, its label first: unit, class, iou, iou_low, iou_high, chance_iou,
        position_iou.

        Chosen, and their levels, on the even samples; IoU on the odd ones. For all but the first, widths of intervals
        and the content (IoU − position IoU) come from every second row and column of the grid if the significance is
        `fast`; intervals and position IoU are NaN if `off`.
        """
        number = np.asarray(self._scores[f"{layer}/rival"], np.int64)
        level = np.asarray(self._scores[f"{layer}/rival_level"], np.int64)
        counts = self.counts(layer, "score")
        unit = np.arange(len(number))[:, None]
        a, m, c = counts.intersection[unit, number, level], counts.unit_area[unit, level], counts.class_area[number]
        nothing = np.full(number.shape, np.nan)
        columns = {
            "unit": np.broadcast_to(unit, number.shape),
            "class": self.classes["class"].to_numpy()[number],
            "iou": iou_of(a, m, c),
            **{
                f"iou_{end}": np.asarray(self._scores.get(f"{layer}/rival_{end}", nothing), np.float64)
                for end in ("low", "high")
            },
            "chance_iou": chance_iou(c / counts.pixels, m / counts.pixels),
            "position_iou": np.asarray(self._scores.get(f"{layer}/rival_position", nothing), np.float64),
        }
        return pd.DataFrame({name: values.ravel() for name, values in columns.items()})

    def tops(self, layer: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The most-activating samples (U, T) and where in them the unit exceeds its threshold (U, T, g, g)."""
        bits: Any = self._tops[f"{layer}/mask"]
        masks = np.unpackbits(bits, axis=-1, count=self.info["grid"]).astype(bool)
        return self._tops[f"{layer}/sample"].astype(np.int64), masks

    def summary(self) -> pd.DataFrame:
        """One row a layer: units, those whose scores reach the limits, labelled units, their classes and mean IoU."""
        rows = []
        for layer in self.layers:
            units = self.units[self.units.layer == layer]
            labelled = units[units.labelled]
            rows.append(
                {
                    "layer": layer,
                    "units": len(units),
                    "reach_limits": int(units.reaches_limits.sum()),
                    "labelled": len(labelled),
                    "classes": labelled.label.nunique(),
                    "mean_iou": labelled.iou.mean(),
                }
            )
        return pd.DataFrame(rows)

    def directions(self, layer: str) -> NDArray[np.float32] | None:
        """(K, U): what each direction is made of; None if units were dissected."""
        stored = self._scores.get(f"{layer}/directions")
        return None if stored is None else np.asarray(stored, np.float32)

    @property
    def ordered(self) -> pd.DataFrame:
        """The units, the best first: by tier, and by how far their IoU is above what position gives."""
        return ranked(self.units)

    def highlights(self, count: int = 8) -> pd.DataFrame:
        """The best units, balanced over classes: the best of each class first, then the second best, …"""
        return highlights(self.units, count)

    def unit(self, layer: str | int, unit: int | None = None) -> Unit:
        """One unit: `run.unit("layer7", 26)`, or `run.unit(26)` where the run has one layer.

        Raises:
            UsageError: there is no such layer or unit.
        """
        return unit_of(self, layer, unit)

    def sample(self, sample: int) -> Sample:
        """One sample: `run.sample(7)`.

        Raises:
            UsageError: there is no such sample.
        """
        return sample_of(self, sample)

    def __getitem__(self, name: str) -> ClassUnits:
        """One class: `run["tree"].units` are the units that are labelled with it.

        Raises:
            UnknownName: there is no such class.
        """
        return class_of(self, name)

    def ablate(self, label: str | None = None, **options: Any) -> Effects:
        """Switch the best units of a class off and measure what leaves; options as of `ganatomy.dissect.ablate`."""
        effects: Effects = late.functions().ablate(self, label=label, **options)
        return effects

    def insert(self, label: str | None = None, **options: Any) -> Effects:
        """Switch the best units of a class on and measure what appears; options as of `ganatomy.dissect.insert`."""
        effects: Effects = late.functions().insert(self, label=label, **options)
        return effects

    def scan(self, label: str, **options: Any) -> Scan:
        """Ablate each unit alone and measure its effect on a class; options as of `ganatomy.dissect.scan`."""
        scan: Scan = late.functions().scan(self, label=label, **options)
        return scan

    def power(self, **options: Any) -> pd.DataFrame:
        """What this many samples can detect; options as of `ganatomy.dissect.power`."""
        table: pd.DataFrame = late.functions().power(self, **options)
        return table

    def compare(self, *others: Dissection | str | Path) -> Comparison:
        """This run beside others; see `ganatomy.dissect.compare`."""
        comparison: Comparison = late.functions().compare(self, *others)
        return comparison

    def report(self, *, open: bool = False, single_file: bool = False) -> Path:
        """Write the report and return its index.html; see `ganatomy.reports.pages.write_report`.

        Args:
            open: also open it in the browser.
            single_file: write RUN/report.html instead, which holds everything.
        """
        page: Path = late.notebook().report(self, open=open, single_file=single_file)
        return page

    def plot_classes(self, ax: Axes | None = None) -> Axes:
        """How many units are labelled with each class.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
        """
        axes: Axes = late.plots().classes(self, ax)
        return axes

    def plot_units(self, ax: Axes | None = None, *, count: int = 20) -> Axes:
        """The IoU of the best units with its interval, beside what position alone would give.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            count: how many units.
        """
        axes: Axes = late.plots().units(self, ax, count)
        return axes

    def _title(self) -> str:
        config = self.info["config"]
        what = f"{len(self.units)} {self.noun}s of {', '.join(self.layers)}"
        return f"{config['model']}, {what}, on {config['samples']} samples"

    def _headline(self) -> str:
        labels, strong = self.units.label[self.units.labelled], int((self.units.tier == "strong").sum())
        text = f"{len(labels)} of {len(self.units)} {self.noun}s labelled with {labels.nunique()} classes"
        text += f", {strong} of them strongly" if strong else ""
        if not len(labels):
            return text
        best = self.ordered.iloc[0]
        return f"{text}; clearest: {self.noun} {best.unit}, {self.unit(best.layer, int(best.unit))._headline()}"
