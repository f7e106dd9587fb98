"""From a checkpoint file to a generator: the weights tell its architecture, the options its latents."""

from __future__ import annotations

import math
import re
import shlex
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ...hooks.errors import DissectError, DissectWarning, UsageError, one_line
from .base import Generator, LatentSource, Provenance
from .batch_statistics import fingerprint_of
from .chains.hypotheses import reading
from .chains.network import Chain
from .chains.rebuild import rebuild
from .checkpoints import likeliest, load_weights, named_entry, read_entries, sha256
from .entries import DRAWS, JUDGES, Entry, fitting, unwrapped
from .factory import folder_images
from .families import biggan, biggan_deep, dcgan, pix2pix, progan, residual, stylegan, stylegan2
from .families.architecture import Architecture, some
from .families.diffusers_decoder import SUBFOLDERS, Decoder, open_diffusers
from .families.spandrel_restorer import INNER, open_spandrel
from .families.style_based import NOISES, StyleBased
from .kept_edits import take_kept
from .latents import NormalLatents, parse_latents
from .release_pickles import is_release, read_networks
from .sources import ClassLatents, Encoded, NoiseImages
from .spec import DIFFUSERS, ModelSpec

FAMILIES: Mapping[str, Callable[[Mapping[str, Tensor]], Architecture]] = {
    "progan": progan.infer,
    "dcgan": dcgan.infer,
    "stylegan": stylegan.infer,
    "stylegan2": stylegan2.infer,
    "biggan": biggan.infer,
    "biggan_deep": biggan_deep.infer,
    "residual": residual.infer,
    "pix2pix": pix2pix.infer,
}

KNOWN_ELSEWHERE = {
    r"synthesis\.L\d+_\d+_\d+\.": "It is a StyleGAN3, which is not supported yet.",
    r"blocks\.\d+\.0\.conv2d[34]\.": "It is StudioGAN's deep BigGAN, which is not supported yet.",
    r"(?:.*\.)?feat_(?:4|8|16)\.": "It is a FastGAN (lightweight GAN), which is not supported yet.",
    r"(?:.*\.)?(?:time_embed|time_embedding|time_mlp|temb)\.": "It is the denoising network of a diffusion model, "
    "which is not supported yet.",
    r"(?:.*\.)?decoder\.mid\.block_1\.": "It is an autoencoder of latent diffusion under its authors' names; "
    "converted by the diffusers library it opens as diffusers:FOLDER.",
    r"(?:.*\.)?transformer\.|.*\.attn\.": "It is a transformer, which is not supported.",
}
CHECKED = 128  # samples on which a DCGAN's norms are checked
LEAST_LIKELY = 3  # rank of entries that are called as discriminators are
PLAIN = "plain chain"
NOTHING_ALIKE = "no key is like"  # how the families begin to say so


def open_checkpoint(spec: str | Path | ModelSpec, file: Path | None = None, *, placeholder: bool = False) -> Generator:
    """The generator in a checkpoint file.

    Args:
        spec: the options; its `model` is the file unless `file` is given.
        file: the file.
        placeholder: see `from_factory`.

    Raises:
        UsageError: there is no such file, or an option does not go with what is in it.
        DissectError: the file cannot be opened, or holds no known architecture.
    """
    spec = spec if isinstance(spec, ModelSpec) else ModelSpec(str(spec))
    path = file or Path(spec.model)
    recognition = recognised(path, spec, known=file is not None)
    module = recognition.module
    reopening = spec
    if isinstance(module, Chain):
        _check_decided(module, path, spec, placeholder)
        reopening = replace(spec, assumed=module.plan.text(), latent=None)  # so that the same network opens again
    elif spec.assumed is not None or (spec.latent is not None and not isinstance(module, dcgan.DCGAN)):
        option = "--as" if spec.assumed is not None else "--latent"
        raise UsageError(f"{option} goes with plain chains; {path} is a {module.family} and takes none.")
    return Generator(
        module=module,
        name=path.stem,
        source=source_of(module, spec, placeholder=placeholder),
        layers=module.layers,
        output_range=spec.output_range or module.output_range,
        provenance=Provenance(
            file=str(path), entry=recognition.entry.name or None, sha256=sha256(path), citation=module.citation
        ),
        spec=reopening,
        recognised=recognition.description,
    )


def open_decoder(spec: ModelSpec) -> Generator:
    """The decoder of a latent model, by the diffusers library.

    Raises:
        UsageError: the library is not installed, or an option does not go with a decoder.
        DissectError: it cannot be fetched or read.
    """
    name = spec.model.removeprefix(DIFFUSERS)
    if spec.entry is not None and spec.weights is None:
        raise UsageError(f"--entry {spec.entry} names an entry of a checkpoint; name the checkpoint by --weights.")
    module = open_diffusers(name)
    if spec.weights is not None:  # of a repair
        load_weights(module, spec.weights, spec.entry)
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
    """The name of a decoder: the last word of its id or folder, but not `vae` and the like."""
    path = Path(name).resolve() if Path(name).exists() else Path(name)
    return path.parent.name if path.name in SUBFOLDERS else path.name


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A network that was recognised by its weights.

    Attributes:
        module: the network, with its weights.
        entry: where in the file they are.
        others: entries that fit too.
    """

    module: Architecture
    entry: Entry
    others: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The family and why, in words."""
        state = self.entry.state
        layout = f" in {self.module.layout}" if self.module.layout else ""
        weights = f"{self.module.family}{layout}: all {len(state)} tensors have its names and shapes ({some(state, 2)})"
        if isinstance(self.module, Chain):
            weights = f"{self.module.family}, rebuilt from {len(state)} tensors, such as {some(state, 2)}"
        alternatives = f" (others that fit: {', '.join(self.others)}; choose by --entry)" if self.others else ""
        entry = f"; taken from the entry {self.entry.name}" if self.entry.name else ""
        assumed = f"; nothing in it tells {', nor '.join(self.module.assumed)}" if self.module.assumed else ""
        return f"{weights}{entry}{alternatives}{assumed}"


def recognised(path: Path, spec: ModelSpec, *, known: bool = False) -> Recognised:
    """The network that a checkpoint's weights belong to.

    If several entries fit, averaged weights come before those that are called as generators are, before others.

    Args:
        path: the file.
        spec: its `entry` chooses an entry, None the likeliest of those that fit; `assumed` and `latent` are about a
            plain chain.
        known: the file is of the catalogue, and needs no check by its norms.

    Raises:
        UsageError: there is no such file or entry.
        DissectError: no entry is of a known family, or several are as likely.
    """
    networks = _release_entries(path) or read_entries(path)
    if spec.entry is not None:
        networks = [named_entry(networks, spec.entry, path)]
    misfits: dict[str, dict[str, str]] = {}
    names = {network.name for network in networks}
    fits = fitting(networks, lambda entry: _of_a_family(entry, misfits if entry.name in names else {}))
    with_judge = {network.name for network in networks if _beside_a_judge(network)}

    def chain(entry: Entry) -> Chain | None:
        above, _, last = entry.name.rpartition(".")
        is_entry = entry.name in names and entry.name not in with_judge
        if entry.rank == LEAST_LIKELY or not (is_entry or (above in with_judge and DRAWS.search(last.lower()))):
            return None
        return _chain(entry, spec, misfits.setdefault(entry.name if is_entry else above, {}))

    if not fits:
        fits = fitting(networks, chain)
    elif not known:
        fits = [(entry, (_doubtful(module) and _chain(entry, spec, {})) or module) for entry, module in fits]
    if not fits:
        raise _unknown(path, networks, misfits)
    chosen = likeliest([entry for entry, _ in fits], path)
    return Recognised(
        module=next(module for entry, module in fits if entry is chosen),
        entry=chosen,
        others=tuple(entry.name or "the file itself" for entry, _ in fits if entry is not chosen),
    )


def _release_entries(path: Path) -> list[Entry]:
    """The generators of one of NVIDIA's release files, as state dicts that say all there is to them.

    Raises:
        DissectError: it is refused, damaged, holds no generator, or one with options that are not known here.
    """
    if not path.is_file() or not is_release(path):
        return []
    try:
        networks = read_networks(path)
    except DissectError:
        return []  # a pickle of another kind, or damaged: `read_entries` says so
    generators = {name: network for name, network in networks.items() if name in ("G_ema", "G")}
    if not generators:
        raise DissectError(f"{path} holds no G_ema and no G; it has {some(networks, 4) or 'no network'}.")
    try:
        return [
            Entry(name=name, state=stylegan2.completed(dict(network.state), network.options))
            for name, network in generators.items()
        ]
    except DissectError as error:
        raise DissectError(f"{path} cannot be used: {error}") from error


def _of_a_family(entry: Entry, misfits: dict[str, dict[str, str]]) -> Architecture | None:
    """The network of an entry with what a repair kept beside it; None if no family fits, with the reasons by family."""
    state = unwrapped(entry.state)
    reasons = misfits.setdefault(entry.name, {})
    repair = take_kept(state)
    module: Architecture | None = None
    for family, infer in FAMILIES.items():
        try:
            module = infer(state)
            break
        except DissectError as error:
            reasons[family] = str(error)
        except Exception as error:  # whatever sizes that make no sense lead to
            reasons[family] = f"its tensors make no network ({one_line(error)})."
    if module is None and entry.rank < LEAST_LIKELY:
        try:
            saved_by_us = all(key.startswith(f"{INNER}.") for key in state)
            prefix = f"{INNER}." if saved_by_us else ""
            module = open_spandrel({key.removeprefix(prefix): tensor for key, tensor in state.items()})
        except DissectError as error:
            reasons["spandrel"] = str(error)
    if module is not None:
        repair.attach(module)
    return module


def _doubtful(module: Architecture) -> bool:
    """Whether a DCGAN, whose strides and latents are not in its file, contradicts what its batch norms remember."""
    if not isinstance(module, dcgan.DCGAN):
        return False
    fingerprint = fingerprint_of(module, module, NormalLatents((module.latent,)), samples=CHECKED)
    return fingerprint.reproduced is False


def _beside_a_judge(entry: Entry) -> bool:
    """Whether a state dict has a network that draws and one that judges images, or encodes them, side by side."""
    heads = {key.partition(".")[0].lower() for key in entry.state}
    return any(DRAWS.search(head) for head in heads) and any(JUDGES.search(head) for head in heads)


def _chain(entry: Entry, spec: ModelSpec, reasons: dict[str, str]) -> Chain | None:
    """The plain chain of an entry; None if it makes none, with the reason."""
    state = unwrapped(entry.state)
    try:
        repair = take_kept(state)
        module = rebuild(state, spec.assumed, spec.latent)
        repair.attach(module)
    except UsageError:
        raise
    except DissectError as error:
        reasons[PLAIN] = str(error)
        return None
    except Exception as error:  # whatever sizes that make no sense lead to
        reasons[PLAIN] = f"its tensors make no network ({one_line(error)})."
        return None
    return module


def _check_decided(module: Chain, path: Path, spec: ModelSpec, placeholder: bool) -> None:
    """Say what is assumed of a plain chain; refuse one that is in doubt.

    Raises:
        UsageError: what its batch norms tell does not decide, and nothing is chosen by --as.
    """
    result = module.search_result
    if result is None or placeholder:
        return
    if result.doubt and spec.assumed is None:
        choices = dict.fromkeys(reading(plan) for plan in (module.plan, *result.alternatives))
        raise UsageError(
            f"{path} is a plain chain that {result.doubt}. Look at what the candidates draw (dissect inspect --model "
            f"{path}), and choose, e.g. {' or '.join(f'--as {choice}' for choice in list(choices)[:3])}."
        )
    alternatives = " or ".join(reading(plan) for plan in result.alternatives[:4])
    warnings.warn(
        f"{path} was rebuilt from its weights; nothing in it tells {'; '.join(module.plan.assumed)}."
        + (f" As well may fit: --as {alternatives}." if alternatives else ""),
        DissectWarning,
        stacklevel=4,
    )


def _unknown(path: Path, networks: list[Entry], misfits: dict[str, dict[str, str]]) -> DissectError:
    """The error for a file in which no family fits, with what would work; its cause has all reasons."""
    first = networks[0]
    reasons = misfits.get(first.name, {})
    similar = [
        name for name in reasons if not reasons[name].startswith(NOTHING_ALIKE) and name not in ("spandrel", PLAIN)
    ]
    nearest = similar[0] if similar else PLAIN if PLAIN in reasons else None
    like = f" It is like a {nearest}, but {reasons[nearest].rstrip('.')}." if nearest else ""
    known_elsewhere = other_family(first.state)
    reason = known_elsewhere or f"No known family fits the keys ({some(first.state, 3)})."
    error = DissectError(
        f"{path} holds no generator that can be recognised by its weights. Give the class that wrote it: dissect "
        f"inspect --model train.py:Generator --weights {shlex.quote(str(path))} --latent normal:100. {reason}{like}"
    )
    error.__cause__ = DissectError(" ".join(f"{family}: {reason}" for family, reason in reasons.items()))
    return error


def other_family(state: Mapping[str, Tensor]) -> str:
    """A sentence on weights whose layout is known but cannot be opened; empty if the layout is not known."""
    for pattern, message in KNOWN_ELSEWHERE.items():
        if any(re.match(pattern, key) for key in state):
            return message
    return ""


def source_of(module: Architecture, spec: ModelSpec, *, placeholder: bool = False) -> LatentSource:
    """The latents, or images, that go into a network; also sets the truncation and noise of the spec on the network.

    Args:
        module: the network.
        spec: the options of the user.
        placeholder: noise may stand in for images if the network takes images and none are given.

    Raises:
        UsageError: an option does not go with this network, or is missing.
        DissectError: the network takes images of other than 1 or 3 channels.
    """
    _check_options(module, spec)
    if spec.truncation is not None and isinstance(module, (StyleBased, biggan_deep.BigGANDeep)):
        module.truncation = spec.truncation
    if spec.noise is not None and isinstance(module, StyleBased):
        module.noise = spec.noise
    if isinstance(module, Chain):
        law = parse_latents(module.plan.latent)
        return ClassLatents(module.latent, module.classes, spec.label, law=law) if module.classes else law
    if isinstance(module, dcgan.DCGAN) and spec.latent is not None:
        latents = parse_latents(spec.latent)
        if latents.shape[0] != module.latent or math.prod(latents.shape) != module.latent:
            raise UsageError(f"--latent {spec.latent}: {spec.model} takes {module.latent} numbers.")
        return latents
    if isinstance(module, Decoder):
        if spec.inputs is None:
            return NormalLatents(module.latent_shape)
        return Encoded(folder_images(spec, multiple=module.multiple), module.encode)
    if module.inputs:
        return _images_for(module, spec, placeholder)
    if module.classes:
        truncation = spec.truncation if _truncates_latents(module) else None
        return ClassLatents(module.latent, module.classes, spec.label, truncation)
    return NormalLatents((module.latent,))


def _truncates_latents(module: Architecture) -> bool:
    """Whether --truncation is about the latents of the network, not about its styles."""
    return isinstance(module, (biggan.BigGAN, biggan_deep.BigGANDeep)) and module.classes > 0


def _check_options(module: Architecture, spec: ModelSpec) -> None:
    """Raise UsageError for an option that does not go with the network, or a value that is not allowed."""
    styled = isinstance(module, StyleBased)
    for option, fits, models in (
        ("label", module.classes, "class-conditional generators"),
        ("truncation", styled or _truncates_latents(module), "StyleGANs and BigGANs"),
        ("noise", styled, "StyleGANs"),
        ("inputs", module.inputs or isinstance(module, Decoder), "generators that take images, and decoders"),
        ("input_range", module.inputs, "generators that take images"),
    ):
        if getattr(spec, option) is not None and not fits:
            raise UsageError(
                f"--{option.replace('_', '-')} goes with {models}; {spec.model} is a {module.family} and takes none."
            )
    if spec.label is not None and not 0 <= spec.label < module.classes:
        raise UsageError(f"--label {spec.label}: must be a class from 0 to {module.classes - 1} of {spec.model}.")
    if spec.truncation is not None and not (-2 <= spec.truncation <= 2 if styled else 0 < spec.truncation <= 1):
        allowed = "from -2 to 2" if styled else "above 0 and at most 1"
        raise UsageError(f"--truncation {spec.truncation:g}: must be {allowed}.")
    if spec.noise is not None and spec.noise not in NOISES:
        raise UsageError(f"--noise {spec.noise!r}: must be one of {', '.join(NOISES)}.")


def _images_for(module: Architecture, spec: ModelSpec, placeholder: bool) -> LatentSource:
    """The images for a network that takes images: those of --inputs, or noise as a placeholder."""
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
