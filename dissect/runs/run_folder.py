"""A run's folder: the run that it holds, or a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...hooks.errors import DissectError, UsageError
from ..storage.files import COMPLETE, INCOMPLETE, SCHEMA, write_json
from ..storage.folder_lock import HALF_WRITTEN, LOCK, unusable
from ..storage.result_folder import difference
from .dissection import read_info


def kept_run(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The run.json of a folder that holds this very run, complete or not; None where nothing is yet.

    Raises:
        UsageError: the folder holds another run, or something else than a run.
        DissectError: it cannot be read.
    """
    try:
        if not (folder / "run.json").exists():
            if not _is_empty(folder):
                raise UsageError(f"{folder} exists and is not a run; give another --out.")
            return None
        info = read_info(folder)
    except OSError as error:
        raise unusable(folder, error) from error
    if said := difference(info["config"], config):
        raise UsageError(f"{folder} holds another run ({said}); give another --out.")
    return info


def shorter_run(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The run.json of a finished run that differs from this one only in that it has fewer samples; None for others.

    Raises:
        DissectError: the folder's run.json is damaged.
    """
    if "shard" in config or not (folder / "run.json").is_file():
        return None
    info = read_info(folder)
    fewer = {**config, "samples": info["config"].get("samples", 0)}
    if info["status"] != COMPLETE or info["config"] != fewer or fewer["samples"] >= config["samples"]:
        return None
    return info


def begun_run(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a folder holds this very run, begun or finished."""
    try:
        return read_info(folder)["config"] == config
    except DissectError:
        return False


def new_run(folder: Path, config: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """Begin a run in a folder: write its run.json, and return it; raises DissectError where it cannot be written."""
    info = {"schema": SCHEMA, "status": INCOMPLETE, "config": config, **described}
    try:
        folder.mkdir(parents=True, exist_ok=True)  # of a control, in a run's
        write_json(folder / "run.json", info)
    except OSError as error:
        raise unusable(folder, error) from error
    return info


def _is_empty(folder: Path) -> bool:
    """Whether there is nothing, or no more than an interrupted start leaves."""
    return not folder.exists() or (
        folder.is_dir() and all(path.name == LOCK or HALF_WRITTEN.fullmatch(path.name) for path in folder.iterdir())
    )
