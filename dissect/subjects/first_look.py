"""Checks on the first samples before the work begins, of mistakes that would otherwise give wrong numbers unseen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks.errors import DissectWarning, UsageError
from ...segmenters import segment
from ...segmenters.base import Segmenter
from ..generators.base import Generator
from ..generators.factory import warn_of_range
from ..generators.families.architecture import Architecture
from ..generators.families.stylegan2 import CLAMP, StyleGAN2
from .fingerprint import fingerprint
from .opening import dissectable, shapes_of

FIRST = 4  # samples
FEWEST, LOOKED_AT = 16, 64  # samples on which batch norms are compared with what they remember
BUILT_IN = ("scenes", "faces", "hub", "torchvision")  # how the names of our own segmenters begin
WHOLE = 1 - 1e-9
ONE_CLASS = 0.98  # share of the pixels of each of the first samples that is suspicious if it has the same label
SAME = 1e-4  # of values in [0, 1]: two drawings of the same latents differ by no more


@contextmanager
def noting() -> Iterator[list[str]]:
    """Collects the warnings inside, each once, and shows them as usual."""
    notes: list[str] = []
    show_before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *others: Any) -> None:
        if issubclass(category, DissectWarning):
            if str(message) in notes:
                return
            notes.append(str(message))
        show_before(message, category, *others)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DissectWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield notes


@torch.no_grad()
def first_look(generator: Generator, segmenter: Segmenter, layers: Sequence[str], samples: int) -> None:
    """Draw the first samples; raise for what is wrong, warn of what may be.

    Raises:
        UsageError: a layer that runs several times in a pass, or a network that draws other images of the same latents.
        DissectError: a network failed, or drew pixels that are not finite.
    """
    low, high, labels = float("inf"), float("-inf"), []
    for index in range(min(FIRST, samples)):  # one at a time, since memory may suffice for no more
        latents = generator.latents([index])
        out = generator.output(latents)
        image = generator.to_images(out)
        generator.check_finite(image, [index])
        if not index:
            check_repeatable(generator, image, generator(latents))
        labels.append(segment(segmenter, image))
        low, high = min(low, float(out.min())), max(high, float(out.max()))
    check_single(generator, layers)
    warn_of_statistics(generator, samples)
    warn_of_clamp(generator)
    _warn_of_one_class(torch.cat(labels), segmenter)
    if not isinstance(generator.module, Architecture):
        warn_of_range(generator, low, high, len(labels))


def warn_of_statistics(generator: Generator, samples: int) -> None:
    """Warn where a network does not reproduce, on its latents, what its batch norms remember of the training."""
    if samples < FEWEST:
        return
    norms = fingerprint(generator, min(samples, LOOKED_AT))
    if norms.reproduced is False:
        warnings.warn(
            f"{generator.name} {norms.verdict}. See dissect inspect, which tries other latents.",
            DissectWarning,
            stacklevel=3,
        )


@torch.no_grad()
def warn_of_clamp(generator: Generator) -> None:
    """Warn where sample 0 of a StyleGAN2 whose file does not say whether it clamps goes beyond the usual clamp."""
    module = generator.module
    if not isinstance(module, StyleGAN2) or module.synthesis.conv_clamp is not None:
        return
    peaks: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda _module, _given, out: peaks.__setitem__(name, float(out.abs().max()))

    handles = [module.get_submodule(name).register_forward_hook(watch(name)) for name in module.layers]
    try:
        module(generator.latents([0]))
    finally:
        for handle in handles:
            handle.remove()
    layer = max(peaks, key=lambda name: peaks[name])
    if peaks[layer] > CLAMP:
        warnings.warn(
            f"{generator.name} has values up to {peaks[layer]:.0f} in {layer}. NVIDIA's code of 2021 and later "
            f"clamps to ±{CLAMP:.0f}, and weights alone do not say whether this network was trained so. If it was, its "
            "true images are others than these; take its .pkl file.",
            DissectWarning,
            stacklevel=3,
        )


def check_repeatable(generator: Generator, first: Tensor, second: Tensor) -> None:
    """Raise UsageError where two drawings (N, 3, H, W) of the same latents are not the same."""
    if not torch.allclose(first, second, atol=SAME, equal_nan=True):
        raise UsageError(
            f"{generator.name} does not draw the same image from the same latents twice (the two differ by up "
            f"to {float((first - second).abs().max()):.2g} of 1): it draws noise of its own. "
            "Fix the noise, or make it part of the latents; keep batch norms in eval mode."
        )


def check_single(generator: Generator, layers: Sequence[str]) -> None:
    """Raise UsageError for a layer that runs several times in a forward pass, such as an activation that is shared."""
    calls = {shape.name: shape.calls for shape in shapes_of(generator)}
    for layer in layers:
        if calls.get(layer, 1) > 1:
            fitting = [name for name in dissectable(generator) if calls.get(name) == 1]
            raise UsageError(
                f"Layer {layer!r} runs {calls[layer]} times in a forward pass (it is one module in several places), so "
                f"that its units are not those of one featuremap. Layers that run once: {', '.join(fitting[:12])}"
                f"{', …' if len(fitting) > 12 else ''}."
            )


def _warn_of_one_class(labels: Tensor, segmenter: Segmenter) -> None:
    """Warn where nearly all pixels of all samples, labels (N, P, H, W), have one class, or none."""
    plane = labels[:, 0].flatten(1)
    commonest = plane.mode(1).values
    share = float((plane == commonest[:, None]).double().mean(1).min())
    if share < ONE_CLASS or not bool((commonest == commonest[0]).all()) or len(segmenter.vocabulary) == 1:
        return
    verb = "leaves" if commonest[0] < 0 else "calls"
    name = "without a label" if commonest[0] < 0 else repr(segmenter.vocabulary.names[int(commonest[0])])
    warnings.warn(
        f"Segmenter {segmenter.name} {verb} at least {share:.0%} of the pixels of each of the first {len(plane)} "
        f"samples {name}. It gets images in [0, 1]; was it trained on other values, another size, or "
        "other images?",
        DissectWarning,
        stacklevel=3,
    )


def label_trouble(segmenter: str, names: Sequence[str], share: Sequence[float]) -> str:
    """Warn where the labels of a segmenter of one's own look shifted by one; what the warning says, or nothing.

    They do where the first class never occurs, and the last does, or the second does while no pixel is unlabelled.

    Args:
        segmenter: its name; those that choose the most probable class cannot be shifted.
        names: of the classes.
        share: of the pixels, of each class.
    """
    if segmenter.partition(":")[0] in BUILT_IN or len(names) < 2 or share[0] > 0:
        return ""
    if not (share[-1] > 0 or (share[1] > 0 and sum(share) >= WHOLE)):
        return ""
    message = (
        f"No pixel is {names[0]!r}, the first class, and the labels may count from 1: then all things have the "
        "name of the class behind theirs. If so, subtract 1 from them, and use -1 for pixels without a class."
    )
    warnings.warn(message, DissectWarning, stacklevel=3)
    return message
