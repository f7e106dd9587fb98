"""One look at a generator: the same latents through it once, and all that a line tells of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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
from ..capture.maps import Maps
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
    """Real images, to see beside what is generated. `figures` (1 + rounds, 9) are their own, see `whole.figures`."""

    name: str
    look: ImageSet  # standardised by itself
    standard: Standard
    spectrum: Spectrum
    figures: Figures
    deviation: float

    def described(self) -> dict[str, Any]:
        """As watch.json keeps it."""
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


def look_at_real(
    reference: str | Path,
    size: tuple[int, int],
    extract: Features,
    segmenter: Segmenter,
    device: str,
    *,
    samples: int,
    seed: int,
) -> Real:
    """ImageSet at four real images for each of `samples`, at most, that are images of height and width `size`.

    Raises:
        UsageError: no folder, or too few images.
        DissectError: an image that cannot be read.
    """
    batches, name = reference_images(reference, size)
    spectrum, left = Spectrum(), REAL * samples

    def some() -> Iterator[Tensor]:
        nonlocal left
        for images in batches:
            images = images[:left]
            left -= len(images)
            small = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
            spectrum.add(images if tuple(images.shape[2:]) == size else small)
            yield images
            if not left:
                return

    found = look(some(), extract, segmenter, device)
    standard = standard_of(extract, found)
    found = found.standard(standard)
    count = min(samples, len(found) // 2)
    sides, judge = (found.features[1::2][:count],), found.features[::2]
    return Real(
        name=name,
        look=found,
        standard=standard,
        spectrum=spectrum,
        figures=whole_images.figures(sides, judge, seed=seed, number=FEW_ROUNDS)[0],
        deviation=float(deviations(found, seed)[0]),
    )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What N samples of a generator have shown."""

    look: ImageSet  # features as extracted
    spectrum: Spectrum
    periods: set[tuple[int, int]]  # of the grids that its upsampling may draw
    units: pd.DataFrame  # of the layer, see `Dissection.units`


def see(
    generator: Generator,
    segmenter: Segmenter,
    extract: Features,
    layer: str,
    samples: int,
    batch: int,
) -> Seen:
    """Draw the first samples once, and look at images, labels and units.

    Raises:
        UsageError: the layer outputs no maps.
        DissectError: a network failed, or drew what is not finite.
    """
    names = segmenter.vocabulary
    plan = probe(generator, segmenter, [layer], GRID)
    looks, spectrum = [], Spectrum()
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), samples)
        for shard in spool.shards:
            parts = []
            indices = spool.indices(shard)
            for start in range(0, len(indices), batch):
                some = indices[start : start + batch]
                images, maps, labels = forward(generator, segmenter, [layer], some, plan.precision)
                generator.check_finite(images, some)
                looks.append(ImageSet.at(images, labels, extract, len(names)))
                spectrum.add(images)
                parts.append(to_spool(plan, images, maps, labels))
            if generator.device.type == "cuda":
                torch.cuda.synchronize(generator.device)  # the last copies are still on their way
            spool.write(shard, {name: torch.cat([one[name] for one in parts]).numpy() for name in parts[0]})
        spooled = Maps(spool=spool, plan=plan, layer=layer, device=scoring_device(generator.device))
        scoring = Scoring(vocabulary=names, rule="iqr", quantile=QUANTILE, thoroughness=THOROUGHNESS["fast"], seed=0)
        units = scoring.table([scoring.test(scoring.label(spooled, lambda _: None), lambda _: None)])
    return Seen(
        look=ImageSet.joined(looks),
        spectrum=spectrum,
        periods=periods_of(upsamplings(generator), plan.image),
        units=units,
    )


def line(seen: Seen, real: Real | None, names: tuple[str, ...], seed: int) -> dict[str, Any]:
    """The numbers of a row, see `history.COLUMNS`; a verdict where there are real images."""
    look = seen.look
    row: dict[str, Any] = {"verdict": "", "grid": ""} | _ends("deviation", deviations(look, seed))
    if real is not None:
        count = min(len(look), len(real.look) // 2)
        made = (look.standard(real.standard).features[:count],)
        figures = whole_images.figures(made, real.look.features[::2], seed=seed, number=FEW_ROUNDS)[0]
        for k, metric in enumerate(whole_images.METRICS):
            row |= _ends(metric, figures[:, k])
        classes = cl.compare_classes(look.shares, real.look.shares, names)
        row["verdict"], _ = judged(classes, whole_images.table_of(figures, real.figures))
    found = peaks(seen.spectrum, seen.periods, real.spectrum if real else None)
    if len(found):
        top = found.iloc[0]
        row |= {f"ripple{end}": float(top[name]) for end, name in (("", "excess"), ("_low", "low"), ("_high", "high"))}
        row["grid"] = top.period
    labelled = seen.units[seen.units.labelled]
    row |= {"peaks": int(found.peak.sum()), "labelled": len(labelled), "covered": labelled.label.nunique()}
    row |= {f"{SHARE}{name}": share for name, share in zip(names, look.shares.mean(0), strict=True)}
    has = (look.shares >= cl.PRESENT).mean(0)
    return row | {f"{PRESENCE}{name}": share for name, share in zip(names, has, strict=True)}


def deviations(look: ImageSet, seed: int) -> Figures:
    """(1 + rounds,): the minibatch standard deviation of all images and of random halves of them.

    Of each pixel and channel over the images, at most 128 pixels a side, then their mean; values are in [0, 1], so that
    it is at most 0.5. The statistic that Karras et al. 2018 (section 3) show to the discriminator.
    """
    pictures = torch.from_numpy(look.pictures).float().div(255).flatten(1)
    parts = [torch.arange(len(look)), *(mine for mine, _ in halves(len(look), 0, FEW_ROUNDS, seed))]
    return np.array([float(pictures[part].std(0, correction=0).mean()) for part in parts])


def _ends(name: str, figures: Figures) -> dict[str, float]:
    """figures (1 + rounds,) -> value and interval."""
    low, high = whole_images.interval(name, figures)
    return {name: float(figures[0]), f"{name}_low": low, f"{name}_high": high}
