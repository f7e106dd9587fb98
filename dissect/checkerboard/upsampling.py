"""Find the layers of a network that make maps finer, by running it on two samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...hooks.errors import UsageError
from ...hooks.functional_calls import Call, watched
from ..generators.base import Generator
from ..subjects.subject import failing
from .kernels import Geometry, flat_response, overlap, shuffle_kernel

TRANSPOSED, SHUFFLE, INTERPOLATION = "transposed convolution", "pixel shuffle", "interpolation"
UNKNOWN = "unknown means"


@dataclass(frozen=True, kw_only=True)
class Upsampling:
    """A site: one place in a network where a map is made finer.

    name: of the module that does it. place: of the call whose output is measured, see `Call.place`; for interpolation,
    that of the convolution that follows. kind: by what means; how: for interpolation, its mode and what follows.
    factor: how many times finer (vertical, horizontal). maps: (units, height, width) of the output. kernel, geometry,
    groups, weight: of a transposed convolution. A pixel shuffle and the convolution before it, whose place is
    `source`, are together one transposed convolution, with a bias (units, sh, sw) of each phase. All of these are None
    where they are not known.
    """

    name: str
    place: tuple[str, str, int]
    kind: str
    factor: tuple[int, int]
    maps: tuple[int, int, int]
    how: str = ""
    kernel: tuple[int, int] | None = None
    geometry: Geometry | None = None
    groups: int = 1
    weight: Tensor | None = None
    bias: Tensor | None = None
    source: tuple[str, str, int] | None = None

    @property
    def uneven(self) -> bool:
        """Whether a stride leaves more taps on some outputs than on others."""
        return self.pattern is not None and int(self.pattern.min()) != int(self.pattern.max())

    @property
    def pattern(self) -> Tensor | None:
        """(sh, sw): taps that reach each phase, of a transposed convolution."""
        return None if self.kernel is None or self.geometry is None else overlap(self.kernel, self.geometry)

    def predicted_tile(self, level: Tensor) -> Tensor | None:
        """The tile (units, sh, sw) that a flat input at `level` (in,) makes; None where the weights are not known.

        Interpolation leaves a flat input flat, so that its tile is zero.
        """
        if self.kind == INTERPOLATION:
            return torch.zeros(self.maps[0], *self.factor)
        if self.weight is None or self.geometry is None:
            return None
        flat = flat_response(self.weight, self.geometry, level.to(self.weight), self.groups)
        return flat if self.bias is None else flat + self.bias

    def period(self, image: tuple[int, int]) -> tuple[int, int] | None:
        """Height and width in pixels of the grid that the layer draws in an image; None where they are not integers."""
        if any(pixels % cells for pixels, cells in zip(image, self.maps[1:], strict=True)):
            return None
        return self.factor[0] * (image[0] // self.maps[1]), self.factor[1] * (image[1] // self.maps[2])


def periods_of(sites: Iterable[Upsampling], image: tuple[int, int]) -> set[tuple[int, int]]:
    """The grids that these layers draw in an image, where they have a whole number of pixels."""
    return {period for site in sites if (period := site.period(image)) is not None}


@torch.no_grad()  # not inference_mode, whose tensors have no version that counts writes in place
def upsamplings(generator: Generator) -> list[Upsampling]:
    """Every place where the generator makes a map finer, in the order of a forward pass of two samples.

    Transposed convolutions, pixel shuffles, interpolation with the convolution that follows it, and convolutions whose
    input is finer, by a whole factor, than every output before it, by whatever means.

    Raises:
        UsageError: there is none.
        DissectError: the network failed.
    """
    finder = _Finder()
    with failing("two probe samples"), watched(generator.module, finder.see):
        generator(generator.latents([0, 1]))
    finder.finish()
    if not finder.sites:
        raise UsageError(
            f"{generator.name} makes no map finer: there is no transposed convolution of stride 2 or more, no pixel "
            "shuffle and no interpolation in it, so nothing to check."
        )
    return finder.sites


class _Finder:
    """Watches the calls of one forward pass, in their order, and keeps those that make a map finer.

    An interpolation waits for the convolution that follows it, since the images show that one's output. A pixel shuffle
    belongs to the convolution of the call before it, if it gets that one's very output, not written to in between.
    """

    def __init__(self) -> None:
        self.sites: list[Upsampling] = []
        self.finest = (0, 0)  # height and width: the greatest of all outputs so far
        self.waiting: _Interpolation | None = None
        self.last: _Last | None = None

    def see(self, call: Call, output: Tensor) -> None:
        before, after = call.input.shape[2:], output.shape[2:]
        if call.function == "conv_transpose2d":
            if max(stride := call.pair("stride", 1)) > 1:
                self.sites.append(_transposed(call, output, stride))
        elif call.function == "pixel_shuffle":
            convolution = None if self.last is None else self.last.convolution_before(call)
            self.sites.append(_shuffle(call, output, int(call.arguments["upscale_factor"]), convolution))
        elif call.function == "interpolate":
            if (factor := _factor(before, after)) != (1, 1):
                self.waiting = _Interpolation(call, factor, str(call.arguments.get("mode") or "nearest"))
        elif call.function == "conv2d":
            factor, mode = _grown(self.finest, call, output), ""
            if self.waiting is not None:
                factor, mode, self.waiting = self.waiting.factor, self.waiting.mode, None
            if max(factor) > 1 and max(call.pair("stride", 1)) == 1:
                self.sites.append(_resized(call, output, factor, mode))
        self.last = _Last(call, output, output._version)
        self.finest = (max(self.finest[0], after[0]), max(self.finest[1], after[1]))

    def finish(self) -> None:
        """Keep an interpolation that no convolution has followed: the last thing that the network does."""
        if self.waiting is None:
            return
        call, factor, mode = self.waiting
        self.sites.append(
            Upsampling(
                name=call.owner,
                place=call.place,
                kind=INTERPOLATION,
                how=mode,
                factor=factor,
                maps=(call.input.shape[1], call.input.shape[2] * factor[0], call.input.shape[3] * factor[1]),
            )
        )


class _Interpolation(NamedTuple):
    """An interpolation by a factor (vertical, horizontal)."""

    call: Call
    factor: tuple[int, int]
    mode: str


class _Last(NamedTuple):
    """A call, its output, and how often that had been written to when it was returned."""

    call: Call
    output: Tensor
    version: int

    def convolution_before(self, call: Call) -> Call | None:
        """This call, if it is a convolution whose output the next call gets unchanged."""
        same = self.output is call.input and self.output._version == self.version
        return self.call if same and self.call.function == "conv2d" else None


def _transposed(call: Call, output: Tensor, stride: tuple[int, int]) -> Upsampling:
    weight = call.arguments["weight"]
    return Upsampling(
        name=call.owner,
        place=call.place,
        kind=TRANSPOSED,
        factor=stride,
        maps=_maps(output),
        kernel=(weight.shape[2], weight.shape[3]),
        geometry=Geometry(stride, call.pair("padding", 0), call.pair("output_padding", 0), call.pair("dilation", 1)),
        groups=int(call.arguments.get("groups") or 1),
        weight=weight.detach(),
    )


def _shuffle(call: Call, output: Tensor, factor: int, convolution: Call | None) -> Upsampling:
    site = Upsampling(name=call.owner, place=call.place, kind=SHUFFLE, factor=(factor, factor), maps=_maps(output))
    if convolution is None:
        return site
    weight, bias = convolution.arguments["weight"].detach(), convolution.arguments.get("bias")
    if int(convolution.arguments.get("groups") or 1) > 1 or not isinstance(
        convolution.arguments.get("padding", 0), int | tuple
    ):
        return site
    margin = convolution.pair("padding", 0)
    padding = [factor * (side - 1 - edge) for side, edge in zip(weight.shape[2:], margin, strict=True)]
    return replace(
        site,
        kernel=(factor * weight.shape[2], factor * weight.shape[3]),
        geometry=Geometry((factor, factor), (padding[0], padding[1])),
        weight=shuffle_kernel(weight, factor),
        bias=None if bias is None else bias.detach().unflatten(0, (-1, factor, factor)),
        source=convolution.place,
    )


def _resized(call: Call, output: Tensor, factor: tuple[int, int], mode: str) -> Upsampling:
    weight = call.arguments["weight"]
    return Upsampling(
        name=call.owner,
        place=call.place,
        kind=INTERPOLATION if mode else UNKNOWN,
        how=f"{mode or UNKNOWN}, then convolution",
        factor=factor,
        maps=_maps(output),
        kernel=(weight.shape[2], weight.shape[3]),
    )


def _maps(output: Tensor) -> tuple[int, int, int]:
    return output.shape[1], output.shape[2], output.shape[3]


def _grown(finest: tuple[int, int], call: Call, output: Tensor) -> tuple[int, int]:
    """How many times finer a convolution's input is than all outputs before, but for a margin of its kernel's size.

    Its own output must be finer too: if the input had only been padded, the convolution would crop that again.
    """
    kernel = call.arguments["weight"].shape[2:]
    factors = []
    for before, side, after, taps in zip(finest, call.input.shape[2:], output.shape[2:], kernel, strict=True):
        factor = side // before if before else 1
        grown = factor > 1 and side - factor * before < taps and 2 * after > 3 * before
        factors.append(factor if grown else 1)
    return factors[0], factors[1]


def _factor(before: torch.Size, after: torch.Size) -> tuple[int, int]:
    """How many times finer the sides are after than before, rounded, since a margin of a few pixels may be added.

    >>> _factor(torch.Size([4, 4]), torch.Size([9, 4]))
    (2, 1)
    """
    down, across = (max(1, round(new / old)) for old, new in zip(before, after, strict=True))
    return down, across
