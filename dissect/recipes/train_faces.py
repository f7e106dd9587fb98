"""Recipe of the `faces` segmenter: a small U-Net that learns from a face-landmark model where the parts of faces are.

    pip install mediapipe==0.10.14
    python -m ganatomy.dissect.recipes.train_faces --out training/faces --samples 12000 --images 120000

The teacher is MediaPipe's face mesh (Kartynnik et al. 2019; Grishchenko et al. 2020, refined by attention), which was
trained on photographs of people and comes with its package, and its selfie segmentation. What it says of an image that
`dcgan_faces` draws becomes polygons of the face, nose, brows, eyes, lips and the mouth between them, and, beyond the
face, the person before the background. Images in which it finds no face are left out. The student sees them flipped,
shifted, enlarged, recoloured, blurred, coarser, noisy and before other backgrounds; at first at half the side, which
is faster. Held out are samples of another seed and, with `--photographs`, faces in photographs of one's own, which the
teacher finds; the student never saw any.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...segmenters.faces import CLASSES
from ...segmenters.unet import SIDE, network, normalise
from ..generators.base import Generator
from ..generators.loading import load_generator
from ..generators.spec import ModelSpec
from ..images.reader import list_images, read_image

MODEL = "dcgan_faces"
TRAINING, HELD_OUT, JUDGED = 11, 12, 1000  # seeds; held-out samples
LARGE = 256  # pixels at which the teacher looks
BORDER = 96  # of repeated pixels around, without which it overlooks faces that fill the image
BATCH, RATE = 64, 3e-3
COARSE = 0.6  # share of the training at half the side, which is four times as fast
BACKGROUND, PERSON, FACE, NOSE, BROW, EYE, LIPS, MOUTH = range(len(CLASSES))
MARGIN = 0.35  # of a face's height that is left around it in photographs

# Landmarks of the face mesh in the order of an outline; its 468 points are numbered the same for every face.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
OUTLINES = (
    (FACE, OVAL),
    (NOSE, (168, 122, 196, 198, 48, 64, 98, 97, 2, 326, 327, 294, 278, 420, 419, 351)),
    (BROW, (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)),
    (BROW, (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)),
    (EYE, (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)),
    (EYE, (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)),
    (LIPS, (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)),
    (MOUTH, (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)),
)


class Teacher:
    """What the landmark model says of an image."""

    def __init__(self) -> None:
        from mediapipe.python.solutions import face_mesh, selfie_segmentation

        self.mesh = face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)
        self.people = selfie_segmentation.SelfieSegmentation(model_selection=0)

    def landmarks(self, image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """image (H, W, 3) -> x and y in pixels of the 478 points, (478, 2); None if it finds no face."""
        faces = self.mesh.process(image).multi_face_landmarks
        if not faces:
            return None
        return np.array([(point.x, point.y) for point in faces[0].landmark]) * (image.shape[1], image.shape[0])

    def labels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """image (S, S, 3) of a face -> the class of each pixel, (128, 128); None if there is no face for the model."""
        large = np.asarray(Image.fromarray(image).resize((LARGE, LARGE), Image.Resampling.BICUBIC))
        around = np.pad(large, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="edge")
        points = self.landmarks(around)
        if points is None:
            return None
        chances = self.people.process(around).segmentation_mask[BORDER:-BORDER, BORDER:-BORDER]
        inside = Image.fromarray((255 * chances).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BOX)
        drawn = Image.fromarray(np.where(np.asarray(inside) > 127, PERSON, BACKGROUND).astype(np.uint8))
        pen = ImageDraw.Draw(drawn)
        places = (points - BORDER) * (SIDE / LARGE)
        for number, outline in OUTLINES:
            pen.polygon([(float(x), float(y)) for x, y in places[list(outline)]], fill=number)
        return np.asarray(drawn).copy()


def taught(generator: Generator, seed: int, count: int, teacher: Teacher) -> Iterator[tuple[Tensor, Tensor]]:
    """Images uint8 (3, S, S) of samples 0 to count - 1 and their labels uint8 (128, 128), where there is a face."""
    source = generator.source.seeded(seed)
    for start in range(0, count, BATCH):
        with torch.inference_mode():
            images = generator(source(range(start, min(start + BATCH, count))))
        for image in (images * 255).round().byte():
            labels = teacher.labels(image.permute(1, 2, 0).numpy())
            if labels is not None:
                yield image.clone(), torch.from_numpy(labels)


def kept(file: Path, generator: Generator, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """The same, stacked; drawn and taught once, then read from the file."""
    if not file.exists():
        images, labels = zip(*taught(generator, seed, count, Teacher()), strict=True)
        print(f"{len(images)} of {count} images show the teacher a face", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        torch.save((torch.stack(images), torch.stack(labels)), part)
        part.rename(file)
    images, labels = torch.load(file, weights_only=True)
    return images, labels


def photographs(folder: Path) -> tuple[Tensor, Tensor]:
    """Faces in photographs: uint8 (N, 3, 128, 128) and their labels (N, 128, 128); what the teacher finds, cut out."""
    teacher, images, labels = Teacher(), [], []
    for file in list_images(folder, "--photographs").files:
        photograph = read_image(file)
        points = teacher.landmarks(photograph)
        if points is None:
            continue
        left, top = points.min(0)
        right, bottom = points.max(0)
        half = (0.5 + MARGIN) * (bottom - top)
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        box = (*(middle - half).round().astype(int).tolist(), *(middle + half).round().astype(int).tolist())
        cut = np.asarray(
            Image.fromarray(photograph).crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3)
        )
        face_labels = teacher.labels(cut)
        if face_labels is not None:
            images.append(torch.from_numpy(cut.copy()).permute(2, 0, 1))
            labels.append(torch.from_numpy(face_labels))
    return torch.stack(images), torch.stack(labels)


def _uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """(count, 1, 1, 1)."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def spoil(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """images (N, 3, S, S) in [0, 1], labels (N, 128, 128) -> (N, 3, 128, 128), labels: as other pictures are."""
    count = len(images)
    size = _uniform(generator, count, 0.75, 1.7)[:, 0]  # of what is seen, in images
    flip = torch.where(_uniform(generator, count, 0, 1)[:, 0] < 0.5, -1.0, 1.0)
    shift = torch.randn(count, 2, 1, generator=generator) * 0.15
    turn = torch.randn(count, 1, 1, generator=generator) * 0.15  # radians
    rotation = torch.cat(
        [torch.cat([turn.cos(), -turn.sin()], 2), torch.cat([turn.sin(), turn.cos()], 2)], 1
    ) * torch.cat([flip, torch.ones_like(flip)], 2)
    grid = F.affine_grid(torch.cat([rotation * size, shift], 2), [count, 1, SIDE, SIDE], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    there = F.grid_sample(
        labels[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    ).long()

    # another background: a picture that was turned upside down, a colour, or noise of some grain
    fields = F.interpolate(torch.rand(count, 3, 8, 8, generator=generator), (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    kind = _uniform(generator, count, 0, 3)
    behind = torch.where(
        kind < 1, fields, torch.where(kind < 2, fields.mean((2, 3), keepdim=True), images.roll(1, 0).flip(2))
    )
    changed = (there == BACKGROUND) & (_uniform(generator, count, 0, 1) < 0.4)
    images = torch.where(changed, behind, images)

    contrast, tint = _uniform(generator, count, 0.6, 1.3), torch.randn(count, 3, 1, 1, generator=generator) * 0.06
    power = _uniform(generator, count, -0.5, 0.5).exp()
    grey = images.mean(1, keepdim=True).expand_as(images)
    images = torch.where(_uniform(generator, count, 0, 1) < 0.1, grey, images)
    images = ((images.clamp(0, 1) ** power - 0.5) * contrast + 0.5 + tint).clamp(0, 1)
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    images = torch.where(_uniform(generator, count, 0, 1) < 0.3, coarse, images)
    grain = _uniform(generator, count, 0, 0.05) * torch.randn(images.shape, generator=generator)
    return (images + grain).clamp(0, 1), there[:, 0]


def enlarged(images: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) -> float32 (N, 3, 128, 128) in [0, 1], as the segmenter resizes."""
    return F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


@torch.inference_mode()
def agreement(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """How far the student agrees with the teacher: share of all pixels, and IoU of each class over all of them."""
    confusion = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.long)
    for part, names in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        predicted = model(normalise(enlarged(part))).argmax(1)
        confusion += torch.bincount(
            names.long().flatten() * len(CLASSES) + predicted.flatten(), minlength=len(CLASSES) ** 2
        ).view(len(CLASSES), -1)
    both = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - both
    ious = {name: round(float(iou), 3) for (name, _, _), iou in zip(CLASSES, both / union, strict=True)}
    return {"images": len(images), "pixels": round(float(both.sum() / confusion.sum()), 4), **ious}


def train(out: Path, images: Tensor, labels: Tensor, show: int) -> nn.Module:
    """Train until `show` images were shown; `state.pt` in `out` is gone on from."""
    torch.manual_seed(0)
    model = network(len(CLASSES)).to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    shown, state_file = 0, out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        shown = state["shown"]
    share = torch.bincount(labels.flatten(), minlength=len(CLASSES)) / labels.numel()
    weights = (0.1 / share).sqrt().clamp(1, 4)
    generator = torch.Generator().manual_seed(shown)
    started, first = time.monotonic(), shown
    while shown < show:
        for group in adam.param_groups:  # warm up, then a cosine to nothing
            group["lr"] = RATE * min(1, (shown + BATCH) / 5000) * (1 + math.cos(math.pi * shown / show)) / 2
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        pictures, names = spoil(images[chosen].float() / 255, labels[chosen], generator)
        if shown < COARSE * show:
            pictures, names = F.avg_pool2d(pictures, 2), names[:, ::2, ::2]
        scores = model(normalise(pictures).contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(scores, names, weights)
        adam.zero_grad()
        loss.backward()
        adam.step()
        shown += BATCH
        if shown // (100 * BATCH) > (shown - BATCH) // (100 * BATCH) or shown >= show:
            speed = (shown - first) / (time.monotonic() - started)
            print(f"{shown} images  {speed:.1f}/s  loss {loss.item():.3f}", flush=True)
            torch.save({"model": model.state_dict(), "adam": adam.state_dict(), "shown": shown}, out / "state.part")
            (out / "state.part").rename(state_file)
    return model.eval()


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights at half precision, statistics of norms as they are."""
    return {
        key: value.contiguous() if "running" in key or not value.is_floating_point() else value.half().contiguous()
        for key, value in state.items()
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of checkpoints.")
@click.option("--samples", default=12_000, show_default=True, help="Different images that are drawn.")
@click.option("--images", default=120_000, show_default=True, help="Images to show in all.")
@click.option("--photographs", "photos", type=click.Path(path_type=Path, exists=True), help="Folder to judge by, too.")
@click.option("--threads", default=2, show_default=True)
def main(out: Path, samples: int, images: int, photos: Path | None, threads: int) -> None:
    """Train the embedded segmenter of faces."""
    torch.set_num_threads(threads)
    generator = load_generator(ModelSpec(MODEL))
    pictures, labels = kept(out / "training.pt", generator, TRAINING, samples)
    unseen = kept(out / "held_out.pt", generator, HELD_OUT, JUDGED)
    model = train(out, pictures, labels, images)
    weights = half(model.state_dict())
    model.load_state_dict(weights)
    print("held out", agreement(model, *unseen), flush=True)
    if photos is not None:
        print("photographs", agreement(model, *photographs(photos)), flush=True)
    save_file(weights, out / "faces.safetensors")


if __name__ == "__main__":
    main()
