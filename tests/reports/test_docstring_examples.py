"""The examples in docstrings of reports give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("rows", "figures", "run_data", "terminal.screen", "terminal.results", "terminal.run_tables")


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"ganatomy.reports.{name}"))
    assert tried > 0
    assert failed == 0
