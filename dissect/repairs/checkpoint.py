"""The repaired generator as files: a checkpoint, and a card that says what was changed and what came of it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from ...hooks.edit import Edit
from ...hooks.errors import DissectError, UsageError
from ..fidelity.distances import BEFORE, RANDOM
from ..generators.base import Generator
from ..storage.files import read_json, safe_name, write_atomic, write_json
from .folding import make_permanent

SUFFIXES = (".pth", ".pt", ".safetensors")


def check_target(folder: Path, out: str | Path | None, name: str) -> Path:
    """Where the checkpoint goes; raises before long work is done in vain. Nothing is made yet.

    Raises:
        UsageError: a file of another kind, or one that is there already: neither it nor its card is ever replaced.
        DissectError: a place that cannot be written.
    """
    target = folder / f"{safe_name(name)}-repaired.pth" if out is None else Path(out)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {target}: a file that ends in {', '.join(SUFFIXES)} is needed.")
    if out is not None and target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--out {target} lies in the repair's own folder; leave --out out, or name another place.")
    for file in () if out is None else (target, target.with_suffix(".md")):
        if file.exists():
            raise UsageError(f"--out {target}: {file} exists; name another file.")
    for place in (folder, target):
        there = next(parent for parent in place.absolute().parents if parent.is_dir())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise DissectError(f"Writing to {there} failed ({error.strerror or error}); make it writable.") from error
    return target


def write_repaired(
    generator: Generator,
    edits: Sequence[Edit],
    info: dict[str, Any],
    fidelity: pd.DataFrame,
    effects: pd.DataFrame,
    part: Path,
    place: Path,
) -> None:
    """Make the edits permanent in the generator; write checkpoint and card to `place`, the info into `part`."""
    folded = make_permanent(generator, edits)
    write_generator(generator, place, info["generator"], card(info, fidelity, effects, folded, place))
    write_json(part / "repair.json", read_json(part / "repair.json") | {"folded": folded})


def write_generator(generator: Generator, place: Path, made_from: str, text: str) -> None:
    """The weights of a generator and its card beside them."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.module.state_dict().items()}
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix.lower() == ".safetensors":
        content = save(state, {"ganatomy": f"repaired from {made_from}"})
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    write_atomic(place, lambda file: file.write(content))
    write_atomic(place.with_suffix(".md"), lambda file: file.write(text.encode()))


def card(
    info: dict[str, Any], fidelity: pd.DataFrame, effects: pd.DataFrame, folded: dict[str, bool], target: Path
) -> str:
    """The model card, in Markdown."""
    changes = []
    for layer, units in info["units"].items():
        how = (
            "folded into the filters and biases: nothing else is needed to use the file"
            if folded[layer]
            else f"kept beside the weights as `{layer}.ganatomy_pull` and `{layer}.ganatomy_value`, for ganatomy to "
            "apply; plain PyTorch loads the file with strict=False, and lacks the edit then"
        )
        changes.append(
            f"- `{layer}`: units {', '.join(map(str, units))} pulled to {info['values'][layer]} with strength "
            f"{info['strength']:g}; {how}"
        )
    samples = info["samples"]
    return "\n".join(
        [
            f"# {target.stem}",
            "",
            f"**{info['sentence']}**",
            "",
            f"`{info['generator']}` (weights sha256 `{info['weights_sha256']}`) with units taken out.",
            "",
            "## What was changed",
            "",
            *changes,
            "",
            f"Chosen by {'the detector ' + info['detector'] if info['detector'] else 'hand'} on samples "
            f"{info['chosen_on']['first']} to {info['chosen_on']['last']}. Everything below was measured on samples "
            f"{samples['first']} to {samples['last']}, against {info['reference']}.",
            "",
            "## Figures",
            "",
            f"{info['features'][0].upper()}{info['features'][1:]}. In brackets: 95 % intervals over random halves of "
            f"images and reference. {RANDOM.capitalize()}: as many random units of the same layers.",
            "",
            *figures_table(fidelity),
            "",
            *classes_changed(effects, info["segmenter"]),
            "",
            f"Made by `{info['command']}`, {info['created']}.",
            "",
        ]
    )


def figures_table(fidelity: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table: sets by metrics, with intervals."""
    metrics = fidelity[fidelity.set == BEFORE].metric
    rows = ["| set | " + " | ".join(metrics) + " |", "| --- " * (1 + len(metrics)) + "|"]
    for name, part in fidelity.groupby("set", sort=False):
        cells = [f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]" for row in part.itertuples()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def classes_changed(effects: pd.DataFrame, segmenter: str) -> list[str]:
    """Lines of Markdown."""
    lost = effects[effects.changed].sort_values("change_pp", key=abs, ascending=False)
    classes = [
        f"- {row['class']}: {row['before']:.2%} to {row['after']:.2%} of the pixels "
        f"({row['change_pp']:+.2f} points, 95 % interval {row['change_pp_low']:+.2f} to {row['change_pp_high']:+.2f})"
        for row in lost.to_dict("records")
    ]
    said = f"As the segmenter {segmenter} sees them, at a false discovery rate of 5 %."
    return ["## Classes that changed", "", said, "", *(classes or ["None."])]
