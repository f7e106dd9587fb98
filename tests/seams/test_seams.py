"""Seams of generators that are run tile by tile, against loops, closed forms and networks whose seams are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.seams import measures
from ganatomy.dissect.seams.measures import (
    Seams,
    both_lines,
    join,
    jumps_and_stripes,
    measure_seams,
    ratio_interval,
    seam,
    seam_map,
    split,
    steps,
)
from ganatomy.hooks.errors import DissectError, UsageError


@dataclass(frozen=True)
class Pictures:
    """Given images as a source."""

    images: Tensor

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return self.images[list(indices)]

    def seeded(self, seed: int) -> Pictures:
        return self


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def run(module: nn.Module, images: Tensor, tiles: int = 4, batch: int = 5) -> Seams:
    generator = Generator(module=module, name="net", source=Pictures(images), output_range=(0, 1))
    return measure_seams(generator, range(len(images)), tiles, batch=batch)


def row(seams: Seams, what: str, measure: str = "step", lines: str = "all") -> pd.Series:
    return seams.table.set_index(["what", "measure", "lines"]).loc[(what, measure, lines)]


def profile(seams: Seams, what: str, measure: str = "step") -> np.ndarray:
    """By distance, of vertical and horizontal lines together."""
    rows = seams.profile.query("what == @what and measure == @measure and lines == 'all'")
    assert rows.distance.tolist() == list(range(len(rows)))
    return rows.ratio.to_numpy()


def checkers(tiles: int, side: int) -> Tensor:
    """(1, 1, S·side, S·side): 0 and 1 by turns, a tile each."""
    place = torch.arange(tiles * side) // side
    return ((place[:, None] + place) % 2).float()[None, None]


def box(side: int) -> nn.Conv2d:
    """The mean of a neighbourhood, zeros outside the image."""
    conv = nn.Conv2d(3, 3, side, padding=side // 2, groups=3, bias=False)
    nn.init.constant_(conv.weight, 1 / side**2)
    return conv


def test_tiles_come_row_by_row_and_join_to_the_image() -> None:
    image = torch.arange(24.0).reshape(1, 1, 4, 6)
    pieces = split(image, 2)
    assert pieces[:, 0].tolist() == [
        [[0, 1, 2], [6, 7, 8]],
        [[3, 4, 5], [9, 10, 11]],
        [[12, 13, 14], [18, 19, 20]],
        [[15, 16, 17], [21, 22, 23]],
    ]
    assert torch.equal(join(pieces, 2), image)
    several = noise(3, 2, 9, 6)
    assert torch.equal(join(split(several, 3), 3), several)
    assert torch.equal(split(several, 3)[9 + 5], several[1, :, 3:6, 4:6])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_tiles_join_to_their_images(count: int, channels: int, tiles: int, height: int, width: int) -> None:
    images = noise(count, channels, tiles * height, tiles * width)
    pieces = split(images, tiles)
    assert pieces.shape == (count * tiles**2, channels, height, width)
    assert torch.equal(join(pieces, tiles), images)


positive = st.lists(st.floats(0.01, 100), min_size=4, max_size=4).map(np.array)


@settings(max_examples=40, deadline=None)
@given(positive, positive, st.floats(0.01, 100))
def test_a_ratio_and_its_interval_scale_and_invert(over: np.ndarray, under: np.ndarray, scale: float) -> None:
    ratio, low, high = ratio_interval([over], [under])
    assert low <= ratio <= high
    assert ratio_interval([scale * over], [under]) == pytest.approx((scale * ratio, scale * low, scale * high))
    assert ratio_interval([under], [over]) == pytest.approx((1 / ratio, 1 / high, 1 / low))
    assert ratio_interval([over, under], [under, over]) == pytest.approx((1, 1, 1))


def test_steps_jumps_stripes_and_map_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0, 1.0, 4.0], [2.0, 2.0, 5.0, 0.0]]]])
    assert steps(image).tolist() == [[0.5, 1.5, 4.0]]
    assert steps(image.mT).tolist() == [[(2 + 1 + 4 + 4) / 4]]
    assert [values.tolist() for values in jumps_and_stripes(image, 1)] == [[[1.25]], [[0.75]]]  # of means 1, 1.5, 3, 2
    assert seam_map(image).tolist() == [[[0.0, 1.0, 0.0, 3.0], [2.0, 1.0, 4.0, 5.0]]]
    two = torch.cat([image, image * 3], 1)
    assert steps(two).tolist() == [[1.0, 3.0, 8.0]]
    assert [values.tolist() for values in jumps_and_stripes(two, 1)] == [[[2.5]], [[1.5]]]


def naive(image: np.ndarray, tiles: int, measure: str, band: int) -> np.ndarray:
    """image (C, H, W) -> (segments, offsets): a measure of vertical lines, by loops."""
    height, width = image.shape[1] // tiles, image.shape[2] // tiles
    segments = []
    for i in range(tiles):
        rows = image[:, i * height : (i + 1) * height]
        for k in range(1, tiles):
            values = []
            for o in range(-(width // 2), math.ceil(width / 2)):
                x = k * width + o
                each = []
                for c in rows:
                    if measure == "step":
                        each += [abs(c[y, x] - c[y, x - 1]) for y in range(height)]
                    elif measure == "jump":
                        each.append(abs(c[:, x : x + band].mean() - c[:, x - band : x].mean()))
                    else:
                        around = list(range(x - band // 2, x + band // 2))
                        beside = [at for at in range(x - band, x + band) if at not in around]
                        each.append(abs(c[:, around].mean() - c[:, beside].mean()))
                values.append(np.mean(each))
            segments.append(values)
    return np.array(segments)


@pytest.mark.parametrize("measure", ["step", "jump", "stripe"])
@pytest.mark.parametrize("tile", [(5, 17), (18, 4)])
def test_ratio_chance_and_p_value_are_those_of_loops(tile: tuple[int, int], measure: str) -> None:
    images = noise(2, 2, 3 * tile[0], 3 * tile[1]).double()
    mean, offsets = [], []  # of each direction, by offset: of 0 and of those clear of it
    for side, turned in ((tile[1], images), (tile[0], images.mT)):
        band = 2 * max(1, side // 8)
        least = 1 if measure == "step" else band
        every = list(range(-(side // 2), math.ceil(side / 2)))
        values = np.mean([naive(image.numpy(), 3, measure, band).mean(0) for image in turned], 0)
        mean.append(dict(zip(every, values, strict=True)))
        offsets.append([o for o in every if o == 0 or abs(o) >= least])
    rest = sum(np.mean([mean[k][o] for o in offsets[k] if o]) for k in range(2))
    table = {(a, b): (mean[0][a] + mean[1][b]) / rest for a in offsets[0] for b in offsets[1]}
    figures = seam(both_lines(images, 3), measure)
    assert figures["ratio"] == pytest.approx(table[0, 0])
    assert figures["p_value"] == pytest.approx(np.mean([value >= table[0, 0] - 1e-9 for value in table.values()]))
    others = [value for (a, b), value in table.items() if a and b]
    assert (figures["chance_low"], figures["chance_high"]) == pytest.approx(tuple(np.quantile(others, [0.025, 0.975])))
    across = seam(both_lines(images, 3)[:1], measure)
    assert across["border"] == pytest.approx(255 * mean[0][0])
    assert across["rest"] == pytest.approx(255 * np.mean([mean[0][o] for o in offsets[0] if o]))
    assert across["ratio"] == pytest.approx(across["border"] / across["rest"])


def test_the_interval_of_two_images_by_hand() -> None:
    images = noise(2, 1, 12, 12)
    each = [seam(both_lines(image[None], 3), "step") for image in images]
    (a, c), (b, d) = ([one[name] for one in each] for name in ("border", "rest"))
    ratio = (a + c) / (b + d)
    gap = a / (a + c) - b / (b + d)  # and the other image's is the same with the other sign
    reach = stats.t.ppf(0.975, 1) * math.sqrt(2 * 2 * gap**2)
    figures = seam(both_lines(images, 3), "step")
    assert figures["ratio"] == pytest.approx(ratio, rel=1e-5)
    assert figures["low"] == pytest.approx(ratio * math.exp(-reach), rel=1e-4)
    assert figures["high"] == pytest.approx(ratio * math.exp(reach), rel=1e-4)


@pytest.mark.parametrize("images", [1, 3])
def test_without_a_seam_intervals_cover_one_and_p_values_are_uniform(images: int) -> None:
    rounds = 300
    lines = [both_lines(noise(images, 1, 48, 48, seed=seed), 3) for seed in range(rounds)]
    for measure in ("step", "jump", "stripe"):
        figures = pd.DataFrame(seam(one, measure) for one in lines)
        assert 0.91 < ((figures.low <= 1) & (figures.high >= 1)).mean() < 0.985
        assert figures.p_value.mean() == pytest.approx(0.5, abs=0.07)
        for share in (0.05, 0.25, 0.75):
            far = 3.5 * math.sqrt(share * (1 - share) / rounds)
            assert (figures.p_value <= share).mean() == pytest.approx(share, abs=far)


def test_a_planted_seam_has_the_ratio_that_follows_from_its_height() -> None:
    """Steps of uniform noise in [0, s] are s/3 on average; across a border of height d ≥ s they are d."""
    seams = run(nn.Identity(), 0.3 * noise(6, 1, 128, 128) + 0.5 * checkers(4, 32))
    for lines in ("all", "vertical", "horizontal"):
        tiled = row(seams, "tiled", "step", lines)
        assert tiled.ratio == pytest.approx(0.5 / 0.1, rel=0.02)
        assert tiled.low < 5 < tiled.high
        assert tiled.border == pytest.approx(127.5, rel=0.02)
        assert tiled.rest == pytest.approx(25.5, rel=0.02)
        assert tiled.chance_high < 1.1
        assert tiled.p_value == pytest.approx(1 / 32 ** (1 + (lines == "all")))
        assert row(seams, "tiled", "jump", lines).border == pytest.approx(127.5, rel=0.02)
    curve = profile(seams, "tiled")
    assert len(curve) == 17
    assert curve[0] == pytest.approx(row(seams, "tiled").ratio)
    assert curve[1:] == pytest.approx(1, abs=0.05)


def test_one_image_has_the_interval_of_its_borders() -> None:
    seams = run(nn.Identity(), 0.3 * noise(1, 1, 128, 128) + 0.5 * checkers(4, 32))
    assert (seams.units, run(nn.Identity(), noise(2, 1, 16, 16)).units) == ("borders", "images")
    assert row(seams, "tiled").low < 5 < row(seams, "tiled").high < 5.5


def test_a_pointwise_network_has_no_seam_of_its_own() -> None:
    images = 0.3 * noise(3, 3, 37, 46) + 0.2 * checkers(4, 12)[:, :, :37, :46]
    mix = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(mix.weight)
    seams = run(mix, images)
    assert (seams.given, seams.used, seams.tile) == ((37, 46), (36, 44), (9, 11))
    assert seams.whole is not None
    assert np.array_equal(seams.tiled, seams.whole)
    for measure in ("step", "jump", "stripe"):
        tiled, whole, given, excess = (row(seams, what, measure) for what in ("tiled", "whole", "input", "excess"))
        assert tiled.tolist() == pytest.approx(whole.tolist(), rel=1e-4)
        assert tiled.tolist() == pytest.approx(given.tolist(), rel=1e-4)
        assert excess.drop(["border", "rest"]).tolist() == pytest.approx([1.0] * 6, abs=1e-4)
        assert excess[["border", "rest"]].isna().all()


def test_padding_on_both_sides_makes_a_stripe_and_no_step() -> None:
    """A box of 5 sees 3/5 and 4/5 of the image in the two columns at a border: noise of mean 1/2 loses 0.2 and 0.1."""
    seams = run(box(5), noise(4, 3, 128, 128))
    whole, stripe, step = row(seams, "whole", "stripe"), row(seams, "excess", "stripe"), row(seams, "excess")
    assert row(seams, "tiled", "stripe", "vertical").border == pytest.approx(255 * 0.3 / 4 * 31 / 32, rel=0.1)
    assert whole.low < 1 < whole.high
    assert stripe.low > 2
    assert stripe.p_value < 0.005
    assert step.ratio < step.chance_high  # two dark columns meet at the line itself, and the steps are beside it
    assert step.p_value > 0.05
    assert (profile(seams, "tiled")[1:3] > 2 * profile(seams, "whole")[1:3]).all()


def test_a_lopsided_kernel_makes_a_seam_at_the_border() -> None:
    lopsided = nn.Sequential(nn.ZeroPad2d((4, 0, 4, 0)), nn.Conv2d(3, 3, 5, groups=3, bias=False))
    nn.init.constant_(lopsided[1].weight, 1 / 25)
    seams = run(lopsided, noise(4, 3, 96, 96))
    excess = row(seams, "excess")
    assert excess.ratio == pytest.approx(row(seams, "tiled").ratio / row(seams, "whole").ratio)
    assert excess.low > 2
    assert excess.p_value == pytest.approx(1 / 24**2)
    assert excess.chance_high < excess.ratio


def test_normalisation_of_each_tile_makes_jumps() -> None:
    """Of a slope of 1 a pixel, bands of 6 differ by 6; tiles of 24 that all begin alike fall by 24 between them."""
    slope = torch.linspace(0, 1, 96).expand(2, 3, 96, 96)
    images = 0.5 * slope + 0.01 * noise(2, 3, 96, 96)
    generator = Generator(module=nn.InstanceNorm2d(3), name="net", source=Pictures(images), output_range=(-3, 3))
    seams = measure_seams(generator, [0, 1], 4, batch=16)
    assert seams.band == (6, 6)
    assert row(seams, "tiled", "jump", "vertical").ratio == pytest.approx((24 - 6) / 6, rel=0.03)
    assert row(seams, "whole", "jump", "vertical").ratio == pytest.approx(1, abs=0.03)
    assert row(seams, "excess", "jump", "vertical").low > 2
    assert row(seams, "tiled", "step", "vertical").ratio > 10
    assert row(seams, "tiled", "jump", "horizontal").ratio == pytest.approx(1, abs=0.3)


class Doubled(nn.Module):
    """Twice the size, by nearest neighbours."""

    def forward(self, images: Tensor) -> Tensor:
        return images.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_the_grid_of_an_upsampling_is_no_excess() -> None:
    seams = run(Doubled(), noise(3, 1, 32, 48))
    assert (seams.tile, seams.tiled.shape, seams.map.shape) == ((16, 24), (64, 96, 3), (64, 96))
    assert row(seams, "tiled").ratio == pytest.approx(row(seams, "input").ratio * 2, rel=0.15)  # of odd lines none
    assert row(seams, "excess").ratio == pytest.approx(1)
    assert row(seams, "excess").p_value == 1
    sides = seams.profile.query("lines == 'vertical'").groupby("what").distance.max()
    assert sides.to_dict() == {"tiled": 12, "whole": 12, "input": 6}


def test_the_batch_does_not_matter_and_the_worst_image_is_shown() -> None:
    images = 0.2 * noise(3, 3, 32, 32) + torch.tensor([0.1, 0.5, 0.3]).reshape(3, 1, 1, 1) * checkers(4, 8)
    singly, together = run(box(3), images, batch=1), run(box(3), images, batch=64)
    pd.testing.assert_frame_equal(singly.table, together.table, rtol=1e-4)
    seams = run(nn.Identity(), images)
    assert seams.worst == 1
    assert np.array_equal(seams.tiled, (images[1].permute(1, 2, 0) * 255).round().byte().numpy())
    assert seams.map[:, 8].mean() > 3 * seams.map[:, 9].mean()


def test_where_nothing_changes_ratios_are_no_numbers() -> None:
    for images in (torch.full((2, 1, 16, 16), 0.5), 0.5 * checkers(4, 4)):
        seams = run(nn.Identity(), images)
        figures = seams.table[["ratio", "low", "high", "chance_low", "p_value"]]
        assert figures.isna().all(axis=None)
        assert seams.profile.ratio.isna().all()
    assert row(seams, "tiled").border == 127.5


class Fussy(nn.Module):
    """Returns its input, if that is 8×8; of anything else what `otherwise` says."""

    multiple = 8

    def __init__(self, otherwise: Exception | float | None = None) -> None:
        super().__init__()
        self.otherwise = otherwise
        self.most = 0

    def forward(self, images: Tensor) -> Tensor:
        self.most = max(self.most, len(images))
        if images.shape[2:] == (8, 8) or self.otherwise is None:
            return images
        if isinstance(self.otherwise, Exception):
            raise self.otherwise
        return images * self.otherwise


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Fussy(ValueError("8×8 is needed")), "ValueError: 8×8 is needed"),
        (Fussy(torch.OutOfMemoryError("CUDA out of memory")), "memory does not suffice"),
        (Fussy(math.nan), "not finite"),
        (nn.Conv2d(1, 1, 3), "come out as 22×22 pixels, their tiles together as 18×18"),
    ],
)
def test_what_cannot_run_on_the_whole_has_no_control(module: nn.Module, reason: str) -> None:
    seams = run(module, noise(2, 1, 24, 24), tiles=3)
    assert reason in (seams.no_whole or "")
    assert seams.whole is None
    assert set(seams.table.what) == set(seams.profile.what) == {"tiled", "input"}


def test_too_large_an_image_does_not_go_whole_through_a_network_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "MOST", 32**2)
    assert run(nn.Identity(), noise(1, 1, 32, 32)).no_whole is None
    assert "64×64 pixels are too large" in (run(Doubled(), noise(1, 1, 32, 32)).no_whole or "")


def test_no_more_tiles_than_a_batch_go_through_the_network_at_once() -> None:
    module = Fussy(ValueError())
    run(module, noise(1, 1, 24, 24), tiles=3, batch=4)
    assert module.most == 4


def test_images_are_cropped_to_what_the_network_takes() -> None:
    seams = run(Fussy(), noise(1, 1, 23, 31), tiles=2)
    assert (seams.given, seams.used, seams.tile) == ((23, 31), (16, 16), (8, 8))
    decoder = Fussy()
    decoder.inputs = 0  # takes maps of latents, and the multiple is that of the images to encode
    assert run(decoder, noise(1, 1, 23, 31), tiles=2).used == (22, 30)


@pytest.mark.parametrize("tiles", [0, 1, 4])
def test_the_tiles_that_are_possible_are_told(tiles: int) -> None:
    with pytest.raises(UsageError, match=rf"tiles={tiles}: .*24×31.*at least 8; give 2 to 3\."):
        run(Fussy(), noise(1, 1, 24, 31), tiles=tiles)
    with pytest.raises(UsageError, match=rf"tiles={tiles}: .*15×31"):
        run(Fussy(), noise(1, 1, 15, 31), tiles=tiles)


def test_what_is_no_generator_of_images_is_told() -> None:
    for shape in ((8,), (8, 1, 1)):
        generator = Generator(module=nn.Identity(), name="net", source=NormalLatents(shape))
        with pytest.raises(UsageError, match=r"tiles=2: net .*inputs"):
            measure_seams(generator, [0], 2, batch=1)


def test_what_fails_on_a_tile_is_told() -> None:
    with pytest.raises(DissectError, match="sample 0"):
        run(nn.ReflectionPad2d(9), noise(1, 1, 16, 16))
    with pytest.raises(DissectError, match=r"net .*finite on sample 0"):
        run(nn.Identity(), torch.full((1, 1, 16, 16), torch.nan))
    with pytest.raises(UsageError, match=r"tiles=4: .*2×2.*4×4"):
        run(nn.AvgPool2d(2), noise(1, 1, 16, 16))
