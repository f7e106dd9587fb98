"""Second statements of BigGAN and BigGAN-deep, and random weights in their layouts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ganatomy.dissect.generators.families.architecture import Architecture

State = dict[str, Tensor]


# units of 4×4 and of each stage, as multiples of the width of the published training scripts, by resolution
STAGES = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}

# (upsamples, units in, units out) of each block of the published generators; attention comes before the ninth
HEAD = ((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8))
TABLES = {
    128: (*HEAD, (True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1)),
    256: (*HEAD, (True, 8, 8), (False, 8, 8), (True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1)),
}
TABLES[512] = (*TABLES[256], (False, 1, 1), (True, 1, 1))
ATTENTION = 8
Table = Sequence[tuple[bool, int, int]]


def filled_with(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random weights, and statistics that are neither 0 nor 1."""
    dice = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        last = key.rpartition(".")[2]
        if last in ("stored_var", "running_vars"):
            state[key] = torch.rand(shape, generator=dice) + 0.5
        elif last == "accumulation_counter":
            state[key] = torch.full(shape, 4.0)
        elif last == "gamma":
            state[key] = torch.full(shape, 0.7)
        else:
            scale = 1.0 if last in ("u0", "weight") or last.startswith("weight_") else 0.3
            state[key] = torch.randn(shape, generator=dice) * scale
    return state


def one_hot(labels: Sequence[int], classes: int) -> Tensor:
    return torch.eye(classes)[list(labels)]


@torch.no_grad()
def agrees(module: Architecture, latents: Tensor, wanted: Callable[[State, Tensor, Tensor], Tensor]) -> bool:
    """Whether the module draws what a function of weights, latents and classes does, in double precision."""
    state = {key: tensor.double() for key, tensor in module.state_dict().items()}
    z, y = latents.double().split([module.latent, module.classes], 1)
    images = wanted(state, z, y)
    found = copy.deepcopy(module).double()(torch.cat([z, y], 1))
    assert 0.02 < float(images.std()) < 0.95
    return found.shape == images.shape and torch.allclose(found, images, rtol=0, atol=1e-7)


def bigger(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def pooled(x: Tensor) -> Tensor:
    n, units, h, w = x.shape
    return x.reshape(n, units, h // 2, 2, w // 2, 2).amax((3, 5))


def look_around(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    phi, g = pooled(phi), pooled(g)
    fit = torch.einsum("ndhw,ndij->nhwij", theta, phi)
    share = (fit - fit.amax((3, 4), keepdim=True)).exp()
    share = share / share.sum((3, 4), keepdim=True)
    return torch.einsum("nhwij,nvij->nvhw", share, g)


# --- BigGAN


def big_state(
    widths: Sequence[int],
    part: int,
    *,
    classes: int = 3,
    embedding: int = 5,
    attention: Sequence[int] = (),
    counted: bool = False,
    latent: int | None = None,
    normed: bool = True,
) -> State:
    """A checkpoint of BigGAN.py: hierarchical with chunks of `part`, or, where `latent` is given, not.

    `normed`: spectrally.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def spectral(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = (shape[0],)
        if normed:
            shapes[f"{name}.u0"], shapes[f"{name}.sv0"] = (1, shape[0]), (1,)

    def statistics(name: str, units: int) -> None:
        inside = f"{name}.bn" if counted else name
        shapes[f"{inside}.stored_mean"], shapes[f"{inside}.stored_var"] = (units,), (units,)
        if counted:
            shapes[f"{inside}.accumulation_counter"] = (1,)

    if embedding:
        shapes["shared.weight"] = (classes, embedding)
    spectral("linear", widths[0] * 16, latent or part)
    for i, (before, after) in enumerate(pairwise(widths)):
        block = f"blocks.{i}.0"
        spectral(f"{block}.conv1", after, before, 3, 3)
        spectral(f"{block}.conv2", after, after, 3, 3)
        spectral(f"{block}.conv_sc", after, before, 1, 1)
        for norm, units in (("bn1", before), ("bn2", after)):
            for name in ("gain", "bias"):
                if embedding:
                    condition = embedding + (0 if latent else part)
                    spectral(f"{block}.{norm}.{name}", units, condition, bias=False)
                else:
                    shapes[f"{block}.{norm}.{name}.weight"] = (classes, units)
            statistics(f"{block}.{norm}", units)
        if i in attention:
            for name, out, into in (("theta", 8, 1), ("phi", 8, 1), ("g", 2, 1), ("o", 1, 2)):
                spectral(f"blocks.{i}.1.{name}", after // out, after // into, 1, 1, bias=False)
            shapes[f"blocks.{i}.1.gamma"] = ()
    shapes["output_layer.0.gain"] = shapes["output_layer.0.bias"] = (widths[-1],)
    statistics("output_layer.0", widths[-1])
    spectral("output_layer.2", 3, widths[-1], 3, 3)
    return filled_with(shapes)


def big_images(state: State, z: Tensor, y: Tensor, widths: Sequence[int], part: int, epsilon: float = 1e-5) -> Tensor:
    """The forward pass of BigGAN.py in eval mode, from the state alone; `part` is 0 for a latent in one piece."""

    def weight(name: str) -> Tensor:
        if f"{name}.u0" not in state:
            return state[f"{name}.weight"]
        matrix = state[f"{name}.weight"].reshape(len(state[f"{name}.weight"]), -1)
        v = state[f"{name}.u0"][0] @ matrix
        v = v / v.norm()
        return state[f"{name}.weight"] / (matrix @ v).norm()  # u = Wv / |Wv|, so that u·Wv = |Wv|

    def norm(name: str, x: Tensor) -> Tensor:
        inside = name if f"{name}.stored_mean" in state else f"{name}.bn"
        count = float(state.get(f"{inside}.accumulation_counter", torch.ones(1)))
        mean, variance = state[f"{inside}.stored_mean"] / count, state[f"{inside}.stored_var"] / count
        return (x - mean[:, None, None]) / (variance[:, None, None] + epsilon).sqrt()

    def conditional(name: str, x: Tensor, condition: Tensor) -> Tensor:
        shared = "shared.weight" in state
        gain, bias = (
            condition @ (weight(f"{name}.{which}").T if shared else state[f"{name}.{which}.weight"])
            for which in ("gain", "bias")
        )
        return norm(name, x) * (1 + gain[:, :, None, None]) + bias[:, :, None, None]

    def conv(name: str, x: Tensor, padding: int) -> Tensor:
        return F.conv2d(x, weight(name), state.get(f"{name}.bias"), padding=padding)

    y = y @ state["shared.weight"] if "shared.weight" in state else y
    first = z[:, :part] if part else z
    x = (first @ weight("linear").T + state["linear.bias"]).reshape(len(z), widths[0], 4, 4)
    for i in range(len(widths) - 1):
        condition = torch.cat([y, z[:, part * (i + 1) : part * (i + 2)]], 1) if part else y
        block = f"blocks.{i}.0"
        h = conv(f"{block}.conv1", bigger(conditional(f"{block}.bn1", x, condition).clamp(min=0)), 1)
        h = conv(f"{block}.conv2", conditional(f"{block}.bn2", h, condition).clamp(min=0), 1)
        x = h + conv(f"{block}.conv_sc", bigger(x), 0)
        name = f"blocks.{i}.1"
        if f"{name}.gamma" in state:
            seen = look_around(*(conv(f"{name}.{which}", x, 0) for which in ("theta", "phi", "g")))
            x = state[f"{name}.gamma"] * conv(f"{name}.o", seen, 0) + x
    x = norm("output_layer.0", x) * state["output_layer.0.gain"][:, None, None]
    x = (x + state["output_layer.0.bias"][:, None, None]).clamp(min=0)
    return conv("output_layer.2", x, 1).tanh()


# --- BigGAN-deep


def deep_state(table: Table, width: int, *, attention: int = -1, stats: int = 6, latent: int = 5) -> State:
    """A checkpoint of pytorch-pretrained-BigGAN for four classes; vectors of the spectral norm nearly converged."""
    shapes: dict[str, tuple[int, ...]] = {"embeddings.weight": (latent, 4)}

    def spectral(name: str, *shape: int, bias: bool = True) -> None:
        if bias:
            shapes[f"{name}.bias"] = (shape[0],)
        shapes[f"{name}.weight_orig"] = shape
        shapes[f"{name}.weight_u"], shapes[f"{name}.weight_v"] = (shape[0],), (math.prod(shape[1:]),)

    def statistics(name: str, units: int) -> None:
        shapes[f"{name}.running_means"], shapes[f"{name}.running_vars"] = (stats, units), (stats, units)

    spectral("generator.gen_z", 16 * table[0][1] * width, 2 * latent)
    place = 0
    for i, (_, before, after) in enumerate(table):
        if i == attention:
            name, units = f"generator.layers.{place}", before * width
            shapes[f"{name}.gamma"] = (1,)
            for which, out, into in (("theta", 8, 1), ("phi", 8, 1), ("g", 2, 1), ("o_conv", 1, 2)):
                spectral(f"{name}.snconv1x1_{which}", units // out, units // into, 1, 1, bias=False)
            place += 1
        block, units, inside = f"generator.layers.{place}", before * width, before * width // 4
        for k, (fan_in, fan_out) in enumerate([(units, inside), (inside,) * 2, (inside,) * 2, (inside, after * width)]):
            kernel = 3 if k in (1, 2) else 1
            spectral(f"{block}.conv_{k}", fan_out, fan_in, kernel, kernel)
            spectral(f"{block}.bn_{k}.scale", fan_in, 2 * latent, bias=False)
            spectral(f"{block}.bn_{k}.offset", fan_in, 2 * latent, bias=False)
            statistics(f"{block}.bn_{k}", fan_in)
        place += 1
    shapes["generator.bn.weight"] = shapes["generator.bn.bias"] = (table[-1][2] * width,)
    statistics("generator.bn", table[-1][2] * width)
    spectral("generator.conv_to_rgb", table[-1][2] * width, table[-1][2] * width, 3, 3)
    state = filled_with(shapes)
    for key in state:
        if key.endswith("weight_orig"):
            name = key.removesuffix("orig")
            left, _, right = torch.linalg.svd(state[key].flatten(1), full_matrices=False)
            state[f"{name}u"] = F.normalize(left[:, 0] + 0.1 * F.normalize(state[f"{name}u"], dim=0), dim=0)
            state[f"{name}v"] = F.normalize(right[0] + 0.1 * F.normalize(state[f"{name}v"], dim=0), dim=0)
    return state


def deep_images(
    state: State, z: Tensor, y: Tensor, table: Table, attention: int, row: Callable[[Tensor], Tensor]
) -> Tensor:
    """The forward pass from the state alone; `row` picks a row of statistics."""

    def weight(name: str) -> Tensor:
        matrix = state[f"{name}.weight_orig"].flatten(1)
        return state[f"{name}.weight_orig"] / (state[f"{name}.weight_u"] @ matrix @ state[f"{name}.weight_v"])

    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance = (row(state[f"{name}.running_{which}"])[:, None, None] for which in ("means", "vars"))
        return (x - mean) / (variance + 1e-4).sqrt()

    def active(name: str, x: Tensor) -> Tensor:
        gain, bias = ((condition @ weight(f"{name}.{which}").T)[:, :, None, None] for which in ("scale", "offset"))
        return (norm(name, x) * (1 + gain) + bias).clamp(min=0)

    def conv(name: str, x: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(x, weight(name), state.get(f"{name}.bias"), padding=padding)

    condition = torch.cat([z, y @ state["embeddings.weight"].T], 1)
    x = condition @ weight("generator.gen_z").T + state["generator.gen_z.bias"]
    x = x.reshape(len(z), 16, -1).mT.reshape(len(z), -1, 4, 4)  # positions before units
    place = 0
    for i, (upsample, before, after) in enumerate(table):
        name = f"generator.layers.{place}"
        if i == attention:
            seen = look_around(*(conv(f"{name}.snconv1x1_{which}", x) for which in ("theta", "phi", "g")))
            x = x + state[f"{name}.gamma"] * conv(f"{name}.snconv1x1_o_conv", seen)
            place += 1
            name = f"generator.layers.{place}"
        h = active(f"{name}.bn_1", conv(f"{name}.conv_0", active(f"{name}.bn_0", x)))
        h = conv(f"{name}.conv_1", bigger(h) if upsample else h, 1)
        h = conv(f"{name}.conv_2", active(f"{name}.bn_2", h), 1)
        h = conv(f"{name}.conv_3", active(f"{name}.bn_3", h))
        x = x[:, : x.shape[1] * after // before]
        x = h + (bigger(x) if upsample else x)
        place += 1
    x = norm("generator.bn", x) * state["generator.bn.weight"][:, None, None]
    x = (x + state["generator.bn.bias"][:, None, None]).clamp(min=0)
    return conv("generator.conv_to_rgb", x, 1)[:, :3].tanh()
