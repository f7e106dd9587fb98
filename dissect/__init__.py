"""The science: dissect a generator's units.

from ganatomy import dissect

run = dissect.run("progan_scenes", layers=["layer5"], samples=1000)
run.units.query("label == 'tree'").head()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import artifacts, candidates, checkerboard, diversity, latents, watching
    from .candidates import Fitness, fitness
    from .checkerboard.result import Checkup
    from .full_checkup import checkup
    from .generators.base import Generator, Provenance
    from .generators.latents import BernoulliLatents, NormalLatents, SphereLatents, UniformLatents
    from .generators.loading import load_generator
    from .generators.spec import ModelSpec
    from .interventions.ablate_insert import ablate, insert
    from .interventions.result import Effects
    from .interventions.scan import Scan, scan
    from .latents.explore import explore
    from .latents.moves import Asked, LatentOptions
    from .latents.result import Explored
    from .repairs.repair_units import repair
    from .repairs.result import Repair
    from .results import load
    from .runs.compare import Comparison, compare
    from .runs.dissection import Dissection
    from .runs.merge import merge
    from .runs.power import power
    from .runs.run import run
    from .runtime.distributed import launched
    from .seams.check import check_seams
    from .seams.result import SeamCheck
    from .subjects.inspection import Inspection, inspect
    from .watching import Watch, Watched, follow

__all__ = [
    "Asked",
    "BernoulliLatents",
    "Checkup",
    "Comparison",
    "Dissection",
    "Effects",
    "Explored",
    "Fitness",
    "Generator",
    "Inspection",
    "LatentOptions",
    "ModelSpec",
    "NormalLatents",
    "Provenance",
    "Repair",
    "Scan",
    "SeamCheck",
    "SphereLatents",
    "UniformLatents",
    "Watch",
    "Watched",
    "ablate",
    "artifacts",
    "as_generator",
    "candidates",
    "check_seams",
    "checkerboard",
    "checkup",
    "compare",
    "diversity",
    "explore",
    "fitness",
    "follow",
    "insert",
    "inspect",
    "latents",
    "launched",
    "load",
    "load_generator",
    "merge",
    "power",
    "repair",
    "run",
    "scan",
    "watching",
]

_HOMES = {
    "Asked": "latents.moves",
    "LatentOptions": "latents.moves",
    "Checkup": "checkerboard.result",
    "Comparison": "runs.compare",
    "Dissection": "runs.dissection",
    "Effects": "interventions.result",
    "Explored": "latents.result",
    "Fitness": "candidates",
    "Generator": "generators.base",
    "Inspection": "subjects.inspection",
    "ModelSpec": "generators.spec",
    "NormalLatents": "generators.latents",
    "BernoulliLatents": "generators.latents",
    "SphereLatents": "generators.latents",
    "UniformLatents": "generators.latents",
    "Provenance": "generators.base",
    "Repair": "repairs.result",
    "Scan": "interventions.scan",
    "SeamCheck": "seams.result",
    "Watch": "watching",
    "Watched": "watching",
    "ablate": "interventions.ablate_insert",
    "as_generator": "generators.factory",
    "check_seams": "seams.check",
    "checkup": "full_checkup",
    "compare": "runs.compare",
    "explore": "latents.explore",
    "fitness": "candidates",
    "follow": "watching",
    "insert": "interventions.ablate_insert",
    "inspect": "subjects.inspection",
    "launched": "runtime.distributed",
    "load": "results",
    "load_generator": "generators.loading",
    "merge": "runs.merge",
    "power": "runs.power",
    "repair": "repairs.repair_units",
    "run": "runs.run",
    "scan": "interventions.scan",
}


def __getattr__(name: str) -> Any:
    # torch is imported when it is first needed
    if name in ("artifacts", "candidates", "checkerboard", "diversity", "latents", "watching"):
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for completion: what this module imports for its own use is none of them."""
    return __all__
