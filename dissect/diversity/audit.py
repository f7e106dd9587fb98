"""audit(): are generated images as varied as real ones, by class, over whole images, and layer by layer?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..fidelity.features import open_features
from ..fidelity.reference import count_reference, reference_images, reference_of
from ..generators.base import Generator
from ..runtime import distributed
from ..runtime.progress import Fewer, Progress
from ..runtime.requests import check_integers
from ..runtime.resources import at_work, faster_threads, usual_batch
from ..stats.intervals import rounds
from ..storage.files import digest, safe_name
from ..storage.result_folder import header
from ..subjects.identity import identity, segmenter_fingerprint, source_record
from ..subjects.opening import Model, dissectable, open_models, usable_device
from ..subjects.untrained import untrained
from . import by_class as cl
from . import by_layer, whole_images
from .image_set import ImageSet, drawn, look, standard_of
from .result import Diversity
from .verdict import COLLAPSED, Weighed, weigh

LEAST = 100  # images
DEEP = 256  # samples whose activations are compared, layer by layer
EXAMPLES = 6  # real images of a class that is missing


def audit(
    model: Model,
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
        out: folder; None is runs/MODEL-diversity. If it already holds this audit, that is loaded instead
            of recomputed.
        batch_size, device: None chooses.
        quiet: no progress bars.

    Raises:
        UsageError: an argument does not exist or does not fit, or there are no real images.
        DissectError: something failed. Nothing is written.
    """
    check_integers({"--samples": (samples, LEAST), "--seed": (seed, 0), "--batch-size": (batch_size, 1)})
    device = usable_device(device)
    generator, namer = open_models(model, segmenter, seed=seed, device=device, quiet=quiet)
    generator.latents([samples - 1])  # raises if the source has fewer than `samples` inputs
    reference = reference_of(generator, reference)
    if reference is None:
        raise UsageError("Name real images of the kind that it was trained on: --reference FOLDER.")
    real_count = count_reference(reference)
    extract = open_features(inception, device)
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-diversity")
    config = {
        **identity(generator),
        "segmenter": namer.name,
        "segmenter_sha256": segmenter_fingerprint(namer),
        "reference": str(reference),
        "reference_sha256": digest(reference) if Path(reference).is_dir() else None,
        "features": extract.name,
        "samples": samples,
        "seed": seed,
    }
    if (kept := Diversity.kept(folder, config, "give another --out")) is not None:
        return kept
    batch = batch_size or usual_batch(generator.device)
    names = namer.vocabulary.names
    with Progress(quiet, stages=4) as progress, at_work(), torch.inference_mode():
        with progress.task("generate", samples, spread=True, fewer=Fewer("samples", samples, LEAST)) as advance:
            generated = look(drawn(generator, samples, batch), extract, namer, device, advance)
        size = generator(generator.latents([0])).shape[2:]
        with progress.task("real images", real_count, spread=True) as advance:
            batches, reference_name = reference_images(reference, (size[0], size[1]))
            real = look(batches, extract, namer, device, advance)
        standard = standard_of(extract, real)
        generated, real = generated.standard(standard), real.standard(standard)
        comparisons = 2 * (rounds(real.features.shape[1]) + 1)
        with faster_threads(lambda: generator(generator.latents(range(min(batch, samples))))):
            with progress.task("compare whole images", comparisons, spread=True, noun="comparisons") as advance:
                weighed = weigh(generated, real, names, seed=seed, advance=advance)
            layers, control = _layers(generator, samples, batch, seed, progress)
    # a healthy network narrows as well: the layer says where variety is lost, and not whether it is
    narrowest = by_layer.where_it_dies(layers, control) if weighed.verdict == COLLAPSED else None
    where = f" Relative to an untrained network, {narrowest} keeps the least of what differs between samples."
    result = Diversity(
        folder=folder,
        info={
            **header(),
            "generator": generator.name,
            "source": source_record(generator),
            "real": reference_name,
            "real_images": len(real),
            "images": samples,
            "names": names,
            "least_share": cl.PRESENT,
            "false_classes": weighed.false_classes,
            "segmentation_distance": weighed.distance,
            "chance_pairs": whole_images.TWINS,
            "deep": min(DEEP, samples),
            "support": weighed.support,
            "twin_distance": weighed.twin_distance,
            "layer": narrowest,
            "verdict": weighed.verdict,
            "sentence": weighed.sentence + (where if narrowest else ""),
            "caveats": whole_images.CAVEAT,
            "config": config,
        },
        classes=weighed.classes,
        pairs=weighed.pairs,
        whole=weighed.whole,
        layers=layers.merge(control.add_prefix("untrained_"), left_on="layer", right_on="untrained_layer", how="left"),
        pictures=_pictures(generated, real, weighed, names),
    )
    distributed.on_first(lambda: result.save(folder))
    return Diversity.load(folder)


def _layers(
    generator: Generator, samples: int, batch: int, seed: int, progress: Progress
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How much of what differs between samples each layer keeps, and the same of the network untrained."""
    names = list(dissectable(generator))
    deep = range(min(DEEP, samples))

    def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
        table = by_layer.depth_table(generator, names, deep, batch, advance=advance)
        control = untrained(generator, seed, samples)
        return table, by_layer.depth_table(control, names, deep, batch, advance=advance)

    with progress.task("layers, and an untrained control", 2 * len(deep)) as advance:
        return distributed.on_first(tables)


def _pictures(
    generated: ImageSet, real: ImageSet, weighed: Weighed, names: tuple[str, ...]
) -> dict[str, NDArray[np.uint8]]:
    """The nearest pairs of generated images, the one with most twins, and real images of what is never drawn."""
    twins, classes = weighed.twins, weighed.classes
    pictures = {"twins": generated.pictures[twins.nearest], "prototype": generated.pictures[twins.prototype]}
    for name in classes["class"][classes.verdict == cl.MISSING]:
        label = names.index(name)
        most = np.argsort(-real.shares[:, label], kind="stable")[:EXAMPLES]
        pictures[f"missing_{label}"] = real.pictures[most]
    return pictures
