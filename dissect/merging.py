"""merge(): shards of a run, captured by processes that knew nothing of each other, become one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..hooks.errors import UsageError
from .bases import ROTATION, Basis
from .controls import UNTRAINED
from .folders import difference
from .progress import Progress
from .run_folder import kept_run, locked, new_run, now, writing
from .scoring import ALREADY, finish
from .spool import Spool
from .store import COMPLETE, Dissection, read_info, run_name

FOUND = ("layers", "image", "planes", "vocabulary")  # in the first sample: what makes shards fit together
OWN = ("schema", "status", "config", "created", "command", "controls")  # what a shard's run.json says of itself


def merge(
    shards: Sequence[str | Path], *, out: str | Path | None = None, keep_spool: bool = False, quiet: bool = False
) -> Dissection:
    """Put the shards of a run together, in any order, and score and test them as `run` does. No network is needed.

    The shards' own folders stay as they are; where the filesystem allows, the merged run shares their files on disk.

    Args:
        shards: the folders that `run_shard` made.
        out: the run folder; None is what `run` would have taken. The same merge there is resumed, or returned.
        keep_spool: keep the featuremaps when done.
        quiet: no progress bars.

    Raises:
        UsageError: a folder holds no shard, or one of another run; shards are missing.
        DissectError: something failed, or another process is at work there.
    """
    folders = [Path(shard) for shard in shards]
    infos = [read_info(folder) for folder in folders]
    for folder, info in zip(folders, infos, strict=True):
        if "shard" not in info["config"]:
            raise UsageError(f"{folder} is no shard of a run; give folders that dissect run --shard made.")
        if said := difference(_told(infos[0]), _told(info)):
            raise UsageError(f"{folders[0]} and {folder} are not shards of the same run ({said}).")
    config = {key: value for key, value in infos[0]["config"].items() if key != "shard"}
    spools = [
        Spool(folder / "spool", config["samples"], _part(info)) for folder, info in zip(folders, infos, strict=True)
    ]
    folder = Path(out) if out else Path("runs") / run_name(config)
    kept = kept_run(folder, config)
    if not (kept and kept["status"] == COMPLETE):
        own = Spool(folder / "spool", config["samples"])
        homes = _homes(own, spools)
        with locked(folder), writing(folder), Progress(quiet) as progress:
            described = {key: value for key, value in infos[0].items() if key not in OWN}
            described |= {"created": now(), "merged": [str(one) for one in folders]}
            info = kept_run(folder, config) or new_run(folder, config, described)
            for shard in own.missing():
                own.take(homes[shard], shard)
            finish(folder, info | {"keep_spool": keep_spool, **ALREADY}, own, Basis.recorded(config), progress)
    found = Dissection.load(folder)
    controls = [control for one in infos for control in one.get("controls", ())]
    if ROTATION in controls:
        _rotate(found, quiet)
    if not (keep_spool or found.info["keep_spool"]):
        with writing(folder):
            found.spool.drop_features()
    if UNTRAINED in controls:
        places = [one / "controls" / UNTRAINED for one in folders]
        merge(places, out=folder / "controls" / UNTRAINED, keep_spool=keep_spool, quiet=quiet)
    return found


def _told(info: dict[str, Any]) -> dict[str, Any]:
    """What all shards of a run have in common, scales of featuremaps included."""
    config = {key: value for key, value in info["config"].items() if key != "shard"}
    return config | {f"{key} found": info[key] for key in FOUND}


def _part(info: dict[str, Any]) -> tuple[int, int]:
    number, of = info["config"]["shard"].split("/")
    return int(number), int(of)


def _homes(own: Spool, spools: Sequence[Spool]) -> dict[int, Spool]:
    """Where each shard is; raises UsageError if one that the merged run lacks is nowhere."""
    found = {shard: spool for spool in spools for shard in spool.shards if shard not in spool.missing()}
    if lacking := [shard for shard in own.missing() if shard not in found]:
        parts = ", ".join(f"{own.indices(shard)[0]} to {own.indices(shard)[-1]}" for shard in lacking[:5])
        raise UsageError(
            f"Samples {parts}{' …' if len(lacking) > 5 else ''} are in none of these folders; give all shards, and "
            "run those again that were interrupted."
        )
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
    with locked(folder), writing(folder), Progress(quiet) as progress:
        described = {key: value for key, value in found.info.items() if key not in OWN} | {"created": now()}
        info = kept_run(folder, config) or new_run(folder, config, described)
        finish(folder, info | {"shared_spool": True, **ALREADY}, found.spool, basis, progress)
