"""Segmenters by their spec, torchvision's models, factories, and the check of labels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.segmenters import Vocabulary, check_labels, load_segmenter, table
from ganatomy.segmenters.colours import palette

from ..conftest import make_varied

LRASPP, DEEPLAB = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 40, 64, generator=torch.Generator().manual_seed(0))


def one_line(error: pytest.ExceptionInfo[DissectError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of weights, empty and without a network behind it."""

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("nobody there")

    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    return checkpoints


@pytest.mark.parametrize(
    ("name", "last", "file", "auxiliary"),
    [
        (LRASPP, "classifier.low_classifier", "lraspp_mobilenet_v3_large-d234d4ea.pth", {}),
        (DEEPLAB, "classifier.4", "deeplabv3_mobilenet_v3_large-fc3c493d.pth", {"aux_loss": True}),
    ],
)
@pytest.mark.slow
def test_torchvision_labels_are_those_of_the_network_by_hand(
    torch_cache: Path, name: str, last: str, file: str, auxiliary: dict[str, bool]
) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21, **auxiliary)
    make_varied(network, last, lambda output: output["out"])
    torch.save(network.state_dict(), torch_cache / file)
    segmenter = load_segmenter(f"torchvision:{name}")
    assert (segmenter.name, len(segmenter.vocabulary)) == (f"torchvision:{name}", 21)
    assert segmenter.vocabulary.names[:3] == ("__background__", "aeroplane", "bicycle")

    images = torch.rand(1, 3, 32, 48)
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    with torch.no_grad():
        classes = network(preset(images))["out"].argmax(1)[:, None]
    assert classes.shape == (1, 1, 520, 780)
    expected = F.interpolate(classes.double(), (32, 48), mode="nearest-exact").long()
    expected[expected == 0] = -1
    assert len(set(expected.flatten().tolist())) > 1
    assert torch.equal(segmenter(images), expected)
    assert {row.spec: row.here for row in table()}[f"torchvision:{name}"]

    chances = segmenter.probabilities(images.requires_grad_())
    assert chances.shape == (1, 21, 32, 48)
    assert torch.allclose(chances.sum(1), torch.ones(1, 32, 48), atol=1e-5)
    with torch.no_grad():
        scores = network(preset(images))["out"]
    expected_chances = F.interpolate(scores.softmax(1), (32, 48), mode="bilinear", antialias=True)
    assert torch.allclose(chances, expected_chances, atol=1e-4)
    assert torch.autograd.grad(chances.square().sum(), [images])[0].abs().sum() > 0


def test_torchvision_unreachable(torch_cache: Path) -> None:
    with pytest.raises(DissectError) as error:
        load_segmenter(f"torchvision:{LRASPP}")
    message = one_line(error)
    assert "https://download.pytorch.org/models/lraspp_mobilenet_v3_large-d234d4ea.pth" in message
    assert str(torch_cache / "lraspp_mobilenet_v3_large-d234d4ea.pth") in message


@pytest.mark.parametrize("content", [{"weights": Path()}, None])
def test_torchvision_reads_nothing_but_tensors(torch_cache: Path, content: object) -> None:
    file = torch_cache / "lraspp_mobilenet_v3_large-d234d4ea.pth"
    if content is None:
        file.write_bytes(b"<html>")
    else:
        torch.save(content, file)
    with pytest.raises(DissectError) as error:
        load_segmenter(f"torchvision:{LRASPP}")
    assert "damaged" in one_line(error)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("scene", "Did you mean 'scenes'?"),
        ("smp-hub/segformer-b3-512x512-ade-160k", "Did you mean 'hub:smp-hub/segformer-b3-512x512-ade-160k'?"),
        ("deeplabv3_resnet5O", "Did you mean 'torchvision:deeplabv3_resnet50'?"),
        ("hub:", "hub:FOLDER"),
        ("", "torchvision:NAME"),
        ("torchvision:deeplab_resnet50", "Did you mean 'deeplabv3_resnet50'?"),
        ("torchvison:fcn_resnet50", "Did you mean torchvision:fcn_resnet50?"),
        ("nosuchmodule:factory", "no module 'nosuchmodule'"),
        ("json:loadz", "Did you mean load or loads?"),
    ],
)
def test_unknown_specs(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_segmenter(spec)
    assert message in one_line(error)


def test_factory(tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_segmenters.py").write_text(
        "import torch\nfrom ganatomy.segmenters import Vocabulary\n"
        "class Bright:\n"
        "    name = 'bright'\n"
        "    vocabulary = Vocabulary(names=('dark', 'bright'), categories=('a', 'a'), colours=('#000000', '#ffffff'))\n"
        "    def __call__(self, images): return (images.mean(1, keepdim=True) > 0.5).long()\n"
        "class Nameless:\n"
        "    vocabulary = Bright.vocabulary\n"
        "    __call__ = Bright.__call__\n"
        "class Mute:\n"
        "    name, vocabulary = 'mute', Bright.vocabulary\n"
        "def listed():\n"
        "    segmenter = Bright()\n"
        "    segmenter.vocabulary = ['dark', 'bright']\n"
        "    return segmenter\n"
    )
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    segmenter = load_segmenter("my_segmenters:Bright")
    assert sys.path == path
    labels = segmenter(images)
    check_labels(labels, images, segmenter)
    assert torch.equal(labels[:, 0], (images.mean(1) > 0.5).long())
    for wrong in ("Nameless", "Mute", "listed"):
        with pytest.raises(DissectError) as error:
            load_segmenter(f"my_segmenters:{wrong}")
        assert "`name` and a `vocabulary`" in one_line(error)


class Fixed:
    """A segmenter by its vocabulary alone."""

    name = "fixed"
    vocabulary = Vocabulary(names=("a", "b"), categories=("object",) * 2, colours=palette(2))

    def __call__(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 1, *images.shape[2:], dtype=torch.int64)


def test_check_labels(images: Tensor) -> None:
    good = Fixed()(images)
    check_labels(good, images, Fixed())
    check_labels(torch.cat([good - 1, good + 1], 1), images, Fixed())
    check_labels(good[:0], images[:0], Fixed())
    wrongs: list[Any] = [good.float(), good[:, 0], good[:2], good[:, :0], good[..., :-1], good - 2, good + 2, [[0]]]
    for wrong in wrongs:
        with pytest.raises(DissectError) as error:
            check_labels(wrong, images, Fixed())
        assert "fixed" in one_line(error)


def test_vocabulary_of_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="2 names, 1 categories"):
        Vocabulary(names=("a", "b"), categories=("object",), colours=("#000000", "#ffffff"))


def test_palette() -> None:
    colours = palette(150)
    assert len(set(colours)) == 150
    assert colours[:21] == palette(21)
    assert all(len(colour) == 7 and colour[0] == "#" and int(colour[1:], 16) >= 0 for colour in colours)


def test_table() -> None:
    rows = {row.spec: row for row in table()}
    assert set(rows) >= {"scenes", "hub:smp-hub/segformer-b5-640x640-ade-160k", f"torchvision:{LRASPP}"}
    assert len(rows) == 2 + 4 + len(torchvision.models.list_models(torchvision.models.segmentation))
    assert (rows["scenes"].classes, rows["faces"].classes) == (23, 8)
    assert rows[f"torchvision:{LRASPP}"].classes == 20


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (128, 128), (64, 256), (160, 200)])
def test_an_embedded_segmenter_names_the_surest_class_if_sure(size: tuple[int, int]) -> None:
    segmenter: Any = load_segmenter("scenes")
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        best, expected = segmenter._scores(images).log_softmax(1).max(1, keepdim=True)
    margin = best - torch.tensor(0.5).log()
    expected = torch.where(margin < 0, -1, expected)
    expected = F.interpolate(expected.double(), size, mode="nearest-exact").long()
    different = segmenter(images) != expected
    assert int(different.sum()) <= int((margin.abs() < 1e-6).sum())  # pixels whose class hangs on rounding
    assert 0.01 < float((expected < 0).double().mean()) < 0.99
