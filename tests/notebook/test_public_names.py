"""What completion offers, and any result opened from its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import ganatomy
from ganatomy import dissect
from ganatomy.dissect import Dissection, Effects, Scan
from ganatomy.hooks.errors import UsageError

from ..conftest import Do, Go, Soft


def test_completion_offers_the_public_names_alone() -> None:
    assert set(dir(dissect)) == set(dissect.__all__)
    assert all(hasattr(dissect, name) for name in dir(dissect))
    assert {"dissect", "hooks", "segmenters", "reports", "__version__"} == set(dir(ganatomy))
    assert ganatomy.__version__[0].isdigit()
    assert ganatomy.dissect is dissect


def test_any_folder_of_a_result_is_loaded_by_its_description(found: Dissection, do: Do, planted: object) -> None:
    effects = do("ablate")(label="red", top=1, random_sets=2)
    scan = dissect.scan(found, label="red", samples=8, generator=planted, segmenter=Soft(), quiet=True)
    run = dissect.load(found.folder)
    assert isinstance(run, Dissection)
    assert run.units.equals(Dissection.load(found.folder).units)
    loaded = dissect.load(str(effects.folder))
    assert isinstance(loaded, Effects)
    assert loaded.folder == effects.folder
    assert loaded["red"].change_pp == pytest.approx(effects["red"].change_pp, abs=1e-4)
    again = dissect.load(scan.folder)
    assert isinstance(again, Scan)
    assert again.table.unit.tolist() == scan.table.unit.tolist()
    dissect.scan(found, label="green", samples=8, generator=planted, segmenter=Soft(), quiet=True)
    with pytest.raises(UsageError, match=r"2 classes.*green\.json.*red\.json"):
        dissect.load(scan.folder)
    assert dissect.load(scan.folder / "green.json").info["class"] == "green"


def test_a_folder_without_a_result_names_those_inside(go: Go, tmp_path: Path) -> None:
    run = go(samples=20)
    with pytest.raises(UsageError, match=rf"no result.*{run.folder.name}"):
        dissect.load(tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        dissect.load(tmp_path / "absent")
