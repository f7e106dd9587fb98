"""Code of the user's own, as it is: files and classes, arguments, latents, ranges, plain modules."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Generator, ModelSpec, NormalLatents
from ganatomy.dissect.generators.factory import as_generator, fitting_latents, measured_range
from ganatomy.dissect.generators.loading import load_generator
from ganatomy.hooks.errors import DissectError, DissectWarning, UsageError
from ganatomy.hooks.user_code import call_factory, is_factory, parse_arguments

from ..conftest import ColourSegmenter

TRAIN = '''
"""A training script as people have them: sizes as arguments, an option parser, nothing run on import."""
import argparse
import torch.nn as nn
from blocks import up

options = argparse.ArgumentParser().parse_args()

class Generator(nn.Module):
    def __init__(self, nz, ngf=8, last="tanh"):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf, 4, 1, 0), nn.ReLU(), up(ngf, ngf), nn.ReLU(), up(ngf, 3),
            nn.Tanh() if last == "tanh" else nn.Sigmoid(),
        )

    def forward(self, x):
        return self.main(x)

def make():
    return Generator(16)

ready = Generator(16)
ngf = 3

if __name__ == "__main__":
    raise SystemExit("training")
'''
BLOCKS = "import torch.nn as nn\ndef up(a, b):\n    return nn.ConvTranspose2d(a, b, 4, 2, 1)\n"


@pytest.fixture
def train(on_path: Path) -> Path:
    """A folder with code/train.py and what it imports."""
    (on_path / "code").mkdir()
    (on_path / "code" / "train.py").write_text(TRAIN)
    (on_path / "code" / "blocks.py").write_text(BLOCKS)
    return on_path


def test_a_class_in_a_file_with_its_arguments(train: Path) -> None:
    path, arguments = list(sys.path), list(sys.argv)
    with pytest.warns(DissectWarning, match=r"Generator is a class, and no `weights` are given: .* random"):
        found = load_generator(ModelSpec("code/train.py:Generator", args=("nz=20", "ngf=6")))
    assert (sys.path, sys.argv) == (path, arguments)
    assert found.name == "train.Generator"
    assert found.module.main[0].weight.shape == (20, 6, 4, 4)
    assert str(found.source) == "normal:20x1x1"
    assert found.output_range == (-1, 1)
    assert found.spec is not None
    assert found.spec.model == f"{(train / 'code' / 'train.py').resolve()}:Generator"


@pytest.mark.parametrize("name", ["make", "ready"])
def test_functions_and_finished_networks(train: Path, name: str, recwarn: pytest.WarningsRecorder) -> None:
    assert str(load_generator(f"code/train.py:{name}").source) == "normal:16x1x1"
    assert not [one for one in recwarn if "weights" in str(one.message)]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ModelSpec("code/train.py:Generator"), "missing a required argument: 'nz'; give its arguments as args"),
        (ModelSpec("code/train.py:Generator", args=("nz=4", "ndf=3")), "unexpected keyword argument 'ndf'"),
        (ModelSpec("code/train.py:Generatr", args=("nz=4",)), "Did you mean Generator?"),
        (ModelSpec("code/train.py:zzz"), "there are Generator, make"),
        (ModelSpec("code/nothing.py:Generator"), "There is no file .*nothing.py"),
        (ModelSpec("code/train.py:ready", args=("nz=4",)), "train.py:ready .*args"),
        (ModelSpec("code/train.py:make", args=("16",)), "write NAME=VALUE"),
        (
            ModelSpec("code/train.py:make", latent="normal:16", input_range=(0, 1)),
            "latent.* and .input_range.* exclude each other",
        ),
        (ModelSpec("code/train.py:make", latent="normal:9"), r"normal:9. does not fit \(N×9: .*N×9×1×1: "),
    ],
)
def test_what_does_not_fit_is_said(train: Path, spec: ModelSpec, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_generator(spec)


def test_a_script_that_trains_when_imported_is_said(on_path: Path) -> None:
    (on_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(DissectError, match=r"script\.py:G: its code failed \(SystemExit: 3\)"):
        load_generator("script.py:G")


def test_arguments_are_literals_or_text() -> None:
    given = ("nz=100", "rate=0.5", "norm=batch", "widths=(64, 32)", "bias=false", "note=a=b", "none=None")
    assert parse_arguments(given) == {
        **{"nz": 100, "rate": 0.5, "norm": "batch", "widths": (64, 32), "bias": False, "note": "a=b", "none": None}
    }
    with pytest.raises(UsageError, match="`args` nz is given twice"):
        parse_arguments(["nz=1", "nz=2"])


def test_what_looks_like_code() -> None:
    assert all(map(is_factory, ("a.b:c", "train.py:G", "../x/my train.py:G", r"C:\x\train.py:G")))
    assert not any(map(is_factory, ("train.py", "a:b:c.d", "hub:x/y", "x y:z", "train.py:")))


def test_a_file_does_not_hide_a_module_of_its_name(on_path: Path) -> None:
    (on_path / "json.py").write_text("def make():\n    return 'mine'\n")
    assert call_factory("json.py:make") == "mine"
    assert sys.modules["json"] is json


class Flat(nn.Module):
    """Takes (N, 12) only."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.linear, self.up, self.last = nn.Linear(12, 8 * 16), nn.ConvTranspose2d(8, 3, 4, 2, 1), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(8 * self.up(self.linear(x).view(-1, 8, 4, 4)))


def test_latents_are_found_by_trying() -> None:
    assert fitting_latents(Flat(nn.Tanh())).shape == (12,)
    assert fitting_latents(nn.ConvTranspose2d(7, 3, 8)).shape == (7, 1, 1)
    assert fitting_latents(nn.ConvTranspose2d(7, 3, 8), "normal:7").shape == (7, 1, 1)
    assert fitting_latents(Flat(nn.Tanh()), "normal:12").shape == (12,)
    with pytest.raises(UsageError, match="takes images; give them by inputs=FOLDER"):
        fitting_latents(nn.Conv2d(3, 3, 3))


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (-0.98, 0.97, (-1, 1)),
        (-0.1, 0.1, (-1, 1)),  # untrained
        (-0.016, 0.016, (-1, 1)),  # as initialised by the DCGAN paper
        (0.02, 0.99, (0, 1)),
        (-0.08, 1.07, (0, 1)),  # a linear last layer, trained on 0 to 1
        (0.0, 1.4, (0, 1)),
        (3, 251, (0, 255)),
        (-20, 270, (0, 255)),
        (-4, 5, (-1, 1)),
    ],
)
def test_the_range_is_measured(low: float, high: float, found: tuple[float, float]) -> None:
    assert measured_range(low, high) == found


def test_a_sigmoid_is_not_washed_out() -> None:
    torch.manual_seed(0)
    net = Flat(nn.Sigmoid())
    found = as_generator(net)
    assert found.output_range == (0, 1)
    latents = found.latents([0, 1])
    torch.testing.assert_close(found(latents), net(latents))
    assert as_generator(net, output_range=(-1, 1)).output_range == (-1, 1)


def run(model: Any, folder: Path, layers: Any = ("up",), **options: Any) -> dissect.Dissection:
    usual = {"segmenter": ColourSegmenter(), "samples": 16, "significance": "off", "quiet": True, "out": folder}
    return dissect.run(model, layers, **(usual | options))


def test_a_plain_module_is_dissected_and_ablated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Flat(nn.Sigmoid())
    found = run(net, tmp_path / "run")
    assert found.info["config"]["model"] == "Flat"
    assert found.info["config"]["latent"] == "normal:12"
    assert found.info["config"]["output_range"] == [0, 1]
    assert found.info["notes"] == []
    effects = dissect.ablate(found, units="up:0", generator=net, segmenter=ColourSegmenter(), samples=4, quiet=True)
    assert len(effects.table) == 5
    named = run(net, tmp_path / "named", name="mine", latent="normal:12", output_range=(0, 1))
    assert named.info["config"]["model"] == "mine"
    with pytest.raises(UsageError, match=r"go with an nn\.Module"):
        run("progan_scenes", tmp_path / "x", latent="normal:3")
    with pytest.raises(UsageError, match=r"torch\.nn\.Module or a ganatomy\.dissect\.Generator, not a dict"):
        run({}, tmp_path / "x")


def test_a_wrong_range_is_warned_of_and_noted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Flat(nn.Sigmoid())
    washed = Generator(module=net, name="washed", source=NormalLatents((12,)))
    with pytest.warns(
        DissectWarning, match=r"goes from 0\.\d+ to \S+ in 4 samples: it uses 5\d% of the range from -1 to 1"
    ):
        found = run(washed, tmp_path / "run")
    assert any("output_range" in note for note in found.info["notes"])
    from ganatomy.reports.pages import write_report

    assert "uses 5" in write_report(found).read_text()
    beyond = Generator(module=Flat(nn.Identity()), name="beyond", source=NormalLatents((12,)))
    with pytest.warns(DissectWarning, match="it leaves the range from -1 to 1"):
        run(beyond, tmp_path / "beyond")


class Numbered(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.ConvTranspose2d(5, 4, 4), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, 2), nn.Conv2d(6, 3, 1), nn.Tanh()
        )


def test_a_name_wins_over_a_number(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DissectWarning)  # an untrained network is grey
        assert run(Numbered(), tmp_path / "text", "2").layers == ["2"]
        assert run(Numbered(), tmp_path / "number", 2).layers == ["1"]


def test_what_inspect_suggests_is_what_run_takes(on_path: Path) -> None:
    (on_path / "net.py").write_text(
        "import torch.nn as nn\nfrom ganatomy.segmenters import Vocabulary\n"
        "def make():\n    return nn.Sequential(nn.ConvTranspose2d(5, 4, 4), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, 2),"
        " nn.ReLU(), nn.ConvTranspose2d(6, 6, 4, 4), nn.Conv2d(6, 3, 1), nn.Tanh())\n"
        "class Namer:\n    name = 'halves'\n"
        "    vocabulary = Vocabulary(names=('dark', 'bright'), categories=('x', 'x'), colours=('#000000', '#ffffff'))\n"
        "    def __call__(self, images):\n        return (images.mean(1, keepdim=True) > images.mean()).long()\n"
    )
    told = json.loads(CliRunner().invoke(main, ["inspect", "--model", "net.py:make", "--json"]).stdout)
    suggested = [row["layer"] for row in told["layers"] if row["suggested"]]
    assert suggested == ["2", "3"]
    wanted = ["run", "--model", "net.py:make", "--layer", "2", "--segmenter", "net.py:Namer", "--samples", "8"]
    done = CliRunner().invoke(main, wanted)
    assert done.exit_code == 0, done.stderr
    assert "2 (layer 3 of 7: 6 units, 8×8); 8 samples of 32×32 pixels; latents normal:5x1x1" in done.stderr


def test_images_need_not_be_given_to_inspect(on_path: Path) -> None:
    (on_path / "net.py").write_text(
        "import torch.nn as nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 9, 3, 2, 1), nn.ReLU(),"
        " nn.ConvTranspose2d(9, 3, 4, 2, 1), nn.Tanh())\n"
    )
    done = CliRunner().invoke(main, ["inspect", "--model", "net.py:make"])
    assert done.exit_code == 0, done.stderr
    assert "by --inputs FOLDER" in done.stdout
    done = CliRunner().invoke(main, ["run", "--model", "net.py:make", "--layer", "1", "--segmenter", "scenes"])
    assert done.exit_code == 2
    assert "takes images; give them by --inputs FOLDER" in done.stderr


class Shared(nn.Module):
    """One activation in three places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.ConvTranspose2d(4, 5, 4), nn.Conv2d(5, 5, 3, 1, 1), nn.ConvTranspose2d(5, 3, 4, 4)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.c(self.act(self.b(self.act(self.a(x))))))


def test_a_layer_that_runs_several_times_is_refused_by_name(tmp_path: Path) -> None:
    found = dissect.inspect(Shared())
    assert found.repeated == {"act": 3}
    assert list(found.layers.layer) == ["a", "b", "c"]
    with pytest.raises(UsageError, match=r"'act' runs 3 times in a forward pass .* Layers that run once: a, b, c\."):
        run(Shared(), tmp_path / "run", "act")
    with pytest.raises(UsageError, match="'act' runs 3 times"):
        dissect.ablate(as_generator(Shared()), units="act:0", segmenter=ColourSegmenter(), quiet=True)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 5, 8)
        self.last = nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.up(x)
        return (self.last(maps) + torch.randn_like(maps[:, :3])).tanh()


def test_noise_of_its_own_is_refused_by_run_as_by_ablate(tmp_path: Path) -> None:
    generator = Generator(module=Noisy(), name="noisy", source=NormalLatents((4, 1, 1)))
    for call in (
        lambda: run(generator, tmp_path / "run"),
        lambda: dissect.ablate(generator, units="up:0", segmenter=ColourSegmenter(), quiet=True),
    ):
        with pytest.raises(UsageError, match="does not draw the same image from the same latents twice"):
            call()
    assert not (tmp_path / "run").exists()


def test_a_moved_checkpoint_can_be_named(on_path: Path) -> None:
    (on_path / "net.py").write_text(
        "import torch.nn as nn\nfrom tests.conftest import ColourSegmenter as Namer\n"
        "def make():\n    up = nn.ConvTranspose2d\n    return nn.Sequential(up(5, 4, 4), nn.Tanh(), up(4, 3, 2, 2))\n"
    )
    network = nn.Sequential(nn.ConvTranspose2d(5, 4, 4), nn.Tanh(), nn.ConvTranspose2d(4, 3, 2, 2))
    torch.save(network.state_dict(), on_path / "g.pth")
    call = CliRunner().invoke
    made = ["run", "--model", "net.py:make", "--weights", "g.pth", "--layer", "1", "--segmenter", "net:Namer"]
    done = call(main, [*made, "--samples", "8", "--quiet", "--no-report"])
    assert done.exit_code == 0, done.stderr
    (on_path / "new").mkdir()
    (on_path / "g.pth").rename(on_path / "new" / "g.pth")
    asked = ["ablate", "runs/net.make-1", "--units", "1:0", "--samples", "4", "--quiet"]
    done = call(main, asked)
    assert done.exit_code == 2
    assert str(on_path / "g.pth") in done.stderr
    assert "by --weights" in done.stderr
    done = call(main, [*asked, "--weights", "new/g.pth"])
    assert done.exit_code == 0, done.stderr
    torch.save(
        nn.Sequential(*network).apply(lambda m: [p.data.zero_() for p in m.parameters()]).state_dict(), "other.pth"
    )
    done = call(main, [*asked, "--name", "other", "--weights", "other.pth"])
    assert done.exit_code == 2
    assert "net.make has changed since the run in runs/net.make-1 was made" in done.stderr
    assert "--out" not in done.stderr
    (on_path / "net.py").rename(on_path / "new" / "net.py")
    done = call(main, [*asked, "--name", "two", "--model", "new/net.py:make", "--weights", "new/g.pth"])
    assert done.exit_code == 0, done.stderr


def test_a_last_activation_tells_the_range_of_an_untrained_network() -> None:
    net = Flat(nn.Tanh())
    nn.init.constant_(net.up.bias, 0.02)  # so that all values are positive
    nn.init.zeros_(net.up.weight)
    assert as_generator(net).output_range == (-1, 1)

    class Shown(Flat):
        def forward(self, x: Tensor) -> Tensor:
            return (super().forward(x) + 1) / 2

    torch.manual_seed(0)
    assert as_generator(Shown(nn.Tanh())).output_range == (0, 1)  # what comes behind the activation counts
