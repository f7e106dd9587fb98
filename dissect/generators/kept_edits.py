"""Repairs that a checkpoint keeps beside its weights because they cannot be folded into them. Hooks apply them.

An edit is two tensors of the edited layer's state: `ganatomy_pull` (U,) in [0, 1], how far each unit is pulled, and
`ganatomy_value` (U,), to what. A notch is one tensor of the whole network's, `ganatomy_notch` (k, l): the filter that
every channel of the image goes through. Plain PyTorch loads such a file with `strict=False`, and lacks the repair then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...hooks.edit import replace_softly
from ...hooks.errors import DissectError
from ...hooks.layers import find_layer

PULL, VALUE, NOTCH = "ganatomy_pull", "ganatomy_value", "ganatomy_notch"


def attach(module: nn.Module, layer: str, pull: Tensor, value: Tensor) -> None:
    """Keep an edit beside the weights: two buffers of the layer, and a hook that applies them.

    If the layer keeps an edit already, the two are joined into one: the older is applied first.
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


def attach_notch(module: nn.Module, pattern: Tensor) -> None:
    """Keep a filter (k, l) of odd sides on the images; after an older one, the two in one."""
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    pattern = pattern.float().to(device)
    if hasattr(module, NOTCH):
        older = module.get_buffer(NOTCH)
        margin = [pattern.shape[1] - 1] * 2 + [pattern.shape[0] - 1] * 2
        pattern = F.conv2d(F.pad(older, margin)[None, None], pattern.flip(0, 1)[None, None])[0, 0]
    else:
        module.register_forward_hook(_filter)
    module.register_buffer(NOTCH, pattern)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a checkpoint keeps beside its weights: (pull, value) by layer, and a notch."""

    edits: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    notch: Tensor | None = None

    def attach(self, module: nn.Module) -> None:
        """Attach all of it to the module into which the weights were loaded.

        Raises:
            UsageError: a layer that does not exist.
        """
        for layer, (pull, value) in self.edits.items():
            attach(module, layer, pull, value)
        if self.notch is not None:
            attach_notch(module, self.notch)


def take_kept(state: dict[str, Tensor]) -> Kept:
    """Remove edits and notch from a state dict, and return them.

    Raises:
        DissectError: something is incomplete or misshapen.
    """
    edits: dict[str, dict[str, Tensor]] = {}
    for key in [key for key in state if key.endswith((f".{PULL}", f".{VALUE}"))]:
        layer, _, kind = key.rpartition(".")
        edits.setdefault(layer, {})[kind] = state.pop(key)
    complete = {}
    for layer, tensors in edits.items():
        pull, value = tensors.get(PULL), tensors.get(VALUE)
        if pull is None or value is None or pull.ndim != 1 or pull.shape != value.shape:
            raise DissectError(
                f"The edit of {layer} in the checkpoint is incomplete; save the repaired generator again."
            )
        complete[layer] = (pull, value)
    notch = state.pop(NOTCH, None)
    if notch is not None and (notch.ndim != 2 or not all(side % 2 for side in notch.shape)):
        raise DissectError("The notch in the checkpoint is misshapen; save the repaired generator again.")
    return Kept(edits=complete, notch=notch)


def _apply(layer: nn.Module, _inputs: object, x: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.ndim - 2))
    return replace_softly(x, layer.get_buffer(VALUE).to(x).view(shape), layer.get_buffer(PULL).to(x).view(shape))


def _filter(module: nn.Module, _inputs: object, images: Tensor) -> Tensor:
    return filtered(images, module.get_buffer(NOTCH))


def filtered(images: Tensor, pattern: Tensor) -> Tensor:
    """images (N, C, H, W) through a filter (k, l) of odd sides, channel by channel; beyond the border, its pixels."""
    down, across = (side // 2 for side in pattern.shape)
    units = images.shape[1]
    padded = F.pad(images, (across, across, down, down), mode="replicate")
    return F.conv2d(padded, pattern.to(images).expand(units, 1, *pattern.shape), groups=units)
