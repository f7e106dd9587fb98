"""Progress: plain lines where there is no terminal, bars on one, estimates, and notebooks."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ganatomy.dissect.runtime import progress
from ganatomy.dissect.runtime.progress import Fewer, Progress, duration, estimate, waiting

WORK = """
import time
from ganatomy.dissect.runtime import progress
progress.LONG, progress.EVERY = 0.5, 0.4
with progress.Progress(False, 2) as shown:
    with shown.task("first", 10) as advance:
        advance(10)
    with shown.task("second", 40, fewer=progress.Fewer("samples", 40, 1)) as advance:
        for _ in range(20):
            time.sleep(0.12)
            advance(2)
"""


def piped(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_pipe_gets_plain_lines() -> None:
    lines = piped(WORK)
    assert [lines[0], lines[2]] == ["stage 1 of 2, first: 10 images", "stage 2 of 2, second: 40 images"]
    assert re.fullmatch(r"first: 10 in \d s", lines[1])
    assert lines[-1].startswith("second: 40 in ")
    reports = [line for line in lines if line.startswith("second: ") and " of 40, " in line]
    assert len(reports) >= 3
    counts = [int(line.split()[1]) for line in reports]
    assert counts == sorted(counts)
    assert all("/s, " in line and line.endswith(" left") for line in reports[1:])
    assert not any("\x1b" in line for line in lines)


def test_an_estimate_is_said_once() -> None:
    (said,) = [line for line in piped(WORK) if "about" in line]
    assert re.fullmatch(r"40 images, about \d s.*", said)


def test_a_terminal_gets_bars() -> None:
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([sys.executable, "-c", WORK], stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    output = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        output += block
    assert process.wait() == 0
    text = output.decode()
    assert "40/40" in text
    assert "2 of 2" in text
    assert "\x1b[" in text
    assert re.search(r"about \d s", text)
    assert "second: 40 in" not in text


@pytest.mark.parametrize(
    ("seconds", "fewer", "command", "text"),
    [
        (240, Fewer("samples", 48, 1), True, "12,288 images, about 4 min; --samples 4: about 20 s"),
        (240, Fewer("samples", 1000, 100), True, "12,288 images, about 4 min; --samples 100: about 24 s"),
        (240, Fewer("samples", 1000, 100), False, "12,288 images, about 4 min; samples=100: about 24 s"),
        (240, Fewer("samples", 120, 100), True, "12,288 images, about 4 min"),  # nothing useful is much shorter
        (40, Fewer("samples", 100, 1), True, "12,288 images, about 40 s"),  # nor much is gained
        (240, None, True, "12,288 images, about 4 min"),
    ],
)
def test_the_advice_is_an_option_of_use(seconds: float, fewer: Fewer | None, command: bool, text: str) -> None:
    assert estimate(12288, "images", seconds, fewer, command=command) == text


def test_durations_grow_with_seconds() -> None:
    words = [duration(seconds) for seconds in (0, 59, 61, 119, 3000, 7200)]
    assert words == ["1 s", "59 s", "61 s", "2 min", "50 min", "2 h 0 min"]


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(True) as shown, shown.task("work", 2) as advance:
        advance(2)
    with waiting("searching", True):
        pass
    assert capsys.readouterr() == ("", "")


def test_work_that_fails_has_no_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), Progress(False) as shown, shown.task("work", 2):
        raise ValueError("no")
    assert capsys.readouterr().err == "work: 2 images\n"


def test_waiting_says_so_after_a_while(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SLOW", 0.05)
    monkeypatch.setattr(progress, "EVERY", 0.1)
    import time

    with waiting("Finding out which network g.pth holds", False):
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Finding out which network g.pth holds …"
    assert lines[1].startswith("Finding out which network g.pth holds: 1 s so far")


def test_a_notebook_without_widgets_gets_lines_and_no_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Progress(False) as shown, shown.task("work", 2) as advance:
            advance(2)
    captured = capsys.readouterr()
    assert captured.err == ""  # which a notebook paints red
    assert captured.out == "work: 2 images\nwork: 2 in 1 s\n"


def test_the_extra_for_notebooks_names_widgets() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "ipywidgets" in text.partition("notebook = ")[2].partition("\n")[0]
