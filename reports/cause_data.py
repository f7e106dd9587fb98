"""The causal table of a run for the page's script: first-order effects of all units on all estimated classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dissect.runs.dissection import Dissection
from .sample_data import packed

STEPS = 2000  # of an effect up to the largest on the class: an error of 0.025 % of the largest at most
DECADE = 64  # steps of the width of an interval while it grows tenfold: an error of 1.8 % at most
WIDEST = 10.0  # half an interval at most, as a multiple of the largest effect on the class


def causes_data(run: Dissection) -> dict[str, Any] | None:
    """The effects by layer; None where no class was estimated.

    - classes: indices of the estimated classes
    - steps, decade, widest: the constants of the packing
    - layers: for each the largest effect on each class, and the packed numbers of `_layer`
    """
    causes = list((run.causes or {}).values())
    if not causes or not len(causes[0].classes):
        return None
    return {
        "classes": causes[0].classes.tolist(),
        "steps": STEPS,
        "decade": DECADE,
        "widest": WIDEST,
        "layers": [_layer(layer.effect, (layer.high - layer.low) / 2) for layer in causes],
    }


def _layer(effect: NDArray[np.float64], half: NDArray[np.float64]) -> dict[str, Any]:
    """Effects and half intervals of a layer, (C', U) each, in three bytes: 4,096 units and 150 classes in 1.7 MB.

    First the low bytes of all effects, then the high bytes, since equal bytes side by side pack better: int16 steps of
    1/2000 of the largest effect on the class; −32,768 is none. Then half of each interval, which is symmetric, as a
    byte on a logarithmic scale: 255 is `WIDEST`; 0 is none.
    """
    largest = np.nan_to_num(np.abs(effect)).max(1, initial=0)[:, None]
    scale = np.where(largest > 0, largest, 1.0)
    steps = np.nan_to_num(np.rint(effect / scale * STEPS), nan=-(2**15)).astype("<i2")
    code = 255 + DECADE * np.log10(np.maximum(half / scale, 1e-12) / WIDEST)
    widths = np.nan_to_num(np.rint(np.clip(code, 1, 255)), nan=0).astype(np.uint8)
    planes = steps.reshape(-1, 1).view(np.uint8).T
    return {
        "largest": [float(f"{value:.6g}") for value in scale[:, 0]],
        "packed": packed(planes.tobytes() + widths.tobytes()),
    }
