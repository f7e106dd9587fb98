"""Films, sheets and directions of latents, on generators whose latents are known to do what they do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from ganatomy.cli import main
from ganatomy.dissect import Generator, NormalLatents, load_generator
from ganatomy.dissect.latents.direction_effects import effects, fit
from ganatomy.dissect.latents.explore import explore
from ganatomy.dissect.latents.moves import LatentOptions
from ganatomy.dissect.latents.path_length import path_length
from ganatomy.dissect.latents.result import Explored
from ganatomy.dissect.latents.space import open_space
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import ColourSegmenter
from ..support.families import FAMILIES

pytestmark = pytest.mark.slow

SIDE, LATENT = 20, 5


class Bars(nn.Module):
    """A red bar from the left as wide as 10 + 4·z₁ columns, in `first` strongest z₁, then z₃; the rest is green."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(LATENT, 6 * 4, bias=False)
        with torch.no_grad():
            self.first.weight.zero_()
            self.first.weight[0, 1], self.first.weight[1, 3], self.first.weight[2, 0] = 5.0, 2.0, 0.1
        self.maps = nn.Unflatten(1, (6, 2, 2))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.maps(self.first(latents))
        wide = (10 + 4 * x[:, 0, 0, 0] / 5).view(-1, 1, 1)
        red = (torch.arange(SIDE) < wide).float().expand(-1, SIDE, SIDE)
        return torch.stack([red, 1 - red, torch.zeros_like(red)], 1)


@pytest.fixture
def bars() -> Generator:
    return Generator(module=Bars(), name="bars", source=NormalLatents((LATENT,)), layers=("maps",), output_range=(0, 1))


def frames(path: Path) -> list[Image.Image]:
    with Image.open(path) as film:
        found = []
        for number in range(film.n_frames):
            film.seek(number)
            found.append(film.convert("RGB").copy())
        return found


def distance(image: Image.Image, tensor: Tensor) -> float:
    """Mean difference in levels from an image (3, H, W) in [0, 1], at its own scale."""
    small = np.asarray(image.resize((tensor.shape[2], tensor.shape[1]), Image.Resampling.NEAREST), float)
    return float(np.abs(small - tensor.permute(1, 2, 0).numpy() * 255).mean())


def tensor_of(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


def test_a_film_runs_through_its_samples_and_loops(tmp_path: Path) -> None:
    generator = load_generator("progan_scenes", seed=4)
    found = explore(
        "interpolate",
        "progan_scenes",
        LatentOptions(samples="2,7,5"),
        animation="gif",
        seed=4,
        out=tmp_path / "it",
        quiet=True,
    )
    film = frames(found.folder / "film.gif")
    assert len(film) == 3 * 24
    with Image.open(found.folder / "film.gif") as opened:
        assert opened.info["loop"] == 0
    with torch.no_grad():
        samples = generator(generator.latents([2, 7, 5]))
        for number, sample in enumerate(samples):
            assert distance(film[24 * number], sample) < 6  # GIF has 256 colours
            assert distance(film[24 * number + 12], sample) > 8
    assert found.info["samples"] == [2, 7, 5]


def test_arithmetic_shows_the_image_of_the_sum(bars: Generator, tmp_path: Path) -> None:
    found = explore("arithmetic", bars, LatentOptions(formula="0,1 - 2 + 3"), out=tmp_path / "it", quiet=True)
    z = bars.latents(range(4))
    wanted = bars(((z[0] + z[1]) / 2 - z[2] + z[3])[None])[0]
    with Image.open(found.folder / "sheet.png") as opened:
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    column = sheet[-64, -124:-4]  # of the last tile, six times enlarged
    assert (column[:, 0] > 200).sum() == 6 * int(wanted[0, 0].sum())


def test_truncation_goes_from_the_mean_to_the_sample(tmp_path: Path) -> None:
    spec = FAMILIES["stylegan2"][0](tmp_path)
    spec = replace(spec, truncation=None, noise=None)
    found = explore("truncation", spec, LatentOptions(samples="1,2", psi="0,1"), out=tmp_path / "it", quiet=True)
    generator = load_generator(spec)
    film = frames(found.folder / "film.webp")
    assert len(film) == 24 + 22
    assert film[0].size == (256, 128)  # the two samples side by side
    with torch.no_grad():
        whole = generator(generator.latents([1, 2]))
    with Image.open(found.folder / "sheet.png") as opened:
        sheet = opened.convert("RGB").copy()
    left, top = sheet.width - 2 * 132, sheet.height - 2 * 132
    cells = [[sheet.crop((x, y, x + 128, y + 128)) for x in (left, left + 132)] for y in (top, top + 132)]
    assert np.array_equal(np.asarray(cells[0][0]), np.asarray(cells[1][0]))  # ψ = 0
    for row, image in zip(cells, whole, strict=True):
        assert distance(row[1], image) < 1  # ψ = 1


def test_a_biggans_truncation_shrinks_latents(tmp_path: Path) -> None:
    spec = replace(FAMILIES["biggan_deep"][0](tmp_path), truncation=None)
    found = explore("truncation", spec, out=tmp_path / "it", quiet=True)
    assert found.info["psi"] == [0.1, 0.25, 0.5, 0.75, 1.0]
    for psi in ("0", "nan"):
        with pytest.raises(UsageError, match=rf"psi={psi}: .*above 0"):
            explore("truncation", spec, LatentOptions(psi=psi), out=tmp_path / "other", quiet=True)
    with pytest.raises(UsageError, match=r"truncation.*psi"):
        explore("truncation", replace(spec, truncation=0.5), out=tmp_path / "other", quiet=True)


def test_mixed_styles_come_from_row_and_column(tmp_path: Path) -> None:
    spec = FAMILIES["stylegan"][0](tmp_path)
    asked = LatentOptions(samples="1,2", across="3", crossover=6)
    found = explore("mix", spec, asked, out=tmp_path / "it", quiet=True)
    with Image.open(found.folder / "sheet.png") as opened:
        sheet = opened.convert("RGB").copy()
    left, top = sheet.width - 2 * 132, sheet.height - 3 * 132

    def cell(row: int, column: int) -> np.ndarray[Any, Any]:
        x, y = left + 132 * column, top + 132 * row
        return np.asarray(sheet.crop((x, y, x + 128, y + 128)))

    assert (cell(0, 0) == 255).all()
    assert np.array_equal(cell(1, 1), cell(1, 0))  # a crossover after the last layer leaves all to the rows
    assert np.array_equal(cell(2, 1), cell(2, 0))
    assert not np.array_equal(cell(1, 1), cell(0, 1))
    assert found.info["layers"] == 6
    film = frames(found.folder / "film.webp")
    row, column = tensor_of(cell(1, 0)), tensor_of(cell(0, 1))
    assert float((row - column).abs().mean()) * 255 > 30
    assert distance(film[0], row) < 10  # WebP is not exact
    assert min(distance(one, column) for one in film) < 10


def test_directions_are_found_and_their_effects_known(bars: Generator, tmp_path: Path) -> None:
    asked = LatentOptions(directions=2, strength=2.0, measured=400, segmenter=ColourSegmenter())
    found = explore("directions", bars, asked, out=tmp_path / "it", quiet=True)
    vectors = load_file(found.folder / "directions.safetensors")["vectors"]
    assert float(vectors[0, 1]) > 0.998
    assert float(vectors[1, 3]) > 0.998
    table = found.tables["effects"].set_index(["direction", "sign", "class"])
    z = bars.latents(range(2000, 2400))[:, 1]

    def share(values: Tensor) -> Tensor:
        """Of red columns, as the generator draws them."""
        return ((10 + 4 * values).ceil().clamp(0, SIDE) / SIDE).mean()

    sigma = found.tables["directions"].sigma[0]
    assert abs(sigma - 1) < 0.06
    for sign, step in (("+", 2 * sigma), ("-", -2 * sigma)):
        row = table.loc[(1, sign, "red")]
        assert abs(row.change_pp - 100 * float(share(z + step * vectors[0, 1]) - share(z))) < 0.05
        assert row.change_pp_low < row.change_pp < row.change_pp_high
        assert row.beyond_random
        assert row.changed
    assert abs(table.loc[(2, "+", "red")].change_pp) < 3  # of 40 points that the first one moves
    told = found.tables["directions"].set_index("direction")
    assert told["class"][1] in ("red", "green")
    assert told.p_value[1] == pytest.approx(1 / 21)


def test_effects_of_nothing_are_nothing(bars: Generator) -> None:
    space = open_space(bars, None, 8)
    nothing = torch.eye(LATENT)[2:3]  # an entry that no weight takes
    table, p = effects(space, nothing, ColourSegmenter(), range(20), 2.0, 0, lambda _: None)
    assert (table.change_pp == 0).all()
    assert not table.changed.any()
    assert p.tolist() == [1.0]


def test_one_random_direction_in_twenty_is_beyond_chance(bars: Generator) -> None:
    space = open_space(bars, None, 64)
    random = torch.nn.functional.normalize(torch.randn(60, LATENT, generator=torch.Generator().manual_seed(5)), dim=1)
    _, p = effects(space, random, ColourSegmenter(), range(24), 2.0, 0, lambda _: None)
    assert (p <= 0.05).mean() < 0.15  # expected 0.05
    assert 0.35 < p.mean() < 0.68


@pytest.mark.parametrize(("family", "key"), [("progan", "layer1.conv.weight"), ("dcgan", "main.0.weight")])
def test_sefa_is_the_singular_vectors_of_what_meets_the_latent(family: str, key: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = load_generator(FAMILIES[family][0](tmp_path))
    found, _ = fit(open_space(generator, None, 8), "sefa", 3, lambda _: None)
    weight = (
        generator.module.get_parameter(key).detach().numpy()
    )  # (units, latent, 4, 4), transposed (latent, units, …)
    matrix = np.moveaxis(weight, 1 if family == "progan" else 0, -1).reshape(-1, 8)
    _, values, right = np.linalg.svd(matrix, full_matrices=False)
    cosines = np.abs((found.vectors.numpy() * right[:3]).sum(1))
    assert np.allclose(cosines, 1, atol=1e-4)
    assert np.allclose(found.scales.numpy(), values[:3], rtol=1e-4)


def test_directions_of_w_are_principal_components_of_styles(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = load_generator(replace(FAMILIES["stylegan2"][0](tmp_path), noise=None))
    space = open_space(generator, None, 8)
    assert space.name == "w"
    with torch.no_grad():
        found, where = fit(space, "ganspace", 2, lambda _: None)
        w = torch.cat([space.points([number]) for number in range(2000)]).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(w.T))
    assert np.allclose(np.abs((found.vectors.numpy() * vectors[:, ::-1].T[:2]).sum(1)), 1, atol=1e-3)
    assert np.allclose(found.scales.numpy() ** 2, values[::-1][:2], rtol=1e-3)
    assert "2,000" in where
    sefa, _ = fit(space, "sefa", 2, lambda _: None)
    rows = torch.cat([part for name, part in generator.module.named_parameters() if name.endswith("affine.weight")])
    _, _, right = np.linalg.svd(rows.detach().numpy(), full_matrices=False)
    assert np.allclose(np.abs((sefa.vectors.numpy() * right[:2]).sum(1)), 1, atol=1e-4)


def test_large_images_are_kept_small(tmp_path: Path) -> None:
    class Wide(Bars):
        def forward(self, latents: Tensor) -> Tensor:
            return nn.functional.interpolate(super().forward(latents), (300, 600))

    wide = Generator(module=Wide(), name="wide", source=NormalLatents((LATENT,)), output_range=(0, 1))
    found = explore("interpolate", wide, LatentOptions(samples="0,1"), out=tmp_path / "it", quiet=True)
    assert frames(found.folder / "film.webp")[0].size == (256, 128)


def odd() -> Any:
    """A similarity that says one thing of all pairs."""
    return lambda a, b: torch.zeros(1)


def test_a_similarity_says_as_many_numbers_as_there_are_pairs(bars: Generator, tmp_path: Path) -> None:
    for given in (odd(), lambda a, b: torch.full((len(a),), torch.nan)):
        with pytest.raises(DissectError, match=r"similarity .*\d"):
            explore("path-length", bars, LatentOptions(pairs=6, similarity=given), out=tmp_path / "it", quiet=True)
    assert not (tmp_path / "it").exists()


def test_path_lengths_are_compared_with_what_they_can_be(tmp_path: Path) -> None:
    spec = replace(FAMILIES["stylegan2"][0](tmp_path), noise=None)
    for space in ("z", "w"):
        asked = LatentOptions(pairs=4, similarity="tests.latents.test_explore:squared", space=space)
        told = explore("path-length", spec, asked, out=tmp_path / space, quiet=True).info
        assert (told["space"], told["path"]) == (space, "lerp")


def test_what_was_measured_with_another_segmenter_is_another_result(bars: Generator, tmp_path: Path) -> None:
    class Other(ColourSegmenter):
        name = "other"

    for _ in range(2):  # a new object of the same kind is the same
        asked = LatentOptions(directions=1, measured=4, segmenter=ColourSegmenter())
        explore("directions", bars, asked, out=tmp_path / "it", quiet=True)
    with pytest.raises(UsageError, match=r"holds another result \(segmenter: there colours, requested other"):
        explore("directions", bars, replace(asked, segmenter=Other()), out=tmp_path / "it", quiet=True)


def test_defaults_written_out_are_the_same_task(bars: Generator, tmp_path: Path) -> None:
    first = explore("interpolate", bars, out=tmp_path / "it", quiet=True)
    again = explore(
        "interpolate", bars, LatentOptions(samples="0..3", path="spherical"), out=tmp_path / "it", quiet=True
    )
    assert again.info["created"] == first.info["created"]


def squared() -> Any:
    """A similarity of one's own."""
    return lambda a, b: (a.float() - b.float()).square().mean((1, 2, 3))


def test_a_path_length_by_a_similarity_of_ones_own(tmp_path: Path) -> None:
    asked = LatentOptions(pairs=6, similarity="tests.latents.test_explore:squared")
    spec = FAMILIES["progan"][0](tmp_path)
    found = explore("path-length", spec, asked, out=tmp_path / "it", quiet=True)
    generator = load_generator(spec)
    with torch.no_grad():
        starts, ends = generator.latents(range(6)), generator.latents(range(6, 12))
        wanted = path_length(generator, starts, ends, similarity=squared(), how="lerp")
    assert found.info["mean"] == pytest.approx(wanted.mean, rel=1e-3)
    assert found.info["low"] <= found.info["mean"] <= found.info["high"]
    assert "with nothing published" in found.info["comparable"]


def test_the_same_again_is_returned_and_another_refused(bars: Generator, tmp_path: Path) -> None:
    asked = LatentOptions(samples="0,1")
    first = explore("interpolate", bars, asked, out=tmp_path / "it", quiet=True)
    written = (first.folder / "film.webp").stat().st_mtime_ns
    again = explore("interpolate", bars, asked, out=tmp_path / "it", quiet=True)
    assert (again.folder / "film.webp").stat().st_mtime_ns == written
    assert Explored.load(first.folder).info == first.info
    with pytest.raises(UsageError, match="holds another result"):
        explore("interpolate", bars, LatentOptions(samples="0,2"), out=tmp_path / "it", quiet=True)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("wander", {}, "'wander': must be one of interpolate, arithmetic"),
        ("interpolate", {"psi": "1"}, "psi.* goes with truncation, not with interpolate"),
        ("interpolate", {"samples": "3"}, "samples"),
        ("interpolate", {"samples": "1 - 2"}, "samples='1 - 2'"),
        ("interpolate", {"path": "crooked"}, "path='crooked': .*linear, spherical"),
        ("interpolate", {"space": "w"}, "space='w': .*bars"),
        ("arithmetic", {}, "formula"),
        ("arithmetic", {"formula": "3 -"}, "a sample is missing"),
        ("mix", {}, "bars .*StyleGAN"),
        ("truncation", {}, "bars .*truncation"),
        ("directions", {}, "segmenter"),
        ("directions", {"segmenter": ColourSegmenter(), "method": "sefa"}, "method.* ganspace"),
        ("directions", {"segmenter": ColourSegmenter(), "strength": 11.0}, "strength=11"),
        ("directions", {"segmenter": ColourSegmenter(), "strength": 0.0}, "strength=0"),
        ("directions", {"segmenter": ColourSegmenter(), "directions": 6}, "directions=6: .*1 and 5"),
        ("path-length", {"lpips": "nowhere"}, "LPIPS .*nowhere"),
        ("path-length", {"pairs": 1}, "pairs=1: .*2"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    kind: str, options: dict[str, Any], said: str, bars: Generator, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        explore(kind, bars, LatentOptions(**options), out=tmp_path / "it", quiet=True)
    assert not list(tmp_path.iterdir())


def test_noise_stays_as_it_is_while_latents_move(bars: Generator, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="noise"):
        explore("interpolate", FAMILIES["stylegan2"][0](tmp_path), out=tmp_path / "it", quiet=True)
    with pytest.raises(UsageError, match="seed=-1"):
        explore("interpolate", bars, seed=-1, out=tmp_path / "it", quiet=True)


def test_generators_of_images_have_no_latents_to_move(tmp_path: Path) -> None:
    for family in ("CycleGAN/pix2pix ResNet", "own"):
        with pytest.raises(UsageError, match=r"images.*latents"):
            explore("interpolate", FAMILIES[family][0](tmp_path), out=tmp_path / "it", quiet=True)


def test_latents_on_the_command_line(tmp_path: Path) -> None:
    spec = FAMILIES["stylegan2"][0](tmp_path)
    arguments = ["latents", "directions", "--model", spec.model, "--segmenter", "tests.conftest:ColourSegmenter"]
    arguments += ["--directions", "2", "--measured", "4", "--out", str(tmp_path / "it")]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert Path(shown.stdout.strip()) == tmp_path / "it" / "report" / "index.html"
    for name in ("sheet-1.png", "sheet-2.png", "film-1.webp", "film-2.webp"):
        assert (tmp_path / "it" / name).is_file()
        assert name in shown.stderr
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert len(told["directions"]) == 2
    assert len(told["effects"]) == 2 * 2 * 5
    wrong = CliRunner().invoke(main, ["latents", "mix", "--model", spec.model, "--psi", "1"])
    assert wrong.exit_code == 2
