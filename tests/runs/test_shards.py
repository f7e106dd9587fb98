"""Shards of a run captured apart and merged."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ganatomy.cli import main
from ganatomy.dissect import Dissection, Generator, merge, run
from ganatomy.dissect.subjects.first_look import FIRST
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import ColourSegmenter
from ..support.killed import TABLES

SAMPLES = 500  # four parts of 128, the last one smaller


@pytest.fixture
def shard(painter: Generator, colours: ColourSegmenter, tmp_path: Path) -> Any:
    def make(which: str | None, name: str, **options: Any) -> Dissection:
        usual = {"layers": ["paint"], "segmenter": colours, "samples": SAMPLES, "out": tmp_path / name, "quiet": True}
        return run(painter, shard=which, **usual | options)

    return make


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in TABLES)


@pytest.mark.slow
def test_shards_merged_in_any_order_are_the_run(shard: Any, tmp_path: Path) -> None:
    controls = ["rotation", "untrained"]
    whole = shard(None, "whole", controls=controls)
    parts = [shard(f"{k}/3", f"part{k}", controls=controls).folder for k in (1, 2, 3)]
    for number, order in enumerate(itertools.permutations(parts)):
        merged = merge(order, out=tmp_path / f"merged{number}", quiet=True)
        assert same(merged.folder, whole.folder)
        assert set(merged.controls) == set(controls)
        assert set(merged.info) - {"merged"} == set(whole.info) - {"causes"}  # to merge, no network is opened
        for name in controls:
            assert same(merged.folder / "controls" / name, whole.folder / "controls" / name)
            assert set(merged.controls[name].info) - {"merged"} == set(whole.controls[name].info)
    again = merge(parts, out=tmp_path / "merged0", quiet=True)
    assert again.info["finished"] == Dissection.load(tmp_path / "merged0").info["finished"]


def test_directions_are_fitted_on_all_shards(shard: Any, tmp_path: Path) -> None:
    options = {"basis": "pca", "directions": 3}
    whole = shard(None, "whole", **options)
    parts = [shard(f"{k}/2", f"part{k}", **options).folder for k in (2, 1)]
    assert same(merge(parts, out=tmp_path / "merged", quiet=True).folder, whole.folder)


def test_a_shards_tables_are_empty_and_it_is_no_run(shard: Any, tmp_path: Path) -> None:
    part = shard("1/2", "part")
    assert part.units.empty
    assert part.classes.empty
    assert sorted(path.name for path in (tmp_path / "part" / "spool").iterdir()) == ["shard-00000", "shard-00002"]
    with pytest.raises(UsageError, match="holds shard 1/2 of a run; put all of them together with dissect merge"):
        Dissection.load(tmp_path / "part")
    with pytest.raises(UsageError, match=r"holds another run \(shard: there 1/2, requested 2/2\)"):
        shard("2/2", "part")
    with pytest.raises(UsageError, match="holds another run"):
        shard(None, "part")


def test_an_interrupted_shard_goes_on(shard: Any, tmp_path: Path, colours: ColourSegmenter) -> None:
    class Dying(ColourSegmenter):
        left = 10 + FIRST

        def __call__(self, images: Any) -> Any:
            self.left -= 1
            if not self.left:
                raise RuntimeError("out of breath")
            return super().__call__(images)

    with pytest.raises(DissectError, match="out of breath"):
        shard("1/2", "part", segmenter=Dying())
    other = shard("2/2", "other").folder
    with pytest.raises(UsageError, match="Samples 256 to 383 are in none of these folders"):
        merge([tmp_path / "part", other], out=tmp_path / "merged", quiet=True)
    assert not (tmp_path / "merged").exists()
    shard("1/2", "part")
    assert same(merge([tmp_path / "part", other], out=tmp_path / "merged", quiet=True).folder, shard(None, "w").folder)


def test_shards_that_do_not_fit_are_refused(shard: Any, tmp_path: Path) -> None:
    part = shard("1/2", "part").folder
    for name, options in {"fewer": {"samples": 400}, "seeded": {"seed": 3}, "coarse": {"grid": 16}}.items():
        other = shard("2/2", name, **options).folder
        with pytest.raises(UsageError, match=f"are not shards of the same run .*{next(iter(options))}: there"):
            merge([part, other], out=tmp_path / "merged", quiet=True)
    scaled = shard("2/2", "scaled").folder
    info = json.loads((scaled / "run.json").read_text())
    info["layers"]["paint"]["scale"] *= 2
    (scaled / "run.json").write_text(json.dumps(info))
    with pytest.raises(UsageError, match="layers found: there"):
        merge([part, scaled], out=tmp_path / "merged", quiet=True)
    with pytest.raises(UsageError, match="whole is no shard of a run"):
        merge([part, shard(None, "whole").folder], out=tmp_path / "merged", quiet=True)
    assert not (tmp_path / "merged").exists()


def test_all_that_is_wrong_is_said_before_anything_is_written(shard: Any, tmp_path: Path) -> None:
    part, bare = shard("1/2", "part").folder, shard("2/2", "bare", controls=["untrained"]).folder
    with pytest.raises(UsageError, match=r"controls: there \[\], requested \['untrained'\]"):
        merge([part, bare], out=tmp_path / "merged", quiet=True)
    other = shard("2/2", "other").folder
    (other / "spool" / "shard-00003" / "features-0.npy").unlink()
    with pytest.raises(DissectError, match=r"other/spool/shard-00003/features-0.npy cannot be read"):
        merge([part, other], out=tmp_path / "merged", quiet=True)
    with pytest.raises(UsageError, match="No shard was named"):
        merge([], quiet=True)
    assert not (tmp_path / "merged").exists()


def test_a_finished_merge_has_no_featuremaps_to_keep(shard: Any, tmp_path: Path) -> None:
    parts = [shard(f"{k}/2", f"part{k}").folder for k in (1, 2)]
    merge(parts, out=tmp_path / "merged", quiet=True)
    with pytest.raises(UsageError, match="is finished and its featuremaps are gone"):
        merge(parts, out=tmp_path / "merged", keep_spool=True, quiet=True)
    assert merge(parts, out=tmp_path / "kept", keep_spool=True, quiet=True).spool.has_features(1)


def test_processes_do_not_merge_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganatomy.dissect.runtime.distributed.size", lambda: 2)
    with pytest.raises(UsageError, match="merged by one process"):
        merge(["part"], quiet=True)


@pytest.mark.parametrize("given", ["0/2", "3/2", "1", "a/b", "1/", "-1/2", "1/2/3"])
def test_a_shard_that_cannot_be_is_refused(shard: Any, given: str) -> None:
    with pytest.raises(UsageError, match=r"give which one of how many, counted from 1, e\.g\. 3/16"):
        shard(given, "part")


def test_more_shards_than_parts_are_refused(shard: Any) -> None:
    with pytest.raises(UsageError, match="500 samples make 4 parts of 128; take fewer shards"):
        shard("5/5", "part")


def test_the_limit_of_the_spool_is_each_shards_own(shard: Any, tmp_path: Path) -> None:
    whole = shard(None, "whole", keep_spool=True)
    needed = sum(path.stat().st_size for path in (whole.folder / "spool").rglob("*.npy"))
    with pytest.raises(UsageError, match="The spool would take"):
        shard(None, "no", spool_limit=0.6 * needed)
    shard("1/2", "part", spool_limit=0.6 * needed)
    assert not (tmp_path / "no").exists()


def test_the_command_merges(on_path: Path) -> None:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    model = ("--model", "ganatomy.tests.support.killed:painter", "--segmenter", "ganatomy.tests.support.killed:names")
    for k in (1, 2):
        done = call("run", *model, "--layer", "paint", "--samples", 300, "--shard", f"{k}/2")
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == f"runs/painter-paint-shard-{k}-of-2"
    done = call("merge", *sorted(Path("runs").iterdir()))
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == "runs/painter-paint/report/index.html"
    assert "painter: 300 samples" in done.stderr
