"""Every family as a user meets it: a checkpoint is opened, inspected, dissected and intervened in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import ModelSpec, load_generator, run
from ganatomy.dissect.generators.families import stylegan2
from ganatomy.dissect.generators.families.biggan_layers import SpectralWeight
from ganatomy.dissect.generators.kept_edits import attach
from ganatomy.dissect.generators.sources import ClassLatents, FolderImages
from ganatomy.dissect.subjects.identity import fingerprint
from ganatomy.dissect.subjects.inspection import inspect
from ganatomy.dissect.subjects.opening import layer_name
from ganatomy.dissect.subjects.untrained import untrained
from ganatomy.hooks import Tap
from ganatomy.hooks.errors import DissectError, DissectWarning, UsageError

from ..conftest import ColourSegmenter
from ..support.families import FAMILIES, kept, lively, photos
from ..support.releases import Kept
from .test_stylegan import ported


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_from_file_to_ablation(family: str, tmp_path: Path) -> None:
    make, layer = FAMILIES[family]
    spec = make(tmp_path)
    told = inspect(spec)
    if family not in ("own", "encoded"):
        assert told.recognised.startswith(f"{family}: ")
    assert len(told.layers) > 0
    assert told.layers.suggested.any()
    found = run(
        spec, layers=layer, segmenter=ColourSegmenter(), samples=8, significance="off", out=tmp_path / "run", quiet=True
    )
    assert len(found.units) == next(iter(found.info["layers"].values()))["units"]
    (name,) = found.layers
    every = ",".join(map(str, range(len(found.units))))
    effects = dissect.ablate(
        found, units=f"{name}:{every}", segmenter=ColourSegmenter(), samples=4, random_sets=0, quiet=True
    )  # the generator is opened again, as the run says
    before, after = (effects.pictures[name].astype(int) for name in ("before", "after"))
    assert np.abs(after - before).max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_the_same_in_any_batch(family: str, tmp_path: Path) -> None:
    generator = load_generator(FAMILIES[family][0](tmp_path), seed=3)
    with torch.no_grad():
        alone = generator(generator.latents([5]))
        among = generator(generator.latents([9, 5, 2]))[1:2]
    assert torch.allclose(alone, among, atol=1e-4)


def persistent(module: nn.Module, name: str = "Part", **options: object) -> Kept:
    """The module as NVIDIA's persistence would write it: all of it records with a class name and source."""
    made = type(name, (Kept,), {})(**options)
    vars(made).update({key: getattr(module, key) for key in ("_parameters", "_buffers")})
    for key, part in module.named_children():
        made.add_module(key, persistent(part))
    return made


def test_a_release_file_opens_as_what_it_holds(written: Callable[..., Path]) -> None:
    module = stylegan2.StyleGAN2(8, (8, 8), (6, 5, 4))
    lively(module)
    options = {"z_dim": 8, "synthesis_kwargs": {"conv_clamp": 0.25}}
    path = written({"G": None, "G_ema": persistent(module.requires_grad_(True), "Generator", **options)})
    generator = load_generator(str(path))
    assert isinstance(generator.module, stylegan2.StyleGAN2)
    latents = generator.latents([0, 1])
    clamped = stylegan2.infer(module.state_dict() | {"synthesis.conv_clamp": torch.tensor(0.25)})
    with torch.no_grad():
        assert torch.allclose(generator.module(latents), clamped(latents), atol=1e-6)
        assert not torch.allclose(generator.module(latents), module(latents), atol=1e-6)
    plain = written({"G_ema": persistent(module, "Generator", z_dim=8)})
    assert fingerprint(load_generator(str(plain)).module) != fingerprint(generator.module)


def test_a_plain_checkpoint_may_be_called_pkl(tmp_path: Path) -> None:
    spec = FAMILIES["progan"][0](tmp_path)
    state = torch.load(spec.model, weights_only=True)
    for old in (False, True):
        torch.save(state, tmp_path / "g.pkl", _use_new_zipfile_serialization=not old)
        assert load_generator(str(tmp_path / "g.pkl")).module.state_dict().keys() == state.keys()


def test_wrappers_and_prefixes_of_training_scripts(tmp_path: Path) -> None:
    state = torch.load(FAMILIES["stylegan2"][0](tmp_path).model, weights_only=True)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    average = torch.randn(8)
    for content in ({"g": {}, "g_ema": wrapped, "latent_avg": None}, {"g": wrapped, "d": {}}):
        assert load_generator(kept(tmp_path, content)).recognised
    port = ported(state)
    del port["latent_avg"]
    content = {"g_ema": {f"module.{key}": value for key, value in port.items()}, "latent_avg": average}
    found = load_generator(kept(tmp_path, content))
    assert torch.equal(found.module.get_buffer("mapping.w_avg"), average)


@pytest.mark.parametrize(
    "change",
    [
        {"to_rgbs.99999999999.bias": torch.zeros(3)},
        {"convs.99999999999.conv.weight": torch.zeros(1)},
        {"noises.noise_" + "9" * 5000: torch.zeros(1)},
        {"input.input": torch.zeros(())},
        {"conv1.noise.weight": torch.zeros(3)},
        {"conv1.conv.weight": torch.zeros(1, 0, 0, 3, 3)},
        {"mapping.embed.weight": torch.zeros(())},
        {"conv1.conv.weight": torch.zeros(1, dtype=torch.complex64)},
    ],
)
def test_tensors_that_make_no_sense_end_in_one_line(change: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state = {"input.input": torch.zeros(1, 4, 4, 4), "to_rgb1.bias": torch.zeros(1, 3, 1, 1)} | change
    with pytest.raises(DissectError) as caught:
        load_generator(kept(tmp_path, state))
    assert "\n" not in str(caught.value)


def test_what_nobody_knows_is_told_family_by_family(tmp_path: Path) -> None:
    state = {f"layer{number}.strange": torch.zeros(2) for number in range(9)}
    with pytest.raises(DissectError) as caught:
        load_generator(kept(tmp_path, state))
    said = str(caught.value)
    assert "layer0.strange, layer1.strange, layer2.strange and 6 more" in said
    for family in ("progan", "dcgan", "stylegan", "stylegan2", "biggan", "biggan_deep", "pix2pix", "spandrel"):
        assert f"{family}: " in str(caught.value.__cause__)  # as --debug shows
    assert "\n" not in said


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("biggan", {"label": 3}, "label=3: .* 0 to 2"),
        ("biggan", {"noise": "fixed"}, "noise.* goes with StyleGANs"),
        ("biggan_deep", {"truncation": 1.5}, "truncation=1.5: .*above 0"),
        ("progan", {"truncation": 0.5}, "truncation.* goes with StyleGANs and BigGANs"),
        ("CycleGAN/pix2pix ResNet", {"inputs": None}, "takes images: give them by inputs"),
        ("CycleGAN/pix2pix ResNet", {"inputs": "nowhere"}, "inputs=.*nowhere.? does not exist"),
        ("own", {"label": 1}, "takes no labels|label"),
        ("own", {"latent": "normal:3"}, "latent.* and .inputs.* exclude each other"),
        ("own", {"inputs": None}, "takes images; give them by inputs"),
    ],
)
def test_options_that_do_not_go_with_a_family(family: str, options: dict, said: str, tmp_path: Path) -> None:
    spec = FAMILIES[family][0](tmp_path)
    with pytest.raises(UsageError, match=said):
        load_generator(ModelSpec(**(vars(spec) | options))).latents([0])


def test_images_of_a_folder_are_cut_and_never_resized(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 5, 32)
    photos(tmp_path / "photos" / "small", 1, 21)
    source = FolderImages(str(tmp_path / "photos"), multiple=4, crop=True)
    assert source.size == (20, 20)
    images = source(range(6))
    assert images.shape == (6, 3, 20, 20)
    assert float(images.min()) >= -1
    assert float(images.max()) <= 1
    by_hand = np.asarray(Image.open(source.files[2]), np.float32)
    top = (by_hand.shape[0] - 20) // 2
    wanted = by_hand[top : top + 20, top : top + 20].transpose(2, 0, 1) / 127.5 - 1
    assert np.allclose(images[2].numpy(), wanted, atol=1e-5)
    with pytest.raises(UsageError, match=r"holds 6 images, .* sample 6 "):
        source([6])
    with pytest.raises(UsageError, match=r"at least 32 pixels a side; .*000\.png has 21×21"):
        _ = FolderImages(str(tmp_path / "photos"), least=32).size
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    with pytest.warns(DissectWarning, match=r"6 of 7 files are read; left out: broken\.png"):
        assert FolderImages(str(tmp_path / "photos"), multiple=4, crop=True).size == (20, 20)


def test_a_folders_order_is_its_seeds_and_survives_newcomers(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 30)
    files = FolderImages(folder).files
    assert files != sorted(files)
    assert files != FolderImages(folder, seed=1).files
    photos(tmp_path / "photos" / "more", 1, 33)
    (tmp_path / "photos" / "runs").mkdir()
    (tmp_path / "photos" / "runs" / "run.json").write_text("{}")
    photos(tmp_path / "photos" / "runs" / "report", 3)
    photos(tmp_path / "photos" / ".thumbnails", 3)
    again = FolderImages(folder).files
    assert len(again) == 31
    assert [file for file in again if file in files] == files


def test_a_folder_with_other_images_is_another_one(tmp_path: Path) -> None:
    spec = FAMILIES["CycleGAN/pix2pix ResNet"][0](tmp_path)
    options = {"layers": "model.10", "segmenter": ColourSegmenter(), "significance": "off", "quiet": True}
    found = run(spec, samples=8, out=tmp_path / "run", **options)
    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "007.png")
    with pytest.raises(UsageError, match="holds another run"):
        run(spec, samples=8, out=tmp_path / "run", **options)
    with pytest.raises(UsageError, match=r"folder of images has changed since the run .* \(latent: "):
        dissect.ablate(found, units="model.10:1", segmenter=ColourSegmenter(), samples=4, quiet=True)
    with pytest.raises(UsageError, match=r"holds 24 images, .* sample 24 "):
        run(spec, samples=25, out=tmp_path / "many", **options)
    assert not (tmp_path / "many").exists()


def test_pixels_come_in_as_people_see_them(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    colours = np.zeros((2, 3, 4), np.uint8)
    colours[0, 0] = 255, 0, 0, 255  # a red corner; all else is transparent
    Image.fromarray(colours).save(tmp_path / "p" / "a.png")
    (found,) = FolderImages(str(tmp_path / "p"), value_range=(0, 1))([0])
    assert found[:, 0, 0].tolist() == [1, 0, 0]
    assert found[:, 1, 2].tolist() == [1, 1, 1]
    (tmp_path / "p" / "a.png").unlink()
    sideways = Image.fromarray(np.full((8, 16, 3), 90, np.uint8))
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "p" / "b.jpg", exif=exif)
    source = FolderImages(str(tmp_path / "p"))
    assert source.size == (16, 8)
    assert source([0]).shape == (1, 3, 16, 8)
    (tmp_path / "p" / "b.jpg").unlink()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "p" / "c.png")
    (found,) = FolderImages(str(tmp_path / "p"), value_range=(0, 1))([0])
    assert found[0, 0, 0] * 255 == pytest.approx(round(40_000 / 257))


def test_a_decoder_with_another_scale_is_another_one(tmp_path: Path) -> None:
    spec = FAMILIES["latent diffusion (diffusers)"][0](tmp_path)
    options = {"layers": "1", "segmenter": ColourSegmenter(), "samples": 4, "significance": "off", "quiet": True}
    run(spec, out=tmp_path / "run", **options)
    file = tmp_path / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scaling_factor": 0.5}))
    with pytest.raises(UsageError, match=r"holds another run.*scaling"):
        run(spec, out=tmp_path / "run", **options)


def test_encoded_images_have_the_folders_seed(tmp_path: Path) -> None:
    spec = FAMILIES["encoded"][0](tmp_path)
    options = {"layers": "1", "segmenter": ColourSegmenter(), "samples": 4, "significance": "off", "quiet": True}
    run(load_generator(spec, seed=0), out=tmp_path / "run", **options)
    with pytest.raises(UsageError, match=r"holds another run.*seed"):
        run(load_generator(spec, seed=5), out=tmp_path / "run", **options)


def test_what_is_recorded_is_what_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("blur", "progan_scenes"):  # folders of the name of a factory and of a model
        (tmp_path / name).mkdir()
    photos(tmp_path / "photos")
    generator = load_generator(ModelSpec("tests.support.families:blur", inputs="photos"))
    assert generator.spec == ModelSpec("tests.support.families:blur", inputs=str(tmp_path / "photos"))
    assert load_generator("progan_scenes").spec == ModelSpec("progan_scenes")
    torch.save(torch.load(FAMILIES["dcgan"][0](tmp_path).model, weights_only=True), "own.pth")
    assert load_generator(Path("own.pth")).spec == ModelSpec(str(tmp_path / "own.pth"))
    with pytest.raises(UsageError, match="A label is the number of a class"):
        ModelSpec("own.pth", label="1")  # type: ignore[arg-type]


class Noisy(nn.Module):
    """A network of a user's that calls a part of it `noise`."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Identity()
        self.conv = nn.Conv2d(4, 3, 1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(
            self.conv(self.noise(latents.view(-1, 4, 1, 1).expand(-1, -1, 8, 8))), (16, 16)
        )


def test_a_users_network_may_have_parts_of_any_name(tmp_path: Path) -> None:
    generator = dissect.Generator(module=Noisy(), name="noisy", source=dissect.NormalLatents((4,)))
    options = {"segmenter": ColourSegmenter(), "samples": 4, "significance": "off", "quiet": True}
    assert len(run(generator, layers="noise", out=tmp_path / "run", **options).units) == 4


def test_class_latents_are_normal_with_every_class_as_often() -> None:
    source = ClassLatents(4, 3)
    latents = source(range(3000))
    assert latents.shape == (3000, 7)
    assert torch.equal(latents[:, 4:].sum(1), torch.ones(3000))
    assert (latents[:, 4:].mean(0) - 1 / 3).abs().max() < 0.04
    assert torch.equal(source([17]), latents[17:18])
    fixed = ClassLatents(4, 3, label=2)(range(50))
    assert torch.equal(fixed[:, 4:], torch.eye(3)[2].expand(50, 3))
    assert torch.equal(fixed[:, :4], latents[:50, :4])  # the class changes nothing else
    cut = ClassLatents(4, 3, truncation=0.5)(range(3000))[:, :4]
    assert float(cut.abs().max()) <= 1.0
    # the standard deviation of a normal cut at ±2 is 0.8796 (Johnson, Kotz and Balakrishnan 1994, section 13.10)
    assert abs(float(cut.std()) / 0.5 - 0.8796) < 0.02


def test_inspect_on_the_command_line(tmp_path: Path) -> None:
    spec = FAMILIES["stylegan2"][0](tmp_path)
    arguments = ["inspect", "--model", spec.model, "--truncation", "0.5"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "synthesis.b8.conv0.styled" in shown.stdout
    assert "--truncation 0.5 --layer synthesis.b8.conv" in " ".join(shown.stdout.split())
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    rows = {row["layer"]: row for row in told["layers"]}
    assert rows["synthesis.b16.conv0"]["units"] == 4
    assert (rows["synthesis.b16.conv0"]["height"], rows["synthesis.b16.conv0"]["number"]) == (16, 4)
    assert (rows["synthesis.b8.conv0.styled"]["kind"], rows["synthesis.b8.conv0.styled"]["units"]) == ("style", 6)
    assert rows["synthesis.b8.conv0.styled"]["number"] is None
    assert told["image"] == [16, 16]


def test_layers_of_a_public_model_are_known_before_it_is_fetched() -> None:
    shown = CliRunner().invoke(main, ["models", "--detail", "progan_celebhq"])
    assert shown.exit_code == 0, shown.output
    assert "layer18      18     16    1024   1024" in shown.stdout


def test_an_option_without_a_model_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["artifacts", str(tmp_path), "--truncation", "0.5"])
    assert done.exit_code == 2
    assert "--truncation goes with --model" in done.stderr


@pytest.mark.parametrize("family", ["biggan", "biggan_deep"])
def test_an_untrained_biggan_has_statistics_and_norms_of_its_own(family: str, tmp_path: Path) -> None:
    generator = load_generator(FAMILIES[family][0](tmp_path))
    state = {key: value.clone() for key, value in generator.module.state_dict().items()}
    fresh = untrained(generator, 0, 64)
    with torch.no_grad():
        for part in fresh.module.modules():
            if isinstance(part, SpectralWeight):
                largest = torch.linalg.svdvals(part.normalised().flatten(1))[0]
                assert abs(float(largest) - 1) < 0.02
        with Tap(fresh.module, [fresh.layers[-1]]) as tap:
            images = fresh(fresh.latents(range(64)))
        assert images.std(0).mean() > 1e-3  # not saturated
    assert not tap[fresh.layers[-1]].isnan().any()
    assert all(torch.equal(value, state[key]) for key, value in generator.module.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repaired_generator_of_any_family_opens_again(family: str, tmp_path: Path) -> None:
    make, layer = FAMILIES[family]
    spec = make(tmp_path)
    generator = load_generator(spec)
    name = layer_name(generator, layer)
    units = inspect(spec).layers.set_index("layer").units[name]
    attach(generator.module, name, torch.linspace(0, 1, units), torch.ones(units))
    with torch.no_grad():
        wanted = generator(generator.latents([0, 1]))
    repaired = kept(tmp_path, generator.module.state_dict())
    given = {"weights": repaired} if ":" in spec.model else {"model": repaired}
    again = load_generator(replace(spec, **given))
    with torch.no_grad():
        assert torch.allclose(again(again.latents([0, 1])), wanted, atol=1e-6)


def test_a_checkup_of_images_too_small_for_any_grid_opens_again(tmp_path: Path) -> None:
    spec = FAMILIES["stylegan2"][0](tmp_path)
    first = dissect.checkup(spec, samples=32, out=tmp_path / "it", quiet=True)
    assert len(first.peaks) == 0
    again = dissect.checkup(spec, samples=32, out=tmp_path / "it", quiet=True)
    assert again.info["created"] == first.info["created"]
    assert list(again.layers.layer) == ["synthesis.b8.conv0", "synthesis.b16.conv0"]
