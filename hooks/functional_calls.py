"""See, and replace, what the functions of `torch.nn.functional` return inside a network, whichever module calls them.

Modules hide what they do: one doubles the size by a transposed convolution, another by `interpolate` in its `forward`.
The functions that they call tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ARGUMENTS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "conv_transpose2d": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    "pixel_shuffle": ("input", "upscale_factor"),
    "interpolate": ("input", "size", "scale_factor", "mode"),
    "avg_pool2d": ("input", "kernel_size", "stride", "padding"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding"),
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call in a forward pass. `owner` is the innermost module that runs it, `number` counts its calls from 0."""

    function: str
    owner: str
    number: int
    arguments: dict[str, Any]

    @property
    def place(self) -> tuple[str, str, int]:
        """What tells this call from others, the same in every forward pass."""
        return self.owner, self.function, self.number

    @property
    def input(self) -> Tensor:
        tensor: Tensor = self.arguments["input"]
        return tensor

    def pair(self, argument: str, default: int | tuple[int, int]) -> tuple[int, int]:
        """An argument of two axes, given as one number or two."""
        value: Any = self.arguments.get(argument)
        if value is None or value == ():
            value = default
        if isinstance(value, int):
            return value, value
        first, *others = value
        return int(first), int(others[0] if others else first)


See = Callable[[Call, Tensor], Tensor | None]


@contextmanager
def watched(module: nn.Module, see: See) -> Iterator[None]:
    """While open, `see(call, output)` is called after every call inside `module` of a function that `ARGUMENTS` names.

    What it returns, if not None, replaces the output. Calls of other hooks on the whole module are left out.
    """
    owners: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            if not owners:  # a new pass
                counts.clear()
            owners.append(name)

        return hook

    def leave(*_: object) -> None:
        owners.pop()

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, _types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            output = function(*args, **(kwargs or {}))
            name = getattr(function, "__name__", "")
            if not owners or name not in ARGUMENTS or not isinstance(output, Tensor) or output.ndim != 4:
                return output
            call = Call(
                function=name,
                owner=owners[-1],
                number=counts[owners[-1], name],
                arguments=dict(zip(ARGUMENTS[name], args, strict=False)) | (kwargs or {}),
            )
            counts[owners[-1], name] += 1
            replaced = see(call, output)
            return output if replaced is None else replaced

    handles = []
    try:
        for name, submodule in module.named_modules():
            handles.append(submodule.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(submodule.register_forward_hook(leave, prepend=True, always_call=True))
        with Mode():
            yield
    finally:
        for handle in handles:
            handle.remove()
