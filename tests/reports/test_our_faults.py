"""Whose fault it is: damage is what a file shows, a fault of ours is told as ours, and results are never lost."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from ganatomy.cli import main
from ganatomy.dissect import Dissection
from ganatomy.hooks.errors import DissectError, Fault, explained
from ganatomy.reports import figures, pages
from ganatomy.reports.page import NoPage
from ganatomy.reports.pages import write_report
from ganatomy.reports.shelf import Shelf

from ..conftest import Go

EMBEDDED = (
    "run",
    "--model",
    "tests.reports.test_our_faults:painter",
    "--segmenter",
    "tests.reports.test_our_faults:segmenter",
)


def painter() -> Any:
    from ganatomy.dissect import Generator, NormalLatents

    from ..conftest import Painter

    return Generator(module=Painter(), name="painter", source=NormalLatents((6,)), layers=("paint",))


def segmenter() -> Any:
    from ..conftest import ColourSegmenter

    return ColourSegmenter()


def broken(*_: object, **__: object) -> None:
    """In the place of a function of ours that returns something."""


def test_a_fault_of_ours_is_told_as_ours_and_nothing_is_lost(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = go(samples=20)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(figures, "outlines", broken)
    with pytest.raises(NoPage) as caught:
        write_report(run)
    said = str(caught.value)
    assert "fault of ganatomy" in said
    assert f"tables are complete in {run.folder}" in said
    assert "delete" not in said
    traceback = Path(re.search(r"traceback is in (\S+\.txt)", said)[1])
    assert "TypeError" in traceback.read_text()
    traceback.unlink()
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_the_command_prints_its_result_and_fails(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pages, "_page", broken)
        done = CliRunner().invoke(main, [*EMBEDDED, "--layer", "1", "--samples", "20", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["report"] is None
    assert told["layers"][0]["units"] == 6
    assert "fault of ganatomy" in done.stderr
    assert done.stderr.count("\n") == 1
    shown = CliRunner().invoke(main, ["report", told["folder"], "--quiet"])
    assert shown.exit_code == 0, shown.stderr


def test_an_error_in_a_file_of_the_user_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def fail():\n    return {}['x']\n")
    code: dict[str, Callable[[], None]] = {}
    exec(compile((tmp_path / "mine.py").read_text(), str(tmp_path / "mine.py"), "exec"), code)
    with pytest.raises(KeyError) as caught:
        code["fail"]()
    found = explained(caught.value)
    assert not isinstance(found, Fault)
    assert f"Code in {(tmp_path / 'mine.py').resolve()} failed" in str(found)


def test_an_error_inside_ours_is_a_fault() -> None:
    with pytest.raises(TypeError) as caught:
        figures.safe_colour(3)  # type: ignore[arg-type]
    found = explained(caught.value)
    assert isinstance(found, Fault)
    Path(re.search(r"traceback is in (\S+\.txt)", str(found))[1]).unlink()


@pytest.mark.parametrize(
    ("name", "hurt", "said"),
    [
        ("units.csv", lambda table: table.drop(columns="iou"), "lacks the columns iou"),
        ("units.csv", lambda table: table.assign(iou="much"), "column iou holds text"),
        ("units.csv", lambda table: table.iloc[1:], "layer paint has 5 rows"),
        ("classes.csv", lambda table: table.iloc[:2], "classes are not the 4 of run.json"),
    ],
)
def test_a_table_that_does_not_fit_is_named_when_a_run_is_opened(
    go: Go, name: str, hurt: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    run = go(samples=20)
    path = run.folder / name
    hurt(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(DissectError) as caught:
        Dissection.load(run.folder)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "delete" not in str(caught.value)


def test_a_name_that_is_no_utf8_goes_through_pages_tables_and_json(on_path: Path) -> None:
    folder = os.fsdecode(b"run-\xff-\xe9")
    done = CliRunner().invoke(main, [*EMBEDDED, "--layer", "1", "--samples", "20", "--out", folder, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == folder
    index = on_path / folder / "report" / "index.html"
    assert folder not in index.read_text(encoding="utf-8")  # no surrogate can be written
    again = CliRunner().invoke(main, ["ablate", folder, "--units", "paint:1", "--samples", "4", "--quiet"])
    assert again.exit_code == 0, again.stderr
    again = CliRunner().invoke(main, ["report", folder])
    assert again.exit_code == 0, again.stderr
    assert again.stdout_bytes.strip() == os.fsencode(Path(folder) / "report" / "index.html")


@pytest.mark.parametrize("name", ["card.md", "table.csv", "weights.pth", "no ending", os.fsdecode(b"\xff.md")])
def test_any_kind_of_file_can_be_shelved(tmp_path: Path, name: str) -> None:
    content = os.urandom(1000)
    inside = Shelf(None).put(name, content)
    kind, _, data = inside.removeprefix("data:").partition(";base64,")
    assert base64.b64decode(data) == content
    assert "/" in kind
    beside = Shelf(tmp_path).put(name, content)
    beside.encode("ascii")
    assert (tmp_path / name).read_bytes() == content
