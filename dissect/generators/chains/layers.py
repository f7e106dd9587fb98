"""The layers that a state dict holds, in the order in which a plain network runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

from torch import Tensor

from ....hooks.errors import DissectError

EMBEDDING = re.compile(r"emb|label|class", re.IGNORECASE)
NAME = re.compile(r"(?:[\w\-]{1,64}(?:\.[\w\-]{1,64}){0,9})?")
MOST_CLASSES = 1000
MOST_LAYERS = 80


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer with parameters.

    Attributes:
        name: its name in the state dict, such as `main.3`.
        kind: linear, conv (transposed or not), norm, prelu or embedding.
        tensors: by the last part of their keys: weight, bias, running_mean, ….
    """

    name: str
    kind: str
    tensors: Mapping[str, Tensor]

    @property
    def weight(self) -> Tensor:
        return self.tensors["weight"]

    @property
    def units(self) -> int:
        """The number of outputs of a norm or linear layer."""
        return int(self.tensors["running_mean" if self.kind == "norm" else "weight"].shape[0])

    def directions(self) -> list[tuple[str, int, int]]:
        """The kinds that a convolution can be, `transposed` or `conv`, each with its numbers of inputs and outputs."""
        first, second = self.weight.shape[:2]
        bias = self.tensors.get("bias")
        readings = [("transposed", first, second), ("conv", second, first)]
        return [reading for reading in readings if bias is None or bias.shape == (reading[2],)]


def layers_in(state: Mapping[str, Tensor]) -> list[Layer]:
    """The layers of a state dict, in its order.

    Raises:
        DissectError: a layer is of no kind that a plain chain has.
    """
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, last = key.rpartition(".")
        tensors.setdefault(name, {})[last] = tensor
    for name in tensors:
        if not NAME.fullmatch(name):
            raise DissectError(f"{name[:40]!r} is no name of a layer.")
    if len(tensors) > MOST_LAYERS:
        raise DissectError(f"it has {len(tensors)} layers; a plain chain has at most {MOST_LAYERS}.")
    return [_layer(name, of_layer) for name, of_layer in tensors.items()]


def _layer(name: str, tensors: dict[str, Tensor]) -> Layer:
    keys = set(tensors)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if (
        {"running_mean", "running_var"}
        <= keys
        <= {
            "weight",
            "bias",
            "running_mean",
            "running_var",
            "num_batches_tracked",
        }
    ):
        size = tensors["running_mean"].shape
        shapes = [tensor.shape for key, tensor in tensors.items() if key != "num_batches_tracked"]
        if len(size) == 1 and all(shape == size for shape in shapes):
            return Layer(name=name, kind="norm", tensors=tensors)
    elif weight is not None and keys <= {"weight", "bias"} and weight.numel():
        if weight.ndim == 1 and bias is None:
            return Layer(name=name, kind="prelu", tensors=tensors)
        if weight.ndim == 2 and (bias is None or bias.shape == weight.shape[:1]):
            labels = bias is None and EMBEDDING.search(name) and weight.shape[0] <= MOST_CLASSES
            return Layer(name=name, kind="embedding" if labels else "linear", tensors=tensors)
        if weight.ndim == 4 and (bias is None or bias.ndim == 1) and weight.shape[2] == weight.shape[3]:
            return Layer(name=name, kind="conv", tensors=tensors)
        if weight.ndim == 1:
            raise DissectError(
                f"{name} is a norm without running statistics (of the layer, group or instance), which is not read."
            )
    raise DissectError(f"{name or 'the top level'} has {', '.join(sorted(keys)[:4])}: no layer of a plain chain.")


def interleaved(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with each norm moved behind the next layer, in order, that has as many units as the norm.

    For networks that register all convolutions first and all norms after them.
    """
    norms = [layer for layer in layers if layer.kind in ("norm", "prelu")]
    order: list[Layer] = []
    for layer in (layer for layer in layers if layer.kind not in ("norm", "prelu")):
        order.append(layer)
        outputs = [layer.units] if layer.kind == "linear" else [fan_out for _, _, fan_out in layer.directions()]
        if norms and norms[0].kind == "norm" and any(_is_square(numbers, norms[0].units) for numbers in outputs):
            order.append(norms.pop(0))
    return order + norms


def _is_square(numbers: int, units: int) -> bool:
    """Whether so many numbers can be a square map of so many units.

    >>> _is_square(24 * 16, 24), _is_square(24 * 15, 24)
    (True, False)
    """
    return units > 0 and numbers % units == 0 and isqrt(numbers // units) ** 2 == numbers // units


def gap(before: Layer | None, after: Layer) -> int | None:
    """How many layers without parameters stand between two layers of one `nn.Sequential`; None if they do not tell."""
    if before is None:
        return None
    (above_first, _, first), (above_second, _, second) = before.name.rpartition("."), after.name.rpartition(".")
    if above_first != above_second or not (first.isdecimal() and second.isdecimal()):
        return None
    return int(second) - int(first) - 1
