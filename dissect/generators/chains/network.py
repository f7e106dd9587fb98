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
    from .hypotheses import SearchResult

LARGEST = 1024  # side of images
TAKEN = ("plan", "order", "latent", "classes", "search_result", "output_range")  # attributes of a chain itself
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
    search_result: SearchResult | None = None  # None if the plan was known

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.latent = parse_latents(plan.latent).shape[0]
        self.classes = plan.classes
        self.output_range = OUTPUTS[_output(plan)]
        self.order: list[str] = []
        for index, step in enumerate(plan.steps):
            after = plan.steps[index + 1].name if index + 1 < len(plan.steps) else ""
            name = own_name(step.name) if step.name else self._free_name(step, own_name(after))
            self._add(name, module_of(step))
            self.order.append(name)

    def _add(self, name: str, layer: nn.Module) -> None:
        """Add a layer under a name such as `main.2`, in containers for all but the last word of the name."""
        *above, last = name.split(".")
        parent: nn.Module = self
        for word in above:
            if word not in parent._modules:
                if parent is not self and hasattr(Container, word):
                    raise DissectError(f"a layer cannot be called {name}.")
                parent.add_module(word, Container())
            parent = parent.get_submodule(word)
        if last in parent._modules or hasattr(Container, last):
            raise DissectError(f"a layer cannot be called {name}.")
        parent.add_module(last, layer)

    def _free_name(self, step: Step, after: str) -> str:
        """A name for a step without parameters: the next number if the file leaves it out before the layer `after`."""
        before = self.order[-1] if self.order else ""
        (above, _, first), (above_after, _, second) = before.rpartition("."), after.rpartition(".")
        numbered = first.isdecimal() and (not after or (above == above_after and second.isdecimal()))
        if numbered and (not after or int(first) + 1 < int(second)):
            name = f"{above}.{int(first) + 1}".strip(".")
        else:
            name = f"{before or 'input'}_{step.get('which', step.kind).partition(':')[0]}".replace(".", "_")
        number, free = 2, name
        while free in self.order or any(name_before.startswith(f"{free}.") for name_before in self.order):
            free, number = f"{name}_{number}", number + 1
        return free

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers worth dissecting: hidden activations of maps, and layers that no activation follows."""
        names = []
        for name, step, after in zip(self.order, self.plan.steps, self.plan.steps[1:], strict=False):
            if step.get("map") and (step.kind in ("act", "prelu", "glu") or after.kind in WEIGHTED):
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
    names = {step.name for step in plan.steps if step.name}
    state = {_own_key(key, names): tensor for key, tensor in state.items()}
    refit(module, state)
    filled(module, state)
    module.register_buffer(PLAN, torch.frombuffer(bytearray(plan.text().encode()), dtype=torch.uint8))
    return module


def own_name(name: str) -> str:
    """A layer's name in the network: that of the file, with an underscore where a module has another use for it.

    >>> own_name("main.2"), own_name("forward.2")
    ('main.2', 'forward_.2')
    """
    first, dot, below = name.partition(".")
    return f"{first}_{dot}{below}" if first and (hasattr(Chain, first) or first in TAKEN) else name


def _own_key(key: str, names: set[str]) -> str:
    layer, _, last = key.rpartition(".")
    inner = layer.removesuffix(".conv")  # of a layer that a repair replaced, see `replaced_layers.refit`
    return f"{own_name(layer)}.{last}" if {layer, inner} & names else key


def side_of(plan: Plan) -> int:
    """The side of the images in pixels."""
    side = 1
    for step in plan.steps:
        side = grown(step, side)
    return side


def grown(step: Step, side: int) -> int:
    """The side of a map of `side` pixels after a step.

    >>> grown(Step("transposed", "up", (("kernel", 4), ("stride", 2), ("padding", 1), ("output_padding", 0))), 8)
    16
    """
    if step.kind == "view":
        return int(step["shape"][1])
    if step.kind == "transposed":
        return int((side - 1) * step["stride"] - 2 * step["padding"] + step["kernel"] + step["output_padding"])
    if step.kind == "conv":
        return int(side + 2 * step["padding"] - step["kernel"] + 1)
    if step.kind == "upsample":
        return 2 * side
    return side * int(step["factor"]) if step.kind == "shuffle" else side


def pop_plan(state: dict[str, Tensor]) -> Plan | None:
    """Remove the plan from the state dict of a network that was saved; None if it has none.

    Raises:
        DissectError: it is damaged.
    """
    text = state.pop(PLAN, None)
    if text is None:
        return None
    if text.dtype != torch.uint8 or text.ndim != 1:
        raise DissectError("the plan of the network in the file is damaged; save it again.")
    return Plan.read(bytes(text.tolist()).decode("utf-8", "replace"))


def _output(plan: Plan) -> str:
    last = plan.steps[-1]
    word = str(last["which"]) if last.kind == "act" else "linear"
    return word if word in OUTPUTS else "linear"


def module_of(step: Step) -> nn.Module:
    """The module that does a step, on the meta device where it has weights.

    Raises:
        DissectError: there is no such step.
    """
    with torch.device("meta"):
        return _module(step)


def _module(step: Step) -> nn.Module:
    fan_in, fan_out = step.get("units") if step.kind in ("linear", "conv", "transposed") else (0, 0)
    match step.kind:
        case "linear":
            return nn.Linear(fan_in, fan_out, bias=step["bias"])
        case "conv":
            settings: dict[str, Any] = {"padding": step["padding"], "padding_mode": step.get("border", "zeros")}
            return nn.Conv2d(fan_in, fan_out, step["kernel"], bias=step["bias"], **settings)
        case "transposed":
            settings = {name: step[name] for name in ("stride", "padding", "output_padding")}
            return nn.ConvTranspose2d(fan_in, fan_out, step["kernel"], bias=step["bias"], **settings)
        case "norm":
            kind = nn.BatchNorm2d if step["map"] else nn.BatchNorm1d
            return kind(step["units"], step["eps"], affine=step["affine"])
        case "prelu":
            return nn.PReLU(step["units"])
        case "label":
            return Labels(step["classes"], step["how"], step["embedded"])
        case "act":
            return activation(step["which"])
        case "view":
            return nn.Unflatten(1, tuple(step["shape"]))
        case "flatten":
            return nn.Flatten()
        case "upsample":
            return nn.Upsample(scale_factor=2.0, mode=step["mode"])
        case "shuffle":
            return nn.PixelShuffle(step["factor"])
        case "glu":
            return nn.GLU(1)
    raise DissectError(f"a plain network has no step {step.kind!r}.")


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


def with_weights(step: Step, state: Mapping[str, Tensor]) -> nn.Module:
    """The module of a step with its weights out of a state dict, shared and not copied, in eval mode."""
    layer = module_of(step)
    for key in dict(layer.named_parameters()) | dict(layer.named_buffers()):
        tensor = state.get(f"{step.name}.{key}".removeprefix("."))
        if tensor is None:  # a counter, which files of old versions lack
            tensor = torch.zeros(())
        if key in layer._buffers:
            layer._buffers[key] = tensor.float()
        else:
            layer._parameters[key] = nn.Parameter(tensor.float(), requires_grad=False)
    return layer.eval()
