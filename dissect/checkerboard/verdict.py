"""Whether a generator is better after the repair of its checkerboard, and its model card."""

from __future__ import annotations

import pandas as pd

from ..fidelity.distances import BEFORE, RANDOM, REPAIRED, TOLERATED
from ..generators.base import Generator
from ..repairs.card import card
from ..repairs.result import Repair
from .closed_form import module_of
from .trade_off import Bench

HALVED = 0.5  # share of z to which a repair must lower the strongest peak
FARTHER = 0.05  # tolerated relative rise of the Fréchet distance


def verdict(fidelity: pd.DataFrame, grid: pd.DataFrame, note: str) -> tuple[str, str]:
    """`improved`, `not improved` or `made worse`, and a sentence with the figures.

    Improved: there was a peak of the repaired layers' grids, and z of the strongest falls to half or less; no random
    change does that; the Fréchet distance does not rise by more than a twentieth beyond its interval; and coverage does
    not fall by more than a tenth beyond its interval. Made worse: one of the last two fails.
    """
    repaired = fidelity[fidelity.set == REPAIRED].set_index("metric")
    distance, diversity = repaired.loc["frechet"], repaired.loc["coverage"]
    distance_before = distance.value - distance.change
    before, after = (grid[grid.set == name].iloc[0] for name in (BEFORE, REPAIRED))
    random = grid[grid.set.str.startswith(RANDOM)]
    fell = after.own_z <= max(0.0, HALVED * before.own_z)
    beaten = bool((random.own_z <= max(0.0, HALVED * before.own_z)).any())
    farther = distance.change_low > 0 and distance.change > FARTHER * distance_before
    lost = diversity.change_high < 0 and diversity.change < -TOLERATED * (diversity.value - diversity.change)
    figures = (
        f"strongest peak of the layer's grid z {before.own_z:.1f} to {after.own_z:.1f}"
        + (f" (random changes {random.own_z.min():.1f} to {random.own_z.max():.1f})" if len(random) else "")
        + f", peaks {before.peaks} to {after.peaks}; ripple of the layer {before.ripple:.3f} to {after.ripple:.3f}, "
        f"foretold for a flat input {before.flat:.3f} to {after.flat:.3f}; Fréchet distance {distance_before:.3g} to "
        f"{distance.value:.3g} ({distance.change / distance_before:+.1%}; change {distance.change:+.3g}, 95 % interval "
        f"{distance.change_low:+.3g} to {distance.change_high:+.3g}), coverage {diversity.change:+.3f} "
        f"({diversity.change_low:+.3f} to {diversity.change_high:+.3f}); {note}"
    )
    if not before.own_peaks:
        return "not improved", f"Not improved, there was no peak of the layer's grid to remove: {figures}."
    if farther or lost:
        return (
            "made worse",
            f"Made worse, {'images are farther from the reference' if farther else 'diversity is lost'}: {figures}.",
        )
    if fell and not beaten:
        return "improved", f"Improved: {figures}."
    why = "a random change does as well" if fell else "the peak stays"
    return "not improved", f"Not improved, {why}: {figures}."


def grid_card(repair: Repair, title: str) -> str:
    """The model card, in Markdown."""
    info, tuning = repair.info, repair.info["finetune"]
    tuned = f"; then fine-tuned for {tuning['minutes']:g} minutes, {tuning['steps']} steps" if tuning["steps"] else ""
    return card(
        title,
        info,
        changes=[*info["how"], f"strength {info['strength']:g}{tuned}"],
        origin=f"The layers were chosen, and their weights fitted, on samples {info['chosen_on']['first']} to "
        f"{info['chosen_on']['last']}.",
        random="random changes of the same weights, of the same size",
        fidelity=repair.fidelity,
        effects=repair.effects if info["segmenter"] else None,
        grid=repair.grid,
    )


def changes(bench: Bench, repaired: Generator, method: str) -> list[str]:
    """What was changed, and how the file is loaded, a line of Markdown each."""
    if method == "notch":
        return [
            f"a notch for the grid of {'×'.join(map(str, bench.period))} pixels, kept beside the weights as "
            "`ganatomy_notch`, for ganatomy to apply to the finished images; plain PyTorch loads the file with "
            "strict=False, and lacks the notch then"
        ]
    lines = []
    for site in bench.sites:
        old = module_of(bench.generator, site)
        new = repaired.module.get_submodule(site.name if site.source is None else site.source[0])
        before, after = (" ".join(str(module).split()) for module in (old, new))
        loading = (
            "the module is the same, with other weights: plain PyTorch loads the file as before"
            if before == after
            else f"`{before}` became `{after}`; ganatomy replaces it when it loads the file, plain PyTorch needs it "
            "replaced first"
        )
        lines.append(f"`{site.name}`: {method}; {loading}")
    return lines
