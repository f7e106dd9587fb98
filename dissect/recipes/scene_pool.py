"""Scenes drawn beforehand, by all cores, and kept as bytes in a folder: what the recipes train on.

    python -m ganatomy.dissect.recipes.scene_pool --out training/scenes --count 300000 --processes 16

The folder holds `images-0000.npy` (500, 3, S, S) and `labels-0000.npy` (500, S, S), uint8, for scenes 0 to 499 of a
seed, and so on; `scenes.json` says of which seed and size. A training may start as soon as the first are there: a
`ScenePool` takes in the others as they come.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from ...hooks.errors import DissectError, UsageError
from ..scenes.canvas import LABEL
from ..scenes.render import RARE, render
from ..storage.files import read_json, write_json

CHUNK = 500  # scenes a file
LEAST = 10 * CHUNK  # scenes with which a training starts


def draw_chunk(folder: Path, side: int, seed: int, number: int) -> None:
    """Draw and write one chunk, unless it is there. The images come last, so that whoever sees them finds labels."""
    images_file, labels_file = chunk_files(folder, number)
    if images_file.exists():
        return
    images, labels = render(range(number * CHUNK, (number + 1) * CHUNK), side=side, seed=seed)
    for file, array in ((labels_file, labels), (images_file, (images * 255).round().astype(np.uint8))):
        partial_file = file.with_suffix(f".{os.getpid()}.part")
        with partial_file.open("wb") as target:
            np.save(target, array)
        partial_file.rename(file)


def chunk_files(folder: Path, number: int) -> tuple[Path, Path]:
    """The files of images and of labels."""
    return folder / f"images-{number:04d}.npy", folder / f"labels-{number:04d}.npy"


def claim(folder: Path, *, side: int, seed: int) -> None:
    """Make the folder one of scenes of this size and seed.

    Raises:
        UsageError: it is one of others, or does not say of which; nothing is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, wanted = folder / "scenes.json", {"side": side, "seed": seed}
    if not file.exists() and not any(folder.glob("images-*.npy")):
        write_json(file, wanted)
    stored = read_json(file, ("side", "seed")) if file.exists() else {}
    if stored != wanted:
        known = f" of seed {stored['seed']}, {stored['side']} pixels" if stored else ", and does not say of which seed"
        raise UsageError(f"{folder} holds scenes{known}; must be of seed {seed}, {side} pixels. Give another folder.")


def draw_pool(folder: Path, count: int, *, side: int, seed: int, processes: int) -> None:
    """Draw the first `count` scenes of a seed; chunks that are there stay."""
    claim(folder, side=side, seed=seed)
    work = partial(draw_chunk, folder, side, seed)
    numbers = range(-(-count // CHUNK))
    if processes == 1:
        for number in numbers:
            work(number)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        for _ in workers.imap_unordered(work, numbers):
            pass


class ScenePool:
    """The scenes of a folder, in the memory of a device; `grow` takes in what has come since.

    Args:
        folder: where `draw_pool` writes.
        most: scenes to hold.
        labels: whether labels are kept, too.
        alive: whether somebody is still drawing.
    """

    def __init__(
        self,
        folder: Path,
        most: int,
        *,
        device: str,
        labels: bool = False,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._alive = alive
        self.folder, self.device, self.with_labels = folder, device, labels
        self.chunks = most // CHUNK
        self.taken = 0  # chunks
        self.images, self.labels = torch.empty(0), torch.empty(0)
        self.rare = torch.empty(0, dtype=torch.int64, device=device)  # scenes that show a rare class
        self._count = torch.zeros((), device=device)  # of scenes: a captured graph reads it anew at every replay

    def grow(self) -> int:
        """Take in the chunks that have appeared, in order; how many scenes there are now."""
        while self.taken < self.chunks:
            images_file, labels_file = chunk_files(self.folder, self.taken)
            if not images_file.exists():
                break
            images = torch.from_numpy(np.load(images_file))
            if not self.taken:  # memory for all, once their size is known
                count, side = self.chunks * CHUNK, images.shape[-1]
                self.images = torch.empty(count, 3, side, side, dtype=torch.uint8, device=self.device)
                self.labels = torch.empty(
                    count if self.with_labels else 0, side, side, dtype=torch.uint8, device=self.device
                )
            here = slice(self.taken * CHUNK, (self.taken + 1) * CHUNK)
            self.images[here] = images.to(self.device)
            if self.with_labels:
                labels = torch.from_numpy(np.load(labels_file)).to(self.device)
                self.labels[here] = labels
                shown = torch.stack([(labels == LABEL[name]).flatten(1).any(1) for name in RARE]).any(0)
                self.rare = torch.cat([self.rare, shown.nonzero()[:, 0] + here.start])
            self.taken += 1
            self._count.fill_(self.taken * CHUNK)
        return self.taken * CHUNK

    def wait(self, side: int) -> None:
        """Until there are enough scenes to start with, of so many pixels a side.

        Raises:
            DissectError: nobody draws any more and there are fewer, or they are of another size.
        """
        least = min(LEAST, self.chunks * CHUNK)
        while True:
            alive = self._alive()  # asked before the look, so that what was drawn last is seen
            if self.grow() >= least:
                break
            if not alive:
                raise DissectError(
                    f"The folder {self.folder} holds {self.taken * CHUNK} scenes of {least} needed, and the process "
                    "that draws them has ended; look at what it printed."
                )
            time.sleep(0.2)
        if self.images.shape[-1] != side:
            raise DissectError(
                f"The scenes in {self.folder} have {self.images.shape[-1]} pixels a side; {side} are needed. Give "
                "another --pool."
            )

    def draw(self, count: int) -> Tensor:
        """`count` scenes at random: images (count, 3, S, S) float32 in [0, 1]."""
        rows = (torch.rand(count, device=self.device) * self._count).long()
        return self.images[rows].float() / 255

    def draw_labelled(self, count: int, rare: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same with labels (count, S, S) int64; `rare` of the scenes show a rare class for sure."""
        rows = torch.randint(self.taken * CHUNK, (count,), device=self.device, generator=generator)
        places = torch.randint(len(self.rare), (rare,), device=self.device, generator=generator)
        rows[:rare] = self.rare[places]
        return self.images[rows].float() / 255, self.labels[rows].long()


@contextmanager
def drawing(
    folder: Path, count: int, *, side: int, seed: int, processes: int, device: str, labels: bool = False
) -> Iterator[ScenePool]:
    """A pool that grows: while open, `draw_pool` draws into the folder beside."""
    claim(folder, side=side, seed=seed)
    work = {"side": side, "seed": seed, "processes": processes}
    artist = multiprocessing.get_context("spawn").Process(target=draw_pool, args=(folder, count), kwargs=work)
    artist.start()
    try:
        yield ScenePool(folder, count, device=device, labels=labels, alive=artist.is_alive)
    finally:
        artist.terminate()


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", default=20_000, show_default=True, help="Scenes.")
@click.option("--side", default=128, show_default=True, help="Pixels.")
@click.option("--seed", default=1, show_default=True)
@click.option("--processes", default=os.cpu_count() or 1, show_default="all cores")
def main(out: Path, count: int, side: int, seed: int, processes: int) -> None:
    """Draw scenes to train on."""
    draw_pool(out, count, side=side, seed=seed, processes=processes)


if __name__ == "__main__":
    main()
