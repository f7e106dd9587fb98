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
from ..runtime.progress import Progress
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
class Asked:
    """What is wanted beside the model; None takes the kind's own. See `explore`."""

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
class Made:
    """Sheets and films by the end of their names, tables, tensors, and what else is to be told."""

    sheets: dict[str, Image.Image] = field(default_factory=dict)
    films: dict[str, Pixels] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A move that can be made: what decides its result, as plain values, and what makes it."""

    facts: dict[str, Any]
    draw: Callable[[Progress], Made]


def interpolate(space: Space, asked: Asked, _seed: int) -> Plan:
    samples = numbers_of("--samples", asked.samples or "0..3")
    how = asked.path or ("linear" if space.name == "w" else "spherical")
    if how not in WAYS:
        raise UsageError(f"--path {how!r} is not known; there are {', '.join(WAYS)}.")
    if len(samples) < 2:
        raise UsageError("--samples: an interpolation needs two or more, e.g. 0..3.")

    def draw(progress: Progress) -> Made:
        frames = _walked(space, space.points(samples), STEPS, how)
        with progress.task("interpolate", len(frames)) as advance:
            images = drawn(space, frames, advance)
        shown = images.reshape(len(samples), STEPS, *images.shape[1:])[:, :: STEPS // COLUMNS]
        after = [*samples[1:], samples[0]]
        rows = [f"{one} to {other}" for one, other in zip(samples, after, strict=True)]
        columns = [f"{step / COLUMNS:g}" for step in range(COLUMNS)]
        return Made(sheets={"": sheet(_flat(shown), rows, columns)}, films={"": images})

    return Plan(facts={"samples": samples, "path": how}, draw=draw)


def add(space: Space, asked: Asked, _seed: int) -> Plan:
    if asked.formula is None:
        raise UsageError("--formula is needed: means of samples with signs, such as '3,4,5 - 7,8 + 9'.")
    terms = parse_arithmetic(asked.formula)

    def draw(progress: Progress) -> Made:
        sums = [arithmetic(terms[: number + 1], space.points) for number in range(len(terms))]
        means = [arithmetic([(1, samples)], space.points) for _, samples in terms]
        frames = _walked(space, torch.cat([sums[0], sums[-1]]), STEPS, "linear")
        with progress.task("arithmetic", len(frames) + 2 * len(terms)) as advance:
            tiles = drawn(space, torch.cat([*means, *sums]), advance)
            images = drawn(space, frames, advance)
        signs = ["mean of"] + [("plus" if sign > 0 else "minus") for sign, _ in terms[1:]]
        columns = [f"{sign} {_short(samples)}" for sign, (_, samples) in zip(signs, terms, strict=True)]
        return Made(sheets={"": sheet(tiles, ["each mean", "sum so far"], columns)}, films={"": images})

    return Plan(facts={"formula": [[sign, list(samples)] for sign, samples in terms]}, draw=draw)


def mix(space: Space, asked: Asked, _seed: int) -> Plan:
    if space.name != "w":
        raise UsageError(f"Styles can be mixed in w, which {space.generator.name} does not have; take a StyleGAN.")
    count = space.style_based.style_count
    crossover = count // 2 if asked.crossover is None else asked.crossover
    if crossover not in range(count + 1):
        raise UsageError(f"--crossover {crossover}: there are {count} layers of styles, so 0 to {count}.")
    rows = numbers_of("--samples", asked.samples or "0..3")
    columns = numbers_of("--across", asked.across or "4..8")

    def draw(progress: Progress) -> Made:
        first, second = (space.points(samples)[:, None].expand(-1, count, -1) for samples in (rows, columns))
        table = mixing_table(first, second, crossover).flatten(0, 1)  # (rows · columns, L, W)
        there = [mixing_table(first[:1], second[:1], place)[0] for place in range(count, -1, -1)]
        with progress.task("mix styles", len(rows) + len(columns) + len(table) + len(there)) as advance:
            sources = [drawn(space, one, advance) for one in (first, second)]
            mixed = drawn(space, table, advance).reshape(len(rows), len(columns), *sources[0].shape[1:])
            moving = drawn(space, torch.cat(there), advance)
        lines = np.concatenate([sources[0][:, None], mixed], 1)  # each row begins with its own source
        head = np.concatenate([np.full_like(sources[0][:1], 255), sources[1]])
        named = ["", *(f"sample {one}" for one in rows)], ["", *(f"sample {one}" for one in columns)]
        back_and_forth = np.concatenate([moving, moving[-2:0:-1]]).repeat(HELD, 0)
        page = sheet(np.concatenate([head, _flat(lines)]), *named)
        return Made(sheets={"": page}, films={"": back_and_forth})

    return Plan(facts={"rows": rows, "columns": columns, "crossover": crossover, "layers": count}, draw=draw)


def truncation(space: Space, asked: Asked, _seed: int) -> Plan:
    generator, samples = space.generator, numbers_of("--samples", asked.samples or "0..5")
    styled = isinstance(generator.module, StyleBased)
    if not styled and not isinstance(generator.source, ClassLatents):
        raise UsageError(f"{generator.name} knows no truncation; StyleGANs and BigGANs do.")
    if generator.spec is not None and generator.spec.truncation is not None:
        raise UsageError("--truncation does not go with a sweep of it; name the values by --psi.")
    psis = _psis(asked.psi) if asked.psi else PSIS if styled else Z_PSIS
    if not all(-2 <= psi <= 2 if styled else 0 < psi <= 1 for psi in psis):
        raise UsageError(f"--psi {asked.psi}: give {'-2 to 2' if styled else 'numbers above 0 and up to 1'}.")
    film = np.linspace(min(psis), max(psis), STEPS).tolist() if len(set(psis)) > 1 else []

    def draw(progress: Progress) -> Made:
        with progress.task("sweep truncation", len(samples) * len(psis) + BESIDE * len(film)) as advance:
            cells = np.stack([_truncated(space, samples, psi, advance) for psi in psis], 1)
            frames = [np.concatenate([*_truncated(space, samples[:BESIDE], psi, advance)], 1) for psi in film]
        page = sheet(_flat(cells), [f"sample {one}" for one in samples], [f"ψ {psi:g}" for psi in psis])
        return Made(sheets={"": page}, films={"": np.stack(frames + frames[-2:0:-1])} if frames else {})

    return Plan(facts={"samples": samples, "psi": list(psis)}, draw=draw)


def _truncated(space: Space, samples: Sequence[int], psi: float, advance: Advance) -> Pixels:
    generator = space.generator
    if isinstance(generator.module, StyleBased):
        points = sweep(generator.module.mapped(generator.latents(samples)), generator.module.mean_style(), [psi])[:, 0]
        return drawn(replace(space, name="w", fixed=0), points, advance)
    assert isinstance(generator.source, ClassLatents)
    there = replace(space, generator=replace(generator, source=replace(generator.source, truncation=psi)))
    if not isinstance(generator.module, BigGANDeep):
        return drawn(there, there.points(samples), advance)
    before, generator.module.truncation = generator.module.truncation, psi  # which has statistics for each
    try:
        return drawn(there, there.points(samples), advance)
    finally:
        generator.module.truncation = before


def directions(space: Space, asked: Asked, seed: int) -> Plan:
    method, count = asked.method or METHODS[0], 5 if asked.directions is None else asked.directions
    strength = 2.0 if asked.strength is None else asked.strength
    measured = 64 if asked.measured is None else asked.measured
    if method not in METHODS:
        raise UsageError(f"--method {method!r} is not known; there are {', '.join(METHODS)}.")
    if not 0 < strength <= 10:
        raise UsageError(f"--strength {strength:g}: standard deviations above 0 and up to 10 are needed.")
    if measured < 2:
        raise UsageError(f"--measured {measured}: at least 2 samples are needed.")
    if not 1 <= count <= space.width:
        raise UsageError(f"--directions {count}: {space.name} has 1 to {space.width}.")
    samples = numbers_of("--samples", asked.samples or "0..3")
    segmenter = open_segmenter(asked.segmenter, space.generator, str(space.generator.device))

    def draw(progress: Progress) -> Made:
        with progress.task(f"fit {method}", FITTED_ON) as advance:
            found, where = fit(space, method, count, advance)
        scales = spread(space, found.vectors)
        unseen = range(FITTED_ON, FITTED_ON + measured)  # the first were fitted on
        with progress.task("measure effects", measured * (1 + 2 * (count + RANDOM))) as advance:
            table, p = effects(space, found.vectors, segmenter, unseen, strength, seed, advance)
        made = Made(
            tables={"directions": summary(found.shares.tolist(), scales.tolist(), p, table), "effects": table},
            tensors={"vectors": found.vectors.contiguous()},
            facts={"found_in": where},
        )
        stops = [strength * step / 3 for step in range(-3, 4)]
        columns = [f"{stop:+.1f} σ" if stop else "0" for stop in stops]
        points = space.points(samples)
        phases = np.sin(np.arange(STEPS) * (2 * np.pi / STEPS)).tolist()
        with progress.task("draw directions", count * (len(stops) * len(samples) + STEPS)) as advance:
            for number, (vector, scale) in enumerate(zip(found.vectors, scales.tolist(), strict=True), 1):
                moved = torch.stack([space.moved(points, vector, stop * scale) for stop in stops], 1).flatten(0, 1)
                page = sheet(drawn(space, moved, advance), [f"sample {one}" for one in samples], columns)
                swing = torch.cat([space.moved(points[:1], vector, strength * phase * scale) for phase in phases])
                made.sheets[f"-{number}"], made.films[f"-{number}"] = page, drawn(space, swing, advance)
        return made

    facts = {"method": method, "directions": count, "strength": strength, "measured": measured, "samples": samples}
    seen = {"segmenter": segmenter.name, "segmenter_sha256": segmenter_fingerprint(segmenter)}
    return Plan(facts=facts | seen, draw=draw)


def distances(space: Space, asked: Asked, seed: int) -> Plan:
    pairs = 1000 if asked.pairs is None else asked.pairs
    if pairs < 2:
        raise UsageError(f"--pairs {pairs}: at least 2 are needed.")
    ways = {None: "lerp", "linear": "lerp", "spherical": "slerp_any"}  # torch-fidelity's names; it takes the first
    if asked.path not in ways:
        raise UsageError(f"--path {asked.path!r} is not known; there are {', '.join(WAYS)}.")
    how, device = ways[asked.path], space.generator.device
    given = made_by("--similarity", asked.similarity) if isinstance(asked.similarity, str) else asked.similarity
    if given is not None and not callable(given):
        raise UsageError(f"--similarity {asked.similarity!r} makes no function of two batches of images.")
    measure = given if callable(given) else open_lpips(asked.lpips, device)
    named = (
        asked.similarity if isinstance(asked.similarity, str) else getattr(given, "__qualname__", type(given).__name__)
    )
    whole = not isinstance(space.generator.module, StyleBased) or space.generator.module.truncation == 1
    comparable = (
        "with nothing published: the similarity is one of your own"
        if given is not None
        else "with torch-fidelity's figures of the same path, and not with those of StyleGAN's own code"
        if space.name == "z" and whole
        else "with nothing of torch-fidelity's, which moves latents in z, untruncated"
    )

    def draw(progress: Progress) -> Made:
        with progress.task("path length", 2 * pairs) as advance:

            def images_of(points: Tensor) -> Tensor:
                advance(len(points))
                return space.images(points).to(device)

            starts, ends = space.points(range(pairs)), space.points(range(pairs, 2 * pairs))
            found = path_length(
                images_of, starts, ends, similarity=measure, how=how, fixed=space.fixed, batch=space.batch, seed=seed
            )
        told = {name: getattr(found, name) for name in ("mean", "low", "high", "std")}
        return Made(facts=told | {"comparable": comparable})

    facts = {
        "pairs": pairs,
        "epsilon": EPSILON,
        "path": how,
        "similarity": "LPIPS on VGG-16" if given is None else named,
        "similarity_sha256": fingerprint(given) if isinstance(given, nn.Module) else None,
    }
    return Plan(facts=facts, draw=draw)


Make = Callable[[Space, Asked, int], Plan]
KINDS: Mapping[str, tuple[Make, tuple[str, ...]]] = {
    "interpolate": (interpolate, ("samples", "space", "path")),
    "arithmetic": (add, ("formula", "space")),
    "mix": (mix, ("samples", "across", "crossover")),
    "truncation": (truncation, ("samples", "psi")),
    "directions": (
        directions,
        ("samples", "space", "method", "directions", "strength", "measured", "segmenter"),
    ),
    "path-length": (distances, ("space", "path", "pairs", "similarity", "lpips")),
}


def drawn(space: Space, points: Tensor, advance: Advance) -> Pixels:
    """points -> (N, h, w, 3), of at most `SIDE` pixels a side: films of large images would fill memory."""
    parts = []
    for part in points.split(space.batch):
        parts.append(gr.thumbnails(space.images(part), SIDE).numpy())
        advance(len(part))
    return np.concatenate(parts)


def _walked(space: Space, points: Tensor, steps: int, how: str) -> Tensor:
    """Frames through points and back to the first; a class behind a latent goes straight."""
    free = points.shape[1] - space.fixed
    moved = walk(points[:, :free].cpu(), steps, closed=True, how=how)
    still = walk(points[:, free:].cpu(), steps, closed=True, how="linear")
    return torch.cat([moved, still], 1).to(points)


def _flat(tiles: Pixels) -> Pixels:
    """(rows, columns, h, w, 3) -> (rows · columns, h, w, 3)."""
    return tiles.reshape(-1, *tiles.shape[2:])


def numbers_of(option: str, text: str) -> list[int]:
    """`0..3,7` -> [0, 1, 2, 3, 7]; raises UsageError for anything else."""
    terms = parse_arithmetic(text)
    if len(terms) != 1:
        raise UsageError(f"{option} {text!r}: numbers and ranges without signs are needed, such as 0..3,7.")
    return list(terms[0][1])


def _psis(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"--psi {text!r}: numbers with commas between are needed, such as 0,0.5,1.") from error


def _short(samples: tuple[int, ...]) -> str:
    return ",".join(map(str, samples[:4])) + (",…" if len(samples) > 4 else "")
