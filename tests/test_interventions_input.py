"""Interventions that cannot be, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ganatomy import dissect
from ganatomy.dissect import Dissection, Generator
from ganatomy.hooks.errors import DissectError, UsageError

from .conftest import Do, Soft


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("ablate", {"label": "gren"}, r"no class 'gren'. Did you mean green or red\?.* There are .*red"),
        ("ablate", {"label": "blue"}, "No unit of paint is labelled 'blue'; labelled there: red, green"),
        ("ablate", {"label": "red", "top": 41}, "--top 41: layer paint has 40 units"),
        ("ablate", {"label": "red", "top": 0}, "--top 0"),
        ("ablate", {"units": "paint:3,40"}, "has units 0 to 39; asked for 40"),
        ("ablate", {"units": "paint"}, "write LAYER:UNIT"),
        ("ablate", {"units": "colour:1"}, "has no layer 'colour'"),
        ("ablate", {}, "Say which units"),
        ("ablate", {"label": "red", "value": "one"}, "--value 'one' is not known; there are zero, mean, resample"),
        ("ablate", {"label": "red", "by": "luck"}, "--by 'luck' is not known; there are iou, scan"),
        ("ablate", {"units": [3], "curve": True}, "--curve shows how much of a class remains"),
        ("insert", {"units": [3]}, "name a --class, or give --level"),
        ("insert", {"label": "red", "where": "2,2"}, "a place inside the image"),
        ("insert", {"label": "red", "where": "nowhere.png"}, "there is no such file"),
        ("insert", {"label": "red", "where": "class:bleu"}, "no class 'bleu'. Did you mean blue"),
        ("insert", {"label": "red", "samples": 1}, "--samples 1"),
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
    with pytest.raises(UsageError, match=r"planted has changed since the run .*sha256 \w{12}… now, \w{12}… then"):
        do("ablate")(label="red", top=1)
    assert not (found.folder / "interventions").exists()


def test_a_run_of_objects_asks_for_them(found: Dissection) -> None:
    with pytest.raises(UsageError, match=r"given its generator as an object in Python; .*generator=…"):
        dissect.ablate(found, label="red")


def test_nothing_is_left_when_the_disk_fails(do: Callable[[str], Do], found: Dissection) -> None:
    (found.folder / "interventions").write_text("in the way")
    with pytest.raises(DissectError, match=r"Writing to .* failed"):
        do("ablate")(label="red", top=1)
    assert (found.folder / "interventions").read_text() == "in the way"


def test_pixels_that_are_not_finite_are_said(planted: Generator) -> None:
    planted.module.colour.weight.data[0, 0] = torch.nan
    with pytest.raises(DissectError, match="drew pixels that are not finite in samples 0 to"):
        dissect.ablate(planted, units="paint:1", segmenter=Soft(), samples=4, quiet=True)


def test_a_damaged_folder_is_said(do: Callable[[str], Do], found: Dissection) -> None:
    do("ablate")(label="red", top=1)
    (found.folder / "interventions" / "ablate-red-paint-top1" / "effects.csv").write_bytes(b"")
    with pytest.raises(DissectError, match=r"effects\.csv cannot be read .*give another --name"):
        do("ablate")(label="red", top=1)


def test_another_seed_of_latents_is_the_runs(planted: Generator, found: Dissection) -> None:
    other = replace(planted, source=planted.source.seeded(5))
    effects = dissect.ablate(found, label="red", top=1, generator=other, segmenter=Soft(), samples=8, quiet=True)
    shots = effects.pictures
    mine = planted(planted.latents(shots["sample"].tolist())).permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(mine - shots["before"]).max() <= 0.5
