"""The page of all results of a folder, and the pages of moves through latents, in a real browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ganatomy import dissect
from ganatomy.dissect import Generator
from ganatomy.dissect.latents.explore import explore
from ganatomy.dissect.latents.result import Explored
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.reports.comparison import write_comparison
from ganatomy.reports.index import write_index
from ganatomy.reports.latents import write_latents
from ganatomy.reports.pages import write_report

from ..conftest import ColourSegmenter
from ..support.browser import expect, until

pytestmark = pytest.mark.slow


@pytest.fixture
def results(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> Path:
    """Two runs, one of them without a page, a comparison, an interpolation, a damaged result and a foreign folder."""
    folder = tmp_path / "my runs"
    runs = [
        dissect.run(
            painter, layers=[1], segmenter=colours, samples=60, seed=seed, out=folder / f"run {seed}", quiet=True
        )
        for seed in (0, 1)
    ]
    write_report(runs[0])
    write_comparison(dissect.compare(*runs), tmp_path / "comparisons" / "both")
    explore("interpolate", painter, out=folder / "walk", quiet=True)
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text("{")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "readme.txt").write_text("nothing of ours")
    return folder


def test_every_result_is_listed(page: Any, results: Path) -> None:
    page.goto(write_index(results).resolve().as_uri())
    entries = page.locator(".entries > li")
    assert sorted(entries.evaluate_all("(all) => all.map((one) => one.dataset.kind)")) == sorted(
        ["run", "run", "latents", "comparison"]
    )
    until(page, "[...document.images].every((one) => one.naturalWidth > 0)")
    labelled = int(dissect.Dissection.load(results / "run 0").units.labelled.sum())
    expect(entries.filter(has_text="run 0").filter(has_text="labelled")).to_contain_text(f"{labelled} of 6 units")
    expect(page.locator(".warning")).to_contain_text("broken")
    expect(page.locator("main")).not_to_contain_text("foreign")
    expect(entries.filter(has_text="run 1").filter(has_text="labelled")).to_contain_text(
        "dissect report"
    )  # no page yet
    page.get_by_role("button", name="latents").click()
    expect(page.locator(".entries > li:visible")).to_have_count(1)
    page.get_by_role("button", name="all").click()
    entries.filter(has_text="run 0").filter(has_text="labelled").get_by_role("link").first.click()
    expect(page.locator("h1")).to_contain_text("painter")


def test_two_ticked_runs_give_the_command(page: Any, results: Path) -> None:
    page.goto(write_index(results).resolve().as_uri())
    boxes, command = page.locator("input[data-run]"), page.locator(".compare code")
    boxes.first.focus()
    page.keyboard.press("Space")
    expect(command).to_be_hidden()
    boxes.nth(1).check()
    expect(command).to_be_visible()
    for number in (0, 1):
        expect(command).to_contain_text(f"'{results}/run {number}'")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".compare").get_by_role("button", name="copy").click()
    expect(page.locator(".compare").get_by_role("button", name="copied")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_not_ours_is_not_replaced(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        write_index(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="run 0"):
        write_index(results / "run 0")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>my site</h1>")
    with pytest.raises(UsageError, match=r"index\.html"):
        write_index(tmp_path / "site")
    first = write_index(results).read_bytes()
    assert write_index(results).read_bytes() == first
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    assert "dissect run" in write_index(tmp_path / "deep" / "empty").read_text(encoding="utf-8")


def test_a_film_plays_stops_and_is_wound(page: Any, results: Path) -> None:
    explored = Explored.load(results / "walk")
    page.emulate_media(reduced_motion="reduce")
    page.goto(write_latents(explored).resolve().as_uri())
    expect(page.locator(".verdict")).to_contain_text("0 to 1, 2, 3")
    play, winder, film = page.locator(".play"), page.locator(".winder input"), page.locator(".player img")
    expect(play).to_have_text("play")  # it does not start by itself
    place = "(one) => one.style.transform"
    start = film.evaluate(place)
    winder.focus()
    page.keyboard.press("ArrowRight")
    assert film.evaluate(place) != start
    play.click()
    until(page, "document.querySelector('.winder input').value > 3")
    play.click()
    stopped = winder.input_value()
    page.wait_for_timeout(300)
    assert winder.input_value() == stopped
    page.emulate_media(reduced_motion="no-preference")
    page.reload()
    expect(play).to_have_text("pause")
    shutil.rmtree(explored.folder / "report")
    (explored.folder / "film.webp").unlink()
    with pytest.raises(DissectError, match=r"film\.webp"):
        write_latents(explored)
    assert not (explored.folder / "report").exists()


def test_hostile_names_stay_text(page: Any, results: Path) -> None:
    path = results / "walk" / "latents.json"
    info = json.loads(path.read_text())
    info["config"]["model"] = "<img src=x onerror=document.title='owned'>"
    path.write_text(json.dumps(info))
    page.goto(write_index(results).resolve().as_uri())
    expect(page.locator("main")).to_contain_text("onerror")
    assert page.title() != "owned"
