"""The main job on generators with planted truth: labels, independence, resumption, bad input."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ganatomy import dissect
from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.capture import capture as capture_module
from ganatomy.dissect.capture import spool as spool_module
from ganatomy.dissect.capture.spool import Spool
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.subjects.first_look import FIRST
from ganatomy.hooks.errors import DissectError, UsageError

from ..conftest import NAMES, ColourSegmenter, Go, Painter


def same(a: dissect.Dissection, b: dissect.Dissection, layer: str = "paint", but: tuple[str, ...] = ()) -> None:
    """Equal to the last bit where integers are concerned; `but` names columns that need not be."""
    tables = [run.units[run.units.layer == layer].reset_index(drop=True).drop(columns=list(but)) for run in (a, b)]
    pd.testing.assert_frame_equal(*tables)
    for half in ("choose", "score"):
        x, y = a.counts(layer, half), b.counts(layer, half)
        assert np.array_equal(x.intersection, y.intersection)
        assert np.array_equal(x.unit_area, y.unit_area)
        assert np.array_equal(x.class_area, y.class_area)
    for x, y in zip(a.tops(layer), b.tops(layer), strict=True):
        assert np.array_equal(x, y)


@pytest.mark.parametrize("rule", ["iqr", "quantile"])
def test_planted_units_get_their_labels(go: Go, rule: str) -> None:
    found = go(threshold=rule, quantile=0.02)
    units = found.units.set_index("unit")
    assert units.label[:4].tolist() == list(NAMES)
    assert units.labelled[:4].all()
    assert not units.labelled[4:].any()
    assert units.state.tolist() == ["ok"] * 4 + ["constant", "ok"]
    if rule == "iqr":
        assert (units.iou[:4] > 0.5).all()
        assert (units.iou[:4] > 5 * units.chance_iou[:4]).all()
    assert units["quantile"][:4].between(0.001, 0.1).all()
    assert found.summary().to_dict("records")[0]["labelled"] == 4


def test_classes_say_how_much_there_is(go: Go, painter: Generator, colours: ColourSegmenter) -> None:
    found = go(samples=64)
    labels = colours(painter(painter.latents(range(64))))
    for index, row in found.classes.iterrows():
        assert row["class"] == NAMES[index]
        assert row.share == pytest.approx(float((labels == index).float().mean()), rel=1e-5)
        assert row.images == pytest.approx(float((labels == index).flatten(1).any(1).float().mean()), rel=1e-5)
        assert row.units == 1


def test_batch_size_does_not_matter(go: Go, tmp_path: Path) -> None:
    whole = go(batch_size=64, samples=100)
    for size in (1, 7, 1000):
        same(whole, go(batch_size=size, samples=100, out=tmp_path / str(size)))


class Two(nn.Module):
    """Two convolutions and an image, for questions about layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two, self.rgb = nn.Conv2d(4, 9, 3, padding=1), nn.Conv2d(9, 5, 3, padding=1), nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.rgb(self.two(torch.relu(self.one(x)).repeat_interleave(2, 2).repeat_interleave(2, 3))))


def test_layers_do_not_influence_each_other(go: Go, tmp_path: Path) -> None:
    model = Generator(module=Two(), name="two", source=NormalLatents((4, 8, 8)))
    both = go(model=model, layers=["one", "two"], samples=70)
    swapped = go(model=model, layers=[2, 1], samples=70, out=tmp_path / "swapped")
    alone = go(model=model, layers=["two"], samples=70, out=tmp_path / "alone")
    assert both.layers == ["one", "two"]
    assert swapped.layers == ["two", "one"]
    for layer in ("one", "two"):
        same(both, swapped, layer)
    same(both, alone, "two", but=("q_value", "labelled"))  # these are over all units of a run


def test_samples_do_not_depend_on_how_many_there_are(painter: Generator) -> None:
    assert torch.equal(painter.latents(range(100))[[3, 77]], painter.latents([3, 77]))
    other = replace(painter, source=painter.source.seeded(1))
    assert not torch.equal(painter.latents([3]), other.latents([3]))
    numbers = NormalLatents((500,))(range(200))
    assert abs(float(numbers.mean())) < 0.02
    assert float(numbers.std()) == pytest.approx(1, abs=0.02)


def test_an_interrupted_run_goes_on(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = go(out=tmp_path / "whole")
    sample, seen = capture_module._sample, []

    def stop_at_150(generator: Any, segmenter: Any, plan: Any, indices: Sequence[int]) -> Any:
        if indices[0] >= 150 and not seen.count("stopped"):
            seen.append("stopped")
            raise KeyboardInterrupt
        seen.extend(indices)
        return sample(generator, segmenter, plan, indices)

    monkeypatch.setattr(capture_module, "_sample", stop_at_150)
    with pytest.raises(KeyboardInterrupt):
        go()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "incomplete"
    with pytest.raises(UsageError, match="not finished"):
        dissect.Dissection.load(tmp_path / "run")
    again = go()
    assert seen.count(0) == 1  # the first shard was kept
    same(whole, again)
    before = len(seen)
    same(whole, go())  # finished: returned at once
    assert len(seen) == before


def test_a_full_disk_keeps_what_is_there(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, written = np.save, []

    def full(file: Any, array: Any, **options: Any) -> None:
        written.append(file)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, array, **options)

    monkeypatch.setattr(spool_module.np, "save", full)
    with pytest.raises(DissectError, match=r"No space left on device.*what was captured stays"):
        go()
    assert [path.name for path in (tmp_path / "run" / "spool").iterdir()] == ["shard-00000"]
    monkeypatch.undo()
    same(go(), go(out=tmp_path / "whole"))


def test_memory_that_runs_out_halves_the_batch(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample, sizes = capture_module._sample, []

    def small(generator: Any, segmenter: Any, plan: Any, indices: Sequence[int]) -> Any:
        sizes.append(len(indices))
        if len(indices) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample(generator, segmenter, plan, indices)

    monkeypatch.setattr(capture_module, "_sample", small)
    found = go(batch_size=64)
    assert sizes[:4] == [64, 32, 16, 8]
    assert set(sizes[4:]) <= {1, 2, 4, 8}
    monkeypatch.undo()
    same(found, go(out=tmp_path / "plain"))


def test_other_failures_do_not_halve_the_batch(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def broken(_generator: Any, _segmenter: Any, _plan: Any, indices: Sequence[int]) -> Any:
        sizes.append(len(indices))
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(capture_module, "_sample", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        go(batch_size=64)
    assert sizes == [64]


def test_the_networks_are_called_once_a_sample(go: Go, painter: Generator, colours: ColourSegmenter) -> None:
    drawn, named = [], []
    painter.module.register_forward_hook(lambda _m, inputs, _out: drawn.extend(inputs[0][:, 0].tolist()))

    class Counting(ColourSegmenter):
        def __call__(self, images: Tensor) -> Tensor:
            named.append(len(images))
            return super().__call__(images)

    go(segmenter=Counting(), samples=130)
    assert sum(named) == 130 + 1 + FIRST  # sample 0 and the first few twice: first to see what comes out
    assert len(drawn) <= 130 + 1 + 1 + FIRST + 2  # these again, and sample 0 to see that it comes out the same
    assert len(set(drawn)) == 130


def test_the_spool_is_kept_or_dropped(go: Go, tmp_path: Path) -> None:
    go()
    assert not list((tmp_path / "run").rglob("features-*"))
    kept = go(keep_spool=True, out=tmp_path / "kept")
    features = kept.spool.read(1, "features-0")
    assert features.shape == (72, 6, 8, 8)
    assert features.dtype == np.float16
    assert not list(kept.folder.rglob("*.part"))


def test_featuremaps_of_which_some_are_dropped_are_not_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 3)
    spool.write(0, {name: np.zeros((3, 1)) for name in ("features-0", "features-1")})
    assert spool.has_features(2)
    (tmp_path / "shard-00000" / "features-0.npy").unlink()  # killed amidst dropping
    assert not spool.has_features(2)


def test_broken_activations_are_named(go: Go) -> None:
    class Broken(Painter):
        def forward(self, latents: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(latents)

    module = Broken()
    module.paint = Break()
    found = go(model=Generator(module=module, name="broken", source=NormalLatents((6,)), layers=("paint",)))
    assert found.units.state.tolist() == ["ok", "not finite", "ok", "ok", "constant", "ok"]
    assert found.units.label.tolist()[1] == ""
    assert not found.units.labelled[1]
    assert np.isnan(found.units.iou[1])
    assert found.units.label[0] == "red"


class Break(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 1] = torch.nan
        return x


def test_large_and_small_activations_fit_float16(go: Go, tmp_path: Path) -> None:
    plain = go()
    for factor in (2.0**20, 2.0**-20):
        module = Painter()
        module.paint = Scaled(factor)
        module.colour.weight.data /= factor
        model = Generator(module=module, name="scaled", source=NormalLatents((6,)), layers=("paint",))
        scaled = go(model=model, out=tmp_path / str(factor))
        assert scaled.units.label.tolist() == plain.units.label.tolist()
        np.testing.assert_allclose(scaled.units.iou, plain.units.iou, rtol=1e-5)
        np.testing.assert_allclose(scaled.units.threshold, plain.units.threshold * factor, rtol=1e-4, atol=0)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_a_layer_finer_than_the_grid_is_shrunk(go: Go) -> None:
    model = Generator(module=Two(), name="two", source=NormalLatents((4, 16, 16)))
    found = go(model=model, layers=["one", "two"], samples=10, grid=8, keep_spool=True)
    assert found.info["grid"] == 8
    with torch.inference_mode():
        one = model.module.one(model.latents(range(10)))
    truth = nn.functional.interpolate(one, (8, 8), mode="bilinear", antialias=True)
    stored = torch.tensor(np.array(found.spool.read(0, "features-0"))).float() * found.info["layers"]["one"]["scale"]
    torch.testing.assert_close(stored, truth, rtol=2e-3, atol=2e-3)


def test_a_grey_generator_is_shown_grey() -> None:
    generator = Generator(module=nn.Identity(), name="grey", source=NormalLatents((1, 4, 4)), output_range=(0, 2))
    images = generator(torch.full((2, 1, 4, 4), 3.0))
    assert images.shape == (2, 3, 4, 4)
    assert (images == 1).all()


def test_scores_do_not_move_when_threads_do(tmp_path: Path, colours: ColourSegmenter) -> None:
    """A real progressive GAN, one batch size against another: labels are the same."""
    torch.manual_seed(0)
    model = Generator(module=ProGAN(8, (16, 16, 8)), name="tiny", source=NormalLatents((8,)), layers=("layer4",))
    runs = [
        dissect.run(
            model,
            layers=["layer4"],
            segmenter=colours,
            samples=80,
            batch_size=size,
            out=tmp_path / str(size),
            quiet=True,
        )
        for size in (3, 64)
    ]
    assert runs[0].units.label.tolist() == runs[1].units.label.tolist()
    np.testing.assert_allclose(runs[0].units.iou, runs[1].units.iou, atol=2e-4)


def test_a_shard_is_whole_or_absent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 200)
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        spool.write(0, {"labels": np.zeros(128), "bad": np.array([object()])})
    assert list(tmp_path.iterdir()) == []
    assert spool.missing() == [0, 1]


def test_threads_are_as_before(go: Go) -> None:
    before = torch.get_num_threads()
    go(samples=20)
    assert torch.get_num_threads() == before


def test_layers_may_be_called_anything(go: Go) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"a/b": nn.Conv2d(4, 3, 1)})

        def forward(self, x: Tensor) -> Tensor:
            return self.parts["a/b"](x)

    found = go(model=Generator(module=Odd(), name="../x", source=NormalLatents((4, 8, 8))), layers=1, samples=20)
    assert found.layers == ["parts.a/b"]
    assert len(found.units) == 3
