"""Areas of classes by loops, resizing by torch's own interpolation, for any small input."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from ganatomy.dissect.images import resize
from ganatomy.dissect.images.class_areas import at_centres, pixel_counts, shares

untimed = settings(deadline=None, max_examples=50)  # a first call loads and compiles

C = 4
LABELS = arrays(
    np.int64,
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4)),
    elements=st.integers(-1, C + 2),  # some are no classes
)
SIDES = st.integers(1, 9)


@untimed
@given(LABELS, st.sampled_from([torch.int16, torch.int64]))
def test_pixels_of_each_class_are_counted_one_by_one(labels: np.ndarray, dtype: torch.dtype) -> None:
    counts = pixel_counts(torch.from_numpy(labels).to(dtype), C)
    for image, row in zip(labels, counts.tolist(), strict=True):
        assert row == [*(int((image == number).sum()) for number in range(C)), int((image[0] == -1).sum())]


@untimed
@given(LABELS)
def test_shares_are_counts_by_pixel(labels: np.ndarray) -> None:
    tensor = torch.from_numpy(labels)
    assert torch.equal(shares(tensor, C) * labels[0, 0].size, pixel_counts(tensor, C).double())


@untimed
@given(SIDES, SIDES, st.integers(0, 8), st.integers(1, 3), st.integers(0, 2**16))
def test_upsampling_is_torchs_bilinear_one(height: int, width: int, more: int, stride: int, seed: int) -> None:
    grid = max(height, width) + more
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    truth = F.interpolate(x, (grid, grid), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize.upsample(x, grid), truth, atol=1e-5, rtol=1e-5)
    turned = resize.upsample_turned(x, grid, stride).transpose(2, 3)
    torch.testing.assert_close(turned, truth[:, :, ::stride, ::stride], atol=1e-5, rtol=1e-5)


@untimed
@given(SIDES, SIDES)
def test_weights_of_a_target_pixel_sum_to_one(size: int, more: int) -> None:
    weights = resize.bilinear_weights(size, size + more)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(size + more))


@untimed
@given(LABELS, SIDES)
def test_labels_on_the_grid_are_those_at_the_centres(labels: np.ndarray, grid: int) -> None:
    tensor = torch.from_numpy(labels)
    resized = resize.labels_to_grid(tensor, grid)
    assert torch.equal(resized, F.interpolate(tensor.float(), (grid, grid), mode="nearest-exact").to(torch.int16))
    assert torch.equal(resized, at_centres(tensor, (grid, grid)))
