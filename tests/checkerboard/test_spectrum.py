"""Peaks of grids in the spectrum, on images whose grid is known."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganatomy.dissect.checkerboard import Spectrum, broadband, peaks
from ganatomy.dissect.checkerboard.spectrum import contrasts, grids, harmonics, log_power
from ganatomy.dissect.scenes.render import render

GRIDS = {(2, 2), (4, 4), (8, 8)}


def scenes(count: int = 96, seed: int = 5) -> Tensor:
    return torch.from_numpy(np.asarray(render(range(count), side=64, seed=seed)[0], np.float32))


def noise(count: int = 96, side: int = 64, seed: int = 0) -> Tensor:
    """Smooth pink noise: power falls with the square of the frequency."""
    white = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    radius = (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.fftfreq(side) ** 2).sqrt().clamp(min=1 / side)
    pink = torch.fft.ifft2(torch.fft.fft2(white) / radius).real
    return (0.5 + 0.12 * pink / pink.std()).clamp(0, 1)


def board(period: int, side: int = 64) -> Tensor:
    """A square wave of that period along both axes, ±1; of period 2 a checkerboard."""
    axis = torch.where(torch.arange(side) % period < period // 2, 1.0, -1.0)
    return axis[:, None] * axis


def spectrum(images: Tensor) -> Spectrum:
    sums = Spectrum()
    for batch in images.split(32):
        sums.add(batch)
    return sums


def jpeg(images: Tensor, quality: int) -> Tensor:
    out = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "JPEG", quality=quality)
        out.append(torch.from_numpy(np.asarray(Image.open(file), np.float32) / 255).permute(2, 0, 1))
    return torch.stack(out)


def test_log_power_is_that_of_the_definition() -> None:
    """One image, by sums over cosines and sines."""
    image = torch.rand(1, 2, 6, 8, generator=torch.Generator().manual_seed(1))
    window = torch.hann_window(6)[:, None] * torch.hann_window(8)
    power = torch.full((6, 8), 2 / 12 / 255**2 * float(window.square().sum()))
    y, x = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    for channel in image[0]:
        shown = (channel - channel.mean()) * window
        for j in range(6):
            for k in range(8):
                angle = 2 * torch.pi * (j * y / 6 + k * x / 8)
                power[j, k] += (shown * angle.cos()).sum() ** 2 + (shown * angle.sin()).sum() ** 2
    assert torch.allclose(log_power(image)[0], 10 * power.log10(), atol=1e-3)


def test_sums_do_not_depend_on_batches() -> None:
    images = noise(40)
    at_once, in_batches = Spectrum(), Spectrum()
    at_once.add(images)
    for batch in images.split(7):
        in_batches.add(batch)
    for name in ("mean", "excess", "spread"):
        assert torch.allclose(getattr(at_once, name), getattr(in_batches, name), atol=1e-9)


def own_grids(table: pd.DataFrame) -> list[str]:
    """Periods with a peak that are no divisors of a coarser period with a peak."""
    sides = {period: [int(side) for side in period.split("×")] for period in table.period[table.peak]}
    return [
        period
        for period, side in sides.items()
        if not any(
            other != side and all(b % a == 0 for a, b in zip(side, other, strict=True)) for other in sides.values()
        )
    ]


@pytest.mark.parametrize("images", [noise(), scenes()])
def test_images_without_a_grid_have_no_peak_beyond_what_their_like_have(images: Tensor) -> None:
    like = noise(seed=7) if torch.equal(images, noise()) else scenes(seed=8)
    table = peaks(spectrum(images), GRIDS, spectrum(like))
    assert not table.peak.any()
    assert own_grids(table) == []


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("levels", [2, 6])
def test_a_planted_grid_is_found_with_its_period(period: int, levels: int) -> None:
    for images in (noise(), scenes()):
        table = peaks(spectrum((images + board(period) * levels / 255).clamp(0, 1)), GRIDS)
        assert table.peak.any()
        assert own_grids(table) == [f"{period}×{period}"]
        top = table.iloc[0]
        assert (top.vertical * period % 1, top.horizontal * period % 1) == (0, 0)
        assert top.low < top.excess < top.high


def test_the_height_of_a_peak_does_not_depend_on_how_many_images_there_are() -> None:
    few, many = (peaks(spectrum((noise(count) + board(2) * 3 / 255).clamp(0, 1)), GRIDS).iloc[0] for count in (24, 192))
    assert few.excess == pytest.approx(many.excess, abs=1)
    assert few.high - few.low > 1.4 * (many.high - many.low)


def test_stripes_along_one_axis_and_sides_that_differ() -> None:
    stripes = torch.where(torch.arange(96) % 4 < 2, 1.0, -1.0)
    images = torch.cat([noise(64), noise(64, seed=2)[..., :32]], 3)  # 64×96
    table = peaks(spectrum((images + stripes * 3 / 255).clamp(0, 1)), {(4, 4), (2, 2)})
    assert table.peak.any()
    top = table.iloc[0]
    assert (top.vertical, top.horizontal) == (0, 0.25)
    upright = peaks(spectrum((images + stripes * 3 / 255).clamp(0, 1)), {(2, 4)})
    assert upright.iloc[0].period == "2×4"


@pytest.mark.parametrize("quality", [5, 20, 75])
@pytest.mark.parametrize("draw", [noise, scenes])
def test_jpeg_is_not_blamed_on_a_stride_of_two(draw: Callable[..., Tensor], quality: int) -> None:
    images = jpeg(draw(), quality)
    real = spectrum(draw(seed=3))
    assert not {"2×2", "4×4"} & set(own_grids(peaks(spectrum(images), GRIDS, real)))
    both = (images + board(2) * 6 / 255).clamp(0, 1)  # a grid of its own is found all the same
    assert bool(peaks(spectrum(both), GRIDS, real).query("period == '2×2'").peak.any())


def test_lines_between_blocks_of_eight_are_not_blamed_on_a_stride_of_two() -> None:
    """Every eighth row and column is darker: the frequencies one quarter and one half are theirs, too."""
    lines = (torch.arange(64) % 8 == 0).float()
    images = (noise() - 0.03 * (lines[:, None] + lines).clamp(max=1)).clamp(0, 1)
    table = peaks(spectrum(images), GRIDS)
    assert set(table.period[table.peak]) == {"2×2", "4×4", "8×8"}
    assert own_grids(table) == ["8×8"]


def test_a_ridge_is_no_peak_nor_is_the_bottom_of_a_valley() -> None:
    log = torch.zeros(64, 64, dtype=torch.float64)
    log[0, :] += 20  # all along an axis
    log[:, 32] -= 15  # nearest-neighbour upsampling
    log[32, :] -= 15
    log = log.clamp(min=-25)  # rounding fills it up where they cross
    assert float(contrasts(log).amin(0)[harmonics((64, 64), (8, 8))].max()) <= 0
    log[0, 16] += 6  # on the ridge, and above it
    assert float(contrasts(log).amin(0)[0, 16]) == pytest.approx(6)


def test_only_grids_that_can_be_told_from_their_neighbours_are_looked_for() -> None:
    assert grids((64, 64), {(2, 2), (8, 8), (16, 16), (3, 3)}) == [(2, 2), (8, 8)]
    assert int(harmonics((64, 64), (4, 4)).sum()) == 15
    empty = peaks(spectrum(noise(8, side=8)), {(2, 2)})
    assert empty.empty
    assert own_grids(empty) == []


def test_broadband_excess_is_told_apart_from_peaks() -> None:
    """White noise raises the upper octave everywhere; a grid hardly at all."""
    plain = spectrum(noise(seed=1))
    rough = noise(seed=2) + 0.08 * torch.randn(96, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    excess = broadband(spectrum(rough.clamp(0, 1)), plain)
    assert excess["low"] > 2
    assert not peaks(spectrum(rough.clamp(0, 1)), GRIDS).peak.any()
    gridded = broadband(spectrum((noise(seed=3) + board(2) * 3 / 255).clamp(0, 1)), plain)
    assert abs(gridded["excess"]) < 0.2
