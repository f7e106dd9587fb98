"""Comparisons: classes gained and lost, units that correspond, and the page of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ganatomy import dissect
from ganatomy.dissect.generators.base import Generator
from ganatomy.dissect.runs.compare import match
from ganatomy.hooks.errors import UsageError
from ganatomy.reports.comparison import write_comparison
from ganatomy.segmenters import Vocabulary

from ..conftest import COLOURS, ColourSegmenter, Go, Painter
from ..support.browser import expect, until


class Shuffled(Painter):
    """The painter with its units in another order, and the red ones off."""

    ORDER = (3, 0, 5, 1, 4, 2)

    def __init__(self) -> None:
        super().__init__()
        self.paint.register_forward_hook(self._mix)
        weight = self.colour.weight.data.clone()
        for place, unit in enumerate(self.ORDER):
            self.colour.weight.data[:, place] = weight[:, unit] * (unit != 0)

    def _mix(self, _module: object, _given: object, maps: torch.Tensor) -> torch.Tensor:
        return maps[:, list(self.ORDER)]


@pytest.fixture
def two(go: Go, painter: Generator, tmp_path: Path) -> tuple[Any, Any]:
    first = go(out=tmp_path / "first")
    mixed = replace(painter, module=Shuffled(), name="mixed")
    return first, go(model=mixed, out=tmp_path / "second")


def test_classes_are_gained_and_lost(two: tuple[Any, Any]) -> None:
    there = dissect.compare(*two)
    changes = dict(zip(there.classes["class"], there.classes.change_B, strict=True))
    assert changes["red"] == "lost"
    assert changes["green"] == "kept"
    back = dissect.compare(*two[::-1])
    assert dict(zip(back.classes["class"], back.classes.change_B, strict=True))["red"] == "gained"
    for side, run in zip("AB", two, strict=True):
        counted = run.units[run.units.labelled].label.value_counts()
        assert (there.classes[f"units_{side}"] == [counted.get(name, 0) for name in there.classes["class"]]).all()
    assert there.unlike == []
    assert set(there.differences) == {"model", "weights_sha256"}


def test_units_in_another_order_are_found(two: tuple[Any, Any]) -> None:
    pairs = dissect.compare(*two).units.set_index("unit_B")
    for place, unit in enumerate(Shuffled.ORDER):
        if unit != 4:  # constant: it correlates with nothing
            assert pairs.unit_A[place] == unit
            assert pairs.correlation[place] == pytest.approx(1)
            assert pairs.corresponds[place]
    assert not pairs.corresponds[Shuffled.ORDER.index(4)]
    assert pairs[pairs.same_label].label_A.tolist() == pairs[pairs.same_label].label_B.tolist()


def test_the_matching_is_the_best_of_all() -> None:
    dice = np.random.default_rng(3)
    one, other = (dice.normal(size=(5, 16, 4)).astype(np.float32) for _ in range(2))
    pairs, correlation, by_chance = match(one, other)
    all_of = np.corrcoef(one.reshape(5, -1), other.reshape(5, -1))[:5, 5:]
    assert correlation.sum() == pytest.approx(max(all_of[range(5), list(p)].sum() for p in permutations(range(5))))
    assert correlation == pytest.approx(all_of[pairs[:, 0], pairs[:, 1]])
    assert 0 < by_chance < 0.5
    noise = other + one  # follows one sample by sample
    assert (match(one, noise)[1] > match(one, noise)[2]).all()


def test_layers_of_one_run(go: Go, painter: Generator, tmp_path: Path) -> None:
    both = replace(painter, layers=("paint", "colour"))
    go(model=both, layers=[1, 2], out=tmp_path / "both")
    found = dissect.compare(f"{tmp_path / 'both'}:paint", f"{tmp_path / 'both'}:2")
    assert [side.layers for side in found.sides] == [("paint",), ("colour",)]
    assert found.summary().units.tolist() == [6, 3]
    assert len(found.units) == 0  # pairs are of layers of one name
    with pytest.raises(UsageError, match="given twice"):
        dissect.compare(tmp_path / "both", tmp_path / "both")
    with pytest.raises(UsageError, match="has no layer 'nope'; it has paint, colour"):
        dissect.compare(tmp_path / "both", f"{tmp_path / 'both'}:nope")
    with pytest.raises(UsageError, match="2 to 26"):
        dissect.compare(tmp_path / "both")


def test_runs_that_name_other_classes_are_refused(go: Go, tmp_path: Path) -> None:
    class Other(ColourSegmenter):
        vocabulary = Vocabulary(names=("a", "b", "c", "d"), categories=("object",) * 4, colours=COLOURS)

    runs = go(out=tmp_path / "one"), go(segmenter=Other(), out=tmp_path / "two")
    with pytest.raises(UsageError, match="name different classes"):
        dissect.compare(*runs)


def test_the_page(page: Any, two: tuple[Any, Any], tmp_path: Path) -> None:
    found = dissect.compare(*two)
    index = write_comparison(found, tmp_path / "comparison")
    page.goto(index.as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    until(page, "[...document.images].every(i => i.complete)")
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0 && i.hasAttribute('alt'))")
    expect(page.locator("tr", has_text="red").locator(".lost").first).to_contain_text("− lost")
    expect(page.locator(".matches .card")).to_have_count(int(found.units.corresponds.sum()))
    expect(page.locator(".sides figure")).to_have_count(24)
    table = pd.read_csv(index.parent / "classes.csv")
    assert table["class"].tolist() == found.classes["class"].tolist()
    first = {path: path.read_bytes() for path in index.parent.rglob("*") if path.is_file()}
    write_comparison(found, tmp_path / "comparison")
    assert {path: path.read_bytes() for path in index.parent.rglob("*") if path.is_file()} == first
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for taken in ("full", "first", "second/spool"):  # a run's folder has a classes.csv, too
        with pytest.raises(UsageError, match="is not a comparison"):
            write_comparison(found, tmp_path / taken)
    assert dissect.Dissection.load(tmp_path / "first").units.equals(two[0].units)


def test_two_rules_on_one_network_show_labels_that_differ(page: Any, go: Go, tmp_path: Path) -> None:
    runs = [go(samples=60, threshold=rule, quantile=0.2, out=tmp_path / rule) for rule in ("iqr", "quantile")]
    comparison = dissect.compare(*runs)
    assert comparison.is_same_network("B")
    pairs = comparison.units
    assert (pairs.unit_A == pairs.unit_B).all()
    differ = int((pairs.corresponds & ~pairs.same_label).sum())
    page.goto(write_comparison(comparison, tmp_path / "rules").as_uri())
    expect(page.locator("section", has_text="same units of the same network")).to_contain_text(
        f"{differ} of {len(pairs)} have another label"
    )
    labels = page.locator(".matches .card .head").all_inner_texts()
    changed = [text.split()[1] != text.split()[-2] for text in labels]
    assert changed == sorted(changed, reverse=True)
    other = dissect.compare(runs[0], go(samples=60, seed=1, out=tmp_path / "seed"))
    assert not other.is_same_network("B"), "other latents: its signatures are of other images"
