"""fitness(): quality and diversity of candidate generators side by side, and which to take."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError
from ..diversity import whole_images
from ..diversity.image_set import drawn, look, standard_of
from ..fidelity.features import open_features
from ..fidelity.reference import count_reference, reference_images, reference_of
from ..generators.base import Generator
from ..generators.factory import as_generator
from ..generators.spec import ModelSpec
from ..runtime.progress import Progress
from ..runtime.resources import at_work, usual_batch
from ..stats.intervals import LEVEL, around, rounds
from ..storage.files import SCHEMA, digest
from ..storage.result_folder import command, holds, now
from ..subjects.identity import fingerprint, identity
from ..subjects.opening import Model, open_critic, open_generator, usable_device
from .checkpoint_files import labels_of, step_of
from .critic import critic_fitness
from .result import Fitness

LEAST = 100  # images
SHOWN = 8  # samples of each
QUALITY, DIVERSITY = whole_images.METRICS.index("precision"), whole_images.METRICS.index("coverage")
Figures = NDArray[np.float64]
Opened = str | Path | ModelSpec | Generator


def fitness(
    candidates: Sequence[Model],
    *,
    reference: str | Path | None = None,
    samples: int = 1000,
    critic: str | nn.Module | None = None,
    inception: str | Path | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Fitness:
    """Compare generators by quality and diversity, on the same latents and the same real images.

    Wang et al. 2018 (E-GAN) choose generators by both. Their figures need the discriminator that they are trained with:
    give it as `critic`, and they are measured, too. Without one, quality is precision, diversity is coverage, and
    fitness is their harmonic mean.

    Args:
        candidates: one or more, each as `model` of `dissect.run`.
        reference: folder of real images, or `scenes`; None is the drawn scenes for generators of them.
        samples: how many images each draws.
        critic: images (N, 3, H, W) in [0, 1] -> scores, high for real ones; or `package.module:name` of one.
        inception: torch-fidelity's Inception weights, or `download`; None takes the embedded segmenter's features.
        seed: of latents and halves.
        out: folder; None is runs/fitness. One that holds this comparison already is loaded instead of recomputed.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist or does not fit; no real images.
        DissectError: something failed. Nothing is written.
    """
    for option, number, least in (("--samples", samples, LEAST), ("--seed", seed, 0), ("--batch-size", batch_size, 1)):
        if number is not None and operator.index(number) < least:
            raise UsageError(f"{option} {number}: a whole number from {least} up is needed.")
    if not candidates:
        raise UsageError("Name at least one candidate: a model from `dissect models`, or checkpoints.")
    modules = [one for one in candidates if isinstance(one, nn.Module)]  # states of one class are numbered
    called = [f"{type(one).__name__}-{number}" if len(modules) > 1 else None for number, one in enumerate(modules, 1)]
    wrapped = iter([as_generator(one, name=name) for one, name in zip(modules, called, strict=True)])
    opened: list[Opened] = [next(wrapped) if isinstance(one, nn.Module) else one for one in candidates]
    names = labels_of([_name(one) for one in opened])
    device = usable_device(device)
    first = open_generator(opened[0], seed, device, quiet)
    compared = reference_of(first, reference)
    if compared is None:
        raise UsageError("Say what is real: --reference FOLDER, with images of the kind that they were trained on.")
    real_count = count_reference(compared)
    extract = open_features(inception, device)
    judge = None if critic is None else open_critic(critic, device)
    folder = Path(out) if out else Path("runs") / "fitness"
    config = {
        "candidates": [_identity(one) for one in opened],
        "reference": str(compared),
        "reference_sha256": digest(compared) if Path(compared).is_dir() else None,
        "features": extract.name,
        "critic": critic if isinstance(critic, str | None) else type(critic).__qualname__,
        "critic_sha256": None if judge is None else fingerprint(judge),
        "samples": samples,
        "seed": seed,
    }
    if holds(folder, "fitness.json", config, "give another --out"):
        return Fitness.load(folder)
    made: list[Tensor] = []
    pictures: list[NDArray[Any]] = []
    criticised: list[dict[str, float]] = []
    with Progress(quiet) as progress, at_work(), torch.no_grad():
        size = first(first.latents([0])).shape[2:]
        with progress.task("real images", real_count) as advance:
            batches, reference_name = reference_images(compared, (size[0], size[1]))
            real = look(batches, extract, None, device, advance)
        standard = standard_of(extract, real)
        real = real.standard(standard)
        for candidate, name in zip(opened, names, strict=True):
            generator = open_generator(candidate, seed, device, quiet)
            generator.latents([samples - 1])  # there may not be so many
            batch = batch_size or usual_batch(generator.device)
            with progress.task(f"generate: {name[-30:]}", samples) as advance:
                try:
                    seen = look(drawn(generator, samples, batch), extract, None, device, advance)
                except DissectError as error:
                    raise DissectError(f"{name}: {error}") from error
            made.append(seen.standard(standard).features)
            pictures.append(seen.pictures[:SHOWN])
            if judge is not None:
                with progress.task(f"criticise: {name[-30:]}", samples + real_count) as advance:
                    batches, _ = reference_images(compared, (size[0], size[1]))
                    criticised.append(critic_fitness(judge, drawn(generator, samples, batch), batches, advance=advance))
        count = min(samples, len(real) // 2)
        judging = real.features[::2]
        number = rounds(real.features.shape[1])
        for features in made:
            whole_images.check(features, real.features)
        sides = [one[:count] for one in (*made, real.features[1::2])]
        with progress.task("compare", len(sides) * (number + 1)) as advance:
            *figures, zero = whole_images.figures(sides, judging, seed=seed, number=number, advance=advance)
    for name, mine in zip((*names, "real images"), (*figures, zero), strict=True):
        whole_images.check_figures(mine, name)
    table = fitness_table(names, np.stack(figures))
    if criticised:
        table = table.merge(pd.DataFrame(criticised).assign(candidate=names), on="candidate", how="left")
    order = [names.index(name) for name in table.candidate]
    found = Fitness(
        folder=folder,
        info={
            "schema": SCHEMA,
            "created": now(),
            "command": command(),
            "reference": reference_name,
            "real_images": len(real),
            "images": samples,
            "compared": count,
            "features": extract.note,
            "zero": _ends(zero),
            "critic": config["critic"],
            "sentence": choice(table),
            "caveats": whole_images.CAVEAT,
            "config": config,
        },
        table=table,
        pictures={str(place): pictures[number] for place, number in enumerate(order)},
    )
    found.save()
    return found


def fitness_table(names: Sequence[str], figures: Figures) -> pd.DataFrame:
    """figures (K, 1 + rounds, 9) of K candidates on the same halves, see `whole.figures` -> the table of `Fitness`."""
    both = fit(figures)  # (K, 1 + rounds)
    best = int(both[:, 0].argmax())
    level = 1 - (1 - LEVEL) / max(1, len(names) - 1)  # so that all the others' intervals hold together
    rows = []
    for k, (name, mine) in enumerate(zip(names, figures, strict=True)):
        behind = both[best] - both[k]
        low, high = (np.nan, np.nan) if k == best else around(behind, level)
        better = (figures[:, 0, [QUALITY, DIVERSITY]] > mine[0, [QUALITY, DIVERSITY]]).all(1)
        ends = _ends(mine)
        rows.append(
            {"candidate": name, "step": step_of(name)}
            | _columns({name: ends[name] for name in ("quality", "diversity", "fitness")})
            | {"behind": behind[0], "behind_low": low, "behind_high": high}
            | {"equal": not low > 0, "front": not better.any()}
            | _columns({metric: ends[metric] for metric in whole_images.METRICS})
        )
    table = pd.DataFrame(rows).astype({"step": "Int64"})  # whole, where some have none
    return table.sort_values("behind", kind="stable", ignore_index=True)


def fit(figures: Figures) -> Figures:
    """figures (…, 9) -> (…,) the harmonic mean of quality and diversity; 0 where one is 0."""
    quality, diversity = figures[..., QUALITY], figures[..., DIVERSITY]
    total = quality + diversity
    return np.divide(2 * quality * diversity, total, out=np.zeros_like(total), where=total > 0)


def choice(table: pd.DataFrame) -> str:
    """Which to take, in a sentence, of the table of `Fitness`."""
    first, equal = table.iloc[0], list(table.candidate[table.equal])[1:]
    if not first.fitness:
        return "No candidate can be called fit: none both draws images like the real ones and covers them."
    said = (
        f"{first.candidate} is fittest: fitness {first.fitness:.3f} ({first.fitness_low:.3f} to "
        f"{first.fitness_high:.3f}), quality {first.quality:.3f}, diversity {first.diversity:.3f}"
    )
    if len(table) == 1:
        return f"{said}."
    if equal:
        return f"{said}; not to be told from it: {', '.join(equal)}."
    return f"{said}; all others are less fit beyond their intervals."


def _ends(figures: Figures) -> dict[str, dict[str, float]]:
    """figures (1 + rounds, 9) -> value, low and high of every metric, and of quality, diversity and fitness."""
    found = {}
    for k, metric in enumerate(whole_images.METRICS):
        low, high = whole_images.interval(metric, figures[:, k])
        found[metric] = {"value": float(figures[0, k]), "low": low, "high": high}
    low, high = around(values := fit(figures))
    fitness = {"value": float(values[0]), "low": low, "high": high}
    return found | {"quality": found["precision"], "diversity": found["coverage"], "fitness": fitness}


def _columns(ends: dict[str, dict[str, float]]) -> dict[str, float]:
    return {
        f"{name}{suffix}": one[end]
        for name, one in ends.items()
        for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _name(candidate: Opened) -> str:
    if isinstance(candidate, Generator):
        return candidate.name
    spec = ModelSpec.of(candidate)
    return spec.weights or spec.model


def _identity(candidate: Opened) -> dict[str, Any]:
    """What tells a candidate from another, without opening it."""
    if isinstance(candidate, Generator):
        return identity(candidate)
    return ModelSpec.of(candidate).record() | {"sha256": digest(_name(candidate))}
