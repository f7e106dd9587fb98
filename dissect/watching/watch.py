"""Watch: a callback that measures a generator in training, and writes a line for each checkpoint."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from ...hooks.errors import DissectError, DissectWarning, UsageError
from ...segmenters import load_segmenter
from ...segmenters.base import Segmenter
from ..fidelity.features import Features, open_features
from ..fidelity.reference import count_reference, reference_of
from ..generators.base import Generator
from ..generators.factory import as_generator
from ..generators.latents import parse_latents
from ..runtime.requests import check_integers
from ..runtime.resources import at_work, usual_batch
from ..storage.files import digest, write_atomic
from ..storage.folder_lock import LOCK, locked
from ..storage.result_folder import difference, header
from ..subjects.identity import fingerprint, segmenter_fingerprint
from ..subjects.inspection import inspect
from ..subjects.opening import layer_name, open_segmenter, usable_device
from .alarms import alarms
from .measure import Real, View, line, measure, measure_real
from .result import COLUMNS, PRESENCE, SHARE, Watched
from .tensorboard import Scalars

LEAST, MOST = 64, 1024  # samples
PICTURES = 8  # samples of each line that are shown
BOARD = "tensorboard"  # folder


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What measuring needs beside the generator: the same for every line."""

    segmenter: Segmenter
    extract: Features
    device: str
    layer: str
    batch: int
    reference: str | Path | None


class Watch:
    """Measure a generator now and then while it is trained, on the same latents every time: a line each.

        watch = dissect.Watch("runs/training", reference="photos", segmenter="hub:./mine", latent="normal:128")
        for step, images in enumerate(batches):
            ...
            if step % 1000 == 0:
                watch(generator, step)

    The first call also reads the reference. Each call leaves the network's modes and gradients as they were, and the
    random numbers of torch, numpy and Python. In a distributed training, one process watches. Lines that the folder
    already has are continued.

    Args:
        folder: where the lines are written, see `watching.result`.
        reference: folder of real images, or `scenes`; None is the drawn scenes for generators of them, else none: then
            only what needs no real images is measured.
        segmenter: as of `dissect.run`.
        layer: whose units are counted: a name, or a number as of `dissect.run`; None is the middle one of those that
            `dissect.inspect` suggests.
        samples: latents, 64 to 1,024. On fewer samples fewer units are labelled, and small losses go unseen.
        latent: `normal:128`, for an `nn.Module`; None tries what its layers suggest, see `as_generator`.
        output_range: what is black and what is white in its output; None measures it at the first look.
        seed: of the latents, and of the halves behind intervals.
        batch_size: None chooses.
        device: of the segmenter and the features; None is the generator's.
        page: called with the `Watched` after each line, to write a page, as `ganatomy.reports.watch.write_watch` does.

    Raises:
        UsageError: the number of samples, the seed, the batch size or the latent is not allowed.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        reference: str | Path | None = None,
        segmenter: str | Segmenter | None = None,
        layer: str | int | None = None,
        samples: int = 64,
        latent: str | None = None,
        output_range: tuple[float, float] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        device: str | None = None,
        page: Callable[[Watched], object] | None = None,
    ) -> None:
        if not LEAST <= samples <= MOST:
            raise UsageError(f"--samples {samples}: must be between {LEAST} and {MOST}.")
        check_integers({"--seed": (seed, 0), "--batch-size": (batch_size, 1)})
        self.folder, self.samples, self.seed = Path(folder), samples, seed
        self.skipped: list[dict[str, str]] = []  # checkpoint and why
        if latent is not None:
            parse_latents(latent)  # says at once what is wrong with it
        self._latent = latent
        self._output_range, self._page = output_range, page
        self._reference, self._segmenter, self._layer = reference, segmenter, layer
        self._batch, self._device = batch_size, device
        self._opened: _Opened | None = None
        self._real: dict[torch.Size, Real | None] = {}  # by size of the images, which may grow
        self._scalars: Scalars | None = None

    def __call__(
        self,
        model: Generator | nn.Module,
        step: int | None = None,
        *,
        checkpoint: str = "",
    ) -> dict[str, Any]:
        """Measure a generator, write its line, and return it.

        Args:
            model: a Generator, whose own seed is replaced by that of the watch, or a module that takes `latent`.
            step: of the training; None is the number of lines before.
            checkpoint: the name of this state of the network.

        Raises:
            UsageError: the latents of a module are not known, there is no segmenter or no such layer, or the folder
                holds something else.
            DissectError: a network failed, or the line cannot be written; earlier lines stay as they were.
        """
        with _random_state_restored():
            return self._look(model, step, checkpoint)

    def _look(self, model: Generator | nn.Module, step: int | None, checkpoint: str) -> dict[str, Any]:
        started, created = time.perf_counter(), datetime.now(UTC).isoformat(timespec="milliseconds")
        module = model.module if isinstance(model, Generator) else model
        with _untouched(module), at_work():
            generator = self._generator(model)
            self._opened = opened = self._opened or self._open(generator)
            size = generator(generator.latents([0])).shape[2:]
            if size not in self._real:
                self._real[size] = self._measure_real(opened, size)
            real = self._real[size]
            _seed_noise(module, self.seed)
            view = measure(generator, opened.segmenter, opened.extract, opened.layer, self.samples, opened.batch)
            figures = line(view, real, opened.segmenter.vocabulary.names, self.seed)
        with locked(self.folder):
            watched = self._load_or_begin(opened, generator.name)
            row = {
                "checkpoint": checkpoint,
                "step": len(watched.lines) if step is None else int(step),
                "created": created,
                "sha256": fingerprint(module),
                "alarms": "",
                **figures,
            }
            row["alarms"] = "; ".join(alarms(_appended(watched.lines, row), self.samples))
            row["seconds"] = round(time.perf_counter() - started, 3)
            watched = Watched(
                folder=self.folder,
                info=watched.info | _described(view, real),
                lines=_appended(watched.lines, row),
            )
            self._write(replace(watched, info=watched.info | {"skipped": self._all_skipped(watched)}), view)
            self._scalars = self._scalars or Scalars(self.folder / BOARD)
            self._scalars.add(row)
        return row

    def check(self) -> None:
        """Open what needs no generator, the segmenter and the list of reference images, so that errors come early.

        Raises:
            UsageError: one of them does not exist.
            DissectError: the segmenter cannot be loaded.
        """
        if isinstance(self._segmenter, str):
            self._segmenter = load_segmenter(self._segmenter, usable_device(self._device))
        if self._reference is not None:
            count_reference(self._reference)

    def skip(self, checkpoint: str, why: str) -> None:
        """Warn of a checkpoint that could not be measured, and record it: in the folder as soon as that has a line."""
        warnings.warn(f"{checkpoint} is skipped: {why}", DissectWarning, stacklevel=3)
        self.skipped.append({"checkpoint": checkpoint, "why": why})
        if not (self.folder / "watch.json").exists():
            return  # it is recorded with the first line
        with locked(self.folder):
            watched = Watched.load(self.folder)
            watched = replace(watched, info=watched.info | {"skipped": self._all_skipped(watched)})
            self._save(watched)

    def _all_skipped(self, watched: Watched) -> list[dict[str, str]]:
        """Checkpoints skipped now or earlier, each with its last reason, without those measured since."""
        skipped = {entry["checkpoint"]: entry for entry in watched.info["skipped"] + self.skipped}
        measured = set(watched.lines.get("checkpoint", []))
        return [entry for name, entry in skipped.items() if name not in measured]

    def _generator(self, model: Generator | nn.Module) -> Generator:
        if isinstance(model, Generator):
            return replace(model, source=model.source.seeded(self.seed))
        generator = as_generator(model, latent=self._latent, output_range=self._output_range)
        self._latent, self._output_range = str(generator.source), generator.output_range  # the same for all checkpoints
        return replace(generator, source=generator.source.seeded(self.seed))

    def _open(self, generator: Generator) -> _Opened:
        device = str(self._device or generator.device)
        layer = self._layer
        if layer is None:
            table = inspect(generator, device=str(generator.device)).layers
            suggested = list(table.layer[table.suggested])
            if not suggested:
                raise UsageError(f"{generator.name} has no layer whose units could be counted; name one by layer=….")
            layer = suggested[len(suggested) // 2]
        return _Opened(
            segmenter=open_segmenter(self._segmenter, generator, device),
            extract=open_features(None, device),
            device=device,
            layer=layer_name(generator, layer),
            batch=self._batch or usual_batch(generator.device),
            reference=reference_of(generator, self._reference),
        )

    def _measure_real(self, opened: _Opened, size: torch.Size) -> Real | None:
        if opened.reference is None:
            return None
        return measure_real(
            opened.reference,
            (size[0], size[1]),
            opened.extract,
            opened.segmenter,
            opened.device,
            samples=self.samples,
            seed=self.seed,
        )

    def _load_or_begin(self, opened: _Opened, name: str) -> Watched:
        """The watch in the folder, or a new one without lines."""
        vocabulary = opened.segmenter.vocabulary
        config = {
            "samples": self.samples,
            "seed": self.seed,
            "layer": opened.layer,
            "segmenter": opened.segmenter.name,
            "segmenter_sha256": segmenter_fingerprint(opened.segmenter),
            "reference": None if opened.reference is None else str(opened.reference),
            "reference_sha256": digest(opened.reference),
        }
        if (self.folder / "watch.json").exists():
            watched = Watched.load(self.folder)
            if differences := difference(watched.info.get("config", {}), config):
                raise UsageError(f"{self.folder} holds another watch ({differences}); give another folder.")
            return watched
        if others := {path.name for path in self.folder.iterdir()} - {LOCK, BOARD, "pictures"}:
            raise UsageError(f"{self.folder} exists and holds {min(others)}, but no watch; give another folder.")
        info = {
            **header(),
            "generator": name,
            "samples": self.samples,
            "seed": self.seed,
            "layer": opened.layer,
            "segmenter": opened.segmenter.name,
            "names": list(vocabulary.names),
            "colours": list(vocabulary.colours),
            "features": opened.extract.note,
            "skipped": [],
            "config": config,
        }
        return Watched(folder=self.folder, info=info, lines=pd.DataFrame())

    def _write(self, watched: Watched, view: View) -> None:
        """Write pictures, tables and page; the last row is that of `view`."""
        try:
            (self.folder / "pictures").mkdir(exist_ok=True)
            strip = Image.fromarray(np.concatenate(list(view.look.pictures[:PICTURES]), axis=1))
            path = self.folder / watched.picture(len(watched.lines) - 1)
            write_atomic(path, lambda file: strip.save(file, "WEBP", quality=90))
        except OSError as error:
            raise self._unwritable(error) from error
        self._save(watched)

    def _unwritable(self, error: OSError) -> DissectError:
        return DissectError(f"{self.folder} cannot be written to ({error.strerror or error}); make room.")

    def _save(self, watched: Watched) -> None:
        try:
            watched.update()
        except OSError as error:
            raise self._unwritable(error) from error
        if self._page:
            try:
                self._page(watched)
            except DissectError as error:  # the line is saved, and a page is no reason to end a training
                warnings.warn(
                    f"{watched.folder}: the line was written, but not the page: {error}",
                    DissectWarning,
                    stacklevel=4,
                )


def _appended(lines: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    """The lines and, after them, the row, in the columns of watch.csv."""
    columns = [*COLUMNS, *(name for name in row if name.startswith((SHARE, PRESENCE)))]
    return pd.DataFrame([*lines.to_dict("records"), row], columns=columns)


def _described(view: View, real: Real | None) -> dict[str, Any]:
    """What watch.json says of the last measured network and of the real images."""
    return {"units": len(view.units), **(real.described() if real else {"reference": None})}


@contextmanager
def _random_state_restored() -> Iterator[None]:
    """Afterwards the global random numbers of Python and numpy continue as before: libraries draw some on import."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the legacy state is the global one
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Inside, torch has its defaults, whatever the training has set, and no gradients. Afterwards its random numbers
    and the training modes of the submodules are as they were.
    """
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    gpus = _gpus(module)
    with ExitStack() as stack:
        for kind in ("cpu", *(["cuda"] if gpus else [])):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[gpu.index for gpu in gpus]))
        try:
            yield
        finally:
            for submodule, training in modes:
                submodule.training = training


def _seed_noise(module: nn.Module, seed: int) -> None:
    """Let networks that draw noise draw the same at every checkpoint."""
    torch.default_generator.manual_seed(seed)
    for gpu in _gpus(module):
        with torch.cuda.device(gpu):
            torch.cuda.manual_seed(seed)


def _gpus(module: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in module.parameters() if tensor.device.type == "cuda"}
