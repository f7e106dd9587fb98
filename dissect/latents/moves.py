"""The kinds of moves through latents: what each needs, checked and with its defaults, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ...hooks.errors import UsageError
from ...hooks.user_code import made_by
from ...segmenters.base import Segmenter
from ..generators.families.biggan_deep import BigGANDeep
from ..generators.families.style_based import StyleBased
from ..generators.sources import ClassLatents
from ..images import resize as gr
from ..images.contact_sheet import SIDE, sheet
from ..runtime.progress import Fewer, Progress
from ..runtime.requests import check_choice, check_integers
from ..subjects.identity import fingerprint, segmenter_fingerprint
from ..subjects.opening import open_segmenter
from .direction_effects import FITTED_ON, METHODS, RANDOM, effects, fit, summary
from .path_length import EPSILON, Similarity, open_lpips, path_length
from .paths import WAYS, arithmetic, mixing_table, parse_arithmetic, sweep, walk
from .space import Space, spread

STEPS = 24  # frames from one key point to the next
COLUMNS = 8  # of an interpolation's sheet
HELD = 3  # frames for each crossover of a mix
BESIDE = 4  # samples side by side in a film of truncation
PSIS = (0.0, 0.25, 0.5, 0.7, 1.0)
Z_PSIS = (0.1, 0.25, 0.5, 0.75, 1.0)  # of truncated normals, where 0 is not defined

Pixels = NDArray[np.uint8]  # (N, h, w, 3)
Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class LatentOptions:
    """Options of `explore` beside the model, see there; None takes the default of the kind."""

    samples: str | None = None
    space: str | None = None
    path: str | None = None
    formula: str | None = None
    across: str | None = None
    crossover: int | None = None
    psi: str | None = None
    method: str | None = None
    directions: int | None = None
    strength: float | None = None
    measured: int | None = None
    segmenter: str | Segmenter | None = None
    pairs: int | None = None
    similarity: str | Similarity | None = None
    lpips: str | Path | None = None


@dataclass(kw_only=True)
class Drawing:
    """What a move gives: sheets and films by the end of their names, tables, tensors, and facts for the description."""

    sheets: dict[str, Image.Image] = field(default_factory=dict)
    films: dict[str, Pixels] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


Asked = LatentOptions  # its name in version 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked move. facts: all that decides its result, as plain values; draw: makes the result."""

    facts: dict[str, Any]
    draw: Callable[[Progress], Drawing]


def interpolate(space: Space, options: LatentOptions, _seed: int) -> Plan:
    samples = numbers_of("--samples", options.samples or "0..3")
    path = options.path or ("linear" if space.name == "w" else "spherical")
    check_choice("--path", path, WAYS)
    if len(samples) < 2:
        raise UsageError("--samples: an interpolation needs two samples or more, e.g. 0..3.")

    def draw(progress: Progress) -> Drawing:
        frames = _walked(space, space.points(samples), STEPS, path)
        with progress.task("interpolate", len(frames)) as advance:
            images = drawn(space, frames, advance)
        on_sheet = images.reshape(len(samples), STEPS, *images.shape[1:])[:, :: STEPS // COLUMNS]
        following = [*samples[1:], samples[0]]
        rows = [f"{first} to {second}" for first, second in zip(samples, following, strict=True)]
        columns = [f"{step / COLUMNS:g}" for step in range(COLUMNS)]
        return Drawing(sheets={"": sheet(_flat(on_sheet), rows, columns)}, films={"": images})

    return Plan(facts={"samples": samples, "path": path}, draw=draw)


def add_samples(space: Space, options: LatentOptions, _seed: int) -> Plan:
    if options.formula is None:
        raise UsageError("Give --formula: means of samples with signs, such as '3,4,5 - 7,8 + 9'.")
    terms = parse_arithmetic(options.formula)

    def draw(progress: Progress) -> Drawing:
        sums = [arithmetic(terms[:count], space.points) for count in range(1, len(terms) + 1)]
        means = [arithmetic([(1, samples)], space.points) for _, samples in terms]
        frames = _walked(space, torch.cat([sums[0], sums[-1]]), STEPS, "linear")
        with progress.task("arithmetic", len(frames) + 2 * len(terms)) as advance:
            tiles = drawn(space, torch.cat([*means, *sums]), advance)
            images = drawn(space, frames, advance)
        signs = ["mean of"] + [("plus" if sign > 0 else "minus") for sign, _ in terms[1:]]
        columns = [f"{sign} {_short(samples)}" for sign, (_, samples) in zip(signs, terms, strict=True)]
        return Drawing(sheets={"": sheet(tiles, ["each mean", "sum so far"], columns)}, films={"": images})

    return Plan(facts={"formula": [[sign, list(samples)] for sign, samples in terms]}, draw=draw)


def mix(space: Space, options: LatentOptions, _seed: int) -> Plan:
    if space.name != "w":
        raise UsageError(f"Styles are mixed in w, which {space.generator.name} does not have; take a StyleGAN.")
    count = space.style_based.style_count
    crossover = count // 2 if options.crossover is None else options.crossover
    if crossover not in range(count + 1):
        raise UsageError(f"--crossover {crossover}: must be between 0 and {count}, the number of style layers.")
    rows = numbers_of("--samples", options.samples or "0..3")
    columns = numbers_of("--across", options.across or "4..8")

    def draw(progress: Progress) -> Drawing:
        first, second = (space.points(samples)[:, None].expand(-1, count, -1) for samples in (rows, columns))
        table = mixing_table(first, second, crossover).flatten(0, 1)  # (rows · columns, L, W)
        sweep_back = [mixing_table(first[:1], second[:1], layer)[0] for layer in range(count, -1, -1)]
        with progress.task("mix styles", len(rows) + len(columns) + len(table) + len(sweep_back)) as advance:
            sources = [drawn(space, points, advance) for points in (first, second)]
            mixed = drawn(space, table, advance).reshape(len(rows), len(columns), *sources[0].shape[1:])
            moving = drawn(space, torch.cat(sweep_back), advance)
        lines = np.concatenate([sources[0][:, None], mixed], 1)  # each row begins with its own source
        head = np.concatenate([np.full_like(sources[0][:1], 255), sources[1]])
        labels = ["", *_sample_names(rows)], ["", *_sample_names(columns)]
        back_and_forth = np.concatenate([moving, moving[-2:0:-1]]).repeat(HELD, 0)
        page = sheet(np.concatenate([head, _flat(lines)]), *labels)
        return Drawing(sheets={"": page}, films={"": back_and_forth})

    return Plan(facts={"rows": rows, "columns": columns, "crossover": crossover, "layers": count}, draw=draw)


def truncation(space: Space, options: LatentOptions, _seed: int) -> Plan:
    generator, samples = space.generator, numbers_of("--samples", options.samples or "0..5")
    styled = isinstance(generator.module, StyleBased)
    if not styled and not isinstance(generator.source, ClassLatents):
        raise UsageError(f"{generator.name} has no truncation; StyleGANs and BigGANs have one.")
    if generator.spec is not None and generator.spec.truncation is not None:
        raise UsageError("--truncation does not go with a sweep of truncations; name the values by --psi.")
    psis = _psis(options.psi) if options.psi else PSIS if styled else Z_PSIS
    if not all(-2 <= psi <= 2 if styled else 0 < psi <= 1 for psi in psis):
        limits = "between -2 and 2" if styled else "above 0 and at most 1"
        raise UsageError(f"--psi {options.psi}: every value must be {limits}.")
    film = np.linspace(min(psis), max(psis), STEPS).tolist() if len(set(psis)) > 1 else []

    def draw(progress: Progress) -> Drawing:
        with progress.task("sweep truncation", len(samples) * len(psis) + BESIDE * len(film)) as advance:
            cells = np.stack([_truncated(space, samples, psi, advance) for psi in psis], 1)
            frames = [np.concatenate([*_truncated(space, samples[:BESIDE], psi, advance)], 1) for psi in film]
        page = sheet(_flat(cells), _sample_names(samples), [f"ψ {psi:g}" for psi in psis])
        return Drawing(sheets={"": page}, films={"": np.stack(frames + frames[-2:0:-1])} if frames else {})

    return Plan(facts={"samples": samples, "psi": list(psis)}, draw=draw)


def _truncated(space: Space, samples: Sequence[int], psi: float, advance: Advance) -> Pixels:
    generator = space.generator
    if isinstance(generator.module, StyleBased):
        points = sweep(generator.module.mapped(generator.latents(samples)), generator.module.mean_style(), [psi])[:, 0]
        return drawn(replace(space, name="w", fixed=0), points, advance)
    assert isinstance(generator.source, ClassLatents)
    truncated = replace(space, generator=replace(generator, source=replace(generator.source, truncation=psi)))
    if not isinstance(generator.module, BigGANDeep):
        return drawn(truncated, truncated.points(samples), advance)
    before, generator.module.truncation = (
        generator.module.truncation,
        psi,
    )  # the module has statistics for each truncation
    try:
        return drawn(truncated, truncated.points(samples), advance)
    finally:
        generator.module.truncation = before


def directions(space: Space, options: LatentOptions, seed: int) -> Plan:
    method, count = options.method or METHODS[0], 5 if options.directions is None else options.directions
    strength = 2.0 if options.strength is None else options.strength
    measured = 64 if options.measured is None else options.measured
    check_choice("--method", method, METHODS)
    if not 0 < strength <= 10:
        raise UsageError(f"--strength {strength:g}: must be above 0 and at most 10 standard deviations.")
    check_integers({"--measured": (measured, 2)})
    if not 1 <= count <= space.width:
        raise UsageError(f"--directions {count}: must be between 1 and {space.width}, the width of {space.name}.")
    samples = numbers_of("--samples", options.samples or "0..3")
    segmenter = open_segmenter(options.segmenter, space.generator, str(space.generator.device))

    def draw(progress: Progress) -> Drawing:
        progress.stages = 3
        with progress.task(f"fit {method}", FITTED_ON, noun="latents") as advance:
            fitted, where = fit(space, method, count, advance)
        scales = spread(space, fitted.vectors)
        unseen = range(FITTED_ON, FITTED_ON + measured)  # the first were fitted on
        fewer = Fewer("measured", measured, 16)
        with progress.task("measure effects", measured * (1 + 2 * (count + RANDOM)), fewer=fewer) as advance:
            table, p = effects(space, fitted.vectors, segmenter, unseen, strength, seed, advance)
        drawing = Drawing(
            tables={"directions": summary(fitted.shares.tolist(), scales.tolist(), p, table), "effects": table},
            tensors={"vectors": fitted.vectors.contiguous()},
            facts={"found_in": where},
        )
        stops = [strength * step / 3 for step in range(-3, 4)]
        columns = [f"{stop:+.1f} σ" if stop else "0" for stop in stops]
        points = space.points(samples)
        phases = np.sin(np.arange(STEPS) * (2 * np.pi / STEPS)).tolist()
        with progress.task("draw directions", count * (len(stops) * len(samples) + STEPS)) as advance:
            for number, (vector, scale) in enumerate(zip(fitted.vectors, scales.tolist(), strict=True), 1):
                moved = torch.stack([space.moved(points, vector, stop * scale) for stop in stops], 1).flatten(0, 1)
                page = sheet(drawn(space, moved, advance), _sample_names(samples), columns)
                swing = torch.cat([space.moved(points[:1], vector, strength * phase * scale) for phase in phases])
                drawing.sheets[f"-{number}"], drawing.films[f"-{number}"] = page, drawn(space, swing, advance)
        return drawing

    facts: dict[str, Any] = {
        "method": method,
        "directions": count,
        "strength": strength,
        "measured": measured,
        "samples": samples,
    }
    facts |= {"segmenter": segmenter.name, "segmenter_sha256": segmenter_fingerprint(segmenter)}
    return Plan(facts=facts, draw=draw)


def path_length_plan(space: Space, options: LatentOptions, seed: int) -> Plan:
    pairs = 1000 if options.pairs is None else options.pairs
    check_integers({"--pairs": (pairs, 2)})
    if options.path is not None:
        check_choice("--path", options.path, WAYS)
    # torch-fidelity's names of the paths, and its default
    path, device = {None: "lerp", "linear": "lerp", "spherical": "slerp_any"}[options.path], space.generator.device
    own: object = options.similarity
    if isinstance(own, str):
        own = made_by("--similarity", own)
    if own is not None and not callable(own):
        raise UsageError(f"--similarity {options.similarity!r} makes no function of two batches of images.")
    measure = own if callable(own) else open_lpips(options.lpips, device)

    def draw(progress: Progress) -> Drawing:
        with progress.task("path length", 2 * pairs, fewer=Fewer("pairs", pairs, 100)) as advance:
            starts, ends = space.points(range(pairs)), space.points(range(pairs, 2 * pairs))
            length = path_length(
                lambda points: space.images(points).to(device),
                starts,
                ends,
                similarity=measure,
                how=path,
                fixed=space.fixed,
                batch=space.batch,
                seed=seed,
                advance=advance,
            )
        figures = {name: getattr(length, name) for name in ("mean", "low", "high", "std")}
        return Drawing(facts=figures | {"comparable": _comparable(space, own is None)})

    facts = {
        "pairs": pairs,
        "epsilon": EPSILON,
        "path": path,
        "similarity": "LPIPS on VGG-16" if own is None else _name_of(options.similarity),
        "similarity_sha256": fingerprint(own) if isinstance(own, nn.Module) else None,
    }
    return Plan(facts=facts, draw=draw)


def _comparable(space: Space, lpips: bool) -> str:
    """What a path length may be compared with."""
    module = space.generator.module
    untruncated = not isinstance(module, StyleBased) or module.truncation == 1
    if not lpips:
        return "with nothing published: the similarity is one of your own"
    if space.name == "z" and untruncated:
        return "with torch-fidelity's figures of the same path, and not with those of StyleGAN's own code"
    return "with nothing of torch-fidelity's, which moves latents in z, untruncated"


def _name_of(similarity: object) -> str:
    if isinstance(similarity, str):
        return similarity
    return str(getattr(similarity, "__qualname__", type(similarity).__name__))


Make = Callable[[Space, LatentOptions, int], Plan]
KINDS: Mapping[str, tuple[Make, tuple[str, ...]]] = {
    "interpolate": (interpolate, ("samples", "space", "path")),
    "arithmetic": (add_samples, ("formula", "space")),
    "mix": (mix, ("samples", "across", "crossover")),
    "truncation": (truncation, ("samples", "psi")),
    "directions": (
        directions,
        ("samples", "space", "method", "directions", "strength", "measured", "segmenter"),
    ),
    "path-length": (path_length_plan, ("space", "path", "pairs", "similarity", "lpips")),
}


def drawn(space: Space, points: Tensor, advance: Advance) -> Pixels:
    """points -> (N, h, w, 3), of at most `SIDE` pixels a side: films of large images would fill memory."""
    pixels = []
    for batch in points.split(space.batch):
        pixels.append(gr.thumbnails(space.images(batch), SIDE).numpy())
        advance(len(batch))
    return np.concatenate(pixels)


def _walked(space: Space, points: Tensor, steps: int, path: str) -> Tensor:
    """Frames through points and back to the first; the class behind a latent always moves linearly."""
    free = points.shape[1] - space.fixed
    latents = walk(points[:, :free].cpu(), steps, closed=True, how=path)
    classes = walk(points[:, free:].cpu(), steps, closed=True, how="linear")
    return torch.cat([latents, classes], 1).to(points)


def _sample_names(samples: Sequence[int]) -> list[str]:
    return [f"sample {sample}" for sample in samples]


def _flat(tiles: Pixels) -> Pixels:
    """(rows, columns, h, w, 3) -> (rows · columns, h, w, 3)."""
    return tiles.reshape(-1, *tiles.shape[2:])


def numbers_of(option: str, text: str) -> list[int]:
    """Read samples and ranges; raises UsageError, which names the option, for anything else.

    >>> numbers_of("--samples", "0..3,7")
    [0, 1, 2, 3, 7]
    """
    terms = parse_arithmetic(text)
    if len(terms) != 1:
        raise UsageError(f"{option} {text!r}: must be numbers and ranges without signs, such as 0..3,7.")
    return list(terms[0][1])


def _psis(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"--psi {text!r}: must be numbers with commas between, such as 0,0.5,1.") from error


def _short(samples: tuple[int, ...]) -> str:
    return ",".join(map(str, samples[:4])) + (",…" if len(samples) > 4 else "")
