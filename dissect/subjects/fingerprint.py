"""Whether a generator, on its latents, reproduces what its batch norms remember of its training."""

from __future__ import annotations

from dataclasses import replace

from ..generators.base import Generator
from ..generators.batch_statistics import Fingerprint, fingerprint_of, norms_of
from ..generators.chains.rebuild import KINDS
from ..generators.families.biggan_deep import BigGANDeep
from ..generators.latents import DrawnLatents
from ..generators.sources import ClassLatents, Encoded, FolderImages, NoiseImages

SAMPLES = 256  # on which it is measured


def fingerprint(generator: Generator, samples: int = SAMPLES) -> Fingerprint:
    """How far the generator reproduces, on its latents, what its batch norms remember of its training.

    Training saw all classes and whole latents, so that what --label and --truncation choose is left aside.
    """
    if isinstance(generator.source, ClassLatents):
        generator = replace(generator, source=replace(generator.source, label=None, truncation=None))
    norms = len(norms_of(generator.module))
    source = generator.source.images if isinstance(generator.source, Encoded) else generator.source
    if isinstance(generator.module, BigGANDeep) and generator.module.truncation != 1:
        reason = "its statistics are those of the truncation"
        return Fingerprint(agreements=(), norms=norms, samples=0, unmeasured=reason)
    if norms and isinstance(source, NoiseImages):
        return Fingerprint(agreements=(), norms=norms, samples=0, unmeasured="it takes images; give them by --inputs")
    if isinstance(source, FolderImages):
        samples = min(samples, len(source.files))
    try:
        return fingerprint_of(
            generator.module, generator.output, lambda indices: generator.latents(list(indices)), samples
        )
    except (IndexError, KeyError, ValueError):  # of a source of the user's own, which may have few latents
        reason = f"its source has no latents 0 to {samples - 1}"
        return Fingerprint(agreements=(), norms=norms, samples=0, unmeasured=reason)


def better_latents(generator: Generator) -> str | None:
    """The latents of another distribution under which a network reproduces its training statistics, if any do."""
    source = generator.source
    if not isinstance(source, DrawnLatents):
        return None
    for kind in KINDS.values():
        other = kind.shaped(source.shape)
        if other != source and fingerprint(replace(generator, source=other)).reproduced:
            return str(other)
    return None
