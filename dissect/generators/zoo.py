"""The catalogue of pretrained generators. It does not import torch, so that it opens quickly."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ...hooks.errors import UsageError

WEIGHTS = Path(__file__).parent / "weights"
CSAIL = "https://dissect.csail.mit.edu/models/"
ADE20K_SEGMENTER = "hub:smp-hub/segformer-b3-512x512-ade-160k"
EMBEDDED = "progan_scenes"  # the model that needs no network
PUBLIC_LATENT = 512  # of the public progressive GANs
WIDTHS = {256: (512, 512, 512, 256, 128, 64, 32), 1024: (512, 512, 512, 512, 256, 128, 64, 32, 16)}
SPELT = {"args": "arg", "assumed": "as"}  # fields of a ModelSpec, as options of the command


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the catalogue. `file` is a name in torch.hub's cache; without a `url` or `wheel`, in the package."""

    name: str
    title: str
    file: str
    url: str | None = None
    wheel: str | None = None  # of a package index that has the file, as pip names it: name==version
    member: str | None = None  # the path of the file in the wheel
    hash_prefix: str | None = None  # first hex digits of the file's SHA-256
    widths: tuple[int, ...] = ()  # units of each resolution of a public progressive GAN
    resolution: int  # side of the images in pixels
    layers: str
    segmenter: str | None  # used if the user names none; None: the user must name one
    licence: str
    citation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model, for the list of them."""

    name: str
    title: str
    resolution: int
    origin: str
    licence: str
    here: bool  # whether its weights are on this machine


def _progan(name: str, file: str, title: str, resolution: int = 256, segmenter: str = ADE20K_SEGMENTER) -> Model:
    return Model(
        name=name,
        title=title,
        file=file,
        url=CSAIL + file,
        hash_prefix=file.removesuffix(".pth").rpartition("-")[2],
        widths=WIDTHS[resolution],
        resolution=resolution,
        layers=(
            "layer1 to layer14, two of each size: 512 units at 4, 8 and 16 pixels, 256 at 32, 128 at 64, 64 at 128, "
            "32 at 256"
            if resolution == 256
            else "layer1 to layer18, two of each size: 512 units at 4 to 32 pixels, 256 at 64, 128 at 128, 64 at 256, "
            "32 at 512, 16 at 1024"
        ),
        segmenter=segmenter,
        licence="CC BY-NC 4.0 (of the original networks)",
        citation=(
            "Karras, Aila, Laine and Lehtinen 2018, Progressive Growing of GANs for Improved Quality, Stability, and "
            "Variation, ICLR; converted for Bau et al. 2019, GAN Dissection, ICLR"
        ),
    )


def _dcgan(name: str, title: str) -> Model:
    return Model(
        name=name,
        title=title,
        file=f"{name}.safetensors",
        resolution=64,
        layers="main.2, main.5, main.8 and main.11, what each ReLU outputs: 4, 8, 16 and 32 pixels",
        segmenter="scenes",
        licence="MIT, as this package",
    )


PUBLISHED = (
    Model(
        name="dcgan_faces",
        title="Faces with glasses, hats and beards, by somebody else; fetched by pip",
        file="gan_face_generate-1.1.1-weights.tar",
        wheel="gan_face_generate==1.1.1",
        member="gan_face_generate/weights.tar",
        hash_prefix="0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f",
        resolution=64,
        layers="main.2, main.5, main.8 and main.11, the output of each ReLU: 4, 8, 16 and 32 pixels",
        segmenter="faces",
        licence="MIT (of the package; trained on DigiFace-1M, which is for non-commercial research)",
        citation=(
            "Chien Liu 2023, github.com/chien-liu/DCGAN-PyTorch, package gan_face_generate 1.1.1; trained on Bae et "
            "al. 2023, DigiFace-1M: 1 Million Digital Face Images for Face Recognition, WACV"
        ),
    ),
    Model(
        name="cyclegan_vintage",
        title="Photographs to vintage ones, by somebody else; fetched by pip; takes --inputs",
        file="vintagify-0.1.2-G_A2B_epoch33.pth",
        wheel="vintagify==0.1.2",
        member="vintagify/resources/G_A2B_epoch33.pth",
        hash_prefix="c502cd44ca720d004f89775f593fc403acc6b36d27d65390cbe2f476f771e560",
        resolution=512,
        layers="model.6, model.9, model.10 to model.18 (the residual blocks), model.21, model.24",
        segmenter=None,
        licence="MIT",
        citation="Yusong Zhao and Fangyi Wang 2025, package vintagify 0.1.2",
    ),
)
MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name=EMBEDDED,
            title="Drawn church scenes; comes with the package",
            file="progan_scenes.safetensors",
            resolution=128,
            layers="layer1 to layer12, two of each size: 256 units at 4, 8, 16 and 32 pixels, 64 at 64, 32 at 128",
            segmenter="scenes",
            licence="MIT, as this package",
        ),
        _dcgan("dcgan_scenes", "The same by transposed convolutions: checkerboards to find; comes with the package"),
        _dcgan(
            "dcgan_scenes_resize", "Its control, which resizes and convolves: no checkerboards; comes with the package"
        ),
        *PUBLISHED,
        _progan("progan_bedroom", "proggan_bedroom-d8a89ff1.pth", "LSUN bedrooms"),
        _progan("progan_church", "proggan_churchoutdoor-7e701dd5.pth", "LSUN churches from outside"),
        _progan("progan_conferenceroom", "proggan_conferenceroom-21e85882.pth", "LSUN conference rooms"),
        _progan("progan_diningroom", "proggan_diningroom-3aa0ab80.pth", "LSUN dining rooms"),
        _progan("progan_kitchen", "proggan_kitchen-67f1e16c.pth", "LSUN kitchens"),
        _progan("progan_livingroom", "proggan_livingroom-5ef336dd.pth", "LSUN living rooms"),
        _progan("progan_restaurant", "proggan_restaurant-b8578299.pth", "LSUN restaurants"),
        _progan(
            "progan_celebhq",
            "proggan_celebhq-620d161c.pth",
            "CelebA-HQ faces",
            1024,
            "faces",
        ),
    )
}


def weights_path(model: Model) -> Path:
    """Where the model's file is, or will be once fetched."""
    if model.url is None and model.wheel is None:
        return WEIGHTS / model.file
    return _hub_folder() / "checkpoints" / model.file


def _hub_folder() -> Path:
    """torch.hub's cache: as its documentation says, or as the program that has imported torch has set it."""
    if torch := sys.modules.get("torch"):
        return Path(torch.hub.get_dir())
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub"


def table() -> list[Row]:
    """All models known by name, for `dissect models`."""
    return [
        Row(
            name=model.name,
            title=model.title,
            resolution=model.resolution,
            origin=model.url or (f"pip: {model.wheel}" if model.wheel else "in the package"),
            licence=model.licence,
            here=weights_path(model).is_file(),
        )
        for model in MODELS.values()
    ]


def card(name: str) -> str:
    """The model card as Markdown: the one written for it, else what the catalogue knows.

    Raises:
        UsageError: there is no such model.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3)
        raise UsageError(
            f"There is no model {name!r} in the catalogue."
            + (f" Did you mean {' or '.join(near)}?" if near else "")
            + f" There are: {', '.join(MODELS)}."
        )
    model = MODELS[name]
    written = WEIGHTS / f"{name}.md"
    if written.is_file():
        return written.read_text(encoding="utf-8")
    facts = {
        "Images": f"{model.resolution}x{model.resolution} pixels",
        "Layers": model.layers,
        "Default segmenter": model.segmenter,
        "From": model.url or (f"pip download {model.wheel}, {model.member}" if model.wheel else "the package"),
        "File": str(weights_path(model)),
        "SHA-256 starts with": model.hash_prefix,
        "Licence": model.licence,
        "Cite": model.citation,
    }
    lines = "\n".join(f"- {fact}: {value}" for fact, value in facts.items() if value)
    return f"# {name}\n\n{model.title}.\n\n{lines}\n"
