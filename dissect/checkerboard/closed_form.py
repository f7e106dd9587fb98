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
    module = module_of(generator, site)
    if "weight" not in module._parameters or site.groups > 1:  # weights computed anew in every pass, or in groups
        return False
    if method == "equalise":
        reached = bool(overlap((site.weight.shape[2], site.weight.shape[3]), site.geometry).all())
        return reached and isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    if not isinstance(module, nn.ConvTranspose2d) or site.geometry.dilation != (1, 1):
        return False
    if set(module.state_dict()) - {"weight", "bias"} or module._forward_hooks or module._forward_pre_hooks:
        return False  # the module is replaced, and its hooks and other tensors would be lost
    return method == "box" or can_resize(module)


@torch.inference_mode()
def input_moments(generator: Generator, sites: Sequence[Upsampling], samples: range, batch: int) -> dict[str, Moments]:
    """The moments of each site's input on these samples, or the first of them that give enough positions, by name.

    Raises:
        DissectError: the network failed.
    """
    sums: dict[tuple[str, str, int], InputMoments] = {}
    needed: dict[tuple[str, str, int], int] = {}  # samples, so that the moments do not depend on the batch
    for site in sites:
        if site.kernel is not None and site.geometry is not None:
            place = site.source or site.place
            sums[place] = InputMoments(site.kernel, site.geometry)
            area = site.maps[1] // site.factor[0] * (site.maps[2] // site.factor[1])
            needed[place] = min(len(samples), -(-ENOUGH // max(1, area)))

    def see(call: Call, _output: Tensor) -> None:
        if call.place in sums and (inputs := call.input[: max(0, needed[call.place] - done)]).shape[0]:
            sums[call.place].add(inputs)

    for batch_samples in batches(samples[: max(needed.values(), default=0)], batch):
        with failing(f"samples {batch_samples[0]} to {batch_samples[-1]}"), watched(generator.module, see):
            done = batch_samples.start - samples.start
            generator(generator.latents(batch_samples))
    for moments in sums.values():
        moments.together()
    names = {(site.source or site.place): site.name for site in sites}
    return {names[place]: moments.means for place, moments in sums.items()}


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
    """A copy of the generator, repaired at these sites; the original stays as it is.

    equalise: the least change that gives all phases of a kernel the same sum, see `kernels.equalise`; the filters
        before a pixel shuffle, and their biases, likewise.
    resize: the nearest resize-convolution, see `kernels.project`; at strength 1 the module is one.
    box: a zero-order hold after the layer, folded into its kernel, see `kernels.box`.
    notch: a filter on the finished image, see `notch`, for the coarsest grid of the sites.

    Args:
        strength: 0 to 1; 0 changes nothing.
        moments: of the sites' inputs by name, see `input_moments`: the output is to change least. None: the taps are.
        image: height and width of the images, for the notch.

    Raises:
        UsageError: a site that the method cannot change.
    """
    repaired = replace(generator, module=copy.deepcopy(generator.module))
    if method == "notch":
        periods = set() if image is None else periods_of(sites, image)
        if not periods:
            raise UsageError("The notch needs a layer whose grid has a whole number of pixels; take another repair.")
        attach_notch(repaired.module, notch(max(periods), strength))
        return repaired
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
        _repair(repaired, site, method, strength, None if moments is None else moments[site.name])
    return repaired


@torch.no_grad()
def equalise_module(module: nn.Module, site: Upsampling, strength: float = 1.0, moments: Moments | None = None) -> None:
    """Equalise the phases of the site's weights in place."""
    assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    assert site.geometry is not None
    if isinstance(module, nn.ConvTranspose2d):
        module.weight.copy_(equalise(module.weight, site.geometry, strength, moments))
        return
    factor = site.factor[0]
    kernel = equalise(shuffle_kernel(module.weight, factor), site.geometry, strength, moments)
    module.weight.copy_(shuffle_filters(kernel, factor))
    if module.bias is not None:
        module.bias.sub_(strength * ripple(module.bias.unflatten(0, (-1, *site.factor))).flatten())


def _repair(repaired: Generator, site: Upsampling, method: str, strength: float, moments: Moments | None) -> None:
    module = module_of(repaired, site)
    if method == "equalise":
        equalise_module(module, site, strength, moments)
        return
    assert isinstance(module, nn.ConvTranspose2d)
    assert site.geometry is not None
    geometry = site.geometry
    if method == "box":
        new = boxed_like(module)
        kernel, wider = box(module.weight, geometry, strength)
        assert (new.padding, new.output_padding) == (wider.padding, wider.output_padding)
        new.load_state_dict(module.state_dict() | {"weight": kernel})
        put(repaired.module, site.name, new)
    elif strength < 1:
        module.weight.lerp_(spread(project(module.weight, geometry, moments=moments), geometry), strength)
    else:
        resized = resize_like(module)
        small = project(module.weight, geometry, moments=moments)
        resized.conv.load_state_dict(module.state_dict() | {"weight": small})
        put(repaired.module, site.name, resized)


def notch(period: tuple[int, int], strength: float = 1.0) -> Tensor:
    """(k, l) float32: a filter that takes the frequencies of a grid out of an image, and little else.

    The image less the mean of its own phase, plus the mean of all phases, both under a Gaussian window with a standard
    deviation of two periods.

    >>> pattern = notch((2, 2))
    >>> pattern.shape, round(float(pattern.sum()), 4)  # a flat image stays as it is
    (torch.Size([25, 25]), 1.0)
    """
    sides = []
    for step in period:
        offset = torch.arange(-3 * WINDOW * step, 3 * WINDOW * step + 1)
        all_phases = torch.exp(-((offset / (WINDOW * step)) ** 2) / 2)
        own_phase = torch.where(offset % step == 0, all_phases, 0.0)
        sides.append((own_phase / own_phase.sum(), all_phases / all_phases.sum()))
    (own_down, all_down), (own_across, all_across) = sides
    pattern = strength * (all_down[:, None] * all_across - own_down[:, None] * own_across)
    pattern[pattern.shape[0] // 2, pattern.shape[1] // 2] += 1
    return pattern
