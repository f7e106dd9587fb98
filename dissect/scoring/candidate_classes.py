"""The classes that a unit could be labelled with, and the pixels that both share, image by image."""

from __future__ import annotations

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

    Overlaps are counted per image and weighted.
    """

    def __init__(self, codes: Tensor, labels: Labels, block: slice, grid: int, stride: int, number: int) -> None:
        device = codes.device
        best = torch.from_numpy(labels.ranking[block, :number]).to(device)  # (U, T)
        level = torch.from_numpy(labels.class_level[block]).to(device).gather(1, best)
        order = level.argsort(1)
        self.least = codes.gather(1, level.gather(1, order)) + 1.0  # (U, T) steps of the regions, ascending
        place = order.argsort(1)[:, None]  # of a candidate's level among them
        self.within = (torch.arange(best.shape[1] + 1, device=device)[:, None] > place).float()  # (U, T + 1, T)
        self.best, self.classes = best, labels.class_level.shape[1]
        self.grid, self.stride = grid, stride
        self.inside = torch.zeros(1 + ROUNDS, *best.shape, dtype=torch.float64, device=device)  # plain, bootstrapped
        self.area = torch.zeros_like(self.inside)
        self.present = self.inside.new_zeros(1 + ROUNDS, self.classes)
        self.pixels = self.inside.new_zeros(1 + ROUNDS, 1, 1)
        side = -(-grid // stride)
        # in how many images each pixel lies above the level, and in how many it is of the class
        self.regions = torch.zeros(*best.shape, side**2, device=device)
        self.places = torch.zeros(self.classes, side**2, device=device)
        self.images = self.inside.new_zeros(())

    def add(self, steps: Tensor, names: Tensor, weights: Tensor, *, places: bool = False) -> None:
        """steps (n, U, h, w) of some images, names (n, P, g, g) float, -1 for unlabelled, weights (1 + ROUNDS, n).

        Mean maps, from which position IoU comes, are summed only with `places`.
        """
        size, (units, candidates), device = len(steps), self.best.shape, steps.device
        names = names[:, :, :: self.stride, :: self.stride].flatten(2)  # (n, P, pixels)
        names = torch.where(names < 0, self.classes, names)
        pixels, cells = names.shape[2], (self.classes + 1) * (candidates + 1)
        image = torch.arange(size, device=device)[:, None, None]
        start = (image * (self.classes + 1) + names).int() * (candidates + 1)
        inside, area = torch.zeros(2, size, units, candidates, device=device)
        for piece in pieces(units, max(1, TOGETHER[device.type] // (size * max(cells, pixels)))):
            near = gr.upsample_turned(steps[:, piece].transpose(0, 1), self.grid, self.stride).flatten(2)
            reached, inner = torch.zeros_like(near), torch.empty_like(near)  # (u, n, pixels)
            for least in self.least[piece].T:  # in floats: truth values are far slower to come by
                reached += torch.ge(near, least[:, None, None], out=inner)
            width, within = len(near), self.within[piece]
            codes = torch.empty(near.shape, dtype=torch.int32, device=device)
            if places:
                each = torch.arange(width * pixels, dtype=torch.int32, device=device).view(-1, 1, pixels)
                each *= candidates + 1
                codes.copy_(reached).add_(each)
                counted = torch.bincount(codes.flatten(), minlength=width * pixels * (candidates + 1))
                self.regions[piece] += (counted.float().view(width, pixels, -1) @ within).transpose(1, 2)
            units_apart = torch.arange(width, dtype=torch.int32, device=device)[:, None, None] * (size * cells)
            rows = self.best[piece, None, None].expand(-1, size, -1, -1)  # (u, n, 1, T)
            for plane in range(names.shape[1]):
                codes.copy_(reached).add_(start[:, plane]).add_(units_apart)
                counted = torch.bincount(codes.flatten(), minlength=width * size * cells).float()
                found = (counted.view(width, -1, candidates + 1) @ within).view(width, size, self.classes + 1, -1)
                inside[:, piece] += found.gather(2, rows)[:, :, 0].transpose(0, 1)
                if plane == 0:  # each pixel once, whatever its classes
                    area[:, piece] = found.sum(2).transpose(0, 1)
        here = occupied(names, torch.arange(self.classes, device=device))  # (C, n, pixels)
        self.images += size
        if places:
            self.places += here.sum(1)
        self.inside += (weights @ inside.flatten(1)).view(self.inside.shape)
        self.area += (weights @ area.flatten(1)).view(self.area.shape)
        self.present += weights @ here.sum(2).T
        self.pixels += weights.sum(1)[:, None, None] * names.shape[2]

    def sums(self) -> tuple[Tensor, ...]:
        """All that has been added up."""
        return self.inside, self.area, self.present, self.pixels, self.regions, self.places, self.images

    def to_cpu(self) -> None:
        """Bring all that has been added up, and what is needed to read it, to the CPU."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.cpu())

    def votes(self, rule: str) -> Floats:
        """(U, C) share of the replicates in which a class has the highest score; none has where all score nothing."""
        sums = self.inside, self.area, self.present[:, self.best], self.pixels.clamp(min=1)
        a, m, c, n = (one[1:].numpy() for one in sums)
        merit = iqr_of(a, m, c, n) if rule == "iqr" else np.nan_to_num(iou_of(a, m, c))  # (ROUNDS, U, T)
        first = np.eye(merit.shape[2])[merit.argmax(2)] * (merit.max(2, keepdims=True) > 0)
        votes = np.zeros((len(self.best), self.classes))
        np.put_along_axis(votes, self.best.numpy(), first.mean(0), axis=1)
        return votes

    def overlaps(self, exact: Floats) -> tuple[Floats, Floats, Floats]:
        """(U, T) each: ends of the interval around the IoU (U, T) of all pixels, and the position IoU."""
        a, m, c = (one.numpy() for one in (self.inside, self.area, self.present[:, self.best]))
        found = iou_of(a, m, c)
        shift = exact - found[0]  # what looking at some pixels only has changed
        low, high = interval(found[1:])
        expected = torch.einsum("utp,utp->ut", self.regions.double(), self.places[self.best].double()) / self.images
        area, of_class = self.regions.double().sum(2).numpy(), self.places.double().sum(1)[self.best].numpy()
        return low + shift, high + shift, iou_of(expected.numpy(), area, of_class) + shift


def occupied(names: Tensor, classes: Tensor) -> Tensor:
    """names (n, P, pixels) float, classes (C,) -> (C, n, pixels) float: 1 where a class is, in any plane, else 0."""
    number = classes.float()[:, None, None]
    first, *others = (
        torch.eq(plane, number, out=plane.new_empty(len(classes), *plane.shape)) for plane in names.unbind(1)
    )
    for other in others:
        torch.maximum(first, other, out=first)
    return first
