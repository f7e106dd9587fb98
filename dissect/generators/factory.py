"""A generator from the user's own code: a module, or what a function or class of theirs makes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...hooks.errors import DissectError, DissectWarning, UsageError, one_line
from ...hooks.layers import layer_shapes
from ...hooks.tap import Tap
from ...hooks.user_code import call_factory, parse_arguments
from .base import Generator, LatentSource
from .checkpoints import load_weights, sha256
from .labels import GivesLabels, embedding_of, give_labels, inputs_of
from .latents import DrawnLatents, NormalLatents, parse_latents
from .sources import ClassLatents, FolderImages, Labelled, NoiseImages
from .spec import ModelSpec

LOOKED_AT, FEW = 8, 2  # samples by which an output range is measured; of networks that take images
USED = 2 / 3  # of its output range that a generator uses at least
BEYOND = 0.05  # of the range by which values may leave it: rounding, and what a linear last layer oversteps
SIGNED, UNSIGNED, BYTES = (-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)
ACTIVATIONS = {nn.Tanh: SIGNED, nn.Sigmoid: UNSIGNED}
IMAGES = (1, 3)  # channels


def from_factory(spec: ModelSpec, *, placeholder: bool = False) -> Generator:
    """What `package.module:Name` or `file.py:Name` makes, as a Generator; with a checkpoint's weights loaded into it.

    Args:
        placeholder: noise may stand in for images where the network takes some and none are given.

    Raises:
        UsageError: there is no such module or name, or an option does not fit.
        DissectError: the user's code failed or returned something else, or the weights do not fit.
    """
    _check_options(spec)
    product = call_factory(spec.model, parse_arguments(spec.args))
    if isinstance(product, nn.Module):
        module = product
    elif isinstance(product, Generator):
        for option in ("latent", "label", "inputs", "output_range", "input_range"):
            if getattr(spec, option) is not None:
                raise UsageError(
                    f"--{option.replace('_', '-')} does not go with --model {spec.model}: its Generator brings its "
                    "own; leave it out."
                )
        module = product.module
    else:
        raise DissectError(
            f"Model {spec.model} returned an object of type {type(product).__name__}; it must return a "
            "torch.nn.Module or a ganatomy.dissect.Generator."
        )
    entry = load_weights(module, spec.weights, spec.entry) if spec.weights is not None else None
    if isinstance(product, Generator):
        generator = product
    else:
        if entry is None and type(module).__name__ == _function(spec) and any(True for _ in module.parameters()):
            warnings.warn(
                f"{spec.model} is a class, and no --weights are given: its weights are what its code sets: random "
                "ones unless it loads some.",
                DissectWarning,
                stacklevel=2,
            )
        source = folder_images(spec) if spec.inputs is not None else _latents(module, spec, placeholder)
        generator = as_generator(module, source=source, output_range=spec.output_range, name=_name(spec))
    generator = replace(generator, spec=spec)
    if spec.weights is None:
        return generator
    known = replace(generator.provenance, file=spec.weights, entry=entry or None, sha256=sha256(spec.weights), url=None)
    return replace(generator, provenance=known)


def _check_options(spec: ModelSpec) -> None:
    """Raise UsageError for options that do not go with code of the user's own, or not with each other."""
    for option in ("truncation", "noise", "assumed"):
        if getattr(spec, option) is not None:
            raise UsageError(
                f"--{option.replace('assumed', 'as')} does not go with code of your own; let a function return a "
                "Generator that does it."
            )
    if spec.latent is not None and spec.inputs is not None:
        raise UsageError("--latent and --inputs exclude each other: a model takes latents or images.")
    if spec.label is not None and spec.inputs is not None:
        raise UsageError("--label and --inputs exclude each other: a model of your own takes images, or a class.")
    if spec.latent is not None and spec.input_range is not None:
        raise UsageError("--latent and --input-range exclude each other: the latter is about images that go in.")
    if spec.entry is not None and spec.weights is None:
        raise UsageError(f"--entry {spec.entry} names an entry of a checkpoint; name the checkpoint by --weights.")


def as_generator(
    module: nn.Module,
    *,
    latent: str | None = None,
    label: int | None = None,
    source: LatentSource | None = None,
    output_range: tuple[float, float] | None = None,
    name: str | None = None,
) -> Generator:
    """A plain module as a Generator.

    Args:
        module: latents -> images (N, 3 or 1, H, W); or latents and labels, int64 (N,), see `fitting_latents`.
        latent: `normal:128`, `normal:128x1x1`, `uniform:100`, …, see `parse_latents`; None tries normal ones of the
            sizes that the layers of the module suggest.
        label: the class to draw, of a module that takes labels; None draws all, if it has one embedding of classes.
        source: the latents themselves, instead.
        output_range: what is black and what is white in the output; None takes that of a last `nn.Tanh` or
            `nn.Sigmoid`, or measures it, see `measured_range`.
        name: in tables and folders; None is the name of its class.

    Raises:
        UsageError: no latents fit.
        DissectError: the module failed, or returned something else than images.
    """
    module.eval()
    source = source or fitting_latents(module, latent, label)
    generator = Generator(
        module=module, name=name or type(module).__name__, source=source, output_range=output_range or SIGNED
    )
    if output_range is None:
        measured = last_activation_range(generator) or measured_range(*extremes(generator))
        generator = replace(generator, output_range=measured)
    return generator


def folder_images(
    spec: ModelSpec,
    channels: int = 3,
    value_range: tuple[float, float] = SIGNED,
    multiple: int = 1,
    least: int = 1,
) -> FolderImages:
    """The images that a spec names, as a network wants them."""
    return FolderImages(
        str(spec.inputs),
        channels,
        spec.input_range or value_range,
        multiple,
        least,
        crop=spec.crop,
        resize=spec.resize,
    )


def fitting_latents(module: nn.Module, latent: str | None = None, label: int | None = None) -> LatentSource:
    """Latents on which a module returns images, found by trying: of the size z as (N, z), then as (N, z, 1, 1).

    A module whose forward also takes labels gets them by a hook: of every class alike if it has one embedding of
    classes, otherwise the given class.

    Args:
        latent: `normal:z` says the size, `normal:zx1x1` the whole shape, see `parse_latents`; None takes normal ones of
            the sizes that the module's first layers take in.
        label: the class to draw, of a module whose forward takes labels.

    Raises:
        UsageError: the module returns no images on any; the message says why.
    """
    needed, possible = inputs_of(module), inputs_of(module, needed=False)
    if len(needed) == 2 or (label is not None and len(needed) == 1 and len(possible) == 2):
        return _labelled(module, possible[:2], latent, label)
    if label is not None:
        raise UsageError(f"--label {label}: {type(module).__name__} takes no labels; leave it out.")
    failures: list[str] = []
    for source in _sources(module, latent):
        trouble = _trouble(module, source([0, 1]))
        if not trouble:
            return source
        failures.append(f"{'×'.join(map(str, ('N', *source.shape)))}: {trouble}")
    if latent is None and not _trouble(module, torch.zeros(2, 3, 64, 64)):
        raise UsageError("The network takes images; give them by --inputs FOLDER.")
    problem = (
        "No latents that its layers suggest fit the network" if latent is None else f"--latent {latent} does not fit"
    )
    tried = f" ({'; '.join(failures)})" if failures else ""
    raise UsageError(
        f"{problem}{tried}. Say what it takes, such as --latent normal:128 or normal:128x1x1, or give images by "
        "--inputs FOLDER; a network that takes more needs a function that wraps it."
    )


def _labelled(module: nn.Module, arguments: Sequence[str], latent: str | None, label: int | None) -> LatentSource:
    embedding = embedding_of(module)
    takes = f"{type(module).__name__}.forward takes {' and '.join(arguments)}"
    if embedding is None and label is None:
        raise UsageError(
            f"{takes}: say which class to draw, e.g. --label 3. If labels are no numbers of classes, give a function "
            "that returns a module with one input, which adds them."
        )
    if embedding is not None and label is not None and not 0 <= label < embedding.num_embeddings:
        raise UsageError(f"--label {label}: must be a class from 0 to {embedding.num_embeddings - 1}.")
    failures: list[str] = []
    for source in _sources(module, latent, embedding.embedding_dim if embedding is not None else 0):
        if embedding is None:
            labels = torch.full((2,), int(label or 0))
            trouble = _trouble(module, source([0, 1]), labels)
            if not trouble:
                give_labels(module, GivesLabels(shape=source.shape, label=int(label or 0)))
                return Labelled(source, int(label or 0))
        else:
            trouble = _trouble(module, source([0, 1]), torch.tensor([0, embedding.num_embeddings - 1]))
            if not trouble:
                classes = embedding.num_embeddings
                give_labels(module, GivesLabels(shape=source.shape, classes=classes))
                flat = source.shaped((math.prod(source.shape),))
                return ClassLatents(flat.shape[0], classes, label, law=flat)
        failures.append(f"{'×'.join(map(str, ('N', *source.shape)))}: {trouble}")
    raise UsageError(
        f"{takes}, and fails on labels by number ({'; '.join(failures)}). Say what the first one is, such as --latent "
        "normal:100, or give a function that returns a module with one input, which adds the labels."
    )


def _latents(module: nn.Module, spec: ModelSpec, placeholder: bool) -> LatentSource:
    try:
        return fitting_latents(module, spec.latent, spec.label)
    except UsageError:
        noise = NoiseImages(value_range=spec.input_range or SIGNED)
        if not placeholder or spec.latent is not None or _trouble(module, noise([0])):
            raise
        return noise


def _sources(module: nn.Module, latent: str | None, embedded: int = 0) -> Iterator[DrawnLatents]:
    """Latents to try; `embedded`: the length of a class's embedding, which the network adds to them."""
    if latent is not None:
        source = parse_latents(latent)
        yield source
        if len(source.shape) == 1:
            yield source.shaped((*source.shape, 1, 1))
        return
    sizes: list[int] = []
    for layer in module.modules():
        for attribute in ("in_features", "in_channels"):
            size = getattr(layer, attribute, None)
            if isinstance(size, int) and size not in (*sizes, *IMAGES):
                sizes.append(size)
    smaller = [size - embedded for size in sizes[:2] if embedded and size > embedded]
    for size in (*smaller, *sizes[:2]):
        yield NormalLatents((size,))
        yield NormalLatents((size, 1, 1))


def _trouble(module: nn.Module, latents: Tensor, labels: Tensor | None = None) -> str:
    """Why a module returns no images on these latents (2, …), and labels; empty if it does."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            out = module(latents.to(device), *(() if labels is None else (labels.to(device),)))
    except Exception as error:  # whatever the user's network raises
        return one_line(error)[:160]
    finally:
        module.train(training)
    if not isinstance(out, Tensor):
        return f"returned a {type(out).__name__}"
    is_images = out.ndim == 4 and len(out) == len(latents) and out.shape[1] in IMAGES and min(out.shape[2:]) > 1
    return "" if is_images else f"returned {tuple(out.shape)}, no images"


@torch.no_grad()
def extremes(generator: Generator) -> tuple[float, float]:
    """The least and the greatest value that the module returns for the first samples.

    Raises:
        DissectError: it failed, or returned something else than images.
    """
    count = LOOKED_AT
    if isinstance(generator.source, FolderImages | NoiseImages):  # large, and each of them says much
        count = min(FEW, len(generator.source.files) if isinstance(generator.source, FolderImages) else FEW)
    low, high = float("inf"), float("-inf")
    for index in range(count):
        out = generator.output(generator.latents([index]))
        generator.to_images(out)  # checks what comes
        low, high = min(low, float(out.min())), max(high, float(out.max()))
    return low, high


@torch.no_grad()
def last_activation_range(generator: Generator) -> tuple[float, float] | None:
    """(-1, 1) or (0, 1) if the output is exactly what an `nn.Tanh` or `nn.Sigmoid` returned; otherwise None."""
    latents = generator.latents([0])
    shapes = layer_shapes(generator.module, lambda: generator.output(latents))
    last = next((layer.name for layer in reversed(shapes) if layer.innermost and layer.shape), None)
    known = None if last is None else ACTIVATIONS.get(type(generator.module.get_submodule(last)))
    if last is None or known is None:
        return None
    with Tap(generator.module, [last]) as tap:
        out = generator.output(latents)
    return known if torch.equal(tap[last], out) else None


def measured_range(low: float, high: float) -> tuple[float, float]:
    """What is black and what is white, of (-1, 1), (0, 1) and (0, 255), where the values go from low to high.

    (-1, 1) where the least is below a quarter of -high, since what is meant to begin at 0 may overstep it a little;
    else (0, 255) where the greatest is above 2, and (0, 1) where it is not.

    >>> measured_range(-0.9, 0.95), measured_range(-0.01, 0.98), measured_range(3.0, 240.0)
    ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
    """
    if low < -high / 4:
        return SIGNED
    return BYTES if high > 2 else UNSIGNED


def warn_of_range(generator: Generator, low: float, high: float, samples: int) -> None:
    """Warn where the first samples, whose values go from low to high, use little of the output range, or leave it."""
    black, white = generator.output_range
    width = white - black
    used = (min(high, white) - max(low, black)) / width
    if used >= USED and low >= black - BEYOND * width and high <= white + BEYOND * width:
        return
    verb = "leaves" if low < black - BEYOND * width or high > white + BEYOND * width else f"uses {max(0, used):.0%} of"
    warnings.warn(
        f"The output of {generator.name} goes from {low:.3g} to {high:.3g} in {samples} samples: it {verb} the "
        f"range from {black:g} to {white:g} that is taken for black to white. If another is meant, say "
        "--output-range BLACK,WHITE.",
        DissectWarning,
        stacklevel=2,
    )


def _function(spec: ModelSpec) -> str:
    """The function or class that a spec names: `train.py:Generator` -> Generator."""
    return spec.model.rpartition(":")[2]


def _name(spec: ModelSpec) -> str:
    """The name of a generator by its code.

    >>> _name(ModelSpec("mynet:make")), _name(ModelSpec("code/train.py:Generator"))
    ('mynet.make', 'train.Generator')
    """
    module = spec.model.rpartition(":")[0]
    if module.endswith(".py"):
        module = module.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    return f"{module}.{_function(spec)}"
