"""Seams of a generator that is run tile by tile: how much more an image changes at the borders of tiles than elsewhere.

An image I of H × W pixels is put together from S × S tiles of h × w. Three measures are taken of a line x, which is
between the columns x − 1 and x, and of lines between rows likewise.

- step: mean over rows and channels of |I(·, x) − I(·, x − 1)|. Second differences would take slopes out, but they
  double the noise, a seam spoils them on both its sides, and slopes are in both parts of the ratio anyway.
- jump: |A − B|, A and B the mean colours of the b columns before and after the line, in the rows of one tile; mean over
  channels. Normalisation over a tile shifts its colour, and this sees it below any texture.
- stripe: |A − B| with A of the b columns around the line and B of the b/2 on either side of those. Padding darkens or
  brightens both sides of a border alike: at the line itself there may be no step, but a stripe runs along it.

b is 8 pixels, less for tiles of less than 32: 2 · max(1, ⌊w/8⌋).

The border lines are x = k·w, k = 1 … S − 1. Other lines are border lines moved by an offset o, −⌊w/2⌋ ≤ o < ⌈w/2⌉;
those farther than that from every border are left out, since they are near the edge of the image, which has effects of
its own, tiles or not. With p(o) the mean of a measure over k and over images,

    ratio = p(0) / mean of p(o) over the clear o,

those that do not look across a border: |o| ≥ 1 for steps, |o| ≥ b for the others. A ratio of 1 is no seam; it is NaN
where the image does not change off the borders. Three controls say what content alone gives:

- chance: p(o) over the same mean for every clear o: the ratios that the grid has elsewhere on these very images. The
  p-value is the share of offsets, 0 and the clear ones, whose ratio is at least that of 0; it is uniform where no
  offset is special. The grid moves across and down independently. Wide seams reach other offsets and raise it.
- input: the ratio of the images that go in, at the same places.
- whole: the ratio of the same network run on the whole image. What upsampling or compression puts on a grid, of which
  tile borders share the phase, it has too. The excess is the ratio of tiled over that of whole: what tiling adds.

Intervals: 95 %, over images; of one image, over its segments, the 2·S·(S − 1) stretches of border between two tiles,
each with the lines beside it. With a_i and b_i a unit's means at the border and clear of it, ratio = Σa / Σb, and

    log ratio ± t · s,   s² = n/(n − 1) · Σ (a_i/Σa − b_i/Σb)²,   t of n − 1 degrees of freedom

(linearised ratio estimator: Cochran 1977, Sampling Techniques, chapter 6). Percentiles of a bootstrap would be far too
narrow: images so large are few, and with two of them such an interval covers the truth half of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import DissectError, UsageError, one_line, out_of_memory
from ..generators.base import Generator
from ..stats.intervals import t_factor
from ..stats.significance import Floats, interval, ratio
from ..subjects.subject import failing

HALF = 4  # pixels: half the width of a band
LEAST = 4  # pixels of a tile's side: with fewer, no line is clear of the borders
TIE = 1e-5  # relative: ratios nearer than this differ by rounding
MOST = 2048**2  # pixels of an image that goes whole through a network on the CPU, where no error tells of lost memory
STEP = "step"
MEASURES = (STEP, "jump", "stripe")
DIRECTIONS = {"all": (0, 1), "vertical": (0,), "horizontal": (1,)}
TILED, WHOLE, INPUT, EXCESS = "tiled", "whole", "input", "excess"

# Each measure of the lines of one direction, by segment and offset: (N, S·(S − 1), T) float64. T is the tile's side;
# the offset 0, which is the border itself, is at T // 2.
Lines = dict[str, Floats]


def split(images: Tensor, tiles: int) -> Tensor:
    """images (N, C, S·h, S·w) -> their tiles (N·S², C, h, w), row by row.

    >>> split(torch.arange(8).view(1, 1, 2, 4), tiles=2).flatten(1)
    tensor([[0, 1],
            [2, 3],
            [4, 5],
            [6, 7]])
    """
    rows = images.unflatten(3, (tiles, -1)).unflatten(2, (tiles, -1))  # (N, C, S, h, S, w)
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def join(outputs: Tensor, tiles: int) -> Tensor:
    """tiles (N·S², C, h, w), row by row -> images (N, C, S·h, S·w), the inverse of `split`.

    >>> images = torch.rand(2, 3, 6, 4)
    >>> torch.equal(join(split(images, tiles=2), tiles=2), images)
    True
    """
    rows = outputs.unflatten(0, (-1, tiles, tiles))  # (N, S, S, C, h, w)
    return rows.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def steps(images: Tensor) -> Tensor:
    """images (N, C, H, W) -> steps (N, W − 1) of the vertical lines x = 1 … W − 1; for horizontal ones, images.mT.

    >>> steps(torch.tensor([[[[0.0, 1.0, 1.0], [2.0, 2.0, 5.0]]]]))
    tensor([[0.5000, 1.5000]])
    """
    return images.diff(dim=3).abs().mean((1, 2))


def jumps_and_stripes(images: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """images (N, C, H, W) -> of the lines x = b … W − b, b = 2 · half, jumps and stripes, each (N, W − 2·b + 1)."""
    means = F.avg_pool1d(images.mean(2), half, 1)  # (N, C, W − half + 1)
    lines = images.shape[3] - 4 * half + 1
    a, b, c, d = (means[..., k * half : k * half + lines] for k in range(4))  # from left to right; the line is b|c
    return (c + d - a - b).abs().mean(1) / 2, (b + c - a - d).abs().mean(1) / 2


def seam_map(images: Tensor) -> Tensor:
    """images (N, C, H, W) -> (N, H, W): each pixel's step from the left or from above, whichever is larger."""
    across = F.pad(images.diff(dim=3).abs().mean(1), (1, 0))
    down = F.pad(images.diff(dim=2).abs().mean(1), (0, 0, 1, 0))
    return torch.maximum(across, down)


def half_of(side: int) -> int:
    """Half the width of the bands, in pixels, for tiles of this side."""
    return max(1, min(HALF, side // 8))


def reach_of(measure: str, side: int) -> int:
    """How many pixels on either side of a line a measure looks at."""
    return 1 if measure == STEP else 2 * half_of(side)


def vertical_lines(images: Tensor, tiles: int) -> Lines:
    """images (N, C, S·h, S·w) of S × S tiles -> measures of their vertical lines; for horizontal ones, images.mT."""
    side = images.shape[3] // tiles
    strips = images.unflatten(2, (tiles, -1)).transpose(1, 2).flatten(0, 1)  # (N·S, C, h, W)
    lines = {}
    for measure, values in zip(MEASURES, (steps(strips), *jumps_and_stripes(strips, half_of(side))), strict=True):
        start = side - side // 2 - reach_of(measure, side)  # values begin with the line x = reach
        near = values[:, start : start + (tiles - 1) * side].double().cpu()  # (N·S, (S − 1)·w)
        lines[measure] = near.reshape(len(images), -1, side).numpy()
    return lines


def both_lines(images: Tensor, tiles: int) -> tuple[Lines, Lines]:
    """images (N, C, S·h, S·w) -> the measures of their vertical lines, and of their horizontal ones."""
    return vertical_lines(images, tiles), vertical_lines(images.mT, tiles)


def distances(side: int) -> NDArray[np.int64]:
    """(T,) int64: how far the lines around a border of tiles of this side are from it, in pixels.

    >>> distances(5)
    array([2, 1, 0, 1, 2])
    """
    return np.abs(np.arange(side) - side // 2)


def clear_lines(measure: str, side: int) -> NDArray[np.bool_]:
    """(T,) bool: which lines around a border of tiles of this side do not look across it."""
    return distances(side) >= reach_of(measure, side)


def contrast(directions: Sequence[Lines], measure: str) -> tuple[Floats, Floats]:
    """A measure's means on borders and on clear lines, each (n,): of images, or of the segments of a single one."""
    means_on_border, means_clear = [], []  # of each direction: (N, M)
    for lines in directions:
        values = lines[measure]
        side = values.shape[2]
        means_on_border.append(values[..., distances(side) == 0].mean(2))
        means_clear.append(values[..., clear_lines(measure, side)].mean(2))
    border, clear = np.stack(means_on_border), np.stack(means_clear)  # (D, N, M)
    if border.shape[1] > 1:
        return border.mean((0, 2)), clear.mean((0, 2))
    return border.ravel(), clear.ravel()


def ratio_interval(over: Sequence[Floats], under: Sequence[Floats]) -> tuple[float, float, float]:
    """The product of the sums of `over` by that of the sums of `under`, each (n,), and its 95 % interval.

    The ratio is NaN where the lower product is zero; the interval is NaN where either is.

    >>> ratio_interval([np.array([2.0, 4.0])], [np.array([1.0, 2.0])])
    (2.0, 2.0, 2.0)
    """
    top = math.prod(float(values.sum()) for values in over)
    bottom = math.prod(float(values.sum()) for values in under)
    if top == 0 or bottom == 0:
        return (math.nan if bottom == 0 else 0.0), math.nan, math.nan
    # the logarithm of a sum changes, when one unit is weighted more, by that unit's share of the sum
    influence = np.sum([values / values.sum() for values in over], 0)
    influence = influence - np.sum([values / values.sum() for values in under], 0)
    degrees = len(influence) - 1
    deviation = math.sqrt((degrees + 1) / degrees * float(np.square(influence).sum()))
    reach = t_factor(degrees) * deviation
    return top / bottom, top / bottom * math.exp(-reach), top / bottom * math.exp(reach)


def ratios_by_offset(directions: Sequence[Lines], measure: str) -> Floats:
    """The ratio with the grid moved by every offset, NaN where that is neither 0 nor clear.

    Of one direction (T,). Of two (T, T'): [i, j] is of the grid moved across by offset i and down by offset j; the
    measure's means over the lines of both directions are summed, at the border as on clear lines.
    """
    means, clear_means = [], []
    for lines in directions:
        mean = lines[measure].mean((0, 1))  # (T,)
        clear = clear_lines(measure, len(mean))
        means.append(np.where(clear | (distances(len(mean)) == 0), mean, np.nan))
        clear_means.append(mean[clear].mean())
    if len(directions) == 1:
        return ratio(means[0], np.asarray(clear_means[0]))
    across, down = means
    return ratio(across[:, None] + down, np.asarray(clear_means[0] + clear_means[1]))


def chance(ratios: Floats) -> dict[str, float]:
    """What chance gives, from ratios by offset as of `ratios_by_offset`.

    chance_low, chance_high: the middle 95 % of the ratios off the borders, in both directions where there are two.
    p_value: of the ratio on the borders.
    """
    if ratios.ndim == 1:
        (side,) = ratios.shape
        on_border = float(ratios[side // 2])
        off_border = ratios[distances(side) > 0]
    else:
        height, width = ratios.shape
        on_border = float(ratios[height // 2, width // 2])
        off_border = ratios[distances(height) > 0][:, distances(width) > 0].ravel()
    low, high = interval(off_border)
    as_large = ratios[~np.isnan(ratios)] >= on_border * (1 - TIE)
    p = math.nan if math.isnan(on_border) else float(as_large.mean())
    return {"chance_low": float(low), "chance_high": float(high), "p_value": p}


def seam(directions: Sequence[Lines], measure: str, control: Sequence[Lines] | None = None) -> dict[str, float]:
    """The figures of a row of `Seams.table`; with a control, lines of the same sizes, ratios are over its ratios."""
    border, clear = contrast(directions, measure)
    ratios = ratios_by_offset(directions, measure)
    if control is None:
        levels = {"border": 255 * float(border.mean()), "rest": 255 * float(clear.mean())}
        values = ratio_interval([border], [clear])
    else:
        control_border, control_clear = contrast(control, measure)
        levels = {}
        values = ratio_interval([border, control_clear], [clear, control_border])
        ratios = ratio(ratios, ratios_by_offset(control, measure))
    return levels | dict(zip(("ratio", "low", "high"), values, strict=True)) | chance(ratios)


def fall_off(directions: Sequence[Lines], measure: str) -> Floats:
    """(D,): a measure of the lines at distance 0, 1, … from a border, over its mean on lines clear of them."""
    curves, clear_means = [], []
    for lines in directions:
        mean = lines[measure].mean((0, 1))
        away = distances(len(mean))
        curves.append(np.bincount(away, mean) / np.bincount(away))
        clear_means.append(mean[clear_lines(measure, len(mean))].mean())
    length = min(map(len, curves))
    return ratio(np.sum([curve[:length] for curve in curves], 0), np.asarray(sum(clear_means)))


@dataclass(frozen=True, kw_only=True)
class Seams:
    """What running a generator tile by tile does at the borders of the tiles; definitions are the module's.

    Attributes:
        tiles: S; the grid has S × S.
        samples: which were run.
        given: height and width of the images that the generator was given.
        used: height and width of what was cut into tiles: the right and the lower edge are cropped so that S tiles fit
            whose sides are multiples of what the network takes.
        tile: height and width of what the generator makes of one tile.
        band: b of the vertical lines and of the horizontal.
        units: what intervals are over: `images`, or `borders` of the one image.
        no_whole: why there is no control on the whole image; None where there is.
        table: one row of each of what (tiled, whole, input, excess), lines (all, vertical, horizontal) and measure
            (step, jump, stripe). border, rest: its mean on border lines and on clear ones, in levels of 255, none for
            an excess; ratio, low, high; chance_low, chance_high: the middle 95 % of chance; p_value.
        profile: one row of each of what, lines, measure and distance (pixels to the nearest border line); ratio there.
        worst: the sample with the plainest seams: the most of any measure on borders beyond that on clear lines.
        tiled: its image, put together (H, W, 3).
        whole: the image of the network run on the whole input (H, W, 3); None where there is none.
        map: `seam_map` of `tiled` (H, W), in [0, 1].
    """

    tiles: int
    samples: tuple[int, ...]
    given: tuple[int, int]
    used: tuple[int, int]
    tile: tuple[int, int]
    band: tuple[int, int]
    units: str
    no_whole: str | None
    table: pd.DataFrame
    profile: pd.DataFrame
    worst: int
    tiled: NDArray[np.uint8]
    whole: NDArray[np.uint8] | None
    map: NDArray[np.float32]


@torch.inference_mode()
def measure_seams(
    generator: Generator,
    samples: Sequence[int],
    tiles: int,
    *,
    batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Seams:
    """Run a generator of images on each tile of S × S alone, put the outputs together, and measure the seams.

    Args:
        generator: its latents are images (N, C, H, W), all of one size; it may make them larger or smaller.
        samples: numbers of the images; one at a time is in memory.
        tiles: S, from 2 up.
        batch: how many tiles go through the network at a time.
        advance: is called with the number of images done.

    Raises:
        UsageError: the generator takes no images, or they cannot be cut into so many tiles.
        DissectError: the network failed on a tile, or its images are not finite.
    """
    measured: dict[str, list[tuple[Lines, Lines]]] = {TILED: [], WHOLE: [], INPUT: []}
    no_whole: str | None = None
    plainest: Plainest | None = None
    for sample in samples:
        given = generator.latents([sample])
        images = cropped(given, tiles, generator)
        sets = {TILED: tiled_image(generator, images, tiles, sample, batch), INPUT: unit_range(generator, images)}
        if no_whole is None:
            try:
                sets[WHOLE] = at_once(generator, images, sets[TILED].shape)
            except DissectError as error:
                no_whole = str(error)
        for name, image in sets.items():
            measured[name].append(both_lines(image, tiles))
        contrasts = [contrast(measured[TILED][-1], measure) for measure in MEASURES]
        height = max(float(border.mean() - clear.mean()) for border, clear in contrasts)
        if plainest is None or height > plainest.height:
            plainest = Plainest(sample=sample, height=height, images={name: image[0] for name, image in sets.items()})
        advance(1)
    assert plainest is not None
    lines = {
        name: (_all_lines([across for across, _ in pairs]), _all_lines([down for _, down in pairs]))
        for name, pairs in measured.items()
        if len(pairs) == len(samples)  # the control is left out where it failed on a sample
    }
    tile = (sets[TILED].shape[2] // tiles, sets[TILED].shape[3] // tiles)
    return Seams(
        tiles=tiles,
        samples=tuple(samples),
        given=(given.shape[2], given.shape[3]),
        used=(images.shape[2], images.shape[3]),
        tile=tile,
        band=(2 * half_of(tile[1]), 2 * half_of(tile[0])),
        units="images" if len(samples) > 1 else "borders",
        no_whole=no_whole,
        table=table_of(lines),
        profile=profile_of(lines),
        worst=plainest.sample,
        tiled=_picture(plainest.images[TILED]),
        whole=_picture(plainest.images[WHOLE]) if no_whole is None else None,
        map=seam_map(plainest.images[TILED][None])[0].cpu().numpy(),
    )


@dataclass(frozen=True, kw_only=True)
class Plainest:
    """The sample with the plainest seams so far.

    height: the most of any measure on borders beyond that on clear lines. images: (3, H, W) in [0, 1], by set.
    """

    sample: int
    height: float
    images: Mapping[str, Tensor]


def _all_lines(of_samples: Sequence[Lines]) -> Lines:
    """The lines of single samples -> of all of them."""
    return {measure: np.concatenate([lines[measure] for lines in of_samples]) for measure in MEASURES}


def unit_range(generator: Generator, images: Tensor) -> Tensor:
    """Input images as float in [0, 1], from the range of the generator's inputs."""
    low, high = getattr(generator.module, "input_range", generator.output_range)
    return (images.float() - low) / (high - low)


def tiled_image(generator: Generator, images: Tensor, tiles: int, sample: int, batch: int) -> Tensor:
    """What the generator makes of each tile alone, put together: (1, 3, H, W) in [0, 1].

    Raises:
        UsageError: its tiles are too small to have lines clear of their borders.
        DissectError: it failed on a tile, or drew pixels that are not finite.
    """
    with failing(f"a tile of sample {sample}"):
        tiled = join(torch.cat([generator(some) for some in split(images, tiles).split(batch)]), tiles)
    height, width = tiled.shape[2] // tiles, tiled.shape[3] // tiles
    if min(height, width) < LEAST:
        raise UsageError(
            f"--tiles {tiles}: the generator makes {height}×{width} pixels of a tile; they must be at least "
            f"{LEAST}×{LEAST}. Give fewer tiles."
        )
    if not bool(tiled.isfinite().all()):
        raise DissectError(f"{generator.name} drew pixels that are not finite on sample {sample}; check the input.")
    return tiled


def cropped(images: Tensor, tiles: int, generator: Generator) -> Tensor:
    """The input images without the right and the lower edge, so that S × S tiles fit that the generator can take.

    Raises:
        UsageError: the inputs are no images, or too small for so many tiles.
    """
    if images.ndim != 4 or min(images.shape[2:]) < 2:
        raise UsageError(
            f"--tiles {tiles}: {generator.name} draws from latents, and tiles need a generator of images; take "
            "one that turns images into images, and give --inputs."
        )
    height, width = images.shape[2:]
    multiple = int(getattr(generator.module, "multiple", 1)) if getattr(generator.module, "inputs", True) else 1
    least = -(-LEAST // multiple) * multiple
    most = min(height, width) // least
    if not 2 <= tiles <= most:
        allowed = f"give 2 to {most}" if most > 1 else "give larger images"
        raise UsageError(
            f"--tiles {tiles}: images of {height}×{width} pixels are cut into 2 × 2 tiles or more, the sides of a tile "
            f"at least {least}; {allowed}."
        )
    step = tiles * multiple
    return images[:, :, : height // step * step, : width // step * step]


def at_once(generator: Generator, images: Tensor, size: torch.Size) -> Tensor:
    """What the generator makes of whole images, (N, 3, H, W) of this size.

    Raises:
        DissectError: the generator fails, for lack of memory or because it takes other sizes; or its images have
            another size, or are not finite.
    """
    height, width = max(images.shape[2:], size[2:], key=math.prod)
    if generator.device.type == "cpu" and height * width > MOST:
        raise DissectError(f"images of {height}×{width} pixels are too large to pass whole on a CPU")
    try:
        whole = generator(images)
    except Exception as error:  # the user's network may raise anything
        memory = "memory does not suffice to pass images whole"
        raise DissectError(memory if out_of_memory(error) else one_line(error)) from error
    if whole.shape != size:
        raise DissectError(
            f"whole images come out as {whole.shape[2]}×{whole.shape[3]} pixels, their tiles together as "
            f"{size[2]}×{size[3]}"
        )
    if not bool(whole.isfinite().all()):
        raise DissectError("whole images come out with pixels that are not finite")
    return whole


def table_of(lines: Mapping[str, Sequence[Lines]]) -> pd.DataFrame:
    """The vertical and the horizontal lines of each of tiled, whole and input -> `Seams.table`."""
    rows = []
    for (name, directions), measure in product(DIRECTIONS.items(), MEASURES):
        picked = {what: [both[k] for k in directions] for what, both in lines.items()}
        figures = {what: seam(of_set, measure) for what, of_set in picked.items()}
        if WHOLE in picked:
            figures[EXCESS] = seam(picked[TILED], measure, picked[WHOLE])
        rows += [{"what": what, "lines": name, "measure": measure} | of_set for what, of_set in figures.items()]
    return pd.DataFrame(rows)


def profile_of(lines: Mapping[str, Sequence[Lines]]) -> pd.DataFrame:
    """The vertical and the horizontal lines of each of tiled, whole and input -> `Seams.profile`."""
    rows = [
        {"what": what, "lines": name, "measure": measure, "distance": distance, "ratio": value}
        for (what, both), (name, directions), measure in product(lines.items(), DIRECTIONS.items(), MEASURES)
        for distance, value in enumerate(fall_off([both[k] for k in directions], measure))
    ]
    return pd.DataFrame(rows)


def _picture(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1] -> (H, W, 3)."""
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
