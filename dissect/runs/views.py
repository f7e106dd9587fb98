"""One unit, one sample or one class of a run, as one looks at it in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from ...hooks.errors import UsageError, unknown_name
from ...hooks.tap import Tap
from ..capture.plan import Plan
from ..images import resize
from ..runtime import late
from ..storage.shown import Shown, interval
from ..subjects.opening import Given, usable_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .dissection import Dissection

TOP = 12  # samples that a run keeps of each unit

EFFECTS = ("effect", "low", "high")  # of ablating a unit on a class, in percentage points of the image

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, repr=False)
class Unit(Shown):
    """One unit, or direction, of a run: its row of `Dissection.units`, its top samples, and its featuremaps."""

    run: Dissection
    layer: str
    unit: int

    @cached_property
    def row(self) -> pd.Series:
        """Its row of `Dissection.units`."""
        units = self.run.units
        return units[(units.layer == self.layer) & (units.unit == self.unit)].iloc[0]

    @property
    def samples(self) -> NDArray[np.int64]:
        """(12,) or fewer: the samples that activate it most, the strongest first."""
        return self.run._tops[f"{self.layer}/sample"][self.unit].astype(np.int64)

    @property
    def regions(self) -> NDArray[np.bool_]:
        """(12, grid, grid): where in these samples its activation is above its threshold."""
        bits: Any = self.run._tops[f"{self.layer}/mask"][self.unit]  # those of all units may be many
        return np.unpackbits(bits, axis=-1, count=self.run.info["grid"]).astype(bool)

    @property
    def effects(self) -> pd.DataFrame:
        """What ablating it does to each class, to first order: class, effect, low, high; the most changed class first.

        Percentage points of the image with their 95 % interval; below 0 the class leaves. A first-order estimate is
        what the gradient says, not a measurement: `run.scan` measures. Empty where the run estimated nothing.
        """
        causes = (self.run.causes or {}).get(self.layer)
        if causes is None:
            return pd.DataFrame(columns=["class", *EFFECTS])
        columns = {name: getattr(causes, name)[:, self.unit] for name in EFFECTS}
        table = pd.DataFrame({"class": self.run.classes["class"].to_numpy()[causes.classes], **columns})
        return table.sort_values("effect", key=abs, ascending=False, kind="stable", ignore_index=True)

    def plot_effects(self, ax: Axes | None = None, *, count: int = 8) -> Axes:
        """What ablating it does to the `count` classes that it changes most, to first order, with intervals.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            count: how many classes.
        """
        axes: Axes = late.plots().unit_effects(self, ax, count)
        return axes

    def images(self, count: int = TOP) -> list[Image.Image]:
        """The `count` samples that activate it most, at most 12, as PIL images of at most 256 pixels a side."""
        return [Image.fromarray(pixels) for pixels in pixels_of(self.run, self.samples[:count])]

    def heatmap(self, sample: int, *, generator: Given = None, device: str | None = None) -> Heat:
        """(h, w) float32: the unit's activation over the map of one sample, on the grid of the run at most.

        It is read from the spool where the run kept its featuremaps (`keep_spool=True`). Otherwise the generator is
        opened again and draws this one sample, in float32: any sample number will do then.

        Args:
            sample: its number.
            generator: the run's, if it was given as a Python object.
            device: None chooses.

        Raises:
            UsageError: there is no such sample, or the generator is needed and has changed.
        """
        features = featuremaps(self.run, self.layer, sample, generator, device)
        directions = self.run.directions(self.layer)
        if directions is None:
            return features[self.unit]
        return np.asarray(np.tensordot(directions[self.unit], features, 1), np.float32)

    def show(self, count: int = TOP) -> None:
        """Display the unit with its `count` top samples in a notebook; elsewhere print its text."""
        late.notebook().show(self, count=count)

    def _title(self) -> str:
        return f"{self.unit} of {self.layer}, {self.run.info['config']['model']}"

    def _headline(self) -> str:
        row = self.row
        if row.state != "ok":
            return str(row.state)
        state = f"{row.label} ({row.tier})" if row.tier else f"not labelled; best class {row.label}"
        numbers = interval(row.iou, row.iou_low, row.iou_high, ".2f", "")
        position = "" if row.position_iou != row.position_iou else f", position alone {row.position_iou:.2f}"
        return f"{state}: IoU {numbers}{position}"

    @property
    def _folder(self) -> Path:
        return self.run.folder


@dataclass(frozen=True, kw_only=True, repr=False)
class Sample(Shown):
    """One sample of a run: its image, its segmentation, and which units fire in it."""

    run: Dissection
    sample: int

    @property
    def image(self) -> Image.Image:
        """The generated image, of at most 256 pixels a side."""
        return Image.fromarray(pixels_of(self.run, np.array([self.sample]))[0])

    @property
    def labels(self) -> NDArray[np.int16]:
        """(P, grid, grid) class numbers, in the order of `Dissection.classes`; -1 where nothing is known."""
        return np.asarray(self.run.spool.gather("labels", np.array([self.sample]))[0])

    @property
    def classes(self) -> pd.Series:
        """The share of each class that occurs in it, the largest first."""
        present = self.labels[self.labels >= 0]
        shares = pd.Series(np.bincount(present, minlength=len(self.run.classes)) / self.labels[0].size)
        shares.index = pd.Index(self.run.classes["class"], name="class")
        return shares[shares > 0].sort_values(ascending=False)

    def show(self, units: Sequence[int] = (), *, layer: str | int | None = None, generator: Given = None) -> None:
        """Display image, segmentation, and the heat maps of these units in a notebook; elsewhere print its text.

        Args:
            units: their numbers.
            layer: whose; needed where the run has several.
            generator: as of `Unit.heatmap`.
        """
        views = [self.run.unit(unit) if layer is None else self.run.unit(layer, unit) for unit in units]
        heat = [(view, view.heatmap(self.sample, generator=generator)) for view in views]
        late.notebook().show(self, heat=heat)

    def _title(self) -> str:
        return f"{self.sample} of {self.run.info['config']['model']}"

    def _headline(self) -> str:
        return ", ".join(f"{name} {share:.0%}" for name, share in self.classes.head(6).items())

    @property
    def _folder(self) -> Path:
        return self.run.folder


@dataclass(frozen=True, kw_only=True, repr=False)
class ClassUnits(Shown):
    """One class of a run: its row of `Dissection.classes` and the units that are labelled with it."""

    run: Dissection
    name: str

    @cached_property
    def row(self) -> pd.Series:
        """Its row of `Dissection.classes`."""
        return self.run.classes.set_index("class").loc[self.name]

    @property
    def units(self) -> pd.DataFrame:
        """The rows of the units that are labelled with it, the best first."""
        units = self.run.ordered
        return units[units.labelled & (units.label == self.name)]

    @property
    def drawn_by(self) -> pd.DataFrame:
        """All units by what ablating each does to this class, to first order, the one that removes most first.

        Columns layer, unit, label, labelled, effect, low, high: see `Unit.effects`. The index is that of
        `Dissection.units`. Empty where the run did not estimate this class.
        """
        units, number = self.run.units, list(self.run.classes["class"]).index(self.name)
        tables = []
        for layer, causes in (self.run.causes or {}).items():
            rows = units.loc[units.layer == layer, ["layer", "unit", "label", "labelled"]]
            for at in np.flatnonzero(causes.classes == number):
                columns = {name: getattr(causes, name)[at][rows.unit] for name in EFFECTS}
                tables.append(rows.assign(**columns))
        if not tables:
            return pd.DataFrame(columns=["layer", "unit", "label", "labelled", *EFFECTS])
        return pd.concat(tables).sort_values("effect", kind="stable")

    def plot_effects(self, ax: Axes | None = None, *, count: int = 12) -> Axes:
        """The `count` units whose ablation removes most of it, to first order, with intervals.

        Args:
            ax: where to draw; None makes a figure, which is `.figure` of what is returned.
            count: how many units.
        """
        axes: Axes = late.plots().class_effects(self, ax, count)
        return axes

    def show(self) -> None:
        """Display its best units in a notebook; elsewhere print its text."""
        late.notebook().show(self)

    def _title(self) -> str:
        return f"{self.name} of {self.run.info['config']['model']}"

    def _headline(self) -> str:
        units = self.units
        best = (
            f"; best: {self.run.unit(units.layer.iloc[0], int(units.unit.iloc[0]))._headline()}" if len(units) else ""
        )
        return f"{self.row.share:.1%} of the pixels, {len(units)} labelled units{best}"

    @property
    def _folder(self) -> Path:
        return self.run.folder


def unit_of(run: Dissection, layer: str | int, unit: int | None) -> Unit:
    """See `Dissection.unit`."""
    from .lookup import find_layer

    if unit is None:
        if len(run.layers) > 1:
            raise UsageError(
                f"The run in {run.folder} has several layers; name one: "
                f"run.unit({run.layers[0]!r}, {layer}); it has {', '.join(run.layers)}."
            )
        name, number = run.layers[0], layer
    else:
        name, number = find_layer(run, layer), unit
    count = int((run.units.layer == name).sum())
    if isinstance(number, str) or not 0 <= number < count:
        raise UsageError(f"{run.noun} {number!r}: layer {name!r} has {run.noun}s 0 to {count - 1}.")
    return Unit(run=run, layer=name, unit=int(number))


def sample_of(run: Dissection, sample: int) -> Sample:
    """See `Dissection.sample`."""
    count = run.info["config"]["samples"]
    if not 0 <= sample < count:
        raise UsageError(f"sample {sample}: the run in {run.folder} has samples 0 to {count - 1}.")
    return Sample(run=run, sample=int(sample))


def class_of(run: Dissection, name: str) -> ClassUnits:
    """See `Dissection.__getitem__`."""
    if name not in run.classes["class"].array:
        raise unknown_name("class", name, run.classes["class"])
    return ClassUnits(run=run, name=name)


def pixels_of(run: Dissection, samples: NDArray[np.int64]) -> Pixels:
    """(n, h, w, 3) thumbnails of these samples, in their order."""
    unique, position = np.unique(samples, return_inverse=True)
    return np.asarray(run.spool.gather("images", unique), np.uint8)[position]


def featuremaps(run: Dissection, layer: str, sample: int, generator: Given, device: str | None) -> Heat:
    """(U, h, w) of one sample: from the spool if it has them, else from the generator; see `Unit.heatmap`."""
    from .reopen import reopen_generator

    plan, spool = Plan.of(run.info), run.spool
    if 0 <= sample < spool.samples and spool.has_features(len(run.layers)):
        stored = spool.gather(plan.array(layer), np.array([sample]))[0]
        return np.asarray(stored, np.float32) * np.float32(plan.scales[layer])
    if sample < 0:
        raise UsageError(f"sample {sample}: samples count from 0.")
    opened = reopen_generator(run, generator, usable_device(device), quiet=True)
    with torch.inference_mode(), Tap(opened.module, [layer], stop=True) as tap:
        opened.module(opened.latents([sample]))
    return np.asarray(resize.at_most(tap[layer].float(), plan.grid)[0].cpu().numpy(), np.float32)
