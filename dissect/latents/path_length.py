"""Perceptual path length (Karras et al. 2019, section 4.1), by torch-fidelity's definition.

The path length says how much an image changes for a small step of its latent: d(G(z), G(z′)) / ε², where z′ is at ε on
the path from z to another latent. It is the mean over many pairs, without those below the 1st or above the 99th
percentile. Steps are taken only at the beginning of each path, as torch-fidelity does. Its interpolations and its LPIPS
are called; its loop is not, since it takes only its own latents, and version 0.4 fails under NumPy 2.4.
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

Similarity = Callable[[Tensor, Tensor], Tensor]  # two batches of images (n, 3, H, W) in [0, 255] -> distances (n,)

EPSILON = 1e-4
HOWS = ("lerp", "slerp_any", "slerp_unit")  # torch-fidelity's names of the paths, its default first
PERCENTILES = (1, 99)
BATCH = 32  # pairs
SIDE = 64  # to which torch-fidelity resizes images before it compares them


@dataclass(frozen=True, kw_only=True)
class PathLength:
    """A perceptual path length.

    Attributes:
        mean, std: mean and standard deviation of the trimmed distances.
        low, high: ends of the mean's 95 % interval, by a bootstrap over pairs that trims the distances of each round.
        distances: (N,), divided by ε², not trimmed, in the order of the pairs.
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
        starts, ends: (N, …) latents, each pair drawn independently; they are interpolated over all axes but the first,
            in their own precision.
        similarity: takes images in [0, 255].
        epsilon: the share of the path that a step takes.
        how: one of `HOWS`.
        fixed: how many of the last entries of a latent, such as a one-hot class, keep their values in `starts`.
        eight_bit: whether images are rounded to uint8 before they are compared, as torch-fidelity does by default; else
            they are float32, as in StyleGAN's code. At ε = 1e-4 nearly all pixels change by less than a level. When
            rounded, a change of d levels becomes 1 with probability d and 0 otherwise, so that its square counts as d:
            the path length is larger, and says how many pixels cross a level. The two must never be compared.
        seed: of the interval.
        advance: `advance(n)` is called after every n images.

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
            images = images_of(torch.cat([first, second]))  # (2n, 3, H, W): in one batch, so that both round the same
            if not bool(images.isfinite().all()):
                raise DissectError("Images along the path are not finite; look at the generator's images.")
            images = (images * 255).round().to(torch.uint8) if eight_bit else images * 255
            distance = similarity(*images.chunk(2))
            if distance.shape != (len(first),) or not bool(distance.isfinite().all()):
                raise DissectError(
                    f"The similarity returned a tensor {tuple(distance.shape)} with {int(distance.isfinite().sum())} "
                    f"finite numbers; it must return {len(first)}, one for each pair of images."
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
    """Latents (N, …) at `epsilon` on the path from the starts to the ends."""
    from torch_fidelity.utils import batch_interp

    start, end = starts.flatten(1), ends.flatten(1)
    free = start.shape[1] - fixed
    moved = batch_interp(start[:, :free], end[:, :free], epsilon, how)
    return torch.cat([moved, start[:, free:]], 1).view_as(starts)


def trimmed(distances: NDArray[Any]) -> NDArray[Any]:
    """distances (N,) -> those between the 1st and the 99th percentile, both rounded outwards to one of the distances.

    Computed in the dtype of the distances, which matters where a percentile is between two of them.

    >>> trimmed(np.array([3.0, 1.0, 2.0, 900.0])).tolist()
    [3.0, 1.0, 2.0, 900.0]
    >>> len(trimmed(np.arange(1000.0)))
    982
    """
    low = np.percentile(distances, PERCENTILES[0], method="lower")
    high = np.percentile(distances, PERCENTILES[1], method="higher")
    return distances[(low <= distances) & (distances <= high)]


def open_lpips(folder: str | Path | None = None, device: str | torch.device = "cpu") -> Similarity:
    """The LPIPS distance (Zhang et al. 2018) on VGG-16's features, torch-fidelity's, of images at 64×64.

    Args:
        folder: of the files `weights-vgg16-lpips.pth` and `vgg16-397923af.pth`; None takes torch.hub's cache. Nothing
            is downloaded.

    Raises:
        UsageError: a file does not exist.
        DissectError: a file cannot be opened, or holds other weights.
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
        # torch-fidelity unpickles its files without checks; here it gets files that were just written from tensors
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
    """Let torch.hub look for its files in this folder, in the whole process, until the end of the block."""
    before = torch.hub._hub_dir  # None where TORCH_HOME decides; restoring get_dir() instead would fix the folder
    torch.hub.set_dir(folder)
    try:
        yield
    finally:
        torch.hub._hub_dir = before
