"""Quality and diversity of a generator by a critic: E-GAN's two fitness scores (Wang et al. 2018), with intervals.

Quality is the critic's mean score of generated images. Diversity is minus the logarithm of the gradient of the critic's
loss: how little the critic would learn from these images. Before a critic that was trained against varied images, those
of a collapsed generator teach it much, and diversity is low.

What diversity cannot tell: it is highest for whichever generator the critic was trained against, a collapsed one
included, so that a critic of one candidate is no judge of others; and images that the critic rejects for sure teach it
little, so that rubbish need not lie lowest. Li et al. 2021 doubt it, too. The norm of a mean over few images is partly
noise: where the critic has little to learn, diversity grows with the number of images. Compare only generators before
the same critic, with the same real images and as many generated ones.
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

TOGETHER = 4  # images at once: minibatch standard deviations (Karras et al. 2018) mostly take fours, or all of fewer
GENERATED, REAL = "generated", "real"


def critic_fitness(
    critic: nn.Module,
    made: Iterable[Tensor],
    real: Iterable[Tensor],
    *,
    groups: int = 20,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """E-GAN's fitness scores of the generator of some images.

    Image i of either side belongs to group i modulo `groups`. The critic sees up to four images of a group at once,
    whatever the batches are, so that results do not depend on these. It needs twice `groups` times the memory of its
    parameters, for the groups' gradients.

    Args:
        critic: images (N, 3, H, W) in [0, 1] -> scores as logits, higher is more real: (N,), (N, 1), or (N, 1, h, w),
            of which the mean over places is taken. A copy in evaluation mode is used; the critic stays untouched. Its
            trainable parameters are those that require a gradient, or all of them where none does.
        made: batches (n, 3, H, W) of generated images, float32 in [0, 1], all of one size. Drawn in the caller's
            gradient mode.
        real: the same of real images.
        groups: of images, at least 2.
        advance: is called with the number of images done, of both sides.

    Returns:
        critic_quality: the mean score of the generated images: the score as the critic gives it, not its sigmoid.
        critic_diversity: minus the natural logarithm of the norm of the gradient, with respect to all trainable
            parameters, of mean softplus(-score) of the real images + mean softplus(score) of the generated ones.
        Each with _low and _high, the ends of a 95 % t interval: over images, and by the jackknife that leaves out one
        group of both sides at a time.

    Raises:
        UsageError: fewer than two groups; the critic does not take such images, has no parameters, or its output is no
            score of each image or has no gradient by the parameters.
        DissectError: fewer images of a side than groups; the critic cannot be copied; scores that are not finite; a
            gradient that is zero or not finite.
    """
    if groups < 2:
        raise UsageError(f"Images were to be split into {groups} groups; at least 2 are needed.")
    judge = _Judge.of(critic, groups)
    quality = _quality(_look(judge, GENERATED, made, advance))
    _look(judge, REAL, real, advance)
    return quality | _diversity(judge.squared_norms())


def _quality(scores: Tensor) -> dict[str, float]:
    mean = float(scores.mean())
    reach = t_factor(len(scores) - 1) * float(scores.std()) / math.sqrt(len(scores))
    return {"critic_quality": mean, "critic_quality_low": mean - reach, "critic_quality_high": mean + reach}


def _diversity(squares: Tensor) -> dict[str, float]:
    """Squared norms (1 + G,) of the whole gradient and of that without each group -> diversity and its interval."""
    if not bool((squares.isfinite() & (squares > 0)).all()):
        raise DissectError(
            "The gradient of the critic's loss is zero or not finite, and diversity is its logarithm; give a critic "
            "that is still unsure of some images."
        )
    found = -squares.log() / 2
    value, others = float(found[0]), found[1:]
    number = len(others)
    error = math.sqrt((number - 1) / number * float((others - others.mean()).square().sum()))
    reach = t_factor(number - 1) * error
    return {"critic_diversity": value, "critic_diversity_low": value - reach, "critic_diversity_high": value + reach}


def _look(judge: _Judge, side: str, batches: Iterable[Tensor], advance: Callable[[int], None]) -> Tensor:
    """Show the critic all images of a side; returns their scores (n,), in no certain order."""
    groups = len(judge.counts[side])
    scores: list[Tensor] = []
    for images in _rounds(batches, groups * TOGETHER):
        scores += [judge.look(side, group, images[group::groups]) for group in range(min(groups, len(images)))]
        advance(len(images))
    count = int(judge.counts[side].sum())
    if count < groups:
        raise DissectError(
            f"Fitness by a critic was asked of {count} {side} images; at least {groups} are needed, one for each "
            "group: give more images or fewer groups."
        )
    return torch.cat(scores)


def _rounds(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same images in batches of `size`, the last one shorter."""
    held: list[Tensor] = []
    for images in batches:
        whole = torch.cat([*held, images])
        while len(whole) >= size:
            yield whole[:size]
            whole = whole[size:]
        held = [whole]
    yield from (last for last in held if len(last))


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A critic of our own, and what its loss's gradients add up to.

    sums: by side, for each trained parameter (G, its size): the gradient of the sum of the losses of a group's images.
    counts: by side (G,) float64: how many they are.
    """

    critic: nn.Module
    trained: list[nn.Parameter]
    sums: dict[str, list[Tensor]]
    counts: dict[str, Tensor]

    @classmethod
    @torch.inference_mode(False)
    def of(cls, critic: nn.Module, groups: int) -> _Judge:
        own = _copied(critic).eval()
        floating = [parameter for parameter in own.parameters() if parameter.is_floating_point()]
        trained = [parameter for parameter in floating if parameter.requires_grad] or floating
        if not trained:
            raise UsageError(
                f"The critic, a {type(critic).__name__}, has no parameters; diversity is the gradient of its loss by "
                "them: give a network with weights."
            )
        own.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_()
        sums = {side: [_nothing(groups, parameter) for parameter in trained] for side in (GENERATED, REAL)}
        counts = {side: torch.zeros(groups, dtype=torch.float64) for side in sums}
        return cls(critic=own, trained=trained, sums=sums, counts=counts)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def look(self, side: str, group: int, images: Tensor) -> Tensor:
        """Add images (n, 3, H, W) of a group; returns their scores (n,) float64, on the CPU."""
        scores = _scores(self.critic, images.detach().to(self.trained[0].device).clone())
        if not scores.requires_grad:
            raise UsageError("The critic's scores have no gradient by its parameters; they must be differentiable.")
        if not bool(scores.isfinite().all()):
            raise DissectError(
                f"The critic's scores of the {side} images are not finite; look at these, or give another critic."
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
        """(1 + G,) float64: of the gradient of the whole loss, and of the loss without each group."""
        weights = {side: _means(counts) for side, counts in self.counts.items()}
        found = torch.zeros(len(weights[REAL]), dtype=torch.float64)
        for pair in zip(*self.sums.values(), strict=True):
            parts = zip(weights.values(), pair, strict=True)
            whole = torch.stack([weight.to(sums.device) @ sums.double() for weight, sums in parts]).sum(0)
            found += whole.square().sum(1).cpu()
        return found


def _copied(critic: nn.Module) -> nn.Module:
    """A copy; what `spectral_norm` and its like leave in a module after a forward pass cannot be copied as it is."""
    left = [value for module in critic.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        return copy.deepcopy(critic, {id(value): value.detach() for value in left if not value.is_leaf})
    except Exception as error:  # whatever the user's network holds
        raise DissectError(
            f"The critic cannot be copied ({one_line(error)}); give one that copy.deepcopy takes, as one freshly made "
            "from its checkpoint."
        ) from error


def _nothing(groups: int, parameter: Tensor) -> Tensor:
    wide = torch.promote_types(parameter.dtype, torch.float32)
    return torch.zeros(groups, parameter.numel(), dtype=wide, device=parameter.device)


def _means(counts: Tensor) -> Tensor:
    """Images in each group (G,) -> weights (1 + G, G) of the groups' sums: of the mean over all, and without each."""
    kept = torch.cat([torch.ones_like(counts)[None], 1 - torch.eye(len(counts), dtype=counts.dtype)])
    return kept / (kept @ counts)[:, None]


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
        raise UsageError(f"The critic returned a {type(scores).__name__}; a tensor of scores is needed.")
    count, found = len(images), tuple(scores.shape)
    one_each = found in {(count,), (count, 1)} or (len(found) == 4 and found[:2] == (count, 1))
    if not one_each and not (count == scores.numel() == 1):  # the latter is what squeeze() leaves of one image
        raise UsageError(
            f"The critic returned {found} of images {shape}; one score an image is needed, as (N,), (N, 1) or "
            "(N, 1, h, w): wrap it in a module that gives such."
        )
    return scores.reshape(count, -1).mean(1)
