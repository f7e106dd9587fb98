"""Hooks that read and change the outputs of layers of any network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .above import Above
    from .edit import Edit, edited
    from .tap import Tap

__all__ = ["Above", "Edit", "Tap", "edited"]

_HOMES = {"Above": "above", "Edit": "edit", "edited": "edit", "Tap": "tap"}


def __getattr__(name: str) -> Any:
    # torch is imported when a hook is first used, not when an error class is
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
