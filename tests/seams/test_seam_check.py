"""The check of tile seams as a user meets it: command, folder, verdict, page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from ganatomy.cli import main
from ganatomy.dissect import ModelSpec
from ganatomy.dissect.seams.check import check_seams
from ganatomy.dissect.seams.result import SeamCheck
from ganatomy.hooks.errors import DissectError, UsageError

from ..support.browser import expect, until
from ..support.families import photos


class Normed(nn.Module):
    """Shifts every tile's colour to the same mean, as instance norm does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images - images.mean((2, 3), keepdim=True)


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 1), Normed())


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh())


@pytest.fixture
def tiles(tmp_path: Path) -> str:
    return photos(tmp_path / "tiles <b>", count=6, side=64)


def test_seams_are_told_and_shown(tiles: str, tmp_path: Path, page: Any) -> None:
    arguments = ["checkup", "--model", "tests.seams.test_seam_check:normed", "--inputs", tiles, "--tiles", "2"]
    arguments += ["--out", str(tmp_path / "it")]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "Tiles show: their borders stand out by a step" in shown.stderr
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert told["verdict"] == "seams"
    rows = {(row["what"], row["lines"], row["measure"]): row for row in told["seams"]}
    assert rows["excess", "all", "step"]["low"] > 1
    assert abs(rows["input", "all", "step"]["ratio"] - rows["whole", "all", "step"]["ratio"]) < 0.1
    page.goto(Path(shown.stdout.strip()).resolve().as_uri())
    until(page, "[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    expect(page.locator("#pictures img")).to_have_count(3)
    expect(page.locator("#ratios tbody tr")).to_have_count(12)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    again = SeamCheck.load(tmp_path / "it")
    assert again.info["verdict"] == "seams"
    assert again.pictures["tiled"].shape == (64, 64, 3)


def test_a_pointwise_network_leaves_no_seams(tiles: str, tmp_path: Path) -> None:
    result = check_seams(
        ModelSpec("tests.seams.test_seam_check:plain", inputs=tiles), 4, out=tmp_path / "it", quiet=True
    )
    assert result.info["verdict"] == "clean"
    assert result.info["sentence"].startswith("No significant seams")
    excess = result.table[result.table["what"] == "excess"]
    assert (excess.ratio - 1).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tiles": 1}, "tiles=1: .* at least 2"),
        ({"tiles": 40}, "tiles=40"),
        ({"tiles": 2, "samples": 9}, "6 images.*sample 6"),
    ],
)
def test_what_cannot_be_tiled_is_named(options: dict[str, Any], said: str, tiles: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        check_seams(
            ModelSpec("tests.seams.test_seam_check:plain", inputs=tiles), **options, out=tmp_path / "it", quiet=True
        )
    assert not (tmp_path / "it").exists()


def test_latents_have_no_tiles_and_critics_no_place(tmp_path: Path, tiles: str) -> None:
    with pytest.raises(UsageError, match=r"tiles=2.*inputs"):
        check_seams("progan_scenes", 2, samples=1, out=tmp_path / "it", quiet=True)
    done = CliRunner().invoke(main, ["checkup", "--model", "x:y", "--tiles", "2", "--reference", tiles])
    assert done.exit_code == 2
    assert "--reference does not go with --tiles" in done.stderr


def test_a_damaged_folder_is_named(tiles: str, tmp_path: Path) -> None:
    spec = ModelSpec("tests.seams.test_seam_check:plain", inputs=tiles)
    check_seams(spec, 2, out=tmp_path / "it", quiet=True)
    (tmp_path / "it" / "seams.json").write_text("{")
    with pytest.raises(DissectError, match=r"seams\.json"):
        check_seams(spec, 2, out=tmp_path / "it", quiet=True)
