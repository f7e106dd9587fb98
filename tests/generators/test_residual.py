"""Residual generators are opened from their weights, and their batch norms tell how they resize and attend."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from ganatomy.dissect import ModelSpec, load_generator
from ganatomy.dissect.generators.families import residual
from ganatomy.hooks.errors import DissectError

pytestmark = pytest.mark.slow

LATENT = 6


class OfClass(nn.Module):
    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        self.bn, self.embed = nn.BatchNorm2d(units, affine=False), nn.Embedding(classes, 2 * units)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = self.embed(y).split(x.shape[1], 1)
        return gain[:, :, None, None] * self.bn(x) + bias[:, :, None, None]


class Part(nn.Module):
    def __init__(self, before: int, after: int, classes: int, how: str) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.c_sc = nn.Conv2d(before, after, 1)
        self.b1 = OfClass(before, classes) if classes else nn.BatchNorm2d(before)
        self.b2 = OfClass(after, classes) if classes else nn.BatchNorm2d(after)
        self.larger = nn.Upsample(scale_factor=2, mode=how, align_corners=None if how == "nearest" else False)

    def forward(self, x: Tensor, *y: Tensor) -> Tensor:
        h = self.c1(self.larger(self.b1(x, *y).relu()))
        return self.c2(self.b2(h, *y).relu()) + self.c_sc(self.larger(x))


class Attended(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        for name, out, into in (("theta", 8, 1), ("phi", 8, 1), ("g", 2, 1), ("o", 1, 2)):
            conv = nn.Conv2d(units // into, units // out, 1, bias=False)
            self.add_module(name, spectral_norm(conv))
        self.gamma = nn.Parameter(torch.tensor(0.9))

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        theta = self.theta(x).flatten(2)
        phi, g = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.phi, self.g))
        share = torch.einsum("ndp,ndq->npq", theta, phi).softmax(2)
        return x + self.gamma * self.o(torch.einsum("npq,nvq->nvp", share, g).reshape(n, -1, h, w))


class Reference(nn.Module):
    """Three doublings from 4×4; attention behind the block of that number, from 0."""

    def __init__(
        self, how: str, classes: int = 0, attends: int = -1, widths: tuple[int, ...] = (16, 16, 16, 16)
    ) -> None:
        super().__init__()
        self.l1 = nn.Linear(LATENT, 16 * widths[0])
        for number, (before, after) in enumerate(pairwise(widths)):
            self.add_module(f"block{number + 2}", Part(before, after, classes, how))
        self.b5, self.c5 = nn.BatchNorm2d(widths[-1]), nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.attends = attends
        if attends >= 0:
            self.attn_block = Attended(widths[attends + 1])

    def forward(self, z: Tensor, *y: Tensor) -> Tensor:
        x = self.l1(z).view(len(z), -1, 4, 4)
        for number in range(3):
            x = self.get_submodule(f"block{number + 2}")(x, *y)
            if number == self.attends:
                x = self.attn_block(x)
        return self.c5(self.b5(x).relu()).tanh()


def trained(network: Reference, classes: int, steps: int = 50) -> Reference:
    """With statistics of its own latents."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
        for _ in range(steps):
            z = torch.randn(64, LATENT)
            network.train()(z, *([torch.randint(classes, (64,))] if classes else []))
    return network.eval()


@pytest.mark.parametrize("how", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("classes", "attends", "widths"),
    [(0, -1, (12, 10, 8, 6)), (4, -1, (8, 8, 8, 8)), (4, 0, (16, 16, 16, 16)), (3, 2, (16, 16, 16, 16))],
)
def test_it_draws_what_was_trained(
    how: str, classes: int, attends: int, widths: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(2)
    network = trained(Reference(how, classes, attends, widths), classes)
    torch.save({"model_state_dict": network.state_dict(), "global_step": 7}, tmp_path / "g.pth")
    found = load_generator(ModelSpec(str(tmp_path / "g.pth")))
    module = found.module
    assert isinstance(module, residual.Residual)
    assert (module.resize, module.attends, module.classes) == (how, attends, classes)
    z = torch.randn(3, LATENT, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 2])[: classes and 3]
    given = torch.cat([z, torch.eye(classes)[y]], 1) if classes else z
    with torch.no_grad():
        assert torch.allclose(module(given), network(z, *([y] if classes else [])), atol=1e-5)
    assert ("attn_block" in module.layers) == (attends >= 0)


def test_own_spectral_norm_is_one_power_iteration() -> None:
    state = Reference("bilinear").state_dict()
    for key in [key for key in state if key.endswith(".weight") and key.split(".")[-2] not in ("b1", "b2", "b5")]:
        name = key.removesuffix(".weight")
        state |= {f"{name}.sn_u": torch.randn(1, len(state[key])), f"{name}.sn_sigma": torch.ones(1)}
    module = residual.infer(state)
    weight, u = state["block2.c1.weight"].flatten(1), state["block2.c1.sn_u"]
    v = F.normalize(u @ weight)
    assert torch.allclose(
        module.get_submodule("block2.c1").normalised(), state["block2.c1.weight"] / (weight @ v.T).norm(), atol=1e-6
    )


def test_what_does_not_fit_is_named() -> None:
    state = Reference("bilinear").state_dict()
    with pytest.raises(DissectError, match="no square map of 16 units"):
        residual.infer(state | {"l1.weight": torch.ones(16 * 5, LATENT), "l1.bias": torch.ones(16 * 5)})
    with pytest.raises(DissectError, match="numbered 2, 4; expected 2, 3, 4"):
        residual.infer({key: value for key, value in state.items() if not key.startswith("block3")})
    with pytest.raises(DissectError, match=r"key c5\.weight is missing"):
        residual.infer({key: value for key, value in state.items() if key != "c5.weight"})
