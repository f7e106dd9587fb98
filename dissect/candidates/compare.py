"""fitness(): quality and diversity of candidate generators side by side, and which one to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError
from ..diversity import whole_images
from ..diversity.image_set import ImageSet, drawn, look, standard_of
from ..fidelity.features import Features, Standard, open_features
from ..fidelity.reference import count_reference, reference_images, reference_of
from ..generators.base import Generator
from ..generators.factory import as_generator
from ..generators.spec import ModelSpec
from ..runtime.progress import Fewer, Progress
from ..runtime.requests import check_integers
from ..runtime.resources import at_work, usual_batch
from ..stats.intervals import LEVEL, around, rounds
from ..storage.files import digest
from ..storage.result_folder import header
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
        out: folder; None is runs/fitness. If it already holds this comparison, that is loaded instead of
            recomputed.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: an argument does not exist or does not fit, or there are no real images.
        DissectError: something failed. Nothing is written.
    """
    check_integers({"--samples": (samples, LEAST), "--seed": (seed, 0), "--batch-size": (batch_size, 1)})
    if not candidates:
        raise UsageError("Name at least one candidate: a model from `dissect models`, or checkpoints.")
    models = _as_models(candidates)
    names = labels_of([_name(model) for model in models])
    device = usable_device(device)
    first = open_generator(models[0], seed, device, quiet)
    reference = reference_of(first, reference)
    if reference is None:
        raise UsageError("Name real images of the kind that they were trained on: --reference FOLDER.")
    extract = open_features(inception, device)
    judge = None if critic is None else open_critic(critic, device)
    folder = Path(out) if out else Path("runs") / "fitness"
    config = {
        "candidates": [_identity(model) for model in models],
        "reference": str(reference),
        "reference_sha256": digest(reference) if Path(reference).is_dir() else None,
        "features": extract.name,
        "critic": critic if isinstance(critic, str | None) else type(critic).__qualname__,
        "critic_sha256": None if judge is None else fingerprint(judge),
        "samples": samples,
        "seed": seed,
    }
    if (kept := Fitness.kept(folder, config, "give another --out")) is not None:
        return kept
    stages = 2 + len(models) * (1 if judge is None else 2)
    with Progress(quiet, stages) as progress, at_work(), torch.no_grad():
        height, width = first(first.latents([0])).shape[2:]
        contest = Contest.open(reference, (height, width), extract, judge, samples, device, progress)
        entries = []
        for model, name in zip(models, names, strict=True):
            generator = open_generator(model, seed, device, quiet)
            entries.append(contest.draw(generator, name, batch_size or usual_batch(generator.device)))
        figures, zero = contest.compare([entry.features for entry in entries], seed)
    for name, of_set in zip((*names, "real images"), (*figures, zero), strict=True):
        whole_images.check_figures(of_set, name)
    table = fitness_table(names, np.stack(figures))
    if judge is not None:
        by_critic = pd.DataFrame([entry.by_critic for entry in entries]).assign(candidate=names)
        table = table.merge(by_critic, on="candidate", how="left")
    order = [names.index(name) for name in table.candidate]
    result = Fitness(
        folder=folder,
        info={
            **header(),
            "reference": contest.reference_name,
            "real_images": len(contest.real),
            "images": samples,
            "compared": contest.compared,
            "features": extract.note,
            "zero": _ends(zero),
            "critic": config["critic"],
            "sentence": choice(table),
            "caveats": whole_images.CAVEAT,
            "config": config,
        },
        table=table,
        pictures={str(row): entries[index].pictures for row, index in enumerate(order)},
    )
    result.save(folder)
    return result


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one candidate drew: features (N, D), standardised; pictures of the first samples; the critic's figures."""

    features: Tensor
    pictures: NDArray[np.uint8]
    by_critic: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The real images, the features and the critic by which all candidates are compared."""

    reference: str | Path
    reference_name: str
    size: tuple[int, int]
    real: ImageSet
    standard: Standard
    extract: Features
    critic: nn.Module | None
    samples: int
    device: str
    progress: Progress

    @classmethod
    def open(
        cls,
        reference: str | Path,
        size: tuple[int, int],
        extract: Features,
        critic: nn.Module | None,
        samples: int,
        device: str,
        progress: Progress,
    ) -> Contest:
        """Read the real images at the size of the generated ones."""
        with progress.task("real images", count_reference(reference)) as advance:
            batches, name = reference_images(reference, size)
            real = look(batches, extract, None, device, advance)
        standard = standard_of(extract, real)
        return cls(
            reference=reference,
            reference_name=name,
            size=size,
            real=real.standard(standard),
            standard=standard,
            extract=extract,
            critic=critic,
            samples=samples,
            device=device,
            progress=progress,
        )

    @property
    def compared(self) -> int:
        """How many images of each candidate are compared, with as many real ones."""
        return min(self.samples, len(self.real) // 2)

    def draw(self, generator: Generator, name: str, batch: int) -> Entry:
        """Draw a candidate's samples; raises DissectError if its network fails."""
        generator.latents([self.samples - 1])  # raises if the source has fewer than `samples` inputs
        fewer = Fewer("samples", self.samples, LEAST)
        with self.progress.task(f"generate: {name[-30:]}", self.samples, fewer=fewer) as advance:
            try:
                images = look(drawn(generator, self.samples, batch), self.extract, None, self.device, advance)
            except DissectError as error:
                raise DissectError(f"{name}: {error}") from error
        by_critic = {}
        if self.critic is not None:
            steps = self.samples + len(self.real)
            with self.progress.task(f"criticise: {name[-30:]}", steps) as advance:
                batches, _ = reference_images(self.reference, self.size)
                generated = drawn(generator, self.samples, batch)
                by_critic = critic_fitness(self.critic, generated, batches, advance=advance)
        features = images.standard(self.standard).features
        return Entry(features=features, pictures=images.pictures[:SHOWN].copy(), by_critic=by_critic)

    def compare(self, candidates: Sequence[Tensor], seed: int) -> tuple[list[Figures], Figures]:
        """The figures of each candidate beside one half of the real images, and of the other half beside it."""
        halves, judges = rounds(self.real.features.shape[1]), self.real.features[::2]
        for features in candidates:
            whole_images.check(features, self.real.features)
        sides = [features[: self.compared] for features in (*candidates, self.real.features[1::2])]
        with self.progress.task("compare", len(sides) * (halves + 1), noun="comparisons") as advance:
            *figures, zero = whole_images.figures(sides, judges, seed=seed, number=halves, advance=advance)
        return figures, zero


def _as_models(candidates: Sequence[Model]) -> list[Opened]:
    """Modules become Generators; several are numbered, since states of one class have the same name."""
    several = sum(isinstance(candidate, nn.Module) for candidate in candidates) > 1
    numbers = count(1)
    models: list[Opened] = []
    for candidate in candidates:
        if isinstance(candidate, nn.Module):
            name = f"{type(candidate).__name__}-{next(numbers)}" if several else None
            models.append(as_generator(candidate, name=name))
        else:
            models.append(candidate)
    return models


def fitness_table(names: Sequence[str], figures: Figures) -> pd.DataFrame:
    """figures (K, 1 + rounds, 9) of K candidates on the same halves -> the table of `Fitness`."""
    both = fit(figures)  # (K, 1 + rounds)
    best = int(both[:, 0].argmax())
    level = 1 - (1 - LEVEL) / max(1, len(names) - 1)  # so that all the others' intervals hold together
    rows = []
    for k, (name, of_candidate) in enumerate(zip(names, figures, strict=True)):
        behind = both[best] - both[k]
        low, high = (np.nan, np.nan) if k == best else around(behind, level)
        better = (figures[:, 0, [QUALITY, DIVERSITY]] > of_candidate[0, [QUALITY, DIVERSITY]]).all(1)
        ends = _ends(of_candidate)
        rows.append(
            {"candidate": name, "step": step_of(name)}
            | _columns({name: ends[name] for name in ("quality", "diversity", "fitness")})
            | {"behind": behind[0], "behind_low": low, "behind_high": high}
            # of the fittest itself the interval is NaN, which is not above 0, so that it counts as equal
            | {"equal": not low > 0, "front": not better.any()}
            | _columns({metric: ends[metric] for metric in whole_images.METRICS})
        )
    table = pd.DataFrame(rows).astype({"step": "Int64"})  # integers, of which some are missing
    return table.sort_values("behind", kind="stable", ignore_index=True)


def fit(figures: Figures) -> Figures:
    """figures (…, 9) -> (…,) the harmonic mean of quality and diversity; 0 where one is 0."""
    quality, diversity = figures[..., QUALITY], figures[..., DIVERSITY]
    total = quality + diversity
    return np.divide(2 * quality * diversity, total, out=np.zeros_like(total), where=total > 0)


def choice(table: pd.DataFrame) -> str:
    """Which candidate to take, in a sentence, from the table of `Fitness`."""
    first, equal = table.iloc[0], list(table.candidate[table.equal])[1:]
    if not first.fitness:
        return "No candidate can be called fit: none both draws images like the real ones and covers them."
    figures = (
        f"{first.candidate} is fittest: fitness {first.fitness:.3f} ({first.fitness_low:.3f} to "
        f"{first.fitness_high:.3f}), quality {first.quality:.3f}, diversity {first.diversity:.3f}"
    )
    if len(table) == 1:
        return f"{figures}."
    if equal:
        return f"{figures}; without a significant difference from it: {', '.join(equal)}."
    return f"{figures}; all others are less fit, beyond their intervals."


def _ends(figures: Figures) -> dict[str, dict[str, float]]:
    """figures (1 + rounds, 9) -> value, low and high of every metric, and of quality, diversity and fitness."""
    ends = {}
    for k, metric in enumerate(whole_images.METRICS):
        low, high = whole_images.interval(metric, figures[:, k])
        ends[metric] = {"value": float(figures[0, k]), "low": low, "high": high}
    low, high = around(values := fit(figures))
    fitness = {"value": float(values[0]), "low": low, "high": high}
    return ends | {"quality": ends["precision"], "diversity": ends["coverage"], "fitness": fitness}


def _columns(ends: dict[str, dict[str, float]]) -> dict[str, float]:
    return {
        f"{name}{suffix}": figures[end]
        for name, figures in ends.items()
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
