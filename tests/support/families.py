"""A tiny checkpoint of every family, in its real layout, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ganatomy.dissect import ModelSpec
from ganatomy.dissect.generators.families.dcgan import DCGAN
from ganatomy.dissect.generators.families.pix2pix import ResnetGenerator, UnetGenerator
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.generators.families.stylegan import StyleGAN
from ganatomy.dissect.generators.families.stylegan2 import StyleGAN2

from .bigs import big_state, deep_state

Make = Callable[[Path], ModelSpec]


def photos(folder: Path, count: int = 24, side: int = 32) -> str:
    """A folder of images of coloured noise."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR).save(folder / f"{number:03}.png")
    return str(folder)


def kept(folder: Path, state: object) -> str:
    torch.save(state, folder / "g.pth")
    return str(folder / "g.pth")


def lively(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its weights, random, with styles that let something through."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("affine.bias", "noise_strength")):
                parameter.fill_(1)
    return module.state_dict()


def progan(folder: Path) -> ModelSpec:
    return ModelSpec(kept(folder, ProGAN(8, (6, 5, 4)).state_dict()))


def dcgan(folder: Path) -> ModelSpec:
    return ModelSpec(kept(folder, {"generator": DCGAN(8, (6, 5), (4, 4)).state_dict()}))


def stylegan(folder: Path) -> ModelSpec:
    state = lively(StyleGAN(8, 2, (6, 5, 4), (False, False, True)))
    return ModelSpec(kept(folder, {"g_running": state}), truncation=0.7)


def stylegan2(folder: Path) -> ModelSpec:
    return ModelSpec(kept(folder, lively(StyleGAN2(8, (8, 8), (6, 5, 4)))), truncation=0.7, noise="drawn")


def biggan(folder: Path) -> ModelSpec:
    return ModelSpec(kept(folder, big_state([8, 6, 6], 2)), label=2)


def biggan_deep(folder: Path) -> ModelSpec:
    table = ((False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 2))
    return ModelSpec(kept(folder, deep_state(table, 4, attention=2)), truncation=0.4)


def resnet(folder: Path) -> ModelSpec:
    state = ResnetGenerator(3, 3, 4, 1, batch=False, dropout=False).state_dict()
    return ModelSpec(kept(folder, state), inputs=photos(folder / "photos"))


def unet(folder: Path) -> ModelSpec:
    state = UnetGenerator(3, 3, 4, 5, batch=True).state_dict()
    return ModelSpec(
        kept(folder, {f"module.{key}": value for key, value in state.items()}), inputs=photos(folder / "p")
    )


def esrgan(folder: Path) -> ModelSpec:
    from spandrel.architectures.ESRGAN import ESRGAN

    network = ESRGAN(num_filters=4, num_blocks=1, scale=2)
    return ModelSpec(kept(folder, {"params_ema": network.state_dict()}), inputs=photos(folder / "photos", side=16))


def decoder(folder: Path) -> ModelSpec:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=3, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    vae.save_pretrained(folder / "vae")
    return ModelSpec(f"diffusers:{folder / 'vae'}")


def autoencoder(folder: Path) -> ModelSpec:
    return ModelSpec(decoder(folder).model, inputs=photos(folder / "photos"))


def blur() -> nn.Module:
    """A user's own network from images to images."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1), nn.Tanh())


def factory(folder: Path) -> ModelSpec:
    return ModelSpec("tests.support.families:blur", inputs=photos(folder / "photos"))


FAMILIES: dict[str, tuple[Make, str]] = {  # how it is made, and a layer
    "progan": (progan, "layer3"),
    "dcgan": (dcgan, "main.2"),
    "stylegan": (stylegan, "generator.progression.1.adain1"),
    "stylegan2": (stylegan2, "synthesis.b8.conv0.styled"),
    "biggan": (biggan, "blocks.0"),
    "biggan_deep": (biggan_deep, "generator.layers.1"),
    "CycleGAN/pix2pix ResNet": (resnet, "model.10"),
    "pix2pix U-Net": (unet, "2"),
    "ESRGAN (spandrel)": (esrgan, "1"),
    "latent diffusion (diffusers)": (decoder, "vae.decoder.mid_block"),
    "encoded": (autoencoder, "1"),
    "own": (factory, "1"),
}
