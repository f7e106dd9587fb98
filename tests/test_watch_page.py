"""The pages of a watched training and of candidates' fitness, in a real browser, from folders made by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ganatomy.dissect.candidates import Fitness
from ganatomy.dissect.watching import Watched
from ganatomy.dissect.watching.history import COLUMNS, MEASURED, METRICS, PRESENCE, SHARE

NAMES = ("sky", "tree", "house", "grass")
COLOURS = ("#06b6ff", "#04c803", "#b47878", "#04fa07")


def watched(folder: Path, steps: Any, names: tuple[str, ...] = NAMES, **changes: Any) -> Watched:
    """A training that becomes better by step; `changes` are of its columns."""
    folder.mkdir()
    (folder / "pictures").mkdir()
    steps = np.asarray(steps)
    noise = np.random.default_rng(0)
    done = steps / max(1, steps.max())
    values = {
        "deviation": 0.05 + 0.2 * done**0.5,
        "frechet": 4 + 60 * np.exp(-4 * done),
        "kernel": 0.3 * np.exp(-5 * done),
        "precision": 0.3 + 0.4 * done,
        "recall": 0.6 * done,
        "density": 0.2 + 0.5 * done,
        "coverage": 0.1 + 0.7 * done,
        "vendi": 0.3 + 0.6 * done,
        "spread": 0.2 + 0.7 * done,
        "twins": 0.4 * np.exp(-5 * done),
        "ripple": 1 + 3 * np.exp(-3 * done),
    }
    lines = pd.DataFrame(index=range(len(steps)), columns=list(COLUMNS)).assign(
        checkpoint=[f"runs/generator-{step}.pt" for step in steps],
        step=steps,
        created="2025-03-01T12:00:00+00:00",
        seconds=3.25,
        sha256="ab" * 32,
        verdict="lacking",
        alarms="",
        grid="2×2",
        peaks=2,
        labelled=np.rint(5 + 60 * done).astype(int),
        covered=np.rint(2 + 2 * done).astype(int),
    )
    for name in MEASURED:
        lines[name] = values[name] * (1 + 0.03 * noise.standard_normal(len(steps)))
        reach = 0.08 * lines[name] + 0.01
        lines[f"{name}_low"], lines[f"{name}_high"] = lines[name] - reach, lines[name] + reach
    real = noise.dirichlet(np.ones(len(names)))
    shares = {SHARE + name: real[k] * (0.3 + 0.6 * done) for k, name in enumerate(names)}
    shares |= {PRESENCE + name: np.full(len(steps), 0.5) for name in names}
    lines = pd.concat([lines, pd.DataFrame(shares, index=lines.index)], axis=1).assign(**changes)
    info = {
        "samples": 128,
        "seed": 0,
        "layer": "layer4",
        "units": 512,
        "segmenter": "scenes",
        "names": list(names),
        "colours": [COLOURS[k % 4] for k in range(len(names))],
        "reference": "photos",
        "real_images": 400,
        "features": "random features of an untrained network; not comparable with published values",
        "zero": {name: {"value": 0.75, "low": 0.7, "high": 0.8} for name in METRICS},
        "real_deviation": 0.29,
        "real_share": real.tolist(),
        "real_presence": [0.5] * len(names),
        "skipped": [],
        "created": "2025-03-01T12:00:00+00:00",
        "command": "dissect watch runs --reference photos",
        "config": {},
    }
    for number in range(len(steps)):
        row = noise.integers(0, 255, (32, 8 * 32, 3), np.uint8)
        Image.fromarray(row).save(folder / "pictures" / f"{number}.webp")
    made = Watched(folder=folder, info=info, lines=lines)
    made.save()
    return made


def fitness(folder: Path, names: list[str], critic: bool = False, **changes: Any) -> Fitness:
    """Candidates whose fitness falls from the first to the last."""
    noise = np.random.default_rng(1)
    number = len(names)
    falls = np.linspace(0.8, 0.6, number)
    tilt = 0.2 * np.cos(2 * np.arange(number))
    values = {
        "quality": falls * (1 + tilt),
        "diversity": falls * (1 - tilt),
        "fitness": falls,
        "behind": falls[0] - falls,
        **{name: noise.uniform(0.2, 0.9, number) for name in METRICS},
    }
    if critic:
        values |= {"critic_quality": noise.normal(0, 1, number), "critic_diversity": noise.normal(2, 1, number)}
    table = pd.DataFrame({"candidate": names, "step": [float(k) for k in range(number)]})
    for name, some in values.items():
        table[name], table[f"{name}_low"], table[f"{name}_high"] = some, some - 0.04, some + 0.04
    table.loc[0, ["behind_low", "behind_high"]] = np.nan
    table["equal"] = table.behind < 0.05
    better = [
        [(q > p) and (e > d) for q, e in zip(table.quality, table.diversity, strict=True)]
        for p, d in zip(table.quality, table.diversity, strict=True)
    ]
    table["front"] = [not any(some) for some in better]
    zero = {name: {"value": 0.9, "low": 0.87, "high": 0.93} for name in ("quality", "diversity", "fitness", *METRICS)}
    info = {
        "reference": "photos",
        "real_images": 400,
        "images": 200,
        "features": "random features of an untrained network",
        "zero": zero,
        "critic": "critic.pt" if critic else None,
        "sentence": f"Take {names[0]}.",
        "caveats": {name: f"What {name} cannot tell." for name in METRICS},
        "created": "2025-03-01T12:00:00+00:00",
        "command": "dissect fitness runs",
        "config": {},
    }
    pictures = {str(k): noise.integers(0, 255, (8, 32, 32, 3), np.uint8) for k in range(number)}
    made = Fitness(folder=folder, info=info, table=table.assign(**changes), pictures=pictures)
    made.save()
    return made
