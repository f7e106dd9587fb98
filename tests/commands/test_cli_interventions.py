"""dissect ablate, insert and scan as users meet them, and the pages that they add to the report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from ganatomy import dissect as api
from ganatomy.cli import main
from ganatomy.dissect.generators.base import Generator
from ganatomy.reports.pages import write_report

from ..conftest import Painter
from ..reports.test_report import HostileSegmenter
from ..support.browser import expect, until

Cli = Callable[..., Result]

FACTORY = """
from ganatomy.tests.conftest import ColourSegmenter, Painter
net, namer = Painter, ColourSegmenter
"""
RUN = Path("runs") / "mine.net-paint"


@pytest.fixture
def cli(on_path: Path) -> Cli:
    """The command, in a folder that holds a finished run of the painter."""
    (on_path / "mine.py").write_text(FACTORY)
    save_file(Painter().state_dict(), on_path / "net.safetensors")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    options = ("--latent", "normal:6", "--weights", "net.safetensors", "--layer", "paint", "--segmenter", "mine:namer")
    done = call("run", "--model", "mine:net", *options, "--samples", 60, "--quiet")
    assert done.exit_code == 0, done.output
    return call


def test_ablate_shows_a_table_and_adds_a_page(cli: Cli) -> None:
    done = cli("ablate", RUN, "--class", "red", "--top", 1, "--samples", 16, "--curve")
    assert done.exit_code == 0, done.output
    report = RUN / "report" / "index.html"
    assert done.stdout.strip() == f"{report.resolve().as_uri()}#intervention=ablate-red-paint-top1"
    for text in ("1 unit of paint ablated", "16 samples from 60 to 75", "-100", "On target: 100%"):
        assert text in done.stderr
    table = pd.read_csv(RUN / "interventions" / "ablate-red-paint-top1" / "effects.csv").set_index("class")
    assert table.after["red"] == 0
    assert table.change_pp["green"] == 0
    text = report.read_text()
    assert "interventions/ablate-red-paint-top1/curve.svg" in text
    assert 'href="#intervention=ablate-red-paint-top1"' in text


def test_json_is_all_that_is_printed(cli: Cli) -> None:
    done = cli("insert", RUN, "--class", "blue", "--top", 1, "--where", "0.1,0.9", "--samples", 8, "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["units"] == [2]
    rows = {row["class"]: row for row in result["effects"]}
    assert rows["blue"]["change_pp"] > 0
    assert rows["red"]["change_pp"] == 0


def test_insert_on_the_grid_tells_the_context(cli: Cli) -> None:
    done = cli("insert", RUN, "--class", "green", "--top", 1, "--samples", 6, "--random-sets", 1)
    assert done.exit_code == 0, done.output
    assert "green gained, by the class that was there before" in done.stderr
    assert (RUN / "interventions" / "insert-green-paint-top1" / "context.csv").exists()


def test_scan_ranks_units(cli: Cli) -> None:
    done = cli("scan", RUN, "--class", "yellow", "--samples", 20)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().endswith(f"{RUN.name}/report/index.html#intervention=scan-paint-yellow")
    assert "Rank correlation" in done.stderr
    result = json.loads(cli("scan", RUN, "--class", "yellow", "--samples", 20, "--json").stdout)
    assert result[0]["units"][0]["unit"] == 3
    assert result[0]["units"][0]["causal_rank"] == 1


def test_scan_says_why_every_unit_was_ablated(cli: Cli) -> None:
    done = cli("scan", RUN, "--class", "red", "--samples", 20, "--top", 2)
    assert "without probabilities" in " ".join(done.stderr.split())
    assert "--exact" in cli("scan", RUN, "--class", "red", "--samples", 20, "--exact").stderr
    assert cli("scan", RUN, "--class", "red", "--top", 0).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ablate", RUN), "--units LAYER:UNIT"),
        (("ablate", RUN, "--class", "rad"), "There is no class 'rad'. Did you mean red?"),
        (("ablate", RUN, "--class", "red", "--top", "7"), "--top 7: paint has 6 units"),
        (("ablate", RUN, "--units", "paint:9"), "has units 0 to 5; asked for 9"),
        (("ablate", RUN, "--class", "red", "--layer", "pant"), "has no layer 'pant'"),
        (("ablate", "nowhere", "--class", "red"), "nowhere is no run folder"),
        (("insert", RUN, "--class", "red", "--where", "0.5"), "x,y,w,h inside the image"),
        (("scan", RUN, "--class", "red", "--samples", "61"), "--samples 61: must be between 1 and 60"),
        (("scan", RUN), "Missing option '--class'"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, arguments: tuple[object, ...], message: str) -> None:
    before = sorted(Path().rglob("*"))
    done = cli(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr.splitlines()[-1]
    assert done.stderr.count("\n") <= 2  # the run that is loaded, and the error
    assert sorted(Path().rglob("*")) == before


def test_weights_that_have_changed_are_refused(cli: Cli) -> None:
    state = Painter().state_dict()
    state["colour.weight"] = state["colour.weight"] * 2
    save_file(state, "net.safetensors")
    done = cli("ablate", RUN, "--class", "red", "--top", 1)
    assert done.exit_code == 2
    assert "mine.net has changed since the run in runs/mine.net-paint was made" in done.stderr
    assert not (RUN / "interventions").exists()


def test_a_mask_that_is_no_picture(cli: Cli) -> None:
    Path("mask.png").write_text("no picture")
    done = cli("insert", RUN, "--class", "red", "--top", 1, "--where", "mask.png")
    assert done.exit_code == 1
    assert "cannot be read as an image" in done.stderr


def test_pages_open_in_a_browser(cli: Cli, page: Any) -> None:
    cli("ablate", RUN, "--class", "red", "--top", 2, "--samples", 24, "--curve", "--quiet")
    cli("insert", RUN, "--class", "green", "--top", 1, "--samples", 6, "--quiet")
    cli("scan", RUN, "--class", "red", "--samples", 10, "--quiet")
    page.goto((RUN / "report" / "index.html").resolve().as_uri() + "#interventions")
    links = page.locator("#view-interventions a")
    expect(links).to_have_count(3)
    for number, heading in enumerate(("2 units ablated red", "1 unit inserted green", "Each unit by itself red")):
        links.nth(number).click()
        expect(page.locator("h2.title:visible")).to_have_text(heading, use_inner_text=True)
        page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        until(page, "[...document.images].every(i => i.complete)")
        broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)")
        assert broken == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.go_back()
    links.nth(0).click()
    row = page.locator("tr.target:visible td").all_inner_texts()
    assert row[0] == "red"
    assert re.fullmatch(r"[-−]100\s?%", row[1])
    page.get_by_label("slider", exact=True).locator("visible=true").check()
    stage = page.locator(".pair .stage:visible").first
    slider, after = stage.locator("input"), stage.locator("img.images.after")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert after.evaluate("(image) => getComputedStyle(image).clipPath") == "inset(0px 0px 0px 60%)"
    box = stage.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 10)  # with the pointer
    assert 15 <= int(slider.input_value()) <= 35
    page.get_by_label("segmentation").locator("visible=true").check()
    expect(stage.locator("img.labels").first).to_be_visible()
    expect(after).to_be_hidden()
    page.get_by_label("difference × 3").locator("visible=true").check()
    expect(stage.locator("img.difference")).to_be_visible()
    page.go_back()
    links.nth(2).click()
    rows = page.locator("table.scan:visible tbody tr")
    expect(rows).to_have_count(6)
    page.locator("table.scan:visible th button", has_text="IoU rank").click()
    ranks = [int(text) for text in rows.locator("td:nth-child(4)").all_inner_texts() if text != "–"]
    assert ranks == sorted(ranks)
    rows.first.locator("a").click()
    expect(page.locator("dialog")).to_be_visible()
    expect(page.locator("dialog")).to_contain_text("Ablated by itself")


def test_names_are_escaped(painter: Generator, tmp_path: Path, page: Any) -> None:
    hostile = HostileSegmenter()
    run = api.run(painter, layers=[1], segmenter=hostile, samples=60, out=tmp_path / "run", quiet=True)
    options: dict[str, Any] = {"generator": painter, "segmenter": hostile, "quiet": True}
    name = hostile.vocabulary.names[0]
    effects = api.ablate(run, label=name, top=1, samples=12, curve=True, **options)
    api.scan(run, label=name, samples=8, **options)
    index = write_report(run)
    for place in ("", "#interventions", "#intervention=" + quote(effects.info["name"])):
        page.goto(index.as_uri() + place)
        page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        until(page, "[...document.images].every(i => i.complete)")
        assert page.title() != "owned"
        assert page.evaluate("document.images.length") == page.evaluate(
            "[...document.images].filter(i => i.naturalWidth).length"
        )
    assert "/" not in effects.info["name"]


def test_an_intervention_writes_nowhere_else(cli: Cli, tmp_path: Path) -> None:
    cli("ablate", RUN, "--class", "red", "--top", 1, "--samples", 8, "--quiet")
    place = RUN / "interventions" / "ablate-red-paint-top1" / "effect.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"name": "../../../../elsewhere"}))
    assert cli("report", RUN, "--quiet").exit_code == 0
    assert not list(tmp_path.rglob("*elsewhere*"))
    assert (RUN / "report" / "interventions" / "ablate-red-paint-top1" / "effects.csv").is_file()


def test_a_damaged_intervention_is_said(cli: Cli) -> None:
    cli("ablate", RUN, "--class", "red", "--top", 1, "--samples", 8, "--quiet")
    (RUN / "interventions" / "ablate-red-paint-top1" / "pictures.npz").write_bytes(b"x")
    done = cli("report", RUN)
    assert done.exit_code == 1
    assert "pictures.npz cannot be read" in done.stderr
    shutil.rmtree(RUN / "interventions")
    assert cli("report", RUN, "--quiet").exit_code == 0


def test_a_mask_says_where(cli: Cli) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[6, 1] = 255
    Image.fromarray(mask).save("mask.png")
    options = ("--units", "paint:2", "--level", "0.01", "--where", "mask.png", "--samples", 8, "--json")
    rows = {row["class"]: row for row in json.loads(cli("insert", RUN, *options).stdout)["effects"]}
    assert 0 < rows["blue"]["change_pp"] <= 100 / 64 + 1e-9
