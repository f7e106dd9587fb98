"""A generator from the user's own code: `package.module:factory`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from ...hooks.errors import DissectError, UsageError
from ...hooks.factory import call_factory
from .base import Generator, NormalLatents
from .checkpoints import load_weights, sha256


def from_factory(spec: str, *, weights: Path | str | None = None, latent: str | None = None) -> Generator:
    """What `package.module:factory` returns, as a Generator, with the weights of a checkpoint loaded into it.

    A bare `nn.Module` needs `latent`, such as `normal:128`; a `Generator` brings its own.

    Raises:
        UsageError: there is no such module or function, or `latent` does not fit.
        DissectError: the user's code failed or returned something else, or the weights do not fit.
    """
    source = None if latent is None else NormalLatents.parse(latent)
    made = call_factory(spec)
    if isinstance(made, Generator):
        if source is not None:
            raise UsageError(f"--latent does not go with --model {spec}: its Generator brings its own; leave it out.")
        generator = made
    elif isinstance(made, nn.Module):
        if source is None:
            raise UsageError(f"Model {spec} is a bare module; say what latents it takes, such as --latent normal:128.")
        generator = Generator(module=made, name=spec.replace(":", "."), source=source)
    else:
        raise DissectError(
            f"Model {spec}: the factory returned an object of type {type(made).__name__}; needed is a "
            "torch.nn.Module or a ganatomy.dissect.generators.base.Generator."
        )
    if weights is None:
        return generator
    load_weights(generator.module, weights)
    return replace(
        generator, provenance=replace(generator.provenance, file=str(weights), sha256=sha256(weights), url=None)
    )
