"""The layers of a generator: what each outputs, which ones are worth a first look, and what --layer means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from ...hooks.errors import UsageError
from ...hooks.layers import LayerShape, pick_layers
from ..generators.base import Generator
from ..generators.families.architecture import Architecture
from .opening import dissectable, shapes_of

AUTO, ALL = "auto", "all"  # what a request may name instead of layers
SUGGESTED = 3  # layers
COARSEST, FINEST = 8, 4  # side of a suggested layer's map at least, and how many times coarser than the image at least
COLOURS = 3  # a map of no more units is an image, or nearly one
FEATUREMAP, STYLE = "featuremap", "style"


def layer_table(generator: Generator, shapes: Sequence[LayerShape]) -> pd.DataFrame:
    """A row for each layer that can be dissected.

    Returns:
        `number` as --layer counts (missing for style layers, which go by name), `layer`, `units`, `height`, `width`,
        and `kind`: featuremap or style.
    """
    by_name = {shape.name: shape for shape in shapes}

    def row(number: int | None, name: str, kind: str) -> dict[str, object]:
        shape = by_name[name].shape if name in by_name else None
        sizes = shape if shape and len(shape) == 3 else (None, None, None)
        return {
            "number": number,
            "layer": name,
            **dict(zip(("units", "height", "width"), sizes, strict=True)),
            "kind": kind,
        }

    rows = [row(number, name, FEATUREMAP) for number, name in enumerate(dissectable(generator), 1)]
    if isinstance(generator.module, Architecture):
        rows += [row(None, name, STYLE) for name in generator.module.style_layers]
    columns = ["number", "layer", "units", "height", "width", "kind"]
    return pd.DataFrame(rows, columns=columns).astype({"number": "Int64"})


def suggested(table: pd.DataFrame, image: int) -> list[str]:
    """At most three layers to begin with: of those that fit, the first, the middle and the last.

    A layer fits that has more than three units, and a map of at least 8 by 8 cells, each at least four pixels of the
    image wide: coarse enough to speak of objects, fine enough to place them (Bau et al. 2019, section 4.1). If none
    fits, the layer nearest to that.

    Args:
        table: of `layer_table`.
        image: the shorter side of the images, in pixels.
    """
    maps = table[(table.kind == FEATUREMAP) & (table.units > COLOURS)]
    sides = maps[["height", "width"]].min(axis=1)
    fitting = maps[(sides >= COARSEST) & (sides * FINEST <= image)]
    if not len(fitting) and len(maps):
        fitting = maps.iloc[[(sides - COARSEST).abs().argmin()]]
    if not len(fitting):
        return []
    steps = range(SUGGESTED)
    rows = sorted({round(step * (len(fitting) - 1) / (SUGGESTED - 1)) for step in steps})
    return list(fitting.layer.iloc[rows])


def first_choice(names: Sequence[str]) -> str:
    """The layer that `auto` takes: the middle one of those that are suggested."""
    return names[len(names) // 2]


def network_record(generator: Generator) -> list[dict[str, Any]]:
    """What run.json tells of the whole generator, dissected or not: `layer_table` as a list of rows."""
    table = layer_table(generator, shapes_of(generator)).drop(columns="number")
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in table.to_dict("records")
    ]


def requested_layers(generator: Generator, layers: Sequence[str | int] | str | int) -> tuple[str, ...]:
    """The names of the requested layers, each once.

    Args:
        generator: is run once if the request is `auto` or `all`.
        layers: names, or numbers counted from 1; or `auto`, the `first_choice`; or `all` featuremaps of more than
            three units. A text that is the name of a layer means that layer.

    Raises:
        UsageError: a layer does not exist, nothing is requested, or `auto` or `all` stands beside other layers.
    """
    layers = [layers] if isinstance(layers, str | int) else list(layers)
    words = [word for word in layers if word in (AUTO, ALL) and word not in dict(generator.module.named_modules())]
    if not words:
        names = pick_layers(layers, dissectable(generator), generator.module)
        if not names:
            raise UsageError(f"No layer is named; give a layer's name or number, {AUTO}, or {ALL}.")
        return names
    if len(layers) > 1:
        raise UsageError(f"--layer {words[0]}: must be the only --layer; leave the others out, or name each layer.")
    table = layer_table(generator, shapes_of(generator))
    if words[0] == ALL:
        names = tuple(table.layer[(table.kind == FEATUREMAP) & (table.units > COLOURS)])
    else:
        with torch.no_grad():
            image = min(generator(generator.latents([0])).shape[2:])
        choice = suggested(table, image)
        names = (first_choice(choice),) if choice else ()
    if not names:
        raise UsageError(
            f"--layer {words[0]}: {generator.name} has no layer with featuremaps of more than three units."
        )
    return names
