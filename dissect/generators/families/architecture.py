"""The base class of our own architectures, and the checks of state dicts that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ....hooks.errors import DissectError


class Architecture(nn.Module):
    """A generator network that is recognised by its weights.

    One forward argument, one image tensor out. The argument is `latents` (N, latent) float32; where `classes` is not
    zero (N, latent + classes), a latent and a class as one-hot behind it; where `inputs` is not zero the input images
    (N, inputs, H, W).

    Attributes:
        family: its name in messages and tables.
        citation: the paper.
        latent: length of the latent; 0 where images go in.
        classes: how many classes there are; 0 for an unconditional network.
        inputs: channels of the images that go in; 0 where latents do.
        input_range: what is black and what is white in the images that go in.
        multiple: sides of the images that go in must be multiples of this.
        least: and at least this.
        output_range: what is black and what is white in the images that come out.
        layout: whose way of naming the weights the file follows, in words; empty if it is the family's own.
        assumed: what the file does not tell, and what is taken, in words.
        layers: names of the layers worth dissecting, in order.
        style_layers: names of the layers whose units are style channels.
    """

    family: str
    citation: str
    latent: int = 0
    classes: int = 0
    inputs: int = 0
    input_range: tuple[float, float] = (-1.0, 1.0)
    multiple: int = 1
    least: int = 1
    output_range: tuple[float, float] = (-1.0, 1.0)
    layout: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        raise NotImplementedError

    def settings(self) -> dict[str, object]:
        """What else than the weights decides what the network draws, as plain values."""
        return {}

    @property
    def style_layers(self) -> tuple[str, ...]:
        return ()


class BatchStatistics(nn.Module):
    """A batch norm whose statistics can be taken anew: in train mode, as the mean over batches since `seen` was 0."""

    seen: int = 0

    def remembered(self) -> tuple[Tensor, Tensor]:
        """The mean and the variance (U,) that it subtracts and divides by in eval mode."""
        raise NotImplementedError

    def take(self, x: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, U, h, w) -> its mean and variance (U,), which are averaged into buffers (…, U)."""
        statistics = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        with torch.no_grad():
            for buffer, new in zip((mean, variance), statistics, strict=True):
                buffer.lerp_(new.expand_as(buffer), 1 / (self.seen + 1))
        self.seen += 1
        return statistics


def draw_weight(weight: Tensor, mean: float = 0.0, deviation: float = 1.0) -> None:
    """Fill a new weight with normal numbers; on the meta device, where it has none, do nothing.

    There torch would import its compiler to draw nothing, which takes seconds.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, mean, deviation)


ITERATIONS = 15  # of the power method, where weights are new


def filled(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put float32 copies of these weights into a module made on the meta device, and set it to eval mode.

    Raises:
        DissectError: a key is missing, extra or misshapen; the message names the first few.
    """
    counters = {key for key in module.state_dict() if key.endswith("num_batches_tracked")}
    check_keys(
        {key: shape(tensor) for key, tensor in module.state_dict().items() if key not in counters},
        {key: shape(tensor) for key, tensor in state.items() if key not in counters},
    )
    module.to_empty(device="cpu")
    for key, tensor in module.state_dict().items():
        if key in state:
            tensor.copy_(state[key])
        else:
            tensor.zero_()  # a counter, which files of old versions lack
    module.eval()


def check_keys(expected: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Compare names and shapes.

    Raises:
        DissectError: they differ; the message names the first few keys.
    """
    differences = [f"key {key} is missing" for key in expected if key not in actual]
    differences += [f"key {key} is not of this architecture" for key in actual if key not in expected]
    differences += [
        f"key {key} has shape {actual[key]}, expected {expected[key]}"
        for key in expected
        if key in actual and actual[key] != expected[key]
    ]
    if differences:
        raise DissectError(some(differences, 4, "; ") + ".")


def shape(tensor: Tensor) -> str:
    """(3, 4, 5), as messages show it."""
    return f"({', '.join(map(str, tensor.shape))})"


def some(texts: Iterable[str], most: int, separator: str = ", ") -> str:
    """The first few of many, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    listed = list(texts)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return separator.join(listed[:most]) + more
