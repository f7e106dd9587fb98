"""What all commands share: options, help, one line for what goes wrong, several processes."""

from __future__ import annotations

import functools
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import click

from ...dissect.generators.spec import ModelSpec, Moved
from ...dissect.runtime import distributed
from ...hooks.errors import DissectError, DissectWarning, UsageError, explained
from .results import FAILED


def common(command: Callable[..., object], *, spread: bool = False) -> Callable[..., None]:
    """Give a command --debug, --quiet and --json; print its result or its one-line error.

    The command gets `quiet` and returns what --json prints. If it is `spread`, several processes can do it together.
    """

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.option("--quiet", is_flag=True, help="No progress bars and tables.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and nothing else.")
    @functools.wraps(command)
    def wrapped(*, debug: bool, quiet: bool, as_json: bool, **options: Any) -> None:
        with (
            _told_in_a_line(debug),
            _processes(command.__name__, spread),
            _told_in_a_line(debug),
            _warnings_in_a_line(),
        ):
            result = command(quiet=quiet or as_json, **_as_one(options))
            if as_json and distributed.rank() == 0:
                click.echo(json.dumps(result, indent=2, default=str, allow_nan=False))
            if failed := click.get_current_context().meta.get(FAILED):
                raise failed

    return wrapped


spread = functools.partial(common, spread=True)


@contextmanager
def _processes(name: str, spread: bool) -> Iterator[None]:
    """Join those that torchrun started with this one, if it did."""
    if distributed.by_torchrun() and not spread:
        raise UsageError(f"dissect {name} is done by one process; start it without torchrun.")
    with distributed.launched():
        yield


@contextmanager
def _told_in_a_line(debug: bool) -> Iterator[None]:
    """Whatever is raised inside becomes one line, and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        if debug:
            raise
        said = "Interrupted. A dissection goes on where it stopped: run the same command again; others start anew."
        _fail(DissectError(said), 130)
    except DissectError as error:
        if debug:
            raise
        _fail(error, error.exit_code)
    except Exception as error:
        if debug:
            raise
        _fail(explained(error), 1)


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Our warnings inside go to stderr, each once and without the place in the code."""
    shown = set[str]()
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if not issubclass(category, DissectWarning):
            usual(message, category, *rest)
        elif str(message) not in shown and distributed.rank() == 0:
            shown.add(str(message))
            click.echo(f"dissect: warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DissectWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _fail(error: DissectError, code: int) -> None:
    distributed.record(error)
    if not distributed.is_reported(error):
        by = f"rank {distributed.rank()}: " if distributed.size() > 1 and code == 1 else ""
        click.echo(f"dissect: {by}{' '.join(str(error).split())}", err=True)
    sys.exit(code)


Command = Callable[..., object]


MODEL_ONLY = tuple(field.name for field in fields(ModelSpec))


def _as_one(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `a_model`, if a command has them, as one."""
    if not set(MODEL_ONLY) <= set(options):
        if "weights" in options:  # of a command that goes on with a run
            options["generator"] = Moved(**{field.name: options.pop(field.name) for field in fields(Moved)})
        return options
    if options["model"] is None:
        refuse(MODEL_ONLY, "--model")
    given = {name: options.pop(name) for name in MODEL_ONLY}
    return options | {"model": None if given["model"] is None else ModelSpec(**given)}


def refuse(names: tuple[str, ...], why: str) -> None:
    """Raise UsageError if one of these options was given on the command line; `why` says what they go with."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('_', '-')} goes with {why}; leave it out.")


class OneLine(click.Group):
    """Shows click's own complaints in one line, as all others."""

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):  # names of files that are no UTF-8 are printed as the bytes they are
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="surrogateescape")
        try:
            return super().main(*args, **(options | {"standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "dissect"
            _fail(DissectError(f"{error.format_message()} See: {command} --help"), error.exit_code)
        except click.Abort:
            _fail(DissectError("Interrupted."), 130)
