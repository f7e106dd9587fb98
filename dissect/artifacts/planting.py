"""Artifacts of known cause: chosen units of a generator paint blotches, streaks or colour spots into its images.

A unit's excess is what it outputs above a threshold that it exceeds in a few of all samples. The layer above sees the
unit as before; the excess is painted over the finished image in a colour of the unit's own. So the artifact is there if
and only if the unit is active, its share of samples is set by the threshold, and ablating the unit takes it out and
also takes out what the unit did before: as with real units, a repair has a price.

Amplifying a unit's activation instead, or turning its outgoing weights at random, does not serve: in the embedded
generator the layers above absorb it, and images stay as near to the reference as before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...hooks.errors import UsageError
from ...hooks.tap import Tap
from ..generators.base import Generator
from ..generators.families.progan import ProGAN
from ..runs import lookup
from ..runtime.random_streams import COLOURS, dice


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How an artifact looks, and how often a unit makes it.

    share: of the samples, for each unit. strength: 1 covers what was there. silent: the unit does nothing else.
    """

    share: float
    strength: float
    silent: bool = False


KINDS = {
    "blotches": Kind(share=0.05, strength=1.0),  # disks three cells wide
    "streaks": Kind(share=0.05, strength=0.7),  # the whole row
    "spots": Kind(share=0.02, strength=0.9, silent=True),  # one cell
}
MEASURED = range(1_000_000, 1_001_000)  # samples that set the thresholds; none that any run sees
BATCH = 50
RAMP = 0.25  # of the unit's root mean square: the excess that paints at full strength


def plant(generator: Generator, layer: str, units: Sequence[int], kind: str = "blotches", seed: int = 0) -> Generator:
    """A copy of a progressive GAN in which some units of a layer paint artifacts.

    Args:
        generator: a progressive GAN, left as it is.
        layer: any of its layers but the last.
        units: of that layer.
        kind: `blotches`, `streaks` or `spots`, from strong to weak and from common to rare.
        seed: of the units' colours.

    Raises:
        UsageError: another architecture, layer, unit or kind.
    """
    if kind not in KINDS:
        raise UsageError(f"kind={kind!r}: must be one of {', '.join(KINDS)}.")
    if not isinstance(generator.module, ProGAN):
        raise UsageError(f"Artifacts are planted into progressive GANs, e.g. progan_scenes; {generator.name} is none.")
    if layer not in generator.layers[:-1]:
        raise UsageError(f"Artifacts are planted into {', '.join(generator.layers[:-1])}; {layer!r} is none of them.")
    module = copy.deepcopy(generator.module)
    children = dict(module.named_children())
    names = list(children)
    above = children[names[names.index(layer) + 1]]
    chosen = torch.as_tensor(list(units), dtype=torch.int64, device=generator.device)
    with torch.inference_mode():
        lookup.check_units(tuple(units), layer, _maps(generator, layer, [0]).shape[1])
        starts = range(MEASURED.start, MEASURED.stop, BATCH)
        maps = torch.cat([_maps(generator, layer, range(start, start + BATCH))[:, chosen] for start in starts])
    maps = maps.clone()
    threshold = maps.amax((2, 3)).quantile(1 - KINDS[kind].share, 0)
    colours = dice(seed, COLOURS).choice([-1.0, 1.0], (len(chosen), 3))
    # buffers, so that the module's state, and so its fingerprint, is that of another generator
    module.register_buffer("planted_units", chosen)
    module.register_buffer("planted_threshold", threshold.view(-1, 1, 1))
    module.register_buffer("planted_ramp", RAMP * maps.square().mean((0, 2, 3)).sqrt().clamp(min=1e-6).view(-1, 1, 1))
    module.register_buffer("planted_colours", torch.from_numpy(colours).to(maps))
    brush = _Brush(module, kind)
    if KINDS[kind].silent:
        children[layer].register_forward_hook(brush.hush)
    above.register_forward_pre_hook(brush.keep)
    children[names[-1]].register_forward_hook(brush.paint)
    return replace(generator, module=module, name=f"{generator.name}-{kind}", spec=None)


def _maps(generator: Generator, layer: str, samples: Sequence[int]) -> Tensor:
    with Tap(generator.module, [layer], stop=True) as tap:
        generator.module(generator.latents(samples))
    return tap[layer]


class _Brush:
    """The hooks: silence units below their threshold, keep the excess, paint it over the image."""

    def __init__(self, module: nn.Module, kind: str) -> None:
        self.module, self.kind = module, kind
        self.excess: Tensor | None = None

    def _planted(self, name: str) -> Tensor:
        return self.module.get_buffer(f"planted_{name}")

    def hush(self, _layer: nn.Module, _inputs: Any, x: Tensor) -> Tensor:
        units, output = self._planted("units"), x.clone()
        output[:, units] = torch.where(x[:, units] > self._planted("threshold"), x[:, units], 0.0)
        return output

    def keep(self, _above: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0][:, self._planted("units")]
        self.excess = ((x - self._planted("threshold")) / self._planted("ramp")).clamp(0, 1)

    def paint(self, _last: nn.Module, _inputs: Any, images: Tensor) -> Tensor:
        assert self.excess is not None
        covers = shape(self.excess, self.kind, images.shape[2:]) * KINDS[self.kind].strength  # (N, n, H, W)
        self.excess = None
        for unit, colour in enumerate(self._planted("colours")):  # units paint over each other, in their order
            images = torch.lerp(images, colour[:, None, None].expand_as(images), covers[:, unit, None])
        return images


def shape(excess: Tensor, kind: str, size: tuple[int, ...]) -> Tensor:
    """excess (N, n, h, w) in [0, 1] -> how much of each pixel is covered (N, n, H, W), in [0, 1].

    >>> excess = torch.zeros(1, 1, 2, 2)
    >>> excess[0, 0, 1, 0] = 1
    >>> shape(excess, "streaks", (2, 2))
    tensor([[[[0., 0.],
              [1., 1.]]]])
    """
    if kind == "blotches":
        excess = F.max_pool2d(excess, 3, 1, 1)
    elif kind == "streaks":
        excess = excess.amax(3, keepdim=True).expand_as(excess)
    return F.interpolate(excess, size, mode="bilinear", align_corners=False)
