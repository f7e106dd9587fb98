"""GANSpace and SeFa against planted directions, scikit-learn and plain optimisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect import latents
from ganatomy.hooks.errors import DissectError, UsageError


def draw(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def axes(seed: int, width: int) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(draw(seed, width, width))[0]


def likeness(one: Tensor, other: Tensor) -> Tensor:
    """Sizes of the cosines between rows."""
    return F.cosine_similarity(one.double(), other.double(), dim=1).abs()


def test_principal_components_of_two_numbers_by_hand() -> None:
    vectors = torch.tensor([[3.0, 3], [-3, -3], [1, -1], [-1, 1]]) + torch.tensor([5.0, 7])
    found = latents.principal(vectors, 2)
    half = math.sqrt(0.5)
    torch.testing.assert_close(found.vectors.abs(), torch.full((2, 2), half))
    torch.testing.assert_close(found.vectors[0], torch.tensor([half, half]))
    torch.testing.assert_close(found.scales, torch.tensor([12.0, 4 / 3]).sqrt())  # 36 / 3 and 4 / 3
    torch.testing.assert_close(found.shares, torch.tensor([0.9, 0.1]))
    assert found.mean is not None
    assert found.mean.tolist() == [5, 7]


def test_principal_components_are_those_of_scikit_learn() -> None:
    vectors = draw(0, 500, 8) * torch.tensor([6.0, 5, 4, 3, 2, 1, 0.5, 0.1]) @ axes(1, 8) + draw(2, 8) * 1000
    found, truth = latents.principal(vectors, 5), PCA(5).fit(vectors.numpy())
    torch.testing.assert_close(likeness(found.vectors, torch.from_numpy(truth.components_)), torch.ones(5).double())
    np.testing.assert_allclose(found.scales, np.sqrt(truth.explained_variance_), rtol=1e-5)
    np.testing.assert_allclose(found.shares, truth.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(found.mean, truth.mean_, rtol=1e-6)
    largest = found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    assert {tensor.dtype for tensor in (found.vectors, found.scales, found.shares, found.mean)} == {torch.float32}


@pytest.mark.parametrize("sizes", [(1, 1, 298), (100, 100, 100), (299, 1)])
def test_batches_do_not_matter_even_far_from_zero(sizes: tuple[int, ...]) -> None:
    vectors = draw(0, 300, 4) * torch.tensor([4.0, 3, 2, 1]) + 1e7
    moments = latents.Moments(4)
    for batch in vectors.split(sizes):
        moments.add(batch)
    found, whole = moments.solve(4), latents.principal(vectors, 4)
    torch.testing.assert_close(moments.scatter / 299, torch.from_numpy(np.cov(vectors.T.numpy())), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.vectors, whole.vectors, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.scales, whole.scales)


def test_planted_directions_of_w_are_found() -> None:
    planted = axes(3, 16)[:3]
    w = draw(0, 4000, 3) * torch.tensor([5.0, 3, 2]) @ planted + draw(1, 4000, 16) * 0.1 + draw(2, 16)
    found = latents.principal(w.float(), 3)
    assert (likeness(found.vectors, planted) > 0.999).all()
    np.testing.assert_allclose(found.scales, [5, 3, 2], rtol=0.05)
    assert found.shares.sum() > 0.99


def test_regression_finds_the_latents_that_move_planted_featuremaps() -> None:
    """Featuremaps are linear in z: along the rows of `planted`, z makes 5, 3 and 2 times as much of a feature."""
    planted, features = axes(4, 10), axes(5, 40)[:10]
    strengths = torch.tensor([5.0, 3, 2, *[0.2] * 7])
    z = draw(0, 6000, 10)
    maps = z @ planted.T * strengths @ features + draw(1, 40)
    basis = latents.principal(maps, 3)
    assert basis.mean is not None
    coordinates = (maps - basis.mean) @ basis.vectors.T.double()
    found = latents.regressed(z, coordinates)
    assert (likeness(found, planted[:3]) > 0.998).all()
    np.testing.assert_allclose(found.norm(dim=1), [1 / 5, 1 / 3, 1 / 2], rtol=0.02)


def test_regression_is_least_squares_in_batches() -> None:
    z, x = draw(0, 200, 5), draw(1, 200, 3) * torch.tensor([100.0, 1, 0.01])
    truth = np.linalg.lstsq(x.numpy(), z.numpy(), rcond=None)[0]
    np.testing.assert_allclose(latents.regressed(z, x), truth, rtol=1e-5)
    regression = latents.Regression(5, 3)
    for part in (slice(7), slice(7, 200)):
        regression.add(z[part].float(), x[part].float())
    np.testing.assert_allclose(regression.solve(), truth, rtol=1e-3)


def test_regression_on_a_coordinate_that_never_changes_leaves_it_at_zero() -> None:
    z, x = draw(0, 50, 4), draw(1, 50, 2)
    x[:, 1] = 0
    found = latents.regressed(z, x)
    assert found[1].abs().max() < 1e-12
    np.testing.assert_allclose(found[0], (x[:, 0] @ z) / (x[:, 0] @ x[:, 0]), rtol=1e-5)


def test_planted_directions_of_weights_are_found() -> None:
    planted = axes(6, 12)
    stretched = axes(7, 20)[:, :12] * torch.tensor([9.0, 7, 5, *[0.5] * 9]) @ planted  # (20, 12)
    found = latents.closed_form([stretched[:8].float(), stretched[8:].float()], 3)
    torch.testing.assert_close(likeness(found.vectors, planted[:3]), torch.ones(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.scales, torch.tensor([9.0, 7, 5]))
    torch.testing.assert_close(found.shares, torch.tensor([81.0, 49, 25]) / (155 + 9 * 0.25))
    assert found.mean is None


def test_no_other_step_of_the_same_length_changes_more() -> None:
    """The definition, eq. 3 of SeFa: the unit step n that maximises ‖A n‖², found by climbing."""
    weights = [draw(k, 9, 6) for k in range(3)]
    step = torch.ones(6).double()
    for _ in range(3000):
        step = sum((weight.T @ (weight @ step) for weight in weights), torch.zeros(6).double())
        step /= step.norm()
    found = latents.closed_form(weights, 1)
    torch.testing.assert_close(likeness(found.vectors, step[None]), torch.ones(1).double())
    changed = sum(float((weight @ step).square().sum()) for weight in weights)
    assert float(found.scales[0]) == pytest.approx(math.sqrt(changed), rel=1e-6)


def test_rows_of_weights_count_as_they_are() -> None:
    weight = torch.tensor([[10.0, 0], [0, 1], [0, 1]])  # with rows of unit length the second axis would win
    assert latents.closed_form([weight], 1).vectors.tolist() == [[1, 0]]


def test_first_convolutions_are_read_as_their_docstring_says() -> None:
    z = torch.eye(5)[:, :, None, None]
    flat, raised = nn.Conv2d(5, 7, 4, padding=3, bias=False), nn.ConvTranspose2d(5, 7, 4, bias=False)
    for part, rows in (
        (flat, flat.weight.movedim(1, 3).flatten(0, 2)),
        (raised, raised.weight.flatten(1).T),
    ):
        drawn = part(z).flatten(1).T.detach()  # (7 · 16, 5), the matrix of the map
        found, truth = latents.closed_form([rows], 5), torch.linalg.svdvals(drawn)
        torch.testing.assert_close(found.scales, truth)
        torch.testing.assert_close((drawn @ found.vectors.T).norm(dim=0), truth)


def test_directions_that_cannot_be_found() -> None:
    vectors = draw(0, 4, 6)
    with pytest.raises(UsageError, match=r"4 directions: .*1 and 3 .*4 vectors .*6"):
        latents.principal(vectors, 4)
    with pytest.raises(UsageError, match="0 directions"):
        latents.principal(vectors, 0)
    with pytest.raises(UsageError, match=r"7 directions: .*1 and 6"):
        latents.closed_form([vectors], 7)
    with pytest.raises(UsageError, match=r"2 weights .*\[5, 6\]"):
        latents.closed_form([vectors, vectors[:, 1:]], 1)
    with pytest.raises(UsageError, match="0 weights"):
        latents.closed_form([], 1)
    with pytest.raises(DissectError, match="Nothing varies"):
        latents.principal(torch.ones(5, 3), 1)
    vectors[2, 3] = math.inf
    for broken in (lambda: latents.principal(vectors, 2), lambda: latents.closed_form([vectors], 2)):
        with pytest.raises(DissectError, match="not finite"):
            broken()
    with pytest.raises(DissectError, match="not finite"):
        latents.regressed(vectors, vectors[:, :2])
