"""What model is meant, and how it is to be opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..hooks.errors import UsageError

DIFFUSERS = "diffusers:"


@dataclass(frozen=True)
class ModelSpec:
    """A model by its name or file, with all that opening it may need.

    Args:
        model: a name from `dissect models`, a checkpoint file, `diffusers:ID-or-folder`, or `package.module:factory`.
        weights: a checkpoint to load into what the factory makes, or into a decoder of diffusers; every key must fit.
        latent: `normal:128`, the latents of a factory's `nn.Module`.
        inputs: folder of images, for generators that take images; a decoder takes what its encoder makes of them.
        label: the class to draw, for class-conditional generators. None draws all classes alike.
        truncation: ψ of StyleGANs and BigGANs, see `StyleBased` and `ClassLatents`.
        noise: of StyleGANs: `fixed`, or `drawn` anew for each sample.
    """

    model: str
    weights: str | None = None
    latent: str | None = None
    inputs: str | None = None
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
        if self.label is not None and (isinstance(self.label, bool) or not isinstance(self.label, int)):
            raise UsageError(f"A label is the number of a class, such as 437; got {self.label!r}.")

    def from_anywhere(self) -> ModelSpec:
        """The same for any current folder: files and folders by their whole paths."""
        whole = {
            name: str(Path(value).resolve())
            for name, value in (("weights", self.weights), ("inputs", self.inputs))
            if value is not None
        }
        place = self.model.removeprefix(DIFFUSERS)
        if place != self.model and Path(place).is_dir():
            whole["model"] = f"{DIFFUSERS}{Path(place).resolve()}"
        elif Path(self.model).is_file():
            whole["model"] = str(Path(self.model).resolve())
        return ModelSpec(**{**asdict(self), **whole})

    def record(self) -> dict[str, Any]:
        """What is given."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def options(self) -> dict[str, Any]:
        """What is given beside the model, by the command line's names."""
        return {f"--{name}": value for name, value in asdict(self).items() if name != "model" and value is not None}
