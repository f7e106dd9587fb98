"""Whether a generator and a segmenter are the same as before: their weights and settings, as digests."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
from torch import nn

from ...hooks.errors import UsageError
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..generators.families.architecture import Architecture


def identity(generator: Generator) -> dict[str, Any]:
    """What tells a generator from another in the description of a result: all that decides what it draws."""
    module = generator.module
    return {
        "model": generator.name,
        "weights_sha256": fingerprint(module),
        "latent": re.sub(r" at 0x[0-9a-f]+", "", str(generator.source)),
        "output_range": list(generator.output_range),
        **(module.settings() if isinstance(module, Architecture) else {}),
    }


def source_record(generator: Generator) -> dict[str, Any]:
    """What a description keeps to open a generator again; its model is None for one that was made in Python."""
    return {"model": None} if generator.spec is None else generator.spec.record()


def check_same(generator: Generator, config: dict[str, Any], where: str) -> None:
    """Raise UsageError if this is not the generator that a run or checkup was made with; `where` names that."""
    for name, now in identity(generator).items():
        if name != "model" and now != (then := config.get(name, now)):
            texts = [f"{text:.12}…" if name == "weights_sha256" else f"{text}" for text in (now, then)]
            is_folder = name == "latent" and all(" images, " in text for text in texts)
            subject = "The folder of images" if is_folder else generator.name
            raise UsageError(
                f"{subject} has changed since {where} was made ({name}: {texts[0]} now, {texts[1]} then); bring "
                "the old one back, or dissect the new one."
            )


def fingerprint(module: nn.Module) -> str:
    """sha256 over names, shapes and bytes of a module's state, the same whatever file it came from."""
    digest = hashlib.sha256()
    tensors = [(name, value) for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def segmenter_fingerprint(segmenter: Segmenter) -> str:
    """sha256 over a segmenter's vocabulary and over every network it holds."""
    digest = hashlib.sha256(repr(segmenter.vocabulary).encode())
    values = [segmenter, *getattr(segmenter, "__dict__", {}).values()]
    for value in values:
        if isinstance(value, nn.Module):
            digest.update(fingerprint(value).encode())
    return digest.hexdigest()
