"""Which activation a network was trained with, where its batch norms can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..batch_statistics import measure, norms_of, remembered, reproduces, taken

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "leaky ReLU 0.1": lambda x: F.leaky_relu(x, 0.1),
    "leaky ReLU 0.2": lambda x: F.leaky_relu(x, 0.2),
    "ELU": F.elu,
    "GELU": F.gelu,
}
USUAL = "ReLU"
SAMPLES, BATCH = 64, 32  # on which activations are compared
AS_NEAR = 1.3  # an activation off by at most so many times as much as the best one counts as equal to it

Run = Callable[[Tensor], object]  # latents -> whatever


def settle_activation(module: nn.Module, first: Run, latents: Sequence[Tensor]) -> bool:
    """Let a network use the activation with which it reproduces what its batch norms remember.

    Activations are compared by its first norms; those that are as near there, by all of them.

    Args:
        module: in eval mode; the activation is set on each module in it that has an attribute `activation`.
        first: runs only as much of it as the first norm behind an activation needs.
        latents: in batches.

    Returns:
        whether the norms decide; if not, ReLU is used.
    """
    names = list(ACTIVATIONS) if taken(map(remembered, norms_of(module).values())) else []
    for run in (first, module):
        off = {name: _off(module, name, run, latents) for name in names}
        names = [name for name in names if off[name] <= AS_NEAR * min(off.values())]
        if len(names) < 2:
            break
    is_settled = len(names) == 1
    _use(module, names[0] if is_settled else USUAL)
    return is_settled


def trial_latents(latent: int, classes: int, count: int) -> list[Tensor]:
    """Normal latents (count, latent + classes) with each class as often, in batches: the same for every network."""
    z = torch.randn(count, latent, generator=torch.Generator().manual_seed(0))
    y = torch.eye(classes)[torch.arange(count) % classes] if classes else z[:, :0]
    return list(torch.cat([z, y], 1).split(BATCH))


def _off(module: nn.Module, name: str, run: Run, latents: Sequence[Tensor]) -> float:
    """How far off the last norms that run are with an activation; infinite if they are not reproduced."""
    _use(module, name)
    behind_activation = measure(module, run, latents)[1:]
    return sum(agreement.off for agreement in behind_activation) if reproduces(behind_activation) else float("inf")


def _use(module: nn.Module, name: str) -> None:
    for submodule in module.modules():
        if hasattr(submodule, "activation"):
            submodule.activation = name  # type: ignore[assignment]
