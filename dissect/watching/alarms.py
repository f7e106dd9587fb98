"""What has become worse since an earlier checkpoint of the same training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ..diversity.verdict import COLLAPSE, COLLAPSED
from ..stats.significance import FALSE_DISCOVERIES, benjamini_hochberg
from .result import PRESENCE

COLLAPSING, LOST, CHECKERBOARD = "collapse", "lost", "checkerboard rising"
FORGOTTEN = 0.1  # of the presence that a class once had: what is left of a lost one, at most


def alarms(lines: pd.DataFrame, samples: int) -> list[str]:
    """The alarms of the last row of a history, from none to all of these:

    collapse: the verdict is `collapsed` and was not always; or the minibatch standard deviation is less than half of
        the highest before, beyond both 95 % intervals.
    lost: CLASS, …: at most a tenth as many of the samples have the class as at the checkpoint where most had it, and
        the difference is not chance: Fisher's exact test, times the number of checkpoints before, among which that one
        was chosen, with the false-discovery rate over classes at 5 % (Benjamini and Hochberg 1995).
    checkerboard rising: the spectrum has a peak of an upsampling grid, and its excess is above the lowest before,
        beyond both 95 % intervals.

    Without an earlier row nothing can be worse. `samples` is the number of samples of each row.
    """
    now, before = lines.iloc[-1], lines.iloc[:-1]
    if before.empty:
        return []
    raised = []
    most = before.loc[before.deviation.idxmax()]
    halved = now.deviation < COLLAPSE * most.deviation and now.deviation_high < most.deviation_low
    if halved or (now.verdict == COLLAPSED and bool((before.verdict != COLLAPSED).any())):
        raised.append(COLLAPSING)
    if lost := _lost(now, before, samples):
        raised.append(f"{LOST}: {', '.join(lost)}")
    if now.peaks and before.ripple.notna().any() and now.ripple_low > before.ripple_high[before.ripple.idxmin()]:
        raised.append(CHECKERBOARD)
    return raised


def _lost(now: pd.Series, before: pd.DataFrame, samples: int) -> list[str]:
    """The lost classes, by descending highest presence."""
    columns = [name for name in before.columns if name.startswith(PRESENCE)]
    most, current = (
        (values.to_numpy(float) * samples).round().astype(int) for values in (before[columns].max(), now[columns])
    )
    p = np.array(
        [
            stats.fisher_exact([[few, samples - few], [many, samples - many]], alternative="less").pvalue
            for few, many in zip(current, most, strict=True)
        ]
    )
    q = benjamini_hochberg(np.minimum(1, p * len(before)))
    gone = (q <= FALSE_DISCOVERIES) & (current <= FORGOTTEN * most)
    order = np.argsort(-most, kind="stable")
    return [columns[k].removeprefix(PRESENCE) for k in order if gone[k]]
