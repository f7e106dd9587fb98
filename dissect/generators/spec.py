"""What model is meant, and how it is to be opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from ...hooks.errors import UsageError
from ...hooks.user_code import from_anywhere

DIFFUSERS = "diffusers:"


@dataclass(frozen=True)
class ModelSpec:
    """A model by its name or file, with all that opening it may need.

    Args:
        model: a name from `dissect models`, a checkpoint file, `diffusers:ID-or-folder`, or code of your own:
            `package.module:Name` or `file.py:Name`, a function or class that makes the network, or the network itself.
        weights: a checkpoint to load into what that code makes, or into a decoder of diffusers; every key must fit.
        entry: which network of a checkpoint that holds several, by its name there; None takes the likeliest that fits.
        args: arguments of that function or class, as `nz=100`.
        assumed: of a plain chain that its weights do not tell wholly, what is chosen, as --as says it:
            `act=relu,latent=uniform,side=64,output=tanh`, or a whole plan.
        latent: `normal:128`, `normal:128x1x1`, `uniform:100`, `uniform:100,0,1`, `sphere:512` or `bernoulli:100`, what
            an own network or a plain chain takes; None tries what its layers, or its norms, suggest.
        inputs: folder of images, for generators that take images; a decoder takes what its encoder makes of them.
        crop, resize: of these images, see `FolderImages`.
        input_range: what is black and what is white in them for the network; None is (-1, 1), or what is known of it.
        output_range: what is black and what is white in the network's output; None is what is known of it, or measured.
        label: the class to draw, for class-conditional generators. None draws all classes alike.
        truncation: ψ of StyleGANs and BigGANs, see `StyleBased` and `ClassLatents`.
        noise: of StyleGANs: `fixed`, or `drawn` anew for each sample.

    Raises:
        UsageError: a label that is no number, or a range that is none.
    """

    model: str
    weights: str | None = None
    entry: str | None = None
    args: tuple[str, ...] = ()
    assumed: str | None = None
    latent: str | None = None
    inputs: str | None = None
    crop: bool = False
    resize: int | None = None
    input_range: tuple[float, float] | None = None
    output_range: tuple[float, float] | None = None
    label: int | None = None
    truncation: float | None = None
    noise: str | None = None

    @classmethod
    def of(cls, model: str | Path | ModelSpec) -> ModelSpec:
        return model if isinstance(model, ModelSpec) else cls(str(model))

    @classmethod
    def recorded(cls, source: Mapping[str, Any]) -> ModelSpec | None:
        """What `record` gave, out of a run's or checkup's description; None where it was an object of Python."""
        if source.get("model") is None:
            return None
        return cls(**{field.name: source[field.name] for field in fields(cls) if field.name in source})

    def __post_init__(self) -> None:
        for name in ("model", "weights", "inputs"):
            value: Any = getattr(self, name)
            object.__setattr__(self, name, None if value is None else str(value))
        object.__setattr__(self, "args", (self.args,) if isinstance(self.args, str) else tuple(self.args))
        for name in ("input_range", "output_range"):
            object.__setattr__(self, name, parse_range(name, getattr(self, name)))
        if self.crop and self.resize is not None:
            raise UsageError("--crop and --resize exclude each other: images are cut, or resized first.")
        if self.inputs is None and (self.crop or self.resize is not None):
            raise UsageError(
                "--crop and --resize are about the images of --inputs; name their folder, or leave them out."
            )
        if self.label is not None and (isinstance(self.label, bool) or not isinstance(self.label, int)):
            raise UsageError(f"A label is the number of a class, such as 437; got {self.label!r}.")

    def from_anywhere(self) -> ModelSpec:
        """The spec with files and folders by their absolute paths, so that it holds in any current folder."""
        absolute: dict[str, Any] = {
            name: str(Path(value).resolve())
            for name, value in (("weights", self.weights), ("inputs", self.inputs))
            if value is not None
        }
        folder = self.model.removeprefix(DIFFUSERS)
        if folder != self.model and Path(folder).is_dir():
            absolute["model"] = f"{DIFFUSERS}{Path(folder).resolve()}"
        elif Path(self.model).is_file():
            absolute["model"] = str(Path(self.model).resolve())
        else:
            absolute["model"] = from_anywhere(self.model)
        return replace(self, **absolute)

    def record(self) -> dict[str, Any]:
        """The options that are given, as JSON keeps them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value not in (None, (), False)
        }

    def options(self) -> list[str]:
        """The options that are given beside the model, as words of a command line."""
        words: list[str] = []
        for name, value in asdict(self).items():
            option = "--as" if name == "assumed" else f"--{name.replace('_', '-')}"
            if name == "args":
                words += [word for argument in value for word in ("--arg", argument)]
            elif value is True:
                words.append(option)
            elif isinstance(value, tuple):
                words.append(f"{option}={value[0]:g},{value[1]:g}")  # a leading minus is no option
            elif name != "model" and value not in (None, False):
                words += [option, str(value)]
        return words


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Where the files of a run are now, as far as they have moved: see `ModelSpec`."""

    model: str | None = None
    weights: str | None = None
    inputs: str | None = None

    def applied(self, spec: ModelSpec, run: Path) -> ModelSpec:
        """The spec that a run recorded, with the new paths.

        Raises:
            UsageError: a file or folder does not exist any more, and no new path of it is given.
        """
        moved: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        applied = replace(spec, **moved)
        for name, value in (("model", applied.model.rpartition(":")[0] or applied.model), *_files(applied)):
            if value is not None and Path(value).is_absolute() and not Path(value).exists():
                raise UsageError(
                    f"The run in {run} used {value}, which does not exist any more; say where it is by --{name}."
                )
        return applied


def _files(spec: ModelSpec) -> tuple[tuple[str, str | None], ...]:
    return ("weights", spec.weights), ("inputs", spec.inputs)


def parse_range(name: str, value: object) -> tuple[float, float] | None:
    """`0,1`, or two numbers, as (black, white).

    >>> parse_range("output_range", "0,1")
    (0.0, 1.0)

    Raises:
        UsageError: it is no such range.
    """
    if value is None:
        return None
    bounds: Any = value.split(",") if isinstance(value, str) else value
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (isfinite(low) and isfinite(high) and low < high):
        raise UsageError(
            f"--{name.replace('_', '-')} {value}: black must be less than white, as in --{name.replace('_', '-')}=-1,1."
        )
    return low, high
