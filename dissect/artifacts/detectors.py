"""Detectors of units behind artifacts: functions from a view of a layer to a score for each unit and sample.

More is more suspect. Scores of different detectors, or of layers, are not comparable. N samples, U units, maps h×w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from ...hooks.errors import DissectError, UsageError
from ..causes.first_order import Change
from ..fidelity.distances import frechet as frechet_distance
from ..fidelity.distances import frechet_gradient
from ..fidelity.features import Features
from ..interventions.areas import Variants
from ..runtime import distributed
from ..subjects.subject import Subject, failing
from .layer_view import LayerView, reduced

Floats = NDArray[np.float64]

TOP, LEAST = 0.02, 8  # a unit's most-activating samples: this share, at least so many
WORST = 0.1  # share of samples that count as the worst
RARE = 0.3  # activation rate up to which a unit at a position is rare (Choi et al. 2022)
AROUND, ANGLE = 8, 0.3  # latents around each, and how far: an angle
FAR = 2**40  # number of the first of these latents: none that any run sees
SORTED = 2**24  # activations that are sorted at once
CANDIDATES, TRIED = 32, 256  # of greedy removal: units, samples


@dataclass(frozen=True, kw_only=True)
class Scores:
    """units (U,), samples (N,): more is more suspect."""

    units: Floats
    samples: Floats


def flagged(view: LayerView) -> Scores:
    """Units that are active where, or when, the user marked samples as bad.

    With painted masks (Bau et al. 2019, section 4.3, made a number): IoU of the unit's region with the marked regions,
    less the IoU that an unrelated region of its size would have, at the threshold where that is greatest, on the
    layer's cells; a cell is marked if half of it is, or if no other of its image is marked more. Without the
    subtraction a unit that draws the whole sky would win over one that is active on part of the marks and nowhere else.
    With marked samples only: the share of marked ones among the unit's most-activating samples (2 %, at least 8), which
    is what one sees when looking at its top images; ties by the probability that a marked sample's peak exceeds
    another's. Tousi et al. 2021 rank by IoU with the regions that a classifier of artifacts looks at; here a person
    marks them.
    A sample's score: the mean of the ten best units' peaks in it, each as its rank among the samples.
    """
    if view.flags is None:
        raise UsageError("The detector flagged needs --flags: a text file of sample numbers, or a folder of masks.")
    marked = torch.from_numpy(view.flags.marked)
    ranks = torch.from_numpy(rankdata(view.peaks.numpy(), axis=0))  # (N, U) from 1; ties get their mean
    if view.flags.regions is not None:
        units = _excess_iou(view.maps, _cells(view.flags.regions, view.maps.shape[2], view.maps.shape[3]))
    else:
        top = _top(view.peaks)
        above = ranks[marked].mean(0) - (int(marked.sum()) + 1) / 2  # how many others a marked one exceeds, on average
        units = marked[top].double().mean(0) + above / len(marked) * 1e-3
        units[view.peaks.amax(0) == view.peaks.amin(0)] = 0  # a unit that peaks alike everywhere tells nothing
    best = units.argsort(dim=0, descending=True, stable=True)[:10]
    return Scores(units=units.numpy(), samples=(ranks[:, best].mean(1) / len(marked)).numpy())


def rare(view: LayerView) -> Scores:
    """Units that are rarely on, in samples where many such are (Choi et al. 2022, rareness score).

    A unit is on at a position where its activation is above 0; it is rare there if 0 < share of samples ≤ 0.3. A
    sample's score is the number of rare units and positions that are on in it. A unit's score is the mean number of its
    rare positions that are on in the worst tenth of the samples; the paper scores samples only.
    """
    rate = torch.zeros(view.maps.shape[1:], dtype=torch.float64)
    for maps in view.maps.split(128):
        rate += (maps > 0).double().sum(0)
    rate /= len(view.maps)
    uncommon = (rate > 0) & (rate <= RARE)
    own = torch.cat([((maps > 0) & uncommon).flatten(2).sum(2) for maps in view.maps.split(128)]).double()  # (N, U)
    samples = own.sum(1)
    return Scores(units=own[_worst(samples)].mean(0).numpy(), samples=samples.numpy())


def local(view: LayerView) -> Scores:
    """Units much stronger at a latent than around it (after Jeong et al. 2022, local activation).

    Exactly: around latent z lie z_k = cos(0.3) z + sin(0.3) e_k, k = 1 … 8, e_k other latents of the same source, so
    that z_k has z's distribution where that is normal. A unit's local activation in a sample is
    L = max over positions of [a(z) − mean_k a(z_k)] / s, s its root mean square activation. A unit's score is the mean
    of L over its most local samples (2 %, at least 8); a sample's score is the mean over units of L², which counts few
    strong ones more than many weak ones.
    """
    subject, excesses = view.subject, []
    for rows, batch in subject.batches(view.samples):
        latents = subject.generator.latents(batch)
        around = torch.zeros_like(view.maps[rows], dtype=torch.float32)
        for k in range(AROUND):
            others = [FAR + index * AROUND + k for index in batch]
            near = np.cos(ANGLE) * latents + np.sin(ANGLE) * subject.generator.latents(others)
            around += reduced(subject.maps_of(near)).float() / AROUND
        excesses.append((view.maps[rows].float() - around).amax((2, 3)) / view.strength)
        view.advance(AROUND * len(batch))
    above = torch.cat(distributed.in_order(excesses)).clamp(min=0).double()  # (N, U)
    strongest = above.sort(0, descending=True).values[: _top_count(len(above))]
    return Scores(units=strongest.mean(0).numpy(), samples=above.square().mean(1).numpy())


def metric(view: LayerView) -> Scores:
    """Units whose most-activating images are farthest from the reference (Bau et al. 2019, the automatic variant).

    A unit's score is the Fréchet distance, by torch-fidelity, between the features of its most-activating images (2 %,
    at least 8) and the reference, in the reference's 32 first principal directions. A sample's score is the squared
    Mahalanobis distance of its image there.
    """
    features, reference = _projected(view)
    centred = features - reference.mean(0)
    samples = (centred.square() / reference.var(0).clamp(min=1e-9)).mean(1)
    units = distributed.in_order(
        [frechet_distance(features[top], reference) for top in distributed.mine(list(_top(view.peaks).T))]
    )
    return Scores(units=np.array(units), samples=samples.numpy())


def greedy(view: LayerView) -> Scores:
    """Greedy removal: the most suspect units by `metric`, tried in turn and kept out if images come nearer.

    The 32 units of highest `metric` are ablated, each alone, on 256 of the samples; in the order of the Fréchet
    distance that each leaves, they are ablated one after another, and a unit stays out if that lowers the distance
    further. Score: by how much it did, in its turn; the others get what they did alone, less the greatest of these, so
    that units that stayed out come first. Samples are scored as by `metric`.
    """
    first = metric(view)
    _, reference = _projected(view)
    width = len(first.units)
    candidates = np.argsort(-first.units, kind="stable")[:CANDIDATES]
    start = _distance_without(view, [[]], reference)[0]
    alone = start - np.array(_distance_without(view, [[unit] for unit in candidates], reference))
    units = np.full(width, -np.inf)
    units[candidates] = alone - alone.max() - 1e-9
    removed: list[int] = []
    smallest = start
    for unit in candidates[np.argsort(-alone, kind="stable")]:
        distance = _distance_without(view, [[*removed, unit]], reference)[0]
        if distance < smallest:
            units[unit], smallest = smallest - distance, distance
            removed.append(int(unit))
    untried = np.isinf(units)  # they come last, in the order of `metric`
    units[untried] = units[~untried].min() - 2 + first.units[untried] / (1 + np.abs(first.units).max())
    return Scores(units=units, samples=first.samples)


def realism(view: LayerView) -> Scores:
    """Units whose removal would make the least real images more real, by gradient.

    R, a realism score of images, is any differentiable function, such as the GAN's own discriminator; without one, the
    log-density of the image's features under a normal distribution with the reference's mean and variances. To first
    order, ablating a unit changes R by −Σ a ∂R/∂a over positions (Grad-CAM weighs by the same gradient, Selvaraju et
    al. 2017); the gradient passes saturated pixels as if they were not. A unit's score is its mean over the tenth of
    the samples with least R; a sample's is −R.
    """
    score = view.realism or _density(view)
    subject = view.subject
    values: list[Tensor] = []
    with torch.inference_mode(), failing("the realism score"):
        for _, batch in subject.batches(view.samples):
            latents = subject.generator.latents(batch)
            values.append(score(subject.draw(subject.featuremaps(batch), latents)).flatten().cpu().double())
            view.advance(len(batch))
    scores = torch.cat(distributed.in_order(values))
    if scores.shape != (len(view.samples),) or not bool(scores.isfinite().all()):
        raise DissectError(
            f"The realism score returned the shape {tuple(scores.shape)} or numbers that are not finite; it must "
            "return (N,) finite numbers."
        )
    worst = _worst(-scores)
    effects = _effects(view, [view.samples[int(row)] for row in worst], lambda images, _: score(images).sum())
    if not bool(effects.isfinite().all()):
        raise DissectError("The gradient of the realism score is not finite; give another --realism.")
    return Scores(units=effects.mean(0).numpy(), samples=(-scores).numpy())


def frechet(view: LayerView) -> Scores:
    """Units whose ablation would bring the images, as a set, nearer to the reference, by gradient.

    The Fréchet distance of the samples from the reference, in its 32 first principal directions, has a gradient in
    closed form with respect to the features of each sample, see `frechet_gradient`. Passed back through feature network
    and generator it tells what ablating a unit does to the distance, to first order: −Σ a ∂/∂a over positions and
    samples (attribution patching, Nanda 2022). A unit's score is the fall of the distance. A sample's score is how far
    its features are from where the optimal map of the one normal distribution to the other takes them: what the
    gradient says, times N / 2.
    """
    features, reference = _projected(view)
    extract = _with_gradient(view)
    assert view.reference is not None
    slopes = frechet_gradient(features, reference)  # (N, d)
    by_features = slopes @ view.directions[1].T / view.reference.standard.scale  # (N, D), by the raw features
    by_features = by_features.to(view.subject.generator.device, torch.float32)
    effects = _effects(view, view.samples, lambda images, rows: (extract(images) * by_features[rows]).sum())
    return Scores(units=-effects.sum(0).numpy(), samples=(slopes.norm(dim=1) * len(slopes) / 2).numpy())


DETECTORS: dict[str, Callable[[LayerView], Scores]] = {
    "flagged": flagged,
    "rare": rare,
    "local": local,
    "metric": metric,
    "greedy": greedy,
    "realism": realism,
    "frechet": frechet,
}
NEED_REFERENCE = ("metric", "greedy", "realism", "frechet")


def images_drawn(detector: str, samples: int) -> int:
    """How many images, about, a detector draws beyond those of the samples: for its progress bar."""
    match detector:
        case "local":
            return AROUND * samples
        case "greedy":
            return (2 * CANDIDATES + 1) * min(samples, TRIED)
        case "realism":
            return samples + -(-samples // round(1 / WORST))  # all, then the worst again, rounded up
        case "frechet":
            return samples
    return 0


def _top_count(count: int) -> int:
    """How many samples are a unit's most-activating ones."""
    return min(count, max(LEAST, round(TOP * count)))


def _top(peaks: Tensor) -> Tensor:
    """(n, U) each unit's most-activating samples."""
    return peaks.argsort(dim=0, descending=True, stable=True)[: _top_count(len(peaks))]


def _worst(samples: Tensor) -> Tensor:
    """The tenth of the samples with the highest score."""
    return samples.argsort(dim=0, descending=True, stable=True)[: max(1, round(WORST * len(samples)))]


def _cells(regions: NDArray[np.bool_], height: int, width: int) -> Tensor:
    """(N, H, W) marked pixels -> (N, h, w) marked cells; see `flagged`."""
    cells = []
    for batch in torch.from_numpy(regions).split(64):
        share = F.adaptive_avg_pool2d(batch[:, None].float(), (height, width))[:, 0]
        cells.append((share >= 0.5) | ((share > 0) & (share == share.amax((1, 2), keepdim=True))))
    return torch.cat(cells)


def _excess_iou(maps: Tensor, cells: Tensor) -> Tensor:
    """maps (N, U, h, w), cells (N, h, w) bool -> (U,) IoU less chance of the best region {a > t} with the cells."""
    marked = cells.flatten()
    total = marked.sum().double()
    size = torch.arange(1, len(marked) + 1).double()
    marked_share, region_share = total / len(marked), size / len(marked)
    chance = marked_share * region_share / (marked_share + region_share - marked_share * region_share)
    best = []
    for units in maps.split(max(1, SORTED // len(marked)), dim=1):
        values, order = units.transpose(0, 1).flatten(1).float().sort(dim=1, descending=True, stable=True)  # (u, N·h·w)
        hits = marked[order].cumsum(1).double()
        excess = hits / (size + total - hits) - chance
        inside_ties = values[:, :-1] == values[:, 1:]  # a threshold takes all of several equal values
        excess[:, :-1][inside_ties] = 0
        best.append(excess.amax(1))
    return torch.cat(best)


def _projected(view: LayerView) -> tuple[Tensor, Tensor]:
    """(N, d) and (M, d): features of the samples and of the reference in the reference's first principal directions."""
    mean, directions = view.directions
    assert view.features is not None
    assert view.reference is not None
    return (view.features - mean) @ directions, (view.reference.features - mean) @ directions


@torch.inference_mode()
def _distance_without(view: LayerView, sets: list[list[int]], reference: Tensor) -> list[float]:
    """Fréchet distances, in principal directions, of the first 256 samples with each set of units ablated."""
    assert view.extract is not None
    assert view.reference is not None
    subject, samples = view.subject, view.samples[:TRIED]
    width = view.maps.shape[1]
    weight = torch.zeros(len(sets), 1, width)
    for row, members in enumerate(sets):
        weight[row, 0, members] = 1
    variants = Variants(weight=weight, value=torch.zeros(width))
    batches: list[list[Tensor]] = [[] for _ in sets]
    for rows, batch in subject.batches(samples):
        x, latents = subject.featuremaps(batch), subject.generator.latents(batch)
        for index, of_set in enumerate(batches):
            changed = variants.apply(x, None, slice(index, index + 1), rows)
            of_set.append(view.reference.standard.apply(view.extract(subject.draw(changed, latents))))
            view.advance(len(batch))
    mean, directions = view.directions
    sets_features = [torch.cat(distributed.in_order(of_set)) for of_set in batches]
    return distributed.on_first(
        lambda: [frechet_distance((features - mean) @ directions, reference) for features in sets_features]
    )


def _effects(view: LayerView, samples: Sequence[int], total: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """(n, U) float64: what ablating each unit adds, to first order, to a sample's share of a total.

    Args:
        total: images (k, 3, H, W) of the rows of `samples` -> a number, the sum over these images.
    """
    subject, effects = view.subject, []
    for rows, batch in subject.batches(samples):
        x = subject.featuremaps(batch).clone().requires_grad_()
        with torch.enable_grad(), failing(f"samples {batch[0]} …"):
            images = _through_the_clamp(subject, x, subject.generator.latents(batch).clone())
            (slope,) = torch.autograd.grad(total(images, rows), x)
        effects.append(Change().effects(x.detach(), slope).cpu().double())
        view.advance(len(batch))
    return torch.cat(distributed.in_order(effects))


def _through_the_clamp(subject: Subject, maps: Tensor, latents: Tensor) -> Tensor:
    """The images of these maps; their gradient is that of the unclamped ones, since artifacts are often saturated."""
    out = subject.above(maps, latents)
    images = subject.generator.to_images(out)
    low, high = subject.generator.output_range
    free = (out.float() - low) / (high - low)
    return free + (images - free).detach()


def _density(view: LayerView) -> Callable[[Tensor], Tensor]:
    """The default realism score; see `realism`."""
    if view.reference is None:
        raise UsageError("The detector realism needs --realism, a differentiable score of images, or --reference.")
    extract = _with_gradient(view)
    device = view.subject.generator.device
    mean, scale = (value.to(device, torch.float32) for value in view.reference.standard)
    return lambda images: -((extract(images) - mean) / scale).square().mean(1) / 2


def _with_gradient(view: LayerView) -> Features:
    """The feature network, if a gradient passes through it."""
    assert view.extract is not None
    if not view.extract.differentiable:
        raise UsageError(
            "Inception's features have no gradient here; leave --inception out, or take the detector metric or greedy, "
            "or realism with --realism."
        )
    return view.extract
