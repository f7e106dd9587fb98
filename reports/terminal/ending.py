"""How a command ends: its verdict in one sentence, the page as a link, and the next command.

The address of the page is all that a command prints on stdout, so that scripts can read it. On a terminal it is a link
with the word Report before it. Tables, the verdict and the next command go to stderr.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

import click
from rich.markup import escape

from .screen import screen

OPEN = "ganatomy.open"  # in click's context: whether the page is to be opened in the browser
LINKING = ("iTerm.app", "vscode", "WezTerm", "ghostty", "Hyper", "Tabby", "mintty")  # values of TERM_PROGRAM
LINKING_SIGNS = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "ALACRITTY_WINDOW_ID")


def remember_open(context: click.Context, _option: click.Parameter, value: bool) -> None:
    """Callback of the option --open."""
    context.meta[OPEN] = value


def link(page: Path, **address: str) -> str:
    """A place in a page as a link for a terminal.

    >>> link(Path("/run/report/index.html"), intervention="a b")
    'file:///run/report/index.html#intervention=a%20b'
    """
    return f"{page.resolve().as_uri()}#{urlencode(address, quote_via=quote, errors='surrogateescape')}"


def open_page(page: Path | str | None) -> None:
    """Open a page in the browser if --open is given; of several pages, the first one."""
    if page is not None and click.get_current_context().meta.pop(OPEN, False):
        click.launch(_url(page))


def end(
    quiet: bool,
    sentence: str | None,
    page: Path | str | None,
    next_command: Sequence[str] = (),
    files: Sequence[Path] = (),
    style: str = "bold",
) -> None:
    """Print the verdict, the paths of files, the page, and the next command; open the page if --open is given."""
    open_page(page)
    if quiet:
        return
    if sentence:
        screen.print(escape(sentence), highlight=False, style=style)
    for file in files:
        click.echo(file)
    if page is not None:
        click.echo(f"Report: {hyperlink(page, os.environ)}" if sys.stdout.isatty() else page)
    if next_command:
        screen.print(f"Next: {escape(shlex.join(next_command))}", soft_wrap=True, highlight=False)


def hyperlink(page: Path | str, environment: Mapping[str, str]) -> str:
    """A page as a terminal shows it: its path as a link (OSC 8) where the terminal knows links, else its address.

    >>> hyperlink(Path("/run/index.html"), {"TERM": "dumb"})
    'file:///run/index.html'
    >>> hyperlink(Path("/run/index.html"), {"TERM_PROGRAM": "vscode"})
    '\\x1b]8;;file:///run/index.html\\x1b\\\\/run/index.html\\x1b]8;;\\x1b\\\\'
    """
    url = _url(page)
    if not has_links(environment):
        return url
    text = str(page) if isinstance(page, Path) else os.path.relpath(unquote(urlsplit(url).path))
    return f"\x1b]8;;{url}\x1b\\{text}\x1b]8;;\x1b\\"


def has_links(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is known to show links (OSC 8). Many that do not say so show the text alone."""
    if environment.get("TERM") == "dumb" or "TMUX" in environment:
        return False
    vte = environment.get("VTE_VERSION", "0")
    return (
        environment.get("TERM_PROGRAM") in LINKING
        or any(sign in environment for sign in LINKING_SIGNS)
        or (vte.isdecimal() and int(vte) >= 5000)
    )


def _url(page: Path | str) -> str:
    return page if isinstance(page, str) else page.resolve().as_uri()
