"""What a run could have found with its samples, and how many more precise intervals would take."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from ...hooks.errors import UsageError
from ..scoring.scores import MIN_IOU, MIN_IOU_QUANTILE
from ..stats.significance import FALSE_DISCOVERIES
from .dissection import Dissection

FEWEST = 20  # samples; below, no standard deviation is worth the name


def power(run: Dissection | str | Path, *, width: float = 0.02, power: float = 0.8) -> pd.DataFrame:
    """One row for each layer and class that labels a unit there by the rule's limits, medians over these units.

    Columns: `units`; `iou`; `position_iou`; `detectable_iou`, the least IoU that a unit with the same place would be
    labelled at with probability `power`; `interval_width` of the IoU now; `samples_needed` for intervals of `width`.

    detectable_iou = position_iou + (z(1 − α) + z(power)) s, and at least the rule's limit for IoU: s is the standard
    deviation of the IoU when label maps are permuted, taken to be that of IoU − position_iou with a little content as
    well, and α the p-value that is enough in this run, 0.05 k / m for k labelled of m units (at least one). s, and the
    interval, shrink with the square root of the number of samples. The IoU is taken as normal: good for hundreds of
    samples, rough for tens. `attrs` holds α, width, power and samples.

    Raises:
        UsageError: width or power make no sense, the run's labels were not tested, or no unit reaches the limits.
    """
    run = run if isinstance(run, Dissection) else Dissection.load(run)
    if not 0 < width < 1:
        raise UsageError(f"--width {width}: the width of an interval of IoU is needed, above 0 and below 1, e.g. 0.02.")
    if not 0 < power < 1:
        raise UsageError(f"--power {power}: a probability is needed, above 0 and below 1, e.g. 0.8.")
    if run.info["config"]["significance"] == "off":
        raise UsageError(
            f"The labels of the run in {run.folder} were not tested; make a run without --significance off."
        )
    normal, samples = NormalDist(), run.info["config"]["samples"]
    enough = FALSE_DISCOVERIES * max(1, int(run.units.labelled.sum())) / len(run.units)
    null_sd = np.concatenate([run.null_sd(layer) for layer in run.layers])
    units = run.units.assign(interval_width=run.units.iou_high - run.units.iou_low, null_sd=null_sd)
    units = units[units.reaches_limits].copy()
    if units.empty or samples < FEWEST:
        raise UsageError(
            f"{run.folder}: {len(units)} units reach the rule's limits, with {samples} samples; at least 1 unit and "
            f"{FEWEST} samples are needed."
        )
    least = MIN_IOU if run.info["config"]["threshold"] == "iqr" else MIN_IOU_QUANTILE
    deviations = normal.inv_cdf(1 - enough) + normal.inv_cdf(power)
    units["detectable_iou"] = (units.position_iou + deviations * units.null_sd).clip(lower=least)
    columns = ["iou", "position_iou", "detectable_iou", "interval_width"]
    groups = units.groupby(["layer", "label"], sort=False)
    table = groups[columns].median().assign(units=groups.size()).reset_index().rename(columns={"label": "class"})
    halves = np.ceil(samples / 2 * (table.interval_width / width) ** 2).clip(lower=1)
    table["samples_needed"] = 2 * halves.astype(np.int64)
    order = table["layer"].map(run.layers.index)
    table = table.iloc[np.lexsort((-table.units, order))].reset_index(drop=True)
    table = table[["layer", "class", "units", *columns, "samples_needed"]]
    table.attrs = {"alpha": enough, "width": width, "power": power, "samples": samples}
    return table
