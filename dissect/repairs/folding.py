"""Make an edit permanent: in the weights where the architecture allows it, else beside them (see `kept_edits`).

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
        target = generator(latents)
    folded = {}
    for edit in edits:
        module = find_layer(generator.module, edit.layer)
        with edited(generator.module, edit), Tap(generator.module, [edit.layer]) as tap:
            alone = generator(latents)
        pull, value = torch.zeros(2, tap[edit.layer].shape[1])
        pull[list(edit.units)] = edit.strength
        value[list(edit.units)] = torch.as_tensor(edit.value).float().cpu().expand(len(edit.units))
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        folded[edit.layer] = _fold(module, pull, value) and _same(generator(latents), alone)
        if not folded[edit.layer]:
            module.load_state_dict(state)
            attach(generator.module, edit.layer, pull, value)
    if not _same(generator(latents), target):
        raise DissectError(
            f"{generator.name} does not draw the same with the edit in its weights as with hooks; its layers "
            f"{', '.join(folded)} may run more than once."
        )
    return folded


def _same(images: Tensor, others: Tensor) -> bool:
    return torch.allclose(images, others, atol=TOLERANCE, rtol=0)


def _fold(module: nn.Module, pull: Tensor, value: Tensor) -> bool:
    """Fold into the weights of a layer that is known to allow it; False where it does not."""
    all_or_nothing = bool(((pull == 0) | (pull == 1)).all())
    constant, keep = value * pull, 1 - pull  # (1 − s) x + s v
    if isinstance(module, Block):
        if not all_or_nothing and bool(constant.any()):
            return False  # the leaky ReLU of (1 − s) x + s v is not that of x, scaled and shifted
        module.conv.weight.mul_(keep.to(module.conv.weight).view(-1, 1, 1, 1))
        before = torch.where(constant < 0, constant / SLOPE, constant)  # what the leaky ReLU turns into the constant
        module.wscale.b.mul_(keep.to(module.wscale.b)).add_(before.to(module.wscale.b))
        return True
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        if module.bias is None and bool(constant.any()):
            return False
        if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
            return False
        axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
        shape = [-1 if dimension == axis else 1 for dimension in range(4)]
        module.weight.mul_(keep.to(module.weight).view(shape))
        if module.bias is not None:
            module.bias.mul_(keep.to(module.bias)).add_(constant.to(module.bias))
        return True
    if isinstance(module, nn.BatchNorm2d) and module.affine:
        module.weight.mul_(keep.to(module.weight))
        module.bias.mul_(keep.to(module.bias)).add_(constant.to(module.bias))
        return True
    return False
