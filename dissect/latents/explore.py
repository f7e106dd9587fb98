"""explore(): films and contact sheets of a generator's latents, and what its directions do.

FOLDER/latents.json            what was asked for, and found
FOLDER/sheet.png               contact sheet; of directions one each, sheet-1.png, …
FOLDER/film.webp or film.gif   likewise
FOLDER/directions.csv          of directions: strength, share; effects.csv: what each does to the classes' areas
FOLDER/directions.safetensors  their vectors (K, D)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from ...hooks.errors import UsageError
from ..images.contact_sheet import film
from ..runtime.progress import Progress
from ..runtime.resources import at_work, usual_batch
from ..storage.files import SCHEMA, read_json, read_table, safe_name, write_csv, write_json
from ..storage.result_folder import command, holds, now, written
from ..subjects.identity import identity
from ..subjects.opening import Model, open_generator, usable_device
from .moves import KINDS, Asked
from .space import open_space

FILMS = ("webp", "gif")
FILMLESS = ("path-length",)


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What `explore` made: its folder, what it says of itself, and tables by name (directions and effects, or none)."""

    folder: Path
    info: dict[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> Explored:
        """Open what was kept; raises DissectError if a file of it is missing or damaged."""
        folder = Path(folder)
        info = read_json(folder / "latents.json")
        tables = {name: read_table(folder / f"{name}.csv") for name in info["tables"]}
        return cls(folder=folder, info=info, tables=tables)


def explore(
    kind: str,
    model: Model,
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
            package.module:name, or the folder of `lpips`.
        animation: webp or gif.
        seed: of latents and chance.
        out: folder; None is runs/MODEL-latents-KIND. One that holds this already is loaded instead of recomputed.
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
    if seed < 0 or (batch_size is not None and batch_size < 1):
        raise UsageError(f"--seed {seed}, --batch-size {batch_size}: whole numbers from 0 and from 1 up are needed.")
    device = usable_device(device)
    generator = open_generator(model, seed, device, quiet)
    space = open_space(generator, asked.space, batch_size or usual_batch(generator.device))
    with torch.inference_mode():
        plan = make(space, asked, seed)
    config = {
        "kind": kind,
        **identity(generator),
        "space": space.name,
        **({} if kind in FILMLESS else {"film": animation}),
        "seed": seed,
        **plan.facts,
    }
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-latents-{kind}")
    if holds(folder, "latents.json", config, "give another --out"):
        return Explored.load(folder)
    with Progress(quiet) as progress, at_work(), torch.inference_mode():
        made = plan.draw(progress)
    info = {
        "schema": SCHEMA,
        "created": now(),
        "command": command(),
        "config": config,
        "space": space.name,
        **plan.facts,
        **made.facts,
        "tables": list(made.tables),
        "pictures": [f"sheet{end}.png" for end in made.sheets] + [f"film{end}.{animation}" for end in made.films],
    }
    with written(folder) as part:
        for end, page in made.sheets.items():
            page.save(part / f"sheet{end}.png")
        for end, frames in made.films.items():
            film(frames, part / f"film{end}.{animation}")
        for name, table in made.tables.items():
            write_csv(part / f"{name}.csv", table)
        if made.tensors:
            (part / "directions.safetensors").write_bytes(save(made.tensors))
        write_json(part / "latents.json", info)
    return Explored.load(folder)
