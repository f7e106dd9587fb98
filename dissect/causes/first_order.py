"""First-order effects: what changing each unit of a layer does to the area of a class, by one backward pass.

Let a be the featuremaps of a layer in a sample, and s_c(a) the area of class c: the mean over the image's pixels of the
probability that the segmenter gives to c. Setting unit u to v everywhere changes s_c by about

    A_{u,c} = Σ_p (v_u − a_u(p)) ∂s_c / ∂a_u(p),

the sum over the positions p of the map. This is attribution patching (Nanda 2022; Kramár et al. 2024, AtP*). It is
exact where s_c is linear in a. It misleads where a unit acts only beyond a threshold (its gradient is zero below it),
where units stand in for each other, and where the segmenter jumps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...hooks.directions import readings
from ...hooks.errors import DissectError, UsageError
from ...hooks.layers import find_layer
from ...hooks.tap import Tap, single_tensor
from ...segmenters.base import Differentiable, Segmenter
from ..capture import replicas
from ..capture.replicas import Pair, side_by_side
from ..generators.base import Generator
from ..runtime import distributed
from ..runtime.resources import at_work, usual_batch
from ..subjects.subject import Subject, failing


@dataclass(frozen=True, kw_only=True)
class Change:
    """How the units of a layer are changed, each by itself.

    Args:
        value: (U,) what each outputs instead; None is 0. With directions (K,).
        directions: (K, U) changed in the place of the units: the layer's output moves along a direction until its
            product with the direction is the value. None is the units.
        place: (h, w), or (P, h, w) for P rows, in [0, 1]: where on the map. None is everywhere.
        start: featuremaps (n, U, h, w) and their rows -> those from which the change starts, at which the gradient is
            taken: where other units have been changed already, say. None is the layer's own.
    """

    value: Tensor | None = None
    directions: Tensor | None = None
    place: Tensor | None = None
    start: Callable[[Tensor, slice], Tensor] | None = None

    def effects(self, x: Tensor, gradient: Tensor, rows: slice = slice(None)) -> Tensor:
        """The first-order effect of each unit by itself.

        Args:
            x: (n, U, h, w) featuremaps.
            gradient: (n, U, h, w) of a number with respect to them.
            rows: which of the P rows of `place` these are.

        Returns:
            (n, U) or (n, K): to first order, what is added to the number.

        >>> x, gradient = torch.tensor([[[[2.0, 3.0]]]]), torch.tensor([[[[1.0, 10.0]]]])
        >>> Change().effects(x, gradient), Change(value=torch.tensor([5.0])).effects(x, gradient)
        (tensor([[-32.]]), tensor([[23.]]))
        """
        if self.directions is not None:
            directions = self.directions.to(x)
            x = readings(x, directions)
            steps = directions / directions.square().sum(1, keepdim=True)  # a step of 1 along the direction's product
            gradient = torch.einsum("ku,nuhw->nkhw", steps, gradient)
        value = 0.0 if self.value is None else self.value.to(x)[:, None, None]
        step = value - x
        if self.place is not None:
            step = step * (self.place if self.place.ndim == 2 else self.place[rows, None]).to(x)
        return (step * gradient).sum((2, 3))


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """P pairs of a sample and a class: the effect on the class is estimated in the sample."""

    samples: Sequence[int]
    classes: Sequence[int]

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """First-order effects of the units of some layers, all by the same backward passes."""

    generator: Generator
    segmenter: Segmenter
    layers: Mapping[str, Change]
    batch: int | None = None  # samples of a forward pass elsewhere; None is what is usual on the device

    @classmethod
    def of(cls, subject: Subject, change: Change) -> Estimator:
        """Of the one layer of a subject."""
        layers = {subject.layer: change}
        return cls(generator=subject.generator, segmenter=subject.segmenter, layers=layers, batch=subject.batch)

    def __call__(self, pairs: Pairs, advance: Callable[[int], None] = lambda _: None) -> dict[str, Tensor]:
        """By layer, (P, U) float32 on the CPU: what changing a unit adds to the area of the pair's class, in [-1, 1].

        Each pair costs a forward and a backward pass of what lies above the lowest layer. Every process has the result.

        Args:
            pairs: samples and classes, at least one.
            advance: `advance(n)` is called after every n pairs.

        Raises:
            UsageError: no gradient passes through the networks.
            DissectError: a network failed, or drew pixels that are not finite.
        """
        size = max(1, (self.batch or usual_batch(self.generator.device)) // 2)  # gradients need memory
        starts = distributed.mine(range(0, len(pairs), size))
        batches = [slice(start, min(start + size, len(pairs))) for start in starts]
        effects = []
        with at_work():
            work = partial(_effects, self.layers, pairs)
            for rows, by_layer in side_by_side(work, self._networks(pairs.samples[0]), batches):
                effects.append(by_layer)
                advance(rows.stop - rows.start)
        effects = distributed.in_order(effects)
        return {layer: torch.cat([by_layer[layer] for by_layer in effects]) for layer in self.layers}

    def obstacle(self) -> str:
        """Why no effects can be estimated, in a few words; empty where they can: tried on sample 0."""
        if not isinstance(self.segmenter, Differentiable):
            return f"{self.segmenter.name} returns labels without probabilities"
        try:
            _effects(self.layers, Pairs(samples=[0], classes=[0]), self.generator, self.segmenter, slice(0, 1))
        except NoGradient:
            return f"no gradient passes through {self.generator.name} and {self.segmenter.name}"
        except DissectError as error:
            return str(error).removesuffix(".")
        return ""

    def _networks(self, sample: int) -> list[Pair]:
        """The networks, as often as they run side by side."""
        with torch.no_grad(), failing(f"sample {sample}"):
            height, width = self.generator(self.generator.latents([sample])).shape[2:]
        return replicas.pairs(self.generator, self.segmenter, height * width)


class NoGradient(UsageError):
    """What a segmenter returns does not depend on the featuremaps, as far as autograd knows."""


def _effects(
    layers: Mapping[str, Change], pairs: Pairs, generator: Generator, segmenter: Segmenter, rows: slice
) -> dict[str, Tensor]:
    """By layer, the effects (n, U) in some of the pairs.

    Raises:
        NoGradient: no gradient passes through the networks.
        DissectError: a network failed, or drew pixels that are not finite.
    """
    samples = pairs.samples[rows]
    assert isinstance(segmenter, Differentiable)
    with (
        torch.enable_grad(),
        failing(f"samples {samples[0]} …"),
        _started(generator.module, layers, rows),
        Tap(generator.module, list(layers), gradient=True) as tap,
    ):
        images = generator(generator.latents(samples))
        generator.check_finite(images, samples)
        area = segmenter.probabilities(images).mean((2, 3))  # (n, C)
        if area.shape[1] != len(segmenter.vocabulary):  # one class more or less would give each the effect of another
            raise DissectError(
                f"The probabilities of {segmenter.name} have {area.shape[1]} channels; there must be one for each of "
                f"its {len(segmenter.vocabulary)} classes, in their order."
            )
        taps = [tap[layer] for layer in layers]
        if not area.requires_grad:
            raise NoGradient(
                f"--by gradient needs a gradient, and the probabilities of {segmenter.name} or the images of "
                f"{generator.name} have none; do not detach them, or take --by iou or --by scan."
            )
        wanted = area.gather(1, torch.as_tensor(pairs.classes[rows], device=area.device)[:, None]).sum()
        gradients = torch.autograd.grad(wanted, taps)
    return {
        layer: change.effects(x.detach(), gradient, rows).float().cpu()
        for (layer, change), x, gradient in zip(layers.items(), taps, gradients, strict=True)
    }


@contextmanager
def _started(module: nn.Module, layers: Mapping[str, Change], rows: slice) -> Iterator[None]:
    """While open, each layer outputs the featuremaps from which its change starts."""
    handles = []
    try:
        for layer, change in layers.items():
            if change.start:
                handles.append(
                    find_layer(module, layer).register_forward_hook(
                        lambda _m, _i, out, layer=layer, start=change.start: start(single_tensor(layer, out), rows)
                    )
                )
        yield
    finally:
        for handle in handles:
            handle.remove()
