"""Directions and controls: bases against scikit-learn and planted parts, runs on them against runs on units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import kstest, skew
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.runs.dissection import Dissection
from ganatomy.dissect.scoring import layer_basis
from ganatomy.dissect.scoring.layer_basis import Basis, non_negative, principal, random_rotation, sample_pixels
from ganatomy.dissect.subjects.untrained import untrained
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import NAMES, ColourSegmenter, Go
from ..support import worlds

FILES = ("run.json", "units.csv", "classes.csv", "scores.npz", "tops.npz")


def test_a_rotation_is_orthogonal_and_seeded() -> None:
    for width in (1, 2, 7, 64):
        matrix = random_rotation(width, 3)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(width), atol=2e-6, rtol=0)
        assert torch.equal(matrix, random_rotation(width, 3))
        assert width == 1 or not torch.allclose(matrix, random_rotation(width, 4), atol=0.1)


def test_rotations_spread_evenly_over_the_sphere() -> None:
    many = torch.stack([random_rotation(3, seed) for seed in range(1500)]).numpy()
    for row in range(3):
        for column in range(3):  # each coordinate of a point on the sphere is uniform (Archimedes)
            assert kstest(many[:, row, column], "uniform", (-1, 2)).pvalue > 0.001
    assert abs((np.linalg.det(many) > 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(1500)


def test_principal_components_are_those_of_scikit_learn() -> None:
    dice = np.random.default_rng(0)
    hidden = dice.gamma(0.5, size=(4000, 6)) * [5, 4, 3, 2, 1, 0.5]
    pixels = (hidden @ np.linalg.qr(dice.normal(size=(6, 6)))[0] + dice.normal(size=6) * 20).astype(np.float32)
    found = principal(pixels, 4).numpy()
    truth = PCA(4).fit(pixels).components_
    np.testing.assert_allclose(np.abs((found * truth).sum(1)), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert (skew(pixels @ found.T) > 0).all()
    np.testing.assert_allclose(principal(-pixels, 4).numpy(), -found, atol=1e-5)  # its heavier tail is the other


def test_non_negative_components_are_recovered() -> None:
    dice = np.random.default_rng(1)
    parts = np.zeros((4, 20))
    for k in range(4):
        parts[k, 4 * k : 4 * k + 6] = dice.uniform(0.3, 1, 6)  # neighbours share units; the last four are not driven
    weights = dice.gamma(2, size=(3000, 4)) * (dice.random((3000, 4)) < 0.4)
    pixels = weights @ parts + dice.normal(size=(3000, 20)) * 0.02
    pixels[:, 18:] = -5  # a negative unit has no part in it
    parts[:, 18:] = 0
    found = non_negative(pixels.astype(np.float32), 4).numpy()
    assert (found >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    likeness = found @ (parts / np.linalg.norm(parts, axis=1, keepdims=True)).T
    assert sorted(likeness.argmax(1)) == [0, 1, 2, 3]
    assert (likeness.max(1) > 0.95).all()
    with pytest.raises(UsageError, match="the layer has only 0 non-negative components"):
        non_negative(-np.abs(pixels).astype(np.float32), 4)


def test_a_basis_is_fitted_on_pixels_of_even_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds.small(tmp_path, 131)
    vectors = world.features[::2].float().flatten(2).transpose(1, 2).reshape(-1, 10).numpy()  # (66 · 16, U)
    found = sample_pixels(world.maps, seed=0)
    assert sorted(map(tuple, found)) == sorted(map(tuple, vectors))
    monkeypatch.setattr(layer_basis, "PIXELS", 66 * 5)
    some = sample_pixels(world.maps, seed=0)
    assert len(some) == 66 * 5
    assert np.array_equal(some, sample_pixels(world.maps, seed=0))
    assert not np.array_equal(some, sample_pixels(world.maps, seed=1))
    sample = {vector: row // 16 for row, vector in enumerate(map(tuple, vectors))}
    assert np.bincount([sample[vector] for vector in map(tuple, some)]).tolist() == [5] * 66


def test_a_layer_that_is_not_finite_has_no_basis_but_sums(tmp_path: Path) -> None:
    world = worlds.small(tmp_path / "good", 6)
    world.features[2, 4, 0, 0] = math.nan
    world.features[3, 4, 1, 0] = math.inf
    maps = worlds.lay_out(tmp_path / "bad", world.labels, world.features)
    for name in ("pca", "nmf"):
        with pytest.raises(DissectError, match=rf"'layer' are not finite, so no {name} can be fitted"):
            Basis.open(name, 3, {"layer": 10}).directions(maps, 0)
    same = replace(maps, directions=torch.eye(10))
    clean = world.features.nan_to_num(0, 0, 0)
    assert torch.equal(same.read(0, slice(None)), clean)
    assert torch.equal(same.pick(0, np.array([2, 3]), np.array([4, 4])), clean[[2, 3], [4, 4]].float())


def test_too_few_pixels_make_no_basis(tmp_path: Path) -> None:
    maps = worlds.small(tmp_path, 2, side=2).maps  # one even sample of 2 × 2 pixels
    for name in ("pca", "nmf"):
        basis = Basis.open(name, 4, {"layer": 10}).directions(maps, 0)
        assert basis is not None
        assert len(basis) == 4
        with pytest.raises(UsageError, match=rf"directions=5: 4 pixels of 'layer' do not suffice to fit {name}"):
            Basis.open(name, 5, {"layer": 10}).check({"layer": (10, 2, 2)}, 2)


def test_what_a_basis_makes_of_a_layer(tmp_path: Path) -> None:
    maps, widths = worlds.small(tmp_path, 131).maps, {"layer": 10}
    pixels = sample_pixels(maps, seed=2)
    assert Basis.open("units", 3, widths).directions(maps, 2) is None
    for basis, truth in (
        (Basis.open("pca", 3, widths), principal(pixels, 3)),
        (Basis.open("nmf", 3, widths), non_negative(pixels, 3)),
        (Basis.rotation(widths), random_rotation(10, 2)),
    ):
        found = basis.directions(maps, 2)
        assert found is not None
        torch.testing.assert_close(found, truth)
        assert basis.width("layer", 10) == len(found)


def test_maps_of_directions_are_weighted_sums(tmp_path: Path) -> None:
    world = worlds.small(tmp_path, 131)
    weights = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    maps = replace(world.maps, directions=weights)
    assert len(maps) == 5
    for shard, rows in ((0, slice(0, 128)), (1, slice(128, 131))):
        found = maps.read(shard, slice(1, 4))
        units = world.features[rows].double()
        truth = torch.stack([sum(w[u] * units[:, u] for u in range(10)) for w in weights[1:4].double()], 1)
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.double(), truth, rtol=1e-3, atol=1e-3)
    picked = maps.pick(1, np.array([2, 0, 2]), np.array([3, 1, 4]))
    torch.testing.assert_close(picked, maps.read(1, slice(0, 5))[[2, 0, 2], [3, 1, 4]].float())


def stored(path: Path, **tensors: Tensor) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


GOOD = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, -2.0]])
NONE = torch.tensor([[1.0], [0.0]])
NEEDED = r"must hold a real tensor \(directions, 3\) named 'paint'; it has "
MISFITS: list[tuple[Callable[[Path], str], type[DissectError], str]] = [
    (lambda _: "ica", UsageError, r"basis='ica': must be units, pca, nmf, or a \.safetensors file"),
    (lambda _: "pca", UsageError, r"directions=4: layer 'paint' has 3 units, so 1 to 3"),
    (lambda p: stored(p, other=GOOD, more=GOOD + 1), UsageError, NEEDED + "only more, other"),
    (lambda p: stored(p, paint=GOOD.T), UsageError, NEEDED + r"torch\.float32 \(3, 2\)"),
    (lambda p: stored(p, paint=GOOD[0]), UsageError, NEEDED + r"torch\.float32 \(3,\)"),
    (lambda p: stored(p, paint=GOOD[:0]), UsageError, NEEDED + r"torch\.float32 \(0, 3\)"),
    (lambda p: stored(p, paint=GOOD.to(torch.complex64)), UsageError, NEEDED + r"torch\.complex64 \(2, 3\)"),
    (lambda p: stored(p, paint=GOOD * NONE), UsageError, "a direction of 'paint' is zero or not finite"),
    (lambda p: stored(p, paint=GOOD / NONE), UsageError, "a direction of 'paint' is zero or not finite"),
    (lambda p: str(p) if p.write_bytes(b"nonsense") else "", DissectError, "cannot be read as safetensors"),
]


@pytest.mark.parametrize(("make", "kind", "message"), MISFITS)
def test_a_basis_that_does_not_fit_is_refused(
    tmp_path: Path, make: Callable[[Path], str], kind: type[DissectError], message: str
) -> None:
    spec = make(tmp_path / "basis.safetensors")
    with pytest.raises(kind, match=message) as caught:
        Basis.open(spec, 4, {"paint": 3})
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_directions_of_a_file_get_unit_length(tmp_path: Path) -> None:
    basis = Basis.open(stored(tmp_path / "mine.safetensors", paint=GOOD.half(), other=GOOD), 99, {"paint": 3})
    assert (basis.name, basis.noun, basis.count) == ("mine.safetensors", "direction", {"paint": 2})
    assert basis.given is not None
    torch.testing.assert_close(basis.given["paint"], torch.tensor([[0.6, 0.8, 0], [0, 0, -1]]))
    other = Basis.open(stored(tmp_path / "mine.safetensors", paint=GOOD + 1), 99, {"paint": 3})
    assert basis.config != other.config  # the same name, another file
    for number, like in enumerate((GOOD.half(), GOOD.double() * 1e-60, GOOD * 1e30, GOOD.to(torch.int8))):
        again = Basis.open(stored(tmp_path / f"{number}.safetensors", paint=like), None, {"paint": 3}).given
        assert again is not None
        torch.testing.assert_close(again["paint"], basis.given["paint"])


def test_as_many_directions_as_asked_for_or_32_or_all() -> None:
    assert Basis.open("pca", None, {"few": 6, "many": 500}).count == {"few": 6, "many": 32}
    assert Basis.open("nmf", 5, {"few": 6, "many": 500}).count == {"few": 5, "many": 5}
    for number in (0, -1, 7):
        with pytest.raises(UsageError, match=rf"directions={number}: layer 'few' has 6 units, so 1 to 6"):
            Basis.open("pca", number, {"few": 6, "many": 500})


def same_units(a: Dissection, b: Dissection) -> None:
    pd.testing.assert_frame_equal(a.units, b.units)
    for half in ("choose", "score"):
        assert np.array_equal(a.counts("paint", half).intersection, b.counts("paint", half).intersection)
    for x, y in zip(a.tops("paint"), b.tops("paint"), strict=True):
        assert np.array_equal(x, y)


def test_the_identity_is_the_units(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = go()
    directions = go(basis=stored(tmp_path / "identity.safetensors", paint=3 * torch.eye(6)), out=tmp_path / "identity")
    same_units(units, directions)
    assert units.units.labelled.sum() == 4
    assert (units.noun, directions.noun) == ("unit", "direction")
    monkeypatch.chdir(tmp_path)
    assert go(basis="./" + stored(Path("units"), paint=torch.eye(6)[:2]), out="two").noun == "direction"


def directions_of(run: Dissection) -> np.ndarray:
    with np.load(run.folder / "scores.npz") as scores:
        return scores["paint/directions"]


@pytest.mark.parametrize("basis", ["pca", "nmf"])
def test_a_run_on_fitted_directions(go: Go, basis: str, painter: Generator, colours: ColourSegmenter) -> None:
    made = go(basis=basis, directions=3)
    run = Dissection.load(made.folder)
    pd.testing.assert_frame_equal(run.units, made.units)
    assert run.noun == "direction"
    assert (run.info["config"]["basis"], run.info["config"]["directions"]) == (basis, {"paint": 3})
    assert run.units.unit.tolist() == [0, 1, 2]
    assert run.units.labelled.any()
    assert [curve.shape for curve in run.curves("paint")] == [(3, 64), (3, 64)]
    found = directions_of(run)
    assert found.shape == (3, 6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert (found[:, 4] == 0).all()  # a unit that is always zero
    for refusing in (
        lambda: dissect.repair(run, units="paint:1", generator=painter, segmenter=colours, quiet=True),
        lambda: dissect.artifacts.find(run, detector="rare", generator=painter, segmenter=colours, quiet=True),
    ):
        with pytest.raises(UsageError, match=r"dissects directions \(.*are units; .*without `basis`") as no:
            refusing()
        assert "\n" not in str(no.value)
    assert not any((run.folder / name).exists() for name in ("interventions", "artifacts", "repairs"))
    with pytest.raises(UsageError, match="holds another run"):
        go(basis=basis, directions=4)


def test_parts_of_what_is_drawn_are_found_by_factorisation(go: Go) -> None:
    run = go(basis="nmf", directions=5)
    assert set(run.units[run.units.labelled].label) == set(NAMES)
    assert (directions_of(run)[:, :4].max(0) > 0.95).all()  # each painting unit has a direction of its own


def features(run: Dissection) -> list[Path]:
    return sorted((run.folder / "spool").glob("shard-*/features-*.npy"))


def test_controls_are_runs_of_their_own(go: Go, tmp_path: Path) -> None:
    run = go(controls=["rotation", "untrained"])
    rotation, fresh = run.controls["rotation"], run.controls["untrained"]
    assert set(run.controls) == {"rotation", "untrained"}
    assert [r.info["config"]["control"] for r in (run, rotation, fresh)] == [None, "rotation", "untrained"]
    matrix = directions_of(rotation)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(6), atol=2e-6)
    given = go(basis=stored(tmp_path / "mix.safetensors", paint=torch.from_numpy(matrix)), out=tmp_path / "given")
    pd.testing.assert_frame_equal(rotation.units, given.units, rtol=1e-4)  # the file's rows are normalised once more
    assert fresh.info["config"]["weights_sha256"] != run.info["config"]["weights_sha256"]
    assert (rotation.noun, fresh.noun) == ("direction", "unit")
    assert not fresh.units.label.equals(run.units.label)
    same_units(run, go(out=tmp_path / "alone"))  # controls do not touch the run


@pytest.mark.parametrize("keep", [False, True])
def test_a_rotation_uses_the_spool_of_its_run(go: Go, keep: bool) -> None:
    run = go(controls=["rotation", "untrained"], keep_spool=keep)
    rotation, fresh = run.controls["rotation"], run.controls["untrained"]
    assert rotation.spool.folder == run.spool.folder
    assert rotation.info["captured_now"] == 0
    assert not (rotation.folder / "spool").exists()
    assert rotation.spool.read(0, "labels").shape == run.spool.read(0, "labels").shape
    assert [len(features(r)) for r in (run, fresh)] == ([2, 2] if keep else [0, 0])
    assert fresh.spool.folder == fresh.folder / "spool"
    assert "shared_spool" not in run.info


def test_a_control_is_added_to_a_finished_run(go: Go, tmp_path: Path) -> None:
    before = go()
    kept = {name: (before.folder / name).read_bytes() for name in FILES}
    after = go(controls="rotation")
    assert {name: (after.folder / name).read_bytes() for name in FILES} == kept
    assert list(after.controls) == ["rotation"]
    rotation = after.controls["rotation"]
    assert rotation.info["captured_now"] == 200  # the run's own featuremaps were gone
    assert not features(rotation)
    same_units(rotation, go(controls="rotation", out=tmp_path / "at once").controls["rotation"])
    stamp = (rotation.folder / "run.json").read_bytes()
    assert list(go(controls=["untrained", "rotation", "untrained"]).controls) == ["rotation", "untrained"]
    assert (rotation.folder / "run.json").read_bytes() == stamp


def test_a_kept_spool_is_kept_when_a_control_is_added(go: Go) -> None:
    go(keep_spool=True)
    run = go(controls="rotation")
    assert len(features(run)) == 2
    assert run.controls["rotation"].spool.folder == run.spool.folder


def test_controls_that_cannot_be_are_refused(go: Go, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"controls='shuffled': must be one of rotation, untrained"):
        go(controls=["rotation", "shuffled"])
    with pytest.raises(UsageError, match=r"`controls` rotation mixes units, so it does not go with `basis`"):
        go(controls=["rotation"], basis="pca", directions=3)
    assert not (tmp_path / "run").exists()
    run = go(controls="untrained", basis="pca", directions=3)
    assert run.controls["untrained"].info["config"]["basis"] == "pca"


class Normed(nn.Module):
    """A small network with batch norm, whose weights have a mean of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(6, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24, momentum=0.3)
        self.rgb = nn.Conv2d(24, 3, 1)
        self.gain = nn.Parameter(torch.tensor(0.7))
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.one.weight.normal_(0.05, 0.2, generator=random)
            self.one.bias.normal_(-1, 2, generator=random)
            self.norm.running_mean.fill_(7)
            self.norm.running_var.fill_(0.01)

    def forward(self, latents: Tensor) -> Tensor:
        return self.gain * self.rgb(self.norm(self.one(latents)).relu())


def test_an_untrained_network_keeps_only_the_scale_of_its_weights() -> None:
    generator = Generator(module=Normed(), name="normed", source=NormalLatents((6, 8, 8)))
    before = {name: value.clone() for name, value in generator.module.state_dict().items()}
    fresh = untrained(generator, seed=1)
    for name, value in generator.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert fresh.name == "normed untrained"
    assert not any(module.training for module in [*fresh.module.modules(), *generator.module.modules()])
    new = dict(fresh.module.named_parameters())
    for name, old in generator.module.named_parameters():
        mean, spread, size = old.mean().item(), old.std(correction=0).item(), old.numel()
        assert new[name].shape == old.shape
        assert new[name].mean().item() == pytest.approx(mean, abs=4.5 * spread / math.sqrt(size) + 1e-6)
        assert new[name].std(correction=0).item() == pytest.approx(spread, rel=4.5 / math.sqrt(2 * size), abs=1e-6)
    old_weight, new_weight = generator.module.one.weight.flatten(), new["one.weight"].flatten()
    together = torch.corrcoef(torch.stack([old_weight, new_weight]))[0, 1].item()
    assert abs(together) < 4 / math.sqrt(old_weight.numel())
    assert kstest(((new_weight - new_weight.mean()) / new_weight.std()).detach(), "norm").pvalue > 0.01


def test_an_untrained_network_is_seeded() -> None:
    generator = Generator(module=Normed(), name="normed", source=NormalLatents((6, 8, 8)))
    one, again, other = (untrained(generator, seed).module.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["one.weight"], other["one.weight"])
    first, second = (one[name].flatten()[:72] for name in ("one.weight", "rgb.weight"))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.5  # tensors do not share their numbers


def test_an_untrained_network_has_statistics_of_its_own() -> None:
    generator = Generator(module=Normed(), name="normed", source=NormalLatents((6, 8, 8)))
    fresh = untrained(generator).module
    with torch.no_grad():
        seen = fresh.one(generator.latents(range(256)))
        out = fresh.norm(fresh.one(generator.latents(range(10_000, 10_400))))
    torch.testing.assert_close(fresh.norm.running_mean, seen.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    assert out.mean((0, 2, 3)).abs().max() < 0.1
    assert (out.std((0, 2, 3)) - 1).abs().max() < 0.1
    assert fresh.norm.momentum == generator.module.norm.momentum == 0.3
