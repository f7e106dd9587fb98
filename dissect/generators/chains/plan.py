"""What a plain network is: its latents and its steps, as plain values that can be kept, compared and written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from ....hooks.errors import DissectError, UsageError
from ..latents import parse_latents

ACTIVATIONS = (  # as --as writes them; those that are usual in generators first
    "relu",
    "leaky_relu:0.2",
    "leaky_relu:0.01",
    "leaky_relu:0.1",
    "elu",
    "selu",
    "gelu",
    "silu",
    "tanh",
    "sigmoid",
)
MOST_STEPS, LARGEST_NUMBER = 400, 1 << 20
SETTINGS: dict[str, Any] = {  # of steps: a kind of number, or the words that are allowed
    "units": int,
    "kernel": int,
    "stride": int,
    "padding": int,
    "output_padding": int,
    "factor": int,
    "shape": int,
    "classes": int,
    "embedded": int,
    "eps": float,
    "bias": bool,
    "affine": bool,
    "map": bool,
    "border": ("zeros", "reflect", "replicate", "circular"),
    "mode": ("nearest", "bilinear"),
    "how": ("before", "after", "times"),
    "which": ACTIVATIONS,
}
OUTPUTS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "linear": (-1.0, 1.0)}


@dataclass(frozen=True)
class Step:
    """One step of a network.

    Attributes:
        kind: linear, conv, transposed, norm, prelu; act, view, flatten, upsample, shuffle, glu; or label.
        name: of the layer in the state dict; empty for a step without parameters.
        settings: what the state dict does not say: stride, padding, eps, which activation, ….
    """

    kind: str
    name: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, setting: str) -> Any:
        return dict(self.settings)[setting]

    def get(self, setting: str, default: Any = None) -> Any:
        return dict(self.settings).get(setting, default)


def step(kind: str, name: str = "", **settings: Any) -> Step:
    """A step with these settings."""
    return Step(kind, name, tuple((key, _plain(value)) for key, value in settings.items()))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plain network.

    Attributes:
        latent: the distribution of the latents, as --latent writes it. If there are classes, the class follows the
            latent as one-hot.
        classes: the number of classes; 0 without.
        steps: in order; the last one outputs images (N, 1 or 3, H, W).
        assumed: what the file does not tell, and what is assumed instead, in words.
    """

    latent: str
    classes: int = 0
    steps: tuple[Step, ...]
    assumed: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Plan:
        """The plan that `text` wrote.

        Raises:
            DissectError: the text is no plan.
        """
        try:
            fields = json.loads(text)
            steps = tuple(_checked(step["kind"], step["name"], dict(step["settings"])) for step in fields["steps"])
            if not 1 <= len(steps) <= MOST_STEPS or len(parse_latents(fields["latent"]).shape) != 1:
                raise ValueError("no steps, or other latents than rows of numbers")
            return cls(
                latent=fields["latent"],
                classes=int(fields["classes"]),
                steps=steps,
                assumed=tuple(map(str, fields["assumed"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
            raise DissectError("the plan of the network in the file is damaged; save it again.") from error

    def activations(self) -> list[str]:
        """The words of the hidden activations, each once."""
        return list(dict.fromkeys(step["which"] for step in self.steps[:-1] if step.kind == "act"))


def _checked(kind: object, name: object, settings: dict[str, Any]) -> Step:
    """A step out of a file, whose settings are of the kinds and sizes that such a step has.

    Raises:
        ValueError, TypeError, KeyError: they are not.
    """
    if not isinstance(name, str) or not isinstance(kind, str) or set(settings) - set(SETTINGS):
        raise TypeError("a step of no known kind")
    for setting, value in settings.items():
        allowed = SETTINGS[setting]
        fits = value in allowed if isinstance(allowed, tuple) else _is_of(value, allowed)
        if not fits:
            raise ValueError(f"{setting} is {value!r}")
    return Step(kind, name, tuple((setting, _plain(value)) for setting, value in settings.items()))


def _is_of(value: object, kind: type) -> bool:
    """Whether a value out of a file is a number of this kind in sensible bounds, or a list of up to three integers."""
    if isinstance(value, list | tuple):
        return kind is int and 1 <= len(value) <= 3 and all(_is_of(number, int) for number in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, float) and 0 <= value <= 1
    return isinstance(value, int) and 0 <= value <= LARGEST_NUMBER
