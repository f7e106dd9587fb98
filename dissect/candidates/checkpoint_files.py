"""Checkpoints of one generator: which files they are, in what order, and how each is opened."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...hooks.errors import UsageError
from ..generators.spec import ModelSpec

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin")


def checkpoints(place: str | Path) -> list[Path]:
    """The checkpoints in a folder, or the files that a pattern such as `run/G-*.pth` matches, by `step_of` and name."""
    if Path(place).is_dir():
        found = [path for path in Path(place).iterdir() if path.suffix in CHECKPOINTS and path.is_file()]
    else:
        found = [path for path in map(Path, glob.glob(str(place), recursive=True)) if path.is_file()]
    return sorted(found, key=lambda path: (_order(step_of(path)), str(path)))


def step_of(path: str | Path) -> int | None:
    """The last number in a file's name without its suffix, or None: 2000 of `run1/G-002000.pth`."""
    numbers = re.findall(r"\d+", Path(path).stem)
    return int(numbers[-1]) if numbers else None


def _order(step: int | None) -> tuple[bool, int]:
    """Those without a step come last."""
    return step is None, step or 0


def spec_of(checkpoint: str | Path, model: str | None, options: Mapping[str, Any]) -> ModelSpec:
    """How to open a checkpoint: as what its weights are recognised for, or, with a `model`, as weights for that.

    `options` are those of ModelSpec but `weights`.
    """
    if model is None:
        return ModelSpec(model=str(checkpoint), **options)
    return ModelSpec(model=model, weights=str(checkpoint), **options)


def labels_of(candidates: Sequence[str]) -> list[str]:
    """What candidates are called: their names without what all paths begin with.

    Raises:
        UsageError: one is named twice.
    """
    twice = {name for name in candidates if candidates.count(name) > 1}
    if twice:
        raise UsageError(f"{', '.join(sorted(twice))}: named more than once; name each candidate once.")
    parts = [Path(name).parts for name in candidates]
    common = 0
    while len(parts) > 1 and all(len(one) > common + 1 and one[common] == parts[0][common] for one in parts):
        common += 1
    return [str(Path(*one[common:])) for one in parts]
