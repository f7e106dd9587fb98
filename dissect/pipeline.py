"""run(): capture -> levels -> counts -> labels -> run folder."""

from __future__ import annotations

import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..hooks.errors import DissectError, UsageError
from ..hooks.layers import pick_layers
from ..segmenters.base import Segmenter, Vocabulary
from .capture import Plan, capture, probe
from .generators.base import Generator
from .levels import level_shares
from .models import dissectable, fingerprint, open_models, segmenter_fingerprint, usable_device
from .progress import Progress
from .scores import label_units
from .spool import Spool
from .store import COMPLETE, Dissection, open_run, safe_name, write_arrays, write_csv, write_json
from .tally import OK, Tally, images_with_class, tally_layer, top_masks

RULES = ("iqr", "quantile")


def run(
    model: str | Generator,
    *,
    layers: Sequence[str | int] | str | int,
    segmenter: str | Segmenter | None = None,
    samples: int = 1000,
    threshold: str = "iqr",
    quantile: float = 0.01,
    grid: int = 64,
    seed: int | None = None,
    weights: str | Path | None = None,
    latent: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    keep_spool: bool = False,
    spool_limit: float = 20e9,
    quiet: bool = False,
) -> Dissection:
    """Dissect layers of a generator: which units draw which classes.

    Args:
        model: a zoo name, a checkpoint file, `package.module:factory`, or a Generator.
        layers: names, or numbers counted from 1 among the generator's layers.
        segmenter: a spec (`scenes`, `hub:…`, `torchvision:…`, `package.module:factory`) or a Segmenter; None takes
            the one that belongs to the model.
        samples: how many images; even ones choose labels, odd ones score them.
        threshold: `iqr` (Bau et al. 2019) or `quantile` (Bau et al. 2020).
        quantile: the share of pixels above the threshold under the rule `quantile`.
        grid: side of the grid on which featuremaps and labels meet, at most the image side.
        seed: of the latents; None is 0, or a Generator's own.
        weights, latent: for `package.module:factory`: a checkpoint of its state, and e.g. `normal:128`.
        batch_size, device: None chooses.
        out: the run folder; None is `runs/MODEL-LAYERS`. The same run there is resumed, or returned if finished.
        keep_spool: keep the featuremaps when done.
        spool_limit: refuse beforehand to fill more bytes of disk than this.
        quiet: no progress bars.

    Raises:
        UsageError: something asked for does not exist or cannot be.
        DissectError: something failed; what was captured stays and the same call resumes.
    """
    _check(samples, threshold, quantile, grid, seed, batch_size)
    device = usable_device(device)
    generator, namer = open_models(
        model, segmenter, weights=weights, latent=latent, seed=seed, device=device, quiet=quiet
    )
    layers = [layers] if isinstance(layers, (str, int)) else layers
    dissected = dissectable(generator)
    picked = pick_layers(layers, dissected, generator.module)
    if not picked:
        raise UsageError("No layer was named; give --layer, e.g. --layer 4 or --layer layer4.")

    plan = probe(generator, namer, picked, grid)
    config = {
        "model": generator.name,
        "weights_sha256": fingerprint(generator.module),
        "latent": re.sub(r" at 0x[0-9a-f]+", "", str(generator.source)),
        "output_range": list(generator.output_range),
        "layers": list(picked),
        "segmenter": namer.name,
        "segmenter_sha256": segmenter_fingerprint(namer),
        "samples": samples,
        "threshold": threshold,
        "quantile": quantile,
        "grid": plan.grid,
        "seed": getattr(generator.source, "seed", seed),
    }
    source = {  # how to load them again; nothing where they came as objects
        "model": _there(model) if isinstance(model, str) else None,
        "weights": _there(weights) if weights else None,
        "latent": latent,
        "segmenter": namer.name if segmenter is None else segmenter if isinstance(segmenter, str) else None,
    }
    folder = Path(out) if out else Path("runs") / safe_name(f"{generator.name}-{'+'.join(picked)}")
    needed = samples * plan.sample_bytes
    if not needed <= spool_limit:
        raise UsageError(
            f"The spool would take {needed / 1e9:.1f} GB, more than the limit of {spool_limit / 1e9:.1f} GB; take "
            "fewer --samples, fewer --layer, a smaller --grid, or raise --spool-limit."
        )
    info = open_run(folder, config, lambda: _describe(generator, plan, dissected, device) | {"source": source})
    if info["status"] == COMPLETE:
        if keep_spool and not list(folder.glob("spool/*/features-*")):
            raise UsageError(f"The run in {folder} is finished and its featuremaps are gone; give another --out.")
        return Dissection.load(folder)
    plan = replace(plan, scales={name: layer["scale"] for name, layer in info["layers"].items()})
    try:
        return _work(generator, namer, plan, folder, info, batch_size, keep_spool, quiet)
    except OSError as error:
        raise DissectError(
            f"Writing to {folder} failed ({error.strerror or error}); what was captured stays: make room and run the "
            "same command again."
        ) from error


def _work(
    generator: Generator,
    segmenter: Segmenter,
    plan: Plan,
    folder: Path,
    info: dict[str, Any],
    batch_size: int | None,
    keep_spool: bool,
    quiet: bool,
) -> Dissection:
    config, vocabulary = info["config"], segmenter.vocabulary
    spool = Spool(folder / "spool", config["samples"])
    shares = level_shares(config["quantile"])
    missing = sum(len(spool.indices(shard)) for shard in spool.missing())
    started = time.perf_counter()
    with Progress(quiet) as progress:
        with progress.task("generate and segment", config["samples"], done=config["samples"] - missing) as advance:
            capture(generator, segmenter, plan, spool, batch_size, advance)
        captured = time.perf_counter()
        tallies = {}
        with progress.task("score units", sum(units for units, _, _ in plan.shapes.values())) as advance:
            for layer in plan.shapes:
                tallies[layer] = tally_layer(spool, plan, layer, len(vocabulary), shares, advance)

    tables: list[pd.DataFrame] = []
    scores: dict[str, NDArray[Any]] = {"shares": np.array(shares)}
    tops: dict[str, NDArray[Any]] = {}
    for layer, tally in tallies.items():
        table, level = _unit_table(layer, tally, vocabulary, config["threshold"], shares.index(config["quantile"]))
        tables.append(table)
        scores[f"{layer}/level"] = tally.level
        for half in ("choose", "score"):
            counts = getattr(tally, half)
            scores[f"{layer}/{half}/intersection"] = counts.intersection
            scores[f"{layer}/{half}/unit_area"] = counts.unit_area
            scores[f"{half}/class_area"] = counts.class_area
            scores[f"{half}/pixels"] = np.array(counts.pixels)
        tops[f"{layer}/sample"], tops[f"{layer}/peak"] = tally.top, tally.peak
        threshold = tally.level[np.arange(len(level)), level]
        tops[f"{layer}/mask"] = top_masks(spool, plan, layer, tally.top, threshold)
    units = pd.concat(tables, ignore_index=True)
    first = next(iter(tallies.values()))
    pixels = first.choose.pixels + first.score.pixels
    area = first.choose.class_area + first.score.class_area
    classes = _class_table(vocabulary, area / pixels, images_with_class(spool, len(vocabulary)), config, units)

    write_arrays(folder / "scores.npz", scores)
    write_arrays(folder / "tops.npz", tops)
    write_csv(folder / "units.csv", units)
    write_csv(folder / "classes.csv", classes)
    info = info | {
        "status": COMPLETE,
        "finished": now(),
        "seconds": {"capture": round(captured - started, 3), "score": round(time.perf_counter() - captured, 3)},
        "captured_now": missing,
    }
    write_json(folder / "run.json", info)  # last: it says that all the rest is there
    if not keep_spool:
        spool.drop_features()
    return Dissection.load(folder)


def _unit_table(
    layer: str, tally: Tally, vocabulary: Vocabulary, rule: str, quantile_level: int
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The rows of units.csv of one layer, and the level index chosen for each unit."""
    found = label_units(tally.choose, tally.score, rule, quantile_level)
    fine = (tally.state == OK) & found.attracted
    name = np.where(fine, np.array(vocabulary.names)[found.label], "")
    category = np.where(fine, np.array(vocabulary.categories)[found.label], "")
    units = np.arange(len(name))
    table = pd.DataFrame(
        {
            "layer": layer,
            "unit": units,
            "label": name,
            "category": category,
            "labelled": found.labelled & fine,
            "iou": np.where(fine, found.iou, np.nan),
            "iqr": np.where(fine, found.iqr, np.nan),
            "chance_iou": np.where(fine, found.chance_iou, np.nan),
            "threshold": tally.level[units, found.level],
            "quantile": found.share,
            "peak": tally.peak[:, 0],
            "state": tally.state,
        }
    )
    return table, found.level


def _class_table(
    vocabulary: Vocabulary,
    share: NDArray[np.float64],
    images: NDArray[np.int64],
    config: dict[str, Any],
    units: pd.DataFrame,
) -> pd.DataFrame:
    labelled = units[units.labelled].label.value_counts()
    return pd.DataFrame(
        {
            "class": vocabulary.names,
            "category": vocabulary.categories,
            "colour": vocabulary.colours,
            "share": share,
            "images": images / config["samples"],
            "units": [int(labelled.get(name, 0)) for name in vocabulary.names],
        }
    )


def _check(samples: int, threshold: str, quantile: float, grid: int, seed: int | None, batch_size: int | None) -> None:
    if samples < 2:
        raise UsageError(f"--samples {samples}: at least 2 are needed, one to choose labels and one to score them.")
    if threshold not in RULES:
        raise UsageError(f"--threshold {threshold!r} is not known; there are {', '.join(RULES)}.")
    if not 0 < quantile < 1:
        raise UsageError(f"--quantile {quantile}: a share of pixels above 0 and below 1 is needed, e.g. 0.01.")
    if not 2 <= grid <= 1024:
        raise UsageError(f"--grid {grid}: a side between 2 and 1024 is needed.")
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: a whole number from 0 to 2^63 - 1 is needed.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: a whole number from 1 up is needed.")


def _there(path: str | Path) -> str:
    """A file's path from anywhere; anything else as it is."""
    return str(Path(path).resolve()) if Path(path).is_file() else str(path)


def _layers(plan: Plan, dissected: Sequence[str]) -> dict[str, dict[str, float | None]]:
    numbers = {name: number for number, name in enumerate(dissected, 1)}  # as --layer counts them
    return {
        name: {
            "number": numbers.get(name),
            "units": units,
            "height": height,
            "width": width,
            "scale": plan.scales[name],
        }
        for name, (units, height, width) in plan.shapes.items()
    }


def _describe(generator: Generator, plan: Plan, dissected: Sequence[str], device: str) -> dict[str, Any]:
    return {
        "created": now(),
        "command": command(),
        "provenance": asdict(generator.provenance),
        "image": list(plan.image),
        "grid": plan.grid,
        "layers": _layers(plan, dissected),
        "device": device,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("ganatomy", "torch", "numpy", "pandas")},
        },
    }


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """The command line of this process."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
