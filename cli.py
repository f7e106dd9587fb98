"""The command `dissect`: parse and call. torch is not imported until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .dissect.generators.loading import layers_of
from .dissect.runtime import distributed
from .hooks.errors import UsageError
from .reports.rows import records
from .reports.terminal import model_tables, results, run_tables
from .reports.terminal import options as with_
from .reports.terminal.command import OneLine, common, refuse, spread
from .reports.terminal.examples import examples
from .reports.terminal.options import CRITIC_ONLY, GRID_ONLY, UNITS_ONLY, a_file, a_run

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group("dissect", cls=OneLine, epilog=examples("dissect"), context_settings=SETTINGS)
@click.version_option(package_name="ganatomy", prog_name="dissect")
def main() -> None:
    """Open a generator: see what its units draw."""


@main.command(epilog=examples("run"))
@with_.run_options
@spread
def run(*, quiet: bool, no_report: bool, spool_limit: float, **options: Any) -> object:
    """Dissect layers: which units draw which classes."""
    from .dissect.runs.run import run as dissect_run

    return results.run(dissect_run(spool_limit=spool_limit * 1e9, quiet=quiet, **options), quiet, no_report)


@main.command(epilog=examples("merge"))
@click.argument("shards", nargs=-1, required=True, type=a_file, metavar="RUN…")
@click.option("--out", type=a_file, help="Run folder.  [default: runs/MODEL-LAYERS]")
@click.option("--keep-spool", is_flag=True, help="Keep the featuremaps when done.")
@click.option("--no-report", is_flag=True, help="No HTML report.")
@common
def merge(*, shards: tuple[Path, ...], no_report: bool, quiet: bool, **options: Any) -> object:
    """Make one run of its shards, that `dissect run --shard` made."""
    from .dissect.runs.merge import merge as dissect_merge

    return results.run(dissect_merge(shards, quiet=quiet, **options), quiet, no_report)


@main.command(epilog=examples("ablate"))
@with_.effects_options
@click.option("--value", default="zero", show_default=True, help="What units output: zero, mean or resample.")
@click.option("--curve", is_flag=True, help="Also for 1, 2, 4, … units.")
@spread
def ablate(*, run: Path, quiet: bool, **options: Any) -> object:
    """Switch units of a RUN off: which classes leave?"""
    from .dissect.interventions.ablate_insert import ablate as dissect_ablate

    return results.effects(dissect_ablate(run, quiet=quiet, **options), run, quiet)


@main.command(epilog=examples("insert"))
@with_.effects_options
@click.option(
    "--where", default="grid", show_default=True, help="grid (each cell alone), x,y[,w,h], class:NAME, a mask."
)
@click.option("--level", type=float, help="Value: what this share of pixels exceeds.  [default: typical for the class]")
@spread
def insert(*, run: Path, quiet: bool, **options: Any) -> object:
    """Switch units of a RUN on: which classes appear?"""
    from .dissect.interventions.ablate_insert import insert as dissect_insert

    return results.effects(dissect_insert(run, quiet=quiet, **options), run, quiet)


@main.command(epilog=examples("scan"))
@a_run
@click.option("--class", "label", metavar="CLASS", required=True, help="The class by which units are ranked.")
@click.option("--layer", help="Layer of the run.  [default: all in turn]")
@click.option("--samples", default=64, show_default=True, help="The run's first ones.")
@with_.moved_options
@with_.where_options
@spread
def scan(*, run: Path, layer: str | None, quiet: bool, **options: Any) -> object:
    """Ablate each unit of a RUN alone: which ones matter?"""
    from .dissect.interventions.scan import scan as dissect_scan
    from .dissect.runs.dissection import Dissection

    opened = Dissection.load(run)
    layers = [layer] if layer else opened.layers
    return results.scans([dissect_scan(opened, layer=name, quiet=quiet, **options) for name in layers], opened, quiet)


@main.command(epilog=examples("artifacts"))
@with_.artifact_options
@spread
def artifacts(*, run: Path | None, layers: tuple[str, ...], quiet: bool, **options: Any) -> object:
    """Rank units and samples by suspicion of artifacts."""
    from .dissect.artifacts import find
    from .dissect.artifacts.find import check_detector
    from .dissect.runs.run import run_or_open

    check_detector(options["detector"], options["flags"])  # before a run is made

    model, segmenter = options.pop("model"), options.pop("segmenter")
    if run is not None and model is not None:  # of which the run was made
        options["generator"], model = with_.moved(model), None
    opened = run_or_open(run, model=model, segmenter=segmenter, layers=layers, device=options["device"], quiet=quiet)
    layer = layers[0] if run is not None and layers else None
    return results.suspects(find(opened, layer=layer, quiet=quiet, **options), opened, quiet)


@main.command(epilog=examples("repair"))
@with_.repair_options
@spread
def repair(*, run: Path | None, checkerboard: bool, layers: tuple[str, ...], quiet: bool, **options: Any) -> object:
    """Take suspect units out, or mend a checkerboard: better images? Writes the repaired generator."""
    if checkerboard:
        from .dissect.checkerboard.repair_grid import repair_model

        refuse(UNITS_ONLY, "--units or --detector, not with --checkerboard")
        kept = {name: value for name, value in options.items() if name not in UNITS_ONLY}
        opened, mended = repair_model(run, layers=layers, quiet=quiet, **kept)
        return results.mended(mended, opened, quiet)
    from .dissect.repairs.repair_units import repair as dissect_repair

    refuse(GRID_ONLY, "--checkerboard")
    if run is None or len(layers) > 1:
        raise UsageError("Name the folder of a run, and at most one --layer.")
    kept = {name: value for name, value in options.items() if name not in (*GRID_ONLY, "model")}
    if options["model"] is not None:  # of which the run was made
        kept["generator"] = with_.moved(options["model"])
    return results.repair(dissect_repair(run, layer=layers[0] if layers else None, quiet=quiet, **kept), run, quiet)


@main.command(epilog=examples("checkup"))
@with_.checkup_options
@spread
def checkup(*, tiles: int | None, samples: int | None, quiet: bool, **options: Any) -> object:
    """Does a generator draw checkerboards, or too little? Which layer? Or, with --tiles: do seams show?"""
    if tiles is not None:
        from .dissect.seams.check import check_seams

        if distributed.size() > 1:
            raise UsageError("dissect checkup --tiles is done by one process; start it without torchrun.")
        refuse(CRITIC_ONLY, "checkerboards, not with --tiles")
        kept = {name: value for name, value in options.items() if name not in CRITIC_ONLY}
        return results.seams(check_seams(tiles=tiles, samples=samples, quiet=quiet, **kept), quiet)
    from .dissect.full_checkup import checkup as check

    return results.checkup(check(samples=512 if samples is None else samples, quiet=quiet, **options), quiet)


@main.command(epilog=examples("diversity"))
@with_.diversity_options
@spread
def diversity(*, quiet: bool, **options: Any) -> object:
    """What does a generator draw too rarely, too alike, or never, beside real images?"""
    from .dissect.diversity import audit

    return results.diversity(audit(quiet=quiet, **options), quiet)


@main.command(epilog=examples("fitness"))
@click.argument("candidates", nargs=-1, required=True, metavar="CANDIDATE…")
@with_.fitness_options
@common
def fitness(*, candidates: tuple[str, ...], quiet: bool, **options: Any) -> object:
    """Which of several generators to take? Quality and diversity of models or checkpoints."""
    from .dissect.candidates import fitness as dissect_fitness
    from .dissect.candidates.checkpoint_files import spec_of

    model, opened = with_.how_to_open(options)
    specs = [spec_of(one, model, opened) for one in candidates]
    return results.fitness(dissect_fitness(specs, quiet=quiet, **options), quiet)


@main.command(epilog=examples("watch"))
@click.argument("place")
@with_.watch_options
@common
def watch(*, place: str, once: bool, out: Path | None, device: str, quiet: bool, **options: Any) -> object:
    """Look at each checkpoint that appears in a folder, or that matches a pattern: alarms when it becomes worse."""
    from .dissect.storage.files import safe_name
    from .dissect.watching import Watch, follow
    from .reports.watch import write_watch

    model, opened = with_.how_to_open(options)
    folder = out or Path("runs") / safe_name(f"{Path(place).name}-watch")
    used = None if device == "auto" else device
    watching = Watch(folder, page=lambda found: write_watch(found, live=not once), device=used, **options)
    rows = follow(place, watching, model=model, options=opened, device=device, once=once, quiet=quiet)
    return results.watched(rows, watching, place, quiet)


@main.command(epilog=examples("power"))
@a_run
@click.option("--width", default=0.02, show_default=True, help="Wanted width of the intervals of IoU.")
@click.option("--power", default=0.8, show_default=True, help="Probability of finding a unit of the IoU told.")
@common
def power(*, run: Path, quiet: bool, **options: Any) -> object:
    """What IoU could a RUN detect, and how many samples give narrower intervals?"""
    from .dissect.runs.power import power as dissect_power

    table = dissect_power(run, **options)
    if not quiet:
        run_tables.show_power(table)
    return {**table.attrs, "classes": records(table)}


@main.command(epilog=examples("compare"))
@click.argument("runs", nargs=-1, required=True, metavar="RUN[:LAYER]…")
@click.option("--out", type=a_file, help="Folder.  [default: comparisons/A-B-…]")
@common
def compare(*, runs: tuple[str, ...], out: Path | None, quiet: bool) -> object:
    """Compare RUNs with the first: classes gained and lost, units that correspond, images side by side."""
    from .dissect.runs.compare import compare as dissect_compare
    from .reports.comparison import check_place

    if out is not None:
        check_place(out)  # before the work
    return results.comparison(dissect_compare(*runs), out, quiet)


@main.command(epilog=examples("report"))
@a_run
@click.option("--single-file", is_flag=True, help="RUN/report.html with everything inside, to mail.")
@common
def report(*, run: Path, single_file: bool, quiet: bool) -> object:
    """Write the pages of a finished RUN again."""
    from .dissect.runs.dissection import Dissection
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
        return model_tables.show_rows(zoo.table(), "{} pixels", quiet)
    text, layers = zoo.card(detail), layers_of(detail)
    if not quiet:
        click.echo(text)
        model_tables.show_layers(layers)
    return {"name": detail, "card": text, "layers": layers}


@main.command(epilog=examples("inspect"))
@with_.a_model()
@click.option("--write", metavar="FILE.py", help="The network of a plain chain, as Python that you can keep.")
@click.option("--device", default="auto", show_default=True)
@common
def inspect(*, quiet: bool, **options: Any) -> object:
    """What is this MODEL: family, latents, layers with shapes, and which to dissect?"""
    from .dissect.subjects.inspection import inspect as dissect_inspect

    return results.inspection(dissect_inspect(quiet=quiet, **options), options["model"], quiet)


@main.command(epilog=examples("latents"))
@with_.latents_options
@common
def latents(*, kind: str, model: Any, animation: str, quiet: bool, **options: Any) -> object:
    """Move through latents: interpolate, arithmetic, mix, truncation, directions or path-length."""
    from .dissect.latents.explore import explore
    from .dissect.latents.moves import LatentOptions

    where = {name: options.pop(name) for name in ("seed", "out", "batch_size", "device")}
    return results.explored(
        explore(kind, model, LatentOptions(**options), animation=animation, quiet=quiet, **where), quiet
    )


@main.command(epilog=examples("segmenters"))
@common
def segmenters(*, quiet: bool) -> object:
    """List segmenters: what names the pixels."""
    from .segmenters import table

    return model_tables.show_rows(table(), "{} classes", quiet)


@main.command(epilog=examples("scenes"))
@click.option("--n", default=1000, show_default=True, help="How many scenes.")
@click.option("--out", type=a_file, required=True, help="New folder: images/, masks/, classes.csv.")
@click.option("--side", default=128, show_default=True, help="Image side in pixels.")
@click.option("--seed", default=0, show_default=True)
@common
def scenes(*, n: int, out: Path, side: int, seed: int, quiet: bool) -> object:
    """Draw a labelled data set of procedural church scenes."""
    from .dissect.scenes.export import export

    export(n, out, side=side, seed=seed, quiet=quiet)
    if not quiet:
        click.echo(out)
    return {"folder": out, "images": n}


if __name__ == "__main__":
    main()
