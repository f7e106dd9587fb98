"""What ablating units does, as a notebook and a terminal show it, against arrays that were made for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ganatomy.dissect import Dissection
from ganatomy.reports.terminal import run_tables

from ..conftest import NAMES, Go
from ..support.effects import Floats, plant

ESTIMATED = (0, 1, 3)  # of NAMES


@pytest.fixture
def planted(go: Go) -> tuple[Dissection, Floats, Floats]:
    return plant(go(samples=60, causes="off"), classes=ESTIMATED)


def shown_value(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def test_tables_are_the_arrays_in_order(planted: tuple[Dissection, Floats, Floats]) -> None:
    run, effect, half = planted
    table = run.unit(2).effects
    order = np.argsort(-np.abs(effect[:, 2]))
    assert list(table["class"]) == [NAMES[ESTIMATED[row]] for row in order]
    assert table.effect.tolist() == pytest.approx(effect[order, 2])
    assert table.low.tolist() == pytest.approx((effect - half)[order, 2], rel=1e-5)
    assert table.high.tolist() == pytest.approx((effect + half)[order, 2], rel=1e-5)
    units = run["yellow"].drawn_by
    assert units.unit.tolist() == np.argsort(effect[2]).tolist()
    assert units.effect.tolist() == pytest.approx(np.sort(effect[2]))
    assert (run.units.loc[units.index, "label"] == units.label).all()
    assert run["blue"].drawn_by.empty


def test_cards_and_figures_show_them(planted: tuple[Dissection, Floats, Floats]) -> None:
    run, effect, _ = planted
    unit = run.unit(0)
    html = unit._repr_html_()
    assert "first-order estimate" in html
    assert all(f"{shown_value(value)} points" in html for value in effect[:, 0])
    html = run["red"]._repr_html_()
    drawn = [unit for unit in np.argsort(effect[0]) if effect[0, unit] < 0]
    assert all(f"{shown_value(effect[0, unit])} points<" in html for unit in drawn)
    assert sum(f"{shown_value(value)} points<" in html for value in effect[0]) == len(drawn)
    axes = unit.plot_effects()
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(unit.effects.effect.tolist())
    axes = run["red"].plot_effects(count=2)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(np.sort(effect[0])[:2])
    assert "red" in axes.get_xlabel()


def test_a_terminal_has_a_column_of_them(
    go: Go, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, _ = plant(go(samples=60, causes="off"), classes=(0, 1, 2, 3))
    monkeypatch.setattr(run_tables.screen, "width", 100)
    best = run.highlights(run_tables.BEST)
    run_tables.show_run(run, run.summary())
    text = capsys.readouterr().err
    assert "effect" in text
    known = best.effect.dropna()
    assert len(known)
    for row in best.dropna(subset="effect").itertuples():
        value = f"{row.effect:+.2g}"
        assert (f"({value})" in text) == (row.effect_low <= 0 <= row.effect_high)
        assert value in text


def test_runs_without_effects_show_what_they_have(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    run: Any = go(samples=60, causes="off")
    assert run.unit(0).effects.empty
    assert run["red"].drawn_by.empty
    assert "first-order" not in run.unit(0)._repr_html_() + run["red"]._repr_html_() + run._repr_html_()
    assert not len(run["red"].plot_effects().patches)
    run_tables.show_run(run, run.summary())
    assert "effect" not in capsys.readouterr().err
