"""The science: dissect a generator's units.

from ganatomy import dissect

run = dissect.run("progan_scenes", layers=["layer4"], samples=1000)
run.units.query("label == 'tree'").head()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import artifacts, checkerboard
    from .checkerboard.audit import checkup
    from .checkups import Checkup
    from .comparison import Comparison, compare
    from .detectable import power
    from .effects import Effects
    from .generators.base import Generator, NormalLatents, Provenance
    from .generators.zoo import load_generator
    from .interventions import ablate, insert
    from .model_spec import ModelSpec
    from .pipeline import run
    from .repairing import repair
    from .repairs import Repair
    from .store import Dissection
    from .unit_scan import Scan, scan

__all__ = [
    "Checkup",
    "Comparison",
    "Dissection",
    "Effects",
    "Generator",
    "ModelSpec",
    "NormalLatents",
    "Provenance",
    "Repair",
    "Scan",
    "ablate",
    "artifacts",
    "checkerboard",
    "checkup",
    "compare",
    "insert",
    "load_generator",
    "power",
    "repair",
    "run",
    "scan",
]

_HOMES = {
    "Checkup": "checkups",
    "Comparison": "comparison",
    "Dissection": "store",
    "Effects": "effects",
    "Generator": "generators.base",
    "ModelSpec": "model_spec",
    "NormalLatents": "generators.base",
    "Provenance": "generators.base",
    "load_generator": "generators.zoo",
    "Repair": "repairs",
    "Scan": "unit_scan",
    "ablate": "interventions",
    "checkup": "checkerboard.audit",
    "compare": "comparison",
    "insert": "interventions",
    "power": "detectable",
    "repair": "repairing",
    "run": "pipeline",
    "scan": "unit_scan",
}


def __getattr__(name: str) -> Any:
    # torch is imported when it is first needed
    if name in ("artifacts", "checkerboard"):
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
