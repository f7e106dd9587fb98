"""explore(): films and contact sheets of moves through a generator's latents, and what its directions change."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from ...hooks.errors import UsageError
from ..images.contact_sheet import film
from ..runtime.progress import Progress
from ..runtime.requests import check_choice, check_integers
from ..runtime.resources import at_work, usual_batch
from ..storage.files import safe_name
from ..storage.result_folder import header, written
from ..subjects.identity import identity
from ..subjects.opening import Model, open_generator, usable_device
from .moves import KINDS, LatentOptions
from .result import Explored
from .space import open_space

FILMS = ("webp", "gif")
FILMLESS = ("path-length",)


def explore(
    kind: str,
    model: Model,
    options: LatentOptions | None = None,
    *,
    animation: str = "webp",
    seed: int = 0,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Explored:
    """Move through a generator's latents, and show the images in films and contact sheets.

    Args:
        kind: interpolate (a film through samples), arithmetic (means of samples added and subtracted), mix (the two-way
            table of styles), truncation (ψ), directions (GANSpace or SeFa, each with its effect), path-length.
        model: as of `dissect.run`.
        options: `samples` such as `0..3,7`; `space` z or w; `path` linear or spherical; `formula` such as
            `3,4,5 - 7,8 + 9`; `across` the samples of a mix's columns, `crossover` the first layer that takes their
            styles; `psi` a list of truncations; `method`, number of `directions`, `strength` in standard deviations,
            samples `measured`, the `segmenter`; `pairs` of a path length, and its `similarity`, a function or
            package.module:name, or the folder of `lpips`.
        animation: webp or gif.
        seed: of latents and of all random choices.
        out: folder; None is runs/MODEL-latents-KIND. If it already holds this, that is loaded
            instead of recomputed.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: an option does not exist, or does not go with this kind or generator.
        DissectError: something failed. Nothing is written.
    """
    options = options or LatentOptions()
    check_choice("KIND", kind, KINDS)
    make, allowed = KINDS[kind]
    for option, value in vars(options).items():
        if value is not None and option not in allowed:
            fitting = [name for name, (_, of_kind) in KINDS.items() if option in of_kind]
            raise UsageError(f"--{option} goes with {' and '.join(fitting)}, not with {kind}; leave it out.")
    check_choice("--film", animation, FILMS)
    check_integers({"--seed": (seed, 0), "--batch-size": (batch_size, 1)})
    device = usable_device(device)
    generator = open_generator(model, seed, device, quiet)
    space = open_space(generator, options.space, batch_size or usual_batch(generator.device))
    with torch.inference_mode():
        plan = make(space, options, seed)
    config = {
        "kind": kind,
        **identity(generator),
        "space": space.name,
        **({} if kind in FILMLESS else {"film": animation}),
        "seed": seed,
        **plan.facts,
    }
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-latents-{kind}")
    if (kept := Explored.kept(folder, config, "give another --out")) is not None:
        return kept
    with Progress(quiet) as progress, at_work(), torch.inference_mode():
        drawing = plan.draw(progress)
    info = {
        **header(),
        "config": config,
        "space": space.name,
        **plan.facts,
        **drawing.facts,
        "tables": list(drawing.tables),
        "pictures": [f"sheet{end}.png" for end in drawing.sheets] + [f"film{end}.{animation}" for end in drawing.films],
    }
    with written(folder) as part:
        for end, page in drawing.sheets.items():
            page.save(part / f"sheet{end}.png")
        for end, frames in drawing.films.items():
            film(frames, part / f"film{end}.{animation}")
        if drawing.tensors:
            (part / "directions.safetensors").write_bytes(save(drawing.tensors))
        Explored(folder=folder, info=info, tables=drawing.tables).write(part)
    return Explored.load(folder)
