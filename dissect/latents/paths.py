"""Latents computed from other latents: interpolation, arithmetic, style mixing, truncation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...hooks.errors import UsageError

Term = tuple[int, tuple[int, ...]]  # a sign, +1 or -1, and the samples whose mean has this sign

FLAT = 1e-6  # two directions count as parallel if the sine of their angle is not above this
MOST = 10_000  # samples in one range
EXAMPLE = "'3,4,5 - 7,8 + 0..3'"


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """a, b (…) -> the point (…) at t on the straight line from a to b; exactly a at t = 0 and b at t = 1.

    >>> lerp(torch.zeros(2), torch.tensor([4.0, 8.0]), 0.25)
    tensor([1., 2.])
    """
    return torch.lerp(a, b, t)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """a, b (N, …) -> the points (N, …) at t on arcs from a to b, an arc for each sample, over all axes but the first.

    Directions turn at constant speed on the great circle through both; lengths are interpolated linearly. If there is
    no unique circle, since a and b are parallel, opposite or zero, the path is a straight line; between opposite ones
    it leads through zero. Computed in float64, returned in the dtype of a.

    Source: Shoemake 1985, Animating Rotation with Quaternion Curves; for latents White 2016, Sampling Generative
    Networks. This function equals theirs where both lengths are equal.
    """
    start, end = a.flatten(1).double(), b.flatten(1).double()  # (N, D)
    lengths = start.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)  # (N, 1)
    u, v = start / lengths[0], end / lengths[1]
    # the arc cosine of u · v would lose half the digits of a small angle
    angle = 2 * torch.atan2((u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True))
    turned = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
    curved = angle.sin() > FLAT  # false where the angle is NaN, since a length is zero
    points = torch.where(curved, turned * torch.lerp(*lengths, t), torch.lerp(start, end, t))
    return points.view_as(a).to(a.dtype)


WAYS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {"linear": lerp, "spherical": slerp}


def walk(points: Tensor, steps: int, *, closed: bool, how: str) -> Tensor:
    """Frames of a film through key points.

    Args:
        points: the K key points (K, …).
        steps: frames from each key point to the next, at least 1.
        closed: whether the last frames lead back towards the first key point.
        how: `linear` or `spherical`.

    Returns:
        (K · steps, …) if closed; else ((K − 1) · steps + 1, …), ending at the last key point.

    Raises:
        UsageError: fewer than two points, no steps, or an unknown path.

    >>> walk(torch.tensor([[0.0], [4.0]]), 4, closed=False, how="linear").flatten().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if how not in WAYS:
        raise UsageError(f"how={how!r}: must be one of {', '.join(WAYS)}.")
    if len(points) < 2 or steps < 1:
        raise UsageError(f"{len(points)} points and {steps} steps: a walk needs at least 2 points and 1 step.")
    starts, ends = (points, points.roll(-1, 0)) if closed else (points[:-1], points[1:])
    frames = torch.stack([WAYS[how](starts, ends, step / steps) for step in range(steps)], 1).flatten(0, 1)
    return frames if closed else torch.cat([frames, points[-1:]])


def parse_arithmetic(text: str) -> tuple[Term, ...]:
    """Read a formula: samples and ranges with commas between, terms with signs between.

    Raises:
        UsageError: the text is no such formula.

    >>> parse_arithmetic("3,4,5 - 7,8 + 0..3")
    ((1, (3, 4, 5)), (-1, (7, 8)), (1, (0, 1, 2, 3)))
    """
    first, *others = re.split("([+-])", text)
    signs, terms = ("+", *others[::2]), (first, *others[1::2])
    return tuple((1 if sign == "+" else -1, _samples(term, text)) for sign, term in zip(signs, terms, strict=True))


def _samples(term: str, formula: str) -> tuple[int, ...]:
    """`3,5..7` -> (3, 5, 6, 7)."""
    samples: list[int] = []
    for item in term.split(","):
        ends = re.fullmatch(r"\s*([0-9]{1,9})(?:\.\.([0-9]{1,9}))?\s*", item)
        if not ends:
            fault = f"{item.strip()!r} is no sample" if item.strip() else "a sample is missing"
            raise UsageError(f"{formula!r}: {fault}; write samples and signs, such as {EXAMPLE}.")
        low, high = int(ends[1]), int(ends[2] or ends[1])
        if not low <= high < low + MOST:
            raise UsageError(
                f"{formula!r}: the range {item.strip()} must rise and have at most {MOST} samples, as in {EXAMPLE}."
            )
        samples += range(low, high + 1)
    return tuple(samples)


def arithmetic(terms: Sequence[Term], latent_of: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """Add up the means of latents with their signs.

    Each term is the mean of its samples, as in Radford et al. 2015, section 6.3.2: smiling woman − neutral woman +
    neutral man. Nothing is rescaled, so the sum is typically shorter or longer than a latent that was drawn.

    Args:
        terms: from `parse_arithmetic`.
        latent_of: samples -> latents (N, …).

    Returns:
        (1, …).
    """
    means = [sign * latent_of(samples).mean(0, keepdim=True) for sign, samples in terms]
    return torch.stack(means).sum(0)


def mixing_table(styles_a: Tensor, styles_b: Tensor, crossover: int) -> Tensor:
    """styles_a (A, L, W), styles_b (B, L, W) -> (A, B, L, W): row a, column b has the styles of a before the crossover.

    Layers from the crossover on have the styles of b. So the rows give the coarse styles and the columns the finer
    ones, as in the lower part of figure 3 of Karras et al. 2019 (fine styles from source B); its upper part (coarse
    styles from source B) is this table with the two exchanged. A crossover of 0 takes all styles of b, one of L all
    styles of a.

    Raises:
        UsageError: no such layer, or styles of different shapes.
    """
    layers = styles_a.shape[1]
    if styles_a.shape[1:] != styles_b.shape[1:]:
        raise UsageError(
            f"Styles {tuple(styles_a.shape)} and {tuple(styles_b.shape)} cannot be mixed; take both from one generator."
        )
    if crossover not in range(layers + 1):
        raise UsageError(f"crossover={crossover}: must be between 0 and {layers}, the number of style layers.")
    shape = (len(styles_a), len(styles_b), layers, styles_a.shape[2])
    rows, columns = styles_a[:, None].expand(shape), styles_b[None].expand(shape)
    return torch.cat([rows[:, :, :crossover], columns[:, :, crossover:]], 2)


def sweep(w: Tensor, mean: Tensor, psis: Sequence[float]) -> Tensor:
    """Truncation: w (N, …), mean (…) -> (N, P, …): mean + ψ (w − mean) for each of P values of ψ.

    ψ = 1 gives exactly w, ψ = 0 exactly the mean; a negative ψ gives the opposite of w.

    Source: Karras et al. 2019, appendix B.

    >>> sweep(torch.tensor([[4.0]]), torch.tensor([2.0]), [0.0, 0.5, 1.0, -1.0]).flatten().tolist()
    [2.0, 3.0, 4.0, 0.0]
    """
    return torch.stack([torch.lerp(mean.expand_as(w), w, psi) for psi in psis], 1)
