"""Open what is dissected, a generator and a segmenter, and tell whether they are the same as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ...hooks.errors import UsageError, one_line
from ...hooks.layers import LayerShape, layer_shapes, pick_layers
from ...hooks.user_code import made_by
from ...segmenters import load_segmenter
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..generators.factory import as_generator
from ..generators.loading import load_generator
from ..generators.spec import ModelSpec, Moved
from ..generators.zoo import MODELS
from ..runtime import distributed

Model = str | Path | ModelSpec | Generator | nn.Module
Given = Generator | nn.Module | Moved | None  # to work on with a run: the same generator, or where it is now


def open_models(
    model: Model,
    segmenter: str | Segmenter | None,
    *,
    seed: int | None = None,
    device: str,
    quiet: bool = False,
) -> tuple[Generator, Segmenter]:
    """The generator and the segmenter; if no segmenter is given, the one that belongs to the generator.

    Raises:
        UsageError: something does not exist, or an option does not fit.
        DissectError: it cannot be fetched or loaded.
    """
    generator = open_generator(model, seed, device, quiet)
    return generator, open_segmenter(segmenter, generator, device)


def open_segmenter(segmenter: str | Segmenter | None, generator: Generator, device: str) -> Segmenter:
    """The given segmenter, or the one that belongs to the generator.

    Raises:
        UsageError: there is none.
        DissectError: it cannot be fetched or loaded.
    """
    if isinstance(segmenter, Segmenter):
        return segmenter
    named = generator.name in MODELS and MODELS[generator.name].segmenter
    if segmenter is None and not named:
        raise UsageError(f"No segmenter belongs to {generator.name}; choose one by --segmenter (dissect segmenters).")
    return load_segmenter(segmenter or str(named), device)


def open_generator(
    model: Model,
    seed: int | None,
    device: str,
    quiet: bool = False,
    *,
    placeholder: bool = False,
) -> Generator:
    """The generator with latents of this seed; if the seed is None, a Generator keeps its own and others get 0.

    A plain module becomes one by `as_generator`; `placeholder`: see `load_generator`.

    Raises:
        UsageError, DissectError: see `load_generator`.
    """
    if isinstance(model, nn.Module):
        model = as_generator(model.to(device))
    if isinstance(model, str | Path | ModelSpec):
        spec = ModelSpec.of(model)
        return load_generator(spec, seed=seed or 0, device=device, quiet=quiet, placeholder=placeholder)
    if not isinstance(model, Generator):
        raise UsageError(
            f"A model must be a name, a file, a torch.nn.Module or a ganatomy.dissect.Generator, not a "
            f"{type(model).__name__}."
        )
    model.module.to(device)
    return model if seed is None else replace(model, source=model.source.seeded(seed))


def open_critic(critic: str | nn.Module, device: str) -> nn.Module:
    """A critic, given as a module or as the name of a factory: images (N, 3, H, W) in [0, 1] -> scores.

    Raises:
        UsageError: there is no such factory, or it returns something else.
    """
    if isinstance(critic, nn.Module):
        return critic
    module = made_by("--critic", critic)
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"--critic {critic}: the factory returned a {type(module).__name__}; it must return a torch.nn.Module."
        )
    return module.to(device)


def dissectable(generator: Generator) -> tuple[str, ...]:
    """The generator's own list of layers, else every innermost module that outputs one featuremap in a pass."""
    if generator.layers:
        return generator.layers
    shapes = shapes_of(generator)
    return tuple(shape.name for shape in shapes if shape.innermost and shape.is_featuremap and shape.calls == 1)


def shapes_of(generator: Generator) -> list[LayerShape]:
    """Every module of the network that takes part, with what it outputs for one sample."""
    return layer_shapes(generator.module, lambda: generator(generator.latents([0])))


def layer_name(generator: Generator, layer: str | int) -> str:
    """The name of a layer given by name, or by number among those worth dissecting.

    Raises:
        UsageError: there is no such layer.
    """
    return pick_layers([layer], dissectable(generator), generator.module)[0]


def usable_device(device: str | None) -> str:
    """The given device, or the best of this machine; raises UsageError for one that cannot be used."""
    if device in (None, "auto"):
        return f"cuda:{distributed.local_rank() % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {device} cannot be used ({one_line(error)}); try cpu.") from error
    return str(device)
