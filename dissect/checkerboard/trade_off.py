"""Layers of a generator repaired by every method and strength, and what each does to the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from ...hooks.errors import UsageError
from ..generators.base import Generator
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.random_streams import NOISE, dice
from .check_layers import ripples
from .closed_form import METHODS, WORKS_ON, input_moments, mendable, mended, module_of
from .kernels import Moments, box, equalise, project, spread
from .ripple import RippleMeter, batches
from .spectrum import Spectrum, peaks
from .upsampling import Upsampling, periods_of, upsamplings

STRENGTHS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A generator and the layers that are repaired. samples: of the checkup, on which the new weights are fitted."""

    generator: Generator
    sites: list[Upsampling]
    indices: list[int]  # of these among all upsampling layers
    samples: range
    moments: dict[str, Moments]
    image: tuple[int, int]
    periods: set[tuple[int, int]]  # of the grids of all upsampling layers
    batch: int

    @classmethod
    def open(
        cls, generator: Generator, layers: Sequence[str], samples: range, batch: int, image: tuple[int, int]
    ) -> Bench:
        """Find the layers and measure the moments of their inputs.

        Raises:
            UsageError: there is no such upsampling layer.
        """
        all_sites = upsamplings(generator)
        names = [site.name for site in all_sites]
        if missing := [layer for layer in layers if layer not in names]:
            raise UsageError(f"--layer {missing[0]} makes no map finer; layers that do: {', '.join(names)}.")
        sites = [site for site in all_sites if site.name in layers]
        fitted = [site for site in sites if any(mendable(generator, site, method) for method in WORKS_ON)]
        return cls(
            generator=generator,
            sites=sites,
            indices=[names.index(site.name) for site in sites],
            samples=samples,
            moments=input_moments(generator, fitted, samples, batch),
            image=image,
            periods=periods_of(all_sites, image),
            batch=batch,
        )

    @property
    def period(self) -> tuple[int, int]:
        """Of the coarsest grid of the layers that are repaired."""
        if not self._own:
            raise UsageError("The grids of these layers are no whole number of pixels; they cannot be fine-tuned.")
        return max(self._own)

    def able(self, method: str) -> bool:
        """Whether the method works on all of these layers."""
        if method == "notch":
            return bool(self._own)
        return all(mendable(self.generator, site, method) for site in self.sites)

    def mended(self, method: str, strength: float) -> Generator:
        """See `closed_form.mended`."""
        return mended(self.generator, self.sites, method, strength, moments=self.moments, image=self.image)

    @torch.no_grad()
    def random(self, seed: int, index: int, method: str, strength: float) -> Generator:
        """The generator with noise added to the weights of these layers, of the norm of the repair's change.

        index: counts the random changes.
        """
        noisy = mended(self.generator, (), "equalise")  # a copy
        for row, site in enumerate(self.sites):
            weight = module_of(noisy, site).get_parameter("weight")
            change = self._change(site, method) * strength
            shape = tuple(weight.shape)
            noise = torch.from_numpy(dice(seed, NOISE, index * len(self.sites) + row).standard_normal(shape, "f4"))
            weight.add_(noise.to(weight) * (change / noise.norm()))
        return noisy

    def _change(self, site: Upsampling, method: str) -> float:
        """The norm of the method's change of a layer's kernel at full strength."""
        assert site.weight is not None
        assert site.geometry is not None
        kernel, moments = site.weight, self.moments.get(site.name)
        if method == "box":
            change = box(kernel, site.geometry)[0] - box(kernel, site.geometry, 0.0)[0]
        elif method == "resize":
            change = spread(project(kernel, site.geometry, moments=moments), site.geometry) - kernel
        else:
            change = equalise(kernel, site.geometry, moments=moments) - kernel
        return float(change.norm())

    def curve(self, samples: range, progress: Progress) -> pd.DataFrame:
        """One row a method and strength, from 0 up.

        Columns: method, strength, levels (root mean square change of a pixel, of 255), left (the ripple foretold for a
        flat input, as a share of what it was), and those of `grid`.
        """
        methods = [method for method in METHODS if self.able(method)]
        rows = []
        with progress.task("trade-off", (1 + len(methods) * len(STRENGTHS)) * len(samples), spread=True) as advance:
            plain = RippleMeter(self.generator, upsamplings(self.generator), samples)
            images = _images(plain, samples, self.batch, advance)
            start = self.grid(plain)
            for method in methods:
                rows.append({"method": method, "strength": 0.0, "levels": 0.0, "left": 1.0} | start)
                for strength in STRENGTHS:
                    version = self.mended(method, strength)
                    meter = RippleMeter(version, upsamplings(version), samples)
                    change = 255 * (_images(meter, samples, self.batch, advance) - images)
                    now = self.grid(meter)
                    rows.append(
                        {
                            "method": method,
                            "strength": strength,
                            "levels": float(change.square().mean().sqrt()),
                            "left": now["flat"] / start["flat"] if start["flat"] else float("nan"),
                        }
                        | now
                    )
        return pd.DataFrame(rows)

    def grid(self, meter: RippleMeter, real: Spectrum | None = None) -> dict[str, Any]:
        """What is left of the grid.

        flat: the ripple that the weights foretell for a flat input at its mean level; ripple: the measured one, with
        its interval; both of the repaired layer where it is greatest, as shares of the maps' standard deviation.
        peaks: how many of any grid; z: of the strongest; own_peaks, own_z, own_excess: of the repaired layers' grids.
        """
        worst: dict[str, float] = {}
        for index in self.indices:
            of_layer = ripples(meter.sites[index], meter.ripples[index])
            if not worst or of_layer["measured"] > worst["measured"]:
                worst = of_layer
        table = peaks(meter.spectrum, self.periods, real)
        own = table[table.period.isin(["×".join(map(str, period)) for period in self._own])]
        return {
            "flat": worst["foretold"],
            "ripple": worst["measured"],
            "ripple_low": worst["measured_low"],
            "ripple_high": worst["measured_high"],
            "peaks": int(table.peak.sum()),
            "own_peaks": int(own.peak.sum()),
            "z": float(table.z.max()),
            "own_z": float(own.z.max()),
            "own_excess": float(own.excess.max()),
        }

    @property
    def _own(self) -> set[tuple[int, int]]:
        return periods_of(self.sites, self.image)


def _images(meter: RippleMeter, samples: range, batch: int, advance: Callable[[int], None]) -> torch.Tensor:
    images = []
    for batch_samples in batches(samples, batch):
        images.append(meter(batch_samples).cpu())
        advance(len(batch_samples))
    meter.together()
    return torch.cat(distributed.in_order(images))
