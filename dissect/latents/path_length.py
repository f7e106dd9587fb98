"""Perceptual path length (Karras et al. 2019, section 4.1), by torch-fidelity's definition.

How much an image changes for a small step of its latent, d(G(z), G(z′)) / ε², where z′ lies the share ε of the way from
z to another latent; the mean over many pairs but those outside their 1st and 99th percentile. Steps are taken at the
beginning of each path only, as torch-fidelity takes them. Its interpolations and its LPIPS are called; the rest is
written anew, since its own loop takes only its own latents, and version 0.4 fails under NumPy 2.4.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import DissectError, UsageError, one_line
from ..generators.checkpoints import load_state_dict
from ..runtime.random_streams import BOOTSTRAP, dice
from ..stats.significance import ROUNDS, interval

Similarity = Callable[[Tensor, Tensor], Tensor]  # two of images (n, 3, H, W) in [0, 255] -> distances (n,)

EPSILON = 1e-4
HOWS = ("lerp", "slerp_any", "slerp_unit")  # torch-fidelity's names; without being told it takes the first
PERCENTILES = (1, 99)
BATCH = 32  # pairs
SIDE = 64  # to which torch-fidelity resizes images before it compares them


@dataclass(frozen=True, kw_only=True)
class PathLength:
    """The mean and standard deviation of the trimmed distances, and all of them.

    low, high: ends of the mean's 95 % interval, by drawing pairs with replacement and trimming anew. distances: (N,),
    already divided by ε², untrimmed and in the order of the pairs.
    """

    mean: float
    low: float
    high: float
    std: float
    distances: NDArray[Any]


def path_length(
    images_of: Callable[[Tensor], Tensor],
    starts: Tensor,
    ends: Tensor,
    *,
    similarity: Similarity,
    epsilon: float = EPSILON,
    how: str = "slerp_any",
    fixed: int = 0,
    eight_bit: bool = True,
    batch: int = BATCH,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> PathLength:
    """The perceptual path length over N pairs of latents.

    Args:
        images_of: latents (n, …) -> images (n, 3, H, W) in [0, 1].
        starts, ends: (N, …) latents, each pair drawn independently; they are moved over all axes but the first, in
            their own precision.
        similarity: is given images in [0, 255].
        epsilon: the share of the path that a step takes.
        how: one of `HOWS`.
        fixed: the last so many entries of a latent, such as a class as one-hot, stay as they are in `starts`.
        eight_bit: whether images are rounded to uint8 before they are compared, as torch-fidelity expects them unless
            told otherwise; else they are float32, as in StyleGAN's code. At ε = 1e-4 nearly all pixels change by less
            than a level. Rounded, a change of d levels is 0 or 1, and 1 with probability d, so that its square counts
            as d: the figure is larger, and says how many pixels cross a level. The two must never be compared.
        seed: of the interval.
        advance: called with the number of images drawn, after each batch.

    Raises:
        UsageError: fewer than two pairs, an unknown path, or a step that is not positive.
        DissectError: images that are not finite.
    """
    if how not in HOWS:
        raise UsageError(f"how={how!r}: must be one of {', '.join(HOWS)}.")
    if not epsilon > 0:
        raise UsageError(f"epsilon={epsilon}: must be above 0, and small, such as {EPSILON}.")
    if starts.shape != ends.shape or len(starts) < 2:
        raise UsageError(
            f"starts {tuple(starts.shape)} and ends {tuple(ends.shape)}: must have the same shape, of at least 2 pairs."
        )
    batches = []
    with torch.inference_mode():
        moved = _moved(starts, ends, epsilon, how, fixed)
        for first, second in zip(starts.split(batch), moved.split(batch), strict=True):
            images = images_of(torch.cat([first, second]))  # (2n, 3, H, W): both in one batch, so that they round alike
            if not bool(images.isfinite().all()):
                raise DissectError("Images along the path are not finite; look at the generator's images.")
            images = (images * 255).round().to(torch.uint8) if eight_bit else images * 255
            distance = similarity(*images.chunk(2))
            if distance.shape != (len(first),) or not bool(distance.isfinite().all()):
                raise DissectError(
                    f"The similarity of {len(first)} pairs of images must be as many finite numbers; it returned "
                    f"{tuple(distance.shape)}, finite: {int(distance.isfinite().sum())}."
                )
            batches.append((distance / epsilon**2).cpu().numpy())
            advance(len(images))
    distances = np.concatenate(batches)
    inner = trimmed(distances)
    means = [
        trimmed(distances[dice(seed, BOOTSTRAP, index).integers(len(distances), size=len(distances))]).mean()
        for index in range(ROUNDS)
    ]
    low, high = interval(np.array(means, np.float64))
    return PathLength(
        mean=float(inner.mean()), low=float(low), high=float(high), std=float(inner.std()), distances=distances
    )


def _moved(starts: Tensor, ends: Tensor, epsilon: float, how: str, fixed: int) -> Tensor:
    """(N, …) latents, a share `epsilon` of the way from the starts to the ends."""
    from torch_fidelity.utils import batch_interp

    start, end = starts.flatten(1), ends.flatten(1)
    free = start.shape[1] - fixed
    moved = batch_interp(start[:, :free], end[:, :free], epsilon, how)
    return torch.cat([moved, start[:, free:]], 1).view_as(starts)


def trimmed(distances: NDArray[Any]) -> NDArray[Any]:
    """distances (N,) -> those between the 1st and the 99th percentile, both rounded outwards to one that there is.

    Computed in the dtype of the distances, on which it depends where a percentile falls between two.
    """
    low = np.percentile(distances, PERCENTILES[0], method="lower")
    high = np.percentile(distances, PERCENTILES[1], method="higher")
    return distances[(low <= distances) & (distances <= high)]


def open_lpips(folder: str | Path | None = None, device: str | torch.device = "cpu") -> Similarity:
    """The LPIPS distance (Zhang et al. 2018) on VGG-16's features, torch-fidelity's, of images at 64×64.

    Args:
        folder: where `weights-vgg16-lpips.pth` and `vgg16-397923af.pth` lie; None: torch.hub's cache. Nothing is
            downloaded.

    Raises:
        UsageError: one of them is not there.
        DissectError: one of them cannot be opened, or holds something else.
    """
    from torch_fidelity.sample_similarity_lpips import URL_VGG16_LPIPS, SampleSimilarityLPIPS
    from torchvision.models import VGG16_Weights

    folder = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)
    urls = (URL_VGG16_LPIPS, VGG16_Weights.IMAGENET1K_V1.url)
    paths = [folder / url.rpartition("/")[2] for url in urls]
    for path, url in zip(paths, urls, strict=True):
        if not path.is_file():
            raise UsageError(f"LPIPS needs the file {path}, which does not exist; download it from {url}.")
    with tempfile.TemporaryDirectory() as safe_hub:
        # torch-fidelity would unpickle whatever the files hold; it gets files that were just written from tensors
        (safe := Path(safe_hub) / "checkpoints").mkdir()
        for path in paths:
            torch.save(load_state_dict(path), safe / path.name)
        try:
            with _hub(safe_hub):
                network = SampleSimilarityLPIPS("lpips-vgg16", sample_similarity_resize=SIDE)
        except (RuntimeError, AttributeError, KeyError) as error:
            raise DissectError(
                f"{' and '.join(map(str, paths))} do not hold LPIPS and VGG-16 ({one_line(error)}); download "
                f"{' and '.join(urls)}."
            ) from error
    return network.to(device)


@contextmanager
def _hub(folder: str) -> Iterator[None]:
    """Let torch.hub look for its files in this folder, for the whole process, until the end of the block."""
    before = torch.hub._hub_dir  # None where TORCH_HOME decides; restoring get_dir() would end that
    torch.hub.set_dir(folder)
    try:
        yield
    finally:
        torch.hub._hub_dir = before
