"""Check a generator's upsampling for checkerboards: `checkup`, and the table of its layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..fidelity.reference import count_reference, reference_images, reference_of
from ..generators.base import Generator
from ..images import resize as gr
from ..images.resize import SIDE
from ..runtime import distributed
from ..runtime.progress import Fewer, Progress
from ..runtime.requests import check_integers
from ..runtime.resources import at_work, faster_threads, usual_batch
from ..storage.files import safe_name
from ..storage.result_folder import header
from ..subjects.identity import fingerprint, identity, source_record
from ..subjects.opening import Model, open_critic, open_generator, usable_device
from ..subjects.untrained import untrained
from .closed_form import input_moments, mendable, mended
from .critic_gradient import gradient_side
from .kernels import amplitude, overlap_line, ripple
from .result import Checkup
from .ripple import Effect, RippleMeter, RippleSums, correlation, take_out, whole_amplitude, without
from .spectrum import Spectrum, broadband, grids, peaks
from .upsampling import INTERPOLATION, Upsampling, periods_of, upsamplings

LEAST = 32  # samples: intervals of fewer say nothing
FAINT = 0.5  # levels of 255 by which images change: half a step of rounding
VERDICTS = ("clean", "mild", "visible")
SHOWN = 4  # samples of each layer


def checkup(
    model: Model,
    *,
    samples: int = 512,
    reference: str | Path | None = None,
    critic: str | nn.Module | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Checkup:
    """Find every layer that makes maps finer, and measure whether it draws a checkerboard that images show.

    Args:
        model: as of `dissect.run`.
        samples: how many images are drawn.
        reference: folder of real images, or `scenes`; None is the drawn scenes for generators of them, else none. With
            one, peaks count only as far as they exceed the reference's own, and the broadband excess is measured.
        critic: a discriminator or classifier, images (N, 3, H, W) in [0, 1] -> scores, or `package.module:name` of
            one; its gradient is checked too.
        seed: of latents, chance and the untrained control.
        out: folder; None is runs/MODEL-checkup. If it already holds this checkup, that is loaded
            instead of recomputed.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: an argument does not exist or does not fit, or no layer of the generator makes maps finer.
        DissectError: something failed. Nothing is written.
    """
    check_integers({"--samples": (samples, LEAST), "--seed": (seed, 0), "--batch-size": (batch_size, 1)})
    device = usable_device(device)
    generator = open_generator(model, seed, device, quiet)
    generator.latents([samples - 1])  # raises if the source has fewer than `samples` inputs
    reference = reference_of(generator, reference)
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-checkup")
    judge = None
    if critic is not None:
        judge = copy.deepcopy(open_critic(critic, device)).to(device).eval().requires_grad_(False)
    config = {
        **identity(generator),
        "samples": samples,
        "reference": None if reference is None else str(reference),
        "critic": critic if isinstance(critic, str | None) else type(critic).__qualname__,
        "critic_sha256": None if judge is None else fingerprint(judge),
        "seed": seed,
    }
    advice = "give another --out, or name the folder itself"
    if (kept := Checkup.kept(folder, config, advice)) is not None:
        return kept
    batch = batch_size or usual_batch(generator.device)

    def draw_batch() -> None:
        with torch.inference_mode():
            generator(generator.latents(range(min(batch, samples))))

    with Progress(quiet) as progress, at_work(), faster_threads(draw_batch):
        measured = _measure(generator, judge, reference, range(samples), batch, seed, progress)
    peaks_found = measured.peaks_of(measured.drawn)
    layers = pd.DataFrame(measured.rows(peaks_found))
    peaks_untrained = measured.peaks_of(measured.untrained)
    sites, effects, image = measured.drawn.sites, measured.effects, measured.image
    strongest = {site.name: _strongest(effect) for site, effect in zip(sites, effects, strict=True)}
    visible = grids(image, measured.periods)
    info = {
        **header(),
        "generator": generator.name,
        "weights_sha256": config["weights_sha256"],
        "provenance": {key: value for key, value in vars(generator.provenance).items() if value},
        "source": source_record(generator),
        "samples": samples,
        "image": list(image),
        "reference": measured.reference_name,
        "critic": config["critic"],
        "grids": [_by(period) for period in visible],
        "coarse": sorted({_by(period) for period in measured.periods - set(visible)}),
        "broadband": None if measured.reference is None else broadband(measured.drawn.spectrum, measured.reference),
        "untrained_peaks": int(peaks_untrained.peak.sum()),
        "colours": {site.name: effect.strongest()[:6] for site, effect in zip(sites, effects, strict=True)},
        "overlap": {site.name: _overlap(site) for site in sites if site.pattern is not None},
        "strongest": strongest,
        "config": config,
        **judged(layers, peaks_found),
    }
    result = Checkup(
        folder=folder,
        info=info,
        layers=layers,
        peaks=pd.concat([peaks_found.assign(set="images"), peaks_untrained.assign(set="untrained")], ignore_index=True),
        gradient=measured.gradient,
        arrays=_arrays(generator, measured, strongest),
    )
    distributed.on_first(lambda: result.save(folder))
    return result


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a checkup measures.

    drawn, untrained: the generator, and the same network untrained. effects: of taking out each layer's ripple.
    equalised: by layer, the spectrum of the images with its phases equalised. gradient: see `critic_gradient`.
    """

    image: tuple[int, int]
    periods: set[tuple[int, int]]
    drawn: RippleMeter
    untrained: RippleMeter
    effects: Sequence[Effect]
    equalised: dict[str, Spectrum]
    gradient: pd.DataFrame
    reference: Spectrum | None
    reference_name: str | None

    def peaks_of(self, meter: RippleMeter) -> pd.DataFrame:
        """The peaks of the layers' grids in the spectrum of the images, see `spectrum.peaks`."""
        return peaks(meter.spectrum, self.periods, self.reference)

    def rows(self, table: pd.DataFrame) -> Iterator[dict[str, Any]]:
        """One row a layer, with the ripple of the untrained network beside its own; table: `peaks_of` the images."""
        untrained = [
            ripples(site, sums) for site, sums in zip(self.untrained.sites, self.untrained.ripples, strict=True)
        ]
        sites = zip(self.drawn.sites, self.drawn.ripples, self.effects, untrained, strict=True)
        for site, sums, effect, control in sites:
            row = _row(site, sums, effect, self.image, table, self.equalised.get(site.name))
            yield row | {f"untrained_{name}": control[name] for name in ("foretold", "measured")}


def _measure(
    generator: Generator,
    critic: nn.Module | None,
    reference: str | Path | None,
    samples: range,
    batch: int,
    seed: int,
    progress: Progress,
) -> Measured:
    """Draw the samples as often as a checkup needs."""
    sites = upsamplings(generator)
    with torch.inference_mode():
        first = generator(generator.latents([0]))
    image = (first.shape[2], first.shape[3])
    periods = periods_of(sites, image)
    repairable = [site for site in sites if mendable(generator, site, "equalise")]
    progress.stages = 3 + sum((critic is not None, bool(repairable), reference is not None))
    count = len(samples)
    fewer = Fewer("samples", count, LEAST)
    gradient = pd.DataFrame()
    if critic is not None:  # before the long work, since a critic may refuse images of this size
        with progress.task("gradient of the critic", count, spread=True, fewer=fewer) as advance:
            gradient = gradient_side(generator, critic, samples, batch, seed, advance)
    with progress.task("look at layers", count, spread=True, fewer=fewer) as advance:
        drawn = RippleMeter(generator, sites, samples, seed).measure(samples, batch, advance)
    with progress.task("take ripples out", count, spread=True, fewer=fewer) as advance:
        effects = take_out(generator, sites, [sums.tile for sums in drawn.ripples], samples, batch, advance)
    moments = input_moments(generator, repairable, samples, batch)
    equalised = {}
    if repairable:
        with progress.task("equalise layers", count * len(repairable), spread=True, fewer=fewer) as advance:
            for site in repairable:
                version = mended(generator, [site], "equalise", moments=moments)
                equalised[site.name] = RippleMeter(version, (), samples).measure(samples, batch, advance).spectrum
    with progress.task("untrained control", count, spread=True, fewer=fewer) as advance:
        fresh = untrained(generator, seed, count)
        control = RippleMeter(fresh, upsamplings(fresh), samples, seed).measure(samples, batch, advance)
    real, name = (None, None) if reference is None else reference_spectrum(reference, image, progress)
    return Measured(
        image=image,
        periods=periods,
        drawn=drawn,
        untrained=control,
        effects=effects,
        equalised=equalised,
        gradient=gradient,
        reference=real,
        reference_name=name,
    )


def _arrays(
    generator: Generator, measured: Measured, strongest: dict[str, list[dict[str, Any]]]
) -> dict[str, NDArray[Any]]:
    """The arrays of `result.Checkup`."""
    spectra = {"images": measured.drawn.spectrum, "untrained": measured.untrained.spectrum}
    spectra |= {} if measured.reference is None else {"reference": measured.reference}
    arrays: dict[str, NDArray[Any]] = {name: _shown(spectrum) for name, spectrum in spectra.items()}
    for index, (site, sums) in enumerate(zip(measured.drawn.sites, measured.drawn.ripples, strict=True)):
        arrays[f"samples_{index}"] = _pictures(generator, site, sums.tile, strongest[site.name])
    return arrays


def _by(sizes: Iterable[int]) -> str:
    """(4, 8) -> "4×8"."""
    return "×".join(map(str, sizes))


def reference_spectrum(reference: str | Path, image: tuple[int, int], progress: Progress) -> tuple[Spectrum, str]:
    """The spectrum of the reference at the size of the images, and what it is, in words.

    Raises:
        UsageError: no folder, or too few images.
        DissectError: an image that cannot be read.
    """
    spectrum = Spectrum()
    with progress.task("reference", count_reference(reference), spread=True) as advance:
        batches, name = reference_images(reference, image)
        for images in batches:
            if tuple(images.shape[2:]) != image:
                images = torch.nn.functional.interpolate(
                    images, image, mode="bilinear", antialias=True, align_corners=False
                )
            spectrum.add(images)
            advance(len(images))
    spectrum.together()
    return spectrum, name


def ripples(site: Upsampling, sums: RippleSums) -> dict[str, Any]:
    """The ripple that the weights predict and the measured one, as shares of the maps' standard deviation."""
    scale = max(1e-12, sums.deviation)
    level = None if sums.level is None else sums.level / sums.count
    predicted = None if level is None else site.predicted_tile(level)
    shares: dict[str, Any] = {"foretold": float("nan"), "correlation": float("nan")}
    if predicted is not None:
        predicted = ripple(predicted.cpu())
        shares["foretold"] = float(whole_amplitude(predicted)) / scale
        shares["correlation"] = correlation(amplitude(predicted), amplitude(sums.tile))
    return shares | sums.measured(scale)


def _row(
    site: Upsampling,
    sums: RippleSums,
    effect: Effect,
    image: tuple[int, int],
    table: pd.DataFrame,
    equal: Spectrum | None,
) -> dict[str, Any]:
    """One layer. own: the strongest peak of its grid, as excess in dB; own_without: the same with its ripple taken out;
    own_equalised: the same with its phases equalised."""
    period = site.period(image)
    geometry, pattern = site.geometry, site.pattern
    of_grid = table[table.period == _by(period)] if period else table[:0]
    own = {"own": float("nan"), "own_without": float("nan"), "own_equalised": float("nan")}
    if bool(of_grid.peak.any()):
        top = of_grid[of_grid.peak].iloc[0]
        frequency = (round(top.vertical * image[0]) % image[0], round(top.horizontal * image[1]) % image[1])
        own["own"], own["own_without"] = float(top.excess), float(effect.spectrum.excess[frequency])
        own["own_equalised"] = float("nan") if equal is None else float(equal.excess[frequency])
    ripple_shares, change = ripples(site, sums), effect.levels()
    return {
        "layer": site.name,
        "kind": site.kind,
        "how": site.how,
        "maps": _by(site.maps),
        "kernel": "" if site.kernel is None else _by(site.kernel),
        "stride": _by(site.factor),
        "padding": "" if geometry is None else _by(geometry.padding),
        "output_padding": "" if geometry is None else _by(geometry.output_padding),
        "dilation": "" if geometry is None else _by(geometry.dilation),
        "period": "" if period is None else _by(period),
        "taps": "" if pattern is None else f"{int(pattern.min())} to {int(pattern.max())}",
        "uneven": site.uneven,
        **ripple_shares,
        **change,
        **own,
        **_verdict(site, ripple_shares, change["levels"], own, period is not None and period in grids(image, {period})),
    }


def _verdict(
    site: Upsampling, shares: dict[str, Any], levels: float, own: dict[str, float], grid_measured: bool
) -> dict[str, str]:
    """The verdict on a layer, and its reason.

    visible: the spectrum of the images has a peak of the layer's grid, and repairing the layer lowers it. mild: it has
    the peak, or the layer's ripple changes the images by at least half a level. clean: neither, or it cannot ripple.
    """
    change = f"its constant ripple changes the images by {levels:.2g} levels of 255"
    if site.kind == INTERPOLATION:
        return {"verdict": VERDICTS[0], "reason": "interpolation leaves no trace on a flat input"}
    if not math.isnan(own["own"]):
        repaired = np.nanmin([own["own_without"], own["own_equalised"]])
        why = f"the spectrum has a peak of its grid, {own['own']:.1f} dB"
        if repaired < own["own"]:
            return {
                "verdict": VERDICTS[2],
                "reason": f"{why}, and repairing the layer lowers it to {repaired:.1f}; {change}",
            }
        return {"verdict": VERDICTS[1], "reason": f"{why}, but repairing this layer alone does not lower it; {change}"}
    if shares["measured"] <= shares["chance"]:
        return {"verdict": VERDICTS[0], "reason": "its ripple is what chance gives"}
    if levels < FAINT:
        return {"verdict": VERDICTS[0], "reason": f"{change}, less than rounding"}
    spectrum = (
        "the spectrum has no peak of its grid"
        if grid_measured
        else "its grid is too coarse to be distinguished from the layout of the images"
    )
    return {"verdict": VERDICTS[1], "reason": f"{change}, but {spectrum}"}


def judged(layers: pd.DataFrame, peaks: pd.DataFrame) -> dict[str, Any]:
    """The worst verdict, the layer to blame, and a sentence.

    To blame: the layer that lowers the strongest peak of its own grid most, when its constant ripple is taken out or
    its phases are equalised.
    """
    worst = max(layers.verdict, key=VERDICTS.index)
    best = layers[["own_without", "own_equalised"]].min(axis=1)
    drop = layers.own - best
    blame = str(layers.layer[drop.idxmax()]) if bool((drop > 0).any()) else None
    count = int(peaks.peak.sum())
    sentence = "The spectrum of the images has no peak of any grid"
    if count:
        top = peaks[peaks.peak].iloc[0]
        sentence = (
            f"{count} peak{'s' * (count > 1)} of grids in the spectrum of the images, the strongest {top.excess:.1f} "
            f"dB above its neighbours (z = {top.z:.1f}, grid of {top.period} pixels)"
        )
    if blame:
        row = layers[layers.layer == blame].iloc[0]
        remedy = "its phases equalised" if row.own_equalised <= row.own_without else "its ripple taken out"
        sentence += (
            f"; most to blame is {blame}: with {remedy}, {row.own:.1f} dB become {min(best[row.name], row.own):.1f}"
        )
    elif count:
        sentence += "; no layer alone explains them: repairing one leaves them or makes them higher"
    return {"verdict": worst, "blame": blame, "peaks": count, "sentence": f"{worst.capitalize()}. {sentence}."}


def _overlap(site: Upsampling) -> dict[str, Any]:
    """The pattern of one period, and the count along a row with its borders, for the page."""
    assert site.pattern is not None
    assert site.kernel is not None
    assert site.geometry is not None
    return {"pattern": site.pattern.tolist(), "line": overlap_line(site.kernel[1], site.geometry, 8).tolist()}


def _strongest(effect: Effect) -> list[dict[str, Any]]:
    """The samples that a layer's ripple changes most, and by how many levels of 255."""
    order = np.argsort(np.negative(effect.samples), kind="stable")[:SHOWN]
    return [{"sample": int(sample), "levels": effect.samples[sample]} for sample in order]


def _shown(spectrum: Spectrum) -> NDArray[Any]:
    """(H, W) in dB with zero frequency in the middle."""
    return torch.fft.fftshift(spectrum.mean).float().numpy()


@torch.inference_mode()
def _pictures(
    generator: Generator, site: Upsampling, tile: Tensor, strongest: Sequence[dict[str, Any]]
) -> NDArray[np.uint8]:
    """(n, 2, side, side, 3): samples with the layer's ripple and without."""
    latents = generator.latents([entry["sample"] for entry in strongest])
    before = generator(latents)
    with without(generator, site, tile):
        after = generator(latents)
    return np.stack([gr.thumbnails(images, SIDE).cpu().numpy() for images in (before, after)], 1)
