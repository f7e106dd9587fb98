"""Where and which units are changed, and the change itself, against loops over cells and units."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ganatomy.dissect.images.class_areas import at_centres, shares
from ganatomy.dissect.interventions.areas import Variants
from ganatomy.dissect.interventions.places import Where, box_place, class_places, grid_places, mask_place
from ganatomy.dissect.interventions.unit_choice import matched_sets, random_orders
from ganatomy.dissect.runs.lookup import check_units, class_number, parse_units
from ganatomy.hooks import Edit
from ganatomy.hooks.edit import replace_softly
from ganatomy.hooks.errors import DissectError, UsageError


def test_where_is_read(tmp_path: Path) -> None:
    assert Where.parse("grid").kind == "grid"
    found = Where.parse("class:traffic light, red")
    assert (found.kind, found.name) == ("class", "traffic light, red")
    assert Where.parse("0.2,0.5").box == (0.2, 0.5, 0, 0)
    assert Where.parse(" 0.1, 0.2, .3, 4e-1").box == (0.1, 0.2, 0.3, 0.4)
    assert Where.parse("1,1").kind == Where.parse("0,0,1,1").kind == Where.parse("0.7,0,0.3,1").kind == "box"
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"anything")
    found = Where.parse(str(mask))
    assert (found.kind, found.text) == ("mask", str(mask))
    assert found.digest() == hashlib.sha256(b"anything").hexdigest()


@pytest.mark.parametrize("text", ["nofile.png", "class:", "Grid", "", "0.2;0.5", "0.2,", "/"])
def test_where_names_no_file(text: str) -> None:
    with pytest.raises(UsageError, match=r"where.*grid, x,y or x,y,w,h.*class:NAME"):
        Where.parse(text)


OUTSIDE = ["0.2", "0,0,1", "0,0,1,1,1", "1.2,0.5", "-0.1,0", "0.5,1.01", "0.9,0,0.2,0", "0,0.9,0,0.2", "0.5,0.5,-0.1,0"]


@pytest.mark.parametrize("text", [*OUTSIDE, "nan,0.5", "0,0,nan,1", "inf,0", "0,0,0,inf"])
def test_where_lies_outside_the_image(text: str) -> None:
    with pytest.raises(UsageError, match=r"where.*x,y,w,h"):
        Where.parse(text)


FRACTIONS = st.floats(0, 1, allow_nan=False)


@settings(deadline=None)
@given(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS)
def test_every_box_inside_the_image_is_read_and_no_other(x: float, y: float, w: float, h: float) -> None:
    text = f"{x!r},{y!r},{w!r},{h!r}"
    if x + w <= 1 and y + h <= 1:
        place = Where.parse(text)
        assert (place.kind, place.box) == ("box", (x, y, w, h))
        cells = box_place(place.box, 5, 7)[0, 0]
        assert set(cells.unique().tolist()) <= {0.0, 1.0}
        assert cells.sum() >= 1
        assert abs(float(cells.mean()) - w * h) <= 1 / 5 + 1 / 7 + 1 / 35  # each side by a cell at most
    else:
        with pytest.raises(UsageError, match="where"):
            Where.parse(text)


@settings(deadline=None)
@given(FRACTIONS, FRACTIONS)
def test_every_point_inside_the_image_takes_the_cell_that_holds_it(x: float, y: float) -> None:
    cells = box_place(Where.parse(f"{x!r},{y!r}").box, 5, 7)[0, 0]
    assert cells.nonzero().tolist() == [[min(int(y * 5), 4), min(int(x * 7), 6)]]


def test_a_box_takes_the_cells_whose_centres_lie_in_it() -> None:
    def cells(*box: float) -> list[list[int]]:
        place = box_place((*box, 0, 0)[:4], 3, 4)
        assert place.shape == (1, 1, 3, 4)
        return place[0, 0].int().tolist()

    assert cells(0, 0, 1, 1) == [[1] * 4] * 3
    assert cells(0.5, 0) == [[0, 0, 1, 0], [0] * 4, [0] * 4]
    assert cells(1, 1) == [[0] * 4, [0] * 4, [0, 0, 0, 1]]
    assert cells(0.24, 0.34) == [[0] * 4, [1, 0, 0, 0], [0] * 4]
    assert cells(0.3, 0.6, 0.05, 0.05) == [[0] * 4, [0, 1, 0, 0], [0] * 4]  # no centre inside: the cell it lies in
    assert cells(0.1, 0.4, 0.6, 0.6) == [[0] * 4, [1, 1, 1, 0], [1, 1, 1, 0]]
    assert cells(0.13, 0, 0.5, 0.1) == [[0, 1, 1, 0], [0] * 4, [0] * 4]


def test_boxes_against_a_loop() -> None:
    dice = np.random.default_rng(0)
    for _ in range(100):
        height, width = dice.integers(1, 12, 2)
        x, y = dice.uniform(size=2)
        w, h = dice.uniform(size=2) * (1 - x, 1 - y)
        place = box_place((x, y, w, h), height, width)[0, 0]
        for r in range(height):
            for c in range(width):
                across = x <= (c + 0.5) / width < x + w or math.floor((x + w / 2) * width) == c
                down = y <= (r + 0.5) / height < y + h or math.floor((y + h / 2) * height) == r
                assert place[r, c] == (across and down)


def test_a_grid_is_each_cell_alone_row_by_row() -> None:
    places = grid_places(2, 3)
    assert places.shape == (6, 1, 2, 3)
    assert (places.sum((1, 2, 3)) == 1).all()
    assert all(places[3 * r + c, 0, r, c] == 1 for r in range(2) for c in range(3))


def test_cells_of_a_class_in_any_plane() -> None:
    cells = np.array([[[[0, 1, 2]], [[2, -1, -1]]], [[[-1, 0, 0]], [[1, 1, 1]]]], np.int16)  # (2, 2, 1, 3)
    assert class_places(cells, 2).tolist() == [[[[1, 0, 1]], [[0, 0, 0]]]]
    assert class_places(cells, 1).tolist() == [[[[0, 1, 0]], [[1, 1, 1]]]]
    assert class_places(cells, 0).dtype == torch.float32


def test_a_mask_is_averaged_over_each_cell(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6), np.uint8)
    pixels[:2, :2] = 255
    pixels[:2, 2:4] = [[255, 0], [0, 0]]
    pixels[2:, 4:] = [[0, 51], [51, 0]]  # any paint is on
    truth = torch.tensor([[1, 0.25, 0], [0, 0, 0.5]])
    path = str(tmp_path / "mask.png")
    for picture in (Image.fromarray(pixels), Image.fromarray(np.stack([pixels] * 3, 2))):
        picture.save(path)
        found = mask_place(path, 2, 3)
        assert found.shape == (1, 1, 2, 3)
        torch.testing.assert_close(found[0, 0], truth, atol=0.51 / 255, rtol=0)
        assert (found[0, 0, 0, 0], found[0, 0, 0, 2]) == (1, 0)
    Image.fromarray(pixels > 200).save(path)  # of one bit
    assert mask_place(path, 4, 6)[0, 0].tolist() == (pixels > 200).astype(float).tolist()


def test_masks_that_will_not_do(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.raises(UsageError, match=r"no file .*mask\.png"):
        mask_place(str(path), 2, 2)
    path.write_bytes(b"nonsense")
    with pytest.raises(DissectError, match=r"mask\.png cannot be read as an image"):
        mask_place(str(path), 2, 2)
    Image.new("L", (8, 8)).save(path)
    with pytest.raises(UsageError, match="black everywhere"):
        mask_place(str(path), 2, 2)


@pytest.mark.parametrize("kind", [torch.int64, torch.int16])
@pytest.mark.parametrize("planes", [1, 3])
def test_shares_of_an_image(planes: int, kind: torch.dtype) -> None:
    labels = torch.randint(-1, 4, (3, planes, 5, 7), generator=torch.Generator().manual_seed(0)).to(kind)
    labels[1] = -1
    before = labels.clone()
    found = shares(labels, 5)
    assert found.shape == (3, 6)
    assert found.dtype == torch.float64
    for n in range(3):
        for c in range(5):
            count = sum(int((labels[n, p] == c).sum()) for p in range(planes))
            assert found[n, c] == count / 35
        assert found[n, 5] == int((labels[n, 0] < 0).sum()) / 35  # in the first plane
    assert torch.equal(labels, before)


def test_labels_at_the_centres_of_cells() -> None:
    labels = torch.arange(2 * 2 * 5 * 8).view(2, 2, 5, 8)
    found = at_centres(labels, (3, 2))
    assert found.dtype == torch.int16
    # centres of three cells on five rows: 0.83, 2.5, 4.17; of two on eight columns: 2, 6
    assert torch.equal(found.long(), labels[:, :, [0, 2, 4]][..., [2, 6]])
    assert torch.equal(at_centres(labels, (5, 8)).long(), labels)
    assert at_centres(labels, (1, 1))[0, 0].item() == 2 * 8 + 4
    finer = at_centres(labels, (10, 16)).long()
    assert torch.equal(finer, labels.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_a_pull_of_0_or_1_is_exact_whatever_else_is_there() -> None:
    nan, inf = math.nan, math.inf
    x = torch.tensor([nan, inf, 0.1, nan, 3.0, 3.0, 0.1, 2.0])
    value = torch.tensor([5.0, -0.7, nan, 1.0, inf, 0.3, 0.7, 6.0])
    pull = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.25])
    truth = torch.tensor([5.0, -0.7, 0.1, nan, 3.0, 0.3, 0.1, 3.0])
    for count in (7, 8):  # without and with a partial pull
        found = replace_softly(x[:count], value[:count], pull[:count])
        assert torch.equal(found.nan_to_num(nan=99), truth[:count].nan_to_num(nan=99))


def test_a_partial_pull_goes_part_of_the_way() -> None:
    dice = torch.Generator().manual_seed(0)
    x, value = torch.randn(2, 3, 4, 5, generator=dice), torch.randn(3, 1, 1, generator=dice)
    pull = torch.rand(6, 1, 3, 4, 5, generator=dice)
    found = replace_softly(x, value, pull)
    for k in range(6):
        for n in range(2):
            truth = (1 - pull[k, 0].double()) * x[n].double() + pull[k, 0].double() * value.double()
            torch.testing.assert_close(found[k, n].double(), truth)


V, N, U, H, W = 5, 7, 4, 3, 6


@pytest.mark.parametrize("weighted", [1, N], ids=["one weight", "weight a sample"])
@pytest.mark.parametrize("placed", [None, (1, 1), (V, 1), (1, N), (V, N)], ids=str)
@pytest.mark.parametrize("donated", [False, True], ids=["value", "donors"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_variants_change_what_a_loop_of_edits_changes(
    weighted: int, placed: tuple[int, int] | None, donated: bool, soft: bool
) -> None:
    dice = torch.Generator().manual_seed(0)
    every, others = torch.randn(2, N, U, H, W, generator=dice)
    values = torch.randn(U, generator=dice)
    weight = torch.rand(V, weighted, U, generator=dice)
    place = None if placed is None else torch.rand(*placed, H, W, generator=dice)
    if not soft:
        weight, place = weight.round(), None if place is None else place.round()
    variants = Variants(weight=weight, value=None if donated else values, place=place, donors=range(N))
    assert len(variants) == V
    for some, rows in ((slice(0, V), slice(0, N)), (slice(1, 4), slice(2, 6)), (slice(4, 5), slice(6, 7))):
        x = every[rows].contiguous(memory_format=torch.channels_last if soft else torch.contiguous_format)
        kept = x.clone()
        found = variants.apply(x, others[rows] if donated else None, some, rows)
        assert torch.equal(x, kept)
        truth = []
        for v in range(V)[some]:
            for n in range(N)[rows]:
                maps = every[n : n + 1]
                for unit in range(U):
                    mask = torch.full((H, W), float(weight[v, n % weighted, unit]))
                    if place is not None:
                        mask = mask * place[v % len(place), n % place.shape[1]]
                    value: Tensor = others[n : n + 1, unit : unit + 1] if donated else values[unit]
                    maps = Edit(layer="", units=(unit,), value=value, mask=mask)(maps)
                truth.append(maps)
        if soft:
            torch.testing.assert_close(found, torch.cat(truth))
            assert found.is_contiguous(memory_format=torch.channels_last)
        else:
            assert torch.equal(found, torch.cat(truth))


def test_units_are_read() -> None:
    assert parse_units("layer4:12,57,300") == ("layer4", (12, 57, 300))
    assert parse_units("block.0:conv: 3 , 1,3") == ("block.0:conv", (3, 1))
    assert parse_units("12, 57") == (None, (12, 57))
    for text in ("layer4", ":1", "layer4:", "layer4:1,,2", "layer4:1,", "layer4:-1", "layer4:1.5", "a:b", ""):
        with pytest.raises(UsageError, match="is not understood; write LAYER:UNIT,UNIT"):
            parse_units(text)


def test_units_that_a_layer_does_not_have() -> None:
    check_units((0, 7), "a", 8)
    for units, asked in (((1, 8, -1), "8, -1"), ((), "none"), (tuple(range(8, 20)), "8, 9, .* 15, …")):
        with pytest.raises(UsageError, match=rf"'a' has units 0 to 7; asked for {asked}\."):
            check_units(units, "a", 8)
    with pytest.raises(UsageError, match="asked for 8"):
        check_units((8,), "a", 8)


def test_a_class_by_its_name() -> None:
    names = ["sky", "tree", "street", "car"]
    assert class_number("street", names, []) == 2
    with pytest.raises(UsageError, match=r"no class 'tre'\. Did you mean tree.*\? There are car, sky\.$"):
        class_number("tre", names, ["car", "sky"])
    with pytest.raises(UsageError, match=r"no class 'zzz'\. There are c0, c1, .*c23, …\.$") as error:
        class_number("zzz", names, [f"c{k}" for k in range(25)])
    assert "c24" not in str(error.value)


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_random_orders_take_the_chosen_units_last(count: int) -> None:
    chosen = np.array([11, 0, 5, 7, 2, 3])[:count]
    orders = random_orders(12, chosen, 400, seed=0)
    assert orders.shape == (400, 12)
    assert (np.sort(orders, 1) == np.arange(12)).all()
    assert (np.sort(orders[:, 12 - count :], 1) == np.sort(chosen)).all()
    others = 12 - count
    first = np.bincount(orders[:, 0], minlength=12)[np.setdiff1d(np.arange(12), chosen)]
    assert np.abs(first - 400 / others).max() < 4.5 * math.sqrt(400 / others)  # all others are as likely
    assert np.array_equal(orders, random_orders(12, chosen, 400, seed=0))
    assert not np.array_equal(orders, random_orders(12, chosen, 400, seed=1))


def test_random_orders_of_most_units_take_chosen_ones_too() -> None:
    orders = random_orders(12, np.arange(7), 300, seed=0)
    assert (np.sort(orders, 1) == np.arange(12)).all()
    assert set(orders[:, 0]) == set(range(12))
    assert random_orders(12, np.arange(3), 0, seed=0).shape == (0, 12)


def test_a_matched_unit_is_one_of_the_five_nearest_in_log_strength() -> None:
    strength = np.array([1, 2.2, 4, 8.4, 16, 33, 64, 0, 130, 250])
    drawn = matched_sets(strength, np.array([4]), 300, seed=0)
    # factors to 16: 33 → 2.06, 8.4 → 1.9, 64 → 4, 4 → 4, 2.2 → 7.3, 130 → 8.1; by difference it would be 3, 2, 1, 0, 7
    assert set(drawn[:, 0]) == {5, 3, 6, 2, 1}
    assert (np.bincount(drawn[:, 0])[[5, 3, 6, 2, 1]] > 30).all()
    assert set(matched_sets(np.array([0.0, 0, 0, 0, 0, 0, 1, 1]), np.array([0]), 100, seed=0)[:, 0]) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("count", [3, 10])
def test_matched_sets_have_each_unit_once_and_no_chosen_one(count: int) -> None:
    dice = np.random.default_rng(0)
    strength, chosen = dice.lognormal(size=20), dice.permutation(20)[:count]
    drawn = matched_sets(strength, chosen, 100, seed=0)
    assert drawn.shape == (100, count)
    others = np.setdiff1d(np.arange(20), chosen)
    for row in drawn:
        assert len(set(row)) == count
        assert set(row) <= set(others)
        for unit, mine in zip(row, chosen, strict=True):
            distance = np.abs(np.log(strength[others] / strength[mine]))
            rank = np.sum(distance < abs(math.log(strength[unit] / strength[mine])))
            assert rank < 5 + count - 1  # others of the set may have taken nearer ones
    assert np.array_equal(drawn, matched_sets(strength, chosen, 100, seed=0))
    assert not np.array_equal(drawn, matched_sets(strength, chosen, 100, seed=1))


def test_matched_sets_of_most_units_take_chosen_ones_too() -> None:
    drawn = matched_sets(np.arange(1.0, 9), np.arange(6), 50, seed=0)
    assert all(len(set(row)) == 6 for row in drawn)
    assert set(drawn.flatten()) == set(range(8))
    everything = matched_sets(np.arange(1.0, 9), np.arange(8), 3, seed=0)
    assert (np.sort(everything, 1) == np.arange(8)).all()
