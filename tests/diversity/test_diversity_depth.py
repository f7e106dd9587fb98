"""Where diversity dies: ranks and alikeness against NumPy's SVD, and networks with planted bottlenecks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from ganatomy.dissect import Generator, NormalLatents, load_generator
from ganatomy.dissect.diversity.by_layer import alike, depth_table, effective_rank, where_it_dies
from ganatomy.dissect.scenes.render import render
from ganatomy.dissect.stats.intervals import halves
from ganatomy.dissect.subjects.untrained import untrained
from ganatomy.hooks.errors import DissectError, UsageError

pytestmark = pytest.mark.slow

WIDTH = 48  # of the latent and of every layer; an image of 3×4×4
SAMPLES = range(64)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


class Map(nn.Module):
    """Any function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def orthogonal() -> nn.Linear:
    layer = nn.Linear(WIDTH, WIDTH, bias=False)
    nn.init.orthogonal_(layer.weight)
    return layer


def network(**layers: nn.Module) -> Generator:
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    module.add_module("fold", Map(lambda x: x.reshape(len(x), 3, 4, 4)))
    source = NormalLatents((WIDTH,))
    return Generator(module=module, name="net", source=source, layers=tuple(layers), output_range=(-50.0, 50.0))


def table_of(generator: Generator, batch: int = 16) -> pd.DataFrame:
    return depth_table(generator, generator.layers, SAMPLES, batch)


def rank_by_svd(x: NDArray[np.float64]) -> float:
    strengths = np.linalg.svd(x - x.mean(0), compute_uv=False)
    shares = [s / np.sum(strengths) for s in strengths]
    return float(np.exp(-sum(p * np.log(p) for p in shares if p > 1e-20)))


@pytest.mark.parametrize("shape", [(20, 5), (20, 300)])
def test_effective_rank_is_that_of_the_singular_values(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(1).normal(size=shape) * np.linspace(0.1, 3, shape[1]) + 7
    assert effective_rank(torch.from_numpy(x)) == pytest.approx(rank_by_svd(x), rel=1e-5)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_equal_directions_are_k(k: int) -> None:
    axes = torch.eye(9)[:k] * 3
    assert effective_rank(torch.cat([axes, -axes]) + 100) == pytest.approx(k)  # far from zero


def test_a_spectrum_by_hand() -> None:
    x = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # deviations 3 : 1
    assert effective_rank(x) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


@pytest.mark.parametrize("row", [torch.zeros(5), torch.linspace(0.1, 3, 4096)])
def test_without_variance_there_is_no_rank_and_all_are_alike(row: Tensor) -> None:
    x = row.expand(30, -1)
    assert np.isnan(effective_rank(x))
    assert alike(x) == pytest.approx(1)


def test_alike_by_hand() -> None:
    assert alike(torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.5)  # |(½, ½)|² / 1
    assert alike(torch.tensor([[2.0], [4.0]])) == pytest.approx(9 / 10)
    assert alike(torch.tensor([[2.0], [-2.0]])) == 0
    assert alike(torch.tensor([[200.0], [400.0]])) == pytest.approx(9 / 10)  # whatever the scale


def test_rows_hold_what_svd_and_the_definitions_give() -> None:
    generator = network(one=orthogonal(), relu=nn.ReLU(), two=orthogonal())
    table = table_of(generator)
    z = generator.latents(SAMPLES)
    with torch.no_grad():
        one = generator.module.one(z)
        two = generator.module.two(one.relu())
    rows = [x.numpy().astype(float) for x in (z, one, one.relu(), two, two / 100)]  # 50 each side, grey is zero
    assert table.layer.tolist() == ["latent", "one", "relu", "two", "image"]
    assert table.dimensions.tolist() == [WIDTH] * 5
    ranks = np.array([rank_by_svd(x) for x in rows])
    np.testing.assert_allclose(table["rank"], ranks, rtol=1e-5)
    np.testing.assert_allclose(table.kept, [np.nan, *(ranks[1:] / ranks[:-1])], rtol=1e-5)
    shared = [np.sum(x.mean(0) ** 2) / np.mean(np.sum(x**2, 1)) for x in rows]
    np.testing.assert_allclose(table.alike, shared, rtol=1e-4)

    parts = [mine.numpy() for mine, _ in halves(64, 64, 50, 0)]
    assert {len(part) for part in parts} == {32}
    logs = [np.log(rank_by_svd(rows[2][part])) - np.log(rank_by_svd(rows[1][part])) for part in parts]
    reach = stats.t.ppf(0.975, 49) * np.std(logs, ddof=1)
    relu = table.iloc[2]
    assert relu.kept_low == pytest.approx(relu.kept / np.exp(reach), rel=1e-4)
    assert relu.kept_high == pytest.approx(relu.kept * np.exp(reach), rel=1e-4)
    assert np.isnan(table.kept_low[0])


def test_maps_count_by_their_coarse_content() -> None:
    content = torch.arange(64.0).reshape(1, 1, 8, 8)
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1  # averages to zero in 2×2 cells

    def spread(x: Tensor) -> Tensor:
        return x[:, :1, None, None] * content + x[:, 1:2, None, None] * 100 * board

    generator = network(
        maps=Map(spread),
        end=Map(lambda x: x[:, :, :4, :4].expand(-1, 3, -1, -1)),
    )
    table = depth_table(generator, ["maps"], SAMPLES, 16).iloc[1]
    z = generator.latents(SAMPLES).numpy().astype(float)
    cells = [content[0, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean().item() for i in range(4) for j in range(4)]
    rows = z[:, :1] * np.array(cells)
    assert table.dimensions == 16
    assert table["rank"] == pytest.approx(1, abs=1e-4)  # the board of a hundredfold strength is not seen
    assert table.alike == pytest.approx(np.sum(rows.mean(0) ** 2) / np.mean(np.sum(rows**2, 1)), rel=1e-3)


def test_intervals_hold_the_value_and_narrow_with_samples() -> None:
    generator = network(narrow=Map(lambda x: x[:, :6].tanh().repeat(1, 8) + 1))
    few, many = (depth_table(generator, ["narrow"], range(count), 64) for count in (32, 512))
    for name in ("rank", "alike", "kept"):
        for table in (few, many):
            rows = table.iloc[1 if name == "kept" else 0 :]
            assert (rows[f"{name}_low"] < rows[name]).all()
            assert (rows[name] < rows[f"{name}_high"]).all()
        wide, slim = (float(np.ptp(table.loc[1, [f"{name}_low", f"{name}_high"]])) for table in (few, many))
        assert slim < wide / 2


def test_the_interval_of_a_share_stays_between_zero_and_one() -> None:
    generator = network(sign=Map(lambda x: x[:, :1].sign().expand(-1, WIDTH)))
    table = table_of(generator)
    assert table.alike_low[1] == 0 < table.alike[1] < table.alike_high[1]  # about 1 / 64, and as uncertain


def test_a_healthy_network_loses_nothing() -> None:
    generator = network(one=orthogonal(), two=orthogonal(), three=orthogonal())
    table = table_of(generator)
    np.testing.assert_allclose(table.kept[1:], 1, rtol=1e-4)
    assert where_it_dies(table, None) is None
    assert where_it_dies(table, table_of(untrained(generator))) is None


def test_a_projection_is_found_by_its_rank() -> None:
    narrow = nn.Linear(WIDTH, WIDTH, bias=False)
    narrow.weight.data = torch.randn(WIDTH, 2) @ torch.randn(2, WIDTH) / WIDTH
    generator = network(one=orthogonal(), narrow=narrow, two=orthogonal())
    table = table_of(generator)
    assert table["rank"][2] < 2.01
    assert table.kept.idxmin() == 2
    assert where_it_dies(table, None) == "narrow"
    assert where_it_dies(table, table_of(untrained(generator))) == "narrow"


def test_what_the_architecture_loses_is_not_held_against_the_network() -> None:
    generator = network(one=orthogonal(), narrow=nn.Linear(WIDTH, 2), wide=nn.Linear(2, WIDTH))
    table = table_of(generator)
    assert where_it_dies(table, None) == "narrow"
    assert where_it_dies(table, table_of(untrained(generator))) is None


def test_a_deviation_that_shrinks_is_found_though_no_rank_dies() -> None:
    generator = network(one=orthogonal(), shrink=Map(lambda x: 1 + 0.01 * x), two=orthogonal())
    table = table_of(generator)
    np.testing.assert_allclose(table.kept[1:], 1, rtol=1e-3)
    assert table.alike.diff().idxmax() == 2
    assert table.alike[2] == pytest.approx(1 / 1.0001, abs=1e-5)
    assert where_it_dies(table, None) == "shrink"
    assert where_it_dies(table, table_of(untrained(generator))) == "shrink"


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_dead_layer_is_found(value: float) -> None:
    generator = network(one=orthogonal(), dead=Map(lambda x: torch.full_like(x, value)))
    table = table_of(generator)
    assert np.isnan(table["rank"][2])
    assert table.alike[2] == pytest.approx(1)
    assert where_it_dies(table, None) == "dead"


def made(
    kept: list[float], spread: float = 1.1, alikes: list[float] | None = None, reach: float = 0.01
) -> pd.DataFrame:
    ratios, shared = np.array([np.nan, *kept]), np.array(alikes or [0.1] * (len(kept) + 1))
    names = ["latent", *"abcdefg"[: len(kept) - 1], "image"]
    ends = {"alike_low": shared - reach, "alike_high": (shared + reach).clip(max=1)}
    kept_ends = {"kept_low": ratios / spread, "kept_high": ratios * spread}
    ranks = np.where(shared < 1, 9.0, np.nan)  # all alike have none
    return pd.DataFrame({"layer": names, "rank": ranks, "alike": shared, "kept": ratios} | ends | kept_ends)


@pytest.mark.parametrize(
    ("table", "control", "layer"),
    [
        (made([0.9, 0.24, 1]), None, "b"),
        (made([0.9, 0.26, 1]), None, None),
        (made([0.24, 0.2, 1]), None, "b"),
        (made([0.9, 0.24, 1], spread=2.2), None, None),  # up to more than a half
        (made([0.9, 0.9, 0.1]), None, "image"),
        (made([0.9, 0.3, 1]), made([1, 0.91, 1]), "b"),
        (made([0.9, 0.3, 1]), made([1, 0.89, 1]), None),
        (made([0.9, 0.3, 1]), made([1, 0.95, 1], spread=3.5), None),  # intervals meet
        (made([0.3, 0.2, 1]), made([1, 0.5, 1]), "a"),  # less than the control by more
        (made([1, 1, 1], alikes=[0, 0.2, 0.95, 0.99]), None, "b"),
        (made([1, 1, 1], alikes=[0, 0.2, 1, 1], reach=0), None, "b"),
        (made([1, 1, 1], alikes=[1, 1, 1 - 1e-17, 1], reach=1e-18), None, None),  # one latent, over and over
        (made([1, 1, 1], alikes=[0, 0.2, 0.91, 0.95]), None, None),
        (made([1, 1, 1], alikes=[0, 0.2, 0.93, 0.95], reach=0.03), None, None),
        (made([1, 1, 1], alikes=[0, 0.15, 0.936, 0.95], reach=0.02), None, None),  # 0.084 is not under 0.083
        (made([1, 1, 1], alikes=[0.99, 0.2, 0.2, 0.2]), None, None),  # the latents' own
        (made([1, 0.1, 1], alikes=[0, 0.99, 0.99, 0.99]), None, "b"),  # rank goes first
    ],
)
def test_verdicts_by_hand(table: pd.DataFrame, control: pd.DataFrame | None, layer: str | None) -> None:
    assert where_it_dies(table, control) == layer


def test_a_control_of_other_layers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"control .*layers"):
        where_it_dies(made([1, 1, 1]), made([1, 1]))


def test_neither_batch_nor_order_of_names_matters() -> None:
    generator = network(one=orthogonal(), relu=nn.ReLU(), two=orthogonal())
    table = table_of(generator)
    done: list[int] = []
    other = depth_table(generator, ["two", "one", "relu", "one"], SAMPLES, 5, advance=done.append)
    pd.testing.assert_frame_equal(table, other, rtol=1e-4, atol=1e-6)
    assert done == [5] * 12 + [4]


def test_hooks_are_gone_after_a_failure() -> None:
    def fussy(x: Tensor) -> Tensor:
        if len(x) == 16:
            raise ValueError("sixteen are too many")
        return x

    generator = network(one=orthogonal(), fussy=Map(fussy))
    with pytest.raises(DissectError, match="sixteen are too many"):
        table_of(generator)
    assert not any(module._forward_hooks for module in generator.module.modules())


def test_activations_that_are_not_finite_are_named() -> None:
    generator = network(one=orthogonal(), bad=Map(lambda x: x / (x > -2)), clean=Map(lambda x: x.nan_to_num(0, 0, 0)))
    with pytest.raises(DissectError, match="'bad' are not finite"):
        table_of(generator)


@pytest.mark.parametrize("count", [15, 1025])
def test_too_few_and_too_many_samples_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=rf"16 to 1024 .*{count}"):
        depth_table(network(one=orthogonal()), ["one"], range(count), 16)


def test_layers_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = network(one=orthogonal())
    with pytest.raises(UsageError, match="no layer 'ones'"):
        depth_table(generator, ["ones"], SAMPLES, 16)
    monkeypatch.setattr(generator.module, "forward", lambda x: x.reshape(-1, 3, 4, 4))
    with pytest.raises(DissectError, match="no part"):
        depth_table(generator, ["one"], SAMPLES, 16)


@pytest.mark.parametrize(
    ("function", "shape"),
    [(lambda x: x.mean(0, keepdim=True), r"\(1, 48\)"), (lambda x: x[:, 0], r"\(16,\)")],
)
def test_a_layer_without_a_row_for_each_sample_is_refused(function: Callable[[Tensor], Tensor], shape: str) -> None:
    generator = network(lot=Map(function), back=Map(lambda x: torch.zeros(16, WIDTH)))
    with pytest.raises(UsageError, match=f"'lot' outputs {shape} for 16 samples"):
        depth_table(generator, ["lot"], SAMPLES, 16)


def test_the_embedded_network_narrows_to_the_rank_of_its_data() -> None:
    """It keeps less than an untrained one, yet its images span as many directions as the scenes it learnt from."""
    generator, layers = load_generator("progan_scenes"), ["layer1", "layer3", "layer5", "layer7"]
    table, control = (depth_table(one, layers, SAMPLES, 16) for one in (generator, untrained(generator)))
    assert 0.4 < (table.kept / control.kept).min() < 0.6
    assert where_it_dies(table, control) is None
    assert where_it_dies(control, None) is None
    scenes = torch.from_numpy(render(SAMPLES, seed=99)[0]).double()  # (64, 3, 128, 128)
    cells = scenes.reshape(64, 3, 4, 32, 4, 32).mean((3, 5)).flatten(1)
    real = rank_by_svd(cells.numpy())
    assert real / 1.5 < table["rank"].iloc[-1] < real * 1.5
