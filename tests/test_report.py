"""The report in a real browser, from the file system, with friendly and with hostile content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganatomy import dissect
from ganatomy.dissect.generators.base import Generator
from ganatomy.hooks.errors import DissectError
from ganatomy.reports import figures
from ganatomy.reports.pages import write_report
from ganatomy.segmenters import Vocabulary

from .conftest import COLOURS, ColourSegmenter

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")

SCRIPT = '"><script>document.title="owned"</script>'
HOSTILE = ("<img src=x onerror=document.title='owned'>", "$x$ & <b>", "blue", SCRIPT)


class HostileSegmenter(ColourSegmenter):
    name = SCRIPT
    vocabulary = Vocabulary(names=HOSTILE, categories=("<i>",) * 4, colours=(*COLOURS[:3], "red;background:url(x)"))


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a real browser that fails the test on any console error and any request off the file system."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1240, "height": 900})
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(request.url))
        page.on("request", lambda r: troubles.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        yield page
        assert troubles == []
        browser.close()


def make(painter: Generator, segmenter: ColourSegmenter, folder: Path, **options: Any) -> Path:
    run = dissect.run(painter, layers=[1], segmenter=segmenter, samples=60, out=folder, quiet=True, **options)
    return write_report(run)


def column(page: Any, number: int) -> list[str]:
    cells = page.locator(f"#units tbody tr:not([hidden]) td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_sort_find_and_filter(page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    page.goto(make(painter, colours, tmp_path / "run").as_uri())
    assert "painter" in page.title()
    assert page.locator("h1").inner_text() == "painter paint"
    assert len(column(page, 1)) == 6
    assert page.locator("#shown").inner_text() == "6 of 6 units"
    page.get_by_role("button", name="unit").click()
    assert column(page, 2) == list("012345")
    page.get_by_role("button", name="IoU").click()
    scores = [float(text.split()[0]) for text in column(page, 4) if text]
    assert scores == sorted(scores, reverse=True)
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("IoU")
    page.get_by_role("button", name="IoU").press("Enter")  # by keyboard
    scores = [float(text.split()[0]) for text in column(page, 4) if text]
    assert scores == sorted(scores)
    page.get_by_label("Find").fill("green")
    assert set(column(page, 3)) == {"green"}
    page.get_by_label("Find").fill("4")
    assert column(page, 2) == ["4"]
    assert column(page, 3) == ["constant"]
    page.get_by_label("Find").fill("")
    page.get_by_label("labelled only").check()
    assert sorted(column(page, 3)) == ["blue", "green", "red", "yellow"]
    assert "1 units constant" in page.locator(".warning").inner_text()


def test_pictures_load_and_links_lead_somewhere(
    page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    page.goto(make(painter, colours, tmp_path / "run").as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_function("[...document.images].every(i => i.complete)")
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0 && i.alt)")
    assert page.locator("img").count() == 6 + 2
    for link in page.locator("a").all():
        assert (tmp_path / "run" / "report" / link.get_attribute("href")).is_file()


def test_every_unit_has_a_page(page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    index = make(painter, colours, tmp_path / "run")
    page.goto(index.as_uri())
    page.get_by_role("link", name="2", exact=True).click()
    run = dissect.Dissection.load(tmp_path / "run")
    unit = run.units.iloc[2]
    assert page.locator("h1").inner_text() == "unit 2 blue"
    assert page.locator("header").inner_text().count(f"{unit.position_iou:.3f}") == 1
    assert "better than that of other images" in page.locator("header").inner_text()
    ys = [float(point.split(",")[1]) for point in page.locator("polyline.iou").get_attribute("points").split()]
    iou, chance = (values[2] for values in run.curves("paint"))
    assert np.allclose(ys, 220 * (1 - iou / 1.0), atol=0.06)  # the greatest IoU is 1, where the axis ends
    below = [float(point.split(",")[1]) for point in page.locator("polyline.chance").get_attribute("points").split()]
    assert np.allclose(below, 220 * (1 - chance / 1.0), atol=0.06)
    page.get_by_role("link", name="unit 3 →").click()
    assert page.locator("h1").inner_text() == "unit 3 yellow"
    page.goto((index.parent / "units" / "0-4.html").as_uri())
    assert "tells of no class: constant" in page.locator("header").inner_text()
    assert page.locator("svg").count() == 0


def test_controls_and_directions_are_named_so(
    page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    page.goto(make(painter, colours, tmp_path / "run", controls=["rotation", "untrained"]).as_uri())
    rows = [text.split("\t") for text in page.locator("#controls tbody tr").all_inner_texts()]
    assert [row[1] for row in rows] == ["trained", "rotation", "untrained"]
    run = dissect.Dissection.load(tmp_path / "run")
    for row, found in zip(rows, (run, *run.controls.values()), strict=True):
        assert row[3] == f"{found.units.labelled.sum()} of 6"
    for control in ("rotation", "untrained"):
        page.goto(make(painter, colours, tmp_path / control, controls=[control]).as_uri())
        assert page.locator("#controls tbody tr").count() == 2
    page.goto(make(painter, colours, tmp_path / "mixed", basis="pca", directions=3).as_uri())
    assert "3" in page.locator(".figures").inner_text()
    assert "directions of paint are labelled" in page.locator(".figures").inner_text()
    assert page.locator("#shown").inner_text() == "3 of 3 directions"


def test_a_run_without_a_test_says_so(page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    page.goto(make(painter, colours, tmp_path / "run", significance="off").as_uri())
    page.get_by_text("what do the numbers mean").click()
    assert "were not tested against place and chance" in page.locator(".notes").inner_text()
    assert page.get_by_role("button", name="q", exact=True).count() == 0
    page.get_by_role("link", name="1", exact=True).click()
    assert "labels of this run were not tested" in page.locator("header").inner_text()


def test_a_strangers_run_folder_runs_no_script(page: Any, painter: Generator, tmp_path: Path) -> None:
    hostile = replace(painter, name=SCRIPT)
    page.goto(make(hostile, HostileSegmenter(), tmp_path / "run").as_uri())
    page.wait_for_timeout(300)
    assert page.title() != "owned"
    assert page.locator("#units script, #units tbody b b, h1 script").count() == 0
    assert HOSTILE[0] in column(page, 3)
    chart = (tmp_path / "run" / "report" / "units-per-class.svg").read_text()
    assert "<script" not in chart
    assert "<img" not in chart
    assert "url(x)" not in (tmp_path / "run" / "report" / "index.html").read_text()


def test_the_same_run_gives_the_same_bytes(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    report = make(painter, colours, tmp_path / "run").parent
    first = {path.name: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    write_report(dissect.Dissection.load(tmp_path / "run"))
    assert {path.name: path.read_bytes() for path in report.rglob("*") if path.is_file()} == first
    assert not list(tmp_path.rglob("*.part"))


def test_a_report_that_cannot_be_written(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    make(painter, colours, tmp_path / "run")
    run = dissect.Dissection.load(tmp_path / "run")
    (tmp_path / "run" / f"report.{os.getpid()}.part").write_text("in the way")
    with pytest.raises(DissectError, match="report cannot be written"):
        write_report(run)
    assert (tmp_path / "run" / "report" / "index.html").exists()  # the old one stays


def test_an_outline_follows_the_region() -> None:
    image = np.full((1, 64, 64, 3), 90, np.uint8)
    mask = np.zeros((1, 16, 16), bool)
    mask[0, 4:12, 4:12] = True
    drawn = figures.outline(image, mask)[0]
    yellow = (drawn == figures.LINE).all(-1)
    assert yellow[16:18, 20:44].all()
    assert not yellow[20:44, 20:44].any()
    assert not yellow[:15].any()
    assert (drawn[20:44, 20:44] == 90).all()
    assert (drawn[:14] == 72).all()


def test_labels_are_painted_in_their_colours() -> None:
    labels = np.array([[[0, 1], [-1, 0]]])
    painted = figures.paint_labels(labels, ["#ff0000", "javascript:x"], (4, 4))
    assert painted[0, 0, 0].tolist() == [255, 0, 0]
    assert painted[0, 1, 3].tolist() == [153, 153, 153]
    assert painted[0, 3, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", '{"schema": 1, "status": "complete", "config": {}}'),
        ("run.json", "null"),
        ("classes.csv", "class,category,colour,share,images,units\n"),
        ("units.csv", "layer,unit,label,category,labelled,iou,iqr,chance_iou,threshold,quantile,peak,state\na,b,c\n"),
        ("spool/shard-00000/images.npy", "nonsense"),
    ],
)
def test_a_damaged_run_is_named(
    painter: Generator, colours: ColourSegmenter, tmp_path: Path, name: str, content: str
) -> None:
    make(painter, colours, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(DissectError) as caught:
        write_report(dissect.Dissection.load(tmp_path / "run"))
    assert str(tmp_path / "run") in str(caught.value)
    assert "\n" not in str(caught.value)
