"""A scan that verifies by need, on planted generators: where first order is right, and where it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator, NormalLatents
from ganatomy.dissect.interventions import ablated_sets
from ganatomy.dissect.interventions.areas import Variants, measure
from ganatomy.dissect.interventions.by_need import bound_of_rest, random_groups, strongest, verify
from ganatomy.dissect.subjects.subject import Subject
from ganatomy.hooks.errors import UsageError

from ..conftest import ColourSegmenter, Soft

UNITS, SIDE = 96, 16
RED = 64  # the units up to this one draw red, the others green
TWINS = (60, 61)
HIDDEN = (60, 61, 62)  # large red units whose effect no gradient tells, where a test says so

Painted = Callable[[Tensor], Tensor]


def linear(a: Tensor) -> Tensor:
    """What a unit paints is what it outputs."""
    return a


def beyond_threshold(a: Tensor) -> Tensor:
    """The hidden units paint beyond a threshold: their gradient is zero everywhere."""
    return torch.cat([a[:, : HIDDEN[0]], (a[:, HIDDEN[0] : RED] > 0.5).to(a), a[:, RED:]], 1)


def saturated(a: Tensor) -> Tensor:
    """The hidden units paint 1 − relu(1 − 2a): where they are 1, the relu is dead."""
    return torch.cat([a[:, : HIDDEN[0]], 1 - (1 - 2 * a[:, HIDDEN[0] : RED]).relu(), a[:, RED:]], 1)


def either(a: Tensor) -> Tensor:
    """The twins, which have the same cells, stand in for each other: each paints what the other paints."""
    first, second = TWINS
    both = torch.maximum(a[:, first], a[:, second])[:, None]
    return torch.cat([a[:, :first], both, torch.zeros_like(both), a[:, second + 1 :]], 1)


class Cells(nn.Module):
    """latents (N, 96) -> maps (N, 96, 16, 16): each unit is 1 on cells of its own, in half of the images.

    twins: units that have the same cells in the same images.
    """

    def __init__(self, twins: tuple[int, int] | None) -> None:
        super().__init__()
        self.drawn_by = list(range(UNITS))
        if twins:
            self.drawn_by[twins[1]] = twins[0]
        owner = np.random.default_rng(0).choice(UNITS, SIDE * SIDE, p=_sizes() / _sizes().sum())
        self.register_buffer("own", torch.from_numpy(owner.reshape(SIDE, SIDE) == np.arange(UNITS)[:, None, None]))

    def forward(self, latents: Tensor) -> Tensor:
        return ((latents > 0).float()[:, :, None, None] * self.own)[:, self.drawn_by]


def _sizes() -> np.ndarray:
    """(96,) how many cells a unit has, about: the hidden ones most."""
    sizes = np.linspace(1, 4, UNITS)
    sizes[list(HIDDEN)] = 12
    return sizes


class Mosaic(nn.Module):
    """Red and green cells; `painted` says what a unit paints where it outputs a."""

    def __init__(self, painted: Painted) -> None:
        super().__init__()
        self.paint, self.painted = Cells(TWINS if painted is either else None), painted

    def forward(self, latents: Tensor) -> Tensor:
        shown = self.painted(self.paint(latents))
        red, green = shown[:, :RED].sum(1), shown[:, RED:].sum(1)
        return torch.stack([red, green, torch.zeros_like(red)], 1)


@dataclass
class Case:
    """A generator with a run of it."""

    generator: Generator
    run: Dissection

    def scan(self, label: str = "red", **options: Any) -> dissect.Scan:
        usual = {"top": 6, "samples": 24, "generator": self.generator, "segmenter": Soft(), "quiet": True}
        return dissect.scan(self.run, label=label, **(usual | options))

    def alone(self, samples: int = 24) -> np.ndarray:
        """(U, N, C + 1), what ablating each unit adds, without any scan."""
        subject = Subject.open(self.generator, Soft(), "paint")
        each = Variants(weight=torch.eye(UNITS)[:, None], value=torch.zeros(UNITS))
        return measure(subject, range(samples), each).difference


@pytest.fixture
def case(tmp_path: Path) -> Callable[[Painted], Case]:
    def planted(painted: Painted) -> Case:
        generator = Generator(
            module=Mosaic(painted),
            name="mosaic",
            source=NormalLatents((UNITS,)),
            layers=("paint",),
            output_range=(0, 1),
        )
        options = {"samples": 40, "significance": "off", "quiet": True}
        run = dissect.run(generator, layers=["paint"], segmenter=Soft(), out=tmp_path / painted.__name__, **options)
        return Case(generator, run)

    return planted


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sets each measurement ablates."""
    counts: list[int] = []

    def counting(subject: Subject, samples: Any, variants: Variants, **options: Any) -> Any:
        counts.append(len(variants))
        return measure(subject, samples, variants, **options)

    monkeypatch.setattr(ablated_sets, "measure", counting)
    return counts


def test_where_effects_are_linear_the_estimate_is_exact_and_few_units_are_ablated(
    case: Callable[[Painted], Case], counted: list[int]
) -> None:
    mosaic = case(linear)
    scan = mosaic.scan()
    table, info, exact = scan.table, scan.info, mosaic.alone()
    by_unit = table.set_index("unit")
    assert by_unit.estimate.sort_index().to_numpy() == pytest.approx(100 * exact[:, :, 0].mean(1), abs=1e-5)
    assert sum(counted) < UNITS / 2
    assert info["verified"] == table.verified.sum() == 6 + 10 + 3
    strong = np.lexsort([np.arange(UNITS), exact[:, :, 0].mean(1)])[:6]
    assert table.unit[:6].tolist() == strong.tolist()
    verified = table[table.verified]
    for k, name in enumerate(("red", "green", "blue", "yellow", "unlabelled")):
        assert verified[f"pp:{name}"].to_numpy() == pytest.approx(100 * exact[verified.unit, :, k].mean(1), abs=1e-5)
    assert info["agreement"] == pytest.approx(1, abs=1e-3)
    assert not info["exact"]
    assert info["bound"] <= -table.change_pp[5]
    assert info["certain"] == 6
    assert scan.caution == ""


def test_the_order_is_by_effect_and_then_by_estimate(case: Callable[[Painted], Case]) -> None:
    table = case(linear).scan().table
    known = table.verified.to_numpy()
    assert (np.diff(known.astype(int)) <= 0).all()
    assert (np.diff(table.change_pp[known]) >= 0).all()
    assert (np.diff(table.estimate[~known]) >= 0).all()
    assert table.loc[~known, ["change_pp", "low", "high", "q_value", "causal_rank", "pp:green"]].isna().to_numpy().all()
    assert not table.changed[~known].any()
    assert (table.estimate_low <= table.estimate).all()
    assert (table.estimate <= table.estimate_high).all()


@pytest.mark.parametrize("painted", [beyond_threshold, saturated])
def test_units_that_no_gradient_tells_are_noticed(case: Callable[[Painted], Case], painted: Painted) -> None:
    mosaic = case(painted)
    scan = mosaic.scan()
    by_unit = scan.table.set_index("unit")
    hidden = by_unit.loc[list(HIDDEN)]
    assert (hidden.estimate == 0).all()
    missed = hidden[~hidden.verified]
    assert len(missed)  # else the scan would have nothing to notice
    exact = 100 * mosaic.alone()[:, :, 0].mean(1)
    assert scan.info["bound"] >= -exact[missed.index].min() > -scan.table.change_pp[5]
    assert scan.info["certain"] < 2
    assert "--exact" in scan.caution
    everything = mosaic.scan(exact=True)
    assert everything.table.unit[:3].tolist() == sorted(HIDDEN, key=lambda unit: exact[unit])
    assert everything.caution == ""
    assert everything.info["agreement"] < 1


def test_units_that_stand_in_for_each_other_are_estimated_and_found_without_effect(
    case: Callable[[Painted], Case],
) -> None:
    table = case(either).scan(top=20).table.set_index("unit")
    twins = table.loc[list(TWINS)]
    assert (twins.estimate < -0.5).all()  # half of what both remove together
    assert twins.verified.all()
    assert (twins.change_pp == 0).all()
    assert not set(TWINS) & set(table.index[:20])


def test_a_second_class_ablates_only_what_is_missing(case: Callable[[Painted], Case], counted: list[int]) -> None:
    mosaic = case(linear)
    mosaic.scan("red")
    first = sum(counted)
    counted.clear()
    again = mosaic.scan("red")
    assert counted == []
    known = set(again.table.unit[again.table.verified])
    green = mosaic.scan("green")
    assert known < set(green.table.unit[green.table.verified])
    assert green.table.unit[0] >= RED
    assert sum(counted) <= first
    reds = {"red": mosaic.scan("red").table, "again": again.table}
    assert set(reds["again"].unit[:6]) == set(reds["red"].unit[:6])


def test_exact_is_what_ablating_each_unit_does(case: Callable[[Painted], Case], counted: list[int]) -> None:
    mosaic = case(linear)
    scan = mosaic.scan(exact=True)
    assert counted == [UNITS]
    change = mosaic.alone().astype(np.float32).astype(np.float64)
    assert scan.info["exact"]
    assert scan.table.verified.all()
    assert scan.table.causal_rank.dtype.kind == "i"
    assert scan.table.set_index("unit").change_pp.sort_index().tolist() == (change[:, :, 0].T * 100).mean(0).tolist()


def test_a_scan_of_an_earlier_version_counts_as_exact(case: Callable[[Painted], Case], counted: list[int]) -> None:
    mosaic = case(linear)
    scan = mosaic.scan(exact=True)
    arrays = dict(np.load(scan.folder / "areas.npz"))
    np.savez(scan.folder / "areas.npz", before=arrays["before"], change=arrays["change"])
    new = [name for name in scan.table if name.startswith("estimate") or name == "verified"]
    scan.table.drop(columns=new).to_csv(scan.folder / "red.csv", index=False)
    counted.clear()
    kept = dissect.Scan.load(scan.folder / "red.json")
    assert kept.table.verified.all()
    assert kept.table.estimate.isna().all()
    assert mosaic.scan().info["exact"]
    assert mosaic.scan("green").info["exact"]
    assert counted == []


def test_batches_do_not_matter(case: Callable[[Painted], Case], tmp_path: Path) -> None:
    mosaic = case(linear)
    tables = []
    for batch in (1, 7, 64):
        scan = mosaic.scan(batch_size=batch)
        tables.append(scan.table)
        (scan.folder / "scan.json").unlink()
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-5)


def test_without_a_gradient_every_unit_is_ablated_and_the_reason_is_said(case: Callable[[Painted], Case]) -> None:
    mosaic = case(linear)
    hard = ColourSegmenter()
    hard.name = Soft.name
    scan = mosaic.scan(segmenter=hard)
    assert scan.info["exact"]
    assert "without probabilities" in scan.info["why_exact"]
    assert scan.table.estimate.isna().all()
    assert scan.info["agreement"] is None


def test_ablation_by_scan_takes_the_verified_units(case: Callable[[Painted], Case], counted: list[int]) -> None:
    mosaic = case(linear)
    options = {"by": "scan", "random_sets": 0, "samples": 8, "generator": mosaic.generator, "segmenter": Soft()}
    effects = dissect.ablate(mosaic.run, label="green", top=4, quiet=True, **options)
    exact = mosaic.alone(40)[:, :, 1].mean(1)
    assert effects.info["units"] == np.lexsort([np.arange(UNITS), exact])[:4].tolist()
    assert sum(counted) < UNITS


def test_top_must_be_positive(case: Callable[[Painted], Case]) -> None:
    with pytest.raises(UsageError, match=r"top=0: must be an integer of at least 1"):
        case(linear).scan(top=0)


def test_blocks_are_measured_until_one_adds_nothing() -> None:
    exact = np.zeros(200)
    exact[40:44] = [-9, -8, -7, -6]  # of the estimate's ranks 41 to 44
    exact[:30] = -np.arange(30, 0, -1) / 10
    units = verify(np.arange(200.0), lambda units: exact[units], 20)
    assert set(range(50)) >= set(units[30:])  # 20, 10 at random, then blocks of 10
    assert set(range(30)) <= set(units.tolist())
    assert strongest(units, exact[units], 20).tolist()[0] in (0, 40)


def test_a_unit_in_a_group_shows_as_an_excess() -> None:
    dice = np.random.default_rng(0)
    theta = -dice.random(60) * 0.01
    theta[17] = -0.2  # the estimate does not know it
    estimate = np.where(np.arange(60) == 17, 0, theta)[None].repeat(32, 0) + dice.normal(0, 1e-4, (32, 60))
    members = random_groups(np.arange(60), 60)
    assert (members.sum(0) == 1).all()
    together = (members @ theta)[:, None].repeat(32, 1) + dice.normal(0, 1e-4, (len(members), 32))
    bound = bound_of_rest(members, together, estimate)
    assert 0.2 <= bound.bound <= bound.high < 0.22
    without = bound_of_rest(members, members @ np.where(np.arange(60) == 17, 0, theta)[:, None].repeat(32, 1), estimate)
    assert without.high < 0.011
