"""Super-resolution and restoration networks of the optional library spandrel, which knows them by their weights.

spandrel (https://github.com/chaiNNer-org/spandrel) is given tensors alone and opens no file.
"""

from __future__ import annotations

from importlib import import_module
from inspect import unwrap
from typing import Any

from torch import Tensor

from ....hooks.errors import DissectError, UsageError, one_line
from .architecture import Architecture, some

PURPOSES = ("SR", "FaceSR", "Restoration")
INNER = "net"  # the name under which the library's network is kept


class Restorer(Architecture):
    """images (N, inputs, H, W) in [0, 1] -> images (N, 3 or 1, scale · H, scale · W) in [0, 1].

    Sides that the network cannot take are padded and cropped again by spandrel. The network itself is `net`.

    Args:
        model: spandrel's descriptor of a model from images to images.
    """

    family = "spandrel"
    citation = "the paper of the architecture, as https://github.com/chaiNNer-org/spandrel lists it"
    input_range = (0.0, 1.0)
    output_range = (0.0, 1.0)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.family = f"{model.architecture.name} (spandrel)"  # one class, many families
        self.net = model.model
        self.inputs, self.scale, self.multiple = model.input_channels, model.scale, model.size_requirements.multiple_of
        self._model = model
        self.eval()

    @property
    def layers(self) -> tuple[str, ...]:
        """None by name: every innermost module whose output is a featuremap."""
        return ()

    def forward(self, images: Tensor) -> Tensor:
        call = unwrap(type(self._model).__call__)  # without its inference mode, which lets no gradient through
        out: Tensor = call(self._model, images)
        return out


def open_spandrel(state: dict[str, Tensor]) -> Restorer:
    """The network that these weights belong to, in eval mode, with its own float32 copy of them.

    Raises:
        UsageError: spandrel is not installed.
        DissectError: spandrel does not know these weights, or their network is not one from images to images.
    """
    try:
        spandrel = import_module("spandrel")
    except ImportError as error:
        raise UsageError(
            "A super-resolution checkpoint needs the extra spandrel; install it with: pip install 'ganatomy[spandrel]'"
        ) from error
    try:
        model = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    except spandrel.UnsupportedModelError as error:
        raise DissectError(f"spandrel knows no architecture with such keys: {some(state, 4)}.") from error
    except Exception as error:  # whatever a network that takes its sizes from foreign weights can raise
        raise DissectError(f"spandrel cannot build the network of these weights ({one_line(error)}).") from error
    name = model.architecture.name
    if model.purpose not in PURPOSES:
        raise DissectError(
            f"{name} (spandrel) is for {model.purpose.lower()} and needs a mask beside the image; only networks that "
            "take an image alone can be dissected."
        )
    if model.output_channels not in (1, 3):
        raise DissectError(
            f"{name} (spandrel) outputs {model.output_channels} channels; expected 3, or 1 for grey images."
        )
    return Restorer(model)
