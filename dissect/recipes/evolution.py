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
    generated: Tensor,
    real: Tensor,
    weight: float = DIVERSITY_WEIGHT,
) -> Tensor:
    """The fitness () of a generator, by images of it.

    Args:
        discriminator: its parameters are those of the gradient.
        judge: images -> logits (N,), by `discriminator`.
        generated, real: images (N, 3, H, W) as the discriminator takes them.
        weight: γ.
    """
    scores = judge(generated)
    loss = F.softplus(scores).mean() + F.softplus(-judge(real)).mean()
    gradients = torch.autograd.grad(loss, list(discriminator.parameters()), allow_unused=True)
    norm = torch.stack(torch._foreach_norm([gradient for gradient in gradients if gradient is not None])).norm()
    return scores.detach().sigmoid().mean() - weight * norm.log()


class Snapshot:
    """A copy of a generator and its Adam, to restore in place: a CUDA graph needs the same tensors."""

    def __init__(self, module: nn.Module, adam: torch.optim.Optimizer) -> None:
        self.tensors: list[Tensor] = [
            *module.state_dict().values(),
            *(value for state in adam.state.values() for value in state.values()),
        ]
        self.saved = [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def keep(self, condition: Tensor) -> None:
        """Save the present values if the condition () bool holds."""
        for saved, tensor in zip(self.saved, self.tensors, strict=True):
            saved.copy_(torch.where(condition, tensor, saved))

    @torch.no_grad()
    def restore(self) -> None:
        """Write the saved values back."""
        torch._foreach_copy_(self.tensors, self.saved)


def evolve(
    generator: nn.Module,
    adam: torch.optim.Optimizer,
    discriminator: nn.Module,
    judge: Callable[[Tensor], Tensor],
    draw: Callable[[Tensor], Tensor],
    latents: Callable[[], Tensor],
    real: Tensor,
) -> Tensor:
    """A step of the generator: it becomes the fittest of its children, one for each mutation.

    Nothing is read back from the device, so that a CUDA graph can hold the step.

    Args:
        adam: of the generator. It holds its state, as after a step.
        judge: images -> logits (N,), by `discriminator`.
        draw: latents -> images, by `generator`.
        latents: draws latents: those on which all children learn, and others on which all are judged.
        real: (N, 3, H, W) real images to judge with.

    Returns:
        (3,) 1 for the mutation that won, in the order of `MUTATIONS`, 0 for the others.
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
            generated = draw(tried)
        scores = fitness(discriminator, judge, generated, real)
        better = scores > most
        best.keep(better)
        most = torch.where(better, scores, most)
        won = torch.where(better, torch.eye(len(MUTATIONS), device=real.device)[number], won)
    best.restore()
    return won
