"""Change what chosen units output during a forward pass: ablation, insertion and everything between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import UsageError
from .layers import find_layer
from .tap import single_tensor


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Pull units towards a value: x[:, units] = (1 - m) · x[:, units] + m · value (Bau et al. 2019, section 3.2).

    Args:
        layer: a name from `named_modules()`.
        units: which channels; none means that nothing changes.
        value: 0 ablates; a number, one value a unit (units,), or maps (1 or N, units, …) insert.
        mask: where, in [0, 1]: None is everywhere, else (h, w) or (N, 1, h, w) at the layer's resolution.
        strength: how far, in [0, 1]; m is strength · mask.
    """

    layer: str
    units: tuple[int, ...]
    value: float | Tensor = 0.0
    mask: Tensor | None = None
    strength: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, U, …) -> the same with the units changed; x itself is left alone.

        Raises:
            UsageError: a unit that the layer does not have, or a value or mask that does not fit it.
        """
        if not self.units:
            return x
        if min(self.units) < 0 or max(self.units) >= x.shape[1]:
            raise UsageError(f"Layer {self.layer!r} has units 0 to {x.shape[1] - 1}; got {_list(self.units)}.")
        value = torch.as_tensor(self.value, dtype=x.dtype, device=x.device)
        shape = (x.shape[0], len(self.units), *x.shape[2:])
        if value.ndim <= 1 and value.numel() in (1, len(self.units)):
            value = value.reshape(-1, *[1] * (x.ndim - 2))
        elif value.ndim != x.ndim or value.shape[0] not in (1, shape[0]) or tuple(value.shape[1:]) != shape[1:]:
            raise UsageError(
                f"{len(self.units)} units of layer {self.layer!r} need one value, {len(self.units)}, or maps {shape}; "
                f"got {tuple(value.shape)}."
            )
        units = torch.as_tensor(self.units, device=x.device)
        out = x.clone()
        if self.mask is None:
            value = value.expand(shape)
            out[:, units] = value if self.strength == 1 else torch.lerp(x[:, units], value, self.strength)
            return out
        mask = self.mask.to(x)
        if (
            mask.shape[-2:] != x.shape[-2:]
            or mask.ndim not in (2, 4)
            or (mask.ndim == 4 and (mask.shape[1] != 1 or mask.shape[0] not in (1, x.shape[0])))
        ):
            raise UsageError(
                f"Layer {self.layer!r} outputs {tuple(x.shape[-2:])} positions; a mask must be (h, w) or (N, 1, h, w) "
                f"of that size, got {tuple(mask.shape)}."
            )
        out[:, units] = replace_softly(x[:, units], value, mask * self.strength)
        return out


def replace_softly(x: Tensor, value: Tensor, pull: Tensor) -> Tensor:
    """(1 − pull) · x + pull · value, exactly `value` where pull is 1 and exactly `x` where it is 0, even for NaN."""
    out = torch.where(pull > 0, value, x)
    soft = (pull > 0) & (pull < 1)
    return torch.where(soft, torch.lerp(x, value.expand_as(x), pull), out) if bool(soft.any()) else out


@contextmanager
def edited(module: nn.Module, *edits: Edit) -> Iterator[nn.Module]:
    """While open, every forward pass of `module` runs with the edits, in the order given.

    Raises:
        UsageError: a layer that does not exist (no hook stays behind), or an edit that does not fit its layer.
    """
    targets = [(edit, find_layer(module, edit.layer)) for edit in edits]
    handles = []
    try:
        for edit, layer in targets:
            handles.append(
                layer.register_forward_hook(lambda _m, _i, out, edit=edit: edit(single_tensor(edit.layer, out)))
            )
        yield module
    finally:
        for handle in handles:
            handle.remove()


def _list(units: tuple[int, ...]) -> str:
    return ", ".join(map(str, units[:8])) + (", …" if len(units) > 8 else "")
