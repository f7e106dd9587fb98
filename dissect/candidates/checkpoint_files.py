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


def checkpoints(pattern: str | Path) -> list[Path]:
    """The checkpoints in a folder, or the files that a pattern such as `run/G-*.pth` matches, by `step_of` and name."""
    if Path(pattern).is_dir():
        paths = [path for path in Path(pattern).iterdir() if path.suffix in CHECKPOINTS and path.is_file()]
    else:
        paths = [path for path in map(Path, glob.glob(str(pattern), recursive=True)) if path.is_file()]
    return sorted(paths, key=lambda path: (_order(step_of(path)), str(path)))


def step_of(path: str | Path) -> int | None:
    """The training step of a checkpoint: the last number in its file name without suffix; None if there is none.

    >>> step_of("run1/G-002000.pth")
    2000
    >>> step_of("run1/final.pth") is None
    True
    """
    steps = re.findall(r"\d+", Path(path).stem)
    return int(steps[-1]) if steps else None


def _order(step: int | None) -> tuple[bool, int]:
    """A key for sorting, by which files without a step come last."""
    return step is None, step or 0


def spec_of(checkpoint: str | Path, model: str | None, options: Mapping[str, Any]) -> ModelSpec:
    """How to open a checkpoint.

    Args:
        checkpoint: the file.
        model: the network that takes its weights; None recognises the network from the weights.
        options: all other arguments of ModelSpec.
    """
    if model is None:
        return ModelSpec(model=str(checkpoint), **options)
    return ModelSpec(model=model, weights=str(checkpoint), **options)


def labels_of(candidates: Sequence[str]) -> list[str]:
    """Short labels of candidates: their paths without the folders that all paths begin with.

    Raises:
        UsageError: a candidate is named twice.

    >>> labels_of(["run/a/G-1.pth", "run/a/G-2.pth", "run/b/G-2.pth"])
    ['a/G-1.pth', 'a/G-2.pth', 'b/G-2.pth']
    """
    twice = {name for name in candidates if candidates.count(name) > 1}
    if twice:
        raise UsageError(f"{', '.join(sorted(twice))}: named more than once; name each candidate once.")
    paths = [Path(name).parts for name in candidates]
    common = 0  # how many folders all paths begin with
    while len(paths) > 1 and all(len(path) > common + 1 and path[common] == paths[0][common] for path in paths):
        common += 1
    return [str(Path(*path[common:])) for path in paths]
