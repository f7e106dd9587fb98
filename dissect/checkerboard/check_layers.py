"""Check a generator's upsampling for checkerboards: `checkup`, and the table of its layers."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...hooks.errors import UsageError
from ..fidelity.reference import count_reference, reference_images, reference_of
from ..generators.base import Generator
from ..images import resize as gr
from ..images.resize import SIDE
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.resources import at_work, usual_batch
from ..storage.files import SCHEMA, safe_name
from ..storage.result_folder import command, holds, now
from ..subjects.identity import fingerprint, identity
from ..subjects.opening import Model, open_critic, open_generator, usable_device
from ..subjects.untrained import untrained
from .closed_form import input_moments, mendable, mended
from .critic_gradient import gradient_side
from .kernels import amplitude, overlap_line, ripple
from .result import Checkup
from .ripple import Effect, Look, Seen, correlation, take_out, whole_amplitude, without
from .spectrum import Spectrum, broadband, grids, peaks
from .upsampling import INTERPOLATION, Upsampling, periods_of, upsamplings

LEAST = 32  # samples: of fewer, intervals say nothing
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
    """Find every layer that makes maps finer and say whether it draws a checkerboard, and how much of it is seen.

    Args:
        model: as of `dissect.run`.
        samples: how many images are drawn.
        reference: folder of real images, or `scenes`; None is the drawn scenes for generators of them, else none. With
            one, peaks count only as far as they exceed the reference's own, and the broadband excess can be told.
        critic: a discriminator or classifier, images (N, 3, H, W) in [0, 1] -> scores, or `package.module:name` of
            one; its gradient is checked too.
        seed: of latents, chance and the untrained control.
        out: folder; None is runs/MODEL-checkup. One that holds this checkup already is loaded instead of recomputed.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist or does not fit, or the generator makes no map finer.
        DissectError: something failed. Nothing is written.
    """
    for option, number, least in (("--samples", samples, LEAST), ("--seed", seed, 0), ("--batch-size", batch_size, 1)):
        if number is not None and operator.index(number) < least:
            raise UsageError(f"{option} {number}: a whole number from {least} up is needed.")
    device = usable_device(device)
    generator = open_generator(model, seed, device, quiet)
    generator.latents([samples - 1])  # there may not be so many
    compared = reference_of(generator, reference)
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-checkup")
    judge = None
    if critic is not None:
        judge = copy.deepcopy(open_critic(critic, device)).to(device).eval().requires_grad_(False)
    config = {
        **identity(generator),
        "samples": samples,
        "reference": None if compared is None else str(compared),
        "critic": critic if isinstance(critic, str | None) else type(critic).__qualname__,
        "critic_sha256": None if judge is None else fingerprint(judge),
        "seed": seed,
    }
    if holds(folder, "checkup.json", config, "give another --out, or name the folder itself"):
        return Checkup.load(folder)
    batch = batch_size or usual_batch(generator.device)
    sites = upsamplings(generator)
    numbers = range(samples)
    with torch.inference_mode():
        first = generator(generator.latents([0]))
    image = (first.shape[2], first.shape[3])
    periods = periods_of(sites, image)
    with Progress(quiet) as progress, at_work():
        if judge is not None:  # first, since it may not fit
            with progress.task("gradient of the critic", samples, spread=True) as advance:
                gradient = gradient_side(generator, judge, numbers, batch, seed, advance)
        with progress.task("look at layers", samples, spread=True) as advance:
            drawn = Look(generator, sites, numbers, seed).all(numbers, batch, advance)
        seen, spectrum = drawn.seen, drawn.spectrum
        with progress.task("take ripples out", samples, spread=True) as advance:
            effects = take_out(generator, sites, [one.tile for one in seen], numbers, batch, advance)
        able = [site for site in sites if mendable(generator, site, "equalise")]
        moments = input_moments(generator, able, numbers, batch)
        equal = {}
        if able:
            with progress.task("equalise layers", samples * len(able), spread=True) as advance:
                equal = {
                    site.name: Look(mended(generator, [site], "equalise", moments=moments), (), numbers)
                    .all(numbers, batch, advance)
                    .spectrum
                    for site in able
                }
        with progress.task("untrained control", samples, spread=True) as advance:
            fresh = untrained(generator, seed, samples)
            bare = Look(fresh, upsamplings(fresh), numbers, seed).all(numbers, batch, advance)
        real, name = (None, None) if compared is None else reference_spectrum(compared, image, progress)
    found = peaks(spectrum, periods, real)
    tables = [found.assign(set="images"), peaks(bare.spectrum, periods, real).assign(set="untrained")]
    control = [ripples(site, one) for site, one in zip(bare.sites, bare.seen, strict=True)]
    layers = [
        _row(site, one, effect, image, found, equal.get(site.name))
        | {f"untrained_{key}": other[key] for key in ("foretold", "measured")}
        for site, one, effect, other in zip(sites, seen, effects, control, strict=True)
    ]
    table = pd.DataFrame(layers)
    strongest = {site.name: _worst(effect) for site, effect in zip(sites, effects, strict=True)}
    info = {
        "schema": SCHEMA,
        "created": now(),
        "command": command(),
        "generator": generator.name,
        "weights_sha256": config["weights_sha256"],
        "provenance": {key: value for key, value in vars(generator.provenance).items() if value},
        "source": {"model": None} if generator.spec is None else generator.spec.record(),
        "samples": samples,
        "image": list(image),
        "reference": name,
        "critic": config["critic"],
        "grids": ["×".join(map(str, period)) for period in grids(image, periods)],
        "coarse": sorted({"×".join(map(str, one)) for one in periods - set(grids(image, periods))}),
        "broadband": None if real is None else broadband(spectrum, real),
        "untrained_peaks": int(tables[1].peak.sum()),
        "colours": {site.name: effect.strongest()[:6] for site, effect in zip(sites, effects, strict=True)},
        "overlap": {site.name: _overlap(site) for site in sites if site.pattern is not None},
        "strongest": strongest,
        "config": config,
    } | judged(table, found)
    arrays: dict[str, NDArray[Any]] = {"images": _shown(spectrum), "untrained": _shown(bare.spectrum)}
    arrays |= {} if real is None else {"reference": _shown(real)}
    for number, (site, one) in enumerate(zip(sites, seen, strict=True)):
        arrays[f"samples_{number}"] = _pictures(generator, site, one.tile, strongest[site.name])
    result = Checkup(
        folder=folder,
        info=info,
        layers=table,
        peaks=pd.concat(tables, ignore_index=True),
        gradient=gradient if judge is not None else pd.DataFrame(),
        arrays=arrays,
    )
    distributed.first(result.save)
    return result


def reference_spectrum(compared: str | Path, image: tuple[int, int], progress: Progress) -> tuple[Spectrum, str]:
    """The spectrum of the reference at the size of the images, and what it is, in words.

    Raises:
        UsageError: no folder, or too few images.
        DissectError: an image that cannot be read.
    """
    found = Spectrum()
    with progress.task("reference", count_reference(compared), spread=True) as advance:
        drawn, name = reference_images(compared, image)
        for images in drawn:
            if tuple(images.shape[2:]) != image:
                images = torch.nn.functional.interpolate(
                    images, image, mode="bilinear", antialias=True, align_corners=False
                )
            found.add(images)
            advance(len(images))
    found.together()
    return found, name


def ripples(site: Upsampling, seen: Seen) -> dict[str, Any]:
    """What the weights foretell and what is measured, as shares of the maps' standard deviation."""
    scale = max(1e-12, seen.deviation)
    level = None if seen.level is None else seen.level / seen.count
    foretold = None if level is None else site.foretold(level)
    found: dict[str, Any] = {"foretold": float("nan"), "correlation": float("nan")}
    if foretold is not None:
        foretold = ripple(foretold.cpu())
        found["foretold"] = float(whole_amplitude(foretold)) / scale
        found["correlation"] = correlation(amplitude(foretold), amplitude(seen.tile))
    return found | seen.measured(scale)


def _row(
    site: Upsampling, seen: Seen, effect: Effect, image: tuple[int, int], found: pd.DataFrame, equal: Spectrum | None
) -> dict[str, Any]:
    """One layer. own: the strongest peak of its grid, as excess in dB; own_without: the same with its ripple taken out;
    own_equalised: the same with its phases equalised."""
    period = site.period(image)
    geometry, pattern = site.geometry, site.pattern
    mine = found[found.period == "×".join(map(str, period))] if period else found[:0]
    own = {"own": float("nan"), "own_without": float("nan"), "own_equalised": float("nan")}
    if bool(mine.peak.any()):
        top = mine[mine.peak].iloc[0]
        place = (round(top.vertical * image[0]) % image[0], round(top.horizontal * image[1]) % image[1])
        own["own"], own["own_without"] = float(top.excess), float(effect.spectrum.excess[place])
        own["own_equalised"] = float("nan") if equal is None else float(equal.excess[place])
    seen_ripple, change = ripples(site, seen), effect.levels()
    return {
        "layer": site.name,
        "kind": site.kind,
        "how": site.how,
        "maps": "×".join(map(str, site.maps)),
        "kernel": "" if site.kernel is None else "×".join(map(str, site.kernel)),
        "stride": "×".join(map(str, site.factor)),
        "padding": "" if geometry is None else "×".join(map(str, geometry.padding)),
        "output_padding": "" if geometry is None else "×".join(map(str, geometry.output_padding)),
        "dilation": "" if geometry is None else "×".join(map(str, geometry.dilation)),
        "period": "" if period is None else "×".join(map(str, period)),
        "taps": "" if pattern is None else f"{int(pattern.min())} to {int(pattern.max())}",
        "uneven": site.uneven,
        **seen_ripple,
        **change,
        **own,
        **_verdict(site, seen_ripple, change["levels"], own, period is not None and period in grids(image, {period})),
    }


def _verdict(
    site: Upsampling, found: dict[str, Any], levels: float, own: dict[str, float], looked: bool
) -> dict[str, str]:
    """A word and why.

    visible: the spectrum of the images has a peak of the layer's grid, and mending the layer lowers it. mild: it has
    the peak, or the layer's ripple changes the images by at least half a level. clean: neither, or it cannot ripple.
    """
    said = f"its constant ripple changes the images by {levels:.2g} levels of 255"
    if site.kind == INTERPOLATION:
        return {"verdict": VERDICTS[0], "reason": "interpolation leaves no trace on a flat input"}
    if not math.isnan(own["own"]):
        mended = np.nanmin([own["own_without"], own["own_equalised"]])
        why = f"the spectrum has a peak of its grid, {own['own']:.1f} dB"
        if mended < own["own"]:
            return {"verdict": VERDICTS[2], "reason": f"{why}, and mending the layer lowers it to {mended:.1f}; {said}"}
        return {"verdict": VERDICTS[1], "reason": f"{why}, but mending this layer alone does not lower it; {said}"}
    if found["measured"] <= found["chance"]:
        return {"verdict": VERDICTS[0], "reason": "its ripple is what chance gives"}
    if levels < FAINT:
        return {"verdict": VERDICTS[0], "reason": f"{said}, less than rounding"}
    rest = "the spectrum has no peak of its grid" if looked else "its grid is too coarse to be told from layout"
    return {"verdict": VERDICTS[1], "reason": f"{said}, but {rest}"}


def judged(layers: pd.DataFrame, found: pd.DataFrame) -> dict[str, Any]:
    """The worst verdict, the layer to blame, and a sentence.

    To blame: the layer that lowers the strongest peak of its own grid most, when its constant ripple is taken out or
    its phases are equalised.
    """
    worst = max(layers.verdict, key=VERDICTS.index)
    best = layers[["own_without", "own_equalised"]].min(axis=1)
    drop = layers.own - best
    blame = str(layers.layer[drop.idxmax()]) if bool((drop > 0).any()) else None
    number = int(found.peak.sum())
    said = "The spectrum of the images has no peak of any grid"
    if number:
        top = found[found.peak].iloc[0]
        said = (
            f"{number} peak{'s' * (number > 1)} of grids in the spectrum of the images, the strongest {top.excess:.1f} "
            f"dB above its neighbours (z = {top.z:.1f}, grid of {top.period} pixels)"
        )
    if blame:
        row = layers[layers.layer == blame].iloc[0]
        how = "its phases equalised" if row.own_equalised <= row.own_without else "its ripple taken out"
        said += f"; most to blame is {blame}: with {how}, {row.own:.1f} dB become {min(best[row.name], row.own):.1f}"
    elif number:
        said += "; no layer alone explains them: mending one leaves them or makes them higher"
    return {"verdict": worst, "blame": blame, "peaks": number, "sentence": f"{worst.capitalize()}. {said}."}


def _overlap(site: Upsampling) -> dict[str, Any]:
    """The pattern of one period, and the count along a row with its borders, for the page."""
    assert site.pattern is not None
    assert site.kernel is not None
    assert site.geometry is not None
    return {"pattern": site.pattern.tolist(), "line": overlap_line(site.kernel[1], site.geometry, 8).tolist()}


def _worst(effect: Effect) -> list[dict[str, Any]]:
    order = np.argsort(np.negative(effect.samples), kind="stable")[:SHOWN]
    return [{"sample": int(place), "levels": effect.samples[place]} for place in order]


def _shown(spectrum: Spectrum) -> NDArray[Any]:
    """(H, W) in dB with zero frequency in the middle."""
    return torch.fft.fftshift(spectrum.mean).float().numpy()


@torch.inference_mode()
def _pictures(
    generator: Generator, site: Upsampling, tile: Tensor, worst: Sequence[dict[str, Any]]
) -> NDArray[np.uint8]:
    """(n, 2, side, side, 3): samples with the site's ripple and without."""
    latents = generator.latents([one["sample"] for one in worst])
    before = generator(latents)
    with without(generator, site, tile):
        after = generator(latents)
    return np.stack([gr.thumbnails(images, SIDE).cpu().numpy() for images in (before, after)], 1)
