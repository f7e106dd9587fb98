"""Plain generators of random architectures, trained, saved under odd names, and rebuilt from their weights alone.

    python -m tests.bench_chains --count 40

Each is trained as a GAN on drawn scenes, then opened, and its images are compared with those of the module that wrote
it, on the same latents. `right` draws the same to 1 % of the range; `same but for the contrast` has another output
activation (tanh for sigmoid); `wrong` draws something else and was taken as reproducing its statistics, of which there
must be none; `refused` was not opened, and `asked` was opened only as one of several candidates, or draws images of
an unusual size.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect.generators.chains.hypotheses import reading
from ganatomy.dissect.generators.chains.rebuild import rebuild
from ganatomy.dissect.generators.latents import DrawnLatents, parse_latents
from ganatomy.dissect.scenes.render import render
from ganatomy.hooks.errors import DissectError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu:0.2": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "silu": nn.SiLU,
}
LATENTS = ("normal:{}", "normal:{}", "uniform:{}", "uniform:{},0,1", "sphere:{}")
SAME = 0.01  # of the range, on average


@dataclass(frozen=True, kw_only=True)
class Wild:
    """A generator as somebody might have written it."""

    network: nn.Module
    source: DrawnLatents
    channels: int
    side: int
    output: str
    normed: bool


def wild(random: np.random.Generator) -> Wild:
    """A random architecture."""
    size = int(random.choice([16, 32, 64, 100]))
    source = parse_latents(str(random.choice(LATENTS)).format(size))
    act = ACTIVATIONS[str(random.choice(list(ACTIVATIONS), p=[0.5, 0.3, 0.1, 0.1]))]
    normed, eps = bool(random.random() < 0.85), float(random.choice([1e-5, 1e-5, 0.8]))
    side = int(random.choice([28, 32]))
    width, channels = int(random.choice([16, 24, 32])), int(random.choice([1, 3]))
    start = 7 if side == 28 else 4
    layers: list[nn.Module] = []
    if random.random() < 0.5:
        layers += [nn.Linear(size, width * start**2), nn.Unflatten(1, (width, start, start))]
    else:
        layers += [
            nn.Unflatten(1, (size, 1, 1)),
            nn.ConvTranspose2d(size, width, start, bias=bool(random.random() < 0.5)),
        ]
    layers += [nn.BatchNorm2d(width), act()] if normed else [act()]
    ways = int(random.integers(4))
    while start < side:
        after = max(8, width // 2) if 2 * start >= side else width
        if ways == 0:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, after, 3, padding=1)]
        elif ways == 1:
            layers.append(nn.ConvTranspose2d(width, after, 5, 2, 2, 1))
        elif ways == 2:
            layers.append(nn.ConvTranspose2d(width, after, 3, 2, 1, 1))
        else:
            layers.append(nn.ConvTranspose2d(width, after, 4, 2, 1, bias=bool(random.random() < 0.5)))
        layers += [nn.BatchNorm2d(after, eps), act()] if normed else [act()]
        start, width = 2 * start, after
    output = str(random.choice(["tanh", "tanh", "sigmoid"]))
    layers += [nn.Conv2d(width, channels, 3, padding=1), nn.Tanh() if output == "tanh" else nn.Sigmoid()]
    network = nn.Sequential(*layers)
    return Wild(network=network, source=source, channels=channels, side=side, output=output, normed=normed)


def train(one: Wild, images: Tensor, steps: int) -> None:
    """As a GAN, with the non-saturating loss; real images (N, 3, side, side) in [0, 1]."""
    real = images if one.channels == 3 else images.mean(1, keepdim=True)
    real = real * 2 - 1 if one.output == "tanh" else real
    judge = nn.Sequential(
        nn.Conv2d(one.channels, 24, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(24, 48, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(48 * (one.side // 4) ** 2, 1),
    )  # fmt: skip
    rates = {"lr": 5e-4, "betas": (0.5, 0.999)}
    draws, judges = (torch.optim.Adam(part.parameters(), **rates) for part in (one.network, judge))
    one.network.train()
    for number in range(steps):
        fake = one.network(one.source(range(64 * number, 64 * number + 64)))
        batch = real[torch.randint(len(real), (64,))]
        loss = F.softplus(-judge(batch)).mean() + F.softplus(judge(fake.detach())).mean()
        judges.zero_grad()
        loss.backward()
        judges.step()
        loss = F.softplus(-judge(fake)).mean()
        draws.zero_grad()
        loss.backward()
        draws.step()
    one.network.eval()


def odd_names(state: dict[str, Tensor], random: np.random.Generator) -> dict[str, Tensor]:
    """Prefixes and layers of names of one's own, in the same order."""
    prefix = str(random.choice(["", "stage.", "net.body.", "decoder_blocks."]))
    style = str(random.choice(["{}", "layer_{}", "part{}_op"]))
    renamed = {}
    for key, value in state.items():
        place, _, last = key.partition(".")
        renamed[f"{prefix}{style.format(place)}.{last}"] = value
    return renamed


@torch.no_grad()
def verdict(one: Wild, state: dict[str, Tensor]) -> tuple[str, str]:
    """What becomes of its weights, and what they were taken for."""
    try:
        found = rebuild(state)
    except DissectError as error:
        return "refused", str(error)
    latents = one.source(range(100_000, 100_064))
    wanted, drawn = one.network(latents), found(latents)
    said, result = reading(found.plan), found.search_result
    supported = result is not None and bool(result.agreements) and not result.doubt
    if wanted.shape == drawn.shape:
        low = -1.0 if one.output == "tanh" else 0.0
        black = found.output_range[0]
        apart = (wanted - low) / (1 - low) - (drawn - black) / (1 - black)
        if float(apart.abs().mean()) < SAME and str(one.source) == found.plan.latent:
            return ("right" if supported else "asked"), said
        plain = torch.atanh(drawn.clamp(-1 + 1e-6, 1 - 1e-6)) if black < 0 else torch.logit(drawn.clamp(1e-6, 1 - 1e-6))
        other = torch.sigmoid(plain) if black < 0 else (torch.tanh(plain) + 1) / 2
        apart = (wanted - low) / (1 - low) - other
        if supported and float(apart.abs().mean()) < SAME and str(one.source) == found.plan.latent:
            return "same but for the contrast", said
    return ("wrong" if supported else "asked"), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    told = Counter[str]()
    scenes = {
        side: F.interpolate(torch.from_numpy(np.asarray(render(range(512), side=64)[0], np.float32)), side, mode="area")
        for side in (28, 32)
    }
    for number in range(options.count):
        random = np.random.default_rng([options.seed, number])
        torch.manual_seed(number)
        one = wild(random)
        train(one, scenes[one.side], options.steps)
        began = time.perf_counter()
        what, said = verdict(one, odd_names(one.network.state_dict(), random))
        told[what if one.normed else f"{what} (no norms)"] += 1
        facts = {
            "number": number,
            "verdict": what,
            "norms": one.normed,
            "latent": str(one.source),
            "output": one.output,
        }
        print(json.dumps(facts | {"taken_for": said, "seconds": round(time.perf_counter() - began, 1)}), flush=True)
    print(dict(told))


if __name__ == "__main__":
    main()
