"""A rebuilt network as a Python file."""

from __future__ import annotations

from ..latents import parse_latents
from .network import grown
from .plan import Plan, Step

JOINED = """
        latents, labels = x[:, : -self.classes], x[:, -self.classes :]{embedded}
        if self.how == "times":
            return latents * labels
        return torch.cat([labels, latents] if self.how == "before" else [latents, labels], 1)
"""
EMBEDDED = '''

class Labels(nn.Embedding):
    """(N, latent + classes), a latent and a class as one-hot -> what the first layer takes."""

    def __init__(self, classes, how, embedded):
        super().__init__(classes, embedded)
        self.classes, self.how = classes, how

    def forward(self, x):''' + JOINED.format(embedded="\n        labels = labels @ self.weight")
ONE_HOT = '''

class Labels(nn.Module):
    """(N, latent + classes), a latent and a class as one-hot -> what the first layer takes."""

    def __init__(self, classes, how, embedded):
        super().__init__()
        self.classes, self.how = classes, how

    def forward(self, x):''' + JOINED.format(embedded="")
MODULE = '''"""The generator of {file}, rebuilt from its weights by ganatomy.

Layers have the names that they have in the file, so that its weights fit:

    dissect inspect --model {name}:Generator --weights {file} --latent {latent}
{assumed}"""

import torch
from torch import nn
{labels}

class Generator(nn.Module):
    """latents (N, {size}){beside} -> images (N, {channels}, {side}, {side}) in {values}."""

    def __init__(self):
        super().__init__()
        layers = {{
{layers}
        }}
        self._order = list(layers)
        for name, layer in layers.items():
            *above, last = name.split(".")
            parent = self
            for word in above:
                if word not in parent._modules:
                    parent.add_module(word, nn.Module())
                parent = parent.get_submodule(word)
            parent.add_module(last, layer)

    def forward(self, latents{argument}):
        x = latents.flatten(1){joined}
        for name in self._order:
            x = self.get_submodule(name)(x)
        return x
'''


def as_python(plan: Plan, names: list[str], *, file: str, name: str, values: str) -> str:
    """The text of a module with a class `Generator`.

    Args:
        plan: of the network.
        names: of its layers, one a step.
        file: with the weights.
        name: of the module's own file.
        values: the range of the output, in words.
    """
    size = parse_latents(plan.latent).shape[0]
    side, channels, lines = 1, 1, []
    for layer, step in zip(names, plan.steps, strict=True):
        side = grown(step, side)
        channels = _channels(step, channels)
        lines.append(
            f'            "{layer}": {_call(step)},' + (f"  # {channels}×{side}×{side}" if step.get("map") else "")
        )
    assumed = "".join(f"\n{line[0].upper()}{line[1:]}." for line in plan.assumed)
    one_hot = f"nn.functional.one_hot(labels, {plan.classes}).float()"
    label = next((step for step in plan.steps if step.kind == "label"), None)
    return MODULE.format(
        file=_quoted(file),
        name=_quoted(name),
        latent=plan.latent,
        assumed=f"\nAssumed, since nothing in the file tells:{_quoted(assumed)}\n" if assumed else "",
        labels="" if label is None else EMBEDDED if label["embedded"] else ONE_HOT,
        size=size,
        beside=f", labels (N,) from 0 to {plan.classes - 1}" if plan.classes else "",
        argument=", labels" if plan.classes else "",
        joined=f"\n        x = torch.cat([x, {one_hot}], 1)" if plan.classes else "",
        channels=channels,
        side=side,
        values=values,
        layers="\n".join(lines),
    )


def _quoted(text: str) -> str:
    """Without what would end a docstring: names come out of files that nobody vouches for."""
    return text.replace("\\", "/").replace('"', "'")


def _channels(step: Step, before: int) -> int:
    if step.kind in ("conv", "transposed", "linear"):
        return int(step["units"][1])
    if step.kind == "view":
        return int(step["shape"][0])
    if step.kind == "shuffle":
        return before // int(step["factor"]) ** 2
    return before // 2 if step.kind == "glu" else before


def _call(step: Step) -> str:
    match step.kind:
        case "linear":
            return f"nn.Linear({step['units'][0]}, {step['units'][1]}, bias={step['bias']})"
        case "conv":
            border = "" if step.get("border", "zeros") == "zeros" else f", padding_mode={step['border']!r}"
            return (
                f"nn.Conv2d({step['units'][0]}, {step['units'][1]}, {step['kernel']}, "
                f"padding={step['padding']}{border}, bias={step['bias']})"
            )
        case "transposed":
            return (
                f"nn.ConvTranspose2d({step['units'][0]}, {step['units'][1]}, {step['kernel']}, "
                f"stride={step['stride']}, padding={step['padding']}, output_padding={step['output_padding']}, "
                f"bias={step['bias']})"
            )
        case "norm":
            axes = 2 if step["map"] else 1
            affine = "" if step["affine"] else ", affine=False"
            return f"nn.BatchNorm{axes}d({step['units']}, eps={step['eps']:g}{affine})"
        case "prelu":
            return f"nn.PReLU({step['units']})"
        case "label":
            return f"Labels({step['classes']}, {step['how']!r}, {step['embedded']})"
        case "view":
            return f"nn.Unflatten(1, {tuple(step['shape'])})"
        case "flatten":
            return "nn.Flatten()"
        case "upsample":
            return f"nn.Upsample(scale_factor=2.0, mode={step['mode']!r})"
        case "shuffle":
            return f"nn.PixelShuffle({step['factor']})"
        case "glu":
            return "nn.GLU(1)"
    name, _, slope = str(step["which"]).partition(":")
    kind = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "tanh": "Tanh", "sigmoid": "Sigmoid", "silu": "SiLU"}
    return f"nn.{kind.get(name, name.upper())}({slope})"
