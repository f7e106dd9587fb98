"""Where a generator's diversity is lost: how many directions the samples span, and how alike they are, by layer.

Two figures describe each layer's activations, for the same latents. The effective rank (Roy and Vetterli 2007) says in
how many directions the samples differ, whatever the scale; `alike` says how little they differ relative to what they
have in common, whatever the directions. A projection changes only the first; a deviation that shrinks evenly changes
only the second. A rank is at most the number of samples minus one and grows with that number, so only ranks of equally
many samples can be compared.

Featuremaps are averaged to 4×4 cells at most, so that fine texture does not count as diversity of content. Images are
measured from mid-grey, since alikeness depends on where zero is.

Intervals are 95 % ones over random halves of the samples, the same at every layer (the delete-half jackknife, see
`fidelity`). Those of ranks and their ratios are taken on logarithms. Half the samples have a lower rank, but only the
spread of the halves is used: the centre is the value of all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import DissectError, UsageError
from ...hooks.layers import find_layer, layer_shapes
from ...hooks.tap import Tap
from ..generators.base import Generator
from ..runtime.resources import at_work
from ..stats.intervals import ROUNDS, around, halves
from ..subjects.subject import failing

LATENT, IMAGE = "latent", "image"
FEWEST, MOST = 16, 1024  # samples
CELLS = 4  # along each side of a featuremap
GREY = 0.5
ROUNDING = 16 * torch.finfo(torch.float32).eps ** 2  # share of a second moment that four roundings of float32 make
LOST = 1 / 3  # a layer that keeps less than this share of the rank that the control keeps there has lost diversity
LOST_ALONE, SURELY = 0.25, 0.5  # without a control: largest share of the previous layer's rank, and its upper end
SHRUNK = 0.1  # largest factor by which the varying share of the second moment falls at a layer that has shrunk


def effective_rank(x: Tensor) -> float:
    """The number of directions in which samples differ: exp of the entropy of the shares of the deviation along them.

    Shares are of the sum of singular values. With their squares, the variances, the few strongest directions would
    decide: samples of a good network differ in brightness and layout above all, and the layer that draws these would
    seem to lose diversity, though all detail is still there. For k equally strong directions both definitions give k.

    Args:
        x: (N, …) finite activations of N samples.

    Returns:
        1 to N - 1; 1 for samples on a line, NaN where they differ by no more than rounding.

    Source: Roy and Vetterli 2007, The Effective Rank: A Measure of Effective Dimensionality, definition 1.
    """
    return _rank(_gram(x))


def alike(x: Tensor) -> float:
    """x (N, …), finite -> ‖mean‖² / mean ‖x‖², the share of the second moment that samples have in common, in [0, 1].

    It is 1 where all samples are the same, and about 1 / N for independent samples around zero.

    >>> alike(torch.tensor([[3.0, 1.0], [3.0, -1.0]]))
    0.9
    """
    return _alike(_gram(x))


def depth_table(
    generator: Generator,
    layers: Sequence[str],
    samples: Sequence[int],
    batch: int,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Measure the diversity of every layer's activations.

    Args:
        generator: the generator to measure.
        layers: names, in any order.
        samples: 16 to 1024 indices.
        batch: samples of a forward pass. It changes nothing but rounding.
        advance: `advance(n)` is called after every n finished samples.

    Returns:
        One row a layer, in the order in which they run; the first row is of the latents, the last one of the images.

    Columns: layer; dimensions of the compared vectors; rank, alike and kept, each with _low and _high. `kept` is the
    rank divided by that of the row before, NaN in the first row.

    Raises:
        UsageError: too few or too many samples; a layer that does not exist, or has no row for each sample.
        DissectError: the network failed, a layer did not run, or its activations are not finite.
    """
    count = len(samples)
    if not FEWEST <= count <= MOST:
        raise UsageError(f"Diversity by layer: must have {FEWEST} to {MOST} samples; {count} were given.")
    activations = _activations(generator, layers, samples, batch, advance)
    subsets = [torch.arange(count), *(half for half, _ in halves(count, count, ROUNDS, 0))]  # all samples first
    log_ranks_before = np.full(len(subsets), np.nan)
    rows = []
    for layer, x in activations:
        gram = _gram(x)  # (N, N)
        grams = [gram[subset][:, subset] for subset in subsets]
        log_ranks = np.log([_rank(gram) for gram in grams])
        common = np.array([_alike(gram) for gram in grams])
        low, high = np.clip(around(common), 0, 1)
        rows.append(
            {"layer": layer, "dimensions": x.shape[1]}
            | _of_logarithms("rank", log_ranks)
            | {"alike": common[0], "alike_low": low, "alike_high": high}
            | _of_logarithms("kept", log_ranks - log_ranks_before)
        )
        log_ranks_before = log_ranks
    return pd.DataFrame(rows)


def where_it_dies(table: pd.DataFrame, control: pd.DataFrame | None) -> str | None:
    """The layer at which samples become alike, or None; both tables are from `depth_table`, of the same latents.

    The rank is looked at first. A layer has lost diversity if it keeps less than a third of what the same layer of the
    control keeps, and their intervals do not meet; the one that keeps the smallest share is returned. The control is an
    untrained network of the same architecture: what its layer loses is due to the layer's shape. Without a control, a
    layer must keep less than a quarter of the rank, and the upper end of its interval must be below one half.

    If no rank is lost, the scale is looked at. A layer has lost diversity if the share of the second moment that
    differs between samples, 1 - alike, is less than a tenth of that of the previous layer, and their intervals do not
    meet; the one where it falls furthest is returned. The control is of no use here: its weights are as large as the
    network's, so that a bias that drowns the latent does so in both.

    The result says where diversity falls, not whether it is too low: a good network narrows as well, to the directions
    in which its data differ. Where the embedded networks keep least, they keep about half of what an untrained one
    keeps. It is a loss only if the images are less varied than real ones.

    Raises:
        UsageError: the control has other layers.
    """
    kept, lost_rank = table.kept, (table.kept < LOST_ALONE) & (table.kept_high < SURELY)
    if control is not None:
        if list(control.layer) != list(table.layer):
            raise UsageError("The control has other layers than the table; measure both on the same layers.")
        kept = table.kept / control.kept
        lost_rank = (kept < LOST) & (table.kept_high < control.kept_low)
    varied = (1 - table.alike) / (1 - table.alike).shift()
    lost_scale = 1 - table.alike_low < SHRUNK * (1 - table.alike_high).shift()
    lost_scale &= table["rank"].shift().notna()  # where samples are alike already, no further layer can make them so
    for remaining, lost in ((kept, lost_rank), (varied, lost_scale)):
        if lost.any():
            return str(table.layer[remaining[lost].idxmin()])
    return None


def _gram(x: Tensor) -> Tensor:
    """x (N, …) -> its scalar products (N, N), float64, so that the digits of float32 survive subtracting the mean."""
    rows = x.detach().flatten(1).cpu().double()
    return rows @ rows.T


def _rank(gram: Tensor) -> float:
    """Scalar products (N, N) -> `effective_rank`."""
    mean = gram.mean(0)  # of the products with each sample
    centred = gram - mean - mean[:, None] + mean.mean()
    if centred.trace() <= ROUNDING * gram.trace():
        return float("nan")
    deviations = torch.linalg.eigvalsh(centred).clamp(min=0).sqrt()  # rounding leaves zeros below zero
    return float(torch.special.entr(deviations / deviations.sum()).sum().exp())


def _alike(gram: Tensor) -> float:
    """Scalar products (N, N) -> `alike`."""
    second_moment = gram.diagonal().mean()
    return float((gram.mean() / second_moment).clamp(0, 1)) if second_moment > 0 else 1.0


def _of_logarithms(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """Logarithms (1 + rounds,), that of all samples first -> the columns of the value and its interval."""
    low, high = np.exp(around(values))
    return {name: float(np.exp(values[0])), f"{name}_low": low, f"{name}_high": high}


@torch.inference_mode()
def _activations(
    generator: Generator,
    layers: Sequence[str],
    samples: Sequence[int],
    batch: int,
    advance: Callable[[int], None],
) -> list[tuple[str, Tensor]]:
    """The name and the activations (N, D), float32 on the CPU, of each row of the table."""
    for layer in layers:
        find_layer(generator.module, layer)
    order = [shape.name for shape in layer_shapes(generator.module, lambda: generator(generator.latents(samples[:1])))]
    idle = [layer for layer in layers if layer not in order]  # Tap raises an error that names them
    names = [*(layer for layer in order if layer in layers), *idle]
    batches: list[list[Tensor]] = [[] for _ in (LATENT, *names, IMAGE)]
    with at_work():
        for start in range(0, len(samples), batch):
            indices = samples[start : start + batch]
            with failing(f"samples {indices[0]} …"), Tap(generator.module, names) as tap:
                latents = generator.latents(indices)
                images = generator(latents)
                outputs = [latents, *(tap[layer] for layer in names), images - GREY]
            for name, rows, x in zip((LATENT, *names, IMAGE), batches, outputs, strict=True):
                rows.append(_rows(name, x, len(indices)))
            advance(len(indices))
    return list(zip((LATENT, *names, IMAGE), map(torch.cat, batches), strict=True))


def _rows(layer: str, x: Tensor, count: int) -> Tensor:
    """x (n, U, h, w) or (n, …) -> (n, D) float32 on the CPU."""
    if x.ndim < 2 or len(x) != count:
        raise UsageError(f"Layer {layer!r} outputs {tuple(x.shape)} for {count} samples; it must output (N, …).")
    x = x.float()
    if x.ndim == 4:
        x = F.adaptive_avg_pool2d(x, (min(x.shape[2], CELLS), min(x.shape[3], CELLS)))
    if not bool(x.isfinite().all()):
        raise DissectError(f"Activations of {layer!r} are not finite; look at that layer, or leave it out.")
    return x.flatten(1).cpu()
