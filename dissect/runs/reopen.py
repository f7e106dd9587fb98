"""A run's generator and segmenter opened again, and checked to be the same."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..generators.factory import as_generator
from ..generators.spec import ModelSpec, Moved
from ..subjects.identity import check_same, segmenter_fingerprint
from ..subjects.opening import Given, Model, open_generator, open_segmenter
from .dissection import Dissection


def reopen_generator(run: Dissection, generator: Given = None, device: str = "cpu", quiet: bool = False) -> Generator:
    """The generator that a run saw, loaded as the run loaded it, from where it has moved to, or given.

    Raises:
        UsageError: it has changed since, or the run does not know how to load it.
        DissectError: it cannot be fetched or loaded.
    """
    config = run.info["config"]
    model: Model | None
    if isinstance(generator, nn.Module):
        known = {"latent": config["latent"], "output_range": tuple(config["output_range"]), "name": config["model"]}
        model = as_generator(generator.to(device), **known)
    elif isinstance(generator, Generator):
        model = generator
    else:
        recorded = ModelSpec.recorded(_source(run))
        model = recorded and (generator or Moved()).applied(recorded, run.folder)
    if model is None:
        raise _given_as_object(run, "generator")
    opened = open_generator(model, config["seed"], device, quiet)
    check_same(opened, config, f"the run in {run.folder}")
    return opened


def _source(run: Dissection) -> dict[str, Any]:
    """How a run loaded its networks; older runs keep that in their config."""
    config = run.info["config"]
    source: dict[str, Any] = run.info.get("source", {"model": config["model"], "segmenter": config["segmenter"]})
    return source


def _given_as_object(run: Dissection, what: str) -> UsageError:
    return UsageError(
        f"The run in {run.folder} was given its {what} as an object in Python; give the same object again: "
        f"dissect.ablate(run, {what}=…), and so for insert and scan."
    )


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
    opened = reopen_generator(run, generator, device, quiet)
    namer = _source(run).get("segmenter") if segmenter is None else segmenter
    if namer is None:
        raise _given_as_object(run, "segmenter")
    segmenter = open_segmenter(namer, opened, device)
    now, then = segmenter_fingerprint(segmenter), run.info["config"]["segmenter_sha256"]
    if now != then:
        raise UsageError(
            f"{segmenter.name} has changed since the run in {run.folder} was made (sha256 {now[:12]}… now, {then[:12]}…"
            " then); bring the old one back, or dissect with the new one."
        )
    return opened, segmenter
