"""Segmenters from segmentation-models-pytorch checkpoints, on the Hugging Face hub or in a local folder.

A checkpoint is what a model's `save_pretrained` writes, `config.json` and `model.safetensors`, and optionally what
albumentations' `save_pretrained` writes beside it, `albumentations_config_eval.json`: how images are resized and
normalised. Class names may be added to `config.json` as the list `_class_names` (segmentation-models-pytorch ignores
keys that start with an underscore). Weights are read from safetensors alone, never from pickles.

`ade20k.csv` holds the 150 classes of ADE20K in the benchmark's order (objectInfo150, whose index 1 is 0 here), each
under the first of its names. Source: Zhou et al. 2017, "Scene Parsing through ADE20K Dataset", CVPR.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hooks.errors import DissectError, DissectWarning, one_line
from .base import Vocabulary
from .colours import palette
from .hub_folder import hub_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG, WEIGHTS, TRANSFORM = "config.json", "model.safetensors", "albumentations_config_eval.json"
KNOWN = (  # id, title
    ("smp-hub/segformer-b1-512x512-ade-160k", "SegFormer B1, ADE20K, 512x512"),
    ("smp-hub/segformer-b3-512x512-ade-160k", "SegFormer B3, ADE20K, 512x512"),
    ("smp-hub/segformer-b4-512x512-ade-160k", "SegFormer B4, ADE20K, 512x512"),
    ("smp-hub/segformer-b5-640x640-ade-160k", "SegFormer B5, ADE20K, 640x640"),
)
ADE20K_CLASSES = 150
MULTIPLE = 32  # what encoders need the sides of an image to be divisible by
SCORES = 2**28  # class scores held at a time (1 GiB of float32): 150 classes at 512x512 allow 6 images a forward pass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network wants of images in [0, 1]: resized to `size`, then (image - mean) / std, channel by channel."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: tuple[int, int] | None = None  # (height, width); None: the images' own, rounded up to MULTIPLE


def _prepared(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """images (N, 3, H, W) in [0, 1] -> what the network wants (bilinear, antialiased)."""
    from torch.nn import functional as F

    image_size = (images.shape[2], images.shape[3])
    size = preprocessing.size or (-(-image_size[0] // MULTIPLE) * MULTIPLE, -(-image_size[1] // MULTIPLE) * MULTIPLE)
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    if size != image_size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return (images - mean) / std


def label_pixels(
    network: Callable[[Tensor], Tensor], images: Tensor, preprocessing: Preprocessing, classes: int
) -> Tensor:
    """The class of highest score at every pixel of images (N, 3, H, W) in [0, 1]: labels (N, 1, H, W) int64.

    Images are resized to the network's input size, labels are taken at the resolution of the network's output and then
    brought back to HxW (nearest-exact): classes are never blended.
    """
    import torch
    from torch.nn import functional as F

    height, width = preprocessing.size or images.shape[2:]
    with torch.inference_mode():
        some = torch.split(images, max(1, SCORES // (classes * height * width)))
        labels = torch.cat([network(_prepared(part, preprocessing)).argmax(1, keepdim=True) for part in some])
        if labels.shape[2:] != images.shape[2:]:
            labels = F.interpolate(labels.float(), images.shape[2:], mode="nearest-exact").long()
    return labels


def class_probabilities(network: Callable[[Tensor], Tensor], images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """images (N, 3, H, W) in [0, 1] -> (N, C, H, W) in [0, 1], differentiable; brought back to HxW bilinearly."""
    from torch.nn import functional as F

    chances = network(_prepared(images, preprocessing)).softmax(1)
    if chances.shape[2:] != images.shape[2:]:
        chances = F.interpolate(chances, images.shape[2:], mode="bilinear", antialias=True, align_corners=False)
    return chances


def read_transform(transform: dict[str, Any]) -> Preprocessing:
    """An albumentations pipeline, which was made for pixels in 0…255, restated for images in [0, 1].

    Raises DissectError where the pipeline has a step other than Resize, Normalize and ToTensorV2.
    """
    preprocessing = Preprocessing(mean=(0.0,), std=(1 / 255,))  # without Normalize the network sees 0…255
    for step in transform["transform"]["transforms"]:
        kind = step["__class_fullname__"].rpartition(".")[2]
        if kind == "Resize":
            preprocessing = replace(preprocessing, size=(int(step["height"]), int(step["width"])))
        elif kind == "Normalize" and step.get("normalization", "standard") == "standard":
            scale = step["max_pixel_value"] / 255
            mean, std = (tuple(value * scale for value in step[key]) for key in ("mean", "std"))
            preprocessing = replace(preprocessing, mean=mean, std=std)
        elif kind != "ToTensorV2":
            raise DissectError(
                f"The preprocessing in {TRANSFORM} has the step {kind}; only Resize, Normalize (standard) and "
                "ToTensorV2 are understood. Save the pipeline with these alone."
            )
    return preprocessing


def ade20k() -> tuple[tuple[str, str], ...]:
    """(name, category) of the 150 classes of ADE20K, in order."""
    with (Path(__file__).parent / "ade20k.csv").open(encoding="utf-8", newline="") as file:
        return tuple((row["name"], row["category"]) for row in csv.DictReader(file))


def read_vocabulary(config: dict[str, Any]) -> Vocabulary:
    """The classes as the config names them; without names ADE20K's where they are 150, else "class 0", "class 1", ….

    Raises DissectError unless the names are as many strings as there are classes.
    """
    count: int = config["classes"]
    if "_class_names" not in config and count == ADE20K_CLASSES:
        names, categories = zip(*ade20k(), strict=True)
        return Vocabulary(names=names, categories=categories, colours=palette(count))
    names = config.get("_class_names", [f"class {number}" for number in range(count)])
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise DissectError(f"`_class_names` in the segmenter's {CONFIG} must be a list of {count} names, one a class.")
    return Vocabulary(names=tuple(names), categories=("object",) * count, colours=palette(count))


def is_cached(repository: str) -> bool:
    """Whether the weights of a hub model are in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, WEIGHTS), str)


def _json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; raises DissectError where there is none."""
    content = None
    with contextlib.suppress(ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise DissectError(f"{file} does not hold a JSON object: fetch or save the checkpoint again.")
    return content


def _config(folder: Path) -> dict[str, Any]:
    """The config of a checkpoint that can serve as a segmenter; raises DissectError for any other folder."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise DissectError(
            f"{folder} lacks {' and '.join(missing)}: it must be written by save_pretrained of a "
            "segmentation-models-pytorch model; weights are read from safetensors alone, never from pickles (*.bin)."
        )
    config = _json(folder / CONFIG)
    classes, channels = config.get("classes"), config.get("in_channels", 3)
    if not isinstance(config.get("_model_class"), str) or not isinstance(classes, int):
        raise DissectError(
            f"{folder / CONFIG} was not written by save_pretrained of a segmentation-models-pytorch model."
        )
    if classes < 2 or channels != 3:
        raise DissectError(
            f"The segmenter in {folder} has {classes} classes and {channels} input channels; "
            "it must have at least 2 classes, and 3 channels (RGB)."
        )
    return config


def _preprocessing(folder: Path, source: str, encoder: str) -> Preprocessing:
    """From the checkpoint's own file; without it, what timm says of a `tu-` encoder, or else ImageNet's values.

    A size that the file does not give is taken from the name (…-512x512-…), or left to the images.
    """
    named = re.search(r"(\d{2,4})x(\d{2,4})", Path(source).name)
    size = (int(named[1]), int(named[2])) if named else None
    if (folder / TRANSFORM).is_file():
        try:
            preprocessing = read_transform(_json(folder / TRANSFORM))
        except (KeyError, TypeError, ValueError) as error:
            raise DissectError(
                f"{folder / TRANSFORM} is not an albumentations pipeline (at {one_line(error)})."
            ) from error
        return replace(preprocessing, size=preprocessing.size or size)
    if encoder.startswith("tu-"):
        import segmentation_models_pytorch as smp

        with contextlib.suppress(ValueError):  # no pretrained weights, hence no values
            defaults = smp.encoders.get_preprocessing_params(encoder)
            return Preprocessing(mean=tuple(defaults["mean"]), std=tuple(defaults["std"]), size=size)
    assumed = Preprocessing(size=size)
    warnings.warn(
        f"{source} does not say how images are prepared ({TRANSFORM} is missing). Assumed: the mean "
        f"{', '.join(map(str, assumed.mean))} and deviation {', '.join(map(str, assumed.std))} of ImageNet, and "
        f"{'the size that its name says' if size else 'images as large as they are'}. Other values give other labels.",
        DissectWarning,
        stacklevel=3,
    )
    return assumed


def _network(folder: Path) -> nn.Module:
    """The network of a checkpoint, with its weights."""
    import segmentation_models_pytorch as smp

    try:
        # The loader prints to stdout, which belongs to results. The encoder's own weights would only be overwritten.
        with contextlib.redirect_stdout(io.StringIO()):
            network: nn.Module = smp.from_pretrained(str(folder), encoder_weights=None)
    except Exception as error:  # whatever building a network from a foreign config and filling it can raise
        raise DissectError(f"The segmenter in {folder} cannot be loaded ({one_line(error)}).") from error
    return network


class HubSegmenter:
    """A segmentation-models-pytorch checkpoint: `source` is the id of a hub model, or a local folder."""

    def __init__(self, source: str, device: str = "cpu") -> None:
        folder = hub_folder(source, "hub:", (CONFIG, WEIGHTS, TRANSFORM))
        config = _config(folder)
        self.name = f"hub:{source}"
        self.vocabulary = read_vocabulary(config)
        self.preprocessing = _preprocessing(folder, source, config.get("encoder_name", ""))
        self.network = _network(folder).eval().requires_grad_(False).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> labels (N, 1, H, W) int64; see `label_pixels`."""
        return label_pixels(self._scores, images, self.preprocessing, len(self.vocabulary))

    def probabilities(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> (N, C, H, W) in [0, 1], differentiable."""
        return class_probabilities(self._scores, images, self.preprocessing)

    def _scores(self, images: Tensor) -> Tensor:
        output: Tensor | tuple[Tensor, Tensor] = self.network(images)  # the second is of a classification head
        return output[0] if isinstance(output, tuple) else output
