"""Progress on stderr: bars on a terminal, plain lines elsewhere, and an estimate before long work.

Plain lines are for pipes, logs of clusters and CI, and notebooks without ipywidgets: one when a task starts, one every
half minute, one when it ends.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import TracebackType
from typing import NamedTuple, Protocol

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from . import distributed

Advance = Callable[[int], None]

EVERY = 30.0  # seconds between two plain lines
LONG = 20.0  # seconds; longer work is announced with an estimate
SHORT = 30.0  # seconds that the advised smaller amount of work may take
SETTLED = 1.0  # seconds after the first batch, which warms up, until the rate is trusted
SLOW = 5.0  # seconds; a first batch that takes longer is trusted itself

# tqdm's own complaint about notebooks without ipywidgets, when other libraries import it
warnings.filterwarnings("ignore", message="IProgress not found")


class Fewer(NamedTuple):
    """The option that makes a task shorter: its name, its value now, and the least that is useful."""

    option: str
    value: int
    least: int


def say(text: str, quiet: bool) -> None:
    """A line on stderr, as bars are; of several processes the first one says it."""
    if not quiet and distributed.rank() == 0:
        _console().print(escape(text), soft_wrap=True)


def duration(seconds: float) -> str:
    """A duration in words.

    >>> [duration(seconds) for seconds in (0.2, 24, 89.6, 240, 5400, 8000)]
    ['1 s', '24 s', '90 s', '4 min', '1 h 30 min', '2 h 13 min']
    """
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def estimate(total: int, noun: str, seconds: float, fewer: Fewer | None, *, command: bool) -> str:
    """How long a task takes, and what would make it shorter.

    Args:
        seconds: for all of it.
        command: whether the option is one of a command line, or an argument in Python.

    >>> estimate(12288, "images", 240, Fewer("samples", 128, 1), command=True)
    '12,288 images, about 4 min; --samples 16: about 30 s'
    >>> estimate(256, "units", 25, None, command=False)
    '256 units, about 25 s'
    """
    text = f"{total:,} {noun}, about {duration(seconds)}"
    if fewer is None:
        return text
    value = max(fewer.least, _round_number(fewer.value * SHORT / seconds))
    if 2 * value > fewer.value:
        return text
    option = f"--{fewer.option} {value}" if command else f"{fewer.option}={value}"
    return f"{text}; {option}: about {duration(seconds * value / fewer.value)}"


def _round_number(value: float) -> int:
    """The largest round number up to a value.

    >>> [_round_number(value) for value in (0.5, 3, 17, 99, 730)]
    [1, 2, 16, 64, 500]
    """
    round_numbers = (1, 2, 4, 8, 16, 32, 64, *(digit * 10**power for power in range(2, 9) for digit in (1, 2, 5)))
    return max((number for number in round_numbers if number <= value), default=1)


@contextmanager
def waiting(text: str, quiet: bool) -> Iterator[None]:
    """Around work of unknown length: says `text` once it takes longer than some seconds, and how long it has taken."""
    began = time.monotonic()

    def report(first: bool) -> None:
        say(f"{text} …" if first else f"{text}: {duration(time.monotonic() - began)} so far …", quiet)

    with _repeated(report, SLOW):
        yield


@contextmanager
def _repeated(call: Callable[[bool], None], after: float) -> Iterator[None]:
    """Call a function in a thread, after some seconds and then every half minute; with whether it is the first call."""
    ended = threading.Event()

    def repeat() -> None:
        first = True
        while not ended.wait(after if first else EVERY):
            call(first)
            first = False

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _in_notebook() -> bool:
    return Console().is_jupyter


def _console() -> Console:
    """The console for progress; a notebook shows what is written to stderr as an error, so there it is stdout."""
    return Console(file=sys.stdout if _in_notebook() else sys.stderr, highlight=False, force_jupyter=False)


@dataclass
class _Work:
    """One task while it runs. first: when its first batch was done, and how much that was."""

    description: str
    stage: str
    total: int
    done: int
    noun: str
    fewer: Fewer | None
    began: float = field(default_factory=time.monotonic)
    first: tuple[float, int] | None = None
    before: int = 0  # done earlier, by a command that was interrupted
    estimated: bool = False

    def __post_init__(self) -> None:
        self.before = self.done

    def settled_rate(self) -> float | None:
        """How much is done in a second, once that is known well."""
        now = time.monotonic()
        if self.first is None:
            self.first = now, self.done
        since, done = self.first
        if self.done > done and now - since >= SETTLED:
            return (self.done - done) / (now - since)
        return self.rate if now - self.began > SLOW else None

    @property
    def rate(self) -> float | None:
        """How much is done in a second."""
        done, elapsed = self.done - self.before, time.monotonic() - self.began
        return done / elapsed if done and elapsed else None

    @property
    def pace(self) -> str:
        """The rate and the time left in words."""
        if not self.rate:
            return f"{duration(time.monotonic() - self.began)} so far"
        rate = f"{self.rate:,.0f}/s" if self.rate >= 1 else f"{duration(1 / self.rate)} each"
        return f"{rate}, {duration((self.total - self.done) / self.rate)} left"

    @property
    def end(self) -> str:
        return f"{self.description}: {self.total:,} in {duration(time.monotonic() - self.began)}"


class _Display(Protocol):
    """How progress is shown."""

    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def begin(self, work: _Work) -> None: ...
    def update(self, work: _Work) -> None: ...
    def end(self, work: _Work) -> None: ...
    def say(self, text: str) -> None: ...


class _Nothing:
    """For `quiet`, and for all processes but the first one."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        pass

    def begin(self, work: _Work) -> None:
        pass

    update = end = begin

    def say(self, text: str) -> None:
        pass


class _Lines:
    """Plain lines."""

    def __init__(self) -> None:
        self._console = _console()
        self._running: list[_Work] = []
        self._ticker = _repeated(lambda _first: self._report(), EVERY)

    def __enter__(self) -> None:
        self._ticker.__enter__()

    def __exit__(self, *error: object) -> None:
        self._ticker.__exit__(None, None, None)

    def begin(self, work: _Work) -> None:
        self._running.append(work)
        self.say(f"{work.stage and work.stage + ', '}{work.description}: {work.total:,} {work.noun}".rstrip())

    def update(self, work: _Work) -> None:
        pass

    def end(self, work: _Work) -> None:
        self._running.remove(work)
        if work.done >= work.total:
            self.say(work.end)

    def say(self, text: str) -> None:
        self._console.print(escape(text), soft_wrap=True)

    def _report(self) -> None:
        for work in tuple(self._running):
            self.say(f"{work.description}: {work.done:,} of {work.total:,}, {work.pace}")


class _Bars:
    """Bars on a terminal, or the widgets of a notebook."""

    def __init__(self) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("[cyan]{task.fields[pace]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> None:
        self._bars.start()

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()

    def begin(self, work: _Work) -> None:
        stage = f"[dim]{work.stage.removeprefix('stage ')}[/] " if work.stage else ""
        description = f"{stage}{escape(work.description):<22}"
        self._tasks[id(work)] = self._bars.add_task(description, total=work.total, completed=work.done, pace="")

    def update(self, work: _Work) -> None:
        self._bars.update(self._tasks[id(work)], completed=work.done, pace=work.pace)

    def end(self, work: _Work) -> None:
        took = duration(time.monotonic() - work.began) if work.done >= work.total else "stopped"
        self._bars.update(self._tasks.pop(id(work)), pace=took)

    def say(self, text: str) -> None:
        self._bars.console.print(escape(text), soft_wrap=True, highlight=False)


def _display(quiet: bool) -> _Display:
    if quiet or distributed.rank() > 0:
        return _Nothing()
    if _in_notebook():
        return _Bars() if find_spec("ipywidgets") else _Lines()
    return _Bars() if Console(stderr=True).is_terminal else _Lines()


class Progress:
    """The tasks of a job; with `quiet`, nothing is shown. Of several processes the first one shows what all have done.

    stages: how many tasks the job has, if that is known: each then says which one it is.
    """

    def __init__(self, quiet: bool, stages: int | None = None) -> None:
        self._display = _display(quiet)
        self.stages, self._stage = stages, 0
        self._long = LONG  # an estimate is said for work of more seconds than this

    def __enter__(self) -> Progress:
        self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.__exit__(kind, error, trace)

    @contextmanager
    def task(
        self,
        description: str,
        total: int,
        done: int = 0,
        *,
        spread: bool = False,
        noun: str = "images",
        fewer: Fewer | None = None,
    ) -> Iterator[Advance]:
        """One task; yields the function that moves it on.

        Args:
            description: what is done, in two or three words.
            total, done: how much there is to do, and how much of it was done before.
            spread: the work is shared among the processes; otherwise every process does all of it.
            noun: what is counted.
            fewer: the option that makes it shorter.
        """
        work = _Work(description, self._next_stage(), total, done, noun, fewer)
        self._display.begin(work)
        counter = distributed.Counter() if spread and distributed.size() > 1 else None

        def show(count: int) -> None:
            work.done = done + count
            self._estimate(work)
            self._display.update(work)

        def advance(count: int) -> None:
            show(work.done - done + count if counter is None else counter.add(count))

        try:
            yield advance
            if counter is not None:
                counter.wait(show)
        finally:
            self._display.end(work)

    def _next_stage(self) -> str:
        self._stage += 1
        several = self.stages is not None and 1 < self.stages >= self._stage
        return f"stage {self._stage} of {self.stages}" if several else ""

    def _estimate(self, work: _Work) -> None:
        """Say how long a task takes, as soon as that is known and if it is long; again only for a longer one."""
        if work.estimated or not work.noun or (rate := work.settled_rate()) is None:
            return
        work.estimated = True
        left = (work.total - work.done) / rate
        if left > self._long:
            command = click.get_current_context(silent=True) is not None
            seconds = (work.total - work.before) / rate
            self._display.say(estimate(work.total - work.before, work.noun, seconds, work.fewer, command=command))
            self._long = 2 * left
