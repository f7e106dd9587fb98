"""The decoders of latent diffusion models, by the optional library diffusers.

A decoder is what `save_pretrained` of an AutoencoderKL or a VQModel writes, or a pipeline that holds one in `vae`,
`vqvae` or `vqgan`: a local folder, or a repository on the Hugging Face hub. Weights are read from safetensors alone,
never from pickles.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....hooks.errors import DissectError, UsageError, one_line
from ....segmenters.hub_folder import hub_folder
from ..spec import DIFFUSERS
from .architecture import Architecture, some

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
SUBFOLDERS = ("", "vae", "vqvae", "vqgan")
KINDS = ("AutoencoderKL", "VQModel")


class Decoder(Architecture):
    """latents (N, C, h, w) -> images (N, 3 or 1, H, W), nominally in [-1, 1] but unclamped.

    Latents are those that the diffusion model works on, scaled to N(0, 1) or thereabouts: the autoencoder decodes
    latents · std / scaling + mean. A VQModel quantises that first. Any h and w will do. The autoencoder itself is
    `vae`. Source: Rombach et al. 2022, section 3.1.

    Args:
        vae: an AutoencoderKL or VQModel of diffusers.

    Attributes:
        latent_shape: (C, h, w) of the latents for images of the size that the autoencoder was trained on.
        multiple: how many pixels' side a latent stands for; sides of the images to `encode` must be multiples of it.
    """

    family = "latent diffusion (diffusers)"
    citation = "Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion Models, CVPR"

    latent_shape: tuple[int, int, int]
    mean: Tensor
    std: Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        config = vae.config
        self.vae = vae
        self.quantised = "num_vq_embeddings" in config
        self.multiple = 2 ** (len(config["block_out_channels"]) - 1)
        size = config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        channels = config.get("vq_embed_dim") or config["latent_channels"]  # only a VQModel has the former
        self.latent_shape = (channels, max(1, height // self.multiple), max(1, width // self.multiple))
        self.scaling = float(config["scaling_factor"])
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            mean, std = config.get("shift_factor") or 0.0, 1.0
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1), persistent=False)
        self.eval()

    def settings(self) -> dict[str, object]:
        return {"scaling": self.scaling, "mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}

    @property
    def layers(self) -> tuple[str, ...]:
        """The middle, then each residual block of each resolution, from coarse to fine."""
        blocks = enumerate(self.vae.decoder.up_blocks)
        ups = (f"vae.decoder.up_blocks.{i}.resnets.{j}" for i, block in blocks for j in range(len(block.resnets)))
        return ("vae.decoder.mid_block", *ups)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """images (N, in_channels, H, W) in [-1, 1] -> latents (N, C, h, w): the mode of their posterior, scaled.

        Images may lie on any device; latents lie on the module's.
        """
        encoded = self.vae.encode(images.to(self.mean))
        z = encoded.latents if self.quantised else encoded.latent_dist.mode()  # (N, C, h, w)
        latents: Tensor = (z - self.mean) * self.scaling / self.std
        return latents

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.vae.decode(latents * self.std / self.scaling + self.mean).sample
        return images


def open_diffusers(name: str) -> Decoder:
    """The decoder in a local folder or a repository of the hub, in eval mode, float32.

    Args:
        name: the folder or the repository's id.

    Raises:
        UsageError: diffusers is not installed, or there is no such folder and the name is no id.
        DissectError: the repository cannot be fetched, or what is there is no decoder, or damaged.
    """
    try:
        diffusers = import_module("diffusers")
    except ImportError as error:
        raise UsageError(
            f"diffusers:{name} needs the extra diffusers; install it with: pip install 'ganatomy[diffusers]'"
        ) from error
    files = [(Path(subfolder) / file).as_posix() for subfolder in SUBFOLDERS for file in (CONFIG, WEIGHTS)]
    folder, kind = find_model(hub_folder(name, DIFFUSERS, files))
    try:
        with quiet(diffusers.utils.logging):
            vae, info = getattr(diffusers, kind).from_pretrained(
                folder, use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True, output_loading_info=True
            )
            decoder = Decoder(vae.float())
    except Exception as error:  # whatever building a network from a foreign config and filling it can raise
        raise DissectError(f"The {kind} in {folder} cannot be loaded ({one_line(error)}).") from error
    if info["missing_keys"]:
        raise DissectError(f"{folder / WEIGHTS} lacks {some(info['missing_keys'], 4)}; fetch or save it again.")
    if vae.config["out_channels"] not in (1, 3):
        raise DissectError(
            f"The {kind} in {folder} outputs {vae.config['out_channels']} channels; expected 3, or 1 for grey images."
        )
    return decoder


@contextmanager
def quiet(log: Any) -> Iterator[None]:
    """Let the library say nothing but errors."""
    level = log.get_verbosity()
    log.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)


def find_model(folder: Path) -> tuple[Path, str]:
    """The folder of the autoencoder, which may lie inside a pipeline's, and its class.

    Raises:
        DissectError: there is none, or it is of another class, or has no weights as safetensors.
    """
    model = next((folder / subfolder for subfolder in SUBFOLDERS if (folder / subfolder / CONFIG).is_file()), None)
    if model is None:
        raise DissectError(f"{folder} has no {CONFIG}, nor has a folder vae, vqvae or vqgan inside it.")
    try:
        config = json.loads((model / CONFIG).read_text(encoding="utf-8"))
        kind = config["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DissectError(f"{model / CONFIG} was not written by save_pretrained of diffusers.") from error
    if kind not in KINDS:
        raise DissectError(f"{model} holds a model of the class {kind}; expected {' or '.join(KINDS)}.")
    # an index could name files of any kind, and would be followed before the one file
    if not (model / WEIGHTS).is_file() or (model / f"{WEIGHTS}.index.json").exists():
        raise DissectError(
            f"{model} lacks {WEIGHTS} as one file: weights are read from safetensors alone, never from pickles "
            "(*.bin). Write it with save_pretrained(…, safe_serialization=True)."
        )
    return model, kind
