"""Pages are checked by axe-core: names of controls, contrast, headings; light and dark, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from ganatomy import dissect
from ganatomy.dissect import Generator
from ganatomy.reports.comparison import write_comparison
from ganatomy.reports.index import write_index
from ganatomy.reports.latents import write_latents
from ganatomy.reports.pages import write_report

from ..conftest import ColourSegmenter
from ..support.effects import plant

pytestmark = pytest.mark.slow

VIEWS = ("overview", "units", "classes", "class=red", "paint/unit=0", "sample=3", "interventions")
SIZES = ({"width": 1240, "height": 900}, {"width": 390, "height": 800})


def check(page: Any, address: str) -> None:
    """Open a page in both schemes and sizes, and raise where axe-core finds a violation or the page is too wide."""
    troubles = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in SIZES:
            page.set_viewport_size(size)
            page.goto("about:blank")  # a page that differs in its # alone would not be loaded again
            page.goto(address)
            troubles += [
                f"{scheme}, {size['width']} pixels: {violation['id']}: {violation['nodes'][0]['html'][:200]}"
                for violation in Axe().run(page).response["violations"]
            ]
            if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                troubles.append(f"{scheme}, {size['width']} pixels: wider than the screen")
    assert not troubles, f"{address}: " + "\n".join(troubles)


@pytest.fixture
def run(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> dissect.Dissection:
    return dissect.run(painter, layers=[1], segmenter=colours, samples=60, out=tmp_path / "runs" / "run", quiet=True)


def test_views_of_a_run(page: Any, run: dissect.Dissection, painter: Generator, colours: ColourSegmenter) -> None:
    models: dict[str, Any] = {"generator": painter, "segmenter": colours, "quiet": True}
    ablation = dissect.ablate(run, label="red", top=2, samples=8, curve=True, random_sets=2, **models)
    insertion = dissect.insert(run, label="red", top=2, samples=4, random_sets=2, **models)
    scan = dissect.scan(run, label="red", samples=6, **models)
    report = write_report(run).resolve().as_uri()
    names = [f"intervention={result.info['name']}" for result in (ablation, insertion, scan)]
    for view in (*VIEWS, *names):
        check(page, f"{report}#{view}")


def test_views_with_effects(page: Any, run: dissect.Dissection) -> None:
    report = write_report(plant(run)[0]).resolve().as_uri()
    for view in ("overview", "classes", "class=red", "on=red&sort=effect", "paint/unit=0"):
        check(page, f"{report}#{view}")


def test_pages_of_other_results(
    page: Any, run: dissect.Dissection, painter: Generator, colours: ColourSegmenter, tmp_path: Path
) -> None:
    other = dissect.run(painter, "paint", segmenter=colours, samples=60, seed=1, out=tmp_path / "other", quiet=True)
    film = dissect.explore("interpolate", painter, out=tmp_path / "runs" / "film", quiet=True)
    comparison = write_comparison(dissect.compare(run, other), tmp_path / "both")
    for path in (write_latents(film), comparison, write_index(tmp_path / "runs")):
        check(page, path.resolve().as_uri())
