"""What the user called: a command, or a function in Python."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from ...hooks.names import is_typed

PACKAGE = __name__.rpartition(".runtime.")[0]  # ganatomy.dissect
LONGEST = 60  # characters of an argument


def command() -> str:
    """The command line of this process, or the call in Python by which the result was requested.

    A notebook's command line names its kernel, which tells nothing; so the outermost public function of ganatomy on the
    stack is named, with the arguments that differ from its defaults: `dissect.run('progan_scenes', 'layer7', seed=1)`.
    """
    call = None if is_typed() else _outermost(inspect.currentframe())
    return call or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _outermost(frame: FrameType | None) -> str | None:
    call = None
    while frame is not None:
        home, code = str(frame.f_globals.get("__name__", "")), frame.f_code
        function = frame.f_globals.get(code.co_name)
        if home.startswith(f"{PACKAGE}.") and getattr(function, "__code__", None) is code and callable(function):
            wing = ".".join(home.split(".")[: PACKAGE.count(".") + 2])
            for public in (PACKAGE, wing):
                if code.co_name in getattr(sys.modules.get(public), "__all__", ()):
                    call = f"{public.partition('.')[2]}.{_shown(function, frame)}"
                    break
        frame = frame.f_back
    return call


def _shown(function: Callable[..., object], frame: FrameType) -> str:
    """A call with the values that its arguments have now, where these differ from the defaults."""
    arguments: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        value = frame.f_locals.get(name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            arguments += map(_short, value or ())
        elif parameter.kind is parameter.VAR_KEYWORD:
            arguments += [f"{key}={_short(item)}" for key, item in (value or {}).items()]
        elif parameter.default is parameter.empty:
            arguments.append(_short(value))
        elif not _same(value, parameter.default):
            arguments.append(f"{name}={_short(value)}")
    return f"{getattr(function, '__name__', '')}({', '.join(arguments)})"


def _same(value: object, default: object) -> bool:
    return value is default or (isinstance(value, (str, int, float, tuple)) and value == default)


def _short(value: object) -> str:
    """Plain values as Python writes them, a result by its folder, and every other object by its kind."""
    if isinstance(value, Path) or isinstance(getattr(value, "folder", None), Path):
        value = str(getattr(value, "folder", value))
    if isinstance(value, (str, int, float, type(None), list, tuple, range)):
        text = repr(value)
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return f"<{type(value).__name__}>"
