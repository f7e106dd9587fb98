"""What a state dict does not tell of a plain network, found by what its batch norms remember.

A batch norm keeps the mean and variance of what reached it in training. Each hypothesis about what lies before it (the
latents, strides, paddings, activations) is tried on random latents, and those are kept that come nearest to what it
remembers. As each norm settles what lies before it, the search goes from norm to norm, and is not exponential.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isqrt

import torch
from torch import Tensor

from ....hooks.errors import DissectError, UsageError
from ..batch_statistics import WORST, Agreement, agreement, measure, moments, taken
from ..latents import DrawnLatents, NormalLatents, SphereLatents, UniformLatents, parse_latents
from .extensions import IMAGES, RARE, before_norm, through_convolution, through_linear
from .hypotheses import Choices, Hypothesis, SearchResult, is_nearer, reading, without_activations
from .layers import Layer, gap, interleaved
from .network import build, side_of, with_weights
from .plan import ACTIVATIONS, Plan, Step, step

SAMPLES, SIEVE = 1024, 8  # latents, and how many times fewer a first sieve takes
POSITIONS = 16384  # of a map in all samples together; more say no more
LEAST = {16: 512, 32: 256, 64: 128, 1 << 20: 48}  # samples, of maps up to that side
SIEVED, BEAM, OF_A_GEOMETRY = 12, 6, 2  # hypotheses that are tried on all samples; that are kept at each norm
SIDES = (64, 32, 28, 128, 256, 48, 96, 512)  # of images, the likelier ones first
EPSILONS = (1e-5, 0.8)  # of batch norm: PyTorch's, and what a widely copied script gives by a slip
CLASSES = (10, 2, 26, 47, 100)  # that are given as one-hot
LATENTS = (100, 128, 64, 62, 50, 32, 16, 20, 256, 512, 10)  # usual sizes
SHORT = (2, 3, 4, 5, 8)  # of the latents of autoencoders
MOST_HELD = 1 << 27  # numbers, 512 MiB
NEAR = 0.12  # a hypothesis that is off by this much more than the best one is not kept
RIVALS = ("relu", "leaky_relu:0.2", "leaky_relu:0.01")  # that are measured at the end, beside those that came out
FINAL, BATCH = 512, 64  # samples of that
COMMON = 8  # of the activations, that are always tried
OPEN = 400  # hypotheses between two norms
ENOUGH = 0.15  # a hypothesis that is off by less at a norm needs no rivals of unusual kinds
MOST_ALTERNATIVES = 11
SATURATED, FEW_SATURATED = 6.0, 0.03  # size of values, and their share: with fewer, contrast can be seen
CONTRAST = 0.25  # standard deviation of the pixels of photographs, in [0, 1]
LINEAR = 0.002  # share of values beyond ±1.1 from which on an activation must follow, and beyond ±0.9 for none to

Outputs = dict[tuple[DrawnLatents, int, tuple[Step, ...], tuple[Step, ...]], Tensor]  # of pending steps, by all steps


@torch.no_grad()
def search(state: Mapping[str, Tensor], layers: Sequence[Layer], choices: Choices) -> SearchResult:
    """The plain network that these layers make.

    Raises:
        UsageError: a choice does not fit the layers.
        DissectError: they make none, or none that draws images of latents.
    """
    if sum(layer.kind in ("linear", "conv") for layer in layers) < 2:
        raise DissectError("it has fewer than two layers.")
    reasons: list[str] = []
    orders = [list(layers), interleaved(layers)]
    for order in orders[: 1 if orders[0] == orders[1] else 2]:
        try:
            return refined(_Search(state, order, choices).result(), state, choices)
        except UsageError:
            raise
        except DissectError as error:
            reasons.append(str(error))
    raise DissectError(next((reason for reason in reasons if "cannot follow" not in reason), reasons[0]))


class _Search:
    """One search: the layers in one order."""

    def __init__(self, state: Mapping[str, Tensor], layers: Sequence[Layer], choices: Choices) -> None:
        self.state, self.layers, self.choices = state, layers, choices
        self.norms = [layer for layer in layers if layer.kind == "norm"]
        self.taken = taken((norm.tensors["running_mean"], norm.tensors["running_var"]) for norm in self.norms)
        self.numbers_held = 0  # in the outputs of pending steps
        self.reached: dict[tuple[DrawnLatents, int, tuple[Step, ...]], Tensor] = {}  # outputs of steps that were run

    def result(self) -> SearchResult:
        first = next((index for index, layer in enumerate(self.layers) if layer.kind != "embedding"), None)
        if first is None:
            raise DissectError("it has no layers but embeddings.")
        beam = list(self.beginnings(self.layers[:first], self.layers[first]))
        for stretch in _stretches(first, self.layers):
            beam = self.through(beam, stretch)
        return self.best(beam)

    def through(self, beam: list[Hypothesis], stretch: range) -> list[Hypothesis]:
        """Through the layers up to a norm, or to the end.

        Before a norm, every activation is tried with the usual strides and paddings, and the most usual activations
        with every stride and padding. All activations with all geometries, and before norms too, are tried only where
        nothing came near enough.

        Raises:
            DissectError: a layer cannot follow on what is before it, or no hypothesis comes near what a norm remembers.
        """
        if not self._compares(stretch):
            return self.along(beam, stretch, exhaustive=True)
        hypotheses = self.along(beam, stretch, exhaustive=False)
        if not hypotheses or min(h.agreements[-1].off for h in hypotheses) > ENOUGH:
            hypotheses = self.along(beam, stretch, exhaustive=True)
        norm = self.layers[stretch[-1]]
        if not hypotheses:
            raise DissectError(f"{norm.name} ({norm.kind}) cannot follow on what is before it.")
        nearest = min(max(h.agreements[-1].mean, h.agreements[-1].deviation) for h in hypotheses)
        if nearest > WORST:
            raise DissectError(
                f"no latents, strides and activations that are tried reproduce what {norm.name} remembers of the "
                f"training (nearest: off by {nearest:.2g} standard deviations)."
            )
        return hypotheses

    def along(self, beam: list[Hypothesis], stretch: range, *, exhaustive: bool) -> list[Hypothesis]:
        """Through the layers of a stretch, one after another; nothing if a layer before a norm cannot follow."""
        hypotheses = beam
        for index in stretch:
            layer = self.layers[index]
            longer = [way for hypothesis in hypotheses for way in self.extended(hypothesis, index, exhaustive)]
            if not longer:
                if self._compares(stretch):
                    return []
                shapes = sorted({"×".join(map(str, hypothesis.shape)) for hypothesis in hypotheses})
                raise DissectError(
                    f"{layer.name} ({layer.kind}) cannot follow on what is before it ({', '.join(shapes[:4])})."
                )
            if self.taken and layer.kind == "norm":
                hypotheses = self.judged(longer, layer)
            else:
                hypotheses = sorted(longer, key=lambda h: h.off + h.unusual / 100)[:OPEN]
        return hypotheses

    def _compares(self, stretch: range) -> bool:
        """Whether the stretch ends in a norm whose statistics were taken."""
        return self.taken and self.layers[stretch[-1]].kind == "norm"

    # the beginning

    def beginnings(self, embeddings: Sequence[Layer], first: Layer) -> Iterator[Hypothesis]:
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
        chosen = self.choices.latent
        if chosen is not None and chosen.shape[0] and not self._takes(chosen.shape[0], embeddings, sizes):
            raise UsageError(
                f"--latent {chosen}: {first.name}, the first layer, takes "
                f"{' or '.join(map(str, sorted(sizes)))} numbers{' with the class' if embeddings else ''}."
            )
        for size in sizes:
            for rank, (source, classes, label) in enumerate(self._inputs(embeddings, size)):
                beginning = Hypothesis(source=source, classes=classes, shape=(size,), unusual=rank / 2)
                yield beginning if label is None else beginning.then(label)

    def _takes(self, latent: int, embeddings: Sequence[Layer], sizes: set[int]) -> bool:
        """Whether a latent of this size, with a class or without, is what the first layer takes."""
        beside = {0, *CLASSES, *(int(embedding.weight.shape[1]) for embedding in embeddings)}
        return any(size - latent in beside for size in sizes)

    def _inputs(self, embeddings: Sequence[Layer], size: int) -> Iterator[tuple[DrawnLatents, int, Step | None]]:
        """Latents, the number of classes behind them, and the step that joins the two, that make `size` numbers."""
        for latent, classes, label in _input_sizes(embeddings, size):
            shape = (latent,)
            if self.choices.latent is not None:
                if self.choices.latent.shape[0] in (0, latent):
                    yield self.choices.latent.shaped(shape), classes, label
                continue
            yield NormalLatents(shape), classes, label
            yield UniformLatents(shape), classes, label
            yield UniformLatents(shape, low=0.0, high=1.0), classes, label
            yield SphereLatents(shape), classes, label

    # one more layer

    def extended(self, hypothesis: Hypothesis, index: int, exhaustive: bool) -> Iterator[Hypothesis]:
        """All ways through the next layer, with an activation before it or without; `exhaustive`: rare ones too."""
        layer = self.layers[index]
        for word, unusual in self.activations(hypothesis, index, exhaustive):
            steps = () if word is None else (_activation_step(word, hypothesis.shape),)
            activated = hypothesis.then(*steps, unusual=unusual)
            if layer.kind == "linear":
                yield from through_linear(activated, layer)
            elif layer.kind == "conv":
                yield from through_convolution(activated, layer, rare=exhaustive or word in (None, *RIVALS[:2]))
            elif layer.kind == "norm":
                for way in before_norm(activated, layer):
                    yield way if self.taken else way.then(_norm_step(layer, way.shape, EPSILONS[0]))
            elif layer.kind == "prelu" and layer.weight.numel() in (1, activated.shape[0]):
                units = layer.weight.numel()
                yield activated.then(step("prelu", layer.name, units=units, map=len(activated.shape) == 3))

    def activations(self, hypothesis: Hypothesis, index: int, exhaustive: bool) -> list[tuple[str | None, float]]:
        """Activations that may stand before a layer, None among them, and how unusual each is there."""
        layer = self.layers[index]
        previous = self.layers[index - 1] if index else None
        if previous is None or previous.kind in ("embedding", "prelu") or layer.kind == "prelu":
            return [(None, 0)]
        used = hypothesis.activation
        if self.choices.activation is not None:
            words: Sequence[str] = [self.choices.activation]
        elif used and (any(step.kind == "act" for step in hypothesis.pending) or not self._norm_from(index)):
            words = [used]  # nothing distinguishes two activations between two norms, or behind the last norm
        else:
            words = ACTIVATIONS if exhaustive else ACTIVATIONS[:COMMON]
        unusual = {word: rank / 10 + (2 if used not in (None, word) else 0) for rank, word in enumerate(words)}
        if layer.kind == "norm":
            return [(None, 0.0), *((word, 1 + value) for word, value in unusual.items() if exhaustive)]
        adjacent = gap(previous, layer) == 0  # in the file, no layer without parameters stands between the two
        return [
            (None, 0.0 if adjacent else 3.0),
            *((word, value + (2 if adjacent else 0)) for word, value in unusual.items()),
        ]

    def _norm_from(self, index: int) -> bool:
        return self.taken and any(layer.kind == "norm" for layer in self.layers[index:])

    # comparison with norms

    def judged(self, hypotheses: list[Hypothesis], norm: Layer) -> list[Hypothesis]:
        """Those that come nearest to what a norm remembers: sieved on few samples first, then compared on all."""
        outputs: Outputs = {}
        if len(hypotheses) > SIEVED:
            sieved = [(self.agreement(h, norm, SIEVE, outputs).off, h) for h in hypotheses]
            sieved.sort(key=lambda pair: pair[0] + pair[1].off + pair[1].unusual / 100)
            hypotheses, outputs = [h for _, h in sieved[:SIEVED]], {}
        compared = [replace(h, agreements=(*h.agreements, self.agreement(h, norm, 1, outputs))) for h in hypotheses]
        compared.sort(key=lambda h: h.off + h.unusual / 100)
        near = [h for h in compared if h.off <= 1.5 * compared[0].off + NEAR]
        # of those that differ in activations alone, few are kept: activations say less than geometry
        of_a_geometry = Counter[tuple[Step, ...]]()
        beam: list[Hypothesis] = []
        for hypothesis in near:
            geometry = without_activations(hypothesis.steps + hypothesis.pending)
            of_a_geometry[geometry] += 1
            if of_a_geometry[geometry] <= OF_A_GEOMETRY and len(beam) < BEAM * len(EPSILONS):
                beam += self._through_norm(hypothesis, norm, outputs)
        return beam

    def _through_norm(self, hypothesis: Hypothesis, norm: Layer, outputs: Outputs) -> Iterator[Hypothesis]:
        """Through a norm with each epsilon; the outputs are kept in `reached`."""
        x = self.output(hypothesis, 1, outputs)
        usual = next((step["eps"] for step in reversed(hypothesis.steps) if step.kind == "norm"), EPSILONS[0])
        for epsilon in EPSILONS:
            last = _norm_step(norm, hypothesis.shape, epsilon)
            steps = (*hypothesis.steps, *hypothesis.pending, last)
            self.reached[(hypothesis.source, hypothesis.classes, steps)] = with_weights(last, self.state)(x)
            unusual = hypothesis.unusual + (0.0 if epsilon == usual else 0.5)
            yield replace(hypothesis, steps=steps, pending=(), unusual=unusual)

    def agreement(self, hypothesis: Hypothesis, norm: Layer, fewer: int, outputs: Outputs) -> Agreement:
        """How well what reaches a norm agrees with what it remembers, on so many times fewer samples."""
        module = with_weights(_norm_step(norm, hypothesis.shape, EPSILONS[0]), self.state)
        return agreement(norm.name, *moments(self.output(hypothesis, fewer, outputs)), module)

    def output(self, hypothesis: Hypothesis, fewer: int, outputs: Outputs) -> Tensor:
        """What a hypothesis outputs on so many times fewer samples; `outputs` of what others have in common is used."""
        x = self._reached(hypothesis)
        x = x[: max(1, min(len(x), samples_for(hypothesis.shape)) // fewer)]
        for count, pending in enumerate(hypothesis.pending, 1):
            key = (hypothesis.source, hypothesis.classes, hypothesis.steps, hypothesis.pending[:count])
            if key in outputs and len(outputs[key]) >= len(x):
                x = outputs[key][: len(x)]
                continue
            x = with_weights(pending, self.state)(x)
            self.numbers_held += x.numel()
            if self.numbers_held > MOST_HELD:  # what is needed again is computed again
                outputs.clear()
                self.numbers_held = x.numel()
            outputs[key] = x
        return x

    def _reached(self, hypothesis: Hypothesis) -> Tensor:
        key = (hypothesis.source, hypothesis.classes, hypothesis.steps)
        if key not in self.reached:
            assert not hypothesis.steps
            self.reached[key] = with_classes(hypothesis.source(range(SAMPLES)), hypothesis.classes)
        return self.reached[key]

    # the end

    def best(self, beam: list[Hypothesis]) -> SearchResult:
        """The best of the hypotheses that end in images, and the alternatives that nothing contradicts."""
        ends = [end for hypothesis in beam if (end := self.ended(hypothesis)) is not None]
        if not ends:
            shapes = sorted({"×".join(map(str, hypothesis.shape)) for hypothesis in beam})
            side = f" of side {self.choices.side}" if self.choices.side else ""
            raise DissectError(f"it ends in {', '.join(shapes[:4])}, no images{side} of 1 or 3 channels.")
        ends.sort(key=lambda h: (h.off, h.unusual))
        equal = [h for h in ends if not is_nearer(ends[0], h)]
        equal.sort(key=lambda h: h.unusual)
        outputs: Outputs = {}  # of steps that the hypotheses have in common
        best = equal[0]
        plan = self.plan(best, outputs)
        alternatives: dict[str, Plan] = {}
        likely = [h for h in equal[1:OPEN] if h.unusual < best.unusual + RARE]
        for hypothesis in likely:
            alternative = self.plan(hypothesis, outputs)
            if side_of(alternative) in (side_of(plan), *SIDES):
                alternatives.setdefault(reading(alternative), alternative)
        alternatives.pop(reading(plan), None)
        return SearchResult(
            plan=plan,
            agreements=best.agreements,
            norms=len(self.norms),
            alternatives=tuple(alternatives.values())[:MOST_ALTERNATIVES],
            settled=all(hypothesis.geometry == best.geometry for hypothesis in likely),
        )

    def ended(self, hypothesis: Hypothesis) -> Hypothesis | None:
        """With a view where images come as numbers, and with how unusual their size is; None if they are no images."""
        if len(hypothesis.shape) == 1:
            numbers = hypothesis.shape[0]
            sizes = [(channels, isqrt(numbers // channels)) for channels in (1, 3)]
            sizes = [(channels, side) for channels, side in sizes if channels * side * side == numbers]
            if not sizes:
                return None
            channels, side = min(sizes, key=lambda size: _oddness(size[1]))
            hypothesis = hypothesis.then(step("view", shape=[channels, side, side]), shape=(channels, side, side))
        channels, side = hypothesis.shape[0], hypothesis.shape[1]
        if channels not in (1, 3) or side < 8 or (self.choices.side or side) != side:
            return None
        return replace(hypothesis, unusual=hypothesis.unusual + _oddness(side))

    def plan(self, hypothesis: Hypothesis, outputs: Outputs) -> Plan:
        """The network of a hypothesis, with the output activation that its values suggest."""
        word = self.choices.output or output_of(self.output(hypothesis, 1, outputs))
        steps = hypothesis.steps + hypothesis.pending
        if word != "linear":
            steps = (*steps, step("act", which=word, map=True))
        return Plan(latent=str(hypothesis.source), classes=hypothesis.classes, steps=steps)


def refined(result: SearchResult, state: Mapping[str, Tensor], choices: Choices) -> SearchResult:
    """The network with the hidden activation that fits best where it is the same everywhere, all its norms measured.

    The search takes layer by layer what comes nearest, on as few samples as that needs. Here the whole network runs,
    and of activations that cannot be distinguished the most usual one is taken.
    """
    if not result.agreements:
        return result
    used = result.plan.activations()
    rivals = [result.plan]
    if choices.activation is None and used:
        rivals += [_with_activation(result.plan, word) for word in dict.fromkeys((*RIVALS, *used))]
        rivals += [_with_usual_epsilon(plan) for plan in rivals]
    measured = []
    for plan in dict.fromkeys(rivals):
        module, source = build(plan, state), parse_latents(plan.latent)
        batches = (with_classes(source(range(start, start + BATCH)), plan.classes) for start in range(0, FINAL, BATCH))
        measured.append(replace(result, plan=plan, agreements=tuple(measure(module, module, batches))))
    nearest = min(measured, key=lambda rival: sum(agreement.off for agreement in rival.agreements))
    equal = [rival for rival in measured if not is_nearer(nearest, rival)]
    equal.sort(key=lambda rival: min((ACTIVATIONS.index(word) for word in rival.plan.activations()), default=0))
    equal.sort(key=lambda rival: (len(rival.plan.activations()), rival.plan != _with_usual_epsilon(rival.plan)))
    best = equal[0]
    readings = {reading(rival.plan) for rival in equal}
    alternatives = tuple(
        plan
        for plan in result.alternatives
        if plan.activations() == best.plan.activations() or reading(plan) in readings
    )
    return replace(best, alternatives=alternatives)


def with_classes(latents: Tensor, classes: int) -> Tensor:
    """latents (N, z) with each class in turn as one-hot behind them, (N, z + classes).

    >>> with_classes(torch.zeros(3, 1), 2)
    tensor([[0., 1., 0.],
            [0., 0., 1.],
            [0., 1., 0.]])
    """
    if not classes:
        return latents
    return torch.cat([latents, torch.eye(classes)[torch.arange(len(latents)) % classes]], 1)


def samples_for(shape: tuple[int, ...]) -> int:
    """How many samples are enough for the statistics of maps of this shape, and not too many for memory.

    >>> [samples_for((16, side, side)) for side in (4, 16, 32, 64, 128)]
    [1024, 512, 256, 128, 48]
    """
    if len(shape) == 1:
        return SAMPLES
    side = shape[1]
    return max(next(least for most, least in LEAST.items() if side <= most), min(SAMPLES, POSITIONS // side**2))


def output_of(x: Tensor) -> str:
    """What most likely follows on the last layer's values (N, C, H, W): `linear`, `sigmoid` or `tanh`.

    Values that fill [-1, 1] and stay inside need no activation. Sigmoid and tanh draw the same but for the contrast. If
    colour images are not saturated, the one is taken with which pixels vary as in photographs; otherwise tanh.
    """
    sizes = x.abs()
    if float((sizes > 1.1).double().mean()) < LINEAR < float((sizes > 0.9).double().mean()):
        return "linear"
    if x.shape[1] == 3 and float((sizes > SATURATED).double().mean()) < FEW_SATURATED:
        by_tanh, by_sigmoid = float(torch.sigmoid(2 * x).std()), float(torch.sigmoid(x).std())
        return "sigmoid" if abs(by_sigmoid - CONTRAST) < abs(by_tanh - CONTRAST) else "tanh"
    return "tanh"


def _input_sizes(embeddings: Sequence[Layer], size: int) -> list[tuple[int, int, Step | None]]:
    """Sizes of the latent, numbers of classes, and steps that join the two, which make `size` numbers together."""
    if embeddings:
        classes, embedded = embeddings[0].weight.shape
        joins = ("times",) if embedded == size else ("before", "after") if embedded < size else ()
        return [
            (
                size if how == "times" else size - embedded,
                classes,
                step("label", embeddings[0].name, classes=classes, how=how, embedded=embedded),
            )
            for how in joins
        ]
    one_hots = [classes for classes in CLASSES if size - classes in (*LATENTS, *SHORT) and size not in LATENTS]
    return [
        (size, 0, None),
        *(
            (size - classes, classes, step("label", "", classes=classes, how=how, embedded=0))
            for classes in one_hots
            for how in ("after", "before")
        ),
    ]


def _with_activation(plan: Plan, word: str) -> Plan:
    """The same plan with one hidden activation everywhere."""
    *hidden, last = plan.steps
    steps = [_activation_step(word, (0,) * (3 if old["map"] else 1)) if old.kind == "act" else old for old in hidden]
    return replace(plan, steps=(*steps, last))


def _with_usual_epsilon(plan: Plan) -> Plan:
    """The same plan with PyTorch's epsilon in all norms."""
    steps = [
        step("norm", old.name, **(dict(old.settings) | {"eps": EPSILONS[0]})) if old.kind == "norm" else old
        for old in plan.steps
    ]
    return replace(plan, steps=tuple(steps))


def _norm_step(norm: Layer, shape: tuple[int, ...], epsilon: float) -> Step:
    affine = "weight" in norm.tensors
    return step("norm", norm.name, units=norm.units, eps=epsilon, affine=affine, map=len(shape) == 3)


def _activation_step(word: str, shape: tuple[int, ...]) -> Step:
    return step("act", which=word, map=len(shape) == 3)


def _stretches(first: int, layers: Sequence[Layer]) -> Iterator[range]:
    """Ranges of layers from the first on: each ends with a norm, and the last one with the last layer."""
    start = first
    for index in range(first, len(layers)):
        if layers[index].kind == "norm" or index == len(layers) - 1:
            yield range(start, index + 1)
            start = index + 1


def _oddness(side: int) -> float:
    """How unusual images of this side are."""
    return SIDES.index(side) / 10 if side in SIDES else 6.0
