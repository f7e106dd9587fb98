"""The user's own code by its name: `package.module:factory`."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
import sys
from pathlib import Path

from .errors import DissectError, UsageError, one_line

_NAME = r"[^\W\d]\w*"


def is_factory(spec: str) -> bool:
    """Whether this looks like `package.module:factory`."""
    return re.fullmatch(rf"{_NAME}(\.{_NAME})*:{_NAME}", spec) is not None


def call_factory(spec: str) -> object:
    """Import the module, call the factory without arguments, and return what it makes.

    Modules in the current folder are found too, as with `python -m`.

    Raises:
        UsageError: there is no such module or function.
        DissectError: the user's code failed.
    """
    module_name, _, factory_name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module is there, and something it imports is not
            raise UsageError(
                f"{spec}: there is no module {error.name!r} in the current folder or among installed packages."
            ) from error
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            callables = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            near = difflib.get_close_matches(factory_name, callables, n=3)
            raise UsageError(
                f"{spec}: module {module_name} has no function {factory_name!r}."
                + (f" Did you mean {' or '.join(near)}?" if near else "")
            )
        return factory()
    except DissectError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise DissectError(f"{spec}: its code failed ({one_line(error)}).") from error
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have tidied the path itself
            sys.path.remove(here)


def made_by(option: str, spec: str) -> object:
    """What the factory makes that an option of the command line names.

    Raises:
        UsageError: it is no `package.module:factory`, or there is none.
        DissectError: the user's code failed.
    """
    if not is_factory(spec):
        raise UsageError(f"{option} {spec!r} is not understood; write package.module:factory.")
    return call_factory(spec)
