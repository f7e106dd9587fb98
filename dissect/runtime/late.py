"""The code above a result that the result's methods call, imported when such a method runs.

A result shows itself in a notebook, draws its figures and hands itself to the functions of `ganatomy.dissect`. All of
that reads results, and so lies above them. Here, and nowhere else, the arrow points upwards: the three imports are
named as exceptions in the contract of pyproject.toml. No measurement depends on them.
"""

from __future__ import annotations

from types import ModuleType


def functions() -> ModuleType:
    """`ganatomy.dissect`, the public functions."""
    from ... import dissect

    return dissect


def notebook() -> ModuleType:
    """Results as HTML."""
    from ...reports import notebook

    return notebook


def plots() -> ModuleType:
    """Results as figures of matplotlib."""
    from ...reports import plots

    return plots
