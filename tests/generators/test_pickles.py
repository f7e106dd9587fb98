"""NVIDIA's release files: what they hold is read, and nothing in them runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ganatomy.dissect.generators.release_pickles import read_networks
from ganatomy.hooks.errors import DissectError

from ..support.releases import PLAIN, Discriminator, EasyDict, Generator, Kept, Layer, Network, snapshot


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_networks_come_back_with_their_options_and_state(protocol: int, written: Callable[..., Path]) -> None:
    content = snapshot()
    networks = read_networks(written(content, protocol))
    assert list(networks) == ["G", "D", "G_ema"]
    for name, network in networks.items():
        truth = content[name].state_dict()
        assert list(network.state) == list(truth)
        for key, tensor in truth.items():
            assert torch.equal(network.state[key], tensor)
            assert network.state[key].dtype == tensor.dtype
            assert not network.state[key].requires_grad
    assert networks["D"].class_name == "Discriminator"
    assert networks["D"].options == {"c_dim": 0, "img_resolution": 8}
    assert networks["G_ema"].class_name == "Generator"
    assert repr(networks["G_ema"].options) == repr(PLAIN)  # equal, and of the same plain types all the way down


def test_what_is_no_network_is_left_out(written: Callable[..., Path]) -> None:
    networks = read_networks(written(EasyDict(G=None, D={"plain": 1}, G_ema=Discriminator(), augment_pipe=None)))
    assert list(networks) == ["G_ema"]
    with pytest.raises(DissectError, match="holds no network under G, D, G_ema"):
        read_networks(written({"G": None, "augment_pipe": Layer(1, 1)}))


def test_the_source_in_the_file_never_runs(
    written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    monkeypatch.setattr(Kept, "source", f"import nowhere_at_all\nopen({str(marker)!r}, 'w')\n")
    path = written(snapshot())
    assert b"nowhere_at_all" in path.read_bytes()
    read_networks(path)
    assert not marker.exists()


def test_reading_imports_nothing_by_name(written: Callable[..., Path]) -> None:
    path = written(snapshot())
    read_networks(path)
    before = set(sys.modules)
    read_networks(path)
    assert set(sys.modules) == before
    assert not any(name.split(".")[0] in ("torch_utils", "dnnlib") or "_imported_module" in name for name in before)


def test_files_of_tensorflow_are_told_apart(written: Callable[..., Path]) -> None:
    for content in [(Network(), Network(), Network()), Network()]:
        with pytest.raises(DissectError, match=r"network\.pkl is refused: it holds TensorFlow weights.*legacy\.py"):
            read_networks(written(content, protocol=3))


@pytest.mark.parametrize("option", [np.ones(2), {1, 2}, b"bytes", np.complex128(1j), torch.device("cpu")])
def test_an_option_that_is_not_plain_is_named(option: object, written: Callable[..., Path]) -> None:
    with pytest.raises(DissectError, match=r"_init_kwargs\['a'\]\['b'\] is a .*, not a plain value"):
        read_networks(written({"G": Generator(a={"b": option})}))
