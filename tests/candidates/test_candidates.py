"""Candidates side by side: which is fittest, and which cannot be told from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from ganatomy.cli import main
from ganatomy.dissect import Fitness, Generator, ModelSpec, NormalLatents, fitness
from ganatomy.dissect.candidates.checkpoint_files import checkpoints, labels_of, spec_of, step_of
from ganatomy.dissect.candidates.compare import DIVERSITY, QUALITY, choice, fitness_table
from ganatomy.hooks.errors import UsageError

from ..conftest import Painter

pytestmark = pytest.mark.slow


class Few(NormalLatents):
    """Only three latents, over and over."""

    def __call__(self, indices: Any) -> Tensor:
        return super().__call__([index % 3 for index in indices])


class Grey(nn.Module):
    """Rubbish: as varied as can be, and like no real image."""

    def forward(self, latents: Tensor) -> Tensor:
        return (latents[:, :3, None, None] / 8).expand(-1, 3, 32, 32)


class Score(nn.Module):
    """A critic that likes red."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([4.0, -1.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) @ self.weight


def make() -> Generator:
    return Generator(module=Painter(), name="painter", source=NormalLatents((6,)), layers=("paint",))


def named(name: str, **changed: Any) -> Generator:
    return replace(make(), name=name, **changed)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    with torch.no_grad():
        drawn = make()(NormalLatents((6,), 3)(range(400)))
    for number, image in enumerate(drawn):
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / f"{number}.png")
    return folder


def test_checkpoints_are_sorted_by_their_steps(tmp_path: Path) -> None:
    for name in ("G-900.pth", "G-1000.pth", "G-20.safetensors", "best.pt", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.pth").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["G-20.safetensors", "G-900.pth", "G-1000.pth", "best.pt"]
    assert [path.name for path in checkpoints(tmp_path / "G-*.pth")] == ["G-900.pth", "G-1000.pth"]
    assert checkpoints(tmp_path / "nothing*") == []


@pytest.mark.parametrize(
    ("name", "step"), [("run2/G-00100.pth", 100), ("step_3_ema.pt", 3), ("v2/latest.pt", None), ("12", 12)]
)
def test_a_step_is_the_last_number_of_a_name(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_candidates_are_called_by_what_tells_them_apart() -> None:
    assert labels_of(["runs/a/G-1.pt", "runs/b/G-1.pt"]) == ["a/G-1.pt", "b/G-1.pt"]
    assert labels_of(["runs/a/G-1.pt", "runs/a/G-2.pt"]) == ["G-1.pt", "G-2.pt"]
    assert labels_of(["runs/a/G-1.pt"]) == ["runs/a/G-1.pt"]
    assert labels_of(["progan_scenes", "runs/G.pt"]) == ["progan_scenes", "runs/G.pt"]
    with pytest.raises(UsageError, match=r"a\.pt: named more than once"):
        labels_of(["a.pt", "b.pt", "a.pt"])


def test_a_checkpoint_is_weights_for_a_factory_or_a_model_itself() -> None:
    assert spec_of("G.pt", None, {"truncation": 0.7}) == ModelSpec(model="G.pt", truncation=0.7)
    assert spec_of("G.pt", "mynet:make", {"latent": "normal:8"}) == ModelSpec(
        model="mynet:make", weights="G.pt", latent="normal:8"
    )


def planted(quality: float, diversity: float, seed: int, spread: float = 0.02) -> np.ndarray:
    """Figures (1 + 50, 9) around these two; others do not matter."""
    figures = np.random.default_rng(seed).random((51, 9))
    figures[:, QUALITY] = quality
    figures[:, DIVERSITY] = diversity
    figures[1:, [QUALITY, DIVERSITY]] += np.random.default_rng(seed + 1).normal(0, spread, (50, 2))
    return figures


def test_the_table_is_what_the_definitions_give() -> None:
    figures = np.stack([planted(0.9, 0.5, 1), planted(0.8, 0.8, 2), planted(0.78, 0.81, 3), planted(0.5, 0.4, 4)])
    table = fitness_table(["truncated-1", "good-2", "alike-3", "worst"], figures)
    assert list(table.candidate) == ["good-2", "alike-3", "truncated-1", "worst"]
    assert table.step.tolist()[:3] == [2, 3, 1]
    assert pd.isna(table.step[3])
    assert table.fitness.tolist() == pytest.approx([0.8, 2 / (1 / 0.78 + 1 / 0.81), 2 / (1 / 0.9 + 1 / 0.5), 4 / 9])
    assert table.front.tolist() == [True, True, True, False]
    assert table.equal.tolist() == [True, True, False, False]
    both = 2 / (1 / figures[:, :, QUALITY] + 1 / figures[:, :, DIVERSITY])
    behind = both[1] - both[2]
    reach = stats.t.ppf(1 - 0.05 / 3 / 2, 49) * behind[1:].std(ddof=1)  # three others, two sides
    assert table.behind[1] == pytest.approx(behind[0])
    assert table.behind_low[1] == pytest.approx(behind[0] - reach)
    assert table.behind_high[1] == pytest.approx(behind[0] + reach)
    assert np.isnan(table.behind_low[0])
    assert "good-2 is fittest" in choice(table)
    assert choice(table).endswith("significant difference from it: alike-3.")


def test_one_candidate_is_the_fittest_but_nothing_is_unfit() -> None:
    figures = planted(0.5, 0.5, 1)[None]
    figures[:, :, QUALITY] = figures[:, :, DIVERSITY] = 0
    table = fitness_table(["only"], figures)
    assert table.fitness.tolist() == [0]
    assert choice(table).startswith("No candidate can be called fit")
    assert choice(fitness_table(["only"], planted(0.5, 0.5, 1)[None])).startswith("only is fittest: fitness 0.500")


def test_the_truly_fittest_is_among_the_equal_ones() -> None:
    """Eight candidates, the first truly fittest by a hair: in 300 repetitions it is left out in 5 % at most."""
    left_out = 0
    for repetition in range(300):
        dice = np.random.default_rng(repetition)
        figures = np.zeros((8, 51, 9))
        for k in range(8):
            chance = dice.normal(0, 0.02)  # of this candidate's images; the halves scatter as much
            figures[k, :, [QUALITY, DIVERSITY]] = 0.7 + 0.001 * (k == 0) + chance
            figures[k, 1:, [QUALITY, DIVERSITY]] += dice.normal(0, 0.02, 50)
        table = fitness_table([f"one{k}" for k in range(8)], figures).set_index("candidate")
        left_out += not table["equal"]["one0"]
    assert left_out <= 15


def test_quality_and_diversity_are_told_apart(real: Path, tmp_path: Path) -> None:
    candidates = [named("rubbish", module=Grey()), named("few", source=Few((6,))), named("good"), named("the same")]
    options: dict[str, Any] = {"reference": real, "samples": 200, "out": tmp_path / "it", "quiet": True}
    found = fitness(candidates, **options)
    table = found.table.set_index("candidate")
    assert set(table.index[table["equal"]]) == {"good", "the same"}
    assert table.behind["the same"] == 0
    assert table.quality["rubbish"] < 0.1 < 0.9 < table.quality["few"]
    assert table.diversity["few"] < 0.2 < table.diversity["good"]
    zero = found.info["zero"]
    for name in ("quality", "diversity", "fitness"):
        assert abs(table[name]["good"] - zero[name]["value"]) < 0.15
    with torch.no_grad():
        drawn = make()(make().latents(range(8)))
    place = list(found.table.candidate).index("good")
    assert np.abs(found.pictures[str(place)] / 255 - drawn.permute(0, 2, 3, 1).numpy()).max() < 0.01
    assert fitness(candidates, **options).info["created"] == found.info["created"]
    with pytest.raises(UsageError, match="holds another result"):
        fitness(candidates[1:], **options)


def test_a_critic_has_its_say(real: Path, tmp_path: Path) -> None:
    found = fitness(
        [named("red", module=only_red()), named("good")],
        reference=real,
        samples=200,
        critic=Score(),
        out=tmp_path / "it",
        quiet=True,
    )
    table = found.table.set_index("candidate")
    for name, module in (("good", Painter()), ("red", only_red())):
        generator = named(name, module=module)
        with torch.no_grad():
            scores = Score()(generator(generator.latents(range(200))))
        assert table.critic_quality[name] == pytest.approx(float(scores.mean()), abs=1e-5)
    assert np.isfinite(table.critic_diversity).all()


def only_red() -> Painter:
    module = Painter()
    module.colour.weight.data[:, 1:] = 0
    return module


def test_bad_requests_are_refused(real: Path, tmp_path: Path) -> None:
    out = {"out": tmp_path / "it", "quiet": True}
    with pytest.raises(UsageError, match="at least one candidate"):
        fitness([], reference=real, **out)
    with pytest.raises(UsageError, match=r"samples=50: .*100"):
        fitness([make()], reference=real, samples=50, **out)
    with pytest.raises(UsageError, match="reference=FOLDER"):
        fitness([make()], **out)
    assert not (tmp_path / "it").exists()


def test_the_command_compares_checkpoints(real: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step, module in ((20, Painter()), (1234567, only_red())):
        torch.save(module.state_dict(), folder / f"G-{step}.pth")
    arguments = ["fitness", *map(str, sorted(folder.iterdir())), "--model", "tests.candidates.test_candidates:make"]
    arguments += ["--reference", str(real), "--samples", "150", "--out", str(tmp_path / "it")]
    arguments += ["--critic", "tests.candidates.test_candidates:Score"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert Path(shown.stdout.strip()).is_file()
    said = " ".join(shown.stderr.split())
    assert "G-20.pth is fittest" in said
    assert "A critic favours the candidate" in said
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert [(one["candidate"], one["step"]) for one in told["candidates"]] == [
        ("G-20.pth", 20),
        ("G-1234567.pth", 1234567),
    ]
    assert Fitness.load(tmp_path / "it").info["sentence"] == told["sentence"]
    refused = CliRunner().invoke(main, ["fitness", str(tmp_path / "no.pth"), "--reference", str(real)])
    assert refused.exit_code == 2
    assert len(refused.stderr.strip().splitlines()) == 2  # what is loaded, and the error
