"""Hooks capture, edit, and leave nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganatomy.hooks import Edit, Tap, edited
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.hooks.layers import find_layer, layer_shapes, pick_layers


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(5, 4, 1))
        self.pair = Pair()
        self.last_ran = False

    def forward(self, x: Tensor) -> Tensor:
        self.last_ran = False
        out: Tensor = self.block(self.first(x))
        self.pair(out)
        self.last_ran = True
        return out


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, int]]:
        return x, {"a": 1}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def hooks_left(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def test_tap_captures_several_layers(net: Net, x: Tensor) -> None:
    with Tap(net, ["first", "block.1"]) as tap:
        out = net(x)
    assert torch.equal(tap["first"], net.first(x))
    assert torch.equal(tap["block.1"], out)
    assert hooks_left(net) == 0


def test_tap_keeps_the_latest_pass(net: Net, x: Tensor) -> None:
    with Tap(net, ["first"]) as tap:
        net(x)
        net(x * 2)
    assert torch.equal(tap["first"], net.first(x * 2))


def test_tap_is_not_fooled_by_layers_that_work_in_place(x: Tensor) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True))
    with Tap(net, ["0", "1"]) as tap:
        net(x)
    assert torch.equal(tap["0"], net[0](x))
    assert torch.equal(tap["1"], net[0](x).relu())


def test_tap_stops_early(net: Net, x: Tensor) -> None:
    net.last_ran = True
    after = []
    with Tap(net, ["first", "block.0"], stop=True) as tap:
        net(x)
        after.append("not reached")
    assert not after
    assert not net.last_ran
    assert torch.equal(tap["block.0"], net.first(x).relu())
    assert hooks_left(net) == 0


def test_nothing_is_left_when_the_second_of_three_layers_is_wrong(net: Net) -> None:
    with pytest.raises(UsageError, match=r"no layer 'blok'.*block"), Tap(net, ["first", "blok", "block"]):
        pass
    assert hooks_left(net) == 0


def test_nothing_is_left_after_an_exception(net: Net, x: Tensor) -> None:
    def fail() -> None:
        with Tap(net, ["first"]), edited(net, Edit(layer="first", units=(1,))):
            assert hooks_left(net) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert hooks_left(net) == 0


def test_an_output_that_is_no_tensor_is_named(net: Net, x: Tensor) -> None:
    with pytest.raises(DissectError, match=r"'pair' returned a tuple \(Tensor, dict\)"), Tap(net, ["pair"]):
        net(x)
    with pytest.raises(DissectError, match="'pair' returned a tuple"), edited(net, Edit(layer="pair", units=(0,))):
        net(x)
    assert hooks_left(net) == 0


def test_a_layer_that_did_not_run_is_named(net: Net) -> None:
    with Tap(net, ["first"]) as tap:
        pass
    with pytest.raises(DissectError, match="took no part"):
        tap["first"]


def test_ablated_units_are_exactly_zero_and_others_untouched(net: Net, x: Tensor) -> None:
    plain = net.first(x)
    with edited(net, Edit(layer="first", units=(1, 3))), Tap(net, ["first"]) as tap:
        net(x)
    assert (tap["first"][:, [1, 3]] == 0).all()
    assert torch.equal(tap["first"][:, [0, 2, 4]], plain[:, [0, 2, 4]])
    assert torch.equal(net.first(x), plain)


def test_insertion_takes_one_value_a_unit(net: Net, x: Tensor) -> None:
    with edited(net, Edit(layer="first", units=(4, 0), value=torch.tensor([2.0, 7.0]))), Tap(net, ["first"]) as tap:
        net(x)
    assert (tap["first"][:, 4] == 2).all()
    assert (tap["first"][:, 0] == 7).all()


@pytest.mark.parametrize("shape", [(6, 6), (2, 1, 6, 6)])
def test_a_mask_says_where(net: Net, x: Tensor, shape: tuple[int, ...]) -> None:
    mask = torch.zeros(shape)
    mask[..., 2, 3] = 1
    mask[..., 4, 4] = 0.25
    plain = net.first(x)
    with edited(net, Edit(layer="first", units=(2,), value=5.0, mask=mask)), Tap(net, ["first"]) as tap:
        net(x)
    found = tap["first"]
    assert (found[:, 2, 2, 3] == 5).all()
    assert torch.allclose(found[:, 2, 4, 4], 0.75 * plain[:, 2, 4, 4] + 0.25 * 5)
    found[:, 2, 2, 3], found[:, 2, 4, 4] = plain[:, 2, 2, 3], plain[:, 2, 4, 4]
    assert torch.equal(found, plain)


@pytest.mark.parametrize(
    "edit",
    [
        Edit(layer="first", units=()),
        Edit(layer="first", units=(0, 1), value=9.0, mask=torch.zeros(6, 6)),
    ],
)
def test_an_edit_of_nothing_is_bit_identical(net: Net, x: Tensor, edit: Edit) -> None:
    plain = net(x)
    with edited(net, edit):
        assert torch.equal(net(x), plain)


def test_edits_apply_in_order(net: Net, x: Tensor) -> None:
    first, second = Edit(layer="first", units=(0, 1), value=1.0), Edit(layer="first", units=(1,), value=2.0)
    with edited(net, first, second), Tap(net, ["first"]) as tap:
        net(x)
    assert (tap["first"][:, 0] == 1).all()
    assert (tap["first"][:, 1] == 2).all()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(layer="first", units=(5,)), r"units 0 to 4.* 5"),
        (Edit(layer="first", units=(-1,)), r"units 0 to 4.* -1"),
        (
            Edit(layer="first", units=(0, 1), value=torch.ones(3)),
            "2 units .* need one value, 2, or maps .*got .3,.",
        ),
        (Edit(layer="first", units=(0,), mask=torch.ones(3, 3)), r"\(6, 6\) positions.*got \(3, 3\)"),
        (Edit(layer="first", units=(0,), mask=torch.ones(3, 1, 6, 6)), r"got \(3, 1, 6, 6\)"),
        (Edit(layer="fist", units=(0,)), "Did you mean first"),
    ],
)
def test_edits_that_do_not_fit(net: Net, x: Tensor, edit: Edit, message: str) -> None:
    with pytest.raises(UsageError, match=message), edited(net, edit):
        net(x)
    assert hooks_left(net) == 0


def test_layers_by_number_and_name(net: Net) -> None:
    names = ("first", "block.1")
    assert pick_layers([2, "first", "1"], names, net) == ("block.1", "first")
    assert pick_layers(["block.0"], names, net) == ("block.0",)
    with pytest.raises(UsageError, match="numbers go from 1 to 2"):
        pick_layers(["3"], names, net)
    with pytest.raises(UsageError, match="numbers go from 1 to 2"):
        pick_layers(["0"], names, net)
    with pytest.raises(UsageError, match=r"no layer 'block\.2'. Did you mean block"):
        pick_layers(["block.2"], names, net)
    with pytest.raises(UsageError, match="There are: first, block, "):
        find_layer(net, "zzz")


def test_shapes_of_every_layer(net: Net, x: Tensor) -> None:
    shapes = {shape.name: shape for shape in layer_shapes(net, lambda: net(x))}
    assert shapes["first"].shape == (5, 6, 6)
    assert shapes["first"].is_featuremap
    assert shapes["first"].innermost
    assert shapes["block"].shape == (4, 6, 6)
    assert not shapes["block"].innermost
    assert shapes["pair"].shape is None
    assert not shapes["pair"].is_featuremap
    assert hooks_left(net) == 0
    with pytest.raises(DissectError, match="failed on one probe sample"):
        layer_shapes(net, lambda: net(torch.randn(1, 7, 6, 6)))
    assert hooks_left(net) == 0


@pytest.mark.parametrize("mask", [None, torch.full((4, 4), 0.5)])
def test_strength_pulls_part_of_the_way(mask: torch.Tensor | None) -> None:
    x = torch.randn(2, 5, 4, 4)
    out = Edit(layer="a", units=(1, 3), value=2.0, mask=mask, strength=0.25)(x)
    pull = 0.25 if mask is None else 0.125
    assert torch.allclose(out[:, [1, 3]], (1 - pull) * x[:, [1, 3]] + pull * 2)
    assert torch.equal(out[:, [0, 2, 4]], x[:, [0, 2, 4]])
