"""What a run keeps for its report: histograms, where units fire, rivals; against plain sums over the spool."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganatomy.dissect.images import resize as gr
from ganatomy.dissect.scoring.levels import BINS, Scale, binned, float16_codes, float16_histogram

from ..conftest import Go


def test_bins_are_those_of_numpy() -> None:
    values = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1)).half()
    values[:, 2] = 0.25  # constant
    whole = Scale(values.amin((0, 2, 3)).float(), values.amax((0, 2, 3)).float())
    counts = binned(float16_histogram([float16_codes(values)], 3), whole)
    for unit in range(2):
        plain = values[:, unit].float().numpy().ravel()
        expected, _ = np.histogram(plain, BINS, (plain.min(), plain.max()))
        assert (
            np.abs(counts[unit].numpy().cumsum() - expected.cumsum()).max() <= 1
        )  # a value on an edge may go either way
        assert counts[unit].sum() == plain.size
    assert counts[2].tolist() == [100] + [0] * (BINS - 1)


@pytest.mark.parametrize("significance", ["fast", "full"])
def test_maps_and_rivals_are_plain_sums(go: Go, significance: str) -> None:
    run = go(samples=60, keep_spool=True, significance=significance)
    features = np.asarray(run.spool.read(0, "features-0"), np.float32) * run.info["layers"]["paint"]["scale"]
    labels = np.asarray(run.spool.read(0, "labels"))[:, 0]
    counts, span = run.histogram("paint")
    assert counts.sum(1).tolist() == [features[:, 0].size] * 6
    assert np.allclose(span, np.stack([features.min((0, 2, 3)), features.max((0, 2, 3))], 1))
    grid = run.info["grid"]
    near = gr.upsample(torch.from_numpy(features[1::2]), grid).numpy()
    fires, rivals = run.fires("paint"), run.rivals("paint")
    assert fires is not None
    numbers = {name: number for number, name in enumerate(run.classes["class"])}
    tolerance = 1e-9 if significance == "full" else 0.03  # every second row and column
    for unit in range(4):
        region = near[:, unit] >= run.units.threshold[unit]
        assert np.allclose(
            fires[unit], region.mean(0).reshape(fires.shape[1], grid // fires.shape[1], -1).mean(1), atol=1e-3
        )
        mine = rivals[rivals.unit == unit]
        first, row = mine.iloc[0], run.units.iloc[unit]
        assert first["class"] == row.label
        for name in ("iou", "iou_low", "iou_high", "chance_iou", "position_iou"):
            assert first[name] == pytest.approx(row[name], abs=1e-5)
        levels = run.levels("paint")[unit][np.asarray(run._scores["paint/rival_level"])[unit]]
        for (_, rival), level in zip(mine.iloc[1:].iterrows(), levels[1:], strict=True):
            if np.isfinite(rival.iou_low):
                assert rival.iou_low <= rival.iou + 1e-9
                assert rival.iou_high >= rival.iou - 1e-9
            number = numbers[rival["class"]]
            mask, there = near[:, unit] >= level, labels[1::2] == number
            expected = (mask.mean(0) * there.mean(0)).sum() * len(mask)
            place = expected / (mask.sum() + there.sum() - expected) if mask.sum() + there.sum() else np.nan
            assert rival.position_iou == pytest.approx(place, abs=max(tolerance, 1e-6), nan_ok=True)
