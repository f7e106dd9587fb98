"""Checkpoint files, opened without running any code from them."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError, one_line
from .chains.network import PLAN
from .entries import Entry, entries, fitting, folded, prefixed, unwrapped
from .families.architecture import some
from .file_kinds import RESAVE, is_safetensors, other_kind
from .kept_edits import take_kept
from .release_pickles import is_release, read_networks
from .replaced_layers import refit
from .torch_files import check_packing, read_inert, read_plain


def sha256(path: Path | str) -> str:
    """The file's SHA-256 as 64 hex digits; the file is read piece by piece.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def load_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a checkpoint that holds one network, on the CPU.

    Raises:
        UsageError: there is no such file.
        DissectError: the file is damaged, or holds no named tensors, or several networks.
    """
    networks = read_entries(Path(path))
    if len(networks) > 1:
        raise DissectError(
            f"{path} holds several networks ({_names(networks)}); save the right one alone with "
            "torch.save(module.state_dict(), path)."
        )
    return unwrapped(networks[0].state)


def read_entries(path: Path) -> list[Entry]:
    """The state dicts in a checkpoint, those that are likelier a generator's first.

    Read are files of `torch.save`, .safetensors, and NVIDIA's release files. No code of theirs is run.

    Raises:
        UsageError: there is no such file.
        DissectError: it cannot be read, is something else than a checkpoint, or holds no named tensors.
    """
    content = _read(path)
    networks = entries(content)
    if not networks:
        raise DissectError(f"{path} holds a {type(content).__name__}, and no tensors that have names; {RESAVE}.")
    return networks


def _read(path: Path) -> object:
    if not path.exists():
        raise UsageError(f"There is no file {path}; give the path of a checkpoint (.pth, .pt, .ckpt or .safetensors).")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the path of a checkpoint file inside it.")
    try:
        if other := other_kind(path):
            raise DissectError(f"{path} is {other[0]}; {other[1]}.")
        if is_safetensors(path):
            return load_file(path)
        if is_release(path):
            return _read_pickle(path)
        return _read_torch(path)
    except OSError as error:
        raise DissectError(f"{path} cannot be read ({error.strerror or error}).") from error
    except SafetensorError as error:
        raise DissectError(f"{path} is no intact safetensors file ({one_line(error)}); fetch it again.") from error


def _read_pickle(path: Path) -> object:
    """The networks of one of NVIDIA's release files, else the tensors in a pickle of another kind."""
    try:
        return {name: network.state for name, network in read_networks(path).items()}
    except DissectError as refused:
        try:
            content = read_plain(path)
        except Exception:  # a damaged or hostile pickle can raise nearly anything
            raise refused from None
        if not entries(content):
            raise
        return content


def _read_torch(path: Path) -> object:
    """What torch.save wrote; what its own safe reader refuses, such as whole modules, by the inert one."""
    try:
        with warnings.catch_warnings():  # about the pickle's protocol: what matters comes as an exception
            warnings.simplefilter("ignore")
            check_packing(path)
            with torch.serialization.safe_globals([Namespace]):  # training scripts keep their options beside
                return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:  # it holds more than tensors, or is damaged
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it refers to {named[1]}" if named else "it holds more than tensors"
    except Exception as error:  # a damaged file can raise nearly anything
        raise DissectError(
            f"{path} is damaged or no PyTorch checkpoint ({one_line(error)}); fetch or save it again."
        ) from error
    try:
        return read_inert(path)
    except Exception as error:  # likewise
        raise DissectError(
            f"{path} is refused: {reason}, and without that it cannot be read ({one_line(error)}); {RESAVE}."
        ) from error


def load_weights(module: nn.Module, path: Path | str, entry: str | None = None) -> str:
    """Load a checkpoint into a module whose architecture is known; every key must fit.

    If a training script saved more, the entry is loaded whose keys are the module's, perhaps behind a prefix such as
    `module.` or `netG.`: an averaged one first, then one that is called as generators are. Upsampling layers that a
    repair replaced are replaced in the module too, see `replaced_layers.refit`.

    Args:
        entry: which entry of the file is meant, by its name.

    Returns:
        The name of the entry that was loaded; empty if the file holds nothing else.

    Raises:
        UsageError: there is no such file or entry.
        DissectError: the file cannot be opened, or a key is missing, extra or misshapen, or several entries fit.
    """
    path = Path(path)
    keys = set(module.state_dict())
    networks = read_entries(path)
    if entry is not None:
        networks = [named_entry(networks, entry, path)]
    fits = fitting(
        networks, lambda network: next((state for state in _spellings(network.state) if set(state) == keys), None)
    )
    chosen = likeliest([network for network, _ in fits], path) if fits else networks[0]
    state = dict(next((state for network, state in fits if network is chosen), unwrapped(chosen.state)))
    repair = take_kept(state)
    refit(module, state)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise DissectError(f"The weights {path} do not fit the module ({one_line(error)}).") from error
    repair.attach(module)
    return chosen.name


def named_entry(networks: Iterable[Entry], name: str, path: Path) -> Entry:
    """The entry of that name, or the part of an entry under a prefix of that name.

    Raises:
        UsageError: there is no such entry.
    """
    networks = list(networks)
    candidates = [candidate for network in networks for candidate in prefixed(network)]
    match = next((candidate for candidate in candidates if candidate.name == name), None)
    if match is None:
        raise UsageError(f"--entry {name}: {path} has no such entry; there are {_names(networks)}.")
    return match


def likeliest(fits: list[Entry], path: Path) -> Entry:
    """Of entries that fit, an averaged one before one that is called as generators are, before others.

    Raises:
        DissectError: several are as likely.
    """
    lowest = min(entry.rank for entry in fits)
    first = list({entry.name: entry for entry in fits if entry.rank == lowest}.values())
    if len(first) > 1:
        raise DissectError(
            f"{path} holds several networks that fit ({_names(first)}); choose one by --entry {first[0].name}."
        )
    return first[0]


def _spellings(state: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """As the file has it, without what wrappers put into the names, and with norms of weights worked in."""
    yield state
    plain = {key: value for key, value in unwrapped(state).items() if key != PLAN}
    yield plain
    with contextlib.suppress(RuntimeError, IndexError, ValueError):  # of sizes that make no sense
        yield folded(plain)


def _names(networks: Iterable[Entry]) -> str:
    return some((entry.name or "the file itself" for entry in networks), 12)
