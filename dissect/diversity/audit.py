"""audit(): is what a generator draws as varied as real images, class by class, as a whole, and layer by layer?"""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..fidelity.features import open_features
from ..fidelity.reference import count_reference, reference_images, reference_of
from ..runtime import distributed
from ..runtime.progress import Progress
from ..runtime.resources import at_work, usual_batch
from ..stats.intervals import rounds
from ..storage.files import SCHEMA, digest, safe_name
from ..storage.result_folder import command, holds, now
from ..subjects.identity import identity, segmenter_fingerprint
from ..subjects.opening import Model, dissectable, open_models, usable_device
from ..subjects.untrained import untrained
from . import by_class as cl
from . import by_layer, whole_images
from .image_set import Look, drawn, look, standard_of
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
        out: folder; None is runs/MODEL-diversity. One that holds this audit already is loaded instead of recomputed.
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
    if holds(folder, "diversity.json", config, "give another --out"):
        return Diversity.load(folder)
    batch = batch_size or usual_batch(generator.device)
    names = namer.vocabulary.names
    with Progress(quiet) as progress, at_work(), torch.inference_mode():
        with progress.task("generate", samples, spread=True) as advance:
            made = look(drawn(generator, samples, batch), extract, namer, device, advance)
        size = generator(generator.latents([0])).shape[2:]
        with progress.task("real images", real_count, spread=True) as advance:
            batches, reference_name = reference_images(compared, (size[0], size[1]))
            real = look(batches, extract, namer, device, advance)
        standard = standard_of(extract, real)
        made, real = made.standard(standard), real.standard(standard)
        comparisons = 2 * (rounds(real.features.shape[1]) + 1)
        with progress.task("whole images", comparisons, spread=True) as advance:
            weighed = weigh(made, real, names, seed=seed, advance=advance)
        layers = list(dissectable(generator))
        deep = range(min(DEEP, samples))
        with progress.task("layers, and an untrained control", 2 * len(deep)) as advance:
            deeper, control = distributed.first(
                lambda: tuple(
                    by_layer.depth_table(one, layers, deep, batch, advance=advance)
                    for one in (generator, untrained(generator, seed, samples))
                )
            )
    # a healthy network narrows as well: that tells where, not whether
    dies = by_layer.where_it_dies(deeper, control) if weighed.verdict == COLLAPSED else None
    said = f" Beside an untrained network, {dies} keeps least of what differs between samples." if dies else ""
    found = Diversity(
        folder=folder,
        info={
            "schema": SCHEMA,
            "created": now(),
            "command": command(),
            "generator": generator.name,
            "source": {"model": None} if generator.spec is None else generator.spec.record(),
            "real": reference_name,
            "real_images": len(real),
            "images": samples,
            "names": names,
            "least_share": cl.PRESENT,
            "false_classes": weighed.false_classes,
            "segmentation_distance": weighed.distance,
            "chance_pairs": whole_images.TWINS,
            "deep": len(deep),
            "support": weighed.support,
            "twin_distance": weighed.twin_distance,
            "layer": dies,
            "verdict": weighed.verdict,
            "sentence": weighed.sentence + said,
            "caveats": whole_images.CAVEAT,
            "config": config,
        },
        classes=weighed.classes,
        pairs=weighed.pairs,
        whole=weighed.whole,
        layers=deeper.merge(control.add_prefix("untrained_"), left_on="layer", right_on="untrained_layer", how="left"),
        pictures=_pictures(made, real, weighed, names),
    )
    distributed.first(found.save)
    return Diversity.load(folder)


def _pictures(made: Look, real: Look, weighed: Weighed, names: tuple[str, ...]) -> dict[str, NDArray[np.uint8]]:
    """The nearest pairs of generated images, the one with most twins, and real images of what is never drawn."""
    twins, classes = weighed.twins, weighed.classes
    found = {"twins": made.pictures[twins.nearest], "prototype": made.pictures[twins.prototype]}
    for name in classes["class"][classes.verdict == cl.MISSING]:
        number = names.index(name)
        found[f"missing_{number}"] = real.pictures[np.argsort(-real.shares[:, number], kind="stable")[:EXAMPLES]]
    return found
