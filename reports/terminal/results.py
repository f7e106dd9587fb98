"""What every command does with its result: it writes the page, prints tables and verdict, and returns the JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...dissect.runtime import distributed
from ...hooks.errors import UsageError
from ..rows import records
from . import diversity_tables, model_tables, next_command, repair_tables, run_tables, sentences, training_tables
from .ending import end, link, open_page
from .screen import screen

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
RESULTS = "runs"  # the folder that gets an index of its results
BEGAN = "ganatomy.began"  # in click's context: when the command began
Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


def _on_first(report: Function) -> Function:
    """Of several processes, only the first one reports; all return what it returns."""

    @wraps(report)
    def report_on_first(*arguments: Any) -> Any:
        return distributed.on_first(lambda: report(*arguments))

    return report_on_first  # type: ignore[return-value]


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


def _end(
    quiet: bool,
    sentence: str | None,
    page: Path | str | None,
    folder: Path | None,
    info: Json | None = None,
    **more: Any,
) -> None:
    """Print how a command ends, see `ending.end`; and that its result, which `info` describes, was only loaded.

    The index of the folder of results in which the result's `folder` lies is written again.
    """
    if folder is not None and folder.resolve().parent.name == RESULTS:
        _write_index(folder.parent)
    age = sentences.of_age(info, _began()) if info else ""
    if age and not quiet:
        screen.print(age, style="yellow", highlight=False)
    end(quiet, sentence, page, **more)


def _write_index(folder: Path) -> None:
    from ..index import write_index

    with suppress(UsageError):  # an index.html of the user's own stays
        written(lambda: write_index(folder))


def _began() -> datetime:
    began: datetime = click.get_current_context().meta[BEGAN]
    return began


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
    tables = [] if page else [run.folder / "units.csv"]
    _end(
        quiet, sentences.of_run(run), page, run.folder, run.info, next_command=next_command.after_run(run), files=tables
    )
    controls = {name: records(control.summary()) for name, control in run.controls.items()}
    return {"folder": run.folder, "report": page, "layers": records(summary), "controls": controls}


def index(folder: Path, single_file: bool, quiet: bool) -> Json:
    from ..index import write_index

    if single_file:
        raise UsageError(f"--single-file goes with a run; {folder} is none, and its index is always one file.")
    page = write_index(folder)
    end(quiet, None, page)
    return {"report": page}


def report(run: Dissection, page: Path, quiet: bool) -> Json:
    _end(quiet, sentences.of_run(run), page, run.folder, next_command=next_command.after_run(run))
    return {"report": page}


@_on_first
def effects(effects: Effects, folder: Path, quiet: bool) -> Json:
    from ...dissect.interventions.verdict import verdict
    from ...dissect.runs.dissection import Dissection

    name, opened = effects.info["name"], Dissection.load(folder)
    page = link_to_report(opened, quiet, intervention=name)
    if not quiet:
        run_tables.show_effects(effects)
    following = next_command.after_effects(effects, opened)
    _end(quiet, verdict(effects), page, folder, effects.info, next_command=following)
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
    for scan, page in zip(scans, pages, strict=True):
        if not quiet:
            run_tables.show_scan(scan.table, scan.info)
        following = next_command.after_scan(scan.info, run) if scan is scans[-1] else []
        _end(quiet, sentences.of_scan(scan.table, scan.info), page, run.folder, next_command=following)
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
    following = next_command.after_suspects(suspects, run)
    _end(quiet, sentences.of_suspects(suspects), page, run.folder, suspects.info, next_command=following)
    tables = {name: records(table.groupby("layer").head(20)) for name, table in suspects.tables.items()}
    return {"folder": run.folder / "artifacts" / name, "report": page, **tables}


@_on_first
def repair(repair: Repair, folder: Path, quiet: bool) -> Json:
    page = link_to_report(folder, quiet, repair=repair.info["name"])
    if not quiet:
        repair_tables.show_repair(repair)
    _end_repair(repair, page, folder, quiet)
    return repair_tables.repair_records(repair, page)


@_on_first
def grid_repair(repair: Repair, checkup: Checkup, quiet: bool) -> Json:
    from ..checkup import write_checkup

    report = written(lambda: write_checkup(checkup))
    page = None if report is None else f"{report.resolve().as_uri()}#repair-{repair.info['name']}"
    if not quiet:
        repair_tables.show_grid_repair(repair)
    _end_repair(repair, page, checkup.folder, quiet)
    return repair_tables.repair_records(repair, page)


def _end_repair(repair: Repair, page: str | None, folder: Path, quiet: bool) -> None:
    following = next_command.after_repair(repair)
    style = repair_tables.colour_of(repair.info["verdict"])
    sentence = repair.info["sentence"]
    _end(quiet, sentence, page, folder, repair.info, next_command=following, files=[repair.checkpoint], style=style)


@_on_first
def checkup(checkup: Checkup, quiet: bool) -> Json:
    from ..checkup import write_checkup

    diversity_json: Json = {"diversity": diversity(checkup.diversity, True)} if checkup.diversity else {}

    page = written(lambda: write_checkup(checkup))
    if not quiet:
        repair_tables.show_checkup(checkup)
        if checkup.diversity:
            diversity_tables.show_diversity(checkup.diversity)
    diversity_sentence = f"\n{checkup.diversity.info['sentence']}" if checkup.diversity else ""
    style = repair_tables.colour_of(checkup.info["verdict"])
    sentence, following = checkup.info["sentence"] + diversity_sentence, next_command.after_checkup(checkup)
    _end(quiet, sentence, page, checkup.folder, checkup.info, next_command=following, style=style)
    facts = _picked(checkup.info, "verdict", "sentence", "blame", "broadband")
    tables = {name: records(getattr(checkup, name)) for name in ("layers", "peaks", "gradient")}
    return {"folder": checkup.folder, "report": page, **facts, **tables, **diversity_json}


@_on_first
def diversity(diversity: Diversity, quiet: bool) -> Json:
    from ..diversity import write_diversity

    page = written(lambda: write_diversity(diversity))
    if not quiet:
        diversity_tables.show_diversity(diversity)
    info, style = diversity.info, diversity_tables.COLOURS[diversity.info["verdict"]]
    sentence, following = f"{info['verdict']}: {info['sentence']}", next_command.after_diversity(diversity)
    _end(quiet, sentence.capitalize(), page, diversity.folder, info, next_command=following, style=style)
    facts = _picked(diversity.info, "verdict", "sentence", "segmentation_distance", "support", "layer")
    tables = {name: records(getattr(diversity, name)) for name in ("classes", "pairs", "whole", "layers")}
    return {"folder": diversity.folder, "report": page, **facts, **tables}


def fitness(fitness: Fitness, quiet: bool) -> Json:
    from ..fitness import write_fitness

    page = written(lambda: write_fitness(fitness))
    if not quiet:
        training_tables.show_fitness(fitness)
    following = next_command.after_fitness(fitness)
    _end(quiet, fitness.info["sentence"], page, fitness.folder, fitness.info, next_command=following)
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
        for number, row in enumerate(rows):
            if not quiet:
                training_tables.show_line(row)
            if number == 0:
                open_page(watch.folder / "index.html")
    if not (watch.folder / "watch.json").exists():
        return {"folder": watch.folder, "report": None, "checkpoints": [], "skipped": watch.skipped}
    result = Watched.load(watch.folder)
    page = written(lambda: write_watch(result))
    alarms = int((result.lines.alarms.fillna("") != "").sum())
    sentence = f"{sentences.count(len(result.lines), 'checkpoint')}, {alarms} of them with alarms."
    _end(quiet, sentence, page, watch.folder)
    checkpoints = records(result.lines)
    return {"folder": watch.folder, "report": page, "checkpoints": checkpoints, "skipped": result.info["skipped"]}


def seams(check: SeamCheck, quiet: bool) -> Json:
    from ..seams import write_seams

    page = written(lambda: write_seams(check))
    if not quiet:
        repair_tables.show_seams(check)
    _end(quiet, check.info["sentence"], page, check.folder, check.info)
    facts = _picked(check.info, "verdict", "sentence")
    return {"folder": check.folder, "report": page, **facts, "seams": records(check.table)}


def comparison(comparison: Comparison, out: Path | None, quiet: bool) -> Json:
    from ..comparison import write_comparison

    page = written(lambda: write_comparison(comparison, out, quiet=quiet))
    if not quiet:
        run_tables.show_comparison(comparison)
    _end(quiet, sentences.of_comparison(comparison), page, None)
    sides, classes = records(comparison.summary()), records(comparison.classes)
    return {"report": page, "sides": sides, "classes": classes, "differences": comparison.differences}


def inspection(inspection: Inspection, spec: ModelSpec, quiet: bool) -> Json:
    if not quiet:
        model_tables.show_inspection(inspection, spec)
    return {**vars(inspection), "layers": records(inspection.layers), "norms": records(inspection.norms)}


def explored(result: Explored, quiet: bool) -> Json:
    from ..latents import sentence, write_latents

    page = written(lambda: write_latents(result))
    if not quiet:
        model_tables.show_explored(result)
    _end(quiet, sentence(result), page, result.folder, result.info)
    hidden = ("schema", "created", "command", "tables")
    facts = {name: value for name, value in result.info.items() if name not in hidden}
    tables = {name: records(table) for name, table in result.tables.items()}
    return {"folder": result.folder, "report": page, **facts, **tables}
