"""Files of `torch.save` that hold more than tensors and plain containers, read without running anything from them.

Training scripts save whole modules, options of any class and numbers of numpy beside the weights. PyTorch's own safe
reader refuses such files as a whole. Here all that is no tensor stays an inert record (see `inert_pickles`), so that
the tensors can be had.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from .inert_pickles import DICTS, InertReader, Record, RefusedName, check_opcodes, tensors_of

LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # how files begin that PyTorch wrote before 1.6
MOST_ITEMS = 200_000  # of containers that are looked at; repeated references could make a small file endless
DEEPEST = 12
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

Item = TypeVar("Item")
Storage = Callable[[str, torch.dtype, int], Tensor]  # key, dtype, length -> the numbers, on one axis


class _Listed(Record):
    """A record of what may be a list of any class."""

    __slots__ = ("items",)
    items: list[object]

    def append(self, value: object) -> None:
        if not hasattr(self, "items"):
            self.items = []
        self.items.append(value)


class _Reader(InertReader):
    record = _Listed

    def persistent_load(self, pid: Any, /) -> Record | type[Record]:
        match pid:
            case ("module", type() as named, *_) if issubclass(named, Record):  # a class beside its source text
                return named
        return type("Record", (Record,), {"source": "persistent"})(*pid)


def read_inert(path: Path) -> object:
    """What the file holds: dicts, lists, tensors, plain values; whole modules as their state dicts; the rest as None.

    Raises:
        OSError: it cannot be read.
        Exception: nearly anything, where the file is damaged or not of `torch.save`.
    """
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
        file.seek(0)
        return _legacy(file) if start == LEGACY else _zipped(file)


def read_plain(path: Path) -> object:
    """The same of a pickle that torch.save did not write, such as `pickle.dump(module, file)`."""
    with path.open("rb") as file:
        return _Meaning(_no_storage).of(_loaded(file))


def _no_storage(_key: str, _dtype: torch.dtype, _length: int) -> Tensor:
    raise TypeError("the numbers of a tensor are missing")


def inner_storage(data: bytes) -> Tensor:
    """The storage in a file of torch.save that is part of a pickle, as a tensor of one axis.

    Raises:
        RefusedName: it refers to this name.
        TypeError: it is no storage.
    """
    try:
        with warnings.catch_warnings():  # about the pickle's protocol: what matters comes as an exception
            warnings.simplefilter("ignore")
            storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise RefusedName(named[1]) from error
        raise TypeError("the numbers of a tensor are no storage") from error  # torch's own advice is unsafe
    if not isinstance(storage, torch.TypedStorage):
        raise TypeError("the numbers of a tensor are no storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def check_packing(path: Path) -> None:
    """Refuse archives with packed members, which torch.save never writes, and which could unpack to any size.

    Raises:
        ValueError: there is one.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is packed")


def _zipped(file: BinaryIO) -> object:
    with zipfile.ZipFile(file) as archive:
        members = {name.partition("/")[2]: name for name in archive.namelist()}
        file_size = file.seek(0, io.SEEK_END)

        def member(name: str) -> bytes:
            info = archive.getinfo(members[name])
            if info.file_size > file_size:  # torch.save compresses nothing, so a packed one may be any size
                raise ValueError(f"{name} is larger than the whole file")
            return archive.read(info)

        if "byteorder" in members and member("byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")

        def storage(key: str, dtype: torch.dtype, length: int) -> Tensor:
            return _numbers(member(f"data/{key}"), dtype, length)

        return _Meaning(storage).of(_loaded(io.BytesIO(member("data.pkl"))))


def _legacy(file: BinaryIO) -> object:
    """Three pickles about the format, the content, the keys of its storages, then their numbers."""
    for _ in range(3):
        _loaded(file)
    content = _loaded(file)
    keys = _loaded(file)
    if not isinstance(keys, list):
        raise TypeError("the list of storages is missing")
    positions: dict[str, int] = {}
    sizes = {str(record.args[2]): _dtype(record.args[1]).itemsize for record in _storages(content)}
    for key in keys:
        positions[key] = file.tell()
        (length,) = struct.unpack("<q", file.read(8))
        file.seek(length * sizes[key], io.SEEK_CUR)

    def storage(key: str, dtype: torch.dtype, length: int) -> Tensor:
        file.seek(positions[key])
        (saved,) = struct.unpack("<q", file.read(8))
        return _numbers(file.read(saved * dtype.itemsize), dtype, min(length, saved))

    return _Meaning(storage).of(content)


def _loaded(file: BinaryIO) -> Any:
    check_opcodes(file)
    return _Reader(file).load()


def _numbers(raw: bytes, dtype: torch.dtype, length: int) -> Tensor:
    if not length:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=dtype, count=length)


def _storages(content: object) -> Iterator[Record]:
    """All records of storages inside, whatever they are in."""
    queue, visited = [content], set[int]()
    while queue:
        value = queue.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, Record):
            if value.source == "persistent":
                yield value
            queue += [*value.args, *value.entries.values(), *getattr(value, "items", ()), value.state]
        elif isinstance(value, Mapping):
            queue += value.values()
        elif isinstance(value, list | tuple | set):
            queue += value


def _dtype(kind: object) -> torch.dtype:
    """Of a storage's class, itself a record."""
    return DTYPES[getattr(kind, "source", "").rpartition(".")[2]]


class _Meaning:
    """Turns records into what they mean, see `read_inert`."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.numbers: dict[str, Tensor] = {}
        self.left = MOST_ITEMS
        self.known: dict[int, object] = {}  # what objects mean, by their identity; the pickle holds on to them

    def of(self, value: object, depth: int = 0) -> object:
        """None for what has no meaning here, and where the budget is spent; each object once."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if id(value) not in self.known:
            self.left -= 1
            self.known[id(value)] = None  # should it hold itself
            self.known[id(value)] = self._of(value, depth) if self.left >= 0 and depth <= DEEPEST else None
        return self.known[id(value)]

    def _of(self, value: object, depth: int) -> object:
        if isinstance(value, list | tuple):
            return [self.of(item, depth + 1) for item in self._some(value)]
        if isinstance(value, dict):
            pairs = ((key, item) for key, item in self._some(value.items()) if isinstance(key, str | int))
            return {key: self.of(item, depth + 1) for key, item in pairs}
        if not isinstance(value, Record):
            return None
        if value.source in DICTS:
            return self._of(value.entries, depth)
        try:
            if value.source.startswith("torch._utils._rebuild"):
                return self.tensor(value)
            if isinstance(value.state, dict) and "_parameters" in value.state:
                return dict(tensors_of(value.state, self.tensor, self._inside))
        except (TypeError, KeyError):  # of a kind that is not read, such as sparse ones
            return None
        if value.entries:  # a dict of another class
            return self._of(value.entries, depth)
        return self.of(getattr(value, "items", None), depth)

    def _some(self, items: Iterable[Item]) -> Iterator[Item]:
        """As many as the budget allows."""
        for item in items:
            self.left -= 1
            if self.left < 0:
                return
            yield item

    def _inside(self, module: object) -> dict[object, object]:
        """The `__dict__` of a module inside a module."""
        self.left -= 1
        if self.left < 0:
            raise ValueError("it has too many modules")
        if not isinstance(module, Record) or not isinstance(module.state, dict):
            raise TypeError("something else stands in a module's place")
        return module.state

    def tensor(self, value: object) -> Tensor:
        match value:
            case Record(source="torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state"):
                return self.tensor(value.args[0])
            case Record(
                source="torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                args=(Record(source="persistent", args=storage), int(start), tuple(size), tuple(steps), *_),
            ):
                return self._view(storage, start, size, steps)
            case Record(
                source="torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                args=(
                    Record(source="torch.storage._load_from_bytes", args=(bytes(data),)),
                    int(start),
                    tuple(size),
                    tuple(steps),
                    *_,
                ),
            ):
                return _viewed(inner_storage(data), start, size, steps)
        raise TypeError(f"a {getattr(value, 'source', type(value).__name__)} stands in a tensor's place")

    def _view(self, storage: tuple[object, ...], start: int, size: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
        match storage:
            case ("storage", kind, str(key), _, int(length), *_):
                if key not in self.numbers:
                    self.numbers[key] = self.storage(key, _dtype(kind), length)
                return _viewed(self.numbers[key], start, size, steps)
        raise TypeError("the numbers of a tensor are no storage")


def _viewed(numbers: Tensor, start: int, size: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
    view = numbers.as_strided(size, steps, start)  # which checks the bounds
    if view.numel() > max(1, numbers.numel()):  # it repeats numbers, and could be any size
        raise ValueError("a tensor is larger than its numbers")
    return view
