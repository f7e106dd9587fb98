"""Units, samples and classes of a run, and its thin methods, against its tables and its spool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ganatomy import dissect
from ganatomy.dissect import Dissection, Effects, Generator, as_generator
from ganatomy.hooks import Tap
from ganatomy.hooks.errors import UsageError

from ..conftest import CONSTANT, GREEN, RED, Go, Painter, Planted, Soft


def test_a_unit_has_its_row_and_its_top_images(found: Dissection) -> None:
    unit = found.unit(RED)
    assert unit.row.equals(found.unit("paint", RED).row)
    assert unit.row.iou == found.units.iou[RED]
    samples, masks = found.tops("paint")
    assert unit.samples.tolist() == samples[RED].tolist()
    assert np.array_equal(unit.regions, masks[RED])
    images = unit.images(5)
    assert len(images) == 5
    for image, sample in zip(images, unit.samples, strict=False):
        stored = found.spool.gather("images", np.array([sample]))[0]
        assert np.array_equal(np.asarray(image), stored)


def test_a_heat_map_is_the_featuremap_of_the_generator(go: Go, painter: Generator) -> None:
    kept = go(samples=40, keep_spool=True)
    gone = go(samples=40, out=kept.folder.with_name("gone"))
    with torch.no_grad(), Tap(painter.module, ["paint"]) as tap:
        painter.module(painter.latents([7]))
    truth = tap["paint"][0, 1].numpy()
    assert np.allclose(kept.unit(1).heatmap(7), truth, atol=1e-3)  # float16 in the spool
    assert np.array_equal(gone.unit(1).heatmap(7, generator=painter), truth)
    assert gone.unit(1).heatmap(500, generator=painter).shape == truth.shape  # no sample of the run
    with pytest.raises(UsageError, match="as an object in Python"):
        gone.unit(1).heatmap(7)


def test_a_heat_map_of_a_direction_is_its_weighted_sum(go: Go, painter: Generator) -> None:
    run = go(samples=40, keep_spool=True, basis="pca", directions=3)
    weights = run.directions("paint")
    assert weights is not None
    features = np.stack([np.asarray(run.spool.read(0, "features-0"), np.float32)[5, k] for k in range(6)])
    features *= run.info["layers"]["paint"]["scale"]
    expected = (weights[2][:, None, None] * features).sum(0)
    assert np.allclose(run.unit(2).heatmap(5), expected, atol=1e-5)


def test_a_sample_has_its_image_and_shares_of_classes(found: Dissection) -> None:
    sample = found.sample(9)
    labels = np.asarray(found.spool.read(0, "labels"))[9]
    assert np.array_equal(sample.labels, labels)
    shares = {name: float((labels == k).sum() / labels[0].size) for k, name in enumerate(found.classes["class"])}
    assert sample.classes.to_dict() == pytest.approx({name: share for name, share in shares.items() if share})
    assert sample.classes.is_monotonic_decreasing
    with pytest.raises(UsageError, match=r"sample 120: .*0 to 119"):
        found.sample(120)


def test_a_class_has_the_units_that_are_labelled_with_it(found: Dissection) -> None:
    for name, unit in (("red", RED), ("green", GREEN)):
        units = found[name].units
        expected = found.units[found.units.labelled & (found.units.label == name)].unit
        assert set(units.unit) == set(expected)
        assert units.unit.iloc[0] == unit
        assert found[name].row.units == len(units)


def test_names_that_do_not_exist_are_key_errors_with_a_suggestion(found: Dissection, do: Any) -> None:
    with pytest.raises(KeyError, match="Did you mean green") as error:
        found["grean"]
    assert isinstance(error.value, UsageError)
    effects = do("ablate")(label="red", top=1, random_sets=0)
    with pytest.raises(KeyError, match=r"Did you mean red\?"):
        effects["redd"]
    with pytest.raises(UsageError, match=r"no layer 'pant'.*paint"):
        found.unit("pant", 3)
    with pytest.raises(UsageError, match=r"0 to 39"):
        found.unit(40)


def test_the_best_of_each_class_comes_first(found: Dissection) -> None:
    best = found.highlights(2)
    assert set(best.label) == {"red", "green"}
    assert set(best.unit) == {RED, GREEN}
    assert CONSTANT not in found.highlights(8).unit.to_numpy()


def test_methods_of_a_run_are_the_functions(found: Dissection, planted: Generator) -> None:
    given = {"generator": planted, "segmenter": Soft(), "quiet": True}
    by_method = found.ablate("red", top=1, samples=24, random_sets=2, name="a", **given)
    by_function = dissect.ablate(found, label="red", top=1, samples=24, random_sets=2, name="b", **given)
    assert isinstance(by_method, Effects)
    pd.testing.assert_frame_equal(by_method.table, by_function.table)
    inserted = found.insert("red", top=1, samples=24, random_sets=0, where="0.5,0.5", **given)
    assert inserted.info["kind"] == "insert"
    scan = found.scan("red", samples=8, **given)
    assert scan.table.unit.iloc[0] == RED
    assert found.power().equals(dissect.power(found))
    with pytest.raises(UsageError, match="twice"):
        found.compare(found)


def test_a_report_is_written_and_opened(found: Dissection, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = found.report()
    assert page.is_file()
    assert not opened
    assert found.report(open=True) == page
    assert opened == [page.resolve().as_uri()]


def test_a_plain_module_goes_straight_in(tmp_path: Path, colours: Any) -> None:
    options = {"segmenter": colours, "samples": 60, "quiet": True, "significance": "off"}
    run = dissect.run(Painter(), "paint", latent="normal:6", name="mine", out=tmp_path / "a", **options)
    assert run.info["config"]["model"] == "mine"
    wrapped = as_generator(Painter(), latent="normal:6", name="mine")
    same = dissect.run(wrapped, ["paint"], out=tmp_path / "b", **options)
    assert run.units.label.tolist() == same.units.label.tolist()
    effects = run.ablate(units=[0], generator=Painter(), segmenter=colours, samples=20, random_sets=0, quiet=True)
    assert effects["red"].after == 0


def test_a_plain_module_with_a_map_of_latents(tmp_path: Path, colours: Any) -> None:
    class Folded(Planted):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return super().forward(latents.flatten(1))

    run = dissect.run(
        Folded(),
        "paint",
        latent="normal:6x1x1",
        output_range=(0, 1),
        segmenter=colours,
        samples=40,
        out=tmp_path / "run",
        quiet=True,
    )
    assert run.units.label[RED] == "red"
