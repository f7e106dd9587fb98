"""Levels, counts and scores against a brute-force statement of their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganatomy.dissect.capture.maps import Maps
from ganatomy.dissect.capture.plan import Plan
from ganatomy.dissect.capture.spool import Spool
from ganatomy.dissect.images import resize as gr
from ganatomy.dissect.scoring import scores as sc
from ganatomy.dissect.scoring.counting import CONSTANT, NOT_FINITE, OK, Tally, images_with_class, tally_layer, top_masks
from ganatomy.dissect.scoring.levels import STEPS, level_shares
from ganatomy.hooks.errors import DissectError

N, U, C, G = 131, 11, 4, 16  # two shards, the second with a rest
QUANTILE = 0.01
ROUNDING = 0.004  # of a step: float32 arithmetic in steps, against float64


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    """featuremaps (N, U, 5, 7) float16, labels (N, 2, G, G), one class absent, some pixels unlabelled."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(N, U, 5, 7, generator=random)
    features[:, 1] = features[:, 1].relu()  # half of it is exactly zero
    features[:, 2] = 0.75  # dead
    features[:, 3] = -features[:, 3].abs() * 1000
    features[:, 4, 1, 1] = torch.nan
    features[5, 5, 0, 0] = torch.inf
    coarse = torch.randint(-1, 2, (N, 2, 4, 4), generator=random)  # classes 0 and 1 live in one plane,
    coarse[:, 1] = torch.where(coarse[:, 1] > 0, 2, -1)  # class 2 in the other, class 3 nowhere
    labels = F.interpolate(coarse.float(), (G, G)).to(torch.int16)
    features[3, 6, 2, 2] = 3000  # an outlier
    # unit 0 follows class 0 of the first plane
    features[:, 0] += 3 * F.adaptive_avg_pool2d((labels[:, :1] == 0).float(), (5, 7))[:, 0]
    return features.half(), labels


@pytest.fixture(scope="module")
def spool(data: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Spool:
    features, labels = data
    spool = Spool(tmp_path_factory.mktemp("spool"), N)
    for shard in range(len(spool)):
        rows = list(spool.indices(shard))
        spool.write(shard, {"labels": labels[rows].numpy(), "features-0": features[rows].numpy()})
    return spool


PLAN = Plan(grid=G, image=(G, G), planes=2, shapes={"layer": (U, 5, 7)}, scales={"layer": 4.0})


@pytest.fixture(scope="module")
def tally(spool: Spool) -> Tally:
    done: list[int] = []
    found = tally_layer(Maps(spool=spool, plan=PLAN, layer="layer"), C, level_shares(QUANTILE), done.append)
    assert sum(done) == U
    return found


@pytest.fixture(scope="module")
def values(data: tuple[Tensor, Tensor]) -> Tensor:
    """(N, U, G, G) grid activations in float64, in the layer's own units, by the library's interpolation."""
    features = data[0].double().nan_to_num(0, 0, 0) * 4
    return F.interpolate(features, (G, G), mode="bilinear", align_corners=False)


def step_of(data: tuple[Tensor, Tensor], unit: int) -> float:
    raw = data[0][:, unit].double().nan_to_num(0, 0, 0) * 4
    low, high = torch.quantile(raw, torch.tensor([0.1, 0.9995], dtype=torch.float64))
    return float(high - low) / (STEPS - 1) * 1.1  # the tool's own quantiles are not interpolated


def test_levels_are_quantiles(tally: Tally, values: Tensor, data: tuple[Tensor, Tensor]) -> None:
    shares = level_shares(QUANTILE)
    assert len(shares) == 64
    assert QUANTILE in shares
    assert shares[0] == pytest.approx(0.5)
    assert shares[-1] == pytest.approx(0.001)
    for unit in range(U):
        pixels = values[:, unit].flatten()
        truth = torch.quantile(
            pixels, torch.tensor([1 - q for q in shares], dtype=torch.float64), interpolation="lower"
        )
        step = step_of(data, unit)
        assert np.abs(tally.level[unit] - truth.numpy()).max() <= step * (1 + ROUNDING) + 1e-6


def test_counts_are_exact(tally: Tally, values: Tensor, data: tuple[Tensor, Tensor]) -> None:
    labels = data[1]
    compared = ties = 0
    for half, counts in ((0, tally.choose), (1, tally.score)):
        mine, names = values[half::2], labels[half::2]
        assert counts.pixels == len(mine) * G * G
        for c in range(C):
            assert counts.class_area[c] == int((names == c).sum())
        for unit in range(U):
            slack = ROUNDING * step_of(data, unit)
            for k, level in enumerate(tally.level[unit]):
                if tally.state[unit] == CONSTANT:
                    assert counts.unit_area[unit, k] == 0
                    continue
                fewest, mask, most = (mine[:, unit] > float(level) + side * slack for side in (1, 0, -1))
                compared += 1
                if not torch.equal(fewest, most):  # a pixel lies on the level, as nearly as float32 can tell
                    ties += 1
                    assert fewest.sum() <= counts.unit_area[unit, k] <= most.sum()
                    continue
                assert counts.unit_area[unit, k] == int(mask.sum()), (half, unit, k)
                for c in range(C):
                    both = sum(int((mask & (names[:, plane] == c)).sum()) for plane in range(2))
                    assert counts.intersection[unit, c, k] == both, (half, unit, c, k)
    assert ties < 0.08 * compared


def test_shards_counted_together_count_the_same(tally: Tally, spool: Spool) -> None:
    assert len(spool) > 1
    many = tally_layer(Maps(spool=spool, plan=PLAN, layer="layer"), C + 200, level_shares(QUANTILE), lambda _: None)
    for one, other in ((tally.choose, many.choose), (tally.score, many.score)):
        assert np.array_equal(one.intersection, other.intersection[:, :C])
        assert np.array_equal(one.unit_area, other.unit_area)
        assert not other.intersection[:, C:].any()


def test_dead_and_broken_units_are_named(tally: Tally) -> None:
    expected = [OK] * U
    expected[2], expected[4], expected[5] = CONSTANT, NOT_FINITE, NOT_FINITE
    assert tally.state.tolist() == expected
    assert (tally.choose.unit_area[2] == 0).all()
    assert (tally.score.unit_area[2] == 0).all()


def test_top_samples(tally: Tally, data: tuple[Tensor, Tensor]) -> None:
    for unit in (0, 1, 3, 7):
        peaks = data[0][:, unit].float().amax((1, 2)) * 4
        order = sorted(range(N), key=lambda sample: (-float(peaks[sample]), sample))[: tally.top.shape[1]]
        assert tally.top[unit].tolist() == order
        assert tally.peak[unit].tolist() == peaks[order].tolist()


def test_masks_of_top_samples(tally: Tally, spool: Spool, values: Tensor) -> None:
    threshold = tally.level[:, 40]
    bits = top_masks(Maps(spool=spool, plan=PLAN, layer="layer"), tally.top, threshold)
    masks = np.unpackbits(bits, axis=-1, count=G).astype(bool)
    for unit in (0, 1, 3, 9):
        for place, sample in enumerate(tally.top[unit]):
            assert np.array_equal(masks[unit, place], (values[sample, unit] > float(threshold[unit])).numpy())


def test_images_with_class(spool: Spool, data: tuple[Tensor, Tensor]) -> None:
    truth = [int((data[1] == c).flatten(1).any(1).sum()) for c in range(C)]
    assert images_with_class(spool, C).tolist() == truth


def brute(counts: sc.Counts, unit: int, c: int, k: int) -> dict[str, float]:
    """IoU, chance IoU and IQR from the 2×2 table, written out."""
    n = counts.pixels
    both, m, cl = int(counts.intersection[unit, c, k]), int(counts.unit_area[unit, k]), int(counts.class_area[c])
    cells = {(1, 1): both, (1, 0): m - both, (0, 1): cl - both, (0, 0): n - m - cl + both}
    information = entropy = 0.0
    for (i, j), count in cells.items():
        if count:
            p = count / n
            pi, pj = (m if i else n - m) / n, (cl if j else n - cl) / n
            information += p * math.log(p / (pi * pj))
            entropy -= p * math.log(p)
    union = m + cl - both
    p, q = cl / n, m / n
    return {
        "iou": both / union if union else math.nan,
        "iqr": information / entropy if entropy and both * n > m * cl else 0.0,
        "chance": p * q / (p + q - p * q) if p + q else math.nan,
    }


@pytest.mark.parametrize("rule", ["iqr", "quantile"])
def test_labels_of_both_rules(tally: Tally, rule: str) -> None:
    level_index = level_shares(QUANTILE).index(QUANTILE)
    found = sc.label_units(tally.choose, tally.score, rule, level_index)
    all_iou, all_iqr = sc.iou(tally.choose), sc.iqr(tally.choose)
    for unit in range(U):
        best: tuple[float, int, int] = (-1.0, 0, 0)
        for c in range(C):
            for k in range(64):
                truth = brute(tally.choose, unit, c, k)
                np.testing.assert_allclose(all_iou[unit, c, k], truth["iou"], rtol=1e-12)
                np.testing.assert_allclose(all_iqr[unit, c, k], truth["iqr"], rtol=1e-6, atol=1e-9)
                value = truth["iqr"] if rule == "iqr" else np.nan_to_num(truth["iou"], nan=-1.0)
                if (rule == "iqr" or k == level_index) and value > best[0]:
                    best = (value, c, k)
        if rule == "quantile" and best[0] < 0:
            continue
        label, level = best[1:] if best[0] > 0 else (found.label[unit], found.level[unit])
        assert (found.label[unit], found.level[unit]) == (label, level)
        scored = brute(tally.score, unit, label, level)
        np.testing.assert_allclose(found.iou[unit], scored["iou"], rtol=1e-12)
        chance = sc.chance_iou(found.class_share[unit], found.share[unit])
        np.testing.assert_allclose(chance, scored["chance"], rtol=1e-12)
        np.testing.assert_allclose(found.iqr[unit], scored["iqr"], rtol=1e-6, atol=1e-9)
        if rule == "iqr":
            assert found.reaches_limits[unit] == (scored["iqr"] >= 0.01 and scored["iou"] >= 0.05)
        else:
            assert found.reaches_limits[unit] == (scored["iou"] >= 0.04)
    assert found.label[0] == 0
    assert found.reaches_limits[0] == (
        rule == "iqr"
    )  # at 1 % of the pixels, a class of a quarter cannot reach IoU 0.04


def test_hand_computed_scores() -> None:
    """10 pixels, class of 5, unit of 4 above the level, 3 in common."""
    counts = sc.Counts(intersection=np.array([[[3]]]), unit_area=np.array([[4]]), class_area=np.array([5]), pixels=10)
    assert sc.iou(counts)[0, 0, 0] == pytest.approx(3 / 6)
    assert sc.chance_iou(np.array(0.5), np.array(0.4)) == pytest.approx(0.2 / 0.7)
    joint = -sum(p * math.log(p) for p in (0.3, 0.1, 0.2, 0.4))
    apart = -sum(p * math.log(p) for p in (0.4, 0.6)) - 2 * 0.5 * math.log(0.5)
    assert sc.iqr(counts)[0, 0, 0] == pytest.approx((apart - joint) / joint)


def test_empty_union_is_nan_and_avoidance_scores_nothing() -> None:
    counts = sc.Counts(
        intersection=np.array([[[0], [0]]]), unit_area=np.array([[0]]), class_area=np.array([0, 7]), pixels=10
    )
    assert np.isnan(sc.iou(counts)[0, 0, 0])
    assert sc.iou(counts)[0, 1, 0] == 0
    shunned = sc.Counts(intersection=np.array([[[0]]]), unit_area=np.array([[5]]), class_area=np.array([5]), pixels=10)
    assert sc.iqr(shunned)[0, 0, 0] == 0


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (16, 16)])
def test_upsampling_is_the_librarys(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    truth = F.interpolate(x, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(gr.upsample(x, 16), truth)
    out = torch.empty(truth.numel())
    gr.upsample_turned(x, 16, out=out)
    torch.testing.assert_close(out.view(2, 3, 16, 16).transpose(2, 3), truth)


def test_labels_are_resized_nearest_exact() -> None:
    labels = torch.randint(-1, 9, (2, 3, 50, 37), generator=torch.Generator().manual_seed(0))
    truth = F.interpolate(labels.float(), (16, 16), mode="nearest-exact").to(torch.int16)
    assert torch.equal(gr.labels_to_grid(labels, 16), truth)
    assert torch.equal(gr.labels_to_grid(truth.long(), 16), truth)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 3)
    spool.write(0, {"labels": np.zeros((2, 1, 4, 4), np.int16)})
    with pytest.raises(DissectError, match=r"shard-00000.*labels\.npy .*holds 2 samples instead of 3"):
        spool.read(0, "labels")
    (tmp_path / "shard-00000" / "labels.npy").write_bytes(b"nonsense")
    with pytest.raises(DissectError, match="cannot be read"):
        spool.read(0, "labels")
