"""What `dissect power` foretells, against runs that were made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Dissection, Generator, NormalLatents
from ganatomy.hooks.errors import UsageError

from ..conftest import ColourSegmenter, Go

pytestmark = pytest.mark.slow

UNITS = 60


class Faint(nn.Module):
    """A red square at one of nine places; every unit sees it through noise of its own, the same strength for all."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.paint = nn.Identity()

    def forward(self, latents: Tensor) -> Tensor:
        axis = torch.arange(8)
        corner = (latents[:, :2].sigmoid() * 3).floor()
        across = (axis >= corner[:, :1]) & (axis < corner[:, :1] + 5)
        down = (axis >= corner[:, 1:2]) & (axis < corner[:, 1:2] + 5)
        square = (down[:, :, None] & across[:, None]).float()
        noise = latents[:, 2:].view(-1, UNITS, 8, 8)
        maps = self.paint(noise + self.strength * square[:, None])
        return torch.stack([square + 0 * maps.sum(1), 0 * square, 0 * square], 1) * 2 - 1


def faint(strength: float, samples: int, folder: Path) -> Dissection:
    source = NormalLatents((2 + UNITS * 64,))
    model = Generator(module=Faint(strength), name="faint", source=source, layers=("paint",))
    return dissect.run(
        model, layers=[1], segmenter=ColourSegmenter(), samples=samples, threshold="quantile", quantile=0.2, grid=8,
        out=folder, quiet=True,
    )  # fmt: skip


def test_the_samples_needed_give_intervals_of_the_wanted_width(tmp_path: Path) -> None:
    few = faint(0.5, 150, tmp_path / "few")
    table = dissect.power(few, width=0.01)
    assert table["class"].tolist() == ["red"]
    needed = int(table.samples_needed[0])
    assert table.interval_width[0] > 0.012
    many = faint(0.5, needed, tmp_path / "many")
    assert dissect.power(many).interval_width[0] == pytest.approx(0.01, rel=0.12)


def test_as_many_units_are_labelled_as_the_power_foretells(tmp_path: Path) -> None:
    compared = 0
    for strength in (0.03, 0.06, 0.09):
        truth = np.median(faint(strength, 3000, tmp_path / f"truth-{strength}").units.iou)
        found = faint(strength, 300, tmp_path / f"run-{strength}")
        chances = np.linspace(0.02, 0.98, 49)
        detectable = [float(dissect.power(found, power=chance).detectable_iou[0]) for chance in chances]
        foretold = float(np.interp(truth, detectable, chances, left=0, right=1))
        assert found.units.labelled.mean() == pytest.approx(foretold, abs=0.15)
        compared += 0.1 < foretold < 0.9
    assert compared


def test_what_is_told_on_screen_and_as_json(go: Go, tmp_path: Path) -> None:
    go()
    done = CliRunner().invoke(main, ["power", str(tmp_path / "run")])
    assert done.exit_code == 0
    assert "detectable" in done.stderr
    told = json.loads(CliRunner().invoke(main, ["power", str(tmp_path / "run"), "--json"]).stdout)
    assert told["samples"] == 200
    assert {row["class"] for row in told["classes"]} == {"red", "green", "blue", "yellow"}
    assert all(row["samples_needed"] >= 2 for row in told["classes"])


def test_what_cannot_be_told(go: Go, tmp_path: Path) -> None:
    found = go(samples=40)
    with pytest.raises(UsageError, match="width=2"):
        dissect.power(found, width=2)
    with pytest.raises(UsageError, match="power=1"):
        dissect.power(found, power=1)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(UsageError, match="not tested"):
        dissect.power(go(samples=40, significance="off"))
