"""CycleGAN and pix2pix generators against a second statement of them, on bare tensors, from keys alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganatomy.dissect.generators.families.pix2pix import ResnetGenerator, UnetGenerator, infer
from ganatomy.hooks.errors import DissectError
from ganatomy.hooks.tap import Tap

State = dict[str, Tensor]


def convolution(state: State, key: str, shape: tuple[int, ...], bias: bool) -> None:
    state[f"{key}.weight"] = torch.randn(shape) * 0.3
    if bias:
        state[f"{key}.bias"] = torch.randn(shape[0]) * 0.1


def batch_norm(state: State, key: str, width: int) -> None:
    state[f"{key}.weight"] = torch.randn(width) * 0.2 + 1
    state[f"{key}.bias"] = torch.randn(width) * 0.1
    state[f"{key}.running_mean"] = torch.randn(width) * 0.1
    state[f"{key}.running_var"] = torch.rand(width) + 0.5
    state[f"{key}.num_batches_tracked"] = torch.tensor(7)


def resnet_state(inputs: int, outputs: int, width: int, blocks: int, *, batch: bool, dropout: bool) -> State:
    """The keys that the original writes, spelt out."""
    state: State = {}
    plan = [(1, (width, inputs, 7, 7)), (4, (2 * width, width, 3, 3)), (7, (4 * width, 2 * width, 3, 3))]
    after = 10 + blocks
    for place, shape in plan:
        convolution(state, f"model.{place}", shape, not batch)
        if batch:
            batch_norm(state, f"model.{place + 1}", shape[0])
    for block in range(blocks):
        for place in (1, 6 if dropout else 5):
            key = f"model.{10 + block}.conv_block"
            convolution(state, f"{key}.{place}", (4 * width, 4 * width, 3, 3), not batch)
            if batch:
                batch_norm(state, f"{key}.{place + 1}", 4 * width)
    for place, wide in ((after, 2 * width), (after + 3, width)):
        state[f"model.{place}.weight"] = torch.randn(2 * wide, wide, 3, 3) * 0.3
        if batch:
            batch_norm(state, f"model.{place + 1}", wide)
        else:
            state[f"model.{place}.bias"] = torch.randn(wide)
    convolution(state, f"model.{after + 7}", (outputs, width, 7, 7), True)
    return state


def normed(state: State, key: str, x: Tensor) -> Tensor:
    """Batch norm where there are keys of it, or else instance norm; both from their definitions."""
    if f"{key}.weight" in state:
        mean, var = (state[f"{key}.{name}"][:, None, None] for name in ("running_mean", "running_var"))
        scaled = (x - mean) / torch.sqrt(var + 1e-5)
        return scaled * state[f"{key}.weight"][:, None, None] + state[f"{key}.bias"][:, None, None]
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
    return (x - mean) / torch.sqrt(var + 1e-5)


def weights(state: State, key: str) -> tuple[Tensor, Tensor | None]:
    return state[f"{key}.weight"], state.get(f"{key}.bias")


def naive_resnet(state: State, x: Tensor, blocks: int, dropout: bool) -> dict[str, Tensor]:
    """What the network outputs at every place worth a name; the images are `out`."""
    seen = {}

    def mirrored(x: Tensor, margin: int) -> Tensor:
        return F.pad(x, (margin,) * 4, "reflect")

    x = torch.relu(normed(state, "model.2", F.conv2d(mirrored(x, 3), *weights(state, "model.1"))))
    for place in (4, 7):
        x = F.conv2d(x, *weights(state, f"model.{place}"), stride=2, padding=1)
        seen[f"model.{place + 2}"] = x = torch.relu(normed(state, f"model.{place + 1}", x))
    for place in range(10, 10 + blocks):
        key, second = f"model.{place}.conv_block", 6 if dropout else 5
        y = F.conv2d(mirrored(x, 1), *weights(state, f"{key}.1"))
        y = torch.relu(normed(state, f"{key}.2", y))
        y = F.conv2d(mirrored(y, 1), *weights(state, f"{key}.{second}"))
        seen[f"model.{place}"] = x = x + normed(state, f"{key}.{second + 1}", y)
    for place in (10 + blocks, 13 + blocks):
        x = F.conv_transpose2d(x, *weights(state, f"model.{place}"), stride=2, padding=1, output_padding=1)
        seen[f"model.{place + 2}"] = x = torch.relu(normed(state, f"model.{place + 1}", x))
    seen["out"] = torch.tanh(F.conv2d(mirrored(x, 3), *weights(state, f"model.{17 + blocks}")))
    return seen


def unet_state(inputs: int, outputs: int, width: int, downs: int, *, batch: bool) -> State:
    state: State = {}
    widths = [width * min(2**level, 8) for level in range(downs)]
    convolution(state, "model.model.0", (width, inputs, 4, 4), not batch)
    state["model.model.3.weight"] = torch.randn(2 * width, outputs, 4, 4) * 0.3
    state["model.model.3.bias"] = torch.randn(outputs) * 0.1
    key = "model.model.1.model"
    for level in range(1, downs):
        last = level == downs - 1
        above, here = widths[level - 1], widths[level]
        convolution(state, f"{key}.1", (here, above, 4, 4), not batch)
        up = f"{key}.{3 if last else 5}"
        state[f"{up}.weight"] = torch.randn(here if last else 2 * here, above, 4, 4) * 0.3
        if not batch:
            state[f"{up}.bias"] = torch.randn(above) * 0.1
        if batch:
            batch_norm(state, f"{key}.{4 if last else 6}", above)
        if batch and not last:
            batch_norm(state, f"{key}.2", here)
        key += ".3.model"
    return state


def naive_unet(state: State, x: Tensor, downs: int) -> dict[str, Tensor]:
    """Down through a list, up again with what the list holds, in place as the original has it."""
    keys = ["model.model.1.model" + ".3.model" * level for level in range(downs - 1)]
    x = F.conv2d(x, *weights(state, "model.model.0"), stride=2, padding=1)
    skips = [x]
    for key in keys:
        F.leaky_relu_(x, 0.2)  # writes over the skip as well
        x = F.conv2d(x, *weights(state, f"{key}.1"), stride=2, padding=1)
        if key != keys[-1]:
            x = normed(state, f"{key}.2", x)
            skips.append(x)
    seen = {}
    for key in reversed(keys):
        up, norm = (3, 4) if key == keys[-1] else (5, 6)
        x = F.conv_transpose2d(torch.relu(x), *weights(state, f"{key}.{up}"), stride=2, padding=1)
        seen[f"{key}.{norm}"] = x = normed(state, f"{key}.{norm}", x)
        x = torch.cat((skips.pop(), x), 1)
    x = F.conv_transpose2d(torch.relu(x), *weights(state, "model.model.3"), stride=2, padding=1)
    return {**seen, "out": torch.tanh(x)}


def double(state: State) -> State:
    return {key: tensor.double() for key, tensor in state.items()}


def assert_same(module: ResnetGenerator | UnetGenerator, images: Tensor, expected: dict[str, Tensor]) -> None:
    """The same images, and the same featuremaps at the layers worth dissecting, in this order; in float64."""
    assert module.layers == tuple(name for name in expected if name != "out")
    with torch.no_grad(), Tap(module.double(), module.layers) as tap:
        out = module(images)
    torch.testing.assert_close(out, expected["out"], rtol=1e-8, atol=1e-9)
    for name in module.layers:
        torch.testing.assert_close(tap[name], expected[name], rtol=1e-8, atol=1e-9)
    assert out.std() > 0.05  # no comparison of nothing with nothing


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("inputs", "outputs", "blocks"), [(3, 3, 2), (1, 3, 1), (3, 1, 0)])
def test_a_resnet_puts_out_what_the_second_statement_says(
    inputs: int, outputs: int, blocks: int, dropout: bool, batch: bool
) -> None:
    torch.manual_seed(inputs + 2 * blocks)
    state = resnet_state(inputs, outputs, 4, blocks, batch=batch, dropout=dropout)
    module = infer(state)
    assert isinstance(module, ResnetGenerator)
    assert (module.inputs, module.multiple, module.latent) == (inputs, 4, 0)
    images = torch.rand(2, inputs, 12, 20, dtype=torch.float64) * 2 - 1
    assert_same(module, images, naive_resnet(double(state), images, blocks, dropout))


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(("inputs", "outputs", "downs"), [(3, 3, 5), (1, 3, 6), (3, 1, 2)])
def test_a_unet_puts_out_what_the_second_statement_says(inputs: int, outputs: int, downs: int, batch: bool) -> None:
    torch.manual_seed(inputs + 2 * downs)
    state = unet_state(inputs, outputs, 2, downs, batch=batch)
    module = infer(state)
    assert isinstance(module, UnetGenerator)
    assert (module.inputs, module.multiple) == (inputs, 2**downs)
    images = torch.rand(2, inputs, 2**downs, 2 ** (downs + 1), dtype=torch.float64) * 2 - 1
    assert_same(module, images, naive_unet(double(state), images, downs))


def test_the_published_sizes_have_the_published_keys() -> None:
    with torch.device("meta"):
        resnet = ResnetGenerator(3, 3, 64, 9, batch=False, dropout=False)
        unet = UnetGenerator(3, 3, 64, 8, batch=True)
    assert len(resnet.state_dict()) == 48  # 24 convolutions, each a weight and a bias
    assert sum(tensor.numel() for tensor in resnet.parameters()) == 11_378_179
    assert sum(tensor.numel() for tensor in unet.parameters()) == 54_413_955
    assert resnet.layers[:3] == ("model.6", "model.9", "model.10")
    assert resnet.layers[-3:] == ("model.18", "model.21", "model.24")
    assert unet.layers[0] == "model.model.1" + ".model.3" * 6 + ".model.4"
    assert unet.layers[-1] == "model.model.1.model.6"


def test_statistics_of_old_instance_norms_are_dropped() -> None:
    state = resnet_state(3, 3, 4, 1, batch=False, dropout=True)
    old = dict(state)
    for key in ("model.2", "model.10.conv_block.7"):
        old |= {f"{key}.running_mean": torch.ones(4), f"{key}.running_var": torch.ones(4)}
    old["model.2.num_batches_tracked"] = torch.tensor(3)
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(infer(old)(images), infer(state)(images))


@pytest.mark.parametrize("batch", [False, True])
def test_a_state_dict_goes_round(batch: bool) -> None:
    states = [
        resnet_state(3, 3, 4, 2, batch=batch, dropout=True),
        unet_state(3, 3, 2, 5, batch=batch),
    ]
    for state in states:
        module = infer(double(state))
        found = module.state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
        assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
        assert not module.training
        state[next(iter(state))].zero_()
        assert next(iter(module.state_dict().values())).any()  # the copy is its own


def test_a_file_without_batch_counts_loads() -> None:
    state = unet_state(3, 3, 2, 5, batch=True)
    module = infer({key: tensor for key, tensor in state.items() if "num_batches" not in key})
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    assert_same(module, images, naive_unet(double(state), images, 5))


def without(key: str) -> Callable[[State], object]:
    return lambda state: state.pop(key)


def put(key: str, *size: int) -> Callable[[State], object]:
    return lambda state: state.update({key: torch.ones(size)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("model.1.weight"), "no key is like model.1.weight .*or model.model.0.weight"),
        (without("model.7.weight"), "key model.7.weight is missing"),
        (without("model.12.bias"), "key model.12.bias is missing"),
        (without("model.19.weight"), "key model.19.weight is missing"),
        (without("model.10.conv_block.5.weight"), "key model.10.conv_block.5.weight is missing"),
        (put("model.7.filt", 8, 1, 3, 3), "model.7.filt is an anti-aliasing filter.*no_antialias"),
        (put("model.1.weight", 4), r"model.1.weight has shape \(4\); expected the 4 axes"),
        (put("model.1.weight", 0, 3, 7, 7), r"model.1.weight has shape \(0, 3, 7, 7\); expected"),
        (put("model.4.weight", 8, 4, 4, 4), r"model.4.weight has shape \(8, 4, 4, 4\), expected \(8, 4, 3, 3\)"),
        (put("model.19.weight", 4, 4, 7, 7), "outputs 4 channels; expected 3, or 1"),
        (put("model.2.weight", 4), r"key model.2.bias is missing"),
        (put("model.99.bias", 4), "key model.99.bias is not of this architecture"),
    ],
)
def test_what_does_not_fit_a_resnet_is_named(change: Callable[[State], object], said: str) -> None:
    state = resnet_state(3, 3, 4, 2, batch=False, dropout=False)
    change(state)
    with pytest.raises(DissectError, match=said) as caught:
        infer(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("model.model.3.weight"), "key model.model.3.weight is missing"),
        (without("model.model.1.model.3.model.6.running_var"), "model.model.1.model.3.model.6.running_var is missing"),
        (put("model.model.3.weight", 4, 2, 4, 4), "outputs 2 channels"),
        (lambda state: [state.pop(key) for key in list(state) if ".1.model." in key], "1 times; expected 2 to 12"),
        (
            lambda state: state.update(
                {"model.model.1" + ".model.3" * depth + ".model.1.weight": torch.ones(1) for depth in range(2000)}
            ),
            "2001 times; expected 2 to 12",
        ),
    ],
)
def test_what_does_not_fit_a_unet_is_named(change: Callable[[State], object], said: str) -> None:
    state = unet_state(3, 3, 2, 5, batch=True)
    change(state)
    with pytest.raises(DissectError, match=said):
        infer(state)


def test_instance_norms_may_have_weights_and_blocks_any_name() -> None:
    """As scripts write it that are not the authors': `model.10.block.1`, and `InstanceNorm2d(affine=True)`."""
    torch.manual_seed(0)
    plain = resnet_state(3, 3, 4, 2, batch=False, dropout=False)
    network = infer(plain)
    norms = [name for name, part in network.named_modules() if isinstance(part, torch.nn.InstanceNorm2d)]
    sizes = {name: network.get_submodule(name).num_features for name in norms}
    affine = {f"{name}.{key}": torch.randn(size) for name, size in sizes.items() for key in ("weight", "bias")}
    state = {key.replace("conv_block", "block"): value for key, value in (plain | affine).items()}
    found = infer(state)
    images = torch.rand(1, 3, 16, 16) * 2 - 1

    def scaled(name: str) -> Callable[..., Tensor]:
        weight, bias = (affine[f"{name}.{key}"][:, None, None] for key in ("weight", "bias"))
        return lambda _part, _inputs, out: out * weight + bias

    for name in norms:
        network.get_submodule(name).register_forward_hook(scaled(name))
    with torch.no_grad():
        torch.testing.assert_close(found(images), network(images), atol=1e-5, rtol=1e-4)
