"""Checkpoints as training scripts save them: any entry, nesting, prefix and wrapper, and files that are none."""

from __future__ import annotations

import argparse
import io
import itertools
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from ganatomy.cli import main
from ganatomy.dissect import ModelSpec, load_generator
from ganatomy.dissect.generators import torch_files
from ganatomy.dissect.generators.checkpoints import load_state_dict, read_entries
from ganatomy.dissect.generators.entries import Entry, entries, folded, unwrapped
from ganatomy.dissect.generators.families.dcgan import DCGAN
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.generators.torch_files import read_inert
from ganatomy.hooks.errors import DissectError, UsageError

State = dict[str, Tensor]


@pytest.fixture
def network() -> ProGAN:
    torch.manual_seed(0)
    return ProGAN(8, (6, 5, 4))


def judge() -> State:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 1)).state_dict()


NESTINGS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "netG_state_dict": lambda state: {"netG_state_dict": state, "netD_state_dict": judge(), "epoch": 3},
    "G_state": lambda state: {"G_state": state, "D_state": judge(), "loss": [0.5, 0.25]},
    "models.generator": lambda state: {"models": {"generator": state, "discriminator": judge()}, "lr": 1e-4},
    "list": lambda state: [judge(), state],
    "gen, optimizers": lambda state: {
        "gen": state,
        "opt_gen": {"state": {0: {"exp_avg": torch.ones(2), "step": torch.ones(())}}, "param_groups": [{"lr": 1.0}]},
    },
    "options of any class": lambda state: {"model_state_dict": state, "args": argparse.Namespace(lr=1), "path": Path()},
}
PREFIXES: dict[str, Callable[[State], State]] = {
    "": lambda state: state,
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "_orig_mod.module.": lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    "generator. and discriminator.": lambda state: (
        {f"generator.{key}": value for key, value in state.items()}
        | {f"discriminator.{key}": value for key, value in judge().items()}
    ),
    "netG.module.": lambda state: (
        {f"netG.module.{key}": value for key, value in state.items()} | {"netD.module.weight": torch.zeros(1, 3)}
    ),
}


@pytest.mark.parametrize(("nesting", "prefix"), list(itertools.product(NESTINGS, PREFIXES)))
@pytest.mark.parametrize("legacy", [False, True])
def test_any_entry_nesting_and_prefix(nesting: str, prefix: str, legacy: bool, network: ProGAN, tmp_path: Path) -> None:
    content = NESTINGS[nesting](PREFIXES[prefix](network.state_dict()))
    torch.save(content, tmp_path / "g.pth", _use_new_zipfile_serialization=not legacy)
    found = load_generator(str(tmp_path / "g.pth"))
    latents = found.latents([0, 1])
    with torch.no_grad():
        torch.testing.assert_close(found.module(latents), network.eval()(latents))


def test_the_averaged_copy_comes_first_and_the_others_are_named(network: ProGAN, tmp_path: Path) -> None:
    torch.manual_seed(1)
    averaged = ProGAN(8, (6, 5, 4))
    content = {"generator": network.state_dict(), "generator_smooth": averaged.state_dict(), "discriminator": judge()}
    torch.save(content, tmp_path / "g.pth")
    found = load_generator(str(tmp_path / "g.pth"))
    assert torch.equal(found.module.layer1.conv.weight, averaged.layer1.conv.weight)
    assert found.provenance.entry == "generator_smooth"
    assert found.recognised is not None
    assert "others that fit: generator; choose by --entry" in found.recognised
    chosen = load_generator(ModelSpec(str(tmp_path / "g.pth"), entry="generator"))
    assert torch.equal(chosen.module.layer1.conv.weight, network.layer1.conv.weight)
    with pytest.raises(UsageError, match=r"entry='ema': .* there are generator_smooth, generator, discriminator"):
        load_generator(ModelSpec(str(tmp_path / "g.pth"), entry="ema"))


def test_two_that_are_as_likely_are_refused_by_name(network: ProGAN, tmp_path: Path) -> None:
    torch.save({"netG_A": network.state_dict(), "netG_B": network.state_dict()}, tmp_path / "g.pth")
    with pytest.raises(DissectError, match=r"that fit \(netG_A, netG_B\); choose one by `entry` netG_A"):
        load_generator(str(tmp_path / "g.pth"))
    shown = CliRunner().invoke(main, ["inspect", "--model", str(tmp_path / "g.pth"), "--entry", "netG_B"])
    assert shown.exit_code == 0, shown.output
    assert "entry netG_B" in " ".join(shown.output.split())


def test_the_run_keeps_the_entry(tmp_path: Path) -> None:
    spec = ModelSpec("g.pth", entry="ema")
    assert spec.record() == {"model": "g.pth", "entry": "ema"}
    assert ModelSpec.recorded(spec.record()) == spec
    assert spec.options() == ["--entry", "ema"]


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("generator_smooth", 0), ("G_ema", 0), ("ema.shadow", 0), ("g_running", 0), ("state_dict.ema_model", 0),
        ("netG", 1), ("netG_state_dict", 1), ("gen", 1), ("models.generator", 1), ("G_A2B", 1), ("decoder", 1),
        ("state_dict", 2), ("model", 2), ("", 2), ("params", 2),
        ("netD", 3), ("discriminator", 3), ("optimizer_G", 3), ("optimG", 3), ("D_ema", 3), ("critic", 3),
    ],
)  # fmt: skip
def test_names_tell_which_is_likelier(name: str, rank: int) -> None:
    assert Entry(name=name, state={}).rank == rank


class Net(nn.Module):
    """With buffers of both kinds; whole modules are pickled by their class's name."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.ConvTranspose2d(4, 3, 4), nn.BatchNorm2d(3))
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)


@pytest.mark.parametrize("legacy", [False, True])
def test_whole_modules_are_read_as_their_state(legacy: bool, tmp_path: Path) -> None:
    network = Net()
    half = {"half": torch.ones(3, dtype=torch.bfloat16), "long": torch.arange(4), "view": torch.arange(6.0)[1::2]}
    content = {"net": network, "number": np.float64(3), "folder": Path("x"), **half}
    torch.save(content, tmp_path / "g.pth", _use_new_zipfile_serialization=not legacy)
    read = read_inert(tmp_path / "g.pth")
    assert isinstance(read, dict)
    expected = network.state_dict()
    assert list(read["net"]) == list(expected)
    assert all(torch.equal(read["net"][key], value) for key, value in expected.items())
    assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in half.items())
    assert read["folder"] is None
    torch.save(network, tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
    assert set(load_state_dict(tmp_path / "whole.pth")) == set(expected)


def test_a_module_that_pickle_wrote_is_read_too(tmp_path: Path) -> None:
    network = Net()
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(network))
    assert torch.equal(load_state_dict(tmp_path / "g.pkl")["main.0.weight"], network.main[0].weight)


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"archive/{name.replace('__', '/')}", content)
    return path


def test_hostile_archives_end_in_an_error(tmp_path: Path) -> None:
    """Not in gigabytes: a packed member, and a tensor that repeats its numbers."""
    torch.save({"a": Path(), "w": torch.ones(4)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as good:
        data = next(good.read(name) for name in good.namelist() if name.endswith("data.pkl"))
    bomb = archive(tmp_path / "bomb.pth", **{"data.pkl": data, "data__0": bytes(1 << 24)})
    with pytest.raises(ValueError, match="larger than the whole file"):
        read_inert(bomb)
    wide = torch.ones(1).expand(1 << 40)
    torch.save({"a": Path(), "w": wide}, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match="larger than its numbers"):
        read_inert(tmp_path / "wide.pth")
    with pytest.raises(DissectError, match="larger than its numbers"):
        load_state_dict(tmp_path / "wide.pth")


def test_references_that_repeat_cost_what_they_hold_once(tmp_path: Path) -> None:
    numbers = dict.fromkeys(map(str, range(20_000)), 1)
    (tmp_path / "wide.pkl").write_bytes(pickle.dumps({"odd": Path(), "many": [numbers] * 5000}))
    read = torch_files.read_plain(tmp_path / "wide.pkl")
    assert isinstance(read, dict)
    assert read["many"][0] is read["many"][-1]
    whole = Net()
    for _ in range(60):
        outer = Net()
        outer.left = outer.right = whole  # twice the same child, on every level
        whole = outer
    (tmp_path / "deep.pkl").write_bytes(pickle.dumps(whole))
    with pytest.raises(ValueError, match=r"too many modules|without end"):
        torch_files.read_plain(tmp_path / "deep.pkl")


def test_packed_archives_and_repeated_numbers_are_not_opened(tmp_path: Path, network: ProGAN) -> None:
    torch.save(network.state_dict(), tmp_path / "g.pth")
    with (
        zipfile.ZipFile(tmp_path / "g.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(DissectError, match="is packed"):
        load_state_dict(tmp_path / "packed.pth")
    torch.save({"a": torch.zeros(1).expand(30_000, 30_000), "b": torch.ones(2), "c": torch.ones(2)}, tmp_path / "w.pth")
    assert set(load_state_dict(tmp_path / "w.pth")) == {"b", "c"}


def test_what_is_beside_the_weights_may_be_of_any_kind(tmp_path: Path, network: ProGAN) -> None:
    odd = {"sparse": torch.eye(3).to_sparse(), "complex": torch.ones(2, dtype=torch.complex64), "path": Path()}
    torch.save({"netG": network.state_dict(), "more": odd}, tmp_path / "g.pth")
    assert set(load_generator(str(tmp_path / "g.pth")).module.state_dict()) == set(network.state_dict())


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = [endless] * 1000
    assert entries(endless) == []
    deep: Any = {"x": torch.ones(1), "y": torch.ones(1)}
    for _ in range(30):
        deep = {"in": deep}
    assert entries(deep) == []
    wide = {str(number): {"a": torch.ones(1), "b": torch.ones(1)} for number in range(5000)}
    assert len(entries(wide)) <= 256
    shared = [1]
    for _ in range(40):  # two to the power of forty paths
        shared = [shared, shared]
    monkeypatch.setattr(torch_files, "MOST_ITEMS", 1000)
    meaning = torch_files._Meaning(torch_files._no_storage)
    meaning.of(shared)
    assert meaning.left < 1000


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"<!DOCTYPE html><html>", "g.pth", "a web page.*download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "g.pth", "pointer of Git LFS.*git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "g.pth", r"an image \(PNG\).*inputs=FOLDER"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "g.h5", "an HDF5 file, as Keras"),
        (b"\x08\x07\x12\x07pytorch" + bytes(50), "g.onnx", "an ONNX graph"),
        (b"\x1f\x8b\x08" + bytes(50), "g.pth.gz", r"an archive \(gzip\).*unpack it"),
        (bytes(257) + b"ustar" + bytes(300), "g.tar", r"an archive \(tar\)"),
        (b"\x93NUMPY" + bytes(50), "g.npy", "an array of NumPy"),
        (b"", "g.pth", "is empty"),
        (b"epoch 3 loss 0.5\n", "g.txt", "a text file"),
        (b"\x0a\x05graph", "saved_model.pb", "a checkpoint of TensorFlow"),
    ],
)
def test_what_is_no_checkpoint_is_named_with_the_way_out(content: bytes, name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DissectError, match=said) as caught:
        load_state_dict(tmp_path / name)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_are_told_apart(tmp_path: Path) -> None:
    scripted = torch.jit.script(nn.Linear(2, 2))
    scripted.save(str(tmp_path / "script.pt"))
    exported = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(exported, str(tmp_path / "exported.pt2"))
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    archive(tmp_path / "plain.zip", readme=b"x")
    for name, said in {
        "script.pt": "a TorchScript program; in the code that made it",
        "exported.pt2": "a program of torch.export",
        "arrays.npz": "an archive of NumPy's arrays",
        "plain.zip": r"an archive \(zip\)",
    }.items():
        with pytest.raises(DissectError, match=said):
            load_state_dict(tmp_path / name)


def test_safetensors_under_any_name(network: ProGAN, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "weights.bin")
    assert set(load_state_dict(tmp_path / "weights.bin")) == set(network.state_dict())


def test_norms_of_weights_are_worked_in() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for norm in (weight_norm, spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm):
        for layer in (nn.Linear(3, 4), nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 3, 4), nn.ConvTranspose2d(3, 5, 4)):
            with torch.no_grad():
                made = norm(layer)
                for _ in range(3):  # power iterations in training
                    made.train()(torch.randn(2, 3, 8, 8) if layer.weight.ndim == 4 else torch.randn(2, 3))
            layers.append(made.eval())
    network = nn.Sequential(*layers)
    found = folded(network.state_dict())
    assert set(found) == {f"{place}.{name}" for place in range(len(layers)) for name in ("weight", "bias")}
    for place, layer in enumerate(layers):
        layer(torch.randn(2, 3, 8, 8) if layer.weight.ndim == 4 else torch.randn(2, 3))  # the older ones set it
        torch.testing.assert_close(found[f"{place}.weight"], layer.weight.detach(), rtol=1e-5, atol=1e-6)


def test_wrappers_are_left_out_wherever_they_stand() -> None:
    state = {"module.a.module._orig_mod.weight": torch.ones(1), "b.bias": torch.ones(1)}
    assert list(unwrapped(state)) == ["a.weight", "b.bias"]


def test_an_unknown_file_ends_with_the_command_for_own_code(tmp_path: Path) -> None:
    torch.save({"attn.to_q.scales": torch.ones(3, 3, 3), "x.y": torch.ones(2, 2, 2)}, tmp_path / "odd.pth")
    shown = CliRunner().invoke(main, ["inspect", "--model", str(tmp_path / "odd.pth")])
    assert shown.exit_code == 1
    assert f"dissect inspect --model train.py:Generator --weights {tmp_path / 'odd.pth'} --latent" in shown.stderr
    assert "progan" not in shown.stderr
    whole = CliRunner().invoke(main, ["inspect", "--model", str(tmp_path / "odd.pth"), "--debug"])
    assert "progan: no key is like" in str(whole.exception.__cause__)


def test_nearest_family_is_named_with_the_difference(tmp_path: Path) -> None:
    state = DCGAN(8, (6, 5), (4, 4)).state_dict() | {"main.3.extra": torch.ones(2)}
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(DissectError, match=r"like a dcgan, but key main\.3\.extra is not of this architecture"):
        load_generator(str(tmp_path / "g.pth"))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("synthesis.L0_36_512.weight", "It is a StyleGAN3, which is not supported yet"),
        ("blocks.0.0.conv2d4.weight", "It is StudioGAN's deep BigGAN"),
        ("module.feat_8.1.weight_orig", "It is a FastGAN"),
        ("time_embedding.linear_1.weight", "It is the denoising network of a diffusion model"),
        ("decoder.mid.block_1.conv1.weight", "converted by the diffusers library it opens as diffusers:FOLDER"),
        ("transformer.wte.weight", "It is a transformer"),
    ],
)
def test_networks_of_other_kinds_are_named(key: str, said: str, tmp_path: Path) -> None:
    torch.save({key: torch.ones(2, 2, 3, 3), "mapping.fc0.weight": torch.ones(2, 2)}, tmp_path / "s.pt")
    with pytest.raises(DissectError, match=said):
        load_generator(str(tmp_path / "s.pt"))


def test_entries_of_a_file_in_memory() -> None:
    buffer = io.BytesIO()
    torch.save({"ema": {"a": torch.ones(1), "b": torch.ones(1)}, "latent_avg": torch.ones(3)}, buffer)
    buffer.seek(0)
    (found,) = entries(torch.load(buffer, weights_only=True))[:1]
    assert found.name == "ema"
    assert set(found.state) == {"a", "b", "latent_avg"}  # which stands beside it


def test_no_entries_is_one_line(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "g.pth")
    with pytest.raises(DissectError, match="holds a list, and no tensors that have names"):
        read_entries(tmp_path / "g.pth")
