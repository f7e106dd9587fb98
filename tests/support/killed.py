"""Runs that end before their time, each in a process of its own; called by test_crashes.py.

The processes are forked from this one, which has torch loaded already: starting Python twenty times takes minutes.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.tests.conftest import ColourSegmenter, Painter

SAMPLES = 500
TABLES = ("units.csv", "classes.csv", "scores.npz", "tops.npz")
ARGUMENTS = [
    "run",
    "--model",
    "ganatomy.tests.support.killed:painter",
    "--segmenter",
    "ganatomy.tests.support.killed:names",
]
ARGUMENTS += ["--layer", "paint", "--samples", str(SAMPLES), "--no-report", "--out"]


def painter() -> Generator:
    return Generator(module=Painter(), name="painter", source=NormalLatents((6,)), layers=("paint",))


def names() -> ColourSegmenter:
    return ColourSegmenter()


class Slow(ColourSegmenter):
    """Takes its time over every batch."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2)
        return super().__call__(images)


def run(folder: Path, segmenter: ColourSegmenter | None = None) -> None:
    dissect.run(
        painter(),
        layers=["paint"],
        segmenter=segmenter or names(),
        samples=SAMPLES,
        controls=["untrained"],
        out=folder,
        quiet=True,
    )


def forked(work: Callable[[], object]) -> int:
    """The number of a process that does the work."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def tables(folder: Path) -> list[bytes]:
    return [(folder / place / name).read_bytes() for place in (".", "controls/untrained") for name in TABLES]


def killed(whole: Path, place: Path) -> dict[str, object]:
    """Kill at twenty random moments, and go on each time."""
    started = time.monotonic()
    assert ended(forked(lambda: run(place / "timed"))) == 0
    lasting = time.monotonic() - started
    dice, found = random.Random(0), []
    for number in range(80):  # some end before they are killed
        folder = place / str(number)
        process = forked(lambda folder=folder: run(folder))  # type: ignore[misc]
        time.sleep(dice.uniform(0, lasting))
        os.kill(process, signal.SIGKILL)
        if ended(process) != -signal.SIGKILL:
            continue
        try:
            dissect.Dissection.load(folder)
            state = "complete"
        except UsageError:
            state = "incomplete" if (folder / "run.json").exists() else "nothing yet"
        again = ended(forked(lambda folder=folder: run(folder)))  # type: ignore[misc]
        found.append((state, again, tables(folder) == tables(whole), len(list(folder.rglob("*.part")))))
        if len(found) == 20:
            break
    return {"moments": found}


def full(whole: Path, place: Path) -> dict[str, object]:
    """A disk on which no file can grow beyond some size; then there is room again."""
    found = []
    for limit in (2_000, 40_000):  # for run.json, not for a shard; for a shard, not for the tables of counts

        def narrow(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            main([*ARGUMENTS, str(place / f"narrow{limit}"), "--quiet"])

        first = ended(forked(narrow))
        left = [path.name for path in (place / f"narrow{limit}").rglob("*.part")]
        again = ended(forked(lambda limit=limit: run(place / f"narrow{limit}")))  # type: ignore[misc]
        found.append((first, left, again, tables(place / f"narrow{limit}") == tables(whole)))
    return {"full": found}


def interrupted(whole: Path, place: Path) -> dict[str, object]:
    """Ctrl-C."""

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main([*ARGUMENTS, str(place / "stopped")])

    process = forked(work)
    while not list((place / "stopped").glob("spool/shard-*")):
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    code = ended(process)
    again = ended(forked(lambda: run(place / "stopped")))
    return {"interrupted": (code, again, tables(place / "stopped") == tables(whole))}


def together(whole: Path, place: Path) -> dict[str, object]:
    """Two at once in one folder; then the first is killed."""
    folder = place / "shared"
    process = forked(lambda: run(folder, Slow()))
    while not list(folder.glob("spool/shard-*")):
        time.sleep(0.01)
    try:
        run(folder)
        said = ""
    except DissectError as error:
        said = str(error)
    os.kill(process, signal.SIGKILL)
    ended(process)
    return {"together": (said, ended(forked(lambda: run(folder))), tables(folder) == tables(whole))}


if __name__ == "__main__":
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    base = Path(sys.argv[1])
    assert ended(forked(lambda: run(base / "whole"))) == 0
    for scene in (killed, full, interrupted, together):
        print(json.dumps(scene(base / "whole", base)), flush=True)
