"""The examples in docstrings are what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2]
MODULES = [
    path.relative_to(PACKAGE)
    for folder in ("dissect", "hooks", "segmenters", "reports")
    for path in sorted((PACKAGE / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_examples_of_docstrings_hold(path: Path) -> None:
    module = importlib.import_module(".".join(["ganatomy", *path.with_suffix("").parts]))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
