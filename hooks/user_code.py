"""The user's own code by its name: `package.module:Name`, or `folder/file.py:Name`."""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import DissectError, UsageError, one_line

_NAME = r"[^\W\d]\w*"
LITERALS = {"true": True, "false": False, "none": None}  # in any case: the text "false" would count as true


def is_factory(spec: str) -> bool:
    """Whether this looks like `package.module:Name` or `file.py:Name`.

    >>> [is_factory(spec) for spec in ("train.py:Generator", "models.dcgan:build", "weights.pth", "C:\\\\nets")]
    [True, True, False, False]
    """
    module, _, name = spec.rpartition(":")
    if not re.fullmatch(_NAME, name):
        return False
    return module.endswith(".py") or re.fullmatch(rf"{_NAME}(\.{_NAME})*", module) is not None


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """The arguments of a call; a value that is no Python literal is text.

    >>> parse_arguments(["nz=100", "norm=batch", "widths=(64,32)", "bias=false"])
    {'nz': 100, 'norm': 'batch', 'widths': (64, 32), 'bias': False}

    Raises:
        UsageError: one has no name, or is given twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(_NAME, name):
            raise UsageError(f"--arg {text!r} is not understood; write NAME=VALUE, e.g. nz=100.")
        if name in arguments:
            raise UsageError(f"--arg {name} is given twice; give it once.")
        try:
            arguments[name] = LITERALS[value.lower()] if value.lower() in LITERALS else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[name] = value
    return arguments


def from_anywhere(spec: str) -> str:
    """The spec with a file by its absolute path, so that it holds in any current folder."""
    module, _, name = spec.rpartition(":")
    return f"{Path(module).resolve()}:{name}" if module.endswith(".py") else spec


def call_factory(spec: str, arguments: Mapping[str, Any] | None = None) -> object:
    """Import the module or file, and return what the function or class of that name returns for these arguments.

    A name that is an object already, such as a network, is returned as it is. Modules in the current folder are found
    too, as with `python -m`, and so are those beside a file. What the code prints goes to stderr.

    Raises:
        UsageError: there is no such module, file or name, or the arguments do not fit.
        DissectError: the user's code failed.
    """
    module, _, name = spec.rpartition(":")
    try:
        with _importing(module), contextlib.redirect_stdout(sys.stderr):
            imported = _file(module) if module.endswith(".py") else _module(module)
            factory = getattr(imported, name, None)
            if not callable(factory):
                raise _no_such(spec, imported, name)
            if not isinstance(factory, type | functools.partial) and not inspect.isroutine(factory):  # an object
                if arguments:
                    raise UsageError(f"{spec} is an object, not a class; leave --arg out, or name its class.")
                return factory
            _check_arguments(spec, factory, arguments or {})
            return factory(**(arguments or {}))
    except DissectError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises; a script may also end itself
        raise DissectError(f"{spec}: its code failed ({one_line(error)}).") from error


def made_by(option: str, spec: str) -> object:
    """The object that the factory returns which an option of the command line names.

    Raises:
        UsageError: it is no `package.module:Name`, or there is none.
        DissectError: the user's code failed.
    """
    if not is_factory(spec):
        raise UsageError(f"{option} {spec!r} is not understood; write package.module:name or file.py:name.")
    return call_factory(spec)


@contextlib.contextmanager
def _importing(module: str) -> Iterator[None]:
    """The current folder, and that of a file, are searched for modules; command-line arguments are not the module's."""
    folders = [str(Path.cwd())]
    if module.endswith(".py"):
        folders.insert(0, str(Path(module).resolve().parent))
    arguments = sys.argv
    sys.path[:0] = folders
    sys.argv = [module]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.argv = arguments
        for folder in folders:
            with contextlib.suppress(ValueError):  # the user's code may have tidied the path itself
                sys.path.remove(folder)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something it imports is not
        near = f" For a file, write {name}.py:…" if Path(f"{name}.py").is_file() else ""
        raise UsageError(
            f"{name}: there is no module {error.name!r} in the current folder or among installed packages.{near}"
        ) from error


def _file(file: str) -> ModuleType:
    """A file as a module, under its own name, so that what it imports may import it again; once a process."""
    path = Path(file).resolve()
    if not path.is_file():
        raise UsageError(f"There is no file {file}; give the path of a Python file, e.g. train.py:Generator.")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    name = path.stem if loaded is None else f"{path.stem}_{abs(hash(str(path)))}"  # another module has the name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    imported = importlib.util.module_from_spec(spec)
    sys.modules[name] = imported
    try:
        spec.loader.exec_module(imported)
    except BaseException:
        del sys.modules[name]
        raise
    return imported


def _no_such(spec: str, module: ModuleType, name: str) -> UsageError:
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    near = difflib.get_close_matches(name, names, n=3)
    defined = [key for key in names if getattr(getattr(module, key), "__module__", None) == module.__name__]
    if near:
        return UsageError(f"{spec}: there is no {name!r}. Did you mean {' or '.join(near)}?")
    known = ", ".join(defined[:8]) or "no functions and no classes"
    return UsageError(f"{spec}: there is no {name!r}; there are {known}.")


def _check_arguments(spec: str, factory: Any, arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (ValueError, TypeError):  # of some built-in ones
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UsageError(f"{spec}{signature}: {error}; give its arguments as --arg NAME=VALUE.") from error
