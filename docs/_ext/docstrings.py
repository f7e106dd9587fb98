"""Docstrings and help as reStructuredText: hanging indents become list items, examples literal blocks.

The docstrings of the package are plain text for readers of the code. Sections that napoleon knows are left to it, apart
from `Returns:`, whose first colon napoleon would take for the end of a type.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Attributes|Columns|Raises|Yields|Returns):$")


def paragraphs(lines: list[str]) -> list[list[str]]:
    """The lines between blank ones."""
    return [list(group) for blank, group in groupby(lines, lambda line: not line.strip()) if not blank]


def readable(lines: list[str]) -> list[str]:
    """The lines of a docstring, in a form that docutils reads without a warning."""
    written: list[str] = []
    section = ""
    for block in paragraphs(lines):
        if found := SECTION.match(block[0]):
            section = found[1]
            if section == "Returns":
                block = [f":returns: {' '.join(line.strip() for line in block[1:])}"]
        elif not block[0].startswith(" "):
            section = ""
            block = prose(block)
        elif not section:
            block = ["::", "", *block]
        elif section == "Returns":
            block = [f"    {' '.join(line.strip() for line in block)}"]
        written += [*block, ""]
    return written


def prose(block: list[str]) -> list[str]:
    """A paragraph; where lines hang, an item of a list begins at each line that does not."""
    if block[0].lstrip().startswith((">>>", "..")) or not any(line.startswith(" ") for line in block[1:]):
        return block
    items: list[str] = []
    for line in block:
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        else:
            items.append(line)
    return [item if item.startswith(("- ", "* ")) else f"- {item}" for item in items]


def process(_app: Sphinx, _what: str, _name: str, _of: object, _options: Any, lines: list[str]) -> None:
    """Called by autodoc for each docstring, before napoleon."""
    lines[:] = readable(list(lines))


def examples(_app: Sphinx, _context: object, lines: list[str]) -> None:
    """The examples below the help of a command as a block of shell commands; called by sphinx-click."""
    commands = [line.strip(" |") for line in lines if line.strip(" |").startswith(("dissect ", "torchrun "))]
    if commands:
        lines[:] = [".. code-block:: sh", "", *(f"   {command}" for command in commands), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the listener ahead of napoleon's."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process, priority=100)
    app.setup_extension("sphinx_click")
    app.connect("sphinx-click-process-epilog", examples)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
