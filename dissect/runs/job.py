"""One run, or a shard of one, in its folder: begin or go on, capture, finish."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..capture.capture import capture
from ..capture.plan import Plan
from ..capture.spool import SHARD, Spool
from ..causes.table import OFF
from ..generators.base import Generator
from ..runtime import distributed
from ..runtime.progress import Fewer, Progress
from ..runtime.resources import scoring_device
from ..scoring.layer_basis import Basis
from ..storage.files import COMPLETE, INCOMPLETE
from ..storage.result_folder import command, now, writing
from ..subjects.identity import identity, segmenter_fingerprint
from ..subjects.network import network_record
from ..subjects.opening import dissectable
from .add_causes import add_causes, lacks_causes
from .dissection import Dissection
from .finish import ALREADY, finish
from .run_folder import kept_run, new_run, shorter_run

LEAST = 100  # samples; with fewer, hardly a unit is labelled
CAPTURE_STAYS = "what was captured stays: make room and run the same command again"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to be made: of a generator's layers, or of a control of them."""

    generator: Generator
    segmenter: Segmenter
    plan: Plan
    basis: Basis
    control: str | None
    settings: dict[str, Any]  # samples, threshold, quantile, significance, grid, seed: part of the run's config
    part: dict[str, Any]  # of a shard: which shard, and the controls; also in the config
    source: dict[str, Any]  # how to load the models again; None for objects
    deviation: dict[str, float] | None  # of a lower precision, see `capture.deviation`
    causes: str  # whether effects are estimated by gradient: off, fast, full
    notes: list[str]  # what the user was warned of
    batch_size: int | None
    device: str
    spool_limit: float  # bytes
    quiet: bool

    @property
    def config(self) -> dict[str, Any]:
        """What identifies the run: a folder with the same config is resumed, one with another is refused."""
        return {
            **identity(self.generator),
            "layers": list(self.plan.shapes),
            "segmenter": self.segmenter.name,
            "segmenter_sha256": segmenter_fingerprint(self.segmenter),
            "control": self.control,
            **self.basis.config,
            **self.settings,
            **self.part,
        }

    def check(self, folder: Path, shard: tuple[int, int] | None = None) -> dict[str, Any] | None:
        """The run.json of this very run, or shard of it, in a folder, if it was begun; nothing is written.

        Raises:
            UsageError: the folder holds something else, the spool would be too large, or nothing is in the shard.
        """
        spool = Spool(folder / "spool", self.settings["samples"], shard or (1, 1))
        if shard and not spool.shards:
            raise UsageError(
                f"--shard {shard[0]}/{shard[1]}: {spool.samples} samples make {-(-spool.samples // SHARD)} parts of "
                f"{SHARD}; take fewer shards."
            )
        needed = sum(len(spool.indices(part)) for part in spool.shards) * self.plan.sample_bytes
        if not needed <= self.spool_limit:
            raise UsageError(
                f"The spool would take {needed / 1e9:.1f} GB, more than the limit of {self.spool_limit / 1e9:.1f} GB; "
                "take fewer --samples, fewer --layer, a smaller --grid, or raise --spool-limit."
            )
        return distributed.on_first(lambda: None if self.extends(folder) else kept_run(folder, self.config))

    def extends(self, folder: Path) -> dict[str, Any] | None:
        """The run.json of the run in a folder that this one extends by more samples; None where there is none."""
        return shorter_run(folder, self.config)

    def perform(self, folder: Path, *, keep_spool: bool = False, shared: Spool | None = None) -> Dissection:
        """Make, resume, extend or load the run in a locked folder. Featuremaps of a control are deleted, others stay.

        A `shared` spool of the same samples is used instead of the run's own if it still has the featuremaps.

        Raises:
            UsageError: the folder holds something else.
            DissectError: a step failed; captured shards stay, and the same call resumes.
        """
        own = Spool(folder / "spool", self.settings["samples"])
        with writing(folder, CAPTURE_STAYS), Progress(self.quiet) as progress:
            shorter = distributed.on_first(lambda: self.extends(folder))
            info = self._extended(shorter) if shorter else self._begin(folder)
            if info["status"] == COMPLETE:
                if keep_spool and not self.control and not own.has_features(len(self.plan.shapes)):
                    raise UsageError(
                        f"The run in {folder} is finished and its featuremaps are gone; give another --out."
                    )
                run = Dissection.load(folder)
            elif shared and distributed.on_first(lambda: shared.has_features(len(self.plan.shapes))):
                shared.divide()
                already = info | {"shared_spool": True, **ALREADY}
                progress.stages = self._stages - 1  # nothing is captured
                run = finish(folder, already, shared, self.basis, progress, self._scored_on())
            else:
                progress.stages = self._stages
                grow = self._extend_spool if shorter else self._capture
                captured = info | {"keep_spool": keep_spool} | grow(own, info, progress)
                run = finish(folder, captured, own, self.basis, progress, self._scored_on())
            if lacks_causes(run.info, self._causes):
                run = add_causes(run, self.generator, self.segmenter, self._causes, self.batch_size, progress)
            if self.control and not keep_spool:  # nothing else will need its featuremaps
                distributed.on_first(own.drop_features)
        return run

    @property
    def _causes(self) -> str:
        """The effort for the causal table; a control has none."""
        return OFF if self.control else self.causes

    @property
    def _stages(self) -> int:
        """How many tasks a run has: capture, score, test unless that is off, estimate effects unless that is off."""
        return 2 + (self.settings["significance"] != "off") + (self._causes != OFF)

    def _scored_on(self) -> torch.device:
        """Where to score: the same kind of device in every process, so that their blocks have the same size."""
        device = scoring_device(self.generator.device)
        return device if all(kind == "cuda" for kind in distributed.all_gather(device.type)) else torch.device("cpu")

    def perform_shard(self, folder: Path, shard: tuple[int, int]) -> Dissection:
        """Capture shard k of n, counted from 1, into a locked folder of its own, to be merged; its tables are empty.

        Raises:
            UsageError, DissectError: see `perform`.
        """
        spool = Spool(folder / "spool", self.settings["samples"], shard)
        with writing(folder, CAPTURE_STAYS), Progress(self.quiet) as progress:
            info = self._begin(folder)
            self._capture(spool, info, progress)
        return Dissection.unfinished(folder, info)

    def _begin(self, folder: Path) -> dict[str, Any]:
        """The run.json of a folder, new where there was none."""
        return distributed.on_first(
            lambda: kept_run(folder, self.config) or new_run(folder, self.config, self._describe())
        )

    def _capture(self, spool: Spool, info: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Capture the missing shards, on the scales with which the run was begun; returns entries of run.json."""
        started = time.perf_counter()
        total, missing = (
            sum(len(spool.indices(shard)) for shard in shards) for shards in (spool.shards, spool.divide())
        )
        if missing:
            title = f"{self.control}: generate and segment" if self.control else "generate and segment"
            fewer = Fewer("samples", self.settings["samples"], LEAST)
            with progress.task(title, total, done=total - missing, spread=True, fewer=fewer) as advance:
                plan = replace(self.plan, scales=Plan.of(info).scales)
                capture(self.generator, self.segmenter, plan, spool, self.batch_size, advance)
        return {"seconds": {"capture": round(time.perf_counter() - started, 3)}, "captured_now": missing}

    def _extended(self, shorter: dict[str, Any]) -> dict[str, Any]:
        """The run.json of a run that a shorter one becomes; it is written when all is done, so that nothing is lost."""
        before = {"samples": shorter["config"]["samples"], "finished": shorter["finished"]}
        kept = {key: value for key, value in shorter.items() if key not in ("shared_spool", "causes")}
        changed = {"status": INCOMPLETE, "config": self.config, "command": command(), "notes": self.notes}
        return kept | changed | {"extended": [*shorter.get("extended", []), before]}

    def _extend_spool(self, spool: Spool, info: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """As `_capture`, where a shorter run lies: what the spool has of the featuremaps is not computed again.

        The longer spool is captured beside the other, and then takes its place.
        """
        longer = Spool(spool.folder.with_name("spool-extended"), spool.samples)
        distributed.on_first(lambda: longer.take_whole(spool, len(self.plan.shapes)))
        captured = self._capture(longer, info, progress)
        distributed.on_first(lambda: longer.replace(spool))
        spool.divide()
        return captured

    def _describe(self) -> dict[str, Any]:
        """The entries of run.json beside the config."""
        numbers = {name: number for number, name in enumerate(dissectable(self.generator), 1)}  # as --layer counts
        return {
            "created": now(),
            "command": command(),
            "source": self.source,
            "provenance": asdict(self.generator.provenance),
            "image": list(self.plan.image),
            "grid": self.plan.grid,
            "planes": self.plan.planes,
            "vocabulary": asdict(self.segmenter.vocabulary),
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
            "network": network_record(self.generator),
            "device": self.device,
            "deviation": self.deviation,
            "notes": self.notes,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("ganatomy", "torch", "numpy", "pandas")},
            },
        }
