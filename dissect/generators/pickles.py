"""NVIDIA's PyTorch release files (.pkl of stylegan2-ada-pytorch and stylegan3), read without running code from them.

Such a file is a pickled dict of networks. A network is a call of `_reconstruct_persistent_obj` with the Python source
of its class and the `__dict__` of its module (torch_utils/persistence.py), and unpickling it runs that source. Here
every name in the file becomes an inert class that only keeps what it is given. What it all means is worked out
afterwards, and the source stays a text that nobody looks at.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import torch
from torch import Tensor

from ...hooks.errors import DissectError, one_line

NETWORKS = ("G", "D", "G_ema")

_DICTS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_SCALARS = {"b1": "<?", "f2": "<e", "f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q"}  # numpy's codes and struct's
_NUMPY = {"multiarray": ("_reconstruct", "scalar"), "numeric": ("_frombuffer",)}
_ADMITTED = {
    "builtins": ("set",),
    "collections": ("OrderedDict",),
    "dnnlib.util": ("EasyDict",),
    "torch_utils.persistence": ("_reconstruct_persistent_obj",),
    "torch": ("device", "float16", "float32"),
    "torch._utils": ("_rebuild_parameter", "_rebuild_tensor_v2"),
    "torch.storage": ("_load_from_bytes",),
    "numpy": ("dtype", "ndarray"),
    **{f"numpy.{core}.{part}": names for core in ("core", "_core") for part, names in _NUMPY.items()},
}
_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # how a legacy file of torch.save begins


@dataclass(frozen=True, kw_only=True)
class Persistent:
    """A network of a release file.

    Attributes:
        class_name: the class of the network in NVIDIA's code, such as Generator.
        options: the keyword arguments that the network was made with; numbers, texts, lists, tuples, dicts and None.
        state: its parameters and persistent buffers on the CPU, under the names that `state_dict` gives them.
    """

    class_name: str
    options: dict[str, object]
    state: dict[str, Tensor]


class _Refused(Exception):
    """The file refers to this name."""


class _Made:
    """What calling a name of the file makes: a record of what it was given, whatever that is."""

    __slots__ = ("args", "entries", "state")
    source: str
    args: tuple[object, ...]
    entries: dict[object, object]
    state: object

    def __new__(cls, *args: object) -> Self:
        made = super().__new__(cls)
        made.args, made.entries, made.state = args, {}, None
        return made

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def __setstate__(self, state: object) -> None:  # without it pickle would set attributes, of the class too
        self.state = state


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> type[_Made]:
        layer = re.fullmatch(r"torch\.nn\.modules\.[a-z0-9_]+", module) and name.isidentifier()
        if name not in _ADMITTED.get(module, ()) and not layer:
            raise _Refused(f"{module}.{name}")
        return type("_Made", (_Made,), {"source": f"{module}.{name}"})  # anew for every file


def read_networks(path: Path) -> dict[str, Persistent]:
    """The networks of a release file, by their names there: G, D and G_ema, as far as the file has them.

    Raises:
        DissectError: the file cannot be read, is damaged, holds no network, was written by TensorFlow code, or refers
            to anything that such files have no use for.
    """
    try:
        with path.open("rb") as file:
            _check_opcodes(file)
            content = _entries(_Reader(file).load())
        networks = {
            key: _network(made)
            for key in NETWORKS
            if isinstance(made := content.get(key), _Made) and made.source == _PERSISTENT
        }
    except OSError as error:
        raise DissectError(f"{path} cannot be read ({error.strerror or error}).") from error
    except _Refused as error:
        name = ascii(str(error)[:100])[1:-1]  # no line breaks, no control characters
        if name == "dnnlib.tflib.network.Network":
            raise DissectError(
                f"{path} is refused: it holds TensorFlow weights; convert it with legacy.py of "
                "NVlabs/stylegan2-ada-pytorch and give the file that it writes."
            ) from error
        raise DissectError(
            f"{path} is refused: it refers to {name}, and opening such a pickle could run code. Fetch the file from "
            "where NVIDIA publishes it, or write the weights alone with torch.save(module.state_dict(), path)."
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DissectError(
            f"{path} is damaged or no release file of StyleGAN ({one_line(error)}); fetch it again."
        ) from error
    if not networks:
        raise DissectError(f"{path} holds no network under {', '.join(NETWORKS)}; give a release file of StyleGAN.")
    return networks


def _check_opcodes(file: BinaryIO) -> None:
    """Refuse what pickle does without asking the reader.

    An extension code that this process has met before stands for its object, and find_class never hears of it. And a
    memo index makes room for all smaller ones, so one that is damaged could ask for tens of gigabytes.
    """
    for opcode, value, place in pickletools.genops(file):
        match opcode.name, value, place:
            case "EXT1" | "EXT2" | "EXT4", code, _:
                raise _Refused(f"extension {code}")
            case "PUT" | "BINPUT" | "LONG_BINPUT", int(index), int(passed) if index > passed:
                raise ValueError(f"memo index {index} after {passed} bytes")
    file.seek(0)


def _network(made: _Made) -> Persistent:
    match _entries(made.args[0])["class_name"], _plain(_contents(made)["_init_kwargs"], "_init_kwargs"):
        case str(class_name), dict(options):
            return Persistent(class_name=class_name, options=options, state=dict(_tensors(made)))
    raise TypeError("the name or the options of a class are missing")


def _contents(module: object) -> dict[object, object]:
    """The `__dict__` of a module: what a persistent one was called with, what was set in one of torch.nn."""
    if not isinstance(module, _Made):
        raise TypeError(f"a {type(module).__name__} stands in a module's place")
    return _entries(_entries(module.args[0])["state"] if module.source == _PERSISTENT else module.state)


def _entries(value: object) -> dict[object, object]:
    """The entries of a dict of any class."""
    if isinstance(value, _Made) and value.source in _DICTS:
        return value.entries
    if not isinstance(value, dict):
        raise TypeError(f"a {getattr(value, 'source', type(value).__name__)} stands in a dict's place")
    return value


def _tensors(module: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The state dict of a module, in the order of torch."""
    inside = _contents(module)
    passing = inside.get("_non_persistent_buffers_set", ())  # protocol 3 has no sets of its own
    passing = passing.args[0] if isinstance(passing, _Made) else passing
    if not isinstance(passing, (set, list, tuple)):
        raise TypeError("the names of the non-persistent buffers are missing")
    buffers = {name: value for name, value in _entries(inside["_buffers"]).items() if name not in passing}
    for name, value in (_entries(inside["_parameters"]) | buffers).items():
        if value is not None:
            yield f"{prefix}{name}", _tensor(value)
    for name, child in _entries(inside["_modules"]).items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def _tensor(value: object) -> Tensor:
    match value:
        case _Made(source="torch._utils._rebuild_parameter", args=(data, *_)):
            return _tensor(data)
        case _Made(source="torch._utils._rebuild_tensor_v2", args=(data, int(start), tuple(size), tuple(steps), *_)):
            # as_strided checks the bounds; set_ with a size would enlarge a storage that is too small for it
            return _storage(data).as_strided(size, steps, start)
    raise TypeError(f"a {getattr(value, 'source', type(value).__name__)} stands in a tensor's place")


def _storage(value: object) -> Tensor:
    """A storage as a tensor of one axis: a file of torch.save inside the file."""
    match value:
        case _Made(source="torch.storage._load_from_bytes", args=(bytes(data),)) if data.startswith(_LEGACY):
            try:
                with warnings.catch_warnings():  # about the pickle's protocol: what matters comes as an exception
                    warnings.simplefilter("ignore")
                    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                if named := re.search(r"GLOBAL (\S+)", str(error)):
                    raise _Refused(named[1]) from error
                raise TypeError("the numbers of a tensor are no storage") from error  # torch's own advice is unsafe
            if isinstance(storage, torch.TypedStorage):
                return torch.empty(0, dtype=storage.dtype).set_(storage)
    raise TypeError("the numbers of a tensor are no storage")


def _plain(value: object, place: str) -> object:
    """A value of plain Python; scalars of numpy become numbers."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return type(value)(_plain(item, place) for item in value)
        case dict() | _Made(source="collections.OrderedDict" | "dnnlib.util.EasyDict"):
            return {str(key): _plain(item, f"{place}[{key!r}]") for key, item in _entries(value).items()}
        case _Made(
            source="numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar",
            args=(_Made(source="numpy.dtype", args=(str(code), *_)), bytes(data)),
        ) if code in _SCALARS:
            return struct.unpack(_SCALARS[code], data)[0]
    raise TypeError(f"{place} is a {getattr(value, 'source', type(value).__name__)}, not a plain value")
