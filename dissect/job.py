"""One run: capture -> levels -> counts -> labels -> evidence -> run folder."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..hooks.errors import DissectError, UsageError
from ..segmenters.base import Segmenter
from . import ranks
from .bases import Basis
from .capture import Plan, capture
from .evidence import RIVALS, THOROUGHNESS, Evidence, examine_layer
from .generators.base import Generator
from .levels import level_shares
from .maps import Maps, signature
from .models import dissectable, identity, segmenter_fingerprint
from .progress import Progress
from .scores import Labels, label_units
from .spool import Spool
from .store import COMPLETE, Dissection, open_run, write_arrays, write_csv, write_json
from .tally import Tally, images_with_class, tally_layer, top_masks
from .unit_table import class_table, judge, unit_table


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run is asked to do: to dissect a generator's layers, or a control of them."""

    generator: Generator
    segmenter: Segmenter
    plan: Plan
    basis: Basis
    control: str | None
    settings: dict[str, Any]  # samples, threshold, quantile, significance, grid, seed: part of the run's config
    source: dict[str, Any]  # how to load the models again; nothing where they came as objects
    batch_size: int | None
    device: str
    spool_limit: float  # bytes
    quiet: bool

    @property
    def config(self) -> dict[str, Any]:
        """What makes this run this run: the same in the same folder is resumed, another is refused."""
        return {
            **identity(self.generator),
            "layers": list(self.plan.shapes),
            "segmenter": self.segmenter.name,
            "segmenter_sha256": segmenter_fingerprint(self.segmenter),
            "control": self.control,
            **self.basis.config,
            **self.settings,
        }

    def perform(self, folder: Path, *, keep_spool: bool = False, shared: Spool | None = None) -> Dissection:
        """Make, resume or open the run in a folder, without a report. Its featuremaps stay, unless it is a control.

        A `shared` spool of the same samples serves instead of one of its own if it still has the featuremaps.

        Raises:
            UsageError: the folder holds something else, or the spool would be too large.
            DissectError: something failed; what was captured stays and the same call resumes.
        """
        samples = self.settings["samples"]
        needed = samples * self.plan.sample_bytes
        if not needed <= self.spool_limit:
            raise UsageError(
                f"The spool would take {needed / 1e9:.1f} GB, more than the limit of {self.spool_limit / 1e9:.1f} GB; "
                "take fewer --samples, fewer --layer, a smaller --grid, or raise --spool-limit."
            )
        info = open_run(folder, self.config, self._describe)
        own = Spool(folder / "spool", samples)
        if info["status"] == COMPLETE:
            if keep_spool and not self.control and not own.has_features():
                raise UsageError(f"The run in {folder} is finished and its featuremaps are gone; give another --out.")
            return Dissection.load(folder)
        with writing(folder):
            if shared and shared.has_features():
                return self._work(shared, folder, info | {"shared_spool": True})
            found = self._work(own, folder, info | {"keep_spool": keep_spool})
            if self.control and not keep_spool:  # nothing else will need them
                own.drop_features()
            return found

    def _work(self, spool: Spool, folder: Path, info: dict[str, Any]) -> Dissection:
        settings, names = self.settings, self.segmenter.vocabulary
        plan = replace(self.plan, scales={name: layer["scale"] for name, layer in info["layers"].items()})
        shares = level_shares(settings["quantile"])
        rule, fixed, seed = settings["threshold"], shares.index(settings["quantile"]), settings["seed"] or 0
        how = THOROUGHNESS.get(settings["significance"])
        missing = ranks.first(lambda: sum(len(spool.indices(shard)) for shard in spool.missing()))
        lacking = spool.divide()
        total = sum(self.basis.width(layer, shape[0]) for layer, shape in plan.shapes.items())
        clock = [time.perf_counter()]
        control = f"{self.control}: " if self.control else ""
        with Progress(self.quiet) as progress:
            if missing:
                done = settings["samples"] - missing
                with progress.task(
                    f"{control}generate and segment", settings["samples"], done=done, spread=True
                ) as advance:
                    capture(self.generator, self.segmenter, plan, spool, lacking, self.batch_size, advance)
            clock.append(time.perf_counter())
            found: dict[str, tuple[Maps, Tally, Labels]] = {}
            with progress.task(f"{control}score {self.basis.noun}s", total) as advance:
                for layer in plan.shapes:
                    maps = Maps(spool=spool, plan=plan, layer=layer)
                    maps = replace(maps, directions=self.basis.directions(maps, seed))
                    tally = tally_layer(maps, len(names), shares, advance)
                    found[layer] = maps, tally, label_units(tally.choose, tally.score, rule, fixed)
            clock.append(time.perf_counter())
            evidence: dict[str, Evidence] = {}
            if how:
                with progress.task(f"{control}test labels", total) as advance:
                    for layer, (maps, tally, labels) in found.items():
                        evidence[layer] = examine_layer(maps, tally, labels, rule, how, seed, advance)
        clock.append(time.perf_counter())

        tables: list[pd.DataFrame] = []
        scores: dict[str, NDArray[Any]] = {"shares": np.array(shares)}
        tops: dict[str, NDArray[Any]] = {}
        for layer, (maps, tally, labels) in found.items():
            seen = evidence.get(layer)
            tables.append(unit_table(layer, tally, labels, seen, names, rule, fixed))
            scores |= _layer_scores(layer, maps, tally, labels, seen)
            tops |= _layer_tops(layer, maps, tally, labels)
            if maps.directions is not None:
                scores[f"{layer}/directions"] = maps.directions.numpy()
        units = judge(pd.concat(tables, ignore_index=True), tested=how is not None)
        _, first, _ = next(iter(found.values()))
        classes = class_table(names, *_class_shares(spool, first, len(names)), units)

        write_arrays(folder / "scores.npz", scores)
        write_arrays(folder / "tops.npz", tops)
        write_csv(folder / "units.csv", units)
        write_csv(folder / "classes.csv", classes)
        stages = ("capture", "score", "test")
        seconds = dict(zip(stages, np.diff(clock).round(3).tolist(), strict=True))
        info = info | {"status": COMPLETE, "finished": now(), "seconds": seconds, "captured_now": missing}
        write_json(folder / "run.json", info)  # last: it says that all the rest is there
        return Dissection.load(folder)

    def _describe(self) -> dict[str, Any]:
        """What run.json says of a run beside its config."""
        numbers = {name: number for number, name in enumerate(dissectable(self.generator), 1)}  # as --layer counts
        return {
            "created": now(),
            "command": command(),
            "source": self.source,
            "provenance": asdict(self.generator.provenance),
            "image": list(self.plan.image),
            "grid": self.plan.grid,
            "layers": {
                name: {
                    "number": numbers.get(name),
                    "units": units,
                    "height": height,
                    "width": width,
                    "scale": self.plan.scales[name],
                }
                for name, (units, height, width) in self.plan.shapes.items()
            },
            "device": self.device,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("ganatomy", "torch", "numpy", "pandas")},
            },
        }


def _layer_scores(
    layer: str, maps: Maps, tally: Tally, labels: Labels, evidence: Evidence | None
) -> dict[str, NDArray[Any]]:
    """What scores.npz keeps of a layer."""
    best = labels.ranking[:, :RIVALS]
    arrays: dict[str, NDArray[Any]] = {
        f"{layer}/level": tally.level,
        f"{layer}/histogram": tally.histogram,
        f"{layer}/span": tally.span,
        f"{layer}/rival": best,
        f"{layer}/rival_level": np.take_along_axis(labels.class_level, best, axis=1),
        f"{layer}/signature": signature(maps),
    }
    for half in ("choose", "score"):
        counts = getattr(tally, half)
        arrays[f"{layer}/{half}/intersection"] = counts.intersection
        arrays[f"{layer}/{half}/unit_area"] = counts.unit_area
        arrays[f"{half}/class_area"] = counts.class_area
        arrays[f"{half}/pixels"] = np.array(counts.pixels)
    if evidence:
        for name in ("null_sd", "fires", "rival_low", "rival_high", "rival_position"):
            arrays[f"{layer}/{name}"] = getattr(evidence, name)
    return arrays


def _layer_tops(layer: str, maps: Maps, tally: Tally, labels: Labels) -> dict[str, NDArray[Any]]:
    """What tops.npz keeps of a layer."""
    threshold = tally.level[np.arange(len(labels.level)), labels.level]
    return {
        f"{layer}/sample": tally.top,
        f"{layer}/peak": tally.peak,
        f"{layer}/mask": top_masks(maps, tally.top, threshold),
    }


def _class_shares(spool: Spool, tally: Tally, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) each class's share of the pixels, and (C,) the share of samples that have it."""
    pixels = tally.choose.pixels + tally.score.pixels
    share = (tally.choose.class_area + tally.score.class_area) / pixels
    return share, images_with_class(spool, classes) / spool.samples


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """An OSError inside becomes one line that says how to go on."""
    try:
        yield
    except OSError as error:
        raise DissectError(
            f"Writing to {folder} failed ({error.strerror or error}); what was captured stays: make room and run the "
            "same command again."
        ) from error


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """The command line of this process."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
