"""Names that a user wrote: what they may have meant, and how an option is called where it was written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Options whose argument has another name.
ARGUMENTS = {"class": "label", "control": "controls", "as": "assumed", "arg": "args"}

_OPTION = re.compile(
    r"""(?<![^\s(])--(?P<name>[a-z][a-z0-9-]*)       # an option, and its value if what follows can only be one:
    (?:[ ](?P<value>'[^']*'|"[^"]*"                  # quoted
        |[-+]?\d[\w.,]*(?<![.,])                     # a number
        |\[[^\]]*\]                                  # a list
        |[A-Z][A-Z,:…]+(?![a-z])                     # a placeholder, such as FOLDER
        |[^\s'"`:]+(?=:\s)                           # before a colon
        |[^\s'";()]*[:=/.][^\s'";()]*(?<![.,:])      # normal:128, file.py:Name
    ))?(?=[\s.,;:)`]|$)""",
    re.VERBOSE,
)
_COMMAND = re.compile(r"\b(dissect|hf) [a-z]+[^;)]*")  # a whole command is typed into a terminal, whoever reads of it

_typed = False  # whether the user typed a command, and so knows options


@contextmanager
def typed() -> Iterator[None]:
    """Around a command: messages name the options of the command line. Elsewhere they name the arguments of Python."""
    global _typed
    before, _typed = _typed, True
    try:
        yield
    finally:
        _typed = before


def is_typed() -> bool:
    """Whether the code runs for a command that the user typed."""
    return _typed


def in_callers_words(message: str) -> str:
    """A message that names options, for whoever called: unchanged for a command, with arguments for Python.

    All messages are written with options, whose two dashes mark them.

    >>> in_callers_words("--threshold 'foo': must be one of iqr, quantile.")
    "threshold='foo': must be one of iqr, quantile."
    >>> in_callers_words("Take fewer --samples, or name the latents, e.g. --latent normal:128x1x1.")
    "Take fewer `samples`, or name the latents, e.g. latent='normal:128x1x1'."
    >>> in_callers_words("--where grid: the layer has too many cells.")
    "where='grid': the layer has too many cells."
    >>> in_callers_words("See dissect inspect --model x.pth; give --batch-size 8.")
    'See dissect inspect --model x.pth; give batch_size=8.'
    """
    if _typed or "--" not in message:
        return message
    pieces, start = [], 0
    for command in _COMMAND.finditer(message):
        pieces += [_OPTION.sub(_as_argument, message[start : command.start()]), command[0]]
        start = command.end()
    return "".join([*pieces, _OPTION.sub(_as_argument, message[start:])])


def _as_argument(option: re.Match[str]) -> str:
    name, value = option["name"], option["value"]
    argument = ARGUMENTS.get(name, name.replace("-", "_"))
    if value is None:
        return f"`{argument}`"
    is_plain = value[0] in "'\"[" or value[0].isupper() or re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|nan|-?inf", value)
    return f"{argument}={value if is_plain else repr(value)}"


def near(name: object, names: Iterable[object]) -> str:
    """A question with the names most like a wrong one; empty if none is like it.

    >>> near("treee", ["sky", "tree"]), near("car", ["sky", "tree"])
    ('Did you mean tree?', '')
    """
    close = difflib.get_close_matches(str(name), list(dict.fromkeys(map(str, names))), n=5, cutoff=0.5)
    return f"Did you mean {' or '.join(filter(None, [', '.join(close[:-1]), close[-1]]))}?" if close else ""


def suggestion(name: object, names: Iterable[object], most: int = 12) -> str:
    """The same question, or else a sentence with the first of all names.

    >>> suggestion("treee", ["sky", "tree"])
    'Did you mean tree?'
    >>> suggestion("car", ["sky", "tree"])
    'There are: sky, tree.'
    """
    unique = list(dict.fromkeys(map(str, names)))
    return near(name, unique) or f"There are: {', '.join(unique[:most])}{', …' if len(unique) > most else ''}."
