"""What a state dict does not tell of a plain network, found by what its batch norms remember.

A batch norm keeps the mean and variance of what reached it in training. Each hypothesis about what lies before it (the
latents, strides, paddings, activations) is tried on random latents, and those are kept that come nearest to what it
remembers. As each norm settles what lies before it, the search goes from norm to norm, and is not exponential.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from math import isqrt

import torch
from torch import Tensor

from ....hooks.errors import DissectError, UsageError
from ..batch_statistics import WORST, Agreement, agreement, measure, moments, reproduces, taken
from ..latents import DrawnLatents, NormalLatents, SphereLatents, UniformLatents, parse_latents
from .network import LARGEST, build, grown, side_of, with_weights
from .parts import Part, gap, interleaved
from .plan import ACTIVATIONS, Plan, Step, step

SAMPLES, SIEVE = 1024, 8  # latents, and how many times fewer a first sieve takes
POSITIONS = 16384  # of a map in all samples together; more say no more
LEAST = {16: 512, 32: 256, 64: 128, 1 << 20: 48}  # samples, of maps up to that side
SIEVED, BEAM, OF_A_KIND = 12, 6, 2  # hypotheses that are tried on all samples; that are kept at each norm
SIDES = (64, 32, 28, 128, 256, 48, 96, 512)  # of images, the likelier ones first
IMAGES = (1, 3, 4)  # channels
EPSILONS = (1e-5, 0.8)  # of batch norm: PyTorch's, and what a widely copied script gives by a slip
CLASSES = (10, 2, 26, 47, 100)  # that are given as one-hot
LATENTS = (100, 128, 64, 62, 50, 32, 16, 20, 256, 512, 10)  # usual sizes
SHORT = (2, 3, 4, 5, 8)  # of the latents of autoencoders
MOST_HELD = 1 << 27  # numbers, 512 MiB
NEAR = 0.12  # a hypothesis that is off by this much more than the best one is not kept
RIVALS = ("relu", "leaky_relu:0.2", "leaky_relu:0.01")  # that are measured at the end, beside those that came out
FEW, SAME = 8, 0.01  # images; by which they differ on average at most, of [-1, 1]
FINAL, BATCH = 512, 64  # samples of that
COMMON = 8  # of the activations, that are always tried
OPEN = 400  # hypotheses between two norms
ENOUGH = 0.15  # a hypothesis that is off by less at a norm needs no rivals of unusual kinds
UNEXPLAINED = 0.35
ROUGH = 0.12  # standard deviations by which one norm is off; of published networks rebuilt rightly at most 0.11
TOLD_APART = 3.0  # standard errors, over units, by which one hypothesis must be nearer than another


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for by --as and --latent; None leaves it open."""

    latent: DrawnLatents | None = None
    activation: str | None = None
    side: int | None = None
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A beginning of the network.

    `steps` were run and gave `x`; `pending` ones were not yet.
    """

    source: DrawnLatents
    classes: int = 0
    steps: tuple[Step, ...] = ()
    pending: tuple[Step, ...] = ()
    shape: tuple[int, ...]  # after the pending steps
    agreements: tuple[Agreement, ...] = ()
    unusual: float = 0.0  # how far from what is usual, where nothing else decides

    @property
    def off(self) -> float:
        return sum(one.off for one in self.agreements)

    def then(self, *steps: Step, shape: tuple[int, ...] | None = None, unusual: float = 0.0) -> Hypothesis:
        return replace(
            self,
            pending=self.pending + steps,
            shape=self.shape if shape is None else shape,
            unusual=self.unusual + unusual,
        )

    @property
    def activation(self) -> str | None:
        """The hidden activation so far, the last one."""
        return next((one["which"] for one in reversed(self.steps + self.pending) if one.kind == "act"), None)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A network and how well its norms speak for it.

    Attributes:
        plan: what it is.
        agreements: of each norm; none where there are no norms, or their statistics were never taken.
        norms: how many there are.
        others: other plans that nothing in the file speaks against.
        settled: whether no other strides and paddings before the last norm come as near.
    """

    plan: Plan
    agreements: tuple[Agreement, ...]
    norms: int = 0
    others: tuple[Plan, ...] = field(default=())
    settled: bool = True

    @property
    def doubt(self) -> str:
        """Why it needs to be confirmed, in words that go on from "it is a chain that"; empty if it does not."""
        side = side_of(self.plan)
        if not self.agreements:
            return "has no batch norms that could tell its activations and latents" if self.others else ""
        if not reproduces(self.agreements):
            return "does not reproduce what its batch norms remember, in any reading that was tried"
        if (worst := max(max(one.mean, one.deviation) for one in self.agreements)) > ROUGH:
            return (
                f"reproduces what its batch norms remember only roughly, off by up to {worst:.2g} standard deviations, "
                "which does not settle strides and paddings"
            )
        if not self.settled:
            return "reproduces what its batch norms remember about as well with other strides and paddings"
        if not usual_side(side):
            return f"draws images of an unusual size, {side}×{side} pixels, as far as its batch norms tell"
        return ""


@torch.no_grad()
def search(state: Mapping[str, Tensor], parts: Sequence[Part], wanted: Wanted) -> Found:
    """The plain network that these layers make.

    Raises:
        DissectError: they make none, or none that draws images of latents.
    """
    if sum(part.kind in ("linear", "conv") for part in parts) < 2:
        raise DissectError("it has fewer than two layers.")
    reasons: list[str] = []
    orders = [list(parts), interleaved(parts)]
    for order in orders[: 1 if orders[0] == orders[1] else 2]:
        try:
            return refined(_Search(state, order, wanted).found(), state, wanted)
        except UsageError:
            raise
        except DissectError as error:
            reasons.append(str(error))
    raise DissectError(next((reason for reason in reasons if "cannot follow" not in reason), reasons[0]))


Memo = dict[tuple[DrawnLatents, int, tuple[Step, ...], tuple[Step, ...]], Tensor]  # what pending steps gave


class _Search:
    """One search: the layers in one order."""

    def __init__(self, state: Mapping[str, Tensor], parts: Sequence[Part], wanted: Wanted) -> None:
        self.state, self.parts, self.wanted = state, parts, wanted
        self.norms = [part for part in parts if part.kind == "norm"]
        self.taken = taken((part.tensors["running_mean"], part.tensors["running_var"]) for part in self.norms)
        self.held = 0  # numbers in what pending steps gave
        self.reached: dict[tuple[DrawnLatents, int, tuple[Step, ...]], Tensor] = {}  # what steps gave

    def found(self) -> Found:
        first = next((place for place, part in enumerate(self.parts) if part.kind != "embedding"), None)
        if first is None:
            raise DissectError("it has no layers but embeddings.")
        beam = list(self.starts(self.parts[:first], self.parts[first]))
        for stretch in _stretches(first, self.parts):
            beam = self.through(beam, stretch)
        return self.chosen(beam)

    def through(self, beam: list[Hypothesis], stretch: range) -> list[Hypothesis]:
        """Through the layers up to a norm, or to the end.

        Before a norm, every activation is tried with the usual strides and paddings, the most usual activations with
        every stride and padding, and all with all, and before norms too, only where nothing came near enough.

        Raises:
            DissectError: a layer cannot follow on what is before it, or no hypothesis comes near what a norm remembers.
        """
        if not (self.taken and self.parts[stretch[-1]].kind == "norm"):
            return self.along(beam, stretch, everything=True)
        here = self.along(beam, stretch, everything=False)
        if not here or min(one.agreements[-1].off for one in here) > ENOUGH:
            here = self.along(beam, stretch, everything=True)
        part = self.parts[stretch[-1]]
        if not here:
            raise DissectError(f"{part.name} ({part.kind}) cannot follow on what is before it.")
        nearest = min(max(one.agreements[-1].mean, one.agreements[-1].deviation) for one in here)
        if nearest > WORST:
            raise DissectError(
                f"no latents, strides and activations that are tried reproduce what {part.name} remembers of the "
                f"training (nearest: off by {nearest:.2g} standard deviations)."
            )
        return here

    def along(self, beam: list[Hypothesis], stretch: range, *, everything: bool) -> list[Hypothesis]:
        """Through the layers of a stretch, one after another; nothing if one cannot follow before a norm."""
        here = beam
        for place in stretch:
            part = self.parts[place]
            longer = [way for one in here for way in self.extended(one, place, everything)]
            if not longer:
                if self.taken and self.parts[stretch[-1]].kind == "norm":
                    return []
                shapes = sorted({"×".join(map(str, one.shape)) for one in here})
                raise DissectError(
                    f"{part.name} ({part.kind}) cannot follow on what is before it ({', '.join(shapes[:4])})."
                )
            if self.taken and part.kind == "norm":
                here = self.judged(longer, part)
            else:
                here = sorted(longer, key=lambda one: one.off + one.unusual / 100)[:OPEN]
        return here

    # where it begins

    def starts(self, embeddings: Sequence[Part], first: Part) -> Iterator[Hypothesis]:
        """Latents of every distribution that is tried, of the size that the first layer takes."""
        if len(embeddings) > 1 or first.kind not in ("linear", "conv"):
            raise DissectError(f"it begins with {(embeddings[-1] if embeddings else first).name}, no layer of latents.")
        if first.kind == "linear":
            sizes = {int(first.weight.shape[1])}
        else:
            directions = first.directions()
            sizes = {units for kind, units, _ in directions if kind == "transposed" or units not in IMAGES}
            if any(kind == "conv" and units in IMAGES for kind, units, _ in directions):
                raise DissectError(f"{first.name} takes images; only chains that begin with latents are rebuilt.")
        wanted = self.wanted.latent
        if wanted is not None and wanted.shape[0] and not self._takes(wanted.shape[0], embeddings, sizes):
            raise UsageError(
                f"--latent {wanted}: {first.name}, the first layer, takes "
                f"{' or '.join(map(str, sorted(sizes)))} numbers{' with the class' if embeddings else ''}."
            )
        for size in sizes:
            for number, (source, classes, label) in enumerate(self._inputs(embeddings, size)):
                beginning = Hypothesis(source=source, classes=classes, shape=(size,), unusual=number / 2)
                yield beginning if label is None else beginning.then(label)

    def _takes(self, latent: int, embeddings: Sequence[Part], sizes: set[int]) -> bool:
        """Whether a latent of this size, with a class or without, is what the first layer takes."""
        beside = {0, *CLASSES, *(int(one.weight.shape[1]) for one in embeddings)}
        return any(size - latent in beside for size in sizes)

    def _inputs(self, embeddings: Sequence[Part], size: int) -> Iterator[tuple[DrawnLatents, int, Step | None]]:
        forms: list[tuple[int, int, Step | None]] = []  # size of the latent, classes, how they are joined
        if embeddings:
            classes, embedded = embeddings[0].weight.shape
            hows = ("times",) if embedded == size else ("before", "after") if embedded < size else ()
            for how in hows:
                label: Step | None = step("label", embeddings[0].name, classes=classes, how=how, embedded=embedded)
                forms.append((size if how == "times" else size - embedded, classes, label))
        else:
            forms.append((size, 0, None))
            forms += [
                (size - classes, classes, step("label", "", classes=classes, how=how, embedded=0))
                for classes in CLASSES
                if size - classes in (*LATENTS, *SHORT) and size not in LATENTS
                for how in ("after", "before")
            ]
        for latent, classes, label in forms:
            shape = (latent,)
            if self.wanted.latent is not None:
                if self.wanted.latent.shape[0] in (0, latent):
                    yield self.wanted.latent.shaped(shape), classes, label
                continue
            yield NormalLatents(shape), classes, label
            yield UniformLatents(shape), classes, label
            yield UniformLatents(shape, low=0.0, high=1.0), classes, label
            yield SphereLatents(shape), classes, label

    # one layer more

    def extended(self, before: Hypothesis, place: int, everything: bool) -> Iterator[Hypothesis]:
        """All ways from what is there through the next layer, of unusual kinds too, if it is to be everything."""
        part = self.parts[place]
        for which, unusual in self.activations(before, place, everything):
            here = before.then(*(() if which is None else (_act(which, before.shape),)), unusual=unusual)
            if part.kind == "linear":
                yield from _linear(here, part)
            elif part.kind == "conv":
                yield from _convolution(here, part, everything or which in (None, *RIVALS[:2]))
            elif part.kind == "norm":
                for way in _normed(here, part):
                    yield way if self.taken else way.then(self._norm(part, way.shape, EPSILONS[0]))
            elif part.kind == "prelu" and part.weight.numel() in (1, here.shape[0]):
                units = part.weight.numel()
                yield here.then(step("prelu", part.name, units=units, map=len(here.shape) == 3))

    def activations(self, before: Hypothesis, place: int, everything: bool) -> list[tuple[str | None, float]]:
        """Activations that may stand before a layer, None among them, and how unusual each is there."""
        part = self.parts[place]
        last = self.parts[place - 1] if place else None
        if last is None or last.kind in ("embedding", "prelu") or part.kind == "prelu":
            return [(None, 0)]
        used = before.activation
        if self.wanted.activation is not None:
            those: Sequence[str] = [self.wanted.activation]
        elif used and (any(one.kind == "act" for one in before.pending) or not self._norm_from(place)):
            those = [used]  # nothing tells two apart between two norms, or behind the last
        else:
            those = ACTIVATIONS if everything else ACTIVATIONS[:COMMON]
        rank = {which: number / 10 + (2 if used not in (None, which) else 0) for number, which in enumerate(those)}
        between = gap(last, part)
        if part.kind == "norm":
            ahead = [(which, 1 + unusual) for which, unusual in rank.items()] if everything else []
            return [(None, 0.0), *ahead]
        nothing = 0.0 if between == 0 else 3.0
        return [(None, nothing), *((which, unusual + (2 if between == 0 else 0)) for which, unusual in rank.items())]

    def _norm_from(self, place: int) -> bool:
        return self.taken and any(part.kind == "norm" for part in self.parts[place:])

    # what norms say

    def judged(self, hypotheses: list[Hypothesis], part: Part) -> list[Hypothesis]:
        """Those that come nearest to what a norm remembers: a sieve on few samples first, then on all."""
        memo: Memo = {}
        if len(hypotheses) > SIEVED:
            few = [(self.tried(one, part, SIEVE, memo).off, one) for one in hypotheses]
            few.sort(key=lambda pair: pair[0] + pair[1].off + pair[1].unusual / 100)
            hypotheses, memo = [one for _, one in few[:SIEVED]], {}
        tried = [replace(one, agreements=(*one.agreements, self.tried(one, part, 1, memo))) for one in hypotheses]
        tried.sort(key=lambda one: one.off + one.unusual / 100)
        near = [one for one in tried if one.off <= 1.5 * tried[0].off + NEAR]
        of_a_kind = Counter[tuple[Step, ...]]()  # that differ in activations alone, which say less than geometry
        after: list[Hypothesis] = []
        for one in near:
            kind = tuple(old for old in one.steps + one.pending if old.kind not in ("act", "norm"))
            of_a_kind[kind] += 1
            if of_a_kind[kind] > OF_A_KIND or len(after) >= BEAM * len(EPSILONS):
                continue
            x = self.run(one, 1, memo)
            before = next((old["eps"] for old in reversed(one.steps) if old.kind == "norm"), EPSILONS[0])
            for eps in EPSILONS:
                norm = self._norm(part, one.shape, eps)
                steps = one.steps + one.pending + (norm,)
                self.reached[(one.source, one.classes, steps)] = with_weights(norm, self.state)(x)
                unusual = one.unusual + (0.0 if eps == before else 0.5)
                after.append(replace(one, steps=steps, pending=(), unusual=unusual))
        return after

    def _norm(self, part: Part, shape: tuple[int, ...], eps: float) -> Step:
        affine = "weight" in part.tensors
        return step("norm", part.name, units=part.units, eps=eps, affine=affine, map=len(shape) == 3)

    def tried(self, one: Hypothesis, part: Part, fewer: int, memo: Memo) -> Agreement:
        """How well what reaches a norm agrees with what it remembers, on so many times fewer samples."""
        norm = with_weights(self._norm(part, one.shape, EPSILONS[0]), self.state)
        return agreement(part.name, *moments(self.run(one, fewer, memo)), norm)

    def run(self, one: Hypothesis, fewer: int, memo: Memo) -> Tensor:
        """What the pending steps give of what is there."""
        x = self._there(one)
        x = x[: max(1, min(len(x), samples_for(one.shape)) // fewer)]
        for count in range(len(one.pending)):
            key = (one.source, one.classes, one.steps, one.pending[: count + 1])
            if key in memo and len(memo[key]) >= len(x):
                x = memo[key][: len(x)]
                continue
            x = with_weights(one.pending[count], self.state)(x)
            self.held += x.numel()
            if self.held > MOST_HELD:  # what others began is forgotten, and computed anew where it is needed
                memo.clear()
                self.held = x.numel()
            memo[key] = x
        return x

    def _there(self, one: Hypothesis) -> Tensor:
        key = (one.source, one.classes, one.steps)
        if key not in self.reached:
            assert not one.steps
            self.reached[key] = with_classes(one.source(range(SAMPLES)), one.classes)
        return self.reached[key]

    # where it ends

    def chosen(self, beam: list[Hypothesis]) -> Found:
        """The best of what ends in images, and what else nothing speaks against."""
        ends = [end for one in beam if (end := self.ended(one)) is not None]
        if not ends:
            shapes = sorted({"×".join(map(str, one.shape)) for one in beam})
            side = f" of side {self.wanted.side}" if self.wanted.side else ""
            raise DissectError(f"it ends in {', '.join(shapes[:4])}, no images{side} of 1 or 3 channels.")
        ends.sort(key=lambda one: (one.off, one.unusual))
        alike = [one for one in ends if not _nearer(ends[0], one)]
        alike.sort(key=lambda one: one.unusual)
        memo: Memo = {}  # what they have in common is run once
        best, own = alike[0], self.plan(alike[0], memo)
        others: dict[str, Plan] = {}
        likely = [one for one in alike[1:OPEN] if one.unusual < best.unusual + RARE]
        for one in likely:
            plan = self.plan(one, memo)
            if side_of(plan) in (side_of(own), *SIDES):
                others.setdefault(reading(plan), plan)
        others.pop(reading(own), None)
        return Found(
            plan=own,
            agreements=best.agreements,
            norms=len(self.norms),
            others=tuple(others.values())[:MOST_OTHERS],
            settled=all(_geometry_before(one) == _geometry_before(best) for one in likely),
        )

    def ended(self, one: Hypothesis) -> Hypothesis | None:
        """With a view where images come as numbers, and how unusual their size is; None if they are no images."""
        if len(one.shape) == 1:
            fitting = [(c, isqrt(one.shape[0] // c)) for c in (1, 3) if one.shape[0] % c == 0]
            fitting = [(c, side) for c, side in fitting if c * side * side == one.shape[0]]
            if not fitting:
                return None
            channels, side = min(fitting, key=lambda pair: _oddness(pair[1]))
            one = one.then(step("view", shape=[channels, side, side]), shape=(channels, side, side))
        channels, side = one.shape[0], one.shape[1]
        if channels not in (1, 3) or side < 8 or (self.wanted.side or side) != side:
            return None
        return replace(one, unusual=one.unusual + _oddness(side))

    def plan(self, one: Hypothesis, memo: Memo) -> Plan:
        """The network of a hypothesis, with the output that its values speak for."""
        word = self.wanted.output or output_of(self.run(one, 1, memo))
        steps = one.steps + one.pending
        if word != "linear":
            steps = (*steps, step("act", which=word, map=True))
        return Plan(latent=str(one.source), classes=one.classes, steps=steps)


MOST_OTHERS = 11
SATURATED, FEW_SATURATED = 6.0, 0.03  # size of values, and their share: with fewer, contrast can be seen
CONTRAST = 0.25  # standard deviation of the pixels of photographs, in [0, 1]
LINEAR = 0.002  # share of values beyond ±1.1 from which on an activation must follow, and beyond ±0.9 for none to


def refined(found: Found, state: Mapping[str, Tensor], wanted: Wanted) -> Found:
    """The network with the hidden activation that fits best where it is the same everywhere, all its norms measured.

    The search takes layer by layer what comes nearest, on as few samples as that needs. Here the whole network runs,
    and of activations that cannot be told apart the most usual one is taken.
    """
    if not found.agreements:
        return found
    used = found.plan.activations()
    rivals = [found.plan]
    if wanted.activation is None and used:
        rivals += [_with_activation(found.plan, which) for which in dict.fromkeys((*RIVALS, *used))]
        rivals += [_with_usual_epsilon(plan) for plan in rivals]
    measured = []
    for plan in dict.fromkeys(rivals):
        module, source = build(plan, state), parse_latents(plan.latent)
        batches = (with_classes(source(range(start, start + BATCH)), plan.classes) for start in range(0, FINAL, BATCH))
        measured.append(replace(found, plan=plan, agreements=tuple(measure(module, module, batches))))
    best = min(measured, key=lambda one: sum(agreement.off for agreement in one.agreements))
    alike = [one for one in measured if not _nearer(best, one)]
    alike.sort(key=lambda one: min((ACTIVATIONS.index(which) for which in one.plan.activations()), default=0))
    alike.sort(key=lambda one: (len(one.plan.activations()), one.plan != _with_usual_epsilon(one.plan)))
    readings = {reading(one.plan) for one in alike}
    others = [
        plan for plan in found.others if plan.activations() == alike[0].plan.activations() or reading(plan) in readings
    ]
    return replace(alike[0], others=tuple(others))


def with_classes(latents: Tensor, classes: int) -> Tensor:
    """latents (N, z) with each class in turn as one-hot behind them, (N, z + classes)."""
    if not classes:
        return latents
    return torch.cat([latents, torch.eye(classes)[torch.arange(len(latents)) % classes]], 1)


def _with_activation(plan: Plan, which: str) -> Plan:
    *hidden, last = plan.steps
    steps = [_act(which, (0,) * (3 if one["map"] else 1)) if one.kind == "act" else one for one in hidden]
    return replace(plan, steps=(*steps, last))


def _with_usual_epsilon(plan: Plan) -> Plan:
    steps: list[Step] = [
        step("norm", one.name, **(dict(one.settings) | {"eps": EPSILONS[0]})) if one.kind == "norm" else one
        for one in plan.steps
    ]
    return replace(plan, steps=tuple(steps))


def _stretches(first: int, parts: Sequence[Part]) -> Iterator[range]:
    """From the first layer on, up to and with each norm, and what follows the last."""
    start = first
    for place in range(first, len(parts)):
        if parts[place].kind == "norm" or place == len(parts) - 1:
            yield range(start, place + 1)
            start = place + 1


def samples_for(shape: tuple[int, ...]) -> int:
    """How many samples are enough for the statistics of maps of this shape, and not too many for memory."""
    if len(shape) == 1:
        return SAMPLES
    side = shape[1]
    return max(next(least for most, least in LEAST.items() if side <= most), min(SAMPLES, POSITIONS // side**2))


def output_of(x: Tensor) -> str:
    """What most likely follows on the last layer's values (N, C, H, W): `linear`, `sigmoid` or `tanh`.

    Values that fill [-1, 1] and stay inside need no activation. Sigmoid and tanh draw the same but for the contrast: of
    colour images that are not saturated the one is taken with which pixels vary as in photographs, else tanh.
    """
    sizes = x.abs()
    if float((sizes > 1.1).double().mean()) < LINEAR < float((sizes > 0.9).double().mean()):
        return "linear"
    if x.shape[1] == 3 and float((sizes > SATURATED).double().mean()) < FEW_SATURATED:
        by_tanh, by_sigmoid = float(torch.sigmoid(2 * x).std()), float(torch.sigmoid(x).std())
        return "sigmoid" if abs(by_sigmoid - CONTRAST) < abs(by_tanh - CONTRAST) else "tanh"
    return "tanh"


def reading(plan: Plan) -> str:
    """What tells a plan from others in few words, as --as takes them."""
    last = plan.steps[-1]
    latent = parse_latents(plan.latent)
    usual = {"normal": (), "uniform": (), "sphere": ()}
    zero = isinstance(latent, UniformLatents) and latent.numbers() == (0, 1)
    words = {
        "latent": "uniform01" if zero else latent.kind if latent.numbers() == usual.get(latent.kind) else "",
        "act": next(iter(plan.activations()), ""),
        "side": str(side_of(plan)),
        "output": last["which"] if last.kind == "act" else "linear",
    }
    return ",".join(f"{key}={value}" for key, value in words.items() if value)


def _nearer(one: Hypothesis | Found, other: Hypothesis | Found) -> bool:
    """Whether one comes nearer to what the norms remember than another, beyond what may be chance.

    Units are compared in pairs: the mean difference must be more than 3 of its standard errors, and more than a third
    of what one itself leaves unexplained. The latter since running statistics lag behind the weights of a training,
    which shifts many units alike.
    """
    if not one.agreements:
        return False
    gains = torch.cat([b.units - a.units for a, b in zip(one.agreements, other.agreements, strict=True)])
    left = torch.cat([agreement.units for agreement in one.agreements]).mean()
    error = gains.std() / len(gains) ** 0.5
    return float(gains.mean()) > max(TOLD_APART * float(error), UNEXPLAINED * float(left), 1e-4)


def usual_side(side: int) -> bool:
    """Whether people draw images of such a size: 28, or 8 or a multiple of 16 pixels."""
    return side in (8, 28) or side % 16 == 0


def _geometry_before(one: Hypothesis) -> tuple[Step, ...]:
    """What was run before the last norm, but for norms and activations."""
    return tuple(step for step in one.steps if step.kind not in ("act", "norm"))


def _oddness(side: int) -> float:
    return SIDES.index(side) / 10 if side in SIDES else 6.0


def _act(which: str, shape: tuple[int, ...]) -> Step:
    return step("act", which=which, map=len(shape) == 3)


def _linear(here: Hypothesis, part: Part) -> Iterator[Hypothesis]:
    out, size = part.weight.shape
    layer = step("linear", part.name, units=[size, out], bias="bias" in part.tensors)
    if here.shape == (size,):
        yield here.then(layer, shape=(out,))
    elif len(here.shape) == 3 and here.shape[0] * here.shape[1] * here.shape[2] == size:
        yield here.then(step("flatten"), layer, shape=(out,))


def _normed(here: Hypothesis, part: Part) -> Iterator[Hypothesis]:
    units = part.units
    if here.shape[0] == units:
        yield here
    elif len(here.shape) == 1:
        yield from _viewed(here, units)
    elif here.shape[0] == 4 * units:
        yield _shuffled(here, 2)
    elif here.shape[0] == 2 * units:
        yield here.then(step("glu", map=True), shape=(units, *here.shape[1:]))


def _viewed(here: Hypothesis, units: int) -> Iterator[Hypothesis]:
    side = isqrt(here.shape[0] // units) if units else 0
    if side and units * side * side == here.shape[0]:
        yield here.then(step("view", shape=[units, side, side]), shape=(units, side, side))


def _shuffled(here: Hypothesis, factor: int) -> Hypothesis:
    units, height, width = here.shape
    shape = (units // factor**2, height * factor, width * factor)
    return here.then(step("shuffle", factor=factor, map=True), shape=shape)


def _convolution(here: Hypothesis, part: Part, every: bool) -> Iterator[Hypothesis]:
    kernel = int(part.weight.shape[2])
    for kind, units, out in part.directions():
        for there in _with_units(here, units):
            settings = {"units": [units, out], "kernel": kernel, "bias": "bias" in part.tensors, "map": True}
            ways = _transposed(there.shape[1], kernel) if kind == "transposed" else _conv(there.shape[1], kernel)
            steps_before = here.steps + here.pending
            before = [
                one.settings
                for last, one in pairwise(steps_before)
                if one.kind == kind and not (last.kind == "view" and last["shape"][1] == 1)  # where no stride matters
            ]
            for steps, geometry, unusual in ways:
                if unusual >= RARE - 1 and not every:
                    continue
                layer = step(kind, part.name, **settings, **geometry)
                side = there.shape[1]
                for one in (*steps, layer):
                    side = grown(one, side)
                if 1 <= side <= LARGEST and side >= min(there.shape[1], 2):
                    again = any(set(layer.settings[1:]) <= set(settings) for settings in before)
                    alike = not before or dict(before[-1])["padding"] == geometry["padding"]
                    other = unusual + (0 if alike else 1)
                    if steps and out in IMAGES:  # the layer that makes the image is rarely the one that enlarges
                        again, other = False, other + 2
                    yield there.then(*steps, layer, shape=(out, side, side), unusual=0.0 if again else other)


def _with_units(here: Hypothesis, units: int) -> Iterator[Hypothesis]:
    """As a map of so many units."""
    if len(here.shape) == 1:
        yield from _viewed(here, units)
    elif here.shape[0] == units:
        yield here
    elif here.shape[0] in (4 * units, 16 * units):
        yield _shuffled(here, 2 if here.shape[0] == 4 * units else 4)
    elif here.shape[0] == 2 * units:
        yield here.then(step("glu", map=True), shape=(units, *here.shape[1:]))


Way = tuple[tuple[Step, ...], dict[str, object], float]  # steps before it, settings, how unusual
USUAL = {  # stride, padding and output padding of transposed convolutions, by kernel; the likelier ones first
    1: ((1, 0, 0),),
    2: ((2, 0, 0),),
    3: ((2, 1, 1), (1, 1, 0), (2, 1, 0), (2, 0, 0), (1, 0, 0)),
    4: ((2, 1, 0), (2, 0, 0), (1, 0, 0), (2, 2, 0), (1, 1, 0)),
    5: ((2, 2, 1), (2, 2, 0), (1, 2, 0), (1, 0, 0), (2, 1, 0)),
    6: ((2, 2, 0), (1, 0, 0)),
    7: ((2, 3, 1), (1, 3, 0), (1, 0, 0)),
}


def _transposed(side: int, kernel: int) -> list[Way]:
    """Strides, paddings and output paddings that make no map smaller."""
    if side == 1:
        geometries = [(1, padding, 0) for padding in range((kernel + 1) // 2)]
        return [((), _geometry(*one), number) for number, one in enumerate(geometries)]
    usual = USUAL.get(kernel, ())
    every = product(range(1, 5), range(min(kernel, 4)), range(2))
    rest = [one for one in every if one not in usual and one[2] < one[0] and one[1] < kernel]
    rest = [one for one in rest if not (one[2] and one[1] > kernel // 2)]  # nobody cuts a border off and adds one
    ways: list[Way] = [((), _geometry(*one), number / 2) for number, one in enumerate(usual)]
    ways += [((), _geometry(*one), RARE + (1.0 if one[0] < 3 and not one[2] else 4.0)) for one in rest]
    if kernel % 2:
        ways += [((step("upsample", mode=mode, map=True),), _geometry(1, kernel // 2, 0), 3.0) for mode in RESIZES]
    return ways


RESIZES = ("nearest", "bilinear")
RARE = 4.0  # from here on, ways are only looked at where nothing else comes near


def _geometry(stride: int, padding: int, output_padding: int) -> dict[str, object]:
    return {"stride": stride, "padding": padding, "output_padding": output_padding}


def _conv(side: int, kernel: int) -> list[Way]:
    """As it is, or after resizing; borders of zeros or reflected."""
    ways: list[Way] = []
    same = kernel // 2
    for number, mode in enumerate((None, *RESIZES)):
        resize = () if mode is None else (step("upsample", mode=mode, map=True),)
        ways.append((resize, {"padding": same}, float(number)))
        if kernel > 1 and same < side * (2 if mode else 1):
            ways.append((resize, {"padding": same, "border": "reflect"}, number + RARE - 1))
        if kernel > 1:
            ways.append((resize, {"padding": 0}, number + RARE))
    if side == 1 and kernel > 1:
        ways.append(((), {"padding": kernel - 1}, 1.0))
    return ways
