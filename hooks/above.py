"""Go on from a layer's output: run only what lies above it, where the network allows that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .errors import DissectError
from .layers import find_layer
from .tap import single_tensor


@dataclass(eq=False)
class _Call:
    """One module's turn in a forward pass."""

    module: nn.Module
    parent: _Call | None
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    entered: int = 0  # how often the input had been written in place when the turn began
    output: Any = None
    left: int = 0  # and the output, when it ended
    inside: list[_Call] = field(default_factory=list)


class Above:
    """A network from one layer's output on.

        above = Above(module, "layer4", latents)
        with Tap(module, ["layer4"], stop=True) as tap:
            module(latents)
        above(tap["layer4"], latents)  # what module(latents) returns

    Where the network is a chain from the layer on, every module taking just what the one before output, `chain` holds
    these modules and nothing below the layer runs again. This is found in one forward pass and then tried: after a
    second pass, on another input, running the chain must give the first one's output, bit for bit. Anything else
    (skip connections, side inputs, arithmetic between modules) runs whole, with the given featuremaps in the place of
    the layer's own. The featuremaps given are left alone.

    Args:
        module: any network of one input.
        layer: a name from `named_modules()`.
        inputs: samples (N, …) to look at the network with; the first two are used.

    Raises:
        UsageError: there is no such layer.
        DissectError: the layer took no part in the forward pass, or its output is not one tensor.
    """

    def __init__(self, module: nn.Module, layer: str, inputs: Tensor) -> None:
        self.module = module
        self.layer = layer
        self.chain = _chain(module, layer, inputs)

    def __call__(self, featuremaps: Tensor, inputs: Tensor) -> Any:
        """featuremaps (N, U, …) in the place of the layer's output for `inputs` (N, …) -> the network's output."""
        if self.chain is None:
            handle = find_layer(self.module, self.layer).register_forward_hook(lambda *_: featuremaps.clone())
            try:
                return self.module(inputs)
            finally:
                handle.remove()
        x: Any = featuremaps.clone()  # what follows may work in place
        for module in self.chain:
            x = module(x)
        return x


@torch.no_grad()
def _chain(module: nn.Module, layer: str, inputs: Tensor) -> tuple[nn.Module, ...] | None:
    """The modules that turn the layer's output into the network's, one after another; None if it is no such chain."""
    target = find_layer(module, layer)
    root = _Call(module=module, parent=None, inputs=(), options={})
    now, seen, kept = root, list[_Call](), list[Tensor]()

    def enter(entered: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> None:
        nonlocal now
        call = _Call(module=entered, parent=now, inputs=given, options=options, entered=_writes(*given[:1]))
        now.inside.append(call)
        now = call

    def leave(left: nn.Module, _given: object, output: object) -> None:
        nonlocal now
        now.output, now.left = output, _writes(output)
        if left is target:
            seen.append(now)
            kept.append(single_tensor(layer, output).clone())
        now = now.parent or root

    handles = []
    try:
        for part in module.modules():
            handles.append(part.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(part.register_forward_hook(leave))
        output = module(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise DissectError(f"Layer {layer!r} took no part in the forward pass; name one that does.")
    if len(seen) > 1 or not isinstance(output, Tensor):
        return None
    chain, call = [], seen[0]
    while call.parent is not None and call.parent is not root:
        brothers = call.parent.inside
        x, writes = call.output, call.left
        for later in brothers[brothers.index(call) + 1 :]:
            if later.options or len(later.inputs) != 1 or later.inputs[0] is not x or later.entered != writes:
                return None
            chain.append(later.module)
            x, writes = later.output, later.left
        if call.parent.output is not x or call.parent.left != writes:
            return None
        call = call.parent
    output = output.clone()
    module(inputs[1:2] if len(inputs) > 1 else inputs[:1])  # what it keeps of a pass must not matter
    x = kept[0]
    for part in chain:
        x = part(x)
    return tuple(chain) if torch.equal(x, output) else None


def _writes(value: object = None) -> int:
    """How often a tensor has been written in place."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0
