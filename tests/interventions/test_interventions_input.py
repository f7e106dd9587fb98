"""Interventions that cannot be, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator, NormalLatents
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.reports.pages import write_report

from ..conftest import Do, Soft


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("ablate", {"label": "gren"}, r"no class 'gren'. Did you mean green or red\?.* There are .*red"),
        ("ablate", {"label": "blue"}, "'blue' occurs in none .* there are red, green"),
        ("insert", {"label": "blue", "by": "iou"}, "No unit of paint is labelled 'blue'; labelled there: red, green"),
        ("ablate", {"label": "red", "top": 41}, "top=41: .*40"),
        ("ablate", {"label": "red", "top": 0}, "top=0"),
        ("ablate", {"units": "paint:3,40"}, "has units 0 to 39; asked for 40"),
        ("ablate", {"units": "paint"}, "write LAYER:UNIT"),
        ("ablate", {"units": "colour:1"}, "has no layer 'colour'"),
        ("ablate", {}, "label.*units"),
        ("ablate", {"label": "red", "value": "one"}, "value='one': must be one of zero, mean, resample"),
        ("ablate", {"label": "red", "by": "luck"}, "by='luck': must be one of gradient, scan, iou"),
        ("ablate", {"units": [3], "curve": True}, "curve.* .*label"),
        ("insert", {"units": [3]}, "label.*, or give .level"),
        ("insert", {"label": "red", "where": "2,2"}, "where='2,2': .*x,y"),
        ("insert", {"label": "red", "where": "nowhere.png"}, "where='nowhere.png'"),
        ("insert", {"label": "red", "where": "class:bleu"}, "no class 'bleu'. Did you mean blue"),
        ("insert", {"label": "red", "samples": 1}, "samples=1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    do: Callable[[str], Do], found: Dissection, kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        do(kind)(**options)
    assert "\n" not in str(caught.value)
    assert not (found.folder / "interventions").exists()


def test_a_model_that_has_changed_is_refused(do: Callable[[str], Do], planted: Generator, found: Dissection) -> None:
    with torch.no_grad():
        planted.module.colour.weight[0, 0] = 0.5
    with pytest.raises(UsageError, match=r"planted has changed since the run .*sha256: \w{12}… now, \w{12}… then"):
        do("ablate")(label="red", top=1)
    assert not (found.folder / "interventions").exists()


def test_a_run_of_objects_asks_for_them(found: Dissection) -> None:
    with pytest.raises(UsageError, match=r"given its generator as an object in Python; .*generator=…"):
        dissect.ablate(found, label="red")


def test_nothing_is_left_when_the_disk_fails(do: Callable[[str], Do], found: Dissection) -> None:
    (found.folder / "interventions").write_text("in the way")
    with pytest.raises(DissectError, match=r"interventions is a file"):
        do("ablate")(label="red", top=1)
    assert (found.folder / "interventions").read_text() == "in the way"


def test_pixels_that_are_not_finite_are_said(planted: Generator) -> None:
    planted.module.colour.weight.data[0, 0] = torch.nan
    with pytest.raises(DissectError, match=r"drew pixels that are not finite .* samples 0 to"):
        dissect.ablate(planted, units="paint:1", segmenter=Soft(), samples=4, quiet=True)


def test_a_damaged_folder_is_said(do: Callable[[str], Do], found: Dissection) -> None:
    do("ablate")(label="red", top=1)
    (found.folder / "interventions" / "ablate-red-paint-top1" / "effects.csv").write_bytes(b"")
    with pytest.raises(DissectError, match=r"effects\.csv cannot be read"):
        do("ablate")(label="red", top=1)


def test_another_seed_of_latents_is_the_runs(planted: Generator, found: Dissection) -> None:
    other = replace(planted, source=planted.source.seeded(5))
    effects = dissect.ablate(found, label="red", top=1, generator=other, segmenter=Soft(), samples=8, quiet=True)
    shots = effects.pictures
    mine = planted(planted.latents(shots["sample"].tolist())).permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(mine - shots["before"]).max() <= 0.5


class Twice(nn.Module):
    """A layer that runs twice, and one after which noise is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sigmoid()
        self.once = nn.Identity()

    def forward(self, latents: Tensor) -> Tensor:
        maps = self.shared(self.shared(latents.view(-1, 3, 1, 1).expand(-1, 3, 8, 8)) * 3)
        return maps + self.once(maps) + torch.rand_like(maps) / 10


@pytest.mark.parametrize("layer", ["shared", "once"])
def test_an_image_must_be_a_function_of_the_layer(layer: str) -> None:
    generator = Generator(module=Twice(), name="twice", source=NormalLatents((3,)), output_range=(0, 3))
    with pytest.raises(UsageError, match="does not draw the same image from the same latents twice"):
        dissect.ablate(generator, units=f"{layer}:1", segmenter=Soft(), quiet=True)


class Divides(nn.Module):
    """Divides by the sum of its units."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Sigmoid()

    def forward(self, latents: Tensor) -> Tensor:
        maps = self.units(latents.view(-1, 3, 1, 1).expand(-1, 3, 8, 8))
        return maps / maps.sum(1, keepdim=True)


def test_pixels_that_an_edit_breaks_are_said() -> None:
    generator = Generator(module=Divides(), name="divides", source=NormalLatents((3,)), output_range=(0, 1))
    with pytest.raises(DissectError, match=r"not finite .* samples 0 to 3, .*after the change; take other units"):
        dissect.ablate(generator, units="units:0,1,2", segmenter=Soft(), samples=4, random_sets=0, quiet=True)


def test_without_a_run_a_value_is_needed(planted: Generator) -> None:
    with pytest.raises(UsageError, match="Without a run, say what the units output: value="):
        dissect.insert(planted, units="paint:7", label="green", segmenter=Soft(), quiet=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": [7], "value": float("nan")}, "value=nan"),
        ({"units": [7], "value": "much"}, "value='much'"),
        ({"units": [7, 3], "value": [1.0, 2.0, 3.0]}, "value: 3 numbers .*`units`"),
        ({"units": [7.5], "value": 1.0}, r"units=\[7\.5\]: must be integers"),
        ({"units": [7], "value": 1.0, "name": "scan-paint"}, "name='scan-paint'"),
        ({"units": [7], "value": 1.0, "name": ".."}, "name='..'"),
        ({"units": [7], "value": 1.0, "level": 0.1}, "Give a value or a .level., not both"),
    ],
)
def test_odd_values_and_names(
    do: Callable[[str], Do], found: Dissection, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        do("insert")(**options)
    assert not (found.folder / "interventions").exists()


def test_numbers_of_numpy_and_repeated_units_are_fine(do: Callable[[str], Do]) -> None:
    options = {"where": "0.06,0.94", "random_sets": np.int64(1), "name": "x" * 300}
    effects = do("insert")(units=np.array([7, 7]), value=np.float32(1), label="green", **options)
    assert effects.info["units"] == [7]
    assert effects.sets["size"].tolist() == [1, 1, 1]
    assert len(effects.info["name"]) == 100


class Flat(Soft):
    """Its probabilities have no gradient."""

    name = "flat"

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        return super().probabilities(images)


def test_probabilities_without_gradient_are_said(planted: Generator, tmp_path: Path) -> None:
    found = dissect.run(planted, layers=[1], segmenter=Flat(), samples=20, out=tmp_path / "flat", quiet=True)
    with pytest.raises(UsageError, match="the probabilities of flat or the images of planted have none"):
        dissect.ablate(found, label="red", top=1, optimize=True, generator=planted, segmenter=Flat(), quiet=True)


def test_the_gradient_names_only_units_that_it_found(do: Callable[[str], Do]) -> None:
    effects = do("ablate")(label="red", top=6, optimize=True, random_sets=1)
    assert effects.info["units"] == [3, 7]  # where red is inserted over green, less green is more red
    assert (effects.units.alpha > 0).all()
    assert effects.sets["size"].tolist() == [2, 2, 2, 2]


def test_what_the_scan_saw_is_recorded(do: Callable[[str], Do], planted: Generator, found: Dissection) -> None:
    dissect.scan(found, label="red", samples=5, generator=planted, segmenter=Soft(), quiet=True)
    assert do("ablate")(label="red", top=1, by="scan").info["chosen_on"] == {"first": 0, "last": 4}
    dissect.scan(found, label="red", samples=9, generator=planted, segmenter=Soft(), quiet=True)
    again = do("ablate")(label="red", top=1, by="scan").info  # another scan, and so another result beside the first
    assert again["chosen_on"] == {"first": 0, "last": 8}
    assert again["name"].endswith("-scan_samples9")


def test_a_layer_has_the_number_that_the_run_knew(do: Callable[[str], Do]) -> None:
    assert do("ablate")(label="red", top=1, layer=1).info["layer"] == "paint"
    with pytest.raises(UsageError, match="has no layer '2'"):
        do("ablate")(label="red", top=1, layer=2)


def test_a_run_of_an_older_version_is_opened_by_its_names(do: Callable[[str], Do], found: Dissection) -> None:
    del found.info["source"]
    with pytest.raises(UsageError, match="There is no model 'planted'"):
        dissect.ablate(found, label="red", quiet=True)


def test_a_damaged_effect_is_said(do: Callable[[str], Do], found: Dissection) -> None:
    do("ablate")(label="red", top=1)
    (found.folder / "interventions" / "ablate-red-paint-top1" / "effect.json").write_text("{}")
    with pytest.raises(DissectError, match=r"ablate-red-paint-top1/effect\.json .*lacks .*chosen_on"):
        write_report(found)


def test_a_folder_that_cannot_be_written_is_said_before_the_work(do: Callable[[str], Do], found: Dissection) -> None:
    (found.folder / "interventions").write_text("in the way")
    with pytest.raises(DissectError, match="interventions is a file"):
        do("ablate")(label="red", top=1, samples=10**9)
