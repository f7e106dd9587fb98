"""Capture what chosen layers output during a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import TracebackType

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .errors import DissectError
from .layers import find_layer


class _Enough(BaseException):
    """Every tapped layer has been seen; unwinds the forward pass. No `except Exception` on the way catches it."""


class Tap:
    """While open, keeps the latest output of each named layer.

        with Tap(module, ["layer4", "layer6"]) as tap:
            images = module(latents)
        tap["layer4"]  # (N, units, h, w), as the layer returned it

    Args:
        module: any network.
        layers: names from `named_modules()`.
        stop: end the forward pass, and with it the `with` block, as soon as all layers were seen.
        gradient: keep the tensors that the layers above see, so that `torch.autograd.grad(score, tap[layer])` gives
            their gradient. The first tapped layer is cut off from what lies below it.

    Raises:
        UsageError: on entering, for a layer that does not exist; no hook stays behind.
        DissectError: in the forward pass, for a layer whose output is not a single tensor.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str], *, stop: bool = False, gradient: bool = False) -> None:
        self.module = module
        self.layers = tuple(layers)
        self.stop = stop
        self.gradient = gradient
        self._outputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Tap:
        targets = [(name, find_layer(self.module, name)) for name in self.layers]
        self._outputs.clear()
        self._handles = [layer.register_forward_hook(partial(self._keep, name)) for name, layer in targets]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        return kind is _Enough

    def __getitem__(self, layer: str) -> Tensor:
        """The layer's latest output.

        Raises:
            DissectError: the layer is not tapped, or took no part in the forward pass.
        """
        if layer not in self._outputs:
            why = "it took no part in the forward pass" if layer in self.layers else "it is not tapped"
            raise DissectError(
                f"There is no output of layer {layer!r}: {why}. Seen: {', '.join(self._outputs) or '–'}."
            )
        return self._outputs[layer]

    def _keep(self, name: str, _layer: nn.Module, _inputs: object, output: object) -> Tensor | None:
        x = single_tensor(name, output)
        if self.gradient and not x.requires_grad:
            x = x.detach().requires_grad_()
        copy = x.clone()  # a later layer may work in place
        self._outputs[name] = x if self.gradient else copy
        if self.stop and len(self._outputs) == len(set(self.layers)):
            raise _Enough
        return copy if self.gradient else None


def single_tensor(layer: str, output: object) -> Tensor:
    """The output itself.

    Raises:
        DissectError: it is a tuple, a dict or something else that has no units.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        inside = ", ".join(f"{key}: {type(value).__name__}" for key, value in output.items())
    elif isinstance(output, (tuple, list)):
        inside = ", ".join(type(value).__name__ for value in output)
    else:
        inside = ""
    raise DissectError(
        f"Layer {layer!r} returned a {type(output).__name__}{f' ({inside})' if inside else ''}; only a layer that "
        "returns one tensor has units. Name a module inside it."
    )
