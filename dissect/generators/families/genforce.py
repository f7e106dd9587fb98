"""Weights under the names of GenForce's model library, which SeFa (Shen and Zhou 2021) shares, under those of ours.

All three of its generators keep weights without the factors of the equalised learning rate: progressive GAN as
`layer0.weight` … `output3.bias`, StyleGAN and StyleGAN2 as `mapping.dense0.weight`, `truncation.w_avg`,
`synthesis.layer0.…` and `synthesis.output0.…`. What is written here of factors and flips is checked against images by
`tests/test_genforce.py`, and was against the library itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ....hooks.errors import DissectError

LAYOUT = "GenForce's layout"
MAPPING_RATE = 0.01  # learning-rate factor of the mapping networks
FUSED_FROM = 128  # pixels from which StyleGAN resizes by a transposed convolution, by the library's default

State = dict[str, Tensor]


def progan(state: Mapping[str, Tensor]) -> State | None:
    """Under the names of `progan.ProGAN`; None if these are no weights of the library's progressive GAN.

    Whether it resizes by transposed convolutions, the shapes tell where widths differ; else it does not, by default.

    Raises:
        DissectError: it was saved while it was still growing.
    """
    if not {"layer0.weight", "layer0.bias", "output0.weight"} <= set(state):
        return None
    _check_grown(state.get("lod"))
    layers = [int(match[1]) for key in state if (match := re.fullmatch(r"layer(\d{1,2})\.bias", key))]
    last = max(layers) // 2
    fused = any(
        state[f"layer{number}.weight"].ndim == 4
        and state[f"layer{number}.weight"].shape[0] != state[f"layer{number}.bias"].shape[0]
        for number in layers
        if number and number % 2 == 0 and f"layer{number}.weight" in state
    )
    ours: State = {}
    for key, value in state.items():
        if match := re.fullmatch(r"layer(\d{1,2})\.(weight|bias)", key):
            number = int(match[1])
            resized = fused and number > 0 and number % 2 == 0  # a transposed convolution: (in, out), and turned round
            weight = value.transpose(0, 1).flip(2, 3) if resized and value.ndim == 4 else value
            ours[f"layer{number + 1}." + ("conv.weight" if match[2] == "weight" else "wscale.b")] = weight
        elif match := re.fullmatch(r"output(\d{1,2})\.(weight|bias)", key):
            if int(match[1]) == last:  # the others served while it grew
                size = 4 << last
                ours[f"output_{size}x{size}." + ("conv.weight" if match[2] == "weight" else "wscale.b")] = value
        elif key != "lod":
            ours[key] = value  # named as not of this architecture later on
    return ours


def stylegan2(state: Mapping[str, Tensor], layer_of: Mapping[int, str]) -> State | None:
    """Under the names of `stylegan2.StyleGAN2`; None if these are no weights of the library's StyleGAN2.

    `layer_of` says how the layers are called there, by their number.

    Raises:
        DissectError: its classes are mixed in as ours are not.
    """
    if "synthesis.early_layer.const" not in state:
        return None
    _check_plain(state)
    ours: State = {}
    for key, value in state.items():
        if key == "synthesis.early_layer.const" and value.ndim == 4 and len(value) == 1:
            ours["synthesis.b4.const"] = value[0]
        elif match := re.fullmatch(r"synthesis\.layer(\d{1,2})\.(.+)", key):
            number, tensor = int(match[1]), match[2]
            name = layer_of.get(number, f"synthesis.layer{number}")
            if tensor == "weight" and value.ndim == 4 and value.numel():
                turned = value.flip(2, 3) if number % 2 else value  # of odd layers it is that of a transposed one
                ours[f"{name}.weight"] = turned.float() / math.sqrt(value[0].numel())
            elif tensor in ("style.weight", "style.bias"):
                ours[f"{name}.affine.{tensor.removeprefix('style.')}"] = value + (1 if tensor == "style.bias" else 0)
            elif tensor == "noise":
                ours[f"{name}.noise_const"] = value.flatten(0, 2) if value.ndim == 4 else value
            elif tensor == "filter.kernel":
                ours[f"{name}.resample_filter"] = value.reshape(value.shape[-2:]) / 4
            else:
                ours[f"{name}.{tensor}"] = value  # bias, noise_strength
        elif match := re.fullmatch(r"synthesis\.output(\d{1,2})\.(.+)", key):
            name, tensor = f"synthesis.b{4 << int(match[1])}.torgb", match[2].replace("style.", "affine.")
            ours[f"{name}.{tensor}"] = value + (1 if tensor == "affine.bias" else 0)
        elif key == "synthesis.upsample.kernel":
            taps = value.reshape(value.shape[-2:]) / 4
            ours |= {f"{name.rpartition('.')[0]}.resample_filter": taps for name in layer_of.values()}
        else:
            ours[_mapping(key, "fc")] = value
    if "synthesis.upsample.kernel" in state:
        for name in layer_of.values():  # layers keep the filter only where they use it
            ours.setdefault(f"{name}.resample_filter", ours[f"{name.rpartition('.')[0]}.resample_filter"])
    return ours


def stylegan(state: Mapping[str, Tensor]) -> State | None:
    """Under the names of `stylegan.StyleGAN`; None if these are no weights of the library's StyleGAN.

    Raises:
        DissectError: it was saved while it was still growing, or its classes are mixed in as ours are not.
    """
    if "synthesis.layer0.const" not in state:
        return None
    _check_plain(state)
    _check_grown(state.get("synthesis.lod"))
    ours: State = {}
    for key, value in state.items():
        if match := re.fullmatch(r"synthesis\.layer(\d{1,2})\.(.+)", key):
            number, tensor = int(match[1]), match[2]
            block, n = f"generator.progression.{number // 2}", number % 2 + 1
            if tensor == "const":
                ours[f"{block}.conv1.input"] = value
            elif tensor == "weight":
                ours |= _convolution(f"{block}.conv{n}", number, value)
            elif tensor == "bias":
                ours[f"{block}.noise{n}.bias"] = value
            elif tensor == "apply_noise.weight":
                ours[f"{block}.noise{n}.weight_orig"] = (value * math.sqrt(value.numel() / 2)).view(1, -1, 1, 1)
            elif tensor == "apply_noise.noise":
                ours[f"{block}.noise{n}.noise"] = value
            elif tensor == "style.weight":
                ours[f"{block}.adain{n}.style.linear.weight_orig"] = value / math.sqrt(2)
            elif tensor == "style.bias":
                gains = torch.arange(len(value)) < len(value) // 2  # the library adds 1 to them
                ours[f"{block}.adain{n}.style.linear.bias"] = value + gains
            elif tensor == "blur.kernel":
                ours |= {f"{block}.conv1.BLUR.{name}": value for name in ("weight", "weight_flip")}
            else:
                ours[key] = value
        elif match := re.fullmatch(r"synthesis\.output(\d{1,2})\.(weight|bias)", key):
            name, weight = f"generator.to_rgb.{match[1]}.conv", match[2] == "weight"
            ours[f"{name}.weight_orig" if weight else f"{name}.bias"] = value / math.sqrt(2) if weight else value
        elif match := re.fullmatch(r"mapping\.dense(\d{1,2})\.(weight|bias)", key):
            name = f"style.{2 * int(match[1]) + 1}.linear"
            ours[f"{name}.{'weight_orig' if match[2] == 'weight' else 'bias'}"] = value * MAPPING_RATE
        elif key == "truncation.w_avg":
            ours["mean"] = value
        elif key != "synthesis.lod":
            ours[key] = value
    return _with_blurs(ours)


def _convolution(name: str, number: int, weight: Tensor) -> State:
    """A StyleGAN's convolution and a bias of zeros: the bias comes behind the noise."""
    if weight.ndim != 4:
        return {f"{name}.weight": weight}
    none = torch.zeros(len(weight))
    if number % 2:
        return {f"{name}.conv.weight_orig": weight, f"{name}.conv.bias": none}
    if 4 << number // 2 >= FUSED_FROM:  # four taps are added up, where ours take their mean
        return {f"{name}.0.weight": weight.transpose(0, 1) * 4, f"{name}.0.bias": none}
    return {f"{name}.1.conv.weight_orig": weight, f"{name}.1.conv.bias": none}


def _with_blurs(state: State) -> State:
    """With the place of each blur, which is behind whatever resizes."""
    return {
        key.replace("BLUR", "1" if f"{key.partition('.BLUR')[0]}.0.weight" in state else "2"): value
        for key, value in state.items()
    }


def _mapping(key: str, name: str) -> str:
    if key == "truncation.w_avg":
        return "mapping.w_avg"
    return re.sub(r"^mapping\.dense(\d{1,2})\.", rf"mapping.{name}\1.", key)


def _check_grown(level: Tensor | None) -> None:
    if level is not None and level.numel() == 1 and float(level) != 0:
        raise DissectError(
            f"it was saved while it was still growing ({float(level):.3g} doublings before its full size); only "
            "grown ones can be read."
        )


def _check_plain(state: Mapping[str, Tensor]) -> None:
    if "mapping.label_weight" in state:
        raise DissectError("its latents and classes are normed together, as only GenForce does; that cannot be read.")
