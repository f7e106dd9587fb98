"""Follow a training from outside: look at each checkpoint when it appears."""

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

POLL = 2.0  # seconds between looks into the folder; a file that has not changed meanwhile is whole
State = tuple[float, int]  # of a file: when it was changed, and its size


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
    """Look at the checkpoints in a folder, or that a pattern matches, by step; then at new and changed ones, for ever.

    Those that the watch's folder has a line of, and that have not changed since, are passed over. A file that cannot be
    opened as a generator or looked at is skipped, with its reason in `watch.skipped` and in the folder.

    Args:
        place: see `checkpoints`.
        watch: which looks.
        model: what the checkpoints are weights for; None recognises them.
        options: see `spec_of`.
        device: None chooses.
        once: stop when all that are there now have been looked at.
        quiet: do not say on stderr what is waited for.

    Yields the row of each, see `Watch.__call__`.

    Raises:
        UsageError: what the watch needs does not exist, told before anything is waited for; with `once`, nothing is
            there; the watch cannot look as it was asked to.
        DissectError: the watch's folder cannot be written; with `once`, none could be looked at.
    """
    device = usable_device(device)
    watch.check()
    if model is not None:
        if not is_factory(model):
            raise UsageError(f"--model {model!r}: the checkpoints are weights for code of yours; write file.py:Name.")
        load_generator(ModelSpec(model=model, **options), device=device, quiet=True)  # whether it can be made at all
    if not checkpoints(place) and not once:
        say(f"Waiting: {_expected(place)}", quiet)
    if once and not checkpoints(place):
        raise UsageError(f"{place} holds no checkpoint ({', '.join(CHECKPOINTS)}); name a folder or a pattern.")
    with locked(watch.folder):  # if nothing can be written there, it is told at once
        pass
    done = _looked_at(watch.folder)
    before: dict[Path, State] = {}
    looked = bool(done)
    while True:
        there = {path: state for path in checkpoints(place) if (state := _state(path))}
        for path, state in there.items():
            changed, _ = state
            whole = once or state == before.get(path) or changed < time.time() - POLL
            if not whole or changed <= done.get(path, 0):
                continue
            done[path] = changed
            try:
                generator = load_generator(spec_of(path, model, options), seed=watch.seed, device=device, quiet=True)
            except DissectError as error:
                watch.skip(str(path), str(error))
                continue
            try:
                row = watch(generator, step_of(path), checkpoint=str(path))
            except UsageError:  # of what was asked, the same for every checkpoint
                raise
            except DissectError as error:  # such as weights that are not finite
                watch.skip(str(path), str(error))
                continue
            looked = True
            yield row
        if once:
            if not looked and watch.skipped:
                skipped = watch.skipped[0]
                raise DissectError(f"No checkpoint could be looked at; {skipped['checkpoint']}: {skipped['why']}")
            return
        before = there
        time.sleep(POLL)


def _expected(place: str | Path) -> str:
    """What may still come, in words."""
    if Path(place).is_dir():
        return f"{place} holds no checkpoint yet ({', '.join(CHECKPOINTS)})."
    if any(sign in str(place) for sign in "*?["):
        return f"no file matches {place} yet."
    return f"there is no folder {place} yet; it may come when the training begins."


def _state(path: Path) -> State | None:
    """None if it has gone meanwhile."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime, found.st_size


def _looked_at(folder: Path) -> dict[Path, float]:
    """When the checkpoints of a watch's folder were looked at."""
    if not (folder / "watch.json").exists():
        return {}
    lines = Watched.load(folder).lines
    return {
        Path(path): datetime.fromisoformat(when).timestamp()
        for path, when in zip(lines.checkpoint, lines.created, strict=True)
    }
