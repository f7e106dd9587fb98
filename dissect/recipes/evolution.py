"""E-GAN (Wang et al. 2018): generators that compete before the discriminator, the best of which trains on.

Each step makes three children of the generator, one by each of three losses (*mutations*), and keeps the one of the
highest fitness. With s the discriminator's logit of a generated image and σ its sigmoid, the losses are

    minimax         mean log(1 − σ(s))
    heuristic       mean −log σ(s)
    least squares   mean (σ(s) − 1)²

and fitness is quality + γ · diversity (equations 12 to 14 of the paper): quality is the mean of σ(s), diversity is
minus the logarithm of the norm of the gradient of the discriminator's own loss with respect to its parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIVERSITY_WEIGHT = 0.05  # γ, the default of the authors' PyTorch code


def minimax(scores: Tensor) -> Tensor:
    return -F.softplus(scores).mean()  # log(1 − σ(s)) = −softplus(s)


def heuristic(scores: Tensor) -> Tensor:
    return F.softplus(-scores).mean()


def least_squares(scores: Tensor) -> Tensor:
    return (scores.sigmoid() - 1).square().mean()


MUTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "minimax": minimax,
    "heuristic": heuristic,
    "least squares": least_squares,
}


def fitness(
    discriminator: nn.Module,
    judge: Callable[[Tensor], Tensor],
    made: Tensor,
    real: Tensor,
    weight: float = DIVERSITY_WEIGHT,
) -> Tensor:
    """The fitness () of the generator of some images.

    Args:
        discriminator: by whose parameters the gradient is taken.
        judge: images -> logits (N,), by `discriminator`.
        made, real: images (N, 3, H, W) as the discriminator takes them.
        weight: γ.
    """
    scores = judge(made)
    loss = F.softplus(scores).mean() + F.softplus(-judge(real)).mean()
    gradients = torch.autograd.grad(loss, list(discriminator.parameters()), allow_unused=True)
    norm = torch.stack(torch._foreach_norm([gradient for gradient in gradients if gradient is not None])).norm()
    return scores.detach().sigmoid().mean() - weight * norm.log()


class Snapshot:
    """A generator and its Adam, to go back to: the tensors themselves stay where they are."""

    def __init__(self, module: nn.Module, adam: torch.optim.Optimizer) -> None:
        self.places: list[Tensor] = [
            *module.state_dict().values(),
            *(value for state in adam.state.values() for value in state.values()),
        ]
        self.kept = [place.detach().clone() for place in self.places]

    @torch.no_grad()
    def keep(self, condition: Tensor) -> None:
        """Remember what is there now, where the condition () bool holds."""
        for kept, place in zip(self.kept, self.places, strict=True):
            kept.copy_(torch.where(condition, place, kept))

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was remembered."""
        torch._foreach_copy_(self.places, self.kept)


def evolve(
    generator: nn.Module,
    adam: torch.optim.Optimizer,
    discriminator: nn.Module,
    judge: Callable[[Tensor], Tensor],
    draw: Callable[[Tensor], Tensor],
    latents: Callable[[], Tensor],
    real: Tensor,
) -> Tensor:
    """One step of the generator: the fittest of its children takes its place.

    Nothing is read back from the device, so that a CUDA graph can hold the step.

    Args:
        adam: of the generator. It holds its state, as after a step.
        judge: images -> logits (N,), by `discriminator`.
        draw: latents -> images, by `generator`.
        latents: draws latents; the children learn on some, and are judged on others, all on the same.
        real: (N, 3, H, W), the real images of that judgement.

    Returns:
        (3,) one at the place of the mutation that won, in the order of `MUTATIONS`, else zero.
    """
    parent, best = Snapshot(generator, adam), Snapshot(generator, adam)
    parameters = list(generator.parameters())
    learnt, tried = latents(), latents()
    most = torch.full((), -torch.inf, device=real.device)
    won = torch.zeros(len(MUTATIONS), device=real.device)
    for number, mutation in enumerate(MUTATIONS.values()):
        if number:
            parent.restore()
        adam.zero_grad()
        mutation(judge(draw(learnt))).backward(inputs=parameters)
        adam.step()
        with torch.no_grad():
            made = draw(tried)
        found = fitness(discriminator, judge, made, real)
        better = found > most
        best.keep(better)
        most = torch.where(better, found, most)
        won = torch.where(better, torch.eye(len(MUTATIONS), device=real.device)[number], won)
    best.restore()
    return won
