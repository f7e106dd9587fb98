"""Hypotheses about a plain network: what is chosen, what has been tried, and what the search came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from ..batch_statistics import Agreement, reproduces
from ..latents import DrawnLatents, UniformLatents, parse_latents
from .network import side_of
from .plan import Plan, Step

UNEXPLAINED = 0.35  # share of its own disagreement by which one hypothesis must be nearer than another
TOLD_APART = 3.0  # standard errors, over units, by which one hypothesis must be nearer than another
ROUGH = 0.12  # standard deviations by which one norm disagrees; of published networks rebuilt rightly at most 0.11


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user chooses by --as and --latent; None leaves it to the search."""

    latent: DrawnLatents | None = None
    activation: str | None = None
    side: int | None = None
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """The first steps of a network that may be the right one.

    Attributes:
        source: the latents.
        classes: how many classes stand as one-hot behind the latents; 0 without.
        steps: steps up to the last norm that was compared; their output is known.
        pending: steps after that, whose output is computed when it is needed.
        shape: of the output after the pending steps, without the batch axis.
        agreements: with each norm so far.
        unusual: how far from what is usual; decides where nothing else does.
    """

    source: DrawnLatents
    classes: int = 0
    steps: tuple[Step, ...] = ()
    pending: tuple[Step, ...] = ()
    shape: tuple[int, ...]
    agreements: tuple[Agreement, ...] = ()
    unusual: float = 0.0

    @property
    def off(self) -> float:
        """The disagreement with all norms so far."""
        return sum(agreement.off for agreement in self.agreements)

    def then(self, *steps: Step, shape: tuple[int, ...] | None = None, unusual: float = 0.0) -> Hypothesis:
        """The same with more pending steps, after which the output has this shape."""
        return replace(
            self,
            pending=self.pending + steps,
            shape=self.shape if shape is None else shape,
            unusual=self.unusual + unusual,
        )

    @property
    def activation(self) -> str | None:
        """The last hidden activation so far."""
        return next((step["which"] for step in reversed(self.steps + self.pending) if step.kind == "act"), None)

    @property
    def geometry(self) -> tuple[Step, ...]:
        """All steps up to the last norm, without norms and activations."""
        return without_activations(self.steps)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A network, and how well its norms support it.

    Attributes:
        plan: the network.
        agreements: of each norm; none where there are no norms, or their statistics were never taken.
        norms: how many norms there are.
        alternatives: other plans that nothing in the file contradicts.
        settled: whether no other strides and paddings before the last norm come as near.
    """

    plan: Plan
    agreements: tuple[Agreement, ...]
    norms: int = 0
    alternatives: tuple[Plan, ...] = field(default=())
    settled: bool = True

    @property
    def doubt(self) -> str:
        """Why the user must confirm it, in words that go on from "it is a chain that"; empty if that is not needed."""
        side = side_of(self.plan)
        if not self.agreements:
            return "has no batch norms that could tell its activations and latents" if self.alternatives else ""
        if not reproduces(self.agreements):
            return "does not reproduce what its batch norms remember, in any reading that was tried"
        if (worst := max(max(norm.mean, norm.deviation) for norm in self.agreements)) > ROUGH:
            return (
                f"reproduces what its batch norms remember only roughly, off by up to {worst:.2g} standard deviations, "
                "which does not settle strides and paddings"
            )
        if not self.settled:
            return "reproduces what its batch norms remember about as well with other strides and paddings"
        if not usual_side(side):
            return f"draws images of an unusual size, {side}×{side} pixels, as far as its batch norms tell"
        return ""


def without_activations(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps that decide the shapes: all but norms and activations."""
    return tuple(step for step in steps if step.kind not in ("act", "norm"))


def is_nearer(first: Hypothesis | SearchResult, second: Hypothesis | SearchResult) -> bool:
    """Whether the first comes nearer to what the norms remember than the second, beyond what may be chance.

    Units are compared in pairs. The mean difference must be more than 3 of its standard errors, and more than a third
    of the disagreement that the first itself leaves unexplained: running statistics lag behind the weights during
    training, which shifts many units alike.
    """
    if not first.agreements:
        return False
    gains = torch.cat([b.units - a.units for a, b in zip(first.agreements, second.agreements, strict=True)])
    unexplained = torch.cat([agreement.units for agreement in first.agreements]).mean()
    error = gains.std() / len(gains) ** 0.5
    return float(gains.mean()) > max(TOLD_APART * float(error), UNEXPLAINED * float(unexplained), 1e-4)


def usual_side(side: int) -> bool:
    """Whether images of this size are usual: 8, 28 or a multiple of 16 pixels.

    >>> [side for side in (8, 20, 28, 30, 32, 48, 100) if usual_side(side)]
    [8, 28, 32, 48]
    """
    return side in (8, 28) or side % 16 == 0


def reading(plan: Plan) -> str:
    """What distinguishes a plan from others, as --as takes it: `act=relu,side=64,output=tanh`."""
    last = plan.steps[-1]
    latent = parse_latents(plan.latent)
    usual = {"normal": (), "uniform": (), "sphere": ()}
    is_uniform01 = isinstance(latent, UniformLatents) and latent.numbers() == (0, 1)
    words = {
        "latent": "uniform01" if is_uniform01 else latent.kind if latent.numbers() == usual.get(latent.kind) else "",
        "act": next(iter(plan.activations()), ""),
        "side": str(side_of(plan)),
        "output": last["which"] if last.kind == "act" else "linear",
    }
    return ",".join(f"{key}={value}" for key, value in words.items() if value)
