"""Generated images weighed against real ones: the tables, and a verdict in a word and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import by_class as cl
from . import whole_images
from .image_set import ImageSet

VERDICTS = VARIED, LACKING, COLLAPSED = "varied", "lacking", "collapsed"
COLLAPSE = 0.5  # of real images' spread or Vendi score, or share of images with a twin: what is called a collapse
NAMED = 6  # classes in the sentence


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """`classes`, `pairs`, `whole`: see `compare_classes`, `compare_pairs`, `whole.compare`; the first with each class's
    part of the segmentation distance, and that of real images between each other.

    distance: `value` and `zero` of the segmentation distance, the latter of every other real image from the rest.
    false_classes: how many classes the tests call different between those.
    verdict: `collapsed`: an alarm, and half of the diversity gone; `lacking`: any alarm, or a class that differs;
        `varied`: neither. Both families of tests are held to 5 % each: of healthy generators up to one in ten is
        called lacking.
    """

    classes: pd.DataFrame
    pairs: pd.DataFrame
    whole: pd.DataFrame
    distance: dict[str, float]
    false_classes: int
    twins: whole_images.Twins
    twin_distance: float
    verdict: str
    sentence: str

    @property
    def support(self) -> dict[str, Any]:
        """The birthday estimate; None for what has no upper end."""
        estimate, low, high = whole_images.support(self.twins.pairs, whole_images.TWINS, self.twins.count)
        ends = {"estimate": estimate, "low": low, "high": high}
        return {"pairs": self.twins.pairs, "share": self.twins.share} | {
            name: value if np.isfinite(value) else None for name, value in ends.items()
        }


def weigh(
    made: ImageSet,
    real: ImageSet,
    names: tuple[str, ...],
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Weighed:
    """Weigh generated images against real ones, both with standardised features; `advance` as of `whole.compare`.

    Raises:
        DissectError: too few images, see `whole.compare`.
    """
    table = whole_images.compare(made.features, real.features, seed=seed, advance=advance)
    threshold = whole_images.twin_distance(real.features, len(made))
    classes, distance, false = _by_class(made.shares, real.shares, names)
    verdict, sentence = judged(classes, table)
    return Weighed(
        classes=classes,
        pairs=cl.compare_pairs(made.shares, real.shares, names),
        whole=table,
        distance=distance,
        false_classes=false,
        twins=whole_images.twins(made.features, threshold),
        twin_distance=threshold,
        verdict=verdict,
        sentence=sentence,
    )


def _by_class(
    made: NDArray[np.float64], real: NDArray[np.float64], names: tuple[str, ...]
) -> tuple[pd.DataFrame, dict[str, float], int]:
    some, others = real[1::2], real[::2]
    parts = pd.DataFrame(
        {
            "class": names,
            "distance_part": cl.contributions(made[: len(some)], others),
            "zero_part": cl.contributions(some, others),
        }
    )
    table = cl.compare_classes(made, real, names).merge(parts, on="class", how="left")
    distance = {
        "value": cl.segmentation_distance(made[: len(some)], others),
        "zero": cl.segmentation_distance(some, others),
    }
    return table, distance, int((cl.compare_classes(some, others, names).verdict != "").sum())


def judged(classes: pd.DataFrame, table: pd.DataFrame) -> tuple[str, str]:
    """The verdict of a table of classes and one of metrics, see `Weighed`, and a sentence."""
    raised = list(table.metric[table.alarm])
    called = classes[classes.verdict != ""]
    said = [f"{name} ({verdict})" for name, verdict in zip(called["class"], called.verdict, strict=True)]
    parts = [
        f"Classes that differ from the real images': {', '.join(said[:NAMED])}{' …' if len(said) > NAMED else ''}."
        if said
        else "",
        f"Worse than real images among each other: {', '.join(raised)}." if raised else "",
    ]
    sentence = (
        " ".join(part for part in parts if part) or "As varied as the real images, as far as these tests can tell."
    )
    return COLLAPSED if collapsed(table) else LACKING if said or raised else VARIED, sentence


def collapsed(table: pd.DataFrame) -> bool:
    """Whether a table of metrics tells of a collapse: an alarm of spread, Vendi score or twins, and half is gone."""
    kept = table[table.alarm].set_index("metric").value
    gone = [kept.get("spread", 1.0) < COLLAPSE, kept.get("vendi", 1.0) < COLLAPSE, kept.get("twins", 0.0) > COLLAPSE]
    return any(gone)
