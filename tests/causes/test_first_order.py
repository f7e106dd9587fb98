"""First-order effects against the effects themselves, on networks in which they are equal, and where they are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.causes.first_order import Change, Estimator, NoGradient, Pairs
from ganatomy.hooks import Edit, edited
from ganatomy.segmenters import Vocabulary

WIDTH = 5
PAIRS = Pairs(samples=[3, 0, 1, 7, 2, 3], classes=[0, 1, 2, 2, 0, 1])


class Linear(nn.Module):
    """latents (N, 4) -> images (N, 3, 16, 16) about 0.5, linear in the layers `low` (N, 5, 8, 8) and `high`."""

    def __init__(self, then: nn.Module | None = None) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(0)
        self.spread = nn.Linear(4, WIDTH * 64)
        self.low, self.then, self.high = nn.Identity(), then or nn.Identity(), nn.Conv2d(WIDTH, 7, 3, padding=1)
        self.paint = nn.Conv2d(7, 3, 1)
        for weight in self.parameters():
            weight.data = 0.05 * torch.randn(weight.shape, generator=dice)
        self.paint.bias.data += 0.5

    def forward(self, latents: Tensor) -> Tensor:
        maps = self.high(self.then(self.low(self.spread(latents).view(-1, WIDTH, 8, 8))))
        return nn.functional.interpolate(self.paint(maps), scale_factor=2)


class Channels:
    """The probability of a class is the value of a colour channel."""

    name = "channels"
    vocabulary = Vocabulary(
        names=("red", "green", "blue"), categories=("object",) * 3, colours=("#ff0000", "#00ff00", "#0000ff")
    )

    def __call__(self, images: Tensor) -> Tensor:
        return images.argmax(1, keepdim=True)

    def probabilities(self, images: Tensor) -> Tensor:
        return images


class Hard(Channels):
    """Its probabilities are not connected with the images."""

    name = "hard"

    def probabilities(self, images: Tensor) -> Tensor:
        return images.detach()


class Threshold(nn.Module):
    """Unit 0 acts only beyond 10, where it never is."""

    def forward(self, maps: Tensor) -> Tensor:
        first = (maps[:, :1] - 10).relu() * 5
        return torch.cat([first, maps[:, 1:]], 1)


def generator(module: nn.Module) -> Generator:
    return Generator(module=module, name="linear", source=NormalLatents((4,)), output_range=(0, 1))


def truth(subject: Generator, edit: Edit, pairs: Pairs = PAIRS) -> Tensor:
    """(P,) what an edit adds to the area of each pair's class, drawn and counted."""
    latents, classes = subject.latents(pairs.samples), torch.tensor(pairs.classes)[:, None]
    with torch.no_grad():
        before = subject(latents).mean((2, 3))
        with edited(subject.module, edit):
            after = subject(latents).mean((2, 3))
    return (after - before).gather(1, classes)[:, 0]


@pytest.mark.parametrize("value", [None, 0.7])
def test_equals_the_effect_where_the_network_is_linear(value: float | None) -> None:
    subject = generator(Linear())
    values = None if value is None else torch.full((WIDTH,), value)
    layers = {"low": Change(value=values), "high": Change()}
    effects = Estimator(generator=subject, segmenter=Channels(), layers=layers)(PAIRS)
    assert {layer: tuple(x.shape) for layer, x in effects.items()} == {"low": (6, WIDTH), "high": (6, 7)}
    for layer, width, number in (("low", WIDTH, value or 0.0), ("high", 7, 0.0)):
        for unit in range(width):
            expected = truth(subject, Edit(layer=layer, units=(unit,), value=number))
            assert torch.allclose(effects[layer][:, unit], expected, atol=1e-5)
        assert float(effects[layer].abs().max()) > 1e-3


def test_a_place_counts_alone() -> None:
    subject, place = generator(Linear()), torch.zeros(8, 8)
    place[2:5, 1:4] = 1
    place[6, 6] = 0.25
    values = torch.full((WIDTH,), 2.0)
    change = Change(value=values, place=place)
    effects = Estimator(generator=subject, segmenter=Channels(), layers={"low": change})(PAIRS)["low"]
    for unit in range(WIDTH):
        expected = truth(subject, Edit(layer="low", units=(unit,), value=2.0, mask=place))
        assert torch.allclose(effects[:, unit], expected, atol=1e-5)
    by_row = place * torch.tensor([1.0, 0, 1, 0, 1, 0])[:, None, None]
    rows = Change(value=values, place=by_row)
    some = Estimator(generator=subject, segmenter=Channels(), layers={"low": rows}, batch=4)(PAIRS)["low"]
    assert torch.equal(some[::2], effects[::2])
    assert not some[1::2].any()


def test_directions_are_changed_along_themselves() -> None:
    subject = generator(Linear())
    directions = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    values = torch.tensor([0.0, 1.0, -2.0])
    change = Change(value=values, directions=directions)
    effects = Estimator(generator=subject, segmenter=Channels(), layers={"low": change})(PAIRS)["low"]
    latents = subject.latents(PAIRS.samples)
    maps = subject.module.spread(latents).view(-1, WIDTH, 8, 8)
    for row, (direction, value) in enumerate(zip(directions, values, strict=True)):
        product = torch.einsum("u,nuhw->nhw", direction, maps)
        step = (value - product)[:, None] * (direction / (direction @ direction))[:, None, None]
        expected = torch.cat(
            [
                truth(subject, Edit(layer="low", units=tuple(range(WIDTH)), value=(x + s)[None].detach()), pair)
                for x, s, pair in zip(maps, step, _single(PAIRS), strict=True)
            ]
        )
        assert torch.allclose(effects[:, row], expected, atol=1e-5)


def _single(pairs: Pairs) -> list[Pairs]:
    return [Pairs(samples=[s], classes=[c]) for s, c in zip(pairs.samples, pairs.classes, strict=True)]


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_does_not_depend_on_the_batch(batch: int) -> None:
    subject = generator(Linear(nn.GELU()))
    change = {"low": Change()}
    whole = Estimator(generator=subject, segmenter=Channels(), layers=change)(PAIRS)["low"]
    parts = Estimator(generator=subject, segmenter=Channels(), layers=change, batch=batch)(PAIRS)["low"]
    assert torch.allclose(whole, parts, atol=1e-7)
    assert torch.equal(whole[:, 0] == 0, parts[:, 0] == 0)


def test_what_works_in_place_above_the_layer_is_no_obstacle() -> None:
    plain, inplace = (generator(Linear(nn.ReLU(inplace=inplace))) for inplace in (False, True))
    effects = [
        Estimator(generator=subject, segmenter=Channels(), layers={"low": Change()})(PAIRS)["low"]
        for subject in (plain, inplace)
    ]
    assert torch.equal(*effects)


def test_a_unit_that_acts_only_beyond_a_threshold_is_missed() -> None:
    subject = generator(Linear(Threshold()))
    change = {"low": Change(value=torch.full((WIDTH,), 20.0))}
    effects = Estimator(generator=subject, segmenter=Channels(), layers=change)(PAIRS)["low"]
    assert not effects[:, 0].any()
    assert float(truth(subject, Edit(layer="low", units=(0,), value=20.0)).abs().max()) > 0.01


def test_an_obstacle_is_said() -> None:
    class Labels:
        name, vocabulary = "labels", Channels.vocabulary

        def __call__(self, images: Tensor) -> Tensor:
            return images.argmax(1, keepdim=True)

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(context: object, gradient: Tensor) -> Tensor:
            raise NotImplementedError("no way back")

    class OneWay(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(x)

    layers = {"low": Change()}
    fine = Estimator(generator=generator(Linear()), segmenter=Channels(), layers=layers)
    assert fine.obstacle() == ""
    assert "labels" in Estimator(generator=generator(Linear()), segmenter=Labels(), layers=layers).obstacle()

    class Shifted(Channels):
        def probabilities(self, images: Tensor) -> Tensor:
            return torch.cat([images[:, :1], images], 1)  # a background that is no class

    shifted = Estimator(generator=generator(Linear()), segmenter=Shifted(), layers=layers)
    assert "4 channels" in shifted.obstacle()
    detached = Estimator(generator=generator(Linear()), segmenter=Hard(), layers=layers)
    assert "no gradient" in detached.obstacle()
    with pytest.raises(NoGradient, match=r"hard.*linear"):
        detached(PAIRS)
    assert (
        "no way back"
        in Estimator(generator=generator(Linear(OneWay())), segmenter=Channels(), layers=layers).obstacle()
    )
