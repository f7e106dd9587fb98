"""Make an edit permanent: into the weights where the architecture allows it, else beside them (see `kept_edits`).

A unit pulled by strength s to value v outputs (1 − s) x + s v. Folded, a zeroed unit is a zeroed filter and bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...hooks.edit import Edit, edited
from ...hooks.errors import DissectError
from ...hooks.layers import find_layer
from ...hooks.tap import Tap
from ..generators.base import Generator
from ..generators.families.progan import SLOPE, Block
from ..generators.kept_edits import attach

TOLERANCE = 1e-4  # of images in [0, 1], between a folded edit and the hook's


@torch.no_grad()
def make_permanent(generator: Generator, edits: Sequence[Edit]) -> dict[str, bool]:
    """Change the generator's module so that it draws, without hooks, what it draws with the edits.

    Args:
        generator: its module is changed.
        edits: at most one a layer, with one value or one a unit, and without a mask.

    Returns:
        For each layer, whether the edit could be folded into the weights.

    Raises:
        DissectError: the result is not what the hooks draw.
    """
    latents = generator.latents(range(2))
    with edited(generator.module, *edits):
        wanted = generator(latents)
    folded = {}
    for edit in edits:
        part = find_layer(generator.module, edit.layer)
        with edited(generator.module, edit), Tap(generator.module, [edit.layer]) as tap:
            alone = generator(latents)
        pull, value = torch.zeros(2, tap[edit.layer].shape[1])
        pull[list(edit.units)] = edit.strength
        value[list(edit.units)] = torch.as_tensor(edit.value).float().cpu().expand(len(edit.units))
        state = {name: tensor.clone() for name, tensor in part.state_dict().items()}
        folded[edit.layer] = _fold(part, pull, value) and _same(generator(latents), alone)
        if not folded[edit.layer]:
            part.load_state_dict(state)
            attach(generator.module, edit.layer, pull, value)
    if not _same(generator(latents), wanted):
        raise DissectError(
            f"{generator.name} does not draw the same with the edit in its weights as with hooks; its layers "
            f"{', '.join(folded)} may run more than once."
        )
    return folded


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=TOLERANCE, rtol=0)


def _fold(part: nn.Module, pull: Tensor, value: Tensor) -> bool:
    """Fold into the weights of a layer that is known to allow it; False where it does not."""
    whole = bool(((pull == 0) | (pull == 1)).all())
    constant, keep = value * pull, 1 - pull  # (1 − s) x + s v
    if isinstance(part, Block):
        if not whole and bool(constant.any()):
            return False  # a leaky ReLU of a sum is no sum
        part.conv.weight.mul_(keep.to(part.conv.weight).view(-1, 1, 1, 1))
        before = torch.where(constant < 0, constant / SLOPE, constant)  # what the leaky ReLU turns into the constant
        part.wscale.b.mul_(keep.to(part.wscale.b)).add_(before.to(part.wscale.b))
        return True
    if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
        if part.bias is None and bool(constant.any()):
            return False
        if isinstance(part, nn.ConvTranspose2d) and part.groups > 1:
            return False
        axis = 1 if isinstance(part, nn.ConvTranspose2d) else 0
        shape = [-1 if place == axis else 1 for place in range(4)]
        part.weight.mul_(keep.to(part.weight).view(shape))
        if part.bias is not None:
            part.bias.mul_(keep.to(part.bias)).add_(constant.to(part.bias))
        return True
    if isinstance(part, nn.BatchNorm2d) and part.affine:
        part.weight.mul_(keep.to(part.weight))
        part.bias.mul_(keep.to(part.bias)).add_(constant.to(part.bias))
        return True
    return False
