"""How every command begins and ends: options in common, JSON, errors in one line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

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


a_run = click.argument("run", type=click.Path(path_type=Path))
a_file = click.Path(path_type=Path)

Command = Callable[..., object]


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""
    return lambda command: functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


model_options = _options(
    click.option("--segmenter", help="A spec from `dissect segmenters`.  [default: the model's own]"),
    click.option("--weights", help="Checkpoint for package.module:factory."),
    click.option("--latent", help="Latent of package.module:factory, e.g. normal:128."),
)
where_options = _options(
    click.option("--batch-size", type=int, help="[default: by device; halved when memory runs out]"),
    click.option("--device", default="auto", show_default=True),
)
suspect_options = _options(
    click.option("--reference", type=a_file, help="Folder of real images.  [default: the embedded scenes]"),
    click.option("--inception", metavar="FILE", help="torch-fidelity's Inception weights, or download."),
    click.option("--flags", type=a_file, help="For flagged: file of bad samples' numbers, or folder of masks."),
    click.option("--realism", metavar="MODULE:FACTORY", help="For realism: a differentiable score of images."),
    click.option("--name", help="Of the folder in RUN.  [default: from the options]"),
    where_options,
)
effects_options = _options(
    click.option("--class", "label", metavar="CLASS", help="The class meant; its best units are taken."),
    click.option("--top", default=20, show_default=True, help="How many of the class's best units."),
    click.option("--units", metavar="LAYER:UNIT,…", help="These units instead, e.g. layer4:12,57,300."),
    click.option("--layer", help="Layer of the run; needed where it has several."),
    click.option("--by", default="iou", show_default=True, help="Best by: iou, or scan (effect of each alone)."),
    click.option("--optimize", is_flag=True, help="Find the units by gradient (ACE) and compare with IoU's."),
    click.option("--samples", type=int, help="Unseen samples to measure on.  [default: 256; grid: fewer]"),
    click.option("--random-sets", default=5, show_default=True, help="Random sets beside, of each of two kinds."),
    click.option("--name", help="Folder in RUN/interventions.  [default: from the options]"),
    click.option("--seed", default=0, show_default=True, help="Seed of the random sets."),
    where_options,
    a_run,
)


def link(page: Path, **address: str) -> str:
    """A place in a page, to click on: file:///…/index.html#intervention=NAME."""
    return f"{page.resolve().as_uri()}#{urlencode(address, quote_via=quote)}"


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
