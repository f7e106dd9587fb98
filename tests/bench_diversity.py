"""What an audit of diversity sees of generators that are sabotaged on purpose, and how often it sees what is not there.

    python -m tests.bench_diversity                    # about 20 minutes on two cores
    python -m tests.bench_diversity --early FOLDER     # keeps the young checkpoints there, or takes those that are

Prints one JSON line a trial, then tables in Markdown. The reference of a sabotaged generator is 1,000 images that the
same one draws, intact, of other latents: nothing but the sabotage should raise anything. Young checkpoints have 1,000
scenes. Every row is tried three times, with other latents of both. False alarms are counted on images that are all
drawn anew for every split: scenes against scenes, and an intact generator against itself.

A bottleneck is a hook, which a copy of the network keeps; so the untrained control here is made of the intact network.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from ganatomy.dissect import Generator, NormalLatents, load_generator, run
from ganatomy.dissect.diversity.audit import DEEP
from ganatomy.dissect.diversity.by_layer import depth_table, where_it_dies
from ganatomy.dissect.diversity.image_set import ImageSet, drawn, look, standard_of
from ganatomy.dissect.diversity.verdict import COLLAPSED, VARIED, Weighed, weigh
from ganatomy.dissect.diversity.whole_images import METRICS
from ganatomy.dissect.fidelity.features import SceneFeatures
from ganatomy.dissect.runtime.resources import at_work
from ganatomy.dissect.scenes.render import render
from ganatomy.dissect.subjects.untrained import untrained
from ganatomy.hooks import edited
from ganatomy.segmenters import Segmenter, load_segmenter

from .support.sabotage import FITTED, KINDS, Few, Squeezed, dropping, early, narrowed, units_against

Row = dict[str, Any]

REAL, IMAGES, TRIALS, BATCH = 1000, 500, 3, 25
SQUEEZED, FEW = (1, 0.98, 0.95, 0.9, 0.8, 0.6, 0.3, 0.1), (1000, 300, 100, 30, 10, 1)
CLASSES = ("tree", "dome", "door", "cloud")
DROPPED, SHARES = ("dome", "cloud"), (1, 0.5, 0.25)  # tree and door are in nearly every image
AGES = (5_000, 10_000, 20_000, 40_000)  # images shown to young checkpoints
GENERATORS = ("progan_scenes", "dcgan_scenes")
SMALL_SCENES = "scenes of 64 pixels"  # as the DCGANs draw
OTHERS, FITTING, SPLITS = 1000, 500, 2000  # added to seeds: of the reference, of what sabotage is chosen by, of splits
LEVEL = 0.05
LACKING = ("missing", "rarer", "smaller")  # verdicts of a suppressed class


@cache
def eyes() -> tuple[SceneFeatures, Segmenter]:
    """What looks at images."""
    return SceneFeatures(), load_segmenter("scenes")


def scenes(count: int, seed: int, side: int = 128) -> Iterator[Tensor]:
    """Batches of drawn scenes; `side` is that of the generated images beside which they are shown."""
    for start in range(0, count, 200):
        images, _ = render(range(start, min(start + 200, count)), side=side, seed=seed)
        yield torch.from_numpy(np.asarray(images, np.float32))


def seen(batches: Iterable[Tensor]) -> ImageSet:
    """A look at images."""
    return look(batches, *eyes(), "cpu")


@cache
def intact(name: str, count: int, seed: int) -> ImageSet:
    """Images of a generator, or `scenes`, or `scenes of 64 pixels`."""
    if name == SMALL_SCENES:
        return seen(scenes(count, seed, 64))
    return seen(scenes(count, seed) if name == "scenes" else drawn(load_generator(name, seed=seed), count, BATCH))


def weighed(made: ImageSet, real: ImageSet, seed: int) -> Weighed:
    """As `audit` weighs them."""
    standard = standard_of(eyes()[0], real)
    return weigh(made.standard(standard), real.standard(standard), eyes()[1].vocabulary.names, seed=seed)


def told(found: Weighed) -> Row:
    """What a weighing tells."""
    called = found.classes[found.classes.verdict != ""]
    whole = found.whole.set_index("metric")
    return {
        "verdict": found.verdict,
        "raised": list(found.whole.metric[found.whole.alarm]),
        "p": whole.p_value.to_dict(),
        "value": whole.value.to_dict(),
        "zero": whole.zero.to_dict(),
        "classes": [f"{name} {verdict}" for name, verdict in zip(called["class"], called.verdict, strict=True)],
        "pairs": int((found.pairs.q_value <= LEVEL).sum()),
        "twins": found.twins.pairs,
        "support": found.support["estimate"],
    }


def layer_named(generator: Generator, control: Generator) -> str | None:
    """Where diversity dies, as `audit` finds it."""
    tables = (depth_table(one, generator.layers, range(DEEP), BATCH) for one in (generator, control))
    return where_it_dies(*tables)


def audited(generator: Generator, reference: str, seed: int) -> Row:
    """What an audit tells of a generator."""
    found = weighed(seen(drawn(generator, IMAGES, BATCH)), intact(reference, REAL, seed + OTHERS), seed)
    dead = layer_named(generator, untrained(generator, seed, IMAGES)) if found.verdict == COLLAPSED else None
    return {**told(found), "layer": dead}


def latents(name: str) -> Iterator[Row]:
    """Squeezed latents, and few of them."""
    for seed in range(TRIALS):
        generator = load_generator(name, seed=seed)
        shape = generator.latents([0]).shape[1:]
        tried = [("squeezed", strength, Squeezed(shape, seed, strength=strength)) for strength in SQUEEZED]
        tried += [("few", number, Few(shape, seed, number=number)) for number in FEW]
        for sabotage, strength, source in tried:
            row = {"table": "sabotage", "generator": name, "sabotage": sabotage, "strength": strength, "seed": seed}
            yield {**row, **audited(replace(generator, source=source), name, seed)}


def suppressed(name: str) -> Iterator[Row]:
    """A class that is ablated."""
    namer = eyes()[1]
    with tempfile.TemporaryDirectory() as place:
        generator = load_generator(name, seed=FITTING)
        found = run(generator, layers=list(generator.layers), samples=500, out=Path(place) / "run", quiet=True)
        chosen = {label: units_against(generator, namer, found, label) for label in CLASSES}
    for label, by in chosen.items():
        for seed in range(TRIALS):
            generator = load_generator(name, seed=seed)
            row = {"table": "sabotage", "generator": name, "sabotage": f"without {label}", "strength": str(by)}
            with edited(generator.module, by.edit):
                yield {**row, "seed": seed, **audited(generator, name, seed)}


def dropped(name: str) -> Iterator[Row]:
    """Latents that show a class are passed over."""
    for label, share, seed in product(DROPPED, SHARES, range(TRIALS)):
        generator = load_generator(name, seed=seed)
        source = dropping(NormalLatents(generator.latents([0]).shape[1:], seed), generator, eyes()[1], label, share)
        row = {"table": "sabotage", "generator": name, "sabotage": f"without {label}", "seed": seed}
        row["strength"] = f"{share:.0%} of its latents passed over"
        yield {**row, **audited(replace(generator, source=source), name, seed)}


def young(folder: str | None) -> Iterator[Row]:
    """Checkpoints of a training that has hardly begun, and the embedded one; beside scenes."""
    with tempfile.TemporaryDirectory() as place:
        files = early(Path(folder or place), AGES)
        for model in (*files, "dcgan_scenes", "progan_scenes"):
            for seed in range(TRIALS):
                row = {"table": "sabotage", "generator": "a DCGAN", "sabotage": "young", "seed": seed}
                age = str(model) if isinstance(model, str) else int(model.stem)
                beside = "scenes" if model == "progan_scenes" else SMALL_SCENES
                yield {**row, "strength": age, **audited(load_generator(model, seed=seed), beside, seed)}


def bottleneck(name: str, layer: str | None) -> Iterator[Row]:
    """Behind a layer, or behind none; one trial is weighed, since that takes longest."""
    for seed in range(TRIALS):
        clean, fitting = (load_generator(name, seed=seed + more) for more in (0, FITTING))
        control = untrained(clean, seed, IMAGES)
        for kind in KINDS if layer else ("none",):
            row: Row = {"table": "bottleneck", "generator": name, "layer": layer, "kind": kind, "seed": seed}
            if layer is None:
                yield {**row, "named": layer_named(clean, control)}
                continue
            with narrowed(fitting, layer, kind, range(FITTED)):
                generator = replace(fitting, source=clean.source)
                row["named"] = layer_named(generator, control)
                if seed == 0:
                    made = seen(drawn(generator, IMAGES, BATCH))
                    row |= told(weighed(made, intact(name, REAL, OTHERS), seed))
            yield row


def splits(name: str, numbers: Sequence[int]) -> Iterator[Row]:
    """Images that are all alike but for chance, 500 weighed against 1,000 others."""
    for number in numbers:
        seed = SPLITS + 2 * number
        made, real = (intact.__wrapped__(name, *asked) for asked in ((IMAGES, seed), (REAL, seed + 1)))
        found = weighed(made, real, number)
        chances = {kind: found.classes[f"p_{kind}"].dropna().tolist() for kind in ("presence", "size")}
        chances["pairs"] = found.pairs.p_value.tolist()
        yield {"table": "splits", "of": name, "number": number, "chances": chances, **told(found)}


def performed(job: Callable[[], Iterator[Row]]) -> list[Row]:
    """All rows of a job."""
    with at_work(), torch.inference_mode():
        return list(job())


def rate(hits: int, tries: int) -> str:
    """A count with the exact 95 % interval of its rate (Clopper and Pearson 1934)."""
    low, high = stats.binomtest(hits, tries).proportion_ci(0.95, "exact")
    return f"{hits} of {tries} = {hits / tries:.1%} ({low:.1%} to {high:.1%})"


def counted(values: Iterable[Any]) -> str:
    """How often each value was met."""
    found = Counter(map(str, values)).most_common()
    return found[0][0] if len(found) == 1 else ", ".join(f"{value} ×{number}" for value, number in found)


def sabotage_table(rows: Sequence[Row]) -> Iterator[Row]:
    """One row a sabotage: in how many trials each metric raised, and which classes were called in all of them."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["generator"], row["sabotage"], str(row["strength"])].append(row)
    for (generator, sabotage, strength), group in groups.items():
        found: Row = {"generator": generator, "sabotage": sabotage, "strength": strength, "trials": len(group)}
        found["verdict"] = counted(row["verdict"] for row in group)
        for metric in METRICS:
            found[metric] = sum(metric in row["raised"] for row in group) or ""
        always = [name for name in group[0]["classes"] if all(name in row["classes"] for row in group)]
        number = "/".join(str(len(row["classes"])) for row in group)
        found["classes called"] = f"{number}: {', '.join(always[:4])}{' …' if len(always) > 4 else ''}"
        if sabotage.startswith("without"):
            label = sabotage.removeprefix("without ")
            firsts = [(row["classes"] or ["none called"])[0] for row in group]
            right = sum(first in [f"{label} {verdict}" for verdict in LACKING] for first in firsts)
            found["first row"] = f"right in {right} of {len(group)}: {counted(firsts)}"
        found["layer named"] = counted(row["layer"] or "–" for row in group)
        yield found


def bottleneck_table(rows: Sequence[Row]) -> Iterator[Row]:
    """One row a generator and layer, one column a kind: hits, what was named instead, and the verdict."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["generator"], row["layer"] or "none", row["kind"]].append(row)
    for name, layer in dict.fromkeys((name, layer) for name, layer, _ in groups):
        found: Row = {"generator": name, "layer": layer}
        for kind in (*KINDS, "none"):
            group = groups.get((name, layer, kind), [])
            wrong = [row["named"] or "–" for row in group if row["named"] != row["layer"]]
            said = f"{len(group) - len(wrong)} of {len(group)}" + (f", {counted(wrong)}" if wrong else "")
            found[kind] = f"{said}; {group[0].get('verdict', '')}".rstrip("; ") if group else ""
        yield found
    for (name, kind), group in pd.DataFrame(rows).groupby(["generator", "kind"], sort=False):
        if kind != "none":
            yield {"generator": name, "layer": "all", kind: rate(int((group.named == group.layer).sum()), len(group))}


def splits_table(rows: Sequence[Row]) -> Iterator[Row]:
    """One row a kind of false alarm, and one a kind of p-value that should be at most 0.05 in one case of 20."""
    families = {name: [row for row in rows if row["of"] == name] for name in dict.fromkeys(row["of"] for row in rows)}
    alarms: dict[str, Callable[[Row], bool]] = {
        "any class called": lambda row: bool(row["classes"]),
        "any metric raised": lambda row: bool(row["raised"]),
        "any pair called": lambda row: row["pairs"] > 0,
        "not varied": lambda row: row["verdict"] != VARIED,
        "collapsed": lambda row: row["verdict"] == COLLAPSED,
    }
    for said, alarm in alarms.items():
        yield {"": said} | {name: rate(sum(map(alarm, group)), len(group)) for name, group in families.items()}
    for metric in METRICS:
        small = {name: [row["p"][metric] <= LEVEL for row in group] for name, group in families.items()}
        yield {"": f"p ≤ 0.05: {metric}"} | {name: rate(sum(values), len(values)) for name, values in small.items()}
    for kind in ("presence", "size", "pairs"):
        small = {name: [p <= LEVEL for row in group for p in row["chances"][kind]] for name, group in families.items()}
        share = {name: f"{np.mean(values):.1%} of {len(values)} tests" for name, values in small.items() if values}
        yield {"": f"p ≤ 0.05: {kind}"} | share


def markdown(rows: Iterable[Row]) -> str:
    """Rows as a table; what a row does not have is left empty."""
    table = pd.DataFrame(rows).fillna("").astype(str)
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@click.command(help="Measure.")
@click.option("--early", "folder", help="Folder of young checkpoints; what is missing there is trained.")
@click.option("--splits", "count", default=50, show_default=True, help="Splits without any sabotage, of each kind.")
@click.option("--processes", default=2, show_default=True, help="Of one thread each.")
def main(folder: str | None, count: int, processes: int) -> None:
    jobs: list[Callable[[], Iterator[Row]]] = [partial(young, folder)]
    jobs += [partial(what, name) for what in (latents, suppressed, dropped) for name in GENERATORS]
    for name in GENERATORS:
        jobs += [partial(bottleneck, name, layer) for layer in (None, *load_generator(name).layers)]
    jobs += [partial(splits, name, range(n, min(n + 5, count))) for n in range(0, count, 5) for name in FAMILIES]
    tables: defaultdict[str, list[Row]] = defaultdict(list)
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done in as_completed([pool.submit(performed, job) for job in jobs]):
            for row in done.result():
                click.echo(json.dumps(row))
                tables[row["table"]].append(row)
    for name, tabulated in TABLES.items():
        click.echo("\n" + markdown(tabulated(tables[name])))


FAMILIES = ("scenes", "progan_scenes")  # of splits
TABLES = {"sabotage": sabotage_table, "bottleneck": bottleneck_table, "splits": splits_table}


if __name__ == "__main__":
    main()
