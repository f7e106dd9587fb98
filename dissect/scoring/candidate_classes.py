"""The classes that a unit could be labelled with, and the pixels that both share, image by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..capture.maps import pieces
from ..images import resize as gr
from ..runtime.resources import TOGETHER
from ..stats.significance import ROUNDS, interval
from .scores import Floats, Labels, iou_of, iqr_of


class Candidates:
    """A unit's best classes, each at the level that was chosen for it, over bootstrapped images.

    Overlaps are counted per image and weighted. Sizes below: U units, T candidates of each, C classes, n images.
    """

    def __init__(
        self,
        codes: Tensor,
        labels: Labels,
        block: slice,
        grid: int,
        *,
        stride: int,
        candidates: int,
        mean_maps: bool = False,
    ) -> None:
        """Sums of zero for a block of units.

        Args:
            codes: (U, K) the levels of the block's units in steps.
            block: the units, among those of `labels`.
            stride: every stride-th row and column of the grid is counted.
            candidates: how many of each unit's best classes are.
            mean_maps: sum the maps of regions and of classes, too, from which the position IoU comes.
        """
        device = codes.device
        self.best = torch.from_numpy(labels.ranking[block, :candidates])  # (U, T)
        self.classes = labels.class_level.shape[1]
        self._best = self.best.to(device)
        level = torch.from_numpy(labels.class_level[block]).to(device).gather(1, self._best)
        order = level.argsort(1)
        self._thresholds = codes.gather(1, level.gather(1, order)) + 1.0  # (U, T) first steps of the regions, ascending
        rank = order.argsort(1)[:, None]  # of a candidate's threshold among them
        # (U, T + 1, T): whether a pixel that reaches r of the thresholds lies in the region of candidate t
        self._within = (torch.arange(self.best.shape[1] + 1, device=device)[:, None] > rank).float()
        self._grid, self._stride, self._mean_maps = grid, stride, mean_maps
        # |M ∩ C|, |M|, |C| and n pixels: first of the images as they are, then bootstrapped
        self.inside = torch.zeros(1 + ROUNDS, *self.best.shape, dtype=torch.float64, device=device)
        self.area = torch.zeros_like(self.inside)
        self.present = self.inside.new_zeros(1 + ROUNDS, self.classes)
        self.pixels = self.inside.new_zeros(1 + ROUNDS, 1, 1)
        side = -(-grid // stride)
        self.regions = torch.zeros(*self.best.shape, side**2, device=device)  # images whose region covers a pixel
        self.places = torch.zeros(self.classes, side**2, device=device)  # images that have the class at a pixel
        self.images = self.inside.new_zeros(())

    def add(self, steps: Tensor, names: Tensor, weights: Tensor) -> None:
        """steps (n, U, h, w) of some images, names (n, P, g, g) float, -1 for unlabelled, weights (1 + ROUNDS, n)."""
        size, (units, candidates), device = len(steps), self.best.shape, steps.device
        names = names[:, :, :: self._stride, :: self._stride].flatten(2)  # (n, P, pixels)
        names = torch.where(names < 0, self.classes, names)
        pixels, cells = names.shape[2], (self.classes + 1) * (candidates + 1)
        image = torch.arange(size, device=device)[:, None, None]
        image_and_class = (image * (self.classes + 1) + names).int() * (candidates + 1)
        inside, area = torch.zeros(2, size, units, candidates, device=device)
        for piece in pieces(units, max(1, TOGETHER[device.type] // (size * max(cells, pixels)))):
            near = gr.upsample_turned(steps[:, piece].transpose(0, 1), self._grid, self._stride).flatten(2)
            reached = self._thresholds_reached(near, piece)  # (u, n, pixels)
            width, within = len(near), self._within[piece]
            unit = torch.arange(width, dtype=torch.int32, device=device)[:, None, None]
            buffer = torch.empty(near.shape, dtype=torch.int32, device=device)
            if self._mean_maps:
                pixel = torch.arange(pixels, dtype=torch.int32, device=device)
                unit_and_pixel = (unit * pixels + pixel) * (candidates + 1)
                counts = joint_counts(reached, unit_and_pixel, shape=(width, pixels, candidates + 1), buffer=buffer)
                self.regions[piece] += (counts @ within).transpose(1, 2)
            best = self._best[piece, None, None].expand(-1, size, -1, -1)  # (u, n, 1, T)
            shape = (width, size * (self.classes + 1), candidates + 1)
            for plane in range(names.shape[1]):
                outer = image_and_class[:, plane], unit * (size * cells)
                counts = joint_counts(reached, *outer, shape=shape, buffer=buffer)
                overlaps = (counts @ within).view(width, size, self.classes + 1, -1)
                inside[:, piece] += overlaps.gather(2, best)[:, :, 0].transpose(0, 1)
                if plane == 0:  # each pixel once, whatever its classes
                    area[:, piece] = overlaps.sum(2).transpose(0, 1)
        class_maps = occupied(names, torch.arange(self.classes, device=device))  # (C, n, pixels)
        self.images += size
        if self._mean_maps:
            self.places += class_maps.sum(1)
        self.inside += (weights @ inside.flatten(1)).view(self.inside.shape)
        self.area += (weights @ area.flatten(1)).view(self.area.shape)
        self.present += weights @ class_maps.sum(2).T
        self.pixels += weights.sum(1)[:, None, None] * names.shape[2]

    def _thresholds_reached(self, near: Tensor, piece: slice) -> Tensor:
        """near (u, n, pixels) in steps -> how many of its unit's thresholds each pixel reaches, float32.

        Comparisons write floats: summing truth values is far slower.
        """
        reached, reaches = torch.zeros_like(near), torch.empty_like(near)
        for threshold in self._thresholds[piece].T:
            reached += torch.ge(near, threshold[:, None, None], out=reaches)
        return reached

    def tensors(self) -> Sequence[Tensor]:
        """The sums, to be added up over all processes."""
        return self.inside, self.area, self.present, self.pixels, self.regions, self.places, self.images

    def votes(self, rule: str) -> Floats:
        """(U, C) share of the replicates in which a class has the highest score; none has where all score nothing."""
        sums = self.inside, self.area, self.present[:, self._best], self.pixels.clamp(min=1)
        a, m, c, n = (tensor[1:].cpu().numpy() for tensor in sums)
        merit = iqr_of(a, m, c, n) if rule == "iqr" else np.nan_to_num(iou_of(a, m, c))  # (ROUNDS, U, T)
        first = np.eye(merit.shape[2])[merit.argmax(2)] * (merit.max(2, keepdims=True) > 0)
        votes = np.zeros((len(self.best), self.classes))
        np.put_along_axis(votes, self.best.numpy(), first.mean(0), axis=1)
        return votes

    def overlaps(self, exact: Floats) -> tuple[Floats, Floats, Floats]:
        """(U, T) each: ends of the interval around the IoU (U, T) of all pixels, and the position IoU."""
        sums = self.inside, self.area, self.present[:, self._best]
        a, m, c = (tensor.cpu().numpy() for tensor in sums)
        iou = iou_of(a, m, c)
        shift = exact - iou[0]  # from the IoU of every stride-th pixel to that of all
        low, high = interval(iou[1:])
        regions, places = self.regions.cpu().double(), self.places.cpu().double()
        expected = torch.einsum("utp,utp->ut", regions, places[self.best]) / self.images.cpu()
        area, of_class = regions.sum(2).numpy(), places.sum(1)[self.best].numpy()
        return low + shift, high + shift, iou_of(expected.numpy(), area, of_class) + shift


def joint_counts(innermost: Tensor, *outer: Tensor, shape: tuple[int, ...], buffer: Tensor) -> Tensor:
    """How often each combination of whole numbers occurs: float32 of `shape`, exact below 2^24.

    A combination (a, b, c) with sizes (A, B, C) is packed into the one number (a · B + b) · C + c, its position in an
    array of that shape, so that a single bincount counts them all. `innermost` holds c; `outer` what is to be added to
    it, a · B · C and b · C, and broadcasts with it. The numbers are packed in the int32 `buffer` of the shape of
    `innermost`: fresh memory and int64 would each take longer than the counting, so A · B · C must stay below 2^31.
    """
    buffer.copy_(innermost)
    for offset in outer:
        buffer.add_(offset)
    return torch.bincount(buffer.flatten(), minlength=int(np.prod(shape))).float().view(shape)


def occupied(names: Tensor, classes: Tensor) -> Tensor:
    """names (n, P, pixels) float, classes (C,) -> (C, n, pixels) float: 1 where a class is, in any plane, else 0."""
    wanted = classes.float()[:, None, None]
    first, *others = (
        torch.eq(plane, wanted, out=plane.new_empty(len(classes), *plane.shape)) for plane in names.unbind(1)
    )
    for other in others:
        torch.maximum(first, other, out=first)
    return first
