"""Weights under the names of PyTorch-StudioGAN (Kang, Shin and Park 2023), under those of ours.

Two of its generators are known: `resnet` (SNGAN, SAGAN, ProjGAN, …), which is a `Residual` here, and `big_resnet`
(BigGAN, ContraGAN, ReACGAN, …), a `BigGAN`. Both keep `linear0`, blocks `blocks.N.0.conv2d0` … and attention between
them as blocks of its own, `bn4` and `conv2d5`; their blocks repeat pixels, and their norms add 1e-4 to variances. The
spectral norm is PyTorch's, and is worked into the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ....hooks.errors import DissectError
from ..entries import folded

LAYOUT = "StudioGAN's layout"
EPS = 1e-4  # of the batch norms
LARGEST_PART = 40  # numbers of the latent for one block; the library's configurations have 20

State = dict[str, Tensor]

CONVOLUTIONS = {"conv2d0": "c_sc", "conv2d1": "c1", "conv2d2": "c2"}
BIGGAN_PARTS = {
    "conv2d0": "conv_sc",
    "conv2d1": "conv1",
    "conv2d2": "conv2",
    "bn1.bn.running_mean": "bn1.stored_mean",
    "bn1.bn.running_var": "bn1.stored_var",
    "bn2.bn.running_mean": "bn2.stored_mean",
    "bn2.bn.running_var": "bn2.stored_var",
}
ENDS = {
    "bn4.weight": "output_layer.0.gain",
    "bn4.bias": "output_layer.0.bias",
    "bn4.running_mean": "output_layer.0.stored_mean",
    "bn4.running_var": "output_layer.0.stored_var",
    "conv2d5.weight": "output_layer.2.weight",
    "conv2d5.bias": "output_layer.2.bias",
    "linear0.weight": "linear.weight",
    "linear0.bias": "linear.bias",
}
ATTENTION = {"conv1x1_theta": "theta", "conv1x1_phi": "phi", "conv1x1_g": "g", "conv1x1_attn": "o"}


@dataclass(frozen=True)
class Position:
    """Where a key of `blocks` belongs: the number of its block that doubles, from 0, whether it is of the attention
    behind that, and the key inside the block."""

    block: int
    attends: bool
    key: str


def is_one(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of `resnet` or `big_resnet`."""
    return {"linear0.bias", "blocks.0.0.conv2d0.bias", "bn4.weight", "conv2d5.bias"} <= set(state)


def is_hierarchical(state: Mapping[str, Tensor]) -> bool:
    """Whether they are of `big_resnet`, which shares an embedding or gives each block a part of the latent."""
    gain = state.get("blocks.0.0.bn1.gain.weight")
    return "shared.weight" in state or (
        gain is not None and gain.shape[-1] == state["linear0.weight"].shape[-1] <= LARGEST_PART
    )


def biggan(state: Mapping[str, Tensor]) -> State | None:
    """Under the names of `biggan.BigGAN`; None if these are no weights of `big_resnet`.

    Raises:
        DissectError: it takes codes beside the latent.
    """
    if not is_one(state) or not is_hierarchical(state := folded(state)):
        return None
    _check_codes(state)
    ours: State = {}
    for key, value in state.items():
        position = _position(key, state)
        if key.endswith("num_batches_tracked"):
            continue
        if position is None:
            ours[ENDS.get(key, key)] = value
        elif position.attends:
            name, number = _attention(position.key, value)
            ours[f"blocks.{position.block}.1.{name}"] = number
        else:
            ours[f"blocks.{position.block}.0.{_renamed(position.key, BIGGAN_PARTS)}"] = value
    return ours


@dataclass(frozen=True)
class ResidualState:
    """Weights for `residual.Residual`, and the number of the block behind which attention comes, -1 without."""

    state: State
    attends: int


def residual(state: Mapping[str, Tensor]) -> ResidualState | None:
    """Under the names of `residual.Residual`; None if these are no weights of `resnet`.

    Raises:
        DissectError: it takes codes beside the latent, or attends more than once.
    """
    if not is_one(state) or is_hierarchical(state := folded(state)):
        return None
    _check_codes(state)
    positions = {key: position for key in state if (position := _position(key, state)) is not None}
    attending = {position.block for position in positions.values() if position.attends}
    if len(attending) > 1:
        raise DissectError(f"its attention comes behind {len(attending)} blocks; one is known.")
    last = max(position.block for position in positions.values()) + 3
    ours: State = {}
    for key, value in state.items():
        position = positions.get(key)
        if key.endswith("num_batches_tracked"):
            continue
        if position is not None and position.attends:
            name, number = _attention(position.key, value)
            ours[f"attn_block.{name}"] = number
        elif position is not None:
            block = f"block{position.block + 2}"
            if match := re.fullmatch(r"bn([12])\.(gain|bias)\.weight", position.key):  # one embedding
                gain, bias = (
                    state[f"{key.rpartition('bn')[0]}bn{match[1]}.{role}.weight"] for role in ("gain", "bias")
                )
                ours[f"{block}.b{match[1]}.embed.weight"] = torch.cat([1 + gain.T, bias.T], 1)
            else:
                name = _renamed(position.key, CONVOLUTIONS)
                ours[f"{block}.{re.sub(r'^bn', 'b', name)}"] = value
        else:
            name = key.replace("linear0.", "l1.").replace("bn4.", f"b{last}.").replace("conv2d5.", f"c{last}.")
            ours[name] = value
    return ResidualState(ours, max(attending, default=-1))


def _position(key: str, state: Mapping[str, Tensor]) -> Position | None:
    """Of a key; None if it is not of `blocks`."""
    match = re.fullmatch(r"blocks\.(\d{1,2})\.0\.(.+)", key)
    if match is None:
        return None
    number = int(match[1])
    attending = [block for block in range(number + 1) if f"blocks.{block}.0.conv1x1_theta.weight" in state]
    return Position(number - len(attending), number in attending, match[2])


def _renamed(key: str, names: Mapping[str, str]) -> str:
    """`key` with the first of `names` that it begins with replaced."""
    for theirs, ours in names.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return ours + key[len(theirs) :]
    return key


def _attention(key: str, value: Tensor) -> tuple[str, Tensor]:
    if key == "sigma":
        return "gamma", value.reshape(())
    return _renamed(key, ATTENTION), value


def _check_codes(state: Mapping[str, Tensor]) -> None:
    taken = [key for key in state if key.startswith("info_")]
    if taken:
        raise DissectError(f"it takes codes beside the latent ({taken[0]}), as InfoGAN does, which is not known here.")
