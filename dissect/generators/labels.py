"""Networks of one's own whose forward takes a class beside the latent: `forward(noise, labels)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

MOST_CLASSES = 1000


def needed_inputs(module: nn.Module) -> list[str]:
    """The names of what a network's forward must be given."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in plain and one.default is inspect.Parameter.empty]


def embedding_of(module: nn.Module) -> nn.Embedding | None:
    """The one embedding of a network, which is that of its classes; None if it has none, or several."""
    found = [
        part for part in module.modules() if isinstance(part, nn.Embedding) and part.num_embeddings <= MOST_CLASSES
    ]
    return found[0] if len(found) == 1 else None


def give_labels(module: nn.Module, *, shape: tuple[int, ...], classes: int = 0, label: int | None = None) -> None:
    """Let a network be called with one input: its labels, int64 (N,), are added by a hook.

    Args:
        shape: of a latent.
        classes: how many there are, if the input has the class as one-hot behind the flattened latent.
        label: else the class of every sample.
    """

    def split(x: Tensor) -> tuple[Tensor, Tensor]:
        if classes:
            return x[:, :-classes].reshape(len(x), *shape), x[:, -classes:].argmax(1)
        return x, torch.full((len(x),), int(label or 0), device=x.device)

    module.register_forward_pre_hook(_when_alone(split))


def _when_alone(split: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...]], object]:
    return lambda _module, inputs: split(inputs[0]) if len(inputs) == 1 else None
