"""The command `dissect`: parse and call. torch is not imported until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class
from cloup import Section

from .dissect.runtime import distributed
from .hooks.errors import UsageError
from .reports.rows import records
from .reports.terminal import model_tables, options, results, run_tables
from .reports.terminal.command import Group, one_process, several_processes
from .reports.terminal.examples import examples

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DISSECT = Section("Dissect")
INTERVENE = Section("Intervene")
CHECK = Section("Check and repair")
TRAIN = Section("Watch and choose checkpoints")
LOOK = Section("Look at models and latents")


@click.group("dissect", cls=Group, epilog=examples("dissect"), context_settings=SETTINGS)
@click.version_option(package_name="ganatomy", prog_name="dissect")
def main() -> None:
    """Open a generator: see what its units draw."""


@main.command(section=DISSECT, epilog=examples("run"))
@options.run_options
@several_processes
def run(*, quiet: bool, no_report: bool, spool_limit: float, **settings: Any) -> object:
    """Dissect layers: which units draw which classes?"""
    from .dissect.runs.run import run as dissect_run
    from .dissect.subjects.network import AUTO

    settings["layers"] = settings["layers"] or AUTO
    return results.run(dissect_run(spool_limit=spool_limit * 1e9, quiet=quiet, **settings), quiet, no_report)


@main.command(section=DISSECT, epilog=examples("merge"))
@options.merge_options
@one_process
def merge(*, shards: tuple[Path, ...], no_report: bool, quiet: bool, **settings: Any) -> object:
    """Merge the parts that `dissect run --shard` captured into one run."""
    from .dissect.runs.merge import merge as dissect_merge

    return results.run(dissect_merge(shards, quiet=quiet, **settings), quiet, no_report)


@main.command(section=DISSECT, epilog=examples("compare"))
@options.compare_options
@one_process
def compare(*, runs: tuple[str, ...], out: Path | None, quiet: bool) -> object:
    """Compare runs: which classes and units do they share?

    The first run is the baseline. The page shows classes gained and lost, units that correspond, and images side by
    side.
    """
    from .dissect.runs.compare import compare as dissect_compare
    from .reports.comparison import check_target

    if out is not None:
        check_target(out)  # before the work
    return results.comparison(dissect_compare(*runs), out, quiet)


@main.command(section=DISSECT, epilog=examples("power"))
@options.power_options
@one_process
def power(*, run: Path, quiet: bool, **settings: Any) -> object:
    """Estimate how many samples a run needs.

    For each class: the IoU that this run could detect, and the number of samples for intervals of the wanted width.
    """
    from .dissect.runs.power import power as dissect_power

    table = dissect_power(run, **settings)
    if not quiet:
        run_tables.show_power(table)
    return {**table.attrs, "classes": records(table)}


@main.command(section=DISSECT, epilog=examples("report"))
@options.report_options
@one_process
def report(*, run: Path, single_file: bool, quiet: bool) -> object:
    """Write the pages of a run again, or an index of a folder.

    A folder of results, such as runs, gets an index.html that shows all of them.
    """
    if run.is_dir() and not (run / "run.json").exists():
        return results.index(run, single_file, quiet)
    from .dissect.runs.dissection import Dissection
    from .reports.pages import write_report

    opened = Dissection.load(run)
    return results.report(opened, write_report(opened, single_file=single_file, quiet=quiet), quiet)


@main.command(section=INTERVENE, epilog=examples("ablate"))
@options.ablate_options
@several_processes
def ablate(*, run: Path, quiet: bool, **settings: Any) -> object:
    """Switch units of a run off: which classes disappear?"""
    from .dissect.interventions.ablate_insert import ablate as dissect_ablate

    return results.effects(dissect_ablate(run, quiet=quiet, **settings), run, quiet)


@main.command(section=INTERVENE, epilog=examples("insert"))
@options.insert_options
@several_processes
def insert(*, run: Path, quiet: bool, **settings: Any) -> object:
    """Switch units of a run on: which classes appear?"""
    from .dissect.interventions.ablate_insert import insert as dissect_insert

    return results.effects(dissect_insert(run, quiet=quiet, **settings), run, quiet)


@main.command(section=INTERVENE, epilog=examples("scan"))
@options.scan_options
@several_processes
def scan(*, run: Path, layer: str | None, quiet: bool, **settings: Any) -> object:
    """Ablate each unit by itself: which ones matter for a class?"""
    from .dissect.interventions.scan import scan as dissect_scan
    from .dissect.runs.dissection import Dissection

    opened = Dissection.load(run)
    layers = [layer] if layer else opened.layers
    return results.scans([dissect_scan(opened, layer=name, quiet=quiet, **settings) for name in layers], opened, quiet)


@main.command(section=CHECK, epilog=examples("checkup"))
@options.checkup_options
@several_processes
def checkup(*, tiles: int | None, samples: int | None, quiet: bool, **settings: Any) -> object:
    """Audit a generator: checkerboards, missing variety, seams.

    Finds the layers that draw checkerboards and, beside real images, what is missing or too alike; or, with --tiles,
    visible seams between tiles.
    """
    if tiles is not None:
        from .dissect.seams.check import check_seams

        if distributed.size() > 1:
            raise UsageError("dissect checkup --tiles does not support torchrun; start it as a single process.")
        for name in ("reference", "critic", "segmenter"):  # they do not go with --tiles
            del settings[name]
        return results.seams(check_seams(tiles=tiles, samples=samples, quiet=quiet, **settings), quiet)
    from .dissect.full_checkup import checkup as dissect_checkup

    return results.checkup(dissect_checkup(samples=512 if samples is None else samples, quiet=quiet, **settings), quiet)


@main.command(section=CHECK, epilog=examples("diversity"))
@options.diversity_options
@several_processes
def diversity(*, quiet: bool, **settings: Any) -> object:
    """Compare with real images: what is drawn too rarely or never?

    Also tells whether images are too alike, and in which layer variety is lost.
    """
    from .dissect.diversity import audit

    return results.diversity(audit(quiet=quiet, **settings), quiet)


@main.command(section=CHECK, epilog=examples("artifacts"))
@options.artifact_options
@several_processes
def artifacts(*, run: Path | None, layers: tuple[str, ...], quiet: bool, **settings: Any) -> object:
    """Rank units and samples by how suspect of artifacts they are."""
    from .dissect.artifacts import find
    from .dissect.artifacts.find import check_detector
    from .dissect.runs.run import run_or_open

    check_detector(settings["detector"], settings["flags"])  # before a run is made

    model, segmenter = settings.pop("model"), settings.pop("segmenter")
    if run is not None and model is not None:  # the run's own model, which has moved
        settings["generator"], model = options.moved(model), None
    opened = run_or_open(run, model=model, segmenter=segmenter, layers=layers, device=settings["device"], quiet=quiet)
    layer = layers[0] if run is not None and layers else None
    return results.suspects(find(opened, layer=layer, quiet=quiet, **settings), opened, quiet)


@main.command(section=CHECK, epilog=examples("repair"))
@options.repair_options
@several_processes
def repair(*, run: Path | None, checkerboard: bool, layers: tuple[str, ...], quiet: bool, **settings: Any) -> object:
    """Repair a generator, and test whether its images are better.

    Ablates suspect units, or changes the upsampling layers that draw a checkerboard. Writes the repaired generator.
    """
    if checkerboard:
        from .dissect.checkerboard.repair_grid import repair_model

        for name in ("units", "detector", "top", "value", "one_by_one", "flags", "realism"):
            del settings[name]
        opened, result = repair_model(run, layers=layers, quiet=quiet, **settings)
        return results.grid_repair(result, opened, quiet)
    from .dissect.repairs.repair_units import repair as dissect_repair

    if run is None or len(layers) > 1:
        raise UsageError("Name the folder of a run, and at most one --layer.")
    for name in ("segmenter", "method", "finetune_minutes"):
        del settings[name]
    model = settings.pop("model")
    if model is not None:  # the run's own model, which has moved
        settings["generator"] = options.moved(model)
    result = dissect_repair(run, layer=layers[0] if layers else None, quiet=quiet, **settings)
    return results.repair(result, run, quiet)


@main.command(section=TRAIN, epilog=examples("watch"))
@options.watch_options
@one_process
def watch(*, place: str, once: bool, out: Path | None, device: str, quiet: bool, **settings: Any) -> object:
    """Watch a training: measure each new checkpoint.

    Raises an alarm when diversity collapses, a class is lost or a checkerboard grows.
    """
    from .dissect.storage.files import safe_name
    from .dissect.watching import Watch, follow
    from .reports.watch import write_watch

    model, spec = options.split_model(settings)
    folder = out or Path("runs") / safe_name(f"{Path(place).name}-watch")
    fixed_device = None if device == "auto" else device
    watching = Watch(folder, page=lambda result: write_watch(result, live=not once), device=fixed_device, **settings)
    rows = follow(place, watching, model=model, options=spec, device=device, once=once, quiet=quiet)
    return results.watched(rows, watching, place, quiet)


@main.command(section=TRAIN, epilog=examples("fitness"))
@options.fitness_options
@one_process
def fitness(*, candidates: tuple[str, ...], quiet: bool, **settings: Any) -> object:
    """Compare models or checkpoints: which one to take?"""
    from .dissect.candidates import fitness as dissect_fitness
    from .dissect.candidates.checkpoint_files import spec_of

    model, spec = options.split_model(settings)
    specs = [spec_of(candidate, model, spec) for candidate in candidates]
    return results.fitness(dissect_fitness(specs, quiet=quiet, **settings), quiet)


@main.command(section=LOOK, epilog=examples("models"))
@click.option("--detail", metavar="NAME", help="Show the model card of one generator.")
@one_process
def models(*, detail: str | None, quiet: bool) -> object:
    """List pretrained generators.

    Shows the licence of each, and whether it is on this machine.
    """
    from .dissect.generators import zoo

    if not detail:
        return model_tables.show_rows(zoo.table(), "pixels", quiet, ("dissect", "inspect", zoo.EMBEDDED))
    from .dissect.generators.loading import layers_of

    text, layers = zoo.card(detail), layers_of(detail)
    if not quiet:
        click.echo(text)
        model_tables.show_layers(layers)
    return {"name": detail, "card": text, "layers": layers}


@main.command(section=LOOK, epilog=examples("segmenters"))
@one_process
def segmenters(*, quiet: bool) -> object:
    """List segmenters, the networks that name the class of each pixel."""
    from .segmenters import table

    return model_tables.show_rows(table(), "classes", quiet)


@main.command(section=LOOK, epilog=examples("inspect"))
@options.inspect_options
@one_process
def inspect(*, quiet: bool, **settings: Any) -> object:
    """Inspect a model: family, latents, layers.

    Shows the shapes of its layers, and suggests which ones to dissect.
    """
    from .dissect.subjects.inspection import inspect as dissect_inspect

    return results.inspection(dissect_inspect(quiet=quiet, **settings), settings["model"], quiet)


@main.group(section=LOOK, epilog=examples("latents"))
def latents() -> None:
    """Move through the latent space, as pictures and films."""


@latents.command(epilog=examples("latents interpolate"))
@options.interpolate_options
@one_process
def interpolate(**settings: Any) -> object:
    """Walk from sample to sample in a film."""
    return _explored("interpolate", **settings)


@latents.command(epilog=examples("latents arithmetic"))
@options.arithmetic_options
@one_process
def arithmetic(**settings: Any) -> object:
    """Add and subtract means of samples."""
    return _explored("arithmetic", **settings)


@latents.command(epilog=examples("latents mix"))
@options.mix_options
@one_process
def mix(**settings: Any) -> object:
    """Mix the styles of samples (StyleGANs)."""
    return _explored("mix", **settings)


@latents.command(epilog=examples("latents truncation"))
@options.truncation_options
@one_process
def truncation(**settings: Any) -> object:
    """Sweep the truncation ψ (StyleGANs and BigGANs)."""
    return _explored("truncation", **settings)


@latents.command(epilog=examples("latents directions"))
@options.directions_options
@one_process
def directions(**settings: Any) -> object:
    """Find directions, and measure which classes each one changes."""
    return _explored("directions", **settings)


@latents.command("path-length", epilog=examples("latents path-length"))
@options.path_length_options
@one_process
def path_length(**settings: Any) -> object:
    """Measure the perceptual path length."""
    return _explored("path-length", animation="webp", **settings)


def _explored(kind: str, *, model: Any, animation: str, quiet: bool, **settings: Any) -> object:
    """Explore the latents; the settings are those of `LatentOptions`, and where to do it."""
    from .dissect.latents.explore import explore
    from .dissect.latents.moves import LatentOptions

    where = {name: settings.pop(name) for name in ("seed", "out", "batch_size", "device")}
    result = explore(kind, model, LatentOptions(**settings), animation=animation, quiet=quiet, **where)
    return results.explored(result, quiet)


@main.command(section=LOOK, epilog=examples("scenes"))
@options.scenes_options
@one_process
def scenes(*, n: int, out: Path, side: int, seed: int, quiet: bool) -> object:
    """Draw a labelled data set of procedural church scenes."""
    from .dissect.scenes.export import export

    export(n, out, side=side, seed=seed, quiet=quiet)
    if not quiet:
        click.echo(out)
    return {"folder": out, "images": n}


@main.command(section=LOOK, epilog=examples("completion"))
@options.a_shell
def completion(*, shell: str) -> None:
    """Print a script that completes commands and options on Tab.

    Your shell must read it when it starts; see the examples.
    """
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(main, {}, "dissect", "_DISSECT_COMPLETE").source())


if __name__ == "__main__":
    main()
