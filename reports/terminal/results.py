"""How every command ends: its page is written, its tables and paths are printed, and what --json prints is returned."""

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

Json = dict[str, object]
FAILED = "ganatomy.failed"  # in click's context: why there is no page
Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


def _on_first(report: Function) -> Function:
    """Of several processes, only the first one reports; all return what it returns."""

    @wraps(report)
    def report_on_first(*arguments: Any) -> Any:
        return distributed.on_first(lambda: report(*arguments))

    return report_on_first  # type: ignore[return-value]


def link(page: Path, **address: str) -> str:
    """A place in a page as a link for a terminal.

    >>> link(Path("/run/report/index.html"), intervention="a b")
    'file:///run/report/index.html#intervention=a%20b'
    """
    return f"{page.resolve().as_uri()}#{urlencode(address, quote_via=quote, errors='surrogateescape')}"


def written(write: Callable[[], Path]) -> Path | None:
    """The page that `write` writes, or None if it fails: the command still prints its result, and fails afterwards."""
    from ..page import NoPage

    try:
        return write()
    except NoPage as error:
        click.get_current_context().meta.setdefault(FAILED, error)
        return None


def link_to_report(run: Dissection | Path, quiet: bool, **address: str) -> str | None:
    """Write the report of a run, or of the run in a folder, again; returns a link to a place in it."""
    from ...dissect.runs.dissection import Dissection
    from ..pages import write_report

    opened = Dissection.load(run) if isinstance(run, Path) else run
    page = written(lambda: write_report(opened, quiet=quiet))
    return None if page is None else link(page, **address)


def _finish(
    result: Result, write_page: Callable[[Result], Path], show: Callable[[Result], None], quiet: bool
) -> Path | None:
    """Write the page of a result, and print its tables and the page's path."""
    page = written(lambda: write_page(result))
    if not quiet:
        show(result)
        _print(page)
    return page


def _print(*lines: object) -> None:
    """Paths on stdout, without those that are None."""
    for line in lines:
        if line is not None:
            click.echo(line)


def _picked(info: dict[str, Any], *names: str) -> Json:
    return {name: info[name] for name in names}


@_on_first
def run(run: Dissection, quiet: bool, no_report: bool) -> Json:
    if shard := run.info["config"].get("shard"):
        if not quiet:
            click.echo(run.folder)
        return {"folder": run.folder, "shard": shard}
    page = None
    if not no_report:
        from ..pages import write_report

        page = written(lambda: write_report(run, quiet=quiet))
    summary = run.summary()
    if not quiet:
        run_tables.show_run(run, summary)
        _print(page or run.folder / "units.csv")
    controls = {name: records(control.summary()) for name, control in run.controls.items()}
    return {"folder": run.folder, "report": page, "layers": records(summary), "controls": controls}


@_on_first
def effects(effects: Effects, folder: Path, quiet: bool) -> Json:
    name = effects.info["name"]
    if not quiet:
        run_tables.show_effects(effects)
    page = link_to_report(folder, quiet, intervention=name)
    if not quiet:
        _print(page)
    return {
        "folder": folder / "interventions" / name,
        "report": page,
        "units": effects.info["units"],
        "on_target": effects.info.get("on_target"),
        "effects": records(effects.table),
    }


@_on_first
def scans(scans: Sequence[Any], run: Dissection, quiet: bool) -> list[Json]:
    from ..pages import write_report

    report = written(lambda: write_report(run, quiet=quiet))
    pages = [report and link(report, intervention=scan.info["name"]) for scan in scans]
    if not quiet:
        for scan in scans:
            run_tables.show_scan(scan.table, scan.info)
        _print(*pages)
    return [
        scan.info | {"report": page, "units": records(scan.table.head(20))}
        for scan, page in zip(scans, pages, strict=True)
    ]


@_on_first
def suspects(suspects: Suspects, run: Dissection, quiet: bool) -> Json:
    name = suspects.info["name"]
    page = link_to_report(run, quiet, artifacts=name)
    if not quiet:
        repair_tables.show_suspects(suspects)
        _print(page)
    tables = {name: records(table.groupby("layer").head(20)) for name, table in suspects.tables.items()}
    return {"folder": run.folder / "artifacts" / name, "report": page, **tables}


@_on_first
def repair(repair: Repair, folder: Path, quiet: bool) -> Json:
    page = link_to_report(folder, quiet, repair=repair.info["name"])
    if not quiet:
        repair_tables.show_repair(repair)
        _print(repair.checkpoint, page)
    return repair_tables.repair_records(repair, page)


@_on_first
def grid_repair(repair: Repair, checkup: Checkup, quiet: bool) -> Json:
    from ..checkup import write_checkup

    report = written(lambda: write_checkup(checkup))
    page = None if report is None else f"{report.resolve().as_uri()}#repair-{repair.info['name']}"
    if not quiet:
        repair_tables.show_grid_repair(repair)
        _print(repair.checkpoint, page)
    return repair_tables.repair_records(repair, page)


@_on_first
def checkup(checkup: Checkup, quiet: bool) -> Json:
    from ..checkup import write_checkup

    diversity_json: Json = {"diversity": diversity(checkup.diversity, True)} if checkup.diversity else {}

    def show(checkup: Checkup) -> None:
        repair_tables.show_checkup(checkup)
        if checkup.diversity:
            diversity_tables.show_diversity(checkup.diversity)

    page = _finish(checkup, write_checkup, show, quiet)
    facts = _picked(checkup.info, "verdict", "sentence", "blame", "broadband")
    tables = {name: records(getattr(checkup, name)) for name in ("layers", "peaks", "gradient")}
    return {"folder": checkup.folder, "report": page, **facts, **tables, **diversity_json}


@_on_first
def diversity(diversity: Diversity, quiet: bool) -> Json:
    from ..diversity import write_diversity

    page = _finish(diversity, write_diversity, diversity_tables.show_diversity, quiet)
    facts = _picked(diversity.info, "verdict", "sentence", "segmentation_distance", "support", "layer")
    tables = {name: records(getattr(diversity, name)) for name in ("classes", "pairs", "whole", "layers")}
    return {"folder": diversity.folder, "report": page, **facts, **tables}


def fitness(fitness: Fitness, quiet: bool) -> Json:
    from ..fitness import write_fitness

    page = _finish(fitness, write_fitness, training_tables.show_fitness, quiet)
    facts = _picked(fitness.info, "sentence", "zero")
    return {"folder": fitness.folder, "report": page, **facts, "candidates": records(fitness.table)}


def watched(rows: Iterator[dict[str, Any]], watch: Watch, place: str, quiet: bool) -> Json:
    """Print each row as it comes, until no more come or Ctrl-C is pressed."""
    from ...dissect.watching import Watched
    from ..watch import write_watch

    if not quiet:
        click.echo(f"Watching {place}. Page: {watch.folder / 'index.html'}. Press Ctrl-C to stop.", err=True)
        training_tables.show_heading()
    with suppress(KeyboardInterrupt):
        for row in rows:
            if not quiet:
                training_tables.show_line(row)
    if not (watch.folder / "watch.json").exists():
        return {"folder": watch.folder, "report": None, "checkpoints": [], "skipped": watch.skipped}
    result = Watched.load(watch.folder)
    page = written(lambda: write_watch(result))
    if not quiet:
        _print(page)
    checkpoints = records(result.lines)
    return {"folder": watch.folder, "report": page, "checkpoints": checkpoints, "skipped": result.info["skipped"]}


def seams(check: SeamCheck, quiet: bool) -> Json:
    from ..seams import write_seams

    page = _finish(check, write_seams, repair_tables.show_seams, quiet)
    facts = _picked(check.info, "verdict", "sentence")
    return {"folder": check.folder, "report": page, **facts, "seams": records(check.table)}


def comparison(comparison: Comparison, out: Path | None, quiet: bool) -> Json:
    from ..comparison import write_comparison

    def write(comparison: Comparison) -> Path:
        return write_comparison(comparison, out, quiet=quiet)

    page = _finish(comparison, write, run_tables.show_comparison, quiet)
    sides, classes = records(comparison.summary()), records(comparison.classes)
    return {"report": page, "sides": sides, "classes": classes, "differences": comparison.differences}


def inspection(inspection: Inspection, spec: ModelSpec, quiet: bool) -> Json:
    if not quiet:
        model_tables.show_inspection(inspection, spec)
    return {**vars(inspection), "layers": records(inspection.layers), "norms": records(inspection.norms)}


def explored(result: Explored, quiet: bool) -> Json:
    if not quiet:
        model_tables.show_explored(result)
    hidden = ("schema", "created", "command", "tables")
    facts = {name: value for name, value in result.info.items() if name not in hidden}
    return {"folder": result.folder, **facts, **{name: records(table) for name, table in result.tables.items()}}
