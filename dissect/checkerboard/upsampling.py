"""The layers of a network that make maps finer, or coarser, found by running it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

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
    """One place in a network where a map is made finer.

    name: of the module that does it. place: of the call whose output is looked at, see `Call.place`; for interpolation,
    that of the convolution that follows. kind: how it is done; how: of interpolation, which, and what follows. factor:
    how many times finer (vertical, horizontal). maps: (units, height, width) of the output. kernel, geometry, groups,
    weight: of a transposed convolution, or of the one that a pixel shuffle and the convolution before it, `source`,
    are; bias (units, sh, sw): the latter's. All None where they cannot be told.
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

    def foretold(self, level: Tensor) -> Tensor | None:
        """The tile (units, sh, sw) that a flat input at `level` (in,) makes; None where the weights do not tell.

        Interpolation holds or blends a flat input without a trace, so that its tile is flat.
        """
        if self.kind == INTERPOLATION:
            return torch.zeros(self.maps[0], *self.factor)
        if self.weight is None or self.geometry is None:
            return None
        flat = flat_response(self.weight, self.geometry, level.to(self.weight), self.groups)
        return flat if self.bias is None else flat + self.bias

    def period(self, image: tuple[int, int]) -> tuple[int, int] | None:
        """Height and width in pixels of the grid that the layer draws in an image; None where it is no whole number."""
        found = []
        for factor, here, whole in zip(self.factor, self.maps[1:], image, strict=True):
            if whole % here:
                return None
            found.append(factor * (whole // here))
        return found[0], found[1]


def periods_of(sites: Iterable[Upsampling], image: tuple[int, int]) -> set[tuple[int, int]]:
    """The grids that these layers draw in an image, where they have a whole number of pixels."""
    return {period for site in sites if (period := site.period(image)) is not None}


@torch.no_grad()  # not inference_mode, whose tensors do not tell whether they were written in place
def upsamplings(generator: Generator) -> list[Upsampling]:
    """Every place where the generator makes a map finer, in the order of a forward pass of two samples.

    Transposed convolutions, pixel shuffles, interpolation with the convolution that follows it, and convolutions whose
    input is finer, by a whole factor, than everything that was output before, by whatever means.

    Raises:
        UsageError: there is none.
        DissectError: the network failed.
    """
    found: list[Upsampling] = []
    last: list[tuple[Call, Tensor, int]] = []  # the call before, and how often its output had been written
    finest = (0, 0)  # of all outputs so far
    waiting: list[tuple[Call, tuple[int, int], str]] = []  # an interpolation that no convolution has followed yet

    def see(call: Call, output: Tensor) -> None:
        nonlocal finest
        before, after = call.input.shape[2:], output.shape[2:]
        if call.function == "conv_transpose2d":
            if max(stride := call.pair("stride", 1)) > 1:
                found.append(_transposed(call, output, stride))
        elif call.function == "pixel_shuffle":
            convolution = next(
                (
                    one
                    for one, out, version in last
                    if one.function == "conv2d" and out is call.input and out._version == version
                ),
                None,
            )
            found.append(_shuffle(call, output, int(call.arguments["upscale_factor"]), convolution))
        elif call.function == "interpolate":
            if (factor := _factor(before, after)) != (1, 1):
                waiting[:] = [(call, factor, str(call.arguments.get("mode") or "nearest"))]
        elif call.function == "conv2d":
            factor, how = _grown(finest, call, output), ""
            if waiting:
                _, factor, how = waiting.pop()
            if max(factor) > 1 and max(call.pair("stride", 1)) == 1:
                found.append(_resized(call, output, factor, how))
        last[:] = [(call, output, output._version)]
        finest = (max(finest[0], after[0]), max(finest[1], after[1]))

    with failing("two probe samples"), watched(generator.module, see):
        generator(generator.latents([0, 1]))
    for call, factor, how in waiting:  # the last thing that the network does
        shape = [size * times for size, times in zip(call.input.shape[2:], factor, strict=True)]
        found.append(
            Upsampling(
                name=call.owner,
                place=call.place,
                kind=INTERPOLATION,
                how=how,
                factor=factor,
                maps=(call.input.shape[1], shape[0], shape[1]),
            )
        )
    if not found:
        raise UsageError(
            f"{generator.name} makes no map finer: there is no transposed convolution of stride 2 or more, no pixel "
            "shuffle and no interpolation in it, so nothing to check."
        )
    return found


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


def _resized(call: Call, output: Tensor, factor: tuple[int, int], how: str) -> Upsampling:
    weight = call.arguments["weight"]
    return Upsampling(
        name=call.owner,
        place=call.place,
        kind=INTERPOLATION if how else UNKNOWN,
        how=f"{how or UNKNOWN}, then convolution",
        factor=factor,
        maps=_maps(output),
        kernel=(weight.shape[2], weight.shape[3]),
    )


def _maps(output: Tensor) -> tuple[int, int, int]:
    return output.shape[1], output.shape[2], output.shape[3]


def _grown(finest: tuple[int, int], call: Call, output: Tensor) -> tuple[int, int]:
    """How many times finer a convolution's input is than all outputs before, but for a margin of its kernel's size.

    Its own output must be finer too: a margin alone is taken away again.
    """
    kernel = call.arguments["weight"].shape[2:]
    factors = []
    for was, now, after, taps in zip(finest, call.input.shape[2:], output.shape[2:], kernel, strict=True):
        factor = now // was if was else 1
        grown = factor > 1 and now - factor * was < taps and 2 * after > 3 * was
        factors.append(factor if grown else 1)
    return factors[0], factors[1]


def _factor(before: torch.Size, after: torch.Size) -> tuple[int, int]:
    """How many times finer, rounded: a margin of a few pixels may have been added."""
    down, across = (max(1, round(new / old)) for old, new in zip(before, after, strict=True))
    return down, across
