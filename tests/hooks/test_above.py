"""What lies above a layer runs alone where the network is a chain, and whole where it is not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganatomy.dissect import Generator, NormalLatents, run
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.interventions.ablate_insert import ablate
from ganatomy.dissect.interventions.areas import Variants, measure
from ganatomy.dissect.subjects.subject import Subject
from ganatomy.hooks import Above, Edit, Tap
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import ColourSegmenter

Rest = Callable[[Any, Tensor, Tensor], Any]


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 3, 3, padding=1)


class Join(nn.Module):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x + other


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Wired(nn.Module):
    """Layer `a`, then whatever `rest` does with its output and the network's input."""

    def __init__(self, rest: Rest) -> None:
        super().__init__()
        self.before, self.a, self.b, self.c = (conv() for _ in range(4))
        self.join, self.pair, self.dropout = Join(), Pair(), nn.Dropout()
        self.relu, self.leaky_in_place = nn.ReLU(), nn.LeakyReLU(0.2, inplace=True)
        self.rest = rest

    def forward(self, x: Tensor) -> Any:
        return self.rest(self, self.a(self.before(x)), x)


class Listed(nn.Module):
    """Blocks of a ModuleList one after another, with one activation between them all."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(conv(), nn.Sequential(nn.BatchNorm2d(3), conv())), conv(), conv()])
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.act(block(x))
        return x


def nested() -> nn.Module:
    inner = nn.Sequential(nn.Sequential(conv(), nn.ReLU(inplace=True)), conv())
    return nn.Sequential(nn.Sequential(conv(), nn.ReLU()), inner, nn.Sigmoid())


def tapped(net: nn.Module, layer: str, x: Tensor) -> Tensor:
    with Tap(net, [layer]) as tap:
        net(x)
    return tap[layer]


def modules_run(net: nn.Module, go: Callable[[], object]) -> list[str]:
    ran: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, module in net.named_modules()
        if not any(module.children())
    ]
    go()
    for handle in handles:
        handle.remove()
    return ran


def hooks_left(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 3, 6, 6)


@pytest.mark.parametrize(
    ("build", "layer", "above"),
    [
        (lambda: nn.Sequential(conv(), nn.ReLU(), conv(), nn.Tanh()), "0", ["1", "2", "3"]),
        (lambda: nn.Sequential(conv(), nn.ReLU()), "1", []),
        (nested, "0.0", ["0.1", "1.0.0", "1.0.1", "1.1", "2"]),
        (nested, "0", ["1.0.0", "1.0.1", "1.1", "2"]),
        (nested, "1.0.0", ["1.0.1", "1.1", "2"]),
        (nested, "1", ["2"]),
        (Listed, "blocks.0.0", ["blocks.0.1.0", "blocks.0.1.1", "act", "blocks.1", "act", "blocks.2", "act"]),
        (Listed, "blocks.1", ["act", "blocks.2", "act"]),
        (lambda: Wired(lambda net, m, _: net.c(net.relu(net.b(m)))), "a", ["b", "relu", "c"]),
    ],
)
def test_a_chain_runs_from_the_layer_on(
    build: Callable[[], nn.Module], layer: str, above: list[str], x: Tensor
) -> None:
    net = build().eval()
    whole, maps = net(x), tapped(net, layer, x)
    go = Above(net, layer, x[:1])
    assert go.chain is not None
    assert modules_run(net, lambda: go(maps.clone(), x)) == above
    assert torch.equal(go(maps, x), whole)
    assert hooks_left(net) == 0


@pytest.mark.parametrize("number", range(1, 7))
def test_progan_is_a_chain_at_every_layer(number: int) -> None:
    torch.manual_seed(number)
    net = ProGAN(8, (8, 8, 4))
    latents = torch.randn(5, 8)
    maps = tapped(net, f"layer{number}", latents)
    go = Above(net, f"layer{number}", latents[:1])
    later = [*(f"layer{k}" for k in range(number + 1, 7)), "output_16x16"]
    assert modules_run(net, lambda: go(maps, latents)) == [
        f"{name}.{part}" for name in later for part in ("conv", "wscale")
    ]
    assert torch.equal(go(maps, latents), net(latents))
    changed = Edit(layer="", units=(0, 2))(maps)
    truth = changed
    for name in later:
        truth = net.get_submodule(name)(truth)
    assert torch.equal(go(changed, latents), truth)
    assert not torch.equal(truth, net(latents))


def test_inside_a_block_with_arithmetic_the_whole_network_runs() -> None:
    torch.manual_seed(0)
    net, latents = ProGAN(8, (8, 8, 4)), torch.randn(2, 8)
    go = Above(net, "layer3.conv", latents[:1])  # F.leaky_relu ends the block
    assert go.chain is None
    assert torch.equal(go(tapped(net, "layer3.conv", latents), latents), net(latents))


NO_CHAIN: dict[str, Rest] = {
    "skip connection": lambda net, m, _: net.c(net.b(m) + m),
    "skip into a module": lambda net, m, _: net.c(net.join(net.b(m), m)),
    "arithmetic between modules": lambda net, m, _: net.c(net.b(m) * 2),
    "function right above": lambda net, m, _: net.b(m * 2),
    "function at the end": lambda net, m, _: torch.tanh(net.b(m)),
    "in place between modules": lambda net, m, _: net.c(torch.relu_(net.b(m))),
    "in place right above": lambda net, m, _: net.c(torch.relu_(m)),
    "in place at the end": lambda net, m, _: net.b(m).mul_(2),
    "two inputs": lambda net, m, z: net.c(net.join(net.b(m), z)),
    "two inputs, one by name": lambda net, m, z: net.c(net.join(net.b(m), other=z)),
    "a branch for nothing": lambda net, m, _: (net.c(m), net.b(m))[1],
}


@pytest.mark.parametrize("case", NO_CHAIN)
def test_anything_else_runs_whole_with_the_maps_in_place(case: str, x: Tensor) -> None:
    net = Wired(NO_CHAIN[case])
    whole, maps = net(x), tapped(net, "a", x)
    go = Above(net, "a", x[:1])
    assert go.chain is None
    assert "before" in modules_run(net, lambda: go(maps.clone(), x))
    assert torch.equal(go(maps.clone(), x), whole)
    others = torch.randn(maps.shape)
    truth = NO_CHAIN[case](net, others.clone(), x)
    assert torch.equal(go(others.clone(), x), truth)
    assert not torch.equal(truth, whole)
    assert torch.equal(net(x), whole)
    assert hooks_left(net) == 0


def test_a_layer_called_twice_is_replaced_both_times(x: Tensor) -> None:
    net = Wired(lambda net, m, _: net.c(net.join(m, net.a(net.b(m)))))
    go = Above(net, "a", x[:1])
    assert go.chain is None
    others = torch.randn(3, 3, 6, 6)
    assert torch.equal(go(others, x), net.c(others + others))
    twice = Wired(lambda net, m, _: net.b(net.a(m)))
    assert torch.equal(Above(twice, "a", x[:1])(tapped(twice, "a", x), x), twice(x))


def test_modules_that_draw_at_random_are_no_chain(x: Tensor) -> None:
    net = Wired(lambda net, m, _: net.c(net.dropout(net.b(m)))).train()
    assert Above(net, "a", x[:1]).chain is None
    assert Above(net.eval(), "a", x[:1]).chain is not None


def test_an_output_of_several_tensors_is_no_chain(x: Tensor) -> None:
    net = Wired(lambda net, m, _: net.pair(net.b(m)))
    go = Above(net, "a", x[:1])
    assert go.chain is None
    found = go(tapped(net, "a", x), x)
    assert isinstance(found, tuple)
    assert torch.equal(found[1], net(x)[1])


def test_an_operation_in_place_that_leaves_the_probe_as_it_is_counts_too(x: Tensor) -> None:
    net = Wired(lambda net, m, _: net.b(m.clamp_(-10, 10)))
    go = Above(net, "a", x[:1])
    assert torch.equal(go(tapped(net, "a", x * 1000), x * 1000), net(x * 1000))


@pytest.mark.parametrize("chain", [True, False])
def test_the_given_maps_are_left_alone_by_what_works_in_place(chain: bool, x: Tensor) -> None:
    net = Wired(lambda net, m, _: net.b(net.leaky_in_place(m)) if chain else net.leaky_in_place(m).tanh())
    go, maps = Above(net, "a", x[:1]), tapped(net, "a", x)
    assert (go.chain is not None) == chain
    kept = maps.clone()
    assert torch.equal(go(maps, x), net(x))
    assert torch.equal(maps, kept)


def test_a_change_of_nothing_changes_no_pixel_where_the_next_layer_works_in_place() -> None:
    """The same through the loop of every intervention, which sees the maps twice: before and after."""
    torch.manual_seed(0)
    first, rest = nn.ConvTranspose2d(4, 6, 8), nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(6, 3, 1))
    nn.init.normal_(first.weight), nn.init.normal_(rest[1].weight)  # strong enough to be seen
    net = nn.Sequential(OrderedDict(first=first, rest=rest)).eval()
    generator = Generator(module=net, name="in place", source=NormalLatents((4, 1, 1)), layers=("first",))
    nothing = Variants(weight=torch.zeros(1, 1, 6), value=torch.zeros(6))
    areas = measure(Subject.open(generator, ColourSegmenter(), "first"), range(8), nothing)
    assert (areas.before[:, :4].sum(0) > 0).any()  # there is something to change
    assert (areas.changed == 0).all()
    assert (areas.difference == 0).all()


def test_a_layer_of_the_run_called_by_a_digit_is_not_taken_for_its_number(tmp_path: Path) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 5, 8), nn.Conv2d(5, 6, 1), nn.Conv2d(6, 3, 1)).eval()
    generator = Generator(module=net, name="digits", source=NormalLatents((4, 1, 1)))
    usual: dict[str, Any] = {"segmenter": ColourSegmenter(), "quiet": True}
    found = run(model=generator, layers=[1, 2], samples=4, out=tmp_path / "run", **usual)
    assert found.layers == ["0", "1"]
    effects = ablate(found, units="1:4", generator=generator, samples=2, random_sets=0, **usual)
    assert effects.info["layer"] == "1"


def test_nothing_is_left_after_an_exception(x: Tensor) -> None:
    net = Wired(lambda net, m, _: net.b(m) + m)
    go, maps = Above(net, "a", x[:1]), tapped(net, "a", x)
    net.rest = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        go(maps, x)
    assert hooks_left(net) == 0
    with pytest.raises(ZeroDivisionError):
        Above(net, "a", x[:1])
    assert hooks_left(net) == 0


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        ("aa", UsageError, "no layer 'aa'"),
        ("", UsageError, "no layer ''"),
        ("c", DissectError, "'c' took no part"),
        ("pair", DissectError, "'pair' returned a tuple"),
    ],
)
def test_layers_that_will_not_do(layer: str, kind: type[Exception], message: str, x: Tensor) -> None:
    net = Wired(lambda net, m, _: net.pair(net.b(m))[0])
    with pytest.raises(kind, match=message):
        Above(net, layer, x[:1])
    assert hooks_left(net) == 0


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("mask", [None, torch.tensor([[1.0, 0, 0, 1, 0, 0]]).expand(6, 6)], ids=["everywhere", "mask"])
def test_maps_are_inserted_one_a_unit(number: int, mask: Tensor | None, x: Tensor) -> None:
    value, before = torch.randn(number, 2, 6, 6), x.clone()
    found = Edit(layer="a", units=(2, 0), value=value, mask=mask)(x)
    for n in range(3):
        mine = value[n % number]
        for across in range(6):
            here = mask is None or across in (0, 3)
            assert torch.equal(found[n, 2, :, across], mine[0, :, across] if here else before[n, 2, :, across])
            assert torch.equal(found[n, 0, :, across], mine[1, :, across] if here else before[n, 0, :, across])
    assert torch.equal(found[:, 1], before[:, 1])
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(2, 2, 6, 6), (3, 1, 6, 6), (3, 2, 6, 5), (2, 6, 6), (1, 3, 2, 6, 6)])
def test_maps_that_do_not_fit(shape: tuple[int, ...], x: Tensor) -> None:
    with pytest.raises(UsageError, match=r"2 units of layer 'a' need one value, 2, or maps \(3, 2, 6, 6\)"):
        Edit(layer="a", units=(2, 0), value=torch.zeros(shape))(x)
