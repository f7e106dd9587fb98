"""What a model is: the family recognised, what goes in, what comes out, and its layers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from ..hooks.layers import LayerShape
from .generators.architecture import Architecture
from .generators.sources import NoiseImages
from .generators.zoo import MODELS
from .models import Model, dissectable, open_generator, shapes_of, usable_device

SUGGESTED = 3  # layers
COARSEST, FINEST = 8, 4  # side of a suggested layer's map at least, and how many times coarser than the image at least
COLOURS = 3  # a map of no more units is an image, or nearly one
COLUMNS = ("number", "layer", "units", "height", "width", "kind", "suggested")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` found.

    `layers` has a row for each layer: `number` as --layer counts (missing for style layers, which go by name), `layer`,
    `units`, `height`, `width`, `kind` (featuremap or style), and whether it is `suggested`.
    """

    name: str
    recognised: str
    citation: str | None
    latents: str
    takes_images: bool  # and none were given
    output: tuple[float, float]  # what is black and what is white in what the network returns
    values: tuple[float, float]  # least and greatest value that it returned for the first sample
    repeated: dict[str, int]  # modules that run several times in a pass, and how often: they cannot be dissected
    segmenter: str | None  # the one that belongs to it
    image: tuple[int, int]
    parameters: int
    layers: pd.DataFrame


def inspect(model: Model, *, device: str | None = None, quiet: bool = False) -> Inspection:
    """Open a model, draw one sample, and tell what it is. Images that it takes need not be given.

    Suggested are up to three layers of more than three units with maps of at least 8 by 8 cells, each at least four
    pixels of the image wide: coarse enough to speak of objects, fine enough to place them (Bau et al. 2019, section
    4.1). Where there is none, the layer nearest to that.

    Raises:
        UsageError, DissectError: see `load_generator`.
    """
    generator = open_generator(model, None, usable_device(device), quiet, placeholder=True)
    names = dissectable(generator)
    with torch.no_grad():  # the network may be in training
        out = generator.output(generator.latents([0]))
        images = generator.to_images(out)
        generator.check_finite(images, [0])
        image = images.shape[2:]
    seen = {one.name: one for one in shapes_of(generator)}
    rows = [_row(number, seen.get(name), name, "featuremap") for number, name in enumerate(names, 1)]
    if isinstance(generator.module, Architecture):
        rows += [_row(None, seen.get(name), name, "style") for name in generator.module.style_layers]
    table = pd.DataFrame(rows, columns=COLUMNS[:-1]).astype({"number": "Int64"})
    return Inspection(
        name=generator.name,
        recognised=generator.recognised or "not recognised: code of your own",
        citation=generator.provenance.citation,
        latents=str(generator.source),
        takes_images=isinstance(generator.source, NoiseImages),
        output=generator.output_range,
        values=(float(out.min()), float(out.max())),
        repeated={one.name: one.calls for one in seen.values() if one.calls > 1 and one.is_featuremap},
        segmenter=MODELS[generator.name].segmenter if generator.name in MODELS else None,
        image=(image[0], image[1]),
        parameters=sum(parameter.numel() for parameter in generator.module.parameters()),
        layers=table.assign(suggested=_suggested(table, min(image))),
    )


def _row(number: int | None, seen: LayerShape | None, name: str, kind: str) -> tuple[object, ...]:
    units, height, width = seen.shape if seen and seen.shape and len(seen.shape) == 3 else (None, None, None)
    return number, name, units, height, width, kind


def _suggested(table: pd.DataFrame, image: int) -> pd.Series:
    """Which rows: of those that fit, the first, the middle and the last."""
    maps = table[(table.kind == "featuremap") & (table.units > COLOURS)]
    sides = maps[["height", "width"]].min(axis=1)
    fitting = maps.index[(sides >= COARSEST) & (sides * FINEST <= image)]
    if not len(fitting) and len(maps):
        fitting = maps.index[[(sides - COARSEST).abs().argmin()]]
    places = sorted({round(step * (len(fitting) - 1) / (SUGGESTED - 1)) for step in range(SUGGESTED)})
    return table.index.to_series().isin(fitting[places] if len(fitting) else [])
