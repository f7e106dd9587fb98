"""Mistakes that would go through and give wrong numbers: each is refused, or warned of before the work."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Generator, Watch
from ganatomy.dissect.diversity import whole_images
from ganatomy.dissect.stats.significance import benjamini_hochberg
from ganatomy.dissect.subjects.first_look import label_trouble
from ganatomy.dissect.watching import follow
from ganatomy.hooks.errors import DissectError, DissectWarning, UsageError
from ganatomy.reports.pages import write_report
from ganatomy.segmenters import Vocabulary

from ..conftest import COLOURS, ColourSegmenter, Go, Painter


class Shifted(ColourSegmenter):
    """Counts classes from 1; what it does not know is 0."""

    name = "shifted"
    vocabulary = Vocabulary(
        names=("red", "green", "blue", "yellow", "rest"), categories=("x",) * 5, colours=(*COLOURS, "#000000")
    )

    def __call__(self, images: Tensor) -> Tensor:
        labels = super().__call__(images)
        return torch.where(labels < 0, 4, labels + 1)


def test_labels_that_count_from_one_are_warned_of(go: Go, tmp_path: Path) -> None:
    with pytest.warns(DissectWarning, match="No pixel is 'red', the first class, and the labels may count from 1"):
        run = go(segmenter=Shifted(), samples=40)
    assert any("count from 1" in note for note in run.info["notes"])
    assert "may count from 1" in write_report(run).read_text()


@pytest.mark.parametrize(
    ("segmenter", "share", "warned"),
    [
        ("mine", [0.0, 0.2, 0.3, 0.5], True),
        ("mine", [0.0, 0.6, 0.4, 0.0], True),  # the lowest label is 1, and all is labelled
        ("mine", [0.0, 0.2, 0.1, 0.0], False),  # some is unlabelled, and the last never occurs
        ("mine", [0.1, 0.2, 0.3, 0.4], False),
        ("hub:nvidia/segformer", [0.0, 0.2, 0.3, 0.5], False),  # it takes the most probable class: no shift
    ],
)
def test_when_labels_look_shifted(segmenter: str, share: list[float], warned: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert bool(label_trouble(segmenter, ("a", "b", "c", "d"), share)) == warned


def test_255_is_explained(go: Go) -> None:
    class Masks(ColourSegmenter):
        def __call__(self, images: Tensor) -> Tensor:
            labels = super().__call__(images)
            return torch.where(labels < 0, 255, labels)

    with pytest.raises(DissectError, match=r"to 255; .* so -1 to 3 are allowed\. 255 .*return -1"):
        go(segmenter=Masks())


def test_one_class_nearly_everywhere_is_said_at_the_start(go: Go) -> None:
    class Fooled(ColourSegmenter):
        """Expects 0 to 255."""

        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images).clamp(max=-1) + 3

    with pytest.warns(DissectWarning, match="calls at least 100% of the pixels of each of the first 4 samples 'blue'"):
        go(segmenter=Fooled(), samples=8)


def test_pixels_that_are_not_finite_stop_a_run(go: Go, tmp_path: Path) -> None:
    class Broken(Painter):
        def forward(self, latents: Tensor) -> Tensor:
            images = super().forward(latents)
            for place, bad in zip((45, 90), dissect.NormalLatents((6,))([45, 90]), strict=True):
                images[(latents == bad).all(1)] = torch.inf if place == 45 else torch.nan
            return images

    generator = Generator(module=Broken(), name="broken", source=dissect.NormalLatents((6,)), layers=("paint",))
    with pytest.raises(DissectError, match=r"not finite \(NaN\) in 2 of the samples 0 to 127, first 45"):
        go(model=generator, samples=200)
    assert not (tmp_path / "run" / "units.csv").exists()


def test_one_missing_p_value_takes_no_alarm_away() -> None:
    p = np.array([0.001, np.nan, 0.5, 0.01])
    found = benjamini_hochberg(p)
    np.testing.assert_allclose(found[[0, 2, 3]], [0.003, 0.5, 0.015])
    assert np.isnan(found[1])
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


def test_a_metric_that_is_no_number_is_no_verdict() -> None:
    figures = np.random.default_rng(0).normal(1, 0.1, (11, len(whole_images.METRICS)))
    whole_images.table_of(figures, figures[::-1])
    broken = figures.copy()
    broken[3, whole_images.METRICS.index("vendi")] = np.nan
    with pytest.raises(DissectError, match=r"vendi .*not a number in 1 of 11 sets"):
        whole_images.table_of(broken, figures)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reference", "nowhere", "--segmenter", "scenes"], "--reference nowhere does not exist"),
        (["--segmenter", "scene"], "There is no segmenter 'scene'"),
        (["--segmenter", "scenes", "--model", "net.py"], "write file.py:Name"),
    ],
)
def test_watch_says_at_once_what_does_not_exist(on_path: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["watch", "checkpoints", *options])  # not --once: it would wait for ever
    assert done.exit_code == 2
    assert said in done.stderr


def test_watch_names_what_it_waits_for(on_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def enough(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ganatomy.dissect.watching.follow_folder.time.sleep", enough)
    watch = Watch(on_path / "watch", segmenter=ColourSegmenter(), latent="normal:6", layer="paint")
    for place, said in (
        ("later", "no folder later yet"),
        ("G-*.pt", "no file matches G-*.pt yet"),
        (".", "holds no check"),
    ):
        with pytest.raises(KeyboardInterrupt):
            next(follow(place, watch, options={}, quiet=False))
        assert said in capsys.readouterr().err


def test_a_skipped_checkpoint_is_told_everywhere(on_path: Path) -> None:
    (on_path / "net.py").write_text(
        "from tests.conftest import ColourSegmenter as Namer, Painter\n"
        "from ganatomy.dissect import Generator, NormalLatents\n"
        "def make():\n"
        "    return Generator(module=Painter(), name='painter', source=NormalLatents((6,)), layers=('paint',))\n"
    )
    (on_path / "ck").mkdir()
    torch.save(Painter().state_dict(), on_path / "ck" / "G-1.pth")
    broken = {name: torch.full_like(value, torch.nan) for name, value in Painter().state_dict().items()}
    torch.save(broken, on_path / "ck" / "G-2.pth")
    asked = ["watch", "ck", "--once", "--model", "net.py:make", "--segmenter", "net.py:Namer", "--json"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.stderr
    assert "G-2.pth is skipped: The generator painter drew pixels that are not finite" in done.stderr
    told = json.loads(done.stdout)
    assert [row["step"] for row in told["checkpoints"]] == [1]
    assert [Path(one["checkpoint"]).name for one in told["skipped"]] == ["G-2.pth"]
    assert "G-2.pth" in Path(told["report"]).read_text()
    torch.save(Painter().state_dict(), on_path / "ck" / "G-2.pth")
    told = json.loads(CliRunner().invoke(main, asked).stdout)
    assert (len(told["checkpoints"]), told["skipped"]) == (2, [])


def test_the_first_watch_leaves_all_random_numbers_alone(tmp_path: Path) -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the legacy state is the global one
    torch.manual_seed(3)
    module = Painter()
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002

    class Drawing(ColourSegmenter):
        """Draws of all three, as libraries do."""

        def __call__(self, images: Tensor) -> Tensor:
            random.random()
            np.random.rand()  # noqa: NPY002
            torch.rand(1)
            return super().__call__(images)

    Watch(tmp_path / "w", segmenter=Drawing(), latent="normal:6", layer="paint")(module)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["artifacts", "--model", "progan_scenes", "--layer", "1", "--detector", "foo"],
            "--detector 'foo': must be one of",
        ),
        (["repair", "--checkerboard", "--model", "dcgan_scenes", "--method", "foo"], "--method 'foo': must be one of"),
        (["checkup", "--model", "tests.support.boards:flat", "--segmenter", "scenes"], "name them by --reference"),
    ],
)
def test_usage_errors_come_before_the_work(
    on_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    done = CliRunner().invoke(main, [*arguments, "--quiet"])
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (on_path / "runs").exists()


def test_a_comparison_is_refused_before_the_work(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("compared")

    monkeypatch.setattr("ganatomy.dissect.runs.compare.compare", never)
    (on_path / "taken").mkdir()
    (on_path / "taken" / "x").write_text("")
    done = CliRunner().invoke(main, ["compare", "a", "b", "--out", "taken"])
    assert done.exit_code == 2
    assert "taken exists and is not a comparison" in done.stderr


def test_a_disk_that_fills_says_what_stays(go: Go, tmp_path: Path) -> None:
    from ganatomy.dissect.storage.result_folder import writing

    for stays in ("what was captured stays", "the run is complete"):
        with pytest.raises(DissectError, match=rf"\(No space left\); {stays}"), writing(tmp_path, stays):
            raise OSError(28, "No space left")


def test_a_python_error_of_a_segmenter_is_the_segmenters(go: Go, tmp_path: Path) -> None:
    """In every place that calls one: here an audit, whose loop is not that of a run."""

    class Fails(ColourSegmenter):
        name = "fails"

        def __call__(self, images: Tensor) -> Tensor:
            raise KeyError("mask")

    with pytest.raises(DissectError, match=r"Segmenter fails failed on a batch .*KeyError: 'mask'"):
        dissect.diversity.audit("progan_scenes", segmenter=Fails(), samples=100, out=tmp_path / "x", quiet=True)
    with pytest.raises(UsageError, match="There is no model"):
        dissect.run("progan_scene", 1, segmenter=Fails())
