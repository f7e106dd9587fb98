"""A notebook in a real kernel: what its cells put out."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganatomy.dissect import Dissection

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.slow

CELLS = (
    "from ganatomy import dissect\nrun = dissect.load({folder!r})",
    "run",
    "run.unit(3).show(count=5)",
    "run.sample(7).show()",
    "run.unit(3).images(1)[0]",
    "run.plot_units()",
    "print(run)",
    "run['redd']",
)


@pytest.fixture
def executed(found: Dissection) -> list[Any]:
    cells = [nbformat.v4.new_code_cell(text.format(folder=str(found.folder))) for text in CELLS]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=120, allow_errors=True).execute()
    return list(book.cells)


def test_cells_show_pictures(executed: list[Any], found: Dissection) -> None:
    outputs = [cell.outputs for cell in executed]
    assert outputs[0] == []
    assert outputs[1][0].data["text/html"].count("<img") == 8
    assert outputs[1][0].data["text/plain"].startswith("Dissection: planted")
    assert outputs[2][0].data["text/html"].count("<img") == 5
    assert outputs[3][0].data["text/html"].count("<img") == 2
    image = Image.open(io.BytesIO(base64.b64decode(outputs[4][0].data["image/png"])))
    stored = found.spool.gather("images", found.unit(3).samples[:1])[0]
    assert np.array_equal(np.asarray(image), stored)
    figure = next(output for output in outputs[5] if "image/png" in output.get("data", {}))
    assert Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"]))).width > 300
    assert outputs[6][0].text.count("\n") == 3
    assert "Did you mean red" in outputs[7][-1].evalue
    assert len("".join(outputs[7][-1].traceback).splitlines()) == 1


def test_no_cell_warns(executed: list[Any], tmp_path: Path) -> None:
    assert not [output for cell in executed for output in cell.outputs if output.get("name") == "stderr"]
