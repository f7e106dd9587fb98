"""Phases of upsampling kernels, against convolutions that are run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ganatomy.dissect.checkerboard import Geometry, InputMoments
from ganatomy.dissect.checkerboard.kernels import (
    amplitude,
    box,
    equalise,
    flat_response,
    overlap,
    overlap_line,
    phase_sums,
    project,
    shuffle_filters,
    shuffle_kernel,
    spread,
)
from ganatomy.dissect.generators.families.dcgan import ResizeConv
from ganatomy.hooks.errors import UsageError

SIDE = 30


def geometries(dilations: tuple[int, ...] = (1,)) -> Iterator[tuple[int, Geometry]]:
    """Every kernel up to 7, stride up to 4 and padding up to 3, with every output padding that PyTorch allows."""
    for kernel, stride, padding, dilation in itertools.product(range(1, 8), range(1, 5), range(4), dilations):
        for rest in range(max(stride, dilation)):
            yield kernel, Geometry(*((n, n) for n in (stride, padding, rest, dilation)))


def run(x: Tensor, weight: Tensor, geometry: Geometry, groups: int = 1) -> Tensor:
    return F.conv_transpose2d(
        x, weight, None, geometry.stride, geometry.padding, geometry.output_padding, groups, geometry.dilation
    )


def inside(maps: Tensor, stride: int) -> Tensor:
    """One period from the middle of maps (…, H, W), whose first row and column are of phase 0."""
    start = maps.shape[-1] // 2 // stride * stride
    return maps[..., start : start + stride, start : start + stride]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def layers(draws: st.DrawFn) -> tuple[Tensor, Geometry]:
    """A weight (in, out, kh, kw) of a transposed convolution without dilation, no kernel side below its stride's."""
    kernel, stride, padding, rest = [], [], [], []
    for _ in range(2):
        stride.append(draws(st.integers(1, 4)))
        kernel.append(draws(st.integers(stride[-1], 7)))
        padding.append(draws(st.integers(0, 3)))
        rest.append(draws(st.integers(0, stride[-1] - 1)))
    weight = draw(draws(st.integers(1, 3)), draws(st.integers(1, 3)), *kernel, seed=draws(st.integers(0, 1000)))
    pairs = [(down, across) for down, across in (stride, padding, rest)]
    return weight, Geometry(*pairs)


@settings(max_examples=40, deadline=None)
@given(layer=layers(), strength=st.floats(0, 1))
def test_equalised_sums_are_equal_and_strength_is_linear(layer: tuple[Tensor, Geometry], strength: float) -> None:
    weight, geometry = layer
    equal = equalise(weight, geometry)
    assert float(amplitude(phase_sums(equal, geometry)).max()) < 1e-12
    assert torch.allclose(equalise(equal, geometry), equal)
    assert torch.allclose(equalise(weight, geometry, strength), torch.lerp(weight, equal, strength))
    left = amplitude(phase_sums(equalise(weight, geometry, strength), geometry))
    assert torch.allclose(left, (1 - strength) * amplitude(phase_sums(weight, geometry)), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(layer=layers(), seed=st.integers(0, 1000))
def test_moments_of_white_inputs_change_nothing(layer: tuple[Tensor, Geometry], seed: int) -> None:
    """Inputs without correlation weigh all taps alike: the least change of the output is that of the taps."""
    weight, geometry = layer
    counts = overlap((weight.shape[2], weight.shape[3]), geometry)
    moments = {
        (a, b): (1 + seed) * torch.eye(len(weight) * int(counts[a, b]), dtype=torch.float64)
        for a, b in itertools.product(range(geometry.stride[0]), range(geometry.stride[1]))
    }
    assert torch.allclose(equalise(weight, geometry, moments=moments), equalise(weight, geometry))
    assert torch.allclose(project(weight, geometry, moments=moments), project(weight, geometry))


@settings(max_examples=40, deadline=None)
@given(layer=layers())
def test_projection_is_idempotent_and_its_phases_are_equal(layer: tuple[Tensor, Geometry]) -> None:
    weight, geometry = layer
    small = project(weight, geometry)
    resized = spread(small, geometry)
    assert resized.shape == weight.shape
    assert torch.allclose(project(resized, geometry), small)
    assert float(amplitude(phase_sums(resized, geometry)).max()) < 1e-12
    assert float((resized - weight).norm()) <= float(weight.norm()) + 1e-12  # an orthogonal projection: zero is one


@settings(max_examples=40, deadline=None)
@given(layer=layers())
def test_overlap_and_phase_sums_count_every_tap_once(layer: tuple[Tensor, Geometry]) -> None:
    weight, geometry = layer
    assert int(overlap((weight.shape[2], weight.shape[3]), geometry).sum()) == weight[0, 0].numel()
    assert torch.allclose(phase_sums(weight, geometry).sum((2, 3)), weight.sum((2, 3)))
    assert float(amplitude(phase_sums(box(weight, geometry)[0], geometry)).max()) < 1e-12


def test_overlap_is_what_a_convolution_of_ones_counts() -> None:
    ones = torch.ones(1, 1, SIDE, SIDE)
    for kernel, geometry in geometries((1, 2, 3)):
        counted = run(ones, torch.ones(1, 1, kernel, kernel), geometry)[0, 0].long()
        line = overlap_line(kernel, geometry, SIDE)
        assert torch.equal(line[:, None] * line, counted), (kernel, geometry)
        assert torch.equal(overlap((kernel, kernel), geometry), inside(counted, geometry.stride[0])), (kernel, geometry)


def test_overlap_is_even_exactly_where_the_stride_divides_the_kernel() -> None:
    for kernel, geometry in geometries():
        pattern = overlap((kernel, kernel), geometry)
        assert (int(pattern.min()) == int(pattern.max())) == (kernel % geometry.stride[0] == 0)


def test_axes_may_differ() -> None:
    geometry = Geometry((2, 3), (1, 2), (1, 0))
    weight, level = draw(4, 5, 3, 4), draw(4, seed=1)
    out = run(level.view(1, 4, 1, 1).expand(1, 4, SIDE, SIDE), weight, geometry)[0]
    assert torch.allclose(flat_response(weight, geometry, level), out[:, 20:22, 30:33])
    counted = run(torch.ones(1, 1, SIDE, SIDE), torch.ones(1, 1, 3, 4), geometry)[0, 0]
    assert torch.equal(overlap((3, 4), geometry), counted[20:22, 30:33].long())


def test_phase_sums_are_the_answers_to_a_step() -> None:
    """One input channel at a time is one everywhere, the others zero."""
    for kernel, geometry in geometries((1, 2)):
        weight = draw(3, 2, kernel, kernel)
        steps = torch.eye(3, dtype=torch.float64)[:, :, None, None].expand(3, 3, SIDE, SIDE)
        assert torch.allclose(phase_sums(weight, geometry), inside(run(steps, weight, geometry), geometry.stride[0]))


def test_flat_response_with_groups() -> None:
    geometry = Geometry((2, 2), (1, 1))
    weight, level = draw(6, 2, 4, 4), draw(6, seed=1)
    out = run(level.view(1, 6, 1, 1).expand(1, 6, SIDE, SIDE), weight, geometry, groups=3)[0]
    assert torch.allclose(flat_response(weight, geometry, level, groups=3), inside(out, 2))


def test_a_kernel_that_passes_the_rule_of_divisibility_still_ripples() -> None:
    geometry = Geometry((2, 2), (1, 1))
    assert len(set(overlap((4, 4), geometry).flatten().tolist())) == 1
    assert float(amplitude(flat_response(draw(8, 4, 4, 4), geometry, torch.ones(8).double())).min()) > 0.1


@pytest.mark.parametrize("fitted", [False, True])
def test_an_equalised_kernel_answers_a_flat_input_without_ripple(fitted: bool) -> None:
    level = draw(3, seed=3)
    for kernel, geometry in geometries():
        if kernel < geometry.stride[0]:
            continue
        weight, moments = draw(3, 2, kernel, kernel).float(), None
        if fitted:
            inputs = InputMoments((kernel, kernel), geometry)
            inputs.add(draw(4, 3, 8, 8, seed=4))
            moments = inputs.means
        equal = equalise(weight, geometry, moments=moments)
        flat = run(level.float().view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE), equal, geometry)
        assert float(amplitude(inside(flat, geometry.stride[0])).max()) < 1e-6, (kernel, geometry)
        assert torch.allclose(equalise(equal, geometry, moments=moments), equal, atol=1e-5)
        half = equalise(weight, geometry, 0.5, moments)
        assert torch.allclose(half, (weight + equal) / 2, atol=1e-5)
        assert torch.equal(equalise(weight, geometry, 0.0, moments), weight)


def test_equalising_is_the_least_change_of_the_taps() -> None:
    """No other kernel with equal sums is nearer; the condition's solution by a general solver is the same."""
    geometry = Geometry((2, 2), (1, 1), (1, 1))
    weight = draw(1, 1, 3, 3)
    rows = []
    for a, b in ((0, 1), (1, 0), (1, 1)):  # each phase's sum equals that of phase (0, 0)
        row = torch.zeros(3, 3, dtype=torch.float64)
        for k, l in itertools.product(range(3), range(3)):  # noqa: E741
            row[k, l] += float(((k - 1) % 2, (l - 1) % 2) == (a, b)) - float(((k - 1) % 2, (l - 1) % 2) == (0, 0))
        rows.append(row.flatten())
    condition = torch.stack(rows)
    change = torch.linalg.lstsq(condition, -condition @ weight.flatten(), driver="gelsd").solution
    assert torch.allclose(equalise(weight, geometry).flatten(), weight.flatten() + change)


@pytest.mark.parametrize(("kernel", "stride", "padding", "rest"), [(3, 2, 1, 1), (4, 2, 1, 0), (5, 3, 1, 0)])
def test_with_moments_it_is_the_least_change_of_the_output(
    kernel: int, stride: int, padding: int, rest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganatomy.dissect.checkerboard.kernels.RIDGE", 1e-9)
    geometry = Geometry((stride,) * 2, (padding,) * 2, (rest,) * 2)
    inputs = F.avg_pool2d(draw(4, 3, 40, 40, seed=5), 3, 1, 1) + 1  # neighbours alike, as in a network
    weight = draw(3, 2, kernel, kernel)
    moments = InputMoments((kernel, kernel), geometry)
    moments.add(inputs)

    def far(other: Tensor) -> float:
        return float((run(inputs, other, geometry) - run(inputs, weight, geometry)).square().mean())

    equal = equalise(weight, geometry, moments=moments.means)
    small = project(weight, geometry, moments=moments.means)
    for number in range(20):
        nudge = 0.05 * draw(*weight.shape, seed=10 + number)
        assert far(equalise(equal + nudge, geometry)) > far(equal)
        assert far(spread(small + 0.05 * draw(*small.shape, seed=40 + number), geometry)) > far(spread(small, geometry))
    assert far(equal) <= far(equalise(weight, geometry))
    assert far(spread(small, geometry)) <= far(spread(project(weight, geometry), geometry))


def test_moments_do_not_depend_on_batches() -> None:
    inputs, geometry = draw(6, 3, 7, 7), Geometry((2, 2), (1, 1))
    at_once, in_batches = InputMoments((4, 4), geometry), InputMoments((4, 4), geometry)
    at_once.add(inputs)
    for batch in inputs.split(2):
        in_batches.add(batch)
    for phase, moment in at_once.means.items():
        assert torch.allclose(in_batches.means[phase], moment)


def test_phases_without_a_tap_cannot_be_equalised() -> None:
    with pytest.raises(UsageError, match=r"2×2 at stride 3×3.*notch"):
        equalise(draw(1, 1, 2, 2), Geometry((3, 3)))
    with pytest.raises(
        UsageError, match=r"4×4 at stride 2×2.*dilation 2×2"
    ):  # all taps of an even dilation fall on one phase
        equalise(draw(1, 1, 4, 4), Geometry((2, 2), dilation=(2, 2)))


def test_a_box_after_the_layer_is_folded_into_its_kernel() -> None:
    """Inside, it is the mean of as many neighbours as the stride, whatever the input; the size stays."""
    x = draw(2, 3, SIDE, SIDE)
    for kernel, geometry in geometries():
        stride = geometry.stride[0]
        weight = draw(3, 2, kernel, kernel)
        plain = run(x, weight, geometry)
        same, _ = box(weight, geometry, 0.0)
        held, wider = box(weight, geometry)
        assert torch.allclose(run(x, same, wider), plain)
        boxed = run(x, held, wider)
        assert boxed.shape == plain.shape
        early = wider.padding[0] - geometry.padding[0]
        blurred = F.avg_pool2d(plain, stride, 1)
        inner = slice(8, plain.shape[-1] - 16)
        shifted = slice(8 - (stride - 1) + early, plain.shape[-1] - 16 - (stride - 1) + early)
        assert torch.allclose(boxed[..., inner, inner], blurred[..., shifted, shifted]), (kernel, geometry)


def test_projection_gives_back_a_resize_convolution_exactly() -> None:
    x = draw(2, 4, 9, 9)
    for kernel, geometry in geometries():
        stride = geometry.stride[0]
        if kernel < stride:
            continue
        small = draw(3, 4, kernel - stride + 1, kernel - stride + 1)
        whole = spread(small, geometry)
        assert torch.allclose(project(whole, geometry), small)
        resize = ResizeConv(
            4, 3, small.shape[2], stride=stride, padding=geometry.padding[0], output_padding=geometry.output_padding[0]
        ).double()
        resize.conv.weight.data = small
        assert torch.allclose(resize(x), run(x, whole, geometry)), (kernel, geometry)


def test_projection_with_groups_and_its_limits() -> None:
    geometry = Geometry((2, 2), (1, 1))
    small = draw(6, 2, 3, 3)  # (out, in / groups, …), 3 groups
    x = draw(2, 6, 9, 9)
    whole = spread(small, geometry, groups=3)
    assert torch.allclose(project(whole, geometry, groups=3), small)
    held = F.interpolate(x, scale_factor=2.0, mode="nearest")
    assert torch.allclose(run(x, whole, geometry, groups=3), F.conv2d(held, small, padding=1, groups=3))
    with pytest.raises(UsageError, match=r"2×2.*stride 3×3"):
        project(draw(1, 1, 2, 2), Geometry((3, 3)))
    with pytest.raises(UsageError, match=r"resize.*dilation"):
        project(draw(1, 1, 4, 4), Geometry((2, 2), dilation=(2, 2)))


@pytest.mark.parametrize(("kernel", "factor", "padding"), [(1, 2, 0), (3, 2, 1), (3, 3, 0), (5, 2, 2), (4, 2, 1)])
def test_a_pixel_shuffle_is_a_transposed_convolution(kernel: int, factor: int, padding: int) -> None:
    x, filters = draw(2, 4, 9, 9), draw(5 * factor**2, 4, kernel, kernel)
    shuffled = F.pixel_shuffle(F.conv2d(x, filters, padding=padding), factor)
    whole = shuffle_kernel(filters, factor)
    out = run(x, whole, Geometry((factor,) * 2, (factor * (kernel - 1 - padding),) * 2))
    assert torch.allclose(out, shuffled)
    assert torch.equal(shuffle_filters(whole, factor), filters)
