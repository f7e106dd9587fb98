"""Safe loading, and the progressive GAN against its formula written out by hand."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect.generators.checkpoints import load_state_dict, load_weights, sha256
from ganatomy.dissect.generators.families.progan import infer as infer_progan
from ganatomy.dissect.generators.recognition import open_checkpoint
from ganatomy.hooks.errors import DissectError, UsageError

LATENT, WIDTHS = 3, (4, 2)  # images of 8 pixels


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Weights of a tiny progressive GAN, in the present spelling."""
    draw = torch.Generator().manual_seed(1)
    shapes = {
        "layer1.conv.weight": (4, 3, 4, 4),
        "layer1.wscale.b": (4,),
        "layer2.conv.weight": (4, 4, 3, 3),
        "layer2.wscale.b": (4,),
        "layer3.conv.weight": (2, 4, 3, 3),
        "layer3.wscale.b": (2,),
        "layer4.conv.weight": (2, 2, 3, 3),
        "layer4.wscale.b": (2,),
        "output_8x8.conv.weight": (3, 2, 1, 1),
        "output_8x8.wscale.b": (3,),
    }
    return {key: torch.randn(shape, generator=draw) for key, shape in shapes.items()}


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(5, LATENT, generator=torch.Generator().manual_seed(2))


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in the older spelling."""
    spelt = {}
    for key, tensor in state.items():
        block, rest = key.split(".", 1)
        spelt[f"features.{int(block[5:]) - 1}.{rest}" if block.startswith("layer") else f"output.{rest}"] = tensor
    return spelt


def by_hand(state: dict[str, Tensor], latents: Tensor) -> Tensor:
    """Karras et al. 2018 in float64, line by line: normalise, upsample, convolve, scale, add, leaky ReLU."""

    def normalise(x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(1, keepdim=True) + 1e-8)

    def bias(name: str) -> Tensor:
        return state[f"{name}.wscale.b"].double().reshape(1, -1, 1, 1)

    x = latents.double().reshape(-1, LATENT, 1, 1)
    for name, fan_in, kernel, padding in (
        ("layer1", 3, 4, 3),
        ("layer2", 4, 3, 1),
        ("layer3", 4, 3, 1),
        ("layer4", 2, 3, 1),
    ):
        x = normalise(x)
        if name == "layer3":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # nearest neighbour, twice as large
        x = F.conv2d(x, state[f"{name}.conv.weight"].double(), padding=padding)
        x = x * math.sqrt(2) / (kernel * math.sqrt(fan_in)) + bias(name)
        x = torch.where(x > 0, x, 0.2 * x)
    x = F.conv2d(normalise(x), state["output_8x8.conv.weight"].double())
    return x / math.sqrt(2) + bias("output_8x8")


def test_forward_pass_is_the_formula(state: dict[str, Tensor], latents: Tensor) -> None:
    module = infer_progan(state)
    assert not module.training
    images = module(latents)
    assert images.shape == (5, 3, 8, 8)
    torch.testing.assert_close(images.double(), by_hand(state, latents), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "g_ema"])
@pytest.mark.parametrize("layout", ["present", "older"])
def test_both_spellings_and_wrappers_give_the_same_images(
    state: dict[str, Tensor], latents: Tensor, tmp_path: Path, layout: str, wrapper: str | None
) -> None:
    spelt = older(state) if layout == "older" else state
    file = tmp_path / "tiny.pth"
    torch.save({wrapper: spelt, "epoch": 3} if wrapper else spelt, file)
    generator = open_checkpoint(file)
    assert torch.equal(generator.module(latents), infer_progan(state)(latents))
    assert generator.name == "tiny"
    assert generator.layers == ("layer1", "layer2", "layer3", "layer4")
    assert generator.output_range == (-1, 1)
    assert generator.latents([0, 7]).shape == (2, LATENT)
    assert generator.provenance.file == str(file)
    assert generator.provenance.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_safetensors_give_the_same_images(state: dict[str, Tensor], latents: Tensor, tmp_path: Path) -> None:
    save_file(state, tmp_path / "tiny.safetensors")
    generator = open_checkpoint(tmp_path / "tiny.safetensors")
    assert torch.equal(generator.module(latents), infer_progan(state)(latents))


def test_the_caller_keeps_its_tensors(state: dict[str, Tensor]) -> None:
    module = infer_progan(state)
    before = state["layer1.wscale.b"].clone()
    with torch.no_grad():
        module.get_parameter("layer1.wscale.b").add_(1)
    assert torch.equal(state["layer1.wscale.b"], before)


def test_half_precision_weights_become_float32(state: dict[str, Tensor]) -> None:
    module = infer_progan({key: tensor.half() for key, tensor in state.items()})
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}


def test_stored_scales_of_older_files_count(state: dict[str, Tensor], latents: Tensor) -> None:
    stored = older(state) | {"features.2.wscale.scale": torch.tensor([0.5]), "output.wscale.scale": torch.tensor([2.0])}
    third, output = math.sqrt(2) / (3 * math.sqrt(4)), 1 / math.sqrt(2)  # the scales the formula gives
    changed = dict(state)
    changed["layer3.conv.weight"] = state["layer3.conv.weight"] * (0.5 / third)
    changed["output_8x8.conv.weight"] = state["output_8x8.conv.weight"] * (2.0 / output)
    images = infer_progan(stored)(latents)
    torch.testing.assert_close(images.double(), by_hand(changed, latents), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["present", "older"])
def test_a_missing_key_is_named(state: dict[str, Tensor], layout: str) -> None:
    spelt = older(state) if layout == "older" else state
    for key in spelt:
        with pytest.raises(DissectError) as caught:
            infer_progan({other: tensor for other, tensor in spelt.items() if other != key})
        assert f"key {key} is missing" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extra", ["layer5.conv.weight", "layer2.conv.bias", "output_16x16.wscale.b", "mapping.weight"])
def test_an_extra_key_is_named(state: dict[str, Tensor], extra: str) -> None:
    with pytest.raises(DissectError, match=f"key {extra} is not of this architecture"):
        infer_progan(state | {extra: torch.zeros(2)})


def test_an_extra_key_is_named_in_the_older_spelling(state: dict[str, Tensor]) -> None:
    with pytest.raises(DissectError, match=r"key features\.4\.conv\.weight is not"):
        infer_progan(older(state) | {"features.4.conv.weight": torch.zeros(2, 2, 3, 3)})


@pytest.mark.parametrize("key", ["layer2.conv.weight", "layer3.conv.weight", "layer3.wscale.b", "output_8x8.wscale.b"])
@pytest.mark.parametrize("layout", ["present", "older"])
def test_a_misshapen_key_is_named_with_both_shapes(state: dict[str, Tensor], key: str, layout: str) -> None:
    wrong = state | {key: torch.zeros(7, *state[key].shape[1:])}
    shape = ", ".join(map(str, state[key].shape))
    found = ", ".join(map(str, (7, *state[key].shape[1:])))
    name = next(iter(older({key: state[key]}))) if layout == "older" else key
    with pytest.raises(DissectError) as caught:
        infer_progan(older(wrong) if layout == "older" else wrong)
    assert f"key {name} has shape ({found}), expected ({shape})" in str(caught.value)
    assert str(caught.value).count("has shape") == 1  # only the culprit


def test_empty_layers_and_flat_weights_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(DissectError, match="empty"):
        infer_progan(state | {"layer1.conv.weight": torch.zeros(4, 0, 4, 4)})
    with pytest.raises(DissectError, match=r"layer1\.conv\.weight has shape \(4\)"):
        infer_progan(state | {"layer1.conv.weight": torch.zeros(4)})
    with pytest.raises(DissectError, match="12 pixels"):
        infer_progan({key.replace("8x8", "12x12"): tensor for key, tensor in state.items()})


def test_an_unknown_family_lists_keys_and_what_was_tried(tmp_path: Path) -> None:
    torch.save({"net.0.weight": torch.zeros(2, 2), "net.1.bias": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(DissectError, match=r"train\.py:Generator --weights .*other\.pth.*net\.0\.weight") as caught:
        open_checkpoint(tmp_path / "other.pth")
    assert "progan: no key is like layer1.conv.weight" in str(caught.value.__cause__)  # as --debug shows


class MakesAFolder:
    """Unpickling this creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path, save: str, state: dict[str, Tensor]) -> None:
    trap, file = tmp_path / "trap", tmp_path / "bad.pth"
    content = {**state, "layer1.wscale.b": MakesAFolder(trap)}
    if save == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps({"state_dict": MakesAFolder(trap)}))
    if save == "torch":  # the tensors beside it can be had
        assert set(load_state_dict(file)) == set(state) - {"layer1.wscale.b"}
        with pytest.raises(DissectError, match=r"layer1\.wscale\.b is missing"):
            open_checkpoint(file)
    else:
        with pytest.raises(DissectError, match=r"is refused.*mkdir") as caught:
            load_state_dict(file)
        assert "\n" not in str(caught.value)
    assert not trap.exists()
    torch.load(file, weights_only=False) if save == "torch" else pickle.loads(file.read_bytes())
    assert trap.exists()  # so the trap was a real one


def damaged(kind: str, state: dict[str, Tensor], file: Path) -> None:
    torch.save(state, file, _use_new_zipfile_serialization=kind != "cut legacy")
    whole = file.read_bytes()
    file.write_bytes({"empty": b"", "text": b"not a checkpoint\n" * 20}.get(kind, whole[: len(whole) // 2]))


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "cut legacy"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_one_line(tmp_path: Path, kind: str, suffix: str, state: dict[str, Tensor]) -> None:
    file = tmp_path / f"damaged{suffix}"
    damaged(kind, state, file)
    with pytest.raises(DissectError) as caught:
        load_state_dict(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        load_state_dict(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="is a folder"):
        load_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
        ({"epoch": 3}, "holds a dict, and no tensors that have names"),
        ({0: torch.zeros(1)}, "no tensors that have names"),
        ({}, "no tensors"),
        ({"state_dict": {}}, "no tensors"),
    ],
)
def test_what_is_no_state_dict_is_said(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(DissectError, match=said):
        load_state_dict(tmp_path / "odd.pth")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)  # more than one piece
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "saved",
    [
        lambda state: state,
        lambda state: {"netG_state_dict": state, "epoch": 3},
        lambda state: {"epoch": 3, "model": {"netD": {"x": torch.zeros(2)}, "netG": state}, "loss": [1.0]},
        lambda state: {
            "state_dict": {f"generator.{key}": value for key, value in state.items()} | {"critic.w": torch.ones(1)}
        },
        lambda state: {"_orig_mod.module." + key: value for key, value in state.items()},
    ],
)
def test_own_weights_are_found_where_scripts_put_them(tmp_path: Path, saved: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    network, other = (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    torch.save(saved(network.state_dict()), tmp_path / "g.pth")
    load_weights(other, tmp_path / "g.pth")
    for key, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_several_networks_are_named(tmp_path: Path) -> None:
    torch.save({name: {"x": torch.zeros(2), "y": torch.zeros(2)} for name in "ab"} | {"epoch": 1}, tmp_path / "two.pth")
    with pytest.raises(DissectError, match=r"holds several networks \(a, b\)"):
        load_state_dict(tmp_path / "two.pth")


def test_of_several_that_fit_the_averaged_one_is_taken(tmp_path: Path) -> None:
    plain, averaged, module = (nn.Linear(2, 2) for _ in range(3))
    torch.save({"g": plain.state_dict(), "g_ema": averaged.state_dict(), "d": {"x": torch.ones(1)}}, tmp_path / "g.pth")
    load_weights(module, tmp_path / "g.pth")
    assert torch.equal(module.weight, averaged.weight)
    both = {f"netG_A.{key}": value for key, value in plain.state_dict().items()}
    both |= {f"netG_B.{key}": value for key, value in averaged.state_dict().items()}
    torch.save(both, tmp_path / "two.pth")
    with pytest.raises(DissectError, match=r"several networks that fit \(netG_A, netG_B\)"):
        load_weights(module, tmp_path / "two.pth")
