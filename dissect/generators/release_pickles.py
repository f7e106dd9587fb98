"""NVIDIA's PyTorch release files (.pkl of stylegan2-ada-pytorch and stylegan3), read without running code from them.

Such a file is a pickled dict of networks. A network is a call of `_reconstruct_persistent_obj` with the Python source
of its class and the `__dict__` of its module (torch_utils/persistence.py), and unpickling it runs that source. Here
every name in the file becomes an inert class that only keeps what it is given. What it all means is worked out
afterwards, and the source stays a text that nobody looks at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...hooks.errors import DissectError, one_line
from .inert_pickles import InertReader, Record, RefusedName, check_opcodes, entries_of, is_layer, tensors_of
from .torch_files import LEGACY, inner_storage

NETWORKS = ("G", "D", "G_ema")

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


class _Reader(InertReader):
    def admits(self, module: str, name: str) -> bool:
        return name in _ADMITTED.get(module, ()) or is_layer(module, name)


def is_release(path: Path) -> bool:
    """Whether it is a pickle that torch.save did not write, as NVIDIA's files are.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
    return start[:1] == b"\x80" and start != LEGACY


def read_networks(path: Path) -> dict[str, Persistent]:
    """The networks of a release file, by their names there: G, D and G_ema, as far as the file has them.

    Raises:
        DissectError: the file cannot be read, is damaged, holds no network, was written by TensorFlow code, or refers
            to anything that such files have no use for.
    """
    try:
        with path.open("rb") as file:
            check_opcodes(file)
            content = entries_of(_Reader(file).load())
        networks = {
            key: _network(network)
            for key in NETWORKS
            if isinstance(network := content.get(key), Record) and network.source == _PERSISTENT
        }
    except OSError as error:
        raise DissectError(f"{path} cannot be read ({error.strerror or error}).") from error
    except RefusedName as error:
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


def _network(record: Record) -> Persistent:
    match entries_of(record.args[0])["class_name"], _plain(_contents(record)["_init_kwargs"], "_init_kwargs"):
        case str(class_name), dict(options):
            return Persistent(
                class_name=class_name, options=options, state=dict(tensors_of(_contents(record), _tensor, _contents))
            )
    raise TypeError("the name or the options of a class are missing")


def _contents(module: object) -> dict[object, object]:
    """The `__dict__` of a module: what a persistent one was called with, what was set in one of torch.nn."""
    if not isinstance(module, Record):
        raise TypeError(f"a {type(module).__name__} stands in a module's place")
    return entries_of(entries_of(module.args[0])["state"] if module.source == _PERSISTENT else module.state)


def _tensor(value: object) -> Tensor:
    match value:
        case Record(source="torch._utils._rebuild_parameter", args=(data, *_)):
            return _tensor(data)
        case Record(source="torch._utils._rebuild_tensor_v2", args=(data, int(start), tuple(size), tuple(steps), *_)):
            # as_strided checks the bounds; set_ with a size would enlarge a storage that is too small for it
            return _storage(data).as_strided(size, steps, start)
    raise TypeError(f"a {getattr(value, 'source', type(value).__name__)} stands in a tensor's place")


def _storage(value: object) -> Tensor:
    """A storage as a tensor of one axis: a file of torch.save inside the file."""
    match value:
        case Record(source="torch.storage._load_from_bytes", args=(bytes(data),)) if data.startswith(LEGACY):
            return inner_storage(data)
    raise TypeError("the numbers of a tensor are no storage")


def _plain(value: object, path: str) -> object:
    """A value of plain Python; scalars of numpy become numbers."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return type(value)(_plain(item, path) for item in value)
        case dict() | Record(source="collections.OrderedDict" | "dnnlib.util.EasyDict"):
            return {str(key): _plain(item, f"{path}[{key!r}]") for key, item in entries_of(value).items()}
        case Record(
            source="numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar",
            args=(Record(source="numpy.dtype", args=(str(code), *_)), bytes(data)),
        ) if code in _SCALARS:
            return struct.unpack(_SCALARS[code], data)[0]
    raise TypeError(f"{path} is a {getattr(value, 'source', type(value).__name__)}, not a plain value")
