"""A run folder as a page that opens from the file system: no server, no network. Only the run folder is read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..dissect.runs.dissection import Dissection
from ..dissect.runtime.progress import Progress
from ..dissect.storage.files import write_atomic
from . import figures
from .cause_data import causes_data
from .interventions import effect_pages, scan_pages, scan_results
from .page import _template, page_errors, put_samples, render, replaced_folder
from .repairs import repair_pages, suspect_pages
from .run_data import classes_data, plain, units_data
from .sample_data import maps_data, mean_image, sample_areas
from .shelf import Shelf
from .terms import TERMS

SAMPLES_SHOWN = 32
FILES = ("units.csv", "classes.csv", "run.json")  # that can be downloaded from the page
SCRIPTS = (
    "common.js",
    "samples.js",
    "causes.js",
    "browse.js",
    "unit.js",
    "terms.js",
    "tables.js",
    "pictures.js",
    "scan.js",
)
HIGHLIGHTS = 12  # units
IOU_BINS = 25
CATEGORIES = ("#3b6fb6", "#c8762b", "#4f8f4a", "#8a5fb0", "#b0475e", "#6d6d6d")  # of categories, in turn


def write_report(run: Dissection, *, single_file: bool = False, quiet: bool = True) -> Path:
    """Write RUN/report/ and return its index.html, or with `single_file` RUN/report.html, which holds everything.

    Raises:
        DissectError: a file of the run is missing or damaged, or the report cannot be written.
    """
    target = run.folder / ("report.html" if single_file else "report")
    with page_errors(run.folder, target, f"dissect report {run.folder}"), Progress(quiet) as progress:
        if single_file:
            page = _page(run, Shelf(None), progress)
            write_atomic(target, lambda file: file.write(page))
            return target
        with replaced_folder(target) as part:
            (part / "index.html").write_bytes(_page(run, Shelf(part), progress))
    return target / "index.html"


def _page(run: Dissection, shelf: Shelf, progress: Progress) -> bytes:
    config = run.info["config"]
    first = np.arange(min(SAMPLES_SHOWN, config["samples"]))
    shown_samples = [first, *(run.tops(layer)[0].ravel() for layer in run.layers)]
    scans = scan_results(run)
    shares = run.class_areas()
    classes = classes_data(run, scans, shares, shown_samples.append)
    effects = effect_pages(run, shelf)
    searches, repairs = suspect_pages(run, shown_samples.append, shelf), repair_pages(run, shelf)
    samples = np.unique(np.concatenate(shown_samples))
    with (
        progress.task("outline regions", len(run.units), noun="units") as traced,
        progress.task("write pictures", len(samples)) as written,
        ThreadPoolExecutor(max_workers=1) as beside,
    ):
        painted = beside.submit(put_samples, run, samples, shelf, written)
        units, scanned, overview = units_data(run, scans, traced), scan_pages(scans), _overview(run)
        _template("report.html")  # compiled while others encode
        pictures = painted.result()
    data = {
        "noun": run.noun,
        "tested": config["significance"] != "off",
        "rule": config["threshold"],
        "grid": run.info["grid"],
        "image": run.info["image"],
        "layers": run.layers,
        "shares": run.shares.tolist(),
        "classes": classes,
        "units": units,
        "samples": pictures,
        "areas": sample_areas(shares, samples),
        "maps": maps_data(run),
        "causes": causes_data(run),
        "mean": mean_image(run, shelf),
        "highlights": _rows(run, run.highlights(HIGHLIGHTS)),
        "folder": str(run.folder),
        "scale": _iou_scale(run.units),
        "title": f"{config['model']} · {', '.join(run.layers)}",
        "terms": TERMS,
        "interventions": [
            {
                "name": effect["name"],
                "title": effect["title"],
                "class": effect["info"]["label"],
                "layer": effect["info"]["layer"],
                "units": effect["info"]["units"],
                "relative": effect["target"]
                and plain([effect["target"][f"relative{end}"] for end in ("", "_low", "_high")]),
            }
            for effect in effects
        ],
        "scans": [{"name": scan["name"], "title": scan["title"], "class": scan["info"]["class"]} for scan in scanned],
    }
    files = {name: shelf.put(name, (run.folder / name).read_bytes()) for name in FILES}
    context = overview | {"effects": effects, "scans": scanned, "files": files, "first": first.tolist()}
    context |= {"searches": searches, "repairs": repairs}
    context["causal"] = [
        entry["name"]
        for index, entry in enumerate(classes)
        if entry["effects"] or index in (data["causes"] or {}).get("classes", ())
    ]
    return render("report.html", SCRIPTS, data, context)


def _rows(run: Dissection, units: pd.DataFrame) -> list[int]:
    """The positions of some rows in the table of units."""
    return [int(row) for row in run.units.index.get_indexer(units.index)]


def _category_colours(run: Dissection) -> dict[str, str]:
    """A colour for each category of classes, in turn."""
    return {name: CATEGORIES[k % len(CATEGORIES)] for k, name in enumerate(dict.fromkeys(run.classes.category))}


def _overview(run: Dissection) -> dict[str, object]:
    """The content of the overview: the run as a whole."""
    config, units = run.info["config"], run.units
    counts = units[units.labelled].groupby(["layer", "label"]).size()
    by_category = units[units.labelled].groupby(["layer", "category"]).size()
    categories = _category_colours(run)
    by_layer = [
        {
            "layer": layer,
            "classes": {name: int(counts.get((layer, name), 0)) for name in run.classes["class"]},
            "categories": {name: int(by_category.get((layer, name), 0)) for name in categories},
        }
        for layer in run.layers
    ]
    return {
        "info": run.info,
        "config": config,
        "layers": run.summary().to_dict("records"),
        "noun": run.noun,
        "tested": config["significance"] != "off",
        "controls": {name: control.summary().to_dict("records") for name, control in run.controls.items()},
        "classes": run.classes.to_dict("records"),
        "colours": dict(zip(run.classes["class"], map(figures.safe_colour, run.classes.colour), strict=True)),
        "categories": categories,
        "covered": int((run.classes.units > 0).sum()),
        "most": max(1, int(run.classes.units.max())),
        "labelling": _labelling_classes(run),
        "scale": _iou_scale(units),
        "drawn_by": _drawn_by(run),
        "by_layer": by_layer,
        "network": _network(run, by_layer),
        "strong": int((units.tier == "strong").sum()),
        "distribution": _iou_distribution(units),
        "odd": [
            {"layer": layer, "state": state, "units": list(group)}
            for (layer, state), group in units[units.state != "ok"].groupby(["layer", "state"]).unit
        ],
        "provenance": {key: value for key, value in run.info["provenance"].items() if value},
        "versions": ", ".join(f"{name} {version}" for name, version in run.info["versions"].items()),
    }


def _drawn_by(run: Dissection) -> dict[str, dict[str, Any]]:
    """For each class whose causes were estimated, the unit whose ablation removes most of it."""
    strongest: dict[str, dict[str, Any]] = {}
    for layer, causes in (run.causes or {}).items():
        for number, effects in zip(causes.classes, causes.effect, strict=True):
            name, unit = str(run.classes["class"].iloc[number]), int(np.nan_to_num(effects).argmin())
            best = strongest.get(name)
            if effects[unit] < (best["effect"] if best else 0):
                strongest[name] = {"layer": layer, "unit": unit, "effect": float(effects[unit])}
    return strongest


def _labelling_classes(run: Dissection) -> list[dict[str, Any]]:
    """The classes that label units, most units first: how many by tier, and the best of them."""
    labelled = run.highlights(len(run.units))  # the best unit of a class comes first
    rows = []
    for name, units in labelled.groupby("label", sort=False):
        best = units.iloc[0]
        rows.append(
            {
                "class": name,
                "units": len(units),
                "tiers": {tier: int((units.tier == tier).sum()) for tier in units.tier.unique()},
                "iou": best.iou,
                "base": best.chance_iou if pd.isna(best.position_iou) else best.position_iou,
            }
        )
    return sorted(rows, key=lambda row: -row["units"])


def _iou_scale(units: pd.DataFrame) -> float:
    """Where the bars of IoU end: the same in the whole report, so that they can be compared."""
    top = units.iou[units.reaches_limits].max()
    return 1.0 if pd.isna(top) else max(0.1, float(np.ceil(top * 10) / 10))


def _network(run: Dissection, by_layer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All layers of the generator with their shapes, and what was labelled of the dissected ones.

    Runs of earlier versions know only the layers that were dissected.
    """
    dissected = {row["layer"]: row for row in by_layer}
    summaries = {row["layer"]: row for row in run.summary().to_dict("records")}
    known = run.info.get("network") or [
        {"layer": name, "kind": "", **{key: layer[key] for key in ("units", "height", "width")}}
        for name, layer in run.info["layers"].items()
    ]
    return [
        layer
        | {
            "labelled": summaries[layer["layer"]]["labelled"] if layer["layer"] in dissected else None,
            "of": summaries[layer["layer"]]["units"] if layer["layer"] in dissected else None,
            "classes": dissected[layer["layer"]]["classes"] if layer["layer"] in dissected else {},
        }
        for layer in known
    ]


def _iou_distribution(units: pd.DataFrame) -> dict[str, Any]:
    """Units by IoU in bins of equal width: labelled, and others."""
    top = float(np.ceil(max(0.1, units.iou.max() if units.iou.notna().any() else 0) * 10) / 10)
    edges = np.linspace(0, top, IOU_BINS + 1)
    labelled, others = (np.histogram(units.iou[rows].dropna(), edges)[0] for rows in (units.labelled, ~units.labelled))
    bins = [
        {"low": low, "high": high, "labelled": int(inside), "others": int(outside)}
        for low, high, inside, outside in zip(edges[:-1], edges[1:], labelled, others, strict=True)
    ]
    fit = units.iou[units.labelled]
    return {
        "bins": bins,
        "top": top,
        "most": max(1, int((labelled + others).max())),
        "quartiles": fit.quantile([0.25, 0.5, 0.75]).tolist(),
        "mean": float(fit.mean()),
    }
