"""Edits made permanent: the same images as the hooks', in weights where that is possible, and through files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ganatomy.dissect import Generator, NormalLatents
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.generators.kept_edits import PULL, VALUE
from ganatomy.dissect.generators.loading import load_generator
from ganatomy.dissect.generators.recognition import open_checkpoint
from ganatomy.dissect.repairs.folding import make_permanent
from ganatomy.hooks import Edit, edited
from ganatomy.hooks.errors import DissectError


@pytest.fixture
def progan() -> Generator:
    torch.manual_seed(0)
    module = ProGAN(8, (6, 5, 4)).requires_grad_(False)
    layers = tuple(name for name, _ in module.named_children() if name.startswith("layer"))
    return Generator(module=module, name="tiny", source=NormalLatents((8,)), layers=layers)


def drawn(generator: Generator, *edits: Edit) -> Tensor:
    with torch.inference_mode(), edited(generator.module, *edits):
        return generator(generator.latents(range(6)))


MEANS = torch.tensor([0.5, -0.3])


@pytest.mark.parametrize(
    ("value", "strength", "folds"),
    [(0.0, 1.0, True), (0.0, 0.4, True), (MEANS, 1.0, True), (MEANS, 0.4, False)],
)
def test_a_permanent_edit_draws_what_the_hook_draws(
    progan: Generator, tmp_path: Path, value: float | Tensor, strength: float, folds: bool
) -> None:
    edits = [
        Edit(layer="layer3", units=(1, 4), value=value, strength=strength),
        Edit(layer="layer6", units=(0, 2), value=value, strength=strength),
    ]
    wanted, plain = drawn(progan, *edits), drawn(progan)
    assert (wanted - plain).abs().max() > 0.01
    assert make_permanent(progan, edits) == {"layer3": folds, "layer6": folds}
    assert torch.allclose(drawn(progan), wanted, atol=1e-5)
    if folds and not torch.as_tensor(value).any() and strength == 1:
        for layer, units in (("layer3", [1, 4]), ("layer6", [0, 2])):
            block = progan.module.get_submodule(layer)
            assert not block.conv.weight[units].any()
            assert not block.wscale.b[units].any()
    # through a file of either kind, opened as `--model FILE` does
    torch.save(progan.module.state_dict(), tmp_path / "repaired.pth")
    save_file({k: v.contiguous() for k, v in progan.module.state_dict().items()}, tmp_path / "repaired.safetensors")
    for file in ("repaired.pth", "repaired.safetensors"):
        again = open_checkpoint(tmp_path / file)
        assert torch.allclose(drawn(again), wanted, atol=1e-5)
    # and by plain PyTorch: whole where it was folded, without the edit where it was not
    plainly = ProGAN(8, (6, 5, 4)).eval()
    plainly.load_state_dict(torch.load(tmp_path / "repaired.pth", weights_only=True), strict=folds)
    bare = replace(progan, module=plainly)
    assert torch.allclose(drawn(bare), wanted if folds else plain, atol=1e-5)


class Chain(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 6, 4, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.Tanh()
        self.conv = nn.Conv2d(6, 5, 3, padding=1)
        self.last = last

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.conv(self.act(self.norm(self.up(z[:, :, None, None])))))


@pytest.mark.parametrize(
    ("layer", "value", "folds"),
    [
        ("up", 0.0, True),
        ("up", 0.7, False),  # it has no bias to hold a constant
        ("norm", 0.7, True),
        ("act", 0.0, False),
        ("conv", 0.7, True),
    ],
)
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_other_layers_fold_where_they_can(layer: str, value: float, folds: bool, strength: float) -> None:
    torch.manual_seed(1)
    module = Chain(nn.Conv2d(5, 3, 1)).requires_grad_(False)
    generator = Generator(module=module, name="chain", source=NormalLatents((8,)))
    edit = Edit(layer=layer, units=(0, 3), value=value, strength=strength)
    wanted = drawn(generator, edit)
    assert make_permanent(generator, [edit]) == {layer: folds}
    assert torch.allclose(drawn(generator), wanted, atol=1e-5)


def test_a_second_repair_keeps_the_first(progan: Generator) -> None:
    first = Edit(layer="layer3", units=(0, 1), value=0.5, strength=0.5)
    second = Edit(layer="layer3", units=(1, 2), value=-1.0, strength=0.25)
    wanted = drawn(progan, first, second)
    make_permanent(progan, [first])
    make_permanent(progan, [second])
    assert torch.allclose(drawn(progan), wanted, atol=1e-5)
    assert len(progan.module.layer3._forward_hooks) == 1


def test_the_embedded_generator_with_units_zeroed(tmp_path: Path) -> None:
    generator = load_generator("progan_scenes")
    edit = Edit(layer="layer4", units=tuple(range(0, 40, 2)))
    wanted = drawn(generator, edit)
    assert make_permanent(generator, [edit]) == {"layer4": True}
    torch.save(generator.module.state_dict(), tmp_path / "r.pth")
    assert torch.allclose(drawn(open_checkpoint(tmp_path / "r.pth")), wanted, atol=1e-4)


def test_a_damaged_edit_is_refused(progan: Generator, tmp_path: Path) -> None:
    make_permanent(progan, [Edit(layer="layer3", units=(1,), value=0.5, strength=0.5)])
    state = progan.module.state_dict()
    for changed in ({f"layer3.{VALUE}": torch.zeros(3)}, {f"layer3.{PULL}": None}):
        broken = {key: value for key, value in (state | changed).items() if value is not None}
        torch.save(broken, tmp_path / "broken.pth")
        with pytest.raises(DissectError, match="edit of layer3 in the checkpoint is incomplete"):
            open_checkpoint(tmp_path / "broken.pth")
