"""The card of each kind of result, chosen by the name of its class, so that nothing has to be imported for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import figures
from ..figures import Pixels
from .card import (
    Bar,
    Bars,
    Card,
    Picture,
    Point,
    Scatter,
    Strip,
    UnitCard,
    address,
    exact,
    heat,
    page_address,
    picture,
    table,
)

if TYPE_CHECKING:
    from ...dissect.artifacts.result import Suspects
    from ...dissect.candidates.result import Fitness
    from ...dissect.checkerboard.result import Checkup
    from ...dissect.diversity.result import Diversity
    from ...dissect.interventions.result import Effects
    from ...dissect.interventions.scan import Scan
    from ...dissect.latents.result import Explored
    from ...dissect.repairs.result import Repair
    from ...dissect.runs.compare import Comparison
    from ...dissect.runs.dissection import Dissection
    from ...dissect.runs.views import ClassUnits, Sample, Unit
    from ...dissect.seams.result import SeamCheck
    from ...dissect.storage.shown import Shown
    from ...dissect.subjects.inspection import Inspection
    from ...dissect.watching.result import Watched

HIGHLIGHTS = 8  # units on the card of a run
SHOWN = 4  # top samples of each
ROWS = 8  # of a chart or table
NAMED = 5  # units that have their number in the chart of a scan
MAGNIFIED = 6  # how many times a crop of a checkerboard is enlarged
CROP = 24  # its side in pixels


def card_of(result: Shown, **options: Any) -> Card:
    """The card of a result; every kind of result has one."""
    return CARDS[type(result).__name__](result, **options)


def _card(result: Shown, page: str | None = "report/index.html", **content: Any) -> Card:
    """A card with the result's own title, headline and folder."""
    folder = result._folder
    link = page_address(folder / page) if folder and page else ""
    where = f"in {folder}" if folder else ""
    title = f"{type(result).__name__}: {result._title()}"
    return Card(title=title, headline=result._headline(), where=where, link=link, **content)


def run_card(run: Dissection) -> Card:
    """The best units, balanced over classes, and how many units each layer has labelled."""
    best = run.highlights(HIGHLIGHTS)
    chosen = [(row, run.unit(row["layer"], int(row["unit"]))) for row in best.to_dict("records")]
    top = float(best.iou.max()) if len(best) else 1.0
    note = [] if (run.folder / "report" / "index.html").is_file() else ["No report yet: run.report() writes it."]
    several = len(run.layers) > 1
    return _card(
        run,
        units=[_unit_card(row, unit, top, several) for row, unit in chosen],
        tables=[table(run.summary(), _SUMMARY)] if several else [],
        notes=note,
    )


_SUMMARY = {"layer": "", "units": "d", "reach_limits": "d", "labelled": "d", "classes": "d", "mean_iou": ".3f"}


def _unit_card(row: dict[str, Any], unit: Unit, top: float, several: bool) -> UnitCard:
    layer = f" of {row['layer']}" if several else ""
    tier = row.get("tier")
    iou, position = row["iou"], row["position_iou"]
    known = position == position
    ends = f" [{row['iou_low']:.2f}, {row['iou_high']:.2f}], position {position:.2f}" if known else ""
    if not pd.isna(row["effect"]):
        ends += f"; ablated ≈ {row['effect']:+.2g} points of {row['label']}".replace("-", "−")
    below = min(position, iou) if known else 0.0
    return UnitCard(
        title=f"{row['label']}" + (f" ({tier})" if isinstance(tier, str) and tier else ""),
        text=f"unit {row['unit']}{layer}: IoU {iou:.2f}{ends}",
        position=100 * max(0.0, below) / (1.1 * top),
        beyond=100 * max(0.0, iou - max(0.0, below)) / (1.1 * top),
        pictures=_tops(unit, SHOWN),
    )


def _tops(unit: Unit, count: int, *, captions: bool = False) -> list[Picture]:
    """The top samples of a unit with the outline of where it fires."""
    regions = unit.regions[:count]
    box = (2 * regions.shape[2], 2 * regions.shape[1])
    images = [np.asarray(image) for image in unit.images(count)]
    samples = unit.samples[:count]
    return [
        picture(image, f"sample {sample}" if captions else "", path, box)
        for image, sample, path in zip(images, samples, figures.outlines(regions), strict=True)
    ]


def unit_card(unit: Unit, count: int = 12) -> Card:
    """Its top samples, outlined, and its best classes."""
    rivals = unit.run.rivals(unit.layer)
    rivals = rivals[rivals.unit == unit.unit]
    top = max(0.05, float(np.nanmax(rivals[["iou", "iou_high"]].to_numpy())))
    bars = [
        Bar(
            label=row["class"],
            text=f"{row['iou']:.3f}"
            + ("" if pd.isna(row["position_iou"]) else f", position {row['position_iou']:.3f}"),
            start=0,
            width=100 * row["iou"] / top,
            low=None if pd.isna(row["iou_low"]) else 100 * row["iou_low"] / top,
            high=None if pd.isna(row["iou_low"]) else 100 * row["iou_high"] / top,
        )
        for row in rivals.to_dict("records")
    ]
    charts = [Bars(title="IoU with its best classes", bars=bars)]
    effects = unit.effects.head(ROWS)
    if len(effects):
        charts.append(_effect_bars("What ablating it does (first-order estimate)", effects, effects["class"]))
    strip = Strip(title="Samples that activate it most", pictures=_tops(unit, count, captions=True), width=104)
    return _card(unit, strips=[strip], charts=charts)


def _effect_bars(title: str, rows: pd.DataFrame, labels: Iterable[str]) -> Bars:
    """Effects in percentage points as bars to both sides of zero, each with its interval as far as there is room."""
    longest = float(rows.effect.abs().max()) or 1.0
    low = max(-2 * longest, min(0.0, float(rows[["effect", "low"]].min().min())))
    high = min(2 * longest, max(0.0, float(rows[["effect", "high"]].max().max())))

    def at(points: float) -> float:
        return 100 * (min(high, max(low, points)) - low) / (high - low or 1.0)

    zero = at(0)
    bars = [
        Bar(
            label=label,
            text=f"{row.effect:+.2g} points".replace("-", "−"),
            start=min(zero, at(row.effect)),
            width=abs(at(row.effect) - zero),
            low=None if pd.isna(row.low) else at(row.low),
            high=None if pd.isna(row.low) else at(row.high),
        )
        for label, row in zip(labels, rows.itertuples(), strict=True)
    ]
    return Bars(title=title, bars=bars, zero=zero)


def sample_card(sample: Sample, heat: Sequence[tuple[Unit, NDArray[np.float32]]] = ()) -> Card:
    """Image, segmentation and heat maps."""
    colours = list(sample.run.classes.colour)
    labels = figures.paint_labels(sample.labels[0], colours)
    pictures = [picture(np.asarray(sample.image), "image"), exact(labels, "segmentation")]
    pictures += [
        exact(_heat(values), f"unit {unit.unit}: {unit.row.label or 'no label'}, up to {values.max():.2g}")
        for unit, values in heat
    ]
    return _card(sample, strips=[Strip(title="", pictures=pictures, width=150)])


_heat = heat  # also the name of an option above


def class_card(shown: ClassUnits) -> Card:
    """The best units of the class, and those that draw it."""
    units = shown.units.head(HIGHLIGHTS)
    top = float(units.iou.max()) if len(units) else 1.0
    several = len(shown.run.layers) > 1
    cards = [
        _unit_card(row, shown.run.unit(row["layer"], int(row["unit"])), top, several)
        for row in units.to_dict("records")
    ]
    rows = shown.drawn_by.head(ROWS)
    rows = rows[rows.effect < 0]
    if not len(rows):
        return _card(shown, units=cards)
    labels = [f"{f'{row.layer} ' if several else ''}{row.unit} {row.label or 'no label'}" for row in rows.itertuples()]
    both = int((rows.labelled & (rows.label == shown.name)).sum())
    title = (
        f"{shown.run.noun.capitalize()}s that draw it (first-order estimate); {both} of {len(rows)} labelled with it"
    )
    return _card(shown, units=cards, charts=[_effect_bars(title, rows, labels)])


def effects_card(effects: Effects) -> Card:
    """The classes that changed most, and samples before and after."""
    chart = _changes("Change of area: interval, and the range of random sets in grey", effects.ordered.head(ROWS))
    folder = effects.folder
    page = None if folder is None else page_address(folder.parents[1] / "report" / "index.html")
    card = _card(effects, page=None, charts=[chart], strips=_before_after(effects.pictures))
    return Card(**{**vars(card), "link": f"{page}#intervention={folder.name}" if folder and page else ""})


def _changes(title: str, rows: pd.DataFrame) -> Bars:
    """Changes in percentage points as bars to both sides of zero; the text is relative to before."""
    records = rows.to_dict("records")
    scale = max((abs(row[f"change_pp{end}"]) for row in records for end in ("", "_low", "_high")), default=1.0) or 1.0

    def at(points: float) -> float:
        return 50 + 50 * max(-1.0, min(1.0, points / scale))

    bars = []
    for row in records:
        change = at(row["change_pp"])
        band = (at(row["random_pp_min"]), at(row["random_pp_max"])) if "random_pp_min" in row else None
        relative = "" if pd.isna(row["relative"]) else f" ({100 * row['relative']:+.0f} %)"
        bars.append(
            Bar(
                label=row["class"],
                text=f"{row['change_pp']:+.2f} points{relative}".replace("-", "−"),
                start=min(50.0, change),
                width=abs(change - 50),
                low=at(row["change_pp_low"]),
                high=at(row["change_pp_high"]),
                band=band,
            )
        )
    return Bars(title=title, bars=bars, zero=50)


def _before_after(shots: Any, count: int = 6) -> list[Strip]:
    """The same samples before and after, one row each."""
    before = shots.get("before", ())
    if not len(before):
        return []
    numbers = [f"sample {sample}" for sample in shots["sample"][:count]]
    return [
        Strip(title=name, pictures=[picture(image, number) for image, number in zip(images, numbers, strict=False)])
        for name, images in (("Before", before[:count]), ("After", shots["after"][:count]))
    ]


def scan_card(scan: Scan) -> Card:
    """IoU against effect, and the strongest units."""
    rows = scan.table[scan.table.verified]
    low, high = float(rows.change_pp.min()), float(rows.change_pp.max())
    low, high = min(low, 0.0), max(high, 0.0)
    span, most = high - low or 1.0, float(rows.iou.max()) or 1.0
    points = [
        Point(
            x=100 * row["iou"] / most,
            y=100 * (row["change_pp"] - low) / span,
            text=f"unit {row['unit']}: IoU {row['iou']:.2f}, {row['change_pp']:+.3f} points".replace("-", "−"),
            strong=index < NAMED,
        )
        for index, row in enumerate(rows.to_dict("records"))
    ]
    name = scan.info["class"]
    chart = Scatter(
        title=f"IoU with {name} and effect on it, one point for each ablated unit",
        points=points[::-1],
        x_label=f"IoU with {name}",
        y_label="change, points",
        x_ends=("0", f"{most:.2f}"),
        y_ends=(f"{low:.2f}".replace("-", "−"), f"{high:.2f}"),
        zero=100 * -low / span,
    )
    columns = {"unit": "d", "label": "", "iou": ".2f", "change_pp": "+.3f", "low": "+.3f", "high": "+.3f"}
    columns |= {"estimate": "+.3f"} if rows.estimate.notna().any() else {}
    return _card(scan, page=None, charts=[chart], tables=[table(rows.head(ROWS), columns)])


def suspects_card(suspects: Suspects) -> Card:
    """The most suspect units, and the worst samples where the run keeps their pictures."""
    columns = {"rank": "d", "layer": "", "unit": "d", "score": ".3g", "label": "", "iou": ".2f"}
    worst = suspects.samples[suspects.samples["rank"] <= ROWS]
    strips = []
    if suspects.folder is not None:
        for layer, rows in worst.groupby("layer", sort=False):
            samples = rows["sample"].to_numpy()
            strips.append(Strip(title=f"Most suspect samples of {layer}", pictures=_of_run(suspects.folder, samples)))
    return _card(
        suspects, page=None, strips=strips, tables=[table(suspects.units[suspects.units["rank"] <= ROWS], columns)]
    )


def _of_run(folder: Path, samples: NDArray[np.int64]) -> list[Picture]:
    """Samples of the run in whose folder a result lies, as far as the run has them."""
    from ...dissect.runs.dissection import Dissection
    from ...dissect.runs.views import pixels_of

    run = Dissection.load(folder.parents[1])
    kept = samples[samples < run.info["config"]["samples"]]
    return [picture(image, f"sample {sample}") for sample, image in zip(kept, pixels_of(run, kept), strict=True)]


def repair_card(repair: Repair) -> Card:
    """The verdict, the metrics beside random sets, and samples before and after."""
    rows = repair.fidelity[repair.fidelity.set.isin(("before", "repaired"))]
    columns = {"set": "", "metric": "", "value": ".3g", "low": ".3g", "high": ".3g", "change": "+.3g"}
    return _card(
        repair,
        notes=[str(repair.info["sentence"])],
        strips=_before_after(repair.pictures),
        tables=[table(rows[rows.metric.isin(("frechet", "precision", "coverage"))], columns)],
    )


def checkup_card(checkup: Checkup) -> Card:
    """The verdict, a crop that shows the grid of the layer to blame, the spectrum, and the layers."""
    strips = []
    shown = _worst_layer(checkup)
    samples = checkup.arrays.get(f"samples_{shown}", np.zeros((0, 2, 1, 1, 3), np.uint8))
    if len(samples):
        (left, top), name = _strongest_change(samples[0]), checkup.layers["layer"].iloc[shown]
        crops = [sample[top : top + CROP, left : left + CROP] for sample in samples[0]]
        captions = (f"as drawn, ×{MAGNIFIED}", f"without the ripple of {name}")
        pictures = [exact(crop, text, MAGNIFIED) for crop, text in zip(crops, captions, strict=True)]
        strips.append(
            Strip(title="The checkerboard, enlarged", pictures=[*pictures, *_spectra(checkup)], width=CROP * MAGNIFIED)
        )
    columns = {
        "layer": "",
        "kind": "",
        "period": "",
        "foretold": ".3f",
        "measured": ".3f",
        "levels": ".1f",
        "verdict": "",
    }
    return _card(checkup, notes=[str(checkup.info["sentence"])], strips=strips, tables=[table(checkup.layers, columns)])


def _worst_layer(checkup: Checkup) -> int:
    """The row of the layer to blame, or of the one whose ripple changes the images most."""
    names = list(checkup.layers["layer"])
    blame = checkup.info.get("blame")
    return names.index(blame) if blame in names else int(checkup.layers.levels.fillna(0).to_numpy().argmax())


def _strongest_change(pair: Pixels) -> tuple[int, int]:
    """Left and top of the crop in which the two images differ most."""
    change = np.abs(pair[0].astype(np.int32) - pair[1]).sum(-1)
    height, width = change.shape
    total = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side_y, side_x = min(CROP, height), min(CROP, width)
    sums = total[side_y:, side_x:] - total[:-side_y, side_x:] - total[side_y:, :-side_x] + total[:-side_y, :-side_x]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(left), int(top)


def _spectra(checkup: Checkup) -> list[Picture]:
    """The spectrum of the images, above that of real ones where there were any."""
    spectrum, reference = checkup.arrays["images"], checkup.arrays.get("reference")
    shown = spectrum if reference is None else spectrum - reference
    image = heat(np.clip(shown - np.quantile(shown, 0.5), 0, None).astype(np.float32))
    text = "spectrum" if reference is None else "spectrum above that of real images"
    return [exact(image, text, max(1, 128 // len(image)))]


def diversity_card(diversity: Diversity) -> Card:
    """The classes that differ, twins, and real images of what is never drawn."""
    rows = diversity.classes[diversity.classes.verdict.fillna("") != ""].head(ROWS)
    bars = [
        Bar(
            label=row["class"],
            text=f"{row['presence']:.0%}, real {row['real_presence']:.0%}: {row['verdict']}",
            start=0,
            width=100 * row["presence"],
            low=100 * row["presence_low"],
            high=100 * row["presence_high"],
            band=(100 * row["real_low"], max(100 * row["real_high"], 100 * row["real_low"] + 0.8)),
        )
        for row in rows.to_dict("records")
    ]
    chart = Bars(title="Images with the class: generated, and real in grey", bars=bars)
    strips = []
    twins = diversity.pictures["twins"][:4]
    if len(twins):
        pairs = [picture(np.concatenate([pair[0], pair[1]], 1)) for pair in twins]
        strips.append(Strip(title="The most similar pairs of generated images", pictures=pairs, width=150))
    names = diversity.info["names"]
    for key in sorted(name for name in diversity.pictures if name.startswith("missing_"))[:2]:
        images = [picture(image) for image in diversity.pictures[key][:6]]
        title = f"Never drawn: {names[int(key.removeprefix('missing_'))]}, in real images"
        strips.append(Strip(title=title, pictures=images, width=72))
    note = [str(diversity.info["sentence"])]
    return _card(diversity, notes=note, charts=[chart] if bars else [], strips=strips)


def fitness_card(fitness: Fitness) -> Card:
    """Every candidate with its first samples."""
    columns = {"candidate": "", "fitness": ".3f", "fitness_low": ".3f", "fitness_high": ".3f"}
    columns |= {"quality": ".3f", "diversity": ".3f", "equal": "", "front": ""}
    strips = [
        Strip(title=str(name), pictures=[picture(image) for image in fitness.pictures[str(row)][:8]], width=72)
        for row, name in enumerate(fitness.table.candidate[:4])
    ]
    note = [str(fitness.info["sentence"])]
    return _card(fitness, notes=note, strips=strips, tables=[table(fitness.table.head(ROWS), columns)])


def seams_card(check: SeamCheck) -> Card:
    """The verdict, the sample with the plainest seams, and the ratios."""
    pictures = [picture(check.pictures["tiled"], "tiled")]
    if "whole" in check.pictures:
        pictures.append(picture(check.pictures["whole"], "drawn at once"))
    pictures.append(picture(heat(np.asarray(check.pictures["map"], np.float32)), "where steps stand out"))
    rows = check.table[check.table.lines == "all"]
    columns = {"what": "", "measure": "", "ratio": ".2f", "low": ".2f", "high": ".2f", "p_value": ".2g"}
    strip = Strip(title="The sample with the plainest seams", pictures=pictures, width=150)
    return _card(check, notes=[str(check.info["sentence"])], strips=[strip], tables=[table(rows, columns)])


def explored_card(explored: Explored) -> Card:
    """The contact sheets."""
    from PIL import Image

    sheets = [name for name in explored.info["pictures"] if name.endswith(".png")][:3]
    pictures = []
    for name in sheets:
        with Image.open(explored.folder / name) as image:
            image.thumbnail((720, 720))
            pictures.append(_whole(np.asarray(image.convert("RGB")), name))
    columns = {"direction": "d", "share": ".1%", "class": "", "sign": "", "change_pp": "+.2f"}
    tables = [table(explored.tables["directions"], columns)] if "directions" in explored.tables else []
    return _card(explored, strips=[Strip(title="", pictures=pictures, width=460)], tables=tables)


def _whole(image: Pixels, caption: str) -> Picture:
    """A picture as large as it is."""
    return Picture(source=address(figures.photo(image), "webp"), caption=caption)


def watched_card(watched: Watched) -> Card:
    """The last checkpoints, and the same latents at the first and the last."""
    columns = {"checkpoint": "", "step": ".0f", "verdict": "", "coverage": ".2f", "precision": ".2f", "twins": ".2f"}
    columns |= {"labelled": "d", "alarms": ""}
    strips = []
    for number in sorted({0, len(watched.lines) - 1}) if len(watched.lines) else ():
        file = watched.folder / watched.picture(number)
        if file.is_file():
            source = address(file.read_bytes(), "webp")
            title = f"The same latents at {watched.lines.checkpoint.iloc[number]}"
            strips.append(Strip(title=title, pictures=[Picture(source=source)], width=640))
    return _card(watched, page="index.html", strips=strips, tables=[table(watched.lines.tail(ROWS), columns)])


def comparison_card(comparison: Comparison) -> Card:
    """What each side labels, and the classes of both."""
    columns = {"side": "", "run": "", "units": "d", "labelled": "d", "classes": "d", "mean_iou": ".3f", "gained": "d"}
    columns |= {"lost": "d", "corresponding": "d"}
    letters = [side.letter for side in comparison.sides]
    of_class = {"class": "", **{f"units_{letter}": "d" for letter in letters}}
    of_class |= {f"best_{letter}": ".2f" for letter in letters} | {f"change_{letter}": "" for letter in letters}
    tables = [table(comparison.summary(), columns), table(comparison.classes, of_class)]
    strips = []
    for side in comparison.sides[:2]:
        row = side.run.ordered[side.run.ordered.layer.isin(side.layers)].iloc[0]
        unit = side.run.unit(row.layer, int(row.unit))
        title = f"{side.letter}: unit {unit.unit} of {unit.layer}, {row.label or 'no label'}"
        strips.append(Strip(title=title, pictures=_tops(unit, 6), width=72))
    return _card(comparison, page=None, strips=strips, tables=tables)


def inspection_card(inspection: Inspection) -> Card:
    """The layers, as a strip of their size and as a table."""
    layers = inspection.layers
    maps = layers[layers.kind == "featuremap"]
    most = float(maps.units.max()) if len(maps) else 1.0
    bars = [
        Bar(
            label=f"{'→ ' if row['suggested'] else ''}{row['layer']}",
            text=f"{row['units']} units, {row['height']}×{row['width']}" + (", suggested" if row["suggested"] else ""),
            start=0,
            width=100 * float(row["units"]) / most,
        )
        for row in maps.to_dict("records")
    ]
    height, width = inspection.image
    notes = [
        f"{inspection.recognised}; images {height}×{width}; latents {inspection.latents}; "
        f"segmenter {inspection.segmenter or 'none of its own'}",
        inspection.fingerprint,
    ]
    return _card(inspection, page=None, notes=notes, charts=[Bars(title="Units of each layer", bars=bars)])


CARDS: dict[str, Callable[..., Card]] = {
    "Checkup": checkup_card,
    "ClassUnits": class_card,
    "Comparison": comparison_card,
    "Dissection": run_card,
    "Diversity": diversity_card,
    "Effects": effects_card,
    "Explored": explored_card,
    "Fitness": fitness_card,
    "Inspection": inspection_card,
    "Repair": repair_card,
    "Sample": sample_card,
    "Scan": scan_card,
    "SeamCheck": seams_card,
    "Suspects": suspects_card,
    "Unit": unit_card,
    "Watched": watched_card,
}
