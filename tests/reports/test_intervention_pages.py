"""The pages of interventions and scans in a real browser: views, dial, map of cells, scatter and table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ganatomy import dissect
from ganatomy.dissect import Generator
from ganatomy.dissect.interventions.result import Effects
from ganatomy.dissect.interventions.verdict import verdict
from ganatomy.reports.pages import write_report

from ..conftest import ColourSegmenter, Soft
from ..support.browser import expect, until


@pytest.fixture
def run(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> dissect.Dissection:
    return dissect.run(painter, layers=[1], segmenter=colours, samples=60, out=tmp_path / "run", quiet=True)


@pytest.fixture
def models(painter: Generator, colours: ColourSegmenter) -> dict[str, Any]:
    return {"generator": painter, "segmenter": colours, "quiet": True}


def open_page(page: Any, run: dissect.Dissection, name: str) -> None:
    page.goto(write_report(run).resolve().as_uri() + f"#intervention={name}")


def shown(page: Any, what: str) -> Any:
    return page.locator(f"{what}:visible")


@pytest.mark.slow
def test_before_and_after_beside_each_other_flipped_and_with_a_slider(
    page: Any, run: dissect.Dissection, models: dict[str, Any]
) -> None:
    effects = dissect.ablate(run, label="red", top=2, samples=12, **models)
    open_page(page, run, effects.info["name"])
    stage = shown(page, ".pair .stage").first
    before, after = stage.locator("img.images.before"), stage.locator("img.images.after")
    left, right = before.bounding_box(), after.bounding_box()
    assert left["x"] + left["width"] <= right["x"] + 1
    assert left["width"] == pytest.approx(left["height"], abs=1)
    page.get_by_label("flip").locator("visible=true").check()
    hidden = "(image) => getComputedStyle(image).visibility"
    page.mouse.move(0, 0)
    assert after.evaluate(hidden) == "visible"
    assert after.bounding_box() == before.bounding_box()
    stage.hover()
    assert after.evaluate(hidden) == "hidden"
    page.mouse.move(0, 0)
    page.keyboard.down("b")
    assert after.evaluate(hidden) == "hidden"
    page.keyboard.up("b")
    assert after.evaluate(hidden) == "visible"
    page.get_by_role("button", name="show before").locator("visible=true").click()
    page.mouse.move(0, 0)
    assert after.evaluate(hidden) == "hidden"
    page.get_by_label("slider", exact=True).locator("visible=true").check()
    assert after.evaluate(hidden) == "visible"
    assert after.evaluate("(image) => getComputedStyle(image).clipPath") == "inset(0px 0px 0px 50%)"
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_the_dial_shows_each_number_of_units(page: Any, run: dissect.Dissection, models: dict[str, Any]) -> None:
    effects = dissect.ablate(run, label="red", top=2, samples=12, curve=True, **models)
    counts = effects.pictures["step_units"].tolist()
    assert counts == effects.curve.units.tolist()
    chosen = counts.index(2)
    assert (effects.pictures["steps"][:, chosen] == effects.pictures["after"]).all()
    assert (effects.pictures["labels_steps"][:, chosen] == effects.pictures["labels_after"]).all()
    open_page(page, run, effects.info["name"])
    dial, pair = shown(page, ".dial input"), shown(page, ".pair").first
    assert dial.input_value() == str(1 + chosen)
    dial.focus()
    page.keyboard.press("Home")
    expect(shown(page, ".dial output")).to_contain_text("0 units")
    assert pair.locator("img.images.after").get_attribute("src") == pair.evaluate(
        "(one) => JSON.parse(one.dataset.images)[0]"
    )
    page.keyboard.press("ArrowRight")
    remaining = effects.curve.set_index("units").remaining[counts[0]]
    expect(shown(page, ".dial output")).to_contain_text(f"{counts[0]} unit: {remaining:.0%}")


@pytest.mark.slow
def test_the_map_of_cells(page: Any, run: dissect.Dissection, models: dict[str, Any]) -> None:
    effects = dissect.insert(run, label="green", top=1, samples=6, **models)
    gain = effects.pictures["gain"]
    assert len(gain) == 6  # every sample is shown, so that the means agree
    assert gain.mean() == pytest.approx(effects["green"].change_pp, abs=1e-4)
    open_page(page, run, effects.info["name"])
    stage, readout = shown(page, ".cells .stage"), shown(page, ".cell-readout")
    row, column = np.unravel_index(gain[0].argmax(), gain[0].shape)
    expect(readout).to_contain_text(f"Row {row + 1}, column {column + 1}: +{gain[0].max():.3f}")
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    expect(readout).to_contain_text("Row 1, column 1")
    stage.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    value = f"{abs(gain[0][1, 1]):.3f}"
    expect(readout).to_contain_text("Row 2, column 2")
    expect(readout).to_contain_text(value)
    until(page, "document.activeElement.getAttribute('aria-valuetext').startsWith('Row 2, column 2')")
    page.get_by_role("button", name=f"sample {effects.pictures['sample'][1]}", exact=True).click()
    page.get_by_text("The values as a table").click()
    cells = shown(page, ".cells table tbody td")
    expect(cells).to_have_count(gain[1].size)
    texts = [float(text.replace("−", "-")) for text in cells.all_inner_texts()]
    assert texts == pytest.approx(gain[1].ravel().tolist(), abs=1.1e-2)


@pytest.mark.slow
def test_points_and_rows_of_a_scan_lead_to_units(page: Any, run: dissect.Dissection, models: dict[str, Any]) -> None:
    dissect.scan(run, label="red", samples=20, **models)
    units, name = pd.read_csv(run.scans[0] / "red.csv"), f"{run.scans[0].name}-red"
    open_page(page, run, name)
    strongest = units.sort_values("change_pp").unit.iloc[0]
    field = shown(page, ".scan-plot .field")
    assert field.locator("circle.point").count() == units.iou.notna().sum()
    expect(shown(page, ".scan-readout")).to_contain_text(f"unit {strongest}")
    field.focus()
    page.keyboard.press("ArrowRight")
    second = units.sort_values("change_pp", kind="stable").unit.iloc[1]
    expect(shown(page, ".scan-readout a")).to_have_text(f"unit {second}")
    page.keyboard.press("Enter")
    expect(page.locator("dialog h2")).to_contain_text(f"unit {second}")
    page.keyboard.press("Escape")
    open_page(page, run, name)
    ranks = {
        row.locator("th").inner_text(): row.locator("td").nth(3).inner_text()
        for row in shown(page, ".scan tbody tr").all()
    }
    tied = units.change_pp.duplicated(keep=False)
    assert {int(unit) for unit, rank in ranks.items() if rank == "–"} == set(units.unit[tied])
    assert shown(page, ".tall thead th").first.evaluate("(cell) => getComputedStyle(cell).position") == "sticky"


@pytest.mark.slow
def test_a_scan_by_need_shows_what_is_estimated(
    page: Any, found: dissect.Dissection, planted: dissect.Generator
) -> None:
    scan = dissect.scan(found, label="red", samples=8, top=3, generator=planted, segmenter=Soft(), quiet=True)
    verified = scan.table.verified
    assert 0 < verified.sum() < len(verified)
    open_page(page, found, scan.info["name"])
    by_iou, by_estimate = (shown(page, f".scan-plot [data-across={across}]") for across in ("iou", "estimate"))
    assert by_estimate.locator("circle.point").count() == verified.sum()
    assert by_iou.locator("circle.estimated").count() == (~verified & scan.table.iou.notna()).sum()
    rows = shown(page, ".scan tbody tr")
    expect(rows.filter(has_text="not ablated")).to_have_count(int((~verified).sum()))
    expect(rows.first.locator("th")).to_have_text(str(scan.table.unit[0]))
    by_estimate.focus()
    page.keyboard.press("End")
    expect(shown(page, ".scan-readout a")).to_have_text(f"unit {scan.table.unit[verified].iloc[-1]}")


@pytest.mark.slow
def effects_of(**row: Any) -> Effects:
    whole = {"class": "tree", "before": 0.1, "after": 0.05, "change_pp": -5.0, "changed": True, "beyond_random": True}
    whole |= {"change_pp_low": -6.0, "change_pp_high": -4.0, "relative": -0.47, "relative_low": -0.55}
    whole |= {"relative_high": -0.38, "random_pp": 0.0, "random_pp_min": -0.6, "random_pp_max": 1.2}
    whole |= {"random_relative_min": -0.06, "random_relative_max": 0.12} | row
    info = {"kind": "ablate", "label": "tree", "units": list(range(20)), "layer": "layer7", "chosen_on": {"first": 0}}
    return Effects(info=info, table=pd.DataFrame([whole]), sets=pd.DataFrame(), units=pd.DataFrame(), pictures={})


def test_the_verdict_names_the_change_its_interval_and_the_random_sets() -> None:
    text = verdict(effects_of()).replace("\u202f", " ")
    for words in ("20 tree units", "takes away 47 %", "[−55 %, −38 %]", "−6 % to +12 %"):
        assert words in text
    assert "no more than other units" not in text
    assert "no more than other units" in verdict(effects_of(beyond_random=False))
    assert "not change" in verdict(effects_of(changed=False))
    assert "−5.00 percentage points" in verdict(effects_of(relative=np.nan))
