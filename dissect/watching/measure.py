"""One checkpoint measured: the same latents through a generator once, and the figures of its line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...segmenters.base import Segmenter
from ..capture.capture import forward, probe, to_spool
from ..capture.maps import Maps, pieces
from ..capture.spool import Spool
from ..checkerboard.spectrum import Spectrum, peaks
from ..checkerboard.upsampling import periods_of, upsamplings
from ..diversity import by_class as cl
from ..diversity import whole_images
from ..diversity.image_set import ImageSet, look, standard_of
from ..diversity.verdict import judged
from ..fidelity.features import Features, Standard
from ..fidelity.reference import reference_images
from ..generators.base import Generator
from ..runtime.resources import scoring_device
from ..scoring.label_tests import THOROUGHNESS
from ..scoring.layer_scores import Scoring
from ..stats.intervals import FEW_ROUNDS, halves
from .result import PRESENCE, SHARE

REAL = 4  # real images for each sample, at most
GRID = 64  # side on which units and labels meet, at most
QUANTILE = 0.01  # unused by the rule of 2019, but among the levels that are counted
Figures = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Real:
    """Real images to compare with; `figures` (1 + rounds, 9) are those of one half beside the other."""

    name: str
    look: ImageSet  # standardised by its own mean and deviation
    standard: Standard
    spectrum: Spectrum
    figures: Figures
    deviation: float

    def described(self) -> dict[str, Any]:
        """The entries of watch.json. `zero` is what each metric gives for real images."""
        zero = {}
        for k, metric in enumerate(whole_images.METRICS):
            low, high = whole_images.interval(metric, self.figures[:, k])
            zero[metric] = {"value": float(self.figures[0, k]), "low": low, "high": high}
        return {
            "reference": self.name,
            "real_images": len(self.look),
            "zero": zero,
            "real_deviation": self.deviation,
            "real_share": self.look.shares.mean(0).tolist(),
            "real_presence": (self.look.shares >= cl.PRESENT).mean(0).tolist(),
        }


def measure_real(
    reference: str | Path,
    size: tuple[int, int],
    extract: Features,
    segmenter: Segmenter,
    device: str,
    *,
    samples: int,
    seed: int,
) -> Real:
    """Measure real images, at most four for each of `samples`, beside generated ones of height and width `size`.

    Raises:
        UsageError: the folder does not exist, or holds too few images.
        DissectError: an image cannot be read.
    """
    batches, name = reference_images(reference, size)
    spectrum = Spectrum()

    def added_to_spectrum() -> Iterator[Tensor]:
        for images in _first(batches, REAL * samples):
            small = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
            spectrum.add(images if tuple(images.shape[2:]) == size else small)
            yield images

    real = look(added_to_spectrum(), extract, segmenter, device)
    standard = standard_of(extract, real)
    real = real.standard(standard)
    count = min(samples, len(real) // 2)
    sides, judge = (real.features[1::2][:count],), real.features[::2]
    return Real(
        name=name,
        look=real,
        standard=standard,
        spectrum=spectrum,
        figures=whole_images.figures(sides, judge, seed=seed, number=FEW_ROUNDS)[0],
        deviation=float(deviations(real, seed)[0]),
    )


def _first(batches: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """The first `count` images of the batches."""
    for images in batches:
        yield images[:count]
        count -= len(images)
        if count <= 0:
            return


@dataclass(frozen=True, kw_only=True)
class View:
    """What was measured on N samples of a generator."""

    look: ImageSet  # features as extracted
    spectrum: Spectrum
    periods: set[tuple[int, int]]  # of the grids that its upsampling may draw
    units: pd.DataFrame  # of the layer, see `Dissection.units`


def measure(
    generator: Generator,
    segmenter: Segmenter,
    extract: Features,
    layer: str,
    samples: int,
    batch: int,
) -> View:
    """Generate the first samples once, and measure images, labels and units.

    Raises:
        UsageError: the output of the layer is not (N, units, height, width).
        DissectError: a network failed, or an image is not finite.
    """
    names = segmenter.vocabulary
    plan = probe(generator, segmenter, [layer], GRID)
    looks, spectrum = [], Spectrum()
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), samples)
        for shard in spool.shards:
            parts = []
            samples_of_shard = spool.indices(shard)
            for piece in pieces(len(samples_of_shard), batch):
                indices = samples_of_shard[piece]
                images, maps, labels = forward(generator, segmenter, [layer], indices, plan.precision)
                generator.check_finite(images, indices)
                looks.append(ImageSet.at(images, labels, extract, len(names)))
                spectrum.add(images)
                parts.append(to_spool(plan, images, maps, labels))
            if generator.device.type == "cuda":
                torch.cuda.synchronize(generator.device)  # `to_spool` copies while the GPU works on
            spool.write(shard, {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]})
        spooled = Maps(spool=spool, plan=plan, layer=layer, device=scoring_device(generator.device))
        scoring = Scoring(vocabulary=names, rule="iqr", quantile=QUANTILE, thoroughness=THOROUGHNESS["fast"], seed=0)
        units = scoring.table([scoring.test(scoring.label(spooled, lambda _: None), lambda _: None)])
    return View(
        look=ImageSet.joined(looks),
        spectrum=spectrum,
        periods=periods_of(upsamplings(generator), plan.image),
        units=units,
    )


def line(view: View, real: Real | None, names: tuple[str, ...], seed: int) -> dict[str, Any]:
    """The numbers of a row, see `result.COLUMNS`; a verdict where there are real images."""
    shares = view.look.shares
    row: dict[str, Any] = {"verdict": "", "grid": ""} | _with_ends("deviation", deviations(view.look, seed))
    if real is not None:
        row |= _compared(view.look, real, names, seed)
    grids = peaks(view.spectrum, view.periods, real.spectrum if real else None)
    if len(grids):
        highest = grids.iloc[0]
        row |= {"ripple": float(highest.excess), "ripple_low": float(highest.low), "ripple_high": float(highest.high)}
        row["grid"] = highest.period
    labelled = view.units[view.units.labelled]
    row |= {"peaks": int(grids.peak.sum()), "labelled": len(labelled), "covered": labelled.label.nunique()}
    row |= {f"{SHARE}{name}": share for name, share in zip(names, shares.mean(0), strict=True)}
    presence = (shares >= cl.PRESENT).mean(0)
    return row | {f"{PRESENCE}{name}": share for name, share in zip(names, presence, strict=True)}


def _compared(look: ImageSet, real: Real, names: tuple[str, ...], seed: int) -> dict[str, Any]:
    """The metrics and the verdict of generated images beside real ones."""
    count = min(len(look), len(real.look) // 2)
    generated = look.standard(real.standard).features[:count]
    figures = whole_images.figures((generated,), real.look.features[::2], seed=seed, number=FEW_ROUNDS)[0]
    row: dict[str, Any] = {}
    for k, metric in enumerate(whole_images.METRICS):
        row |= _with_ends(metric, figures[:, k])
    classes = cl.compare_classes(look.shares, real.look.shares, names)
    row["verdict"], _ = judged(classes, whole_images.table_of(figures, real.figures))
    return row


def deviations(look: ImageSet, seed: int) -> Figures:
    """(1 + rounds,): the minibatch standard deviation of all images and of random halves of them.

    The standard deviation of each pixel and channel over the images, of at most 128 pixels a side, averaged. It is at
    most 0.5, since values are in [0, 1]. The statistic of Karras et al. 2018 (section 3).
    """
    pictures = torch.from_numpy(look.pictures).float().div(255).flatten(1)
    subsets = [torch.arange(len(look)), *(half for half, _ in halves(len(look), 0, FEW_ROUNDS, seed))]
    return np.array([float(pictures[rows].std(0, correction=0).mean()) for rows in subsets])


def _with_ends(name: str, figures: Figures) -> dict[str, float]:
    """figures (1 + rounds,) of a metric -> its value and the ends of its interval, as columns."""
    low, high = whole_images.interval(name, figures)
    return {name: float(figures[0]), f"{name}_low": low, f"{name}_high": high}
