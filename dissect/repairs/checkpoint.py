"""Write the repaired generator: a checkpoint, and a card that says what was changed and what was measured."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from ...hooks.edit import Edit
from ...hooks.errors import UsageError
from ..generators.base import Generator
from ..storage.files import safe_name, write_atomic, write_json
from ..storage.result_folder import check_writable
from .card import card
from .folding import make_permanent
from .result import Repair

SUFFIXES = (".pth", ".pt", ".safetensors")


def check_target(folder: Path, out: str | Path | None, name: str) -> Path:
    """The file of the checkpoint, checked before the long work begins. Nothing is written yet.

    Raises:
        UsageError: the name has another ending, or the file or its card exists: neither is ever replaced.
        DissectError: its folder cannot be written.
    """
    target = folder / f"{safe_name(name)}-repaired.pth" if out is None else Path(out)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {target}: the name must end in {', '.join(SUFFIXES)}.")
    if out is not None and target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--out {target} lies in the repair's own folder; leave --out out, or name another place.")
    for file in () if out is None else (target, target.with_suffix(".md")):
        if file.exists():
            raise UsageError(f"--out {target}: {file} exists; name another file.")
    for path in (folder, target):
        check_writable(next(parent for parent in path.absolute().parents if parent.is_dir()))
    return target


def write_repaired(generator: Generator, edits: Sequence[Edit], repair: Repair, folder: Path, path: Path) -> None:
    """Make the edits permanent in the generator; write checkpoint and card to `path`, the description to `folder`."""
    folded = make_permanent(generator, edits)
    write_generator(generator, path, repair.info["generator"], _card(repair, folded, path.stem))
    write_json(folder / repair.DESCRIPTION, repair.info | {"folded": folded})


def write_generator(generator: Generator, path: Path, original: str, text: str) -> None:
    """Write the weights of a generator and its card beside them; `original` is the generator that was repaired."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".safetensors":
        content = save(state, {"ganatomy": f"repaired from {original}"})
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    write_atomic(path, lambda file: file.write(content))
    write_atomic(path.with_suffix(".md"), lambda file: file.write(text.encode()))


def _card(repair: Repair, folded: dict[str, bool], title: str) -> str:
    """The card of a generator whose units were taken out."""
    info = repair.info
    changes = []
    for layer, units in info["units"].items():
        form = (
            "folded into the filters and biases: nothing else is needed to use the file"
            if folded[layer]
            else f"kept beside the weights as `{layer}.ganatomy_pull` and `{layer}.ganatomy_value`, for ganatomy to "
            "apply; plain PyTorch loads the file with strict=False, and lacks the edit then"
        )
        changes.append(
            f"`{layer}`: units {', '.join(map(str, units))} pulled to {info['values'][layer]} with strength "
            f"{info['strength']:g}; {form}"
        )
    chooser = f"the detector {info['detector']}" if info["detector"] else "hand"
    return card(
        title,
        info,
        changes=changes,
        origin=f"The units were chosen by {chooser} on samples {info['chosen_on']['first']} to "
        f"{info['chosen_on']['last']}.",
        random="as many random units of the same layers",
        fidelity=repair.fidelity,
        effects=repair.effects,
    )
