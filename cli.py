"""The command `dissect`: parse, call, print paths. torch is not imported until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .reports import console
from .reports.command import (
    OneLine,
    a_file,
    a_run,
    common,
    effects_options,
    link,
    model_options,
    suspect_options,
    where_options,
)
from .reports.runnable import examples

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group("dissect", cls=OneLine, epilog=examples("dissect"), context_settings=SETTINGS)
@click.version_option(package_name="ganatomy", prog_name="dissect")
def main() -> None:
    """Open a generator: see what its units draw."""


@main.command(epilog=examples("run"))
@click.option("--model", required=True, help="A name from `dissect models`, a checkpoint, or package.module:factory.")
@click.option("--layer", "layers", multiple=True, required=True, help="Number (4 = layer4) or name; repeatable.")
@model_options
@click.option("--samples", default=1000, show_default=True, help="Images: even ones choose labels, odd ones score.")
@click.option("--threshold", default="iqr", show_default=True, help="Rule: iqr (2019) or quantile (2020).")
@click.option("--quantile", default=0.01, show_default=True, help="Share of pixels above it under the quantile rule.")
@click.option("--significance", default="fast", show_default=True, help="Test of labels: off, fast or full.")
@click.option("--control", "controls", multiple=True, help="Also dissect a control: rotation, untrained; repeatable.")
@click.option(
    "--basis", default="units", show_default=True, help="Directions instead: pca, nmf or a .safetensors file."
)
@click.option("--directions", type=int, help="How many, for pca and nmf.  [default: 32, at most all]")
@click.option("--grid", default=64, show_default=True, help="Side of the grid where units and labels meet.")
@click.option("--seed", default=0, show_default=True, help="Of the latents and all else that is drawn.")
@where_options
@click.option("--out", type=a_file, help="Run folder.  [default: runs/MODEL-LAYERS[-BASIS]]")
@click.option("--keep-spool", is_flag=True, help="Keep the featuremaps when done.")
@click.option("--spool-limit", default=20.0, show_default=True, help="Refuse to fill more disk than this, in GB.")
@click.option("--no-report", is_flag=True, help="Tables only, no pages.")
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
@click.argument("run", type=a_file, required=False)
@click.option("--model", help="Instead of a RUN: dissect this first, as `dissect run` does.")
@click.option("--layer", "layers", multiple=True, help="Layer; repeatable with --model.  [default: all of RUN]")
@model_options
@click.option("--detector", default="rare", show_default=True, help="flagged, rare, local, metric, greedy, realism.")
@suspect_options
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
        console.show_suspects(found)
        click.echo(page)
    folder = opened.folder / "artifacts" / found.info["name"]
    tables = {name: console.records(table.groupby("layer").head(20)) for name, table in found.tables.items()}
    return {"folder": folder, "report": page, **tables}


@main.command(epilog=examples("repair"))
@a_run
@click.option("--units", help="File with lines LAYER:UNIT,UNIT,…, or a table of layer and unit; or such a line.")
@click.option("--detector", help="Instead: the most suspect units; see dissect artifacts.")
@click.option("--top", default=20, show_default=True, help="How many of each layer.")
@click.option("--layer", help="Layer for the detector.  [default: all of RUN]")
@click.option("--value", default="best", show_default=True, help="What units put out: zero, mean, or the best of them.")
@click.option("--strength", default=1.0, show_default=True, help="How far they are pulled there, up to 1.")
@click.option("--one-by-one", is_flag=True, help="Detect in each layer as it is after the repairs below.")
@click.option("--samples", default=1000, show_default=True, help="Unseen samples to measure on.")
@click.option("--random-sets", default=5, show_default=True, help="Random sets of units beside.")
@click.option("--seed", default=0, show_default=True, help="Of the random sets and intervals.")
@click.option("--out", type=a_file, help="Checkpoint, .pth or .safetensors.  [default: in RUN/repairs/NAME]")
@suspect_options
@common
def repair(*, run: Path, quiet: bool, **options: Any) -> dict[str, object]:
    """Take suspect units out: better images? Writes the repaired generator."""
    from .dissect.repairing import repair as dissect_repair
    from .dissect.store import Dissection
    from .reports.pages import write_report

    found = dissect_repair(run, quiet=quiet, **options)
    page = link(write_report(Dissection.load(run), quiet=quiet), repair=found.info["name"])
    if not quiet:
        console.show_repair(found)
        click.echo(f"{found.checkpoint}\n{page}")
    kept = {name: found.info[name] for name in ("verdict", "sentence", "units", "values")}
    tables = {"fidelity": console.records(found.fidelity), "effects": console.records(found.effects)}
    return {**kept, "checkpoint": found.checkpoint, "report": page, **tables}


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
