"""The options of the commands in groups, their choices, and which of them go together.

The choices are written out, since the modules that define them import torch; a test compares the two.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem
from cloup import argument, constraint, option_group
from cloup.constraints import Constraint, ConstraintViolated, IsSet

from ...dissect.generators.spec import ModelSpec, Moved
from ...dissect.generators.zoo import MODELS
from .command import MODEL_ARGUMENT, MODEL_OPTIONS
from .ending import remember_open

Command = Callable[..., object]
Decorator = Callable[[Command], Command]


class OneOf(click.Choice[str]):
    """One of several words. A word that is none of them is refused in our own words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self.choices:
            return str(value)
        name = param.opts[0] if isinstance(param, click.Option) else str(param and param.human_readable_name)
        near = difflib.get_close_matches(str(value), self.choices, n=1)
        raise click.UsageError(
            f"{name} {value!r}: must be one of {', '.join(self.choices)}."
            + (f" Did you mean {near[0]}?" if near else ""),
            ctx,
        )


class ModelName(click.ParamType):
    """A model. On Tab the shell offers the names of the catalogue, and files."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in MODELS if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


class GoesWith(Constraint):
    """Options that may be given only beside another option or argument, or only without it.

    cloup's own constraints count an option that has a default as given; this one looks at the command line alone.
    """

    def __init__(self, other: str, *, present: bool = True, label: str | None = None) -> None:
        self.is_set, self.present = IsSet(other), present
        self.label = label or f"--{other}"

    def help(self, ctx: click.Context) -> str:
        return f"only {'with' if self.present else 'without'} {self.label}"

    def check_values(self, params: Sequence[click.Parameter], ctx: click.Context) -> None:
        if self.is_set(ctx) == self.present:
            return
        for param in params:
            if ctx.get_parameter_source(str(param.name)) == ParameterSource.COMMANDLINE:
                option = param.opts[0]
                if self.present:
                    message = f"{option} goes with {self.label}; add {self.label}, or leave {option} out."
                else:
                    message = f"{option} does not go with {self.label}; leave one of them out."
                raise ConstraintViolated(message, ctx=ctx, constraint=self, params=params)


def _options(*decorators: Decorator) -> Decorator:
    """Several options as one decorator."""
    return lambda command: functools.reduce(lambda wrapped, option: option(wrapped), reversed(decorators), command)


def _label(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    if value in (None, "all"):
        return None
    if not str(value).isdecimal():
        raise click.BadParameter(f"{value!r} is not the number of a class; give a number, or all.")
    return int(str(value))


FILE = click.Path(path_type=Path)
MODEL = ModelName()
RULES = ("iqr", "quantile")
SIGNIFICANCE = ("off", "fast", "full")
CAUSES = ("off", "fast", "full")
CONTROLS = ("rotation", "untrained")
PRECISIONS = ("float32", "bfloat16")
BY = ("gradient", "scan", "iou")
VALUES = ("zero", "mean", "resample")
REPAIR_VALUES = ("best", "zero", "mean")
DETECTORS = ("flagged", "rare", "local", "metric", "greedy", "realism", "frechet")
METHODS = ("equalise", "resize", "box", "notch")
NOISES = ("fixed", "drawn")
SPACES = ("z", "w")
PATHS = ("linear", "spherical")
DIRECTIONS = ("ganspace", "sefa")
FILMS = ("webp", "gif")
SHELLS = ("bash", "zsh", "fish")
_option = functools.partial(click.option, show_default=True)
a_run = argument("run", type=FILE, help="Folder of a finished run.")

_WEIGHTS = _option("--weights", help="Checkpoint for your own code, or a repaired one for diffusers:….")
_ABOUT_MODEL = _options(
    _option("--entry", metavar="NAME", help="Which network of a checkpoint that holds several."),
    _option(
        "--arg", "args", multiple=True, metavar="NAME=VALUE", help="Argument of your function or class; repeatable."
    ),
    _option("--latent", help="What it takes: normal:128, uniform:100, sphere:512, ….  [default: found by trying]"),
    _option(
        "--as", "assumed", metavar="CHOICE", help="For a plain chain: what its weights do not tell, e.g. act=relu."
    ),
    _option("--inputs", metavar="FOLDER", help="Images for generators that take images, and for decoders."),
    _option("--crop", is_flag=True, help="Crop the images of --inputs to the size of the smallest one."),
    _option("--resize", type=int, metavar="SIDE", help="Or resize and crop them to squares of this side."),
    _option(
        "--input-range", metavar="BLACK,WHITE", help="What the network takes for black and white.  [default: -1,1]"
    ),
    _option(
        "--output-range",
        metavar="BLACK,WHITE",
        help="What is black and white in its output.  [default: as known, or measured]",
    ),
    _option("--label", callback=_label, help="Class that a conditional generator draws.  [default: all]"),
    _option("--truncation", type=float, help="ψ of StyleGANs and BigGANs.  [default: none]"),
    _option("--noise", type=OneOf(NOISES), help="Noise of StyleGANs, or drawn for each sample.  [default: fixed]"),
)


def a_model(
    help: str = "Name from `dissect models`, checkpoint, diffusers:ID-or-folder, or file.py:Name.",
    *,
    required: bool = True,
) -> Decorator:
    """The group "Model": which model, and how to open it. The command gets it as `model`, a ModelSpec or None.

    `required`: the model is an argument, too. Otherwise it may stand beside a RUN, whose own model has then moved.
    """
    details = _options(_WEIGHTS, _ABOUT_MODEL)
    if required:
        return _options(
            argument(MODEL_ARGUMENT, type=MODEL, required=False, metavar="MODEL", help=help),
            option_group("Model", _option("--model", type=MODEL, help="The model, if not as an argument."), details),
        )
    others = [name for name in MODEL_OPTIONS if name != "model"]
    moves = [field.name for field in fields(Moved)]
    return _options(
        option_group("Model", _option("--model", type=MODEL, help=help), details),
        constraint(GoesWith("model"), others),
        constraint(GoesWith("run", present=False, label="RUN"), [name for name in others if name not in moves]),
    )


def moved(spec: ModelSpec) -> Moved:
    """The places that a spec names, of a run's model."""
    return Moved(model=spec.model, weights=spec.weights, inputs=spec.inputs)


def split_model(options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Take the options about checkpoints out of a command's options: the code they are for, and the rest of a spec."""
    spec = {name: options.pop(name) for name in MODEL_OPTIONS if name in options}
    return spec.pop("model"), spec


_SEGMENTER = _option("--segmenter", help="Spec from `dissect segmenters`.  [default: the model's own]")
_REFERENCE = _option("--reference", type=FILE, help="Folder of real images.  [default: the embedded scenes]")
_REFERENCE_OF_MODEL = _option(
    "--reference", type=FILE, help="Folder of real images, or: scenes.  [default: scenes for models that draw them]"
)
_INCEPTION = _option("--inception", metavar="FILE", help="torch-fidelity's Inception weights, or: download.")
_FLAGS = _option("--flags", type=FILE, help="For flagged: file of bad samples' numbers, or folder of masks.")
_REALISM = _option("--realism", metavar="MODULE:FACTORY", help="For realism: a differentiable score of images.")
_NAME = _option("--name", help="Name of the result's folder in RUN.  [default: made from the options]")
_BATCH = _option("--batch-size", type=int, help="Samples computed together.  [default: depends on the device]")
_DEVICE = _option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ….")
_machine = option_group("Machine", _BATCH, _DEVICE)


_OPEN = click.option(
    "--open", is_flag=True, expose_value=False, callback=remember_open, help="Open the page in the browser."
)


def _out(help: str) -> Decorator:
    return option_group("Output", _option("--out", type=FILE, help=help), _OPEN)


def _seed(help: str) -> Decorator:
    return _option("--seed", default=0, help=help)


run_options = _options(
    a_model(),
    option_group(
        "What to measure",
        _option(
            "--layer",
            "layers",
            multiple=True,
            help="Name or number (4 = layer4), repeatable; or all.  [default: auto, the one that inspect suggests]",
        ),
        _SEGMENTER,
        _option("--samples", default=1000, help="Number of images. Even ones choose the labels, odd ones score them."),
        _option("--threshold", type=OneOf(RULES), default="iqr", help="Labelling rule, of 2019 or of 2020."),
        _option("--quantile", default=0.01, help="For the quantile rule: share of pixels above the threshold."),
        _option("--significance", type=OneOf(SIGNIFICANCE), default="fast", help="Test of the labels."),
        _option(
            "--causes", type=OneOf(CAUSES), default="fast", help="Estimate by gradient what ablating each unit does."
        ),
        _option(
            "--control", "controls", type=OneOf(CONTROLS), multiple=True, help="Dissect a control, too; repeatable."
        ),
        _option("--basis", default="units", help="Directions instead of units: pca, nmf, or a .safetensors file."),
        _option("--directions", type=int, help="Number of directions of pca and nmf.  [default: 32, at most all]"),
        _option("--grid", default=64, help="Side of the grid on which units and labels are compared."),
        _seed("Seed of the latents and of everything else that is random."),
    ),
    option_group(
        "Output",
        _option("--out", type=FILE, help="Run folder.  [default: runs/MODEL-LAYERS[-BASIS]]"),
        _option("--overwrite", is_flag=True, help="Make it anew, and replace the run in --out with all that it holds."),
        _option("--keep-spool", is_flag=True, help="Keep the featuremaps after the run."),
        _option("--no-report", is_flag=True, help="Write the tables only, no pages."),
        _OPEN,
    ),
    option_group(
        "Machine",
        _BATCH,
        _DEVICE,
        _option(
            "--precision", type=OneOf(PRECISIONS), default="float32", help="bfloat16 is faster on some processors."
        ),
        _option("--shard", metavar="K/N", help="Capture part K of N only; dissect merge makes one run of all parts."),
        _option("--spool-limit", default=20.0, help="Refuse to fill more GB of disk than this."),
    ),
)
merge_options = _options(
    argument("shards", nargs=-1, required=True, type=FILE, metavar="RUN…", help="Folders of all parts of the run."),
    _option("--out", type=FILE, help="Run folder.  [default: runs/MODEL-LAYERS]"),
    _option("--keep-spool", is_flag=True, help="Keep the featuremaps after the run."),
    _option("--no-report", is_flag=True, help="Write the tables only, no pages."),
    _OPEN,
)
_moved_options = option_group(
    "If the model has moved since the run",
    _option("--model", help="Where the run's model is now."),
    _option("--weights", help="Where its weights are now."),
    _option("--inputs", metavar="FOLDER", help="Where its images are now."),
)


def effects_options(*own: Decorator) -> Decorator:
    """The options of `ablate` and `insert`: `own` are those of only one of them."""
    return _options(
        a_run,
        option_group(
            "Which units, or directions",
            _option("--class", "label", metavar="CLASS", help="The class to act on; its best units are taken."),
            _option("--top", default=20, help="How many of the class's best units."),
            _option(
                "--by",
                type=OneOf(BY),
                help="Best by effect: estimated by gradient, or measured by a scan; or by IoU.  [default: gradient, "
                "where the segmenter has probabilities]",
            ),
            _option("--units", metavar="LAYER:UNIT,…", help="These units or directions, e.g. layer4:12,57."),
            _option("--layer", help="Layer of the run; required if the run has several."),
            _option("--optimize", is_flag=True, help="Find units by gradient (ACE), beside the best by IoU."),
        ),
        option_group(
            "What to measure",
            *own,
            _option("--samples", type=int, help="Number of unseen samples.  [default: 256; fewer for a grid]"),
            _option("--random-sets", default=5, help="Random sets of units to compare with, of each of two kinds."),
            _seed("Seed of the random sets."),
        ),
        _moved_options,
        option_group(
            "Output", _option("--name", help="Folder in RUN/interventions.  [default: made from the options]"), _OPEN
        ),
        _machine,
    )


ablate_options = effects_options(
    _option("--value", type=OneOf(VALUES), default="zero", help="Output of the units; resample: of another sample."),
    _option("--curve", is_flag=True, help="Measure the best 1, 2, 4, … units, too."),
)
insert_options = effects_options(
    _option("--where", default="grid", help="grid (each cell by itself), x,y[,w,h], class:NAME, or a mask's file."),
    _option(
        "--level",
        type=float,
        help="Share of pixels that exceed the inserted value.  [default: the class's typical value]",
    ),
)
scan_options = _options(
    a_run,
    option_group(
        "What to measure",
        _option("--class", "label", metavar="CLASS", required=True, help="Class by which the units are ranked."),
        _option("--layer", help="Layer of the run.  [default: each in turn]"),
        _option("--samples", default=64, help="How many of the run's samples, from the first."),
        _option("--top", default=20, help="How many of the strongest units are to be known exactly."),
        _option("--exact", is_flag=True, help="Ablate every unit, and not only those that an estimate ranks first."),
    ),
    _moved_options,
    option_group("Output", _OPEN),
    _machine,
)
artifact_options = _options(
    argument("run", type=FILE, required=False, help="Folder of a finished run, or give --model."),
    a_model("Instead of RUN: dissect this model first.", required=False),
    option_group(
        "What to measure",
        _option(
            "--layer",
            "layers",
            multiple=True,
            help="Layer; repeatable with --model.  [default: all of RUN; auto with --model]",
        ),
        _SEGMENTER,
        _option(
            "--detector",
            type=OneOf(DETECTORS),
            default="rare",
            help="How suspects are found. metric, greedy, realism and frechet compare with --reference.",
        ),
        _REFERENCE,
        _INCEPTION,
        _FLAGS,
        _REALISM,
    ),
    option_group("Output", _NAME, _OPEN),
    _machine,
)
repair_options = _options(
    argument("run", type=FILE, required=False, help="Folder of a run; with --checkerboard, of a checkup."),
    option_group(
        "Ablate suspect units",
        _option("--units", help="LAYER:UNIT,UNIT,…, or a file of such lines, or a table of layer and unit."),
        _option("--detector", type=OneOf(DETECTORS), help="Instead: the most suspect units; see `dissect artifacts`."),
        _option("--top", default=20, help="How many suspect units of each layer."),
        _option("--value", type=OneOf(REPAIR_VALUES), default="best", help="Output of the units."),
        _option("--one-by-one", is_flag=True, help="Search each layer after the layers below it were repaired."),
        _FLAGS,
        _REALISM,
        constraint=GoesWith("checkerboard", present=False),
    ),
    option_group(
        "Or repair a checkerboard",
        _option("--checkerboard", is_flag=True, help="Change the upsampling layers instead of ablating units."),
        _option("--method", type=OneOf(METHODS), default="equalise", help="How."),
        _option("--finetune-minutes", default=0.0, help="Then train the repaired generator for so long."),
        _SEGMENTER,
        constraint=GoesWith("checkerboard"),
    ),
    a_model("Instead of a checkup's folder: check this model first.", required=False),
    option_group(
        "What to measure",
        _option(
            "--layer",
            "layers",
            multiple=True,
            help="Layer; repeatable with --checkerboard.  [default: all, or the one to blame]",
        ),
        _option("--strength", default=1.0, help="Strength of the repair, up to 1."),
        _option("--samples", default=1000, help="Number of unseen samples."),
        _option("--random-sets", default=5, help="Random repairs of the same size to compare with."),
        _REFERENCE,
        _INCEPTION,
        _seed("Seed of the random repairs and of the intervals."),
    ),
    option_group(
        "Output",
        _option("--out", type=FILE, help="Checkpoint, .pth or .safetensors.  [default: in the repair's folder]"),
        _NAME,
        _OPEN,
    ),
    _machine,
)
checkup_options = _options(
    a_model(),
    option_group(
        "Checkerboards and variety",
        _REFERENCE_OF_MODEL,
        _option("--critic", metavar="MODULE:FACTORY", help="Discriminator or classifier; checks its gradient."),
        _option("--segmenter", help="For the comparison with real images.  [default: the model's own]"),
        constraint=GoesWith("tiles", present=False),
    ),
    option_group(
        "Or seams of tiles",
        _option("--tiles", type=int, help="Run images in S×S tiles and measure the seams between them."),
    ),
    option_group(
        "What to measure",
        _option("--samples", type=int, help="Number of images.  [default: 512; with --tiles 16]"),
        _seed("Seed of the latents, the chance levels and the untrained control."),
    ),
    _out("Folder of the result.  [default: runs/MODEL-checkup]"),
    _machine,
)
diversity_options = _options(
    a_model(),
    option_group(
        "What to measure",
        _REFERENCE_OF_MODEL,
        _SEGMENTER,
        _option("--samples", default=1000, help="Number of images."),
        _INCEPTION,
        _seed("Seed of the latents, the random halves and the untrained control."),
    ),
    _out("Folder of the result.  [default: runs/MODEL-diversity]"),
    _machine,
)
_CHECKPOINTS = option_group(
    "Model",
    _option("--model", type=MODEL, help="Your code for the checkpoints, file.py:Name.  [default: by their weights]"),
    _ABOUT_MODEL,
)
_REAL_IMAGES = _option("--reference", type=FILE, help="Folder of real images, or: scenes.")
fitness_options = _options(
    argument(
        "candidates",
        nargs=-1,
        required=True,
        metavar="CANDIDATE…",
        help="Models or checkpoints, as `dissect run --model` takes them.",
    ),
    _CHECKPOINTS,
    option_group(
        "What to measure",
        _REAL_IMAGES,
        _option("--critic", metavar="MODULE:FACTORY", help="Discriminator, for E-GAN's own fitness beside ours."),
        _INCEPTION,
        _option("--samples", default=1000, help="Number of images of each candidate."),
        _seed("Seed of the latents and of the random halves."),
    ),
    _out("Folder of the result.  [default: runs/fitness]"),
    _machine,
)
watch_options = _options(
    argument("place", help="Folder of checkpoints, or a quoted pattern of their names."),
    _CHECKPOINTS,
    option_group(
        "What to measure",
        _REAL_IMAGES,
        _SEGMENTER,
        _option(
            "--layer",
            help="Layer whose labelled units are counted.  [default: the middle layer suggested by `dissect inspect`]",
        ),
        _option("--samples", default=64, help="Number of latents, the same ones each time."),
        _option("--once", is_flag=True, help="Stop after the checkpoints that exist now."),
        _seed("Seed of the latents and of the random halves."),
    ),
    _out("Folder of the result.  [default: runs/PLACE-watch]"),
    _machine,
)
power_options = _options(
    a_run,
    _option("--width", default=0.02, help="Wanted width of the intervals of IoU."),
    _option("--power", default=0.8, help="Probability of detecting a unit with the IoU shown."),
)
compare_options = _options(
    argument("runs", nargs=-1, required=True, metavar="RUN[:LAYER]…", help="Folders of finished runs."),
    _option("--out", type=FILE, help="Folder of the page.  [default: comparisons/A-B-…]"),
    _OPEN,
)
inspect_options = _options(
    a_model(),
    option_group(
        "Output", _option("--write", metavar="FILE.py", help="Write the network of a plain chain as Python code.")
    ),
    option_group("Machine", _DEVICE),
)
_SAMPLES_SHOWN = _option("--samples", help="Numbers of the key points or rows, e.g. 0..3,7.  [default: 0..3]")
_SPACE = _option("--space", type=OneOf(SPACES), help="Space of the latents.  [default: w for StyleGANs]")
_PATH = _option("--path", type=OneOf(PATHS), help="Way between two.  [default: spherical in z, linear in w]")


def latents_options(kind: str, *own: Decorator, film: bool = True) -> Decorator:
    """The options of one kind of move: `own` are those that no other command has."""
    films = [_option("--film", "animation", type=OneOf(FILMS), default="webp", help="Format of films.")] if film else []
    return _options(
        a_model(),
        option_group("Which latents", *own, _seed("Seed of the latents and of everything else that is random.")),
        option_group(
            "Output",
            _option("--out", type=FILE, help=f"Folder of the result.  [default: runs/MODEL-latents-{kind}]"),
            *films,
            _OPEN,
        ),
        _machine,
    )


interpolate_options = latents_options("interpolate", _SAMPLES_SHOWN, _SPACE, _PATH)
arithmetic_options = latents_options(
    "arithmetic",
    _option("--formula", required=True, help="Sums and differences of samples' means, e.g. '3,4,5 - 7,8 + 9'."),
    _SPACE,
)
mix_options = latents_options(
    "mix",
    _SAMPLES_SHOWN,
    _option("--across", help="Samples of the columns.  [default: 4..8]"),
    _option("--crossover", type=int, help="First layer with the columns' styles.  [default: the middle one]"),
)
truncation_options = latents_options(
    "truncation",
    _option("--samples", help="Numbers of the rows, e.g. 0..3,7.  [default: 0..5]"),
    _option("--psi", help="Values of ψ, with commas between them.  [default: five from 0 to 1]"),
)
directions_options = latents_options(
    "directions",
    _SAMPLES_SHOWN,
    _SPACE,
    _option("--method", type=OneOf(DIRECTIONS), help="How directions are found.  [default: ganspace]"),
    _option("--directions", type=int, help="Number of directions.  [default: 5]"),
    _option("--strength", type=float, help="Length of a move, in standard deviations.  [default: 2]"),
    _option("--measured", type=int, help="Samples on which the effects are measured.  [default: 64]"),
    _SEGMENTER,
)
path_length_options = latents_options(
    "path-length",
    _SPACE,
    _option("--path", type=OneOf(PATHS), help="Way between two latents.  [default: linear]"),
    _option("--pairs", type=int, help="Number of pairs of images.  [default: 1000]"),
    _option("--similarity", metavar="MODULE:FACTORY", help="Your distance between images, instead of LPIPS."),
    _option("--lpips", type=FILE, help="Folder of LPIPS' weights.  [default: torch.hub's cache]"),
    film=False,
)
report_options = _options(
    argument("run", type=FILE, help="Folder of a finished run, or a folder of results, such as runs."),
    click.option("--single-file", is_flag=True, help="Write RUN/report.html, one file that holds everything."),
    _OPEN,
)
a_shell = argument("shell", type=OneOf(SHELLS), help="Your shell: bash, zsh or fish.")
scenes_options = _options(
    _option("--n", default=1000, help="Number of scenes."),
    _option("--out", type=FILE, required=True, help="New folder for images/, masks/ and classes.csv."),
    _option("--side", default=128, help="Side of the images in pixels."),
    _seed("Seed of the scenes."),
)
