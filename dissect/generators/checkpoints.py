"""Checkpoint files, opened without running any code from them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError, one_line
from .dcgan import refit
from .kept_edits import take_kept

# entries under which training scripts keep a generator's weights; averaged ones first
WRAPPERS = ("g_ema", "G_ema", "g_running", "params_ema", "state_dict", "generator", "netG", "params", "G", "g")
BESIDE = ("latent_avg",)  # tensors of the generator that stand beside them


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
    """The tensors of a .safetensors file, or of a file of `torch.save`, on the CPU.

    Pickles are opened only as far as they hold tensors and plain containers; nothing in them is ever called. Of what a
    training script saved, the generator's entry is taken: by its usual names, or as the only one that holds weights.

    Raises:
        UsageError: there is no such file.
        DissectError: the file is damaged, or holds something else than named tensors.
    """
    return _usual_entry(_read(Path(path)), Path(path))


def _usual_entry(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The weights in what a file holds, see `load_state_dict`."""
    inner = next((content[wrapper] for wrapper in WRAPPERS if isinstance(content.get(wrapper), Mapping)), content)
    if not inner:
        raise DissectError(f"{path} holds no tensors; write the weights with torch.save(module.state_dict(), path).")
    if inner is content and not all(isinstance(value, Tensor) for value in content.values()):
        inside = {name: value for name, value in _state_dicts(content).items() if name}
        if len(inside) > 1:
            raise DissectError(
                f"{path} holds several networks ({', '.join(inside)}); write the generator's weights alone with "
                "torch.save(module.state_dict(), path)."
            )
        inner = next(iter(inside.values()), content)
    state: dict[str, Tensor] = {}
    for key, value in inner.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise DissectError(
                f"{path} is not a state dict: its entry {key!r} ({type(value).__name__}) is not a tensor with a name; "
                "write the generator's weights alone with torch.save(module.state_dict(), path)."
            )
        if value.is_complex() or value.is_meta or value.layout != torch.strided:
            raise DissectError(
                f"{path}: {key} is a complex, sparse or empty tensor; plain ones of real numbers are read."
            )
        state[key] = value
    wrapped = all(key.startswith("module.") for key in state)  # by DataParallel
    beside = {key: content[key] for key in BESIDE if inner is not content and isinstance(content.get(key), Tensor)}
    return {key.removeprefix("module.") if wrapped else key: value for key, value in state.items()} | beside


def _read(path: Path) -> Mapping[Any, Any]:
    """What a checkpoint file holds.

    Raises:
        UsageError: there is no such file.
        DissectError: it cannot be read, or holds no mapping.
    """
    if not path.exists():
        raise UsageError(f"There is no file {path}; give the path of a checkpoint (.pth, .pt, .ckpt or .safetensors).")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the path of a checkpoint file inside it.")
    try:
        content: object = load_file(path) if path.suffix.lower() == ".safetensors" else _load_pickle(path)
    except OSError as error:
        raise DissectError(f"{path} cannot be read ({error.strerror or error}).") from error
    except SafetensorError as error:
        raise DissectError(f"{path} is no intact safetensors file ({one_line(error)}); fetch it again.") from error
    if not isinstance(content, Mapping):
        raise DissectError(
            f"{path} holds a {type(content).__name__}, not a state dict; write one with "
            "torch.save(module.state_dict(), path)."
        )
    return content


def _state_dicts(content: Mapping[Any, Any], name: str = "") -> dict[str, Mapping[str, Tensor]]:
    """The mappings inside a mapping, or it itself, that hold tensors only, by their entries: `model.netG`."""
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return {name: content}
    found: dict[str, Mapping[str, Tensor]] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= _state_dicts(value, f"{name}.{key}".removeprefix("."))
    return found


def _load_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():  # about the pickle's protocol: what matters comes as an exception
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals([Namespace]):  # training scripts keep their options beside
                return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it refers to {named[1]}" if named else "it holds more than tensors, or is damaged"
        raise DissectError(
            f"{path} is refused: {what}, and opening such a pickle could run code. Write the weights alone with "
            "torch.save(module.state_dict(), path), or as .safetensors."
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DissectError(
            f"{path} is damaged or no PyTorch checkpoint ({one_line(error)}); fetch or save it again."
        ) from error


def load_weights(module: nn.Module, path: Path | str) -> None:
    """Load a checkpoint into a module whose architecture is known; every key must fit.

    Of what a training script saved, the entry is taken whose keys are the module's, perhaps behind a prefix such as
    `module.` or `netG.`. Upsampling layers that a repair replaced are replaced in the module too, see `dcgan.refit`.

    Raises:
        DissectError: the file cannot be opened, or a key is missing, extra or misshapen.
    """
    content = _read(Path(path))
    state = _fitting(content, set(module.state_dict()), Path(path)) or _usual_entry(content, Path(path))
    kept = take_kept(state)
    refit(module, state)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise DissectError(f"The weights {path} do not fit the module ({one_line(error)}).") from error
    kept.attach(module)


def _fitting(content: Mapping[Any, Any], keys: set[str], path: Path) -> dict[str, Tensor] | None:
    """The state dict in a file that has just these keys, perhaps all behind one prefix; None if none has.

    Of several, the averaged one is taken where an entry is called so, see `WRAPPERS`.

    Raises:
        DissectError: several fit, and none is called as an averaged or a usual one is.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for entry, state in _state_dicts(content).items():
        for prefix in sorted({prefix for key in state for prefix in _prefixes(key)}):
            mine = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if set(mine) == keys:
                found[f"{entry}.{prefix}".strip(".")] = mine
    usual = [name for wrapper in WRAPPERS for name in found if wrapper in name.split(".")]
    if len(found) > 1 and not usual:
        raise DissectError(
            f"{path} holds several networks that fit ({', '.join(found)}); write the one that is meant alone with "
            "torch.save(module.state_dict(), path)."
        )
    return found[usual[0]] if usual else next(iter(found.values()), None)


def _prefixes(key: str) -> list[str]:
    """`a.b.weight` -> "", "a.", "a.b."."""
    parts = key.split(".")
    return [".".join([*parts[:count], ""]) if count else "" for count in range(len(parts))]
