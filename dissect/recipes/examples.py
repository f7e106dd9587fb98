"""The pictures of the documentation and the figures beside them, made anew from the embedded models.

    python -m ganatomy.dissect.recipes.examples --work runs/examples

Runs the commands that the docs show, as a user would, and photographs their pages in headless Chromium (Debian's
package `chromium`, driven by playwright of the extra `test`). What the commands print goes to `WORK/NAME.txt`, where
the docs' figures come from; a command whose result is there is not run again. Takes half an hour on two cores.
"""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd
from PIL import Image

PICTURES = Path(__file__).parents[2] / "docs" / "images"
RUN, DOORS = "progan_scenes-layer5", "progan_scenes-layer7"
INSERT = "insert {doors} --class door --top 4 --where class:"

COMMANDS = {
    "run": "run --model progan_scenes --layer 5 --control rotation --control untrained --out {run}",
    "scan": "scan {run} --class tree --samples 16",
    "ablate": "ablate {run} --class tree --by scan --name trees",
    "run-doors": "run --model progan_scenes --layer 7 --out {doors}",
    "insert-building": INSERT + "building --name doors-on-buildings",
    "insert-sky": INSERT + "sky --name doors-in-the-sky",
    "report": "report {run}",
    "checkup": "checkup --model dcgan_scenes --out {work}/dcgan_scenes-checkup",
    "checkup-resize": "checkup --model dcgan_scenes_resize --out {work}/dcgan_scenes_resize-checkup",
    "diversity": "diversity --model progan_scenes --out {work}/progan_scenes-diversity",
    "directions": "latents directions --model progan_scenes --out {work}/directions",
    **{
        f"mend-{method}": f"repair {{work}}/dcgan_scenes-checkup --checkerboard --method {method} --samples 500"
        for method in ("equalise", "resize", "box", "notch")
    },
}


@dataclass(frozen=True)
class Photograph:
    """The first screen of a page, in the view that `fragment` names."""

    file: str
    page: str
    fragment: str = ""


def photographs(work: Path) -> list[Photograph]:
    """What is photographed; the unit shown is the tree unit that stands out most from what position gives."""
    units = pd.read_csv(work / RUN / "units.csv")
    unit = units[units.labelled & (units.label == "tree")].nlargest(1, "content_iou").unit.item()
    return [
        Photograph("overview.webp", f"{RUN}/report/index.html"),
        Photograph("unit.webp", f"{RUN}/report/index.html", f"layer5/unit={unit}"),
        Photograph("ablate_tree.webp", f"{RUN}/report/index.html", "intervention=trees"),
        Photograph("checkup.webp", "dcgan_scenes-checkup/report/index.html"),
    ]


def perform(work: Path) -> None:
    """Run the commands whose results are not there yet."""
    for name, line in COMMANDS.items():
        file = work / f"{name}.txt"
        if file.exists():
            continue
        words = shlex.split(line.format(run=work / RUN, doors=work / DOORS, work=work))
        done = subprocess.run(
            [sys.executable, "-m", "ganatomy.cli", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise click.ClickException(f"dissect {shlex.join(words)} failed: {done.stderr.strip()[-500:]}")
        file.write_text(f"$ dissect {shlex.join(words)}\n{done.stderr}{done.stdout}", encoding="utf-8")
        print(f"{name}: {file}", flush=True)


def photograph(work: Path, chromium: str) -> None:
    """Take the pictures and put them where the documentation looks for them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for shot in photographs(work):
            page = browser.new_page(viewport={"width": 1240, "height": 900})
            page.goto((work / shot.page).resolve().as_uri() + (f"#{shot.fragment}" if shot.fragment else ""))
            page.wait_for_timeout(1500)  # pictures outside the first screen load late
            image = Image.open(io.BytesIO(page.screenshot()))
            image.convert("RGB").save(PICTURES / shot.file, "WEBP", quality=82, method=6)
            page.close()
        browser.close()
    sheet = Image.open(work / "directions" / "sheet-3.png")  # winter
    sheet.thumbnail((1240, 2000))
    sheet.convert("RGB").save(PICTURES / "direction.webp", "WEBP", quality=82, method=6)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/examples"), show_default=True)
def main(work: Path) -> None:
    """Run the documentation's commands and take its pictures."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise click.ClickException("Pictures need Chromium: apt install chromium.")
    work.mkdir(parents=True, exist_ok=True)
    perform(work)
    photograph(work, chromium)


if __name__ == "__main__":
    main()
