"""What an audit of diversity sees of a generator that is sabotaged on purpose, and how often it sees what is not there.

    python tests/bench_diversity.py                    # the table, one JSON line a sabotage
    python tests/bench_diversity.py --healthy 50       # and false alarms on so many healthy sets of other latents

The reference is 1,000 images that the embedded generator draws itself, of other latents: so nothing but the sabotage
should raise anything. `squeezed` moves every latent towards one of them, z' = s z + √(1 − s²) z₀, so that s = 1 is
healthy and s = 0 one image; `few` draws that many latents over and over; `ablated` sets the units of a class to zero.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor

from ganatomy.dissect import Dissection, Generator, NormalLatents, load_generator, run
from ganatomy.dissect.diversity import audit
from ganatomy.hooks import Edit, edited

REAL, IMAGES, SEED = 1000, 500, 7
SQUEEZED, FEW, CLASSES = (0.95, 0.9, 0.8, 0.6, 0.3), (300, 100, 30, 10), ("tree", "dome")


@dataclass(frozen=True)
class Squeezed(NormalLatents):
    """Latents moved towards the first."""

    strength: float = 1.0

    def __call__(self, indices: Sequence[int]) -> Tensor:
        drawn, middle = super().__call__(indices), super().__call__([0])
        return self.strength * drawn + (1 - self.strength**2) ** 0.5 * middle


@dataclass(frozen=True)
class Few(NormalLatents):
    """The first latents over and over."""

    number: int = 1

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return super().__call__([index % self.number for index in indices])


def look(generator: Generator, reference: Path, folder: Path, seed: int = SEED) -> dict[str, object]:
    """What an audit says of a generator."""
    found = audit(generator, reference=reference, samples=IMAGES, seed=seed, out=folder, quiet=True)
    called = found.classes[found.classes.verdict != ""]
    return {
        "verdict": found.info["verdict"],
        "raised": list(found.whole.metric[found.whole.alarm]),
        "classes": [f"{name} {verdict}" for name, verdict in zip(called["class"], called.verdict, strict=True)],
        "twins": found.info["support"]["pairs"],
        "support": found.info["support"]["estimate"],
    }


def draw(generator: Generator, folder: Path) -> Path:
    """Images of the generator as files."""
    folder.mkdir()
    with torch.inference_mode():
        for start in range(0, REAL, 50):
            for number, image in enumerate(generator(generator.latents(range(start, start + 50))), start):
                pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
                Image.fromarray(pixels).save(folder / f"{number:04d}.png")
    return folder


def units_of(generator: Generator, name: str, folder: Path) -> list[int]:
    """The units of layer4 that draw a class."""
    there = folder.exists()
    found = Dissection.load(folder) if there else run(generator, layers=["layer4"], samples=500, out=folder, quiet=True)
    table = found.units[found.units.labelled & (found.units.label == name)]
    return [int(unit) for unit in table.unit]


@click.command(help="Measure.")
@click.option("--healthy", default=10, show_default=True)
def main(healthy: int) -> None:
    generator = replace(load_generator("progan_scenes", seed=SEED), spec=None)
    shape = generator.source.shape
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        reference = draw(load_generator("progan_scenes", seed=SEED + 1), folder / "real")
        for strength in SQUEEZED:
            source = Squeezed(shape, SEED, strength=strength)
            said = look(replace(generator, source=source), reference, folder / f"squeezed{strength}")
            click.echo(json.dumps({"sabotage": "squeezed", "strength": strength, **said}))
        for number in FEW:
            source = Few(shape, SEED, number=number)
            said = look(replace(generator, source=source), reference, folder / f"few{number}")
            click.echo(json.dumps({"sabotage": "few", "strength": number, **said}))
        for name in CLASSES:
            units = units_of(generator, name, folder / "run")
            with edited(generator.module, Edit(layer="layer4", units=tuple(units))):
                said = look(replace(generator), reference, folder / name)
            click.echo(json.dumps({"sabotage": f"{name} ablated", "strength": len(units), **said}))
        alarms = [
            look(generator, reference, folder / f"healthy{number}", seed=SEED + 10 + number)
            for number in range(healthy)
        ]
        wrong = [one for one in alarms if one["verdict"] != "varied"]
        click.echo(json.dumps({"sabotage": "none", "sets": healthy, "false_alarms": len(wrong), "what": wrong}))


if __name__ == "__main__":
    main()
