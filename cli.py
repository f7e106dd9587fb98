"""The command `dissect`: parse, call, print paths. torch is not imported until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .hooks.errors import UsageError
from .reports import console, console_repairs
from .reports.command import (
    GRID_ONLY,
    UNITS_ONLY,
    OneLine,
    a_file,
    a_run,
    artifact_options,
    checkup_options,
    common,
    effects_options,
    link,
    refuse,
    repair_options,
    run_options,
    where_options,
)
from .reports.runnable import examples

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group("dissect", cls=OneLine, epilog=examples("dissect"), context_settings=SETTINGS)
@click.version_option(package_name="ganatomy", prog_name="dissect")
def main() -> None:
    """Open a generator: see what its units draw."""


@main.command(epilog=examples("run"))
@run_options
@common
def run(*, quiet: bool, no_report: bool, spool_limit: float, **options: Any) -> dict[str, object]:
    """Dissect layers: which units draw which classes."""
    from .dissect.pipeline import run as dissect_run

    found = dissect_run(spool_limit=spool_limit * 1e9, quiet=quiet, **options)
    page = None
    if not no_report:
        from .reports.pages import write_report

        page = write_report(found, quiet=quiet)
    summary = found.summary()
    if not quiet:
        console.show_run(found, summary)
        click.echo(page or found.folder / "units.csv")
    controls = {name: console.records(control.summary()) for name, control in found.controls.items()}
    return {"folder": found.folder, "report": page, "layers": console.records(summary), "controls": controls}


@main.command(epilog=examples("ablate"))
@effects_options
@click.option("--value", default="zero", show_default=True, help="What units put out: zero, mean or resample.")
@click.option("--curve", is_flag=True, help="Also for 1, 2, 4, … units.")
@common
def ablate(*, run: Path, quiet: bool, **options: Any) -> dict[str, object]:
    """Switch units of a RUN off: which classes leave?"""
    from .dissect.interventions import ablate as dissect_ablate

    return _intervened(run, dissect_ablate(run, quiet=quiet, **options), quiet)


@main.command(epilog=examples("insert"))
@effects_options
@click.option(
    "--where", default="grid", show_default=True, help="grid (each cell alone), x,y[,w,h], class:NAME, a mask."
)
@click.option("--level", type=float, help="Value: what this share of pixels exceeds.  [default: typical for the class]")
@common
def insert(*, run: Path, quiet: bool, **options: Any) -> dict[str, object]:
    """Switch units of a RUN on: which classes appear?"""
    from .dissect.interventions import insert as dissect_insert

    return _intervened(run, dissect_insert(run, quiet=quiet, **options), quiet)


def _intervened(run: Path, effects: Any, quiet: bool) -> dict[str, object]:
    """Show what an intervention did and add its page to the report."""
    from .dissect.store import Dissection
    from .reports.pages import write_report

    if not quiet:
        console.show_effects(effects)
    page = link(write_report(Dissection.load(run), quiet=quiet), intervention=effects.info["name"])
    if not quiet:
        click.echo(page)
    return {
        "folder": run / "interventions" / effects.info["name"],
        "report": page,
        "units": effects.info["units"],
        "on_target": effects.info.get("on_target"),
        "effects": console.records(effects.table),
    }


@main.command(epilog=examples("scan"))
@a_run
@click.option("--class", "label", metavar="CLASS", required=True, help="The class by which units are ranked.")
@click.option("--layer", help="Layer of the run.  [default: all in turn]")
@click.option("--samples", default=64, show_default=True, help="The run's first ones.")
@where_options
@common
def scan(*, run: Path, layer: str | None, quiet: bool, **options: Any) -> list[dict[str, object]]:
    """Ablate each unit of a RUN alone: which ones matter?"""
    from .dissect.store import Dissection
    from .dissect.unit_scan import scan as dissect_scan
    from .reports.pages import write_report

    opened = Dissection.load(run)
    found = [dissect_scan(opened, layer=name, quiet=quiet, **options) for name in ([layer] if layer else opened.layers)]
    report = write_report(opened, quiet=quiet)
    pages = [link(report, intervention=one.info["name"]) for one in found]
    if not quiet:
        for one in found:
            console.show_scan(one.table, one.info)
        click.echo("\n".join(pages))
    tables = [console.records(one.table.head(20)) for one in found]
    return [one.info | {"report": page, "units": rows} for one, page, rows in zip(found, pages, tables, strict=True)]


@main.command(epilog=examples("artifacts"))
@artifact_options
@common
def artifacts(*, run: Path | None, layers: tuple[str, ...], quiet: bool, **options: Any) -> dict[str, object]:
    """Rank units and samples by suspicion of artifacts."""
    from .dissect.artifacts import find
    from .dissect.pipeline import run_or_open
    from .reports.pages import write_report

    made = {name: options.pop(name) for name in ("model", "segmenter", "weights", "latent")}
    opened = run_or_open(run, layers=layers, device=options["device"], quiet=quiet, **made)
    layer = layers[0] if run is not None and layers else None
    found = find(opened, layer=layer, quiet=quiet, **options)
    page = link(write_report(opened, quiet=quiet), artifacts=found.info["name"])
    if not quiet:
        console_repairs.show_suspects(found)
        click.echo(page)
    folder = opened.folder / "artifacts" / found.info["name"]
    tables = {name: console.records(table.groupby("layer").head(20)) for name, table in found.tables.items()}
    return {"folder": folder, "report": page, **tables}


@main.command(epilog=examples("repair"))
@repair_options
@common
def repair(*, run: Path | None, checkerboard: bool, layers: tuple[str, ...], quiet: bool, **options: Any) -> object:
    """Take suspect units out, or mend a checkerboard: better images? Writes the repaired generator."""
    if checkerboard:
        refuse(UNITS_ONLY, "--units or --detector, not with --checkerboard")
        return _mended(run, layers, quiet, options)
    refuse(GRID_ONLY, "--checkerboard")
    from .dissect.repairing import repair as dissect_repair
    from .dissect.store import Dissection
    from .reports.pages import write_report

    if run is None or len(layers) > 1:
        raise UsageError("Name the folder of a run, and at most one --layer.")
    kept = {name: value for name, value in options.items() if name not in GRID_ONLY}
    found = dissect_repair(run, layer=layers[0] if layers else None, quiet=quiet, **kept)
    page = link(write_report(Dissection.load(run), quiet=quiet), repair=found.info["name"])
    if not quiet:
        console_repairs.show_repair(found)
        click.echo(f"{found.checkpoint}\n{page}")
    return console_repairs.repair_records(found, page)


def _mended(run: Path | None, layers: tuple[str, ...], quiet: bool, options: dict[str, Any]) -> dict[str, object]:
    """Mend the checkerboard of a checkup's generator, after the checkup where a model is named."""
    from .dissect.checkerboard.repairing import repair_model
    from .reports.checkup import write_checkup

    kept = {name: value for name, value in options.items() if name not in UNITS_ONLY}
    opened, found = repair_model(run, layers=layers, quiet=quiet, **kept)
    page = f"{write_checkup(opened).resolve().as_uri()}#repair-{found.info['name']}"
    if not quiet:
        console_repairs.show_mended(found)
        click.echo(f"{found.checkpoint}\n{page}")
    return console_repairs.repair_records(found, page)


@main.command(epilog=examples("checkup"))
@checkup_options
@common
def checkup(*, quiet: bool, **options: Any) -> dict[str, object]:
    """Does a generator's upsampling draw checkerboards? Which layer?"""
    from .dissect.checkerboard import checkup as check
    from .reports.checkup import write_checkup

    found = check(quiet=quiet, **options)
    page = write_checkup(found)
    if not quiet:
        console_repairs.show_checkup(found)
        click.echo(page)
    tables = {name: console.records(getattr(found, name)) for name in ("layers", "peaks", "gradient")}
    told = {name: found.info[name] for name in ("verdict", "sentence", "blame", "broadband")}
    return {"folder": found.folder, "report": page, **told, **tables}


@main.command(epilog=examples("power"))
@a_run
@click.option("--width", default=0.02, show_default=True, help="Wanted width of the intervals of IoU.")
@click.option("--power", default=0.8, show_default=True, help="Probability of finding a unit of the IoU told.")
@common
def power(*, run: Path, quiet: bool, **options: Any) -> dict[str, object]:
    """What IoU could a RUN detect, and how many samples give narrower intervals?"""
    from .dissect.detectable import power as dissect_power

    table = dissect_power(run, **options)
    if not quiet:
        console.show_power(table)
    return {**table.attrs, "classes": console.records(table)}


@main.command(epilog=examples("compare"))
@click.argument("runs", nargs=-1, required=True, metavar="RUN[:LAYER]…")
@click.option("--out", type=a_file, help="Folder.  [default: comparisons/A-B-…]")
@common
def compare(*, runs: tuple[str, ...], out: Path | None, quiet: bool) -> dict[str, object]:
    """Compare RUNs with the first: classes gained and lost, units that correspond, images side by side."""
    from .dissect.comparison import compare as dissect_compare
    from .reports.comparison import write_comparison

    found = dissect_compare(*runs)
    page = write_comparison(found, out, quiet=quiet)
    if not quiet:
        console.show_comparison(found)
        click.echo(page)
    sides, classes = console.records(found.summary()), console.records(found.classes)
    return {"report": page, "sides": sides, "classes": classes, "differences": found.differences}


@main.command(epilog=examples("report"))
@a_run
@click.option("--single-file", is_flag=True, help="RUN/report.html with everything inside, to mail.")
@common
def report(*, run: Path, single_file: bool, quiet: bool) -> dict[str, object]:
    """Write the pages of a finished RUN again."""
    from .dissect.store import Dissection
    from .reports.pages import write_report

    page = write_report(Dissection.load(run), single_file=single_file, quiet=quiet)
    if not quiet:
        click.echo(page)
    return {"report": page}


@main.command(epilog=examples("models"))
@click.option("--detail", metavar="NAME", help="The model card of one.")
@common
def models(*, detail: str | None, quiet: bool) -> object:
    """List pretrained generators: where they come from, licence, whether they are on this machine."""
    from .dissect.generators import zoo

    if not detail:
        return console.show_rows(zoo.table(), "{} pixels", quiet)
    text, layers = zoo.card(detail), zoo.layers_here(detail)
    if not quiet:
        click.echo(text)
        console.show_layers(layers)
    return {"name": detail, "card": text, "layers": layers}


@main.command(epilog=examples("segmenters"))
@common
def segmenters(*, quiet: bool) -> object:
    """List segmenters: what names the pixels."""
    from .segmenters import table

    return console.show_rows(table(), "{} classes", quiet)


@main.command(epilog=examples("scenes"))
@click.option("--n", default=1000, show_default=True, help="How many scenes.")
@click.option("--out", type=a_file, required=True, help="New folder: images/, masks/, classes.csv.")
@click.option("--side", default=64, show_default=True, help="Image side in pixels.")
@click.option("--seed", default=0, show_default=True)
@common
def scenes(*, n: int, out: Path, side: int, seed: int, quiet: bool) -> dict[str, object]:
    """Draw a labelled data set of procedural church scenes."""
    from .dissect.scenes.export import export

    export(n, out, side=side, seed=seed, quiet=quiet)
    if not quiet:
        click.echo(out)
    return {"folder": out, "images": n}


if __name__ == "__main__":
    main()
