"""Recipe of the embedded generators: adversarial training on rendered scenes.

    python -m ganatomy.dissect.recipes.train_generator --out training/gan --minutes 4 --scenes 300000 --processes 15
    python -m ganatomy.dissect.recipes.train_generator --out training/dcgan --architecture dcgan --latent 64
        --discriminator 16,32,64,128,192 --batch 16 --rate 2e-3 --ratio 0.6 --half-life 5500 --images 78000
    python -m ganatomy.dissect.recipes.train_generator --out training/resize --resize …, as the second

The first is `progan_scenes` on a GPU, the second `dcgan_scenes` and the third its control `dcgan_scenes_resize`.

A progressive GAN grows as in Karras et al. 2018: it starts at 16×16 pixels, and each doubling fades in over the first
part of its phase. A DCGAN trains straight at full resolution. Non-saturating loss (Goodfellow et al. 2014) or, with
`--evolve`, the three mutations of E-GAN (Wang et al. 2018); lazy R1 penalty (Mescheder et al. 2018; Karras et al.
2020); minibatch standard deviation (Karras et al. 2018). The weights kept are a running average. On a GPU each kind of
step is one CUDA graph. Stop it at any time: the same command resumes from its last checkpoint.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..generators.families.dcgan import DCGAN
from ..generators.families.progan import ProGAN, ToRGB
from .evolution import MUTATIONS, evolve, heuristic
from .scene_pool import CHUNK, ScenePool, drawing

R1_EVERY = 16  # steps
CHECKPOINT_EVERY = 20  # seconds
FALL = 0.25  # of the training, its end, over which the learning rate falls to a tenth along a cosine
START = 2  # doublings of 4 pixels at which a progressive GAN begins: 16
GROWTH = 1.4  # how much longer each phase is than the one before
FADE = 0.35  # of a phase, its beginning, over which a doubling fades in


class EqualConv(nn.Module):
    """A convolution with the equalised learning rate; `padding` in pixels on every side."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.padding = padding
        self.scale = (2 / (fan_in * kernel * kernel)) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class Residual(nn.Module):
    """Two 3×3 convolutions beside a 1×1 one, then half the size."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.first = EqualConv(fan_in, fan_in, 3, padding=1)
        self.second = EqualConv(fan_in, fan_out, 3, padding=1)
        self.beside = EqualConv(fan_in, fan_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), 0.2)
        y = F.avg_pool2d(F.leaky_relu(self.second(y), 0.2), 2)
        return (y + self.beside(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """images (N, 3, R, R) in [-1, 1] -> scores (N,).

    `widths`: units of each resolution from the largest down to 4. Smaller images enter further down; while a doubling
    fades in, by `fade` from 0 to 1, they enter at both.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.rgb = nn.ModuleList(EqualConv(3, width, 1) for width in widths)
        self.down = nn.ModuleList(Residual(a, b) for a, b in itertools.pairwise(widths))
        self.last = EqualConv(widths[-1] + 1, widths[-1], 3, padding=1)
        self.score = EqualConv(widths[-1], 1, 4)

    def forward(self, images: Tensor, fade: Tensor | None = None) -> Tensor:
        doublings = images.shape[-1].bit_length() - 3
        start = len(self.down) - doublings
        x = F.leaky_relu(self.rgb[start](images), 0.2)
        for place, block in enumerate(self.down[start:], start):
            x = block(x)
            if place == start and fade is not None:
                below = F.leaky_relu(self.rgb[start + 1](F.avg_pool2d(images, 2)), 0.2)
                x = torch.lerp(below.to(x.dtype), x, fade.to(x.dtype))
        spread = _spread(x).to(x.dtype)
        x = torch.cat([x, spread.expand(-1, 1, *x.shape[2:])], 1)
        return self.score(F.leaky_relu(self.last(x), 0.2)).flatten().float()


class Growing(nn.Module):
    """A progressive GAN with the outputs that it has on the way: latents -> images of 4 · 2^doublings pixels."""

    def __init__(self, whole: ProGAN) -> None:
        super().__init__()
        self.whole = whole
        self.early = nn.ModuleList(ToRGB(width) for width in whole.widths[:-1])

    def forward(self, latents: Tensor, doublings: int, fade: Tensor | None) -> Tensor:
        *blocks, output = self.whole.children()
        outputs = [*self.early, output]
        x = before = latents.reshape(len(latents), -1, 1, 1)
        for first, second in zip(blocks[0 : 2 * doublings + 2 : 2], blocks[1::2], strict=False):
            before, x = x, second(first(x))
        images: Tensor = outputs[doublings](x)
        if fade is None:
            return images
        below = F.interpolate(outputs[doublings - 1](before), scale_factor=2.0, mode="nearest")
        return torch.lerp(below.to(images.dtype), images, fade.to(images.dtype))


def _spread(x: Tensor, group: int = 8) -> Tensor:
    """(N, C, h, w) -> (N, 1, 1, 1): standard deviation over groups of up to 8 samples, averaged over all else.

    A batch that 8 does not divide is one group.
    """
    count = len(x)
    size = group if count % group == 0 else count
    grouped = x.float().unflatten(0, (size, count // size))
    deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # (N / size,)
    return deviation.repeat(size)[:, None, None, None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a generator is trained.

    Args:
        images: real images to show in all.
        minutes: when to stop before, None for never.
        batch: images a step.
        rate: Adam's learning rate of the discriminator.
        ratio: the generator's learning rate relative to it.
        r1: γ of the R1 penalty at full resolution; smaller images have less in proportion to their side.
        half_life: images after which a weight counts half in the running average.
        evolve: whether the generator's steps are E-GAN's.
        graphs: whether steps are captured as CUDA graphs, where there is a GPU.
        seed: of the scenes, the weights and the latents.
    """

    images: int
    minutes: float | None
    batch: int
    rate: float
    ratio: float
    r1: float
    half_life: float
    evolve: bool
    graphs: bool
    seed: int

    def rate_at(self, done: float) -> float:
        """The learning rate when `done` of the training, from 0 to 1, lies behind."""
        fallen = min(max(0.0, (done - 1 + FALL) / FALL), 1.0)
        return self.rate * (0.55 + 0.45 * math.cos(math.pi * fallen))


def growth(done: float, last: int) -> tuple[int, float]:
    """Doublings of 4 pixels, and how far the last of them has faded in, when `done` of the training lies behind."""
    lengths = [GROWTH**phase for phase in range(last - START + 1)]
    begun = 0.0
    for doublings, length in enumerate(lengths, START):
        share = length / sum(lengths)
        if done < begun + share or doublings == last:
            return doublings, 1.0 if doublings == START else min(1.0, (done - begun) / (FADE * share))
        begun += share
    raise AssertionError("the last phase has no end")


class Training:
    """A generator, its average and its discriminator on their way. `step` shows one batch of a pool."""

    def __init__(
        self,
        g: ProGAN | DCGAN,
        discriminator: tuple[int, ...],
        recipe: Recipe,
        pool: ScenePool,
    ) -> None:
        self.recipe, self.pool, device = recipe, pool, pool.device
        # few CPUs are faster in bfloat16; casts of weights must not outlive a step of theirs, nor a captured graph
        self.lower = partial(torch.autocast, device, torch.bfloat16, enabled=device == "cuda", cache_enabled=False)
        self.latent, self.side, self.last = g.latent, g.resolution, g.resolution.bit_length() - 3
        self.grows = isinstance(g, ProGAN)
        self.g = (Growing(g) if isinstance(g, ProGAN) else g).to(device).to(memory_format=torch.channels_last)
        self.d = Discriminator(discriminator).to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.g).requires_grad_(False).eval()
        self.g_adam, self.d_adam = (self._adam(m) for m in (self.g, self.d))
        self.seen, self.spent = 0, 0.0  # images, seconds
        self.doublings = START if self.grows else self.last
        self.fade = torch.ones((), device=device)
        self.sums = torch.zeros(3, device=device)  # of the losses of both, and steps
        self.won = torch.zeros(len(MUTATIONS), device=device)
        self._averaged, self._trained = (
            [tensor for tensor in m.state_dict().values() if tensor.is_floating_point()] for m in (self.average, self.g)
        )
        self._steps: dict[tuple[int, bool], Callable[[], None]] = {}

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        """Adam with its state made: a step along no gradient moves nothing."""
        rate = torch.tensor(self.recipe.rate, device=self.pool.device)  # a tensor, so that a graph sees it change
        adam = torch.optim.Adam(
            module.parameters(), rate, betas=(0.0, 0.99), fused=True, capturable=self.pool.device == "cuda"
        )
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        adam.step()
        adam.zero_grad()
        return adam

    def parts(self) -> dict[str, Any]:
        return {"g": self.g, "d": self.d, "average": self.average, "g_adam": self.g_adam, "d_adam": self.d_adam}

    @property
    def fading(self) -> Tensor | None:
        """How far the last doubling has faded in; None where there was none."""
        return self.fade if self.grows and self.doublings > START else None

    def latents(self) -> Tensor:
        return torch.randn(self.recipe.batch, self.latent, device=self.pool.device)

    def draw(self, latents: Tensor) -> Tensor:
        """latents -> images in [-1, 1], of as many pixels as the generator has grown to."""
        if not self.grows:
            images: Tensor = self.g(latents)
            return images
        grown: Tensor = self.g(latents, self.doublings, self.fading)
        return grown

    def judge(self, images: Tensor) -> Tensor:
        """images -> scores (N,)."""
        scores: Tensor = self.d(images, self.fading)
        return scores

    def real(self) -> Tensor:
        """Real images, half of them mirrored, of the generator's size and as far faded in."""
        images = self.pool.draw(self.recipe.batch)
        flipped = torch.rand(self.recipe.batch, 1, 1, 1, device=self.pool.device) < 0.5
        images = torch.where(flipped, images.flip(3), images).mul(2).sub(1)
        if self.doublings < self.last:
            images = F.avg_pool2d(images, 2 ** (self.last - self.doublings))
        if self.fading is not None:
            below = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="nearest")
            images = torch.lerp(below, images, self.fading)
        return images.contiguous(memory_format=torch.channels_last)

    def step(self, done: float) -> None:
        """Show one batch when `done` of the training, from 0 to 1, lies behind."""
        recipe = self.recipe
        if self.grows:
            self.doublings, faded = growth(done, self.last)
            self.fade.fill_(faded)
        for adam, share in ((self.g_adam, recipe.ratio), (self.d_adam, 1.0)):
            adam.param_groups[0]["lr"].fill_(recipe.rate_at(done) * share)
        penalty = self.seen // recipe.batch % R1_EVERY == 0
        if penalty and self.pool.device == "cuda":
            torch.cuda.synchronize()  # else the clock would run ahead of what the GPU has done
        self._step(penalty)()
        decay = 0.5 ** (recipe.batch / min(recipe.half_life, 0.05 * self.seen + recipe.batch))
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._trained, 1 - decay)  # batch norm's statistics too
        self.seen += recipe.batch

    def _step(self, penalty: bool) -> Callable[[], None]:
        """The step of this phase: as it is, or as a CUDA graph that is captured at its first use."""
        step = partial(self._show, penalty)
        if not (self.recipe.graphs and self.pool.device == "cuda"):
            return step
        key = (self.doublings, penalty)
        if key not in self._steps:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # algorithms are chosen and buffers made before the capture
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(aside)
            for adam in (self.g_adam, self.d_adam):
                adam.zero_grad()  # gradients are made anew in the graph's own memory
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            self._steps[key] = graph.replay
        return self._steps[key]

    def _show(self, penalty: bool) -> None:
        """One step of both networks. Nothing is read back from the device."""
        recipe, real = self.recipe, self.real()
        for adam in (self.g_adam, self.d_adam):
            adam.zero_grad()
        with self.lower():
            fake = self.draw(self.latents())
            shown = fake.detach().to(real.dtype).requires_grad_(not recipe.evolve)
            fooled = self.judge(shown)
            d_loss = F.softplus(fooled).mean() + F.softplus(-self.judge(real)).mean()
            g_loss = heuristic(fooled)
        if not recipe.evolve:  # one pass of the discriminator on the fakes serves both losses
            (towards_real,) = torch.autograd.grad(g_loss, shown, retain_graph=True)
        d_loss.backward(inputs=list(self.d.parameters()))
        if penalty:
            inputs = real.detach().requires_grad_()
            with self.lower():
                scores = self.judge(inputs).sum()
            (slope,) = torch.autograd.grad(scores, inputs, create_graph=True)
            weight = recipe.r1 / 2 ** (self.last - self.doublings) / 2 * R1_EVERY
            (slope.float().square().sum((1, 2, 3)).mean() * weight).backward(inputs=list(self.d.parameters()))
        self.d_adam.step()
        if recipe.evolve:
            with self.lower():
                self.won += evolve(self.g, self.g_adam, self.d, self.judge, self.draw, self.latents, real)
        else:
            fake.backward(towards_real.to(fake.dtype), inputs=list(self.g.parameters()))
            self.g_adam.step()
        self.sums += torch.stack([d_loss.detach(), g_loss.detach(), torch.ones_like(d_loss)])

    def report(self) -> str:
        """The losses since the last report, and how often each mutation has won."""
        d_loss, g_loss, steps = self.sums.tolist()
        self.sums.zero_()
        text = f"{4 << self.doublings} pixels  D {d_loss / max(steps, 1):.3f}  G {g_loss / max(steps, 1):.3f}"
        if self.recipe.evolve:
            won = dict(zip(MUTATIONS, map(int, self.won.tolist()), strict=True))
            text += "  " + ", ".join(f"{name} {count}" for name, count in won.items())
        return text

    def save(self, out: Path) -> None:
        """`state.pt`, `generator.pt` (the average) and a sheet of 64 samples."""
        state = {name: part.state_dict() for name, part in self.parts().items()} | {
            "seen": self.seen,
            "spent": self.spent,
        }
        torch.save(state, out / "state.part")
        (out / "state.part").rename(out / "state.pt")
        whole = self.average.whole if isinstance(self.average, Growing) else self.average
        torch.save({name: p.contiguous().cpu() for name, p in whole.state_dict().items()}, out / "generator.pt")
        fixed = torch.randn(64, self.latent, generator=torch.Generator().manual_seed(0)).to(self.pool.device)
        self.g, kept = self.average, self.g
        with torch.inference_mode():
            sheet = (self.draw(fixed).clamp(-1, 1).float().cpu() + 1) * 127.5
        self.g = kept
        side = sheet.shape[-1]
        sheet = sheet.reshape(8, 8, 3, side, side).permute(0, 3, 1, 4, 2).reshape(8 * side, 8 * side, 3)
        Image.fromarray(sheet.round().byte().numpy()).save(out / f"sheet-{self.seen:07d}.webp", quality=80)

    def load(self, file: Path) -> None:
        """Go on from a `state.pt`."""
        state = torch.load(file, map_location=self.pool.device, weights_only=True)
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.seen, self.spent = state["seen"], state["spent"]


def train(training: Training, out: Path) -> None:
    """Train as the recipe says; writes `state.pt`, `generator.pt` and sample sheets into `out` every 20 seconds."""
    out.mkdir(parents=True, exist_ok=True)
    recipe, pool = training.recipe, training.pool
    if (out / "state.pt").exists():
        training.load(out / "state.pt")
    torch.manual_seed(recipe.seed + training.seen)
    pool.wait(training.side)
    started = saved = time.monotonic()
    first, spent = training.seen, training.spent
    limit = math.inf if recipe.minutes is None else 60 * recipe.minutes
    done = max(training.seen / recipe.images, spent / limit)
    while done < 1:
        training.step(done)
        elapsed = time.monotonic() - started
        training.spent = spent + elapsed
        done = max(training.seen / recipe.images, training.spent / limit)
        if done >= 1 or time.monotonic() - saved > CHECKPOINT_EVERY:
            report = training.report()
            training.save(out)
            speed = (training.seen - first) / elapsed
            print(f"{training.seen} images  {speed:.0f}/s  {report}  {pool.grow()} scenes", flush=True)
            saved = time.monotonic()


def _numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(int(number) for number in text.split(","))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of checkpoints and sheets.")
@click.option("--pool", type=click.Path(path_type=Path), help="Folder of scenes. [default: OUT/scenes]")
@click.option(
    "--scenes",
    type=click.IntRange(min=CHUNK),
    default=20_000,
    show_default=True,
    help="How many different scenes are shown.",
)
@click.option("--processes", default=1, show_default=True, help="That draw them, while training goes on.")
@click.option("--architecture", type=click.Choice(["progan", "dcgan"]), default="progan", show_default=True)
@click.option("--resize", is_flag=True, help="DCGAN: resize and convolve instead of convolving transposed.")
@click.option("--images", default=5_000_000, show_default=True, help="Real images to show in all.")
@click.option("--minutes", type=float, help="When to stop before.")
@click.option("--latent", default=128, show_default=True)
@click.option("--widths", callback=_numbers, help="Units from 4×4 up.")
@click.option("--kernels", default="4,4,3,4", show_default=True, callback=_numbers, help="DCGAN: of each doubling.")
@click.option("--discriminator", callback=_numbers, help="Units from the image's resolution down to 4×4.")
@click.option("--batch", default=64, show_default=True)
@click.option("--rate", default=4e-3, show_default=True, help="Learning rate.")
@click.option("--ratio", default=0.5, show_default=True, help="The generator's, relative to the discriminator's.")
@click.option("--r1", default=1.0, show_default=True, help="γ of the R1 penalty.")
@click.option("--half-life", default=10_000.0, show_default=True, help="Images: of the running average of weights.")
@click.option("--evolve", is_flag=True, help="E-GAN: the fittest of three children takes each step.")
@click.option("--graphs/--no-graphs", default=True, show_default=True, help="CUDA graphs, on a GPU.")
@click.option("--seed", default=1, show_default=True)
@click.option("--threads", default=1, show_default=True, help="CPU threads; two processes of one beat one of two.")
def main(
    out: Path,
    pool: Path | None,
    scenes: int,
    processes: int,
    architecture: str,
    resize: bool,
    latent: int,
    widths: tuple[int, ...] | None,
    kernels: tuple[int, ...],
    discriminator: tuple[int, ...] | None,
    threads: int,
    **options: Any,
) -> None:
    """Train an embedded generator."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options["seed"])
    g: ProGAN | DCGAN
    if architecture == "progan":
        g = ProGAN(latent, widths or (256, 256, 256, 256, 64, 32))
    else:
        # the resizing twin has kernels of 3 throughout: those of 4, transposed, with their taps tied
        kernels = (3,) * len(kernels) if resize else kernels
        g = DCGAN(latent, widths or (192, 128, 64, 32), kernels, resize=(resize,) * len(kernels))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = pool or out / "scenes"
    usual = tuple(min(256, 32 * 2**level) for level in range(g.resolution.bit_length() - 2))
    seed: int = options["seed"]
    drawn = drawing(folder, scenes, side=g.resolution, seed=seed, processes=processes, device=device)
    with drawn as growing:
        train(Training(g, discriminator or usual, Recipe(**options), growing), out)


if __name__ == "__main__":
    main()
