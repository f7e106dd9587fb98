"""Networks of the optional libraries spandrel and diffusers: what the library itself outputs, and refusals."""

from __future__ import annotations

import json
import logging
import pickle
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ganatomy.dissect.generators.families.diffusers_decoder import Decoder, open_diffusers
from ganatomy.dissect.generators.families.spandrel_restorer import open_spandrel
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.hooks.tap import Tap

WEIGHTS = "diffusion_pytorch_model.safetensors"


def esrgan(**sizes: int) -> nn.Module:
    pytest.importorskip("spandrel")
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(1)
    return ESRGAN(**{"num_filters": 4, "num_blocks": 1, "scale": 2, **sizes}).eval()


def refused(error: type[DissectError], said: str) -> Any:
    """Expect an error of one line."""
    return pytest.raises(error, match=f"^(?-s:.*{said}.*)$")


@pytest.mark.parametrize(
    ("sizes", "scale", "multiple"),
    [({"scale": 2}, 2, 1), ({"scale": 4}, 4, 1), ({"in_nc": 12, "scale": 4, "shuffle_factor": 2}, 2, 4)],
)
def test_an_esrgan_puts_out_what_spandrels_own_does(sizes: dict[str, int], scale: int, multiple: int) -> None:
    net = esrgan(**sizes)
    module = open_spandrel(dict(net.state_dict()))
    assert (module.family, module.inputs, module.scale, module.multiple) == ("ESRGAN (spandrel)", 3, scale, multiple)
    assert module.layers == ()
    assert not module.training
    images = torch.rand(2, 3, 8, 12)
    with torch.no_grad():
        out, there = module(images), net(images).clamp(0, 1)
    assert torch.equal(out, there)
    assert out.shape == (2, 3, 8 * scale, 12 * scale)
    assert out.any()
    with torch.no_grad():
        assert module(images[..., :7]).shape == (2, 3, 8 * scale, 7 * scale)  # padded and cropped


def test_gradients_and_hooks_reach_into_a_spandrel_network_and_its_copies() -> None:
    module = deepcopy(open_spandrel(dict(esrgan().state_dict())))
    images = torch.rand(1, 3, 6, 6, requires_grad=True)
    with Tap(module, ["net.model.0"]) as tap:
        module(images).sum().backward()
    assert tap["net.model.0"].shape == (1, 4, 6, 6)
    assert images.grad is not None
    assert images.grad.any()
    with torch.no_grad():
        module.get_submodule("net.model.0").weight.zero_()
        module.get_submodule("net.model.0").bias.zero_()
        assert torch.equal(module(images), module(images + 1))  # the copy runs on its own weights


def test_weights_that_spandrel_cannot_use_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(esrgan().state_dict())
    with refused(DissectError, "spandrel knows no architecture with such keys: main.0.weight"):
        open_spandrel({"main.0.weight": torch.ones(1)})
    with refused(DissectError, "spandrel cannot build .*model.0.bias"):
        open_spandrel({key: tensor for key, tensor in state.items() if key != "model.0.bias"})
    with refused(DissectError, r"ESRGAN \(spandrel\) outputs 2 channels"):
        open_spandrel(dict(esrgan(out_nc=2).state_dict()))
    import spandrel

    model = spandrel.ModelLoader().load_from_state_dict(state)
    masked = spandrel.MaskedImageModelDescriptor(
        model.model, model.model.state_dict(), model.architecture, "Inpainting", [], True, True, 3, 3
    )
    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", lambda *_: masked)
    with refused(DissectError, "is for inpainting and needs a mask"):
        open_spandrel(state)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("spandrel", "diffusers"):
        monkeypatch.setitem(sys.modules, name, None)
    with refused(UsageError, r"extra spandrel; install it with: pip install 'ganatomy\[spandrel\]'"):
        open_spandrel({})
    with refused(UsageError, r"extra diffusers; install it with: pip install 'ganatomy\[diffusers\]'"):
        open_diffusers("some/where")


def autoencoder(kind: str = "AutoencoderKL", **config: Any) -> Any:
    """A tiny one that halves the size once, random."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(2)
    ups = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (4, 8), "norm_num_groups": 2, "latent_channels": 4, "sample_size": 16}
    return getattr(diffusers, kind)(**{**ups, **sizes, **config}).eval()


def saved(vae: Any, folder: Path) -> str:
    vae.save_pretrained(folder)
    return str(folder)


LATENTS = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("config", "scale", "shift"),
    [
        ({"scaling_factor": 0.5}, 2.0, 0.0),
        ({"scaling_factor": 0.25, "shift_factor": 0.75}, 4.0, 0.75),
        (
            {"scaling_factor": 0.5, "latents_mean": [1, 2, 3, 4], "latents_std": [2, 4, 2, 1]},
            [4, 8, 4, 2],
            [1, 2, 3, 4],
        ),
        ({"scaling_factor": 0.5, "use_quant_conv": False, "use_post_quant_conv": False}, 2.0, 0.0),
    ],
)
def test_latents_are_scaled_decoded_and_encoded_as_the_config_says(
    config: dict[str, Any], scale: Any, shift: Any, tmp_path: Path
) -> None:
    vae = autoencoder(**config)
    module = open_diffusers(saved(vae, tmp_path))
    assert module.latent_shape == (4, 8, 8)
    assert (module.inputs, module.multiple, module.training) == (0, 2, False)
    times, plus = (torch.tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1) for value in (scale, shift))
    images = torch.rand(2, 3, 8, 10) * 2 - 1
    with torch.no_grad():
        z = LATENTS * times + plus
        assert torch.equal(module(LATENTS), vae.decode(z).sample)
        assert module(LATENTS).shape == (2, 3, 10, 12)
        moments = vae.encoder(images)
        if vae.quant_conv is not None:
            moments = vae.quant_conv(moments)
        torch.testing.assert_close(module.encode(images), (moments[:, :4] - plus) / times)
    assert not module.encode(images).requires_grad


def test_a_vqmodel_decodes_the_nearest_entries_of_its_codebook(tmp_path: Path) -> None:
    vae = autoencoder("VQModel", latent_channels=3, vq_embed_dim=2, num_vq_embeddings=5, scaling_factor=0.5)
    vae.quantize.embedding.weight.data.normal_()
    module = open_diffusers(saved(vae, tmp_path))
    assert module.latent_shape == (2, 8, 8)
    latents = LATENTS[:, :2]
    book = vae.quantize.embedding.weight.data
    nearest = torch.empty_like(latents)
    for n in range(2):
        for y in range(5):
            for x in range(6):
                gaps = [(latents[n, :, y, x] * 2 - entry).square().sum().item() for entry in book]
                nearest[n, :, y, x] = book[gaps.index(min(gaps))]
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        there = vae.decoder(vae.post_quant_conv(nearest))
        torch.testing.assert_close(module(latents), there, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(module.encode(images), vae.quant_conv(vae.encoder(images)) * 0.5)


@pytest.mark.parametrize("up", ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"])
def test_layers_put_out_featuremaps_from_coarse_to_fine(up: str) -> None:
    module = Decoder(autoencoder(up_block_types=(up, up)))
    ups = [f"vae.decoder.up_blocks.{i}.resnets.{j}" for i in (0, 1) for j in (0, 1)]
    assert module.layers == ("vae.decoder.mid_block", *ups)
    with torch.no_grad(), Tap(module, module.layers) as tap:
        module(LATENTS)
    shapes = [tuple(tap[name].shape) for name in module.layers]
    assert shapes == [(2, 8, 5, 6)] * 3 + [(2, 4, 10, 12)] * 2


@pytest.mark.parametrize("below", ["vae", "vqvae", "vqgan"])
def test_a_pipelines_folder_will_do(below: str, tmp_path: Path) -> None:
    vae = autoencoder()
    saved(vae, tmp_path / below)
    (tmp_path / "model_index.json").write_text("{}")
    module = open_diffusers(str(tmp_path))
    assert all(torch.equal(tensor, vae.state_dict()[key]) for key, tensor in module.vae.state_dict().items())


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("by_index", [False, True])
def test_pickles_are_refused_and_never_run(by_index: bool, tmp_path: Path) -> None:
    name = saved(autoencoder(), tmp_path)
    ran = tmp_path / "ran"
    bad = WEIGHTS.replace("safetensors", "bin")
    (tmp_path / bad).write_bytes(pickle.dumps({"decoder.conv_in.weight": Payload(ran)}))
    if by_index:
        index = {"metadata": {}, "weight_map": {"decoder.conv_in.weight": bad}}
        (tmp_path / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    else:
        (tmp_path / WEIGHTS).unlink()
    with refused(DissectError, "lacks diffusion_pytorch_model.safetensors as one file.*never from pickles"):
        open_diffusers(name)
    assert not ran.exists()
    pickle.loads((tmp_path / bad).read_bytes())
    assert ran.exists()  # it would have


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_folders_that_hold_no_decoder_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    with refused(UsageError, "There is no folder './nowhere'.*diffusers:OWNER/NAME"):
        open_diffusers("./nowhere")
    with refused(DissectError, "has no config.json, nor has a folder vae"):
        open_diffusers(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with refused(DissectError, "config.json was not written by save_pretrained"):
        open_diffusers(str(tmp_path))
    name = saved(autoencoder(), tmp_path)
    for changes, said in (
        ({"_class_name": "UNet2DModel"}, "class UNet2DModel; expected AutoencoderKL or VQModel"),
        ({"_class_name": "AutoencoderKL", "latent_channels": 6}, "AutoencoderKL in .* cannot be loaded"),
        ({"latent_channels": 4, "scaling_factor": None}, "AutoencoderKL in .* cannot be loaded"),
    ):
        edit_config(tmp_path, **changes)
        with refused(DissectError, said):
            open_diffusers(name)
    name = saved(autoencoder(out_channels=4), tmp_path)
    with refused(DissectError, "outputs 4 channels"):
        open_diffusers(name)


def test_weights_that_lack_a_key_are_refused(tmp_path: Path) -> None:
    name = saved(autoencoder(), tmp_path)
    state: dict[str, Tensor] = load_file(tmp_path / WEIGHTS)
    del state["decoder.conv_in.weight"]
    save_file(state, tmp_path / WEIGHTS)
    with refused(DissectError, "lacks decoder.conv_in.weight; fetch or save it again"):
        open_diffusers(name)


def test_the_library_is_silent_and_gets_its_voice_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vae = autoencoder()
    name = saved(vae, tmp_path)
    edit_config(tmp_path, of_another_version=1)
    log = logging.getLogger("diffusers")
    log.addHandler(caplog.handler)
    try:
        open_diffusers(name)
        assert not caplog.records
        type(vae).from_pretrained(name)
        assert caplog.records
    finally:
        log.removeHandler(caplog.handler)


def test_a_repository_is_fetched_without_pickles_or_said_to_be_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    hub = pytest.importorskip("huggingface_hub")
    saved(autoencoder(), tmp_path / "vae")
    asked = {}

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        if name == "some/pipeline":
            return str(tmp_path)
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert open_diffusers("some/pipeline").latent_shape == (4, 8, 8)
    assert {"config.json", WEIGHTS, "vae/config.json", f"vae/{WEIGHTS}"} <= set(asked["some/pipeline"])
    assert {Path(pattern).suffix for pattern in asked["some/pipeline"]} == {".json", ".safetensors"}
    with refused(DissectError, "other/one.*no network.*hf download other/one --local-dir DIR.*diffusers:DIR"):
        open_diffusers("other/one")
