"""What all commands share: common options, several processes, and errors and warnings in one line each."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import click
import cloup

from ...dissect.generators.spec import ModelSpec, Moved
from ...dissect.runtime import distributed
from ...hooks.errors import DissectError, DissectWarning, UsageError, explained
from ...hooks.names import typed
from .results import BEGAN, FAILED

MODEL_ARGUMENT = "model_argument"  # the model as an argument, MODEL, instead of --model
MODEL_OPTIONS = tuple(field.name for field in fields(ModelSpec))


def _command(function: Callable[..., object], *, several_processes: bool) -> Callable[..., None]:
    """Give a command --debug, --quiet and --json; print its result or its error in one line.

    The function gets `quiet` and returns what --json prints.
    """

    @click.option("--quiet", is_flag=True, help="Show no progress bars and no tables.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and nothing else.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(*, debug: bool, quiet: bool, as_json: bool, **options: Any) -> None:
        context = click.get_current_context()
        context.meta[BEGAN] = datetime.now(UTC)
        options = _with_one_model(options)
        _announce(options, quiet or as_json)
        with (
            _errors_in_one_line(debug),
            _joined_processes(context.command_path, several_processes),
            _errors_in_one_line(debug),  # of this process, before the others are left
            _warnings_in_one_line(),
        ):
            result = function(quiet=quiet or as_json, **_with_model_spec(options))
            if as_json and distributed.rank() == 0:
                click.echo(json.dumps(result, indent=2, default=str, allow_nan=False))
            if failed := context.meta.get(FAILED):
                raise failed

    return command


one_process = functools.partial(_command, several_processes=False)
several_processes = functools.partial(_command, several_processes=True)


@contextmanager
def _joined_processes(name: str, several_processes: bool) -> Iterator[None]:
    """Join the processes that torchrun started together with this one, if it did."""
    if distributed.by_torchrun() and not several_processes:
        raise UsageError(f"{name} does not support torchrun; start it as a single process.")
    with distributed.launched():
        yield


@contextmanager
def _errors_in_one_line(debug: bool) -> Iterator[None]:
    """Turn whatever is raised inside into one line on stderr, and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        if debug:
            raise
        message = "Interrupted. To continue a dissection, run the same command again; other commands start anew."
        _fail(DissectError(message), 130)
    except DissectError as error:
        if debug:
            raise
        _fail(error, error.exit_code)
    except Exception as error:
        if debug:
            raise
        _fail(explained(error), 1)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print each of our warnings once, on stderr, without its place in the code."""
    printed = set[str]()
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *arguments: Any) -> None:
        if not issubclass(category, DissectWarning):
            usual(message, category, *arguments)
        elif str(message) not in printed and distributed.rank() == 0:
            printed.add(str(message))
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


def _with_one_model(options: dict[str, Any]) -> dict[str, Any]:
    """A command's options, in which the argument MODEL is the option --model.

    Raises:
        click.UsageError: both are given, or neither.
    """
    if MODEL_ARGUMENT not in options:
        return options
    argument, option = options.pop(MODEL_ARGUMENT), options["model"]
    if argument is not None and option is not None:
        raise click.UsageError(
            f"The model is given twice, as {argument} and as --model {option}; leave one of them out."
        )
    if argument is None and option is None:
        raise click.UsageError(
            "Missing argument 'MODEL': a name from `dissect models`, a checkpoint, or code of your own, file.py:Name."
        )
    return options | {"model": option if argument is None else argument}


def _announce(options: dict[str, Any], quiet: bool) -> None:
    """Say at once what is going to be opened: importing torch takes some seconds."""
    if quiet or os.environ.get("RANK", "0") != "0":
        return
    models, folders = options.get("candidates", ()), options.get("runs") or options.get("shards") or ()
    if len(models) > 1 or len(folders) > 1:
        click.echo(f"Loading {len(models or folders)} {'candidates' if models else 'runs'} …", err=True)
    elif thing := next(filter(None, (options.get("run"), options.get("model"), *models, *folders)), None):
        click.echo(f"Loading {thing} …", err=True)


def _with_model_spec(options: dict[str, Any]) -> dict[str, Any]:
    """A command's options, in which the options of the group "Model" are one object.

    That is a `ModelSpec` (None without --model) as `model`; for commands that continue with a run's model, of which
    only the files may have moved, a `Moved` as `generator`.
    """
    if not set(MODEL_OPTIONS) <= set(options):
        if "weights" in options:
            options["generator"] = Moved(**{field.name: options.pop(field.name) for field in fields(Moved)})
        return options
    values = {name: options.pop(name) for name in MODEL_OPTIONS}
    return options | {"model": None if values["model"] is None else ModelSpec(**values)}


class Group(cloup.Group):
    """The command `dissect`. It shows click's own complaints in one line, like all others."""

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):  # file names that are not UTF-8 are printed as the bytes they are
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="surrogateescape")
        with typed():
            return self._main(*args, **options)

    def _main(self, *args: Any, **options: Any) -> Any:
        """Run the command; click's complaints become one line."""
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
