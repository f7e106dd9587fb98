"""Find the layers of a module by name or number, and see what they output."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .errors import DissectError, UsageError, one_line
from .names import suggestion


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One module of a network and the shape of its output in one forward pass."""

    name: str
    shape: tuple[int, ...] | None  # without the batch axis; None where the output is not one tensor
    innermost: bool  # has no modules inside
    calls: int = 1  # how often it runs in one forward pass

    @property
    def is_featuremap(self) -> bool:
        """Whether the output is (units, height, width) with more than one position."""
        return self.shape is not None and len(self.shape) == 3 and self.shape[1] * self.shape[2] > 1


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """The submodule of that name.

    Raises:
        UsageError: there is none; the message offers near misses.
    """
    modules = dict(module.named_modules())
    if name and name in modules:
        return modules[name]
    names = [known for known in modules if known]
    raise UsageError(f"There is no layer {name!r}. {suggestion(name, names)}")


def pick_layers(layers: Sequence[str | int], names: Sequence[str], module: nn.Module) -> tuple[str, ...]:
    """Turn names, and numbers (the n-th of `names`, from 1), into layer names, in the given order, each once.

    A text that is the name of a layer means that layer, even where it looks like a number, as in an `nn.Sequential`.

    Raises:
        UsageError: a number out of range or a name that is not there.
    """
    picked = []
    modules = [known for known, _ in module.named_modules() if known]
    for layer in layers:
        text = str(layer)
        if text.isdecimal() and (isinstance(layer, int) or text not in modules):
            if not 1 <= int(text) <= len(names):
                raise UsageError(
                    f"Layer {text} is not there: numbers go from 1 to {len(names)} ({names[0]} … {names[-1]})."
                    if names
                    else f"Layer {text} is not there: the network has no layer with a featuremap."
                )
            text = names[int(text) - 1]
        elif text not in modules:
            raise UsageError(f"There is no layer {text!r}. {suggestion(text, [*names, *modules])}")
        if text not in picked:
            picked.append(text)
    return tuple(picked)


@torch.inference_mode()
def layer_shapes(module: nn.Module, run: Callable[[], object]) -> list[LayerShape]:
    """Call `run()`, which must call `module` once, and list every submodule that took part, in order of first output.

    The shape of one that runs several times is that of its first output.

    Raises:
        DissectError: the forward pass failed.
    """
    shapes: dict[str, LayerShape] = {}

    def watch(name: str, layer: nn.Module) -> Callable[[nn.Module, object, object], None]:
        innermost = not any(layer.children())

        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
            first = shapes.setdefault(name, LayerShape(name=name, shape=shape, innermost=innermost, calls=0))
            shapes[name] = replace(first, calls=first.calls + 1)

        return hook

    handles = []
    try:
        for name, layer in module.named_modules():
            if name:
                handles.append(layer.register_forward_hook(watch(name, layer)))
        run()
    except DissectError:
        raise
    except Exception as error:  # whatever the network raises
        raise DissectError(
            f"The network failed on one probe sample ({one_line(error)}); {_latent_advice(str(error))}."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return list(shapes.values())


def _latent_advice(error: str) -> str:
    """What to do about an error of the first layer: a convolution that got a vector wants it as a map of 1×1.

    >>> _latent_advice("Expected 3D (unbatched) or 4D (batched) input, but got input of size: [1, 16]")
    'try --latent normal:16x1x1'
    """
    vector = re.search(r"4D.* size: \[\d+, (\d+)\]", error)
    return f"try --latent normal:{vector[1]}x1x1" if vector else "check that the latent fits it"
