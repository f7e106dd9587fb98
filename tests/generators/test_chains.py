"""Plain generators rebuilt from their weights: beside the networks that wrote them, and by their batch norms."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import ModelSpec, load_generator
from ganatomy.dissect.generators.batch_statistics import Agreement, agreement, measure, reproduces
from ganatomy.dissect.generators.chains.code import as_python
from ganatomy.dissect.generators.chains.hypotheses import SearchResult, reading
from ganatomy.dissect.generators.chains.layers import gap, interleaved, layers_in
from ganatomy.dissect.generators.chains.network import Chain, activation, build
from ganatomy.dissect.generators.chains.plan import ACTIVATIONS, Plan, step
from ganatomy.dissect.generators.chains.rebuild import parse_choices, rebuild
from ganatomy.dissect.generators.chains.search import output_of
from ganatomy.dissect.generators.latents import parse_latents
from ganatomy.dissect.generators.sources import NoiseImages
from ganatomy.hooks.errors import DissectError, DissectWarning, UsageError

from ..conftest import ColourSegmenter

pytestmark = pytest.mark.slow

LATENT = 12


def trained(network: nn.Module, latents: Callable[[int], Tensor], steps: int = 200) -> nn.Module:
    """With statistics of latents, and weights that are no noise: each layer's outputs vary by unit."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
        for _ in range(steps):
            network.train()(latents(128))
    return network.eval()


class Named(nn.Module):
    """Layers as attributes, all norms behind all convolutions, activations in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(LATENT, 24 * 16)
        self.up1 = nn.ConvTranspose2d(24, 16, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(16, 10, 4, 2, 1)
        self.up3 = nn.ConvTranspose2d(10, 3, 4, 2, 1)
        self.norm0, self.norm1, self.norm2 = nn.BatchNorm2d(24), nn.BatchNorm2d(16), nn.BatchNorm2d(10)

    def forward(self, z: Tensor) -> Tensor:
        x = torch.relu(self.norm0(self.project(z).view(-1, 24, 4, 4)))
        x = torch.relu(self.norm1(self.up1(x)))
        return torch.tanh(self.up3(torch.relu(self.norm2(self.up2(x)))))


class Labelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.label_emb = nn.Embedding(5, 6)
        self.net = nn.Sequential(
            nn.ConvTranspose2d(LATENT + 6, 24, 7), nn.BatchNorm2d(24), nn.ReLU(),
            nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        labels = z[:, LATENT:].argmax(1)
        return self.net(torch.cat([z[:, :LATENT], self.label_emb(labels)], 1)[:, :, None, None])


def sequential(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (LATENT, 1, 1)), *layers)


def leaky() -> nn.Module:
    return sequential(
        nn.ConvTranspose2d(LATENT, 24, 4, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(24, 16, 5, 2, 2, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.BatchNorm2d(12), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def resized() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 12 * 49), nn.Unflatten(1, (12, 7, 7)), nn.BatchNorm2d(12), nn.Upsample(scale_factor=2),
        nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12, 0.8), nn.ELU(), nn.Upsample(scale_factor=2),
        nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12, 0.8), nn.ELU(), nn.Conv2d(12, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


def unpadded() -> nn.Module:
    return sequential(
        nn.ConvTranspose2d(LATENT, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 24, 4, 1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.ConvTranspose2d(24, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2), nn.Tanh(),
    )  # fmt: skip


def activated_first() -> nn.Module:
    """The norm behind the activation."""
    return sequential(
        nn.ConvTranspose2d(LATENT, 24, 4), nn.ReLU(), nn.BatchNorm2d(24),
        nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.ReLU(), nn.BatchNorm2d(16),
        nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ReLU(), nn.BatchNorm2d(12),
        nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def flat() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 32), nn.LeakyReLU(0.2), nn.Linear(32, 48), nn.BatchNorm1d(48), nn.LeakyReLU(0.2),
        nn.Linear(48, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.2), nn.Linear(64, 784), nn.Tanh(),
        nn.Unflatten(1, (1, 28, 28)),
    )  # fmt: skip


def gaussian(count: int) -> Tensor:
    return torch.randn(count, LATENT)


def uniform(count: int) -> Tensor:
    return torch.rand(count, LATENT) * 2 - 1


def with_class(count: int) -> Tensor:
    return torch.cat([torch.randn(count, LATENT), torch.eye(5)[torch.randint(5, (count,))]], 1)


WILD: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], str]] = {
    "leaky, uniform": (leaky, uniform, "latent=uniform,act=leaky_relu:0.2,side=32,output=tanh"),
    "names, norms last": (Named, gaussian, "latent=normal,act=relu,side=32,output=tanh"),
    "resized, epsilon 0.8": (resized, gaussian, "latent=normal,act=elu,side=28,output=tanh"),
    "no padding": (unpadded, gaussian, "latent=normal,act=relu,side=28,output=tanh"),
    "activation before the norm": (activated_first, gaussian, "latent=normal,act=relu,side=32,output=tanh"),
    "classes": (Labelled, with_class, "latent=normal,act=relu,side=28,output=tanh"),
    "numbers": (flat, uniform, "latent=uniform,act=leaky_relu:0.2,side=28,output=tanh"),
}


@pytest.mark.parametrize("kind", WILD)
def test_a_network_is_rebuilt_from_its_weights_alone(kind: str) -> None:
    torch.manual_seed(0)
    make, latents, said = WILD[kind]
    network = trained(make(), latents)
    found = rebuild(network.state_dict())
    assert reading(found.plan) == said
    assert found.search_result is not None
    assert reproduces(found.search_result.agreements)
    z = latents(8)
    with torch.no_grad():
        torch.testing.assert_close(found(z), network(z), atol=2e-5, rtol=1e-4)


def test_what_contradicts_the_statistics_is_refused() -> None:
    torch.manual_seed(0)
    network = trained(leaky(), gaussian)
    state = {
        key: value * 7 + 3 if key.endswith("running_mean") else value for key, value in network.state_dict().items()
    }
    with pytest.raises(DissectError, match="reproduce what 2 remembers of the training"):
        rebuild(state)


def test_without_norms_candidates_are_drawn_and_one_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = nn.Sequential(nn.ConvTranspose2d(LATENT, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(),
                            nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())  # fmt: skip
    with torch.no_grad():
        network[4].weight.mul_(30)
    torch.save(network.state_dict(), "g.pth")
    with pytest.raises(UsageError, match=r"plain chain that has no batch norms .*assumed=.latent=normal,act=relu"):
        load_generator("g.pth")
    shown = dissect.inspect("g.pth")
    assert "latent=normal,act=leaky_relu:0.2,side=16,output=tanh" in shown.candidates
    assert shown.sheet is not None
    assert shown.sheet.stat().st_size > 1000
    assert "no batch norms" in shown.fingerprint
    with pytest.warns(DissectWarning, match="nothing in it tells latents uniform:12; .*activation leaky_relu:0.2"):
        chosen = load_generator(ModelSpec("g.pth", assumed="act=leaky_relu:0.2,latent=uniform"))
    assert isinstance(chosen.module, Chain)
    assert chosen.module.plan.activations() == ["leaky_relu:0.2"]
    assert str(chosen.source) == "uniform:12"
    with pytest.warns(DissectWarning):
        asked = load_generator(ModelSpec("g.pth", assumed="act=relu", latent="sphere:12"))
    assert str(asked.source) == "sphere:12"
    z = gaussian(2)
    with torch.no_grad():
        torch.testing.assert_close(asked.module(z), network(z[:, :, None, None]), atol=1e-5, rtol=1e-4)


def test_images_of_an_unusual_size_are_asked_about(tmp_path: Path) -> None:
    network = sequential(
        nn.ConvTranspose2d(LATENT, 24, 7), nn.BatchNorm2d(24), nn.ReLU(),
        nn.ConvTranspose2d(24, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip
    torch.save(trained(network, gaussian).state_dict(), tmp_path / "g.pth")
    with pytest.raises(UsageError, match=r"plain chain that .*assumed=.latent=normal,act=relu,side=25"):
        load_generator(str(tmp_path / "g.pth"))
    with pytest.warns(DissectWarning, match="was rebuilt"):
        chosen = load_generator(ModelSpec(str(tmp_path / "g.pth"), assumed="side=25"))
    z = chosen.latents([0, 1])
    assert torch.allclose(chosen.module(z), network(z), atol=1e-5)


@pytest.mark.parametrize(
    ("side", "off", "settled", "said"),
    [
        (32, 0.02, True, ""),
        (25, 0.02, True, "unusual size, 25×25 pixels"),
        (32, 0.14, True, "only roughly, off by up to 0.14 standard deviations"),
        (32, 0.02, False, "about as well with other strides and paddings"),
        (32, 0.6, True, "does not reproduce"),
    ],
)
def test_what_is_doubtful_is_told(side: int, off: float, settled: bool, said: str) -> None:
    plan = Plan(latent="normal:4", steps=(step("linear", "a", units=[4, side**2]), step("view", shape=[1, side, side])))
    norm = Agreement(layer="a", mean=off, deviation=off, units=torch.full((3,), 2 * off))
    doubt = SearchResult(plan=plan, agreements=(norm,), norms=1, settled=settled).doubt
    assert said in doubt
    assert bool(said) == bool(doubt)


def test_untrained_statistics_decide_nothing() -> None:
    with pytest.raises(DissectError, match=r"no images of side 48"):
        rebuild(leaky().state_dict(), "side=48")
    found = rebuild(leaky().state_dict())
    assert found.search_result is not None
    assert found.search_result.agreements == ()


def test_the_plan_travels(tmp_path: Path) -> None:
    """In the description of a run, and in a checkpoint that is saved: no second search, the same network."""
    torch.manual_seed(0)
    network = trained(leaky(), uniform)
    torch.save({"netG": network.state_dict()}, tmp_path / "g.pth")
    with pytest.warns(DissectWarning, match="was rebuilt from its weights; nothing in it tells behind 8"):
        opened = load_generator(str(tmp_path / "g.pth"))
    assert opened.spec is not None
    assert opened.spec.assumed is not None
    again = load_generator(ModelSpec.recorded(json.loads(json.dumps(opened.spec.record()))))
    assert isinstance(again.module, Chain)
    assert again.module.search_result is None  # it was not searched
    assert again.module.plan == opened.module.plan
    torch.save(opened.module.state_dict(), tmp_path / "saved.pth")
    saved = load_generator(str(tmp_path / "saved.pth"))
    assert saved.module.plan == opened.module.plan
    assert str(saved.source) == "uniform:12"


def test_it_is_dissected_and_ablated_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(trained(leaky(), uniform).state_dict(), tmp_path / "g.pth")
    with pytest.warns(DissectWarning):
        run = dissect.run(
            str(tmp_path / "g.pth"), "6", segmenter=ColourSegmenter(), samples=64, out=tmp_path / "run", quiet=True,
        )  # fmt: skip
    assert run.info["provenance"]["file"].endswith("g.pth")
    assert '"kind":"transposed"' in run.info["source"]["assumed"]
    assert len(run.units) == 16
    effects = dissect.ablate(run, units="6:0,1", samples=16, segmenter=ColourSegmenter(), quiet=True)
    assert len(effects.table)


def test_the_python_that_is_written_is_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = trained(unpadded(), gaussian)
    torch.save(network.state_dict(), tmp_path / "g.pth")
    options = ["--model", str(tmp_path / "g.pth"), "--write", str(tmp_path / "mine.py")]
    shown = CliRunner().invoke(main, ["inspect", *options])
    assert shown.exit_code == 0, shown.output
    assert "reproduces its training statistics" in " ".join(shown.output.split())
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own = module.Generator().eval()
    own.load_state_dict(network.state_dict())
    z = gaussian(4)
    with torch.no_grad():
        torch.testing.assert_close(own(z), network(z), atol=2e-5, rtol=1e-4)
    again = CliRunner().invoke(main, ["inspect", *options])
    assert again.exit_code == 2
    assert "exists; name a new file" in again.stderr


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("act=swish", "'act=swish' is not understood; there are act= "),
        ("relu", "'relu' is not understood"),
        ("side=big", "'side=big' is not understood"),
        ("{", r"assumed.* is no plan; there are act="),
    ],
)
def test_choices_that_cannot_be_read(chosen: str, said: str) -> None:
    with pytest.raises(DissectError, match=said):
        rebuild(leaky().state_dict(), chosen)


def test_choices_are_read() -> None:
    asked = parse_choices("act=relu, latent=uniform01,side=64,output=sigmoid", None)
    assert (asked.activation, str(asked.latent), asked.side, asked.output) == ("relu", "uniform:0,0,1", 64, "sigmoid")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a.weight": torch.ones(4, 3)}, "fewer than two layers"),
        ({"a.weight": torch.ones(8, 3, 3, 3), "b.weight": torch.ones(3, 8, 3, 3)}, "a takes images"),
        ({"a.weight": torch.ones(8, 4), "b.weight": torch.ones(20, 8)}, "it ends in 20, no images"),
        ({"a.weight": torch.ones(8, 4), "b.weight": torch.ones(784, 9)}, r"b \(linear\) cannot follow .* \(8\)"),
        ({"a.weight": torch.ones(8), "a.bias": torch.ones(8)}, "a is a norm without running statistics"),
        ({"a.weight": torch.ones(8, 2, 2)}, "no layer of a plain chain"),
    ],
)
def test_what_makes_no_chain_is_said(state: dict[str, Tensor], said: str) -> None:
    with pytest.raises(DissectError, match=said):
        rebuild(state)


def test_a_decoder_beside_its_encoder_and_a_generator_beside_its_judge(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = trained(leaky(), gaussian)
    beside = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3)).state_dict()
    state = {f"_generator.{key}": value for key, value in network.state_dict().items()}
    torch.save(state | {f"_discriminator.{key}": value for key, value in beside.items()}, tmp_path / "both.pth")
    with pytest.warns(DissectWarning):
        found = load_generator(str(tmp_path / "both.pth"))
    assert found.provenance.entry == "_generator"


def test_the_output_is_settled_by_the_values() -> None:
    torch.manual_seed(0)
    filling = torch.rand(4, 3, 16, 16) * 2 - 1
    assert output_of(filling) == "linear"
    # pixels of photographs, normal around grey with a deviation of a quarter, behind each activation
    pixels = (0.5 + 0.25 * torch.randn(8, 3, 32, 32)).clamp(0.02, 0.98)
    assert output_of(torch.logit(pixels)) == "sigmoid"
    assert output_of(torch.atanh(2 * pixels - 1)) == "tanh"
    assert output_of(torch.logit(pixels[:, :1])) == "tanh"  # grey digits say nothing: the usual one
    assert output_of(torch.where(pixels > 0.5, 9.0, -9.0)) == "tanh"


def test_parts_and_their_order() -> None:
    parts = layers_in(Named().state_dict())
    assert [part.name for part in interleaved(parts)] == [
        "project", "norm0", "up1", "norm1", "up2", "norm2", "up3",
    ]  # fmt: skip
    one, two, three = (part for part in layers_in(leaky().state_dict()) if part.name in ("1", "2", "4"))
    assert (gap(one, two), gap(two, three), gap(None, one)) == (0, 1, None)


def test_plans_are_kept_as_text() -> None:
    torch.manual_seed(0)
    plan = rebuild(trained(flat(), uniform).state_dict()).plan
    assert Plan.read(plan.text()) == plan
    with pytest.raises(DissectError, match="damaged"):
        Plan.read(plan.text()[:-3])
    with pytest.raises(DissectError, match="no activation 'swish'"):
        activation("swish")
    assert [type(activation(which)).__name__.lower() for which in ACTIVATIONS[:2]] == ["relu", "leakyrelu"]


# the fingerprint


def test_agreement_is_the_definition() -> None:
    norm = nn.BatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    norm.running_var.copy_(torch.tensor([4.0, 1.0]))
    found = agreement("n", torch.tensor([2.0, -1.0]), torch.tensor([4.0, torch.e**2]), norm)
    assert found.mean == pytest.approx((1 / 2 + 0) / 2, abs=1e-5)
    assert found.deviation == pytest.approx((0 + 1) / 2, abs=1e-5)


def test_measuring_is_over_all_samples_whatever_the_batches() -> None:
    torch.manual_seed(0)
    network = trained(leaky(), gaussian)
    z = gaussian(96)
    whole = measure(network, network, [z])
    parts = measure(network, network, [z[:7], z[7:40], z[40:]])
    for one, other in zip(whole, parts, strict=True):
        assert (one.mean, one.deviation) == pytest.approx((other.mean, other.deviation), rel=1e-3, abs=1e-5)


def test_inspect_tells_the_right_latents_of_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = trained(leaky(), uniform)
    good = dissect.inspect(dissect.as_generator(network, latent="uniform:12"))
    assert good.fingerprint.startswith("reproduces its training statistics")
    assert good.better is None
    bad = dissect.inspect(dissect.as_generator(network, latent="normal:12"))
    assert bad.fingerprint.startswith("does not reproduce its training statistics")
    assert bad.better == "uniform:12"
    fresh = dissect.inspect(dissect.as_generator(leaky(), latent="normal:12"))
    assert "never taken" in fresh.fingerprint


def test_a_run_begins_with_a_bad_verdict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = trained(leaky(), uniform)
    with pytest.warns(DissectWarning, match="does not reproduce its training statistics"):
        dissect.run(
            network, "6", segmenter=ColourSegmenter(), latent="normal:12", samples=16, out=tmp_path / "run",
            quiet=True, name="wrong",
        )  # fmt: skip


def test_a_dcgan_whose_norms_contradict_it_is_searched(tmp_path: Path) -> None:
    """In the well-known layout, but with strides of its own: 4, 7, 14 and 28 pixels."""
    torch.manual_seed(0)
    main_part = nn.Sequential(
        nn.ConvTranspose2d(LATENT, 24, 4, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.ConvTranspose2d(24, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.ConvTranspose2d(12, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    network = trained(nn.Sequential(nn.Unflatten(1, (LATENT, 1, 1)), main_part), uniform)[1]
    torch.save({f"main.{key}": value for key, value in network.state_dict().items()}, tmp_path / "g.pth")
    with pytest.warns(DissectWarning):
        found = load_generator(str(tmp_path / "g.pth"))
    assert isinstance(found.module, Chain)
    z = uniform(2)
    with torch.no_grad():
        torch.testing.assert_close(found.module(z), network(z[:, :, None, None]), atol=2e-5, rtol=1e-4)


def test_building_checks_the_weights() -> None:
    torch.manual_seed(0)
    network = trained(flat(), uniform)
    plan = rebuild(network.state_dict()).plan
    state = network.state_dict()
    state.pop("0.bias")
    with pytest.raises(DissectError, match=r"key 0\.bias is missing"):
        build(plan, state)
    assert parse_latents(plan.latent).kind == "uniform"


# what files that nobody vouches for must not do


@pytest.fixture(scope="module")
def rebuilt() -> Chain:
    torch.manual_seed(0)
    return rebuild(leaky().state_dict())


def test_names_of_layers_are_no_code(tmp_path: Path) -> None:
    state = leaky().state_dict()
    odd = {key.replace("1.", '1": __import__("os").abort(), "', 1): value for key, value in state.items()}
    with pytest.raises(DissectError, match="is no name of a layer"):
        rebuild(odd)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept["steps"][1]["settings"].__setitem__(2, ["bias", "__import__('os').abort()"]),
        lambda kept: kept["steps"].clear(),
        lambda kept: kept["steps"][1]["settings"].clear(),
        lambda kept: kept.update(latent="evil"),
        lambda kept: kept["steps"].extend([{"kind": "upsample", "name": "", "settings": [["mode", "nearest"]]}] * 30),
        lambda kept: kept["steps"][1].update(kind="exec"),
        lambda kept: kept["steps"][1]["settings"].append(["kernel", 10**12]),
    ],
)
def test_damaged_and_hostile_plans_are_one_line(
    change: Callable[[Any], object], rebuilt: Chain, tmp_path: Path
) -> None:
    kept = json.loads(rebuilt.plan.text())
    change(kept)
    state = dict(rebuilt.state_dict())
    state["ganatomy_plan"] = torch.frombuffer(bytearray(json.dumps(kept).encode()), dtype=torch.uint8)
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(DissectError) as caught:
        load_generator(str(tmp_path / "g.pth"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


class Beside(nn.Module):
    """Nothing of it is a judge: the part that is called `gen` is no network of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LATENT, 256)
        self.gen = nn.Sequential(
            nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.ConvTranspose2d(12, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.gen(self.fc(z).view(-1, 16, 4, 4))


class Layers(nn.Module):
    """Names that modules have another use for."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LATENT, 12 * 16), nn.Unflatten(1, (12, 4, 4)), nn.BatchNorm2d(12), nn.ReLU(),
            nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


@pytest.mark.parametrize("make", [Beside, Layers])
def test_heads_of_any_name_belong_to_the_network(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = trained(make(), gaussian)
    torch.save(network.state_dict(), tmp_path / "g.pth")
    with pytest.warns(DissectWarning):
        found = load_generator(str(tmp_path / "g.pth"))
    z = gaussian(3)
    with torch.no_grad():
        torch.testing.assert_close(found.module(z), network(z), atol=2e-5, rtol=1e-4)
    torch.save(found.module.state_dict(), tmp_path / "saved.pth")
    again = load_generator(str(tmp_path / "saved.pth"))
    with torch.no_grad():
        torch.testing.assert_close(again.module(z), network(z), atol=2e-5, rtol=1e-4)


def test_choices_that_contradict_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = trained(leaky(), gaussian)
    with pytest.raises(UsageError, match=r"latent=.normal:13.: 1, the first layer, takes 12 or 24 numbers"):
        rebuild(network.state_dict(), None, "normal:13")
    with pytest.raises(UsageError, match="say the same; leave one out"):
        rebuild(network.state_dict(), "latent=uniform", "normal:12")
    found = rebuild(network.state_dict())
    with pytest.raises(UsageError, match="saved with its plan"):
        rebuild(found.state_dict(), "act=elu")
    with pytest.raises(UsageError, match="which says it"):
        rebuild(network.state_dict(), found.plan.text(), "normal:12")


def test_the_python_of_a_conditional_network_takes_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = trained(Labelled(), with_class)
    found = rebuild(network.state_dict())
    text = as_python(found.plan, found.order, file="g.pth", name="mine.py", values="[-1, 1]")
    scope: dict[str, Any] = {}
    exec(compile(text, "mine.py", "exec"), scope)  # our own text, of our own weights
    own = scope["Generator"]().eval()
    own.load_state_dict(network.state_dict())
    z, labels = gaussian(4), torch.tensor([0, 3, 4, 1])
    with torch.no_grad():
        wanted = network(torch.cat([z, torch.eye(5)[labels]], 1))
        torch.testing.assert_close(own(z, labels), wanted, atol=2e-5, rtol=1e-4)
    source = dissect.as_generator(own, latent=f"normal:{LATENT}").source
    assert str(source) == "normal:12 and class all of 5"


def test_images_that_are_not_given_are_no_verdict() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1))
    for _ in range(3):
        network(torch.rand(2, 3, 8, 8))
    generator = dissect.Generator(module=network, name="n", source=NoiseImages(side=16))
    assert "it takes images; give them by --inputs" in dissect.inspect(generator).fingerprint
