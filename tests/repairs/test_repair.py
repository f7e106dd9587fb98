"""Repairs from end to end, on a generator whose fault is known: its reference has no green squares, it draws some."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Dissection, Generator, Repair, run
from ganatomy.dissect.generators.checkpoints import load_weights
from ganatomy.hooks import Edit, edited
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.reports.pages import write_report

from ..conftest import GREEN, RED, UNITS, Planted, Soft
from ..support.browser import expect, until

pytestmark = pytest.mark.slow

Mend = Callable[..., Repair]


def less_green(drawn: torch.Tensor) -> torch.Tensor:
    return -drawn[:, 1].mean((1, 2))


def images(generator: Generator, numbers: range, *edits: Edit) -> torch.Tensor:
    with torch.inference_mode(), edited(generator.module, *edits):
        return generator(generator.latents(numbers))


@pytest.fixture
def reference(planted: Generator, tmp_path: Path) -> Path:
    """Images of the generator without its green unit, of other latents."""
    folder = tmp_path / "reference"
    folder.mkdir()
    for number, image in enumerate(images(planted, range(9000, 9100), Edit(layer="paint", units=(GREEN,)))):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def mend(found: Dissection, planted: Generator, reference: Path) -> Mend:
    def call(**options: Any) -> Repair:
        usual = {"generator": planted, "segmenter": Soft(), "reference": reference, "samples": 80, "quiet": True}
        return dissect.repair(found, **(usual | options))

    return call


def test_the_unit_that_the_reference_lacks_is_taken_out(mend: Mend, found: Dissection, planted: Generator) -> None:
    done = mend(detector="realism", realism=less_green, top=1, value="zero")
    assert done.info["units"] == {"paint": [GREEN]}
    assert done.verdict == "improved"
    figures = done.fidelity.set_index(["set", "metric"])
    assert figures.value["repaired", "frechet"] < 0.2 * figures.value["before", "frechet"]
    random = figures.loc[[(f"random {k}", "frechet") for k in range(1, 6)]]
    assert (random.change > figures.change["repaired", "frechet"]).all()
    assert done.info["samples"] == {"first": 120, "last": 199, "number": 80}
    assert done.info["chosen_on"] == {"first": 0, "last": 119}
    # what else was lost, by hand
    before, after = (Soft()(images(planted, range(120, 200), *e)) for e in ((), (Edit(layer="paint", units=(GREEN,)),)))
    rows = done.effects.set_index("class")
    for number, name in enumerate(Soft.vocabulary.names):
        assert rows.before[name] == pytest.approx((before == number).float().mean().item(), abs=1e-5)
        assert rows.after[name] == pytest.approx((after == number).float().mean().item(), abs=1e-5)
    # the file has the repair in it
    again = Repair.load(found.folder / "repairs" / "realism-top1-zero")
    assert again.checkpoint.name == "planted-repaired.pth"
    state = torch.load(again.checkpoint, weights_only=True)
    fresh = Planted()
    load_weights(fresh, again.checkpoint)
    mine = Generator(module=fresh, name="m", source=planted.source, output_range=(0, 1))
    assert torch.allclose(images(mine, range(5)), images(planted, range(5), Edit(layer="paint", units=(GREEN,))))
    assert "paint.ganatomy_pull" in state  # `paint` has no weights to fold it into
    card = again.checkpoint.with_suffix(".md").read_text()
    assert "Improved: Fréchet distance" in card
    assert f"units {GREEN} pulled to zero" in card


def test_taking_out_what_the_reference_has_makes_it_worse(mend: Mend) -> None:
    done = mend(units={"paint": [RED]}, value="zero")
    assert done.verdict == "made worse"
    assert done.info["detector"] is None


def test_the_better_value_is_chosen_on_the_runs_samples_and_both_are_told(mend: Mend) -> None:
    done = mend(units=f"paint:{GREEN}", random_sets=2)
    assert done.info["values"] == {"paint": "zero"}  # its mean would tint everything
    assert list(dict.fromkeys(done.fidelity.set)) == ["before", "repaired", "mean", "random 1", "random 2"]
    assert done.units.value.tolist() == [0]
    mean = mend(units=f"paint:{GREEN}", random_sets=1, value="mean")
    assert mean.units.value[0] == pytest.approx(4 / 64)  # a square of 2×2 cells among 64
    assert "zero" in set(mean.fidelity.set)


def test_strength_scales_the_repair(mend: Mend) -> None:
    whole, half = (mend(units={"paint": [GREEN]}, value="zero", strength=s, random_sets=0) for s in (1, 0.5))
    change = [done.fidelity.set_index(["set", "metric"]).change["repaired", "frechet"] for done in (whole, half)]
    assert change[0] < change[1] < 0


def test_the_same_repair_gives_the_same_numbers_at_any_batch_size(mend: Mend) -> None:
    one, other = (mend(units={"paint": [GREEN]}, value="zero", batch_size=size) for size in (16, 7))
    for name in ("fidelity", "effects", "units"):
        a, b = getattr(one, name), getattr(other, name)
        assert np.allclose(a.select_dtypes("number"), b.select_dtypes("number"), rtol=1e-3, atol=1e-4, equal_nan=True)


def test_layers_one_by_one(planted: Generator, reference: Path, tmp_path: Path) -> None:
    both = run(planted, layers=["paint", "colour"], segmenter=Soft(), samples=80, out=tmp_path / "both", quiet=True)
    options = {"generator": planted, "segmenter": Soft(), "reference": reference, "samples": 80, "quiet": True}
    options |= {"detector": "realism", "realism": less_green}
    done = dissect.repair(both, top=1, value="zero", one_by_one=True, random_sets=1, **options)
    together = dissect.repair(both, top=1, value="zero", random_sets=1, **options)
    assert together.info["units"] == {"paint": [GREEN], "colour": [1]}  # both find the green channel
    assert done.info["units"]["paint"] == [GREEN]
    assert done.info["one_by_one"]
    assert done.info["folded"] == {"paint": False, "colour": True}


def test_units_from_a_table_or_from_lines(mend: Mend, tmp_path: Path) -> None:
    (tmp_path / "suspects.csv").write_text(f"rank,layer,unit,score\n1,paint,{GREEN},3\n2,paint,9,1\n")
    (tmp_path / "units.txt").write_text(f"# by hand\npaint:{GREEN}\npaint:9, {GREEN}\n")
    for file in ("suspects.csv", "units.txt"):
        assert mend(units=tmp_path / file, random_sets=0, value="zero").info["units"] == {"paint": [GREEN, 9]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "units=FILE.*detector=NAME"),
        ({"units": "paint:1", "detector": "rare"}, "units=FILE.*detector=NAME"),
        ({"units": "nothing.txt"}, r"units.*nothing\.txt.*LAYER:UNIT"),
        ({"units": "paint:1,40"}, "39.*40"),
        ({"units": "brush:1"}, "'brush'"),
        ({"units": {"paint": range(UNITS)}}, f"{UNITS} units of paint .*{UNITS}"),
        ({"detector": "rare", "top": UNITS}, f"{UNITS} units of paint .*{UNITS}"),
        ({"detector": "guess"}, "detector='guess': must be one of flagged, rare, local"),
        ({"detector": "flagged"}, "needs .flags"),
        ({"units": "paint:" + ",".join(["1"] * 3000) + ",40"}, "39.*40"),
        ({"units": "paint:1", "layer": "paint"}, "layer.*paint.* goes with .detector"),
        ({"units": "paint:1", "value": "two"}, "value='two': must be one of best, zero, mean"),
        ({"units": "paint:1", "strength": 0}, "strength=0: .*above 0 and at most 1"),
        ({"units": "paint:1", "samples": 10}, "samples=10: .* at least 64"),
        ({"units": "paint:1", "out": "repaired.zip"}, r"out.*repaired\.zip.*\.pth"),
        ({"units": "paint:1", "reference": None}, "reference=FOLDER"),
        ({"units": "paint:1", "name": "..."}, "letters or digits"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    mend: Mend, found: Dissection, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        mend(**options)
    assert "\n" not in str(caught.value)
    assert not list(found.folder.glob("repairs/*"))


def test_a_result_is_kept_and_never_replaced(mend: Mend, found: Dissection, tmp_path: Path) -> None:
    options = {"units": {"paint": [GREEN]}, "value": "zero", "random_sets": 0}
    first = mend(**options)
    assert mend(**options).info["created"] == first.info["created"]
    with pytest.raises(UsageError, match=r"strength: .*1\.0.*0\.5.*name"):
        mend(**options, strength=0.5, name=first.info["name"])
    (tmp_path / "mine.md").write_text("my own card")
    for out in (tmp_path / "mine.pth", found.folder / "repairs" / "x" / "mine.pth"):
        with pytest.raises(UsageError, match=r"out=\S*mine\.pth"):
            mend(**options, out=out, name="x")
    assert (tmp_path / "mine.md").read_text() == "my own card"
    assert not (found.folder / "repairs" / "x").exists()


def test_nothing_half_written_is_left(mend: Mend, found: Dissection, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = mend(units={"paint": [GREEN]}, value="zero", random_sets=0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ganatomy.dissect.repairs.checkpoint.write_atomic", full)
    with pytest.raises(DissectError, match="No space left on device"):
        mend(units={"paint": [RED]}, value="zero", random_sets=0, name="other")
    assert [path.name for path in (found.folder / "repairs").iterdir()] == [kept.info["name"]]
    assert Repair.load(found.folder / "repairs" / kept.info["name"]).checkpoint.is_file()

    killed = found.folder / "repairs" / "other.0123.part"
    shutil.copytree(found.folder / "repairs" / kept.info["name"], killed)
    assert [path.name for path in found.repairs] == [kept.info["name"]]
    shutil.rmtree(killed)
    with pytest.raises(DissectError, match="/proc"):
        mend(units={"paint": [GREEN]}, out="/proc/none/repaired.pth")


def test_images_that_are_not_finite_are_refused(mend: Mend, found: Dissection, planted: Generator) -> None:
    handle = planted.module.grow.register_forward_hook(lambda _m, _i, x: x / 0)
    try:
        with pytest.raises(DissectError, match=r"not finite|twice"):
            mend(units={"paint": [GREEN]})
    finally:
        handle.remove()
    assert not list(found.folder.glob("repairs/*"))


FACTORY = """
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.tests.conftest import Planted, Soft
namer = Soft
def net():
    module = Planted().requires_grad_(False)
    return Generator(module=module, name="mine", source=NormalLatents((6,)), layers=("paint",), output_range=(0, 1))
def less_green():
    return lambda images: -images[:, 1].mean((1, 2))
"""


def test_the_command_finds_repairs_and_shows(on_path: Path, reference: Path, page: Any) -> None:
    (on_path / "mine.py").write_text(FACTORY)
    save_file(Planted().state_dict(), on_path / "net.safetensors")

    def call(*arguments: object) -> Any:
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done

    model = ("--model", "mine:net", "--weights", "net.safetensors", "--segmenter", "mine:namer")
    first = call("artifacts", *model, "--layer", "paint", "--detector", "realism", "--realism", "mine:less_green")
    where = Path("runs/mine-paint")
    assert first.stdout.strip().endswith("report/index.html#artifacts=realism")
    assert "Suspects of paint, by realism" in first.stderr
    assert (
        (where / "artifacts" / "realism" / "suspects.csv").read_text().splitlines()[1].startswith(f"1,paint,{GREEN},")
    )
    said = ("--realism", "mine:less_green", "--reference", reference, "--samples", 64)
    second = call("repair", where, "--detector", "realism", "--top", 1, *said, "--out", "mended.pth")
    assert "Improved: Fréchet distance" in " ".join(second.stderr.split())
    assert second.stdout.splitlines()[0] == str((on_path / "mended.pth").resolve())
    assert (on_path / "mended.md").is_file()
    third = call("repair", where, "--units", f"paint:{RED}", "--value", "zero", *said, "--name", "red", "--json")
    assert json.loads(third.stdout)["verdict"] == "made worse"
    call("run", "--model", "mine:net", "--weights", "mended.pth", "--segmenter", "mine:namer",
         "--layer", "paint", "--samples", 20, "--out", "again", "--quiet")  # fmt: skip
    repaired = Dissection.load("again").units.set_index("unit")
    assert repaired.state[GREEN] == "constant"

    page.goto((where / "report" / "index.html").resolve().as_uri() + "#repairs")
    expect(page.locator("#view-repairs tbody tr")).to_have_count(2)
    page.get_by_role("link", name="red", exact=True).click()
    expect(page.locator(".verdict:visible")).to_contain_text("Made worse")
    page.get_by_role("link", name="← Artifacts and repairs").locator("visible=true").click()
    page.get_by_role("link", name="realism", exact=True).click()
    until(page, "document.querySelectorAll('.view:not([hidden]) [data-suspects] .card').length === 24")
    expect(page.locator("[data-suspects] .card:visible").first).to_contain_text(f"unit {GREEN}")
    page.locator("[data-suspects] .open:visible").first.click()
    expect(page.locator("dialog[open]")).to_have_count(1)

    lost = CliRunner().invoke(main, ["artifacts"])
    assert lost.exit_code == 2
    assert "Give the folder of a run, or --model" in lost.stderr


def test_a_corrupt_repair_is_told_in_one_line(mend: Mend, found: Dissection) -> None:
    mend(units={"paint": [GREEN]}, value="zero", random_sets=0)
    place = next((found.folder / "repairs").iterdir())
    (place / "fidelity.csv").write_text("what,ever\n1,2\n")
    with pytest.raises(DissectError, match=r"damaged|cannot be read"):
        write_report(found)
    shutil.rmtree(place)
    write_report(found)
