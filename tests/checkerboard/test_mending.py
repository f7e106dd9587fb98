"""Repairs of a planted checkerboard: what each leaves of it, whether the files load, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

from ganatomy.cli import main
from ganatomy.dissect import Checkup, Generator, NormalLatents, Repair, checkerboard, checkup
from ganatomy.dissect.checkerboard.closed_form import input_moments, mended, notch
from ganatomy.dissect.checkerboard.finetune import finetune
from ganatomy.dissect.checkerboard.kernels import amplitude, flat_response, phase_sums
from ganatomy.dissect.checkerboard.upsampling import upsamplings
from ganatomy.dissect.generators.checkpoints import load_weights
from ganatomy.dissect.generators.families.dcgan import DCGAN, ResizeConv
from ganatomy.dissect.generators.recognition import open_checkpoint
from ganatomy.hooks.errors import UsageError
from ganatomy.reports.checkup import write_checkup

from ..conftest import ColourSegmenter
from ..support.boards import Board, board, photographs
from ..support.browser import expect, until

pytestmark = pytest.mark.slow

Mend = Callable[..., Repair]


def images(generator: Generator, numbers: range = range(16)) -> torch.Tensor:
    with torch.no_grad():
        return generator(generator.latents(numbers))


@pytest.fixture(autouse=True)
def few_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from fewer halves: they are tested elsewhere, and take most of the time."""
    monkeypatch.setattr("ganatomy.dissect.stats.intervals.ROUNDS", 10)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checkup:
    folder = tmp_path_factory.mktemp("checked")
    real = photographs(folder / "photographs")
    return checkup(board(), samples=64, reference=real, out=folder / "checkup", quiet=True)


@pytest.fixture
def mend(checked: Checkup, request: pytest.FixtureRequest) -> Mend:
    def call(**options: Any) -> Repair:
        usual = {"generator": board(), "samples": 96, "random_sets": 1, "segmenter": ColourSegmenter(), "quiet": True}
        usual["name"] = request.node.name
        return checkerboard.repair(checked, **(usual | options))

    return call


@pytest.mark.parametrize("method", ["equalise", "resize", "box", "notch"])
def test_every_method_takes_the_planted_grid_out(method: str, mend: Mend) -> None:
    found = mend(method=method)
    before, after = (found.grid[found.grid.set == name].iloc[0] for name in ("before", "repaired"))
    assert before.own_z > 4
    assert after.own_z <= before.own_z / 2
    assert after.own_excess < before.own_excess - 10  # dB
    if method != "notch":
        assert after.flat < 1e-6 < before.flat
        assert after.ripple < 0.3 * before.ripple
        assert found.grid[found.grid.set == "random 1"].own_z.iloc[0] > after.own_z
    if method != "box":  # it blurs, which the scene features were trained to overlook: either verdict may come
        assert found.verdict == "improved", found.info["sentence"]
    assert {"before", "repaired"} < set(found.fidelity.set)
    assert list(found.effects["class"])[-1] == "unlabelled"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("method", ["equalise", "resize", "box", "notch"])
def test_the_repaired_file_draws_the_same(method: str, suffix: str, mend: Mend, tmp_path: Path) -> None:
    found = mend(method=method, out=tmp_path / f"mended{suffix}", name=f"{method}{suffix}", samples=64, random_sets=0)
    again = board()
    load_weights(again.module, found.checkpoint)
    site = upsamplings(board())
    moments = input_moments(board(), site, range(64), 16)
    wanted = mended(board(), site, method, moments=moments, image=(32, 48))
    assert torch.allclose(images(again), images(wanted), atol=1e-5)
    assert not torch.allclose(images(again), images(board()), atol=1e-3)
    state = torch.load(found.checkpoint, weights_only=True) if suffix == ".pth" else None
    if method == "equalise" and state is not None:
        plain = Board()
        plain.load_state_dict(state)  # plain PyTorch, strictly
    text = found.checkpoint.with_suffix(".md").read_text()
    assert found.info["sentence"] in text
    assert ("plain PyTorch loads the file as before" in text) == (method == "equalise")


def test_a_mended_dcgan_loads_by_itself(tmp_path: Path) -> None:
    """The example's layout, a layer of it resized, one with a box, one equalised, and all of it notched."""
    torch.manual_seed(0)
    module = DCGAN(8, (16, 8, 8), (4, 3, 4)).eval().requires_grad_(False)
    whole = Generator(module=module, name="g", source=NormalLatents((8,)))
    for name, method in (("main.3", "resize"), ("main.6", "box"), ("main.9", "equalise"), ("main.9", "notch")):
        sites = [site for site in upsamplings(whole) if site.name == name]
        whole = mended(whole, sites, method, image=(32, 32))
    torch.save(whole.module.state_dict(), tmp_path / "g.pth")
    again = open_checkpoint(tmp_path / "g.pth")
    assert isinstance(again.module.get_submodule("main.3"), ResizeConv)
    assert torch.allclose(images(again), images(whole), atol=1e-6)


def test_strength_goes_from_nothing_to_all() -> None:
    sites, plain = upsamplings(board()), images(board())
    level = torch.ones(4)
    for method in ("equalise", "resize", "box", "notch"):
        assert torch.allclose(images(mended(board(), sites, method, 0.0, image=(32, 48))), plain, atol=1e-6)
        whole = images(mended(board(), sites, method, 1.0, image=(32, 48)))
        half = images(mended(board(), sites, method, 0.5, image=(32, 48)))
        assert torch.allclose(half, (plain + whole) / 2, atol=2e-3)  # images are clamped
    geometry = sites[0].geometry
    assert geometry is not None
    flats = [
        amplitude(flat_response(module_weight(mended(board(), sites, "equalise", s)), geometry, level)).max()
        for s in (0.0, 0.5, 1.0)
    ]
    assert float(flats[1]) == pytest.approx(float(flats[0]) / 2, rel=1e-4)
    assert float(flats[2]) < 1e-6


def module_weight(generator: Generator) -> torch.Tensor:
    return generator.module.get_submodule("up").get_parameter("weight")


def test_the_given_generator_is_left_alone() -> None:
    generator = board()
    before = images(generator)
    for method in ("equalise", "resize", "box", "notch"):
        mended(generator, upsamplings(generator), method, image=(32, 48))
    assert torch.equal(images(generator), before)


def test_a_pixel_shuffle_is_equalised_with_its_biases() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Conv2d(5, 12, 3, padding=1)
            self.shuffle = nn.PixelShuffle(2)

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return self.shuffle(self.filters(latents.view(-1, 5, 1, 1).expand(-1, 5, 16, 16)))

    generator = Generator(module=Shuffled().requires_grad_(False), name="s", source=NormalLatents((5,)))
    sites = upsamplings(generator)
    whole = mended(generator, sites, "equalise")
    with torch.no_grad():
        flat = whole.module(torch.randn(1, 5))[0, :, 10:12, 10:12]
        assert float(amplitude(flat).max()) < 1e-6
        assert float(amplitude(generator.module(torch.randn(1, 5))[0, :, 10:12, 10:12]).max()) > 1e-2
    with pytest.raises(UsageError, match=r"resize .*shuffle \(pixel shuffle\)"):
        mended(generator, sites, "resize")


def test_a_notch_takes_out_its_grid_and_little_else() -> None:
    pattern = notch((4, 4))
    assert float(pattern.sum()) == pytest.approx(1, abs=1e-5)
    axis = torch.arange(96)
    for period, left in ((4, 0.0), (2, 0.0), (16, 1.0), (7, 1.0)):
        wave = torch.cos(2 * torch.pi * axis / period)[:, None] * torch.ones(96)
        through = F.conv2d(wave[None, None], pattern[None, None])[0, 0]
        inner = wave[pattern.shape[0] // 2 : -(pattern.shape[0] // 2), pattern.shape[1] // 2 : -(pattern.shape[1] // 2)]
        assert float((through * inner).mean() / inner.square().mean()) == pytest.approx(left, abs=0.05), period


def test_a_box_is_not_trained() -> None:
    """It lies in the only weights that this generator has."""
    student = mended(board(), upsamplings(board()), "box")
    with pytest.raises(UsageError, match=r"finetune_minutes.*\bbox\b"):
        finetune(student, board(), upsamplings(student), method="box", period=(2, 2), minutes=0.02, batch=8)


@pytest.mark.parametrize("method", ["equalise", "resize"])
def test_fine_tuning_keeps_what_the_repair_guarantees(method: str) -> None:
    teacher = board()
    student = mended(teacher, upsamplings(teacher), method)
    sites = upsamplings(student)
    before = {name: tensor.clone() for name, tensor in student.module.state_dict().items()}
    steps = finetune(student, teacher, sites, method=method, period=(2, 2), minutes=0.02, batch=8)
    assert steps > 0
    if method == "equalise":
        assert sites[0].geometry is not None
        assert float(amplitude(phase_sums(module_weight(student), sites[0].geometry)).max()) < 1e-6
    assert isinstance(student.module.get_submodule("up"), ResizeConv) == (method == "resize")
    changed = any(not torch.equal(tensor, before[name]) for name, tensor in student.module.state_dict().items())
    assert changed
    assert not any(parameter.requires_grad for parameter in student.module.parameters())


def test_a_fine_tuned_repair_says_how_long(mend: Mend) -> None:
    found = mend(finetune_minutes=0.02)
    assert found.info["finetune"]["steps"] > 0
    assert "equalise alone" in set(found.grid.set)
    assert "fine-tuned for 0.02 minutes" in found.checkpoint.with_suffix(".md").read_text()


def test_moments_do_not_depend_on_the_batch() -> None:
    sites = upsamplings(board())
    few, many = (input_moments(board(), sites, range(50), size)["up"] for size in (7, 64))
    for phase, moment in few.items():
        assert torch.allclose(many[phase], moment, rtol=1e-6)


@pytest.mark.parametrize("fault", ["spectral", "twice", "oblong", "small"])
def test_what_one_method_cannot_change_others_can(fault: str, tmp_path: Path) -> None:
    generator = board()
    module = generator.module
    assert isinstance(module, Board)
    if fault == "spectral":
        module.up = nn.utils.parametrizations.spectral_norm(module.up)
    elif fault == "oblong":
        module.up = nn.ConvTranspose2d(4, 3, (4, 6), 2, (1, 2), bias=False)
    elif fault == "small":
        module.up = nn.ConvTranspose2d(4, 3, 1, 2, 0, 1, bias=False)
    else:
        module.units = nn.Sequential(
            twice := nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.AvgPool2d(2), twice, nn.AvgPool2d(2)
        )
    module.requires_grad_(False)
    real = photographs(tmp_path / "photographs")
    found = checkup(generator, samples=64, reference=real, out=tmp_path / "it", quiet=True)
    options: dict[str, Any] = {"generator": generator, "samples": 64, "random_sets": 1, "quiet": True}
    layers = ("units.0",) if fault == "twice" else ("up",)
    methods = {"spectral": ["notch"], "oblong": ["equalise", "box", "notch"], "small": ["box", "notch"]}
    for method in methods.get(fault, ["equalise", "resize"]):
        mended_one = checkerboard.repair(found, method=method, layers=layers, **options)
        assert mended_one.checkpoint.is_file()
        assert set(methods.get(fault, ["box"])) <= set(mended_one.curve.method)
    if fault != "twice":
        with pytest.raises(UsageError, match=r"resize .*\bup\b"):
            checkerboard.repair(found, method="resize", layers=layers, **options)


def test_where_there_was_no_peak_nothing_is_improved(tmp_path: Path) -> None:
    real = photographs(tmp_path / "photographs")
    found = checkup(board(0.0), samples=64, reference=real, out=tmp_path / "it", quiet=True)
    options: dict[str, Any] = {"samples": 64, "random_sets": 0, "quiet": True}
    same = checkerboard.repair(found, generator=board(0.0), method="notch", layers=("up",), **options)
    assert same.verdict == "not improved"
    assert "there was no peak of the layer's grid" in same.info["sentence"]


def test_the_trade_off_falls_from_all_to_nothing(mend: Mend) -> None:
    curve = mend(samples=64).curve
    for method, rows in curve.groupby("method"):
        assert list(rows.strength) == [0, 0.25, 0.5, 0.75, 1]
        assert rows.levels.is_monotonic_increasing
        if method != "notch":
            assert rows.left.tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=0.04)


def test_the_same_repair_is_kept_and_another_under_its_name_refused(mend: Mend, checked: Checkup) -> None:
    one = mend(name="mine", samples=64)
    assert mend(name="mine", samples=64).info == json.loads(json.dumps(one.info))
    with pytest.raises(UsageError, match=r"samples: .*64.*65"):
        mend(name="mine", samples=65)
    assert checked.folder / "repairs" / "mine" in checked.repairs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "blur"}, "method='blur': must be one of equalise, resize, box, notch"),
        ({"strength": 0.0}, "strength=0:"),
        ({"samples": 3}, "samples=3: .* at least 64"),
        ({"layers": ("down",)}, "layer.*down.*up"),
        ({"finetune_minutes": -1.0}, "finetune_minutes=-1"),
        ({"finetune_minutes": 1.0, "method": "notch"}, "finetune_minutes.*notch"),
        ({"finetune_minutes": 1.0, "strength": 0.5}, "finetune_minutes.*strength=1"),
        ({"name": "..."}, "letters or digits"),
        ({"generator": None}, "checkup in .* a generator in Python"),
        ({"generator": board(0.3)}, "has changed since the checkup"),
        ({"reference": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    options: dict[str, Any], said: str, mend: Mend, checked: Checkup
) -> None:
    there = checked.repairs
    with pytest.raises(UsageError, match=said):
        mend(**options)
    assert checked.repairs == there


def test_a_clean_generator_has_no_layer_to_repair_unless_one_is_named(tmp_path: Path) -> None:
    real = photographs(tmp_path / "photographs")
    clean = checkup(board(0.0), samples=64, reference=real, out=tmp_path / "it", quiet=True)
    with pytest.raises(UsageError, match="layer"):
        checkerboard.repair(clean, generator=board(0.0), quiet=True)
    bare = checkup(board(), samples=64, out=tmp_path / "bare", quiet=True)
    with pytest.raises(UsageError, match="reference=FOLDER"):
        checkerboard.repair(bare, generator=board(), quiet=True)


def test_the_command_and_its_page(checked: Checkup, tmp_path: Path, page: Any) -> None:
    real = checked.info["config"]["reference"]
    folder = tmp_path / "it"
    run = CliRunner()
    made = run.invoke(main, ["checkup", "--model", "tests.support.boards:make", "--samples", "64", "--reference", real,
                             "--out", str(folder), "--quiet"])  # fmt: skip
    assert made.exit_code == 0, made.output
    arguments = ["repair", str(folder), "--checkerboard", "--samples", "64", "--random-sets", "1"]
    shown = run.invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "Improved" in shown.output
    address = shown.stdout.strip().splitlines()[-1]
    told = json.loads(run.invoke(main, [*arguments, "--json"]).stdout)
    assert (told["verdict"], told["method"], told["layers"]) == ("improved", "equalise", ["up"])
    assert Path(told["checkpoint"]).is_file()
    page.goto(address)
    page.evaluate("document.querySelectorAll('img').forEach((one) => (one.loading = 'eager'))")
    until(page, "[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    expect(page.locator("#layers tbody tr")).to_have_count(1)
    expect(page.locator("#layers .visible")).to_have_text("visible", use_inner_text=True)
    expect(page.locator(".spectra figure")).to_have_count(3)
    assert page.locator(".pattern td").all_inner_texts() == ["4"] * 4
    expect(page.locator("#repairs")).to_contain_text("equalise-up")
    slider = page.locator("#repair-equalise-up .pair input").first
    slider.focus()
    slider.press("ArrowRight")
    page.locator("#where input[value=difference]").first.check()
    expect(page.locator("#where .difference").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkerboard"], "Give the folder of a checkup, or --model"),
        (["x", "--checkerboard", "--model", "dcgan_scenes"], "Give the folder of a checkup, or --model"),
        (["x", "--checkerboard", "--detector", "rare"], "--detector does not go with --checkerboard"),
        (["x", "--checkerboard", "--top", "3"], "--top does not go with --checkerboard"),
        (["x", "--method", "box", "--units", "layer4:1"], "--method goes with --checkerboard"),
        (["--units", "layer4:1"], "Name the folder of a run"),
        (["x", "--checkerboard", "--latent", "normal:4"], "--latent goes with --model"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["repair", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_a_damaged_repair_is_said_on_the_page(mend: Mend, checked: Checkup) -> None:
    found = mend(name="hurt", samples=64)
    place = checked.folder / "repairs" / "hurt"
    (place / "grid.csv").unlink()
    with pytest.raises(Exception, match=r"grid\.csv"):
        write_checkup(checked)
    for file in place.iterdir():
        file.unlink()
    place.rmdir()
    assert found.info["name"] == "hurt"
