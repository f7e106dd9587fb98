"""BigGAN and BigGAN-deep: the architecture read off the weights, against the networks written out once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from ganatomy.dissect.generators.families import biggan, biggan_deep
from ganatomy.dissect.generators.families.architecture import Architecture
from ganatomy.hooks.errors import DissectError
from ganatomy.hooks.layers import layer_shapes

from ..support.bigs import (
    ATTENTION,
    STAGES,
    TABLES,
    State,
    Table,
    agrees,
    big_images,
    big_state,
    deep_images,
    deep_state,
    one_hot,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_what_was_converted_from_tensorflow_hub_has_a_larger_epsilon() -> None:
    state = big_state([16, 8, 8], 2)
    assert biggan.infer(state).output_layer[0].epsilon == 1e-5
    for key in state:
        if key.endswith(".sv0"):  # a training would have recorded them
            state[key] = torch.ones(1)
    latents = torch.cat([torch.randn(3, 6), one_hot([0, 2, 1], 3)], 1)
    bare = {key: value for key, value in state.items() if not key.endswith(".sv0")}  # as the converter writes them
    for one in (state, bare):
        assert agrees(biggan.infer(one), latents, lambda *given: big_images(*given, [16, 8, 8], 2, 1e-4))


@pytest.mark.slow
@pytest.mark.parametrize("resolution", STAGES)
def test_biggan_of_every_resolution_draws_what_the_paper_says(resolution: int) -> None:
    widths = [(2 if resolution > 128 else 4) * times for times in STAGES[resolution]]
    attention = [] if resolution == 32 else [3]  # at 64 pixels
    state = big_state(widths, 2, attention=attention)
    module = biggan.infer(state)
    assert (module.latent, module.classes) == (2 * len(widths), 3)
    latents = torch.cat([torch.randn(1, module.latent), one_hot([2], 3)], 1)
    with torch.no_grad():
        assert module(latents).shape == (1, 3, resolution, resolution)
    assert agrees(module, latents, lambda *given: big_images(*given, widths, 2))


@pytest.mark.parametrize(
    "kind",
    [
        {"latent": 7},
        {"latent": 7, "embedding": 0},
        {"counted": True},
        {"attention": [0, 2]},
        {"attention": [1], "counted": True, "latent": 3, "embedding": 6, "classes": 1},
        {"attention": [1], "normed": False},
        {"normed": False, "counted": True},
    ],
)
def test_kinds_of_biggan_are_told_by_their_keys(kind: dict[str, int]) -> None:
    widths = [12, 8, 10, 16]  # no table has these
    state = big_state(widths, 2, **kind)
    module = biggan.infer(state)
    latent, classes = kind.get("latent", 8), kind.get("classes", 3)
    assert (module.latent, module.classes) == (latent, classes)
    latents = torch.cat([torch.randn(3, latent), one_hot([0, classes - 1, 0], classes)], 1)
    part = 0 if "latent" in kind else 2
    assert agrees(module, latents, lambda *given: big_images(*given, widths, part))


@pytest.mark.parametrize("resolution", TABLES)
def test_deep_generators_of_the_published_tables_upsample_where_they_should(resolution: int) -> None:
    table = TABLES[resolution]
    state = deep_state(table, 4, attention=ATTENTION)
    module = biggan_deep.infer(state)
    assert (module.latent, module.classes) == (5, 4)
    latents = torch.cat([torch.randn(1, 5), one_hot([3], 4)], 1)
    with torch.no_grad():
        assert module(latents).shape == (1, 3, resolution, resolution)
    assert agrees(module, latents, lambda *given: deep_images(*given, table, ATTENTION, lambda stats: stats[-1]))


@pytest.mark.parametrize(
    ("truncation", "value"),
    [(1.0, 50.0), (0.25, 20.0), (0.5, 30.0), (0.3125, 0.25 * 20 + 0.75 * 30), (0.125, 0.5 * 10 + 0.5 * 20)],
)
def test_truncation_picks_statistics_as_the_original_does(truncation: float, value: float) -> None:
    table = torch.tensor([[10.0, -1], [20, -1], [30, -1], [40, -1], [50, -1]])
    assert torch.equal(biggan_deep.at(table, truncation), torch.tensor([value, -1]))


def test_the_last_row_of_statistics_is_reached_whatever_division_rounds_to() -> None:
    table = torch.arange(50.0)[:, None]  # 1 / (1 / 49) is more than 49
    assert float(biggan_deep.at(table, 1.0)) == pytest.approx(49)


SMALL: Table = ((False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 2))


def test_truncation_is_an_attribute_that_changes_the_image() -> None:
    module = biggan_deep.infer(deep_state(SMALL, 8, attention=2))
    latents = torch.cat([torch.randn(2, 5), one_hot([1, 2], 4)], 1)

    def draws(row: Callable[[Tensor], Tensor]) -> bool:
        return agrees(module, latents, lambda *given: deep_images(*given, SMALL, 2, row))

    assert module.truncation == 1
    assert draws(lambda stats: stats[5])
    module.truncation = 0.5  # between the rows for 0.4 and 0.6
    assert draws(lambda stats: stats[2:4].mean(0))
    assert not draws(lambda stats: stats[5])


# --- both

Infer = Callable[[Mapping[str, Tensor]], Architecture]
BOTH = [
    pytest.param(biggan.infer, lambda: big_state([16, 8, 8], 2, attention=[1]), id="biggan"),
    pytest.param(biggan_deep.infer, lambda: deep_state(SMALL, 8, attention=2), id="biggan_deep"),
]


@pytest.mark.parametrize(("infer", "make"), BOTH)
def test_the_one_hot_chooses_the_class_and_classes_mix(infer: Infer, make: Callable[[], State]) -> None:
    state = make()
    module = infer(state)
    z = torch.randn(1, module.latent)
    rows = one_hot(range(module.classes), module.classes)
    half = (rows[:1] + rows[1:2]) / 2
    with torch.no_grad():
        images = module(torch.cat([z.expand(module.classes + 1, -1), torch.cat([rows, half])], 1))
        embeddings = "shared.weight" if "shared.weight" in state else "embeddings.weight"
        axis = 0 if embeddings == "shared.weight" else 1
        first, second = state[embeddings].unbind(axis)[:2]
        state[embeddings] = torch.stack([(first + second) / 2] * module.classes, axis)
        mixed = infer(state)(torch.cat([z, rows[:1]], 1))
    distances = torch.cdist(images.flatten(1), images.flatten(1)) + torch.eye(len(images)) * 9
    assert float(distances.min()) > 0.1
    assert torch.allclose(images[-1:], mixed, atol=1e-5)


@pytest.mark.parametrize(("infer", "make"), BOTH)
def test_layers_put_out_featuremaps_in_order(infer: Infer, make: Callable[[], State]) -> None:
    module = infer(make())
    shapes = layer_shapes(module, lambda: module(torch.randn(1, module.latent + module.classes)))
    found = {shape.name: shape.shape for shape in shapes if shape.name in module.layers}
    wanted = {
        "biggan": {"blocks.0": (8, 8, 8), "blocks.1": (8, 16, 16)},
        "biggan_deep": {
            "generator.layers.0": (32, 4, 4),
            "generator.layers.1": (16, 8, 8),
            "generator.layers.2": (16, 8, 8),
            "generator.layers.3": (16, 8, 8),
            "generator.layers.4": (16, 16, 16),
        },
    }[module.family]
    assert found == wanted
    assert tuple(wanted) == module.layers


@pytest.mark.parametrize(("infer", "make"), BOTH)
def test_a_sample_does_not_depend_on_its_batch(infer: Infer, make: Callable[[], State]) -> None:
    module = infer(make())
    latents = torch.cat([torch.randn(4, module.latent), one_hot([0, 1, 2, 0], module.classes)], 1)
    with torch.no_grad():
        alone = torch.cat([module(row[None]) for row in latents])
        assert torch.allclose(module(latents), alone, atol=1e-5)


@pytest.mark.parametrize(("infer", "make"), BOTH)
def test_weights_come_out_as_they_went_in(infer: Infer, make: Callable[[], State]) -> None:
    state = make()
    module = infer(state)
    latents = torch.randn(2, module.latent + module.classes)
    with torch.no_grad():
        module(latents)
    out = module.state_dict()
    assert set(out) == set(state)
    assert all(torch.equal(out[key], tensor) for key, tensor in state.items())
    assert not module.training


@pytest.mark.parametrize(("infer", "make"), BOTH)
def test_half_precision_is_made_float(infer: Infer, make: Callable[[], State]) -> None:
    state = {key: tensor.half() for key, tensor in make().items()}
    out = infer(state).state_dict()
    assert {tensor.dtype for tensor in out.values()} == {torch.float32}
    assert all(torch.equal(out[key], tensor.float()) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("blocks.1.0.conv1.weight", None, "blocks.1.0.conv1.weight is missing"),
        ("blocks.1.0.bn1.gain.weight", None, "blocks.1.0.bn1.gain.weight is missing"),
        ("shared.weight", None, "shared.weight is missing"),
        ("linear.weight", torch.ones(256, 9), r"linear.weight has shape \(256, 9\), expected \(256, 2\)"),
        ("blocks.0.0.conv1.weight", torch.ones(9, 16, 3, 3), r"conv1.weight has shape \(9, 16, 3, 3\), expected \(8,"),
        ("blocks.0.0.conv1.weight", torch.ones(()), r"conv1.weight has shape \(\), expected \(8,"),
        ("blocks.0.0.bn1.stored_mean", torch.ones(3), r"bn1.stored_mean has shape \(3\), expected \(16\)"),
        ("blocks.1.1.o.u0", None, "blocks.1.1.o.u0 is missing"),
        ("blocks.1.1.theta.weight", None, "blocks.1.1.phi.weight is not of this architecture"),
        ("blocks.0.0.conv4.weight", torch.ones(1), "conv4.weight is of BigGANdeep.py"),
        ("blocks.4.0.conv1.weight", torch.ones(8, 8, 3, 3), "blocks.2.0.conv1.weight is missing"),
        ("other.weight", torch.ones(3), "other.weight is not of this architecture"),
        ("shared.weight", torch.ones(3, 50), "bn1.gain.weight takes 7 numbers; expected at least the 50"),
        ("shared.weight", torch.ones(0, 5), "shared.weight is missing or misshapen"),
    ],
)
def test_what_does_not_fit_a_biggan_is_named(key: str, value: Tensor | None, said: str) -> None:
    state = big_state([16, 8, 8], 2, attention=[1])
    state[key] = torch.ones(1) if value is None else value
    if value is None:
        del state[key]
    with pytest.raises(DissectError, match=said):
        biggan.infer(state)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("embeddings.weight", None, "embeddings.weight is missing"),
        ("generator.layers.0.conv_0.weight_orig", None, "layers.0.conv_0.weight_orig is missing"),
        ("generator.layers.1.bn_2.scale.weight_u", None, "layers.1.bn_2.scale.weight_u is missing"),
        ("generator.layers.9.conv_0.weight_orig", torch.ones(1, 1, 1, 1), "layers.5.conv_0.weight_orig is missing"),
        ("generator.layers.5.conv_0.weight_orig", torch.ones(4, 16, 1, 1), "5 blocks; expected an even number"),
        ("generator.layers.2.gamma", torch.ones(2), r"layers.2.gamma has shape \(2\), expected \(1\)"),
        ("generator.bn.running_vars", torch.ones(5, 16), r"bn.running_vars has shape \(5, 16\), expected \(6, 16\)"),
        ("generator.layers.0.conv_0.weight_orig", torch.ones(8, 31, 1, 1), r"\(8, 31, 1, 1\), expected \(8, 32, 1, 1"),
        ("other.weight", torch.ones(3), "other.weight is not of this architecture"),
    ],
)
def test_what_does_not_fit_a_deep_one_is_named(key: str, value: Tensor | None, said: str) -> None:
    state = deep_state(SMALL, 8, attention=2)
    state[key] = torch.ones(1) if value is None else value
    if value is None:
        del state[key]
    with pytest.raises(DissectError, match=said):
        biggan_deep.infer(state)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (((False, 4, 2), (True, 2, 2)), "layers.0.conv_3.weight_orig must output 16 units .* expected 32"),
        (((False, 4, 4), (True, 4, 1)), "layers.1.conv_3.weight_orig must output 8 units .* expected 32 or 16"),
    ],
)
def test_deep_generators_that_break_the_rule_of_upsampling_are_refused(table: Table, said: str) -> None:
    with pytest.raises(DissectError, match=said):
        biggan_deep.infer(deep_state(table, 8))


def test_a_deep_generator_needs_three_channels_and_two_rows_of_statistics() -> None:
    with pytest.raises(DissectError, match="makes 2 channels; expected at least 3"):
        biggan_deep.infer(deep_state(((False, 4, 4), (True, 4, 2)), 1))
    with pytest.raises(DissectError, match="statistics for 1 truncation"):
        biggan_deep.infer(deep_state(SMALL, 8, stats=1))


def test_other_networks_are_refused_at_once() -> None:
    stranger = {"main.0.weight": torch.ones(2, 2, 4, 4)}
    for infer, state in (
        (biggan.infer, {}),
        (biggan.infer, stranger),
        (biggan.infer, deep_state(SMALL, 8)),
        (biggan_deep.infer, {}),
        (biggan_deep.infer, stranger),
        (biggan_deep.infer, big_state([16, 8, 8], 2)),
    ):
        with pytest.raises(DissectError, match=r"^no key is like"):
            infer(state)
