"""All errors and warnings of ganatomy. They live in the lowest package so that every other one can raise them."""

from __future__ import annotations

import os
import sysconfig
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .names import in_callers_words, is_typed, suggestion

_OURS = tuple(
    Path(__file__).resolve().parents[1] / name for name in ("hooks", "segmenters", "dissect", "reports", "cli.py")
)
_LIBRARIES = tuple(
    {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


class DissectError(Exception):
    """Something failed. The message is one line: what was given, what is allowed, what to do.

    Messages are written with the options of the command line; see `names.in_callers_words`.
    """

    exit_code = 1

    def __str__(self) -> str:
        return in_callers_words(super().__str__())


class UsageError(DissectError):
    """The caller named something that does not exist, or options that do not go together."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: one line, since the fault lies in the call and not in the code that it led to."""
        return [f"{type(self).__name__}: {self}"]


class UnknownName(UsageError, KeyError):
    """A name that was looked up in a result does not exist there."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would put it in quotes


class Fault(DissectError):
    """ganatomy itself is wrong. Results that were complete before stay as they are."""


class NetworkError(DissectError):
    """A network of the user failed."""


class DissectWarning(UserWarning):
    """The work goes on, but its result may not be what the user thinks."""

    def __str__(self) -> str:
        return in_callers_words(super().__str__())


def unknown_name(kind: str, name: object, names: Iterable[object]) -> UnknownName:
    """The error for a name that is none of `names`; `kind` says what they are names of."""
    return UnknownName(f"There is no {kind} {name!r}. {suggestion(name, names)}")


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and the start of its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}{'…' if len(text) > 400 else ''}" if text else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    known = type(error).__name__ in ("OutOfMemoryError", "MemoryError")  # torch's, without importing it
    return known or "can't allocate memory" in str(error)


@contextmanager
def running(failed: str) -> Iterator[None]:
    """Around a network of the user: whatever it raises becomes a NetworkError in one line, which begins with `failed`.

    Errors of ours and a lack of memory pass, since the caller can do something about the latter.
    """
    try:
        yield
    except DissectError:
        raise
    except Exception as error:  # a network may raise anything
        if out_of_memory(error):
            raise
        raise NetworkError(f"{failed} ({one_line(error)}).") from error


def explained(error: Exception, where: str = "") -> DissectError:
    """An exception that nobody foresaw, as a DissectError: a failure of the user's code, or else a fault of ganatomy.

    It is the user's where the innermost call, libraries left out, is in a file that is not ours. The traceback of a
    fault is written to a file, which the message names.

    Args:
        where: a sentence on the results that are complete nevertheless.
    """
    frames = [Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)]
    own = [file for file in frames if _inside(file, _OURS) or (file.is_file() and not _inside(file, _LIBRARIES))]
    if own and not _inside(own[-1], _OURS):
        where = " --debug shows where." if is_typed() else ""
        return DissectError(f"Code in {own[-1]} failed ({one_line(error)}).{where}")
    message = f"This is a fault of ganatomy, not of yours ({one_line(error)})."
    sentences = (message, where, _traceback_written(error), "Please report it.")
    return Fault(" ".join(sentence for sentence in sentences if sentence))


def _inside(file: Path, folders: tuple[Path, ...]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)


def _traceback_written(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        descriptor, path = tempfile.mkstemp(prefix="ganatomy-fault-", suffix=".txt", text=True)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return "Run the command again with --debug to see the traceback." if is_typed() else ""
    return f"The traceback is in {path}."
