"""The recipes of the embedded models: how a generator grows, competes, resumes; how a segmenter is calibrated."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect import load_generator
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.recipes import train_segmenter
from ganatomy.dissect.recipes.evolution import DIVERSITY_WEIGHT, MUTATIONS, evolve, fitness
from ganatomy.dissect.recipes.scene_pool import CHUNK, ScenePool, chunk_files, claim, draw_pool, drawing
from ganatomy.dissect.recipes.train_generator import START, Discriminator, Growing, Recipe, Training, growth, train
from ganatomy.dissect.scenes.canvas import LABEL
from ganatomy.dissect.scenes.render import RARE, render
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.segmenters.scenes import CLASSES

pytestmark = pytest.mark.slow

SIDE, WIDTHS, DOWN = 32, (8, 8, 8, 4), (4, 8, 8, 8)
RECIPE = Recipe(
    images=64, minutes=None, batch=8, rate=2e-3, ratio=0.5, r1=1.0, half_life=100, evolve=False, graphs=True, seed=1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pool")
    draw_pool(place, 2 * CHUNK, side=SIDE, seed=1, processes=1)
    return place


@pytest.fixture
def pool(folder: Path) -> ScenePool:
    return ScenePool(folder, 2 * CHUNK, device="cpu", labels=True)


def test_a_pool_holds_the_scenes_and_grows(folder: Path, pool: ScenePool, tmp_path: Path) -> None:
    assert pool.grow() == 2 * CHUNK
    wanted, labels = render([0, CHUNK + 3], side=SIDE, seed=1)
    rows = [0, CHUNK + 3]
    assert np.abs(pool.images[rows].numpy() / 255 - wanted).max() < 0.51 / 255
    assert np.array_equal(pool.labels[rows].numpy(), labels)
    images = pool.draw(50)
    assert images.shape == (50, 3, SIDE, SIDE)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < 0.3
    assert 0.7 < images.max() <= 1

    _, named = pool.draw_labelled(40, 10, torch.Generator().manual_seed(0))
    rare = torch.stack([(named == LABEL[name]).flatten(1).any(1) for name in RARE]).any(0)
    assert rare[:10].all()
    assert not rare[10:].all()

    for file in chunk_files(folder, 0):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    some = ScenePool(tmp_path, 2 * CHUNK, device="cpu")
    assert some.grow() == CHUNK  # the second chunk is not there yet
    for file in reversed(chunk_files(folder, 1)):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert some.grow() == 2 * CHUNK


def test_a_generator_grows_from_16_pixels_to_its_own() -> None:
    course = [growth(done, 5) for done in np.linspace(0, 1, 2001)]
    sizes = [doublings for doublings, _ in course]
    assert sizes == sorted(sizes)
    assert set(sizes) == {2, 3, 4, 5}
    assert all(fade == 1 for doublings, fade in course if doublings == START)
    for doublings in (3, 4, 5):
        fades = [fade for size, fade in course if size == doublings]
        assert fades == sorted(fades)
        assert fades[0] < 0.02
        assert fades[-1] == 1
    lengths = [sizes.count(doublings) for doublings in (2, 3, 4, 5)]
    assert lengths == sorted(lengths)


def test_a_doubling_fades_in() -> None:
    """At 0 the images are those of half the size, enlarged; at 1 with all doublings, those of the whole network."""
    torch.manual_seed(0)
    whole = ProGAN(6, WIDTHS)
    growing, latents = Growing(whole), torch.randn(3, 6)
    one, zero = torch.ones(()), torch.zeros(())
    small = growing(latents, 2, one)
    assert small.shape == (3, 3, 16, 16)
    assert torch.allclose(growing(latents, 3, zero), F.interpolate(small, scale_factor=2.0), atol=1e-6)
    assert torch.allclose(growing(latents, 3, one), whole(latents), atol=1e-5)
    judge, images = Discriminator(DOWN), torch.randn(8, 3, 32, 32)
    unseen = images + torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)  # has the same mean of 2×2 pixels
    assert torch.allclose(judge(images, zero), judge(unseen, zero), atol=1e-4)
    assert not torch.allclose(judge(images, one), judge(unseen, one), atol=1e-4)


def test_a_training_by_the_clock_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    """A resumed training neither starts to grow anew nor takes its whole time again."""
    recipe = Recipe(**{**vars(RECIPE), "images": 10**6, "minutes": 0.05})  # 3 seconds
    stopped = Training(ProGAN(6, WIDTHS), DOWN, recipe, ScenePool(folder, 2 * CHUNK, device="cpu"))
    stopped.pool.grow()
    stopped.step(0.9)
    stopped.spent = 2.7
    stopped.save(tmp_path)
    sizes: list[int] = []

    class Watched(Training):
        def step(self, done: float) -> None:
            super().step(done)
            sizes.append(self.doublings)

    resumed = Watched(ProGAN(6, WIDTHS), DOWN, recipe, ScenePool(folder, 2 * CHUNK, device="cpu"))
    train(resumed, tmp_path)
    assert set(sizes) == {3}
    assert 3 <= resumed.spent < 2.7 + 1.5


class Score(nn.Module):
    """images (N, 3, 4, 4) -> logits (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(48, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.line(images.flatten(1))[:, 0]


def test_fitness_is_what_the_paper_says() -> None:
    torch.manual_seed(1)
    judge, made, real = Score(), torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    found = fitness(judge, judge, made, real)
    x, y = made.flatten(1).double(), real.flatten(1).double()
    w, b = judge.line.weight[0].detach().double(), judge.line.bias.detach().double()
    on_made, on_real = torch.sigmoid(x @ w + b), torch.sigmoid(y @ w + b)
    # d/ds of −log(1 − σ(s)) is σ(s), of −log σ(s) is σ(s) − 1
    by_weight = (on_made[:, None] * x).mean(0) + ((on_real - 1)[:, None] * y).mean(0)
    by_bias = on_made.mean() + (on_real - 1).mean()
    norm = (by_weight.square().sum() + by_bias**2).sqrt()
    assert float(found) == pytest.approx(float(on_made.mean() - DIVERSITY_WEIGHT * norm.log()), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_fittest_of_three_children_takes_the_place(seed: int) -> None:
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))
    judge, real = Score(), torch.randn(6, 3, 4, 4)
    judge.line.weight.data *= 4
    adam = torch.optim.Adam(generator.parameters(), 0.05, betas=(0.0, 0.99))
    generator(torch.randn(6, 4)).sum().backward()
    adam.step()
    learnt, tried = torch.randn(6, 4), torch.randn(6, 4)
    drawn = iter((learnt, tried))

    children = []
    for mutation in MUTATIONS.values():  # each on copies of its own
        child = copy.deepcopy(generator)
        own = torch.optim.Adam(child.parameters(), 0.05, betas=(0.0, 0.99))
        own.load_state_dict(copy.deepcopy(adam.state_dict()))
        own.zero_grad()
        mutation(judge(child(learnt))).backward()
        own.step()
        children.append((float(fitness(judge, judge, child(tried).detach(), real)), child, own))
    best = max(range(3), key=lambda number: children[number][0])
    won = evolve(generator, adam, judge, judge, generator, lambda: next(drawn), real)
    assert won.tolist() == [float(number == best) for number in range(3)]
    _, child, own = children[best]
    for mine, its in zip(generator.parameters(), child.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-6)
        assert torch.allclose(adam.state[mine]["exp_avg_sq"], own.state[its]["exp_avg_sq"], atol=1e-7)
        assert adam.state[mine]["step"] == own.state[its]["step"] == 2


@pytest.mark.parametrize("evolving", [False, True])
def test_a_training_resumes_and_leaves_a_checkpoint(folder: Path, tmp_path: Path, evolving: bool) -> None:
    def go(images: int) -> Training:
        recipe = Recipe(**{**vars(RECIPE), "images": images, "evolve": evolving})
        training = Training(ProGAN(6, WIDTHS), DOWN, recipe, ScenePool(folder, 2 * CHUNK, device="cpu"))
        train(training, tmp_path)
        return training

    assert go(32).seen == 32
    resumed = go(64)
    assert resumed.seen == 64
    assert int(resumed.g_adam.state[next(resumed.g.parameters())]["step"]) == 1 + 64 // 8
    assert resumed.doublings == 3
    assert evolving == bool(resumed.won.sum())
    sheets = sorted(path.name for path in tmp_path.glob("sheet-*.webp"))
    assert sheets == ["sheet-0000032.webp", "sheet-0000064.webp"]
    opened = load_generator(str(tmp_path / "generator.pt"))
    with torch.no_grad():
        latents = torch.randn(2, 6)
        assert torch.allclose(opened.module(latents), resumed.average.whole(latents), atol=1e-6)


class Overconfident(nn.Module):
    """Scores `strength` times as large as those that make a softmax the true chances."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.segmentation_head = nn.Sequential(nn.Conv2d(len(CLASSES), len(CLASSES), 1))
        self.segmentation_head[0].weight.data = strength * torch.eye(len(CLASSES))[:, :, None, None]
        self.segmentation_head[0].bias.data.zero_()
        self.asked = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        return self.segmentation_head(self.asked[: len(images)])


def test_calibration_finds_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are drawn with known chances; scores of 1.5 times their logarithms are to be divided by 1.5."""
    dice = torch.Generator().manual_seed(0)
    model, size = Overconfident(1.5), 32
    scores = 2 * torch.randn(8, len(CLASSES), size, size, generator=dice)
    chances = scores.softmax(1).permute(0, 2, 3, 1).reshape(-1, len(CLASSES))
    labels = torch.multinomial(chances, 1, generator=dice).reshape(8, size, size)
    model.asked = scores
    images, nothing = torch.zeros(8, 3, size, size), torch.zeros(8, size, size, dtype=torch.bool)
    monkeypatch.setattr(train_segmenter, "held_out", lambda *_, **__: [(images, labels, nothing)])
    before = train_segmenter.accuracy(model, spoilt=False)["calibration"]
    assert train_segmenter.calibrate(model, device="cpu") == pytest.approx(1.5, abs=0.06)
    after = train_segmenter.accuracy(model, spoilt=False)
    assert after["calibration"] < 0.02 < 0.08 < before
    best, said = chances.max(1)
    right = (said.reshape(labels.shape) == labels) & (best.reshape(labels.shape) >= 0.5)
    assert after["accuracy"] == pytest.approx(float(right.float().mean()), abs=0.01)


def test_small_classes_count_more() -> None:
    labels = torch.zeros(1, 100, 100, dtype=torch.uint8)
    labels[0, 0, :50] = 1  # 0.5 % of the pixels
    labels[0, 1, :2] = 2  # 0.02 %
    weights = train_segmenter.class_weights(labels)
    assert weights[:3].tolist() == pytest.approx([1, 1, 5])
    assert weights[3] == 6  # of a class that is nowhere


def test_nobody_waits_for_scenes_that_never_come(folder: Path, tmp_path: Path) -> None:
    empty = ScenePool(tmp_path, CHUNK, device="cpu", alive=lambda: False)
    with pytest.raises(DissectError, match="holds 0 scenes of 500"):
        empty.wait(SIDE)
    with pytest.raises(DissectError, match="have 32 pixels a side; 64 are needed"):
        ScenePool(folder, CHUNK, device="cpu").wait(64)


def test_scenes_of_another_seed_are_not_taken(folder: Path, tmp_path: Path) -> None:
    claim(folder, side=SIDE, seed=1)
    with pytest.raises(UsageError, match=f"scenes of seed 1, {SIDE} pixels; must be of seed 2"):
        claim(folder, side=SIDE, seed=2)
    (tmp_path / "images-0000.npy").touch()
    with (
        pytest.raises(UsageError, match="does not say of which seed"),
        drawing(tmp_path, CHUNK, side=SIDE, seed=1, processes=1, device="cpu"),
    ):
        pass
    assert not (tmp_path / "scenes.json").exists()


def test_spoilt_scenes_keep_their_labels(pool: ScenePool) -> None:
    images, labels = render(range(12))
    pictures, names = torch.from_numpy(images), torch.from_numpy(labels).long()
    spoilt, kept, smudged = train_segmenter.spoil(pictures, names, torch.Generator().manual_seed(0))
    assert spoilt.shape == pictures.shape
    assert 0 <= spoilt.min() < spoilt.max() <= 1
    assert not torch.equal(spoilt, pictures)
    counts = [torch.bincount(x.flatten(), minlength=len(CLASSES)) / x.numel() for x in (names, kept)]
    assert (counts[0] - counts[1]).abs().max() < 0.05  # rolled and warped, not renamed
    assert 0 < smudged.float().mean() < 0.2
