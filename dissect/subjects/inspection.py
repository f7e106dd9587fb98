"""What a model is: the family recognised, what goes in, what comes out, and its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from ...hooks.errors import DissectError, UsageError
from ..generators.base import Generator
from ..generators.chains.code import as_python
from ..generators.chains.hypotheses import reading
from ..generators.chains.network import PLAN, Chain, build
from ..generators.chains.plan import Plan
from ..generators.chains.search import with_classes
from ..generators.latents import parse_latents
from ..generators.sources import NoiseImages
from ..generators.zoo import MODELS
from ..storage.files import safe_name
from ..storage.shown import Shown, listing
from .fingerprint import better_latents, fingerprint
from .first_look import warn_of_clamp
from .network import first_choice, layer_table, suggested
from .opening import Model, open_generator, shapes_of, usable_device

DRAWN = 8  # samples of each candidate


@dataclass(frozen=True, kw_only=True, repr=False)
class Inspection(Shown):
    """What `inspect` found.

    `layers` has a row for each layer: `number` as --layer counts (missing for style layers, which go by name), `layer`,
    `units`, `height`, `width`, `kind` (featuremap or style), and whether it is `suggested`.
    """

    name: str
    recognised: str
    entry: str | None  # of the file, where that holds more
    assumed: tuple[str, ...]  # of a plain chain, what nothing in its file tells
    fingerprint: str  # whether it reproduces its training statistics, in words
    better: str | None  # latents under which it does, where those that it was given do not fit
    norms: pd.DataFrame  # of each batch norm: mean and deviation, see `Agreement`
    candidates: dict[str, str]  # of a plain chain that is not decided: what --as would take, and the latents
    sheet: Path | None  # what the candidates draw
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

    @property
    def first_choice(self) -> str | None:
        """The layer that `run` takes if none is named; None if no layer is suggested."""
        names = list(self.layers.layer[self.layers.suggested])
        return first_choice(names) if names else None

    def _title(self) -> str:
        height, width = self.image
        return f"{self.name}, images of {height}×{width}, {self.parameters:,} parameters, {len(self.layers)} layers"

    def _headline(self) -> str:
        suggested = listing(self.layers["layer"][self.layers.suggested])
        return f"suggested: {suggested or 'none'}; {self.recognised}"

    def _where(self) -> str:
        return f"latents {self.latents}; segmenter {self.segmenter or 'none of its own'}"


def inspect(
    model: Model, *, write: str | Path | None = None, device: str | None = None, quiet: bool = False
) -> Inspection:
    """Open a model, draw one sample, and tell what it is. Images that it takes need not be given.

    Batch norms are a fingerprint: on 256 samples it is measured whether the network reproduces what they remember of
    its training, see `generators.batch_statistics`. Of a plain chain that nothing in its file decides, the candidates
    are drawn on a sheet, `runs/NAME-candidates.png`.

    Up to three layers are suggested, see `network.suggested`.

    Args:
        model: see `open_generator`.
        write: a new file for a rebuilt chain as Python, `mine.py`.
        device: None chooses.
        quiet: no progress bar.

    Raises:
        UsageError, DissectError: see `load_generator`; `write` exists, or the model is no rebuilt chain.
    """
    generator = open_generator(model, None, usable_device(device), quiet, placeholder=True)
    with torch.no_grad():  # the network may be in training
        out = generator.output(generator.latents([0]))
        images = generator.to_images(out)
        generator.check_finite(images, [0])
        image = images.shape[2:]
    shapes = shapes_of(generator)
    layers = layer_table(generator, shapes)
    training = fingerprint(generator)
    warn_of_clamp(generator)
    if write is not None:
        write_code(generator, Path(write))
    plans = _candidates(generator)
    return Inspection(
        name=generator.name,
        recognised=generator.recognised or "not recognised: code of your own",
        entry=generator.provenance.entry,
        assumed=generator.module.plan.assumed if isinstance(generator.module, Chain) else (),
        fingerprint=training.verdict,
        better=better_latents(generator) if training.reproduced is False else None,
        norms=pd.DataFrame(
            [(norm.layer, norm.mean, norm.deviation) for norm in training.agreements],
            columns=["layer", "mean", "deviation"],
        ),
        candidates={reading(plan): plan.latent for plan in plans},
        sheet=_sheet(generator, plans) if plans else None,
        citation=generator.provenance.citation or None,
        latents=str(generator.source),
        takes_images=isinstance(generator.source, NoiseImages),
        output=generator.output_range,
        values=(float(out.min()), float(out.max())),
        repeated={shape.name: shape.calls for shape in shapes if shape.calls > 1 and shape.is_featuremap},
        segmenter=MODELS[generator.name].segmenter if generator.name in MODELS else None,
        image=(image[0], image[1]),
        parameters=sum(parameter.numel() for parameter in generator.module.parameters()),
        layers=layers.assign(suggested=layers.layer.isin(suggested(layers, min(image)))),
    )


def write_code(generator: Generator, path: Path) -> None:
    """A rebuilt chain as Python.

    Raises:
        UsageError: the file exists, or the generator is no rebuilt chain.
        DissectError: it cannot be written.
    """
    module = generator.module
    if not isinstance(module, Chain):
        raise UsageError(f"--write goes with plain chains that were rebuilt from their weights, not {generator.name}.")
    if path.exists():
        raise UsageError(f"--write {path} exists; name a new file.")
    low, high = module.output_range
    text = as_python(
        module.plan,
        module.order,
        file=str(generator.provenance.file),
        name=path.name,
        values=f"[{low:g}, {high:g}]",
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DissectError(f"--write {path} cannot be written ({error.strerror or error}).") from error


def _candidates(generator: Generator) -> tuple[Plan, ...]:
    """Of a plain chain that was searched: what it is taken for, and what else may be, where its norms do not decide."""
    module = generator.module
    if not isinstance(module, Chain) or module.search_result is None or not module.search_result.alternatives:
        return ()
    return (module.plan, *module.search_result.alternatives)


def _sheet(generator: Generator, plans: Sequence[Plan]) -> Path:
    """What each candidate draws of the same eight samples, as a picture."""
    from ..images.contact_sheet import sheet

    module = generator.module
    assert isinstance(module, Chain)
    state = {key: value for key, value in module.state_dict().items() if key != PLAN}
    tiles = []
    with torch.no_grad():
        for plan in plans:
            network = build(plan, state)
            latents = with_classes(parse_latents(plan.latent)(range(DRAWN)), plan.classes)
            drawn = replace(generator, module=network, output_range=network.output_range)(latents)
            tiles.append((drawn.permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype("uint8"))
    side = max(tile.shape[1] for tile in tiles)
    pixels = np.concatenate([np.stack([_fitted(image, side) for image in tile]) for tile in tiles])
    path = Path("runs") / f"{safe_name(generator.name)}-candidates.png"
    picture = sheet(pixels, [reading(plan) for plan in plans], [f"sample {number}" for number in range(DRAWN)])
    try:
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise DissectError(f"{path} cannot be written ({error.strerror or error}); go to another folder.") from error
    return path


def _fitted(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
