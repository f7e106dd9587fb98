"""The other side of a checkerboard: the gradient that a discriminator or classifier sends back to the image.

The gradient of a strided convolution is a transposed convolution, and that of max pooling goes to one input of each
window: both reach some pixels more than others (Odena et al. 2016, the article's last section), so that a generator is
told to change some pixels more than others.
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
from .ripple import Seen, batches, random_shifts

KINDS = {"conv2d": "strided convolution", "avg_pool2d": "average pooling", "max_pool2d": "max pooling"}


@dataclass(frozen=True, kw_only=True)
class Strided:
    """A layer that makes maps coarser. period: of its grid in the image, None where it is no whole number."""

    name: str
    place: tuple[str, str, int]
    kind: str
    kernel: tuple[int, int]
    geometry: Geometry  # of the transposed convolution that its gradient is
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
    found: list[Strided] = []

    def see(call: Call, _output: Tensor) -> None:
        if call.function not in KINDS:
            return
        pool = call.function != "conv2d"
        kernel = call.pair("kernel_size", 1) if pool else tuple(call.arguments["weight"].shape[2:])
        stride = call.pair("stride", kernel if pool else 1)
        if max(stride) == 1:
            return
        coarse = [whole / here for whole, here in zip(images.shape[2:], call.input.shape[2:], strict=True)]
        period = [step * times for step, times in zip(stride, coarse, strict=True)]
        whole = all(side.is_integer() for side in coarse)
        found.append(
            Strided(
                name=call.owner,
                place=call.place,
                kind=KINDS[call.function],
                kernel=(kernel[0], kernel[1]),
                geometry=Geometry(stride, call.pair("padding", 0), dilation=call.pair("dilation", 1)),
                period=(int(period[0]), int(period[1])) if whole else None,
            )
        )

    with torch.no_grad(), watched(critic, see):
        _scores(critic, images)
    if not found:
        raise UsageError("The critic has no strided convolution and no pooling: its gradient has no grid to check.")
    return found


def _scores(critic: nn.Module, images: Tensor) -> Tensor:
    try:
        scores = critic(images * 1)  # it may work in place
    except Exception as error:  # whatever the user's network raises
        raise UsageError(
            f"The critic failed on images {tuple(images.shape)} in [0, 1] ({one_line(error)}); give one that takes the "
            "generator's size, or wrap it in a module that resizes."
        ) from error
    if not isinstance(scores, Tensor):
        raise UsageError(f"The critic returned a {type(scores).__name__}; a tensor of scores is needed.")
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

    Returns:
        One row a strided convolution or pooling: layer, kind, kernel, stride, taps (least to most windows that reach an
        input), uneven, period (of its grid in the image, in pixels); of the gradient's energy at the layer's input,
        mean square over units: measured, its root mean square over the phases as a share of its mean, with interval
        and chance as of `Seen.measured`; image, the same of the gradient at the image.

    Raises:
        UsageError: the critic has no strided layer, or does not take such images.
        DissectError: the gradient is not finite.
    """
    with torch.no_grad():
        sites = strided(critic, generator(generator.latents(samples[:2])))
    inner = [Seen.empty(1, site.geometry.stride) for site in sites]
    outer = [None if site.period is None else Seen.empty(1, site.period) for site in sites]
    shifts = random_shifts(len(samples), seed)
    for numbers in batches(samples, batch):
        with torch.no_grad():
            images = generator(generator.latents(numbers))
        images = images.clone().requires_grad_()
        inputs: dict[tuple[str, str, int], Tensor] = {}

        def keep(call: Call, _output: Tensor, inputs: dict[tuple[str, str, int], Tensor] = inputs) -> None:
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
        mine = shifts[:, numbers.start - samples.start : numbers.stop - samples.start]
        for site, near, far in zip(sites, inner, outer, strict=True):
            here = inputs[site.place].grad if site.place in inputs else None
            if here is not None:
                near.add(here.square().mean(1, keepdim=True), numbers, mine, site.geometry.stride)
            if far is not None and site.period is not None:
                far.add(images.grad.square().mean(1, keepdim=True), numbers, mine, site.period)
        advance(len(numbers))
    for sums in [*inner, *outer]:
        if sums is not None:
            sums.together()
    rows = []
    for site, near, far in zip(sites, inner, outer, strict=True):
        found = {} if near.count == 0 else near.measured(_mean(near))
        rows.append(site.row | found | {"image": float("nan") if far is None else far.measured(_mean(far))["measured"]})
    return pd.DataFrame(rows)


def _mean(seen: Seen) -> float:
    return max(1e-30, float(seen.groups.sum(0).mean() / seen.count))
