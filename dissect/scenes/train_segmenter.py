"""Recipe of the `scenes` segmenter: a small U-Net trained on renders that were spoilt on purpose.

    python -m ganatomy.dissect.scenes.train_segmenter --out training/segmenter --images 60000

It never sees a generated image, so what it says of a generator is not circular. What it must survive instead is made
here: blur, noise, colour jitter; scenes rolled sideways; warped outlines; objects in wrong colours (a red tree is
still a tree); and smudges, regions that show nothing, where the target is "no class is likelier than another"
(Hendrycks et al. 2019), so that the segmenter is unsure there and leaves the pixels unlabelled.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ...segmenters.scenes import CLASSES, CONFIDENCE, SIDE, network, normalise
from .render import render

BATCH = 32
RATE = 2e-3
CHECKPOINT_EVERY = 4000  # images
TRAINING, HELD_OUT = 3, 4  # seeds of the renderer


def _smooth(count: int, channels: int, coarse: int, generator: torch.Generator) -> Tensor:
    """Smooth random fields (count, channels, SIDE, SIDE), about N(0, 1), with features of SIDE / coarse pixels."""
    noise = torch.randn(count, channels, coarse, coarse, generator=generator)
    return F.interpolate(noise, (SIDE, SIDE), mode="bicubic", align_corners=False)


def _some(count: int, share: float, generator: torch.Generator) -> Tensor:
    """(count, 1, 1, 1) bool, true for about that share."""
    return torch.rand(count, 1, 1, 1, generator=generator) < share


def _blur(images: Tensor, sigma: float) -> Tensor:
    reach = round(2.5 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).expand(3, 1, 1, -1)
    images = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="replicate"), taps, groups=3)
    return F.conv2d(F.pad(images, (0, 0, reach, reach), mode="replicate"), taps.mT, groups=3)


def spoil(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Spoil clean scenes as an imperfect generator, or an intervention in one, would.

    images (N, 3, S, S) in [0, 1], labels (N, S, S) -> images, labels, and smudged (N, S, S) bool.
    """
    count = len(images)
    # the church is not always in the middle: scenes roll sideways
    roll = torch.randint(SIDE, (count, 1), generator=generator) * _some(count, 0.4, generator)[:, 0, 0]
    columns = ((torch.arange(SIDE) + roll) % SIDE)[:, None, :].expand(-1, SIDE, -1)  # (N, S, S)
    images = images.gather(3, columns[:, None].expand_as(images))
    labels = labels.gather(2, columns)

    # outlines drift by a pixel or two
    shift = _smooth(count, 2, 8, generator) * (3.0 / SIDE) * _some(count, 0.5, generator)
    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) + shift.permute(0, 2, 3, 1)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    warped = F.grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    labels = warped[:, 0].long()

    # one to three classes lose their colour and get another
    members = torch.rand(count, len(CLASSES), generator=generator) < 0.15
    recoloured = members.gather(1, labels.flatten(1)).reshape(labels.shape)[:, None] & _some(count, 0.5, generator)
    tint = torch.rand(count, 3, 1, 1, generator=generator) * 1.6
    images = torch.where(recoloured, (images.mean(1, keepdim=True) * tint + 0.15 * tint).clamp(0, 1), images)

    # colour jitter of the whole picture
    contrast = 1 + 0.15 * torch.randn(count, 1, 1, 1, generator=generator)
    images = (images - 0.5) * contrast + 0.5 + 0.06 * torch.randn(count, 3, 1, 1, generator=generator)

    # smudges: flat colour or mush
    field = _smooth(count, 1, 6, generator)
    smudged = (field > 1.3) & _some(count, 0.4, generator)
    colour = torch.rand(count, 3, 1, 1, generator=generator) + 0.08 * _smooth(count, 3, 16, generator)
    mush = _blur(images, 5.0) + 0.05 * _smooth(count, 3, 16, generator)
    images = torch.where(smudged, torch.where(_some(count, 0.5, generator), colour, mush), images)

    images = torch.where(_some(count, 0.3, generator), _blur(images, 1.0), images)
    grain = 0.05 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(images.shape, generator=generator)
    return (images + grain).clamp(0, 1), labels, smudged[:, 0]


def batch(start: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clean scenes and labels, as tensors."""
    images, labels = render(range(start, start + count), side=SIDE, seed=seed)
    return torch.from_numpy(images), torch.from_numpy(labels).long()


@torch.inference_mode()
def accuracy(model: torch.nn.Module, *, spoilt: bool, count: int = 512) -> dict[str, float]:
    """Pixel accuracy on held-out renders, over all pixels that are not smudged; and how much stays unlabelled."""
    generator = torch.Generator().manual_seed(5)
    right = known = pixels = mute = smudges = 0
    for start in range(0, count, BATCH):
        images, labels = batch(start, BATCH, HELD_OUT)
        smudged = torch.zeros_like(labels, dtype=torch.bool)
        if spoilt:
            images, labels, smudged = spoil(images, labels, generator)
        best, said = model(normalise(images)).softmax(1).max(1)
        sure = best >= CONFIDENCE
        right += int(((said == labels) & sure & ~smudged).sum())
        known += int((sure & ~smudged).sum())
        pixels += int((~smudged).sum())
        mute += int((~sure & smudged).sum())
        smudges += int(smudged.sum())
    return {"accuracy": right / pixels, "labelled": known / pixels, "smudges unlabelled": mute / max(smudges, 1)}


def train(out: Path, images: int) -> None:
    """Train until `images` scenes were shown; writes `state.pt` and `scenes.safetensors` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = network().to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    seen, state_file = 0, out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        seen = state["seen"]
    started, first = time.monotonic(), seen
    while seen < images:
        for group in adam.param_groups:  # warm up, then a cosine to nothing
            group["lr"] = RATE * min(1, (seen + BATCH) / 2000) * (1 + math.cos(math.pi * seen / images)) / 2
        generator = torch.Generator().manual_seed(seen)
        pictures, labels, smudged = spoil(*batch(seen, BATCH, TRAINING), generator)
        flipped = torch.rand(BATCH, generator=generator) < 0.5
        pictures[flipped], labels[flipped], smudged[flipped] = (
            t[flipped].flip(-1) for t in (pictures, labels, smudged)
        )
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(normalise(pictures).contiguous(memory_format=torch.channels_last))
        log = scores.float().log_softmax(1)
        wrong = -log.gather(1, labels[:, None])[:, 0]
        loss = torch.where(smudged, 0.5 * -log.mean(1), wrong).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        seen += BATCH
        if seen % CHECKPOINT_EVERY < BATCH or seen >= images:
            model.eval()
            report = {name: accuracy(model, spoilt=name == "spoilt") for name in ("clean", "spoilt")}
            model.train()
            speed = (seen - first) / (time.monotonic() - started)
            print(f"{seen} images  {speed:.1f}/s  loss {loss.item():.3f}  {report}", flush=True)
            torch.save({"model": model.state_dict(), "adam": adam.state_dict(), "seen": seen}, out / "state.part")
            (out / "state.part").rename(state_file)
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "scenes.safetensors")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of checkpoints.")
@click.option("--images", default=60_000, show_default=True, help="Scenes to show in all.")
@click.option("--threads", default=1, show_default=True)
def main(out: Path, images: int, threads: int) -> None:
    """Train the embedded segmenter."""
    torch.set_num_threads(threads)
    train(out, images)


if __name__ == "__main__":
    main()
