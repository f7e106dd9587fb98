"""Load a generator by its spec: a name of the catalogue, a checkpoint file, or the user's own code."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...hooks.errors import UsageError, one_line
from ...hooks.user_code import is_factory
from ..runtime.progress import waiting
from .download import fetch
from .spec import DIFFUSERS, ModelSpec
from .zoo import MODELS, PUBLIC_LATENT, SPELT, weights_path

if TYPE_CHECKING:
    from torch import nn

    from .base import Generator


SUFFIXES = (".pth", ".pt", ".ckpt", ".pkl", ".safetensors")


def layers_of(name: str) -> dict[str, tuple[int, ...] | None]:
    """What each layer of a model outputs for one sample: (units, height, width), with or without its weights here."""
    import torch

    from ...hooks.layers import layer_shapes
    from .families.progan import ProGAN

    row = MODELS[name]
    if row.widths:
        with torch.device("meta"):  # shapes alone
            module: nn.Module = (public := ProGAN(PUBLIC_LATENT, row.widths))
            layers, latents = public.layers, torch.empty(1, PUBLIC_LATENT)
    elif not weights_path(row).is_file():
        return {}  # shapes are known once its weights are here
    else:
        generator = load_generator(name, placeholder=True)
        module, layers, latents = generator.module, generator.layers, generator.latents([0])
    shapes = layer_shapes(module, lambda: module(latents))
    return {shape.name: shape.shape for shape in shapes if shape.name in layers}


def load_generator(
    model: str | ModelSpec, *, seed: int = 0, device: str = "cpu", quiet: bool = False, placeholder: bool = False
) -> Generator:
    """The generator of a spec: of the catalogue, of a checkpoint file, of diffusers, or of the user's own code.

    Args:
        model: its name or file, or a `ModelSpec` with more options.
        seed: of the latents.
        device: where the generator runs.
        quiet: no progress bar.
        placeholder: noise may stand in for images if the model takes images and none are given.

    Raises:
        UsageError: there is no such model, or an option does not fit it.
        DissectError: it cannot be fetched or loaded.
    """
    import torch

    from .factory import from_factory
    from .recognition import open_checkpoint, open_decoder

    spec = ModelSpec.of(model)
    row = MODELS.get(spec.model)
    if spec.model.endswith(".py"):
        raise UsageError(f"--model {spec.model} is code; name the class or function too, e.g. {spec.model}:Generator.")
    spec = spec if row else spec.from_anywhere()
    decoder = spec.model.startswith(DIFFUSERS)
    if row or decoder or Path(spec.model).exists() or spec.model.lower().endswith(SUFFIXES):
        needless = ("weights", "latent", "assumed", "entry", "args") if row else ("weights", "args")
        for option in ("latent", "assumed", "args") if decoder else needless:
            if getattr(spec, option):
                raise UsageError(
                    f"--{SPELT.get(option, option)} does not go with --model {spec.model}, which needs none; leave it "
                    "out, or give code of your own (file.py:Name) as the model."
                )
        file = fetch(row, quiet=quiet) if row else None
        with waiting(f"Finding out which network {spec.model} holds", quiet):  # a plain chain is searched for long
            generator = open_decoder(spec) if decoder else open_checkpoint(spec, file, placeholder=placeholder)
        if row:
            known = replace(generator.provenance, url=row.url, licence=row.licence, citation=row.citation)
            generator = replace(generator, name=row.name, provenance=known, spec=spec)
    elif is_factory(spec.model):
        generator = from_factory(spec, placeholder=placeholder)
    else:
        near = difflib.get_close_matches(spec.model, MODELS, n=3, cutoff=0.8)
        raise UsageError(
            f"There is no model {spec.model!r}."
            + (f" Did you mean {' or '.join(near)}?" if near else "")
            + f" Allowed: {', '.join(MODELS)}, a checkpoint file ({', '.join(SUFFIXES)}), {DIFFUSERS}ID-or-folder, or "
            "code of your own as package.module:Name or file.py:Name."
        )
    try:
        # channels last: twice as fast on a CPU
        generator.module.to(device).to(memory_format=torch.channels_last).requires_grad_(False)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without that kind of device
        raise UsageError(f"--device {device} cannot be used here ({one_line(error)}); cpu always can.") from error
    return replace(generator, source=generator.source.seeded(seed))
