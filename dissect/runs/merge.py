"""merge(): shards of a run, captured by processes that knew nothing of each other, become one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...hooks.errors import UsageError
from ..capture.plan import Plan
from ..capture.spool import Spool
from ..runtime import distributed
from ..runtime.progress import Progress
from ..scoring.layer_basis import ROTATION, Basis
from ..storage.files import COMPLETE
from ..storage.folder_lock import locked, writing
from ..storage.result_folder import command, difference, now
from .controls import UNTRAINED
from .dissection import Dissection, read_info, run_name
from .finish import ALREADY, finish
from .run_folder import kept_run, new_run

FOUND = ("layers", "image", "planes", "vocabulary")  # in the first sample: what makes shards fit together
OWN = ("schema", "status", "config", "created", "command", "keep_spool")  # what a shard's run.json says of itself


SHARDS_STAY = "the shards stay as they are"


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
    infos = [_shard_info(folder) for folder in folders]
    if not infos:
        raise UsageError("No shard was named; give the folders that dissect run --shard made.")
    controls = infos[0]["config"]["controls"]
    _check_alike(folders, infos)
    folder = Path(out) if out else Path("runs") / run_name(infos[0]["config"])
    homes = _homes(folder, folders, infos)
    if UNTRAINED in controls:  # see whether all is there before anything is written
        place, bare = folder / "controls" / UNTRAINED, [one / "controls" / UNTRAINED for one in folders]
        bare_infos = [_shard_info(one) for one in bare]
        _check_alike(bare, bare_infos)
        bare_homes = _homes(place, bare, bare_infos)
    with locked(folder):
        found = _finished(folder, folders, infos, homes, keep_spool, quiet)
        if ROTATION in controls:
            _rotate(found, quiet)
        if not (keep_spool or found.info["keep_spool"]):
            with writing(folder, SHARDS_STAY):
                found.spool.drop_features()
        if UNTRAINED in controls:
            control = _finished(place, bare, bare_infos, bare_homes, keep_spool, quiet)
            if not keep_spool:
                with writing(place, SHARDS_STAY):
                    control.spool.drop_features()
    return found


def _check_alike(folders: Sequence[Path], infos: Sequence[dict[str, Any]]) -> None:
    """Raise UsageError unless these are shards of one run."""
    for folder, info in zip(folders, infos, strict=True):
        if said := difference(_told(infos[0]), _told(info)):
            raise UsageError(f"{folders[0]} and {folder} are not shards of the same run ({said}).")


def _shard_info(folder: Path) -> dict[str, Any]:
    info = read_info(folder)
    if "shard" not in info["config"]:
        raise UsageError(f"{folder} is no shard of a run; give folders that dissect run --shard made.")
    return info


def _config(info: dict[str, Any]) -> dict[str, Any]:
    """The config of the run that a shard belongs to."""
    return {key: value for key, value in info["config"].items() if key not in ("shard", "controls")}


def _finished(
    folder: Path,
    folders: Sequence[Path],
    infos: Sequence[dict[str, Any]],
    homes: dict[int, Spool],
    keep_spool: bool,
    quiet: bool,
) -> Dissection:
    """The merged run in a locked folder."""
    config = _config(infos[0])
    described = {key: value for key, value in infos[0].items() if key not in OWN}
    described |= {"created": now(), "command": command(), "merged": [str(one) for one in folders]}
    own = Spool(folder / "spool", config["samples"])
    with writing(folder, SHARDS_STAY), Progress(quiet) as progress:
        info = kept_run(folder, config) or new_run(folder, config, described)
        if info["status"] == COMPLETE:
            if keep_spool and not own.has_features(len(info["layers"])):
                raise UsageError(f"The run in {folder} is finished and its featuremaps are gone; give another --out.")
            return Dissection.load(folder)
        _check_alike([folder, folders[0]], [info | {"config": infos[0]["config"]}, infos[0]])
        for shard in own.missing():
            own.take(homes[shard], shard)
        return finish(folder, info | {"keep_spool": keep_spool, **ALREADY}, own, Basis.recorded(config), progress)


def _told(info: dict[str, Any]) -> dict[str, Any]:
    """What all shards of a run have in common, scales of featuremaps included."""
    config = {key: value for key, value in info["config"].items() if key != "shard"}
    return config | {f"{key} found": info[key] for key in FOUND}


def _part(info: dict[str, Any]) -> tuple[int, int]:
    number, of = info["config"]["shard"].split("/")
    return int(number), int(of)


def _homes(folder: Path, folders: Sequence[Path], infos: Sequence[dict[str, Any]]) -> dict[int, Spool]:
    """Where each shard is that the run in a folder lacks.

    Raises:
        UsageError: one is nowhere.
        DissectError: one is damaged.
    """
    samples = infos[0]["config"]["samples"]
    names = ["labels", "images", *map(Plan.of(infos[0]).array, infos[0]["layers"])]
    own, found = Spool(folder / "spool", samples), {}
    for place, info in zip(folders, infos, strict=True):
        spool = Spool(place / "spool", samples, _part(info))
        for shard in spool.shards:
            if shard not in spool.missing():
                found[shard] = spool
    finished = kept_run(folder, _config(infos[0]))
    missing = [] if finished and finished["status"] == COMPLETE else own.missing()
    if lacking := [shard for shard in missing if shard not in found]:
        parts = ", ".join(f"{own.indices(shard)[0]} to {own.indices(shard)[-1]}" for shard in lacking[:5])
        raise UsageError(
            f"Samples {parts}{' …' if len(lacking) > 5 else ''} are in none of these folders; give all shards, and "
            "run those again that were interrupted."
        )
    for shard in missing:
        for name in names:
            found[shard].read(shard, name)  # says what is wrong with it, before anything is written
    return found


def _rotate(found: Dissection, quiet: bool) -> None:
    """The control `rotation` of a run, from the run's own featuremaps."""
    widths = {name: layer["units"] for name, layer in found.info["layers"].items()}
    basis = Basis.rotation(widths)
    config = found.info["config"] | {"control": ROTATION} | basis.config
    folder = found.folder / "controls" / ROTATION
    kept = kept_run(folder, config)
    if kept and kept["status"] == COMPLETE:
        return
    with writing(folder, SHARDS_STAY), Progress(quiet) as progress:
        described = {key: value for key, value in found.info.items() if key not in OWN}
        described |= {"created": now(), "command": command()}
        info = kept_run(folder, config) or new_run(folder, config, described)
        finish(folder, info | {"shared_spool": True, **ALREADY}, found.spool, basis, progress)
