"""The text of three lines and the card of each kind of result, against its tables and pictures."""

from __future__ import annotations

import base64
import io
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import HTMLFormatter, PlainTextFormatter
from PIL import Image

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator
from ganatomy.reports import notebook

from ..conftest import GREEN, RED, Do, Go, Soft
from ..reports.test_fitness_page import fitness
from ..reports.test_watch_page import watched
from ..support.audits import checkup, diversity, repair, seams, suspects

Result = Any


class Page(HTMLParser):
    """What a card holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data.strip()}"

    @property
    def images(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def card(result: Result) -> Page:
    """The card as IPython gets it: sound HTML in itself, without scripts, and at once."""
    started = time.process_time()
    html = HTMLFormatter()(result)
    assert time.process_time() - started < 1
    page = Page(html)
    assert not page.open
    for tag, attributes in page.tags:
        assert tag not in ("script", "style", "link", "iframe")
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    return page


def lines(result: Result) -> list[str]:
    text = PlainTextFormatter()(result)
    assert len(text) < 600
    assert len(text.splitlines()) == 3
    return [line.strip() for line in text.splitlines()]


def test_a_run_shows_the_best_unit_of_each_class(found: Dissection) -> None:
    first, second, third = lines(found)
    assert first == "Dissection: planted, 40 units of paint, on 120 samples"
    assert "2 of 40 units labelled with 2 classes" in second
    assert third == f"in {found.folder}"
    page = card(found)
    assert [f"unit {unit}" in page.text for unit in (RED, GREEN)] == [True, True]
    row = found.units.iloc[RED]
    assert f"{row.iou:.2f} [{row.iou_low:.2f}, {row.iou_high:.2f}], position {row.position_iou:.2f}" in page.text
    assert len(page.images) == 8  # two units, four samples each
    assert {image.size for image in page.images} == {(32, 32)}
    assert sum(tag == "path" for tag, _ in page.tags) >= 2
    assert "run.report()" in page.text
    found.report()
    assert any(
        tag == "a" and str(attributes["href"]).endswith("report/index.html") for tag, attributes in card(found).tags
    )


def test_pictures_of_a_run_are_those_of_its_spool(found: Dissection) -> None:
    best = found.highlights(8).unit.iloc[0]
    sample = found.unit(int(best)).samples[0]
    stored = found.spool.gather("images", np.array([sample]))[0]
    shown = np.asarray(card(found).images[0].convert("RGB"), np.int32)
    assert np.abs(shown - stored).mean() < 12  # WebP loses a little


def test_a_run_without_labels_and_one_untested_are_shown(go: Go) -> None:
    few = go(samples=4)
    assert "0 of 6 units labelled" in lines(few)[1]
    assert not card(few).images
    untested = go(samples=60, significance="off", out=few.folder.with_name("off"))
    assert "position" not in lines(untested)[1]
    assert card(untested).images


def test_a_unit_a_sample_and_a_class(found: Dissection) -> None:
    unit = found.unit(RED)
    assert "red (strong): IoU" in lines(unit)[1]
    page = card(unit)
    assert len(page.images) == len(unit.samples)
    assert all(f"sample {sample}" in page.text for sample in unit.samples)
    assert "red" in lines(found["red"])[0]
    assert f"unit {RED}" in card(found["red"]).text
    sample = found.sample(3)
    page = card(sample)
    labels = np.asarray(page.images[1].convert("RGB"))
    assert labels.shape == (32, 32, 3)
    colours = {tuple(colour) for colour in labels.reshape(-1, 3).tolist()}
    present = found.classes.colour[found.classes["class"].isin(sample.classes.index)]
    expected = {tuple(int(text[k : k + 2], 16) for k in (1, 3, 5)) for text in present}
    assert colours - {(0, 0, 0)} == expected


def test_effects_show_their_numbers_and_pictures(found: Dissection, do: Do) -> None:
    effects = do("ablate")(label="red", top=1, random_sets=2)
    first, second, third = lines(effects)
    row = effects["red"]
    assert first == "Effects: 1 unit of paint ablated for red, on 24 samples"
    ends = f"{100 * row.relative:+.0f} % [{100 * row.relative_low:+.0f}, {100 * row.relative_high:+.0f}]"
    assert ends.replace("-", "−") in second
    assert third == f"in {effects.folder}"
    page = card(effects)
    assert f"{row.change_pp:+.2f} points".replace("-", "−") in page.text
    count = min(6, len(effects.pictures["sample"]))
    assert len(page.images) == 2 * count
    before = np.asarray(page.images[0].convert("RGB"), np.int32)
    assert np.abs(before - effects.pictures["before"][0]).mean() < 12
    assert f"sample {effects.pictures['sample'][0]}" in page.text


def test_a_scan_shows_a_point_for_each_unit(found: Dissection, planted: Generator) -> None:
    scan = dissect.scan(found, label="red", samples=8, generator=planted, segmenter=Soft(), quiet=True)
    assert f"strongest: unit {RED}" in lines(scan)[1]
    page = card(scan)
    points = [attributes for tag, attributes in page.tags if tag == "circle"]
    assert len(points) == 40
    strongest = scan.table.iloc[0]
    x, y = float(points[-1]["cx"] or 0), float(points[-1]["cy"] or 0)
    assert x == pytest.approx(380 * strongest.iou / scan.table.iou.max(), abs=0.1)
    assert y == pytest.approx(220, abs=0.1)  # removes most: the lowest


def test_a_checkup_shows_the_crop_with_the_checkerboard(tmp_path: Path) -> None:
    audit = checkup(tmp_path)
    assert "6.0 dB [5.0, 7.0]" in lines(audit)[1]
    page = card(audit)
    assert "checkerboard" in page.text
    drawn, flat, spectrum = page.images
    assert drawn.size == flat.size == (144, 144)  # 24 pixels, six times
    pixels = np.asarray(drawn)[::6, ::6, 0]
    assert {90, 160} == set(pixels.ravel().tolist())
    assert set(np.asarray(flat)[..., 0].ravel().tolist()) == {90}
    assert spectrum.size == (128, 128)


def test_an_audit_of_diversity_shows_what_is_lacking(tmp_path: Path) -> None:
    audit = diversity(tmp_path)
    assert "coverage 0.40 [0.30, 0.50], real images 0.90" in lines(audit)[1]
    page = card(audit)
    assert "Never drawn: person" in page.text
    assert "0%, real 90%: missing" in page.text
    assert len(page.images) == 3 + 2
    assert page.images[0].size == (32, 16)  # a pair side by side


def test_repair_seams_and_suspects(tmp_path: Path, found: Dissection) -> None:
    audit = repair(tmp_path)
    assert "improved; Fréchet distance −5.0 [−6.0, −4.0]" in lines(audit)[1]
    assert len(card(audit).images) == 8
    assert "step 2.00 [1.90, 2.10]" in lines(seams(tmp_path))[1]
    assert len(card(seams(tmp_path)).images) == 3
    of_run = suspects(found.folder / "artifacts" / "bad")
    assert "paint unit 7 (score 0.5)" in lines(of_run)[1]
    page = card(of_run)
    assert len(page.images) == 2
    assert "sample 4" in page.text


def test_candidates_and_a_training(tmp_path: Path) -> None:
    several = fitness(tmp_path / "fitness", ["a.pt", "b.pt", "c.pt"])
    assert "a.pt, fitness 0.80 [0.76, 0.84]" in lines(several)[1]
    assert len(card(several).images) == 24
    training = watched(tmp_path / "training", [1000, 2000])
    last = training.lines.iloc[-1]
    assert f"coverage {last.coverage:.2f}" in lines(training)[1]
    assert len(card(training).images) == 2


def test_a_comparison_and_an_inspection(go: Go, painter: Generator) -> None:
    run = go(samples=60)
    comparison = run.compare(go(samples=60, seed=1, out=run.folder.with_name("other")))
    assert "A 4 of 6" in lines(comparison)[1]
    assert card(comparison).images
    inspection = dissect.inspect(painter, quiet=True)
    assert lines(inspection)[0].startswith("Inspection: painter, images of 32×32")
    assert "6 units, 8×8" in card(inspection).text


def test_names_are_text_and_never_markup(tmp_path: Path, found: Dissection) -> None:
    evil = "<script>alert(1)</script>"
    audit = diversity(tmp_path, ("sky", evil, '"><img src=x>'))
    assert evil in card(audit).text  # shown as text
    renamed = replace(found, units=found.units.assign(label=found.units.label.replace("red", evil)))
    assert "<script" not in notebook.html(renamed)
    assert evil in card(renamed).text


def test_a_damaged_result_has_its_plain_text(found: Dissection, do: Do) -> None:
    (found.folder / "tops.npz").write_bytes(b"no zip")
    damaged = Dissection.load(found.folder)
    assert damaged._repr_html_() is None
    assert len(lines(damaged)) == 3
    effects = do("ablate")(label="red", top=1, random_sets=0)
    broken = replace(effects, info={}, table=pd.DataFrame())
    assert broken._repr_html_() is None
    assert re.match(r"Effects: cannot be described \(KeyError\)\n  in ", repr(broken))


def test_many_units_and_classes_are_shown_at_once(found: Dissection) -> None:
    units = pd.concat([found.units] * 100, ignore_index=True)
    large = replace(found, units=units.assign(unit=range(len(units))))
    large.__dict__["_tops"] = {name: np.concatenate([array] * 100) for name, array in found._tops.items()}
    page = card(large)
    assert len(page.images) == 32
    assert f"unit {100 * 40 - 40 + RED}" not in page.text  # the best eight come first, in the order of the table
    assert f"unit {RED + 40}" in page.text


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cards_are_readable_in_both_schemes_and_on_a_phone(
    page: Any, found: Dissection, do: Do, tmp_path: Path, scheme: str
) -> None:
    effects = do("ablate")(label="red", top=1, random_sets=2)
    colours = "background:#111;color:#eee" if scheme == "dark" else "background:#fff;color:#111"
    cards = [notebook.html(result) for result in (found, effects, checkup(tmp_path), diversity(tmp_path))]
    file = tmp_path / "cards.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><body style="{colours}">{"".join(cards)}', encoding="utf-8")
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    title = page.locator(".ganatomy > div").first
    assert page.evaluate("(title) => getComputedStyle(title).color", title.element_handle()) == (
        "rgb(238, 238, 238)" if scheme == "dark" else "rgb(17, 17, 17)"
    )
