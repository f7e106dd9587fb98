"""The main job on bad input: refused in one line, before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import ColourSegmenter, Go, Painter


def test_another_run_in_the_folder_is_refused(go: Go, tmp_path: Path) -> None:
    go(samples=20)
    with pytest.raises(UsageError, match=r"holds another run \(samples: there 20, requested 18\)"):
        go(samples=18)
    model = Generator(module=Painter(), name="painter", source=NormalLatents((6,)), layers=("paint",))
    model.module.colour.weight.data *= 0.9
    with pytest.raises(UsageError, match="weights_sha256"):
        go(samples=20, model=model)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="is not a run"):
        go(out=tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, r"samples=0: .* at least 2"),
        ({"samples": 1}, r"samples=1: .* at least 2"),
        ({"quantile": 0.0}, "quantile=0.0"),
        ({"quantile": 1.0}, "quantile=1.0"),
        ({"quantile": float("nan")}, "quantile=nan"),
        ({"threshold": "magic"}, "must be one of iqr, quantile"),
        ({"grid": 1}, "grid=1"),
        ({"seed": -1}, "seed=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"device": "quantum"}, "device.* quantum cannot be used"),
        ({"layers": [9]}, "numbers go from 1 to 1"),
        ({"layers": ["pait"]}, "no layer 'pait'. Did you mean paint"),
        ({"layers": []}, "No layer is named"),
        ({"segmenter": None}, "No segmenter belongs to painter"),
        ({"segmenter": "scene"}, "Did you mean 'scenes'"),
        ({"model": "progan_scene"}, "Did you mean progan_scenes"),
        ({"spool_limit": 1e4}, "more than the limit"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    go: Go, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(**options)
    assert not (tmp_path / "run").exists()


def test_outputs_that_are_no_images_or_labels(go: Go, painter: Generator) -> None:
    flat = Generator(module=nn.Sequential(nn.Flatten()), name="flat", source=NormalLatents((6,)), layers=("0",))
    with pytest.raises(DissectError, match=r"flat returned a tensor of shape \(1, 6\); it must return images"):
        go(model=flat)

    class Odd(ColourSegmenter):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images) + 2

    with pytest.raises(DissectError, match="Segmenter colours returned labels from"):
        go(segmenter=Odd())

    class Vector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).view(-1, 3, 2, 2)

    with pytest.raises(UsageError, match=r"'linear' outputs \(1, 12\)"):
        go(model=Generator(module=Vector(), name="v", source=NormalLatents((6,))), layers=["linear"])


@pytest.mark.parametrize("name", ["units.csv", "scores.npz", "tops.npz", "shown.npz", "run.json"])
def test_a_damaged_run_folder_is_named(go: Go, tmp_path: Path, name: str) -> None:
    go(samples=20)
    (tmp_path / "run" / name).write_bytes(b"\x00\x01")

    def read_all() -> None:
        found = dissect.Dissection.load(tmp_path / "run")
        found.counts("paint", "score")
        found.tops("paint")
        assert found.shown

    with pytest.raises(DissectError, match=name):
        read_all()


def test_whatever_changes_results_is_part_of_the_config(go: Go, painter: Generator) -> None:
    class Other(ColourSegmenter):
        vocabulary = replace(ColourSegmenter.vocabulary, names=("a", "b", "c", "d"))

    go(samples=20)
    with pytest.raises(UsageError, match="output_range"):
        go(samples=20, model=replace(painter, output_range=(-2.0, 2.0)))
    with pytest.raises(UsageError, match="segmenter_sha256"):
        go(samples=20, segmenter=Other())
    with pytest.raises(UsageError, match=r"seed: there 0, requested 7"):
        go(samples=20, model=replace(painter, source=NormalLatents((6,), seed=7)))
    with pytest.raises(UsageError, match="featuremaps are gone"):
        go(samples=20, keep_spool=True)


@pytest.mark.parametrize("error", [KeyError("weights"), AssertionError(), ValueError("two\nlines")])
def test_networks_that_fail_are_named_in_one_line(go: Go, painter: Generator, error: Exception) -> None:
    class Failing(ColourSegmenter):
        def __call__(self, images: Tensor) -> Tensor:
            raise error

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    for options in ({"segmenter": Failing()}, {"model": replace(painter, module=Net(), layers=())}):
        with pytest.raises(DissectError, match=type(error).__name__) as caught:
            go(**options)
        assert "\n" not in str(caught.value)
