"""Sample pages, highlights, terms and the panel of a unit, in a real browser, against what the run itself holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator
from ganatomy.dissect.artifacts.flags import read_flags
from ganatomy.dissect.images import resize
from ganatomy.reports.pages import write_report
from ganatomy.reports.terms import TERMS

from ..conftest import ColourSegmenter
from ..support.browser import expect, until
from .test_report import Many

pytestmark = pytest.mark.slow

ACTIVE = "[...document.querySelectorAll('.active li a')].map((a) => parseInt(a.innerText))"


@pytest.fixture
def shown(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> Dissection:
    """A run with its report that still has its featuremaps, so that there is a truth."""
    out = tmp_path / "run"
    run = dissect.run(painter, layers=[1], segmenter=colours, samples=60, out=out, quiet=True, keep_spool=True)
    write_report(run)
    return run


def address(run: Dissection, place: str = "") -> str:
    return (run.folder / "report" / "index.html").absolute().as_uri() + place


def activations(run: Dissection) -> NDArray[np.float64]:
    """(n, U, g, g) the enlarged featuremaps of all samples, and so where units exceed their threshold."""
    maps = torch.from_numpy(np.array(run.spool.read(0, "features-0"))).float()
    return resize.upsample(maps, run.info["grid"]).double().numpy() * run.info["layers"]["paint"]["scale"]


def settle(page: Any, condition: str) -> None:
    until(page, f"(() => {{ try {{ return {condition} }} catch {{ return false }} }})()")


def test_kept_maps_show_the_regions_of_the_featuremaps(shown: Dissection) -> None:
    kept = shown.shown["paint"]
    steps = kept.steps(shown.units.threshold.to_numpy())[:, None, None]
    exact = activations(shown)[: len(kept.first)] > shown.units.threshold.to_numpy()[:, None, None]
    near = resize.upsample(torch.from_numpy(kept.first).float(), shown.info["grid"]).numpy() > steps
    fine = (shown.units.state == "ok").to_numpy()
    assert (near != exact)[:, fine].mean() < 0.01
    samples = shown.tops("paint")[0]
    peaks = activations(shown)[samples.T, np.arange(6)].max((2, 3)).T
    low, high = kept.span.T[:, :, None]
    restored = low + kept.top.max((2, 3)) / 255 * (high - low)
    assert np.allclose(restored[fine], peaks[fine][:, : restored.shape[1]], atol=0.1 * (high - low).max())


def test_highlights_are_the_best_of_each_class_with_a_bar_of_two_parts(page: Any, shown: Dissection) -> None:
    best = shown.highlights(12)
    page.goto(address(shown))
    cards = page.locator("#best .card")
    expect(cards).to_have_count(len(best))
    scale = max(0.1, np.ceil(shown.units.iou[shown.units.reaches_limits].max() * 10) / 10)
    for card, (_, unit) in zip(cards.all(), best.iterrows(), strict=True):
        assert card.inner_text().split()[0] == unit.label
        expect(card.locator(".tier")).to_have_text(unit.tier)
        widths = card.locator(".split i").evaluate_all("(parts) => parts.map((part) => parseFloat(part.style.width))")
        position = min(unit.iou, unit.position_iou)
        assert np.allclose(widths, [100 * position / scale, 100 * (unit.iou - position) / scale], atol=0.11)
        assert f"position {unit.position_iou:.3f}" in card.locator(".split").get_attribute("title")
    page.goto(address(shown, "#units"))
    order = page.evaluate("[...document.querySelectorAll('#cards .open')].map((one) => +one.dataset.unit)")
    tiers = shown.units.tier.map(["strong", "weak", "position only", "untested", ""].index)
    wanted = shown.units.assign(rank=tiers, merit=-shown.units.content_iou)
    assert order == wanted.sort_values(["rank", "merit"], kind="stable").unit.tolist()


def test_a_point_of_a_sample_lists_the_units_that_are_active_there(page: Any, shown: Dissection) -> None:
    maps, grid = activations(shown)[5], shown.info["grid"]
    threshold = shown.units.threshold.to_numpy()[:, None, None]
    span = shown.histogram("paint")[1].astype(np.float64)
    fine = (shown.units.state == "ok").to_numpy()
    page.goto(address(shown, "#sample=5"))
    whole = [unit for unit in range(6) if fine[unit] and maps[unit].max() > threshold[unit, 0, 0]]
    settle(page, f"JSON.stringify({ACTIVE}.sort()) === '{json.dumps(whole, separators=(',', ':'))}'")
    # a point where no unit is near its threshold, and most units are active
    margin = np.abs(maps - threshold) / (span[:, 1] - span[:, 0])[:, None, None].clip(1e-9)
    clear = (margin[fine] > 0.03).all(0) * ((maps > threshold)[fine].sum(0) + 1)
    row, column = np.unravel_index(clear.argmax(), clear.shape)
    strength = (maps - threshold)[:, row, column] / (span[:, 1] - threshold[:, 0, 0]).clip(1e-9)
    there = [unit for unit in range(6) if fine[unit] and strength[unit] > 0]
    assert there
    box = page.locator(".look").bounding_box()
    page.mouse.click(box["x"] + (column + 0.5) * box["width"] / grid, box["y"] + (row + 0.5) * box["height"] / grid)
    settle(page, f"JSON.stringify({ACTIVE}.sort()) === '{json.dumps(there, separators=(',', ':'))}'")
    listed = strength[page.evaluate(ACTIVE)]
    assert (np.diff(listed) < 0.03).all()  # the strongest first, as far as steps of the kept maps tell them apart
    label = shown.spool.read(0, "labels")[5, 0, row, column]
    name = "unlabelled" if label < 0 else shown.classes["class"][label]
    expect(page.locator(".active-units h3")).to_contain_text(f"({name})")
    page.locator(".active li a").first.hover()
    expect(page.locator(".enlarged .region")).to_have_count(1)
    page.locator(".look").press("Escape")  # the whole picture again
    settle(page, f"{ACTIVE}.length === {len(whole)}")
    page.locator(".look").press("ArrowRight")
    expect(page.locator(".active-units h3")).to_contain_text("at this point")
    areas = page.locator(".areas li").all_inner_texts()
    counts = np.bincount(shown.spool.read(0, "labels")[5].ravel() + 1, minlength=len(shown.classes) + 1)[1:]
    assert [text.split()[0] for text in areas] == [
        shown.classes["class"][k] for k in np.argsort(-counts, kind="stable") if counts[k]
    ]


def test_every_picture_leads_to_its_sample(page: Any, shown: Dissection) -> None:
    page.goto(address(shown))
    page.locator(".samples a").nth(3).click()
    until(page, "location.hash === '#sample=3'")
    assert page.title().startswith("sample 3 · ")
    page.goto(address(shown, "#units"))
    page.locator("#cards .tops a").first.click()
    expect(page.locator("#view-sample h2")).to_be_visible()
    expect(page.locator(".enlarged .region")).to_have_count(1)  # of the unit of the card
    page.goto(address(shown, "#paint/unit=2"))
    page.locator("dialog .large a").first.click()
    expect(page.locator("dialog")).to_be_hidden()
    page.go_back()
    expect(page.locator("dialog")).to_be_visible()


def test_a_run_without_kept_maps_still_has_sample_pages(page: Any, shown: Dissection) -> None:
    (shown.folder / "shown.npz").unlink()
    run = Dissection.load(shown.folder)
    assert run.shown is None
    write_report(run)
    samples, masks = run.tops("paint")
    sample = int(samples[0][0])
    page.goto(address(run, f"#sample={sample}"))
    expect(page.locator(".active-units")).to_contain_text("earlier version")
    wanted = sorted(np.flatnonzero((samples == sample).any(1)).tolist())
    settle(page, f"JSON.stringify({ACTIVE}.sort()) === '{json.dumps(wanted, separators=(',', ':'))}'")
    row, column = np.argwhere(masks[0][0])[len(np.argwhere(masks[0][0])) // 2]
    box, grid = page.locator(".look").bounding_box(), run.info["grid"]
    page.mouse.click(box["x"] + (column + 0.5) * box["width"] / grid, box["y"] + (row + 0.5) * box["height"] / grid)
    settle(page, f"{ACTIVE}.includes(0)")
    page.goto(address(run, "#paint/unit=2"))
    expect(page.locator("dialog input[name=heat]")).to_have_count(0)
    expect(page.locator("#ordinary")).to_be_empty()


def test_ticked_samples_are_a_file_of_flags(page: Any, shown: Dissection, tmp_path: Path) -> None:
    page.goto(address(shown))
    page.locator("[data-flag='7']").check()
    page.goto(address(shown, "#sample=2"))
    page.locator("#view-sample [data-flag='2']").check()
    page.goto(address(shown, "#overview"))
    expect(page.locator("#view-overview [data-flag='2']")).to_be_checked()
    with page.expect_download() as download:
        page.locator("#view-overview .flag-export a").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert np.flatnonzero(read_flags(saved, 60, (32, 32)).marked).tolist() == [2, 7]
    page.locator("[data-flag='7']").first.uncheck()
    expect(page.locator("#view-overview .flag-export")).to_contain_text("(1)")


def test_the_panel_shows_heat_ordinary_samples_and_similar_units(page: Any, shown: Dissection) -> None:
    page.goto(address(shown, "#paint/unit=2"))
    expect(page.locator("dialog .heat").first).to_be_hidden()
    expect(page.locator("dialog h2 .tier")).to_have_text(shown.units.tier[2])
    page.keyboard.press("h")
    expect(page.locator("dialog .heat").first).to_be_visible()
    peaks = np.array(shown.shown["paint"].first[:, 2]).max((1, 2)) // 4
    captions = page.locator("#ordinary figcaption")
    expect(captions).to_have_count(6)
    order = [int(text.split()[0]) for text in captions.all_inner_texts()]
    assert peaks[order[0]] == peaks.max()
    assert peaks[order[-1]] == peaks.min()
    assert (np.diff(peaks[order].astype(int)) <= 0).all()
    flat = shown.signature("paint").reshape(6, -1)
    with np.errstate(invalid="ignore"):
        r = np.nan_to_num(np.corrcoef(flat)[2])
    similar = page.locator("dialog a.unit").all_inner_texts()
    nearest = [int(unit) for unit in np.argsort(-r, kind="stable") if unit != 2 and r[unit] > 0]
    assert [int(text.split()[0]) for text in similar] == nearest[: len(similar)]
    assert "--units paint:2" in page.locator(".copyable code").inner_text()
    page.locator(".copyable button").click()
    expect(page.locator(".copyable button")).not_to_have_text("Copy")
    counts, _ = shown.histogram("paint")
    bar = page.locator("dialog rect").nth(int(counts[2].argmax()))
    bar.hover()
    expect(page.locator("dialog .readout-line").last).to_contain_text(f"{counts[2].max():,} pixels")


def test_steps_between_units_are_one_step_of_the_history(page: Any, shown: Dissection) -> None:
    page.goto(address(shown, "#sort=unit"))
    page.locator("#cards .open").first.click()
    for unit in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        until(page, f"document.title.startsWith('unit {unit}')")
    page.locator("dialog .step", has_text="previous").click()
    until(page, "document.title.startsWith('unit 2')")
    page.go_back()
    expect(page.locator("dialog")).to_be_hidden()
    until(page, "location.hash === '#sort=unit'")


def test_a_closed_panel_leaves_the_list_at_its_unit(page: Any, colours: ColourSegmenter, tmp_path: Path) -> None:
    torch.manual_seed(0)
    many = Generator(module=Many(), name="many", source=dissect.NormalLatents((6,)), layers=("maps",))
    run = dissect.run(
        many, layers=[1], segmenter=colours, samples=8, grid=8, significance="off", out=tmp_path / "run", quiet=True
    )
    write_report(run)
    page.goto(address(run, "#sort=unit"))
    page.goto(address(run, "#maps/unit=111&sort=unit"))
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    until(page, "document.activeElement.dataset.unit === '111'")
    expect(page.locator("#page")).to_have_text("page 3 of 86", use_inner_text=True)
    page.goto(address(run, "#sample=3"))
    settle(page, "document.querySelectorAll('.active li').length > 0")
    timed = "const start = performance.now(); await activeUnits(3, [2, 2]); return performance.now() - start"
    taken = page.evaluate(f"(async () => {{ {timed} }})()")
    print(f"4,096 units at a point in {taken:.0f} ms")


def test_the_skip_link_goes_to_the_first_card(page: Any, shown: Dissection) -> None:
    page.goto(address(shown))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.matches('#cards .card:first-child .open')")


@pytest.mark.parametrize("how", ["hover", "focus", "click"])
def test_a_term_shows_its_definition(page: Any, shown: Dissection, how: str) -> None:
    page.goto(address(shown))
    getattr(page.locator("#view-overview .term[data-term='position IoU']").first, how)()
    expect(page.locator("#tip")).to_contain_text(TERMS["position IoU"])
    assert page.evaluate("document.querySelector('[aria-describedby=tip]').dataset.term") == "position IoU"
    page.goto(address(shown, "#paint/unit=2"))
    getattr(page.locator("dialog .term[data-term='q-value']"), how)()
    expect(page.locator("#tip")).to_contain_text(TERMS["q-value"])
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()
    expect(page.locator("dialog")).to_be_visible()
    assert {button.get_attribute("data-term") for button in page.locator(".term").all()} <= set(TERMS)


def test_the_network_is_a_strip_whose_layers_lead_to_their_units(page: Any, shown: Dissection) -> None:
    page.goto(address(shown))
    assert page.locator(".network b").all_inner_texts() == [layer["layer"] for layer in shown.info["network"]]
    expect(page.locator(".network .dissected")).to_contain_text(f"{shown.units.labelled.sum()} of 6 labelled")
    page.locator(".network a").click()
    expect(page.locator("#shown")).to_have_text(f"{shown.units.labelled.sum()} of 6 units", use_inner_text=True)


def test_on_a_phone_and_on_paper(page: Any, shown: Dissection) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for place in ("", "#units", "#sample=5", "#paint/unit=2", "#classes"):
        page.goto(address(shown, place))
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
    page.goto(address(shown, "#units"))
    expect(page.get_by_label("Sort by")).to_be_hidden()
    page.get_by_role("button", name="Filter and sort").click()
    expect(page.get_by_label("Sort by")).to_be_visible()
    page.emulate_media(media="print")
    page.goto(address(shown))
    assert page.evaluate("getComputedStyle(document.querySelector('.beyond')).printColorAdjust") == "exact"
    assert page.pdf().startswith(b"%PDF")
