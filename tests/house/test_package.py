"""What the built wheel holds and what the house forbids."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that the checkout stays clean
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)], check=True
    )
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert all(name.startswith("ganatomy/") for name in names)
    assert [name for name in names if re.fullmatch(r"ganatomy/[^/]+", name)] == [
        "ganatomy/__init__.py",
        "ganatomy/cli.py",
    ]
    folders = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert folders == {"dissect", "hooks", "reports", "segmenters"}
    for needed in (
        "segmenters/ade20k.csv",
        "segmenters/weights/scenes.safetensors",
        "segmenters/weights/faces.safetensors",
        "dissect/py.typed",
        "dissect/generators/weights/progan_scenes.safetensors",
        "dissect/generators/weights/progan_scenes.md",
        "reports/templates/report.html",
        "reports/assets/report.css",
        "reports/assets/browse.js",
    ):
        assert f"ganatomy/{needed}" in names
    modules = {str(path.relative_to(ROOT)) for part in folders for path in (ROOT / part).rglob("*.py")}
    expected = modules | {"__init__.py", "cli.py"}
    assert {name.removeprefix("ganatomy/") for name in names if name.endswith(".py")} == expected


def test_embedded_weights_are_small(wheel: zipfile.ZipFile) -> None:
    assert sum(info.file_size for info in wheel.infolist() if "/weights/" in info.filename) < 20e6


def test_the_command_is_declared(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "dissect = ganatomy.cli:main" in wheel.read(name).decode()


def test_files_stay_short_and_nothing_is_unpickled() -> None:
    for folder in (".", "dissect", "hooks", "reports", "segmenters", "tests"):
        for path in (ROOT / folder).glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert text.count("\n") <= 700, path
            if folder != "tests":
                assert "weights_only=False" not in text
                assert "pickle.load" not in text
