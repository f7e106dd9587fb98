"""Repairs in closed form: a copy of a generator whose upsampling layers draw less of a grid."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...hooks.errors import UsageError
from ...hooks.functional_calls import Call, watched
from ..generators.base import Generator
from ..generators.kept_edits import attach_notch
from ..generators.replaced_layers import boxed_like, can_resize, put, resize_like
from ..subjects.subject import failing
from .kernels import (
    InputMoments,
    Moments,
    box,
    equalise,
    overlap,
    project,
    ripple,
    shuffle_filters,
    shuffle_kernel,
    spread,
)
from .ripple import batches
from .upsampling import SHUFFLE, TRANSPOSED, Upsampling, periods_of

METHODS = ("equalise", "resize", "box", "notch")
WORKS_ON = {"equalise": (TRANSPOSED, SHUFFLE), "resize": (TRANSPOSED,), "box": (TRANSPOSED,)}
ENOUGH = 1 << 17  # positions, from which the moments of a layer's input are taken
WINDOW = 2  # standard deviation of the notch's window, in periods


def module_of(generator: Generator, site: Upsampling) -> nn.Module:
    """The module that holds the weights of the site."""
    return generator.module.get_submodule(site.name if site.source is None else site.source[0])


def mendable(generator: Generator, site: Upsampling, method: str) -> bool:
    """Whether the method can change this site: of a kind that it works on, with weights of a module of its own."""
    if method not in WORKS_ON or site.kind not in WORKS_ON[method] or site.weight is None or site.geometry is None:
        return False
    part = module_of(generator, site)
    if "weight" not in part._parameters or site.groups > 1:  # computed anew in every pass, or shared out
        return False
    if method == "equalise":
        reached = bool(overlap((site.weight.shape[2], site.weight.shape[3]), site.geometry).all())
        return reached and isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))
    if not isinstance(part, nn.ConvTranspose2d) or site.geometry.dilation != (1, 1):
        return False
    if set(part.state_dict()) - {"weight", "bias"} or part._forward_hooks or part._forward_pre_hooks:
        return False  # what a module carries beside its weights would be lost with it
    return method == "box" or can_resize(part)


@torch.inference_mode()
def input_moments(generator: Generator, sites: Sequence[Upsampling], samples: range, batch: int) -> dict[str, Moments]:
    """The moments of each site's input on these samples, or the first of them that give enough positions, by name.

    Raises:
        DissectError: the network failed.
    """
    found: dict[tuple[str, str, int], InputMoments] = {}
    wanted: dict[tuple[str, str, int], int] = {}  # samples, whatever the batch
    for site in sites:
        if site.kernel is not None and site.geometry is not None:
            place = site.source or site.place
            found[place] = InputMoments(site.kernel, site.geometry)
            area = site.maps[1] // site.factor[0] * (site.maps[2] // site.factor[1])
            wanted[place] = min(len(samples), -(-ENOUGH // max(1, area)))

    def see(call: Call, _output: Tensor) -> None:
        if call.place in found and (inputs := call.input[: max(0, wanted[call.place] - done)]).shape[0]:
            found[call.place].add(inputs)

    for numbers in batches(samples[: max(wanted.values(), default=0)], batch):
        with failing(f"samples {numbers[0]} to {numbers[-1]}"), watched(generator.module, see):
            done = numbers.start - samples.start
            generator(generator.latents(numbers))
    for moments in found.values():
        moments.together()
    names = {(site.source or site.place): site.name for site in sites}
    return {names[place]: moments.means for place, moments in found.items()}


@torch.no_grad()
def mended(
    generator: Generator,
    sites: Sequence[Upsampling],
    method: str,
    strength: float = 1.0,
    *,
    moments: Mapping[str, Moments] | None = None,
    image: tuple[int, int] | None = None,
) -> Generator:
    """A copy of the generator, mended at these sites; the given one is left as it is.

    equalise: the least change that gives all phases of a kernel the same sum, see `kernels.equalise`; the filters
        before a pixel shuffle, and their biases, likewise.
    resize: the nearest resize-convolution, see `kernels.project`; at strength 1 the module is one.
    box: a zero-order hold after the layer, folded into its kernel, see `kernels.box`.
    notch: a filter on the finished image, see `notch`, for the coarsest grid of the sites.

    Args:
        strength: 0 to 1, how much of it.
        moments: of the sites' inputs by name, see `input_moments`; without them taps count, not what they output.
        image: height and width of the images, for the notch.

    Raises:
        UsageError: a site that the method cannot change.
    """
    whole = replace(generator, module=copy.deepcopy(generator.module))
    if method == "notch":
        periods = set() if image is None else periods_of(sites, image)
        if not periods:
            raise UsageError("The notch needs a layer whose grid has a whole number of pixels; take another repair.")
        attach_notch(whole.module, notch(max(periods), strength))
        return whole
    for site in {site.name: site for site in sites}.values():  # a module may run more than once
        if not mendable(generator, site, method):
            raise UsageError(
                f"{method} cannot change {site.name} ({site.kind}): it works on {' and '.join(WORKS_ON[method])} whose "
                "weights are a torch.nn module's own, without groups"
                + (
                    ", where every output is reached by a tap"
                    if method == "equalise"
                    else ", dilation, hooks and tensors beside the weights"
                    + (", with a square kernel no smaller than its stride" if method == "resize" else "")
                )
                + ". Name other layers, or take notch."
            )
        _mend(whole, site, method, strength, None if moments is None else moments[site.name])
    return whole


@torch.no_grad()
def equalise_part(part: nn.Module, site: Upsampling, strength: float = 1.0, moments: Moments | None = None) -> None:
    """Equalise the phases of the site's weights in place."""
    assert isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))
    assert site.geometry is not None
    if isinstance(part, nn.ConvTranspose2d):
        part.weight.copy_(equalise(part.weight, site.geometry, strength, moments))
        return
    factor = site.factor[0]
    kernel = equalise(shuffle_kernel(part.weight, factor), site.geometry, strength, moments)
    part.weight.copy_(shuffle_filters(kernel, factor))
    if part.bias is not None:
        part.bias.sub_(strength * ripple(part.bias.unflatten(0, (-1, *site.factor))).flatten())


def _mend(whole: Generator, site: Upsampling, method: str, strength: float, moments: Moments | None) -> None:
    part = module_of(whole, site)
    if method == "equalise":
        equalise_part(part, site, strength, moments)
        return
    assert isinstance(part, nn.ConvTranspose2d)
    assert site.geometry is not None
    geometry = site.geometry
    if method == "box":
        new = boxed_like(part)
        kernel, wider = box(part.weight, geometry, strength)
        assert (new.padding, new.output_padding) == (wider.padding, wider.output_padding)
        new.load_state_dict(part.state_dict() | {"weight": kernel})
        put(whole.module, site.name, new)
    elif strength < 1:
        part.weight.lerp_(spread(project(part.weight, geometry, moments=moments), geometry), strength)
    else:
        resized = resize_like(part)
        small = project(part.weight, geometry, moments=moments)
        resized.conv.load_state_dict(part.state_dict() | {"weight": small})
        put(whole.module, site.name, resized)


def notch(period: tuple[int, int], strength: float = 1.0) -> Tensor:
    """(k, l) float32: a filter that takes the frequencies of a grid out of an image, and little else.

    The image less the mean of its own phase, plus the mean of all phases, both under a Gaussian window with a standard
    deviation of two periods.
    """
    sides = []
    for step in period:
        place = torch.arange(-3 * WINDOW * step, 3 * WINDOW * step + 1)
        every = torch.exp(-((place / (WINDOW * step)) ** 2) / 2)
        same = torch.where(place % step == 0, every, 0.0)
        sides.append((same / same.sum(), every / every.sum()))
    (same_down, every_down), (same_across, every_across) = sides
    pattern = strength * (every_down[:, None] * every_across - same_down[:, None] * same_across)
    pattern[pattern.shape[0] // 2, pattern.shape[1] // 2] += 1
    return pattern
