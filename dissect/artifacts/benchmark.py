"""How well the detectors find planted units, and how much of the damage a repair undoes: the table in the docs.

    python -m ganatomy.dissect.artifacts.benchmark --out benchmark

Units are planted into a layer of `progan_scenes`, drawn by seed from the eighth of its units whose ablation changes the
images least: those that a generator can spare. Detectors see samples 0 to 999; repairs are measured on samples 1000 to
1999. The reference is the generator itself before the planting, on other latents, so that the truth is known: damage is
what the Fréchet distance (scene features) rises by planting, and undone is the share of it that ablating takes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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

SEEN, HELD_OUT, CLEAN, TRIED = range(1000), range(1000, 2000), range(10_000, 12_000), range(20_000, 20_032)
VISIBLE, SPOILT = 0.1, 0.01  # a pixel that changed by so much; a sample with so many of them
BATCH = 50


@torch.inference_mode()
def images(generator: Generator, samples: Sequence[int], ablated: Sequence[int] = (), layer: str = "") -> Tensor:
    """(N, 3, H, W) images of these samples, with some units ablated."""
    with edited(generator.module, *([Edit(layer=layer, units=tuple(map(int, ablated)))] if len(ablated) else [])):
        starts = range(0, len(samples), BATCH)
        return torch.cat([generator(generator.latents(samples[start : start + BATCH])) for start in starts])


def spare(generator: Generator, layer: str, width: int) -> list[int]:
    """The eighth of the units whose ablation changes the images least, by mean absolute difference."""
    whole = images(generator, TRIED)
    changes = [float((images(generator, TRIED, [unit], layer) - whole).abs().mean()) for unit in range(width)]
    return np.argsort(changes, kind="stable")[: width // 8].tolist()


def measure(layer: str, kind: str, count: int, seeds: int, random_sets: int, progress: Progress) -> pd.DataFrame:
    """One row a seed and detector: average precision, share undone; and of random sets."""
    generator, segmenter, extract = load_generator("progan_scenes"), ScenesSegmenter(), SceneFeatures()
    with torch.inference_mode():

        def features(of: Tensor) -> Tensor:
            return torch.cat([extract(part) for part in of.split(BATCH)]).double()

        plain = features(images(generator, CLEAN))
        standard = Standard(plain.mean(0), plain.std(0))
        reference = Reference(name="before planting", features=standard.apply(plain), standard=standard)

        def distance(of: Tensor) -> float:
            return frechet(standard.apply(features(of)), reference.features)

    subject = Subject.open(generator, segmenter, layer)
    width = subject.shape[0]
    pool = spare(generator, layer, width)
    best = distance(images(generator, HELD_OUT))
    unspoilt = images(generator, SEEN)
    rows = []
    with progress.task(f"{kind}, {count} of {width}", seeds) as advance:
        for seed in range(seeds):
            dice = np.random.default_rng(seed)
            units = dice.choice(pool, count, replace=False)
            planted = plant(generator, layer, units.tolist(), kind, seed)
            truth = np.isin(np.arange(width), units)
            without = images(planted, SEEN, units.tolist(), layer) if KINDS[kind].silent else unspoilt
            differs = (images(planted, SEEN) - without).abs().amax(1) > VISIBLE
            marked = differs.float().mean((1, 2)) > SPOILT
            worst = distance(images(planted, HELD_OUT))
            about = {"kind": kind, "layer": layer, "planted": count, "units": width, "seed": seed}
            about |= {"spoilt": float(marked.float().mean()), "clean": best, "damaged": worst}

            def undone(ablated: Sequence[int], planted: Generator = planted, worst: float = worst) -> float:
                return (worst - distance(images(planted, HELD_OUT, ablated, layer))) / (worst - best)

            flags = {
                "flagged, samples": Flags(marked=marked.numpy()),
                "flagged, masks": Flags(marked=marked.numpy(), regions=differs.numpy()),
            }
            opened = Subject.open(planted, segmenter, layer)
            for name in [*flags, *(name for name in DETECTORS if name != "flagged")]:
                search = Search(
                    detector=name.partition(",")[0],
                    extract=extract,
                    reference=reference,
                    flags=flags.get(name),
                    realism=None,
                )
                scores: Scores = search.scores(opened, SEEN, Progress(quiet=True))
                order = np.argsort(-scores.units, kind="stable")
                found = float(average_precision_score(truth, scores.units))
                rows.append(about | {"detector": name, "ap": found, "undone": undone(order[:count].tolist())})
            rows.append(about | {"detector": "the planted units", "ap": 1.0, "undone": undone(units.tolist())})
            for _ in range(random_sets):
                drawn = dice.choice(width, count, replace=False)
                by_chance = float(average_precision_score(truth, dice.random(width)))
                rows.append(about | {"detector": "random", "ap": by_chance, "undone": undone(drawn.tolist())})
            advance(1)
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> str:
    """Markdown: a row a detector; for each kind, means over seeds and, in brackets, least to greatest."""
    kinds = rows.groupby(["kind", "planted", "layer"], sort=False)
    heads = [
        f"{kind}, {planted} of {part.units.iloc[0]} units of {layer}, {part.spoilt.mean():.0%} spoilt"
        for (kind, planted, layer), part in kinds
    ]
    lines = [
        "| | " + " | ".join(f"{head}: AP | undone" for head in heads) + " |",
        "| --- " * (1 + 2 * len(heads)) + "|",
    ]
    for name in rows.detector.unique():
        cells = [name]
        for _, part in kinds:
            mine = part[part.detector == name]
            ap, undone = mine["ap"], mine["undone"]
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
        rows = pd.DataFrame()
        for kind in kinds or KINDS:
            rows = pd.concat([rows, measure(layer, kind, planted, seeds, random_sets, progress)], ignore_index=True)
            rows.to_csv(out / "benchmark.csv", index=False)
    print(table(rows))


if __name__ == "__main__":
    main()
