"""Recipe of the `scenes` segmenter: a small U-Net trained on renders that were spoilt on purpose.

    python -m ganatomy.dissect.recipes.train_segmenter --out training/segmenter --images 400000 --processes 16

It never sees a generated image, so what it says of a generator is not circular. What it must survive instead is made
here: blur, noise, lower resolution, colour jitter; scenes rolled sideways; warped outlines; objects in wrong colours (a
red tree is still a tree); and smudges, regions that show nothing, where the target is "no class is likelier than
another" (Hendrycks et al. 2019), so that the segmenter is unsure there and leaves the pixels unlabelled. Scenes with a
rare class are shown more often, and small classes count more in the loss, else they would hardly be learnt. At last its
scores are divided by one temperature (Guo et al. 2017), so that its probabilities are those of being right.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...segmenters.scenes import CLASSES
from ...segmenters.unet import CONFIDENCE, SIDE, network, normalise
from ..scenes.render import render
from .scene_pool import CHUNK, LEAST, ScenePool, drawing

BATCH = 64
RARE_SCENES = 24  # of a batch show a class that few scenes show, else those would hardly be learnt
RATE = 3e-3
CHECKPOINT_EVERY = 20  # seconds
TRAINING, HELD_OUT = 3, 4  # seeds of the renderer
CALIBRATING = range(100_000, 100_512)  # held-out renders that set the temperature
BINS = 15  # of confidence


def _smooth(count: int, channels: int, coarse: int, generator: torch.Generator) -> Tensor:
    """Smooth random fields (count, channels, SIDE, SIDE), about N(0, 1), with features of SIDE / coarse pixels."""
    noise = torch.randn(count, channels, coarse, coarse, generator=generator, device=generator.device)
    return F.interpolate(noise, (SIDE, SIDE), mode="bicubic", align_corners=False)


def _some(count: int, share: float, generator: torch.Generator) -> Tensor:
    """(count, 1, 1, 1) bool, true for about that share."""
    return _uniform(generator, count, 1, 1, 1) < share


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _blur(images: Tensor, sigma: float) -> Tensor:
    reach = round(2.5 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    taps = (taps / taps.sum()).expand(3, 1, 1, -1)
    images = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="replicate"), taps, groups=3)
    return F.conv2d(F.pad(images, (0, 0, reach, reach), mode="replicate"), taps.mT, groups=3)


def spoil(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Spoil clean scenes as an imperfect generator, or an intervention in one, would.

    images (N, 3, S, S) in [0, 1], labels (N, S, S) int64 -> images, labels, and smudged (N, S, S) bool. All lie on the
    device of `generator`.
    """
    count, device = len(images), generator.device
    # the church is not always in the middle: scenes roll sideways
    roll = torch.randint(SIDE, (count, 1), generator=generator, device=device) * _some(count, 0.4, generator)[:, 0, 0]
    columns = ((torch.arange(SIDE, device=device) + roll) % SIDE)[:, None, :].expand(-1, SIDE, -1)  # (N, S, S)
    images = images.gather(3, columns[:, None].expand_as(images))
    labels = labels.gather(2, columns)

    # outlines drift by some pixels
    shift = _smooth(count, 2, 8, generator) * (4.0 / SIDE) * _some(count, 0.5, generator)
    axis = (torch.arange(SIDE, device=device) + 0.5) * 2 / SIDE - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) + shift.permute(0, 2, 3, 1)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    warped = F.grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    labels = warped[:, 0].long()

    # about one class in eight loses its colour and gets another
    members = _uniform(generator, count, len(CLASSES)) < 0.12
    recoloured = members.gather(1, labels.flatten(1)).reshape(labels.shape)[:, None] & _some(count, 0.5, generator)
    tint = _uniform(generator, count, 3, 1, 1) * 1.6
    images = torch.where(recoloured, (images.mean(1, keepdim=True) * tint + 0.15 * tint).clamp(0, 1), images)

    # colour jitter of the whole picture
    contrast = 1 + 0.15 * torch.randn(count, 1, 1, 1, generator=generator, device=device)
    brightness = 0.06 * torch.randn(count, 3, 1, 1, generator=generator, device=device)
    images = (images - 0.5) * contrast + 0.5 + brightness

    # smudges: flat colour or mush
    field = _smooth(count, 1, 6, generator)
    smudged = (field > 1.3) & _some(count, 0.4, generator)
    colour = _uniform(generator, count, 3, 1, 1) + 0.08 * _smooth(count, 3, 16, generator)
    mush = _blur(images, 8.0) + 0.05 * _smooth(count, 3, 16, generator)
    images = torch.where(smudged, torch.where(_some(count, 0.5, generator), colour, mush), images)

    images = torch.where(_some(count, 0.3, generator), _blur(images, 1.5), images)
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")  # generators of half the side
    images = torch.where(_some(count, 0.2, generator), coarse, images)
    strength = 0.05 * _uniform(generator, count, 1, 1, 1)
    grain = strength * torch.randn(images.shape, generator=generator, device=device)
    return (images + grain).clamp(0, 1), labels, smudged[:, 0]


def held_out(indices: range, *, spoilt: bool, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of images, labels and what is smudged of renders that no training sees, clean or spoilt."""
    generator = torch.Generator(device).manual_seed(5)
    for start in range(0, len(indices), BATCH):
        images, labels = render(indices[start : start + BATCH], side=SIDE, seed=HELD_OUT)
        pictures, names = torch.from_numpy(images).to(device), torch.from_numpy(labels).long().to(device)
        smudged = torch.zeros_like(names, dtype=torch.bool)
        yield spoil(pictures, names, generator) if spoilt else (pictures, names, smudged)


@torch.inference_mode()
def accuracy(model: nn.Module, *, spoilt: bool, count: int = 512, device: str = "cpu") -> dict[str, float]:
    """How right a segmenter is on held-out renders, over all pixels that are not smudged.

    Returns:
        accuracy: share of pixels with the right label; unlabelled ones are wrong.
        labelled: share of pixels with a label.
        calibration: expected calibration error over 15 bins of confidence (Guo et al. 2017), in [0, 1].
        smudges unlabelled: share of smudged pixels that stay without a label.
    """
    right = known = pixels = mute = smudges = 0
    bins = torch.zeros(3, BINS, dtype=torch.float64)  # pixels, right ones, sum of confidences
    for images, labels, smudged in held_out(range(count), spoilt=spoilt, device=device):
        best, predicted = model(normalise(images)).float().softmax(1).max(1)
        sure, correct = best >= CONFIDENCE, predicted == labels
        right += int((correct & sure & ~smudged).sum())
        known += int((sure & ~smudged).sum())
        pixels += int((~smudged).sum())
        mute += int((~sure & smudged).sum())
        smudges += int(smudged.sum())
        chances, hits = best[~smudged].double().cpu(), correct[~smudged].double().cpu()
        bin_of = (chances * BINS).long().clamp(max=BINS - 1)
        for row, weights in enumerate((torch.ones_like(hits), hits, chances)):
            bins[row] += torch.bincount(bin_of, weights, minlength=BINS)
    return {
        "accuracy": right / pixels,
        "labelled": known / pixels,
        "calibration": float((bins[1] - bins[2]).abs().sum() / pixels),
        "smudges unlabelled": mute / max(smudges, 1),
    }


@torch.inference_mode()
def calibrate(model: nn.Module, *, device: str) -> float:
    """Divide the model's scores by the temperature that makes spoilt held-out renders most probable; returns it.

    These are others than `accuracy` judges by.
    """
    head = model.get_submodule("segmentation_head.0")
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    renders = [
        (model(normalise(images)).float(), labels.masked_fill(smudged, -1))
        for images, labels, smudged in held_out(CALIBRATING, spoilt=True, device=device)
    ]
    temperatures = torch.linspace(0.6, 2.0, 57).tolist()
    losses = [
        sum(float(F.cross_entropy(scores / t, labels, ignore_index=-1)) for scores, labels in renders)
        for t in temperatures
    ]
    best = temperatures[losses.index(min(losses))]
    head.weight /= best
    head.bias /= best
    return best


def class_weights(labels: Tensor) -> Tensor:
    """(C,) how much a pixel of each class counts in the loss: 1, but up to 6 for classes of a few pixels in all."""
    share = torch.bincount(labels.flatten().long(), minlength=len(CLASSES)) / labels.numel()
    return (0.005 / share.clamp(min=1e-9)).sqrt().clamp(1, 6)


def train(out: Path, pool: ScenePool, images: int, minutes: float | None) -> None:
    """Train until `images` scenes were shown; writes `state.pt` and `scenes.safetensors` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    device = pool.device
    model = network(len(CLASSES)).to(device).to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    seen, spent, state_file = 0, 0.0, out / "state.pt"  # images, seconds
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        seen, spent = state["seen"], state["spent"]
    pool.wait(SIDE)
    weights = class_weights(pool.labels[:LEAST])
    generator = torch.Generator(device).manual_seed(seen)
    started, saved, first = time.monotonic(), time.monotonic(), seen
    limit = math.inf if minutes is None else 60 * minutes
    done = max(seen / images, spent / limit)
    while done < 1:
        for group in adam.param_groups:  # warm up, then a cosine to nothing
            group["lr"] = RATE * min(1, (seen + BATCH) / 5000) * (1 + math.cos(math.pi * done)) / 2
        clean, names = pool.draw_labelled(BATCH, RARE_SCENES, generator)
        pictures, labels, smudged = spoil(clean, names, generator)
        flipped = _uniform(generator, BATCH, 1, 1) < 0.5
        pictures = torch.where(flipped[:, None], pictures.flip(-1), pictures)
        labels, smudged = (torch.where(flipped, mask.flip(-1), mask) for mask in (labels, smudged))
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            scores = model(normalise(pictures).contiguous(memory_format=torch.channels_last))
        log = scores.float().log_softmax(1)
        wrong = -log.gather(1, labels[:, None])[:, 0] * weights[labels]
        loss = torch.where(smudged, 0.5 * -log.mean(1), wrong).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        seen += BATCH
        elapsed = time.monotonic() - started
        done = max(seen / images, (spent + elapsed) / limit)
        if done >= 1 or time.monotonic() - saved > CHECKPOINT_EVERY:
            print(
                f"{seen} images  {(seen - first) / elapsed:.1f}/s  loss {loss.item():.3f}  {pool.grow()} scenes",
                flush=True,
            )
            state = {"model": model.state_dict(), "adam": adam.state_dict(), "seen": seen, "spent": spent + elapsed}
            torch.save(state, out / "state.part")
            (out / "state.part").rename(state_file)
            saved = time.monotonic()
    model.eval()
    print(f"temperature {calibrate(model, device=device):.3f}")
    for name in ("clean", "spoilt"):
        print(name, accuracy(model, spoilt=name == "spoilt", device=device), flush=True)
    save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, out / "scenes.safetensors")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of checkpoints.")
@click.option("--pool", type=click.Path(path_type=Path), help="Folder of scenes. [default: OUT/scenes]")
@click.option(
    "--scenes",
    type=click.IntRange(min=CHUNK),
    default=60_000,
    show_default=True,
    help="How many different scenes are shown.",
)
@click.option("--processes", default=os.cpu_count() or 1, show_default="all cores", help="That draw them.")
@click.option("--images", default=400_000, show_default=True, help="Scenes to show in all.")
@click.option("--minutes", type=float, help="When to stop before.")
@click.option("--threads", default=1, show_default=True)
def main(
    out: Path, pool: Path | None, scenes: int, processes: int, images: int, minutes: float | None, threads: int
) -> None:
    """Train the embedded segmenter."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = pool or out / "scenes"
    drawn = drawing(folder, scenes, side=SIDE, seed=TRAINING, processes=processes, device=device, labels=True)
    with drawn as growing:
        train(out, growing, images, minutes)


if __name__ == "__main__":
    main()
