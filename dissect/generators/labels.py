"""Networks of one's own whose forward takes a class beside the latent: `forward(noise, labels)`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MOST_CLASSES = 1000


def inputs_of(module: nn.Module, *, needed: bool = True) -> list[str]:
    """The names of the arguments of a network's forward: those that it needs, or all."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in plain and (parameter.default is inspect.Parameter.empty or not needed)
    ]


def embedding_of(module: nn.Module) -> nn.Embedding | None:
    """The embedding of a network's classes, if it has exactly one embedding; otherwise None."""
    embeddings = [
        layer for layer in module.modules() if isinstance(layer, nn.Embedding) and layer.num_embeddings <= MOST_CLASSES
    ]
    return embeddings[0] if len(embeddings) == 1 else None


@dataclass(frozen=True, kw_only=True)
class GivesLabels:
    """A hook that lets a network be called with its latents alone, and adds the labels, int64 (N,).

    Attributes:
        shape: of a latent.
        classes: how many there are, if the input has the class as one-hot behind the flattened latent.
        label: else the class of every sample.
    """

    shape: tuple[int, ...]
    classes: int = 0
    label: int = 0

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor] | None:
        if len(inputs) != 1:
            return None  # as its author calls it
        (x,) = inputs
        if self.classes:
            return x[:, : -self.classes].reshape(len(x), *self.shape), x[:, -self.classes :].argmax(1)
        return x, torch.full((len(x),), self.label, device=x.device)


def give_labels(module: nn.Module, labels: GivesLabels) -> None:
    """Register the hook, in the place of an earlier one."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, GivesLabels):
            del module._forward_pre_hooks[key]
    module.register_forward_pre_hook(labels)
