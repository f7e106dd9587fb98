"""Units chosen by gradient: those whose insertion and ablation change a class most (ACE; Bau et al. 2019, 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...hooks.directions import steps
from ...hooks.errors import DissectError, UsageError
from ...segmenters.base import Differentiable, Segmenter
from ..subjects.subject import Subject, failing

STEPS = 150
IMAGES = 8  # in each step
RATE = 0.05  # Adam's learning rate
PENALTY = 0.02  # λ, the weight of |α|²
START = 0.3  # every α before the first step
LEAST_PROBABLE = 0.01  # a class that is nowhere more probable than this cannot be optimised


def optimise(
    subject: Subject,
    target: int,
    value: Tensor,
    samples: int,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """α (U,) float64 in [0, 1]: the weight of each unit, or (K,) of each direction, in an intervention on a class.

    Adam, with α clipped to [0, 1], maximises, over samples 0 … `samples` − 1 and random places P of a quarter of the
    map each,

        E[s(x_i)] − E[s(x_a)] − λ |α|²,   x_i = (1 − α m_P) x + α m_P k,   x_a = (1 − α) x

    or the same of directions, see `hooks.directions.steps`. Here s is the segmenter's mean probability of the class: in
    P for the inserted image, and weighted with the probability in the unchanged image for the ablated one. Unlike the
    paper, ablation is made everywhere.

    Args:
        subject: the networks and the layer.
        target: the number of the class.
        value: k (U,), to which insertion sets units.
        samples: how many of the first samples are used.
        seed: of samples and places.
        advance: `advance(n)` is called after every n images.

    Raises:
        UsageError: no gradient passes through the networks.
        DissectError: the class is never probable, or a network failed.
    """
    segmenter = differentiable(subject.segmenter)
    device = subject.generator.device
    alpha = torch.full((subject.width,), START, device=device, requires_grad=True)
    constant = value.to(device)[:, None, None]
    adam = torch.optim.Adam([alpha], lr=RATE)
    dice = np.random.default_rng([seed, 3])
    most_probable = 0.0
    for _ in range(STEPS):
        picked = [int(index) for index in dice.integers(0, samples, IMAGES)]
        places = _places(subject.shape[1:], IMAGES, dice).to(device)  # (n, 1, h, w)
        gradient = 2 * PENALTY * alpha.detach()
        for rows, batch in subject.batches(picked):
            with failing("the optimised samples"):
                loss, probability = _loss(subject, segmenter, target, alpha, constant, batch, places[rows])
                if not loss.requires_grad:
                    raise UsageError(
                        f"--optimize needs a gradient, and the probabilities of {segmenter.name} or the images of "
                        f"{subject.generator.name} have none; do not detach them, or leave --optimize out."
                    )
                gradient = gradient + torch.autograd.grad(loss, [alpha])[0] * len(batch) / IMAGES
            most_probable = max(most_probable, probability)
        alpha.grad = gradient
        adam.step()
        with torch.no_grad():
            alpha.clamp_(0, 1)
        advance(IMAGES)
    if most_probable < LEAST_PROBABLE:
        raise DissectError("The class is nowhere probable in the run's samples, so no units can be chosen for it.")
    return alpha.detach().double().cpu().numpy()


def differentiable(segmenter: Segmenter) -> Differentiable:
    """The segmenter, if it returns probabilities.

    Raises:
        UsageError: it returns labels only.
    """
    if isinstance(segmenter, Differentiable):
        return segmenter
    raise UsageError(
        f"--optimize needs a gradient through the segmenter, and {segmenter.name} returns labels only; add a method "
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
    """E[s(x_a)] − E[s(x_i)] over a batch, and the greatest probability of the class in the unchanged images."""
    x = subject.featuremaps(batch).clone()  # a tensor that autograd takes
    latents = subject.generator.latents(batch)
    weight = alpha[:, None, None]
    if subject.directions is None:
        changed = torch.cat([torch.lerp(x, constant.expand_as(x), weight * place), (1 - weight) * x])
    else:
        inserted_maps = x + steps(x, constant, weight * place, subject.directions)
        changed = torch.cat([inserted_maps, x + steps(x, 0.0, weight, subject.directions)])
    with torch.no_grad():
        before = segmenter.probabilities(subject.draw(x, latents))[:, target]  # (n, H, W)
    drawn = subject.draw(changed, torch.cat([latents, latents]))
    inserted, ablated = segmenter.probabilities(drawn)[:, target].chunk(2)
    mask = F.interpolate(place, before.shape[1:], mode="nearest")[:, 0]  # the place, on the pixels
    gained = (inserted * mask).sum() / mask.sum()
    remaining = (ablated * before).sum() / before.sum().clamp(min=1e-6)
    return remaining - gained, float(before.max())


def _places(size: tuple[int, ...], count: int, dice: np.random.Generator) -> Tensor:
    """(count, 1, h, w): rectangles of half the map's height and width, at random positions."""
    height, width = size
    high, wide = max(1, height // 2), max(1, width // 2)
    places = torch.zeros(count, 1, height, width)
    for place in places:
        top, left = dice.integers(0, height - high + 1), dice.integers(0, width - wide + 1)
        place[0, top : top + high, left : left + wide] = 1
    return places
