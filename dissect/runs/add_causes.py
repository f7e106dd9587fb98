"""The causal table, added to a finished run while its networks are open."""

from __future__ import annotations

import time
from typing import Any

from ...hooks.errors import DissectError
from ...segmenters.base import Segmenter
from ..causes import table
from ..causes.first_order import Change, Estimator
from ..causes.table import FULL, OFF, chosen_draws, read_causes, with_effects
from ..generators.base import Generator
from ..runtime import distributed
from ..runtime.progress import Progress
from ..storage.files import write_arrays, write_csv, write_json
from .dissection import Dissection
from .lookup import directions_of


def lacks_causes(info: dict[str, Any], effort: str) -> bool:
    """Whether a run.json has no causal table of this effort, or a greater one, and none was tried."""
    return effort != OFF and info.get("causes", {}).get("effort") not in (effort, FULL)


def add_causes(
    run: Dissection, generator: Generator, segmenter: Segmenter, effort: str, batch: int | None, progress: Progress
) -> Dissection:
    """Estimate what ablating each unit does to each class; write causes.npz, the columns of units.csv, and run.json.

    Where it cannot be estimated, run.json says why: the run is complete without.

    Args:
        effort: `fast` or `full`, see `causes.table.chosen_draws`.
        batch: samples of a forward pass in the run; None chooses.

    Raises:
        OSError: a file could not be written.
    """
    started = time.perf_counter()
    changes = {layer: Change(directions=directions_of(run, layer)) for layer in run.layers}
    estimator = Estimator(generator=generator, segmenter=segmenter, layers=changes, batch=batch)
    draws = chosen_draws(run.class_areas(), effort)
    count = len(next(iter(draws.values())).samples) if draws else 0
    record: dict[str, Any] = {"effort": effort, "draws": count, "classes": len(draws)}
    arrays = {}
    with progress.task("estimate effects", count * len(draws), spread=True) as advance:
        obstacle = estimator.obstacle() if draws else "no class occurs"
        if not obstacle:
            try:
                arrays = table.estimate(estimator, draws, advance)
            except DissectError as error:
                obstacle = str(error).removesuffix(".")
    if obstacle:
        record = {"effort": effort, "draws": 0, "classes": 0, "obstacle": obstacle}
    seconds = run.info["seconds"] | {"causes": round(time.perf_counter() - started, 3)}
    info = run.info | {"causes": record, "seconds": seconds}

    def write() -> None:
        if arrays:
            write_arrays(run.folder / table.FILE, arrays)
            widths = {layer: arrays[f"{layer}/effect"].shape[1] for layer in run.layers}
            causes = read_causes(run.folder, widths) or {}
            write_csv(run.folder / "units.csv", with_effects(run.units, list(run.classes["class"]), causes))
        write_json(run.folder / "run.json", info)  # last: it says whether there is a table

    distributed.on_first(write)
    return Dissection.load(run.folder)
