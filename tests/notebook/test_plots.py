"""Figures show the numbers of the tables, on the caller's axes or on new ones, and keep text as text."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import RED, Do, Soft
from ..reports.test_fitness_page import fitness
from ..reports.test_watch_page import watched
from ..support.audits import checkup, diversity, repair, seams

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> Any:
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def names(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


def test_bars_of_a_run_are_its_counts_and_ious(found: Dissection) -> None:
    axes = found.plot_classes()
    assert dict(zip(names(axes), [bar.get_width() for bar in axes.patches], strict=True)) == {"red": 1, "green": 1}
    axes = found.plot_units(count=5)
    best = found.ordered[found.ordered.labelled]
    assert [bar.get_width() for bar in axes.containers[0]] == pytest.approx(best.iou.tolist())
    assert [bar.get_width() for bar in axes.containers[1]] == pytest.approx(best.position_iou.tolist())
    assert names(axes) == [f"{row.unit} {row.label}" for row in best.itertuples()]
    assert "IoU" in axes.get_xlabel()


def test_effects_and_scan_have_their_points(found: Dissection, do: Do, planted: Generator) -> None:
    effects = do("ablate")(label="red", top=1, random_sets=2)
    axes = effects.plot(classes=3)
    points = axes.containers[0].lines[0].get_xdata()
    assert list(points) == pytest.approx(effects.ordered.change_pp.head(3).tolist())
    assert names(axes)[0] == "red"
    scan = dissect.scan(found, label="red", samples=8, generator=planted, segmenter=Soft(), quiet=True)
    axes = scan.plot(named=1)
    shown = np.concatenate([group.get_offsets() for group in axes.collections if len(group.get_offsets()) > 1])
    assert len(np.unique(scan.table[["iou", "change_pp"]].to_numpy(), axis=0)) <= 40
    assert sorted(shown[:, 1])[0] >= scan.table.change_pp.min() - 1e-9
    assert [text.get_text() for text in axes.texts] == [str(RED)]


def test_audits_have_their_numbers(tmp_path: Path) -> None:
    audit = diversity(tmp_path)
    axes = audit.plot()
    assert names(axes)[0] == "person, missing"
    assert list(axes.containers[0].lines[0].get_xdata()) == pytest.approx([0.0, 45.0, 90.0])
    axes = repair(tmp_path).plot()
    by_label = {container.get_label(): container.lines[0].get_xdata()[0] for container in axes.containers}
    assert by_label == pytest.approx({"random sets": 10.0, "repaired": -25.0})
    axes = checkup(tmp_path).plot_spectrum()
    image = axes.images[0]
    assert image.get_array().max() == 6
    left, right, bottom, top = image.get_extent()
    column = int((-0.5 - left) / (right - left) * 16)
    row = int((0 - top) / (bottom - top) * 16)
    assert image.get_array()[row, column] == 6  # where the circle is
    assert axes.collections[0].get_offsets().tolist() == [[-0.5, 0.0]]
    axes = seams(tmp_path).plot()
    assert axes.lines[0].get_ydata().tolist() == [2.0, 1.2]


def test_candidates_and_a_training(tmp_path: Path) -> None:
    several = fitness(tmp_path / "fitness", ["a.pt", "b.pt", "c.pt"])
    axes = several.plot()
    assert {text.get_text() for text in axes.texts} == {"a.pt", "b.pt", "c.pt"}
    training = watched(tmp_path / "training", [1000, 2000, 5000])
    axes = training.plot(metric="frechet")
    assert axes.containers[0].lines[0].get_ydata().tolist() == pytest.approx(training.lines.frechet.tolist())
    assert axes.containers[0].lines[0].get_xdata().tolist() == [1000, 2000, 5000]
    assert training.plot(metric="labelled").get_ylabel() == "labelled"
    with pytest.raises(UsageError, match="Did you mean frechet"):
        training.plot(metric="freche")


def test_the_callers_axes_are_used_and_text_stays_text(found: Dissection) -> None:
    figure, (left, right) = pyplot.subplots(1, 2)
    assert found.plot_classes(left) is left
    assert found.plot_units(ax=right) is right
    assert len(figure.axes) == 2
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    assert b">red</text>" in file.getvalue()


def test_a_missing_matplotlib_names_its_command(found: Dissection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DissectError, match=r"pip install matplotlib"):
        found.plot_classes()
