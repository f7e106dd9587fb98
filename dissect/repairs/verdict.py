"""Whether a repair made images better, and what it lost."""

from __future__ import annotations

import pandas as pd

from ..fidelity.distances import RANDOM, REPAIRED, TOLERATED

RANDOM_SETS = 5  # the least number with which a repair can be called an improvement


def verdict(table: pd.DataFrame, note: str) -> tuple[str, str]:
    """`improved`, `not improved` or `made worse`, and a sentence with the figures.

    Improved: the Fréchet distance falls, its change's interval below zero, by more than with any of at least five
    random sets; the kernel distance does not rise beyond its interval; and coverage does not fall beyond its interval
    by more than a tenth of what it was (a repair that collapses diversity fails; a smaller loss is named). Made worse:
    the Fréchet distance rises beyond its interval, or diversity is lost while the distance does not improve.
    """
    repaired = table[table.set == REPAIRED].set_index("metric")
    random = table[table.set.str.startswith(RANDOM) & (table.metric == "frechet")]
    distance, kernel, diversity = repaired.loc["frechet"], repaired.loc["kernel"], repaired.loc["coverage"]
    fell, rose = distance.change_high < 0, distance.change_low > 0
    beaten = bool((random.change <= distance.change).any())
    fewer, kernel_rose = diversity.change_high < 0, kernel.change_low > 0
    lost = fewer and diversity.change < -TOLERATED * (diversity.value - diversity.change)
    before = distance.value - distance.change
    figures = (
        f"Fréchet distance {before:.3g} to {distance.value:.3g} (change {distance.change:+.3g}, 95 % interval "
        f"{distance.change_low:+.3g} to {distance.change_high:+.3g}"
        + (f"; random sets {random.change.min():+.3g} to {random.change.max():+.3g}" if len(random) else "")
        + f"), kernel distance {kernel.change:+.3g} ({kernel.change_low:+.3g} to {kernel.change_high:+.3g}), coverage "
        f"{diversity.change:+.3f} ({diversity.change_low:+.3f} to {diversity.change_high:+.3f}); {note}"
    )
    few = len(random) < RANDOM_SETS
    if fell and not (beaten or lost or kernel_rose or few):
        return "improved", f"Improved{', at some cost of diversity' if fewer else ''}: {figures}."
    if rose or (lost and not fell):
        return "made worse", f"Made worse: {figures}."
    if lost:
        reason = "diversity is lost"
    elif kernel_rose:
        reason = "the kernel distance rises"
    elif not fell:
        reason = "the change lies within its interval"
    elif beaten:
        reason = "a random set does as well"
    else:
        reason = f"too few random sets were measured ({len(random)} of at least {RANDOM_SETS}, see --random-sets)"
    return "not improved", f"Not improved, {reason}: {figures}."
