"""DCGAN checkpoints in the layout of the PyTorch example, and the embedded ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect import load_generator
from ganatomy.dissect.generators.checkpoints import load_weights
from ganatomy.dissect.generators.families.dcgan import DCGAN, ResizeConv
from ganatomy.dissect.generators.families.dcgan import infer as infer_dcgan
from ganatomy.dissect.generators.recognition import open_checkpoint
from ganatomy.dissect.generators.replaced_layers import boxed_like, put, resize_like
from ganatomy.hooks.errors import DissectError

pytestmark = pytest.mark.slow


def example(latent: int = 100, width: int = 8, channels: int = 3) -> nn.Module:
    """The example's generator for 64×64 images, written out: kernels of 4, bias nowhere."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = [nn.ConvTranspose2d(latent, width * 8, 4, 1, 0, bias=False)]
            for times in (8, 4, 2, 1):
                fan_out = width * times // 2 if times > 1 else channels
                layers += [nn.BatchNorm2d(width * times), nn.ReLU(True)]
                layers += [nn.ConvTranspose2d(width * times, fan_out, 4, 2, 1, bias=False)]
            self.main = nn.Sequential(*layers, nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x)

    module = Net()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features) * 0.1
            part.running_var = torch.rand(part.num_features) + 0.5
    return module.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("latent", "channels"), [(100, 3), (16, 1)])
def test_a_checkpoint_of_the_example_loads_by_itself(suffix: str, latent: int, channels: int, tmp_path: Path) -> None:
    module = example(latent, channels=channels)
    path = tmp_path / f"netG{suffix}"
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    generator = open_checkpoint(path)
    assert generator.layers == ("main.2", "main.5", "main.8", "main.11")
    latents = generator.latents(range(3))
    assert latents.shape == (3, latent)
    with torch.no_grad():
        there = module(latents.reshape(3, latent, 1, 1))
        assert torch.equal(generator.module(latents), there)
        assert torch.equal(generator.module(latents.reshape(3, latent, 1, 1)), there)
    assert generator(latents).shape == (3, 3, 64, 64)


@pytest.mark.parametrize("resize", [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("kernels", [(4, 3), (2, 5), (6, 4)])
def test_kernels_and_resizing_are_inferred(resize: tuple[bool, ...], kernels: tuple[int, ...]) -> None:
    module = DCGAN(6, (8, 4), kernels, resize=resize, biases=(False, True, False)).eval()
    found = infer_dcgan(module.state_dict())
    assert found.resolution == 16
    with torch.no_grad():
        assert torch.equal(found(torch.ones(2, 6)), module(torch.ones(2, 6)))


def test_half_precision_and_files_without_batch_counts_load_as_float() -> None:
    state = {
        name: tensor.half()
        for name, tensor in example().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    module = infer_dcgan(state)
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("main.3.weight", None, "main.0, main.6.*expected main.0, main.3, main.6"),
        ("main.4.weight", None, "main.4.weight is missing"),
        ("main.4.weight", torch.ones(5), r"main.4.weight has shape \(5\), expected \(32\)"),
        ("main.0.weight", torch.ones(16, 64, 3, 3), "expected 4×4"),
        ("main.12.weight", torch.ones(8, 4, 4, 4), "4 channels; expected 3"),
        ("main.99.bias", torch.ones(3), "main.99.bias is not of this architecture"),
    ],
)
def test_what_does_not_fit_is_named(key: str, value: Tensor | None, said: str, tmp_path: Path) -> None:
    state = dict(example(16).state_dict())
    if value is None:
        del state[key]
    else:
        state[key] = value
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(DissectError, match=f"It is like a dcgan, but .*({said})"):
        open_checkpoint(tmp_path / "g.pth")


def test_the_embedded_ones_open_and_differ_in_how_they_upsample() -> None:
    plain, control = (load_generator(name).module for name in ("dcgan_scenes", "dcgan_scenes_resize"))
    kernels = [tuple(part.weight.shape[2:]) for part in plain.modules() if isinstance(part, nn.ConvTranspose2d)]
    assert kernels == [(4, 4), (4, 4), (4, 4), (3, 3), (4, 4)]  # one that a stride of 2 does not divide
    assert sum(isinstance(part, ResizeConv) for part in control.modules()) == 4


def test_a_replaced_layer_is_replaced_again_when_a_users_module_gets_its_weights(tmp_path: Path) -> None:
    mended = example(8)
    old = mended.get_submodule("main.12")
    assert isinstance(old, nn.ConvTranspose2d)
    put(mended, "main.12", resize_like(old))
    wider = mended.get_submodule("main.9")
    assert isinstance(wider, nn.ConvTranspose2d)
    put(mended, "main.9", boxed_like(wider))
    torch.save(mended.state_dict(), tmp_path / "mended.pth")
    fresh = example(8)
    load_weights(fresh, tmp_path / "mended.pth")
    latents = torch.randn(2, 8, 1, 1)
    with torch.no_grad():
        assert torch.equal(fresh(latents), mended(latents))


@pytest.mark.parametrize("part", [nn.ConvTranspose2d(2, 2, (3, 4), 2), nn.ConvTranspose2d(2, 2, 1, 2)])
def test_what_no_resize_convolution_can_stand_for(part: nn.ConvTranspose2d) -> None:
    with pytest.raises(ValueError, match="kernel"):
        resize_like(part)


def test_nearest_then_convolution_is_what_it_says() -> None:
    part = ResizeConv(2, 3, 3)
    x = torch.randn(1, 2, 5, 5)
    held = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(part(x), F.conv2d(held, part.conv.weight, padding=1), atol=1e-6)
