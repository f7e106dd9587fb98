"""From a checkpoint file to a generator: its architecture recognised by the weights, its latents as asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ...hooks.errors import DissectError, UsageError, one_line
from ..model_spec import DIFFUSERS, ModelSpec
from . import biggan, biggan_deep, dcgan, pix2pix, progan, stylegan, stylegan2
from .architecture import Architecture, some
from .base import Generator, LatentSource, NormalLatents, Provenance
from .checkpoints import load_state_dict, load_weights, sha256
from .diffusers_models import SUBFOLDERS, Decoder, open_diffusers
from .factory import folder_images
from .kept_edits import take_kept
from .pickles import read_networks
from .sources import ClassLatents, Encoded, NoiseImages
from .spandrel_models import INNER, open_spandrel
from .style_based import NOISES, StyleBased

ZIP = b"PK\x03\x04"  # how files of torch.save begin
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # and old ones
FAMILIES: Mapping[str, Callable[[Mapping[str, Tensor]], Architecture]] = {
    "progan": progan.infer,
    "dcgan": dcgan.infer,
    "stylegan": stylegan.infer,
    "stylegan2": stylegan2.infer,
    "biggan": biggan.infer,
    "biggan_deep": biggan_deep.infer,
    "pix2pix": pix2pix.infer,
}


def open_checkpoint(spec: str | Path | ModelSpec, file: Path | None = None, *, placeholder: bool = False) -> Generator:
    """The generator in a checkpoint file: the one that the spec names, or another; `placeholder` as of `from_factory`.

    Raises:
        UsageError: there is no such file, or an option does not go with what is in it.
        DissectError: the file cannot be opened, or is none of the architectures known.
    """
    spec = spec if isinstance(spec, ModelSpec) else ModelSpec(str(spec))
    path = file or Path(spec.model)
    state = read_release(path) if _is_release(path) else load_state_dict(path)
    kept = take_kept(state)
    module = recognised(state, path)
    kept.attach(module)
    return Generator(
        module=module,
        name=path.stem,
        source=source_of(module, spec, placeholder=placeholder),
        layers=module.layers,
        output_range=spec.output_range or module.output_range,
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
        name=_decoder_name(name),
        source=source_of(module, spec),
        layers=module.layers,
        output_range=spec.output_range or module.output_range,
        provenance=Provenance(file=spec.weights or name, citation=module.citation),
        spec=spec,
        recognised=f"{module.family}: its config.json says so",
    )


def _decoder_name(name: str) -> str:
    """The last part of an ID or folder that says which decoder it is."""
    path = Path(name).resolve() if Path(name).exists() else Path(name)
    return path.parent.name if path.name in SUBFOLDERS else path.name


def _is_release(path: Path) -> bool:
    """Whether a .pkl is NVIDIA's, rather than a file of `torch.save` of that name."""
    if path.suffix.lower() != ".pkl" or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
    return not start.startswith(ZIP) and start != LEGACY


def read_release(path: Path) -> dict[str, Tensor]:
    """The averaged generator of one of NVIDIA's release files, as a state dict that says all there is to it.

    Raises:
        DissectError: it is refused, damaged, holds no generator, or one with options that are not known here.
    """
    networks = read_networks(path)
    found = networks.get("G_ema") or networks.get("G")
    if found is None:
        raise DissectError(f"{path} holds no G_ema and no G; it has {some(networks, 4) or 'no network'}.")
    try:
        return stylegan2.completed(dict(found.state), found.options)
    except DissectError as error:
        raise DissectError(f"{path} cannot be used: {error}") from error


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
        except Exception as error:  # whatever sizes that make no sense lead to
            misfits[family] = f"its tensors make no network ({one_line(error)})."
    try:
        ours = all(key.startswith(f"{INNER}.") for key in state)  # as we save it
        return open_spandrel({key.removeprefix(f"{INNER}.") if ours else key: value for key, value in state.items()})
    except DissectError as error:
        misfits["spandrel"] = str(error)
    near = sorted(misfits, key=lambda name: (name == "spandrel", misfits[name].startswith("no key is like")))
    raise DissectError(
        f"{path} is no generator that can be recognised by its weights. The file's first keys: {some(state, 4)}. Tried "
        + " ".join(f"{family}: {misfits[family]}" for family in near)
        + " For another architecture give your code as the model, --model file.py:Name, and this file as --weights."
    )


def source_of(module: Architecture, spec: ModelSpec, *, placeholder: bool = False) -> LatentSource:
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
        ("input_range", module.inputs, "generators that take images"),
    ):
        if getattr(spec, option) is not None and not fits:
            raise UsageError(
                f"--{option.replace('_', '-')} goes with {what}; {spec.model} is a {module.family} and does without."
            )
    if spec.label is not None and not 0 <= spec.label < module.classes:
        raise UsageError(f"--label {spec.label}: {spec.model} has classes 0 to {module.classes - 1}.")
    if spec.truncation is not None:
        if not (-2 <= spec.truncation <= 2 if styled else 0 < spec.truncation <= 1):
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
        return Encoded(folder_images(spec, multiple=module.multiple), module.encode)
    if module.inputs:
        if spec.inputs is None and placeholder and module.inputs in (1, 3):
            side = max(NoiseImages.side, module.multiple)
            return NoiseImages(
                module.inputs, spec.input_range or module.input_range, side // module.multiple * module.multiple
            )
        if spec.inputs is None:
            raise UsageError(f"{spec.model} is a {module.family}, which takes images: give them by --inputs FOLDER.")
        if module.inputs not in (1, 3):
            raise DissectError(
                f"{spec.model} takes images of {module.inputs} channels, and a folder gives 3, or 1 for grey; wrap it "
                "in code of your own (file.py:Name)."
            )
        return folder_images(spec, module.inputs, module.input_range, module.multiple, module.least)
    if module.classes:
        return ClassLatents(module.latent, module.classes, spec.label, spec.truncation if many else None)
    return NormalLatents((module.latent,))
