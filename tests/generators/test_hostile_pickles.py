"""NVIDIA's release files, hostile and damaged: nothing in them runs, and every one ends in one line."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ganatomy.dissect.generators.release_pickles import read_networks
from ganatomy.hooks.errors import DissectError

from ..support.releases import Discriminator, Generator, snapshot

# From here on the files are hostile. They are put together opcode by opcode where no honest object leads to them.


def named(module: str, name: str) -> bytes:
    """STACK_GLOBAL: a name as protocol 4 asks for it."""
    texts = (text.encode("utf8", "surrogatepass") for text in (module, name))
    return b"".join(pickle.BINUNICODE + struct.pack("<I", len(text)) + text for text in texts) + pickle.STACK_GLOBAL


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def packed(value: bytes) -> bytes:
    return pickle.BINBYTES + struct.pack("<I", len(value)) + value


def called(function: bytes, *args: bytes) -> bytes:
    return function + pickle.MARK + b"".join(args) + pickle.TUPLE + pickle.REDUCE


def mapping(**entries: bytes) -> bytes:
    pairs = b"".join(text(key) + value for key, value in entries.items())
    return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS


def hostile(path: Path, **entries: bytes) -> Path:
    path.write_bytes(b"\x80\x04" + mapping(**entries) + pickle.STOP)
    return path


def network(**parts: bytes) -> bytes:
    """A call of _reconstruct_persistent_obj with a module that has these parts in its __dict__."""
    empty = {"_parameters": mapping(), "_buffers": mapping(), "_modules": mapping(), "_init_kwargs": mapping()}
    meta = mapping(class_name=text("Generator"), module_src=text(""), state=mapping(**(empty | parts)))
    return called(named("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)


def stored(tensor: torch.Tensor) -> bytes:
    """The bytes that a tensor's storage is pickled as."""
    _, (storage, *_) = tensor.__reduce_ex__(4)[:2]
    _, (content,) = storage.__reduce__()
    return content


def ints(*values: int) -> bytes:
    each = b"".join(pickle.LONG1 + b"\x09" + value.to_bytes(9, "little", signed=True) for value in values)
    return pickle.MARK + each + pickle.TUPLE


def rebuilt(storage: bytes, start: bytes, size: bytes, steps: bytes) -> bytes:
    loaded = called(named("torch.storage", "_load_from_bytes"), packed(storage))
    return called(named("torch._utils", "_rebuild_tensor_v2"), loaded, start, size, steps, pickle.NEWFALSE, mapping())


class Call:
    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.reduced = function, args

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def payloads(marker: Path) -> dict[str, object]:
    """Calls of what no release file calls, most of which leave a file behind."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        f"{os.system.__module__}.system": Call(os.system, f"echo > '{marker}'"),
        "subprocess.Popen": Call(subprocess.Popen, ["cp", os.devnull, str(marker)]),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "builtins.getattr": Call(getattr, marker, "touch"),
        "pathlib": marker,
        f"{open.__module__}.open": Call(open, str(marker), "w"),
    }


@pytest.mark.parametrize("name", payloads(Path("/tmp/unused")) if os.name == "posix" else [])
def test_a_call_of_anything_else_is_refused_and_not_made(
    name: str, written: Callable[..., Path], tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    payload = payloads(marker)[name]
    for content in (payload, snapshot() | {"G": payload}, {"training_set_kwargs": [payload], "G": Generator()}):
        for protocol in (2, 3, 4):
            path = written(content, protocol)
            with pytest.raises(DissectError, match=r"is refused: it refers to .*could run code") as caught:
                read_networks(path)
            assert protocol == 2 or f"it refers to {name}" in str(caught.value)  # protocol 2 has older names
            assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_the_payloads_of_these_tests_do_run_in_plain_pickle(written: Callable[..., Path], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for name in ("builtins.exec", "builtins.eval", f"{os.system.__module__}.system"):
        pickle.loads(written(payloads(marker)[name]).read_bytes())
        assert marker.exists()
        marker.unlink()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("collections.OrderedDict", "__class__"),
        ("builtins", "set.__subclasses__"),
        ("builtins", "object.__getattribute__"),
        ("builtins", "setattr"),
        ("__builtin__", "set"),
        ("torch", "load"),
        ("torch", "_utils._rebuild_parameter"),
        ("torch._utils", "_rebuild_parameter.__globals__"),
        ("torch._utils", "_rebuild_parameter.__code__"),
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("torch.storage", "torch.load"),
        ("torch.storage", "io"),
        ("torch.nn.modules.linear", "Linear.__init__"),
        ("torch.nn.modules.linear.os", "system.x"),
        ("torch.nn.modules.a\n", "b"),
        ("torch.nn.modules", "Linear"),
        ("torch_utils.persistence", "_src_to_module"),
        ("dnnlib.util", "call_func_by_name"),
        ("dnnlib.util", "EasyDict.__setattr__"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "add_extension"),
        ("operator", "attrgetter"),
        ("ganatomy.dissect.generators.release_pickles", "read_networks"),
        ("ganatomy.dissect.generators.inert_pickles", "Record"),
        ("a\nb", "\x1b[31mred\ud800"),
    ],
)
@pytest.mark.parametrize("asked", ["STACK_GLOBAL", "GLOBAL", "INST"])
def test_only_whole_listed_names_are_admitted(asked: str, module: str, name: str, tmp_path: Path) -> None:
    if asked != "STACK_GLOBAL" and not (module + name).isprintable():
        return  # those end at the line's end, and are stricter about text
    line = f"{module}\n{name}\n".encode("utf8", "surrogatepass")
    forms = {
        "STACK_GLOBAL": named(module, name),
        "GLOBAL": pickle.GLOBAL + line,
        "INST": pickle.MARK + pickle.INST + line,
    }
    with pytest.raises(DissectError, match="is refused: it refers to ") as caught:
        read_networks(hostile(tmp_path / "network.pkl", G=network(), other=forms[asked]))
    assert str(caught.value).isprintable()
    if (module + name).isprintable():
        assert f"it refers to {module}.{name}, and" in str(caught.value)


def test_a_registered_extension_is_refused_even_where_pickle_keeps_it(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    copyreg.add_extension("builtins", "open", 240)
    try:
        attack = called(pickle.EXT1 + b"\xf0", text(str(marker)), text("w"))
        pickle.loads(attack + pickle.STOP).close()  # now it is kept, and no reader is asked about it any more
        marker.unlink()
        for code in (pickle.EXT1 + b"\xf0", pickle.EXT2 + b"\xf0\0", pickle.EXT4 + b"\xf0\0\0\0"):
            attack = called(code, text(str(marker)), text("w"))
            with pytest.raises(DissectError, match="is refused: it refers to extension 240"):
                read_networks(hostile(tmp_path / "network.pkl", G=network(), other=attack))
    finally:
        copyreg.remove_extension("builtins", "open", 240)
    assert not marker.exists()


def test_a_pickle_in_place_of_a_storage_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = text(f"open({str(marker)!r}, 'w').close()")
    attack = called(pickle.GLOBAL + b"builtins\nexec\n", code) + pickle.STOP
    good = stored(torch.ones(2))
    beginning = good[:15]
    zipped, whole = io.BytesIO(), io.BytesIO()
    torch.save(torch.ones(2), zipped)
    torch.save(torch.ones(2), whole, _use_new_zipfile_serialization=False)  # a tensor where a storage belongs
    cases = {
        attack: "damaged",
        beginning + attack: "refers to exec",
        good.replace(b"torch\nFloatStorage", b"os\nsystem"): "refers to os.system",
        good.replace(b"torch\nFloatStorage", b"\x1b[31m\nred"): r"refers to \\x1b\[31m.red",
        zipped.getvalue(): "damaged",
        good[:-1]: "damaged",
        beginning: "damaged",
        beginning + b"\x80\x02M\xe9\x03.\x80\x02" + called(text("no name")) + pickle.STOP: "damaged",
        whole.getvalue(): "damaged",
        b"": "damaged",
    }
    for content, said in cases.items():
        tensor = rebuilt(content, ints(0) + b"0" + b"K\0", ints(2), ints(1))
        with pytest.raises(DissectError, match=said) as caught:
            read_networks(hostile(tmp_path / "network.pkl", G=network(_parameters=mapping(weight=tensor))))
        assert str(caught.value).isprintable()
        assert "weights_only" not in str(caught.value)  # torch advises to set it to False
    assert not marker.exists()


@pytest.mark.parametrize(
    ("start", "size", "steps"),
    [
        (0, (7,), (1,)),
        (4, (3,), (1,)),
        (-1, (2,), (1,)),
        (0, (3,), (-1,)),
        (0, (-3,), (1,)),
        (0, (2, 2), (1,)),
        (0, (2, 4), (4, 1)),
        (1 << 62, (1,), (1,)),
        (0, (1 << 62, 1 << 62), (1, 1)),
        (0, (3,), (1 << 61,)),
        (0, (1 << 65,), (0,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(
    start: int, size: tuple[int, ...], steps: tuple[int, ...], tmp_path: Path
) -> None:
    def read(start: int, size: tuple[int, ...], steps: tuple[int, ...]) -> torch.Tensor:
        first = pickle.LONG1 + b"\x09" + start.to_bytes(9, "little", signed=True)
        tensor = rebuilt(stored(torch.arange(6.0)), first, ints(*size), ints(*steps))
        path = hostile(tmp_path / "network.pkl", G=network(_buffers=mapping(filter=tensor)))
        return read_networks(path)["G"].state["filter"]

    assert read(1, (2, 2), (1, 3)).tolist() == [[1, 4], [2, 5]]
    with pytest.raises(DissectError, match="is damaged"):
        read(start, size, steps)


def set_on(thing: bytes, state: bytes) -> bytes:
    return thing + state + pickle.BUILD


EASY = named("dnnlib.util", "EasyDict")
SLOTS = pickle.NONE + mapping(source=text("dnnlib.util.EasyDict"), __setstate__=EASY, __new__=EASY) + pickle.TUPLE2


@pytest.mark.parametrize(
    "attack",
    [
        set_on(EASY, mapping(source=text("x"))),
        set_on(EASY, SLOTS),
        set_on(named("collections", "OrderedDict"), SLOTS),
        set_on(named("torch._utils", "_rebuild_tensor_v2"), SLOTS),
        set_on(named("torch_utils.persistence", "_reconstruct_persistent_obj"), mapping(__code__=pickle.NONE)),
        set_on(pickle.EMPTY_LIST, SLOTS),
        set_on(mapping(), mapping(__class__=EASY)),
        called(called(EASY), text("x")),
        called(text("os.system"), text("true")),
        pickle.NONE + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
        EASY + pickle.EMPTY_TUPLE + mapping(args=text("x")) + pickle.NEWOBJ_EX,
        EASY + text("a") + text("b") + pickle.SETITEM,
        called(EASY) + text("a") + pickle.APPEND,
        pickle.BINUNICODE + struct.pack("<I", 3) + b"key" + pickle.BINPERSID,
        pickle.PERSID + b"key\n",
        pickle.NEXT_BUFFER,
    ],
)
def test_abused_stand_ins_break_nothing(attack: bytes, written: Callable[..., Path], tmp_path: Path) -> None:
    good = snapshot()
    with pytest.raises(DissectError, match="is damaged"):
        read_networks(hostile(tmp_path / "bad.pkl", other=attack, G=network()))
    for name, found in read_networks(written(good)).items():
        assert found.state.keys() == good[name].state_dict().keys()


@pytest.mark.parametrize(
    "attack",
    [
        set_on(called(EASY), SLOTS),
        set_on(EASY + pickle.EMPTY_TUPLE + pickle.NEWOBJ, mapping(__class__=EASY, __dict__=mapping())),
        set_on(called(named("torch.nn.modules.linear", "Linear")), mapping(__setstate__=EASY)),
        called(named("torch.nn.modules.module", "register_module_forward_hook"), EASY),
        called(EASY, text("a"), EASY, mapping()),
        pickle.MARK + EASY + text("a") + pickle.OBJ,
    ],
)
def test_what_stand_ins_are_given_is_only_kept(attack: bytes, tmp_path: Path) -> None:
    path = hostile(tmp_path / "network.pkl", other=attack, G=network(_init_kwargs=mapping(z_dim=b"K\x07")))
    assert read_networks(path)["G"].options == {"z_dim": 7}
    assert not torch.nn.modules.module._global_forward_hooks


@pytest.mark.parametrize(
    "parts",
    [
        {"_parameters": mapping(weight=text("no tensor"))},
        {"_parameters": mapping(weight=EASY)},
        {"_parameters": mapping(weight=called(named("torch._utils", "_rebuild_parameter")))},
        {"_parameters": mapping(weight=called(named("torch.storage", "_load_from_bytes"), packed(b"")))},
        {"_parameters": text("no dict")},
        {"_buffers": called(named("builtins", "set"))},
        {"_modules": mapping(a=text("no module"))},
        {"_modules": mapping(a=called(named("torch.nn.modules.linear", "Linear")))},
        {"_init_kwargs": pickle.NONE},
        {"_non_persistent_buffers_set": pickle.NONE},
        {"_non_persistent_buffers_set": called(named("builtins", "set"))},
    ],
)
def test_a_network_of_other_parts_is_damaged(parts: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(DissectError, match="is damaged"):
        read_networks(hostile(tmp_path / "network.pkl", G=network(**parts)))


def test_a_module_within_itself_is_damaged(tmp_path: Path) -> None:
    modules = pickle.EMPTY_DICT + pickle.MEMOIZE
    loop = network(_modules=modules) + b"0" + pickle.BINGET + b"\0" + text("a") + network(_modules=b"h\0")
    with pytest.raises(DissectError, match=r"is damaged.*without end"):
        read_networks(hostile(tmp_path / "network.pkl", other=loop + pickle.SETITEM, G=network(_modules=b"h\0")))


def test_a_memo_index_beyond_the_file_asks_for_no_memory(tmp_path: Path) -> None:
    for put in (pickle.LONG_BINPUT + b"\0\0\x10\0", pickle.PUT + b"1048576\n"):
        with pytest.raises(DissectError, match=r"is damaged.*memo index 1048576"):
            read_networks(hostile(tmp_path / "network.pkl", other=text("a") + put, G=network()))


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x04.", b"PK\x03\x04zip", b"no pickle\n", b"\x80\x04K\x01."])
def test_what_is_no_pickle_of_networks_is_damaged(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    with pytest.raises(DissectError, match=r"network\.pkl is damaged"):
        read_networks(path)


def test_a_truncated_file_is_damaged(written: Callable[..., Path]) -> None:
    path = written({"G_ema": Discriminator(c_dim=0)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DissectError, match="is damaged"):
            read_networks(path)


def refusal(path: Path) -> str:
    """What the reader says against a file; nothing where it reads it."""
    try:
        read_networks(path)
    except DissectError as error:
        return str(error)
    return ""


def test_flipped_bytes_end_in_one_line_or_in_a_network(written: Callable[..., Path]) -> None:
    path = written({"G_ema": Discriminator(c_dim=0)})
    whole, draw, said = path.read_bytes(), random.Random(1), []
    for _ in range(100):
        bent = bytearray(whole)
        bent[draw.randrange(len(whole))] = draw.randrange(256)
        path.write_bytes(bent)
        said.append(refusal(path))
    assert 10 < sum(map(bool, said)) < 100
    assert all(text.isprintable() for text in said)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.pkl"):
        with pytest.raises(DissectError, match=f"{path.name} cannot be read"):
            read_networks(path)
