"""Checkpoint files: opened without running any code from them, their architecture inferred from the weights."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mode

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...hooks.errors import DissectError, UsageError, one_line
from .base import Generator, NormalLatents, Provenance
from .dcgan import DCGAN, refit
from .kept_edits import take_kept
from .progan import ProGAN, WScale

WRAPPERS = ("state_dict", "g_ema", "generator")  # entries under which training scripts keep a generator's weights
MOST_RGB_SIZE = 1 << 14  # pixels; a larger size in a key is a mistake


def sha256(path: Path | str) -> str:
    """The file's SHA-256 as 64 hex digits; the file is read piece by piece.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def load_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a file of `torch.save`, on the CPU.

    Pickles are opened only as far as they hold tensors and plain containers; nothing in them is ever called.

    Raises:
        UsageError: there is no such file.
        DissectError: the file is damaged, or holds something else than named tensors.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"There is no file {path}; give the path of a checkpoint (.pth, .pt, .ckpt or .safetensors).")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the path of a checkpoint file inside it.")
    try:
        content: object = load_file(path) if path.suffix.lower() == ".safetensors" else _load_pickle(path)
    except OSError as error:
        raise DissectError(f"{path} cannot be read ({error.strerror or error}).") from error
    except SafetensorError as error:
        raise DissectError(f"{path} is no intact safetensors file ({one_line(error)}); fetch it again.") from error
    if not isinstance(content, Mapping):
        raise DissectError(
            f"{path} holds a {type(content).__name__}, not a state dict; write one with "
            "torch.save(module.state_dict(), path)."
        )
    inner: Mapping[object, object] = next(
        (content[wrapper] for wrapper in WRAPPERS if isinstance(content.get(wrapper), Mapping)), content
    )
    if not inner:
        raise DissectError(f"{path} holds no tensors; write the weights with torch.save(module.state_dict(), path).")
    state: dict[str, Tensor] = {}
    for key, value in inner.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise DissectError(
                f"{path} is not a state dict: its entry {key!r} ({type(value).__name__}) is not a tensor with a name; "
                "write the generator's weights alone with torch.save(module.state_dict(), path)."
            )
        state[key] = value
    return state


def _load_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():  # about the pickle's protocol: what matters comes as an exception
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it refers to {named[1]}" if named else "it holds more than tensors, or is damaged"
        raise DissectError(
            f"{path} is refused: {what}, and opening such a pickle could run code. Write the weights alone with "
            "torch.save(module.state_dict(), path), or as .safetensors."
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DissectError(
            f"{path} is damaged or no PyTorch checkpoint ({one_line(error)}); fetch or save it again."
        ) from error


def infer_progan(state: Mapping[str, Tensor]) -> ProGAN:
    """The progressive-GAN generator these weights belong to, in eval mode, with its own float32 copy of them.

    Keys are `layer{i}.conv.weight`, `layer{i}.wscale.b` (i from 1) and `output_{R}x{R}.…`, or, in older files,
    `features.{i}.…` (i from 0) and `output.…`. Older files may also store each layer's scale, as measured from its
    first weights; it is folded into the weights, since the module's own is computed.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no progressive GAN.
    """
    older = not any(re.match(r"layer\d{1,4}\.", key) for key in state)
    numbered = re.compile(r"features\.(\d{1,4})\..+" if older else r"layer(\d{1,4})\..+")
    numbers = {int(found[1]) for key in state if (found := numbered.fullmatch(key))}
    if not numbers:
        raise DissectError("no key is like layer1.conv.weight (or, in older files, features.0.conv.weight).")
    levels = _levels_of_output(state) or max(1, len(numbers) // 2)
    first = state.get(_spelt("layer1.conv.weight", older))
    if first is None:
        raise DissectError(f"key {_spelt('layer1.conv.weight', older)} is missing.")
    if first.ndim != 4:
        raise DissectError(
            f"key {_spelt('layer1.conv.weight', older)} has shape {_shape(first)}; "
            "expected 4 axes (units, latent, 4, 4)."
        )
    widths = tuple(_width(state, level, older) for level in range(levels))
    latent = first.shape[1]
    if not latent or not all(widths):
        raise DissectError("some tensors are empty: every layer needs at least one unit.")

    with torch.device("meta"):  # no memory, and no random numbers drawn, for weights that are replaced at once
        module = ProGAN(latent, widths)
    expected = {key: _spelt(key, older) for key in module.state_dict()}
    parts = {name: part for name, part in module.named_modules() if isinstance(part, WScale)}
    scales = {_spelt(f"{name}.scale", older): name for name in parts}
    _check_keys(
        {expected[key]: _shape(tensor) for key, tensor in module.state_dict().items()},
        {key: _shape(tensor) for key, tensor in state.items() if key not in scales or tensor.numel() != 1},
    )
    weights = {key: state[spelt] for key, spelt in expected.items()}
    for spelt, name in scales.items():
        if spelt in state:
            weight = f"{name.removesuffix('wscale')}conv.weight"
            weights[weight] = weights[weight] * (state[spelt].item() / parts[name].scale)
    module.to_empty(device="cpu").load_state_dict(weights)
    return module.eval()


def infer_dcgan(state: Mapping[str, Tensor]) -> DCGAN:
    """The DCGAN generator these weights belong to, in eval mode, with its own float32 copy of them.

    Keys are those of the PyTorch example: `main.0.weight` makes 4×4 of a latent as long as its first axis, `main.3`,
    `main.6`, … double the size, and `main.1`, `main.4`, … are batch norms. `main.3.conv.weight` instead of
    `main.3.weight` says that the level resizes and convolves. Kernels of 4 are padded by 1, others so as to double the
    size.

    Raises:
        DissectError: a key is missing, extra or misshapen, or this is no such DCGAN.
    """
    spelt = re.compile(r"main\.(\d{1,4})\.(conv\.)?weight")
    shapes = {
        int(found[1]): (tensor, bool(found[2]))
        for key, tensor in state.items()
        if (found := spelt.fullmatch(key)) and tensor.ndim == 4
    }
    if 0 not in shapes:
        raise DissectError("no key is like main.0.weight with 4 axes (latent, units, 4, 4).")
    places = sorted(shapes)
    if places != list(range(0, 3 * len(places), 3)) or len(places) < 2:
        raise DissectError(
            f"convolutions are main.{', main.'.join(map(str, places))}; expected main.0, main.3, main.6, …."
        )
    for place, (tensor, resize) in shapes.items():
        if (
            tensor.shape[2] != tensor.shape[3]
            or not tensor.numel()
            or (place == 0 and (resize or tensor.shape[2] != 4))
        ):
            raise DissectError(
                f"key main.{place}.weight has shape {_shape(tensor)}; expected {'4×4' if place == 0 else 'square'} "
                "kernels."
            )
    steps = [shapes[place] for place in places[1:]]
    last, flat = steps[-1]
    channels = last.shape[0 if flat else 1]
    if channels not in (1, 3):
        raise DissectError(f"the last convolution puts out {channels} channels; expected 3, or 1 for grey images.")
    with torch.device("meta"):
        module = DCGAN(
            shapes[0][0].shape[0],
            tuple(tensor.shape[1 if resize else 0] for tensor, resize in steps),
            tuple(tensor.shape[2] for tensor, _ in steps),
            resize=tuple(resize for _, resize in steps),
            biases=tuple(f"main.{place}.{'conv.' if shapes[place][1] else ''}bias" in state for place in places),
            channels=channels,
        )
    optional = {key for key in module.state_dict() if key.endswith("num_batches_tracked")} - set(state)
    _check_keys(
        {key: _shape(tensor) for key, tensor in module.state_dict().items() if key not in optional},
        {key: _shape(tensor) for key, tensor in state.items()},
    )
    counts = dict.fromkeys(optional, torch.zeros((), dtype=torch.int64))  # files of old versions lack them
    module.to_empty(device="cpu").load_state_dict({**state, **counts})
    return module.eval()


def _spelt(key: str, older: bool) -> str:
    """A key of `ProGAN` as the file spells it: layer3.x is features.2.x in older files, output_8x8.x is output.x."""
    if not older:
        return key
    block, _, rest = key.partition(".")
    return f"features.{int(block.removeprefix('layer')) - 1}.{rest}" if block.startswith("layer") else f"output.{rest}"


def _levels_of_output(state: Mapping[str, Tensor]) -> int | None:
    """How many resolutions 4, 8, 16, … there are up to that in the output layer's name; None if it has none."""
    for key in state:
        if found := re.fullmatch(r"output_(\d{1,6})x\1\..+", key):
            size = int(found[1])
            if size < 4 or size & (size - 1) or size > MOST_RGB_SIZE:
                raise DissectError(f"key {key} speaks of {size} pixels; expected 4, 8, 16, ….")
            return size.bit_length() - 2
    return None


def _width(state: Mapping[str, Tensor], level: int, older: bool) -> int:
    """Units of the two layers of one resolution, by majority, so that a single misshapen tensor is found out."""
    names = (f"layer{2 * level + i}.{part}" for i in (1, 2) for part in ("conv.weight", "wscale.b"))
    keys = [_spelt(name, older) for name in names]
    sizes = [state[key].shape[0] for key in keys if key in state and state[key].ndim]
    if not sizes:
        raise DissectError(f"key {keys[0]} is missing.")
    return mode(sizes)


def _check_keys(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Compare names and shapes.

    Raises:
        DissectError: they differ; the message names the first few keys.
    """
    troubles = [f"key {key} is missing" for key in expected if key not in found]
    troubles += [f"key {key} is not of this architecture" for key in found if key not in expected]
    troubles += [
        f"key {key} has shape {found[key]}, expected {expected[key]}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    if troubles:
        raise DissectError(_some(troubles, 4, "; ") + ".")


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _some(texts: Iterable[str], most: int, separator: str = ", ") -> str:
    listed = list(texts)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return separator.join(listed[:most]) + more


def load_weights(module: nn.Module, path: Path | str) -> None:
    """Load a checkpoint into a module whose architecture is known; every key must fit.

    Upsampling layers that a repair replaced are replaced in the module too, see `dcgan.refit`.

    Raises:
        DissectError: the file cannot be opened, or a key is missing, extra or misshapen.
    """
    state = load_state_dict(path)
    kept = take_kept(state)
    refit(module, state)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise DissectError(f"The weights {path} do not fit the module ({one_line(error)}).") from error
    kept.attach(module)


def open_checkpoint(path: Path | str) -> Generator:
    """The generator in a checkpoint file, its architecture recognised by the weights.

    Raises:
        DissectError: the file cannot be opened, or is none of the architectures known.
    """
    path = Path(path)
    state = load_state_dict(path)
    kept = take_kept(state)
    named = "dcgan" if any(key.startswith("main.") for key in state) else "progan"
    try:
        module: DCGAN | ProGAN = infer_dcgan(state) if named == "dcgan" else infer_progan(state)
    except DissectError as error:
        raise DissectError(
            f"{path} is no generator that can be recognised by its weights. Tried {named}: {error} The file's first "
            f"keys: {_some(state, 4)}. For another architecture give package.module:factory and these weights."
        ) from error
    kept.attach(module)
    return Generator(
        module=module,
        name=path.stem,
        source=NormalLatents((module.latent,)),
        layers=module.layers,
        provenance=Provenance(file=str(path), sha256=sha256(path)),
    )
