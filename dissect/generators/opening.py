"""From a checkpoint file to a generator: its architecture recognised by the weights, its latents as asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ...hooks.errors import DissectError, UsageError
from ..model_spec import ModelSpec
from . import biggan, biggan_deep, dcgan, pix2pix, progan, stylegan, stylegan2
from .architecture import Architecture, some
from .base import Generator, LatentSource, NormalLatents, Provenance
from .checkpoints import load_state_dict, load_weights, sha256
from .diffusers_models import Decoder, open_diffusers
from .kept_edits import take_kept
from .pickles import read_networks
from .sources import ClassLatents, Encoded, FolderImages
from .spandrel_models import INNER, open_spandrel
from .style_based import NOISES, StyleBased

FAMILIES: Mapping[str, Callable[[Mapping[str, Tensor]], Architecture]] = {
    "progan": progan.infer,
    "dcgan": dcgan.infer,
    "stylegan": stylegan.infer,
    "stylegan2": stylegan2.infer,
    "biggan": biggan.infer,
    "biggan_deep": biggan_deep.infer,
    "pix2pix": pix2pix.infer,
}
DIFFUSERS = "diffusers:"


def open_checkpoint(spec: str | Path | ModelSpec, file: Path | None = None) -> Generator:
    """The generator in a checkpoint file: the one that the spec names, or another.

    Raises:
        UsageError: there is no such file, or an option does not go with what is in it.
        DissectError: the file cannot be opened, or is none of the architectures known.
    """
    spec = spec if isinstance(spec, ModelSpec) else ModelSpec(str(spec))
    path = file or Path(spec.model)
    state, options = _read(path)
    kept = take_kept(state)
    module = recognised(state, path)
    if isinstance(module, stylegan2.StyleGAN2):
        module.set_clamp(options.get("conv_clamp"))
    kept.attach(module)
    return Generator(
        module=module,
        name=path.stem,
        source=source_of(module, spec),
        layers=module.layers,
        output_range=module.output_range,
        provenance=Provenance(file=str(path), sha256=sha256(path), citation=module.citation),
        spec=spec,
        recognised=f"{module.family}: all {len(state)} tensors, such as {some(state, 2)}, have its names and shapes",
    )


def open_decoder(spec: ModelSpec) -> Generator:
    """The decoder of a latent model, by the diffusers library.

    Raises:
        UsageError: the library is not installed, or an option does not go with a decoder.
        DissectError: it cannot be fetched or read.
    """
    name = spec.model.removeprefix(DIFFUSERS)
    module = open_diffusers(name)
    if spec.weights is not None:  # of a repair
        load_weights(module, spec.weights)
    return Generator(
        module=module,
        name=Path(name).name,
        source=source_of(module, spec),
        layers=module.layers,
        output_range=module.output_range,
        provenance=Provenance(file=spec.weights or name, citation=module.citation),
        spec=spec,
        recognised=f"{module.family}: its config.json says so",
    )


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, object]]:
    """A file's generator: its tensors by name, and options of its making where the file tells them."""
    if path.suffix.lower() != ".pkl" or not path.is_file():
        return load_state_dict(path), {}
    networks = read_networks(path)
    found = networks.get("G_ema") or networks.get("G")
    if found is None:
        raise DissectError(f"{path} holds no G_ema and no G; it has {some(networks, 4) or 'no network'}.")
    options = found.options.get("synthesis_kwargs")
    return dict(found.state), options if isinstance(options, Mapping) else {}


def recognised(state: Mapping[str, Tensor], path: Path | str) -> Architecture:
    """The network that these weights belong to.

    Raises:
        DissectError: it is none of the families known; the message says why each does not fit.
    """
    misfits: dict[str, str] = {}
    for family, infer in FAMILIES.items():
        try:
            return infer(state)
        except DissectError as error:
            misfits[family] = str(error)
    try:
        ours = all(key.startswith(f"{INNER}.") for key in state)  # as we save it
        return open_spandrel({key.removeprefix(f"{INNER}.") if ours else key: value for key, value in state.items()})
    except DissectError as error:
        misfits["spandrel"] = str(error)
    near = sorted(misfits, key=lambda family: misfits[family].startswith("no key is like"))
    raise DissectError(
        f"{path} is no generator that can be recognised by its weights. The file's first keys: {some(state, 4)}. Tried "
        + " ".join(f"{family}: {misfits[family]}" for family in near)
        + " For another architecture give package.module:factory and these weights."
    )


def source_of(module: Architecture, spec: ModelSpec) -> LatentSource:
    """The latents that a network is to get; what is asked of the network itself is set on it.

    Raises:
        UsageError: an option that does not go with this network, or a missing one.
    """
    many = isinstance(module, (biggan.BigGAN, biggan_deep.BigGANDeep))
    styled = isinstance(module, StyleBased)
    decodes = isinstance(module, Decoder)
    for option, fits, what in (
        ("label", module.classes, "class-conditional generators"),
        ("truncation", many or styled, "StyleGANs and BigGANs"),
        ("noise", styled, "StyleGANs"),
        ("inputs", module.inputs or decodes, "generators that take images, and decoders"),
    ):
        if getattr(spec, option) is not None and not fits:
            raise UsageError(f"--{option} goes with {what}; {spec.model} is a {module.family} and does without.")
    if spec.label is not None and not 0 <= spec.label < module.classes:
        raise UsageError(f"--label {spec.label}: {spec.model} has classes 0 to {module.classes - 1}.")
    if spec.truncation is not None:
        least = -2.0 if styled else 0.0
        if not least < spec.truncation <= (2 if styled else 1):
            raise UsageError(
                f"--truncation {spec.truncation:g}: give {'-2 to 2' if styled else 'a number above 0 and up to 1'}."
            )
        if isinstance(module, (StyleBased, biggan_deep.BigGANDeep)):
            module.truncation = spec.truncation
    if isinstance(module, StyleBased) and spec.noise is not None:
        if spec.noise not in NOISES:
            raise UsageError(f"--noise {spec.noise!r} is not known; there are {', '.join(NOISES)}.")
        module.noise = spec.noise
    if isinstance(module, Decoder):
        if spec.inputs is None:
            return NormalLatents(module.latent_shape)
        return Encoded(FolderImages(spec.inputs, multiple=module.multiple), module.encode)
    if module.inputs:
        if spec.inputs is None:
            raise UsageError(f"{spec.model} is a {module.family}, which takes images: give them by --inputs FOLDER.")
        return FolderImages(spec.inputs, module.inputs, module.input_range, module.multiple)
    if module.classes:
        return ClassLatents(module.latent, module.classes, spec.label, spec.truncation if many else None)
    return NormalLatents((module.latent,))
