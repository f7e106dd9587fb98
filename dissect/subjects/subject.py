"""One layer of a generator, laid open: featuremaps out, changed featuremaps in, images and labels on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...hooks.above import Above
from ...hooks.directions import readings
from ...hooks.errors import DissectError, NetworkError, UsageError, out_of_memory, running
from ...hooks.tap import Tap
from ...segmenters import check_labels, segment
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..runtime import distributed
from ..runtime.resources import Threads, usual_batch
from .first_look import SAME, check_repeatable, check_single


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A generator, a segmenter and the layer that is changed: its units, or directions of it, rows (K, U)."""

    generator: Generator
    segmenter: Segmenter
    layer: str
    shape: tuple[int, int, int]  # units, height, width
    above: Above
    batch: int  # rows of a forward pass
    threads: Threads = field(default_factory=Threads)
    directions: Tensor | None = None

    @classmethod
    def open(
        cls,
        generator: Generator,
        segmenter: Segmenter,
        layer: str,
        batch: int | None = None,
        directions: Tensor | None = None,
    ) -> Subject:
        """Look at two samples.

        Raises:
            UsageError: there is no such layer, it has no units on a map, or the image is not a function of them.
        """
        latents = generator.latents([0, 1])
        with torch.inference_mode(), failing("the probe samples"):
            with Tap(generator.module, [layer], stop=True) as tap:
                generator.module(latents)
            maps = tap[layer]
            if maps.ndim != 4:
                raise UsageError(
                    f"Layer {layer!r} outputs {tuple(maps.shape)}; it must output (N, units, height, width)."
                )
            images = generator(latents)
            subject = cls(
                generator=generator,
                segmenter=segmenter,
                layer=layer,
                shape=(maps.shape[1], maps.shape[2], maps.shape[3]),
                above=Above(generator.module, layer, latents),
                batch=batch or usual_batch(generator.device, images.shape[2:]),
                directions=directions,
            )
            check_repeatable(generator, images, generator(latents))
            check_single(generator, [layer])
            if not torch.allclose(subject.draw(maps, latents), images, atol=SAME, equal_nan=True):
                raise UsageError(
                    f"{generator.name} draws another image when the featuremaps of {layer!r} are put in by hand: "
                    "something beside this layer's output decides what it draws. Name another layer."
                )
        return subject

    @property
    def width(self) -> int:
        """How many units, or directions, can be changed."""
        return self.shape[0] if self.directions is None else len(self.directions)

    @property
    def noun(self) -> str:
        """The word for what is changed."""
        return "unit" if self.directions is None else "direction"

    def batches(self, samples: Sequence[int]) -> Iterator[tuple[slice, Sequence[int]]]:
        """The samples by batches, those of this process: their rows, and their numbers."""
        for start in distributed.mine(range(0, len(samples), self.batch)):
            rows = slice(start, min(start + self.batch, len(samples)))
            yield rows, samples[rows]

    def featuremaps(self, samples: Sequence[int]) -> Tensor:
        """(n, U, h, w), as the layer outputs them; nothing above it runs.

        Raises:
            DissectError: the network failed.
        """
        with failing(f"samples {samples[0]} …"):
            return self.maps_of(self.generator.latents(samples))

    def readings(self, featuremaps: Tensor) -> Tensor:
        """featuremaps (n, U, h, w) -> themselves, or the readings (n, K, h, w) of the directions."""
        return featuremaps if self.directions is None else readings(featuremaps, self.directions)

    @torch.inference_mode()
    def maps_of(self, latents: Tensor) -> Tensor:
        """(n, U, h, w), as the layer outputs them for these latents."""
        with Tap(self.generator.module, [self.layer], stop=True) as tap:
            self.generator.module(latents)
        return tap[self.layer]

    def draw(self, featuremaps: Tensor, latents: Tensor) -> Tensor:
        """featuremaps (n, U, h, w) in the place of the layer's for `latents` -> images (n, 3, H, W) in [0, 1]."""
        return self.generator.to_images(self.above(featuremaps, latents))

    @torch.inference_mode()
    def see(
        self, featuremaps: Tensor, latents: Tensor, check: Callable[[Tensor, Tensor, Segmenter], None] = check_labels
    ) -> tuple[Tensor, Tensor]:
        """The images (n, 3, H, W) drawn from these featuremaps, and their labels (n, P, H, W), which pass `check`.

        Raises:
            DissectError: a network failed.
        """
        with failing("these samples"):
            images = self.draw(featuremaps, latents)
            labels = segment(self.segmenter, images, check)
        return images, labels

    @contextmanager
    def pace(self) -> Iterator[None]:
        """Around each batch of a long loop: finds the faster number of threads on a CPU."""
        if self.generator.device.type == "cpu":
            with self.threads:
                yield
        else:
            yield


@contextmanager
def failing(batch: str) -> Iterator[None]:
    """Turn whatever the user's networks raise, a lack of memory too, into one line."""
    try:
        with running("A network failed"):
            yield
    except NetworkError as error:  # its message names the network, but not the samples
        raise NetworkError(f"{str(error).removesuffix('.')}, on {batch}.") from error
    except DissectError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise DissectError("A batch does not fit into memory; give a smaller --batch-size.") from error
        raise
