"""Runs of every shape that a stranger's models may give: none, one and very many of everything, up to the page."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.reports.pages import write_report
from ganatomy.segmenters import Vocabulary

from ..support.browser import expect


@dataclass(frozen=True)
class Shape:
    """What a run may be like."""

    units: int
    second_layer: bool
    classes: int
    seen: frozenset[int]  # classes that occur, modulo how many there are; none: all is unlabelled
    samples: int
    side: int
    constant: bool  # featuremaps without any region
    significance: str
    basis: str
    intervention: str


SHAPES = st.builds(
    Shape,
    units=st.sampled_from([1, 2, 5]),
    second_layer=st.booleans(),
    classes=st.sampled_from([1, 2, 3, 150, 1000]),
    seen=st.frozensets(st.integers(0, 999), max_size=3),
    samples=st.sampled_from([2, 3, 8, 40]),
    side=st.sampled_from([8, 16]),
    constant=st.booleans(),
    significance=st.sampled_from(["fast", "off"]),
    basis=st.sampled_from(["units", "pca"]),
    intervention=st.sampled_from(["none", "ablate", "insert", "scan", "by units"]),
)


class Blobs(nn.Module):
    """latents (N, 4) -> images (N, 3, side, side) of smooth colours."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.side = shape.side
        self.first = nn.Conv2d(4, shape.units, 1)
        self.second = nn.Conv2d(shape.units, 3, 1)
        if shape.constant:
            nn.init.zeros_(self.first.weight)

    def forward(self, latents: Tensor) -> Tensor:
        axis = torch.linspace(-1, 1, 4)
        plane = torch.stack([axis[:, None] + 0 * axis, axis + 0 * axis[:, None]])
        maps = torch.cat([latents[:, :2, None, None] * plane, latents[:, 2:, None, None].expand(-1, -1, 4, 4)], 1)
        small = self.second(self.first(maps).tanh())
        return nn.functional.interpolate(small, (self.side, self.side), mode="bilinear").tanh()


class Bands:
    """Names a pixel by its brightness: one of the classes that occur."""

    name = "bands"

    def __init__(self, shape: Shape) -> None:
        self.vocabulary = Vocabulary(
            names=tuple(f"class {k}" for k in range(shape.classes)),
            categories=("thing",) * shape.classes,
            colours=("#336699",) * shape.classes,
        )
        self.seen = torch.tensor(sorted({k % shape.classes for k in shape.seen}), dtype=torch.int64)

    def __call__(self, images: Tensor) -> Tensor:
        bright = images.mean(1, keepdim=True)
        if not len(self.seen):
            return torch.full_like(bright, -1, dtype=torch.int64)
        return self.seen[(bright * len(self.seen)).long().clamp(0, len(self.seen) - 1)]


def page_of(shape: Shape, folder: Path) -> tuple[dissect.Dissection, Path]:
    torch.manual_seed(0)
    generator = Generator(module=Blobs(shape), name="blobs", source=NormalLatents((4,)), layers=("first", "second"))
    namer = Bands(shape)
    run = dissect.run(
        generator,
        layers=["first", "second"] if shape.second_layer else ["first"],
        segmenter=namer,
        samples=shape.samples,
        significance=shape.significance,
        basis=shape.basis,
        out=folder,
        quiet=True,
    )
    same: dict[str, Any] = {"generator": generator, "segmenter": namer, "layer": "first", "quiet": True, "samples": 2}
    if shape.basis == "units" and shape.intervention != "none":
        label = f"class {min(namer.seen.tolist(), default=0)}"
        if shape.intervention == "scan":
            dissect.scan(run, label=label, **same)
        elif shape.intervention == "insert":
            dissect.insert(run, units=[0], value=1.0, where="0.5,0.5", random_sets=0, **same)
        else:
            chosen = {"label": label} if shape.intervention == "ablate" else {}
            dissect.ablate(run, units=[0], random_sets=1, curve=bool(chosen), **chosen, **same)
    return run, write_report(run)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(shape=SHAPES)
def test_a_run_of_any_shape_has_its_page(shape: Shape) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, index = page_of(shape, Path(folder) / "run")
        text = index.read_text()
        data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
        assert len(data["classes"]) == shape.classes
        assert len(data["units"]["unit"]) == len(run.units)
        shown = [one["name"] for one in data["classes"] if one["examples"]]
        assert shown == list(run.classes["class"][run.classes.images > 0])  # those that occur, and no others


OPENED = {
    "nothing": Shape(1, False, 1, frozenset(), 2, 8, True, "fast", "units", "by units"),
    "a class that is never seen before one that is": Shape(
        2, False, 3, frozenset({1, 2}), 8, 8, False, "off", "units", "ablate"
    ),
    "a thousand classes": Shape(5, True, 1000, frozenset({7, 999}), 40, 16, False, "fast", "units", "scan"),
}


@pytest.mark.parametrize("shape", OPENED.values(), ids=OPENED)
def test_pages_of_extreme_runs_open(page: Any, tmp_path: Path, shape: Shape) -> None:
    run, index = page_of(shape, tmp_path / "run")
    page.goto(index.as_uri())
    page.get_by_role("link", name="Units", exact=True).click()
    expect(page.locator("#shown")).to_contain_text(f"{len(run.units)} of {len(run.units)} unit")
    page.locator("#cards .open").first.click()
    expect(page.locator("dialog[open]")).to_have_count(1)
