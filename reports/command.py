"""How every command begins and ends: common options, JSON, errors in one line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import click

from ..hooks.errors import DissectError, one_line


def common(command: Callable[..., object]) -> Callable[..., None]:
    """Give a command --debug, --quiet and --json; print its result or its one-line error.

    The command gets `quiet` and returns what --json prints.
    """

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.option("--quiet", is_flag=True, help="No progress bars and tables.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and nothing else.")
    @functools.wraps(command)
    def wrapped(*, debug: bool, quiet: bool, as_json: bool, **options: Any) -> None:
        try:
            result = command(quiet=quiet or as_json, **options)
        except KeyboardInterrupt:
            if debug:
                raise
            _fail(
                "Interrupted. A dissection goes on where it stopped: run the same command again; others start anew.",
                130,
            )
        except DissectError as error:
            if debug:
                raise
            _fail(" ".join(str(error).split()), error.exit_code)
        except Exception as error:
            if debug:
                raise
            _fail(f"{one_line(error)} (--debug shows where)", 1)
        if as_json:
            click.echo(json.dumps(result, indent=2, default=str, allow_nan=False))

    return wrapped


def _fail(message: str, code: int) -> None:
    click.echo(f"dissect: {message}", err=True)
    sys.exit(code)


class OneLine(click.Group):
    """Shows click's own complaints in one line, as all others."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **(options | {"standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "dissect"
            _fail(f"{' '.join(error.format_message().split())} See: {command} --help", error.exit_code)
        except click.Abort:
            _fail("Interrupted.", 130)
