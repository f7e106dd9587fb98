"""What ablating units does, on the page of a run: in a real browser, against arrays that were made for it."""

from __future__ import annotations

import base64
import re
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ganatomy import dissect
from ganatomy.dissect import Dissection
from ganatomy.dissect.causes.table import Causes
from ganatomy.reports.cause_data import causes_data
from ganatomy.reports.pages import write_report
from ganatomy.reports.run_data import _own_effects, _scanned

from ..conftest import NAMES, Go
from ..support.browser import expect, until
from ..support.effects import Floats, plant

ESTIMATED = (0, 1, 3)  # of NAMES


def values(text: str) -> list[float]:
    """The signed numbers in a text."""
    return [float(number) for number in re.findall(r"[-+][\d.e-]+", text.replace("−", "-"))]


def close(values: Any, largest: float) -> Any:
    """Numbers that the page packs in steps of the largest, and shows with two digits."""
    return pytest.approx(np.asarray(values), rel=0.05, abs=largest / 4000)


@pytest.fixture
def planted(go: Go) -> tuple[Dissection, Floats, Floats]:
    return plant(go(samples=60, causes="off"), classes=ESTIMATED)


def numbers(page: Any, selector: str) -> list[int]:
    """The units that a list or the grid shows."""
    texts = page.locator(selector).all_inner_texts()
    return [int(word) for text in texts for word in text.split() if word.isdigit()][: len(texts)]


def test_units_are_sorted_and_filtered_by_effect(page: Any, planted: tuple[Dissection, Floats, Floats]) -> None:
    run, effect, _ = planted
    page.goto(write_report(run).as_uri())
    expect(page.locator(".notes")).to_contain_text("first-order estimate")
    page.get_by_role("link", name="Units", exact=True).click()
    page.get_by_label("Sort by").select_option("effect")
    page.get_by_label("Effect on").select_option("yellow")
    expect(page.locator("#cards .card").first).to_contain_text("yellow ≈")
    assert numbers(page, "#cards .card .head .muted") == np.argsort(effect[2], kind="stable").tolist()
    for card, unit in zip(page.locator("#cards .card .facts").all_inner_texts(), np.argsort(effect[2]), strict=True):
        assert "≈" in card
        assert values(card) == close([effect[2, unit]], np.abs(effect[2]).max())
    least = np.sort(np.abs(effect[2]))[-3]
    page.get_by_label("of at least").fill(str(least - 0.001))
    until(page, "document.querySelectorAll('#cards .card').length === 3")
    assert set(numbers(page, "#cards .card .head .muted")) == set(np.argsort(-np.abs(effect[2]))[:3])
    page.reload()
    assert page.get_by_label("Effect on").input_value() == "yellow"
    until(page, "document.querySelectorAll('#cards .card').length === 3")
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Sort by").select_option("effect")  # each on its own class: without one it comes last
    own = run.units.effect.sort_values(kind="stable", na_position="last").index.tolist()
    until(page, f"document.querySelector('#cards [data-unit]').dataset.unit === '{own[0]}'")
    assert numbers(page, "#cards .card .head .muted") == own


def test_a_unit_shows_the_classes_that_it_changes(page: Any, planted: tuple[Dissection, Floats, Floats]) -> None:
    run, effect, half = planted
    page.goto(f"{write_report(run).as_uri()}#paint/unit=0")
    rows = page.locator("dialog .causal li")
    expect(rows).to_have_count(3)
    order = np.argsort(-np.abs(effect[:, 0]))
    for text, row in zip(rows.all_inner_texts(), order, strict=True):
        assert NAMES[ESTIMATED[row]] in text
        assert values(text)[:1] == close([effect[row, 0]], np.abs(effect[row]).max())
    titles = [row.get_attribute("title") for row in rows.all()]
    for title, row in zip(titles, order, strict=True):
        low, high = (float(end) for end in title.replace("−", "-").split("[")[1].split("]")[0].split(", "))
        assert [low, high] == pytest.approx(effect[row, 0] + half[row, 0] * np.array([-1, 1]), rel=0.08, abs=0.03)
        assert "first-order estimate" in title
    boxes = [row.locator(".track .value").bounding_box()["width"] for row in rows.all()]
    assert np.array(boxes) / boxes[0] == pytest.approx(np.abs(effect[order, 0] / effect[order[0], 0]), abs=0.03)
    zero = rows.first.locator(".zero").bounding_box()["x"]
    for k, row in enumerate(order):  # to the left of zero where the class leaves
        left = rows.nth(k).locator(".track .value").bounding_box()
        assert (left["x"] + left["width"] / 2 < zero) == (effect[row, 0] < 0)


def test_a_class_shows_what_draws_it_beside_what_coincides(
    page: Any, planted: tuple[Dissection, Floats, Floats]
) -> None:
    run, effect, _ = planted
    page.goto(f"{write_report(run).as_uri()}#class=red")
    drawing, alike = page.locator(".units-of").all()
    drawn = [unit for unit in np.argsort(effect[0], kind="stable").tolist() if effect[0, unit] < 0]
    assert numbers(page, ".units-of >> nth=0 >> li") == drawn
    rivals = run.rivals("paint")
    rivals = rivals[(rivals["class"] == "red") & (rivals.iou > 0)].sort_values("iou", ascending=False, kind="stable")
    assert numbers(page, ".units-of >> nth=1 >> li") == rivals.unit.tolist()
    both = set(drawn) & set(rivals.unit)
    assert (
        set(numbers(page, ".units-of >> nth=0 >> li.both"))
        == both
        == set(numbers(page, ".units-of >> nth=1 >> li.both"))
    )
    labelled = int((run.units.labelled & (run.units.label == "red"))[drawn].sum())
    section = page.locator(".columns.causes")
    expect(section).to_contain_text(f"{labelled} of these {len(drawn)}")
    expect(section).to_contain_text(f"{len(both)} of these {len(rivals)}")
    ranks = {unit: rank + 1 for rank, unit in enumerate(rivals.unit)}
    for text, unit in zip(drawing.locator("li").all_inner_texts(), drawn, strict=True):
        assert text.split()[-1] == (f"{ranks[unit]}." if unit in ranks else "–")
    assert alike.locator("li").count() == len(rivals)
    page.goto(f"{page.url.split('#')[0]}#class=blue")  # not estimated
    expect(page.locator("#class h2")).to_contain_text("blue")
    assert page.locator(".units-of").count() == 0
    page.goto(f"{page.url.split('#')[0]}#classes")
    row = page.locator("#view-classes tr", has_text="red").inner_text()
    assert f"unit {drawn[0]}" in row


def test_what_a_scan_measured_comes_before_the_estimate(
    page: Any, planted: tuple[Dissection, Floats, Floats], painter: dissect.Generator, colours: Any
) -> None:
    run, effect, _ = planted
    scan = dissect.scan(run, label="red", generator=painter, segmenter=colours, samples=6, quiet=True)
    measured = scan.table.set_index("unit").change_pp
    page.goto(f"{write_report(Dissection.load(run.folder)).as_uri()}#on=red&sort=effect")
    cards = page.locator("#cards .card")
    expect(cards).to_have_count(6)
    expected = [effect[0, unit] if np.isnan(measured[unit]) else measured[unit] for unit in range(6)]
    assert numbers(page, "#cards .card .head .muted") == np.argsort(expected, kind="stable").tolist()
    strongest = int(np.argmin(expected))
    fact = cards.first.locator(".facts").inner_text()
    assert ("≈" in fact) == bool(np.isnan(measured[strongest]))
    page.goto(f"{page.url.split('#')[0]}#paint/unit={strongest}")
    assert page.locator("dialog .causal .measured").count() >= 1


def test_directions_are_called_so(page: Any, go: Go) -> None:
    run, effect, _ = plant(go(samples=60, basis="pca", causes="off"), classes=ESTIMATED)
    page.goto(f"{write_report(run).as_uri()}#class=red")
    section = page.locator(".columns.causes")
    expect(section).to_contain_text("Directions that draw it")
    assert "unit" not in section.inner_text().lower()
    drawn = [direction for direction in np.argsort(effect[0], kind="stable").tolist() if effect[0, direction] < 0]
    assert numbers(page, ".units-of >> nth=0 >> li") == drawn[:10]
    expect(page.get_by_label("Effect on").locator("option")).to_have_text(["its own class", "green", "red", "yellow"])


def test_a_run_without_effects_says_nothing_of_them(page: Any, go: Go) -> None:
    run = go(samples=60, causes="off")
    page.goto(f"{write_report(run).as_uri()}#class=red")
    expect(page.locator("#class h2")).to_contain_text("red")
    assert page.locator(".units-of, [name=on]").count() == 0
    page.goto(f"{page.url.split('#')[0]}#paint/unit=0")
    expect(page.locator("#unit-title")).to_contain_text("unit 0")
    assert page.locator("dialog .causal").count() == 0


def test_an_obstacle_is_shown(page: Any, go: Go) -> None:
    run = go(samples=60)  # the colours have no probabilities
    assert run.causes is None
    page.goto(write_report(run).as_uri())
    expect(page.locator(".notes")).to_contain_text(run.info["causes"]["obstacle"])


def test_large_tables_are_packed_small_and_precisely() -> None:
    generator = np.random.default_rng(0)
    shape = (150, 4096)
    effect = generator.standard_t(2, shape) * generator.lognormal(-4, 1, (150, 1))
    half = np.abs(effect) * generator.uniform(0.1, 3, shape) + 2e-3 * np.abs(effect).max(1, keepdims=True)
    effect[3, 7] = half[4, 8] = np.nan
    causes = Causes(classes=np.arange(150), effect=effect, low=effect - half, high=effect + half)
    run: Any = SimpleNamespace(causes={"layer": causes})
    data = causes_data(run)
    assert data is not None
    layer = data["layers"][0]
    assert len(layer["packed"]) < 1.8e6
    content = np.frombuffer(zlib.decompress(base64.b64decode(layer["packed"])), np.uint8).reshape(3, *shape)
    steps = (content[0].astype(np.uint16) | content[1].astype(np.uint16) << 8).astype(np.int16)
    assert np.flatnonzero(steps == -(2**15)).tolist() == [3 * 4096 + 7]
    largest = np.array(layer["largest"])[:, None]
    known = steps != -(2**15)
    error = np.abs(steps * largest / data["steps"] - effect)
    assert (error / largest)[known].max() < 0.26e-3
    assert content[2][4, 8] == 0
    known = (content[2] > 0) & known
    width = largest * data["widest"] * 10 ** ((content[2].astype(float) - 255) / data["decade"])
    assert np.abs(width / half - 1)[known].max() < 0.03


def test_scans_may_leave_units_unmeasured() -> None:
    units = pd.DataFrame({"layer": "a", "unit": range(3), "label": ["red", "", "green"]})
    table = pd.DataFrame({"unit": [2, 0, 1], "change_pp": [np.nan, -2.0, 0.5], "low": [np.nan, -3.0, 0.1]})
    table = table.assign(high=[np.nan, -1.0, 0.9], **{"pp:red": table.change_pp, "pp:green": [np.nan, 1.0, 0.0]})
    other = table.assign(change_pp=[-4.0, np.nan, np.nan], **{"pp:green": [-4.0, np.nan, np.nan], "pp:red": np.nan})
    run: Any = SimpleNamespace(units=units)
    scans: Any = [({"layer": "a", "class": "red"}, table), ({"layer": "a", "class": "green"}, other)]
    assert _own_effects(run, scans).tolist()[::2] == [-2.0, -4.0]
    assert _scanned(run, scans)["red"]["value"] == [-2.0, 0.5, None]
    assert _scanned(run, scans)["red"]["low"] == [-3.0, 0.1, None]
    assert _scanned(run, scans)["green"]["value"] == [None, None, -4.0]
