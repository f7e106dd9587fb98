"""Checkups from end to end, on a generator whose checkerboard is planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Checkup, load_generator
from ganatomy.dissect.checkerboard.critic_gradient import gradient_side
from ganatomy.dissect.checkerboard.ripple import RippleMeter, phase_means
from ganatomy.dissect.checkerboard.upsampling import upsamplings
from ganatomy.hooks import Tap
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.reports.checkup import write_checkup

from ..support.boards import SIZE, Board, Repeated, board, flat, of_another_size, photographs, strided, unstrided
from ..support.browser import expect

pytestmark = pytest.mark.slow


def check(tmp_path: Path, name: str = "it", **options: Any) -> Checkup:
    usual: dict[str, Any] = {"model": board(), "samples": 64, "out": tmp_path / name, "quiet": True}
    return dissect.checkup(**(usual | options))


def test_phase_means_are_weighted_means_of_each_phase() -> None:
    maps = torch.randn(2, 3, 13, 10, generator=torch.Generator().manual_seed(0))
    means = phase_means(maps, (2, 3))
    window = torch.hann_window(12)[:, None] * torch.ones(9)  # three periods only across: no fading
    for a in range(2):
        for b in range(3):
            weights, values = window[a::2, b::3], maps[:, :, :12, :9][:, :, a::2, b::3]
            assert torch.allclose(means[:, :, a, b], (values * weights).sum((2, 3)) / weights.sum(), atol=1e-6)


def test_a_slope_and_a_border_make_no_ripple_but_a_grid_does() -> None:
    slope = torch.linspace(0, 1, 32).expand(1, 1, 32, 32).clone()
    slope[..., :2] = 3
    assert float(phase_means(slope, (2, 2)).std()) < 0.01 * float(slope.std())
    grid = torch.zeros(1, 1, 32, 32)
    grid[..., ::2, ::2] = 1
    assert torch.allclose(phase_means(grid, (2, 2))[0, 0], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_the_planted_ripple_is_foretold_measured_and_blamed(tmp_path: Path) -> None:
    result = check(tmp_path)
    (row,) = result.layers.to_dict("records")
    assert (row["layer"], row["taps"], row["uneven"], row["period"]) == ("up", "4 to 4", False, "2×2")
    assert row["foretold"] == pytest.approx(row["measured"], rel=0.02)
    assert row["measured_low"] < row["foretold"] < row["measured_high"]
    assert row["chance"] < 0.3 * row["measured"]
    assert row["p_value"] == pytest.approx(1 / 201)
    # by hand: each colour's mean level, of which the fifth is added to one phase of four
    generator = board()
    with torch.no_grad(), Tap(generator.module, ["units"]) as tap:
        generator(generator.latents(range(64)))
    weight = generator.module.get_submodule("up").weight
    level = tap["units"].mean((0, 2, 3)) @ weight.sum((2, 3)) / (4 + 0.2)
    tile = torch.zeros(3, 2, 2)
    tile[:, 0, 0] = 0.2 * level
    expected = 255 * float((tile - tile.mean((1, 2), keepdim=True)).square().mean().sqrt())
    assert row["levels"] == pytest.approx(expected, rel=0.03)
    assert (result.verdict, result.info["blame"], row["verdict"]) == ("visible", "up", "visible")
    top = result.peaks[result.peaks.set == "images"].iloc[0]
    assert (top.period, bool(top.peak)) == ("2×2", True)
    assert row["own_without"] < 0.5 * row["own"]  # what varies with the colour is left
    assert row["own_equalised"] < 0.6 * row["own"]


def test_a_generator_without_it_is_clean(tmp_path: Path) -> None:
    result = check(tmp_path, model=board(0.0))
    assert result.verdict == "clean"
    assert result.info["blame"] is None
    assert not result.peaks[result.peaks.set == "images"].peak.any()
    assert float(result.layers.foretold[0]) < 1e-6


def test_weights_drawn_anew_ripple_too(tmp_path: Path) -> None:
    result = check(tmp_path, model=board(0.0))
    assert float(result.layers.untrained_foretold[0]) > 0.01
    assert result.info["untrained_peaks"] > 0


def test_numbers_do_not_depend_on_batches(tmp_path: Path) -> None:
    one, other = (check(tmp_path, f"by{size}", batch_size=size) for size in (5, 64))
    numbers = one.layers.select_dtypes("number").columns
    assert np.allclose(one.layers[numbers], other.layers[numbers], rtol=1e-4, atol=1e-7, equal_nan=True)
    assert np.allclose(one.peaks.excess, other.peaks.excess, atol=1e-3)


def test_images_need_not_be_square(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.info["image"] == list(SIZE)
    tall = check(tmp_path, "tall", model=board(size=(64, 16)))
    assert tall.info["blame"] == "up"


def test_it_is_kept_opened_again_and_never_overwritten(tmp_path: Path) -> None:
    result = check(tmp_path)
    again = Checkup.load(tmp_path / "it")
    assert again.info == json.loads(json.dumps(result.info))
    pd.testing.assert_frame_equal(again.peaks, result.peaks, check_exact=False, rtol=1e-4, check_dtype=False)
    kept = (tmp_path / "it" / "checkup.json").stat().st_mtime_ns
    assert check(tmp_path).verdict == result.verdict
    assert (tmp_path / "it" / "checkup.json").stat().st_mtime_ns == kept
    with pytest.raises(UsageError, match=r"samples: .*64.*65"):
        check(tmp_path, samples=65)


def test_another_seed_critic_or_range_is_another_checkup(tmp_path: Path) -> None:
    result = check(tmp_path, critic=strided())
    other = check(tmp_path, "other", seed=5)
    assert not np.allclose(result.peaks.excess, other.peaks.excess)
    heavier = strided()
    nn.init.constant_(heavier.get_parameter("weight"), 2.0)
    with pytest.raises(UsageError, match="critic_sha256"):
        check(tmp_path, critic=heavier)
    with pytest.raises(UsageError, match=r"output_range.*out"):
        check(tmp_path, critic=strided(), model=replace(board(), output_range=(-1.0, 1.0)))


@pytest.mark.parametrize("fault", ["small", "unknown", "spectral", "black"])
def test_layers_that_cannot_be_equalised_are_checked_all_the_same(fault: str, tmp_path: Path, page: Any) -> None:
    generator = board()
    module = generator.module
    assert isinstance(module, Board)
    if fault == "small":  # a kernel smaller than its stride leaves three pixels of four empty
        module.up = nn.ConvTranspose2d(4, 3, 1, 2, 0, 1, bias=False)
    elif fault == "unknown":  # the same map of every unit four times, as a view
        module.up = Repeated()
    elif fault == "spectral":
        module.up = nn.utils.parametrizations.spectral_norm(module.up)
    else:
        nn.init.zeros_(module.up.weight)
        generator = replace(generator, output_range=(10.0, 11.0))
    module.requires_grad_(False)
    result = check(tmp_path, model=generator)
    (row,) = result.layers.to_dict("records")
    if fault in ("small", "unknown"):
        assert row["measured"] > 3 * row["chance"]
        assert (result.verdict, result.info["blame"]) == ("visible", row["layer"])
    assert np.isnan(row["own_equalised"])
    page.goto(write_checkup(result).as_uri())
    expect(page.locator("#layers tbody tr")).to_have_count(1)


def test_the_gradient_of_a_known_critic(tmp_path: Path) -> None:
    """A pixel is reached by 1, 2, 2 or 4 windows, by its phase, and the gradient's energy is the square of that."""
    table = gradient_side(board(), strided(), range(20), 8, 0)
    (row,) = table.to_dict("records")
    assert (row["taps"], row["uneven"], row["period"]) == ("1 to 4", True, "2×2")
    energy = np.array([1.0, 4.0, 4.0, 16.0])
    assert row["measured"] == pytest.approx(energy.std() / energy.mean(), rel=0.02)
    assert row["image"] == pytest.approx(row["measured"])
    assert row["chance"] < 0.5 * row["measured"]
    result = check(tmp_path, critic=strided())
    assert result.gradient.measured[0] == pytest.approx(row["measured"], rel=1e-3)


def test_pooling_layers_are_checked_too() -> None:
    critic = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.AvgPool2d(2))
    table = gradient_side(board(), critic, range(20), 8, 0)
    assert list(table.kind) == ["max pooling", "average pooling"]
    assert list(table.period) == ["2×2", "4×4"]
    assert table.measured[1] < 1e-6  # averaging sends the same to each


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 1}, "samples=1: .* at least 32"),
        ({"seed": -1}, "seed=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"model": flat()}, "makes no map finer"),
        ({"critic": of_another_size()}, r"critic .*\(2, 3, 32, 48\)"),
        ({"critic": unstrided()}, "critic .*strided convolution.*pooling"),
        ({"critic": "not a spec"}, "file.py:name"),
        ({"critic": "tests.support.boards:flat"}, r"Generator.*torch\.nn\.Module"),
        ({"reference": "nowhere"}, "nowhere does not exist"),
        ({"device": "moon"}, "device.* moon"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        check(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    broken = board()
    broken.module.get_submodule("up").weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(DissectError, match=r"\bup\b.*finite on samples 0 to"):
        check(tmp_path, model=broken)
    assert list(tmp_path.iterdir()) == []


def test_no_hook_stays_behind() -> None:
    generator = board()
    RippleMeter(generator, upsamplings(generator), range(8)).measure(range(8), 4)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in generator.module.modules())


def test_the_embedded_dcgan_has_what_it_was_made_for_and_its_control_has_not(tmp_path: Path) -> None:
    result = dissect.checkerboard.checkup("dcgan_scenes", samples=256, out=tmp_path / "one", quiet=True)
    uneven = result.layers[result.layers.uneven]
    assert list(uneven.layer) == ["main.9"]
    assert float(uneven.correlation.iloc[0]) >= 0.9
    assert result.verdict == "visible"
    assert result.info["blame"] == "main.9"  # whose kernel its stride does not divide
    control = dissect.checkerboard.checkup("dcgan_scenes_resize", samples=256, out=tmp_path / "other", quiet=True)
    assert not control.peaks[control.peaks.set == "images"].peak.any()
    assert set(control.layers.verdict) == {"clean"}
    assert load_generator("dcgan_scenes").layers == ("main.2", "main.5", "main.8", "main.11")


def test_the_command_tells_what_it_found(tmp_path: Path) -> None:
    arguments = ["checkup", "--model", "tests.support.boards:make", "--samples", "64", "--out", str(tmp_path / "it")]
    shown = CliRunner().invoke(main, [*arguments, "--critic", "tests.support.boards:strided"])
    assert shown.exit_code == 0, shown.output
    assert Path(shown.stdout.strip().splitlines()[-1]).is_file()
    assert "Visible" in shown.output
    told = json.loads(
        CliRunner().invoke(main, [*arguments, "--critic", "tests.support.boards:strided", "--json"]).stdout
    )
    assert (told["verdict"], told["blame"]) == ("visible", "up")
    assert told["layers"][0]["layer"] == "up"
    assert told["gradient"][0]["uneven"] is True
    wrong = CliRunner().invoke(main, ["checkup", "--model", "tests.support.boards:flat", "--out", str(tmp_path / "x")])
    assert wrong.exit_code == 2
    assert "makes no map finer" in wrong.output
    damaged = tmp_path / "it" / "arrays.npz"
    damaged.write_bytes(b"nothing")
    hurt = CliRunner().invoke(main, [*arguments, "--critic", "tests.support.boards:strided"])
    assert hurt.exit_code == 1
    assert "arrays.npz" in hurt.output


def test_names_are_escaped_on_the_page(tmp_path: Path) -> None:
    result = check(tmp_path)
    result.info["generator"] = "<img src=x onerror=alert(1)>"
    result.layers.loc[0, "reason"] = "<script>alert(2)</script>"
    page = write_checkup(result).read_text()
    assert "<img src=x" not in page
    assert "<script>alert" not in page


def test_with_real_images_a_checkup_tells_what_is_lacking(tmp_path: Path, page: Any) -> None:
    photographs(tmp_path / "boards")
    arguments = ["checkup", "--model", "tests.support.boards:make", "--samples", "100", "--out", str(tmp_path / "it")]
    alone = dissect.checkup(board(), samples=100, out=tmp_path / "alone", quiet=True)
    assert alone.diversity is None
    page.goto(write_checkup(alone).resolve().as_uri())
    expect(page.locator("#diversity")).to_contain_text("--reference")
    with pytest.raises(UsageError, match="reference"):
        dissect.checkup(board(), samples=100, segmenter="scenes", out=tmp_path / "alone", quiet=True)
    arguments += ["--reference", str(tmp_path / "boards"), "--segmenter", "tests.conftest:Soft"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    result = Checkup.load(tmp_path / "it")
    assert result.diversity is not None
    assert result.diversity.info["images"] == 100
    page.goto(Path(shown.stdout.strip().splitlines()[-1]).resolve().as_uri())
    expect(page.locator("#diversity .verdict")).to_have_text(result.diversity.info["sentence"])
    expect(page.locator("#diversity tbody tr.target")).to_have_count(int(result.diversity.whole.alarm.sum()))
    page.get_by_role("link", name="All classes").click()
    expect(page.locator("h1")).to_have_text(result.info["generator"])
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert told["diversity"]["verdict"] == result.diversity.info["verdict"]
