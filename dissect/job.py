"""One run, or a shard of one, in its folder: begin or go on, capture, finish."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..hooks.errors import UsageError
from ..segmenters.base import Segmenter
from . import ranks
from .bases import Basis
from .capture import Plan, capture
from .generators.base import Generator
from .models import dissectable, identity, segmenter_fingerprint
from .progress import Progress
from .run_folder import command, kept_run, locked, new_run, now, writing
from .scoring import ALREADY, finish
from .spool import SHARD, Spool
from .store import COMPLETE, Dissection


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
    deviation: dict[str, float] | None  # of a lower precision, see `capture.deviation`
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
            DissectError: something failed, or another process is at work there; what was captured stays and the same
                call resumes.
        """
        self._check_room(self.settings["samples"])
        own = Spool(folder / "spool", self.settings["samples"])
        info = ranks.first(lambda: kept_run(folder, self.config))
        if info and info["status"] == COMPLETE:
            if keep_spool and not self.control and not own.has_features():
                raise UsageError(f"The run in {folder} is finished and its featuremaps are gone; give another --out.")
            return Dissection.load(folder)
        with locked(folder), writing(folder), Progress(self.quiet) as progress:
            info = self._begin(folder, self.config)
            if shared and ranks.first(shared.has_features):
                shared.divide()
                return finish(folder, info | {"shared_spool": True, **ALREADY}, shared, self.basis, progress)
            seen = self._capture(own, info, progress)
            found = finish(folder, info | {"keep_spool": keep_spool} | seen, own, self.basis, progress)
            if self.control and not keep_spool:  # nothing else will need them
                ranks.first(own.drop_features)
            return found

    def perform_shard(self, folder: Path, shard: tuple[int, int], controls: Sequence[str] = ()) -> Dissection:
        """Capture shard k of n, counted from 1, into a folder of its own, to be merged; its tables are empty.

        Raises:
            UsageError, DissectError: see `perform`; or there is nothing in this shard.
        """
        number, of = shard
        spool = Spool(folder / "spool", self.settings["samples"], shard)
        if not spool.shards:
            raise UsageError(
                f"--shard {number}/{of}: {spool.samples} samples make {-(-spool.samples // SHARD)} parts of {SHARD}; "
                "take fewer shards."
            )
        self._check_room(sum(len(spool.indices(one)) for one in spool.shards))
        config = self.config | {"shard": f"{number}/{of}"}
        ranks.first(lambda: kept_run(folder, config))
        with locked(folder), writing(folder), Progress(self.quiet) as progress:
            info = self._begin(folder, config, controls=list(controls))
            self._capture(spool, info, progress)
        return Dissection.unfinished(folder, info)

    def _check_room(self, samples: int) -> None:
        needed = samples * self.plan.sample_bytes
        if not needed <= self.spool_limit:
            raise UsageError(
                f"The spool would take {needed / 1e9:.1f} GB, more than the limit of {self.spool_limit / 1e9:.1f} GB; "
                "take fewer --samples, fewer --layer, a smaller --grid, or raise --spool-limit."
            )

    def _begin(self, folder: Path, config: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The run.json of a folder, new where there was none."""
        return ranks.first(lambda: kept_run(folder, config) or new_run(folder, config, self._describe() | more))

    def _capture(self, spool: Spool, info: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Fill what the spool lacks, as the run began it; what run.json says of that."""
        started = time.perf_counter()
        total, missing = (sum(len(spool.indices(shard)) for shard in one) for one in (spool.shards, spool.divide()))
        if missing:
            what = f"{self.control}: generate and segment" if self.control else "generate and segment"
            with progress.task(what, total, done=total - missing, spread=True) as advance:
                plan = replace(self.plan, scales=Plan.of(info).scales)
                capture(self.generator, self.segmenter, plan, spool, self.batch_size, advance)
        return {"seconds": {"capture": round(time.perf_counter() - started, 3)}, "captured_now": missing}

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
            "device": self.device,
            "deviation": self.deviation,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("ganatomy", "torch", "numpy", "pandas")},
            },
        }
