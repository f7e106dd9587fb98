"""Generated images compared with real ones: the tables, and a verdict in a word and a sentence."""

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
COLLAPSE = 0.5  # a collapse: less of the real images' spread or Vendi score, or more images that have a twin
NAMED = 6  # classes in the sentence


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """The tables of an audit and its verdict.

    classes, pairs, whole: see `by_class.compare_classes`, `by_class.compare_pairs` and `whole_images.compare`. The
        first also has each class's contribution to the segmentation distance (distance_part), and its contribution to
        the distance between two halves of the real images (zero_part).
    distance: `value`, the segmentation distance of generated images from the even real images, and `zero`, that of the
        odd real images from the even ones.
    false_classes: how many classes the tests call different between these two halves of the real images.
    twins, twin_distance: see `whole_images.twins` and `whole_images.twin_distance`.
    verdict: `collapsed` if a metric raises an alarm and half of the diversity is gone; `lacking` if any metric raises
        an alarm or any class differs; `varied` otherwise. Each of the two families of tests has a false-alarm rate of
        at most 5 %, so that up to one in ten healthy generators is called lacking.
    sentence: the verdict in words.
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
        """How many different images the generator seems to have, see `whole_images.support`; None for infinity."""
        estimate, low, high = whole_images.support(self.twins.pairs, whole_images.TWINS, self.twins.count)
        figures = {"estimate": estimate, "low": low, "high": high}
        return {"pairs": self.twins.pairs, "share": self.twins.share} | {
            name: value if np.isfinite(value) else None for name, value in figures.items()
        }


def weigh(
    generated: ImageSet,
    real: ImageSet,
    names: tuple[str, ...],
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Weighed:
    """Compare generated images with real ones, both with standardised features.

    Args:
        generated, real: the two sets.
        names: of the classes.
        seed, advance: as of `whole_images.compare`.

    Raises:
        DissectError: too few images, see `whole_images.compare`.
    """
    table = whole_images.compare(generated.features, real.features, seed=seed, advance=advance)
    threshold = whole_images.twin_distance(real.features, len(generated))
    classes, distance, false_classes = _by_class(generated.shares, real.shares, names)
    verdict, sentence = judged(classes, table)
    return Weighed(
        classes=classes,
        pairs=cl.compare_pairs(generated.shares, real.shares, names),
        whole=table,
        distance=distance,
        false_classes=false_classes,
        twins=whole_images.twins(generated.features, threshold),
        twin_distance=threshold,
        verdict=verdict,
        sentence=sentence,
    )


def _by_class(
    generated: NDArray[np.float64], real: NDArray[np.float64], names: tuple[str, ...]
) -> tuple[pd.DataFrame, dict[str, float], int]:
    """Shares (N, C) and (M, C) -> `classes`, `distance` and `false_classes` of `Weighed`."""
    odd, even = real[1::2], real[::2]
    contributions = pd.DataFrame(
        {
            "class": names,
            "distance_part": cl.contributions(generated[: len(odd)], even),
            "zero_part": cl.contributions(odd, even),
        }
    )
    table = cl.compare_classes(generated, real, names).merge(contributions, on="class", how="left")
    distance = {
        "value": cl.segmentation_distance(generated[: len(odd)], even),
        "zero": cl.segmentation_distance(odd, even),
    }
    return table, distance, int((cl.compare_classes(odd, even, names).verdict != "").sum())


def judged(classes: pd.DataFrame, table: pd.DataFrame) -> tuple[str, str]:
    """The verdict and the sentence, see `Weighed`.

    Args:
        classes: of `by_class.compare_classes`.
        table: of `whole_images.compare`.
    """
    alarms = list(table.metric[table.alarm])
    different = classes[classes.verdict != ""]
    named = [f"{name} ({verdict})" for name, verdict in zip(different["class"], different.verdict, strict=True)]
    sentences = []
    if named:
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        sentences.append(f"Classes that differ from the real images': {', '.join(named[:NAMED])}{more}.")
    if alarms:
        worse = "Generated images score worse than one half of the real images does against the other"
        sentences.append(f"{worse}: {', '.join(alarms)}.")
    if not sentences:
        return VARIED, "As varied as the real images, as far as these tests can tell."
    return COLLAPSED if collapsed(table) else LACKING, " ".join(sentences)


def collapsed(table: pd.DataFrame) -> bool:
    """Whether a table of `whole_images.compare` has an alarm of spread, Vendi score or twins, and half is gone."""
    alarming = table[table.alarm].set_index("metric").value
    return bool(
        alarming.get("spread", 1.0) < COLLAPSE
        or alarming.get("vendi", 1.0) < COLLAPSE
        or alarming.get("twins", 0.0) > COLLAPSE
    )
