"""How every command ends: its page is written, its tables and paths are shown, and what --json prints is returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import click

from ...dissect.runtime import distributed
from ..rows import records
from . import diversity_tables, model_tables, repair_tables, run_tables, training_tables

if TYPE_CHECKING:  # pages, and what draws them, are imported when one is written
    from ...dissect.artifacts.result import Suspects
    from ...dissect.candidates import Fitness
    from ...dissect.checkerboard.result import Checkup
    from ...dissect.diversity import Diversity
    from ...dissect.generators.spec import ModelSpec
    from ...dissect.interventions.result import Effects
    from ...dissect.latents.result import Explored
    from ...dissect.repairs.result import Repair
    from ...dissect.runs.compare import Comparison
    from ...dissect.runs.dissection import Dissection
    from ...dissect.seams.result import SeamCheck
    from ...dissect.subjects.inspection import Inspection
    from ...dissect.watching import Watch

Told = dict[str, object]
FAILED = "ganatomy.failed"  # in click's context: why there is no page
Teller = TypeVar("Teller", bound=Callable[..., Any])


def _on_first(tell: Teller) -> Teller:
    """Of several processes, the first tells."""

    @wraps(tell)
    def told(*arguments: Any) -> Any:
        return distributed.on_first(lambda: tell(*arguments))

    return told  # type: ignore[return-value]


def link(page: Path, **address: str) -> str:
    """A place in a page, to click on: file:///…/index.html#intervention=NAME."""
    return f"{page.resolve().as_uri()}#{urlencode(address, quote_via=quote, errors='surrogateescape')}"


def written(write: Callable[[], Path]) -> Path | None:
    """The page that `write` writes; None where it cannot: the command goes on to print its result, and then fails."""
    from ..page import NoPage

    try:
        return write()
    except NoPage as error:
        click.get_current_context().meta.setdefault(FAILED, error)
        return None


def page_of(run: Dissection | Path, quiet: bool, **address: str) -> str | None:
    """The report of a run, or of one in a folder, written again: the place in it that an address names."""
    from ...dissect.runs.dissection import Dissection
    from ..pages import write_report

    opened = Dissection.load(run) if isinstance(run, Path) else run
    page = written(lambda: write_report(opened, quiet=quiet))
    return None if page is None else link(page, **address)


def _show(*lines: object) -> None:
    """Results on stdout, those that there are."""
    for one in lines:
        if one is not None:
            click.echo(one)


@_on_first
def run(found: Dissection, quiet: bool, no_report: bool) -> Told:
    page = None
    if shard := found.info["config"].get("shard"):
        if not quiet:
            click.echo(found.folder)
        return {"folder": found.folder, "shard": shard}
    if not no_report:
        from ..pages import write_report

        page = written(lambda: write_report(found, quiet=quiet))
    summary = found.summary()
    if not quiet:
        run_tables.show_run(found, summary)
        _show(page or found.folder / "units.csv")
    controls = {name: records(control.summary()) for name, control in found.controls.items()}
    return {"folder": found.folder, "report": page, "layers": records(summary), "controls": controls}


@_on_first
def effects(found: Effects, folder: Path, quiet: bool) -> Told:
    name = found.info["name"]
    if not quiet:
        run_tables.show_effects(found)
    page = page_of(folder, quiet, intervention=name)
    if not quiet:
        _show(page)
    return {
        "folder": folder / "interventions" / name,
        "report": page,
        "units": found.info["units"],
        "on_target": found.info.get("on_target"),
        "effects": records(found.table),
    }


@_on_first
def scans(found: Sequence[Any], opened: Dissection, quiet: bool) -> list[Told]:
    from ..pages import write_report

    report = written(lambda: write_report(opened, quiet=quiet))
    pages = [report and link(report, intervention=one.info["name"]) for one in found]
    if not quiet:
        for one in found:
            run_tables.show_scan(one.table, one.info)
        _show(*pages)
    tables = [records(one.table.head(20)) for one in found]
    return [one.info | {"report": page, "units": rows} for one, page, rows in zip(found, pages, tables, strict=True)]


@_on_first
def suspects(found: Suspects, opened: Dissection, quiet: bool) -> Told:
    name = found.info["name"]
    page = page_of(opened, quiet, artifacts=name)
    if not quiet:
        repair_tables.show_suspects(found)
        _show(page)
    tables = {name: records(table.groupby("layer").head(20)) for name, table in found.tables.items()}
    return {"folder": opened.folder / "artifacts" / name, "report": page, **tables}


@_on_first
def repair(found: Repair, folder: Path, quiet: bool) -> Told:
    page = page_of(folder, quiet, repair=found.info["name"])
    if not quiet:
        repair_tables.show_repair(found)
        _show(found.checkpoint, page)
    return repair_tables.repair_records(found, page)


@_on_first
def grid_repair(found: Repair, opened: Checkup, quiet: bool) -> Told:
    from ..checkup import write_checkup

    report = written(lambda: write_checkup(opened))
    page = None if report is None else f"{report.resolve().as_uri()}#repair-{found.info['name']}"
    if not quiet:
        repair_tables.show_mended(found)
        _show(found.checkpoint, page)
    return repair_tables.repair_records(found, page)


@_on_first
def checkup(found: Checkup, quiet: bool) -> Told:
    from ..checkup import write_checkup

    varied = found.diversity
    more: Told = {} if varied is None else {"diversity": diversity(varied, True)}
    page = written(lambda: write_checkup(found))
    if not quiet:
        repair_tables.show_checkup(found)
        if varied:
            diversity_tables.show_diversity(varied)
        _show(page)
    tables = {name: records(getattr(found, name)) for name in ("layers", "peaks", "gradient")}
    told = {name: found.info[name] for name in ("verdict", "sentence", "blame", "broadband")}
    return {"folder": found.folder, "report": page, **told, **tables, **more}


@_on_first
def diversity(found: Diversity, quiet: bool) -> Told:
    from ..diversity import write_diversity

    page = written(lambda: write_diversity(found))
    if not quiet:
        diversity_tables.show_diversity(found)
        _show(page)
    tables = {name: records(getattr(found, name)) for name in ("classes", "pairs", "whole", "layers")}
    told = {name: found.info[name] for name in ("verdict", "sentence", "segmentation_distance", "support", "layer")}
    return {"folder": found.folder, "report": page, **told, **tables}


def fitness(found: Fitness, quiet: bool) -> Told:
    from ..fitness import write_fitness

    page = written(lambda: write_fitness(found))
    if not quiet:
        training_tables.show_fitness(found)
        _show(page)
    told = {name: found.info[name] for name in ("sentence", "zero")}
    return {"folder": found.folder, "report": page, **told, "candidates": records(found.table)}


def watched(rows: Iterator[dict[str, Any]], watch: Watch, place: str, quiet: bool) -> Told:
    """Tell of each row as it comes, until no more come or Ctrl-C is pressed."""
    from ...dissect.watching import Watched
    from ..watch import write_watch

    if not quiet:
        click.echo(f"Checkpoints of {place}; the page: {watch.folder / 'index.html'}; Ctrl-C ends.", err=True)
        training_tables.show_heading()
    with suppress(KeyboardInterrupt):
        for row in rows:
            if not quiet:
                training_tables.show_line(row)
    if not (watch.folder / "watch.json").exists():
        return {"folder": watch.folder, "report": None, "checkpoints": [], "skipped": watch.skipped}
    found = Watched.load(watch.folder)
    page = written(lambda: write_watch(found))
    if not quiet:
        _show(page)
    told = {"checkpoints": records(found.lines), "skipped": found.info["skipped"]}
    return {"folder": watch.folder, "report": page, **told}


def seams(found: SeamCheck, quiet: bool) -> Told:
    from ..seams import write_seams

    page = written(lambda: write_seams(found))
    if not quiet:
        repair_tables.show_seams(found)
        _show(page)
    told = {name: found.info[name] for name in ("verdict", "sentence")}
    return {"folder": found.folder, "report": page, **told, "seams": records(found.table)}


def comparison(found: Comparison, out: Path | None, quiet: bool) -> Told:
    from ..comparison import write_comparison

    page = written(lambda: write_comparison(found, out, quiet=quiet))
    if not quiet:
        run_tables.show_comparison(found)
        _show(page)
    sides, classes = records(found.summary()), records(found.classes)
    return {"report": page, "sides": sides, "classes": classes, "differences": found.differences}


def inspection(found: Inspection, spec: ModelSpec, quiet: bool) -> Told:
    if not quiet:
        model_tables.show_inspection(found, spec)
    return {**vars(found), "layers": records(found.layers), "norms": records(found.norms)}


def explored(found: Explored, quiet: bool) -> Told:
    if not quiet:
        model_tables.show_explored(found)
    told = {name: value for name, value in found.info.items() if name not in ("schema", "created", "command", "tables")}
    return {"folder": found.folder, **told, **{name: records(one) for name, one in found.tables.items()}}
