"""Release files in NVIDIA's format, written as its persistence module writes them."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

FAKES = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util", "dnnlib.tflib", "dnnlib.tflib.network")


class EasyDict(dict):
    """NVIDIA's dict with attributes, as far as pickle can tell."""

    def __getattr__(self, name: str) -> object:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _reconstruct_persistent_obj(meta: dict) -> object:
    raise AssertionError("the reader must not get here")


class Network:
    """What TensorFlow's files hold."""


class Kept(nn.Module):
    """A module that is pickled as torch_utils/persistence.py does: with a source text and its __dict__."""

    source = ""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self._init_args, self._init_kwargs = (), options

    def __reduce__(self) -> tuple[object, ...]:
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": type(self).__name__}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta | {"state": vars(self)},), None


class Layer(Kept):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        shape = torch.randn(fan_out, fan_in, 3, 3).to(memory_format=torch.channels_last)
        self.weight = nn.Parameter(shape, requires_grad=False)
        self.bias = None
        self.register_parameter("noise_strength", nn.Parameter(torch.randn([])))
        self.register_buffer("resample_filter", torch.randn(8)[2:6])
        self.register_buffer("nothing", None)
        self.register_buffer("scratch", torch.randn(5), persistent=False)
        self.weight_gain = 1 / np.sqrt(fan_in)
        self.size = np.broadcast_to(np.asarray(fan_in), [2])


class Generator(Kept):
    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.register_buffer("w_avg", torch.randn(4))
        self.synthesis = Layer(3, 2)
        self.missing = None
        self.layers = nn.ModuleList([Layer(2, 2), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 3), nn.ReLU())])
        self.register_module("embed", None)
        self.halved = nn.Parameter(torch.randn(3).half())


class Discriminator(Kept):
    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.b4 = Layer(1, 1)


def writer(tmp_path: Path) -> Callable[..., Path]:
    """Writes an object as a release file, with NVIDIA's modules in place for as long as that takes."""

    def write(content: object, protocol: int = 4) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            for name in FAKES:
                patch.setitem(sys.modules, name, ModuleType(name))
            for made, name in [
                (EasyDict, "dnnlib.util"),
                (_reconstruct_persistent_obj, "torch_utils.persistence"),
                (Network, "dnnlib.tflib.network"),
            ]:
                patch.setattr(made, "__module__", name)
                setattr(sys.modules[name], made.__name__, made)
            path = tmp_path / "network.pkl"
            path.write_bytes(pickle.dumps(content, protocol=protocol))
        assert not set(FAKES) & set(sys.modules)
        return path

    return write


OPTIONS = {
    "z_dim": 512,
    "img_channels": 3,
    "mapping_kwargs": EasyDict(num_layers=np.int64(8), lr_multiplier=np.float32(0.5), layer_features=None),
    "synthesis_kwargs": EasyDict(
        channel_base=32768, resample_filter=[1, 3, 3, 1], size=(4, 4), conv_clamp=np.float64(256), use=np.bool_(True)
    ),
}
PLAIN = {
    "z_dim": 512,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 8, "lr_multiplier": 0.5, "layer_features": None},
    "synthesis_kwargs": {
        "channel_base": 32768,
        "resample_filter": [1, 3, 3, 1],
        "size": (4, 4),
        "conv_clamp": 256.0,
        "use": True,
    },
}


def snapshot() -> dict[str, object]:
    """What training_loop.py dumps."""
    return {
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "mean": np.ones(3), "xflip": True},
        "G": Generator(**OPTIONS),
        "D": Discriminator(c_dim=0, img_resolution=8),
        "G_ema": Generator(**OPTIONS),
        "augment_pipe": Layer(1, 1),
    }
