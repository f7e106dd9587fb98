"""Detectors against planted truth, brute force and their own formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator, NormalLatents
from ganatomy.dissect.artifacts import detectors
from ganatomy.dissect.artifacts.flags import Flags, read_flags
from ganatomy.dissect.artifacts.layer_view import LayerView, look
from ganatomy.dissect.artifacts.planting import shape
from ganatomy.dissect.fidelity.distances import frechet
from ganatomy.dissect.fidelity.features import Standard
from ganatomy.dissect.fidelity.reference import Reference
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.subjects.subject import Subject
from ganatomy.hooks import Edit, edited
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import CONSTANT, GREEN, RED, UNITS, Soft

pytestmark = pytest.mark.slow

Make = Callable[..., LayerView]


class MeanColours:
    """Mean and spread of red, green and blue: features that can be computed by hand."""

    name = note = "mean colours"
    differentiable = True

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.square().mean((2, 3))], 1)


@pytest.fixture
def make(planted: Generator) -> Make:
    """What a detector sees of the planted generator; the reference is the generator without its green unit."""
    subject = Subject.open(planted, Soft(), "paint")
    extract = MeanColours()
    with torch.inference_mode(), edited(planted.module, Edit(layer="paint", units=(GREEN,))):
        without = extract(planted(planted.latents(range(500, 800)))).double()
    mean, scale = without.mean(0), without.std(0).clamp(min=1e-3)
    reference = Reference(name="no green", features=(without - mean) / scale, standard=Standard(mean, scale))

    def call(samples: int = 100, **changes: Any) -> LayerView:
        maps, features = look(subject, range(samples), extract, reference, lambda _: None)
        view = LayerView(
            subject=subject,
            samples=range(samples),
            maps=maps,
            features=features,
            extract=extract,
            reference=reference,
            flags=None,
            realism=None,
            advance=lambda _: None,
        )
        return replace(view, **changes)

    return call


def test_what_is_seen_does_not_depend_on_the_batch(planted: Generator, make: Make) -> None:
    view = make(20)
    other, _ = look(Subject.open(planted, Soft(), "paint", 7), range(20), None, None, lambda _: None)
    assert torch.equal(view.maps, other)
    assert view.maps.shape == (20, UNITS, 8, 8)


def test_flagged_by_samples_counts_marked_ones_among_the_top_images(make: Make) -> None:
    maps = torch.zeros(100, 3, 4, 4, dtype=torch.float16)
    maps[:10, 0, 1, 1] = torch.linspace(9, 8, 10).half()  # active in marked samples only
    maps[:4, 1, 0, 0], maps[50:54, 1, 0, 0] = 5, 6  # half and half
    maps[60:90, 2] = 1  # in others
    view = make(100, maps=maps, flags=Flags(marked=np.arange(100) < 10))
    scores = detectors.flagged(view).units
    assert scores[0] == pytest.approx(1, abs=1e-3)
    assert scores[1] == pytest.approx(0.5, abs=1e-3)
    assert scores[2] == pytest.approx(0, abs=1e-3)


def test_flagged_by_masks_is_the_best_excess_iou_by_brute_force(make: Make) -> None:
    dice = np.random.default_rng(0)
    maps = torch.from_numpy(dice.permutation(12 * 5 * 16).reshape(12, 5, 4, 4).astype(np.float32)).half()
    regions = dice.random((12, 4, 4)) < 0.2
    regions[-1] = False
    view = make(12, maps=maps, flags=Flags(marked=regions.any((1, 2)), regions=regions.repeat(2, 1).repeat(2, 2)))
    found = detectors.flagged(view).units
    for unit in range(5):
        values = maps[:, unit].numpy().ravel()
        best = -1.0
        for rank in range(1, len(values) + 1):
            mask = np.zeros(len(values), bool)
            mask[np.argsort(-values.astype(float), kind="stable")[:rank]] = True
            truth = regions.ravel()
            p, q = mask.mean(), truth.mean()
            best = max(best, (mask & truth).sum() / (mask | truth).sum() - p * q / (p + q - p * q))
        assert found[unit] == pytest.approx(best)


def test_units_that_are_constant_or_tied_are_no_suspects(make: Make) -> None:
    maps = torch.zeros(100, 3, 4, 4, dtype=torch.float16)
    maps[:20, 1] = 1  # ties: on in marked samples and in as many others
    maps[:10, 2] = 1
    regions = np.zeros((100, 32, 32), bool)
    regions[:10] = True
    for flags in (Flags(marked=np.arange(100) < 10), Flags(marked=np.arange(100) < 10, regions=regions)):
        scores = detectors.flagged(make(100, maps=maps, flags=flags)).units
        assert scores[2] == scores.max()
        assert scores[0] == 0


def test_a_small_mask_marks_its_most_covered_cell(make: Make) -> None:
    maps = torch.zeros(100, 2, 4, 4, dtype=torch.float16)
    maps[3, 1, 2, 1] = 1
    regions = np.zeros((100, 32, 32), bool)
    regions[3, 17:19, 9:11] = True
    scores = detectors.flagged(make(100, maps=maps, flags=Flags(marked=regions.any((1, 2)), regions=regions))).units
    assert scores[1] == pytest.approx(1, abs=1e-3)


def test_a_module_that_scores_realism_is_left_as_it_is(found: Dissection, planted: Generator) -> None:
    scorer = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.LazyLinear(1))
    scorer(torch.rand(2, 3, 32, 32))
    before = {name: value.clone() for name, value in scorer.state_dict().items()}
    options = {"generator": planted, "segmenter": Soft(), "reference": None, "quiet": True}
    dissect.artifacts.find(found, detector="realism", realism=scorer, **options)
    assert scorer.training
    assert all(torch.equal(before[name], value) for name, value in scorer.state_dict().items())


def test_rare_by_brute_force(make: Make) -> None:
    dice = np.random.default_rng(1)
    on = dice.random((40, 6, 3, 3)) < np.array([0.05, 0.2, 0.5, 0.9, 1.0, 0.0])[:, None, None]
    maps = torch.from_numpy(np.where(on, dice.random(on.shape) + 0.1, -0.5)).half()
    scores = detectors.rare(make(40, maps=maps))
    rate = on.mean(0)
    uncommon = (rate > 0) & (rate <= 0.3)
    samples = np.array([(on[i] & uncommon).sum() for i in range(40)])
    assert scores.samples.tolist() == samples.tolist()
    worst = np.argsort(-samples, kind="stable")[:4]
    assert scores.units == pytest.approx([(on[worst, u] & uncommon[u]).sum() / 4 for u in range(6)])


def test_local_is_its_formula(make: Make, planted: Generator) -> None:
    view = make(30)
    found = detectors.local(view)
    maps = view.maps.float().numpy()
    excess = np.zeros((30, UNITS))
    for i in range(30):
        z = planted.latents([i])
        near = []
        for k in range(8):
            e = planted.latents([detectors.FAR + i * 8 + k])
            x = view.subject.maps_of(np.cos(0.3) * z + np.sin(0.3) * e)
            near.append(x.half().float().numpy()[0])
        excess[i] = (maps[i] - np.mean(near, 0)).max((1, 2))
    strength = np.sqrt((maps.astype(np.float64) ** 2).mean((0, 2, 3)))
    expected = np.maximum(excess / strength, 0)
    assert found.units == pytest.approx(np.sort(expected, 0)[-8:].mean(0), rel=1e-4)
    assert found.samples == pytest.approx((expected**2).mean(1), rel=1e-4)


def test_metric_compares_each_units_top_images_with_the_reference(make: Make) -> None:
    view = make(100)
    found = detectors.metric(view)
    top = view.peaks[:, GREEN].argsort(descending=True, stable=True)[:8]
    assert view.features is not None
    assert view.reference is not None
    # six features are fewer than the directions kept: the projection only turns them
    assert found.units[GREEN] == pytest.approx(frechet(view.features[top], view.reference.features), rel=1e-6)


def test_greedy_realism_and_frechet_find_the_unit_that_the_reference_lacks(make: Make) -> None:
    assert detectors.greedy(make(100)).units.argmax() == GREEN
    assert detectors.realism(make(100)).units.argmax() == GREEN
    assert detectors.frechet(make(100)).units.argmax() == GREEN


def test_frechet_is_the_slope_of_the_distance_as_a_unit_is_ablated(make: Make, planted: Generator) -> None:
    with torch.no_grad():
        planted.module.colour.weight *= 0.5  # so that no colour is clamped, and the red differs from the reference too
    view = make(100)

    def distance(unit: int, kept: float) -> float:
        def weaken(_module: object, _inputs: object, maps: Tensor) -> Tensor:
            return maps * torch.where(torch.arange(UNITS) == unit, kept, 1.0)[:, None, None]

        handle = planted.module.paint.register_forward_hook(weaken)
        with torch.inference_mode():
            features = MeanColours()(planted(planted.latents(range(100))))
        handle.remove()
        assert view.reference is not None
        return frechet(view.reference.standard.apply(features), view.reference.features)

    units = detectors.frechet(view).units
    for unit in (RED, GREEN, CONSTANT):
        slope = (distance(unit, 1.01) - distance(unit, 0.99)) / 0.02
        assert abs(slope) > 1, unit
        assert units[unit] == pytest.approx(slope, rel=1e-3), unit
    silent = np.delete(units, [RED, GREEN, CONSTANT])
    assert np.abs(silent).max() < 1e-6 * np.abs(units).max()


def test_frechet_needs_features_with_a_gradient(make: Make) -> None:
    rounded = MeanColours()
    rounded.differentiable = False
    view = make(100, extract=rounded)
    with pytest.raises(UsageError, match=r"gradient.*inception.*metric"):
        detectors.frechet(view)


def test_realism_takes_any_differentiable_score_and_is_exact_where_it_is_linear(make: Make, planted: Generator) -> None:
    view = make(40, realism=lambda images: -images[:, 0].sum((1, 2)))
    found = detectors.realism(view)
    with torch.inference_mode():
        whole = planted(planted.latents(range(40)))[:, 0].sum((1, 2))
    assert found.samples == pytest.approx(whole.numpy(), rel=1e-5)
    worst = np.argsort(-found.samples, kind="stable")[:4]
    assert found.units[RED] == pytest.approx(whole[worst].mean().item(), rel=1e-3)  # all red is this unit's
    assert found.units[GREEN] == pytest.approx(0, abs=1e-6)


def test_a_score_of_another_shape_is_refused(make: Make) -> None:
    with pytest.raises(DissectError, match=r"realism score .*\(120,\).*\(N,\)"):
        detectors.realism(make(40, realism=lambda images: images.mean((2, 3))))


def test_every_detector_scores_every_unit_and_sample(make: Make) -> None:
    for name, detector in detectors.DETECTORS.items():
        scores = detector(make(60, flags=Flags(marked=np.arange(60) % 3 == 0)))
        assert scores.units.shape == (UNITS,), name
        assert scores.samples.shape == (60,), name
        assert np.isfinite(scores.units).all(), name
        assert np.isfinite(scores.samples).all(), name


def test_what_needs_a_reference_says_so(make: Make) -> None:
    for name in detectors.NEED_REFERENCE:
        with pytest.raises(UsageError, match="reference"):
            detectors.DETECTORS[name](make(30, reference=None, features=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n200", r"bad\.txt .*200.* 0 to 119"),
        ("three", "'three'"),
        ("-1", "'-1'"),
        ("# none", "none of the 120 samples"),
        ("\n".join(map(str, range(120))), "all of the 120 samples"),
    ],
)
def test_flags_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_flags(tmp_path / "bad.txt", 120, (32, 32))


def test_flags_and_masks_are_read(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("3, 5\n7  # a blotch\n")
    assert np.flatnonzero(read_flags(tmp_path / "bad.txt", 120, (32, 32)).marked).tolist() == [3, 5, 7]
    painted = np.zeros((32, 32, 3), np.uint8)
    painted[4:8, 8:16] = (255, 0, 0)
    (tmp_path / "masks").mkdir()
    Image.fromarray(painted).save(tmp_path / "masks" / "sample-0012.png")
    flags = read_flags(tmp_path / "masks", 120, (32, 32))
    assert np.flatnonzero(flags.marked).tolist() == [12]
    assert flags.regions is not None
    assert flags.regions.sum() == 32
    Image.fromarray(painted[:16]).save(tmp_path / "masks" / "13.png")
    with pytest.raises(UsageError, match=r"13\.png .*32×16.*32×32"):
        read_flags(tmp_path / "masks", 120, (32, 32))
    (tmp_path / "masks" / "13.png").write_bytes(b"no picture")
    with pytest.raises(DissectError, match=r"13\.png cannot be read"):
        read_flags(tmp_path / "masks", 120, (32, 32))
    with pytest.raises(UsageError, match=r"flags=\S*nothing\.txt"):
        read_flags(tmp_path / "nothing.txt", 120, (32, 32))


def test_find_keeps_its_tables(found: Dissection, planted: Generator, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("1 2 3 5 8")
    suspects = dissect.artifacts.find(
        found, detector="flagged", flags=tmp_path / "bad.txt", generator=planted, segmenter=Soft(), quiet=True
    )
    assert suspects.units["rank"].tolist() == list(range(1, UNITS + 1))
    assert suspects.units.score.is_monotonic_decreasing
    assert sorted(suspects.samples["sample"]) == list(range(120))
    kept = dissect.artifacts.Suspects.load(found.folder / "artifacts" / "flagged")
    assert kept.units.unit.tolist() == suspects.units.unit.tolist()
    assert kept.info["flags"] == 5


def test_activations_that_are_not_finite_are_refused(found: Dissection, planted: Generator) -> None:
    handle = planted.module.paint.register_forward_hook(lambda _m, _i, x: x * float("inf"))
    try:
        with pytest.raises(DissectError):
            dissect.artifacts.find(found, detector="rare", generator=planted, segmenter=Soft(), quiet=True)
    finally:
        handle.remove()
    assert not (found.folder / "artifacts").exists()


@pytest.mark.parametrize("kind", dissect.artifacts.KINDS)
def test_planted_units_and_nothing_else_make_the_artifacts(kind: str) -> None:
    torch.manual_seed(0)
    module = ProGAN(32, (96, 96, 64, 32)).requires_grad_(False)
    layers = tuple(f"layer{number}" for number in range(1, 9))
    plain = Generator(module=module, name="small", source=NormalLatents((32,)), layers=layers)
    units = [3, 40, 77]
    planted = dissect.artifacts.plant(plain, "layer4", units, kind)
    samples = range(500)

    def draw(generator: Generator, ablated: tuple[int, ...] = ()) -> Tensor:
        with torch.inference_mode(), edited(generator.module, Edit(layer="layer4", units=ablated)):
            return torch.cat([generator(generator.latents(samples[k : k + 50])) for k in range(0, len(samples), 50)])

    silent = dissect.artifacts.KINDS[kind].silent
    before, after = draw(plain, tuple(units) if silent else ()), draw(planted)
    changed = (after - before).abs().amax((1, 2, 3)) > 0.1
    share = dissect.artifacts.KINDS[kind].share
    assert 0 < changed.float().mean() < 1.5 * share * len(units)  # each unit in that share of the samples
    assert torch.equal(draw(planted, tuple(units)), draw(plain, tuple(units)))  # gone with its units
    assert not torch.equal(draw(planted, (5, 6, 8)), draw(plain, (5, 6, 8)))  # and with no others


def test_what_cannot_be_planted() -> None:
    plain = dissect.load_generator("progan_scenes")
    for layer, units, kind, message in (
        ("layer4", [3], "rust", "kind='rust'.*blotches"),
        ("layer12", [3], "spots", "layer1, .*'layer12'"),
        ("layer4", [256], "spots", "255.*256"),
    ):
        with pytest.raises(UsageError, match=message):
            dissect.artifacts.plant(plain, layer, units, kind)


def test_shapes_of_artifacts() -> None:
    excess = torch.zeros(1, 1, 8, 8)
    excess[0, 0, 3, 4] = 1
    covered = {kind: shape(excess, kind, (64, 64))[0, 0] for kind in dissect.artifacts.KINDS}
    assert covered["spots"].sum() == pytest.approx(64)
    assert (covered["streaks"][28] > 0.9).all()
    assert covered["streaks"].sum() == pytest.approx(8 * 64)
    assert (covered["streaks"][50] == 0).all()
    assert covered["blotches"].sum() == pytest.approx(9 * 64)
