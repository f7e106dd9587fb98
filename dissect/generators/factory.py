"""A generator from the user's own code: `package.module:factory`."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ...hooks.errors import DissectError, UsageError
from ...hooks.factory import call_factory
from ..model_spec import ModelSpec
from .base import Generator, LatentSource, NormalLatents
from .checkpoints import load_weights, sha256
from .sources import FolderImages


def from_factory(spec: ModelSpec) -> Generator:
    """What `package.module:factory` returns, as a Generator, with the weights of a checkpoint loaded into it.

    A bare `nn.Module` needs `latent`, such as `normal:128`, or, if it takes images, the folder `inputs`, whose pixels
    it gets in [-1, 1]; a `Generator` brings its own.

    Raises:
        UsageError: there is no such module or function, or an option does not fit.
        DissectError: the user's code failed or returned something else, or the weights do not fit.
    """
    source = _source(spec)
    made = call_factory(spec.model)
    if isinstance(made, Generator):
        if source is not None:
            option = "--latent" if spec.latent else "--inputs"
            raise UsageError(
                f"{option} does not go with --model {spec.model}: its Generator brings its own; leave it out."
            )
        generator = made
    elif isinstance(made, nn.Module):
        if source is None:
            raise UsageError(
                f"Model {spec.model} is a bare module; say what it takes: latents, such as --latent normal:128, or "
                "images, by --inputs FOLDER."
            )
        generator = Generator(module=made, name=spec.model.replace(":", "."), source=source)
    else:
        raise DissectError(
            f"Model {spec.model}: the factory returned an object of type {type(made).__name__}; needed is a "
            "torch.nn.Module or a ganatomy.dissect.generators.base.Generator."
        )
    generator = replace(generator, spec=spec)
    if spec.weights is None:
        return generator
    load_weights(generator.module, spec.weights)
    known = replace(generator.provenance, file=spec.weights, sha256=sha256(spec.weights), url=None)
    return replace(generator, provenance=known)


def _source(spec: ModelSpec) -> LatentSource | None:
    for option in ("label", "truncation", "noise"):
        if getattr(spec, option) is not None:
            raise UsageError(
                f"--{option} does not go with package.module:factory; let the factory return a Generator that does it."
            )
    if spec.latent is not None and spec.inputs is not None:
        raise UsageError("--latent and --inputs exclude each other: a model takes latents or images.")
    if spec.inputs is not None:
        return FolderImages(spec.inputs)
    return None if spec.latent is None else NormalLatents.parse(spec.latent)
