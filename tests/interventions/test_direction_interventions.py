"""Ablation, insertion and scan of directions, on generators in which a direction draws a class and no unit does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator, NormalLatents
from ganatomy.dissect.causes.first_order import Change, Estimator
from ganatomy.dissect.interventions.areas import Variants
from ganatomy.dissect.interventions.unit_choice import level_value, typical_high, unit_statistics
from ganatomy.dissect.scoring.layer_basis import random_rotation
from ganatomy.dissect.subjects.subject import Subject
from ganatomy.hooks.errors import UsageError
from ganatomy.reports.pages import write_report

from ..causes.test_first_order import PAIRS, WIDTH, Channels, Linear, generator
from ..conftest import GREEN, RED, UNITS, Do, Planted, Soft, Squares

TURN = random_rotation(UNITS, 5)


class Turn(nn.Module):
    """Each unit of the result is a mix of all units of Squares, whose maps are the readings of the rows of TURN."""

    def __init__(self) -> None:
        super().__init__()
        self.squares = Squares()

    def forward(self, latents: Tensor) -> Tensor:
        return torch.einsum("ku,nkhw->nuhw", TURN, self.squares(latents))


@pytest.fixture
def turned() -> Generator:
    module = Planted().requires_grad_(False)
    module.paint = Turn()
    module.colour.weight.copy_(torch.einsum("ckhw,ku->cuhw", module.colour.weight, TURN))
    return Generator(
        module=module, name="turned", source=NormalLatents((6,)), layers=("paint", "colour"), output_range=(0, 1)
    )


def dissected(model: Generator, rows: Tensor, folder: Path) -> Dissection:
    folder.mkdir()
    save_file({"paint": rows.contiguous()}, folder / "rows.safetensors")
    return dissect.run(
        model,
        layers=["paint"],
        segmenter=Soft(),
        samples=120,
        basis=str(folder / "rows.safetensors"),
        out=folder / "run",
        quiet=True,
    )


@pytest.fixture
def run_of_directions(turned: Generator, tmp_path: Path) -> Dissection:
    return dissected(turned, TURN, tmp_path / "turned")


@pytest.fixture
def change(turned: Generator, run_of_directions: Dissection) -> Callable[[str], Do]:
    def named(kind: str) -> Do:
        def call(**options: object) -> dissect.Effects:
            usual = {"generator": turned, "segmenter": Soft(), "samples": 24, "quiet": True}
            effects: dissect.Effects = getattr(dissect, kind)(run_of_directions, **(usual | options))
            return effects

        return call

    return named


@pytest.mark.parametrize("how", [{"by": "iou"}, {"by": "gradient"}, {"by": "scan"}, {"optimize": True}], ids=str)
def test_ablating_the_direction_that_draws_a_class_removes_it(
    change: Callable[[str], Do], how: dict[str, object]
) -> None:
    effects = change("ablate")(label="red", top=1, random_sets=3, **how)
    assert effects.info["units"] == [RED]
    assert effects.info["noun"] == effects.noun == "direction"
    assert effects["red"].after == 0
    assert effects["green"].after == effects["green"].before == pytest.approx(4 / 64)
    others = effects.sets[effects.sets.set.isin(["random", "matched"])]
    assert len(others) == 6
    assert (others.change_pp == 0).all()
    assert "1 direction of paint ablated for red" in effects._title()
    assert effects.pictures["before"].shape == effects.pictures["after"].shape


def test_directions_are_chosen_in_two_steps(change: Callable[[str], Do]) -> None:
    effects = change("ablate")(label="green", top=3, by="gradient", random_sets=0)
    assert effects.info["units"][0] == GREEN
    assert effects.units.estimate[0] < 0
    assert effects["green"].after == 0


def test_no_unit_draws_the_class(turned: Generator, tmp_path: Path) -> None:
    units = dissect.ablate(
        turned, units="paint:3,7,20", label="red", segmenter=Soft(), samples=16, random_sets=0, quiet=True
    )
    assert abs(units["red"].relative) < 1


def test_inserting_a_direction_adds_its_class_in_the_chosen_cell_only(change: Callable[[str], Do]) -> None:
    effects = change("insert")(units=[GREEN], label="green", value=1.0, where="0.06,0.94", random_sets=0)
    assert effects["green"].change_pp == pytest.approx(100 / 64)
    assert effects["red"].change_pp == 0
    changed = (effects.pictures["before"] != effects.pictures["after"]).any(-1)
    assert changed.any()
    assert (changed <= effects.pictures["place"]).all()
    grid = change("insert")(label="green", top=1, samples=6, random_sets=2)
    assert grid.info["units"] == [GREEN]
    assert 0.5 < grid.units.value[0] <= 1
    assert grid["green"].change_pp == pytest.approx(100 / 64 * (64 - 8) / 64)


def test_values_are_those_of_the_readings(turned: Generator, run_of_directions: Dissection) -> None:
    run, squares = run_of_directions, Squares()(turned.latents(range(40)))
    subject = Subject.open(turned, Soft(), "paint", 7, torch.from_numpy(run.directions("paint")))
    assert (subject.width, subject.noun) == (UNITS, "direction")
    mean, rms = unit_statistics(subject, range(40))
    torch.testing.assert_close(mean, squares.mean((0, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(rms, squares.square().mean((0, 2, 3)).sqrt(), atol=1e-5, rtol=0)
    planted = Generator(
        module=Planted(), name="p", source=NormalLatents((6,)), layers=("paint", "colour"), output_range=(0, 1)
    )
    of_units = Subject.open(planted, Soft(), "paint", 7)
    high = typical_high(subject, run, 0, range(40))
    torch.testing.assert_close(high, typical_high(of_units, run, 0, range(40)), atol=1e-3, rtol=0)
    assert level_value(run, "paint", 0.01)[0].shape == (UNITS,)


def test_the_units_as_directions_give_the_tables_of_the_units(
    planted: Generator, do: Callable[[str], Do], tmp_path: Path
) -> None:
    run = dissected(planted, torch.eye(UNITS), tmp_path / "same")
    for kind, options in (
        ("ablate", {"label": "red", "top": 3, "curve": True}),
        ("ablate", {"units": [RED], "label": "red", "value": "resample"}),
        ("insert", {"label": "green", "top": 2, "value": 1.0, "samples": 8}),
    ):
        mine = getattr(dissect, kind)(
            run, **({"generator": planted, "segmenter": Soft(), "samples": 24, "quiet": True} | options)
        )
        units = do(kind)(**options)
        assert mine.info["units"] == units.info["units"]
        for name in ("table", "sets", "curve", "context"):
            if (table := getattr(units, name)) is not None:
                pd.testing.assert_frame_equal(getattr(mine, name), table, rtol=1e-9)


def test_the_scan_of_directions_ranks_the_one_that_draws_first(
    turned: Generator, run_of_directions: Dissection
) -> None:
    scan = dissect.scan(run_of_directions, label="red", samples=16, generator=turned, segmenter=Soft(), quiet=True)
    assert scan.table.unit[0] == RED
    assert scan.table.change_pp[0] == pytest.approx(-100 * 4 / 64)
    assert np.abs(scan.table.change_pp[1:].dropna()).max() < 1e-9


def test_messages_and_the_page_speak_of_directions(run_of_directions: Dissection, change: Callable[[str], Do]) -> None:
    with pytest.raises(UsageError, match=r"'paint' has directions 0 to 39; asked for 40"):
        change("ablate")(units=[40])
    with pytest.raises(UsageError, match=r"top=41: paint has 40 directions"):
        change("ablate")(label="red", top=41)
    with pytest.raises(UsageError, match=r"No direction of paint is labelled 'yellow'.*directions by"):
        change("insert")(label="yellow", by="iou")
    with pytest.raises(UsageError, match=r"best directions"):
        change("ablate")()
    change("ablate")(units=[RED, GREEN], label="red", curve=True)
    page = write_report(run_of_directions, quiet=True).read_text(encoding="utf-8")
    assert "2 directions" in page
    assert "How many directions?" in page
    assert "the units were" not in page


@pytest.mark.parametrize("value", [None, torch.linspace(-1, 1, 3)], ids=["ablate", "insert"])
@pytest.mark.parametrize("placed", [False, True])
def test_where_a_network_is_linear_the_estimate_is_the_effect(value: Tensor | None, placed: bool) -> None:
    subject = generator(Linear())
    subject.module.paint.weight.data *= 20  # effects far above the rounding of float32
    directions = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(4))  # of any length
    place = torch.rand(8, 8, generator=torch.Generator().manual_seed(6)) if placed else None
    estimator = Estimator(
        generator=subject,
        segmenter=Channels(),
        layers={"low": Change(value=value, directions=directions, place=place)},
    )
    estimate = estimator(PAIRS)["low"]
    variants = Variants(
        weight=torch.eye(3)[:, None],
        value=torch.zeros(3) if value is None else value,
        place=None if place is None else place[None, None],
        directions=directions,
    )
    latents, classes = subject.latents(PAIRS.samples), torch.tensor(PAIRS.classes)[:, None]
    rows = slice(0, len(PAIRS))
    for k in range(3):
        with torch.no_grad():
            before = subject(latents).mean((2, 3))
            handle = subject.module.low.register_forward_hook(
                lambda _m, _i, out, k=k: variants.apply(out, None, slice(k, k + 1), rows)
            )
            after = subject(latents).mean((2, 3))
            handle.remove()
        effect = (after - before).gather(1, classes)[:, 0]
        assert effect.abs().max() > 1e-3
        torch.testing.assert_close(estimate[:, k], effect, atol=1e-5, rtol=0)
