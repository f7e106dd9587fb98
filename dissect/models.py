"""Open what is dissected, a generator and a segmenter, and tell whether they are the same as before."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..hooks.errors import UsageError, one_line
from ..hooks.factory import made_by
from ..hooks.layers import LayerShape, layer_shapes, pick_layers
from ..segmenters import load_segmenter
from ..segmenters.base import Segmenter
from .features import SCENES
from .generators.base import Generator
from .generators.factory import as_generator
from .generators.families.architecture import Architecture
from .generators.loading import load_generator
from .generators.spec import ModelSpec, Moved
from .generators.zoo import MODELS
from .runs.dissection import Dissection
from .runtime import distributed

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
    """The generator and the segmenter of what `run` was asked for; without a segmenter the generator's own.

    Raises:
        UsageError: something asked for does not exist or does not fit.
        DissectError: it cannot be fetched or loaded.
    """
    generator = open_generator(model, seed, device, quiet)
    return generator, open_segmenter(segmenter, generator, device)


def open_segmenter(segmenter: str | Segmenter | None, generator: Generator, device: str) -> Segmenter:
    """The segmenter asked for, or the one that belongs to the generator.

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
    """The generator asked for, with latents of this seed; without one a Generator keeps its own, others have 0.

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
            f"A model is a name, a file, a torch.nn.Module or a ganatomy.dissect.Generator, and no "
            f"{type(model).__name__}."
        )
    model.module.to(device)
    return model if seed is None else replace(model, source=model.source.seeded(seed))


def reference_of(generator: Generator, given: str | Path | None) -> str | Path | None:
    """What the images are compared with: what was asked for, else the scenes for a generator of them."""
    named = generator.name in MODELS and MODELS[generator.name].segmenter == SCENES
    return SCENES if given is None and named else given


def open_critic(critic: str | nn.Module, device: str) -> nn.Module:
    """A critic, or what a factory of one makes: images (N, 3, H, W) in [0, 1] -> scores.

    Raises:
        UsageError: there is no such factory, or it makes something else.
    """
    if isinstance(critic, nn.Module):
        return critic
    made = made_by("--critic", critic)
    if not isinstance(made, nn.Module):
        raise UsageError(f"--critic {critic}: the factory made a {type(made).__name__}; a torch.nn.Module is needed.")
    return made.to(device)


def identity(generator: Generator) -> dict[str, Any]:
    """What tells a generator from another in the description of a result: all that decides what it draws."""
    module = generator.module
    return {
        "model": generator.name,
        "weights_sha256": fingerprint(module),
        "latent": re.sub(r" at 0x[0-9a-f]+", "", str(generator.source)),
        "output_range": list(generator.output_range),
        **(module.settings() if isinstance(module, Architecture) else {}),
    }


def check_same(generator: Generator, config: dict[str, Any], where: str) -> None:
    """Raise UsageError if this is not the generator that a run or checkup was made with; `where` names that."""
    for name, now in identity(generator).items():
        if name != "model" and now != (then := config.get(name, now)):
            said = [f"{one:.12}…" if name == "weights_sha256" else f"{one}" for one in (now, then)]
            folder = name == "latent" and all(" images, " in one for one in said)
            what = "The folder of images" if folder else generator.name
            raise UsageError(
                f"{what} has changed since {where} was made ({name}: {said[0]} now, {said[1]} then); bring the old one "
                "back, or dissect the new one."
            )


def reopen(
    run: Dissection,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> tuple[Generator, Segmenter]:
    """The generator and segmenter that a run saw, loaded as it loaded them, from where it has moved to, or given.

    Raises:
        UsageError: they have changed since, or the run does not know how to load them.
        DissectError: they cannot be fetched or loaded.
    """
    config = run.info["config"]
    source = run.info.get("source", {"model": config["model"], "segmenter": config["segmenter"]})
    model: Model | None
    if isinstance(generator, nn.Module):
        known = {"latent": config["latent"], "output_range": tuple(config["output_range"]), "name": config["model"]}
        model = as_generator(generator.to(device), **known)
    elif isinstance(generator, Generator):
        model = generator
    else:
        recorded = ModelSpec.recorded(source)
        model = recorded and (generator or Moved()).applied(recorded, run.folder)
    namer = source.get("segmenter") if segmenter is None else segmenter
    if model is None or namer is None:
        what = "generator" if model is None else "segmenter"
        raise UsageError(
            f"The run in {run.folder} was given its {what} as an object in Python; give the same object again: "
            f"dissect.ablate(run, {what}=…), and so for insert and scan."
        )
    generator, segmenter = open_models(model, namer, seed=config["seed"], device=device, quiet=quiet)
    check_same(generator, config, f"the run in {run.folder}")
    now, then = segmenter_fingerprint(segmenter), config["segmenter_sha256"]
    if now != then:
        raise UsageError(
            f"{segmenter.name} has changed since the run in {run.folder} was made (sha256 {now[:12]}… now, {then[:12]}…"
            " then); bring the old one back, or dissect with the new one."
        )
    return generator, segmenter


def dissectable(generator: Generator) -> tuple[str, ...]:
    """The generator's own list of layers, else every innermost module that puts out one featuremap in a pass."""
    if generator.layers:
        return generator.layers
    return tuple(one.name for one in shapes_of(generator) if one.innermost and one.is_featuremap and one.calls == 1)


def shapes_of(generator: Generator) -> list[LayerShape]:
    """Every module of the network that takes part, with what it puts out for one sample."""
    return layer_shapes(generator.module, lambda: generator(generator.latents([0])))


def layer_name(generator: Generator, layer: str | int) -> str:
    """The name of a layer given by name, or by number among those worth dissecting.

    Raises:
        UsageError: there is no such layer.
    """
    return pick_layers([layer], dissectable(generator), generator.module)[0]


def fingerprint(module: nn.Module) -> str:
    """sha256 over names, shapes and bytes of a module's state, the same whatever file it came from."""
    digest = hashlib.sha256()
    tensors = [(name, value) for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def segmenter_fingerprint(segmenter: Segmenter) -> str:
    """sha256 over a segmenter's vocabulary and over every network it holds."""
    digest = hashlib.sha256(repr(segmenter.vocabulary).encode())
    parts = [segmenter, *getattr(segmenter, "__dict__", {}).values()]
    for part in parts:
        if isinstance(part, nn.Module):
            digest.update(fingerprint(part).encode())
    return digest.hexdigest()


def usable_device(device: str | None) -> str:
    """The device asked for, or the best there is; raises UsageError for one that cannot be used."""
    if device in (None, "auto"):
        return f"cuda:{distributed.local() % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {device} cannot be used ({one_line(error)}); try cpu.") from error
    return str(device)
