"""explore(): films and contact sheets of a generator's latents, and what its directions do.

FOLDER/latents.json            what was asked for, and found
FOLDER/sheet.png               contact sheet; of directions one each, sheet-1.png, …
FOLDER/film.webp or film.gif   likewise
FOLDER/directions.csv          of directions: strength, share; effects.csv: what each does to the classes' areas
FOLDER/directions.safetensors  their vectors (K, D)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from ...hooks.errors import UsageError
from ...hooks.factory import made_by
from ...segmenters import load_segmenter
from ...segmenters.base import Segmenter
from ..capture import BATCH, threads_kept
from ..folders import holds, written
from ..generators.base import Generator
from ..generators.sources import ClassLatents
from ..generators.style_based import StyleBased
from ..generators.zoo import MODELS
from ..job import command, now
from ..model_spec import ModelSpec
from ..models import choices, fingerprint, open_generator, usable_device
from ..progress import Progress
from ..store import SCHEMA, read_json, safe_name, write_csv, write_json
from .fitting import FITTED_ON, METHODS, RANDOM, effects, fit
from .path_length import EPSILON, Similarity, open_lpips, path_length
from .paths import WAYS, arithmetic, mixing_table, parse_arithmetic, sweep, walk
from .sheets import film, sheet
from .space import Space, open_space, spread

FILMS = ("webp", "gif")
STEPS = 24  # frames from one key point to the next
COLUMNS = 8  # of an interpolation's sheet
PSIS = (0.0, 0.25, 0.5, 0.7, 1.0)
Z_PSIS = (0.1, 0.25, 0.5, 0.75, 1.0)  # of truncated normals, where 0 is not defined


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What `explore` made: its folder, what it says of itself, and tables by name (directions and effects, or none)."""

    folder: Path
    info: dict[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Explored:
        """Raises DissectError if the folder's description is damaged."""
        info = read_json(folder / "latents.json")
        tables = {name: pd.read_csv(folder / f"{name}.csv") for name in info["tables"]}
        return cls(folder=folder, info=info, tables=tables)


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
class _Made:
    """Sheets and films by the end of their names, and the rest of a folder."""

    sheets: dict[str, Any] = field(default_factory=dict)
    films: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def explore(
    kind: str,
    model: str | ModelSpec | Generator,
    asked: Asked | None = None,
    *,
    animation: str = "webp",
    seed: int = 0,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Explored:
    """Move through a generator's latents and show what comes.

    Args:
        kind: interpolate (a film through samples), arithmetic (means of samples added and subtracted), mix (the two-way
            table of styles), truncation (ψ), directions (GANSpace or SeFa, each with its effect), path-length.
        model: as of `dissect.run`.
        asked: `samples` such as `0..3,7`; `space` z or w; `path` linear or spherical; `formula` such as
            `3,4,5 - 7,8 + 9`; `across` the samples of a mix's columns, `crossover` the first layer that takes their
            styles; `psi` a list of truncations; `method`, number of `directions`, `strength` in standard deviations,
            samples `measured`, the `segmenter`; `pairs` of a path length, and its `similarity`, a function or
            package.module:factory, or the folder of `lpips`.
        animation: webp or gif.
        seed: of latents and chance.
        out: folder; None is runs/MODEL-latents-KIND. The same there is returned at once.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist or does not go with this kind or generator.
        DissectError: something failed. Nothing is written.
    """
    asked = asked or Asked()
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not known; there are {', '.join(KINDS)}.")
    make, options = KINDS[kind]
    for option, value in vars(asked).items():
        if value is not None and option not in options:
            fitting = [name for name, (_, known) in KINDS.items() if option in known]
            raise UsageError(f"--{option} goes with {' and '.join(fitting)}, not with {kind}; leave it out.")
    if animation not in FILMS:
        raise UsageError(f"--film {animation!r} is not known; there are {', '.join(FILMS)}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: a whole number from 1 up is needed.")
    device = usable_device(device)
    generator = open_generator(model, seed, device, quiet)
    space = open_space(generator, asked.space, batch_size or BATCH.get(generator.device.type, 16))
    config = {
        "kind": kind,
        "model": generator.name,
        "weights_sha256": fingerprint(generator.module),
        "latent": str(generator.source),
        **choices(generator.module),
        "space": space.name,
        "film": animation,
        "seed": seed,
        **{name: str(value) for name, value in vars(asked).items() if value is not None and name != "space"},
    }
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-latents-{kind}")
    if holds(folder, "latents.json", config, "give another --out, or delete it"):
        return Explored.load(folder)
    with Progress(quiet) as progress, threads_kept(), torch.inference_mode():
        made = make(space, asked, seed, progress)
    info = {
        "schema": SCHEMA,
        "created": now(),
        "command": command(),
        "config": config,
        "tables": list(made.tables),
        "pictures": [f"sheet{end}.png" for end in made.sheets] + [f"film{end}.{animation}" for end in made.films],
        **made.facts,
    }
    with written(folder) as part:
        for end, page in made.sheets.items():
            page.save(part / f"sheet{end}.png")
        for end, frames in made.films.items():
            film(frames, part / f"film{end}.{animation}")
        for name, table in made.tables.items():
            write_csv(part / f"{name}.csv", table)
        if made.tensors:
            save_file(made.tensors, part / "directions.safetensors")
        write_json(part / "latents.json", info)
    return Explored.load(folder)


def _interpolate(space: Space, asked: Asked, _seed: int, progress: Progress) -> _Made:
    samples = _samples("--samples", asked.samples or "0..3")
    how = asked.path or ("linear" if space.name == "w" else "spherical")
    if how not in WAYS:
        raise UsageError(f"--path {how!r} is not known; there are {', '.join(WAYS)}.")
    if len(samples) < 2:
        raise UsageError("--samples: an interpolation needs two or more, e.g. 0..3.")
    frames = _walked(space, space.points(samples), STEPS, how)
    with progress.task("interpolate", len(frames)) as advance:
        images = _drawn(space, frames, advance)
    shown = images.view(len(samples), STEPS, *images.shape[1:])[:, :: STEPS // COLUMNS]
    after = [*samples[1:], samples[0]]
    rows = [f"{one} to {other}" for one, other in zip(samples, after, strict=True)]
    columns = [f"{step / COLUMNS:g}" for step in range(COLUMNS)]
    facts = {"samples": samples, "path": how, "space": space.name}
    return _Made(sheets={"": sheet(shown.flatten(0, 1), rows, columns)}, films={"": images}, facts=facts)


def _arithmetic(space: Space, asked: Asked, _seed: int, progress: Progress) -> _Made:
    if asked.formula is None:
        raise UsageError("--formula is needed: means of samples with signs, such as '3,4,5 - 7,8 + 9'.")
    terms = parse_arithmetic(asked.formula)
    sums = [arithmetic(terms[: number + 1], space.points) for number in range(len(terms))]
    means = [arithmetic([(1, samples)], space.points) for _, samples in terms]
    frames = _walked(space, torch.cat([sums[0], sums[-1]]), STEPS, "linear")
    with progress.task("arithmetic", len(frames) + 2 * len(terms)) as advance:
        rows = _drawn(space, torch.cat([*means, *sums]), advance)
        images = _drawn(space, frames, advance)
    signs = ["mean of"] + [("plus" if sign > 0 else "minus") for sign, _ in terms[1:]]
    columns = [f"{sign} {_short(samples)}" for sign, (_, samples) in zip(signs, terms, strict=True)]
    made = sheet(rows, ["each mean", "sum so far"], columns)
    return _Made(sheets={"": made}, films={"": images}, facts={"formula": asked.formula, "space": space.name})


def _mix(space: Space, asked: Asked, _seed: int, progress: Progress) -> _Made:
    if space.name != "w":
        raise UsageError(f"Styles can be mixed in w, which {space.generator.name} does not have; take a StyleGAN.")
    count = space.style_based.style_count
    crossover = count // 2 if asked.crossover is None else asked.crossover
    rows = _samples("--samples", asked.samples or "0..3")
    columns = _samples("--across", asked.across or "4..8")
    first, second = (space.points(samples)[:, None].expand(-1, count, -1) for samples in (rows, columns))
    table = mixing_table(first, second, crossover).flatten(0, 1)  # (rows · columns, L, W)
    with progress.task("mix styles", len(rows) + len(columns) + len(table)) as advance:
        sources = [_drawn(space, one, advance) for one in (first, second)]
        mixed = _drawn(space, table, advance).unflatten(0, (len(rows), len(columns)))
    lines = torch.cat([sources[0][:, None], mixed], 1)  # each row begins with its own source
    head = torch.cat([torch.ones_like(sources[0][:1]), sources[1]])
    images = torch.cat([head, lines.flatten(0, 1)])
    named = ["", *(f"sample {one}" for one in rows)], ["", *(f"sample {one}" for one in columns)]
    facts = {"rows": rows, "columns": columns, "crossover": crossover, "layers": count}
    return _Made(sheets={"": sheet(images, *named)}, facts=facts)


def _truncation(space: Space, asked: Asked, _seed: int, progress: Progress) -> _Made:
    generator, samples = space.generator, _samples("--samples", asked.samples or "0..5")
    styled = isinstance(generator.module, StyleBased)
    psis = _numbers("--psi", asked.psi) if asked.psi else PSIS if styled else Z_PSIS
    if not styled and not isinstance(generator.source, ClassLatents):
        raise UsageError(f"{generator.name} knows no truncation; StyleGANs and BigGANs do.")
    with progress.task("sweep truncation", len(samples) * len(psis)) as advance:
        if isinstance(generator.module, StyleBased):
            whole = generator.module.mapped(generator.latents(samples))
            points = sweep(whole, generator.module.mean_style(), psis).flatten(0, 1)  # (samples · ψ, W)
            in_w = replace(space, name="w", fixed=0)
            images = _drawn(in_w, points, advance).view(len(samples), len(psis), 3, *_size(space))
        else:
            images = torch.stack([_truncated(space, samples, psi, advance) for psi in psis], 1)
    page = sheet(images.flatten(0, 1), [f"sample {one}" for one in samples], [f"ψ {psi:g}" for psi in psis])
    back = torch.cat([images, images.flip(1)[:, 1:-1]], 1)  # there and back, so that it loops
    return _Made(sheets={"": page}, films={"": back[0]}, facts={"samples": samples, "psi": list(psis)})


def _truncated(space: Space, samples: list[int], psi: float, advance: Callable[[int], None]) -> Tensor:
    generator = space.generator
    assert isinstance(generator.source, ClassLatents)
    if not 0 < psi <= 1:
        raise UsageError(f"--psi {psi:g}: a BigGAN takes numbers above 0 and up to 1.")
    before = getattr(generator.module, "truncation", None)
    if before is not None:
        generator.module.truncation = psi  # type: ignore[assignment]  # a BigGAN-deep has statistics for each
    try:
        there = replace(space, generator=replace(generator, source=replace(generator.source, truncation=psi)), name="z")
        return _drawn(there, there.points(samples), advance)
    finally:
        if before is not None:
            generator.module.truncation = before


def _directions(space: Space, asked: Asked, seed: int, progress: Progress) -> _Made:
    method, count = asked.method or METHODS[0], 5 if asked.directions is None else asked.directions
    strength, measured = asked.strength or 2.0, 128 if asked.measured is None else asked.measured
    if method not in METHODS:
        raise UsageError(f"--method {method!r} is not known; there are {', '.join(METHODS)}.")
    if not 0 < strength <= 10:
        raise UsageError(f"--strength {strength:g}: standard deviations above 0 and up to 10 are needed.")
    if measured < 2 or count < 1:
        raise UsageError(f"--measured {measured}, --directions {count}: at least 2 samples and 1 direction are needed.")
    segmenter = _segmenter(asked.segmenter, space.generator)
    samples = _samples("--samples", asked.samples or "0..3")
    with progress.task(f"fit {method}", FITTED_ON) as advance:
        found, where = fit(space, method, count, advance)
    scales = spread(space, found.vectors)
    unseen = range(FITTED_ON, FITTED_ON + measured)  # the first were fitted on
    with progress.task("measure effects", measured * (1 + 2 * (count + RANDOM))) as advance:
        table = effects(space, found.vectors, segmenter, unseen, strength, seed, advance)
    made = _Made(
        tables={"directions": _summary(found.shares.tolist(), scales.tolist(), table), "effects": table},
        tensors={"vectors": found.vectors.contiguous()},
        facts={"method": method, "space": space.name, "found_in": where, "strength": strength, "measured": measured},
    )
    stops = [strength * step / 3 for step in range(-3, 4)]
    columns = [f"{stop:+.1f} σ" if stop else "0" for stop in stops]
    points = space.points(samples)
    with progress.task("draw directions", count * (len(stops) * len(samples) + STEPS)) as advance:
        for number, (vector, scale) in enumerate(zip(found.vectors, scales.tolist(), strict=True), 1):
            moved = torch.stack([space.moved(points, vector, stop * scale) for stop in stops], 1).flatten(0, 1)
            images = _drawn(space, moved, advance)
            made.sheets[f"-{number}"] = sheet(images, [f"sample {one}" for one in samples], columns)
            phases = torch.sin(torch.arange(STEPS) * (2 * torch.pi / STEPS)).tolist()
            swing = torch.cat([space.moved(points[:1], vector, strength * phase * scale) for phase in phases])
            made.films[f"-{number}"] = _drawn(space, swing, advance)
    return made


def _summary(shares: list[float], scales: list[float], table: pd.DataFrame) -> pd.DataFrame:
    """One row a direction: its strength, and the class that it changes most, of those it changes beyond chance."""
    rows = []
    for number, (share, scale) in enumerate(zip(shares, scales, strict=True), 1):
        here = table[(table.direction == number) & table.changed & table.beyond_random]
        row: dict[str, Any] = {"direction": number, "share": share, "sigma": scale, "class": None}
        if len(here):
            most = here.loc[here.change_pp.abs().idxmax()]
            names = ("class", "sign", "change_pp", "change_pp_low", "change_pp_high")
            row |= {name: most[name] for name in names}
        rows.append(row)
    columns = ("direction", "share", "sigma", "class", "sign", "change_pp", "change_pp_low", "change_pp_high")
    return pd.DataFrame(rows, columns=columns)


def _path_length(space: Space, asked: Asked, seed: int, progress: Progress) -> _Made:
    pairs = 1000 if asked.pairs is None else asked.pairs
    if pairs < 2:
        raise UsageError(f"--pairs {pairs}: at least 2 are needed.")
    given, device = asked.similarity, space.generator.device
    similarity = made_by("--similarity", given) if isinstance(given, str) else given
    if given is not None and not callable(similarity):
        raise UsageError(f"--similarity {given!r} makes no function of two batches of images.")
    measure = similarity if callable(similarity) else open_lpips(asked.lpips, device)
    ways = {None: "lerp", "linear": "lerp", "spherical": "slerp_any"}  # torch-fidelity's names; it takes the first
    if asked.path not in ways:
        raise UsageError(f"--path {asked.path!r} is not known; there are {', '.join(WAYS)}.")
    how = ways[asked.path]
    with progress.task("path length", 2 * pairs) as advance:

        def images_of(points: Tensor) -> Tensor:
            advance(len(points))
            return space.images(points).to(device)

        starts, ends = space.points(range(pairs)), space.points(range(pairs, 2 * pairs))
        found = path_length(
            images_of, starts, ends, similarity=measure, how=how, fixed=space.fixed, batch=space.batch, seed=seed
        )
    lpips = given is None
    facts = {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "std": found.std,
        "pairs": pairs,
        "epsilon": EPSILON,
        "path": how,
        "space": space.name,
        "similarity": "LPIPS on VGG-16" if lpips else str(given),
        "comparable": "with torch-fidelity's figures of the same path, and not with those of StyleGAN's own code"
        if lpips
        else "with nothing published: the similarity is one of your own",
    }
    return _Made(facts=facts)


Make = Callable[[Space, Asked, int, Progress], _Made]
KINDS: Mapping[str, tuple[Make, tuple[str, ...]]] = {
    "interpolate": (_interpolate, ("samples", "space", "path")),
    "arithmetic": (_arithmetic, ("formula", "space")),
    "mix": (_mix, ("samples", "across", "crossover")),
    "truncation": (_truncation, ("samples", "psi")),
    "directions": (
        _directions,
        ("samples", "space", "method", "directions", "strength", "measured", "segmenter"),
    ),
    "path-length": (_path_length, ("space", "path", "pairs", "similarity", "lpips")),
}


def _walked(space: Space, points: Tensor, steps: int, how: str) -> Tensor:
    """Frames through points and back to the first; a class behind a latent goes straight."""
    free = points.shape[1] - space.fixed
    moved = walk(points[:, :free].cpu(), steps, closed=True, how=how)
    still = walk(points[:, free:].cpu(), steps, closed=True, how="linear")
    return torch.cat([moved, still], 1).to(points)


def _drawn(space: Space, points: Tensor, advance: Callable[[int], None]) -> Tensor:
    parts = []
    for part in points.split(space.batch):
        parts.append(space.images(part))
        advance(len(part))
    return torch.cat(parts)


def _size(space: Space) -> tuple[int, int]:
    images = space.images(space.points([0]))
    return images.shape[2], images.shape[3]


def _segmenter(given: str | Segmenter | None, generator: Generator) -> Segmenter:
    known = MODELS.get(generator.name)
    if given is None and known is None:
        raise UsageError(f"No segmenter belongs to {generator.name}; choose one by --segmenter (dissect segmenters).")
    if isinstance(given, Segmenter):
        return given
    return load_segmenter(given or str(known and known.segmenter), str(generator.device))


def _samples(option: str, text: str) -> list[int]:
    terms = parse_arithmetic(text)
    if len(terms) != 1:
        raise UsageError(f"{option} {text!r}: numbers and ranges without signs are needed, such as 0..3,7.")
    return list(terms[0][1])


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: numbers with commas between are needed, such as 0,0.5,1.") from error


def _short(samples: tuple[int, ...]) -> str:
    return ",".join(map(str, samples[:4])) + (",…" if len(samples) > 4 else "")
