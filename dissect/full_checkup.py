"""checkup(): audits a generator for checkerboards and, compared with real images, for missing variety."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..hooks.errors import UsageError
from ..segmenters.base import Segmenter
from . import checkerboard
from .checkerboard.result import DIVERSITY, Checkup
from .diversity.audit import LEAST, audit
from .fidelity.reference import reference_of
from .generators.zoo import MODELS
from .subjects.opening import Model, open_generator, usable_device


def checkup(
    model: Model,
    *,
    samples: int = 512,
    reference: str | Path | None = None,
    segmenter: str | Segmenter | None = None,
    critic: str | nn.Module | None = None,
    seed: int = 0,
    **options: Any,
) -> Checkup:
    """Look for checkerboards, see `checkerboard.checkup`, and for missing variety, see `diversity.audit`.

    The second audit needs real images, a segmenter, and at least 100 samples, and is left out without them. Its result
    is in the folder of the checkup.

    Args:
        segmenter: as of `dissect.run`; it names classes for the comparison with real images.
        model, samples, reference, critic, seed, options: arguments of both audits; see there.

    Raises:
        UsageError: an argument does not exist or does not fit, or there is a segmenter without real images.
        DissectError: something failed.
    """
    model = open_generator(model, seed, usable_device(options.get("device")), options.get("quiet", False))
    if reference_of(model, reference) is None and segmenter is not None:
        raise UsageError("--segmenter serves the comparison with real images; name them by --reference.")
    result = checkerboard.checkup(model, samples=samples, reference=reference, critic=critic, seed=seed, **options)
    real = result.info["config"]["reference"]
    name = result.info["generator"]
    has_segmenter = segmenter is not None or (name in MODELS and MODELS[name].segmenter is not None)
    if real is not None and has_segmenter and samples >= LEAST:
        options |= {"out": result.folder / DIVERSITY}
        audit(model, reference=real, segmenter=segmenter, samples=samples, seed=seed, **options)
    return result
