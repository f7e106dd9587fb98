"""The page of candidates' fitness, in a real browser, from folders made by hand."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ganatomy.dissect.candidates import Fitness
from ganatomy.dissect.storage.files import write_arrays
from ganatomy.dissect.watching.result import METRICS
from ganatomy.hooks.errors import DissectError
from ganatomy.reports.fitness import write_fitness
from ganatomy.reports.page import NoPage

from ..support.browser import expect, until
from ..support.charts import axis, path_of, places, show


def fitness(folder: Path, names: list[str], critic: bool = False, **changes: Any) -> Fitness:
    """Candidates whose fitness falls from the first to the last."""
    noise = np.random.default_rng(1)
    number = len(names)
    falls = np.linspace(0.8, 0.6, number)
    tilt = 0.2 * np.sin(2 * np.arange(number))
    values = {
        "quality": falls * (1 + tilt),
        "diversity": falls * (1 - tilt),
        "fitness": falls,
        "behind": falls[0] - falls,
        **{name: noise.uniform(0.2, 0.9, number) for name in METRICS},
    }
    if critic:
        values |= {"critic_quality": noise.normal(0, 1, number), "critic_diversity": noise.normal(2, 1, number)}
    table = pd.DataFrame({"candidate": names, "step": [float(k) for k in range(number)]})
    for name, some in values.items():
        table[name], table[f"{name}_low"], table[f"{name}_high"] = some, some - 0.04, some + 0.04
    table.loc[0, ["behind_low", "behind_high"]] = np.nan
    table["equal"] = table.behind < 0.05
    better = [
        [(q > p) and (e > d) for q, e in zip(table.quality, table.diversity, strict=True)]
        for p, d in zip(table.quality, table.diversity, strict=True)
    ]
    table["front"] = [not any(some) for some in better]
    zero = {name: {"value": 0.9, "low": 0.87, "high": 0.93} for name in ("quality", "diversity", "fitness", *METRICS)}
    info = {
        "reference": "photos",
        "real_images": 400,
        "images": 200,
        "features": "random features of an untrained network",
        "zero": zero,
        "critic": "critic.pt" if critic else None,
        "sentence": f"Take {names[0]}.",
        "caveats": {name: f"What {name} cannot tell." for name in METRICS},
        "created": "2025-03-01T12:00:00+00:00",
        "command": "dissect fitness runs",
        "config": {},
    }
    pictures = {str(k): noise.integers(0, 255, (8, 32, 32, 3), np.uint8) for k in range(number)}
    made = Fitness(folder=folder, info=info, table=table.assign(**changes), pictures=pictures)
    made.save(folder)
    return made


def test_candidates_stand_where_their_numbers_say(page: Any, tmp_path: Path) -> None:
    made = fitness(tmp_path / "fitness", [f"G_{k}" for k in range(12)])
    show(page, write_fitness(Fitness.load(made.folder)))
    plot, table = page.locator(".plot"), made.table
    expect(plot).to_have_count(1)
    across, up = axis(plot, "middle"), axis(plot, "end")
    for k, row in table.iterrows():
        point = plot.locator(f"circle[data-candidate='{k}']")
        assert across(float(point.get_attribute("cx"))) == pytest.approx(row.diversity, abs=0.002)
        assert up(float(point.get_attribute("cy"))) == pytest.approx(row.quality, abs=0.002)
        state = "fittest" if k == 0 else "equal" if row.behind < 0.05 else ""
        assert point.get_attribute("class").split()[1:] == state.split()
    x, y = places(path_of(plot, "star"))[0]
    assert (across(x), up(y + 8)) == (pytest.approx(0.9, abs=0.002), pytest.approx(0.9, abs=0.002))
    spans = [one.get_attribute("d") for one in plot.locator(".whiskers").all()]
    for k, row in table.iterrows():
        left, _, right, _, bottom, top = (float(one) for one in re.findall(r"[\d.]+", spans[k]))
        ends = [row.diversity_low, row.diversity_high, row.quality_low, row.quality_high]
        np.testing.assert_allclose([across(left), across(right), up(bottom), up(top)], ends, atol=0.002)
    front = places(path_of(plot, "front"))
    best = [
        k
        for k, one in table.iterrows()
        if not ((table.quality > one.quality) & (table.diversity > one.diversity)).any()
    ]
    expected = table.loc[best].sort_values("diversity")
    assert len(expected) > 1
    np.testing.assert_allclose(across(front[:, 0]), expected.diversity, atol=0.002)
    np.testing.assert_allclose(up(front[:, 1]), expected.quality, atol=0.002)


def test_names_of_a_dozen_candidates_do_not_overlap(page: Any, tmp_path: Path) -> None:
    names = [f"a/long/folder/of/checkpoint-{k}.pt" for k in range(12)]
    path = write_fitness(fitness(tmp_path / "fitness", names, critic=True))
    for width in (1240, 420):
        page.set_viewport_size({"width": width, "height": 900})
        show(page, path)
        for field in page.locator(".field").all():
            boxes = field.locator(".name, .real-name").evaluate_all(
                "(all) => all.map((one) => { const {x, y, width, height} = one.getBBox();"
                "return [x, y + 2, x + width, y + height - 2]; })"
            )
            assert len(boxes) >= (10 if width == 1240 else 1)
            for one, other in itertools.combinations(boxes, 2):
                apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
                assert apart, (width, one, other)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_candidate_is_marked_in_both_charts(page: Any, tmp_path: Path) -> None:
    made = fitness(tmp_path / "fitness", ["one", "two", "three"], critic=True)
    show(page, write_fitness(made))
    expect(page.locator(".field")).to_have_count(2)
    first, second = page.locator(".field").all()
    point = first.locator("circle[data-candidate='1']")
    at = {"x": float(point.get_attribute("cx")) + 3, "y": float(point.get_attribute("cy")) - 3}
    first.hover(position=at)
    row = made.table.iloc[1]
    said = page.locator("#readout")
    expect(said).to_contain_text("two")
    expect(said).to_contain_text(f"quality {row.quality:.3g} [{row.quality_low:.3g}, {row.quality_high:.3g}]")
    expect(said).to_contain_text(f"critic’s diversity {row.critic_diversity:.3g} [")
    for field in (first, second):
        ring, point = field.locator(".ring"), field.locator("circle[data-candidate='1']")
        assert [ring.get_attribute(one) for one in ("cx", "cy")] == [point.get_attribute(one) for one in ("cx", "cy")]
        assert ring.is_visible()
    page.mouse.move(2, 2)
    assert not first.locator(".ring").is_visible()
    second.focus()
    expect(said).to_contain_text("one")
    second.press("ArrowRight")
    second.press("ArrowRight")
    expect(said).to_contain_text("three")
    assert second.get_attribute("aria-valuetext").startswith("three")


def test_the_page_of_fitness_tells_everything(page: Any, tmp_path: Path) -> None:
    hostile = "</script><script>document.title='owned'</script>"
    made = fitness(tmp_path / "fitness", [hostile, "<b>two</b>", "three"], step=[1.0, np.nan, 3.0])
    made.table.loc[2, ["quality", "quality_low", "quality_high"]] = np.nan  # as a damaged table may have it
    path = write_fitness(made)
    show(page, path)
    assert page.title() == "Fitness of 3 candidates · ganatomy"
    expect(page.locator(".verdict")).to_have_text(made.info["sentence"])
    rows = page.locator("#candidates table").first.locator("tbody tr")
    assert [row.locator("td").first.text_content() for row in rows.all()] == [*made.table.candidate, "real images"]
    assert [row.locator("td").nth(1).text_content() for row in rows.all()] == ["1", "–", "3", ""]
    expect(rows.nth(1)).to_contain_text(f"{made.table.behind_low[1]:.3g} to {made.table.behind_high[1]:.3g}")
    expect(page.locator("circle[data-candidate]")).to_have_count(2)
    others = page.locator("#candidates table").last.locator("th").all_text_contents()
    assert others == ["candidate", "frechet", "kernel", "recall", "density", "vendi", "spread", "twins"]
    for caveat in made.info["caveats"].values():
        expect(page.locator("#meaning")).to_contain_text(caveat)
    for words in ("Kynkäänniemi et al. 2019", "Naeem et al. 2020", "harmonic mean", "Bonferroni", "contains 0"):
        expect(page.locator("#meaning")).to_contain_text(words)
    expect(page.locator("#meaning")).not_to_contain_text("E-GAN")
    expect(page.locator("#samples img")).to_have_count(24)
    until(page, "[...document.images].every((one) => (one.loading = 'eager') && one.naturalWidth === 32)")
    for name in ("fitness.csv", "fitness.json"):
        assert page.locator(f"#provenance a[href='{name}']").count() == 1
        assert (path.parent / name).read_bytes() == (made.folder / name).read_bytes()


def test_damage_is_told_and_the_page_before_stays(tmp_path: Path) -> None:
    good = fitness(tmp_path / "fitness", ["a", "b"])
    before = write_fitness(good).read_bytes()
    write_arrays(good.folder / "pictures.npz", {"0": good.pictures["0"]})
    with pytest.raises(DissectError, match=r"pictures\.npz .*lacks the array 1"):
        write_fitness(Fitness.load(good.folder))
    with pytest.raises(NoPage, match=r"fault of ganatomy.* tables are complete"):
        write_fitness(replace(good, pictures={"0": good.pictures["0"]}))
    assert (good.folder / "report" / "index.html").read_bytes() == before
