"""Distances against their definitions, intervals against repetition, verdicts case by case."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ganatomy.dissect.diversity.whole_images import density, twin_distance
from ganatomy.dissect.fidelity.distances import (
    BEFORE,
    METRICS,
    REPAIRED,
    compare,
    coverage,
    distances,
    distinct,
    frechet,
    frechet_gradient,
)
from ganatomy.dissect.fidelity.features import InceptionFeatures, SceneFeatures
from ganatomy.dissect.fidelity.reference import FEWEST, open_reference
from ganatomy.dissect.repairs.verdict import verdict
from ganatomy.dissect.stats.intervals import rounds
from ganatomy.hooks.errors import DissectError, UsageError

pytestmark = pytest.mark.slow


def draw(seed: int, count: int = 300, shift: float = 0.0, spread: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, spread, (count, 4)))


def test_frechet_distance_of_normals_in_closed_form() -> None:
    one, other = draw(0, 200_000), draw(1, 200_000, shift=0.5, spread=2)
    expected = 4 * (0.5**2 + (1 - 2) ** 2)  # Σ (difference of means)² + (difference of standard deviations)²
    assert frechet(one, other) == pytest.approx(expected, rel=0.02)
    assert distances(one[:500], other[:500])["frechet"] == frechet(one[:500], other[:500])


@pytest.mark.parametrize("width", [4, 9])
def test_frechet_gradient_is_that_of_autograd_and_of_finite_differences(width: int) -> None:
    dice = np.random.default_rng(0)
    features, reference = (
        torch.from_numpy(dice.normal(shift, 1, (60, width)) @ dice.normal(0, 1, (width, width))) for shift in (0, 1)
    )
    gradient = frechet_gradient(features, reference)
    variable = features.clone().requires_grad_()
    root = torch.linalg.cholesky(torch.cov(reference.T))  # any root of the reference's covariance leaves the trace
    traces = torch.linalg.eigvalsh(root.T @ torch.cov(variable.T) @ root).sqrt().sum()
    apart = (variable.mean(0) - reference.mean(0)).square().sum()
    distance = apart + torch.cov(variable.T).trace() + torch.cov(reference.T).trace() - 2 * traces
    (expected,) = torch.autograd.grad(distance, variable)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)
    step = 1e-5 * torch.from_numpy(dice.normal(0, 1, features.shape))
    change = (frechet(features + step, reference) - frechet(features - step, reference)) / 2
    assert (gradient * step).sum() == pytest.approx(change, rel=1e-4)


def test_frechet_gradient_where_a_feature_does_not_vary() -> None:
    """The third feature is constant in the samples, the fourth in both."""
    features, reference = draw(0), draw(1, shift=0.5)
    features[:, 2], features[:, 3], reference[:, 3] = 0.25, 2, 3
    gradient = frechet_gradient(features, reference)
    assert gradient.sum(0) == pytest.approx(2 * (features - reference).mean(0))  # moving all alike moves the mean alone
    assert gradient[:, 3] * len(gradient) == pytest.approx(-2)
    assert float(frechet_gradient(features, features).abs().max()) < 1e-9  # at the reference itself


def test_kernel_distance_and_neighbours_by_brute_force() -> None:
    one, other = draw(0, 40).numpy(), draw(1, 40, shift=0.3).numpy()

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / 4 + 1) ** 3

    n = 40
    within = sum((kernel(x, x).sum() - np.trace(kernel(x, x))) / (n * (n - 1)) for x in (one, other))
    found = distances(torch.from_numpy(one), torch.from_numpy(other))
    assert found["kernel"] == pytest.approx(within - 2 * kernel(one, other).mean())

    def covered(points: np.ndarray, by: np.ndarray) -> float:
        between = np.linalg.norm(by[:, None] - by[None], axis=2)
        radius = np.sort(between, 1)[:, 3]
        return float((np.linalg.norm(points[:, None] - by[None], axis=2) <= radius).any(1).mean())

    assert found["precision"] == pytest.approx(covered(one, other))
    assert found["recall"] == pytest.approx(covered(other, one))
    radius = np.sort(np.linalg.norm(other[:, None] - other[None], axis=2), 1)[:, 5]
    nearest = np.linalg.norm(other[:, None] - one[None], axis=2).min(1)
    assert found["coverage"] == pytest.approx((nearest < radius).mean())


def test_outliers_raise_recall_and_not_coverage() -> None:
    reference, plain = draw(0), draw(1)
    spoilt = plain.clone()
    spoilt[:20] *= 8
    before, after = distances(plain, reference), distances(spoilt, reference)
    assert after["recall"] > before["recall"]
    assert after["coverage"] <= before["coverage"]


def test_intervals_are_as_wide_as_repetition_says() -> None:
    values, reaches = [], []
    for seed in range(25):
        table = compare({BEFORE: draw(seed), REPAIRED: draw(seed, shift=0.1)}, draw(1000 + seed, shift=0.5), seed=seed)
        row = table[(table.set == BEFORE) & (table.metric == "kernel")].iloc[0]
        values.append(row.value)
        reaches.append(row.high - row.value)
    assert np.mean(reaches) == pytest.approx(2 * np.std(values), rel=0.4)
    inside = np.abs(np.array(values) - np.mean(values)) < reaches
    assert inside.mean() > 0.85


def test_changes_are_paired() -> None:
    features, reference = draw(0), draw(1, shift=0.5)
    table = compare({BEFORE: features, REPAIRED: features.clone(), "random 1": draw(2)}, reference)
    same = table[table.set == REPAIRED]
    assert (same[["change", "change_low", "change_high"]] == 0).to_numpy().all()
    assert table[table.set == BEFORE].change.isna().all()
    assert set(table.metric) == set(METRICS)
    fresh = table[(table.set == "random 1") & (table.metric == "frechet")].iloc[0]
    assert fresh.change_low < fresh.change < fresh.change_high


def test_features_that_are_not_finite_are_refused() -> None:
    features = draw(0)
    features[3, 1] = float("nan")
    with pytest.raises(DissectError, match=r"repaired .*finite"):
        compare({BEFORE: draw(0), REPAIRED: features}, draw(1))


def test_wide_features_get_fewer_halves() -> None:
    assert rounds(104) > rounds(2048) >= 10


def table(sets: int = 5, **changes: tuple[float, float, float]) -> pd.DataFrame:
    """A comparison whose repaired set changes as told: (change, low, high)."""
    usual = {"frechet": (-1.0, -1.5, -0.5), "kernel": (0.0, -0.1, 0.1), "precision": (0.0, -0.1, 0.1)}
    usual |= {"recall": (-0.2, -0.3, -0.1), "coverage": (0.0, -0.1, 0.1), "random": (0.2, -0.1, 0.5)}
    rows = []
    for name, (change, low, high) in (usual | changes).items():
        wheres = [f"random {k}" for k in range(1, 1 + sets)] if name == "random" else [REPAIRED]
        for where in wheres:
            metric = "frechet" if name == "random" else name
            rows.append({"set": where, "metric": metric, "value": 5 + change, "change": change})
            rows[-1] |= {"change_low": low, "change_high": high, "low": 0, "high": 9}
    return pd.DataFrame(rows)


def test_no_verdict_of_improvement_without_random_sets() -> None:
    word, sentence = verdict(table(sets=2), "made-up features")
    assert word == "not improved"
    assert re.search(r"random sets .*\b2\b.*\b5\b.*--random-sets", sentence)


@pytest.mark.parametrize(
    ("changes", "word", "said"),
    [
        ({}, "improved", "Improved: Fréchet distance 5 to 4 (change -1"),
        ({"frechet": (-0.3, -0.8, 0.2)}, "not improved", "the change lies within its interval"),
        ({"coverage": (-0.2, -0.3, -0.1)}, "improved", "Improved, at some cost of diversity: Fréchet"),
        ({"coverage": (-0.8, -0.9, -0.7)}, "not improved", "diversity is lost"),
        ({"kernel": (0.2, 0.1, 0.3)}, "not improved", "the kernel distance rises"),
        ({"random": (-1.2, -1.5, -1.0)}, "not improved", "a random set does as well"),
        ({"frechet": (0.6, 0.2, 1.0)}, "made worse", "Made worse"),
        ({"frechet": (0.1, -0.2, 0.4), "coverage": (-0.8, -0.9, -0.7)}, "made worse", "Made worse"),
    ],
)
def test_verdicts(changes: dict[str, tuple[float, float, float]], word: str, said: str) -> None:
    found, sentence = verdict(table(**changes), "made-up features")
    assert found == word
    assert said in sentence
    assert "made-up features" in sentence


def test_scene_features_have_a_gradient_and_do_not_depend_on_the_batch() -> None:
    extract = SceneFeatures()
    images = torch.rand(6, 3, 64, 64)
    with torch.inference_mode():
        whole, parts = extract(images), torch.cat([extract(images[:2]), extract(images[2:])])
        assert extract(torch.rand(1, 3, 40, 80)).shape == (1, 104)
    assert torch.allclose(whole, parts, atol=1e-4)
    images.requires_grad_()
    (slope,) = torch.autograd.grad(extract(images).sum(), images)
    assert bool((slope != 0).any())


def test_a_reference_is_cut_to_shape_and_checked(tmp_path: Path) -> None:
    extract = SceneFeatures()
    dice = np.random.default_rng(0)
    for number in range(FEWEST):
        pixels = dice.integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    found = open_reference(tmp_path, extract, (32, 32), drawn=False)
    assert found.features.shape == (FEWEST, 104)
    assert found.features.mean(0).abs().max() < 1e-6
    assert found.features.std(0) == pytest.approx(np.ones(104), rel=1e-6)
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=rf"reference.* {FEWEST - 1} images.*{FEWEST}.*3\.png"):
        open_reference(tmp_path, extract, (32, 32), drawn=False)
    with pytest.raises(UsageError, match="does not exist"):
        open_reference(tmp_path / "none", extract, (32, 32), drawn=False)
    with pytest.raises(UsageError, match="reference=FOLDER"):
        open_reference(None, extract, (32, 32), drawn=False)


def test_inception_from_a_file_in_the_real_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    # the network of the library with random weights, saved as the library's own file is
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    random = theirs.FeatureExtractorInceptionV3("inception", ["2048"])
    monkeypatch.undo()
    torch.save(random.state_dict(), tmp_path / "inception.pth")
    extract = InceptionFeatures(tmp_path / "inception.pth")
    images = torch.rand(2, 3, 32, 32)
    found = extract(images)
    assert found.shape == (2, 2048)
    assert torch.equal(found, random((images * 255).round().to(torch.uint8))[0])
    assert not extract.differentiable


def test_inception_files_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DissectError, match=r"other\.pth .*Inception"):
        InceptionFeatures(tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"none\.pth"):
        InceptionFeatures(tmp_path / "none.pth")

    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"weight": Code()}, tmp_path / "evil.pth")
    with pytest.raises(DissectError, match=r"evil\.pth"):
        InceptionFeatures(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("ganatomy.dissect.fidelity.features.torch.hub.download_url_to_file", _unreachable)
    with pytest.raises(DissectError, match=r"https://\S*6726825d\.pth.*inception"):
        InceptionFeatures("download")
    cached = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(b"something else")
    with pytest.raises(DissectError, match=r"6726825d\.pth .*SHA-256"):
        InceptionFeatures("download")


def _unreachable(*_: object, **__: object) -> None:
    raise OSError("no route to host")


def test_copies_in_a_reference_are_no_neighbours() -> None:
    """Each real image five times over: the balls are those of the images, not points without an inside."""
    dice = torch.Generator().manual_seed(3)
    real, made = (torch.randn(200, 8, generator=dice).double() for _ in range(2))
    plain = distances(made, real)
    copied = distances(made, real.repeat(5, 1) + 1e-8 * torch.randn(1000, 8, generator=dice).double())
    assert plain["precision"] > 0.5
    for metric in ("precision", "recall", "coverage"):
        assert copied[metric] == pytest.approx(plain[metric], abs=0.011)
    assert density(made, real.repeat(5, 1)) == pytest.approx(density(made, real))
    assert twin_distance(real.repeat(5, 1), 100) == pytest.approx(twin_distance(real, 100))
    assert distances(made, real[:3].repeat(40, 1))["coverage"] >= 0  # of a few different ones, all are neighbours
    with pytest.raises(DissectError, match="are all the same"):
        coverage(made, real[:1].repeat(9, 1))


@pytest.mark.parametrize("width", [3, 64])
def test_distinct_keeps_the_first_of_each(width: int) -> None:
    rows = torch.randn(40, width, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(distinct(rows), rows, rtol=0, atol=0)
    mixed = torch.cat([rows, rows[::2], rows[:7]])
    torch.testing.assert_close(distinct(mixed), rows, rtol=0, atol=0)
