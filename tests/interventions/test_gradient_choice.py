"""Units chosen by first-order effects, on the planted generator, and which criterion is taken where none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator, NormalLatents
from ganatomy.dissect.causes.first_order import Change
from ganatomy.dissect.causes.table import Draw
from ganatomy.dissect.interventions.gradient_choice import Trial
from ganatomy.dissect.subjects.subject import Subject
from ganatomy.hooks.errors import UsageError

from ..conftest import GREEN, RED, UNITS, ColourSegmenter, Do, Soft


def test_the_gradient_is_the_default_and_chooses_the_unit(do: Callable[[str], Do]) -> None:
    effects = do("ablate")(label="red", top=1, random_sets=0)
    assert effects.info["config"]["by"] == "gradient"
    assert effects.info["units"] == [RED]
    estimate = effects.units.iloc[0]
    assert estimate.estimate == pytest.approx(-100 * 4 / 64, rel=1e-3)  # the effect itself: red is linear in its unit
    assert estimate.estimate_low <= estimate.estimate <= estimate.estimate_high
    assert effects["red"].change_pp == pytest.approx(estimate.estimate, rel=1e-3)
    assert effects.info["name"] == "ablate-red-paint-top1"
    assert "chosen_because" not in effects.info


@pytest.mark.parametrize("by", ["iou", "scan"])
def test_another_criterion_has_a_name_of_its_own(do: Callable[[str], Do], by: str) -> None:
    effects = do("ablate")(label="red", top=1, random_sets=0, by=by)
    assert effects.info["name"] == f"ablate-red-paint-top1-by-{by}"
    assert "estimate" not in effects.units


@pytest.mark.parametrize("where", ["0.06,0.94", "grid"])
def test_insertion_takes_what_adds_most_in_the_place(do: Callable[[str], Do], where: str) -> None:
    effects = do("insert")(label="green", top=1, value=1.0, where=where, random_sets=0, samples=8)
    assert effects.info["units"] == [GREEN]
    cells = 64 - 8 if where == "grid" else 1  # all cells but the green and the red ones; of a place, its one
    assert effects.units.estimate[0] == pytest.approx(100 * cells / 64, rel=1e-3)


def test_insertion_where_nothing_helps_is_estimated_so(do: Callable[[str], Do]) -> None:
    effects = do("insert")(label="green", top=1, value=1.0, where="class:red", random_sets=0, samples=8)
    assert effects.units.estimate[0] == 0  # green is green · (1 − red)


def test_without_a_gradient_a_scan_or_iou_chooses_and_the_reason_is_said(
    planted: Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hard = ColourSegmenter()
    run = dissect.run(planted, layers=[1], segmenter=hard, samples=60, out=tmp_path / "hard", quiet=True)

    def ablate(**options: Any) -> dissect.Effects:
        usual: dict[str, Any] = {
            "generator": planted,
            "segmenter": hard,
            "samples": 8,
            "random_sets": 0,
            "label": "red",
            "top": 1,
        }
        return dissect.ablate(run, **(usual | options))

    capsys.readouterr()
    effects = ablate()
    assert effects.info["config"]["by"] == "iou"
    assert "colours returns labels without probabilities" in effects.info["chosen_because"]
    assert effects.info["chosen_because"] in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"by='?gradient'?.*colours returns labels"):
        ablate(by="gradient")
    dissect.scan(run, label="red", samples=5, generator=planted, segmenter=hard, quiet=True)
    assert ablate().info["config"]["by"] == "scan"


def test_named_units_need_no_criterion(do: Callable[[str], Do]) -> None:
    effects = do("ablate")(units=[RED], label="red", random_sets=0)
    assert effects.info["config"]["by"] == "iou"
    assert "estimate" not in effects.units


def test_resampled_units_are_chosen_by_their_mean(
    do: Callable[[str], Do], planted: Generator, found: Dissection
) -> None:
    effects = do("ablate")(label="red", top=2, value="resample", random_sets=0)
    assert effects.info["units"][0] == RED
    maps = planted.module.paint(planted.latents(range(120)))
    mean = float(maps[:, RED].mean())  # also where there was none, but for the four cells that are green
    assert effects.units.estimate[0] == pytest.approx(100 * (mean * 60 / 64 - 4 / 64), rel=1e-3)


def test_a_value_is_reached_from_where_a_unit_is() -> None:
    maps = torch.rand(2, UNITS, 8, 8)
    gradient = torch.rand(2, UNITS, 8, 8)
    change = Change(value=torch.full((UNITS,), 2.0)).effects(maps, gradient)
    expected = np.einsum("nuhw,nuhw->nu", 2 - maps.numpy(), gradient.numpy())
    np.testing.assert_allclose(change.numpy(), expected, rtol=1e-5)


class StandIn(nn.Module):
    """Red is the greater of units 0 and 1, and a tenth of unit 2: unit 1 does nothing until unit 0 is off."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.Identity()
        self.colour = nn.Identity()

    def forward(self, latents: Tensor) -> Tensor:
        level = torch.tensor([0.8, 0.6, 0.5, 0.0]) + 0.01 * latents[:, :1].sigmoid()
        maps = self.paint(level[:, :, None, None].expand(-1, -1, 4, 4).clone())
        red = torch.maximum(maps[:, :1], maps[:, 1:2]) + 0.1 * maps[:, 2:3]
        return self.colour(torch.cat([red, maps[:, 3:], maps[:, 3:]], 1))


@pytest.mark.parametrize(("stepwise", "units"), [(True, [0, 1]), (False, [0, 2])])
def test_units_that_stand_in_for_others_are_chosen_in_the_second_step(stepwise: bool, units: list[int]) -> None:
    generator = Generator(module=StandIn(), name="two", source=NormalLatents((2,)), output_range=(0, 1))
    subject = Subject.open(generator, Soft(), "paint")
    draw = Draw(samples=np.arange(6), weight=np.ones(6))
    trial = Trial(
        subject=subject,
        target=0,
        change=Change(value=torch.zeros(4)),
        draw=draw,
        sign=1,
        stepwise=stepwise,
    )
    chosen = trial.choose(2, lambda _: None)
    assert chosen.order[:2].tolist() == units
    assert sorted(chosen.order.tolist()) == [0, 1, 2, 3]
    if stepwise:
        assert chosen.effect[1] == pytest.approx(-60, abs=2)  # once unit 0 is off, unit 1 is all that is left
