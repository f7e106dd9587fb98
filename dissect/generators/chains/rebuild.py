"""From the weights of a plain chain to a network, or to the one line that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ....hooks.errors import DissectError, UsageError
from ..entries import folded
from ..latents import DrawnLatents, NormalLatents, SphereLatents, UniformLatents, parse_latents
from .network import Chain, build, kept_plan
from .parts import parts_of
from .plan import ACTIVATIONS, OUTPUTS, Plan
from .search import Found, Wanted, search

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

    A network that was saved here brings its plan along. Else what the weights do not tell is searched, see `search`;
    the network's `found` says how well that is supported.

    Args:
        state: the weights by their names, in the order of the file.
        chosen: what is asked for, as --as says it: `act=relu,side=64`, or a plan.
        latent: and as --latent says it.

    Raises:
        UsageError: `chosen` or `latent` cannot be read.
        DissectError: the weights make no plain chain from latents to images, or what their norms remember of the
            training contradicts all that is tried.
    """
    state = dict(state)
    plan = kept_plan(state)
    whole = chosen is not None and chosen.startswith("{")
    if plan is not None and (latent is not None or (chosen is not None and not whole)):
        raise UsageError("--as and --latent do not go with a network that was saved with its plan; leave them out.")
    if plan is None and chosen is not None and whole:
        if latent is not None:
            raise UsageError("--latent does not go with a whole plan as --as, which says it; leave one out.")
        try:
            plan = Plan.read(chosen)
        except DissectError as error:
            raise UsageError(f"--as {chosen[:40]}… is no plan; there are {WORDS}.") from error
    state = folded(state)
    if plan is not None:
        return build(plan, state)
    found = search(state, parts_of(state), wanted(chosen, latent))
    module = build(replace(found.plan, assumed=assumed(found)), state)
    module.found = found
    return module


def wanted(chosen: str | None, latent: str | None = None) -> Wanted:
    """`act=relu,latent=uniform,side=64,output=tanh`, each of them optional, and `uniform:100`.

    Raises:
        UsageError: it cannot be read.
    """
    choice = Wanted(latent=None if latent is None else parse_latents(latent))
    for word in (chosen or "").split(","):
        key, _, value = word.strip().partition("=")
        match key:
            case "":
                continue
            case "act" if value in ACTIVATIONS:
                choice = replace(choice, activation=value)
            case "latent" if latent is not None:
                raise UsageError(f"--as {word} and --latent {latent} say the same; leave one out.")
            case "latent" if value in KINDS:
                choice = replace(choice, latent=KINDS[value])
            case "side" if value.isdecimal() and int(value) > 0:
                choice = replace(choice, side=int(value))
            case "output" if value in OUTPUTS:
                choice = replace(choice, output=value)
            case _:
                raise UsageError(f"--as {chosen}: {word!r} is not understood; there are {WORDS}.")
    return choice


def assumed(found: Found) -> tuple[str, ...]:
    """What nothing in the file tells, in words."""
    plan = found.plan
    last = max((place for place, one in enumerate(plan.steps) if one.kind == "norm"), default=-1)
    behind = plan.steps[last + 1 :] if found.agreements else plan.steps
    output = plan.steps[-1]["which"] if plan.steps[-1].kind == "act" else "none"
    said = [] if found.agreements else [f"latents {plan.latent}", "that every layer does what is usual before the next"]
    where = f"behind {plan.steps[last].name}" if found.agreements else "in all layers"
    activations = list(dict.fromkeys(one["which"] for one in behind[:-1] if one.kind == "act"))
    layers = [one for one in behind if one.kind in ("conv", "transposed")]
    if activations:
        said.append(f"{where}, the activation {' and '.join(activations)}")
    for one in layers:
        stride = f"stride {one['stride']}, " if one.kind == "transposed" else ""
        said.append(f"{one.name}: {stride}padding {one['padding']}")
    return (*said, f"output activation: {output}")
