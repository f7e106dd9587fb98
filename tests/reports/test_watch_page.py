"""The page of a watched training, in a real browser, from folders made by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from ganatomy.dissect.storage.files import write_csv
from ganatomy.dissect.watching import Watched
from ganatomy.dissect.watching.result import COLUMNS, MEASURED, METRICS, PRESENCE, SHARE
from ganatomy.hooks.errors import DissectError
from ganatomy.reports.watch import write_watch

from ..support.browser import expect
from ..support.charts import axis, chart, path_of, places, show

NAMES = ("sky", "tree", "house", "grass")
COLOURS = ("#06b6ff", "#04c803", "#b47878", "#04fa07")


def watched(folder: Path, steps: Any, names: tuple[str, ...] = NAMES, **changes: Any) -> Watched:
    """A training that becomes better by step; `changes` are of its columns."""
    folder.mkdir()
    (folder / "pictures").mkdir()
    steps = np.asarray(steps)
    noise = np.random.default_rng(0)
    done = steps / max(1, steps.max())
    values = {
        "deviation": 0.05 + 0.2 * done**0.5,
        "frechet": 4 + 60 * np.exp(-4 * done),
        "kernel": 0.3 * np.exp(-5 * done),
        "precision": 0.3 + 0.4 * done,
        "recall": 0.6 * done,
        "density": 0.2 + 0.5 * done,
        "coverage": 0.1 + 0.7 * done,
        "vendi": 0.3 + 0.6 * done,
        "spread": 0.2 + 0.7 * done,
        "twins": 0.4 * np.exp(-5 * done),
        "ripple": 1 + 3 * np.exp(-3 * done),
    }
    lines = pd.DataFrame(index=range(len(steps)), columns=list(COLUMNS)).assign(
        checkpoint=[f"runs/generator-{step}.pt" for step in steps],
        step=steps,
        created="2025-03-01T12:00:00+00:00",
        seconds=3.25,
        sha256="ab" * 32,
        verdict="lacking",
        alarms="",
        grid="2×2",
        peaks=2,
        labelled=np.rint(5 + 60 * done).astype(int),
        covered=np.rint(2 + 2 * done).astype(int),
    )
    for name in MEASURED:
        lines[name] = values[name] * (1 + 0.03 * noise.standard_normal(len(steps)))
        reach = 0.08 * lines[name] + 0.01
        lines[f"{name}_low"], lines[f"{name}_high"] = lines[name] - reach, lines[name] + reach
    real = noise.dirichlet(np.ones(len(names)))
    shares = {SHARE + name: real[k] * (0.3 + 0.6 * done) for k, name in enumerate(names)}
    shares |= {PRESENCE + name: np.full(len(steps), 0.5) for name in names}
    lines = pd.concat([lines, pd.DataFrame(shares, index=lines.index)], axis=1).assign(**changes)
    info = {
        "samples": 128,
        "seed": 0,
        "layer": "layer4",
        "units": 512,
        "segmenter": "scenes",
        "names": list(names),
        "colours": [COLOURS[k % 4] for k in range(len(names))],
        "reference": "photos",
        "real_images": 400,
        "features": "random features of an untrained network; not comparable with published values",
        "zero": {name: {"value": 0.75, "low": 0.7, "high": 0.8} for name in METRICS},
        "real_deviation": 0.29,
        "real_share": real.tolist(),
        "real_presence": [0.5] * len(names),
        "skipped": [],
        "created": "2025-03-01T12:00:00+00:00",
        "command": "dissect watch runs --reference photos",
        "config": {},
    }
    for number in range(len(steps)):
        row = noise.integers(0, 255, (32, 8 * 32, 3), np.uint8)
        Image.fromarray(row).save(folder / "pictures" / f"{number}.webp")
    made = Watched(folder=folder, info=info, lines=lines)
    made.write(made.folder)
    return made


def without_reference(made: Watched) -> Watched:
    gone = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
    info = made.info | dict.fromkeys(("real_images", "zero", "real_deviation", "real_share", "real_presence"))
    return replace(
        made, info=info | {"reference": None}, lines=made.lines.assign(**dict.fromkeys(gone, np.nan), verdict="")
    )


def test_what_is_drawn_is_what_was_measured(page: Any, tmp_path: Path) -> None:
    made = watched(tmp_path / "training", [1000, 2000, 5000, 6000, 9000])
    made.lines.loc[4, ["kernel", "kernel_low", "kernel_high"]] = -0.02, -0.1, 0.06
    show(page, write_watch(made))
    expect(page.locator("#diversity .plot")).to_have_count(6)
    expect(page.locator("#quality .plot")).to_have_count(4)
    expect(page.locator("#checkerboard .plot")).to_have_count(2)
    expect(page.locator("#labelled .plot")).to_have_count(2)
    expect(page.locator("#classes .plot")).to_have_count(4)
    columns = {"Deviation": "deviation", "Fréchet distance": "frechet", "Kernel distance": "kernel", "Recall": "recall"}
    for title, name in columns.items():
        plot, lines = chart(page, title), made.lines
        value, step = axis(plot, "end"), axis(plot, "middle")
        off = 0.004 * lines[f"{name}_high"].max()  # a tenth of a pixel
        low = lines[f"{name}_low"] if name == "kernel" else lines[f"{name}_low"].clip(lower=0)
        series, band = places(path_of(plot, "series")), places(path_of(plot, "band"))
        np.testing.assert_allclose(step(series[:, 0]), lines.step, atol=60)
        np.testing.assert_allclose(value(series[:, 1]), lines[name], atol=off)
        np.testing.assert_allclose(value(band[:5, 1]), lines[f"{name}_high"], atol=off)
        np.testing.assert_allclose(value(band[5:, 1])[::-1], low, atol=off)
        real = made.info["real_deviation"] if name == "deviation" else 0.75
        assert value(float(path_of(plot, "real").split(",")[1].split("H")[0])) == pytest.approx(real, abs=off)
        expect(plot.locator(".real-name")).to_have_text(f"real {real}")
    plot = chart(page, "grass")
    shares = axis(plot, "end")(places(path_of(plot, "series"))[:, 1])
    np.testing.assert_allclose(shares, made.lines["share:grass"], atol=0.004 * made.info["real_share"][3])


def test_one_step_is_marked_in_all_charts(page: Any, tmp_path: Path) -> None:
    made = watched(tmp_path / "training", [1000, 2000, 5000, 6000, 9000], alarms=["", "", "lost: tree", "", ""])
    show(page, write_watch(made))
    coverage, marks = chart(page, "Coverage"), page.locator(".at-step")
    newest = made.lines.coverage.iloc[-1]
    expect(coverage.locator(".now")).to_contain_text(f"{float(f'{newest:.3g}')} [")
    assert not marks.first.is_visible()
    x = float(coverage.locator(".dot").nth(2).get_attribute("cx"))
    coverage.locator(".field").hover(position={"x": x + 6, "y": 90})
    assert marks.all_text_contents() == ["5000"] * page.locator(".field").count()
    assert all(one.is_visible() for one in marks.all())
    for title, name in {"Coverage": "coverage", "Deviation": "deviation"}.items():
        row = made.lines.iloc[2]
        told = [float(f"{row[f'{name}{end}']:.3g}") for end in ("", "_low", "_high")]
        expect(chart(page, title).locator(".now")).to_have_text(f"{told[0]} [{told[1]}, {told[2]}]")
        dot = chart(page, title).locator("circle.at")
        assert axis(chart(page, title), "end")(float(dot.get_attribute("cy"))) == pytest.approx(row[name], rel=0.02)
    expect(page.locator("#readout")).to_have_text("Step 5000 · runs/generator-5000.pt\nlost: tree")
    page.mouse.move(2, 2)
    assert not marks.first.is_visible()
    expect(page.locator("#readout")).to_contain_text("Point at a chart")


def test_arrow_keys_move_the_mark(page: Any, tmp_path: Path) -> None:
    show(page, write_watch(watched(tmp_path / "training", [1000, 2000, 5000], alarms=["", "collapse", ""])))
    field = chart(page, "Labelled units").locator(".field")
    seen = []
    field.focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowRight", "End", "Home"):
        seen.append(page.locator(".at-step").first.text_content())
        field.press(key)
    assert seen == ["5000", "2000", "1000", "1000", "2000", "5000"]
    expect(page.locator(".at-step").last).to_have_text("1000")
    assert (field.get_attribute("role"), field.get_attribute("aria-valuenow")) == ("slider", "1")
    field.press("ArrowRight")
    assert re.fullmatch(r"step 2000: \d+; alarm", field.get_attribute("aria-valuetext"))
    field.blur()
    assert not page.locator(".at-step").first.is_visible()


def test_alarms_are_marked_and_told_newest_first(page: Any, tmp_path: Path) -> None:
    said = ["", "collapse; lost: tree, sky", "", "checkerboard rising"]
    verdicts = ["lacking", "collapsed", "varied", "varied"]
    made = watched(tmp_path / "training", [1000, 2000, 3000, 4000], alarms=said, verdict=verdicts)
    show(page, write_watch(made))
    expect(page.locator(".verdict")).to_have_text("Step 4000: checkerboard rising. Compared with real images: varied.")
    expect(page.locator(".verdict")).to_have_class("verdict mild")
    rows = page.locator("#alarms tbody tr")
    assert [row.locator("td").first.text_content() for row in rows.all()] == ["4000", "2000"]
    assert rows.nth(1).locator("div").all_text_contents() == ["collapse", "lost: tree, sky"]
    film = page.locator("#samples figure")
    assert film.locator("figcaption").all_text_contents() == [
        "4000 varied",
        "3000 varied",
        "2000 collapsed",
        "1000 lacking",
    ]
    assert [one.get_attribute("src") for one in film.locator("img").all()] == [
        f"pictures/{k}.webp" for k in (3, 2, 1, 0)
    ]
    chips = [one.get_attribute("class") for one in film.locator("b.chip-verdict").all()]
    assert chips == [f"chip-verdict {state}" for state in ("mild", "clean", "visible", "mild")]
    plot = chart(page, "Precision")
    at = [float(x) for x in re.findall(r"M([\d.]+)", path_of(plot, "alarms"))]
    np.testing.assert_allclose(at, places(path_of(plot, "series"))[[1, 3], 0])
    calm = replace(made, lines=made.lines.assign(alarms="", verdict="varied"))
    show(page, write_watch(calm))
    expect(page.locator(".verdict.clean")).to_have_text("Step 4000: no alarm. Compared with real images: varied.")
    expect(page.locator("#alarms")).to_contain_text("No alarm so far.")
    assert path_of(chart(page, "Precision"), "alarms") == ""


def test_only_a_live_page_loads_itself_again(page: Any, tmp_path: Path) -> None:
    made = watched(tmp_path / "training", [1000])
    for live in (True, False):
        path = write_watch(made, live=live)
        assert path == tmp_path / "training" / "index.html"
        show(page, path)
        refresh = page.locator("head meta[http-equiv=refresh]")
        expect(refresh).to_have_count(int(live))
        if live:
            assert refresh.get_attribute("content") == "10"
            expect(page.locator(".brand")).to_contain_text("the training continues")
    assert {one.name for one in path.parent.iterdir()} == {"index.html", "pictures", "watch.csv", "watch.json"}


def test_without_real_images_the_page_shows_the_rest_and_says_so(page: Any, tmp_path: Path) -> None:
    made = without_reference(watched(tmp_path / "training", [1000, 2000]))
    absent = [name for name in made.info if made.info[name] is None and name != "reference"]
    fewer = replace(made, info={name: value for name, value in made.info.items() if name not in absent})
    for one in (made, fewer):  # what is none may be left out, too
        show(page, write_watch(one))
        expect(page.locator("main > .muted")).to_contain_text("--reference FOLDER")
        titles = page.locator("#diversity .what, #quality .what, #checkerboard .what").all_text_contents()
        assert titles == ["Deviation", "Ripple, dB", "Peaks of grids"]
        expect(page.locator("path.real")).to_have_count(0)
        expect(page.locator(".verdict.clean")).to_have_text("Step 2000: no alarm.")
        expect(page.locator("#lines th")).to_have_text(
            ["step", "verdict", "deviation", "ripple, dB", "peaks", "labelled", "classes"]
        )


def test_names_from_elsewhere_are_text(page: Any, tmp_path: Path) -> None:
    hostile = "</script><script>document.title='owned'</script>"
    names = ("<b>sky</b>", "\"><img src=x onerror=document.title='owned'>", hostile, "it's & done")
    made = watched(
        tmp_path / "<i>a 'b'", [1000, 2000], names, alarms=["", f"lost: {names[1]}"], checkpoint=[hostile, "<u>2</u>"]
    )
    made.info["skipped"] = [{"checkpoint": "<b>broken</b>", "why": hostile}]
    made.info.update({"reference": "<i>photos", "layer": "<b>l</b>", "segmenter": hostile, "features": "<b>notes</b>"})
    made.info["colours"][2] = "red;background:url(x)"
    show(page, write_watch(made))
    assert page.title() == "Training <i>a 'b' · ganatomy"
    assert set(page.locator("#classes .what").all_text_contents()) == set(names)
    expect(page.locator("#alarms td div")).to_have_text(f"lost: {names[1]}")
    expect(page.locator("#skipped td")).to_have_text(["<b>broken</b>", hostile])
    expect(page.locator(".figures small")).to_have_text(["1 skipped", "(<i>photos)"])
    chart(page, hostile).locator(".field").focus()
    expect(page.locator("#readout")).to_have_text(f"Step 2000 · <u>2</u>\nlost: {names[1]}")
    assert "background:#999999" in chart(page, hostile).locator(".chip").get_attribute("style")
    assert page.locator("main script, main img[onerror], main i:not(.chip, .key), main u").count() == 0


def test_missing_numbers_leave_gaps(page: Any, tmp_path: Path) -> None:
    made = watched(tmp_path / "training", np.arange(1, 41) * 100)
    for end in ("", "_low", "_high"):
        made.lines.loc[[10, 12], f"frechet{end}"] = np.nan
    made.write(made.folder)
    show(page, write_watch(Watched.load(made.folder)))
    plot = chart(page, "Fréchet distance")
    assert path_of(plot, "series").count("M") == path_of(plot, "band").count("M") == 3
    expect(plot.locator(".dot")).to_have_count(1)  # what stands alone would be no line
    expect(chart(page, "Recall").locator(".dot")).to_have_count(0)
    value = axis(plot, "end")(float(plot.locator(".dot").get_attribute("cy")))
    assert value == pytest.approx(made.lines.frechet[11], rel=0.02)
    plot.locator(".field").focus()
    for _ in range(29):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(".at-step").first).to_have_text("1100")
    expect(plot.locator(".now")).to_have_text("–")
    assert not plot.locator("circle.at").is_visible()
    assert chart(page, "Recall").locator("circle.at").is_visible()
    expect(page.locator("#lines tbody tr").nth(29).locator("td").nth(3)).to_have_text("–")
    assert "NaN" not in page.content()


@pytest.mark.parametrize(("number", "classes"), [(1, 3), (100, 150)])
def test_few_and_many_lines_and_classes_fit(page: Any, tmp_path: Path, number: int, classes: int) -> None:
    names = tuple(f"a class with a long name {k}" for k in range(classes))
    made = watched(tmp_path / "training", np.arange(1, number + 1) * 5000, names)
    rare = names[np.argmin(made.info["real_share"])]
    made.lines.loc[0, SHARE + rare] = 0.999  # drawn far too often, once
    show(page, write_watch(made))
    most = {
        name: max(made.lines[SHARE + name].max(), real)
        for name, real in zip(names, made.info["real_share"], strict=True)
    }
    shown = sorted(most, key=lambda name: -most[name])[:24]
    assert shown[0] == rare
    expect(page.locator("#classes .what")).to_have_text(shown)
    assert page.locator("#classes h2").text_content().endswith("of 150") == (classes == 150)
    expect(page.locator("#lines tbody tr")).to_have_count(number)
    expect(page.locator("#samples > .film figure")).to_have_count(min(12, number))
    expect(page.locator("#samples details figure")).to_have_count(max(0, number - 12))
    at = places(path_of(chart(page, "Spread"), "series"))[:, 0]
    assert len(at) == number
    assert (np.diff(at) > 0).all()
    assert not re.search("NaN|Infinity|undefined", page.locator(".charts").inner_html())
    for width in (1240, 420):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        wide = page.locator(".field svg").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().right)")
        assert max(wide) <= width


def test_a_training_that_was_set_back_is_drawn_by_step(page: Any, tmp_path: Path) -> None:
    made = watched(tmp_path / "training", [100, 200, 300, 150, 0.5])
    show(page, write_watch(made))
    plot = chart(page, "Recall")
    drawn = places(path_of(plot, "series"))
    assert (np.diff(drawn[:, 0]) > 0).all()
    values = made.lines.recall.to_numpy()[[4, 0, 3, 1, 2]]
    np.testing.assert_allclose(axis(plot, "end")(drawn[:, 1]), values, atol=0.004)
    expect(page.locator(".verdict")).to_contain_text("Step 0.5:")  # the newest, though not the furthest
    assert page.locator("#lines td:first-child").all_text_contents() == ["0.5", "150", "300", "200", "100"]


def test_charts_are_legible_light_and_dark(page: Any, tmp_path: Path) -> None:
    made = watched(tmp_path / "training", [100, 200])
    made.info["colours"] = ["#000000", "#ffffff", "#ffff00", "#000080"]
    path = write_watch(made)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        show(page, path)
        ground = colour(page.locator("#classes"), "backgroundColor")
        for title in (*NAMES, "Recall"):
            assert contrast(colour(chart(page, title).locator(".series"), "stroke"), ground) >= 3, (scheme, title)
        recall = chart(page, "Recall")
        for kind, property, least in ((".tick", "fill", 4.5), (".real-name", "color", 4.5), (".real", "stroke", 3)):
            assert contrast(colour(recall.locator(kind).first, property), ground) >= least, (scheme, kind)


def colour(locator: Any, property: str) -> NDArray[np.float64]:
    """(3,) in [0, 1]."""
    text = locator.evaluate(f"(one) => getComputedStyle(one).{property}")
    numbers = np.array([float(one) for one in re.findall(r"[\d.]+", text)[:3]])
    return numbers if text.startswith("color(srgb") else numbers / 255


def contrast(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The contrast ratio of WCAG 2."""
    both = np.array([one, other])
    light = np.where(both <= 0.04045, both / 12.92, ((both + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return float((light.max() + 0.05) / (light.min() + 0.05))


@pytest.mark.slow
def test_a_page_is_cheap_to_import_and_does_without_lost_pictures(tmp_path: Path) -> None:
    watched(tmp_path / "training", [100, 200])
    (tmp_path / "training" / "pictures" / "1.webp").unlink()
    said = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys; from ganatomy.reports.watch import write_watch; from ganatomy.dissect.watching import Watched;"
            "print(write_watch(Watched.load(sys.argv[1]))); print([m for m in sys.modules if 'matplotlib' in m])",
            str(tmp_path / "training"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert said == [str(tmp_path / "training" / "index.html"), "[]"]


def test_damage_is_told_and_the_page_before_stays(tmp_path: Path) -> None:
    made = watched(tmp_path / "training", [100, 200])
    before = write_watch(made).read_bytes()
    write_csv(made.folder / "watch.csv", made.lines.drop(columns="ripple"))
    with pytest.raises(DissectError, match=r"watch\.csv .*lacks the columns ripple"):
        write_watch(Watched.load(made.folder))
    assert (made.folder / "index.html").read_bytes() == before
