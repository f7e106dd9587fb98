"""Units found by gradient: those whose insertion and ablation change a class most (ACE; Bau et al. 2019, 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import DissectError, UsageError
from ...segmenters.base import Differentiable, Segmenter
from ..subjects.subject import Subject, failing

STEPS = 150
IMAGES = 8  # a step
RATE = 0.05  # of Adam
PENALTY = 0.02  # of the squared length of α
START = 0.3  # every α at first


def optimise(
    subject: Subject,
    target: int,
    value: Tensor,
    samples: int,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """α (U,) in [0, 1]: how far each unit is worth changing for a class.

    Maximises, over samples 0 … `samples` − 1 and random places P, a quarter of the map each,

        E[s(x_i)] − E[s(x_a)] − λ |α|²,   x_i = (1 − α m_P) x + α m_P k,   x_a = (1 − α) x

    with s the segmenter's mean probability of the class: for the inserted image in P, for the ablated one where the
    class is most probable before. Differs from the paper in that ablation is made everywhere. Adam with α clipped to
    [0, 1].

    Args:
        value: k (U,), what insertion sets units to.

    Raises:
        UsageError: no gradient passes through the networks.
        DissectError: the class is never probable, or a network failed.
    """
    segmenter = differentiable(subject.segmenter)
    device = subject.generator.device
    alpha = torch.full((subject.shape[0],), START, device=device, requires_grad=True)
    constant = value.to(device)[:, None, None]
    steps = torch.optim.Adam([alpha], lr=RATE)
    dice = np.random.default_rng([seed, 3])
    seen = 0.0
    for _ in range(STEPS):
        picked = [int(index) for index in dice.integers(0, samples, IMAGES)]
        places = _places(subject.shape[1:], IMAGES, dice).to(device)  # (n, 1, h, w)
        gradient = 2 * PENALTY * alpha.detach()
        for rows, batch in subject.batches(picked):
            with failing("the optimised samples"):
                loss, most = _loss(subject, segmenter, target, alpha, constant, batch, places[rows])
                if not loss.requires_grad:
                    raise UsageError(
                        f"--optimize needs a gradient, and the probabilities of {segmenter.name} or the images of "
                        f"{subject.generator.name} have none; do not detach them, or leave --optimize out."
                    )
                gradient = gradient + torch.autograd.grad(loss, [alpha])[0] * len(batch) / IMAGES
            seen = max(seen, most)
        alpha.grad = gradient
        steps.step()
        with torch.no_grad():
            alpha.clamp_(0, 1)
        advance(IMAGES)
    if seen < 0.01:
        raise DissectError("The class is nowhere probable in the run's samples, so no units can be found for it.")
    return alpha.detach().double().cpu().numpy()


def differentiable(segmenter: Segmenter) -> Differentiable:
    """The segmenter itself.

    Raises:
        UsageError: it gives labels alone.
    """
    if isinstance(segmenter, Differentiable):
        return segmenter
    raise UsageError(
        f"--optimize needs a gradient through the segmenter, and {segmenter.name} gives labels alone; add a method "
        "`probabilities(images)` that returns (N, C, H, W), or leave --optimize out."
    )


def _loss(
    subject: Subject,
    segmenter: Differentiable,
    target: int,
    alpha: Tensor,
    constant: Tensor,
    batch: Sequence[int],
    place: Tensor,
) -> tuple[Tensor, float]:
    """E[s(x_a)] − E[s(x_i)] over a batch, and the greatest probability of the class before."""
    x = subject.featuremaps(batch).clone()  # a tensor that autograd takes
    latents = subject.generator.latents(batch)
    weight = alpha[:, None, None]
    changed = torch.cat([torch.lerp(x, constant.expand_as(x), weight * place), (1 - weight) * x])
    with torch.no_grad():
        plain = segmenter.probabilities(subject.draw(x, latents))[:, target]  # (n, H, W)
    drawn = subject.draw(changed, torch.cat([latents, latents]))
    inserted, ablated = segmenter.probabilities(drawn)[:, target].chunk(2)
    here = F.interpolate(place, plain.shape[1:], mode="nearest")[:, 0]
    gained = (inserted * here).sum() / here.sum()
    left = (ablated * plain).sum() / plain.sum().clamp(min=1e-6)
    return left - gained, float(plain.max())


def _places(size: tuple[int, ...], count: int, dice: np.random.Generator) -> Tensor:
    """(count, 1, h, w): a rectangle of half the map's height and width each, anywhere on it."""
    height, width = size
    high, wide = max(1, height // 2), max(1, width // 2)
    places = torch.zeros(count, 1, height, width)
    for place in places:
        top, left = dice.integers(0, height - high + 1), dice.integers(0, width - wide + 1)
        place[0, top : top + high, left : left + wide] = 1
    return places
