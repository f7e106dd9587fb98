"""How commands end, on a terminal and in a pipe; closed choices; completion; the commands that they advise."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ganatomy.cli import main
from ganatomy.dissect.artifacts.detectors import DETECTORS
from ganatomy.dissect.capture.plan import PRECISIONS
from ganatomy.dissect.checkerboard.repair_grid import METHODS
from ganatomy.dissect.generators.families.style_based import NOISES
from ganatomy.dissect.interventions import task
from ganatomy.dissect.latents import direction_effects, explore, paths
from ganatomy.dissect.repairs import repair_units
from ganatomy.dissect.runs import run as runs
from ganatomy.reports.terminal import ending, options, sentences

FACTORY = """
from ganatomy.tests.conftest import ColourSegmenter, Painter
net, namer = Painter, ColourSegmenter
"""
MINE = ["mine:net", "--latent", "normal:6", "--layer", "paint", "--segmenter", "mine:namer"]


@pytest.fixture
def cli(on_path: Path) -> Callable[..., Result]:
    (on_path / "mine.py").write_text(FACTORY)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def advised(done: Result) -> list[str]:
    """The words of the next command that a command advises, without `dissect`."""
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Next: ")]
    return shlex.split(line)[2:]


def test_each_command_leads_to_one_that_works(cli: Callable[..., Result]) -> None:
    words = advised(cli("run", *MINE, "--samples", 120, "--out", "runs/a b"))
    assert words[:3] == ["ablate", "runs/a b", "--class"]
    fewer = ["--top", "1", "--random-sets", "1"]
    words = advised(cli(*words, "--samples", "8", *fewer))
    assert words[:2] == ["insert", "runs/a b"]
    words = advised(cli(*words, *fewer))
    assert words[:2] == ["scan", "runs/a b"]
    words = advised(cli(*words))
    assert words[-2:] == ["--by", "scan"]
    words = advised(cli(*words, *fewer, "--samples", "8"))
    assert words[0] == "insert"


def test_a_result_that_was_only_loaded_says_so(cli: Callable[..., Result]) -> None:
    arguments = ("run", *MINE, "--samples", 40, "--out", "runs/a", "--no-report")
    first = cli(*arguments)
    assert "only loaded" not in first.stderr
    info = Path("runs/a/run.json")
    info.write_text(re.sub(r'"finished": "\d{4}', '"finished": "2020', info.read_text()))
    assert "2020" in (again := cli(*arguments)).stderr
    assert "only loaded" in " ".join(again.stderr.split())


def test_the_age_of_a_result() -> None:
    began = datetime.now(UTC)
    assert sentences.of_age({"created": (began + timedelta(seconds=5)).isoformat()}, began) == ""
    assert "only loaded" in sentences.of_age({"created": (began - timedelta(hours=1)).isoformat()}, began)
    later = {"created": "2020-01-01T00:00:00+00:00", "finished": (began + timedelta(seconds=5)).isoformat()}
    assert sentences.of_age(later, began) == ""  # it was interrupted long ago, and finished now


def test_too_few_samples_are_named(cli: Callable[..., Result]) -> None:
    done = cli("run", *MINE, "--samples", 4, "--out", "runs/a", "--no-report")
    text = " ".join(done.stderr.split())
    assert "4 samples are too few to label anything; try --samples 1000." in text
    assert "Next:" not in text


def test_open_opens_the_page(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    for quiet in ([], ["--quiet"], ["--json"]):
        done = cli("run", *MINE, "--samples", 20, "--out", "runs/a", "--open", *quiet)
        assert done.exit_code == 0, done.output
    assert opened == [Path("runs/a/report/index.html").resolve().as_uri()] * 3
    cli("run", *MINE, "--samples", 20, "--out", "runs/a")
    assert len(opened) == 3


def on_terminal(words: Sequence[str], **environment: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ganatomy.cli", *words],
        stdout=follower,
        stderr=follower,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"} | environment,
    )
    os.close(follower)
    blocks = []
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        blocks.append(block)
        if not block:
            break
    assert process.wait() == 0, b"".join(blocks)
    return b"".join(blocks).decode()


@pytest.mark.slow
def test_a_terminal_shows_the_report_as_a_link(cli: Callable[..., Result]) -> None:
    assert cli("run", *MINE, "--samples", 60, "--out", "runs/a", "--quiet").exit_code == 0
    for name in ("TMUX", "TERM_PROGRAM", "VTE_VERSION", *ending.LINKING_SIGNS):
        os.environ.pop(name, None)
    plain = on_terminal(["report", "runs/a"])
    url = Path("runs/a/report/index.html").resolve().as_uri()
    assert f"Report: {url}\r\n" in plain
    assert plain.startswith("Loading runs/a …")
    linked = on_terminal(["report", "runs/a"], TERM_PROGRAM="vscode")
    assert f"Report: \x1b]8;;{url}\x1b\\runs/a/report/index.html\x1b]8;;\x1b\\\r\n" in linked


@pytest.mark.parametrize(
    ("choices", "allowed"),
    [
        (options.SIGNIFICANCE, runs.MODES),
        (options.CONTROLS, runs.CONTROLS),
        (options.PRECISIONS, PRECISIONS),
        (options.BY, task.BY),
        (options.VALUES, task.VALUES),
        (options.REPAIR_VALUES, repair_units.VALUES),
        (options.DETECTORS, DETECTORS),
        (options.METHODS, METHODS),
        (options.NOISES, NOISES),
        (options.PATHS, paths.WAYS),
        (options.DIRECTIONS, direction_effects.METHODS),
        (options.FILMS, explore.FILMS),
    ],
)
def test_choices_are_those_that_the_program_allows(choices: tuple[str, ...], allowed: Sequence[str]) -> None:
    assert sorted(choices) == sorted(allowed)


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands with their names, those of groups too."""
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", below) for inner, below in command.commands.items())
        else:
            yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_choice_is_refused_in_our_words(name: str, command: click.Command, cli: Callable[..., Result]) -> None:
    for option in command.params:
        if isinstance(option.type, options.OneOf) and isinstance(option, click.Option):
            done = cli(*name.split(), option.opts[0], "nonsense")
            assert done.exit_code == 2
            assert f"{option.opts[0]} 'nonsense': must be one of {', '.join(option.type.choices)}." in done.stderr
            assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", options.SHELLS)
def test_completion_prints_a_script(shell: str, cli: Callable[..., Result]) -> None:
    done = cli("completion", shell)
    assert done.exit_code == 0, done.output
    assert "_DISSECT_COMPLETE" in done.stdout


def completed(line: str, position: int) -> list[str]:
    """What the shell offers at a word of a line."""
    code = "from ganatomy.cli import main; main(prog_name='dissect')"
    environment = os.environ | {
        "_DISSECT_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(position),
    }
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return [line.partition(",")[2] for line in shown.stdout.splitlines()]


def test_the_shell_completes_choices_and_models() -> None:
    assert completed("dissect run progan_sc", 2) == ["progan_scenes", "progan_sc"]  # the last stands for files
    assert completed("dissect run x --significance f", 4) == ["fast", "full"]
    assert completed("dissect latents tru", 2) == ["truncation"]


def test_results_in_runs_have_an_index(cli: Callable[..., Result]) -> None:
    assert cli("run", *MINE, "--samples", 40, "--out", "runs/a", "--quiet").exit_code == 0
    assert "runs/a" in Path("runs/index.html").read_text()
    done = cli("latents", "interpolate", "mine:net", "--latent", "normal:6", "--samples", "0..1", "--device", "cpu")
    assert done.exit_code == 0, done.output
    page = Path(done.stdout.strip())
    assert page == Path("runs/mine.net-latents-interpolate/report/index.html")
    assert page.is_file()
    assert "mine.net-latents-interpolate" in Path("runs/index.html").read_text()
    Path("runs/index.html").unlink()
    assert cli("report", "runs").stdout.strip() == "runs/index.html"
    assert Path("runs/index.html").is_file()
    assert cli("report", "runs", "--single-file").exit_code == 2


def test_an_index_of_the_users_own_stays(cli: Callable[..., Result]) -> None:
    Path("runs").mkdir()
    Path("runs/index.html").write_text("mine")
    assert cli("run", *MINE, "--samples", 40, "--out", "runs/a", "--quiet").exit_code == 0
    assert Path("runs/index.html").read_text() == "mine"
