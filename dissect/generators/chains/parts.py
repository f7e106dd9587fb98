"""The layers that a state dict speaks of, in the order in which a plain network runs them."""

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
MOST_PARTS = 80


@dataclass(frozen=True, kw_only=True)
class Part:
    """A layer with parameters.

    Attributes:
        name: its place in the network, such as `main.3`.
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
        """Of a norm or linear layer: how many come out."""
        return int(self.tensors["running_mean" if self.kind == "norm" else "weight"].shape[0])

    def directions(self) -> list[tuple[str, int, int]]:
        """Of a convolution: whether it may be transposed or not, each with the units that go in and come out."""
        first, second = self.weight.shape[:2]
        bias = self.tensors.get("bias")
        readings = [("transposed", first, second), ("conv", second, first)]
        return [one for one in readings if bias is None or bias.shape == (one[2],)]


def parts_of(state: Mapping[str, Tensor]) -> list[Part]:
    """The layers in the order of the file.

    Raises:
        DissectError: a layer is of no kind that a plain chain has.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, last = key.rpartition(".")
        layers.setdefault(name, {})[last] = tensor
    for name in layers:
        if not NAME.fullmatch(name):
            raise DissectError(f"{name[:40]!r} is no name of a layer.")
    if len(layers) > MOST_PARTS:
        raise DissectError(f"it has {len(layers)} layers; a plain chain of at most {MOST_PARTS} is looked for.")
    return [_part(name, tensors) for name, tensors in layers.items()]


def _part(name: str, tensors: dict[str, Tensor]) -> Part:
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
        if len(size) == 1 and all(one.shape == size for key, one in tensors.items() if key != "num_batches_tracked"):
            return Part(name=name, kind="norm", tensors=tensors)
    elif weight is not None and keys <= {"weight", "bias"} and weight.numel():
        if weight.ndim == 1 and bias is None:
            return Part(name=name, kind="prelu", tensors=tensors)
        if weight.ndim == 2 and (bias is None or bias.shape == weight.shape[:1]):
            labels = bias is None and EMBEDDING.search(name) and weight.shape[0] <= MOST_CLASSES
            return Part(name=name, kind="embedding" if labels else "linear", tensors=tensors)
        if weight.ndim == 4 and (bias is None or bias.ndim == 1) and weight.shape[2] == weight.shape[3]:
            return Part(name=name, kind="conv", tensors=tensors)
        if weight.ndim == 1:
            raise DissectError(
                f"{name} is a norm without running statistics (of the layer, group or instance), which is not read."
            )
    raise DissectError(f"{name or 'the top level'} has {', '.join(sorted(keys)[:4])}: no layer of a plain chain.")


def interleaved(parts: Sequence[Part]) -> list[Part]:
    """The same with each norm behind the first layer before it, in order, that has as many units.

    For networks that register all convolutions first and all norms after them.
    """
    norms = [part for part in parts if part.kind in ("norm", "prelu")]
    order: list[Part] = []
    for part in (part for part in parts if part.kind not in ("norm", "prelu")):
        order.append(part)
        outs = [part.units] if part.kind == "linear" else [out for _, _, out in part.directions()]
        if norms and norms[0].kind == "norm" and any(_square(out, norms[0].units) for out in outs):
            order.append(norms.pop(0))
    return order + norms


def _square(out: int, units: int) -> bool:
    """Whether `out` numbers can be a map of so many units."""
    return units > 0 and out % units == 0 and isqrt(out // units) ** 2 == out // units


def gap(before: Part | None, after: Part) -> int | None:
    """How many layers without parameters stand between two in one `nn.Sequential`; None if that cannot be told."""
    if before is None:
        return None
    (one, _, first), (other, _, second) = before.name.rpartition("."), after.name.rpartition(".")
    if one != other or not (first.isdecimal() and second.isdecimal()):
        return None
    return int(second) - int(first) - 1
