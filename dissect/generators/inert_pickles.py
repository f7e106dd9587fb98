"""Pickles read without running anything from them: every name in the file becomes an inert record.

What a record means, such as a tensor or a module, is worked out afterwards; no class, function or source text of the
file is ever looked up, called or compiled.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self

from torch import Tensor

DEEPEST = 40  # modules in modules
DICTS = ("collections.OrderedDict", "collections.defaultdict", "dnnlib.util.EasyDict")
LAYER = r"torch\.nn\.modules\.[a-z0-9_]+"  # where the classes of torch.nn are


class RefusedName(Exception):
    """The file refers to this name."""


class Record:
    """What calling a name of the file makes: a record of what it was given, whatever that is."""

    __slots__ = ("args", "entries", "state")
    source: str
    args: tuple[object, ...]
    entries: dict[object, object]
    state: object

    def __new__(cls, *args: object) -> Self:
        record = super().__new__(cls)
        record.args, record.entries, record.state = args, {}, None
        return record

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def __setstate__(self, state: object) -> None:  # without it pickle would set attributes, of the class too
        self.state = state


class InertReader(pickle.Unpickler):
    """Unpickles into plain containers and records of the class `record`."""

    record: type[Record] = Record

    def find_class(self, module: str, name: str, /) -> type[Record]:
        if not self.admits(module, name):
            raise RefusedName(f"{module}.{name}")
        return type("Record", (self.record,), {"source": f"{module}.{name}"})  # anew for every name of every file

    def admits(self, module: str, name: str) -> bool:
        """Whether the file may speak of this name at all; all that is done with it is to record it."""
        return True


def check_opcodes(file: BinaryIO) -> None:
    """Refuse what pickle does without asking the reader; the file stands where it stood.

    An extension code that this process has met before stands for its object, and find_class never hears of it. And a
    memo index makes room for all smaller ones, so one that is damaged could ask for tens of gigabytes.

    Raises:
        RefusedName: an extension code.
        ValueError: the pickle is damaged.
    """
    start = file.tell()
    for opcode, value, position in pickletools.genops(file):
        match opcode.name, value, position:
            case "EXT1" | "EXT2" | "EXT4", code, _:
                raise RefusedName(f"extension {code}")
            case "PUT" | "BINPUT" | "LONG_BINPUT", int(index), int(passed) if index > passed:
                raise ValueError(f"memo index {index} after {passed} bytes")
    file.seek(start)


def entries_of(value: object) -> dict[object, object]:
    """The entries of a dict of any class.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, Record) and value.source in DICTS:
        return value.entries
    if not isinstance(value, dict):
        raise TypeError(f"a {getattr(value, 'source', type(value).__name__)} stands in a dict's place")
    return value


def tensors_of(
    contents: dict[object, object],
    tensor: Callable[[object], Tensor],
    inside: Callable[[object], dict[object, object]],
    prefix: str = "",
) -> Iterator[tuple[str, Tensor]]:
    """The state dict of a module, in the order of torch.

    Args:
        contents: the `__dict__` of the module.
        tensor: record -> Tensor.
        inside: the record of a module -> its `__dict__`.
        prefix: before the keys.

    Raises:
        TypeError, KeyError: it is no module.
    """
    if prefix.count(".") > DEEPEST:
        raise ValueError("modules in modules without end")
    passing = contents.get("_non_persistent_buffers_set", ())  # protocol 3 has no sets of its own
    passing = passing.args[0] if isinstance(passing, Record) else passing
    if not isinstance(passing, (set, list, tuple)):
        raise TypeError("the names of the non-persistent buffers are missing")
    buffers = {name: value for name, value in entries_of(contents["_buffers"]).items() if name not in passing}
    for name, value in (entries_of(contents["_parameters"]) | buffers).items():
        if value is not None:
            yield f"{prefix}{name}", tensor(value)
    for name, child in entries_of(contents["_modules"]).items():
        if child is not None:
            yield from tensors_of(inside(child), tensor, inside, f"{prefix}{name}.")


def is_layer(module: str, name: str) -> bool:
    """Whether the name is that of a class of torch.nn."""
    return re.fullmatch(LAYER, module) is not None and name.isidentifier()
