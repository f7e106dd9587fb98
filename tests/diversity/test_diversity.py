"""An audit of diversity as a user meets it, on a generator that is sabotaged on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from ganatomy.cli import main
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.diversity import Diversity, audit
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import ColourSegmenter, Painter
from ..support.browser import expect, until

pytestmark = pytest.mark.slow

Audit = Callable[..., Diversity]


class Without(Painter):
    """Draws no green: the unit's maps are lost on the way to the colours."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = Lost()


class Lost(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps * torch.tensor([1.0, 0, 1, 1, 1, 1])[:, None, None]


class Few(NormalLatents):
    """Only three latents, over and over."""

    def __call__(self, indices: Any) -> Tensor:
        return super().__call__([index % 3 for index in indices])


def without_green() -> Generator:
    return Generator(module=Without(), name="no green <b>", source=NormalLatents((6,)), layers=("paint", "colour"))


def colours() -> ColourSegmenter:
    return ColourSegmenter()


@pytest.fixture
def real(painter: Generator, tmp_path: Path) -> Path:
    """Images of the healthy painter, of other latents."""
    folder = tmp_path / "real"
    folder.mkdir()
    with torch.inference_mode():
        drawn = painter(painter.latents(range(7000, 7300)))
    for number, image in enumerate(drawn):
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def look(real: Path, tmp_path: Path) -> Audit:
    def call(generator: Generator, **options: Any) -> Diversity:
        usual = {"reference": real, "segmenter": ColourSegmenter(), "samples": 150, "out": tmp_path / "audit"}
        return audit(generator, **(usual | options), quiet=True)

    return call


def test_what_is_as_varied_raises_nothing(look: Audit, painter: Generator) -> None:
    found = look(painter)
    assert found.info["verdict"] == "varied", found.info["sentence"]
    assert not found.classes.verdict.any()
    assert found.info["layer"] is None
    assert (found.whole.low <= found.whole.value).all()
    assert (found.whole.value <= found.whole.high).all()
    assert look(painter).info["created"] == found.info["created"]
    with pytest.raises(UsageError, match="holds another result"):
        look(painter, samples=151)


class Bounded(NormalLatents):
    """There are no more samples than 150, as where each is an image of a folder."""

    def __call__(self, indices: Sequence[int]) -> Tensor:
        assert max(indices) < 150
        return super().__call__(indices)


def test_a_batch_may_be_larger_than_the_number_of_samples(look: Audit, painter: Generator) -> None:
    assert look(replace(painter, source=Bounded((6,))), batch_size=400).info["verdict"] == "varied"


def test_a_class_that_is_never_drawn_is_named_first(look: Audit, real: Path) -> None:
    found = look(without_green())
    first = found.classes.iloc[0]
    assert (first["class"], first.verdict, first.presence) == ("green", "missing", 0)
    assert found.info["verdict"] != "varied"
    assert found.info["sentence"].startswith("Classes that differ from the real images': green (missing)")
    assert found.classes.set_index("class").distance_part.idxmax() == "green"
    shown = found.pictures["missing_1"]  # real images with most green
    assert all(((image[..., 1] > 200) & (image[..., 0] < 50)).any() for image in shown)


def test_three_images_over_and_over_are_a_collapse(look: Audit, painter: Generator) -> None:
    found = look(replace(painter, source=Few((6,))))
    assert found.info["verdict"] == "collapsed"
    assert {"twins", "spread", "coverage"} <= set(found.whole.metric[found.whole.alarm])
    assert 1 < found.info["support"]["low"] <= found.info["support"]["estimate"] < 6
    one, other = found.pictures["twins"][0]
    assert (one == other).all()


def test_the_command_tells_and_shows(real: Path, tmp_path: Path, page: Any) -> None:
    arguments = ["diversity", "--model", "tests.diversity.test_diversity:without_green", "--reference", str(real)]
    arguments += [
        "--segmenter",
        "tests.diversity.test_diversity:colours",
        "--samples",
        "120",
        "--out",
        str(tmp_path / "it"),
    ]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "green (missing)" in shown.stderr
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert told["classes"][0]["verdict"] == "missing"
    assert {row["layer"] for row in told["layers"]} == {"latent", "paint", "colour", "image"}
    page.goto(Path(shown.stdout.strip()).resolve().as_uri())
    until(page, "[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    expect(page.locator("h1")).to_have_text("no green <b>")
    expect(page.locator("#classes tbody tr").first).to_contain_text("missing")
    expect(page.locator("#gallery h3").first).to_contain_text("green: never drawn")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_what_cannot_be_is_said_in_one_line(look: Audit, painter: Generator, tmp_path: Path) -> None:
    for options, said in (
        ({"reference": None}, "reference=FOLDER"),
        ({"samples": 10}, "samples=10"),
        ({"reference": tmp_path / "none"}, "does not exist"),
        ({"seed": -1}, "seed=-1"),
    ):
        with pytest.raises(UsageError, match=said):
            look(painter, **options)
    assert not (tmp_path / "audit").exists()
    look(painter)
    (tmp_path / "audit" / "whole.csv").unlink()
    with pytest.raises(DissectError, match=r"whole\.csv"):
        look(painter)
