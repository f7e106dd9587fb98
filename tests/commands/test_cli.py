"""The command as users meet it: through its entry point, with good and with bad input."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from ganatomy.cli import main
from ganatomy.dissect.generators.families.progan import ProGAN

pytestmark = pytest.mark.slow

FACTORY = """
from tests.conftest import ColourSegmenter, Painter
net, namer = Painter, ColourSegmenter
"""
MINE = ["--model", "mine:net", "--latent", "normal:6", "--layer", "paint", "--segmenter", "mine:namer"]


@pytest.fixture
def mine(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's own generator and segmenter, mine.py."""
    root = Path(__file__).parents[2]
    (on_path / "mine.py").write_text(FACTORY.replace("tests.", "ganatomy.tests."))
    assert (root / "cli.py").exists()
    return on_path


@pytest.fixture
def dissect(mine: Path) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def test_an_own_module_from_the_command_line(dissect: Callable[..., Result], mine: Path) -> None:
    done = dissect("run", *MINE, "--samples", "100", "--quiet")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    folder = mine / "runs" / "mine.net-paint"
    units = pd.read_csv(folder / "units.csv")
    assert units.label[:4].tolist() == ["red", "green", "blue", "yellow"]
    assert (folder / "report" / "index.html").stat().st_size > 1000


def test_json_is_all_that_is_printed(dissect: Callable[..., Result]) -> None:
    done = dissect("run", *MINE, "--samples", "40", "--json", "--no-report", "--out", "here")
    assert done.exit_code == 0
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["folder"] == "here"
    assert result["report"] is None
    assert result["layers"][0]["layer"] == "paint"


def test_tables_on_stderr_and_the_path_on_stdout(dissect: Callable[..., Result]) -> None:
    done = dissect("run", *MINE, "--samples", "40", "--out", "here")
    assert done.stdout.strip() == str(Path("here/report/index.html"))
    for text in ("labelled", "Best units", "position", "1 units constant: 4", "paint match a class", "clearest: unit"):
        assert text in done.stderr
    again = dissect("report", "here")
    assert again.exit_code == 0
    assert again.stdout.strip() == str(Path("here/report/index.html"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--model", "progan_chruch", "--layer", "4"], "Did you mean progan_church"),
        (["run", *MINE[:-2], "--segmenter", "hubb:x"], "Did you mean"),
        (["run", *MINE, "--samples", "0"], "--samples 0: must be an integer of at least 2"),
        (["run", *MINE, "--quantile", "1.5"], "--quantile 1.5"),
        (["run", *MINE, "--layer", "pant"], "Did you mean paint"),
        (["run", *MINE, "--layer", "7"], "numbers go from 1 to"),
        (["run", "--layer", "4"], "Missing argument 'MODEL'"),
        (["run", *MINE, "--samples", "many"], "'many' is not a valid integer"),
        (["dance"], "No such command 'dance'"),
        (["run", *MINE, "--speed", "9"], "No such option"),
        (["run", "--model", "missing.pth", "--layer", "4"], "There is no file missing.pth"),
        (["run", "--model", "mine:nett", "--layer", "4"], "Did you mean net"),
        (["run", "--model", "mine:net", "--layer", "4"], "No segmenter belongs to mine.net"),
        (["run", "--model", "mine.py", "--layer", "4"], "name the class or function too, e.g. mine.py:Generator"),
        (["run", *MINE, "--latent", "uniform:x"], "--latent 'uniform:x' is not understood"),
        (["run", *MINE, "--significance", "very"], "--significance 'very': must be one of off, fast, full"),
        (["run", *MINE, "--significance", "fats"], "Did you mean fast?"),
        (["run", *MINE, "--control", "shuffled"], "--control 'shuffled': must be one of rotation, untrained"),
        (["latents", "interpolat", "progan_scenes"], "Did you mean 'interpolate'?"),
        (["completion", "powershell"], "must be one of bash, zsh, fish"),
        (["run", *MINE, "--basis", "ica"], "--basis 'ica': must be units, pca, nmf, or a .safetensors"),
        (["run", *MINE, "--basis", "pca", "--directions", "9"], "layer 'paint' has 6 units, so 1 to 6"),
        (["run", *MINE, "--basis", "pca", "--control", "rotation"], "does not go with --basis"),
        (["run", *MINE, "--directions", "3"], "--directions 3 goes with --basis pca or nmf"),
        (["power", "nowhere"], "nowhere is no run folder"),
        (["report", "nowhere"], "nowhere is no run folder"),
        (["models", "--detail", "progan_scnes"], "Did you mean progan_scenes"),
        (["scenes", "--n", "0", "--out", "x"], "n ≥ 1"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    dissect: Callable[..., Result], mine: Path, arguments: list[str], message: str
) -> None:
    done = dissect(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert_one_line(done.stderr)
    assert sorted(path.name for path in mine.iterdir() if path.name != "__pycache__") == ["mine.py"]


def test_a_corrupt_checkpoint_fails_with_1(dissect: Callable[..., Result], mine: Path) -> None:
    (mine / "bad.pth").write_bytes(b"PK\x03\x04 nonsense")
    done = dissect("run", "--model", "bad.pth", "--layer", "4")
    assert done.exit_code == 1
    assert "bad.pth" in assert_one_line(done.stderr)
    assert dissect("run", "--model", "bad.pth", "--layer", "4", "--debug").exception is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(dissect: Callable[..., Result], mine: Path) -> None:
    (mine / "locked").mkdir(mode=0o500)
    done = dissect("run", *MINE, "--out", "locked/run")
    assert done.exit_code == 1
    assert "locked" in done.stderr


def test_an_out_path_under_a_file(dissect: Callable[..., Result], mine: Path) -> None:
    done = dissect("run", *MINE, "--samples", "10", "--out", "mine.py/run")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 3  # what is loaded, what was going to be dissected, and the error
    assert "mine.py/run cannot be used (Not a directory)" in done.stderr


def test_a_checkpoint_by_its_file(dissect: Callable[..., Result], mine: Path) -> None:
    torch.manual_seed(0)
    torch.save(ProGAN(8, (6, 6, 4)).state_dict(), mine / "own.pth")
    done = dissect(
        "run", "--model", "own.pth", "--layer", "4", "--segmenter", "mine:namer", "--samples", "20", "--json"
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["layers"][0]["layer"] == "layer4"
    assert result["layers"][0]["units"] == 6
    info = json.loads((Path(result["folder"]) / "run.json").read_text())
    assert len(info["provenance"]["sha256"]) == 64


def test_lists(dissect: Callable[..., Result]) -> None:
    rows = json.loads(dissect("models", "--json").stdout)
    assert {row["name"] for row in rows} >= {"progan_scenes", "progan_church", "progan_celebhq"}
    assert {"origin", "licence", "here"} <= set(rows[0])
    assert "progan_church" in dissect("models").stdout
    assert "scenes" in dissect("segmenters").stdout
    card = dissect("models", "--detail", "progan_scenes")
    assert card.exit_code == 0
    assert "progan_scenes" in card.stdout
    detail = json.loads(dissect("models", "--detail", "progan_scenes", "--json").stdout)
    assert detail["layers"]["layer7"] == [256, 32, 32]
    assert list(detail["layers"]) == [f"layer{i}" for i in range(1, 13)]


def assert_one_line(stderr: str) -> str:
    """The error, which is one line; what the command was going to load may be said before it."""
    *before, error = stderr.splitlines()
    assert error.startswith("dissect: ")
    assert all(line.startswith("Loading ") for line in before)
    assert len(before) <= 1
    return error


def entry_point() -> str:
    found = shutil.which("dissect", path=str(Path(sys.executable).parent))
    assert found, "the command is not installed beside this Python"
    return found


def test_help_comes_without_torch_and_in_half_a_second(tmp_path: Path) -> None:
    code = "import sys, ganatomy.cli; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
    for command in ([], ["run"], ["models"], ["scenes"], ["report"], ["segmenters"]):
        shown = subprocess.run([entry_point(), *command, "--help"], capture_output=True, text=True, check=True)
        assert "Example" in shown.stdout


LATENTS = main.commands["latents"]
assert isinstance(LATENTS, click.Group)


@pytest.mark.parametrize("command", ["", *main.commands, *(f"latents {kind}" for kind in LATENTS.commands)])
def test_help_fits_a_terminal(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    help = CliRunner().invoke(main, [*command.split(), "--help"], prog_name="dissect").output
    assert [line for line in help.splitlines() if len(line) > 80] == []
    assert "..." not in help.partition("\n")[2]  # click's sign that a summary was cut


def test_options_are_grouped(dissect: Callable[..., Result]) -> None:
    headings = [line for line in dissect("run", "--help").output.splitlines() if re.fullmatch(r"\S.*:", line)]
    assert headings == [
        "Positional arguments:",
        "Model:",
        "What to measure:",
        "Output:",
        "Machine:",
        "Other options:",
        "Examples:",
    ]
    assert "[only with --checkerboard]" in dissect("repair", "--help").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["repair", "x", "--checkerboard", "--one-by-one"], "--one-by-one does not go with --checkerboard"),
        (["repair", "x", "--units", "a:1", "--finetune-minutes", "0"], "--finetune-minutes goes with --checkerboard"),
        (["checkup", "--model", "x", "--tiles", "2", "--critic", "y"], "--critic does not go with --tiles"),
        (["artifacts", "x", "--crop"], "--crop goes with --model"),
        (["artifacts", "x", "--model", "y", "--truncation", "1"], "--truncation does not go with RUN"),
        (["repair", "x", "--model", "y", "--noise", "drawn", "--units", "a:1"], "--noise does not go with RUN"),
        (["inspect", "x", "--model", "y"], "The model is given twice, as x and as --model y"),
        (["repair", "x", "--detector", "rare", "--label", "all"], "--label goes with --model"),
    ],
)
def test_options_that_do_not_go_together(dissect: Callable[..., Result], arguments: list[str], message: str) -> None:
    done = dissect(*arguments)
    assert done.exit_code == 2
    assert assert_one_line(done.stderr).startswith(f"dissect: {message}")
    assert f"See: dissect {arguments[0]} --help" in done.stderr


def test_ctrl_c_leaves_a_run_that_goes_on(mine: Path) -> None:
    slow = "import time\n" + FACTORY.replace("tests.", "ganatomy.tests.").replace("net, namer = Painter, ", "namer = ")
    slow += (
        "class net(Painter):\n    def forward(self, x):\n        time.sleep(0.2)\n        return super().forward(x)\n"
    )
    (mine / "mine.py").write_text(slow)
    command = [entry_point(), "run", *MINE, "--samples", "640", "--out", "run", "--no-report"]
    hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job inherits deafness to it
    process = subprocess.Popen(command, cwd=mine, stderr=subprocess.PIPE, text=True, preexec_fn=hear)
    deadline = time.monotonic() + 60
    while not (mine / "run" / "spool" / "shard-00001").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert json.loads((mine / "run" / "run.json").read_text())["status"] == "incomplete"
    assert not list((mine / "run").rglob("*.part"))
