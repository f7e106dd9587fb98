"""merge(): shards of a run, captured by independent processes, become one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...hooks.errors import UsageError
from ..capture.plan import Plan
from ..capture.spool import Spool
from ..runtime import distributed
from ..runtime.progress import Progress
from ..scoring.layer_basis import ROTATION, Basis
from ..storage.files import COMPLETE
from ..storage.folder_lock import locked
from ..storage.result_folder import command, difference, now, writing
from .controls import UNTRAINED
from .dissection import Dissection, read_info, run_name
from .finish import ALREADY, finish
from .run_folder import kept_run, new_run

FOUND = ("layers", "image", "planes", "vocabulary")  # in the first sample: what makes shards fit together
OWN = ("schema", "status", "config", "created", "command", "keep_spool")  # what a shard's run.json says of itself


SHARDS_STAY = "the shards stay as they are: make room and run the same command again"


def merge(
    shards: Sequence[str | Path], *, out: str | Path | None = None, keep_spool: bool = False, quiet: bool = False
) -> Dissection:
    """Put the shards of a run together, in any order, and score and test them as `run` does. No network is needed.

    The shards' own folders stay as they are; where the filesystem allows, the merged run shares their files on disk.

    Args:
        shards: the folders that `run(…, shard=…)` made.
        out: the run folder; None is what `run` would have taken. The same merge there is resumed, or returned.
        keep_spool: keep the featuremaps when done.
        quiet: no progress bars.

    Raises:
        UsageError: a folder holds no shard, or one of another run; shards are missing.
        DissectError: something failed, or another process is at work there.
    """
    if distributed.size() > 1:
        raise UsageError("Shards are merged by one process; call merge outside of launched().")
    folders = [Path(shard) for shard in shards]
    if not folders:
        raise UsageError("No shard was named; give the folders that dissect run --shard made.")
    config = _shard_info(folders[0])["config"]
    folder = Path(out) if out else Path("runs") / run_name(config)
    run_shards = _Shards.open(folder, folders)
    blank_shards = None
    if UNTRAINED in config["controls"]:  # opened before anything is written, since opening checks them
        blank_shards = _Shards.open(
            folder / "controls" / UNTRAINED, [part / "controls" / UNTRAINED for part in folders]
        )
    with locked(folder):
        run = run_shards.merge(keep_spool, quiet)
        if ROTATION in config["controls"]:
            _rotate(run, quiet)
        if not (keep_spool or run.info["keep_spool"]):
            _drop_features(run)
        if blank_shards:
            blank = blank_shards.merge(keep_spool, quiet)
            if not keep_spool:
                _drop_features(blank)
    return run


def _drop_features(run: Dissection) -> None:
    with writing(run.folder, SHARDS_STAY):
        run.spool.drop_features()


@dataclass(frozen=True, kw_only=True)
class _Shards:
    """All shards of a run, or of a control, that becomes the run in `folder`."""

    folder: Path
    folders: list[Path]  # of the shards
    infos: list[dict[str, Any]]  # their run.json
    spools: dict[int, Spool]  # by number of a shard, the one that has it

    @classmethod
    def open(cls, folder: Path, folders: list[Path]) -> _Shards:
        """Check that the folders hold shards of one run, and all that the run in `folder` lacks.

        Raises:
            UsageError: a folder holds no shard, or one of another run; shards are missing.
            DissectError: a shard is damaged.
        """
        infos = [_shard_info(part) for part in folders]
        _check_alike(folders, infos)
        return cls(folder=folder, folders=folders, infos=infos, spools=_spools(folder, folders, infos))

    def merge(self, keep_spool: bool, quiet: bool) -> Dissection:
        """The merged run, in a locked folder."""
        config = _config(self.infos[0])
        described = {key: value for key, value in self.infos[0].items() if key not in OWN}
        described |= {"created": now(), "command": command(), "merged": [str(part) for part in self.folders]}
        spool = Spool(self.folder / "spool", config["samples"])
        with writing(self.folder, SHARDS_STAY), Progress(quiet) as progress:
            info = kept_run(self.folder, config) or new_run(self.folder, config, described)
            if info["status"] == COMPLETE:
                if keep_spool and not spool.has_features(len(info["layers"])):
                    raise UsageError(
                        f"The run in {self.folder} is finished and its featuremaps are gone; give another --out."
                    )
                return Dissection.load(self.folder)
            _check_alike([self.folder, self.folders[0]], [info | {"config": self.infos[0]["config"]}, self.infos[0]])
            for shard in spool.missing():
                spool.take(self.spools[shard], shard)
            captured = info | {"keep_spool": keep_spool, **ALREADY}
            return finish(self.folder, captured, spool, Basis.recorded(config), progress)


def _check_alike(folders: Sequence[Path], infos: Sequence[dict[str, Any]]) -> None:
    """Raise UsageError unless these are shards of one run."""
    for folder, info in zip(folders, infos, strict=True):
        if differences := difference(_shared(infos[0]), _shared(info)):
            raise UsageError(f"{folders[0]} and {folder} are not shards of the same run ({differences}).")


def _shard_info(folder: Path) -> dict[str, Any]:
    info = read_info(folder)
    if "shard" not in info["config"]:
        raise UsageError(f"{folder} is no shard of a run; give folders that dissect run --shard made.")
    return info


def _config(info: dict[str, Any]) -> dict[str, Any]:
    """The config of the run that a shard belongs to."""
    return {key: value for key, value in info["config"].items() if key not in ("shard", "controls")}


def _shared(info: dict[str, Any]) -> dict[str, Any]:
    """What all shards of a run have in common, scales of featuremaps included."""
    config = {key: value for key, value in info["config"].items() if key != "shard"}
    return config | {f"{key} found": info[key] for key in FOUND}


def _part(info: dict[str, Any]) -> tuple[int, int]:
    number, of = info["config"]["shard"].split("/")
    return int(number), int(of)


def _spools(folder: Path, folders: Sequence[Path], infos: Sequence[dict[str, Any]]) -> dict[int, Spool]:
    """The spools that have the captured shards, by number.

    Raises:
        UsageError: a shard that the run in `folder` lacks is in none of the folders.
        DissectError: such a shard is damaged.
    """
    samples = infos[0]["config"]["samples"]
    merged = Spool(folder / "spool", samples)
    spools: dict[int, Spool] = {}
    for part, info in zip(folders, infos, strict=True):
        spool = Spool(part / "spool", samples, _part(info))
        missing = spool.missing()
        spools |= {shard: spool for shard in spool.shards if shard not in missing}
    kept = kept_run(folder, _config(infos[0]))
    needed = [] if kept and kept["status"] == COMPLETE else merged.missing()
    if lacking := [shard for shard in needed if shard not in spools]:
        ranges = ", ".join(f"{merged.indices(shard)[0]} to {merged.indices(shard)[-1]}" for shard in lacking[:5])
        raise UsageError(
            f"Samples {ranges}{' …' if len(lacking) > 5 else ''} are in none of these folders; give all shards, and "
            "run those again that were interrupted."
        )
    names = ["labels", "images", *map(Plan.of(infos[0]).array, infos[0]["layers"])]
    for shard in needed:
        for name in names:
            spools[shard].read(shard, name)  # raises if it is damaged, before anything is written
    return spools


def _rotate(run: Dissection, quiet: bool) -> None:
    """The control `rotation` of a run, from the run's own featuremaps."""
    widths = {name: layer["units"] for name, layer in run.info["layers"].items()}
    basis = Basis.rotation(widths)
    config = run.info["config"] | {"control": ROTATION} | basis.config
    folder = run.folder / "controls" / ROTATION
    info = kept_run(folder, config)
    if info and info["status"] == COMPLETE:
        return
    with writing(folder, SHARDS_STAY), Progress(quiet) as progress:
        described = {key: value for key, value in run.info.items() if key not in OWN}
        described |= {"created": now(), "command": command()}
        info = info or new_run(folder, config, described)
        finish(folder, info | {"shared_spool": True, **ALREADY}, run.spool, basis, progress)
