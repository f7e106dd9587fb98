"""Follow a training from outside: measure each checkpoint when it appears."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ...hooks.errors import DissectError, UsageError
from ...hooks.user_code import is_factory
from ..candidates.checkpoint_files import CHECKPOINTS, checkpoints, spec_of, step_of
from ..generators.loading import load_generator
from ..generators.spec import ModelSpec
from ..runtime.progress import say
from ..storage.folder_lock import locked
from ..subjects.opening import usable_device
from .result import Watched
from .watch import Watch

POLL = 2.0  # seconds between looks into the folder
State = tuple[float, int]  # of a file: time of its last change, size


def follow(
    place: str | Path,
    watch: Watch,
    *,
    model: str | None = None,
    options: Mapping[str, Any],
    device: str | None = None,
    once: bool = False,
    quiet: bool = True,
) -> Iterator[dict[str, Any]]:
    """Measure the checkpoints in a folder, or that a pattern matches, by step; then new and changed ones, for ever.

    Checkpoints that the watch's folder has a line of, and that have not changed since, are passed over. A file that
    cannot be opened as a generator or measured is skipped; `watch.skipped` and the folder say why.

    Args:
        place: see `checkpoints`.
        watch: measures.
        model: what the checkpoints are weights for; None recognises them.
        options: see `spec_of`.
        device: None chooses.
        once: stop when the checkpoints that are there now have been measured.
        quiet: do not say on stderr what is waited for.

    Yields the row of each, see `Watch.__call__`.

    Raises:
        UsageError: a segmenter, reference or model does not exist (raised before anything is waited for); with `once`,
            there is no checkpoint; the watch cannot measure what it was asked to.
        DissectError: the watch's folder cannot be written; with `once`, no checkpoint could be measured.
    """
    device = usable_device(device)
    watch.check()
    if model is not None:
        if not is_factory(model):
            raise UsageError(f"--model {model!r}: checkpoints are weights for your own code; write file.py:Name.")
        load_generator(ModelSpec(model=model, **options), device=device, quiet=True)  # raises if it cannot be built
    if not checkpoints(place):
        if once:
            raise UsageError(f"{place} holds no checkpoint ({', '.join(CHECKPOINTS)}); name a folder or a pattern.")
        say(f"Waiting: {_awaited(place)}", quiet)
    with locked(watch.folder):  # raises now, not after hours, if nothing can be written there
        pass
    measured = _measured(watch.folder)
    any_rows = bool(measured)
    for path in _new_checkpoints(place, measured, once=once):
        try:
            generator = load_generator(spec_of(path, model, options), seed=watch.seed, device=device, quiet=True)
        except DissectError as error:
            watch.skip(str(path), str(error))
            continue
        try:
            row = watch(generator, step_of(path), checkpoint=str(path))
        except UsageError:  # the request is wrong, for this checkpoint and every other
            raise
        except DissectError as error:  # such as weights that are not finite
            watch.skip(str(path), str(error))
            continue
        any_rows = True
        yield row
    if not any_rows and watch.skipped:
        skipped = watch.skipped[0]
        raise DissectError(f"No checkpoint could be measured; {skipped['checkpoint']}: {skipped['why']}")


def _new_checkpoints(place: str | Path, measured: Mapping[Path, float], *, once: bool) -> Iterator[Path]:
    """The checkpoints that changed after they were `measured`, each when it is written to its end; without `once`, for
    ever.

    A file counts as written when it has not changed for two seconds, or between two looks into the folder.
    """
    yielded = dict(measured)
    before: dict[Path, State] = {}
    while True:
        states = {path: state for path in checkpoints(place) if (state := _state(path))}
        for path, state in states.items():
            changed, _ = state
            is_written = once or state == before.get(path) or changed < time.time() - POLL
            if is_written and changed > yielded.get(path, 0):
                yielded[path] = changed
                yield path
        if once:
            return
        before = states
        time.sleep(POLL)


def _awaited(place: str | Path) -> str:
    """What is waited for, in words."""
    if Path(place).is_dir():
        return f"{place} holds no checkpoint yet ({', '.join(CHECKPOINTS)})."
    if any(sign in str(place) for sign in "*?["):
        return f"no file matches {place} yet."
    return f"there is no folder {place} yet; it may come when the training begins."


def _state(path: Path) -> State | None:
    """None if the file has been removed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime, status.st_size


def _measured(folder: Path) -> dict[Path, float]:
    """The checkpoints that a watch's folder has lines of, and when they were measured."""
    if not (folder / "watch.json").exists():
        return {}
    lines = Watched.load(folder).lines
    return {
        Path(path): datetime.fromisoformat(created).timestamp()
        for path, created in zip(lines.checkpoint, lines.created, strict=True)
    }
