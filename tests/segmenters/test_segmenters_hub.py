"""Checkpoints of segmentation-models-pytorch: what loads, what is refused, and labels against the network by hand."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy import segmenters
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.segmenters import Segmenter, check_labels, load_segmenter, table
from ganatomy.segmenters.base import Differentiable
from ganatomy.segmenters.hub import TRANSFORM, is_cached

from ..conftest import make_varied

ENCODER = "tu-tf_mobilenetv3_small_minimal_100"
NAMES = ["sky", "tree", "door", "grass"]


def unet(classes: int = 4, encoder: str = ENCODER) -> smp.Unet:
    """A tiny network whose labels vary from pixel to pixel."""
    torch.manual_seed(0)
    network = smp.Unet(encoder, encoder_weights=None, encoder_depth=3, decoder_channels=(16, 8, 8), classes=classes)
    make_varied(network, "segmentation_head.0", lambda output: output)
    return network


def by_hand(network: nn.Module, images: Tensor, size: tuple[int, int], mean: list[float], std: list[float]) -> Tensor:
    resized = F.interpolate(images, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        scores = network((resized - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    return F.interpolate(scores.argmax(1)[:, None].double(), images.shape[2:], mode="nearest-exact").long()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    unet().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint to change."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 40, 64, generator=torch.Generator().manual_seed(0))


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def write_transform(folder: Path, *steps: dict[str, object]) -> None:
    pipeline = {"__class_fullname__": "Compose", "p": 1.0, "transforms": steps}
    (folder / TRANSFORM).write_text(json.dumps({"__version__": "1.4.14", "transform": pipeline}))


def one_line(error: pytest.ExceptionInfo[DissectError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.file),)


def test_hub_labels_are_those_of_the_network_by_hand(
    folder: Path, images: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    # as the public SegFormer checkpoints state it, for pixels in 0…255: ImageNet's values times 255
    change_config(folder, _class_names=NAMES)
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    write_transform(
        folder,
        {"__class_fullname__": "Resize", "height": 96, "width": 128, "interpolation": 1},
        {"__class_fullname__": "Normalize", "mean": mean, "std": std, "max_pixel_value": 1.0},
    )
    segmenter = load_segmenter(f"hub:{folder}")
    assert isinstance(segmenter, Segmenter)
    assert (segmenter.name, segmenter.vocabulary.names) == (f"hub:{folder}", tuple(NAMES))
    labels = segmenter(images)

    expected = by_hand(unet(), images, (96, 128), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert len(set(expected.flatten().tolist())) > 1
    assert torch.equal(labels, expected)
    check_labels(labels, images, segmenter)
    assert not capsys.readouterr().out  # stdout belongs to results


@pytest.mark.parametrize(
    ("encoder", "mean", "std"),
    [
        (ENCODER, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),  # as timm has it for this encoder
        ("timm-mobilenetv3_small_minimal_100", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
@pytest.mark.parametrize(("name", "size"), [("mine", (64, 64)), ("mine-96x128-ade", (96, 128))])
@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated")
def test_hub_without_preprocessing(
    tmp_path: Path, images: Tensor, encoder: str, mean: list[float], std: list[float], name: str, size: tuple[int, int]
) -> None:
    network = unet(encoder=encoder)
    network.save_pretrained(tmp_path / name)
    segmenter = load_segmenter(f"hub:{tmp_path / name}")
    assert segmenter.vocabulary.names == ("class 0", "class 1", "class 2", "class 3")
    assert torch.equal(segmenter(images), by_hand(network, images, size, mean, std))  # 40 is not a multiple of 32


def test_hub_labels_do_not_depend_on_the_batch(saved: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = load_segmenter(f"hub:{saved}")
    together = segmenter(images)
    monkeypatch.setattr("ganatomy.segmenters.hub.SCORES", 1)  # one image a forward pass
    assert torch.equal(segmenter(images), together)


@pytest.mark.parametrize("size", [(64, 64), (40, 64)])
def test_hub_probabilities_are_those_of_the_labels_and_let_a_gradient_through(
    saved: Path, images: Tensor, size: tuple[int, int]
) -> None:
    segmenter = load_segmenter(f"hub:{saved}")
    assert isinstance(segmenter, Differentiable)
    images = F.interpolate(images, size, mode="bilinear").requires_grad_()
    chances = segmenter.probabilities(images)
    assert chances.shape == (3, len(segmenter.vocabulary), *size)
    assert torch.allclose(chances.sum(1), torch.ones(3, *size), atol=1e-5)
    if size == (64, 64):  # else resized: probabilities are blended, labels are not
        assert torch.equal(chances.argmax(1), segmenter(images.detach())[:, 0])
    given = segmenter.preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (given.mean, given.std))
    with torch.no_grad():
        scores = segmenter.network((F.interpolate(images, (64, 64), mode="bilinear", antialias=True) - mean) / std)
    expected = F.interpolate(scores.softmax(1), size, mode="bilinear", antialias=True)
    assert torch.allclose(chances, expected, atol=1e-5)
    (gradient,) = torch.autograd.grad(chances[:, 0].mean(), [images])
    assert gradient.abs().sum() > 0
    assert all(weight.grad is None for weight in segmenter.network.parameters())


def test_hub_150_classes_are_those_of_ade20k(tmp_path: Path) -> None:
    unet(classes=150).save_pretrained(tmp_path)
    vocabulary = load_segmenter(f"hub:{tmp_path}").vocabulary
    assert len(vocabulary) == len(set(vocabulary.names)) == len(set(vocabulary.colours)) == 150
    published = {1: "wall", 2: "building", 3: "sky", 5: "tree", 9: "windowpane", 15: "door", 18: "plant", 53: "path"}
    published |= {85: "tower", 96: "bannister", 106: "conveyer belt", 125: "microwave", 132: "blanket", 150: "flag"}
    assert {number: vocabulary.names[number - 1] for number in published} == published
    with (Path(segmenters.__file__).parent / "ade20k.csv").open(encoding="utf-8") as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(150))


def test_hub_own_names_win_over_ade20k(tmp_path: Path) -> None:
    unet(classes=150).save_pretrained(tmp_path)
    change_config(tmp_path, _class_names=[f"thing {i}" for i in range(150)])
    assert load_segmenter(f"hub:{tmp_path}").vocabulary.names[7] == "thing 7"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_names": NAMES[:3]}, "list of 4 names"),
        ({"_class_names": "abcd"}, "list of 4 names"),
        ({"_model_class": None}, "not written by save_pretrained"),
        ({"_model_class": "Nonesuch"}, "cannot be loaded"),
        ({"encoder_depth": 4}, "cannot be loaded"),
        ({"classes": 1}, "at least 2 classes"),
        ({"in_channels": 1}, "RGB"),
    ],
)
def test_hub_unusable_config(folder: Path, config: dict[str, object], message: str) -> None:
    change_config(folder, **config)
    with pytest.raises(DissectError) as error:
        load_segmenter(f"hub:{folder}")
    assert message in one_line(error)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_hub_broken_config(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(DissectError) as error:
        load_segmenter(f"hub:{folder}")
    assert "config.json" in one_line(error)


def test_hub_unknown_preprocessing_is_refused(folder: Path) -> None:
    write_transform(folder, {"__class_fullname__": "albumentations.CenterCrop", "height": 32, "width": 32})
    with pytest.raises(DissectError, match="step CenterCrop"):
        load_segmenter(f"hub:{folder}")
    (folder / TRANSFORM).write_text("{}")
    with pytest.raises(DissectError, match=TRANSFORM):
        load_segmenter(f"hub:{folder}")


def test_hub_missing_folder_and_files(folder: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_segmenter(f"hub:{folder / 'nowhere'}")
    assert "save_pretrained" in one_line(error)
    (folder / "config.json").unlink()
    with pytest.raises(DissectError, match=r"lacks config\.json"):
        load_segmenter(f"hub:{folder}")


def test_hub_never_reads_a_pickle(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DissectError) as error:
        load_segmenter(f"hub:{folder}")
    assert "never from pickles" in one_line(error)
    shutil.copy(folder / "pytorch_model.bin", folder / "model.safetensors")
    with pytest.raises(DissectError, match="cannot be loaded"):
        load_segmenter(f"hub:{folder}")
    assert not (tmp_path / "sprung").exists()


def test_hub_unreachable(tmp_path: Path) -> None:
    with socket.socket() as probe:  # a port where nobody listens
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys\nfrom ganatomy.segmenters import Segmenter, Vocabulary, load_segmenter\n"
        "assert 'torch' not in sys.modules\n"
        "try: load_segmenter('hub:smp-hub/segformer-b3-512x512-ade-160k')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    variables = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("DissectError There is no folder 'smp-hub/segformer-b3"), done.stderr
    assert "hf download smp-hub/segformer-b3-512x512-ade-160k --local-dir DIR" in done.stdout
    assert done.stdout.count("\n") == 1


def test_hub_cached_model_needs_no_network(
    saved: Path, tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = "smp-hub/segformer-b1-512x512-ade-160k"
    assert not is_cached(repository)
    cache = tmp_path / f"models--{repository.replace('/', '--')}"
    shutil.copytree(saved, cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    assert {row.spec: row.here for row in table()}[f"hub:{repository}"]
    assert load_segmenter(f"hub:{repository}")(images).shape == (3, 1, 40, 64)
