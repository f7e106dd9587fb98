"""Recipe of the embedded generators: adversarial training on rendered scenes.

    python -m ganatomy.dissect.scenes.train_generator --out training/gan --images 200000
    python -m ganatomy.dissect.scenes.train_generator --architecture dcgan --out training/dcgan
    python -m ganatomy.dissect.scenes.train_generator --architecture dcgan --resize --out training/resize

The first is `progan_scenes`, the second `dcgan_scenes` and the third its control `dcgan_scenes_resize`.

Trained straight at full resolution, without fading. Non-saturating loss (Goodfellow et al. 2014), lazy R1 penalty
(Mescheder et al. 2018; Karras et al. 2020), minibatch standard deviation (Karras et al. 2018). The weights kept are
a running average. Stop it at any time: the same command resumes from its last checkpoint.
"""

from __future__ import annotations

import copy
import itertools
import time
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..generators.dcgan import DCGAN
from ..generators.progan import ProGAN
from .render import render

LATENT = 64
BATCH = 16
R1_GAMMA, R1_EVERY = 1.0, 16
AVERAGE = 0.998  # per step
RATE_HIGH, RATE_LOW = 2e-3, 5e-4  # the low one over the last third
CHECKPOINT_EVERY = 5000  # images
POOL = 20_000  # scenes rendered once and shown flipped or not


class EqualConv(nn.Module):
    """A convolution with the equalised learning rate; `padding` in pixels on every side."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.stride, self.padding = stride, padding
        self.scale = (2 / (fan_in * kernel * kernel)) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class Discriminator(nn.Module):
    """images (N, 3, 64, 64) in [-1, 1] -> scores (N,); 4×4 stride-2 convolutions keep it cheap."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.rgb = EqualConv(3, widths[0], 1)
        pairs = itertools.pairwise(widths)
        self.down = nn.ModuleList(EqualConv(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.last = EqualConv(widths[-1] + 1, widths[-1], 3, padding=1)
        self.score = EqualConv(widths[-1], 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.rgb(x), 0.2)
        for conv in self.down:
            x = F.leaky_relu(conv(x), 0.2)
        spread = x.float().std(0, correction=0).mean().to(x.dtype)  # one number for the whole batch
        x = torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], 1)
        return self.score(F.leaky_relu(self.last(x), 0.2)).flatten().float()


def train(g: ProGAN | DCGAN, out: Path, *, images: int, seed: int, discriminator: tuple[int, ...], rate: float) -> None:
    """Train until `images` real images were shown; writes `state.pt`, `generator.pt` and sample sheets into `out`.

    `rate` is the generator's learning rate relative to the discriminator's, whose weights have the equalised one.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    g = g.to(device).to(memory_format=torch.channels_last)
    d = Discriminator(discriminator).to(device).to(memory_format=torch.channels_last)
    g_average = copy.deepcopy(g).requires_grad_(False).eval()
    averaged = [tensor for tensor in g_average.state_dict().values() if tensor.is_floating_point()]
    trained = [tensor for tensor in g.state_dict().values() if tensor.is_floating_point()]
    g_adam, d_adam = (torch.optim.Adam(m.parameters(), RATE_HIGH, betas=(0.0, 0.99), fused=True) for m in (g, d))
    parts: dict[str, Any] = {"g": g, "d": d, "g_average": g_average, "g_adam": g_adam, "d_adam": d_adam}
    seen = 0
    state_file = out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        seen = state["seen"]
        torch.manual_seed(seed + seen)

    pool = torch.empty(POOL, 3, g.resolution, g.resolution, dtype=torch.uint8)
    for start in range(0, POOL, 500):
        scenes, _ = render(range(start, start + 500), side=g.resolution, seed=seed)
        pool[start : start + 500] = torch.from_numpy(scenes * 255).round()
    fixed = torch.randn(64, LATENT, generator=torch.Generator().manual_seed(0)).to(device)

    started, first, sums = time.monotonic(), seen, torch.zeros(3)
    while seen < images:
        now = RATE_HIGH if seen < images * 2 / 3 else RATE_LOW
        for adam, share in ((g_adam, rate), (d_adam, 1.0)):
            adam.param_groups[0]["lr"] = now * share
        real = pool[torch.randint(POOL, (BATCH,))]
        real = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, real, real.flip(3))
        real = (real.float() / 127.5 - 1).to(device).to(memory_format=torch.channels_last)

        with torch.autocast(device, torch.bfloat16):
            fake = g(torch.randn(BATCH, LATENT, device=device))
            shown = fake.detach().to(real.dtype).requires_grad_()
            fooled = d(shown)
            d_loss = F.softplus(fooled).mean() + F.softplus(-d(real)).mean()
            g_loss = F.softplus(-fooled).mean()
        # one pass of the discriminator on the fakes serves both losses
        (towards_real,) = torch.autograd.grad(g_loss, shown, retain_graph=True)
        d_adam.zero_grad()
        d_loss.backward()
        if seen // BATCH % R1_EVERY == 0:
            real.requires_grad_()
            (slope,) = torch.autograd.grad(d(real).sum(), real, create_graph=True)
            (slope.square().sum((1, 2, 3)).mean() * (R1_GAMMA / 2 * R1_EVERY)).backward()
        d_adam.step()
        g_adam.zero_grad()
        fake.backward(towards_real.to(fake.dtype))
        g_adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, trained, 1 - AVERAGE)  # batch norm's statistics too

        seen += BATCH
        sums += torch.tensor([d_loss.item(), g_loss.item(), 1.0])
        if seen % CHECKPOINT_EVERY < BATCH or seen >= images:
            speed = (seen - first) / (time.monotonic() - started)
            print(f"{seen} images  {speed:.1f}/s  D {sums[0] / sums[2]:.3f}  G {sums[1] / sums[2]:.3f}", flush=True)
            sums.zero_()
            state = {name: part.state_dict() for name, part in parts.items()} | {"seen": seen}
            torch.save(state, out / "state.part")
            (out / "state.part").rename(state_file)
            torch.save({name: p.contiguous().cpu() for name, p in g_average.state_dict().items()}, out / "generator.pt")
            with torch.no_grad():
                sheet = (g_average(fixed).clamp(-1, 1).cpu().float() + 1) * 127.5
            side = g.resolution
            sheet = sheet.reshape(8, 8, 3, side, side).permute(0, 3, 1, 4, 2).reshape(8 * side, 8 * side, 3)
            Image.fromarray(sheet.round().byte().numpy()).save(out / f"sheet-{seen:07d}.png")


def _numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(int(number) for number in text.split(","))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of checkpoints and sheets.")
@click.option("--architecture", type=click.Choice(["progan", "dcgan"]), default="progan", show_default=True)
@click.option("--resize", is_flag=True, help="DCGAN: resize and convolve instead of convolving transposed.")
@click.option("--images", default=200_000, show_default=True, help="Real images to show in all.")
@click.option("--seed", default=0, show_default=True)
@click.option("--widths", callback=_numbers, help="Units from 4×4 up.")
@click.option("--kernels", default="4,4,3,4", show_default=True, callback=_numbers, help="DCGAN: of each doubling.")
@click.option("--rate", default=1.0, show_default=True, help="Learning rate relative to the discriminator's.")
@click.option("--discriminator", default="16,32,64,128,192", show_default=True, callback=_numbers)
@click.option("--threads", default=1, show_default=True, help="CPU threads; two processes of one beat one of two.")
def main(
    out: Path,
    architecture: str,
    resize: bool,
    images: int,
    seed: int,
    widths: tuple[int, ...] | None,
    kernels: tuple[int, ...],
    rate: float,
    discriminator: tuple[int, ...],
    threads: int,
) -> None:
    """Train an embedded generator."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    g: ProGAN | DCGAN
    if architecture == "progan":
        g = ProGAN(LATENT, widths or (128, 128, 128, 64, 32))
    else:
        # the resizing twin has kernels of 3 throughout: those of 4, transposed, with their taps tied
        kernels = (3,) * len(kernels) if resize else kernels
        g = DCGAN(LATENT, widths or (192, 128, 64, 32), kernels, resize=(resize,) * len(kernels))
    train(g, out, images=images, seed=seed, discriminator=discriminator, rate=rate)


if __name__ == "__main__":
    main()
