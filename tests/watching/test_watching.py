"""A training that is watched, from inside and from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Generator, NormalLatents, Watch, Watched
from ganatomy.dissect.watching import follow, tensorboard
from ganatomy.dissect.watching.measure import measure
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.reports.watch import write_watch

from ..conftest import ColourSegmenter, Painter

pytestmark = pytest.mark.slow

GREEN = 1  # the unit that draws it, and its number among the classes
LATENTS = range(64)


def make() -> Generator:
    return Generator(module=Painter(), name="painter", source=NormalLatents((6,)), layers=("paint",))


def colours() -> ColourSegmenter:
    return ColourSegmenter()


def without(*units: int) -> Painter:
    module = Painter()
    module.colour.weight.data[:, list(units)] = 0
    return module


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    with torch.no_grad():
        drawn = make()(NormalLatents((6,), 3)(range(300)))
    for number, image in enumerate(drawn):
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path / "watch", segmenter=ColourSegmenter(), layer="paint", latent="normal:6")


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Healthy at step 100 and 200; green is gone at 1000, everything at 2000; the numbers do not sort as text does."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step, units in ((1000, (GREEN,)), (200, ()), (2000, range(6)), (100, ())):
        torch.save(without(*units).state_dict(), folder / f"G-{step}.pth")
    return folder


HOW: dict[str, Any] = {"model": "tests.watching.test_watching:make", "options": {}}


def test_a_line_tells_what_the_samples_show(watch: Watch, tmp_path: Path) -> None:
    row = watch(Painter(), 500, checkpoint="here")
    with torch.no_grad():
        images = make()(make().latents(LATENTS))
    labels = ColourSegmenter()(images)[:, 0]
    for number, name in enumerate(("red", "green", "blue", "yellow")):
        assert row[f"share:{name}"] == pytest.approx(float((labels == number).double().mean()), abs=1e-6)
        assert row[f"presence:{name}"] == float((labels == number).flatten(1).any(1).double().mean())
    assert row["deviation"] == pytest.approx(images.numpy().std(0).mean(), abs=1e-6)
    assert row["deviation_low"] < row["deviation"] < row["deviation_high"]
    run = dissect.run(
        make(), layers=["paint"], segmenter=ColourSegmenter(), samples=64, out=tmp_path / "run", quiet=True
    )
    assert row["labelled"] == run.units.labelled.sum() > 0
    assert row["covered"] == run.units[run.units.labelled].label.nunique()
    kept = Watched.load(tmp_path / "watch")
    assert kept.lines.step.tolist() == [500]
    assert kept.lines.checkpoint.tolist() == ["here"]
    assert kept.info["reference"] is None
    shown = np.asarray(Image.open(kept.folder / kept.picture(0)))
    assert shown.shape == (32, 8 * 32, 3)
    assert np.abs(shown[:, 32:64] / 255 - images[1].permute(1, 2, 0).numpy()).mean() < 0.05


def test_numbers_do_not_depend_on_the_batch() -> None:
    segmenter, generator = ColourSegmenter(), make()

    def features(images: Tensor) -> Tensor:
        return images.mean((2, 3))

    one, other = (measure(generator, segmenter, features, "paint", 70, batch) for batch in (7, 64))  # type: ignore[arg-type]
    assert torch.equal(one.look.features, other.look.features)
    assert np.array_equal(one.look.shares, other.look.shares)
    assert torch.allclose(one.spectrum.mean, other.spectrum.mean)
    assert one.units.equals(other.units)


class Busy(Painter):
    """As networks in training are: it draws noise, keeps what it has made, has hooks and a mode for each part."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout()
        self.kept: Tensor | None = None
        self.drop.eval()

    def forward(self, latents: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = torch.zeros(1, 3, 1, 1)
        noise = 0.01 * torch.randn(len(latents), 1, 1, 1)
        return super().forward(latents) * self.strength + self.drop(noise) + self.kept


def test_a_network_in_training_is_left_as_it_was(watch: Watch) -> None:
    module = Busy().train()
    module.drop.eval()
    modes = [part.training for part in module.modules()]
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    first = watch(module, 0)
    assert torch.equal(torch.randn(3), expected)
    assert [part.training for part in module.modules()] == modes
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in module.parameters())
    module(torch.randn(2, 6)).sum().backward()  # what it has kept can still be used
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        again = watch(module, 1)  # and its noise is the same
    assert again["deviation"] == first["deviation"]


def test_what_the_training_loses_raises_an_alarm(watch: Watch, real: Path, tmp_path: Path) -> None:
    for module in (Painter(), without(GREEN), without(*range(6)), Painter()):
        watch(module)
    lines = Watched.load(watch.folder).lines
    assert lines.step.tolist() == [0, 1, 2, 3]
    assert lines.alarms[1] == "lost: green"
    assert lines.alarms[2].startswith("collapse; lost: ")
    assert lines.alarms[3] == ""
    compared = Watch(tmp_path / "compared", reference=real, segmenter=ColourSegmenter(), layer=1, latent="normal:6")
    rows = [compared(module) for module in (Painter(), without(*range(6)))]
    assert [row["verdict"] for row in rows] == ["varied", "collapsed"]
    assert rows[1]["spread"] == 0
    info = Watched.load(compared.folder).info
    assert info["real_images"] == 256
    assert info["zero"]["spread"]["low"] < 1 < info["zero"]["spread"]["high"]


def test_a_watch_goes_on_where_it_was(watch: Watch, tmp_path: Path) -> None:
    watch(Painter(), 10)
    before = (watch.folder / "watch.csv").read_text()
    again = Watch(watch.folder, segmenter=ColourSegmenter(), layer="paint", latent="normal:6")
    again(without(GREEN), 20)
    after = (watch.folder / "watch.csv").read_text()
    assert after.startswith(before)
    assert Watched.load(watch.folder).lines.alarms.tolist() == ["", "lost: green"]
    other = Watch(watch.folder, segmenter=ColourSegmenter(), layer="paint", latent="normal:6", samples=65)
    with pytest.raises(UsageError, match="samples: there 64, requested 65"):
        other(Painter())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match=r"holds thesis\.txt, but no watch"):
        Watch(tmp_path / "mine", segmenter=ColourSegmenter(), layer="paint", latent="normal:6")(Painter())


class Bad(Painter):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents) * float("nan")


def test_what_cannot_be_looked_at_is_told_and_nothing_is_lost(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(Painter())
    kept = (watch.folder / "watch.csv").read_bytes()
    with pytest.raises(DissectError, match="not finite"):
        watch(Bad())
    with pytest.raises(UsageError, match=r"Say what it takes, such as latent=.normal:128"):
        Watch(watch.folder, segmenter=ColourSegmenter(), layer="paint")(torch.nn.Linear(3, 4))
    with pytest.raises(UsageError, match="between 64 and 1024"):
        Watch(watch.folder, samples=10)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ganatomy.dissect.watching.result.write_csv", full)
    with pytest.raises(DissectError, match="No space left on device"):
        watch(Painter())
    assert (watch.folder / "watch.csv").read_bytes() == kept
    monkeypatch.undo()
    watch(Painter())
    assert len(Watched.load(watch.folder).lines) == 2


def test_a_page_is_written_at_every_line(tmp_path: Path) -> None:
    seen = []
    watch = Watch(
        tmp_path / "it",
        segmenter=ColourSegmenter(),
        layer="paint",
        latent="normal:6",
        page=lambda found: seen.append(len(found.lines)) or write_watch(found, live=True),
    )
    watch(Painter())
    watch(Painter())
    assert seen == [1, 2]
    assert (tmp_path / "it" / "index.html").is_file()


def test_scalars_are_those_of_the_lines(watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    rows = [watch(module, step) for step, module in ((100, Painter()), (200, without(GREEN)))]
    events = accumulator.EventAccumulator(str(watch.folder / "tensorboard")).Reload()
    for name, tag in (("deviation", "ganatomy/deviation"), ("share:green", "ganatomy/share/green")):
        told = events.Scalars(tag)
        assert [one.step for one in told] == [100, 200]
        assert [one.value for one in told] == pytest.approx([row[name] for row in rows])
    assert "ganatomy/spread" not in events.Tags()["scalars"]  # without real images
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)  # as where it is not installed
    tensorboard.Scalars(tmp_path / "none").add(rows[0])
    assert not (tmp_path / "none").exists()


def test_checkpoints_are_followed_in_the_order_of_their_steps(watch: Watch, checkpoints: Path) -> None:
    (checkpoints / "G-150.pth").write_bytes(b"half a file")
    diverged = {name: weight * float("nan") for name, weight in Painter().state_dict().items()}
    torch.save(diverged, checkpoints / "G-170.pth")
    (checkpoints / "notes.txt").touch()
    rows = list(follow(checkpoints, watch, once=True, **HOW))
    assert [row["step"] for row in rows] == [100, 200, 1000, 2000]
    assert [row["alarms"].split(":")[0] for row in rows] == ["", "", "lost", "collapse; lost"]
    skipped = Watched.load(watch.folder).info["skipped"]
    assert [Path(one["checkpoint"]).name for one in skipped] == ["G-150.pth", "G-170.pth"]
    assert "not finite" in skipped[1]["why"]
    assert list(follow(checkpoints, watch, once=True, **HOW)) == []  # nothing has changed
    torch.save(Painter().state_dict(), checkpoints / "G-2000.pth")
    torch.save(Painter().state_dict(), checkpoints / "G-3000.pth")
    again = Watch(watch.folder, segmenter=ColourSegmenter(), layer="paint")
    assert [row["step"] for row in follow(str(checkpoints / "G-*.pth"), again, once=True, **HOW)] == [2000, 3000]


def test_no_checkpoint_is_told(watch: Watch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no checkpoint"):
        list(follow(tmp_path, watch, once=True, options={}))
    (tmp_path / "G.pth").write_bytes(b"nothing")
    with pytest.raises(DissectError, match=r"No checkpoint .*G\.pth"):
        list(follow(tmp_path, watch, once=True, options={}))


def test_the_command_tells_a_line_a_checkpoint(checkpoints: Path, tmp_path: Path) -> None:
    arguments = [
        "watch",
        str(checkpoints),
        "--model",
        "tests.watching.test_watching:make",
        "--layer",
        "paint",
        "--once",
    ]
    arguments += ["--segmenter", "tests.watching.test_watching:colours", "--out", str(tmp_path / "it")]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert Path(shown.stdout.strip()) == tmp_path / "it" / "index.html"
    assert "alarm: lost: green" in shown.stderr
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert [one["step"] for one in told["checkpoints"]] == [100, 200, 1000, 2000]
    refused = CliRunner().invoke(main, ["watch", str(tmp_path / "nowhere"), "--once"])
    assert refused.exit_code == 2
    assert "holds no checkpoint" in refused.stderr


def test_a_live_watch_sees_what_appears_and_ends_by_ctrl_c(checkpoints: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ganatomy.cli", "watch", str(checkpoints), "--layer", "paint"]
    command += ["--model", "tests.watching.test_watching:make", "--segmenter", "tests.watching.test_watching:colours"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "it")],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        _until(lambda: _steps(tmp_path / "it") == [100, 200, 1000, 2000])
        assert 'http-equiv="refresh"' in (tmp_path / "it" / "index.html").read_text()
        torch.save(Painter().state_dict(), checkpoints / "G-4000.pth")
        _until(lambda: _steps(tmp_path / "it")[-1:] == [4000])
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert Path(out.strip()) == tmp_path / "it" / "index.html"
    assert 'http-equiv="refresh"' not in (tmp_path / "it" / "index.html").read_text()


def _steps(folder: Path) -> list[int]:
    return Watched.load(folder).lines.step.tolist() if (folder / "watch.csv").exists() else []


def _until(condition: Any) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come")


def test_a_folder_that_cannot_be_written_is_told_at_once(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watch = Watch(tmp_path / "file" / "watch", segmenter=ColourSegmenter(), layer="paint")
    with pytest.raises(DissectError, match="cannot be used"):
        next(follow(checkpoints, watch, **HOW))
