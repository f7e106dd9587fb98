"""Latents between, beyond and mixed of others: interpolation, arithmetic, style mixing, truncation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...hooks.errors import UsageError

Term = tuple[int, tuple[int, ...]]  # a sign, +1 or -1, and the samples whose mean it is of

FLAT = 1e-6  # a sine below which two directions are taken for one line
MOST = 10_000  # samples of one range
EXAMPLE = "'3,4,5 - 7,8 + 0..3'"


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """a, b (…) -> the point (…) at t on the straight line from a to b; exactly a at t = 0 and b at t = 1."""
    return torch.lerp(a, b, t)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """a, b (N, …) -> the points (N, …) at t on arcs from a to b, one a sample, over all axes but the first.

    Directions turn at constant speed on the great circle through both; lengths are interpolated linearly. Where there
    is no such circle, since a and b are parallel, opposite or zero, the way is straight; between opposite ones it
    leads through zero. Computed in float64, returned in the dtype of a.

    Source: Shoemake 1985, Animating Rotation with Quaternion Curves; for latents White 2016, Sampling Generative
    Networks. Theirs and this are one where lengths are equal.
    """
    one, other = a.flatten(1).double(), b.flatten(1).double()  # (N, D)
    lengths = one.norm(dim=1, keepdim=True), other.norm(dim=1, keepdim=True)  # (N, 1)
    u, v = one / lengths[0], other / lengths[1]
    # the arc cosine of u · v would lose half the digits of a small angle
    angle = 2 * torch.atan2((u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True))
    turned = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
    curved = angle.sin() > FLAT  # not so where it is NaN, since a length is zero
    found = torch.where(curved, turned * torch.lerp(*lengths, t), torch.lerp(one, other, t))
    return found.view_as(a).to(a.dtype)


WAYS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {"linear": lerp, "spherical": slerp}


def walk(points: Tensor, steps: int, *, closed: bool, how: str) -> Tensor:
    """Frames of a film through key points, `steps` from each to the next.

    points (K, …) -> (K · steps, …) if closed, where the last frames lead back towards the first; else
    ((K − 1) · steps + 1, …), of which the last is the last key point. `how` is `linear` or `spherical`.

    Raises:
        UsageError: fewer than two points, no steps, or another way.
    """
    if how not in WAYS:
        raise UsageError(f"A walk is {' or '.join(WAYS)}, not {how!r}.")
    if len(points) < 2 or steps < 1:
        raise UsageError(f"A walk needs two samples or more and a step or more; given {len(points)} and {steps}.")
    starts, ends = (points, points.roll(-1, 0)) if closed else (points[:-1], points[1:])
    frames = torch.stack([WAYS[how](starts, ends, step / steps) for step in range(steps)], 1).flatten(0, 1)
    return frames if closed else torch.cat([frames, points[-1:]])


def parse_arithmetic(text: str) -> tuple[Term, ...]:
    """`3,4,5 - 7,8 + 9` -> ((1, (3, 4, 5)), (-1, (7, 8)), (1, (9,))); `0..3` is 0,1,2,3.

    Raises:
        UsageError: anything else.
    """
    first, *rest = re.split("([+-])", text)
    signs, lists = ("+", *rest[::2]), (first, *rest[1::2])
    return tuple((1 if sign == "+" else -1, _samples(listed, text)) for sign, listed in zip(signs, lists, strict=True))


def _samples(listed: str, text: str) -> tuple[int, ...]:
    """`3,5..7` -> (3, 5, 6, 7)."""
    found: list[int] = []
    for item in listed.split(","):
        ends = re.fullmatch(r"\s*([0-9]{1,9})(?:\.\.([0-9]{1,9}))?\s*", item)
        if not ends:
            what = f"{item.strip()!r} is no sample" if item.strip() else "a sample is missing"
            raise UsageError(f"{text!r}: {what}; write numbers of samples and signs, such as {EXAMPLE}.")
        low, high = int(ends[1]), int(ends[2] or ends[1])
        if not low <= high < low + MOST:
            raise UsageError(
                f"{text!r}: {item.strip()} must rise, over {MOST} samples at most; write a range as in {EXAMPLE}."
            )
        found += range(low, high + 1)
    return tuple(found)


def arithmetic(terms: Sequence[Term], latent_of: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """Terms and `latent_of`, samples -> latents (N, …), give the sum of the signed means of latents, (1, …).

    Each term is the mean of its samples, as by Radford et al. 2015, section 6.3.2: smiling woman − neutral woman +
    neutral man. Nothing is rescaled, so the sum is typically shorter or longer than a latent that was drawn.
    """
    means = [sign * latent_of(samples).mean(0, keepdim=True) for sign, samples in terms]
    return torch.stack(means).sum(0)


def mixing_table(styles_a: Tensor, styles_b: Tensor, crossover: int) -> Tensor:
    """styles_a (A, L, W), styles_b (B, L, W) -> (A, B, L, W): in row a, column b, layers < crossover are of a.

    Layers from the crossover on are of b. So the rows give the coarse styles and the columns the finer ones, as in the
    lower part of figure 3 of Karras et al. 2019 (fine styles from source B); its upper part (coarse styles from source
    B) is this table with the two exchanged. A crossover of 0 leaves all to b, of L all to a.

    Raises:
        UsageError: no such layer, or styles of different shape.
    """
    layers = styles_a.shape[1]
    if styles_a.shape[1:] != styles_b.shape[1:]:
        raise UsageError(
            f"Styles {tuple(styles_a.shape)} and {tuple(styles_b.shape)} cannot be mixed; take both of one generator."
        )
    if crossover not in range(layers + 1):
        raise UsageError(f"Styles cannot cross over at layer {crossover}; there are {layers}, so 0 to {layers}.")
    shape = (len(styles_a), len(styles_b), layers, styles_a.shape[2])
    rows, columns = styles_a[:, None].expand(shape), styles_b[None].expand(shape)
    return torch.cat([rows[:, :, :crossover], columns[:, :, crossover:]], 2)


def sweep(w: Tensor, mean: Tensor, psis: Sequence[float]) -> Tensor:
    """w (N, …), mean (…) -> (N, P, …): mean + ψ (w − mean) for each ψ, truncation.

    ψ = 1 is exactly w, 0 exactly the mean; a negative ψ leads to what is opposite.

    Source: Karras et al. 2019, appendix B.
    """
    return torch.stack([torch.lerp(mean.expand_as(w), w, psi) for psi in psis], 1)
