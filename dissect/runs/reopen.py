"""A run's generator and segmenter opened again, and checked to be the same."""

from __future__ import annotations

from torch import nn

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..generators.factory import as_generator
from ..generators.spec import ModelSpec, Moved
from ..subjects.identity import check_same, segmenter_fingerprint
from ..subjects.opening import Given, Model, open_models
from .dissection import Dissection


def reopen(
    run: Dissection,
    generator: Given = None,
    segmenter: str | Segmenter | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> tuple[Generator, Segmenter]:
    """The generator and segmenter that a run saw, loaded as it loaded them, from where it has moved to, or given.

    Raises:
        UsageError: they have changed since, or the run does not know how to load them.
        DissectError: they cannot be fetched or loaded.
    """
    config = run.info["config"]
    source = run.info.get("source", {"model": config["model"], "segmenter": config["segmenter"]})
    model: Model | None
    if isinstance(generator, nn.Module):
        known = {"latent": config["latent"], "output_range": tuple(config["output_range"]), "name": config["model"]}
        model = as_generator(generator.to(device), **known)
    elif isinstance(generator, Generator):
        model = generator
    else:
        recorded = ModelSpec.recorded(source)
        model = recorded and (generator or Moved()).applied(recorded, run.folder)
    namer = source.get("segmenter") if segmenter is None else segmenter
    if model is None or namer is None:
        what = "generator" if model is None else "segmenter"
        raise UsageError(
            f"The run in {run.folder} was given its {what} as an object in Python; give the same object again: "
            f"dissect.ablate(run, {what}=…), and so for insert and scan."
        )
    generator, segmenter = open_models(model, namer, seed=config["seed"], device=device, quiet=quiet)
    check_same(generator, config, f"the run in {run.folder}")
    now, then = segmenter_fingerprint(segmenter), config["segmenter_sha256"]
    if now != then:
        raise UsageError(
            f"{segmenter.name} has changed since the run in {run.folder} was made (sha256 {now[:12]}… now, {then[:12]}…"
            " then); bring the old one back, or dissect with the new one."
        )
    return generator, segmenter
