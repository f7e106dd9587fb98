"""The command that naturally follows a result; none where the model of the result was an object of Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...dissect.generators.spec import ModelSpec
from ...dissect.generators.zoo import MODELS

if TYPE_CHECKING:
    from ...dissect.artifacts.result import Suspects
    from ...dissect.candidates import Fitness
    from ...dissect.checkerboard.result import Checkup
    from ...dissect.diversity import Diversity
    from ...dissect.interventions.result import Effects
    from ...dissect.repairs.result import Repair
    from ...dissect.runs.dissection import Dissection

MIDDLE = "0.25,0.25,0.5,0.5"  # a box as --where takes it
FEW = ["--top", "3"]  # directions: of the usual twenty, a basis would have too few others for random sets


def after_run(run: Dissection) -> list[str]:
    """Ablate the class of the clearest unit."""
    best = run.highlights(1).to_dict("records")
    if not best or not _reopens(run.info):
        return []
    return _about_class("ablate", run, run.folder, best[0]["label"], best[0]["layer"])


def after_effects(effects: Effects, run: Dissection) -> list[str]:
    """After an ablation insert the same class, and after an insertion scan for it."""
    label, layer = effects.info["label"], effects.info["layer"]
    if label is None or not _reopens(run.info):
        return []
    if effects.info["kind"] == "ablate":
        return [*_about_class("insert", run, run.folder, label, layer), "--where", MIDDLE, "--samples", "32"]
    return [*_about_class("scan", run, run.folder, label, layer), "--samples", "16"]


def after_scan(info: Mapping[str, Any], run: Dissection) -> list[str]:
    """Ablate the units that the scan ranks first."""
    if not _reopens(run.info):
        return []
    return [*_about_class("ablate", run, run.folder, info["class"], info["layer"]), "--by", "scan"]


def after_suspects(suspects: Suspects, run: Dissection) -> list[str]:
    """Repair by the same detector, where it needs nothing but the run."""
    info = suspects.info
    needs_more = any(info["config"].get(name) for name in ("reference", "inception", "flags_sha256", "realism"))
    if needs_more or not _reopens(run.info):
        return []
    layer = ["--layer", info["layers"][0]] if len(info["layers"]) < len(run.layers) else []
    return ["dissect", "repair", str(run.folder), "--detector", info["detector"], *layer]


def after_repair(repair: Repair) -> list[str]:
    """Audit the repaired checkpoint, where its file alone can be opened."""
    if repair.info["verdict"] not in ("improved", "clean") or repair.info["generator"] not in MODELS:
        return []
    return ["dissect", "checkup", str(repair.checkpoint)]


def after_checkup(checkup: Checkup) -> list[str]:
    """Repair a visible checkerboard; dissect a clean generator."""
    if not _reopens(checkup.info):
        return []
    if checkup.info["verdict"] == "visible":
        return ["dissect", "repair", str(checkup.folder), "--checkerboard"]
    return _run(checkup.info) if checkup.info["generator"] in MODELS else []


def after_diversity(diversity: Diversity) -> list[str]:
    """Dissect the layer where variety is lost, or the one that is suggested."""
    info = diversity.info
    if not _reopens(info) or info["generator"] not in MODELS:
        return []
    return [*_run(info), *(["--layer", info["layer"]] if info["layer"] else [])]


def after_fitness(fitness: Fitness) -> list[str]:
    """Look at the fittest candidate."""
    name = str(fitness.table.candidate.iloc[0])
    return ["dissect", "inspect", name] if name in MODELS or Path(name).is_file() else []


def _about_class(command: str, run: Dissection, folder: Path, label: str, layer: str) -> list[str]:
    options = ["--layer", layer] if len(run.layers) > 1 else []
    options += FEW if run.noun == "direction" and command != "scan" else []
    return ["dissect", command, str(folder), "--class", label, *options]


def _run(info: Mapping[str, Any]) -> list[str]:
    spec = ModelSpec.recorded(info["source"])
    assert spec is not None
    return ["dissect", "run", spec.model, *spec.options()]


def _reopens(info: Mapping[str, Any]) -> bool:
    """Whether the result's model can be opened again by name or file."""
    return ModelSpec.recorded(info.get("source") or {}) is not None
