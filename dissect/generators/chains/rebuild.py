"""From the weights of a plain chain to a network, or to the one line that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ....hooks.errors import DissectError, UsageError
from ..entries import folded
from ..latents import DrawnLatents, NormalLatents, SphereLatents, UniformLatents, parse_latents
from .hypotheses import Choices, SearchResult
from .layers import layers_in
from .network import Chain, build, pop_plan
from .plan import ACTIVATIONS, OUTPUTS, Plan
from .search import search

KINDS: dict[str, DrawnLatents] = {  # by the word of --as; of any size
    "normal": NormalLatents((0,)),
    "uniform": UniformLatents((0,)),
    "uniform01": UniformLatents((0,), low=0.0, high=1.0),
    "sphere": SphereLatents((0,)),
}
WORDS = (
    f"act= (one of {', '.join(ACTIVATIONS)}), latent= ({', '.join(KINDS)}), side= (pixels) and output= "
    f"({', '.join(OUTPUTS)}), with commas between, e.g. act=relu,side=64"
)


def rebuild(state: Mapping[str, Tensor], chosen: str | None = None, latent: str | None = None) -> Chain:
    """The plain network of these weights, in eval mode, with its own float32 copy of them.

    A network that was saved by ganatomy brings its plan along. Otherwise what the weights do not tell is searched, see
    `search`; the network's `search_result` says how well that is supported.

    Args:
        state: the weights by their names, in the order of the file.
        chosen: the value of --as: `act=relu,side=64`, or a plan.
        latent: the value of --latent.

    Raises:
        UsageError: `chosen` or `latent` cannot be read.
        DissectError: the weights make no plain chain from latents to images, or what their norms remember of the
            training contradicts all that is tried.
    """
    state = dict(state)
    plan = pop_plan(state)
    chosen_plan = chosen is not None and chosen.startswith("{")
    if plan is not None and (latent is not None or (chosen is not None and not chosen_plan)):
        raise UsageError("--as and --latent do not go with a network that was saved with its plan; leave them out.")
    if plan is None and chosen is not None and chosen_plan:
        if latent is not None:
            raise UsageError("--latent does not go with a whole plan as --as, which says it; leave one out.")
        try:
            plan = Plan.read(chosen)
        except DissectError as error:
            raise UsageError(f"--as {chosen[:40]}… is no plan; there are {WORDS}.") from error
    state = folded(state)
    if plan is not None:
        return build(plan, state)
    result = search(state, layers_in(state), parse_choices(chosen, latent))
    module = build(replace(result.plan, assumed=assumed(result)), state)
    module.search_result = result
    return module


def parse_choices(chosen: str | None, latent: str | None = None) -> Choices:
    """The choices in the values of --as and --latent.

    >>> choices = parse_choices("act=relu,side=64", "uniform:100")
    >>> choices.activation, choices.side, choices.output, str(choices.latent)
    ('relu', 64, None, 'uniform:100')

    Raises:
        UsageError: it cannot be read.
    """
    choices = Choices(latent=None if latent is None else parse_latents(latent))
    for word in (chosen or "").split(","):
        key, _, value = word.strip().partition("=")
        match key:
            case "":
                continue
            case "act" if value in ACTIVATIONS:
                choices = replace(choices, activation=value)
            case "latent" if latent is not None:
                raise UsageError(f"--as {word} and --latent {latent} say the same; leave one out.")
            case "latent" if value in KINDS:
                choices = replace(choices, latent=KINDS[value])
            case "side" if value.isdecimal() and int(value) > 0:
                choices = replace(choices, side=int(value))
            case "output" if value in OUTPUTS:
                choices = replace(choices, output=value)
            case _:
                raise UsageError(f"--as {chosen}: {word!r} is not understood; there are {WORDS}.")
    return choices


def assumed(result: SearchResult) -> tuple[str, ...]:
    """What nothing in the file tells and the search took as usual, in words."""
    steps = result.plan.steps
    last_norm = max((index for index, step in enumerate(steps) if step.kind == "norm"), default=-1)
    untold = steps[last_norm + 1 :] if result.agreements else steps  # no norm speaks for what follows the last one
    output = steps[-1]["which"] if steps[-1].kind == "act" else "none"
    activations = list(dict.fromkeys(step["which"] for step in untold[:-1] if step.kind == "act"))
    phrases = []
    if not result.agreements:
        phrases += [f"latents {result.plan.latent}", "that every layer does what is usual before the next"]
    if activations:
        where = f"behind {steps[last_norm].name}" if result.agreements else "in all layers"
        phrases.append(f"{where}, the activation {' and '.join(activations)}")
    for step in untold:
        if step.kind in ("conv", "transposed"):
            stride = f"stride {step['stride']}, " if step.kind == "transposed" else ""
            phrases.append(f"{step.name}: {stride}padding {step['padding']}")
    return (*phrases, f"output activation: {output}")
