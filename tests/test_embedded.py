"""The embedded generator and segmenter are as good as their card says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ganatomy import dissect
from ganatomy.dissect.generators.base import Generator
from ganatomy.dissect.scenes import evaluate
from ganatomy.dissect.scenes.train_segmenter import accuracy
from ganatomy.segmenters.scenes import ScenesSegmenter

SAMPLES = range(50_000, 50_128)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return dissect.load_generator("progan_scenes")


@pytest.fixture(scope="module")
def segmenter() -> ScenesSegmenter:
    return ScenesSegmenter()


@pytest.fixture(scope="module")
def found(
    generator: Generator, segmenter: ScenesSegmenter, tmp_path_factory: pytest.TempPathFactory
) -> dissect.Dissection:
    out = tmp_path_factory.mktemp("run") / "run"
    return dissect.run(generator, layers=[4, 5, 6], segmenter=segmenter, samples=256, out=out, quiet=True)


def test_segmenter_is_right_on_held_out_renders(segmenter: ScenesSegmenter) -> None:
    assert accuracy(segmenter.network, spoilt=False, count=96)["accuracy"] > 0.97
    assert accuracy(segmenter.network, spoilt=True, count=96)["accuracy"] > 0.94


def test_segmenter_labels_images_of_other_sizes(segmenter: ScenesSegmenter, generator: Generator) -> None:
    images = generator(generator.latents(range(8)))
    small = segmenter(images)
    large = segmenter(torch.nn.functional.interpolate(images, (128, 160), mode="bilinear"))
    assert large.shape == (8, 1, 128, 160)
    again = torch.nn.functional.interpolate(large.float(), (64, 64), mode="nearest-exact").long()
    assert (small == again).float().mean() > 0.93


def test_segmenter_is_silent_where_it_is_unsure(segmenter: ScenesSegmenter) -> None:
    noise = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert (segmenter(noise) == -1).float().mean() > 0.2


def test_generated_scenes_have_what_renders_have(generator: Generator, segmenter: ScenesSegmenter) -> None:
    labels = evaluate.segmented(generator, segmenter, SAMPLES)
    generated = evaluate.shares(labels)
    _, masks = evaluate.render(range(400), seed=evaluate.HELD_OUT)
    rendered = evaluate.shares(torch.from_numpy(masks).long())
    for name in evaluate.NAMES:
        if rendered[name] > 0.02:
            assert 0.5 < generated[name] / rendered[name] < 2, name
    assert generated["unlabelled"] < 0.03
    for name in ("building", "sky", "grass", "tree", "path"):
        present = (labels == evaluate.NAMES.index(name)).flatten(1).any(1).float().mean()
        assert present > 0.7, name


def test_samples_differ(generator: Generator) -> None:
    images = generator(generator.latents(SAMPLES)).flatten(1)
    rendered = torch.from_numpy(evaluate.render(range(len(SAMPLES)))[0]).flatten(1)
    assert torch.pdist(images).median() > 0.6 * torch.pdist(rendered).median()
    assert torch.pdist(images).min() > 0.5


def test_units_are_labelled_over_many_classes(found: dissect.Dissection) -> None:
    for layer in found.layers:
        units = found.units[found.units.layer == layer]
        labelled = units[units.labelled]
        assert len(labelled) >= 0.2 * len(units)
        assert labelled.label.nunique() >= 6
        assert {"tree", "sky"} <= set(labelled.label)
        reaching = set(units[units.reaches_limits].label)
        assert "building" in reaching
        assert {"door", "window"} & reaching
        assert (labelled.iou > labelled.position_iou).all()
        assert len(labelled) < units.reaches_limits.sum()  # place alone labels many by the rule's limits


def test_the_best_tree_units_remove_trees_and_little_else(
    found: dissect.Dissection, generator: Generator, segmenter: ScenesSegmenter
) -> None:
    models: dict[str, Any] = {"generator": generator, "segmenter": segmenter, "quiet": True}
    dissect.scan(found, label="tree", layer="layer5", samples=24, **models)
    effects = dissect.ablate(
        found,
        label="tree",
        layer="layer5",
        by="scan",
        samples=96,
        random_sets=2,
        **models,
    )
    tree = effects["tree"]
    assert tree.relative < -0.5
    assert tree.relative_high < -0.45
    assert bool(tree.beyond_random)
    others = effects.table[~effects.table["class"].isin(["tree", "unlabelled"]) & (effects.table.before > 0.01)]
    assert others.relative.min() > tree.relative / 3
    assert effects["unlabelled"].after < 0.03


def test_doors_appear_where_buildings_are_and_not_in_the_sky(
    found: dissect.Dissection, generator: Generator, segmenter: ScenesSegmenter
) -> None:
    gains = {}
    for place in ("building", "sky"):
        effects = dissect.insert(
            found,
            label="door",
            layer="layer4",
            where=f"class:{place}",
            samples=128,
            random_sets=0,
            generator=generator,
            segmenter=segmenter,
            quiet=True,
        )
        gains[place] = effects["door"]
    assert gains["building"].change_pp_low > 0
    assert gains["building"].change_pp_low > gains["sky"].change_pp_high
