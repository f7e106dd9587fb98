"""The renderer draws what its masks say; the exported data set is what was drawn."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganatomy.dissect.scenes.export import export
from ganatomy.dissect.scenes.render import LABEL, render
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


def test_every_class_occurs_where_it_belongs() -> None:
    _, labels = render(range(400))
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert (shares > 0.003).all()
    height = np.arange(64)[None, :, None]

    def mean_height(name: str) -> float:
        where = labels == LABEL[name]
        return float((height * where).sum() / where.sum())

    assert mean_height("sky") < mean_height("mountain") < mean_height("grass") < mean_height("path")
    assert mean_height("roof") < mean_height("building") < mean_height("door")
    assert (labels[:, 0] == LABEL["sky"]).mean() > 0.9
    present = {name: (labels == LABEL[name]).any((1, 2)).mean() for name in LABEL}
    assert present["door"] == present["building"] == 1
    assert 0.5 < present["tree"] < 1
    assert 0.1 < present["dome"] < 0.5


def test_masks_are_where_the_colour_is() -> None:
    """The edge between two flat objects in the image runs where the mask changes."""
    images, labels = render(range(100))
    grass, sky = labels == LABEL["grass"], labels == LABEL["sky"]
    greener = images[:, 1] - images[:, 2]
    assert (greener[grass] > 0.02).mean() > 0.97
    assert (greener[sky] < 0.06).mean() > 0.95


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
