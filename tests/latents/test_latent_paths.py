"""Paths between latents and sums of them, by hand; perceptual path length against torch-fidelity's own loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect import latents
from ganatomy.hooks.errors import DissectError, UsageError


def draw(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("t", [-0.3, 0.0, 0.25, 0.5, 1.0, 1.2])
def test_spherical_interpolation_turns_the_plane_of_both(t: float) -> None:
    a, b = draw(0, 5, 2, 3), draw(1, 5, 2, 3) * 4
    found = latents.slerp(a, b, t)
    for one, other, point in zip(a.double(), b.double(), found, strict=True):
        u = (one / one.norm()).flatten()
        across = other.flatten() - (other.flatten() @ u) * u
        across /= across.norm()
        angle = math.acos(float(u @ other.flatten() / other.norm()))
        turn = torch.matrix_exp(t * angle * (torch.outer(across, u) - torch.outer(u, across)))  # a rotation by t angle
        expected = (turn @ u) * ((1 - t) * one.norm() + t * other.norm())
        torch.testing.assert_close(point.flatten().double(), expected, atol=1e-6, rtol=1e-5)
    assert found.shape == a.shape
    assert found.dtype == a.dtype


def test_spherical_interpolation_of_a_right_angle() -> None:
    found = latents.slerp(torch.tensor([[2.0, 0, 0]]), torch.tensor([[0.0, 4, 0]]), 1 / 3)
    expected = torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6), 0]]) * (2 + 2 / 3)
    torch.testing.assert_close(found, expected)


def test_no_arc_leads_to_parallel_opposite_or_zero_latents() -> None:
    a = torch.tensor([[1.0, 2, 3], [1, 2, 3], [0, 0, 0], [1, 2, 3]])
    b = torch.tensor([[3.0, 6, 9], [-3, -6, -9], [1, 2, 3], [0, 0, 0]])
    torch.testing.assert_close(latents.slerp(a, b, 0.25), 0.75 * a + 0.25 * b)


@pytest.mark.parametrize("x", [1, -1])
def test_nearly_parallel_and_opposite_latents_keep_their_angle(x: int) -> None:
    a, b = torch.tensor([[[1.0, 0]], [[x, 1e-4]]], dtype=torch.float64)
    found = latents.slerp(a, b, 0.5)
    assert math.atan2(*found[0].flip(0).tolist()) == pytest.approx(math.atan2(1e-4, x) / 2, rel=1e-9)


def test_straight_lines_end_exactly() -> None:
    a, b = draw(0, 3, 7), draw(1, 3, 7) * 1e6
    assert torch.equal(latents.lerp(a, b, 0.0), a)
    assert torch.equal(latents.lerp(a, b, 1.0), b)
    torch.testing.assert_close(latents.lerp(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_a_film_passes_its_key_points_and_loops() -> None:
    points = torch.tensor([[0.0, 0], [4, 0], [4, 8]])
    closed = latents.walk(points, 4, closed=True, how="linear")
    assert closed.tolist() == [
        *([0, 0], [1, 0], [2, 0], [3, 0]),
        *([4, 0], [4, 2], [4, 4], [4, 6]),
        *([4, 8], [3, 6], [2, 4], [1, 2]),
    ]
    opened = latents.walk(points, 4, closed=False, how="linear")
    assert torch.equal(opened, torch.cat([closed[:8], points[2:]]))


def test_a_spherical_film_stays_on_the_sphere() -> None:
    points = draw(2, 4, 3, 5)
    points /= points.flatten(1).norm(dim=1)[:, None, None]
    frames = latents.walk(points, 6, closed=True, how="spherical")
    assert frames.shape == (24, 3, 5)
    torch.testing.assert_close(frames.flatten(1).norm(dim=1), torch.ones(24))
    torch.testing.assert_close(frames[::6], points)
    steps = torch.stack([frames, frames.roll(-1, 0)]).flatten(2)
    angles = (steps[0] * steps[1]).sum(1).acos().view(4, 6)
    torch.testing.assert_close(angles, angles[:, :1].expand(4, 6), atol=1e-4, rtol=0)  # at constant speed


@pytest.mark.parametrize(
    ("points", "steps", "how", "said"),
    [
        (2, 3, "cubic", "how='cubic': .*linear, spherical"),
        (1, 3, "linear", "1 points and 3 steps"),
        (2, 0, "linear", "2 points and 0 steps"),
    ],
)
def test_walks_that_lead_nowhere(points: int, steps: int, how: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        latents.walk(torch.ones(points, 2), steps, closed=True, how=how)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("3,4,5 - 7,8 + 9", ((1, (3, 4, 5)), (-1, (7, 8)), (1, (9,)))),
        ("3", ((1, (3,)),)),
        (" 0..3,9-2..2 ", ((1, (0, 1, 2, 3, 9)), (-1, (2,)))),
        ("0-3", ((1, (0,)), (-1, (3,)))),
        ("1 , 2+3", ((1, (1, 2)), (1, (3,)))),
    ],
)
def test_arithmetic_is_read(text: str, terms: tuple[tuple[int, tuple[int, ...]], ...]) -> None:
    assert latents.parse_arithmetic(text) == terms


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a sample is missing"),
        ("-3", "a sample is missing"),
        ("3 - ", "a sample is missing"),
        ("3,,4", "a sample is missing"),
        ("3 4", "'3 4' is no sample"),
        ("3 - x", "'x' is no sample"),
        ("1.5", "'1.5' is no sample"),
        ("1...5", "'1...5' is no sample"),
        ("3..1", "3..1 must rise"),
        ("0..10000", "0..10000 .*10000 samples"),
        ("9999999999", "is no sample"),
    ],
)
def test_arithmetic_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        latents.parse_arithmetic(text)
    assert "'3,4,5 - 7,8 + 0..3'" in str(caught.value)
    assert "\n" not in str(caught.value)


RANGES = st.tuples(st.integers(0, 10**9 - 50), st.integers(0, 40), st.booleans())
SPACES = st.sampled_from(["", " ", "  "])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("+-"), st.lists(RANGES, min_size=1, max_size=4)), min_size=1, max_size=4), SPACES
)
def test_formulas_mean_what_they_say(terms: list[tuple[str, list[tuple[int, int, bool]]]], space: str) -> None:
    """Against an evaluation by Python: every term is written out as a mean of its samples."""
    formula, written_out = "", "0"
    for index, (sign, items) in enumerate(terms):
        sign = "+" if index == 0 else sign
        texts, samples = [], []
        for low, length, alone in items:
            high = low if alone else low + length
            texts.append(f"{low}" if alone else f"{low}..{high}")
            samples += range(low, high + 1)
        formula += (space + sign + space if index else "") + f"{space},{space}".join(texts)
        written_out += f" {sign} Fraction({sum(samples)}, {len(samples)})"
    value = sum(sign * Fraction(sum(samples), len(samples)) for sign, samples in latents.parse_arithmetic(formula))
    assert value == eval(written_out, {"Fraction": Fraction})


@settings(deadline=None)
@given(st.text(alphabet="0123456789+-., x", max_size=12))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    terms, refusal = None, ""
    try:
        terms = latents.parse_arithmetic(text)
    except UsageError as error:
        refusal = str(error)
    assert "\n" not in refusal
    if terms is not None:
        assert len(terms) == 1 + text.count("+") + text.count("-")
        assert all(samples for _, samples in terms)


def test_arithmetic_adds_means() -> None:
    def latent_of(samples: Sequence[int]) -> Tensor:
        return torch.tensor([[float(sample), sample**2] for sample in samples])

    found = latents.arithmetic(latents.parse_arithmetic("3,4,5 - 7,8 + 9"), latent_of)
    torch.testing.assert_close(found, torch.tensor([[4 - 7.5 + 9, 50 / 3 - 56.5 + 81]]))


def test_a_mixing_table_takes_coarse_styles_of_its_rows() -> None:
    a = torch.arange(2)[:, None, None] + torch.zeros(2, 4, 3)  # styles of row i are i
    b = 10 + torch.arange(3)[:, None, None] + torch.zeros(3, 4, 3)
    table = latents.mixing_table(a, b, 1)
    assert table.shape == (2, 3, 4, 3)
    for row in range(2):
        for column in range(3):
            assert table[row, column, :, 0].tolist() == [row, *[10 + column] * 3]
    assert torch.equal(latents.mixing_table(a, b, 4)[:, 2], a)
    assert torch.equal(latents.mixing_table(a, b, 0)[1], b)
    with pytest.raises(UsageError, match=r"crossover=5: .*0 and 4"):
        latents.mixing_table(a, b, 5)
    with pytest.raises(UsageError, match=r"\(2, 4, 3\) and \(3, 3, 3\)"):
        latents.mixing_table(a, b[:, 1:], 1)


def test_a_truncation_sweep_passes_the_mean() -> None:
    w, mean = draw(0, 2, 4, 3), draw(1, 3)
    found = latents.sweep(w, mean, [1, 0.5, 0, -0.5])
    assert found.shape == (2, 4, 4, 3)
    assert torch.equal(found[:, 0], w)
    torch.testing.assert_close(found[:, 1], (w + mean) / 2)
    assert torch.equal(found[:, 2], mean.expand(2, 4, 3))
    torch.testing.assert_close(found[:, 3], mean - 0.5 * (w - mean))


# --- perceptual path length

Z, CLASSES = 6, 3


class Tiny(nn.Module):
    """(N, Z) -> (N, 3, 8, 8) in [0, 1]; a class, if there is one, shades the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.shade = draw(7, Z, 192), draw(8, CLASSES, 192)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return (torch.sin(z @ self.weight) + (0 if labels is None else self.shade[labels])).sigmoid().view(-1, 3, 8, 8)


def squared(one: Tensor, other: Tensor) -> Tensor:
    return (one.float() - other.float()).square().mean((1, 2, 3))


def theirs(monkeypatch: pytest.MonkeyPatch, count: int, how: str, eight_bit: bool, classes: int) -> dict[str, Any]:
    """torch-fidelity's own loop over its own latents."""
    from torch_fidelity import GenerativeModelModuleWrapper, calculate_metrics, metric_ppl, registry
    from torch_fidelity.sample_similarity_base import SampleSimilarityBase

    class Squared(SampleSimilarityBase):
        def __init__(self, name: str, sample_similarity_dtype: str, **kwargs: Any) -> None:
            super().__init__(name)
            self.dtype = getattr(torch, sample_similarity_dtype)

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            assert one.dtype == other.dtype == self.dtype
            return squared(one, other)

    class Levels(Tiny):
        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            images = super().forward(z, labels) * 255
            return images.round().to(torch.uint8) if eight_bit else images

    def percentile(values: Any, which: float, interpolation: str) -> Any:  # the keyword that NumPy 2.4 took away
        return np.percentile(values, which, method=interpolation)  # type: ignore[call-overload]

    shim = SimpleNamespace(**{name: getattr(np, name) for name in ("random", "concatenate", "logical_and", "extract")})
    shim.mean, shim.std, shim.percentile = np.mean, np.std, percentile
    monkeypatch.setattr(metric_ppl, "np", shim)
    monkeypatch.setitem(registry.SAMPLE_SIMILARITY_REGISTRY, "squared", Squared)
    return calculate_metrics(
        input1=GenerativeModelModuleWrapper(Levels(), Z, "normal", classes),
        input1_model_num_samples=count,
        input1_model_num_classes=classes,
        ppl=True,
        ppl_sample_similarity="squared",
        ppl_sample_similarity_dtype="uint8" if eight_bit else "float32",
        ppl_z_interp_mode=how,
        ppl_reduction="none",
        batch_size=32,
        rng_seed=5,
        cuda=False,
        verbose=False,
    )


@pytest.mark.parametrize(
    ("how", "eight_bit", "classes"),
    [("lerp", True, 0), ("slerp_any", True, 0), ("slerp_any", False, CLASSES), ("slerp_unit", False, 0)],
)
def test_path_lengths_are_those_of_torch_fidelity(
    how: str, eight_bit: bool, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 301
    truth = theirs(monkeypatch, count, how, eight_bit, classes)
    dice = np.random.RandomState(5)  # as torch-fidelity draws them
    starts, ends = (torch.from_numpy(dice.randn(count, Z)).float() for _ in range(2))
    if classes:
        labels = F.one_hot(torch.from_numpy(dice.randint(0, classes, (count,))), classes).float()
        starts, ends = torch.cat([starts, labels], 1), torch.cat([ends, labels.roll(1, 0)], 1)
    tiny = Tiny()

    def images_of(z: Tensor) -> Tensor:
        return tiny(z[:, :Z], z[:, Z:].argmax(1)) if classes else tiny(z)

    found = latents.path_length(
        images_of, starts, ends, similarity=squared, how=how, fixed=classes, eight_bit=eight_bit, batch=32
    )
    assert np.array_equal(latents.trimmed(found.distances), truth["perceptual_path_length_raw"])
    assert found.mean == truth["perceptual_path_length_mean"]
    assert found.std == truth["perceptual_path_length_std"]
    assert len(found.distances) == count > len(truth["perceptual_path_length_raw"]) >= 0.97 * count
    assert found.low < found.mean < found.high


def test_path_length_of_a_straight_generator_in_closed_form() -> None:
    """Images 0.5 + c z₀ everywhere: a straight step of ε changes levels by 255 c ε (z₀′ − z₀)."""
    starts, ends = draw(0, 400, 2).double(), draw(1, 400, 2).double()

    def images_of(z: Tensor) -> Tensor:
        return (0.5 + 0.01 * z[:, 0])[:, None, None, None].expand(-1, 3, 2, 2)

    found = latents.path_length(
        images_of, starts, ends, similarity=lambda a, b: (a - b).square().mean((1, 2, 3)), how="lerp", eight_bit=False
    )
    expected = (2.55 * (ends - starts)[:, 0]).square().numpy()
    np.testing.assert_allclose(found.distances, expected, rtol=1e-6)
    kept = np.sort(expected)[3:-3]  # 1 % of 399 steps is rank 3.99: rounded outwards to the fourth
    assert found.mean == pytest.approx(kept.mean(), rel=1e-6)
    # a mean of squares of normals: σ² √(2 / N) about it, less for having been trimmed
    assert 0.5 < (found.high - found.low) / (2 * 1.96 * kept.std() / math.sqrt(400)) < 1.5


def test_rounding_to_eight_bits_makes_paths_longer() -> None:
    starts, ends = draw(0, 400, Z), draw(1, 400, Z)
    rounded, smooth = (
        latents.path_length(Tiny(), starts, ends, similarity=squared, eight_bit=eight_bit).mean
        for eight_bit in (True, False)
    )
    assert rounded > 10 * smooth


@pytest.mark.slow
def test_intervals_cover_and_come_from_their_seed() -> None:
    starts, ends = draw(0, 40 * 60, Z), draw(1, 40 * 60, Z)

    def measure(start: int, count: int = 60, seed: int = 0) -> latents.PathLength:
        part = slice(start, start + count)
        return latents.path_length(Tiny(), starts[part], ends[part], similarity=squared, eight_bit=False, seed=seed)

    parts = [measure(start) for start in range(0, 300, 60)]
    again, other, truth = measure(0), measure(0, seed=1), measure(0, 2400).mean
    assert (parts[0].low, parts[0].high) == (again.low, again.high) != (other.low, other.high)
    assert sum(part.low < truth < part.high for part in parts) >= 3  # of 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"how": "cubic"}, "how='cubic': .*lerp, slerp_any, slerp_unit"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"epsilon": math.nan}, "epsilon=nan"),
        ({"ends": torch.ones(4, 3)}, r"\(4, 2\) and ends \(4, 3\)"),
        ({"starts": torch.ones(1, 2), "ends": torch.ones(1, 2)}, "at least 2 pairs"),
        ({"images_of": lambda z: torch.full((len(z), 3, 2, 2), math.nan)}, "not finite"),
    ],
)
def test_paths_that_cannot_be_measured(changes: dict[str, Any], said: str) -> None:
    usual: dict[str, Any] = {"images_of": lambda z: torch.zeros(len(z), 3, 2, 2), "similarity": squared}
    usual |= {"starts": torch.ones(4, 2), "ends": torch.zeros(4, 2)}
    with pytest.raises(DissectError, match=said):
        latents.path_length(**(usual | changes))


# --- LPIPS

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)  # VGG-16's convolutions
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # in `features`
POOLED = (2, 4, 7, 10)  # the convolutions after a pooling


def weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Made-up weights of LPIPS's last layer and of VGG-16, whose kernels do not differ within; small as files."""
    vgg, fan_in = {}, 3
    for number, (place, width) in enumerate(zip(PLACES, WIDTHS, strict=True)):
        taps = draw(number, width, fan_in, 1, 1) * math.sqrt(2 / (9 * fan_in))
        vgg |= {f"features.{place}.weight": taps.expand(-1, -1, 3, 3), f"features.{place}.bias": draw(99, width) * 0.1}
        fan_in = width
    for place, (out, into) in zip((0, 3, 6), ((4096, 25088), (4096, 4096), (1000, 4096)), strict=True):
        vgg |= {f"classifier.{place}.weight": torch.zeros(1, 1).expand(out, into)}
        vgg |= {f"classifier.{place}.bias": torch.zeros(1).expand(out)}
    lins = {f"lin{k}.model.1.weight": draw(50 + k, 1, n, 1, 1).abs() for k, n in enumerate((64, 128, 256, 512, 512))}
    return lins, vgg


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, state in zip(("weights-vgg16-lpips.pth", "vgg16-397923af.pth"), weights(), strict=True):
        torch.save(state, tmp_path / name)
    return tmp_path


def lpips(one: Tensor, other: Tensor) -> Tensor:
    """LPIPS as its paper says: unit-length features of five depths, squared differences, weighted, averaged, added."""
    lins, vgg = weights()
    total, found = torch.zeros(len(one)), []
    for images in (one, other):
        x = (images.float() / 127.5 - 1 - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor(
            [0.458, 0.448, 0.450]
        )[:, None, None]
        depths = []
        for number, place in enumerate(PLACES):
            x = F.max_pool2d(x, 2) if number in POOLED else x
            x = F.conv2d(x, vgg[f"features.{place}.weight"], vgg[f"features.{place}.bias"], padding=1).relu()
            if number + 1 in (*POOLED, len(PLACES)):
                depths.append(x / x.norm(dim=1, keepdim=True).clamp_min(1e-10))
        found.append(depths)
    for k, (a, b) in enumerate(zip(*found, strict=True)):
        total += ((a - b).square() * lins[f"lin{k}.model.1.weight"]).sum(1).mean((1, 2))
    return total


def test_lpips_is_the_papers_and_torch_keeps_its_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    similarity = latents.open_lpips(folder)
    monkeypatch.setenv("TORCH_HOME", str(folder / "elsewhere"))
    assert torch.hub.get_dir() == str(folder / "elsewhere" / "hub")
    one, other = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(k)) * 255 for k in (0, 1))
    with torch.no_grad():
        torch.testing.assert_close(similarity(one, other), lpips(one, other), rtol=1e-4, atol=1e-6)


class Mine:  # must never be unpickled
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return pytest.fail, ("a pickle was opened",)


def test_lpips_that_cannot_be_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download was tried"))
    name = "weights-vgg16-lpips.pth"
    torch.save({"lin0.model.1.weight": torch.ones(1, 63, 1, 1)}, folder / name)
    with pytest.raises(DissectError, match=rf"{name} and .*LPIPS and VGG-16"):
        latents.open_lpips(folder)
    torch.save({"lin0.model.1.weight": Mine()}, folder / name)
    with pytest.raises(DissectError, match=f"{name} is refused"):
        latents.open_lpips(folder)
    (folder / name).unlink()
    with pytest.raises(UsageError, match=rf"needs the file .*{name}, .* from https://github.com/.*{name}"):
        latents.open_lpips(folder)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder / "hub"))
    with pytest.raises(UsageError, match=rf"{folder}/hub/checkpoints/{name}"):
        latents.open_lpips()
