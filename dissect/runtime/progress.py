"""Progress bars with rate and time left, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from . import distributed

Advance = Callable[[int], None]


def say(text: str, quiet: bool) -> None:
    """A line on stderr, as bars are; of several processes the first one says it."""
    if not quiet and distributed.rank() == 0:
        Console(stderr=True, highlight=False).print(escape(text), soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


class Progress:
    """A group of bars; with `quiet`, none is shown. Of several processes the first one shows what all have done."""

    def __init__(self, quiet: bool) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or distributed.rank() > 0,
        )

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, description: str, total: int, done: int = 0, *, spread: bool = False) -> Iterator[Advance]:
        """A bar; yields the function that moves it on.

        `spread`: the work is shared among the processes; otherwise every process does all of it.
        """
        task = self._bars.add_task(description, total=total, completed=done)
        if not spread or distributed.size() == 1:
            yield lambda count: self._bars.advance(task, count)
            return
        counter = distributed.Counter()

        def show(everywhere: int) -> None:
            self._bars.update(task, completed=done + everywhere)

        yield lambda count: show(counter.add(count))
        counter.wait(show)
