"""Ablation, insertion and scan on a generator whose truth is planted: unit 3 paints red, unit 7 green."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator
from ganatomy.dissect.interventions.areas import Variants, measure
from ganatomy.dissect.subjects.subject import Subject
from ganatomy.hooks import Edit, edited
from ganatomy.hooks.errors import UsageError

from ..conftest import CONSTANT, GREEN, RED, UNITS, ColourSegmenter, Do, Soft

ABSENT = -1  # "unlabelled"


def test_units_are_found(found: Dissection) -> None:
    assert found.units.query("labelled").unit.tolist() == [RED, GREEN]
    assert found.units.label[[RED, GREEN]].tolist() == ["red", "green"]


def test_ablation_removes_exactly_its_class(do: Callable[[str], Do]) -> None:
    effects = do("ablate")(label="red", top=1)
    assert effects.info["units"] == [RED]
    red, green, black = effects["red"], effects["green"], effects["unlabelled"]
    assert red.before == pytest.approx(4 / 64)
    assert red.after == 0
    assert (red.relative, red.relative_low, red.relative_high) == (-1, -1, -1)
    assert red.change_pp == pytest.approx(-100 * 4 / 64)
    assert black.change_pp == pytest.approx(100 * 4 / 64)
    assert bool(red.changed)
    assert red.q_value < 0.01
    assert green.before == green.after == pytest.approx(4 / 64)
    assert not green.changed
    assert effects.info["on_target"]["on_target"] == 1
    assert np.isnan(effects["blue"].relative)


def test_random_sets_have_no_effect_and_never_hold_the_chosen(do: Callable[[str], Do]) -> None:
    effects = do("ablate")(units=[RED, GREEN], label="red", random_sets=4)
    others = effects.sets[effects.sets.set != "chosen"]
    assert sorted(others.set.unique()) == ["matched", "random"]
    assert len(others) == 8
    for members in others.members:
        units = [int(unit) for unit in members.split()]
        assert len(set(units)) == 2
        assert not {RED, GREEN} & set(units)
    assert (others.change_pp == 0).all()
    assert (others.changed_pixels == 0).all()
    red = effects["red"]
    assert (red.random_relative_min, red.random_relative_max, red.matched_relative) == (0, 0, 0)
    assert bool(red.beyond_random)
    assert not effects["blue"].beyond_random


def test_the_samples_were_not_used_to_choose(do: Callable[[str], Do]) -> None:
    info = do("ablate")(label="red", top=1).info
    assert info["samples"] == {"first": 120, "last": 143, "number": 24, "skipped": 0}
    assert info["chosen_on"] == {"first": 0, "last": 119}


@pytest.mark.parametrize("value", ["mean", "resample"])
def test_a_constant_unit_may_be_replaced_by_its_mean_or_another_sample(do: Callable[[str], Do], value: str) -> None:
    effects = do("ablate")(units=[CONSTANT], value=value, random_sets=0)
    assert effects.sets.changed_pixels.tolist() == [0]
    assert (effects.pictures["before"] == effects.pictures["after"]).all()


def test_mean_and_resample_take_what_they_say(do: Callable[[str], Do], planted: Generator) -> None:
    resampled = do("ablate")(units=[RED], label="red", value="resample", random_sets=0)
    assert resampled["red"].after == pytest.approx(4 / 64)  # another sample's square
    assert resampled.sets.changed_pixels[0] > 0
    mean = do("ablate")(units=[RED], label="red", value="mean", random_sets=0)
    maps = planted.module.paint(planted.latents(range(120)))
    assert mean.units.value[0] == pytest.approx(float(maps[:, RED].mean()))
    assert mean["red"].after == 0  # 1/16 of full red is none


def test_insertion_adds_at_the_asked_cell_only(do: Callable[[str], Do]) -> None:
    effects = do("insert")(units=[GREEN], label="green", value=1.0, where="0.06,0.94", random_sets=0)  # bottom left
    green = effects["green"]
    assert green.change_pp == pytest.approx(100 / 64)
    assert effects["red"].change_pp == 0
    place = effects.pictures["place"]
    assert place[0, 28:, :4].all()
    assert place.sum(axis=(1, 2)).tolist() == [16] * len(place)
    changed = (effects.pictures["before"] != effects.pictures["after"]).any(-1)
    assert (changed <= place).all()
    assert changed.any()


def test_the_default_value_is_what_the_unit_puts_out_in_its_class(do: Callable[[str], Do]) -> None:
    effects = do("insert")(label="green", top=1, where="0.06,0.94", random_sets=0)
    assert effects.info["units"] == [GREEN]
    assert 0.5 < effects.units.value[0] <= 1  # the square's, smoothed on the grid
    assert effects["green"].change_pp == pytest.approx(100 / 64)


def test_a_level_is_a_quantile_of_the_run(do: Callable[[str], Do], found: Dissection) -> None:
    effects = do("insert")(units=[GREEN], level=0.01, where="0.06,0.94", random_sets=0)
    nearest = int(np.abs(np.log(found.shares / 0.01)).argmin())
    assert effects.units.value[0] == pytest.approx(found.levels("paint")[GREEN, nearest])
    with pytest.raises(UsageError, match=r"level=0\.9: .*0\.001 and 0\.5"):
        do("insert")(units=[GREEN], level=0.9)


def test_the_grid_tries_each_cell_alone(do: Callable[[str], Do]) -> None:
    effects = do("insert")(units=[GREEN], label="green", value=1.0, samples=10, random_sets=3)
    context = effects.context
    assert context is not None
    table = context.set_index("class")
    assert table.places.sum() == 10 * 64
    assert table.places[["red", "green"]].tolist() == [40, 40]
    assert table.change_pp["green"] == 0  # already green
    assert table.change_pp["unlabelled"] == pytest.approx(100 / 64)
    assert table.cells["unlabelled"] == pytest.approx(1)
    assert table.change_pp["red"] == 0  # turns yellow
    assert (table.random_pp == 0).all()
    assert effects["green"].change_pp == pytest.approx(100 / 64 * (64 - 8) / 64)
    assert effects["yellow"].change_pp == pytest.approx(100 / 64 * 4 / 64)
    assert effects.sets.set.tolist() == ["chosen", *["random"] * 3, *["matched"] * 3]


def test_insertion_where_a_class_is(do: Callable[[str], Do]) -> None:
    effects = do("insert")(units=[GREEN], label="green", value=1.0, where="class:red", random_sets=0)
    assert effects["yellow"].change_pp == pytest.approx(100 * 4 / 64)
    assert effects["green"].change_pp == 0
    with pytest.raises(UsageError, match=r"class:blue.: none of 24 samples"):
        do("insert")(units=[GREEN], label="green", value=1.0, where="class:blue", random_sets=0)


def test_insertion_under_a_mask(do: Callable[[str], Do], tmp_path: Path) -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[:2, -4:] = 255  # one row and two columns of cells
    Image.fromarray(mask).save(tmp_path / "mask.png")
    effects = do("insert")(
        units=[RED], label="red", value=2.0, where=str(tmp_path / "mask.png"), random_sets=0, samples=8
    )
    assert effects.pictures["place"][0].sum() == 2 * 16
    assert effects["red"].change_pp + effects["yellow"].change_pp > 0


def test_a_change_of_nothing_is_bit_identical(planted: Generator) -> None:
    subject = Subject.open(planted, Soft(), "paint")
    x, latents = subject.featuremaps(range(7)), planted.latents(range(7))
    nothing = Variants(weight=torch.zeros(2, 1, UNITS), value=torch.full((UNITS,), 9.0))
    edited_maps = nothing.apply(x, None, slice(0, 2), slice(0, 7))
    assert torch.equal(edited_maps, torch.cat([x, x]))
    assert torch.equal(subject.draw(x, latents), planted(latents))
    areas = measure(subject, range(30), nothing)
    assert (areas.difference == 0).all()
    assert (areas.changed == 0).all()


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_batches_do_not_matter_and_areas_are_those_of_hooks(planted: Generator, batch: int) -> None:
    subject = Subject.open(planted, Soft(), "paint", batch)
    weight = torch.zeros(3, 1, UNITS)
    weight[0, 0, RED] = weight[1, 0, GREEN] = weight[2, 0, [RED, GREEN]] = 1
    areas = measure(subject, range(11), Variants(weight=weight, value=torch.zeros(UNITS)), target=0)
    for v, units in enumerate([(RED,), (GREEN,), (RED, GREEN)]):
        with edited(planted.module, Edit(layer="paint", units=units)):
            labels = Soft()(planted(planted.latents(range(11))))
        for k in (0, 1, ABSENT):
            assert areas.after[v, :, k] == pytest.approx((labels == k).double().mean((1, 2, 3)).numpy())
    assert areas.on_target[:, 0] == pytest.approx([4 / 64, 0, 4 / 64])


def test_the_curve_falls_at_the_unit_that_draws(do: Callable[[str], Do]) -> None:
    curve = do("ablate")(label="red", top=3, curve=True, random_sets=2).curve
    assert curve is not None
    assert curve.units.tolist() == [1, 2, 3, 4, 8, 16, 32]
    assert (curve.remaining == 0).all()
    assert curve.random[0] == 1


def test_the_scan_finds_what_each_unit_does(planted: Generator, found: Dissection) -> None:
    scan = dissect.scan(found, label="red", samples=16, generator=planted, segmenter=Soft(), quiet=True)
    first = scan.table.iloc[0]
    assert (first.unit, first.iou_rank, first.causal_rank) == (RED, 1, 1)
    assert first.change_pp == first["pp:red"] == pytest.approx(-100 * 4 / 64)
    assert first["pp:unlabelled"] == pytest.approx(100 * 4 / 64)
    assert first.changed
    green = scan.table.set_index("unit").loc[GREEN]
    assert (green["pp:green"], green["pp:red"]) == (pytest.approx(-100 * 4 / 64), 0)
    assert (scan.table.change_pp.iloc[1:] == 0).all()
    kept = pd.read_csv(found.folder / "interventions" / "scan-paint" / "red.csv")
    assert kept.unit.tolist() == scan.table.unit.tolist()
    again = dissect.scan(found, label="green", samples=16, generator=planted, segmenter=Soft(), quiet=True)
    assert again.table.unit[0] == GREEN


def test_units_by_scan(do: Callable[[str], Do]) -> None:
    assert do("ablate")(label="green", top=1, by="scan").info["units"] == [GREEN]


@pytest.mark.parametrize(("kind", "label", "unit"), [("ablate", "red", RED), ("insert", "green", GREEN)])
def test_the_gradient_finds_the_unit(do: Callable[[str], Do], kind: str, label: str, unit: int) -> None:
    options = {"where": "0.06,0.94"} if kind == "insert" else {}
    effects = do(kind)(label=label, top=1, optimize=True, random_sets=0, **options)
    assert effects.info["units"] == [unit]
    assert effects.units.alpha[0] > 0.9
    assert effects.sets.set.tolist() == ["chosen", "by_iou"]
    assert effects.sets.change_pp[0] == effects.sets.change_pp[1] != 0


def test_a_gradient_needs_probabilities(planted: Generator, tmp_path: Path) -> None:
    hard = ColourSegmenter()
    found = dissect.run(planted, layers=[1], segmenter=hard, samples=20, out=tmp_path / "hard", quiet=True)
    with pytest.raises(UsageError, match=r"optimize.*colours .*`probabilities"):
        dissect.ablate(found, label="red", top=1, optimize=True, generator=planted, segmenter=hard, quiet=True)
    assert not (tmp_path / "hard" / "interventions").exists()


def test_effects_are_kept_and_returned(do: Callable[[str], Do], found: Dissection) -> None:
    effects = do("ablate")(label="red", top=1, curve=True)
    folder = found.folder / "interventions" / "ablate-red-paint-top1"
    names = {"effect.json", "effects.csv", "sets.csv", "chosen.csv", "curve.csv", "pictures.npz"}
    assert {path.name for path in folder.iterdir()} == names
    made = (folder / "effect.json").stat().st_mtime_ns
    again = do("ablate")(label="red", top=1, curve=True)
    assert (folder / "effect.json").stat().st_mtime_ns == made
    pd.testing.assert_frame_equal(again.table, effects.table, rtol=1e-4, check_dtype=False)
    assert again.info == effects.info
    assert again.pictures.keys() == effects.pictures.keys()
    with pytest.raises(UsageError, match=r"\(curve: there True, requested False\); give another `name`"):
        do("ablate")(label="red", top=1, name="ablate-red-paint-top1")
    do("ablate")(label="red", top=1, name="mine")
    assert [path.name for path in found.interventions] == ["ablate-red-paint-top1", "mine"]
    beside = do("ablate")(label="red", top=1, random_sets=0)  # no name: it gets one by what differs
    assert beside.info["name"] == "ablate-red-paint-top1-random_sets0-curveFalse"
    assert do("ablate")(label="red", top=1, random_sets=0).info == beside.info


def test_pictures_show_the_changed_the_typical_and_the_failing(do: Callable[[str], Do]) -> None:
    shots = do("ablate")(label="red", top=1).pictures
    assert list(dict.fromkeys(shots["role"])) == ["most changed", "typical", "failing"]
    assert len(set(shots["sample"])) == len(shots["sample"]) == 12
    assert (shots["place"] == (shots["labels_before"] == 0)).all()
    assert not (shots["labels_after"] == 0).any()


def test_without_a_run(planted: Generator) -> None:
    effects = dissect.ablate(planted, units=f"paint:{RED}", label="red", segmenter=Soft(), samples=16, quiet=True)
    assert effects["red"].after == 0
    assert effects.info["samples"]["first"] == 0
    assert "red" in effects._repr_html_()
    on = dissect.insert(
        planted, layer="paint", units=[GREEN], value=1.0, where="0.06,0.94", segmenter=Soft(), samples=16, quiet=True
    )
    assert on["green"].change_pp == pytest.approx(100 / 64)
    with pytest.raises(UsageError, match="layer4:12,57"):
        dissect.ablate(planted, label="red", segmenter=Soft())


def test_a_curve_of_given_units_ends_at_their_number(do: Callable[[str], Do]) -> None:
    curve = do("ablate")(units=[*range(10, 15), RED], label="red", curve=True, random_sets=2).curve
    assert curve is not None
    assert curve.units.tolist() == [1, 2, 4, 6]
    assert curve.remaining.tolist() == [1, 1, 1, 0]
    assert curve["random"].tolist() == [1] * 4


class TwoPlanes(Soft):
    """Red and green in the first plane, blue and yellow in the second."""

    name = "two planes"

    def __call__(self, images: Tensor) -> Tensor:
        labels = super().__call__(images)
        return torch.cat([labels.where(labels < 2, -1), labels.where(labels >= 2, -1)], 1)


def test_label_planes_are_kept_apart(planted: Generator) -> None:
    paints_yellow = {"units": f"paint:{GREEN}", "value": 1.0, "where": "class:red", "label": "yellow"}
    options = {"segmenter": TwoPlanes(), "samples": 8, "random_sets": 0, "quiet": True}
    effects = dissect.insert(planted, **paints_yellow, **options)
    assert effects["yellow"].change_pp == pytest.approx(100 * 4 / 64)
    assert effects["red"].change_pp == pytest.approx(-100 * 4 / 64)
    assert effects["unlabelled"].before == pytest.approx(1 - 8 / 64)
    assert effects.sets.changed_pixels[0] == pytest.approx(4 / 64)
    gone = dissect.ablate(planted, units=f"paint:{RED}", label="red", **options)
    assert set(np.unique(gone.pictures["labels_after"])) == {-1, 1}  # the plane in which red was
