"""Every command that the README and the documentation show can be parsed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ganatomy.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("[a-z]*/*.md"))]


def commands() -> list[tuple[str, str]]:
    """(page, command line) of each `dissect …` in a block of shell commands, continued lines joined."""
    shown = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            shown += [(str(page.relative_to(ROOT)), line) for line in lines if line.startswith("dissect ")]
    return shown


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_the_documentation_parses(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command = main.commands[words[0]]
    try:
        command.make_context(words[0], [word for word in words[1:] if word != "…"])
    except click.UsageError as error:
        if "does not exist" not in error.format_message():  # a file of the reader's
            pytest.fail(f"{page}: {line}: {error.format_message()}")
