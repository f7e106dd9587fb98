"""Whether a mended generator is better, and the card that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..fidelity.distances import BEFORE, RANDOM, REPAIRED, TOLERATED
from ..generators.base import Generator
from ..repairs.checkpoint import classes_changed, figures_table
from .closed_form import module_of
from .trade_off import Bench

HALVED = 0.5  # of z: what a repair has to bring the strongest peak down to
DEARER = 0.05  # relative rise of the Fréchet distance that is tolerated


def verdict(fidelity: pd.DataFrame, grid: pd.DataFrame, note: str) -> tuple[str, str]:
    """`improved`, `not improved` or `made worse`, and a sentence with the figures.

    Improved: there was a peak of the mended layers' grids, and z of the strongest falls to half or less; no random
    change does that;
    the Fréchet distance does not rise by more than a twentieth beyond its interval; and coverage does not fall by more
    than a tenth beyond its interval. Made worse: one of the last two fails.
    """
    mine = fidelity[fidelity.set == REPAIRED].set_index("metric")
    distance, diversity = mine.loc["frechet"], mine.loc["coverage"]
    was = distance.value - distance.change
    before, after = (grid[grid.set == name].iloc[0] for name in (BEFORE, REPAIRED))
    random = grid[grid.set.str.startswith(RANDOM)]
    fell = after.own_z <= max(0.0, HALVED * before.own_z)
    beaten = bool((random.own_z <= max(0.0, HALVED * before.own_z)).any())
    dearer = distance.change_low > 0 and distance.change > DEARER * was
    lost = diversity.change_high < 0 and diversity.change < -TOLERATED * (diversity.value - diversity.change)
    figures = (
        f"strongest peak of its grid z {before.own_z:.1f} to {after.own_z:.1f}"
        + (f" (random changes {random.own_z.min():.1f} to {random.own_z.max():.1f})" if len(random) else "")
        + f", peaks {before.peaks} to {after.peaks}; ripple of the layer {before.ripple:.3f} to {after.ripple:.3f}, "
        f"foretold for a flat input {before.flat:.3f} to {after.flat:.3f}; Fréchet distance {was:.3g} to "
        f"{distance.value:.3g} ({distance.change / was:+.1%}; change {distance.change:+.3g}, 95 % interval "
        f"{distance.change_low:+.3g} to {distance.change_high:+.3g}), coverage {diversity.change:+.3f} "
        f"({diversity.change_low:+.3f} to {diversity.change_high:+.3f}); {note}"
    )
    if not before.own_peaks:
        return "not improved", f"Not improved, there was no peak of its grid to take out: {figures}."
    if dearer or lost:
        return (
            "made worse",
            f"Made worse, {'images are farther from the reference' if dearer else 'diversity is lost'}: {figures}.",
        )
    if fell and not beaten:
        return "improved", f"Improved: {figures}."
    why = "a random change does as well" if fell else "the peak stays"
    return "not improved", f"Not improved, {why}: {figures}."


def card(info: dict[str, Any], tables: dict[str, pd.DataFrame], target: Path) -> str:
    """The model card, in Markdown."""
    samples, grid = info["samples"], tables["grid"]
    rows = [
        f"| {row.set} | {row.ripple:.3f} [{row.ripple_low:.3f}, {row.ripple_high:.3f}] | {row.flat:.3g} "
        f"| {row.peaks} | {row.own_z:.1f} | {row.own_excess:.1f} |"
        for row in grid.itertuples()
    ]
    tuned = info["finetune"]
    return "\n".join(
        [
            f"# {target.stem}",
            "",
            f"**{info['sentence']}**",
            "",
            f"`{info['generator']}` (weights sha256 `{info['weights_sha256']}`) with its checkerboard mended.",
            "",
            "## What was changed",
            "",
            *(f"- {line}" for line in info["how"]),
            f"- strength {info['strength']:g}"
            + (f"; then fine-tuned for {tuned['minutes']:g} minutes, {tuned['steps']} steps" if tuned["steps"] else ""),
            "",
            f"Layers and fit come from samples {info['chosen_on']['first']} to {info['chosen_on']['last']}. Everything "
            f"below was measured on samples {samples['first']} to {samples['last']}, against {info['reference']}.",
            "",
            "## Grid",
            "",
            "Ripple: of the mended layer's output, over phases, as a share of its standard deviation. Flat: the same "
            "as foretold for a flat input. z and excess: of the strongest peak of its grid in the images' spectrum.",
            "",
            "| set | ripple | flat | peaks | z | excess, dB |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "## Fidelity",
            "",
            f"{info['features'][0].upper()}{info['features'][1:]}. In brackets: 95 % intervals over random halves of "
            f"images and reference. {RANDOM.capitalize()}: random changes of the same weights, of the same size.",
            "",
            *figures_table(tables["fidelity"]),
            "",
            *(classes_changed(tables["effects"], info["segmenter"]) if "effects" in tables else []),
            "",
            f"Made by `{info['command']}`, {info['created']}.",
            "",
        ]
    )


def changes(bench: Bench, repaired: Generator, method: str) -> list[str]:
    """What was changed, and how the file loads; a line of Markdown each."""
    if method == "notch":
        return [
            f"a notch for the grid of {'×'.join(map(str, bench.period))} pixels, kept beside the weights as "
            "`ganatomy_notch`, for ganatomy to apply to the finished images; plain PyTorch loads the file with "
            "strict=False, and lacks it then"
        ]
    said = []
    for site in bench.sites:
        old = module_of(bench.generator, site)
        new = repaired.module.get_submodule(site.name if site.source is None else site.source[0])
        was, became = (" ".join(str(part).split()) for part in (old, new))
        load = (
            "the module is as it was, with other weights: plain PyTorch loads the file as before"
            if was == became
            else f"`{was}` became `{became}`; ganatomy replaces it when it loads the file, plain PyTorch needs it "
            "replaced first"
        )
        said.append(f"`{site.name}`: {method}; {load}")
    return said
