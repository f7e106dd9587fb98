"""Where a generator's diversity dies: how many directions the samples span, and how alike they are, layer by layer.

For the same latents, two figures of each layer's activations. The effective rank (Roy and Vetterli 2007) tells how many
directions the samples differ in, whatever the scale; `alike`, how little they differ beside what they share, whatever
the directions. A projection shows in the first alone; a deviation that shrinks evenly, in the second alone. A rank is
at most the number of samples less one, and grows with it: only ranks of equally many samples compare.

Featuremaps are averaged to 4×4 cells at most, so that fine texture does not count as diversity of content. Images are
measured from mid-grey, since alikeness depends on where zero is.

Intervals: 95 %, over random halves of the samples, the same at every layer (the delete-half jackknife, see `fidelity`).
Of ranks and their ratios they are taken on logarithms. Half the samples have a lower rank, but only the spread of the
halves counts: the centre is the value of all samples.
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
ROUNDING = 16 * torch.finfo(torch.float32).eps ** 2  # share of a second moment: four roundings of float32 make as much
LOST = 1 / 3  # of the rank that a control keeps
LOST_ALONE, SURELY = 0.25, 0.5  # of the rank of the layer before, without a control; and the interval's upper end
SHRUNK = 0.1  # of the share of the second moment that differs between samples


def effective_rank(x: Tensor) -> float:
    """The number of directions in which samples differ: exp of the entropy of the shares of the deviation along them.

    Shares are of the sum of singular values. Squared, as variances, the few strongest would decide: a good network's
    samples differ in brightness and layout above all, and where it turns to these would pass for a loss, though all
    detail is still there. Of k equally strong directions both are k.

    Args:
        x: (N, …) finite activations of N samples.

    Returns:
        1 to N - 1; 1 for samples on a line, NaN where they differ by no more than rounding.

    Source: Roy and Vetterli 2007, The Effective Rank: A Measure of Effective Dimensionality, definition 1.
    """
    return _rank(_gram(x))


def alike(x: Tensor) -> float:
    """x (N, …), finite -> ‖mean‖² / mean ‖x‖², the share of the second moment that samples have in common, in [0, 1].

    1 where all samples are the same. Of independent samples around zero it is about 1 / N.
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
    """One row a layer in the order in which they run, a first one for the latents and a last one for the images.

    Args:
        generator: what is measured.
        layers: names, in any order.
        samples: 16 to 1024 indices.
        batch: samples of a forward pass. It changes nothing but rounding.
        advance: is called with the number of samples done.

    Columns: layer; dimensions, of what is compared; rank, alike and kept, each with _low and _high. `kept` is the rank
    divided by that of the row before, NaN in the first row.

    Raises:
        UsageError: too few or too many samples; a layer that does not exist, or has no row for each sample.
        DissectError: the network failed, a layer took no part, or its activations are not finite.
    """
    count = len(samples)
    if not FEWEST <= count <= MOST:
        raise UsageError(f"Diversity by layer is measured on {FEWEST} to {MOST} samples; {count} were given.")
    activations = _activations(generator, layers, samples, batch, advance)
    parts = [torch.arange(count), *(mine for mine, _ in halves(count, count, ROUNDS, 0))]
    before = np.full(len(parts), np.nan)
    table = []
    for layer, x in activations:
        gram = _gram(x)  # (N, N)
        grams = [gram[part][:, part] for part in parts]
        ranks = np.log([_rank(one) for one in grams])
        shared = np.array([_alike(one) for one in grams])
        low, high = np.clip(around(shared), 0, 1)
        table.append(
            {"layer": layer, "dimensions": x.shape[1]}
            | _of_logarithms("rank", ranks)
            | {"alike": shared[0], "alike_low": low, "alike_high": high}
            | _of_logarithms("kept", ranks - before)
        )
        before = ranks
    return pd.DataFrame(table)


def where_it_dies(table: pd.DataFrame, control: pd.DataFrame | None) -> str | None:
    """The layer at which samples become alike, or None; both tables as of `depth_table`, of the same latents.

    By rank first: of the layers that keep less than a third of what the control's keep, beyond both intervals, the one
    that keeps least beside it. The control is an untrained network of the same architecture: what a layer loses there,
    its shape loses. Without a control, a layer must keep less than a quarter, its interval below one half.

    Else by scale: of the layers where the share of the second moment that differs between samples, 1 - alike, falls to
    under a tenth of the layer before's, beyond both intervals, the one where it falls furthest. Here the control has no
    say: its weights are as large as the network's, so that a bias that drowns the latent does so in both.

    It tells where, not whether: a good network narrows as well, to what its data differ in. Where they keep least, the
    embedded ones keep about half of what an untrained one keeps. Only images less varied than real ones make it a loss.

    Raises:
        UsageError: the control is of other layers.
    """
    kept, died = table.kept, (table.kept < LOST_ALONE) & (table.kept_high < SURELY)
    if control is not None:
        if list(control.layer) != list(table.layer):
            raise UsageError("The control is of other layers than the table; measure both on the same ones.")
        kept = table.kept / control.kept
        died = (kept < LOST) & (table.kept_high < control.kept_low)
    varied = (1 - table.alike) / (1 - table.alike).shift()
    shrunk = 1 - table.alike_low < SHRUNK * (1 - table.alike_high).shift()
    shrunk &= table["rank"].shift().notna()  # what is all alike already cannot become so
    for left, lost in ((kept, died), (varied, shrunk)):
        if lost.any():
            return str(table.layer[left[lost].idxmin()])
    return None


def _gram(x: Tensor) -> Tensor:
    """x (N, …) -> its scalar products (N, N), in float64: so float32's digits outlast the subtraction of the mean."""
    rows = x.detach().flatten(1).cpu().double()
    return rows @ rows.T


def _rank(gram: Tensor) -> float:
    mean = gram.mean(0)  # of the products with each sample
    centred = gram - mean - mean[:, None] + mean.mean()
    if centred.trace() <= ROUNDING * gram.trace():
        return float("nan")
    deviations = torch.linalg.eigvalsh(centred).clamp(min=0).sqrt()  # rounding leaves zeros below zero
    return float(torch.special.entr(deviations / deviations.sum()).sum().exp())


def _alike(gram: Tensor) -> float:
    second = gram.diagonal().mean()
    return float((gram.mean() / second).clamp(0, 1)) if second > 0 else 1.0


def _of_logarithms(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """log values (1 + rounds,), the whole first -> the columns of the value and its interval."""
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
    """What each row of the table is made of, (N, D) float32 on the CPU."""
    for layer in layers:
        find_layer(generator.module, layer)
    order = [shape.name for shape in layer_shapes(generator.module, lambda: generator(generator.latents(samples[:1])))]
    idle = [layer for layer in layers if layer not in order]  # Tap will say so
    names = [*(layer for layer in order if layer in layers), *idle]
    parts: list[list[Tensor]] = [[] for _ in (LATENT, *names, IMAGE)]
    with at_work():
        for start in range(0, len(samples), batch):
            indices = samples[start : start + batch]
            with failing(f"samples {indices[0]} …"), Tap(generator.module, names) as tap:
                latents = generator.latents(indices)
                images = generator(latents)
                outputs = [latents, *(tap[layer] for layer in names), images - GREY]
            for name, part, x in zip((LATENT, *names, IMAGE), parts, outputs, strict=True):
                part.append(_rows(name, x, len(indices)))
            advance(len(indices))
    return list(zip((LATENT, *names, IMAGE), map(torch.cat, parts), strict=True))


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
