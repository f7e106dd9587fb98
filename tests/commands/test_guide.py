"""The tutorial on your own generator, followed to the letter from the command line."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ganatomy.cli import main
from ganatomy.dissect import Dissection

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).parents[2] / "docs/tutorials/own_generator.md").read_text(encoding="utf-8")


def test_the_guide_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"%%writefile mine\.py\n(.*?)```", GUIDE, re.DOTALL)
    assert code is not None
    (tmp_path / "mine.py").write_text(code[1])
    monkeypatch.chdir(tmp_path)
    commands = [line for line in GUIDE.splitlines() if re.match(r"dissect .*(mine:|runs/balls)", line)]
    assert len(commands) == 4
    try:
        for command in commands:
            done = CliRunner().invoke(main, shlex.split(command)[1:])
            assert done.exit_code == 0, done.output
    finally:
        sys.modules.pop("mine", None)
    units = Dissection.load(tmp_path / "runs" / "balls-maps").units.set_index("unit")
    said = re.search(r"Unit 0 has IoU (0\.\d+) with the red ball and unit 5 (0\.\d+)", GUIDE)
    assert said is not None
    assert (round(units.iou[0], 2), round(units.iou[5], 2)) == (float(said[1]), float(said[2]))
    assert sorted(units.index[units.labelled]) == [0, 5]
