"""How well the detectors find planted units, and how much of the damage a repair undoes, as a table in Markdown.

    python -m ganatomy.dissect.artifacts.benchmark --out benchmark

Units are planted into a layer of `progan_scenes`, drawn by seed from the eighth of its units whose ablation changes the
images least: those that a generator can spare. Detectors see samples 0 to 999; repairs are measured on samples 1000 to
1999. The reference is the generator itself before the planting, on other latents, so that the truth is known: damage is
what the Fréchet distance (scene features) rises by planting, and undone is the share of it that ablating takes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from ...hooks.edit import Edit, edited
from ...segmenters.scenes import ScenesSegmenter
from ..fidelity.distances import frechet
from ..fidelity.features import SceneFeatures, Standard
from ..fidelity.reference import Reference
from ..generators.base import Generator
from ..generators.loading import load_generator
from ..runtime.progress import Progress
from ..subjects.subject import Subject
from .detectors import DETECTORS, Scores
from .find import Search
from .flags import Flags
from .planting import KINDS, plant

SEEN, HELD_OUT = range(1000), range(1000, 2000)  # samples of the detectors, and those that repairs are measured on
CLEAN, TRIED = range(10_000, 12_000), range(20_000, 20_032)  # of the reference, and those that say what can be spared
VISIBLE, SPOILT = 0.1, 0.01  # least change of a pixel that is seen; least share of such pixels in a spoilt sample
BATCH = 50


@torch.inference_mode()
def images(generator: Generator, samples: Sequence[int], ablated: Sequence[int] = (), layer: str = "") -> Tensor:
    """(N, 3, H, W) images of these samples, with some units ablated."""
    with edited(generator.module, *([Edit(layer=layer, units=tuple(map(int, ablated)))] if len(ablated) else [])):
        starts = range(0, len(samples), BATCH)
        return torch.cat([generator(generator.latents(samples[start : start + BATCH])) for start in starts])


def spare(generator: Generator, layer: str, width: int) -> list[int]:
    """The eighth of the units whose ablation changes the images least, by mean absolute difference."""
    plain = images(generator, TRIED)
    changes = [float((images(generator, TRIED, [unit], layer) - plain).abs().mean()) for unit in range(width)]
    return np.argsort(changes, kind="stable")[: width // 8].tolist()


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all plantings share: the clean generator, its images and features, and the units that it can spare.

    unspoilt: its images of `SEEN`. clean: its distance on `HELD_OUT` to the reference, which are its images of `CLEAN`.
    """

    generator: Generator
    segmenter: ScenesSegmenter
    layer: str
    width: int
    pool: list[int]
    extract: SceneFeatures
    reference: Reference
    unspoilt: Tensor
    clean: float

    @classmethod
    def open(cls, generator: Generator, layer: str) -> Ground:
        segmenter, extract = ScenesSegmenter(), SceneFeatures()
        width = Subject.open(generator, segmenter, layer).shape[0]
        features = _features(extract, images(generator, CLEAN))
        standard = Standard(features.mean(0), features.std(0))
        reference = Reference(name="before planting", features=standard.apply(features), standard=standard)
        return cls(
            generator=generator,
            segmenter=segmenter,
            layer=layer,
            width=width,
            pool=spare(generator, layer, width),
            extract=extract,
            reference=reference,
            unspoilt=images(generator, SEEN),
            clean=_distance(extract, reference, images(generator, HELD_OUT)),
        )

    def distance(self, generator: Generator, ablated: Sequence[int] = ()) -> float:
        """The Fréchet distance of a generator's images of `HELD_OUT`, with some units ablated, to the reference."""
        return _distance(self.extract, self.reference, images(generator, HELD_OUT, ablated, self.layer))


@torch.inference_mode()
def _features(extract: SceneFeatures, of: Tensor) -> Tensor:
    """images (N, 3, H, W) -> (N, D) float64."""
    return torch.cat([extract(batch) for batch in of.split(BATCH)]).double()


def _distance(extract: SceneFeatures, reference: Reference, of: Tensor) -> float:
    return frechet(reference.standard.apply(_features(extract, of)), reference.features)


def measure(ground: Ground, kind: str, count: int, seeds: int, random_sets: int, progress: Progress) -> pd.DataFrame:
    """One row a seed and detector: average precision, share undone; and of random sets."""
    rows = []
    with progress.task(f"{kind}, {count} of {ground.width}", seeds) as advance:
        for seed in range(seeds):
            rows += measure_planting(ground, kind, count, seed, random_sets)
            advance(1)
    return pd.DataFrame(rows)


def measure_planting(ground: Ground, kind: str, count: int, seed: int, random_sets: int) -> list[dict[str, Any]]:
    """Plant so many units, and let every detector look for them: one row a detector, and a random set."""
    layer, width = ground.layer, ground.width
    dice = np.random.default_rng(seed)
    units = dice.choice(ground.pool, count, replace=False)
    planted = plant(ground.generator, layer, units.tolist(), kind, seed)
    truth = np.isin(np.arange(width), units)
    without = images(planted, SEEN, units.tolist(), layer) if KINDS[kind].silent else ground.unspoilt
    differs = (images(planted, SEEN) - without).abs().amax(1) > VISIBLE
    marked = differs.float().mean((1, 2)) > SPOILT
    damaged = ground.distance(planted)
    planting = {"kind": kind, "layer": layer, "planted": count, "units": width, "seed": seed}
    planting |= {"spoilt": float(marked.float().mean()), "clean": ground.clean, "damaged": damaged}

    def undone(ablated: Sequence[int]) -> float:
        return (damaged - ground.distance(planted, ablated)) / (damaged - ground.clean)

    flags = {
        "flagged, samples": Flags(marked=marked.numpy()),
        "flagged, masks": Flags(marked=marked.numpy(), regions=differs.numpy()),
    }
    subject = Subject.open(planted, ground.segmenter, layer)
    rows = []
    for name in [*flags, *(name for name in DETECTORS if name != "flagged")]:
        search = Search(
            detector=name.partition(",")[0],
            extract=ground.extract,
            reference=ground.reference,
            flags=flags.get(name),
            realism=None,
        )
        scores: Scores = search.scores(subject, SEEN, Progress(quiet=True))
        order = np.argsort(-scores.units, kind="stable")
        precision = float(average_precision_score(truth, scores.units))
        rows.append(planting | {"detector": name, "ap": precision, "undone": undone(order[:count].tolist())})
    rows.append(planting | {"detector": "the planted units", "ap": 1.0, "undone": undone(units.tolist())})
    for _ in range(random_sets):
        drawn = dice.choice(width, count, replace=False)
        by_chance = float(average_precision_score(truth, dice.random(width)))
        rows.append(planting | {"detector": "random", "ap": by_chance, "undone": undone(drawn.tolist())})
    return rows


def table(rows: pd.DataFrame) -> str:
    """Markdown: a row a detector; for each kind, means over seeds and, in brackets, least to greatest."""
    kinds = rows.groupby(["kind", "planted", "layer"], sort=False)
    heads = [
        f"{kind}, {planted} of {of_kind.units.iloc[0]} units of {layer}, {of_kind.spoilt.mean():.0%} spoilt"
        for (kind, planted, layer), of_kind in kinds
    ]
    lines = [
        "| | " + " | ".join(f"{head}: AP | undone" for head in heads) + " |",
        "| --- " * (1 + 2 * len(heads)) + "|",
    ]
    for name in rows.detector.unique():
        cells = [name]
        for _, of_kind in kinds:
            of_detector = of_kind[of_kind.detector == name]
            ap, undone = of_detector["ap"], of_detector["undone"]
            cells.append(f"{ap.mean():.2f} ({ap.min():.2f} to {ap.max():.2f})")
            cells.append(f"{undone.mean():.0%} ({undone.min():.0%} to {undone.max():.0%})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for benchmark.csv.")
@click.option("--layer", default="layer4", show_default=True)
@click.option("--planted", default=8, show_default=True, help="How many units.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="[default: all]")
@click.option("--seeds", default=5, show_default=True)
@click.option("--random-sets", default=5, show_default=True)
def main(out: Path, layer: str, planted: int, kinds: tuple[str, ...], seeds: int, random_sets: int) -> None:
    """Plant, detect, repair, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    with Progress(quiet=False) as progress:
        ground = Ground.open(load_generator("progan_scenes"), layer)
        rows = pd.DataFrame()
        for kind in kinds or KINDS:
            rows = pd.concat([rows, measure(ground, kind, planted, seeds, random_sets, progress)], ignore_index=True)
            rows.to_csv(out / "benchmark.csv", index=False)
    print(table(rows))


if __name__ == "__main__":
    main()
