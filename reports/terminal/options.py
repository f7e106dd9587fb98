"""How every command begins and ends: options in common, JSON, errors in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ...dissect.generators.spec import ModelSpec, Moved
from .command import MODEL_ONLY, Command

a_run = click.argument("run", type=click.Path(path_type=Path))
a_file = click.Path(path_type=Path)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""
    return lambda command: functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


_MODEL = "A name from `dissect models`, a checkpoint, diffusers:ID-or-folder, or code: file.py:Name."
_WEIGHTS = click.option("--weights", help="Checkpoint for code of your own, or a repaired one for diffusers:….")
_OPENED = _options(
    click.option("--entry", metavar="NAME", help="Which network of a checkpoint that holds several."),
    click.option("--arg", "args", multiple=True, metavar="NAME=VALUE", help="Of your code's function or class."),
    click.option("--latent", help="normal:128, uniform:100, sphere:512, …: what it takes.  [default: found by trying]"),
    click.option("--as", "assumed", metavar="CHOICE", help="What the weights of a plain chain do not tell: act=relu,…"),
    click.option("--inputs", metavar="FOLDER", help="Images for generators that take images, and for decoders."),
    click.option("--crop", is_flag=True, help="Cut these images to the smallest one, whatever is lost."),
    click.option("--resize", type=int, metavar="SIDE", help="Or resize and cut them to squares."),
    click.option("--input-range", metavar="BLACK,WHITE", help="Of these images for the network.  [default: -1,1]"),
    click.option("--output-range", metavar="BLACK,WHITE", help="Of its output.  [default: as known, or measured]"),
    click.option("--label", callback=lambda *given: _label(given[-1]), help="Class of conditional generators, or all."),
    click.option("--truncation", type=float, help="ψ of StyleGANs and BigGANs.  [default: none]"),
    click.option("--noise", help="Of StyleGANs: fixed, or drawn for each sample.  [default: fixed]"),
)


def _label(given: str | None) -> int | None:
    if given in (None, "all"):
        return None
    if not str(given).isdecimal():
        raise click.BadParameter(f"{given!r} is no class; give its number, or all.")
    return int(str(given))


def moved(spec: ModelSpec) -> Moved:
    """The places that a spec names, of a run's model."""
    return Moved(model=spec.model, weights=spec.weights, inputs=spec.inputs)


def a_model(model: str = _MODEL, *, required: bool = True) -> Callable[[Command], Command]:
    """Options that say which model and how to open it; the command gets them as `model`, a ModelSpec or None."""
    return _options(click.option("--model", required=required, help=model), _WEIGHTS, _OPENED)


def how_to_open(options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Out of a command's options, those of checkpoints: what they are weights for, and the rest of a ModelSpec."""
    opened = {name: options.pop(name) for name in MODEL_ONLY if name in options}
    return opened.pop("model"), opened


a_segmenter = click.option("--segmenter", help="A spec from `dissect segmenters`.  [default: the model's own]")
where_options = _options(
    click.option("--batch-size", type=int, help="[default: by device]"),
    click.option("--device", default="auto", show_default=True),
)
critic_options = _options(
    click.option("--reference", type=a_file, help="Folder of real images, or scenes.  [default: scenes where drawn]"),
    click.option("--critic", metavar="MODULE:FACTORY", help="A discriminator or classifier; its gradient is checked."),
)
suspect_options = _options(
    click.option("--reference", type=a_file, help="Folder of real images.  [default: the embedded scenes]"),
    click.option("--inception", metavar="FILE", help="torch-fidelity's Inception weights, or download."),
    click.option("--flags", type=a_file, help="For flagged: file of bad samples' numbers, or folder of masks."),
    click.option("--realism", metavar="MODULE:FACTORY", help="For realism: a differentiable score of images."),
    click.option("--name", help="Of the folder in RUN.  [default: from the options]"),
    where_options,
)
run_options = _options(
    a_model(),
    click.option("--layer", "layers", multiple=True, required=True, help="Number (4 = layer4) or name; repeatable."),
    a_segmenter,
    click.option("--samples", default=1000, show_default=True, help="Images: even ones choose labels, odd ones score."),
    click.option("--threshold", default="iqr", show_default=True, help="Rule: iqr (2019) or quantile (2020)."),
    click.option(
        "--quantile", default=0.01, show_default=True, help="Share of pixels above it under the quantile rule."
    ),
    click.option("--significance", default="fast", show_default=True, help="Test of labels: off, fast or full."),
    click.option(
        "--control", "controls", multiple=True, help="Also dissect a control: rotation, untrained; repeatable."
    ),
    click.option(
        "--basis", default="units", show_default=True, help="Directions instead: pca, nmf or a .safetensors file."
    ),
    click.option("--directions", type=int, help="How many, for pca and nmf.  [default: 32, at most all]"),
    click.option("--grid", default=64, show_default=True, help="Side of the grid where units and labels meet."),
    click.option("--seed", default=0, show_default=True, help="Of the latents and all else that is drawn."),
    where_options,
    click.option("--out", type=a_file, help="Run folder.  [default: runs/MODEL-LAYERS[-BASIS]]"),
    click.option("--precision", default="float32", show_default=True, help="Or bfloat16: faster on many processors."),
    click.option("--keep-spool", is_flag=True, help="Keep the featuremaps when done."),
    click.option("--shard", metavar="K/N", help="Capture part K of N only; dissect merge puts all together."),
    click.option("--spool-limit", default=20.0, show_default=True, help="Refuse to fill more disk than this, in GB."),
    click.option("--no-report", is_flag=True, help="Tables only, no pages."),
)
artifact_options = _options(
    click.argument("run", type=a_file, required=False),
    a_model("Instead of a RUN: dissect this first, as `dissect run` does.", required=False),
    click.option("--layer", "layers", multiple=True, help="Layer; repeatable with --model.  [default: all of RUN]"),
    a_segmenter,
    click.option(
        "--detector", default="rare", show_default=True, help="flagged, rare, local, metric, greedy, realism."
    ),
    suspect_options,
)
checkup_options = _options(
    a_model(),
    click.option("--tiles", type=int, help="Instead: run images in S×S tiles and measure the seams between."),
    click.option("--samples", type=int, help="Images to draw.  [default: 512; of --tiles 16]"),
    critic_options,
    click.option("--segmenter", help="For the comparison with real images.  [default: the model's own]"),
    click.option("--seed", default=0, show_default=True, help="Of the latents, chance and the untrained control."),
    where_options,
    click.option("--out", type=a_file, help="Folder.  [default: runs/MODEL-checkup]"),
)
diversity_options = _options(
    a_model(),
    click.option("--reference", type=a_file, help="Folder of real images, or scenes.  [default: scenes where drawn]"),
    a_segmenter,
    click.option("--samples", default=1000, show_default=True, help="Images to draw."),
    click.option("--inception", metavar="FILE", help="torch-fidelity's Inception weights, or download."),
    click.option("--seed", default=0, show_default=True, help="Of the latents, halves and the untrained control."),
    where_options,
    click.option("--out", type=a_file, help="Folder.  [default: runs/MODEL-diversity]"),
)
_CHECKPOINTS = _options(
    click.option("--model", help="Your code for the checkpoints, file.py:Name.  [default: told by their weights]"),
    _OPENED,
    click.option("--reference", type=a_file, help="Folder of real images, or scenes."),
)
fitness_options = _options(
    _CHECKPOINTS,
    click.option("--critic", metavar="MODULE:FACTORY", help="The discriminator; E-GAN's own fitness is measured, too."),
    click.option("--inception", metavar="FILE", help="torch-fidelity's Inception weights, or download."),
    click.option("--samples", default=1000, show_default=True, help="Images of each."),
    click.option("--seed", default=0, show_default=True, help="Of the latents and halves."),
    where_options,
    click.option("--out", type=a_file, help="Folder.  [default: runs/fitness]"),
)
watch_options = _options(
    _CHECKPOINTS,
    a_segmenter,
    click.option("--layer", help="Whose units are counted.  [default: the middle one of those that inspect suggests]"),
    click.option("--samples", default=64, show_default=True, help="Latents, the same for each checkpoint."),
    click.option("--once", is_flag=True, help="Stop when all that are there now have been looked at."),
    click.option("--seed", default=0, show_default=True, help="Of the latents and halves."),
    where_options,
    click.option("--out", type=a_file, help="Folder.  [default: runs/PLACE-watch]"),
)
latents_options = _options(
    click.argument("kind"),
    a_model(),
    click.option("--samples", help="Numbers, e.g. 0..3,7: key points, or rows.  [default: 0..3; truncation: 0..5]"),
    click.option("--space", help="z or w.  [default: w of StyleGANs]"),
    click.option("--path", help="linear or spherical.  [default: spherical in z, linear in w and for path-length]"),
    click.option("--formula", help="For arithmetic: means of samples with signs, e.g. '3,4,5 - 7,8 + 9'."),
    click.option("--across", help="For mix: samples of the columns.  [default: 4..8]"),
    click.option("--crossover", type=int, help="For mix: first layer of the columns' styles.  [default: the middle]"),
    click.option("--psi", help="For truncation: numbers with commas between."),
    click.option("--method", help="For directions: ganspace or sefa.  [default: ganspace]"),
    click.option("--directions", type=int, help="How many.  [default: 5]"),
    click.option("--strength", type=float, help="Of a direction, in standard deviations.  [default: 2]"),
    click.option("--measured", type=int, help="Samples on which effects are measured.  [default: 64]"),
    click.option("--segmenter", help="For directions: a spec from `dissect segmenters`.  [default: the model's own]"),
    click.option("--pairs", type=int, help="For path-length.  [default: 1000]"),
    click.option("--similarity", metavar="MODULE:FACTORY", help="For path-length, instead of LPIPS."),
    click.option("--lpips", type=a_file, help="Folder of LPIPS' weights.  [default: torch.hub's cache]"),
    click.option("--film", "animation", default="webp", show_default=True, help="webp or gif."),
    click.option("--seed", default=0, show_default=True, help="Of the latents and all else that is drawn."),
    where_options,
    click.option("--out", type=a_file, help="Folder.  [default: runs/MODEL-latents-KIND]"),
)
CRITIC_ONLY = ("reference", "critic", "segmenter")
UNITS_ONLY = ("units", "detector", "top", "value", "one_by_one", "flags", "realism")
GRID_ONLY = ("segmenter", "method", "finetune_minutes")
repair_options = _options(
    click.argument("run", type=a_file, required=False),
    click.option("--units", help="File with lines LAYER:UNIT,UNIT,…, or a table of layer and unit; or such a line."),
    click.option("--detector", help="Instead: the most suspect units; see dissect artifacts."),
    click.option("--top", default=20, show_default=True, help="How many of each layer."),
    click.option("--value", default="best", show_default=True, help="What units output: zero, mean, or the better."),
    click.option("--one-by-one", is_flag=True, help="Detect in each layer as it is after the repairs below."),
    click.option("--checkerboard", is_flag=True, help="Mend upsampling instead of taking units out."),
    click.option("--method", default="equalise", show_default=True, help="How: equalise, resize, box or notch."),
    click.option("--finetune-minutes", default=0.0, help="Then train the mended generator so long."),
    a_model("Instead of a checkup's folder: check this first, as `dissect checkup` does.", required=False),
    a_segmenter,
    click.option(
        "--layer", "layers", multiple=True, help="Layer; repeatable with --checkerboard.  [default: all, or to blame]"
    ),
    click.option("--strength", default=1.0, show_default=True, help="How much of the repair, up to 1."),
    click.option("--samples", default=1000, show_default=True, help="Unseen samples to measure on."),
    click.option("--random-sets", default=5, show_default=True, help="Random repairs of the same size beside."),
    click.option("--seed", default=0, show_default=True, help="Of the random repairs and intervals."),
    click.option("--out", type=a_file, help="Checkpoint, .pth or .safetensors.  [default: in the repair's folder]"),
    suspect_options,
)
moved_options = _options(
    click.option("--model", help="Where the run's model is now, if it has moved."),
    click.option("--weights", help="Where its weights are now."),
    click.option("--inputs", metavar="FOLDER", help="Where its images are now."),
)
effects_options = _options(
    moved_options,
    click.option("--class", "label", metavar="CLASS", help="The class meant; its best units are taken."),
    click.option("--top", default=20, show_default=True, help="How many of the class's best units."),
    click.option("--units", metavar="LAYER:UNIT,…", help="These units instead, e.g. layer4:12,57,300."),
    click.option("--layer", help="Layer of the run; needed where it has several."),
    click.option("--by", default="iou", show_default=True, help="Best by: iou, or scan (effect of each alone)."),
    click.option("--optimize", is_flag=True, help="Find the units by gradient (ACE) and compare with IoU's."),
    click.option("--samples", type=int, help="Unseen samples to measure on.  [default: 256; grid: fewer]"),
    click.option("--random-sets", default=5, show_default=True, help="Random sets beside, of each of two kinds."),
    click.option("--name", help="Folder in RUN/interventions.  [default: from the options]"),
    click.option("--seed", default=0, show_default=True, help="Seed of the random sets."),
    where_options,
    a_run,
)
