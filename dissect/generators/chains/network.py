"""A plain network that is built from its plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ....hooks.errors import DissectError, one_line
from ..families.architecture import Architecture, filled
from ..latents import parse_latents
from ..replaced_layers import refit
from .plan import ACTIVATIONS, OUTPUTS, Plan, Step

if TYPE_CHECKING:
    from .search import Found

LARGEST = 1024  # side of images
TAKEN = ("plan", "order", "latent", "classes", "found", "output_range")  # attributes of a chain itself
PLAN = "ganatomy_plan"  # a tensor of a saved network: the plan's text, as bytes


class Labels(nn.Module):
    """(N, latent + classes), a latent and a class as one-hot -> (N, …), what the first layer takes.

    Args:
        classes: how many there are.
        how: `before` or `after`: the class goes before or behind the latent; `times`: the two are multiplied.
        embedded: length of a class's embedding; 0 takes the one-hot itself.
    """

    def __init__(self, classes: int, how: str, embedded: int) -> None:
        super().__init__()
        self.classes, self.how = classes, how
        if embedded:
            self.weight = nn.Parameter(torch.empty(classes, embedded))

    def forward(self, x: Tensor) -> Tensor:
        latents, labels = x[:, : -self.classes], x[:, -self.classes :]
        if hasattr(self, "weight"):
            labels = labels @ self.weight
        if self.how == "times":
            return latents * labels
        return torch.cat([labels, latents] if self.how == "before" else [latents, labels], 1)


class Container(nn.Module):
    """Holds layers under the names that they have in the file; it is never run itself."""


class Chain(Architecture):
    """latents (N, latent) or (N, latent + classes) float32 -> images (N, 1 or 3, H, W), as its plan says.

    Layers keep their names in the file. A layer without parameters is called after the place that it has there, as
    `main.2` between `main.1` and `main.3`, or else after the layer before it.
    """

    family = "plain chain"
    citation = ""
    found: Found | None = None  # how it was found, where it was searched

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.latent = parse_latents(plan.latent).shape[0]
        self.classes = plan.classes
        self.output_range = OUTPUTS[_output(plan)]
        self.order: list[str] = []
        for place, one in enumerate(plan.steps):
            after = plan.steps[place + 1].name if place + 1 < len(plan.steps) else ""
            name = own_name(one.name) if one.name else self._free_name(one, own_name(after))
            self._put(name, layer_of(one))
            self.order.append(name)

    def _put(self, name: str, layer: nn.Module) -> None:
        *above, last = name.split(".")
        place: nn.Module = self
        for part in above:
            if part not in place._modules:
                if place is not self and hasattr(Container, part):
                    raise DissectError(f"a layer cannot be called {name}.")
                place.add_module(part, Container())
            place = place.get_submodule(part)
        if last in place._modules or hasattr(Container, last):
            raise DissectError(f"a layer cannot be called {name}.")
        place.add_module(last, layer)

    def _free_name(self, one: Step, after: str) -> str:
        before = self.order[-1] if self.order else ""
        (above, _, first), (other, _, second) = before.rpartition("."), after.rpartition(".")
        numbered = first.isdecimal() and (not after or (above == other and second.isdecimal()))
        if numbered and (not after or int(first) + 1 < int(second)):
            name = f"{above}.{int(first) + 1}".strip(".")
        else:
            name = f"{before or 'input'}_{one.get('which', one.kind).partition(':')[0]}".replace(".", "_")
        number, free = 2, name
        while free in self.order or any(one.startswith(f"{free}.") for one in self.order):
            free, number = f"{name}_{number}", number + 1
        return free

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers worth dissecting: on a map, each hidden activation, and what none follows."""
        names = []
        for name, one, after in zip(self.order, self.plan.steps, self.plan.steps[1:], strict=False):
            if one.get("map") and (one.kind in ("act", "prelu", "glu") or after.kind in WEIGHTED):
                names.append(name)
        return tuple(names)

    def settings(self) -> dict[str, object]:
        return {"plan": self.plan.text()}

    def forward(self, latents: Tensor) -> Tensor:
        x = latents.flatten(1)
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x


WEIGHTED = ("conv", "transposed", "upsample", "shuffle")


def build(plan: Plan, state: Mapping[str, Tensor]) -> Chain:
    """The network of a plan in eval mode, with its own float32 copy of the weights.

    Raises:
        DissectError: a key is missing, extra or misshapen, or the plan makes no sense.
    """
    try:
        if side_of(plan) > LARGEST:
            raise ValueError(f"its images have sides of more than {LARGEST} pixels")
        module = Chain(plan)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise DissectError(f"the plan of the network makes no sense ({one_line(error)}).") from error
    names = {one.name for one in plan.steps if one.name}
    state = {_own_key(key, names): tensor for key, tensor in state.items()}
    refit(module, state)
    filled(module, state)
    module.register_buffer(PLAN, torch.frombuffer(bytearray(plan.text().encode()), dtype=torch.uint8))
    return module


def own_name(name: str) -> str:
    """A layer's name in the network: that of the file, but for first parts that a module has another use for."""
    first, dot, rest = name.partition(".")
    return f"{first}_{dot}{rest}" if first and (hasattr(Chain, first) or first in TAKEN) else name


def _own_key(key: str, names: set[str]) -> str:
    layer, _, last = key.rpartition(".")
    inner = layer.removesuffix(".conv")  # of a layer that a repair replaced, see `dcgan.refit`
    return f"{own_name(layer)}.{last}" if {layer, inner} & names else key


def side_of(plan: Plan) -> int:
    """Of the images, in pixels."""
    side = 1
    for one in plan.steps:
        side = grown(one, side)
    return side


def grown(one: Step, side: int) -> int:
    """The side of a map after a step."""
    if one.kind == "view":
        return int(one["shape"][1])
    if one.kind == "transposed":
        return int((side - 1) * one["stride"] - 2 * one["padding"] + one["kernel"] + one["output_padding"])
    if one.kind == "conv":
        return int(side + 2 * one["padding"] - one["kernel"] + 1)
    if one.kind == "upsample":
        return 2 * side
    return side * int(one["factor"]) if one.kind == "shuffle" else side


def kept_plan(state: dict[str, Tensor]) -> Plan | None:
    """Remove the plan from the state dict of a network that was saved; None if it has none.

    Raises:
        DissectError: it is damaged.
    """
    kept = state.pop(PLAN, None)
    if kept is None:
        return None
    if kept.dtype != torch.uint8 or kept.ndim != 1:
        raise DissectError("the plan of the network in the file is damaged; save it again.")
    return Plan.read(bytes(kept.tolist()).decode("utf-8", "replace"))


def _output(plan: Plan) -> str:
    last = plan.steps[-1]
    word = str(last["which"]) if last.kind == "act" else "linear"
    return word if word in OUTPUTS else "linear"


def layer_of(one: Step) -> nn.Module:
    """The module that does a step, on the meta device where it has weights.

    Raises:
        DissectError: there is no such step.
    """
    with torch.device("meta"):
        return _layer(one)


def _layer(one: Step) -> nn.Module:
    fan_in, fan_out = one.get("units") if one.kind in ("linear", "conv", "transposed") else (0, 0)
    match one.kind:
        case "linear":
            return nn.Linear(fan_in, fan_out, bias=one["bias"])
        case "conv":
            places: dict[str, Any] = {"padding": one["padding"], "padding_mode": one.get("border", "zeros")}
            return nn.Conv2d(fan_in, fan_out, one["kernel"], bias=one["bias"], **places)
        case "transposed":
            places = {name: one[name] for name in ("stride", "padding", "output_padding")}
            return nn.ConvTranspose2d(fan_in, fan_out, one["kernel"], bias=one["bias"], **places)
        case "norm":
            kind = nn.BatchNorm2d if one["map"] else nn.BatchNorm1d
            return kind(one["units"], one["eps"], affine=one["affine"])
        case "prelu":
            return nn.PReLU(one["units"])
        case "label":
            return Labels(one["classes"], one["how"], one["embedded"])
        case "act":
            return activation(one["which"])
        case "view":
            return nn.Unflatten(1, tuple(one["shape"]))
        case "flatten":
            return nn.Flatten()
        case "upsample":
            return nn.Upsample(scale_factor=2.0, mode=one["mode"])
        case "shuffle":
            return nn.PixelShuffle(one["factor"])
        case "glu":
            return nn.GLU(1)
    raise DissectError(f"a plain network has no step {one.kind!r}.")


def activation(which: str) -> nn.Module:
    """The module of an activation by its word, such as `leaky_relu:0.2`.

    Raises:
        DissectError: there is none of that word.
    """
    name, _, slope = which.partition(":")
    if name == "leaky_relu":
        return nn.LeakyReLU(float(slope))
    plain: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "elu": nn.ELU,
        "selu": nn.SELU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    if name not in plain:
        raise DissectError(f"there is no activation {which!r} here; there are {', '.join(ACTIVATIONS)}.")
    return plain[name]()


def with_weights(one: Step, state: Mapping[str, Tensor]) -> nn.Module:
    """The module of a step with its weights out of a state dict, shared and not copied, in eval mode."""
    layer = layer_of(one)
    for key in dict(layer.named_parameters()) | dict(layer.named_buffers()):
        tensor = state.get(f"{one.name}.{key}".removeprefix("."))
        if tensor is None:  # a counter, which files of old versions lack
            tensor = torch.zeros(())
        if key in layer._buffers:
            layer._buffers[key] = tensor.float()
        else:
            layer._parameters[key] = nn.Parameter(tensor.float(), requires_grad=False)
    return layer.eval()
