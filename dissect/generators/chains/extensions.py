"""All ways in which a hypothesis can go on through the next layer: strides, paddings, resizing, views.

Each function takes a hypothesis and a layer and yields longer hypotheses whose shapes fit the layer's weights. The
likelier ones have a lower `unusual`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from math import isqrt
from typing import NamedTuple

from .hypotheses import Hypothesis
from .layers import Layer
from .network import LARGEST, grown
from .plan import Step, step

IMAGES = (1, 3, 4)  # channels
RESIZES = ("nearest", "bilinear")
RARE = 4.0  # `unusual` of ways that are tried only where nothing else comes near


class Geometry(NamedTuple):
    """Of a transposed convolution."""

    stride: int
    padding: int
    output_padding: int


class Way(NamedTuple):
    """A way to run a convolution: the steps before it, its own settings, and how unusual that is."""

    before: tuple[Step, ...]
    settings: dict[str, object]
    unusual: float


USUAL: dict[int, tuple[Geometry, ...]] = {  # by the kernel of a transposed convolution; the likelier ones first
    kernel: tuple(Geometry(*numbers) for numbers in geometries)
    for kernel, geometries in {
        1: ((1, 0, 0),),
        2: ((2, 0, 0),),
        3: ((2, 1, 1), (1, 1, 0), (2, 1, 0), (2, 0, 0), (1, 0, 0)),
        4: ((2, 1, 0), (2, 0, 0), (1, 0, 0), (2, 2, 0), (1, 1, 0)),
        5: ((2, 2, 1), (2, 2, 0), (1, 2, 0), (1, 0, 0), (2, 1, 0)),
        6: ((2, 2, 0), (1, 0, 0)),
        7: ((2, 3, 1), (1, 3, 0), (1, 0, 0)),
    }.items()
}


def through_linear(hypothesis: Hypothesis, layer: Layer) -> Iterator[Hypothesis]:
    """Through a linear layer; a map is flattened before it."""
    fan_out, fan_in = layer.weight.shape
    linear = step("linear", layer.name, units=[fan_in, fan_out], bias="bias" in layer.tensors)
    shape = hypothesis.shape
    if shape == (fan_in,):
        yield hypothesis.then(linear, shape=(fan_out,))
    elif len(shape) == 3 and shape[0] * shape[1] * shape[2] == fan_in:
        yield hypothesis.then(step("flatten"), linear, shape=(fan_out,))


def before_norm(hypothesis: Hypothesis, layer: Layer) -> Iterator[Hypothesis]:
    """With as many units as a norm has: as it is, viewed as a map, shuffled or gated."""
    units = layer.units
    channels = hypothesis.shape[0]
    if channels == units:
        yield hypothesis
    elif len(hypothesis.shape) == 1:
        yield from _viewed(hypothesis, units)
    elif channels == 4 * units:
        yield _shuffled(hypothesis, 2)
    elif channels == 2 * units:
        yield _gated(hypothesis, units)


def through_convolution(hypothesis: Hypothesis, layer: Layer, *, rare: bool) -> Iterator[Hypothesis]:
    """Through a convolution, transposed or not; `rare`: also in ways that hardly anybody uses.

    A geometry that an earlier layer of the same kind has too is not unusual at all, since networks repeat theirs.
    """
    kernel = int(layer.weight.shape[2])
    for kind, units, fan_out in layer.directions():
        earlier = _settings_of_earlier(hypothesis, kind)
        for entering in _with_units(hypothesis, units):
            settings = {"units": [units, fan_out], "kernel": kernel, "bias": "bias" in layer.tensors, "map": True}
            side_before = entering.shape[1]
            ways = _transposed_ways(side_before, kernel) if kind == "transposed" else _plain_ways(side_before, kernel)
            for way in ways:
                if way.unusual >= RARE - 1 and not rare:
                    continue
                convolution = step(kind, layer.name, **settings, **way.settings)
                side = side_before
                for run in (*way.before, convolution):
                    side = grown(run, side)
                if not (1 <= side <= LARGEST and side >= min(side_before, 2)):
                    continue
                repeated = any(set(convolution.settings[1:]) <= set(others) for others in earlier)
                same_padding = not earlier or dict(earlier[-1])["padding"] == way.settings["padding"]
                unusual = way.unusual + (0 if same_padding else 1)
                if way.before and fan_out in IMAGES:  # the layer that makes the image is rarely the one that enlarges
                    repeated, unusual = False, unusual + 2
                yield entering.then(
                    *way.before, convolution, shape=(fan_out, side, side), unusual=0.0 if repeated else unusual
                )


def _settings_of_earlier(hypothesis: Hypothesis, kind: str) -> list[tuple[tuple[str, object], ...]]:
    """The settings of earlier convolutions of the kind, but of those on a map of one pixel, where no stride matters."""
    return [
        current.settings
        for previous, current in pairwise(hypothesis.steps + hypothesis.pending)
        if current.kind == kind and not (previous.kind == "view" and previous["shape"][1] == 1)
    ]


def _with_units(hypothesis: Hypothesis, units: int) -> Iterator[Hypothesis]:
    """As a map of so many units."""
    channels = hypothesis.shape[0]
    if len(hypothesis.shape) == 1:
        yield from _viewed(hypothesis, units)
    elif channels == units:
        yield hypothesis
    elif channels in (4 * units, 16 * units):
        yield _shuffled(hypothesis, 2 if channels == 4 * units else 4)
    elif channels == 2 * units:
        yield _gated(hypothesis, units)


def _viewed(hypothesis: Hypothesis, units: int) -> Iterator[Hypothesis]:
    numbers = hypothesis.shape[0]
    side = isqrt(numbers // units) if units else 0
    if side and units * side * side == numbers:
        yield hypothesis.then(step("view", shape=[units, side, side]), shape=(units, side, side))


def _shuffled(hypothesis: Hypothesis, factor: int) -> Hypothesis:
    units, height, width = hypothesis.shape
    shape = (units // factor**2, height * factor, width * factor)
    return hypothesis.then(step("shuffle", factor=factor, map=True), shape=shape)


def _gated(hypothesis: Hypothesis, units: int) -> Hypothesis:
    return hypothesis.then(step("glu", map=True), shape=(units, *hypothesis.shape[1:]))


def _transposed_ways(side: int, kernel: int) -> list[Way]:
    """Strides, paddings and output paddings that make no map smaller; and resizing before a stride of 1."""
    if side == 1:
        paddings = range((kernel + 1) // 2)
        return [Way((), Geometry(1, padding, 0)._asdict(), float(padding)) for padding in paddings]
    usual = USUAL.get(kernel, ())
    ways = [Way((), geometry._asdict(), rank / 2) for rank, geometry in enumerate(usual)]
    for geometry in map(Geometry._make, product(range(1, 5), range(min(kernel, 4)), range(2))):
        possible = geometry.output_padding < geometry.stride and geometry.padding < kernel
        cut_and_added = geometry.output_padding and geometry.padding > kernel // 2  # a border; nobody does both
        if geometry not in usual and possible and not cut_and_added:
            rarer = 1.0 if geometry.stride < 3 and not geometry.output_padding else 4.0
            ways.append(Way((), geometry._asdict(), RARE + rarer))
    if kernel % 2:
        same_size = Geometry(1, kernel // 2, 0)
        ways += [Way((step("upsample", mode=mode, map=True),), same_size._asdict(), 3.0) for mode in RESIZES]
    return ways


def _plain_ways(side: int, kernel: int) -> list[Way]:
    """Of a convolution: as it is, or after resizing; with borders of zeros, reflected, or without any."""
    ways: list[Way] = []
    same_size = kernel // 2
    for rank, mode in enumerate((None, *RESIZES)):
        resize = () if mode is None else (step("upsample", mode=mode, map=True),)
        ways.append(Way(resize, {"padding": same_size}, float(rank)))
        if kernel > 1 and same_size < side * (2 if mode else 1):
            ways.append(Way(resize, {"padding": same_size, "border": "reflect"}, rank + RARE - 1))
        if kernel > 1:
            ways.append(Way(resize, {"padding": 0}, rank + RARE))
    if side == 1 and kernel > 1:
        ways.append(Way((), {"padding": kernel - 1}, 1.0))
    return ways
