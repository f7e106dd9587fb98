"""Files that are no checkpoints of PyTorch: what they are, by their first bytes, and what to do about it."""

from __future__ import annotations

import zipfile
from pathlib import Path

LOOKED_AT = 1024  # bytes
RESAVE = "write its weights with torch.save(module.state_dict(), path) and give that file"
OWN_CODE = "give the network's code as --model file.py:Name and its weights in PyTorch's format as --weights"
UNPACK = "unpack it and give the checkpoint inside"

STARTS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        "fetch the file with git lfs pull, or from its page",
    ),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves weights", f"convert the weights to PyTorch, then {OWN_CODE}"),
    (b"\x89PNG", "an image (PNG)", "give a checkpoint; images go in by --inputs FOLDER"),
    (b"\xff\xd8\xff", "an image (JPEG)", "give a checkpoint; images go in by --inputs FOLDER"),
    (b"GIF8", "an image (GIF)", "give a checkpoint; images go in by --inputs FOLDER"),
    (b"RIFF", "an image or a sound (RIFF)", "give a checkpoint; images go in by --inputs FOLDER"),
    (b"\x93NUMPY", "an array of NumPy", f"save the weights by their names, then {OWN_CODE}"),
    (b"\x1f\x8b", "an archive (gzip)", UNPACK),
    (b"BZh", "an archive (bzip2)", UNPACK),
    (b"\xfd7zXZ", "an archive (xz)", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z)", UNPACK),
    (b"Rar!", "an archive (rar)", UNPACK),
    (b"%PDF", "a PDF document", "give a checkpoint"),
    (b"GGUF", "a GGUF file", "give the weights as .safetensors"),
)
ONNX = (
    "an ONNX graph, which holds no modules whose units could be captured",
    "give the PyTorch checkpoint, or a function that converts it, as --model file.py:Name",
)
TORCHSCRIPT = ("a TorchScript program", f"in the code that made it, {RESAVE}")
EXPORTED = ("a program of torch.export", f"in the code that made it, {RESAVE}")
KERAS = ("a model of Keras", f"convert the weights to PyTorch, then {OWN_CODE}")
ARRAYS = ("an archive of NumPy's arrays", f"save the weights as .safetensors by their names, then {OWN_CODE}")
TENSORFLOW = ("a checkpoint of TensorFlow", f"convert the weights to PyTorch, then {OWN_CODE}")
PAGE = ("a web page, perhaps one that asks to log in or to confirm a download", "download the file itself")
EMPTY = ("empty", "fetch or save it again")
TAR = ("an archive (tar)", UNPACK)
ZIP = ("an archive (zip)", UNPACK)
TEXT = ("a text file", "give a checkpoint (.pth, .pt, .ckpt, .pkl or .safetensors)")


def other_kind(path: Path) -> tuple[str, str] | None:
    """What a file is, and what to do about it; None if it may be a checkpoint.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
    if not start:
        return EMPTY
    for begins, what, way_out in STARTS:
        if start.startswith(begins):
            return what, way_out
    if start.lstrip()[:200].lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return PAGE
    if start.startswith(b"PK\x03\x04"):
        return _archive(path)
    if start[4:8] == b"TFL3":
        return "a model of TensorFlow Lite", TENSORFLOW[1]
    if start[257:262] == b"ustar":
        return TAR
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a", b"\x42")):
        return ONNX
    if path.suffix in (".index", ".meta", ".pb") or ".data-0" in path.name:
        return TENSORFLOW
    if path.suffix != ".safetensors" and start.isascii() and not start.startswith(b"\x80") and _readable(start):
        return TEXT
    return None


def is_safetensors(path: Path) -> bool:
    """Whether it begins as a safetensors file does: the length of a header in 8 bytes, and JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix.lower() == ".safetensors" or (
        start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    )


def _archive(path: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return None  # reported as damaged when it is opened
    members = set(names)
    if "constants.pkl" in members or any(name.startswith("code/") for name in names):
        return TORCHSCRIPT
    if members & {"archive_format", "serialized_exported_program.json"} or any(
        name.startswith("models/") and name.endswith(".json") for name in names
    ):
        return EXPORTED
    if any(name.endswith(("model.weights.h5", "keras_metadata.pb")) for name in names):
        return KERAS
    if names and all(name.endswith(".npy") for name in names):
        return ARRAYS
    return None if "data.pkl" in members else ZIP


def _readable(start: bytes) -> bool:
    return all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in start)
