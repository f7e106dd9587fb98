"""Latents of every distribution, and labels beside them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ganatomy.dissect import (
    BernoulliLatents,
    ModelSpec,
    NormalLatents,
    SphereLatents,
    UniformLatents,
    as_generator,
    load_generator,
)
from ganatomy.dissect.generators.latents import parse_latents
from ganatomy.dissect.generators.sources import ClassLatents
from ganatomy.hooks.errors import UsageError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("normal:4", NormalLatents((4,))),
        ("normal:4x2x1", NormalLatents((4, 2, 1))),
        ("uniform:4", UniformLatents((4,))),
        ("uniform:4,0,1", UniformLatents((4,), low=0, high=1)),
        ("uniform:4,-0.5,2e-1", UniformLatents((4,), low=-0.5, high=0.2)),
        ("sphere:4", SphereLatents((4,))),
        ("sphere:4,22.627416997969522", SphereLatents((4,), radius=512**0.5)),
        ("uniform:4,0,1e+20", UniformLatents((4,), low=0, high=1e20)),
        ("sphere:4x1x1,2.5", SphereLatents((4, 1, 1), radius=2.5)),
        ("bernoulli:4", BernoulliLatents((4,))),
        ("bernoulli:4,0.25", BernoulliLatents((4,), share=0.25)),
    ],
)
def test_words_and_their_latents(text: str, found: object) -> None:
    assert parse_latents(text) == found
    assert parse_latents(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", "normal", "normal:0", "normal:4x", "normal:4,1", "uniform:4,1,0", "uniform:4,1", "sphere:4,0", "bernoulli:4,1",
     "gauss:4", "normal:-4"],
)  # fmt: skip
def test_what_is_no_latent_is_said(text: str) -> None:
    with pytest.raises(UsageError, match=r"write normal:512, uniform:100 .*uniform:100,0,1, sphere:512"):
        parse_latents(text)


@pytest.mark.parametrize("text", ["normal:20", "uniform:20,-2,3", "sphere:20,3", "bernoulli:20,0.3"])
def test_distributions(text: str) -> None:
    source = parse_latents(text)
    drawn = source(range(4000))
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn[[7, 3]], source([7, 3]))  # whatever the batch
    assert not torch.equal(drawn[:9], source.seeded(1)(range(9)))
    mean, deviation = float(drawn.mean()), float(drawn.std())
    expected = {
        "normal": (0.0, 1.0),
        "uniform": (0.5, 5 / math.sqrt(12)),
        "sphere": (0.0, 3 / math.sqrt(20)),
        "bernoulli": (0.3, math.sqrt(0.3 * 0.7)),
    }[source.kind]
    assert (mean, deviation) == pytest.approx(expected, abs=0.02)
    if source.kind == "sphere":
        torch.testing.assert_close(drawn.norm(dim=1), torch.full((4000,), 3.0))
    if source.kind == "uniform":
        assert drawn.min() >= -2
        assert drawn.max() < 3
    if source.kind == "bernoulli":
        assert set(drawn.flatten().tolist()) == {0.0, 1.0}


class Conditional(nn.Module):
    """forward(noise, labels), with an embedding: an image as bright as the embedding says."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 1)
        self.embed.weight.data = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
        self.first = nn.Linear(6 + 1, 3 * 16)
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.first.bias)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        bright = self.embed(labels)
        return (self.first(torch.cat([noise, bright], 1)) + bright).view(-1, 3, 4, 4)


class Counted(nn.Module):
    """forward(noise, labels) without an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(6, 3, 4)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return torch.zeros_like(self.first(noise)) + labels[:, None, None, None] / 8


def test_labels_by_an_embedding_are_of_every_class_or_one() -> None:
    network = Conditional()
    found = as_generator(network)
    assert isinstance(found.source, ClassLatents)
    assert str(found.source) == "normal:6 and class all of 4"
    latents = found.latents(range(40))
    labels = latents[:, 6:].argmax(1)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    with torch.no_grad():
        torch.testing.assert_close(found.output(latents)[:, 0, 0, 0], network.embed(labels)[:, 0])
        network(torch.zeros(1, 6), torch.tensor([2]))  # called as its author does
    other = as_generator(Conditional(), latent="uniform:6")
    assert str(other.source) == "uniform:6 and class all of 4"
    assert other.latents([0])[:, :6].abs().max() < 1


CODE = """
import torch
from torch import nn

class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.ConvTranspose2d(6, 3, 4)
    def forward(self, noise, labels):
        return torch.zeros_like(self.first(noise)) + labels[:, None, None, None] / 8

def make():
    return Counted()
"""


def test_labels_without_an_embedding_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "counted_gan.py").write_text(CODE)
    model = f"{tmp_path / 'counted_gan.py'}:make"
    with pytest.raises(UsageError, match=r"forward takes noise and labels: say which class to draw, e\.g\. label=3"):
        load_generator(ModelSpec(model, latent="normal:6x1x1"))
    found = load_generator(ModelSpec(model, latent="normal:6x1x1", label=3, output_range=(0, 1)))
    with torch.no_grad():
        assert torch.all(found.output(found.latents([0, 1])) == 3 / 8)
    assert str(found.source) == "normal:6x1x1 and class 3"  # so that another class is another run
    module = found.module
    other = as_generator(module, latent="normal:6x1x1", label=5, output_range=(0, 1))
    with torch.no_grad():
        assert torch.all(other.output(other.latents([0])) == 5 / 8)  # the hook is replaced
    assert len(module._forward_pre_hooks) == 1


def test_labels_that_do_not_fit_are_said() -> None:
    with pytest.raises(UsageError, match=r"label=.*0 to 3"):
        as_generator(Conditional(), label=4)
    with pytest.raises(UsageError, match="takes no labels"):
        as_generator(nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.ConvTranspose2d(6, 3, 4)), latent="normal:6", label=1)
    with pytest.raises(UsageError, match=r"fails on labels by number .*N×5"):
        as_generator(Counted(), latent="normal:5", label=1)
