"""Go on from a layer's output: run only what lies above it, where the network allows that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .errors import DissectError
from .layers import find_layer
from .tap import single_tensor


class Above:
    """The part of a network that follows one layer.

        above = Above(module, "layer4", latents)
        with Tap(module, ["layer4"], stop=True) as tap:
            module(latents)
        above(tap["layer4"], latents)  # what module(latents) returns

    Where the network is a chain from the layer on, every module taking just what the one before output, `chain` holds
    these modules and nothing below the layer runs again. It is found in one forward pass and then checked: after a
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
        self.chain = _find_chain(module, layer, inputs)

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
def _find_chain(module: nn.Module, layer: str, inputs: Tensor) -> tuple[nn.Module, ...] | None:
    """The modules that turn the layer's output into the network's, one after another; None if there is no such chain.

    Raises:
        UsageError: there is no such layer.
        DissectError: the layer took no part in the forward pass, or its output is not one tensor.
    """
    calls = _CallTree(find_layer(module, layer))
    with calls.recording(module):
        output = module(inputs[:1])
    if not calls.of_target:
        raise DissectError(f"Layer {layer!r} took no part in the forward pass; name one that does.")
    featuremaps = single_tensor(layer, calls.target_output)
    if len(calls.of_target) > 1 or not isinstance(output, Tensor):
        return None
    chain = _linear_chain(calls.of_target[0])
    if chain is None:
        return None
    output = output.clone()
    module(
        inputs[1:2] if len(inputs) > 1 else inputs[:1]
    )  # what modules keep from one pass to the next must not matter
    x: Any = featuremaps
    for link in chain:
        x = link(x)
    return chain if torch.equal(x, output) else None


@dataclass(frozen=True)
class _Value:
    """A tensor, or something else, that passed between modules, and how often it had been written in place by then."""

    value: Any
    version: int

    @classmethod
    def of(cls, value: Any) -> _Value:
        counted = isinstance(value, Tensor) and not value.is_inference()  # inference tensors keep no version
        return cls(value, value._version if counted else 0)

    def is_same(self, other: _Value) -> bool:
        return self.value is other.value and self.version == other.version


@dataclass(eq=False)
class _Call:
    """One call of a module in a forward pass; `inner` are the calls that it made, in order."""

    module: nn.Module
    parent: _Call | None
    inputs: tuple[_Value, ...] = ()
    keywords: bool = False  # whether it was given arguments by name
    output: _Value = _Value(None, 0)
    inner: list[_Call] = field(default_factory=list)


class _CallTree:
    """Which module called which in one forward pass, what went in and what came out.

    Attributes:
        of_target: the calls of the module `target`, in order.
        target_output: what the first of them returned, as it was at that moment: later modules may work in place.
    """

    def __init__(self, target: nn.Module) -> None:
        self.target = target
        self.of_target: list[_Call] = []
        self.target_output: Any = None
        self._current: _Call | None = None

    @contextmanager
    def recording(self, module: nn.Module) -> Iterator[None]:
        """While open, the calls of `module` and of all modules inside are recorded."""
        handles = []
        try:
            for inner in module.modules():
                handles.append(inner.register_forward_pre_hook(self._enter, with_kwargs=True))
                handles.append(inner.register_forward_hook(self._leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        call = _Call(module, self._current, tuple(map(_Value.of, inputs)), bool(keywords))
        if self._current is not None:
            self._current.inner.append(call)
        self._current = call

    def _leave(self, _module: nn.Module, _inputs: object, output: Any) -> None:
        call = self._current
        assert call is not None
        call.output = _Value.of(output)
        if call.module is self.target:
            if not self.of_target:
                self.target_output = output.clone() if isinstance(output, Tensor) else output
            self.of_target.append(call)
        self._current = call.parent


def _linear_chain(call: _Call) -> tuple[nn.Module, ...] | None:
    """The modules that were called one after another from the end of `call` to the end of the forward pass.

    Among the calls of one parent, each that comes later (the later siblings) must take one input, and that input must
    be what the call before it returned; the parent must return what the last one returned. Then the parent did nothing
    of its own after `call`, and the same holds for the parent's own siblings, and so on up to the network itself.

    "What the call before it returned" means the same tensor object in the same state. The same object alone is not
    enough: `forward` may compute in place between two modules, as in `x = self.a(x); x += 1; return self.b(x)`. The
    object that `b` takes is the one that `a` returned, yet running `b` after `a` would lose the addition. PyTorch
    counts in `_version` how often a tensor was written in place, for autograd's sake. So the version at the end of one
    call is compared with that at the beginning of the next: if they are equal, nobody wrote in between. A module that
    works in place on its own input, such as `ReLU(inplace=True)`, raises the version within its call, and is no
    obstacle. Views share the counter of their base, so that a write through a view is seen as well. Two things are
    not seen: tensors of inference mode have no counter, and `.data` bypasses it. Nor does the tree show what a module
    takes beside its arguments, such as random numbers or an attribute that another module set. Therefore
    `_find_chain` lets the chain prove itself on real inputs.

    Returns:
        the modules, which may be none; None if the calls are no chain.
    """
    chain: list[nn.Module] = []
    while call.parent is not None:
        siblings = call.parent.inner
        output = call.output
        for sibling in siblings[siblings.index(call) + 1 :]:
            if sibling.keywords or len(sibling.inputs) != 1 or not sibling.inputs[0].is_same(output):
                return None
            chain.append(sibling.module)
            output = sibling.output
        if not call.parent.output.is_same(output):
            return None
        call = call.parent
    return tuple(chain)
