"""What upsampling layers really output: the ripple of their maps over samples, and what it does to the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ...hooks.errors import DissectError
from ...hooks.functional_calls import Call, watched
from ..generators.base import Generator
from ..runtime import distributed
from ..runtime.random_streams import SHIFTS, bits
from ..stats.intervals import t_factor
from ..subjects.subject import failing
from .kernels import amplitude, ripple
from .spectrum import Spectrum
from .upsampling import Upsampling

GROUPS = 20  # of samples, left out in turn for the interval
SHUFFLES = 200  # for chance
LEAST_REPEATS = 4  # of a pattern along a side, for the border to be faded out
LEVEL = 0.95
CORRELATED = 8  # units, at least, for a correlation over them
SHADES = 4  # of each colour channel: colours are grouped into cells of that many cubed


def fade(size: tuple[int, int], factor: tuple[int, int]) -> Tensor:
    """(H, W) weights: a Hann window, or ones along a side where the pattern repeats too seldom."""
    sides = [
        torch.hann_window(side) if side >= LEAST_REPEATS * step else torch.ones(side)
        for side, step in zip(size, factor, strict=True)
    ]
    return sides[0][:, None] * sides[1]


def phase_means(maps: Tensor, factor: tuple[int, int]) -> Tensor:
    """maps (N, C, H, W) -> (N, C, sh, sw): the mean over positions of each phase.

    Positions are weighted by a Hann window, so that neither the border nor a slope across the map makes a ripple; rows
    and columns beyond the last whole period are left out.
    """
    (down, across), (height, width) = factor, maps.shape[2:]
    maps = maps[:, :, : height // down * down, : width // across * across]
    weights = fade((maps.shape[2], maps.shape[3]), factor).to(maps)

    def by_phase(values: Tensor) -> Tensor:
        return values.unflatten(-1, (-1, across)).unflatten(-3, (-1, down)).sum((-4, -2))

    return by_phase(maps * weights) / by_phase(weights)


def mean_level(maps: Tensor) -> Tensor:
    """maps (N, C, H, W) -> (N, C): the mean over positions, weighted as in `phase_means`."""
    weights = fade((maps.shape[2], maps.shape[3]), (1, 1)).to(maps)
    return (maps * weights).sum((2, 3)) / weights.sum()


@dataclass(frozen=True, kw_only=True)
class BatchRipple:
    """One layer on a batch of n samples: what `RippleSums` adds up."""

    samples: Sequence[int]
    shifts: Tensor  # (B, n)
    tiles: Tensor  # (n, C, sh, sw) phase means
    squares: Tensor  # (C,)
    means: Tensor  # (C,)
    level: Tensor | None  # (in,)


@dataclass
class RippleSums:
    """Sums over samples of one layer, with G groups of samples by number and B random shifts of each sample."""

    groups: Tensor  # (G, C, sh, sw) sums of phase means
    counts: Tensor  # (G,)
    shifted: Tensor  # (B, C, sh, sw) sums of phase means, each sample's shifted at random
    squares: Tensor  # (C,) sums of squares of the maps' values, means over positions
    means: Tensor  # (C,)
    level: Tensor | None = None  # (in,) sums of the input's mean
    pending: list[BatchRipple] = field(default_factory=list)  # with several processes, until `together`

    @classmethod
    def empty(cls, units: int, factor: tuple[int, int]) -> RippleSums:
        shape = (units, *factor)
        return cls(
            groups=torch.zeros(GROUPS, *shape),
            counts=torch.zeros(GROUPS),
            shifted=torch.zeros(SHUFFLES, *shape),
            squares=torch.zeros(shape[0]),
            means=torch.zeros(shape[0]),
        )

    def add(
        self,
        maps: Tensor,
        samples: Sequence[int],
        shifts: Tensor,
        factor: tuple[int, int],
        level: Tensor | None = None,
    ) -> None:
        """maps (n, C, H, W); shifts (B, n) int64, of any size; level (in,)."""
        batch = BatchRipple(
            samples=samples,
            shifts=shifts,
            tiles=phase_means(maps.float(), factor).cpu(),
            squares=maps.float().square().mean((2, 3)).sum(0).cpu(),
            means=maps.float().mean((2, 3)).sum(0).cpu(),
            level=level,
        )
        if distributed.size() == 1:
            self._add(batch)
        else:
            self.pending.append(replace(batch, shifts=shifts.clone()))  # a view would be sent with its whole storage

    def together(self) -> None:
        """Sum over all processes, in the order of the batches as one process adds them, since sums are float32."""
        for batch in distributed.in_order(self.pending):
            self._add(batch)
        self.pending = []

    def _add(self, batch: BatchRipple) -> None:
        members, tiles = torch.as_tensor(batch.samples) % GROUPS, batch.tiles
        self.groups.index_add_(0, members, tiles)
        self.counts.index_add_(0, members, torch.ones(len(members)))
        rolls = [(a, b) for a in range(tiles.shape[2]) for b in range(tiles.shape[3])]
        for index, roll in enumerate(rolls):  # one after another, to save memory: strides may be large
            chosen = (batch.shifts % len(rolls) == index).float()  # (B, n)
            self.shifted += torch.einsum("bn,ncij->bcij", chosen, tiles.roll(roll, (2, 3)))
        self.squares += batch.squares
        self.means += batch.means
        if batch.level is not None:
            self.level = batch.level if self.level is None else self.level + batch.level

    @property
    def count(self) -> float:
        return float(self.counts.sum())

    @property
    def tile(self) -> Tensor:
        """(C, sh, sw): the mean ripple over samples."""
        return ripple(self.groups.sum(0) / self.count)

    @property
    def deviation(self) -> float:
        """The standard deviation over positions and samples, as the root mean square over units."""
        mean = self.means / self.count
        return float((self.squares / self.count - mean.square()).clamp(min=0).mean().sqrt())

    def measured(self, scale: float) -> dict[str, float]:
        """The amplitude of the tile over all units, as a share of `scale`, with its interval and what chance gives.

        Interval: 95 %, jackknife over groups of samples. Chance: the 95 % quantile of 200 rounds in which every
        sample's phases are shifted at random; a grid cancels then and nothing else does. p = (1 + rounds at least as
        great) / 201.
        """
        value = whole_amplitude(self.tile) / scale
        filled = self.counts > 0
        without_group = self.groups.sum(0) - self.groups[filled]
        left_out = whole_amplitude(without_group / (self.count - self.counts[filled]).view(-1, 1, 1, 1)) / scale
        groups = len(left_out)
        error = ((groups - 1) / groups * (left_out - left_out.mean()).square().sum()).sqrt()
        reach = t_factor(groups - 1) * float(error)
        null = whole_amplitude(self.shifted / self.count) / scale
        return {
            "measured": float(value),
            "measured_low": max(0.0, float(value) - reach),
            "measured_high": float(value) + reach,
            "chance": float(null.quantile(LEVEL)),
            "p_value": (1 + int((null >= value).sum())) / (1 + SHUFFLES),
        }


def whole_amplitude(tile: Tensor) -> Tensor:
    """(…, C, sh, sw) -> (…): root mean square of the ripple over phases and units."""
    return amplitude(tile).square().mean(-1).sqrt()


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's correlation of two tensors (n,); NaN for n below eight, or where one of them does not vary.

    >>> round(correlation(torch.arange(8.0), 3 - 2 * torch.arange(8.0)), 6)
    -1.0
    """
    if len(one) < CORRELATED:
        return float("nan")
    if not one.std() * other.std() > 0:
        return float("nan")
    return float(np.corrcoef(one.double().numpy(), other.double().numpy())[0, 1])


def random_shifts(samples: int, seed: int) -> Tensor:
    """(B, samples) int64: by how many phases each sample is shifted in each round, modulo the number of phases."""
    return torch.from_numpy((bits((SHUFFLES, samples), seed, SHIFTS, 0) >> np.uint64(33)).astype(np.int64))


def batches(samples: range, size: int) -> Iterator[range]:
    """This process's share of the samples, `size` at a time."""
    for start in distributed.mine(range(samples.start, samples.stop, size)):
        yield range(start, min(start + size, samples.stop))


class RippleMeter:
    """Draws samples, and sums up the ripple of every site and the spectrum of the images on the way.

    `ripples` holds the `RippleSums` of each site, in their order.

    Args:
        generator: whose samples are drawn.
        sites: where its ripple is measured.
        samples: all that will be drawn.
        seed: of chance.
    """

    def __init__(self, generator: Generator, sites: Sequence[Upsampling], samples: range, seed: int = 0) -> None:
        self.generator, self.sites, self.first = generator, sites, samples.start
        self.ripples = [RippleSums.empty(site.maps[0], site.factor) for site in sites]
        self.spectrum = Spectrum()
        self._shifts = random_shifts(len(samples), seed)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[int]) -> Tensor:
        """images (n, 3, H, W) of some of the samples.

        Raises:
            DissectError: the network failed, or a layer or an image is not finite.
        """
        name = f"samples {samples[0]} to {samples[-1]}"
        shifts = self._shifts[:, samples[0] - self.first : samples[-1] - self.first + 1]
        levels: dict[int, Tensor] = {}  # of the input, by site

        def record(call: Call, output: Tensor) -> None:
            for index, (site, sums) in enumerate(zip(self.sites, self.ripples, strict=True)):
                if call.place == (site.source or site.place):
                    levels[index] = mean_level(call.input.float()).sum(0).cpu()
                if call.place == site.place:
                    if not bool(output.isfinite().all()):
                        raise DissectError(f"{site.name} outputs numbers that are not finite on {name}.")
                    sums.add(output, samples, shifts, site.factor, levels.get(index))

        with failing(name), watched(self.generator.module, record):
            images = self.generator(self.generator.latents(samples))
        self.generator.check_finite(images, samples)
        self.spectrum.add(images)
        return images

    def measure(self, samples: range, batch: int, advance: Callable[[int], None] = lambda _: None) -> RippleMeter:
        """Draw these samples, together with the other processes, and return itself."""
        for batch_samples in batches(samples, batch):
            self(batch_samples)
            advance(len(batch_samples))
        self.together()
        return self

    def together(self) -> None:
        """Sum over all processes; call it once, when each has drawn its share."""
        for sums in self.ripples:
            sums.together()
        self.spectrum.together()


@contextmanager
def without(generator: Generator, site: Upsampling, tile: Tensor) -> Iterator[None]:
    """While open, the site outputs its maps less the tile (C, sh, sw), repeated all over them."""

    def subtract(call: Call, output: Tensor) -> Tensor | None:
        if call.place != site.place:
            return None
        times = [-(-side // step) for side, step in zip(output.shape[2:], site.factor, strict=True)]
        return output - tile.to(output).repeat(1, times[0], times[1])[:, : output.shape[2], : output.shape[3]]

    with watched(generator.module, subtract):
        yield


@dataclass
class Effect:
    """What taking one layer's ripple out does to the images: sums over samples."""

    changes: list[list[float]] = field(default_factory=list)  # root mean square change of each sample, by batches
    energy: float = 0.0  # of the images' variation over pixels, in squared levels
    colours: Tensor = field(default_factory=lambda: torch.zeros(SHADES**3, 2, dtype=torch.float64))  # squares, pixels
    spectrum: Spectrum = field(default_factory=Spectrum)

    def add(self, before: Tensor, after: Tensor) -> None:
        """images (n, 3, H, W) with the ripple and without."""
        change = ((after - before) * 255).square().mean(1).double().cpu()  # (n, H, W)
        self.changes.append(change.mean((1, 2)).sqrt().tolist())
        self.energy += float((before * 255).var((2, 3), correction=0).mean(1).sum())
        shades = (after * SHADES).long().clamp(max=SHADES - 1).cpu()
        cells = ((shades[:, 0] * SHADES + shades[:, 1]) * SHADES + shades[:, 2]).flatten()
        squares_pixels = torch.stack([change.flatten(), torch.ones(change.numel(), dtype=torch.float64)], 1)
        self.colours.index_add_(0, cells, squares_pixels)
        self.spectrum.add(after)

    def together(self) -> None:
        """Sum over all processes; call it once, when each has added its share."""
        self.changes = distributed.in_order(self.changes)
        self.energy = sum(distributed.all_gather(self.energy))
        distributed.all_sum(self.colours)
        self.spectrum.together()

    @property
    def samples(self) -> list[float]:
        """Root mean square change of each sample, in levels of 255."""
        return list(chain.from_iterable(self.changes))

    def levels(self) -> dict[str, float]:
        """Root mean square change of a pixel in levels of 255 with its 95 % interval, and its share of the energy."""
        squares = np.square(self.samples)
        mean = float(squares.mean())
        reach = t_factor(max(1, len(squares) - 1)) * float(
            squares.std(ddof=1) / np.sqrt(len(squares)) if len(squares) > 1 else 0
        )
        return {
            "levels": mean**0.5,
            "levels_low": max(0.0, mean - reach) ** 0.5,
            "levels_high": (mean + reach) ** 0.5,
            "image_share": mean * len(squares) / self.energy if self.energy else 0.0,
        }

    def strongest(self, least: float = 0.002) -> list[dict[str, object]]:
        """The colours that change most, among those of at least 0.2 % of the pixels: their cell, levels, share."""
        squares, pixels = self.colours.T
        share = pixels / pixels.sum()
        levels = (squares / pixels.clamp(min=1)).sqrt()
        order = torch.where(share >= least, levels, -1.0).argsort(descending=True)
        colours: list[dict[str, object]] = []
        for cell in order[: int((share >= least).sum())].tolist():
            shades = (cell // SHADES**2, cell // SHADES % SHADES, cell % SHADES)
            middle = [round((shade + 0.5) * 255 / SHADES) for shade in shades]
            colour = "#" + "".join(f"{value:02x}" for value in middle)
            colours.append({"colour": colour, "levels": float(levels[cell]), "share": float(share[cell])})
        return colours


@torch.inference_mode()
def take_out(
    generator: Generator,
    sites: Sequence[Upsampling],
    tiles: Sequence[Tensor],
    samples: range,
    batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Effect]:
    """Draw the samples with each site's ripple taken out, one site at a time."""
    effects = [Effect() for _ in sites]
    for batch_samples in batches(samples, batch):
        with failing(f"samples {batch_samples[0]} to {batch_samples[-1]}"):
            latents = generator.latents(batch_samples)
            before = generator(latents)
            for site, tile, effect in zip(sites, tiles, effects, strict=True):
                with without(generator, site, tile):
                    effect.add(before, generator(latents))
        advance(len(batch_samples))
    for effect in effects:
        effect.together()
    return effects
