"""Directions of the latent that change images most: GANSpace from samples, SeFa from the weights alone.

GANSpace (Härkönen et al. 2020): principal components of w, or of the featuremaps of an early layer, regressed to the
latents. SeFa (Shen and Zhou 2021): the directions of the latent that the first affine maps stretch most. Neither says
what a direction changes in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...hooks.errors import DissectError, UsageError


@dataclass(frozen=True, kw_only=True)
class Directions:
    """K directions, the strongest first, float32 on the CPU.

    Attributes:
        vectors: (K, D), of unit length; the entry of each that is largest in size is positive.
        scales: (K,); for principal components the standard deviation along each, for SeFa the singular values.
        shares: (K,), in [0, 1]; of all variance, or of the sum of squares of all weights.
        mean: (D,), of the vectors; None for SeFa, which uses no vectors.
    """

    vectors: Tensor
    scales: Tensor
    shares: Tensor
    mean: Tensor | None = None


class Moments:
    """Mean and scatter of vectors (n, D) that come in batches, in float64; memory is D², whatever their number.

    Source: the pairwise update of Chan, Golub and LeVeque 1983, Algorithms for Computing the Sample Variance, which
    does not cancel where the mean is large.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, batch: Tensor) -> None:
        """Add vectors (n, D), n > 0, of any device and dtype."""
        batch = batch.detach().cpu().double()
        mean = batch.mean(0)
        centred, shift = batch - mean, mean - self.mean
        total = self.count + len(batch)
        self.scatter += centred.T @ centred + torch.outer(shift, shift) * (self.count * len(batch) / total)
        self.mean += shift * (len(batch) / total)
        self.count = total

    def solve(self, count: int) -> Directions:
        """The `count` principal components, of variances with N − 1 in the denominator.

        Raises:
            UsageError: `count` exceeds the number of entries, or the number of vectors minus one.
            DissectError: the vectors are not finite, or all the same.
        """
        most = min(len(self.mean), self.count - 1)
        if not 1 <= count <= most:
            raise UsageError(
                f"{count} directions: must be between 1 and {most} for {self.count} vectors of width {len(self.mean)}."
            )
        variances, shares, vectors = _leading(self.scatter / (self.count - 1), count)
        return Directions(vectors=vectors, scales=variances.sqrt().float(), shares=shares, mean=self.mean.float())


def principal(vectors: Tensor, count: int) -> Directions:
    """vectors (N, D) -> their `count` principal components, by a deterministic computation.

    Source: Härkönen et al. 2020, section 2.2, where the vectors are w. Raises the errors of `Moments.solve`.

    >>> principal(torch.tensor([[0.0, 1.0], [3.0, 1.0], [6.0, 1.0]]), 1).vectors.tolist()
    [[1.0, 0.0]]
    """
    moments = Moments(vectors.shape[1])
    moments.add(vectors)
    return moments.solve(count)


class Regression:
    """Regression of latents (n, D) on coordinates (n, K) by least squares, in batches; memory is K (K + D).

    Args:
        width: D.
        count: K.
    """

    def __init__(self, width: int, count: int) -> None:
        self.squares = torch.zeros(count, count, dtype=torch.float64)
        self.products = torch.zeros(count, width, dtype=torch.float64)

    def add(self, latents: Tensor, coordinates: Tensor) -> None:
        """Add latents (n, D) and the coordinates (n, K) of the featuremaps that they lead to."""
        z, x = latents.detach().cpu().double(), coordinates.detach().cpu().double()
        self.squares += x.T @ x
        self.products += x.T @ z

    def solve(self) -> Tensor:
        """(K, D) float32: the change of the latent for a coordinate that grows by one.

        Raises:
            DissectError: latents or coordinates are not finite.
        """
        if not bool(self.squares.isfinite().all() and self.products.isfinite().all()):
            raise DissectError("Latents or coordinates are not finite; look at the generator's featuremaps.")
        # where coordinates depend on each other, gelsd gives the solution of least norm
        return torch.linalg.lstsq(self.squares, self.products, driver="gelsd").solution.float()


def regressed(latents: Tensor, coordinates: Tensor) -> Tensor:
    """latents (N, D), principal coordinates (N, K) of their featuremaps -> directions (K, D) of the latent.

    U minimises Σ ‖U x − z‖² over all samples, without intercept, since the coordinates have mean zero. Rows are not
    normalised; dividing by their length gives the directions of the paper's figures.

    Source: Härkönen et al. 2020, section 2.2 (for generators without w, such as BigGAN). Raises the errors of
    `Regression.solve`.
    """
    regression = Regression(latents.shape[1], coordinates.shape[1])
    regression.add(latents, coordinates)
    return regression.solve()


def closed_form(weights: Sequence[Tensor], count: int) -> Directions:
    """Matrices (out, D), each of an affine map of the latent or style -> the `count` directions they stretch most.

    With A being all rows of all matrices, these are the eigenvectors of AᵀA of the largest eigenvalues. Rows are used
    as they are, as in the paper; the authors' code first scales each to unit length, and so gives other directions. A
    convolution of a 1×1 map has a row for each position of its output: `weight.movedim(1, 3).flatten(0, 2)`; the matrix
    of a transposed convolution is `weight.flatten(1).T`.

    Source: Shen and Zhou 2021, section 3.2, equations 3 to 6.

    Raises:
        UsageError: no weights, weights of different D, or more directions than D.
        DissectError: the weights are not finite, or all zero.

    >>> closed_form([torch.tensor([[1.0, 0.0], [0.0, 3.0]])], 2).scales.tolist()
    [3.0, 1.0]
    """
    widths = sorted({weight.shape[1] for weight in weights})
    if len(widths) != 1:
        raise UsageError(f"{len(weights)} weights of widths {widths}: must be at least one, all of one width.")
    if not 1 <= count <= widths[0]:
        raise UsageError(f"{count} directions: must be between 1 and {widths[0]}, the width of the latent.")
    rows = torch.cat([weight.detach().cpu().double() for weight in weights])  # (Σ out, D)
    squares, shares, vectors = _leading(rows.T @ rows, count)
    return Directions(vectors=vectors, scales=squares.sqrt().float(), shares=shares)


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """A positive semidefinite matrix (D, D) -> its largest eigenvalues (K,), their shares (K,) and vectors (K, D)."""
    if not bool(matrix.isfinite().all()):
        raise DissectError("Weights or featuremaps are not finite, so there are no directions; look at the weights.")
    total = matrix.trace()
    if total == 0:
        raise DissectError("Nothing varies, so there are no directions; take other samples or another layer.")
    values, vectors = torch.linalg.eigh(matrix)  # ascending, in columns
    values = values.flip(0)[:count].clamp(min=0)  # rounding leaves zeros below zero
    rows = vectors.T.flip(0)[:count]  # (K, D)
    return values, (values / total).float(), signed(rows).float()


def signed(rows: Tensor) -> Tensor:
    """rows (K, D), each with the sign by which its largest entry in size is positive, since a direction has no sign.

    >>> signed(torch.tensor([[1.0, -2.0], [3.0, 1.0]]))
    tensor([[-1.,  2.],
            [ 3.,  1.]])
    """
    return rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
