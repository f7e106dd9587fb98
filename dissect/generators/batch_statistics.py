"""Batch norms as a fingerprint: whether a network, on its latents, reproduces what they remember of its training.

A batch norm keeps a running mean and variance of what reached it. The network that was trained, fed with the latents of
its training, comes to nearly the same; another activation, stride, padding or distribution of latents does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import exp

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .families.architecture import BatchStatistics

FLOOR = 1e-5  # added to variances, as batch norm itself does: units that are always off agree
MOST = 10.0  # of a unit; a single one that hardly varies shall not decide
GOOD_MEAN, GOOD_DEVIATION = 0.15, 0.15  # on average over the norms, at most
BATCH = 32  # samples
WORST = 0.4  # of one norm, at most


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well what reaches a batch norm agrees with what it remembers.

    Attributes:
        layer: its name.
        mean: |measured mean − running mean| in running standard deviations, averaged over units.
        deviation: |log(measured standard deviation / running standard deviation)|, averaged over units.
        units: the sum of the two for each unit, (U,).
    """

    layer: str
    mean: float
    deviation: float
    units: Tensor = field(repr=False, compare=False)

    @property
    def off(self) -> float:
        return self.mean + self.deviation


def agreement(layer: str, mean: Tensor, variance: Tensor, norm: nn.Module) -> Agreement:
    """The agreement of a measured mean and variance (U,) with those that a batch norm keeps."""
    running_mean, running_variance = (statistic.double() for statistic in remembered(norm))
    shift = (mean.double() - running_mean).abs() / (running_variance + FLOOR).sqrt()
    ratio = ((variance.double() + FLOOR) / (running_variance + FLOOR)).log().abs() / 2
    shift, ratio = (difference.nan_to_num(MOST).clamp(max=MOST) for difference in (shift, ratio))
    return Agreement(layer=layer, mean=float(shift.mean()), deviation=float(ratio.mean()), units=shift + ratio)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, U) or (N, U, h, w) -> mean and variance of each unit, (U,)."""
    flat = x.transpose(0, 1).flatten(1)
    return flat.mean(1), flat.var(1, correction=0)


def remembered(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The mean and the variance (U,) that a batch norm keeps."""
    if isinstance(norm, BatchStatistics):
        return norm.remembered()
    return norm.get_buffer("running_mean"), norm.get_buffer("running_var")


def norms_of(module: nn.Module) -> dict[str, nn.Module]:
    """The batch norms of a network that keep statistics, by their names."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, BatchStatistics)
        or (isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None)
    }


def taken(statistics: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Whether any of these means and variances differ from 0 and 1, with which they begin before any training."""
    return any(bool(mean.any()) or bool((variance != 1).any()) for mean, variance in statistics)


@torch.no_grad()
def measure(module: nn.Module, run: Callable[[Tensor], object], batches: Iterable[Tensor]) -> list[Agreement]:
    """The agreement of every batch norm of a network, in the order in which they run.

    Args:
        module: in eval mode.
        run: latents -> whatever; runs the module.
        batches: the latents.
    """
    norms = norms_of(module)
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            flat = inputs[0].detach().transpose(0, 1).flatten(1).double()
            batch = [flat.sum(1), flat.square().sum(1)]
            before = sums.get(name)
            sums[name] = batch if before is None else [old + new for old, new in zip(before, batch, strict=True)]
            counts[name] = counts.get(name, 0) + flat.shape[1]

        return add

    handles = [norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()]
    try:
        for batch in batches:
            run(batch)
    finally:
        for handle in handles:
            handle.remove()
    agreements = []
    for name, (total, squares) in sums.items():
        mean = total / counts[name]
        agreements.append(agreement(name, mean, (squares / counts[name] - mean.square()).clamp(min=0), norms[name]))
    return agreements


def reproduces(agreements: Iterable[Agreement]) -> bool:
    """Whether all norms together, and each by itself, agree well enough."""
    norms = list(agreements)
    return (
        bool(norms)
        and sum(norm.mean for norm in norms) / len(norms) <= GOOD_MEAN
        and sum(norm.deviation for norm in norms) / len(norms) <= GOOD_DEVIATION
        and max(max(norm.mean, norm.deviation) for norm in norms) <= WORST
    )


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """How well a network reproduces, on its latents, what its batch norms remember.

    Attributes:
        agreements: of each norm; none where there are no norms, or their statistics were never taken.
        norms: how many there are.
        samples: on how many latents it was measured.
        unmeasured: why it was not measured, in words; empty if it was.
    """

    agreements: tuple[Agreement, ...]
    norms: int
    samples: int
    unmeasured: str = ""

    @property
    def reproduced(self) -> bool | None:
        """Whether the network reproduces its training statistics; None where nothing can be said."""
        return reproduces(self.agreements) if self.agreements else None

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.norms:
            return "no batch norms with statistics, which could tell whether latents are those of training"
        if self.unmeasured:
            return f"not compared with what they remember of the training: {self.unmeasured}"
        if not self.agreements:
            return "the batch norms' statistics were never taken: the network is untrained, or keeps none"
        worst = max(self.agreements, key=lambda norm: max(norm.mean, norm.deviation))
        mean, deviation = max(norm.mean for norm in self.agreements), max(norm.deviation for norm in self.agreements)
        measured = (
            f"means off by up to {mean:.2g} standard deviations, standard deviations by up to "
            f"{exp(deviation) - 1:.0%}, {self.samples} samples"
        )
        if self.reproduced:
            return f"reproduces its training statistics ({measured})"
        return (
            f"does not reproduce its training statistics ({measured}; worst at {worst.layer}): probably other latents, "
            "another activation or another normalisation than in training"
        )


def fingerprint_of(
    module: nn.Module, run: Callable[[Tensor], object], draw: Callable[[range], Tensor], samples: int = 256
) -> Fingerprint:
    """How far a network reproduces its training statistics.

    Args:
        module: in eval mode.
        run: latents -> whatever; runs the module.
        draw: numbers of samples -> their latents.
        samples: how many are drawn.
    """
    norms = norms_of(module)
    if not taken(map(remembered, norms.values())):
        return Fingerprint(agreements=(), norms=len(norms), samples=0)
    batches = (draw(range(start, min(start + BATCH, samples))) for start in range(0, samples, BATCH))
    return Fingerprint(agreements=tuple(measure(module, run, batches)), norms=len(norms), samples=samples)
