"""audit(): is what a generator draws as varied as real images, class by class, as a whole, and layer by layer?"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import DissectError, UsageError
from ...segmenters.base import Segmenter
from .. import fidelity, ranks
from ..checkerboard.audit import reference_of
from ..controls import untrained
from ..features import Features, count_reference, open_features, reference_images, standardisation
from ..folders import digest, holds
from ..generators.base import Generator
from ..grid import thumbnails
from ..measure import shares
from ..model_spec import ModelSpec
from ..models import dissectable, identity, open_models, segmenter_fingerprint, usable_device
from ..progress import Progress
from ..resources import BATCH, at_work
from ..run_folder import command, now
from ..store import SCHEMA, safe_name
from . import classes as cl
from . import depth, whole
from .findings import Diversity

LEAST = 100  # images
DEEP = 256  # samples whose activations are compared, layer by layer
SHOWN = 128  # pixels of a picture, at most
COLLAPSED = "collapsed"  # a verdict
COLLAPSE = 0.5  # of real images' spread or Vendi score, or share of images with a twin: what is called a collapse
EXAMPLES = 6  # real images of a class that is missing


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is kept of some images."""

    features: Tensor  # (N, D) float64
    shares: NDArray[np.float64]  # (N, C)
    pictures: NDArray[np.uint8]  # (N, h, w, 3)


def audit(
    model: str | ModelSpec | Generator,
    *,
    reference: str | Path | None = None,
    segmenter: str | Segmenter | None = None,
    samples: int = 1000,
    inception: str | Path | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Diversity:
    """Compare what a generator draws with real images, and real images with each other as the zero of every number.

    Args:
        model: as of `dissect.run`.
        reference: folder of real images, or `scenes`; None is the drawn scenes for generators of them.
        segmenter: as of `dissect.run`; it names the pixels of both.
        samples: how many images are drawn.
        inception: torch-fidelity's Inception weights, or `download`; None takes the embedded segmenter's features.
        seed: of latents, halves and the untrained control.
        out: folder; None is runs/MODEL-diversity. The same audit there is returned at once.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist or does not fit; no real images.
        DissectError: something failed. Nothing is written.
    """
    for option, number, least in (("--samples", samples, LEAST), ("--seed", seed, 0), ("--batch-size", batch_size, 1)):
        if number is not None and operator.index(number) < least:
            raise UsageError(f"{option} {number}: a whole number from {least} up is needed.")
    device = usable_device(device)
    generator, namer = open_models(model, segmenter, seed=seed, device=device, quiet=quiet)
    generator.latents([samples - 1])  # there may not be so many
    compared = reference_of(generator, reference)
    if compared is None:
        raise UsageError("Say what is real: --reference FOLDER, with images of the kind it was trained on.")
    real_count = count_reference(compared)
    extract = open_features(inception, device)
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-diversity")
    config = {
        **identity(generator),
        "segmenter": namer.name,
        "segmenter_sha256": segmenter_fingerprint(namer),
        "reference": str(compared),
        "reference_sha256": digest(compared) if Path(compared).is_dir() else None,
        "features": extract.name,
        "samples": samples,
        "seed": seed,
    }
    if holds(folder, "diversity.json", config, "give another --out, or delete it"):
        return Diversity.load(folder)
    batch = batch_size or BATCH.get(generator.device.type, 16)
    names = namer.vocabulary.names
    with Progress(quiet) as progress, at_work(), torch.inference_mode():
        with progress.task("generate", samples, spread=True) as advance:
            made = _look(_drawn(generator, samples, batch), extract, namer, device, advance)
        size = generator(generator.latents([0])).shape[2:]
        with progress.task("real images", real_count, spread=True) as advance:
            batches, reference_name = reference_images(compared, (size[0], size[1]))
            real = _look(batches, extract, namer, device, advance)
        mean, scale = standardisation(extract, real.features)
        made_features, real_features = ((one.features - mean) / scale for one in (made, real))
        with progress.task("whole images", 2 * (fidelity.rounds(real_features.shape[1]) + 1), spread=True) as advance:
            whole_table = whole.compare(made_features, real_features, seed=seed, advance=advance)
        layers = list(dissectable(generator))
        deep = range(min(DEEP, samples))
        with progress.task("layers, and an untrained control", 2 * len(deep)) as advance:
            deeper, control = ranks.first(
                lambda: tuple(
                    depth.depth_table(one, layers, deep, batch, advance=advance)
                    for one in (generator, untrained(generator, seed, samples))
                )
            )
    class_table, distance, false = _by_class(made.shares, real.shares, names)
    threshold = whole.twin_distance(real_features, len(made_features))
    twins = whole.twins(made_features, threshold)
    judged = _judged(class_table, whole_table)
    # a healthy network narrows as well: that tells where, not whether
    dies = depth.where_it_dies(deeper, control) if judged["verdict"] == COLLAPSED else None
    if dies:
        judged["sentence"] += f" Beside an untrained network, {dies} keeps least of what differs between samples."
    found = Diversity(
        folder=folder,
        info={
            "schema": SCHEMA,
            "created": now(),
            "command": command(),
            "generator": generator.name,
            "source": {"model": None} if generator.spec is None else generator.spec.record(),
            "real": reference_name,
            "real_images": len(real_features),
            "images": samples,
            "names": names,
            "least_share": cl.PRESENT,
            "false_classes": false,
            "segmentation_distance": distance,
            "chance_pairs": whole.TWINS,
            "deep": len(deep),
            "support": _support(twins, len(made_features)),
            "twin_distance": threshold,
            "layer": dies,
            **judged,
            "caveats": whole.CAVEAT,
            "config": config,
        },
        classes=class_table,
        pairs=cl.compare_pairs(made.shares, real.shares, names),
        whole=whole_table,
        layers=deeper.merge(control.add_prefix("untrained_"), left_on="layer", right_on="untrained_layer", how="left"),
        pictures=_pictures(made, real, twins, class_table, names),
    )
    ranks.first(found.save)
    return Diversity.load(folder)


def _drawn(generator: Generator, samples: int, batch: int) -> Iterator[Tensor]:
    for start in ranks.mine(range(0, samples, batch)):
        yield generator(generator.latents(range(start, min(start + batch, samples))))


def _look(
    batches: Iterable[Tensor], extract: Features, namer: Segmenter, device: str, advance: Callable[[int], None]
) -> _Look:
    """Look at all images once; of several processes each looks at its own batches."""
    features, areas, pictures = [], [], []
    for images in batches:
        images = images.to(device)
        features.append(extract(images).cpu().double())
        areas.append(shares(namer(images), len(namer.vocabulary.names))[:, :-1].numpy())
        pictures.append(thumbnails(images, SHOWN).cpu().numpy())
        advance(len(images))
    every = torch.cat(ranks.in_order(features))
    if not bool(every.isfinite().all()):
        raise DissectError("Features of some images are not finite; look at the images with dissect run.")
    return _Look(
        features=every,
        shares=np.concatenate(ranks.in_order(areas)),
        pictures=np.concatenate(ranks.in_order(pictures)),
    )


def _by_class(
    made: NDArray[np.float64], real: NDArray[np.float64], names: tuple[str, ...]
) -> tuple[pd.DataFrame, dict[str, float], int]:
    """The table of classes with each one's part of the segmentation distance; the distance, with its zero, that of
    every other real image from the rest; and how many classes the tests call different between those.
    """
    some, others = real[1::2], real[::2]
    parts = pd.DataFrame(
        {
            "class": names,
            "distance_part": cl.contributions(made[: len(some)], others),
            "zero_part": cl.contributions(some, others),
        }
    )
    table = cl.compare_classes(made, real, names).merge(parts, on="class", how="left")
    distance = {
        "value": cl.segmentation_distance(made[: len(some)], others),
        "zero": cl.segmentation_distance(some, others),
    }
    return table, distance, int((cl.compare_classes(some, others, names).verdict != "").sum())


def _support(twins: whole.Twins, count: int) -> dict[str, Any]:
    """The birthday estimate; None for what has no upper end."""
    estimate, low, high = whole.support(twins.pairs, whole.TWINS, count)
    ends = {"estimate": estimate, "low": low, "high": high}
    return {"pairs": twins.pairs, "share": twins.share} | {
        name: value if np.isfinite(value) else None for name, value in ends.items()
    }


def _judged(classes: pd.DataFrame, table: pd.DataFrame) -> dict[str, Any]:
    """`collapsed` (an alarm, and half of the diversity gone), `lacking` (any alarm, or a class that differs) or
    `varied`, and a sentence.
    """
    raised = list(table.metric[table.alarm])
    called = classes[classes.verdict != ""]
    said = [f"{name} ({verdict})" for name, verdict in zip(called["class"], called.verdict, strict=True)]
    values = table.set_index("metric").value
    collapsed = {"spread", "vendi"} & set(raised) & set(values.index[values < COLLAPSE])
    collapsed |= {"twins"} & set(raised) & set(values.index[values > COLLAPSE])
    verdict = COLLAPSED if collapsed else "lacking" if said or raised else "varied"
    parts = [
        f"Classes that differ from the real images': {', '.join(said[:6])}{' …' if len(said) > 6 else ''}."
        if said
        else "",
        f"Worse than real images among each other: {', '.join(raised)}." if raised else "",
    ]
    sentence = (
        " ".join(part for part in parts if part) or "As varied as the real images, as far as these tests can tell."
    )
    return {"verdict": verdict, "sentence": sentence}


def _pictures(
    made: _Look, real: _Look, twins: whole.Twins, classes: pd.DataFrame, names: tuple[str, ...]
) -> dict[str, NDArray[np.uint8]]:
    """The nearest pairs of generated images, the one with most twins, and real images of what is never drawn."""
    found = {"twins": made.pictures[twins.nearest], "prototype": made.pictures[twins.prototype]}
    for name in classes["class"][classes.verdict == cl.MISSING]:
        number = names.index(name)
        found[f"missing_{number}"] = real.pictures[np.argsort(-real.shares[:, number], kind="stable")[:EXAMPLES]]
    return found
