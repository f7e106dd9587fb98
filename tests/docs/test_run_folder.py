"""The tables of docs/reference/run_folder.md beside the contract in the code, and beside the files of real results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from ganatomy import dissect
from ganatomy.dissect import Asked, Dissection, Generator, ModelSpec
from ganatomy.dissect.storage.contract import COLUMNS
from ganatomy.dissect.storage.files import read_table

from ..conftest import Do, Painter, Soft
from ..support.boards import board, photographs, strided
from ..support.families import photos

PAGE = Path(__file__).parents[2] / "docs/reference/run_folder.md"
HEADINGS = {  # of tables that share a file name, by their name in the contract
    "effect: curve.csv": "curve.csv",
    "repair: curve.csv": "curve.csv of a checkerboard",
    "scan": "CLASS.csv of a scan",
    "checkup: layers.csv": "layers.csv of a checkup",
    "diversity: layers.csv": "layers.csv of an audit",
}
TYPES = {
    "text": lambda column: not pd.api.types.is_numeric_dtype(column),
    "whole": pd.api.types.is_numeric_dtype,  # integers with empty cells are read as floats
    "number": pd.api.types.is_numeric_dtype,
    "yes/no": lambda column: set(column.dropna().astype(str)) <= {"True", "False"},
}


def documented() -> dict[str, dict[str, str]]:
    """By heading of the page: the type of each column; a column with † may be missing."""
    tables: dict[str, dict[str, str]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif ".csv" in heading and line.startswith("| `"):
            names, kinds, meaning = (cell.strip() for cell in line.strip("|").split("|", 2))
            columns = re.findall(r"`([^`]+)`", names)
            listed = kinds.split(", ") if ", " in kinds else [kinds] * len(columns)
            optional = "†" if "†" in meaning else ""
            tables.setdefault(heading, {}).update(
                {name: kind + optional for name, kind in zip(columns, listed, strict=True)}
            )
    return tables


def plain(name: str) -> str:
    """The name of a column with the name of a class in it, as the page writes it."""
    return re.sub(r"^(pp|share|presence):.*", r"\1:CLASS", name)


def check(heading: str, table: pd.DataFrame) -> None:
    columns = documented()[heading]
    assert {plain(name) for name in table} <= set(columns), heading
    needed = {name for name, kind in columns.items() if not kind.endswith("†")}
    assert needed <= {plain(name) for name in table}, heading
    for name in table:
        kind = columns[plain(name)].removesuffix("†")
        if kind in TYPES and table[name].notna().any():
            assert TYPES[kind](table[name]), f"{heading}: {name} is no {kind}"


def check_folder(folder: Path, headings: Mapping[str, str] | None = None) -> None:
    """Every table of a folder, under the heading of its file or another one."""
    tables = sorted(folder.glob("*.csv"))
    assert tables, folder
    for path in tables:
        check((headings or {}).get(path.name, path.name), read_table(path))


def save_images(generator: Generator, folder: Path) -> Path:
    """300 images of a generator that no run sees."""
    folder.mkdir()
    with torch.inference_mode():
        images = generator(generator.latents(range(7000, 7300)))
    for number, image in enumerate(images):
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_of_the_contract_is_documented(name: str) -> None:
    columns = documented()[HEADINGS.get(name, name)]
    kinds = {column: kind.removesuffix("†") for column, kind in columns.items()}
    assert set(COLUMNS[name]) <= set(kinds)
    assert set(kinds.values()) <= set(TYPES)


@pytest.mark.slow
def test_a_run_and_its_interventions_are_as_documented(
    planted: Generator, found: Dissection, do: Do, tmp_path: Path
) -> None:
    check_folder(found.folder)
    do("ablate")(label="red", top=2, curve=True, name="off")
    do("insert")(label="red", top=1, name="on", samples=4)
    for name in ("off", "on"):
        check_folder(found.folder / "interventions" / name)
    dissect.scan(found, label="red", generator=planted, segmenter=Soft(), samples=16, quiet=True)
    check("CLASS.csv of a scan", read_table(found.folder / "interventions/scan-paint/red.csv", COLUMNS["scan"]))

    options = {"generator": planted, "segmenter": Soft(), "quiet": True}
    dissect.artifacts.find(found, detector="rare", **options)
    check_folder(found.folder / "artifacts/rare")
    reference = save_images(planted, tmp_path / "real")
    dissect.repair(found, units={"paint": [3]}, value="zero", samples=64, random_sets=1, reference=reference, **options)
    check_folder(next((found.folder / "repairs").iterdir()))

    other = dissect.run(planted, "paint", segmenter=Soft(), samples=100, out=tmp_path / "other", quiet=True)
    comparison = dissect.compare(found, other)
    check("classes.csv of a comparison", comparison.classes)
    check("units.csv of a comparison", comparison.units)


@pytest.mark.slow
def test_a_checkup_and_its_repair_are_as_documented(tmp_path: Path) -> None:
    reference = photographs(tmp_path / "real")
    checkup = dissect.checkerboard.checkup(
        board(), samples=64, reference=reference, critic=strided(), out=tmp_path / "it", quiet=True
    )
    check_folder(checkup.folder, {"layers.csv": "layers.csv of a checkup"})
    dissect.checkerboard.repair(checkup, generator=board(), layers=("up",), samples=64, random_sets=1, quiet=True)
    check_folder(next((checkup.folder / "repairs").iterdir()), {"curve.csv": "curve.csv of a checkerboard"})
    stain = ModelSpec("tests.seams.test_seam_check:plain", inputs=photos(tmp_path / "tiles", count=6, side=64))
    check_folder(dissect.check_seams(stain, 2, out=tmp_path / "seams", quiet=True).folder)


@pytest.mark.slow
def test_audits_and_trainings_are_as_documented(painter: Generator, tmp_path: Path) -> None:
    reference = save_images(painter, tmp_path / "real")
    options = {"reference": reference, "samples": 100, "quiet": True}
    audit = dissect.diversity.audit(painter, segmenter=Soft(), out=tmp_path / "audit", **options)
    check_folder(audit.folder, {"layers.csv": "layers.csv of an audit"})
    check_folder(dissect.fitness([painter], out=tmp_path / "fitness", **options).folder)
    watch = dissect.Watch(
        tmp_path / "watch",
        reference=reference,
        segmenter=Soft(),
        layer="paint",
        latent="normal:6",
        output_range=(-1, 1),
    )
    watch(Painter(), 1)
    check_folder(watch.folder)
    asked = Asked(directions=1, measured=4, segmenter=Soft())
    moves = dissect.explore("directions", painter, asked, out=tmp_path / "directions", quiet=True)
    check_folder(moves.folder, {"effects.csv": "effects.csv of directions"})
