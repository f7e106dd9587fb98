"""Generators as StudioGAN saves them, written out once more: opened from their weights, and their activation told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from ganatomy import dissect
from ganatomy.dissect import ModelSpec, load_generator
from ganatomy.dissect.generators.families import residual, studiogan
from ganatomy.hooks.errors import DissectError

CLASSES, LATENT, SHARED = 3, 12, 5
WIDTHS = [(16, 16), (16, 8)]
Wrap = Callable[[nn.Module], nn.Module]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": torch.relu,
    "leaky ReLU 0.1": lambda x: F.leaky_relu(x, 0.1),
    "ELU": F.elu,
    "GELU": F.gelu,
}


class Conditional(nn.Module):
    def __init__(self, condition: int, units: int, wrap: Wrap) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(units, eps=1e-4, affine=False)
        self.gain, self.bias = (wrap(nn.Linear(condition, units, bias=False)) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.bn(x) * (1 + self.gain(y))[:, :, None, None] + self.bias(y)[:, :, None, None]


class Doubling(nn.Module):
    def __init__(self, before: int, after: int, condition: int, act: Callable[[Tensor], Tensor], wrap: Wrap) -> None:
        super().__init__()
        self.act = act
        self.bn1, self.bn2 = (
            Conditional(condition, units, wrap) if condition else nn.BatchNorm2d(units, eps=1e-4)
            for units in (before, after)
        )
        self.conv2d0 = wrap(nn.Conv2d(before, after, 1))
        self.conv2d1, self.conv2d2 = (wrap(nn.Conv2d(units, after, 3, padding=1)) for units in (before, after))

    def forward(self, x: Tensor, *y: Tensor) -> Tensor:
        h = self.conv2d1(self.act(self.bn1(x, *y)).repeat_interleave(2, 2).repeat_interleave(2, 3))
        h = self.conv2d2(self.act(self.bn2(h, *y)))
        return h + self.conv2d0(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Attending(nn.Module):
    def __init__(self, units: int, wrap: Wrap) -> None:
        super().__init__()
        for name, into, out in (("theta", 1, 8), ("phi", 1, 8), ("g", 1, 2), ("attn", 2, 1)):
            self.add_module(f"conv1x1_{name}", wrap(nn.Conv2d(units // into, units // out, 1, bias=False)))
        self.sigma = nn.Parameter(torch.tensor([0.8]))

    def forward(self, x: Tensor, *_y: Tensor) -> Tensor:
        theta, phi, g = (self.get_submodule(f"conv1x1_{name}")(x) for name in ("theta", "phi", "g"))
        phi, g = F.max_pool2d(phi, 2).flatten(2), F.max_pool2d(g, 2).flatten(2)
        share = torch.einsum("ndp,ndq->npq", theta.flatten(2), phi).softmax(2)
        seen = torch.einsum("npq,nvq->nvp", share, g).unflatten(2, x.shape[2:])
        return x + self.sigma * self.get_submodule("conv1x1_attn")(seen)


class Studio(nn.Module):
    """`resnet`, or with `big` `big_resnet`, of two doubling blocks."""

    def __init__(self, *, big: bool, classes: bool, act: str, normed: bool, attend: int | None) -> None:
        super().__init__()
        self.act, self.big, self.classes = ACTIVATIONS[act], big, classes
        wrap: Wrap = spectral_norm if normed else (lambda layer: layer)
        self.chunk = LATENT // (len(WIDTHS) + 1) if big else LATENT
        condition = (self.chunk if big else 0) + (classes and (SHARED if big else CLASSES))
        if big and classes:
            self.shared = nn.Embedding(CLASSES, SHARED)
        self.linear0 = wrap(nn.Linear(self.chunk, WIDTHS[0][0] * 16))
        parts: list[nn.Module] = []
        for number, (before, after) in enumerate(WIDTHS):
            parts.append(nn.ModuleList([Doubling(before, after, condition, self.act, wrap)]))
            if number == attend:
                parts.append(nn.ModuleList([Attending(after, wrap)]))
        self.blocks = nn.ModuleList(parts)
        self.bn4 = nn.BatchNorm2d(WIDTHS[-1][1], eps=1e-4)
        self.conv2d5 = wrap(nn.Conv2d(WIDTHS[-1][1], 3, 3, padding=1))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        first, *parts = z.split(self.chunk, 1)
        x = self.linear0(first).unflatten(1, (-1, 4, 4))
        number = 0
        for (part,) in self.blocks:
            of_class = [self.shared(y) if self.big else F.one_hot(y, CLASSES).float()] if self.classes else []
            condition = of_class + (parts[number : number + 1] if self.big else [])
            x = part(x, torch.cat(condition, 1)) if condition else part(x)
            number += isinstance(part, Doubling)
        return torch.tanh(self.conv2d5(self.act(self.bn4(x))))


def trained(**kind: object) -> Studio:
    """With statistics as its own latents leave them."""
    torch.manual_seed(0)
    net = Studio(**kind)  # type: ignore[arg-type]
    for name, parameter in net.named_parameters():
        if "bn" in name:
            nn.init.normal_(parameter, 1.0 if name.endswith(("weight",)) and parameter.ndim == 1 else 0.0, 0.3)
    with torch.no_grad():
        for _ in range(80):
            net(torch.randn(64, LATENT), torch.randint(CLASSES, (64,)))
    return net.eval()


KINDS = [
    {"big": False, "classes": False, "act": "ReLU", "normed": False, "attend": None},
    {"big": False, "classes": True, "act": "leaky ReLU 0.1", "normed": True, "attend": 0},
    {"big": True, "classes": True, "act": "ReLU", "normed": True, "attend": 1},
    {"big": True, "classes": True, "act": "ELU", "normed": False, "attend": None},
    {"big": True, "classes": False, "act": "GELU", "normed": True, "attend": 0},
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_of_studiogan_draws_what_its_own_code_draws(kind: dict[str, object], tmp_path: Path) -> None:
    theirs = trained(**kind)
    path = tmp_path / "model=G_ema-best-weights-step=100.pth"
    torch.save({"state_dict": theirs.state_dict(), "step": 100}, path)
    generator = load_generator(ModelSpec(str(path)))
    assert generator.module.family == ("biggan" if kind["big"] else "residual")
    assert "in StudioGAN's layout" in (generator.recognised or "")
    assert generator.module.settings().get("activation", "ReLU") == kind["act"]
    z, y = torch.randn(6, LATENT), torch.arange(6) % CLASSES
    latents = torch.cat([z, F.one_hot(y, CLASSES).float()], 1) if kind["classes"] else z
    assert generator.latents(range(6)).shape == latents.shape
    with torch.no_grad():
        assert torch.allclose(generator.module(latents), theirs(z, y), atol=1e-5)


def test_one_class_and_truncated_latents_are_held_against_no_network(tmp_path: Path) -> None:
    torch.save(trained(**KINDS[2]).state_dict(), tmp_path / "g.pth")
    for chosen in ({"label": 1}, {"truncation": 0.4}):
        said = dissect.inspect(ModelSpec(str(tmp_path / "g.pth"), **chosen)).fingerprint  # type: ignore[arg-type]
        assert said.startswith("reproduces its training statistics")


def test_an_activation_that_nothing_tells_is_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    untrained = Studio(big=True, classes=True, act="ELU", normed=False, attend=None)
    torch.save(untrained.state_dict(), tmp_path / "g.pth")
    said = load_generator(ModelSpec(str(tmp_path / "g.pth"))).recognised or ""
    assert "nothing in it tells its activation (ReLU is taken), nor what its batch norms add to variances" in said


def test_as_many_classes_as_latent_numbers_are_no_parts_of_the_latent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studiogan, "LARGEST_PART", 2)
    monkeypatch.setattr(sys.modules[__name__], "CLASSES", LATENT)
    theirs = trained(**KINDS[1])
    module = residual.infer(theirs.state_dict())
    assert "whether its norms take 12 classes (they are taken)" in module.assumed
    z, y = torch.randn(5, LATENT), torch.arange(5)
    with torch.no_grad():
        images = module(torch.cat([z, F.one_hot(y, LATENT).float()], 1))
        assert torch.allclose(images, theirs(z, y), atol=1e-5)


def test_codes_beside_the_latent_are_refused() -> None:
    state = trained(**KINDS[0]).state_dict()
    state["info_mix_linear.weight"] = torch.zeros(LATENT, LATENT + 2)
    with pytest.raises(DissectError, match=r"codes beside the latent \(info_mix_linear\.weight\)"):
        studiogan.residual(state)
