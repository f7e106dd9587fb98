"""The report in a real browser, from the file system, with friendly and with hostile content."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.hooks.errors import DissectError
from ganatomy.reports import figures
from ganatomy.reports.pages import write_report
from ganatomy.segmenters import Vocabulary

from ..conftest import COLOURS, ColourSegmenter
from ..support.browser import expect, until

pytestmark = pytest.mark.slow

SCRIPT = '"><script>document.title="owned"</script>'
HOSTILE = ("<img src=x onerror=document.title='owned'>", "$x$ & <b>", "blue", SCRIPT)


class HostileSegmenter(ColourSegmenter):
    name = SCRIPT
    vocabulary = Vocabulary(names=HOSTILE, categories=("<i>",) * 4, colours=(*COLOURS[:3], "red;background:url(x)"))


def make(painter: Generator, segmenter: ColourSegmenter, folder: Path, **options: Any) -> Path:
    run = dissect.run(painter, layers=[1], segmenter=segmenter, samples=60, out=folder, quiet=True, **options)
    return write_report(run)


def shows(page: Any, units: list[int], in_order: bool = True) -> None:
    """The cards become those of the units: the address changes first, the page with the event that follows."""
    shown = "[...document.querySelectorAll('#cards .card .head .muted')].map((one) => +one.innerText.split(' ').pop())"
    wanted = json.dumps(units if in_order else sorted(units), separators=(",", ":"))
    until(page, f"JSON.stringify({shown}{'' if in_order else '.sort((a, b) => a - b)'}) === '{wanted}'")


def test_search_filter_and_sort(page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    index = make(painter, colours, tmp_path / "run").as_uri()
    units = dissect.Dissection.load(tmp_path / "run").units
    page.goto(index)
    assert "painter" in page.title()
    expect(page.locator("h1")).to_have_text("painter paint", use_inner_text=True)
    expect(page.locator(".warning")).to_contain_text("1 unit constant")
    page.get_by_role("link", name="Units", exact=True).click()
    expect(page.locator("#cards .card")).to_have_count(6)
    expect(page.locator("#shown")).to_have_text("6 of 6 units", use_inner_text=True)
    page.get_by_label("Sort by").select_option("unit")
    shows(page, [0, 1, 2, 3, 4, 5])
    page.get_by_label("reversed").check()
    shows(page, [5, 4, 3, 2, 1, 0])
    page.get_by_label("reversed").uncheck()
    page.get_by_label("Sort by").select_option("iou")
    by_iou = units.sort_values("iou", ascending=False, kind="stable", na_position="last").unit.tolist()
    shows(page, by_iou)
    page.get_by_label("Find").fill("green")
    shows(page, units[units.label == "green"].unit.tolist())
    page.get_by_label("Find").fill("4")
    shows(page, [4])
    expect(page.locator("#cards .card")).to_contain_text("constant")
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("labelled only").check()
    shows(page, units[units.labelled].unit.tolist(), in_order=False)
    page.get_by_label("labelled only").uncheck()
    page.get_by_label("IoU from").fill("0.5")
    page.get_by_label("to", exact=True).fill("0.99")
    shows(page, units[units.iou.between(0.5, 0.99)].unit.tolist(), in_order=False)


def test_the_address_holds_the_view(page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    index = make(painter, colours, tmp_path / "run").as_uri()
    units = dissect.Dissection.load(tmp_path / "run").units
    page.goto(index + "#class=green&sort=iou")
    shows(page, units[units.label == "green"].unit.tolist(), in_order=False)
    expect(page.locator("select[name=class]")).to_have_value("green")
    expect(page.locator("#class")).to_contain_text("object")
    share = dissect.Dissection.load(tmp_path / "run").classes.set_index("class")["share"]["green"]
    expect(page.locator("#class")).to_contain_text(f"{100 * share:.1f} % of all pixels")
    page.goto(index + "#paint/unit=2")
    expect(page.locator("dialog h2")).to_have_text(re.compile("^unit 2 blue"), use_inner_text=True)
    page.go_back()
    page.locator("dialog").wait_for(state="hidden")
    page.locator("select[name=class]").select_option("red")
    until(page, "location.hash === '#class=red&sort=iou'")
    for stale, said in (
        ("#nothing/unit=99", "no layer nothing"),
        ("#paint/unit=99", "no unit 99 in paint"),
        ("#paint/unit=x", "no unit x in paint"),
        ("#class=nothing", "no class nothing"),
        ("#intervention=nothing", "no intervention nothing"),
        ("#sample=999", "no sample 999"),
    ):
        page.goto(index + stale)
        expect(page.locator("#missing")).to_contain_text(said)
        expect(page.locator("dialog")).to_be_hidden()
    page.goto(index + "#units")
    expect(page.locator("#missing")).to_be_hidden()


def test_the_keyboard_reaches_everything(
    page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    page.goto(make(painter, colours, tmp_path / "run").as_uri() + "#sort=unit")
    page.keyboard.press("/")
    until(page, "document.activeElement.name === 'find'")
    page.locator("#cards .open").nth(1).focus()
    page.keyboard.press("Enter")

    def titled(unit: int) -> None:
        until(page, f"document.querySelector('dialog h2')?.innerText.startsWith('unit {unit} ')")

    titled(1)
    page.keyboard.press("ArrowRight")
    titled(2)
    page.keyboard.press("ArrowLeft")
    titled(1)
    page.keyboard.press("ArrowLeft")
    titled(0)
    page.keyboard.press("ArrowLeft")  # there is none before the first
    titled(0)
    images = page.locator("dialog .looks > .large")
    expect(images.locator(".region").first).to_be_visible()
    page.keyboard.press("o")
    page.keyboard.press("s")
    expect(images.locator(".region").first).to_be_hidden()
    expect(images.locator("img.labels").first).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="hidden")
    until(page, "document.activeElement.dataset.unit === '0'")


def test_the_panel_tells_what_the_run_knows(
    page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    index = make(painter, colours, tmp_path / "run").as_uri()
    run = dissect.Dissection.load(tmp_path / "run")
    unit = run.units.iloc[2]
    page.goto(index + "#paint/unit=2")
    expect(page.locator("dialog")).to_contain_text("better than that of other images")
    expect(page.locator("dialog .figures")).to_contain_text(f"{unit.position_iou:.3f}")
    ys = [float(point.split(",")[1]) for point in page.locator("polyline.iou").get_attribute("points").split()]
    iou, chance = (values[2] for values in run.curves("paint"))
    assert np.allclose(ys, 180 * (1 - iou / 1.0), atol=0.06)  # the greatest IoU is 1, where the axis ends
    below = [float(point.split(",")[1]) for point in page.locator("polyline.chance").get_attribute("points").split()]
    assert np.allclose(below, 180 * (1 - chance / 1.0), atol=0.06)
    counts, _ = run.histogram("paint")
    tall = [float(bar.get_attribute("height")) for bar in page.locator("dialog rect").all()]
    assert np.allclose(tall, 180 * np.log1p(counts[2]) / np.log1p(counts[2].max()), atol=0.06)
    told = page.locator(".rivals li").all_inner_texts()
    rivals = run.rivals("paint").query("unit == 2 and iou.notna()")
    rivals = rivals.iloc[np.argsort(rivals.position_iou - rivals.iou, kind="stable")]
    assert [text.split()[0] for text in told] == rivals["class"].tolist()
    assert f"{rivals.iou.iloc[0]:.3f}" in told[0]
    expect(page.locator("dialog .mean canvas")).to_have_count(1)
    expect(page.locator("dialog .looks > .large figure")).to_have_count(len(run.tops("paint")[0][2]))
    page.goto(index + "#paint/unit=4")
    expect(page.locator("dialog")).to_contain_text("no label, because it is constant")
    expect(page.locator("dialog polyline")).to_have_count(0)


def test_pictures_load_and_links_lead_somewhere(
    page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    index = make(painter, colours, tmp_path / "run")
    for place in ("", "#units", "#class=red", "#classes"):
        page.goto(index.as_uri() + place)
        page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        until(page, "[...document.images].every(i => i.complete)")
        assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0 && i.hasAttribute('alt'))")
    for link in page.locator("a[download]").all():
        assert (index.parent / link.get_attribute("href")).is_file()
    shutil.move(index.parent, tmp_path / "elsewhere")  # the folder alone is enough
    page.goto((tmp_path / "elsewhere" / "index.html").as_uri() + "#units")
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    until(page, "[...document.images].every(i => i.complete)")
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")


def test_a_single_file_holds_everything(
    page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    make(painter, colours, tmp_path / "run")
    single = write_report(dissect.Dissection.load(tmp_path / "run"), single_file=True)
    alone = shutil.move(single, tmp_path / "alone.html")
    shutil.rmtree(tmp_path / "run")
    page.goto(Path(alone).as_uri() + "#units")
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    until(page, "[...document.images].every(i => i.complete)")
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0 && i.src.startsWith('data:'))")
    expect(page.locator("#cards .card")).to_have_count(6)
    assert page.locator("a[download='units.csv']").first.get_attribute("href").startswith("data:text/csv;base64,")


def test_light_and_dark_have_contrast(page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    index = make(painter, colours, tmp_path / "run").as_uri()
    seen = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(index)
        names = ("--ink", "--soft", "--accent", "--place", "--card", "--paper")
        style = "getComputedStyle(document.documentElement).getPropertyValue"
        found = {name: page.evaluate(f"{style.rsplit('.', 1)[0]}.getPropertyValue('{name}')").strip() for name in names}
        for text in names[:4]:
            for ground in names[4:]:
                assert _contrast(found[text], found[ground]) >= 4.5, (scheme, text, ground)
        seen.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


class Many(nn.Module):
    """4,096 units at 4×4 that show the latent in many ways."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ConvTranspose2d(6, 4096, 4)
        self.shown = nn.Conv2d(4096, 3, 1)

    def forward(self, latents: Tensor) -> Tensor:
        return nn.functional.interpolate(self.shown(self.maps(latents[:, :, None, None])), scale_factor=8)


def test_thousands_of_units_filter_at_once(page: Any, colours: ColourSegmenter, tmp_path: Path) -> None:
    torch.manual_seed(0)
    many = Generator(module=Many(), name="many", source=NormalLatents((6,)), layers=("maps",))
    run = dissect.run(
        many, layers=[1], segmenter=colours, samples=8, grid=8, significance="off", out=tmp_path / "run", quiet=True
    )
    page.goto(write_report(run).as_uri() + "#units")
    expect(page.locator("#shown")).to_have_text("4096 of 4096 units", use_inner_text=True)
    expect(page.locator("#cards .card")).to_have_count(48)
    expect(page.locator("#page")).to_have_text("page 1 of 86", use_inner_text=True)
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#page")).to_have_text("page 2 of 86", use_inner_text=True)
    taken = page.evaluate(
        "[0, 1, 2, 3, 4].map((k) => { const start = performance.now();"
        "form.elements.find.value = ['red', 'e', 'blue', '7', ''][k];"
        "form.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - start })"
    )
    print(f"filtered 4,096 units in {[round(one) for one in taken]} ms")
    page.get_by_label("Find").fill("77")
    shows(page, [77])


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
        expect(page.locator("#controls tbody tr")).to_have_count(2)
    page.goto(make(painter, colours, tmp_path / "mixed", basis="pca", directions=3).as_uri())
    expect(page.locator("#view-overview .figures")).to_contain_text("directions of paint are labelled")
    page.get_by_role("link", name="Directions", exact=True).click()
    expect(page.locator("#shown")).to_have_text("3 of 3 directions", use_inner_text=True)


def test_a_run_without_a_test_says_so(page: Any, painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> None:
    page.goto(make(painter, colours, tmp_path / "run", significance="off").as_uri())
    page.get_by_text("Exact definitions").click()
    expect(page.locator(".notes")).to_contain_text("were not tested against position and chance")
    page.get_by_role("link", name="Units", exact=True).click()
    expect(page.get_by_label("Sort by").locator("option[value=q]")).to_have_count(0)
    page.locator("#cards .open").first.click()
    expect(page.locator("dialog")).to_contain_text("were not tested")


def test_a_strangers_run_folder_runs_no_script(page: Any, painter: Generator, tmp_path: Path) -> None:
    hostile = replace(painter, name=SCRIPT)
    page.goto(make(hostile, HostileSegmenter(), tmp_path / "run").as_uri())
    for place in (
        "",
        "#units",
        "#classes",
        "#paint/unit=1",
        "#" + quote(f"class={HOSTILE[0]}", safe="="),
        "#" + SCRIPT,
    ):
        page.goto(tmp_path.joinpath("run", "report", "index.html").as_uri() + place)
        page.wait_for_timeout(150)
        assert page.title() != "owned"
        expect(page.locator("script")).to_have_count(2)  # the data and the page's own
        expect(page.locator("img[onerror], b b, h1 script")).to_have_count(0)
    page.goto(tmp_path.joinpath("run", "report", "index.html").as_uri() + "#units")
    expect(page.locator("#cards")).to_contain_text(HOSTILE[0])
    whole = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "url(x)" not in whole
    assert "<img src=x" not in whole
    assert "script-src &#39;sha256-" in whole


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
    with pytest.raises(DissectError, match="page cannot be written"):
        write_report(run)
    assert (tmp_path / "run" / "report" / "index.html").exists()  # the old one stays


def test_an_outline_follows_the_region() -> None:
    mask = np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    assert figures.outline(mask) == "M8 9l1-1 14 0 1 1 0 14-1 1-14 0-1-1z"
    mask[7:9, 7:9] = False  # a hole is a path of its own
    assert figures.outline(mask).count("M") == 2
    assert figures.outline(np.ones((2, 2), bool)) == "M0 1l1-1 2 0 1 1 0 2-1 1-2 0-1-1z"  # closed at the image's edge
    assert figures.outline(np.zeros((4, 4), bool)) == ""


def test_labels_are_painted_in_their_colours() -> None:
    labels = np.array([[[0, 1], [-1, 0]]])
    painted = figures.paint_labels(labels, ["#ff0000", "javascript:x"])
    assert painted[0, 0, 0].tolist() == [255, 0, 0]
    assert painted[0, 0, 1].tolist() == [153, 153, 153]
    assert painted[0, 1, 0].tolist() == [0, 0, 0]


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
