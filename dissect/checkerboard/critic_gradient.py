"""Checkerboards in gradients: how evenly the gradient of a discriminator or classifier falls on the image.

The gradient of a strided convolution is a transposed convolution, and that of max pooling goes to one input of each
window: both reach some pixels more than others (Odena et al. 2016, the article's last section), so that a generator
learns to change some pixels more than others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError, one_line
from ...hooks.functional_calls import Call, watched
from ..generators.base import Generator
from .kernels import Geometry, overlap
from .ripple import RippleSums, batches, random_shifts

KINDS = {"conv2d": "strided convolution", "avg_pool2d": "average pooling", "max_pool2d": "max pooling"}


@dataclass(frozen=True, kw_only=True)
class Strided:
    """A layer that makes maps coarser.

    name: of the module. place: of the call, see `Call.place`. geometry: of the transposed convolution that its gradient
    is. period: height and width in pixels of its grid in the image, None where they are no whole numbers.
    """

    name: str
    place: tuple[str, str, int]
    kind: str
    kernel: tuple[int, int]
    geometry: Geometry
    period: tuple[int, int] | None

    @property
    def row(self) -> dict[str, object]:
        taps = overlap(self.kernel, self.geometry)
        return {
            "layer": self.name,
            "kind": self.kind,
            "kernel": "×".join(map(str, self.kernel)),
            "stride": "×".join(map(str, self.geometry.stride)),
            "taps": f"{int(taps.min())} to {int(taps.max())}",
            "uneven": int(taps.min()) != int(taps.max()),
            "period": "×".join(map(str, self.period)) if self.period else "",
        }


def strided(critic: nn.Module, images: Tensor) -> list[Strided]:
    """The strided convolutions and poolings of a critic, in the order of a forward pass of these images (N, 3, H, W).

    Raises:
        UsageError: there is none, or the critic does not take such images.
    """
    layers: list[Strided] = []

    def see(call: Call, _output: Tensor) -> None:
        if call.function not in KINDS:
            return
        pool = call.function != "conv2d"
        kernel = call.pair("kernel_size", 1) if pool else tuple(call.arguments["weight"].shape[2:])
        stride = call.pair("stride", kernel if pool else 1)
        if max(stride) == 1:
            return
        pixels = [side / cells for side, cells in zip(images.shape[2:], call.input.shape[2:], strict=True)]
        period = [step * times for step, times in zip(stride, pixels, strict=True)]
        has_period = all(side.is_integer() for side in pixels)
        layers.append(
            Strided(
                name=call.owner,
                place=call.place,
                kind=KINDS[call.function],
                kernel=(kernel[0], kernel[1]),
                geometry=Geometry(stride, call.pair("padding", 0), dilation=call.pair("dilation", 1)),
                period=(int(period[0]), int(period[1])) if has_period else None,
            )
        )

    with torch.no_grad(), watched(critic, see):
        _scores(critic, images)
    if not layers:
        raise UsageError("The critic has no strided convolution and no pooling: its gradient has no grid to check.")
    return layers


def _scores(critic: nn.Module, images: Tensor) -> Tensor:
    try:
        scores = critic(images * 1)  # a copy, since the critic may change its input in place
    except Exception as error:  # whatever the user's network raises
        raise UsageError(
            f"The critic failed on images {tuple(images.shape)} in [0, 1] ({one_line(error)}); give one that takes the "
            "generator's size, or wrap it in a module that resizes."
        ) from error
    if not isinstance(scores, Tensor):
        raise UsageError(f"The critic returned a {type(scores).__name__}; it must return a tensor of scores.")
    return scores


def gradient_side(
    generator: Generator,
    critic: nn.Module,
    samples: range,
    batch: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """How unevenly a critic's gradient falls on the phases of each of its strides, on generated images.

    Args:
        generator: whose images are looked at.
        critic: images (N, 3, H, W) in [0, 1] -> a tensor of numbers, whose sum is differentiated.
        samples, batch: which images, and how many at a time.
        seed: of chance.
        advance: is called with the number of images done.

    Returns:
        One row a strided convolution or pooling. layer, kind, kernel, stride; taps: least to most windows that reach an
        input; uneven: whether these differ; period: of its grid in the image, in pixels. measured: the ripple of the
        gradient's energy (mean square over units) at the layer's input, as a share of its mean, with interval and
        chance as of `RippleSums.measured`. image: `measured` of the gradient at the image, by the phases of the grid.

    Raises:
        UsageError: the critic has no strided layer, or does not take such images.
        DissectError: the gradient is not finite.
    """
    with torch.no_grad():
        layers = strided(critic, generator(generator.latents(samples[:2])))
    at_layer = [RippleSums.empty(1, layer.geometry.stride) for layer in layers]
    at_image = [None if layer.period is None else RippleSums.empty(1, layer.period) for layer in layers]
    shifts = random_shifts(len(samples), seed)
    for batch_samples in batches(samples, batch):
        with torch.no_grad():
            images = generator(generator.latents(batch_samples))
        of_images, of_inputs = gradients(critic, images)
        batch_shifts = shifts[:, batch_samples.start - samples.start : batch_samples.stop - samples.start]
        for layer, inner, outer in zip(layers, at_layer, at_image, strict=True):
            of_input = of_inputs.get(layer.place)
            if of_input is not None:
                inner.add(_energy(of_input), batch_samples, batch_shifts, layer.geometry.stride)
            if outer is not None and layer.period is not None:
                outer.add(_energy(of_images), batch_samples, batch_shifts, layer.period)
        advance(len(batch_samples))
    for sums in [*at_layer, *at_image]:
        if sums is not None:
            sums.together()
    rows = []
    for layer, inner, outer in zip(layers, at_layer, at_image, strict=True):
        measured = {} if inner.count == 0 else inner.measured(_mean(inner))
        image = float("nan") if outer is None else outer.measured(_mean(outer))["measured"]
        rows.append(layer.row | measured | {"image": image})
    return pd.DataFrame(rows)


def gradients(critic: nn.Module, images: Tensor) -> tuple[Tensor, dict[tuple[str, str, int], Tensor]]:
    """Gradients of the sum of the critic's scores: by the images (N, 3, H, W), and by the inputs of calls, by place.

    Raises:
        UsageError: the critic fails on the images, or its scores have no gradient.
        DissectError: the gradient by the images is not finite.
    """
    images = images.clone().requires_grad_()
    inputs: dict[tuple[str, str, int], Tensor] = {}

    def keep(call: Call, _output: Tensor) -> None:
        if call.input.requires_grad:
            call.input.retain_grad()
            inputs[call.place] = call.input

    with torch.enable_grad():
        with watched(critic, keep):
            scores = _scores(critic, images)
        if not scores.requires_grad:
            raise UsageError("The critic's scores have no gradient by the images; they must be differentiable.")
        scores.sum().backward()
    if images.grad is None or not bool(images.grad.isfinite().all()):
        raise DissectError("The critic's gradient by the images is not finite; give another --critic.")
    return images.grad, {place: tensor.grad for place, tensor in inputs.items() if tensor.grad is not None}


def _energy(gradient: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, 1, h, w): the mean square over units."""
    return gradient.square().mean(1, keepdim=True)


def _mean(sums: RippleSums) -> float:
    return max(1e-30, float(sums.groups.sum(0).mean() / sums.count))
