"""Quality and diversity of a generator by a critic: E-GAN's two fitness scores (Wang et al. 2018), with intervals.

Quality is the critic's mean score of generated images. Diversity is minus the logarithm of the norm of the gradient of
the critic's loss: how little the critic would learn from these images. A critic that was trained against varied images
learns much from those of a collapsed generator, and diversity is low.

What diversity does not show: it is highest for the generator that the critic was trained against, even a collapsed one,
so that the critic of one candidate cannot judge the others. And a critic learns little from images that it rejects with
certainty, so that noise need not have the lowest diversity. Li et al. 2021 doubt the score, too. The norm of a mean
over few images is partly noise: where the critic has little to learn, diversity grows with the number of images.
Compare generators only by the same critic, with the same real images and the same number of generated ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...hooks.errors import DissectError, UsageError, one_line
from ..stats.intervals import t_factor

TOGETHER = 4  # images in a batch: minibatch standard deviations (Karras et al. 2018) mostly take groups of four
GENERATED, REAL = "generated", "real"


def critic_fitness(
    critic: nn.Module,
    generated: Iterable[Tensor],
    real: Iterable[Tensor],
    *,
    groups: int = 20,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """E-GAN's fitness scores of the generator of some images.

    Image i of either side belongs to group i modulo `groups`. The critic gets up to four images of a group at once,
    whatever the batches are, so that the result does not depend on them. The gradients of the groups need 2 · `groups`
    times the memory of the critic's parameters.

    Args:
        critic: images (N, 3, H, W) in [0, 1] -> scores as logits, higher is more real: (N,), (N, 1), or (N, 1, h, w),
            of which the mean over positions is taken. A copy in evaluation mode is used; the critic is not changed. Its
            trainable parameters are those that require a gradient, or all of them where none does.
        generated: batches (n, 3, H, W) of generated images, float32 in [0, 1], all of one size. They are drawn in the
            caller's gradient mode.
        real: the same of real images.
        groups: number of groups of images, at least 2.
        advance: `advance(n)` is called after every n finished images, of both sides.

    Returns:
        critic_quality: the mean score of the generated images: the score as the critic gives it, not its sigmoid.
        critic_diversity: minus the natural logarithm of the norm of the gradient, with respect to all trainable
            parameters, of mean softplus(-score) of the real images + mean softplus(score) of the generated ones.
        Each also with _low and _high, the ends of a 95 % t interval: for quality over images, for diversity by the
        jackknife that leaves out one group of both sides at a time.

    Raises:
        UsageError: fewer than two groups; the critic does not take such images, has no parameters, does not return one
            score for each image, or its scores have no gradient with respect to the parameters.
        DissectError: fewer images on a side than groups; the critic cannot be copied; scores that are not finite; a
            gradient that is zero or not finite.
    """
    if groups < 2:
        raise UsageError(f"groups={groups}: must be at least 2.")
    judge = _Judge.of(critic, groups)
    quality = _quality(_look(judge, GENERATED, generated, advance))
    _look(judge, REAL, real, advance)
    return quality | _diversity(judge.squared_norms())


def _quality(scores: Tensor) -> dict[str, float]:
    """Scores (n,) of the generated images -> their mean and its interval."""
    mean = float(scores.mean())
    reach = t_factor(len(scores) - 1) * float(scores.std()) / math.sqrt(len(scores))
    return {"critic_quality": mean, "critic_quality_low": mean - reach, "critic_quality_high": mean + reach}


def _diversity(squares: Tensor) -> dict[str, float]:
    """Squared norms (1 + G,), of the total gradient and of that without each group -> diversity and its interval."""
    if not bool((squares.isfinite() & (squares > 0)).all()):
        raise DissectError(
            "The gradient of the critic's loss is zero or not finite, and diversity is its logarithm; give a critic "
            "that is still unsure of some images."
        )
    diversities = -squares.log() / 2
    value, without_group = float(diversities[0]), diversities[1:]
    groups = len(without_group)
    error = math.sqrt((groups - 1) / groups * float((without_group - without_group.mean()).square().sum()))
    reach = t_factor(groups - 1) * error
    return {"critic_diversity": value, "critic_diversity_low": value - reach, "critic_diversity_high": value + reach}


def _look(judge: _Judge, side: str, batches: Iterable[Tensor], advance: Callable[[int], None]) -> Tensor:
    """Add all images of a side to the judge's sums; returns their scores (n,), sorted by group within each batch."""
    groups = len(judge.counts[side])
    scores: list[Tensor] = []
    for images in _rebatched(batches, groups * TOGETHER):
        scores += [judge.look(side, group, images[group::groups]) for group in range(min(groups, len(images)))]
        advance(len(images))
    count = int(judge.counts[side].sum())
    if count < groups:
        raise DissectError(
            f"{count} {side} images: fitness by a critic needs at least {groups}, one for each group; give more "
            "images or fewer groups."
        )
    return torch.cat(scores)


def _rebatched(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same images in batches of `size`, the last one shorter."""
    waiting: list[Tensor] = []
    for batch in batches:
        images = torch.cat([*waiting, batch])
        while len(images) >= size:
            yield images[:size]
            images = images[size:]
        waiting = [images]
    yield from (images for images in waiting if len(images))


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A copy of the critic, and the sums of its loss's gradients.

    Attributes:
        critic: the copy, in evaluation mode.
        trained: the parameters to which the gradients belong.
        sums: by side, for each of these parameters (G, its size): the gradient of the summed loss of a group's images.
        counts: by side (G,) float64, the number of a group's images.
    """

    critic: nn.Module
    trained: list[nn.Parameter]
    sums: dict[str, list[Tensor]]
    counts: dict[str, Tensor]

    @classmethod
    @torch.inference_mode(False)
    def of(cls, critic: nn.Module, groups: int) -> _Judge:
        copied = _copied(critic).eval()
        floating = [parameter for parameter in copied.parameters() if parameter.is_floating_point()]
        trained = [parameter for parameter in floating if parameter.requires_grad] or floating
        if not trained:
            raise UsageError(
                f"The critic, a {type(critic).__name__}, has no parameters, and diversity is the gradient of its loss "
                "with respect to them; give a network with weights."
            )
        copied.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_()
        sums = {side: [_zeros(groups, parameter) for parameter in trained] for side in (GENERATED, REAL)}
        counts = {side: torch.zeros(groups, dtype=torch.float64) for side in sums}
        return cls(critic=copied, trained=trained, sums=sums, counts=counts)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def look(self, side: str, group: int, images: Tensor) -> Tensor:
        """Add the gradients of a group's images (n, 3, H, W); returns their scores (n,), float64 on the CPU."""
        scores = _scores(self.critic, images.detach().to(self.trained[0].device).clone())
        if not scores.requires_grad:
            raise UsageError(
                "The critic's scores have no gradient with respect to its parameters; they must be differentiable."
            )
        if not bool(scores.isfinite().all()):
            raise DissectError(
                f"The critic's scores of the {side} images are not finite; look at the images, or give another critic."
            )
        loss = F.softplus(scores if side == GENERATED else -scores).sum()
        gradients = torch.autograd.grad(loss, self.trained, allow_unused=True)
        for total, gradient in zip(self.sums[side], gradients, strict=True):
            if gradient is not None:
                total[group] += gradient.flatten()
        self.counts[side][group] += len(images)
        return scores.detach().double().cpu()

    @torch.inference_mode(False)
    def squared_norms(self) -> Tensor:
        """(1 + G,) float64: squared norms of the gradient of the loss of all groups, and of all groups but each one."""
        weights = {side: _mean_weights(counts) for side, counts in self.counts.items()}
        squares = torch.zeros(len(weights[REAL]), dtype=torch.float64)
        for sums_of_parameter in zip(*self.sums.values(), strict=True):
            of_sides = zip(weights.values(), sums_of_parameter, strict=True)
            gradients = torch.stack([weight.to(sums.device) @ sums.double() for weight, sums in of_sides]).sum(0)
            squares += gradients.square().sum(1).cpu()
        return squares


def _copied(critic: nn.Module) -> nn.Module:
    """A copy of the critic.

    Hooks such as `spectral_norm` leave a tensor with a gradient graph in a module after a forward pass, which deepcopy
    refuses; it is copied detached.
    """
    attributes = [value for module in critic.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        return copy.deepcopy(critic, {id(value): value.detach() for value in attributes if not value.is_leaf})
    except Exception as error:  # whatever the user's network holds
        raise DissectError(
            f"The critic cannot be copied ({one_line(error)}); give one that copy.deepcopy takes, such as one that was "
            "just loaded from its checkpoint."
        ) from error


def _zeros(groups: int, parameter: Tensor) -> Tensor:
    """(G, size of the parameter), in float32 at least."""
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return torch.zeros(groups, parameter.numel(), dtype=dtype, device=parameter.device)


def _mean_weights(counts: Tensor) -> Tensor:
    """Number of images in each group (G,) -> weights (1 + G, G) that turn the groups' sums into means.

    The first row gives the mean over all images, row 1 + g the mean over all images but those of group g.
    """
    included = torch.cat([torch.ones_like(counts)[None], 1 - torch.eye(len(counts), dtype=counts.dtype)])
    return included / (included @ counts)[:, None]


def _scores(critic: nn.Module, images: Tensor) -> Tensor:
    """Images (N, 3, H, W) that may be written to -> scores (N,)."""
    shape, devices = tuple(images.shape), [images.device] if images.is_cuda else []
    try:
        with torch.random.fork_rng(devices):  # a critic may draw noise
            scores = critic(images)
    except Exception as error:  # whatever the user's network raises
        raise UsageError(
            f"The critic failed on images {shape} in [0, 1] ({one_line(error)}); give one that takes the generator's "
            "size, or wrap it in a module that resizes."
        ) from error
    if not isinstance(scores, Tensor):
        raise UsageError(f"The critic returned a {type(scores).__name__}; it must return a tensor of scores.")
    count, returned = len(images), tuple(scores.shape)
    one_each = returned in {(count,), (count, 1)} or (len(returned) == 4 and returned[:2] == (count, 1))
    if not one_each and not (count == scores.numel() == 1):  # the latter is what squeeze() leaves of one image
        raise UsageError(
            f"The critic returned {returned} for images {shape}; it must return one score for each image, as (N,), "
            "(N, 1) or (N, 1, h, w): wrap it in a module that does so."
        )
    return scores.reshape(count, -1).mean(1)
