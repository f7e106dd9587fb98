"""The renderer draws what its masks say; the exported data set is what was drawn."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ganatomy.dissect.scenes.canvas import LABEL, Canvas, ellipse, rectangle, union
from ganatomy.dissect.scenes.export import export
from ganatomy.dissect.scenes.render import RARE, render
from ganatomy.hooks.errors import UsageError
from ganatomy.segmenters.scenes import CLASSES


def test_a_scene_is_the_same_in_every_batch() -> None:
    images, labels = render(range(20), seed=3)
    again, names = render([17, 4], seed=3)
    assert np.array_equal(images[[17, 4]], again)
    assert np.array_equal(labels[[17, 4]], names)
    assert not np.array_equal(render([4], seed=4)[0], again[1:])


def test_shapes_and_ranges() -> None:
    images, labels = render(range(50), side=48)
    assert images.shape == (50, 3, 48, 48)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert labels.shape == (50, 48, 48)
    assert labels.max() < len(CLASSES)


@pytest.fixture(scope="module")
def drawn() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    return render(range(600))


def test_every_class_occurs_where_it_belongs(drawn: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    _, labels = drawn
    height = np.arange(labels.shape[1])[None, :, None]
    present = {name: (labels == LABEL[name]).any((1, 2)).mean() for name in LABEL}

    def mean_height(name: str) -> float:
        where = labels == LABEL[name]
        return float((height * where).sum() / where.sum())

    assert mean_height("sky") < mean_height("mountain") < mean_height("grass") < mean_height("path")
    assert mean_height("spire") < mean_height("roof") < mean_height("building") < mean_height("door")
    assert (labels[:, 0] == LABEL["sky"]).mean() > 0.9
    assert present["door"] == present["building"] == present["window"] == 1
    for name, share in RARE.items():  # the odds of drawing fewer or more are below 1 in 10,000
        assert share * 0.3 < present[name] < share * 2
    assert all(present[name] > 0.12 for name in LABEL if name not in RARE)
    ground = np.stack([(labels == LABEL[name]).any((1, 2)) for name in ("grass", "snow")])
    assert (ground.sum(0) == 1).all()  # it is winter or it is not


def test_the_church_and_the_horizon_move() -> None:
    _, labels = render(range(200))
    across = np.arange(128)[None, None]
    walls = labels == LABEL["building"]
    middles = (walls * across).sum((1, 2)) / walls.sum((1, 2)) / 128
    assert middles.std() > 0.05
    ground = np.isin(labels, [LABEL["grass"], LABEL["snow"]])
    seen = ground.any(1)  # (N, columns)
    tops = np.where(seen, ground.argmax(1), -1).astype(float)
    tops[~seen] = np.nan
    horizons = np.nanmedian(tops, 1) / 128
    assert horizons.std() > 0.03  # uniform over 0.16 of the side has 0.046
    assert horizons.max() - horizons.min() > 0.1


def test_masks_are_where_the_colour_is(drawn: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    """By day the ground is greener than a clear sky, and each pixel's label says which it is."""
    images, labels = drawn
    day = images[:, :, 0].mean((1, 2)) > 0.5
    grass, sky = (labels == LABEL[name] for name in ("grass", "sky"))
    greener = images[:, 1] - images[:, 2]
    assert (greener[day][grass[day]] > 0).mean() > 0.98
    blue = images[:, 2, 0].mean(1) > images[:, 0, 0].mean(1) + 0.2  # a clear sky
    assert blue.mean() > 0.3
    assert (greener[blue][sky[blue]] < 0.06).mean() > 0.95


def test_a_shape_covers_what_its_formula_says() -> None:
    """Coverage is exact for a rectangle, and the mask is the shape at coverage one half."""
    image, labels = np.zeros((3, 32, 32), np.float32), np.zeros((32, 32), np.uint8)
    canvas = Canvas(image, labels)
    box = (4 / 32, 8 / 32, 12.25 / 32, 16.75 / 32)
    canvas.paint("tree", box, None, np.ones(3, np.float32))
    expected = np.zeros((32, 32))
    expected[8:16, 4:12] = 1
    expected[8:16, 12] = 0.25
    expected[16, 4:12] = 0.75
    expected[16, 12] = 0.25  # the nearer side counts at a corner
    assert np.allclose(image, expected[None], atol=1e-5)
    assert np.array_equal(labels == LABEL["tree"], expected > 0.5)

    axis = (np.arange(200, dtype=np.float32) + 0.5) / 200
    both = union(ellipse(0.3, 0.5, 0.2, 0.1), rectangle(0.6, 0.4, 0.8, 0.6))(axis, axis[:, None]) > 0
    assert both.mean() == pytest.approx(np.pi * 0.2 * 0.1 + 0.2 * 0.2, rel=0.01)


def test_export(tmp_path: Path) -> None:
    export(120, tmp_path / "set", side=32, seed=9, quiet=True)
    images, labels = render([0, 119], side=32, seed=9)
    for row, name in enumerate(("000000.png", "000119.png")):
        picture = np.asarray(Image.open(tmp_path / "set" / "images" / name), np.float32) / 255
        assert np.abs(picture - images[row].transpose(1, 2, 0)).max() <= 0.5 / 255 + 1e-6
        assert np.array_equal(np.asarray(Image.open(tmp_path / "set" / "masks" / name)), labels[row])
    assert len(list((tmp_path / "set" / "images").iterdir())) == 120
    with (tmp_path / "set" / "classes.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == [name for name, _, _ in CLASSES]
    with pytest.raises(UsageError, match="not an empty folder"):
        export(1, tmp_path / "set", quiet=True)
