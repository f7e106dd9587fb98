"""A causal table of any content for a run, to compare what is shown with it."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from ganatomy.dissect import Dissection

Floats = NDArray[np.float64]


def plant(run: Dissection, *, classes: tuple[int, ...] = (0, 1, 3), seed: int = 0) -> tuple[Dissection, Floats, Floats]:
    """The run with random effects of each unit on some of its classes, and these with half of their intervals (C', U).

    Every unit adds to some classes and takes away from others. The table lies in the folder as a run leaves it.
    """
    generator = np.random.default_rng(seed)
    shape = (len(classes), len(run.units))
    effect = np.round(generator.normal(size=shape) * 10.0 ** generator.integers(-2, 1, shape), 4)
    half = np.round(generator.uniform(0.2, 1.5, shape) * np.abs(effect), 5)
    arrays = {"classes": np.array(classes), "samples": np.zeros((len(classes), 4), np.int64)}
    for layer in run.layers:
        rows = (run.units.layer == layer).to_numpy()
        values = {"effect": effect, "low": effect - half, "high": effect + half}
        arrays |= {f"{layer}/{name}": array[:, rows].astype(np.float32) for name, array in values.items()}
    np.savez_compressed(run.folder / "causes.npz", **arrays)
    names = list(run.classes["class"])
    own = [
        (classes.index(k), row) if (k := names.index(label) if label else -1) in classes else None
        for row, label in enumerate(run.units.label)
    ]

    def pick(array: Floats) -> list[float]:
        return [np.nan if at is None else float(array[at]) for at in own]

    strongest = np.abs(effect).argmax(0)
    run.units.assign(
        effect=pick(effect),
        effect_low=pick(effect - half),
        effect_high=pick(effect + half),
        strongest_class=[names[classes[k]] for k in strongest],
        strongest_effect=effect[strongest, np.arange(len(run.units))],
    ).to_csv(run.folder / "units.csv", index=False)
    info = run.info | {"causes": {"effort": "fast", "draws": 4, "classes": len(classes)}}
    (run.folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    return Dissection.load(run.folder), effect, half
