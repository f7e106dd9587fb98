"""An edit kept in a checkpoint beside the weights, where it cannot be folded into them.

Two tensors of the edited layer's state: `ganatomy_pull` (U,) in [0, 1], how far each unit is pulled, and
`ganatomy_value` (U,), to what. A hook applies them. Plain PyTorch loads such a file with `strict=False`, and lacks the
edit then.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...hooks.edit import replace_softly
from ...hooks.errors import DissectError
from ...hooks.layers import find_layer

PULL, VALUE = "ganatomy_pull", "ganatomy_value"


def attach(module: nn.Module, layer: str, pull: Tensor, value: Tensor) -> None:
    """Keep an edit beside the weights: two buffers of the layer, and a hook that applies them.

    A layer that keeps one already gets the two in one, the older first.
    """
    part = find_layer(module, layer)
    device = next((tensor.device for tensor in part.parameters()), torch.device("cpu"))
    pull, value = pull.float().to(device), value.float().to(device)
    if hasattr(part, PULL):
        older, was = part.get_buffer(PULL), part.get_buffer(VALUE)
        both = 1 - (1 - older) * (1 - pull)
        value = torch.where(both > 0, ((1 - pull) * older * was + pull * value) / both.clamp(min=1e-12), value)
        pull = both
    else:
        part.register_forward_hook(_apply)
    part.register_buffer(PULL, pull)
    part.register_buffer(VALUE, value)


def take_edits(state: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Remove kept edits from a state dict: (pull, value) by layer.

    Raises:
        DissectError: one is incomplete or misshapen.
    """
    edits: dict[str, dict[str, Tensor]] = {}
    for key in [key for key in state if key.endswith((f".{PULL}", f".{VALUE}"))]:
        layer, _, kind = key.rpartition(".")
        edits.setdefault(layer, {})[kind] = state.pop(key)
    found = {}
    for layer, parts in edits.items():
        pull, value = parts.get(PULL), parts.get(VALUE)
        if pull is None or value is None or pull.ndim != 1 or pull.shape != value.shape:
            raise DissectError(
                f"The edit of {layer} in the checkpoint is incomplete; save the repaired generator again."
            )
        found[layer] = (pull, value)
    return found


def _apply(part: nn.Module, _inputs: object, x: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.ndim - 2))
    return replace_softly(x, part.get_buffer(VALUE).to(x).view(shape), part.get_buffer(PULL).to(x).view(shape))
