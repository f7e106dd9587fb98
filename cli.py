"""The command `dissect`: parse, call, print paths. torch is not imported until a command runs."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .hooks.errors import DissectError, one_line

EXAMPLES = """
\b
Examples:
  dissect run --model progan_scenes --layer 4
  dissect run --model progan_church --layer 4 --segmenter hub:./segformer-ade20k
  dissect run --model mynet:make --weights g.pt --latent normal:128 --layer up3 --segmenter scenes
  dissect models --detail progan_scenes
  dissect scenes --n 1000 --out scenes
"""

screen = Console(stderr=True)


def _common(command: Callable[..., object]) -> Callable[..., None]:
    """Give a command --debug, --quiet and --json; print its result or its one-line error.

    The command gets `quiet` and returns what --json prints.
    """

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.option("--quiet", is_flag=True, help="No progress bars and tables.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and nothing else.")
    @functools.wraps(command)
    def wrapped(*, debug: bool, quiet: bool, as_json: bool, **options: Any) -> None:
        try:
            result = command(quiet=quiet or as_json, **options)
        except KeyboardInterrupt:
            if debug:
                raise
            _fail("Interrupted. A dissection goes on where it stopped: run the same command again.", 130)
        except DissectError as error:
            if debug:
                raise
            _fail(" ".join(str(error).split()), error.exit_code)
        except Exception as error:
            if debug:
                raise
            _fail(f"{one_line(error)} (--debug shows where)", 1)
        if as_json:
            click.echo(json.dumps(result, indent=2, default=str, allow_nan=False))

    return wrapped


def _fail(message: str, code: int) -> None:
    click.echo(f"dissect: {message}", err=True)
    sys.exit(code)


class _OneLine(click.Group):
    """Shows click's own complaints in one line, as all others."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **(options | {"standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "dissect"
            _fail(f"{' '.join(error.format_message().split())} See: {command} --help", error.exit_code)
        except click.Abort:
            _fail("Interrupted.", 130)


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group("dissect", cls=_OneLine, epilog=EXAMPLES, context_settings=SETTINGS)
@click.version_option(package_name="ganatomy", prog_name="dissect")
def main() -> None:
    """Open a generator: see what its units draw."""


@main.command(
    epilog="""
\b
Examples:
  dissect run --model progan_scenes --layer 4
  dissect run --model progan_scenes --layer 4 --layer 6 --samples 2000 --out runs/both
  dissect run --model generator.pth --layer layer7 --segmenter hub:smp-hub/segformer-b3-512x512-ade-160k
  dissect run --model mynet:make --weights g.pt --latent normal:128 --layer up3 --segmenter scenes
"""
)
@click.option("--model", required=True, help="A name from `dissect models`, a checkpoint, or package.module:factory.")
@click.option("--layer", "layers", multiple=True, required=True, help="Number (4 = layer4) or name; repeatable.")
@click.option("--segmenter", help="A spec from `dissect segmenters`.  [default: the model's own]")
@click.option("--weights", help="Checkpoint for package.module:factory.")
@click.option("--latent", help="Latent of package.module:factory, e.g. normal:128.")
@click.option("--samples", default=1000, show_default=True, help="Images: even ones choose labels, odd ones score.")
@click.option("--threshold", default="iqr", show_default=True, help="Rule: iqr (2019) or quantile (2020).")
@click.option("--quantile", default=0.01, show_default=True, help="Share of pixels above it under the quantile rule.")
@click.option("--grid", default=64, show_default=True, help="Side of the grid where units and labels meet.")
@click.option("--seed", default=0, show_default=True, help="Seed of the latents.")
@click.option("--batch-size", type=int, help="[default: by device; halved when memory runs out]")
@click.option("--device", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/MODEL-LAYERS]")
@click.option("--keep-spool", is_flag=True, help="Keep the featuremaps when done.")
@click.option("--spool-limit", default=20.0, show_default=True, help="Refuse to fill more disk than this, in GB.")
@click.option("--no-report", is_flag=True, help="Tables only, no pages.")
@_common
def run(*, quiet: bool, no_report: bool, spool_limit: float, **options: Any) -> dict[str, object]:
    """Dissect layers: which units draw which classes."""
    from .dissect.pipeline import run as dissect_run

    found = dissect_run(spool_limit=spool_limit * 1e9, quiet=quiet, **options)
    page = None
    if not no_report:
        from .reports.pages import write_report

        page = write_report(found)
    summary = found.summary()
    if not quiet:
        _show_run(found, summary)
        click.echo(page or found.folder / "units.csv")
    return {
        "folder": found.folder,
        "report": page,
        "layers": summary.astype(object).where(summary.notna(), None).to_dict("records"),
    }


def _show_run(found: Any, summary: Any) -> None:
    config = found.info["config"]
    table = _table(
        f"{config['model']}: {config['samples']} samples", "layer*", "units", "labelled", "classes", "mean IoU"
    )
    for row in summary.itertuples():
        share = f"{row.labelled} ({row.labelled / row.units:.0%})"
        mean = f"{row.mean_iou:.3f}" if row.labelled else "–"
        table.add_row(escape(row.layer), str(row.units), share, str(row.classes), mean)
    screen.print(table)
    best = found.units[found.units.labelled].nlargest(8, "iou")
    if len(best):
        table = _table("Best units", "layer*", "unit", "label*", "IoU", "chance", "IQR")
        for row in best.itertuples():
            numbers = (f"{number:.3f}" for number in (row.iou, row.chance_iou, row.iqr))
            table.add_row(escape(row.layer), str(row.unit), escape(row.label), *numbers)
        screen.print(table)
        screen.print("[dim]IoU: overlap with the label's class; chance: IoU of an unrelated mask of the same size.")
    odd = found.units[found.units.state != "ok"]
    for (layer, state), units in odd.groupby(["layer", "state"]).unit:
        more = ", …" if len(units) > 12 else ""
        screen.print(
            f"[yellow]{escape(layer)}: {len(units)} units {state}: {', '.join(map(str, units.head(12)))}{more}"
        )


def _table(title: str, *columns: str) -> Table:
    """A table whose columns marked * are text, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.rstrip("*"), justify="left" if name.endswith("*") else "right")
    return table


@main.command(epilog="\b\nExample:\n  dissect report runs/progan_scenes-layer4")
@click.argument("run", type=click.Path(path_type=Path))
@_common
def report(*, run: Path, quiet: bool) -> dict[str, object]:
    """Write the pages of a finished RUN again."""
    from .dissect.store import Dissection
    from .reports.pages import write_report

    page = write_report(Dissection.load(run))
    if not quiet:
        click.echo(page)
    return {"report": page}


@main.command(epilog="\b\nExamples:\n  dissect models\n  dissect models --detail progan_scenes")
@click.option("--detail", metavar="NAME", help="The model card of one.")
@_common
def models(*, detail: str | None, quiet: bool) -> object:
    """List pretrained generators: where they come from, licence, whether they are on this machine."""
    from .dissect.generators import zoo

    if not detail:
        return _list(zoo.table(), "{} pixels", quiet)
    text, layers = zoo.card(detail), {}
    if zoo.place(zoo.MODELS[detail]).is_file():
        from .hooks.layers import layer_shapes

        generator = zoo.load_generator(detail)
        shapes = layer_shapes(generator.module, lambda: generator(generator.latents([0])))
        layers = {shape.name: shape.shape for shape in shapes if shape.name in generator.layers}
    if not quiet:
        click.echo(text)
        if layers:
            table = _table("Layers", "layer*", "number", "units", "height", "width")
            for number, (name, shape) in enumerate(layers.items(), 1):
                table.add_row(name, str(number), *map(str, shape or ()))
            Console().print(table)
    return {"name": detail, "card": text, "layers": layers}


@main.command(epilog="\b\nExample:\n  dissect segmenters")
@_common
def segmenters(*, quiet: bool) -> object:
    """List segmenters: what names the pixels."""
    from .segmenters import table

    return _list(table(), "{} classes", quiet)


def _list(rows: list[Any], size: str, quiet: bool) -> list[dict[str, object]]:
    """Print a line for each row and, dimmed, where it comes from; names are never cut short."""
    records = [asdict(row) for row in rows]
    if not quiet:
        console = Console(soft_wrap=True, highlight=False)
        for record in records:
            name, title, number, origin, licence, here = record.values()
            where = "[green]here[/]" if here else "[yellow]to fetch[/]"
            console.print(f"[bold]{escape(name)}[/]  {where}  {escape(title)}, {size.format(number)}")
            console.print(f"    [dim]{escape(origin)}; {escape(licence)}")
    return records


@main.command(epilog="\b\nExample:\n  dissect scenes --n 1000 --out scenes")
@click.option("--n", default=1000, show_default=True, help="How many scenes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder: images/, masks/, classes.csv.")
@click.option("--side", default=64, show_default=True, help="Image side in pixels.")
@click.option("--seed", default=0, show_default=True)
@_common
def scenes(*, n: int, out: Path, side: int, seed: int, quiet: bool) -> dict[str, object]:
    """Draw a labelled data set of procedural church scenes."""
    from .dissect.scenes.export import export

    export(n, out, side=side, seed=seed, quiet=quiet)
    if not quiet:
        click.echo(out)
    return {"folder": out, "images": n}


if __name__ == "__main__":
    main()
