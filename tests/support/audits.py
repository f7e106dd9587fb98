"""Small results of audits with known numbers, without a generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ganatomy.dissect import Checkup, Repair, SeamCheck
from ganatomy.dissect.artifacts import Suspects
from ganatomy.dissect.diversity import Diversity
from ganatomy.dissect.storage.contract import COLUMNS

DICE = np.random.default_rng(3)


def _rows(columns: str, count: int, **values: object) -> pd.DataFrame:
    """A table of a result with zeros where no values are given."""
    return pd.DataFrame({name: [0.0] * count for name in COLUMNS[columns]}).assign(**values)


def _photos(*shape: int) -> np.ndarray:
    return DICE.integers(0, 255, (*shape, 16, 16, 3), np.uint8)


def diversity(folder: Path, names: tuple[str, ...] = ("sky", "tree", "person")) -> Diversity:
    """Person is missing, tree is rarer, sky is as in real images."""
    shares = np.linspace(0.9, 0.0, len(names))
    classes = _rows(
        "by_class.csv",
        len(names),
        **{"class": names, "presence": shares, "presence_low": shares - 0.02, "presence_high": shares + 0.02},
        real_presence=0.9,
        real_low=0.88,
        real_high=0.92,
        difference=shares - 0.9,
        verdict=["", *["rarer"] * (len(names) - 2), "missing"],
    )
    whole = _rows("whole.csv", 1, metric="coverage", value=0.4, low=0.3, high=0.5, zero=0.9, alarm=True)
    info = {
        "generator": "net",
        "images": 100,
        "real_images": 200,
        "names": list(names),
        "verdict": "lacking",
        "sentence": "Lacking: person.",
        "command": "dissect diversity",
        "config": {},
    }
    return Diversity(
        folder=folder,
        info=info,
        classes=classes,
        pairs=_rows("pairs.csv", 0),
        whole=whole,
        layers=_rows("diversity: layers.csv", 0),
        pictures={
            "twins": _photos(3, 2),
            "prototype": _photos(),
            f"missing_{len(names) - 1}": _photos(2),
        },
    )


def repair(folder: Path) -> Repair:
    """Fréchet distance 20 to 15, of random sets 20 to 22."""
    fidelity = pd.DataFrame(
        [
            ("before", "frechet", 20.0, 19.0, 21.0, np.nan, np.nan, np.nan),
            ("repaired", "frechet", 15.0, 14.0, 16.0, -5.0, -6.0, -4.0),
            ("random 1", "frechet", 22.0, 21.0, 23.0, 2.0, 1.0, 3.0),
        ],
        columns=COLUMNS["fidelity.csv"],
    )
    info = {
        "name": "units",
        "generator": "net",
        "samples": {"first": 0, "last": 9, "number": 10},
        "verdict": "improved",
        "sentence": "Improved.",
        "tables": ["fidelity", "units"],
        "checkpoint": "net-repaired.pth",
    }
    pictures = {"sample": np.arange(4), "role": np.array(["worst"] * 4), "before": _photos(4), "after": _photos(4)}
    pictures["place"] = np.zeros((4, 16, 16), bool)
    units = pd.DataFrame({"unit": [3], "label": ["red"], "value": [0.0]})
    return Repair(folder=folder, info=info, fidelity=fidelity, units=units, pictures=pictures)


def checkup(folder: Path) -> Checkup:
    """One layer, `up`, whose grid of 2×2 makes a peak of 6 dB at the highest horizontal frequency."""
    spectrum = np.zeros((16, 16), np.float32)
    spectrum[8, 0] = 6
    samples = np.full((2, 2, 32, 32, 3), 90, np.uint8)
    samples[:, 0, 4:28, 5:29:2] = 160  # drawn: stripes; without the ripple: flat
    layers = pd.DataFrame([{"layer": "up", "kind": "transposed convolution", "period": "2×2", "verdict": "visible"}])
    layers = layers.assign(reason="", foretold=0.3, measured=0.31, levels=12.0)
    peaks = _rows("peaks.csv", 1, period="2×2", set="images", peak=True, horizontal=0.5, excess=6.0, low=5.0, high=7.0)
    info = {
        "generator": "net",
        "samples": 64,
        "verdict": "visible",
        "sentence": "Visible: a checkerboard of 2×2 pixels.",
        "blame": "up",
    }
    arrays = {"images": spectrum, "untrained": spectrum, "reference": np.zeros_like(spectrum), "samples_0": samples}
    return Checkup(folder=folder, info=info, layers=layers, peaks=peaks, arrays=arrays)


def seams(folder: Path) -> SeamCheck:
    """Steps at borders are twice those elsewhere."""
    table = _rows("seams.csv", 2, what=["tiled", "whole"], lines="all", measure="step", ratio=[2.0, 1.0])
    table = table.assign(low=table.ratio - 0.1, high=table.ratio + 0.1)
    profile = _rows("profile.csv", 4, what=["tiled"] * 2 + ["whole"] * 2, lines="all", measure="step")
    profile = profile.assign(distance=[0, 1, 0, 1], ratio=[2.0, 1.2, 1.0, 1.0])
    info = {"verdict": "visible", "sentence": "Seams are visible.", "generator": "net"}
    pictures = {"tiled": _photos(), "whole": _photos(), "map": np.eye(16, dtype=np.float32)}
    return SeamCheck(folder=folder, info=info, table=table, profile=profile, pictures=pictures)


def suspects(folder: Path, layer: str = "paint") -> Suspects:
    """Unit 7 is the most suspect, sample 4 the worst."""
    units = pd.DataFrame({"rank": [1, 2], "layer": layer, "unit": [7, 3], "score": [0.5, 0.2], "label": "", "iou": 0.1})
    samples = pd.DataFrame({"rank": [1, 2], "layer": layer, "sample": [4, 1], "score": [2.0, 1.0]})
    info = {"name": "bad", "detector": "rare", "layers": [layer], "samples": 40, "config": {}}
    return Suspects(folder=folder, info=info, units=units, samples=samples)
